# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What every suite has in common, in a test machine. A suite begins with:
#
#	load lib/common
#	setup() { common_setup; }
#	teardown() { common_teardown; }
#
# common_setup loads the module; common_teardown fails the test if it left anything behind (a session, a tracker, an
# image, a device-mapper or loop device, a reference to the module, a warning in the kernel's log), removes what was
# left, unloads the module and makes the test disks blank: it has to be the last command of teardown. Mounts below
# /mnt/test* are unmounted without a word, and `defer` names what else is to be undone whatever becomes of the test.

bats_require_minimum_version 1.8.0

KO=${BLKSNAP_KO:-/blksnap/build/blksnap.ko}
CONFIG=/sys/kernel/config/blksnap
SESSIONS=$CONFIG/sessions
TRACKERS=$CONFIG/trackers
# shellcheck disable=SC2034 # of suites
MEMORY_LIMIT=/sys/module/blksnap/parameters/memory_limit
TRACING=/sys/kernel/tracing

# bats notes where it is before every command, which takes far longer than the command on an emulated CPU: not in here
# (common_trace). A failure in a helper is shown as one of the test's line that called it.
COMMON_DIR=${BASH_SOURCE[0]%/*}
# shellcheck source=tests/lib/log.bash
. "$COMMON_DIR/log.bash"
BATS_DEBUG_EXCLUDE_PATHS+=("$COMMON_DIR")

declare -a COMMON_EXPECTED=() COMMON_DEFERRED=()
# What is put behind the name of a disk, where a suite takes a partition for it; and what session_make is to set with the
# difference storage DIFF (lib/diffs).
declare -A DISK_SUFFIX=()
DIFF='' DIFF_LIMIT=''
COMMON_BEGIN='' FOUND='' UDEV_AWAY=''
declare -a NEWS=() LEFT=()
# What there was of each kind that a test may leave behind (find_KIND), when it began. Global, since bats loads this in a function.
declare -gA COMMON_BEFORE=([dm]='' [loops]='' [md]='')

# Says why and fails.
fail() {
	printf '%s\n' "$*"
	return 1
}

# settle: waits until udev has dealt with all events so far, if it is there. On the debug kernel the daemon was seen to hang up on who asks.
settle() {
	local timeout=$((60 * ${BLKSNAP_SLOW:-1}))
	[[ -z $UDEV_AWAY ]] || return 0
	udevadm settle --timeout="$timeout" || udevadm settle --timeout="$timeout"
}

# udev_away: nobody looks at images that come and go, which costs more than the take itself; until udev_back, or the end of
# the test. Device-mapper tables and partitions have to be left alone meanwhile.
udev_away() {
	udevadm control --exit --timeout=$((60 * ${BLKSNAP_SLOW:-1}))
	UDEV_AWAY=1
	defer udev_back
}

udev_back() {
	local fd udevd=/lib/systemd/systemd-udevd
	[[ -n $UDEV_AWAY ]] || return 0
	[[ -x $udevd ]] || udevd=/usr$udevd
	# It outlives the test, and bats waits for whoever has what it reads results from: none of that is left to it.
	(
		for fd in /proc/self/fd/*; do
			fd=${fd##*/}
			[[ $fd -lt 3 ]] || eval "exec $fd>&-"
		done
		exec "$udevd" --daemon </dev/null >/dev/null 2>&1
	)
	UDEV_AWAY=''
	settle
}

# wait_until SECONDS COMMAND...: until it succeeds; fails when it does not in time. On a slow kernel there is more time.
wait_until() {
	local seconds=$(($1 * ${BLKSNAP_SLOW:-1})) end
	shift
	end=$((SECONDS + seconds))
	until "$@"; do
		[[ $SECONDS -lt $end ]] || fail "not within $seconds s: $*" || return
		sleep 0.1
	done
}

# tracing: makes $TRACING available.
tracing() {
	[[ -e $TRACING/events ]] || mount -t tracefs none "$TRACING"
}

# trace EVENT: $TRACING/trace has these events from now on, and no others.
trace() {
	tracing
	echo >"$TRACING/trace"
	echo 1 >"$TRACING/events/$1/enable"
	defer eval "echo 0 >$TRACING/events/$1/enable"
}

# defer COMMAND...: to be run at the end of the test, whatever becomes of it; the last one first.
defer() {
	COMMON_DEFERRED+=("$(printf '%q ' "$@")")
}

# scaled COUNT: as often as that, for a run of the usual length; more often in a longer one (tests/run --scale).
scaled() {
	printf '%d\n' $(($1 * ${BLKSNAP_SCALE:-1}))
}

