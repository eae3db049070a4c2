#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 3
# Faults: of all that the driver asks for in a session's life, memory and I/O, one after the other is refused.

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so are its variables
load lib/common
load lib/devices
load lib/stamped
load lib/faults

# All code of modules, while there is no module yet whose place could be known.
MODULES=(0xffffffffa0000000 0xffffffffff000000)

setup_file() {
	# Hundreds of rounds.
	export BATS_TEST_TIMEOUT=$((${BATS_TEST_TIMEOUT:-1800} * 2))
}

setup() {
	common_setup
	skip_unless_faults
	ORIGIN=$(disk 5)
	DIFF=$(disk 4)
}

teardown() {
	[[ -z $FAULT ]] || printf 'at fault %s\n' "$FAULT"
	common_teardown
}

# refused_or_done SESSION ERRNO...: takes it, which may fail with one of these; if it did, nothing has changed, `error` says
# why, and the next take succeeds. RESULT is the errno.
refused_or_done() {
	local session=$1 text
	shift
	RESULT=$(put "$SESSIONS/$session/active" 1) || [[ -n $RESULT ]] || fail 'put has said nothing'
	fault_disarm "$KIND"
	[[ -n $RESULT ]] || return 0
	[[ " $* " == *" $RESULT "* ]] || fail "the take was refused with $RESULT"
	[[ $(session_get "$session" state) == configured ]]
	text=$(session_get "$session" error)
	[[ $text == "$RESULT: "* ]] || fail "refused with $RESULT, and error says: $text"
	put "$SESSIONS/$session/active" 1
}

# --- loading ---------------------------------------------------------------------------------------------------------

load_with_fault() {
	module_unload
	fault_put failslab task-filter=1
	fault_arm failslab "$1" "${MODULES[@]}"
	bash -c 'echo 1 >/proc/self/make-it-fail && exec insmod "$0"' "$KO" 2>"$BATS_TEST_TMPDIR/said" || true
	fault_disarm failslab
	if module_loaded; then
		[[ -d $SESSIONS && -d $TRACKERS ]] || fail 'half of it was loaded'
	else
		grep -q 'Cannot allocate memory' "$BATS_TEST_TMPDIR/said" || fail "$(cat "$BATS_TEST_TMPDIR/said")"
		[[ ! -e $CONFIG ]] || fail "$CONFIG without a module"
		module_load
	fi
}

@test "faults: loading the module, allocation by allocation" {
	# The kernel says where a cache could not be made.
	expect_log '[Cc]all [Tt]race'
	RELOADS=1 each_fault failslab load_with_fault
}

# --- configuring -----------------------------------------------------------------------------------------------------

configure_with_fault() {
	local step
	fault_arm failslab "$1"
	for step in 1 2; do
		[[ -d $SESSIONS/s ]] || mkdir "$SESSIONS/s" || true
		[[ -d $SESSIONS/s/s1 ]] || mkdir "$SESSIONS/s/s1" || true
		put "$SESSIONS/s/s1/device" "$ORIGIN" >/dev/null || true
		put "$SESSIONS/s/diff_file" "$DIFF" >/dev/null || true
		fault_disarm failslab
	done 2>/dev/null
	[[ $(<"$SESSIONS/s/s1/device") == "$ORIGIN" && $(session_get s diff_file) == "$DIFF" ]]
	session_destroy s
}

@test "faults: configuring a session, allocation by allocation" {
	each_fault failslab configure_with_fault
}

# --- taking and releasing --------------------------------------------------------------------------------------------

# take_with_fault N: of a session of DEVICES, with differences in TARGET.
take_with_fault() {
	session_make s "$TARGET" "${DEVICES[@]}"
	fault_arm "$KIND" "$1"
	refused_or_done s ENOMEM
	# Not the superblock: a file system that is mounted writes there when it is thawed.
	cmp -i 4096 -n 61440 "$(image_of s s1)" "${DEVICES[0]}"
	session_destroy s
}

@test "faults: taking a session, allocation by allocation" {
	KIND=failslab TARGET=$DIFF DEVICES=("$ORIGIN")
	FEWEST=50 each_fault failslab take_with_fault
}

@test "faults: taking two origins with a file system, with differences in a file, allocation by allocation" {
	local dir
	mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "$ORIGIN"
	mkfs.ext4 -q "$DIFF"
	mount_test "$ORIGIN" origin >/dev/null
	dir=$(mount_test "$DIFF" diff)
	KIND=failslab TARGET=$dir/diff DEVICES=("$ORIGIN" "$(disk 3)")
	FEWEST=50 each_fault failslab take_with_fault
	rmdir "$dir/lost+found"
	[[ -z $(ls -A "$dir") ]]
	umount /mnt/test-origin /mnt/test-diff
	e2fsck -fn "$ORIGIN"
	e2fsck -fn "$DIFF"
}

