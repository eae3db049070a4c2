#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 3
# Faults: of all that the driver asks for in a session's life, memory and I/O, one after the other is refused.

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so are its variables
load lib/common
load lib/devices
load lib/stamped
load lib/tracking
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
	SAID=$BATS_TEST_TMPDIR/said
	quick_rounds
}

teardown() {
	[[ -z $FAULT ]] || printf 'at fault %s\n' "$FAULT"
	common_teardown
}

# Most of a round would be waiting: for udev, which looks at each image, and for readers.
quick_rounds() {
	local expedited=/sys/kernel/rcu_expedited
	udev_away
	defer eval "echo $(<"$expedited") >$expedited"
	echo 1 >"$expedited"
}

# What origins hold, behind their file system if they have one. STAMP is the sequence that they have there.
STAMPED=(--offset 200M --length 64K)
FS_SIZE=64M

# stamped DEVICE...
stamped() {
	local device
	STAMP=1
	for device; do
		filled "$device" "${STAMPED[@]}" >/dev/null
	done
}

# images_are DEVICE...: as they were taken, also when that is overwritten.
images_are() {
	local device i=0
	for device; do
		i=$((i + 1))
		stamp fill "$device" --seed "$SEED" --seq $((STAMP + 1)) "${STAMPED[@]}" >/dev/null
		attribute "$SESSIONS/s/s$i/image"
		stamp verify "$VALUE" --seed "$SEED" --seq "$STAMP" "${STAMPED[@]}" >"$SAID" 2>&1 || fail "the image lies: $(cat "$SAID")"
	done
	STAMP=$((STAMP + 1))
}

# attribute FILE: its first line, in VALUE.
attribute() {
	VALUE=''
	read -r VALUE <"$1" || true
}

# attribute_is FILE VALUE
attribute_is() {
	attribute "$1"
	[[ $VALUE == "$2" ]] || fail "$1 is $VALUE, not $2"
}

# Sessions as in lib/common, with few processes.

# begin DEVICE...: a session s of them, with differences in TARGET.
begin() {
	local device i=0 dirs=()
	for device; do
		i=$((i + 1))
		dirs+=("$SESSIONS/s/s$i")
	done
	mkdir "$SESSIONS/s" "${dirs[@]}"
	echo "$TARGET" >"$SESSIONS/s/diff_file"
	i=0
	for device; do
		echo "$device" >"${dirs[i]}/device"
		i=$((i + 1))
	done
}

# end: of that.
end() {
	attribute "$SESSIONS/s/active"
	[[ $VALUE == 0 ]] || echo 0 >"$SESSIONS/s/active"
	rmdir "$SESSIONS"/s/s? "$SESSIONS/s"
}

mkfs_small() {
	mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$1" "$FS_SIZE"
}

# storage_make: TARGET is a file that the take makes, on a file system of the disk DIFF.
storage_make() {
	mkfs_small "$DIFF"
	TARGET=$(mount_test "$DIFF" diff)/diff
}

# forget_storage: a file system has to read what it needs, where requests fail.
forget_storage() {
	[[ $KIND == fail_make_request && $TARGET != "$DIFF" ]] || return 0
	sync
	echo 3 >/proc/sys/vm/drop_caches
}

# storage_is_empty: nothing is left there but what mkfs has made.
storage_is_empty() {
	[[ $(ls -A /mnt/test-diff) == lost+found ]] || fail "left behind: $(ls -A /mnt/test-diff)"
}