# rounds COUNT: the same, and a third of it in a short run (tests/run --short): where each round looks for the same fault.
rounds() {
	local count
	count=$(scaled "$1")
	printf '%d\n' $((${BLKSNAP_SHORT:-0} ? (count + 2) / 3 : count))
}

# long: skips what takes minutes, in a short run.
long() {
	[[ ${BLKSNAP_SHORT:-0} -eq 0 ]] || skip 'a long one: not in a short run'
}

# --- disks -----------------------------------------------------------------------------------------------------------

# disk N: prints the device of test disk N (1 to 4 of 1 GiB, 5 and 6 of 256 MiB, 6 with blocks of 4096 bytes, 7 and 8 of
# 5 GiB).
disk() {
	local path
	path=$(readlink -e "/dev/disk/by-id/virtio-t$1${DISK_SUFFIX[$1]:-}") || fail "no test disk $1" >&2 || return
	printf '%s\n' "$path"
}

# major_minor DEVICE: prints MAJ:MIN.
major_minor() {
	lsblk -dnro MAJ:MIN "$1"
}

# mount_test DEVICE NAME [OPTIONS]: mounts it on /mnt/test-NAME, and prints that directory.
mount_test() {
	mkdir -p "/mnt/test-$2"
	mount ${3:+-o "$3"} "$1" "/mnt/test-$2" && printf '/mnt/test-%s\n' "$2"
}