release_with_fault() {
	session_of "$DIFF" "$ORIGIN"
	fault_arm failslab "$1"
	put "$SESSIONS/s/active" 0
	fault_disarm failslab
	session_destroy s
}

@test "faults: releasing a session, allocation by allocation" {
	FEWEST=0 each_fault failslab release_with_fault
}

# --- tracking --------------------------------------------------------------------------------------------------------

track_with_fault() {
	local step
	session_make s "$DIFF" "$ORIGIN"
	fault_arm failslab "$1"
	for step in 1 2; do
		[[ -d $TRACKERS/t ]] || mkdir "$TRACKERS/t" || true
		put "$TRACKERS/t/device" "$ORIGIN" >/dev/null || true
		put "$TRACKERS/t/enabled" 1 >/dev/null || true
		[[ $step -eq 2 ]] || put "$SESSIONS/s/active" 1 >/dev/null || true
		fault_disarm failslab
	done 2>/dev/null
	[[ $(<"$TRACKERS/t/enabled") == 1 ]]
	[[ $(session_get s active) == 1 ]] || put "$SESSIONS/s/active" 1
	session_destroy s
	tracker_destroy t
}

@test "faults: tracking changes, allocation by allocation" {
	KIND=failslab
	skip_unless_feature cbt
	FEWEST=50 each_fault failslab track_with_fault
}

# --- I/O -------------------------------------------------------------------------------------------------------------

# io_with_fault N: a bit of everything, with the N-th fault of KIND. The origin's writes succeed, unless they may fail
# (ORIGIN_MAY_FAIL); the image is right or answers EIO.
io_with_fault() {
	local image code=0 allowed=0
	filled "$ORIGIN" --length 2M
	session_of "$DIFF" "$ORIGIN"
	image=$(image_of s s1)
	fault_arm "$KIND" "$1"
	stamp storm "$ORIGIN" - --seed "$SEED" --taken-seq 1 --length 2M --writers 2 --count 12 --max-size 64K \
		>"$BATS_TEST_TMPDIR/said" 2>&1 || code=$?
	[[ -z ${ORIGIN_MAY_FAIL:-} ]] || ! fault_fired "$KIND" || allowed=3
	[[ $code -eq 0 || $code -eq $allowed ]] || fail "a write to the origin failed: $(cat "$BATS_TEST_TMPDIR/said")"
	code=0
	stamp verify "$image" --seed "$SEED" --seq 1 --length 2M >"$BATS_TEST_TMPDIR/said" 2>&1 || code=$?
	[[ $code -eq 0 || $code -eq 3 ]] || fail "the image has lied: $(cat "$BATS_TEST_TMPDIR/said")"
	dd if=/dev/urandom of="$image" bs=8K seek=512 count=1 oflag=direct status=none 2>/dev/null || true
	dd if="$image" of=/dev/null bs=8K skip=512 count=1 iflag=direct status=none 2>/dev/null || true
	fault_disarm "$KIND"
	if [[ $(session_get s state) == active ]]; then
		image_is "$image" --length 2M
	else
		[[ -n $(session_get s error) ]]
		image_fails "$image"
	fi
	session_destroy s
}

@test "faults: I/O, allocation by allocation (I1, I2)" {
	KIND=failslab
	FEWEST=20 each_fault failslab io_with_fault
}

@test "faults: I/O, page by page (I1, I2)" {
	# The allocator says that it had none, and where.
	expect_log '[Cc]all [Tt]race|page allocation failure'
	KIND=fail_page_alloc
	FEWEST=20 each_fault fail_page_alloc io_with_fault
}

# requests_fail DISK: the driver's.
requests_fail() {
	echo 1 >"/sys/block/${1##*/}/make-it-fail"
	# shellcheck disable=SC2016 # the inner shell expands it
	defer sh -c 'echo 0 >"$0"' "/sys/block/${1##*/}/make-it-fail"
}

@test "faults: I/O, request by request to the difference storage (I1, I2)" {
	requests_fail "$DIFF"
	KIND=fail_make_request
	FEWEST=1 each_fault fail_make_request io_with_fault
}

@test "faults: I/O, request by request to the origin (I2)" {
	requests_fail "$ORIGIN"
	KIND=fail_make_request ORIGIN_MAY_FAIL=1
	FEWEST=10 each_fault fail_make_request io_with_fault
}