# storage_check [OPTION]: unmounts it, and it is sound; with -p also if it has noted an error of its disk.
storage_check() {
	local code=0
	umount /mnt/test-diff
	e2fsck -f "${1:--n}" "$DIFF" >"$SAID" || code=$?
	[[ $code -eq 0 || ($# -gt 0 && $code -eq 1) ]] || fail "e2fsck: $code: $(cat "$SAID")"
}

# take_small: of session s; a storage of files has little room at first, and has to grow whenever it stores. The image
# is IMAGE.
take_small() {
	if [[ $TARGET == "$DIFF" ]]; then
		echo 1 >"$SESSIONS/s/active"
	else
		echo 64K >"$SESSIONS/s/diff_limit"
		echo 0 >"$SESSIONS/s/diff_low"
		echo 1 >"$SESSIONS/s/active"
		echo 32M >"$SESSIONS/s/diff_limit"
	fi
	attribute "$SESSIONS/s/s1/image"
	IMAGE=$VALUE
}

# has_failed: session s, after its take, for a reason; the image does not lie.
has_failed() {
	fault_fired "$KIND" || fail "it is $VALUE without a fault"
	attribute "$SESSIONS/s/error"
	[[ -n $VALUE ]] || fail 'it does not say why it failed'
	attribute "$SESSIONS/s/s1/image"
	image_fails "$VALUE"
}

# storage_is_left: nothing, or what the file system has refused to remove: the log says so, and others can.
storage_is_left() {
	[[ -e $TARGET ]] || return 0
	fault_fired "$KIND"
	dmesg --notime | tac | sed '/blksnap-test: fault/q' | grep -q 'blksnap: s: cannot remove diff: error -' ||
		fail "$TARGET is left, and nobody says why"
	rm "$TARGET"
}

# refused ERRNO ALLOWED...: the take, with one of these; nothing has changed, and `error` says why.
refused() {
	[[ " ${*:2} " == *" $1 "* ]] || fail "the take was refused with $1"
	attribute_is "$SESSIONS/s/state" configured
	attribute_is "$SESSIONS/s/active" 0
	attribute_is "$SESSIONS/s/s1/image" ''
	attribute "$SESSIONS/s/error"
	[[ $VALUE == "$1: "* ]] || fail "refused with $1, and error says: $VALUE"
	! compgen -G '/sys/block/blksnap*' || fail 'there are images'
	[[ $TARGET == "$DIFF" ]] || storage_is_left
}

# refused_or_done ERRNO...: the take fails with one of these or succeeds, also when it is tried again.
refused_or_done() {
	RESULT=$(put "$SESSIONS/s/active" 1) || [[ -n $RESULT ]] || fail 'put has said nothing'
	fault_disarm "$KIND"
	[[ -n $RESULT ]] || return 0
	refused "$RESULT" "$@"
	echo 1 >"$SESSIONS/s/active" || fail "the next take fails: $(cat "$SESSIONS/s/error")"
}

# --- who watches -----------------------------------------------------------------------------------------------------

@test "faults: what would find a fault of the driver is switched on, and knows the module" {
	# shellcheck disable=SC2034 # module_range sets them
	local start='' end='' cache checked=0
	# All that the module reads and writes is checked by KASAN, which the kernel has.
	grep -q ' kasan_report$' /proc/kallsyms
	grep -q __asan_report_store8_noabort "$KO"
	grep -q __ubsan_handle_out_of_bounds "$KO"
	grep -q '^ *debug_locks: *1$' /proc/lockdep_stats
	# slub looks at what the driver frees.
	for cache in /sys/kernel/slab/kmalloc-*; do
		[[ $(<"$cache/sanity_checks") == 1 && $(<"$cache/red_zone") == 1 && $(<"$cache/poison") == 1 &&
		$(<"$cache/store_user") == 1 ]] || continue
		checked=$((checked + 1))
	done
	[[ $checked -gt 5 ]] || fail "only $checked caches are checked"
	# It notes who asks; and where the module is has been noted.
	mkdir "$SESSIONS/s"
	grep -Eq '^ *[0-9]+ [a-z_]+\+.* \[blksnap\] ' /sys/kernel/debug/slab/kmalloc-*/alloc_traces
	rmdir "$SESSIONS/s"
	module_range
	grep -qx "$start $end" /run/blksnap-places
	! grep -qw 'kmemleak=off' /proc/cmdline || return 0
	# kmemleak knows the memory of the module, and when it was asked for; and it looks when it is told to.
	expect_log 'kmemleak: '
	echo "dump=$start" >/sys/kernel/debug/kmemleak
	log_has 'kmemleak: +comm "insmod"'
	echo scan >/sys/kernel/debug/kmemleak
}

# --- loading ---------------------------------------------------------------------------------------------------------

load_with_fault() {
	module_unload
	fault_put failslab task-filter=1
	fault_arm failslab "$1" "${MODULES[@]}"
	bash -c 'echo 1 >/proc/self/make-it-fail && exec insmod "$0"' "$KO" 2>"$SAID" || true
	fault_disarm failslab
	if module_loaded; then
		[[ -d $SESSIONS && -d $TRACKERS ]] || fail 'half of it was loaded'
	else
		grep -q 'Cannot allocate memory' "$SAID" || fail "$(cat "$SAID")"
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
	end
}

@test "faults: configuring a session, allocation by allocation" {
	each_fault failslab configure_with_fault
}

# destroy_with_fault N: rmdir and rmmod; both succeed.
destroy_with_fault() {
	session_make s "$DIFF" "$ORIGIN"
	fault_arm failslab "$1"
	rmdir "$SESSIONS/s/s1" "$SESSIONS/s"
	module_unload
	fault_disarm failslab
	module_load
}

@test "faults: removing a session and unloading the module, allocation by allocation" {
	RELOADS=1 FEWEST=0 each_fault failslab destroy_with_fault
}

# --- taking ----------------------------------------------------------------------------------------------------------

# take_with_fault N: of a session of DEVICES, with differences in TARGET.
take_with_fault() {
	begin "${DEVICES[@]}"
	fault_arm "$KIND" "$1"
	refused_or_done ENOMEM
	images_are "${DEVICES[@]}"
	end
}

# Some callees say what they had no memory for, and where; a WARNING would still be one.
no_memory_is_logged() {
	expect_log '[Cc]all [Tt]race|page allocation failure'
}

# Most of its hundreds of rounds are about what the pools of gate and image hold in reserve.
@test "faults: taking a session, allocation by allocation" {
	no_memory_is_logged
	KIND=failslab TARGET=$DIFF DEVICES=("$ORIGIN")
	stamped "${DEVICES[@]}"
	FEWEST=300 each_fault failslab take_with_fault
}

@test "faults: taking two origins with a file system, with differences in a file, allocation by allocation" {
	long
	no_memory_is_logged
	KIND=failslab DEVICES=("$ORIGIN" "$(disk 3)")
	mkfs_small "$ORIGIN"
	stamped "${DEVICES[@]}"
	mount_test "$ORIGIN" origin >/dev/null
	storage_make
	FEWEST=50 each_fault failslab take_with_fault
	storage_is_empty
	storage_check
	umount /mnt/test-origin
	e2fsck -fn "$ORIGIN"
}

# take_with_failed_request N: a file system may be unusable when a request of its own has failed, so there are new ones each
# time, and after a refusal.
take_with_failed_request() {
	local turn
	for turn in first second; do
		mkfs_small "$ORIGIN"
		storage_make
		mount_test "$ORIGIN" origin >/dev/null
		if [[ $turn == first ]]; then
			begin "$ORIGIN"
			forget_storage
			echo "$turn" >/mnt/test-origin/file
			fault_arm "$KIND" "$1"
		fi
		RESULT=$(put "$SESSIONS/s/active" 1) || [[ -n $RESULT ]]
		fault_disarm "$KIND"
		[[ -n $RESULT ]] || break
		[[ $turn == first ]]
		refused "$RESULT" EIO EROFS
		storage_is_empty
		storage_check -p
		umount /mnt/test-origin
	done
	# That a write of the file system has failed, as it was thawed, the device tells whoever asks first.
	sync "$ORIGIN" || fault_fired "$KIND"
	attribute "$SESSIONS/s/state"
	if [[ $VALUE == active ]]; then
		images_are "$ORIGIN"
	else
		has_failed
	fi
	end
	storage_is_empty
	storage_check -p
	umount /mnt/test-origin
}

@test "faults: taking an origin with a file system, with differences in a file, request by request" {
	KIND=fail_make_request
	stamped "$ORIGIN"
	requests_fail "$ORIGIN" "$DIFF"
	FEWEST=10 each_fault fail_make_request take_with_failed_request
}

# --- releasing -------------------------------------------------------------------------------------------------------

# preserved: a session s, of which some is in the storage, and some in memory. ROUND is what is written to the origin.
preserved() {
	begin "$ORIGIN"
	take_small
	stamp fill "$ORIGIN" --seed "$SEED" --seq "$ROUND" --length 384K >/dev/null
	# Who writes to an image waits until all is stored.
	dd if=/dev/urandom of="$IMAGE" bs=4K seek=512 count=1 oflag=direct status=none
	stamp fill "$ORIGIN" --seed "$SEED" --seq "$ROUND" --offset 384K --length 128K >/dev/null
	attribute_is "/sys/block/${IMAGE##*/}/blksnap/chunks_stored" 97
	attribute_is "/sys/block/${IMAGE##*/}/blksnap/chunks_in_memory" 32
}

# release_is_done: the origin is what was written to it since.
release_is_done() {
	attribute_is "$SESSIONS/s/active" 0
	attribute_is "$SESSIONS/s/state" configured
	! compgen -G '/sys/block/blksnap*' || fail 'there is still an image'
	stamp verify "$ORIGIN" --seed "$SEED" --seq "$ROUND" --length 512K >"$SAID" 2>&1 || fail "the origin is wrong: $(cat "$SAID")"
	end
}

release_with_fault() {
	preserved
	forget_storage
	fault_arm "$KIND" "$1"
	echo 0 >"$SESSIONS/s/active"
	fault_disarm "$KIND"
	release_is_done
	[[ $TARGET == "$DIFF" ]] || storage_is_left
}

@test "faults: releasing a session, allocation by allocation" {
	KIND=failslab TARGET=$DIFF
	FEWEST=2 each_fault failslab release_with_fault
}

@test "faults: releasing a session when there is no memory at all, and no I/O is done" {
	local kind made=() kinds=(failslab fail_page_alloc fail_make_request)
	TARGET=$DIFF
	requests_fail "$ORIGIN" "$DIFF"
	ROUND=1
	preserved
	for kind in "${kinds[@]}"; do
		fault_begin "$kind"
		fault_arm_all "$kind"
	done
	put "$SESSIONS/s/active" 0
	for kind in "${kinds[@]}"; do
		fault_disarm_all "$kind"
		made+=("$MADE")
	done
	# It asks for some to tell udev.
	[[ ${made[0]} -gt 0 && ${made[2]} -eq 0 ]] || fail "refused: ${made[*]} of ${kinds[*]}"
	release_is_done
}

@test "faults: releasing a session with differences in files, allocation by allocation" {
	KIND=failslab
	storage_make
	FEWEST=5 each_fault failslab release_with_fault
	storage_is_empty
	# What it could not do for want of memory, ext4 has noted as an error.
	storage_check -p
}

@test "faults: releasing a session with differences in files, request by request" {
	KIND=fail_make_request
	requests_fail "$ORIGIN" "$DIFF"
	storage_make
	FEWEST=1 each_fault fail_make_request release_with_fault
	storage_is_empty
	storage_check -p
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
	end
	tracker_destroy t
}

@test "faults: tracking changes, allocation by allocation" {
	KIND=failslab
	skip_unless_feature cbt
	no_memory_is_logged
	FEWEST=50 each_fault failslab track_with_fault
}

# --- I/O -------------------------------------------------------------------------------------------------------------

# io_begin: a session s, whose memory is soon full, of an origin that is filled up to LENGTH; with a tracker, if TRACKED.
io_begin() {
	filled "$ORIGIN" "${BLOCK[@]}" --length "$LENGTH" >/dev/null
	echo 4M >"$MEMORY_LIMIT"
	if [[ -n ${TRACKED:-} ]]; then
		mkdir "$TRACKERS/t"
		echo "$ORIGIN" >"$TRACKERS/t/device"
		echo 1 >"$TRACKERS/t/enabled"
	fi
	begin "$ORIGIN"
	take_small
}

# io_ends CODE WHAT COMMAND...: it ends with that code, or with 0. Its code is IO_CODE.
io_ends() {
	local allowed=$1 what=$2
	shift 2
	IO_CODE=0
	"$@" >"$SAID" 2>&1 || IO_CODE=$?
	[[ $IO_CODE -eq 0 || $IO_CODE -eq $allowed ]] || fail "$what: $(cat "$SAID")"
}

# origin_takes COMMAND...: writes to the origin succeed, unless they may fail (ORIGIN_MAY_FAIL) and a fault is why.
origin_takes() {
	io_ends "${ORIGIN_MAY_FAIL:-0}" 'writes to the origin' "$@"
	[[ $IO_CODE -eq 0 ]] || fault_fired "$KIND" || fail "writes to the origin failed without a fault: $(cat "$SAID")"
}

# image_has_written: what was written to the image is there, unless that cannot be read: then IO_CODE is not 0.
image_has_written() {
	IO_CODE=0
	cmp -n 8192 -i "0:$IMAGE_PLACE" "$WRITTEN" "$IMAGE" >"$SAID" 2>&1 || IO_CODE=$?
	[[ $IO_CODE -ne 1 ]] || fail "what was written to the image is not there: $(cat "$SAID")"
}

# io_with_fault N: a bit of everything, with the N-th fault of KIND: writes, BULK among them, of which the memory has room for
# half; image writes, and reads of what is in memory, in the storage and on the origin. The origin's writes succeed, unless
# they may fail; the image is right or answers EIO.
io_with_fault() {
	local bulk=1 written=0
	io_begin
	forget_storage
	fault_arm "$KIND" "$1"
	origin_takes stamp storm "$ORIGIN" - --seed "$SEED" "${BLOCK[@]}" --taken-seq 1 --length "$STORM_LENGTH" --writers 2 \
		--count "$STORM_COUNT" --max-size 64K
	if [[ -n $BULK ]]; then
		origin_takes stamp fill "$ORIGIN" --seed "$SEED" "${BLOCK[@]}" --seq 9 --offset 1M --length "$BULK"
		bulk=$IO_CODE
	fi
	! dd if="$WRITTEN" of="$IMAGE" bs=8K seek="$IMAGE_PLACE" count=1 oflag=direct,seek_bytes status=none 2>/dev/null || written=1
	if [[ $written -eq 1 ]]; then
		image_has_written
		[[ $IO_CODE -eq 0 ]] || fault_fired "$KIND"
	fi
	io_ends 3 'the image has lied' stamp verify "$IMAGE" --seed "$SEED" "${BLOCK[@]}" --seq 1 --length "$LENGTH"
	fault_disarm "$KIND"

	[[ $bulk -ne 0 ]] || stamp verify "$ORIGIN" --seed "$SEED" "${BLOCK[@]}" --seq 9 --offset 1M --length "$BULK" >"$SAID" 2>&1 ||
		fail "the origin is wrong: $(cat "$SAID")"
	io_note
	attribute "$SESSIONS/s/state"
	if [[ $VALUE == active ]]; then
		image_is "$IMAGE" "${BLOCK[@]}" --length "$LENGTH"
		if [[ $written -eq 1 ]]; then
			image_has_written
			[[ $IO_CODE -eq 0 ]] || fail 'what was written to the image cannot be read'
		fi
	else
		has_failed
	fi
	[[ -z ${TRACKED:-} ]] || io_was_tracked
	end
	[[ $TARGET == "$DIFF" ]] || storage_is_left
}

# For whoever reads the log.
io_note() {
	local dir=/sys/block/${IMAGE##*/}/blksnap said='' name
	for name in "$SESSIONS/s/state" "$SESSIONS/s/error" "$dir/chunks_stored" "$dir/diff_writes" "$dir/image_reads_diff" \
		"$SESSIONS/s/diff_size"; do
		attribute "$name"
		said+="${name##*/} $VALUE, "
	done
	printf '<6>blksnap-test: %s\n' "$said" >/dev/kmsg
}

# What was written is in the map of the next snapshot.
io_was_tracked() {
	local block map
	attribute "$TRACKERS/t/error"
	attribute_is "$TRACKERS/t/state" tracking
	echo 0 >"$SESSIONS/s/active"
	[[ $TARGET == "$DIFF" ]] || storage_is_left
	echo 1 >"$SESSIONS/s/active"
	attribute "$SESSIONS/s/s1/image"
	IMAGE=$VALUE
	block=$(cbt_of "$IMAGE" block_size)
	map=$(od -An -v -tu1 -w1 -j $((1048576 / block)) -N $((${BULK%M} * 1048576 / block)) "/sys/block/${IMAGE##*/}/cbt/map" |
		sort -nu | tr -d ' \n')
	[[ $map == 2 ]] || fail "the map has for what was written: $map"
	echo 0 >"$SESSIONS/s/active"
	echo 0 >"$TRACKERS/t/enabled"
	rmdir "$TRACKERS/t"
}

# Where nobody else writes to, and where the test of the image's writes has it from.
IMAGE_PLACE=16777216

io_setup() {
	WRITTEN=$BATS_TEST_TMPDIR/written
	head -c 8192 /dev/urandom >"$WRITTEN"
}

# The size of a stamp. A piece of which a read fails is read once more stamp by stamp, which may be many.
BLOCK=()

# Few pages, and each of them is asked for alone: what is stored is so for the image's writes.
small_amounts() {
	io_setup
	LENGTH=1M STORM_LENGTH=512K STORM_COUNT=6 BULK=''
}

# large_amounts MEBIBYTES: in large pieces; what is kept in memory is two of them.
large_amounts() {
	io_setup
	STORM_LENGTH=1M STORM_COUNT=6 BULK=$1M LENGTH=$(($1 + 1))M BLOCK=(--block 4K)
}

@test "faults: I/O, allocation by allocation (I1, I2)" {
	KIND=failslab TARGET=$DIFF
	large_amounts 3
	FEWEST=100 each_fault failslab io_with_fault
}

@test "faults: I/O, page by page (I1, I2)" {
	# The allocator says that it had none, and where.
	expect_log '[Cc]all [Tt]race|page allocation failure'
	KIND=fail_page_alloc TARGET=$DIFF
	small_amounts
	FEWEST=20 each_fault fail_page_alloc io_with_fault
}

@test "faults: I/O, request by request to the difference storage (I1, I2)" {
	requests_fail "$DIFF"
	KIND=fail_make_request TARGET=$DIFF
	large_amounts 5
	FEWEST=15 each_fault fail_make_request io_with_fault
}

@test "faults: I/O, request by request to the origin (I2)" {
	requests_fail "$ORIGIN"
	KIND=fail_make_request TARGET=$DIFF ORIGIN_MAY_FAIL=3
	small_amounts
	FEWEST=10 each_fault fail_make_request io_with_fault
}

@test "faults: I/O of an origin that is tracked, with differences in files that grow, allocation by allocation (I1, I2)" {
	skip_unless_feature cbt
	KIND=failslab TRACKED=1
	large_amounts 3
	storage_make
	FEWEST=100 each_fault failslab io_with_fault
	storage_check
}

@test "faults: I/O of an origin that is tracked, with differences in files that grow, request by request to their disk (I1, I2)" {
	skip_unless_feature cbt
	requests_fail "$DIFF"
	KIND=fail_make_request TRACKED=1
	large_amounts 5
	FEWEST=15 each_fault fail_make_request io_with_failed_request
}

# io_with_failed_request N: as above, and the file system may be unusable afterwards.
io_with_failed_request() {
	storage_make
	io_with_fault "$1"
	storage_check -p
}