# Makes the test disks that were written to all zeros again.
common_blank_disks() {
	local dev name serial stat blank dirty=()
	for name in /sys/block/vd*; do
		name=${name##*/}
		# A serial number has no end of line.
		read -r serial <"/sys/block/$name/serial" || true
		[[ $serial == t[0-9]* ]] || continue
		read -ra stat <"/sys/block/$name/stat"
		# How much was written and discarded, now and when it was last made blank.
		[[ ${stat[4]} -ne 0 || ${stat[11]:-0} -ne 0 ]] || continue
		blank=''
		[[ ! -e /run/blank-$name ]] || read -r blank <"/run/blank-$name"
		[[ $blank != "${stat[4]} ${stat[11]:-0}" ]] || continue
		dirty+=("/dev/$name")
	done
	[[ ${#dirty[@]} -gt 0 ]] || return 0
	for dev in "${dirty[@]}"; do
		blkdiscard -f "$dev" 2>/dev/null || fail "$dev cannot be made blank" || return
		partx -d "$dev" 2>/dev/null || true
	done
	settle
	for dev in "${dirty[@]}"; do
		read -ra stat <"/sys/block/${dev##*/}/stat"
		printf '%s %s\n' "${stat[4]}" "${stat[11]:-0}" >"/run/blank-${dev##*/}"
	done
}

# --- the kernel's log ------------------------------------------------------------------------------------------------

# Marks where the log of this test begins. What came before is not shown any more: the log is read often. What is bad in it, and no test
# has seen, is kept for the end of the suite (tests/vm/suites): it is not this test's.
common_log_begin() {
	log_unseen "$(dmesg --notime --read-clear)" >>"$LOG_UNSEEN"
	COMMON_EXPECTED=()
	COMMON_BEGIN="blksnap-test: begin $BASHPID.$RANDOM $BATS_TEST_NUMBER ${BATS_TEST_DESCRIPTION:-}"
	printf '<6>%s\n' "$COMMON_BEGIN" >/dev/kmsg
}

# log_since: prints the kernel's log since the test began.
log_since() {
	dmesg --notime | awk -v begin="$COMMON_BEGIN" '
		{ lines[++n] = $0 }
		index($0, begin) { n = 0 }
		END { for (i = 1; i <= n; i++) print lines[i] }'
}

# log_has REGEX: the log has such a line since the test began.
log_has() {
	log_since | grep -Eq -- "$1" || fail "not in the kernel's log: $1"
}

# expect_log REGEX: such lines may be in the log.
expect_log() {
	COMMON_EXPECTED+=("$1")
}

# Fails if the log has anything bad in it, and shows it.
common_log_check() {
	local log bad pattern
	# Mostly there is nothing. This finds more than there is in one line, and so does a log that is too long for it.
	log=$(dmesg --notime)
	[[ ${#log} -gt 20000 || $log =~ $BAD_LOG ]] || return 0
	log=$(log_since)
	bad=$log
	for pattern in "${COMMON_EXPECTED[@]}"; do
		bad=$(grep -Ev -- "$pattern" <<<"$bad" || true)
	done
	bad=$(grep -E -- "$BAD_LOG" <<<"$bad" || true)
	[[ -n $bad ]] || return 0
	printf 'bad in the kernel log: %s\n' "$bad"
	grep -E -A 40 -- "$BAD_LOG" <<<"$log" | head -n 120
	return 1
}

# --- the module ------------------------------------------------------------------------------------------------------

module_loaded() {
	[[ -d /sys/module/blksnap ]]
}

# module_load [PARAMETER=VALUE...]
module_load() {
	local needed
	# Once in each machine.
	if [[ ! -e /run/blksnap-needed ]]; then
		needed=$(modinfo -F depends "$KO")
		# shellcheck disable=SC2086 # a list of names
		[[ -z $needed ]] || modprobe -a ${needed//,/ }
		touch /run/blksnap-needed
	fi
	insmod "$KO" "$@" || return
	module_note
	[[ -d $SESSIONS && -d $TRACKERS ]] || fail "the module has no $SESSIONS or $TRACKERS"
}

# Where the module's code is: in `start` and `end` of the caller. Without a process: where it is needed, many would be made.
module_range() {
	local name size
	while read -r name size _ _ _ start _; do
		[[ $name != blksnap ]] || break
	done </proc/modules
	[[ $name == blksnap ]] && printf -v end '0x%x' $((start + size))
}

# module_note: that, for who looks for what it has left in memory (vm/leaks); on kernels where that can be found.
module_note() {
	local start='' end=''
	[[ -e /sys/kernel/debug/slab/kmalloc-64/alloc_traces ]] || return 0
	module_range
	printf '%s %s\n' "$start" "$end" >>/run/blksnap-places
}

module_unused() {
	local references
	read -r references </sys/module/blksnap/refcnt && [[ $references -eq 0 ]]
}

# module_unload: fails while something uses it.
module_unload() {
	module_unused || settle
	wait_until 10 module_unused || return
	rmmod blksnap
}

# --- the start and the end of a test ---------------------------------------------------------------------------------

# What there is of some kind, a name a line, in FOUND. This and what follows is done for each test, and a process takes long to
# make on an emulated CPU: so hardly any is.

find_dm() {
	local file name
	FOUND=''
	for file in /sys/block/dm-*/dm/name; do
		[[ ! -e $file ]] || { read -r name <"$file" && FOUND+=$name$'\n'; }
	done
}

find_loops() {
	local dir
	FOUND=''
	for dir in /sys/block/loop*/loop; do
		dir=${dir%/loop}
		[[ ! -d $dir/loop ]] || FOUND+=/dev/${dir##*/}$'\n'
	done
}

find_md() {
	local dir
	FOUND=''
	for dir in /sys/block/*/md; do
		dir=${dir%/md}
		[[ ! -d $dir ]] || FOUND+=${dir##*/}$'\n'
	done
}

# Runs a function without bats' notes on every command, and returns what it returns.
common_untraced() {
	local trace status=0
	# In the end of a test that has failed there is none.
	trace=$(trap -p DEBUG)
	trap - DEBUG
	"$@" || status=$?
	eval "$trace"
	return "$status"
}

# common_trace: bats is not asked any more whether it wants to note where it is in here, either.
common_trace() {
	# shellcheck disable=SC2016 # they are of the time when it runs
	trap '[[ $BASH_SOURCE == "$COMMON_DIR"* ]] || bats_debug_trap "$BASH_SOURCE"' DEBUG
}

# common_setup [PARAMETER=VALUE...]: loads the module, with these parameters.
common_setup() {
	common_trace
	common_untraced common_begin
	[[ ${BLKSNAP_UNTIL:-0} -eq 0 || $EPOCHSECONDS -lt $BLKSNAP_UNTIL ]] || skip 'no time was left for it'
	common_untraced module_load "$@"
}

common_begin() {
	local kind
	COMMON_DEFERRED=()
	common_log_begin
	! module_loaded || fail "the module is still loaded, from a test before this one" || return
	[[ -e $KO ]] || fail "there is no module to test" || return
	for kind in "${!COMMON_BEFORE[@]}"; do
		"find_$kind"
		COMMON_BEFORE[$kind]=$FOUND
	done
}

# common_news KIND: what there is of it, and was not when the test began, in the array NEWS.
common_news() {
	local before=${COMMON_BEFORE[$1]} line
	NEWS=()
	"find_$1"
	while [[ -n $FOUND ]]; do
		line=${FOUND%%$'\n'*}
		FOUND=${FOUND#*$'\n'}
		[[ $'\n'$before == *$'\n'"$line"$'\n'* ]] || NEWS+=("$line")
	done
}

# What this test left behind, in the array LEFT.
common_look() {
	local item kind
	LEFT=()
	for item in "$SESSIONS"/* "$TRACKERS"/* /sys/block/blksnap*; do
		[[ ! -d $item ]] || LEFT+=("$item")
	done
	for kind in "${!COMMON_BEFORE[@]}"; do
		common_news "$kind"
		LEFT+=("${NEWS[@]}")
	done
}

# Prints that.
common_left() {
	common_look
	[[ ${#LEFT[@]} -eq 0 ]] || printf 'left behind: %s\n' "${LEFT[@]}"
}

# Unmounts /mnt/test*, the last mount first.
common_umount() {
	local dir mounts=() i
	while read -r _ dir _; do
		[[ $dir != /mnt/test* ]] || mounts+=("$dir")
	done </proc/self/mounts
	for ((i = ${#mounts[@]} - 1; i >= 0; i--)); do
		umount "${mounts[i]}" || umount -l "${mounts[i]}" || true
	done
}

# Ends the processes that still use a mount or an image of the test.
common_end_users() {
	local image
	for image in /dev/blksnap*[0-9]; do
		[[ ! -b $image ]] || fuser -ks "$image" || true
	done
}

common_remove_left() {
	local item rounds
	common_end_users
	for item in "$SESSIONS"/*; do
		[[ ! -d $item ]] || session_destroy "${item##*/}" || true
	done
	for item in "$TRACKERS"/*; do
		[[ ! -d $item ]] || tracker_destroy "${item##*/}" || true
	done
	common_news md
	for item in "${NEWS[@]}"; do
		mdadm --stop "/dev/$item" || true
	done
	# Tables may lie on one another: as many rounds as there are tables.
	common_news dm
	rounds=${#NEWS[@]}
	for (( ; rounds > 0; rounds--)); do
		common_news dm
		for item in "${NEWS[@]}"; do
			dmsetup remove --retry "$item" 2>/dev/null || true
		done
	done
	common_news loops
	for item in "${NEWS[@]}"; do
		losetup -d "$item" || true
	done
}

common_teardown() {
	common_untraced common_end
}

common_end() {
	local i bad=0
	cd / || bad=1
	for ((i = ${#COMMON_DEFERRED[@]} - 1; i >= 0; i--)); do
		eval "${COMMON_DEFERRED[i]}" || {
			printf 'failed at the end: %s\n' "${COMMON_DEFERRED[i]}"
			bad=1
		}
	done
	COMMON_DEFERRED=()
	common_umount
	settle || bad=1
	common_look
	if [[ ${#LEFT[@]} -gt 0 ]]; then
		# A test that failed half-way has an excuse for leaving things.
		[[ -z ${BATS_TEST_COMPLETED:-} ]] || {
			printf 'left behind: %s\n' "${LEFT[@]}"
			bad=1
		}
		common_remove_left
		settle || bad=1
		common_look
		[[ ${#LEFT[@]} -eq 0 ]] || {
			printf 'cannot be removed: %s\n' "${LEFT[@]}"
			bad=1
		}
	fi
	if module_loaded; then
		module_unload || {
			printf 'the module cannot be unloaded, it has %s references\n' "$(</sys/module/blksnap/refcnt)"
			bad=1
		}
	fi
	[[ ! -e $CONFIG ]] || module_loaded || {
		printf '%s is still there\n' "$CONFIG"
		bad=1
	}
	# They lie in memory, and bats keeps them until its last test.
	! compgen -G "$BATS_TEST_TMPDIR/*" >/dev/null || rm -rf --one-file-system "${BATS_TEST_TMPDIR:?}"/* || bad=1
	common_blank_disks || bad=1
	# What comes from here on somebody else looks at as well.
	printf '<6>%s\n' "$LOG_LOOKED" >/dev/kmsg
	common_log_check || bad=1
	return "$bad"
}

# --- sessions --------------------------------------------------------------------------------------------------------

# session_make NAME DIFF DEVICE...: a session with the snapshots s1, s2, ... of the devices; not taken yet. With an
# empty DIFF, diff_file is not set.
session_make() {
	local name=$1 diff=$2 device i=0
	shift 2
	mkdir "$SESSIONS/$name"
	[[ -z $diff ]] || put "$SESSIONS/$name/diff_file" "$diff"
	if [[ -n $DIFF_LIMIT && $diff == "$DIFF" ]]; then
		put "$SESSIONS/$name/diff_limit" "$DIFF_LIMIT"
		# So that it begins with less than it may have.
		put "$SESSIONS/$name/diff_low" 16M
	fi
	for device; do
		i=$((i + 1))
		mkdir "$SESSIONS/$name/s$i"
		put "$SESSIONS/$name/s$i/device" "$device"
	done
}

# session_take NAME: takes the snapshots and waits for udev.
session_take() {
	put "$SESSIONS/$1/active" 1 || fail "not taken: $(cat "$SESSIONS/$1/error")" || return
	settle
}

# session_release NAME: lets the snapshots go; the session stays, configured.
session_release() {
	put "$SESSIONS/$1/active" 0 || fail "not released: $(cat "$SESSIONS/$1/error")" || return
	settle
}

# empty_takes NAME COUNT: takes and releases it so often, as fast as can be: most of their time is waiting for readers.
empty_takes() {
	common_untraced untraced_empty_takes "$@"
}

untraced_empty_takes() {
	local active=$SESSIONS/$1/active expedited=/sys/kernel/rcu_expedited before i
	udev_away
	before=$(<"$expedited")
	defer eval "echo $before >$expedited"
	echo 1 >"$expedited"
	for ((i = 0; i < $2; i++)); do
		echo 1 >"$active" || break
		echo 0 >"$active" || break
	done
	echo "$before" >"$expedited"
	udev_back
	[[ $i -eq $2 ]] || fail "take $((i + 1)) of $2: $(cat "$SESSIONS/$1/error")"
}

# session_destroy NAME: releases it if it is active, and removes it.
session_destroy() {
	local dir=$SESSIONS/$1 snapshot
	[[ $(cat "$dir/active") == 0 ]] || session_release "$1" || return
	for snapshot in "$dir"/*/; do
		[[ ! -d $snapshot ]] || rmdir "$snapshot" || return
	done
	rmdir "$dir"
}

# session_of DIFF DEVICE...: the usual case in one step: session "s" made and taken.
session_of() {
	session_make s "$@"
	session_take s
}

# session_get NAME ATTRIBUTE
session_get() {
	cat "$SESSIONS/$1/$2"
}

# state_is SESSION STATE
state_is() {
	[[ $(session_get "$1" state) == "$2" ]]
}

# image_of SESSION SNAPSHOT: prints the image's device.
image_of() {
	local image
	image=$(cat "$SESSIONS/$1/$2/image")
	[[ -n $image ]] || fail "$1/$2 has no image" >&2 || return
	printf '%s\n' "$image"
}

# stat_of IMAGE ATTRIBUTE: prints it from the image's directory in sysfs.
stat_of() {
	cat "/sys/block/${1##*/}/blksnap/$2"
}

# has_passed_more IMAGE WRITES: than so many.
has_passed_more() {
	[[ $(stat_of "$1" writes_passed) -gt $2 ]]
}

# tracker_make NAME DEVICE [BLOCK_SIZE]: a tracker, enabled.
tracker_make() {
	mkdir "$TRACKERS/$1"
	put "$TRACKERS/$1/device" "$2"
	[[ $# -lt 3 ]] || put "$TRACKERS/$1/block_size" "$3"
	put "$TRACKERS/$1/enabled" 1
}

# tracker_destroy NAME: disables and removes it.
tracker_destroy() {
	[[ $(cat "$TRACKERS/$1/enabled") == 0 ]] || put "$TRACKERS/$1/enabled" 0 || return
	rmdir "$TRACKERS/$1"
}

# skip_unless_feature WORD: for what this build cannot do on this kernel.
skip_unless_feature() {
	grep -qx -- "$1" "$CONFIG/features" || skip "no feature $1 on this kernel"
}

# --- refusals --------------------------------------------------------------------------------------------------------

# refuses ERRNO COMMAND...: the command fails, with that errno (as put names it, or as other programs word it). What it
# said is in REFUSAL then.
refuses() {
	local errno=$1 code=0 text
	shift
	REFUSAL=$(LC_ALL=C "$@" 2>&1) || code=$?
	[[ $code -ne 0 ]] || fail "not refused, $errno was expected: $*" || return
	[[ $'\n'$REFUSAL$'\n' != *$'\n'"$errno"$'\n'* ]] || return 0
	text=$(put -e "$errno") || return
	[[ $REFUSAL == *": $text"* ]] || fail "refused with another error than $errno: $* says: $REFUSAL"
}
