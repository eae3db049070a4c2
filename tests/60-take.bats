#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 22
# The take under load: writes that are anywhere on their way when it comes (parked in a throttle, delayed by a driver,
# split on their way down, held by another session, chained), origins upon origins, and the ends that it can have.

load lib/common
load lib/devices

setup() {
	common_setup
}

teardown() {
	common_teardown
}

# --- programs in the background --------------------------------------------------------------------------------------

declare -gA BACKGROUND=()

# background NAME COMMAND...: runs it. What it says is shown when it fails, see background_end.
background() {
	local name=$1
	shift
	"$@" >"$BATS_TEST_TMPDIR/$name.out" 2>&1 3>&- </dev/null &
	BACKGROUND[$name]=$!
	defer background_kill "$name"
}

background_kill() {
	[[ -n ${BACKGROUND[$1]:-} ]] || return 0
	kill -KILL "${BACKGROUND[$1]}" 2>/dev/null || true
	wait "${BACKGROUND[$1]}" 2>/dev/null || true
	unset "BACKGROUND[$1]"
}

background_runs() {
	kill -0 "${BACKGROUND[$1]}" 2>/dev/null
}

background_gone() {
	! background_runs "$1"
}

# background_end NAME: waits for it; fails if it failed.
background_end() {
	local code=0
	wait "${BACKGROUND[$1]}" || code=$?
	unset "BACKGROUND[$1]"
	[[ $code -eq 0 ]] || fail "$1 ended with $code: $(tail -n 30 "$BATS_TEST_TMPDIR/$1.out")"
}

# background_stop NAME...: asks them to end, and waits.
background_stop() {
	local name
	for name; do
		kill -TERM "${BACKGROUND[$name]}" || fail "$name has ended: $(cat "$BATS_TEST_TMPDIR/$name.out")" || return
	done
	for name; do
		background_end "$name" || return
	done
}

# storm NAME DEVICE LENGTH [OPTION...]: stamps (seed 60, sequence 1) all over the range, and writers of newer ones that
# end with background_stop. In the end they verify what the origin holds. To make stamps takes much of an emulated CPU,
# so they are polite to who looks at the images.
storm() {
	local name=$1 dev=$2 length=$3
	shift 3
	stamp fill "$dev" --seed 60 --length "$length" >/dev/null || return
	storm_on "$name" "$dev" "$length" "$@"
}

# storm_on NAME DEVICE LENGTH [OPTION...]: the same, but upon stamps of sequence 1 that are there.
storm_on() {
	local name=$1 dev=$2 length=$3
	shift 3
	background "$name" nice stamp storm "$dev" - --seed 60 --taken-seq 1 --length "$length" --seconds 600 "$@"
}

# churn NAME DIRECTORY: files come and go there, until background_stop.
churn() {
	# shellcheck disable=SC2016 # for the other shell
	background "$1" bash -c 'trap "exit 0" TERM
		while :; do
			for i in 1 2 3 4 5 6; do
				head -c 100000 /dev/urandom >"$1/file.$i" || exit 1
			done
			sync -f "$1/file.1" || exit 1
			rm "$1/file".[1-4] || exit 1
		done' churn "$2"
}

# --- images ----------------------------------------------------------------------------------------------------------

# image_still IMAGE LENGTH ROUNDS: each block is valid, and the same whenever it is read.
image_still() {
	stamp verify-stable "$1" --seed 60 --length "$2" --rounds "$3"
}

# image_still_kept IMAGE LENGTH ROUNDS [OFFSET]: and what was found is kept for image_as_kept.
image_still_kept() {
	stamp verify-stable "$1" --seed 60 --length "$2" --rounds "$3" --offset "${4:-0}" \
		--save-table "$BATS_TEST_TMPDIR/table.${1##*/}"
}

# image_as_kept IMAGE LENGTH [OFFSET]
image_as_kept() {
	stamp verify "$1" --seed 60 --length "$2" --offset "${3:-0}" --table "$BATS_TEST_TMPDIR/table.${1##*/}"
}

no_images() {
	local image
	image=$(find /sys/block -name 'blksnap*')
	[[ -z $image ]] || fail "there are still images: $image"
}

# --- configuration ---------------------------------------------------------------------------------------------------

# parameter NAME VALUE: sets one of the module.
parameter() {
	put "/sys/module/blksnap/parameters/$1" "$2"
}

# takes SESSION: the take alone; nobody waits for udev.
takes() {
	put "$SESSIONS/$1/active" 1 || fail "not taken: $(session_get "$1" error)"
}

# releases SESSION
releases() {
	put "$SESSIONS/$1/active" 0 || fail "not released: $(session_get "$1" error)"
}

# take_refused SESSION ERRNO [WORD...]: `error` says so with these words, the session is as it was, nothing is left.
take_refused() {
	local session=$1 errno=$2 word error
	shift 2
	refuses "$errno" put "$SESSIONS/$session/active" 1 || return
	error=$(session_get "$session" error)
	[[ $error == "$errno: "* ]] || fail "not a text of $errno: $error" || return
	for word; do
		[[ $error == *"$word"* ]] || fail "there is no $word in: $error" || return
	done
	[[ $(session_get "$session" active) == 0 && $(session_get "$session" state) == configured ]] ||
		fail "refused, and yet it is $(session_get "$session" state)"
}

# fs_writes DIRECTORY: the file system is not frozen.
fs_writes() {
	timeout 20 dd if=/dev/zero of="$1/written" bs=4096 count=1 conv=fsync status=none || fail "$1 is frozen"
}

# --- devices ---------------------------------------------------------------------------------------------------------

# throttled_storm NAME DEVICE LENGTH: 64 writers of 64 KiB each, upon stamps of sequence 1.
throttled_storm() {
	# shellcheck disable=SC2016 # for the other shell
	background "$1" bash -c 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"' throttled "$THROTTLED" \
		stamp storm "$2" - --seed 60 --taken-seq 1 --length "$3" --seconds 600 --writers 64 \
		--min-size 64K --max-size 64K --align 64K
}

# delayed NAME DEVICE SECTORS READ-MS WRITE-MS [START]
delayed() {
	modprobe dm-delay
	dm_make "$1" "0 $3 delay $2 ${6:-0} $4 $2 ${6:-0} $5"
}

# ext4_make DEVICE NAME [SIZE]: mounted; its directory in DIR. Small ones would have smaller blocks.
ext4_make() {
	mkfs.ext4 -q -b 4096 -E lazy_itable_init=0 "$1" ${3:+"$3"} || return
	mount_test "$1" "$2" >/dev/null
	defer umount "/mnt/test-$2"
	DIR=/mnt/test-$2
}

# ext4_right IMAGE [NAME]: nothing wrong with it; with a NAME it stays mounted as /mnt/test-NAME.
ext4_right() {
	e2fsck -fn "$1" || fail "e2fsck found faults on $1" || return
	mount_test "$1" "${2:-image}" ro,noload >/dev/null || return
	ls -l "/mnt/test-${2:-image}" >/dev/null || return
	[[ $# -gt 1 ]] || umount /mnt/test-image
}

# stay_hooked: as long as this session is active, further takes need not patch the kernel's code. An emulated CPU that
# executes this code all the time survives only so many patches of it (QEMU then goes on with what it has translated).
stay_hooked() {
	loop_make 16M
	session_make hook "$LOOP" "$(disk 6)"
	session_take hook
}

# udev_off: until udev_on, or the end of the test, nobody looks at the devices that come. For four images udev takes longer
# than everything else does for a take.
udev_off() {
	settle
	defer udev_on
	udevadm control --exit
	wait_until 20 udev_is_gone
}

udev_is_gone() {
	! pgrep -x systemd-udevd >/dev/null
}

udev_on() {
	local udevd=/lib/systemd/systemd-udevd
	[[ -x $udevd ]] || udevd=/usr$udevd
	! udev_is_gone || "$udevd" --daemon </dev/null >/dev/null 2>&1 3>&- 4>&- || return
	wait_until 20 udevadm control --ping
}

# --- writes on their way ---------------------------------------------------------------------------------------------

# The driver follows a disk from the first session on; what was parked before that it cannot know. So there is one.

@test "take: writes that are parked in a throttle are waited for (I2)" {
	local dev image
	dev=$(disk 1)
	parameter take_timeout_ms 30000
	throttle "$dev" 4194304
	stamp fill "$dev" --seed 60 --length 16M
	session_make base "$(disk 4)" "$dev"
	session_take base
	throttled_storm storm "$dev" 16M
	session_make s "$(disk 2)" "$dev"
	sleep 2
	takes s
	image=$(image_of s s1)
	# 4 MiB were parked, which take a second.
	[[ $(session_get s hold_us) -ge 200000 ]]
	image_still_kept "$image" 16M 4
	image_still "$image" 16M 3
	background_stop storm
	image_as_kept "$image" 16M
	stamp verify "$(image_of base s1)" --seed 60 --length 16M --seq 1
	session_destroy s
	session_destroy base
}

@test "take: the longest time that a take can be given is no short one" {
	# What the lower one delays it does not account for; the upper one does.
	delayed lower "$(disk 1)" 65536 0 8000
	dm_linear slow /dev/mapper/lower 65536
	parameter take_timeout_ms 4294967295
	session_make s "$(disk 2)" /dev/mapper/slow
	# From before there was a session: it is not counted, but looked for again and again.
	background write dd if=/dev/urandom of=/dev/mapper/slow bs=4096 count=1 oflag=direct status=none
	wait_until 20 requests_in_flight "$(readlink -e /dev/mapper/slow)"
	takes s
	[[ $(session_get s hold_us) -ge 300000 ]] || fail 'the take did not wait: nothing was shown'
	background_end write
	session_destroy s
}

# It accounts again by then; what has come before that nobody would know of.
@test "take: the first one of a RAID that was told not to account is refused (EOPNOTSUPP), the next ones are not (I2)" {
	local md stats
	raid_make 1 "$(disk 1)" missing
	md=$(readlink -e /dev/md/test)
	stats=/sys/block/${md##*/}/queue/iostats
	session_make s "$(disk 2)" "$md"
	echo 0 >"$stats"
	refuses EOPNOTSUPP put "$SESSIONS/s/active" 1
	state_is s configured
	[[ $(session_get s error) == 'EOPNOTSUPP: '*queue/iostats* ]]
	echo 1 >"$stats"
	session_take s
	# There is a gate now, which has counted all that came since.
	echo 0 >"$stats"
	session_make t "$(disk 3)" "$md"
	session_take t
	session_destroy t
	session_destroy s
}

# take_beside_freezer DEVICE FILE VALUE [PREFIX...]: of a disk of scsi_debug. While what writes the value to the file has its queue frozen, a
# writer comes, and then a take, the command of which begins with the prefix.
take_beside_freezer() {
	local delay=/sys/bus/pseudo/drivers/scsi_debug/delay dev=$1 file=$2 value=$3
	shift 3
	session_make s "$(disk 2)" "$dev"
	parameter take_timeout_ms 60000
	udev_off
	defer eval "echo 0 >$delay"
	echo 3000 >"$delay"
	background first dd if=/dev/zero of="$dev" bs=4096 count=1 oflag=direct conv=notrunc status=none
	wait_until 5 requests_in_flight "$dev"
	background freezer put "$file" "$value"
	wait_until 3 hangs "${BACKGROUND[freezer]}"
	background second dd if=/dev/zero of="$dev" bs=4096 seek=9 count=1 oflag=direct conv=notrunc status=none
	wait_until 2 hangs "${BACKGROUND[second]}"
	"$@" put "$SESSIONS/s/active" 1
	wait_until 2 background_gone second
	background_end first
	background_end second
	background_end freezer
	echo 0 >"$delay"
	udev_on
	session_destroy s
}

# Who sleeps before a queue has not entered it, and when he does nobody would know of him.
@test "take: a write that waits for a queue which somebody else has frozen is waited for (I2)" {
	local queue other
	scsi_debug_make dev_size_mb=16
	# The image of a partition is not read when it is added.
	partition "$SCSI" 8M
	queue=/sys/block/${SCSI##*/}/queue
	other=$(sed 's/\[[^]]*\]//; s/^ *//; s/ .*//' "$queue/scheduler")
	take_beside_freezer "$(part "$SCSI" 1)" "$queue/scheduler" "$other"
}

# He has gone when the take, which others keep from its processor, looks who has it frozen; but the writer is not there yet.
@test "take: a write that waits for a queue which somebody else has frozen for a moment is waited for (I2)" {
	[[ $(uname -r) != 6.1.* ]] || skip 'this kernel freezes for a moment only what has no slow requests'
	scsi_debug_make dev_size_mb=16
	partition "$SCSI" 8M
	background hog taskset -c 0 sh -c 'while :; do :; done'
	take_beside_freezer "$(part "$SCSI" 1)" "/sys/block/${SCSI##*/}/queue/max_sectors_kb" 64 taskset -c 0 nice -n 8
	background_kill hog
}

@test "take: frozen_us begins with the first freeze, not with what is written back before that" {
	local total
	ext4_make "$(disk 1)" origin
	session_make s "$(disk 2)" "$(disk 1)"
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	throttle "$(disk 1)" 8000000
	background write in_throttle dd if=/dev/zero of="$DIR/file" bs=1M count=32 status=none
	background_end write
	total=$(date +%s%6N)
	session_take s
	total=$(($(date +%s%6N) - total))
	[[ $total -ge 3000000 ]] || fail 'nothing was written back: nothing was shown'
	[[ $(session_get s frozen_us) -lt $((total - 2000000)) ]]
	session_destroy s
}

@test "take: throttled writes that take too long: ETIMEDOUT, and all goes on (I1)" {
	local dev image
	dev=$(disk 1)
	throttle "$dev" 4194304
	stamp fill "$dev" --seed 60 --length 16M
	ext4_make "$(disk 3)" fs 32M
	session_make base "$(disk 4)" "$dev"
	session_take base
	session_make s "$(disk 2)" "$dev" "$(disk 3)"
	throttled_storm storm "$dev" 16M
	churn churn "$DIR"
	sleep 2
	parameter take_timeout_ms 200
	take_refused s ETIMEDOUT "$dev"
	[[ $(cat "$SESSIONS/s/s1/error") == ETIMEDOUT:* ]]
	[[ -z $(cat "$SESSIONS/s/s1/image") && -z $(cat "$SESSIONS/s/s2/image") ]]
	[[ $(find /sys/block -name 'blksnap*' | wc -l) -eq 1 ]]
	fs_writes "$DIR"
	background_runs storm
	parameter take_timeout_ms 30000
	takes s
	image=$(image_of s s1)
	image_still_kept "$image" 16M 2
	background_stop churn storm
	image_as_kept "$image" 16M
	ext4_right "$(image_of s s2)"
	stamp verify "$(image_of base s1)" --seed 60 --length 16M --seq 1
	session_destroy s
	session_destroy base
}

@test "take: writes of 4 MiB that device-mapper splits, twenty takes" {
	local one two table
	one=$(disk 3) two=$(disk 4)
	dm_make striped "0 65536 striped 2 256 $one 0 $two 0"
	# 256 targets of 128 KiB, from here and there
	table=$(awk -v one="$one" -v two="$two" 'BEGIN {
		for (i = 0; i < 256; i++)
			print i * 256, 256, "linear", i % 2 ? two : one, 262144 + i * 512
	}')
	dm_make many "$table"
	storm striped /dev/mapper/striped 16M --writers 2 --min-size 4M --max-size 4M
	storm many /dev/mapper/many 16M --writers 2 --min-size 4M --max-size 4M
	session_make s "$(disk 2)" /dev/mapper/striped /dev/mapper/many
	stay_hooked
	for _ in $(seq "$(rounds 20)"); do
		common_untraced take_of_split
	done
	background_stop striped many
	session_destroy s
	session_destroy hook
}

take_of_split() {
	takes s || return
	image_still "$(image_of s s1)" 512K 2 && image_still "$(image_of s s2)" 512K 2 && releases s
}

@test "take: writes that a driver delays, from before there was a session, are waited for (I2)" {
	local slow=/dev/mapper/slow over=/dev/mapper/over
	delayed slow "$(disk 1)" 65536 0 200
	dm_linear over "$slow" 65536
	stamp fill "$(disk 1)" --seed 60 --length 8M
	storm_on slow "$slow" 4M --writers 8
	background over nice stamp storm "$over" - --seed 60 --taken-seq 1 --offset 4M --length 4M --seconds 600 --writers 8
	session_make s "$(disk 2)" "$slow"
	session_make t "$(disk 2)" "$over"
	sleep 1
	takes_delayed s 0 8M
	# What is written to the lower one by itself is not seen by the upper one.
	takes_delayed t 4M 4M
	background_stop slow over
	session_destroy s
	session_destroy t
}

# A driver accounts what goes to a partition with the partition alone.
@test "take: delayed writes through a partition of a RAID, from before there was a session, are waited for (I2)" {
	local md
	delayed slow "$(disk 1)" 65536 0 200
	raid_make 1 /dev/mapper/slow missing
	md=$(readlink -e /dev/md/test)
	partition "$md" 16M
	stamp fill "$(part "$md" 1)" --seed 60 --length 8M
	storm_on storm "$(part "$md" 1)" 4M --writers 8
	session_make s "$(disk 2)" "$(part "$md" 1)"
	sleep 1
	takes_delayed s 0 8M
	background_stop storm
	session_destroy s
}

# raid_make LEVEL MEMBER...: /dev/md/test
raid_make() {
	local level=$1 chunk=()
	shift
	[[ $level -eq 1 ]] || chunk=(--chunk=64)
	mdadm --create /dev/md/test --run --assume-clean --level="$level" --raid-devices=$# --size=31M "${chunk[@]}" "$@"
	defer raid_stop "$@"
	settle
}

# raid_delayed MS: a RAID 1 of two pieces of disk 3, /dev/mapper/member1 and 2, whose writes are delayed.
raid_delayed() {
	local n
	for n in 1 2; do
		delayed "member$n" "$(disk 3)" 65536 0 "$1" $((n * 65536))
	done
	raid_make 1 /dev/mapper/member{1,2}
}

raid_stop() {
	local member
	mdadm --stop /dev/md/test
	for member; do
		[[ $member == missing ]] || mdadm --zero-superblock "$member"
	done
	settle
}

# They are accounted together, as nobody counts what was written before the disk was followed.
@test "take: a partition of a RAID 1 is taken while another one is written without end" {
	local md
	raid_delayed 50
	md=$(readlink -e /dev/md/test)
	partition "$md" 8M 16M
	background busy fio --name=busy --filename="$(part "$md" 1)" --rw=randwrite --bs=4k --direct=1 --ioengine=libaio \
		--iodepth=16 --time_based --runtime=600 --thread
	wait_until 30 requests_in_flight "$(part "$md" 1)"
	stamp fill "$(part "$md" 2)" --seed 60 --length 8M
	parameter take_timeout_ms $((3000 * ${BLKSNAP_SLOW:-1}))
	session_make s "$(disk 2)" "$(part "$md" 2)"
	takes s
	stamp fill "$(part "$md" 2)" --seed 60 --length 8M --seq 2
	stamp verify "$(image_of s s1)" --seed 60 --length 8M --seq 1
	background_runs busy
	background_kill busy
	session_destroy s
}

# The first write after a while waits in the driver, until the members have noted that they may differ, and is not accounted before.
@test "take: the first one of a RAID 1, whose driver has a writer wait" {
	local md
	parameter take_timeout_ms 30000
	raid_delayed 2500
	md=$(readlink -e /dev/md/test)
	stamp fill "$md" --seed 60 --length 64K
	wait_until 60 eval "[[ \$(<'/sys/block/${md##*/}/md/array_state') == clean ]]"
	session_make s "$(disk 2)" "$md"
	background writer stamp fill "$md" --seed 60 --length 4K --seq 2
	wait_until 10 hangs "${BACKGROUND[writer]}"
	takes s
	# The write was passed before the instant, and so belongs to it.
	stamp verify "$(image_of s s1)" --seed 60 --length 4K --seq 2
	background_end writer
	stamp fill "$md" --seed 60 --length 64K --seq 3
	stamp verify "$(image_of s s1)" --seed 60 --length 4K --seq 2
	session_destroy s
}

# member_delays NAME MS MS: of writes to its first 8 MiB, and of others; flushes are not delayed.
member_delays() {
	local disk start=$(($1 * 65536)) next=$(($1 * 65536 + 16384))
	disk=$(disk 3)
	printf '%s\n' "0 16384 delay $disk $start 0 $disk $start $2 $disk $start 0" \
		"16384 49152 delay $disk $next 0 $disk $next $3 $disk $next 0" | dm_switch "member$1"
}

# What has just been added to the disk as a watcher is not drained while it waits itself for who sleeps in the driver.
@test "take: a write that a driver has wait, to a part of its disk that begins to be tracked during another part's take (I2)" {
	# Longer on a slow kernel, but a tracker waits for five seconds only.
	local name md dev slow=$((${BLKSNAP_SLOW:-1} > 1 ? 2 : 1))
	parameter take_timeout_ms $((60000 * slow))
	raid_delayed 0
	md=$(readlink -e /dev/md/test)
	partition "$md" 8M 8M
	dev=$(part "$md" 2)
	stamp fill "$dev" --seed 60 --length 64K
	dm_linear hangs "$(disk 4)" 65536
	ext4_make /dev/mapper/hangs hangs
	session_make s "$(disk 2)" "$(part "$md" 1)" /dev/mapper/hangs
	session_make t "$(disk 5)" "$dev"
	mkdir "$TRACKERS/t"
	put "$TRACKERS/t/device" "$dev"
	wait_until 60 eval "[[ \$(<'/sys/block/${md##*/}/md/array_state') == clean ]]"
	for name in 1 2; do
		member_delays "$name" $((2000 * slow)) $((6000 * slow))
		defer member_delays "$name" 0 0
	done
	# Its sync waits, when its snapshots have been set up.
	echo new >"$DIR/file"
	dmsetup suspend --nolockfs --noflush hangs
	background take put "$SESSIONS/s/active" 1
	defer eval "dmsetup resume hangs 2>/dev/null || true" # before its end is waited for
	wait_until 10 grep -q origin_sync "/proc/${BACKGROUND[take]}/stack"
	background writer stamp fill "$dev" --seed 60 --length 4K --seq 2
	wait_until 5 hangs "${BACKGROUND[writer]}"
	background tracker put "$TRACKERS/t/enabled" 1
	wait_until 5 hangs "${BACKGROUND[tracker]}"
	dmsetup resume hangs
	# He has come to the driver by now where a machine is busy; then this shows nothing.
	background_end take
	background_end tracker
	takes t
	# The write was passed before the instant, and so belongs to it.
	stamp verify "$(image_of t s1)" --seed 60 --length 4K --seq 2
	background_end writer
	session_destroy t
	put "$TRACKERS/t/enabled" 0
	rmdir "$TRACKERS/t"
	session_destroy s
}

# It ends a write to both as one, with the later one of the two; and older kernels do not freeze it.
@test "take: a btrfs with mirrors, ten takes of both its disks while it is written to" {
	local name
	for name in 1 2; do
		delayed "mirror$name" "$(disk "$((name + 2))")" 1048576 0 $((name * 30))
	done
	mkfs.btrfs -q -f -d raid1 -m raid1 /dev/mapper/mirror{1,2}
	modprobe -q btrfs || true
	mount_test /dev/mapper/mirror1 mirrors device=/dev/mapper/mirror2 >/dev/null
	defer umount /mnt/test-mirrors
	background writer fio --name=writer --directory=/mnt/test-mirrors --rw=randwrite --bs=4k --fsync=4 --size=16M --numjobs=4 \
		--time_based --runtime=600 --thread
	wait_until 60 requests_in_flight "$(readlink -e /dev/mapper/mirror2)"
	session_make s "$(disk 2)" /dev/mapper/mirror{2,1}
	for _ in $(seq "$(rounds 10)"); do
		takes s
		background_runs writer
		releases s
	done
	background_kill writer
	session_destroy s
}

# It splits in turn what has been split off.
@test "take: writes of 4 MiB that a RAID 10 splits, twenty takes" {
	local md name
	for name in 1 2 3 4; do
		dm_linear "member$name" "$(disk 3)" 65536 $((name * 65536))
	done
	raid_make 10 /dev/mapper/member{1,2,3,4}
	md=$(readlink -e /dev/md/test)
	storm storm "$md" 32M --writers 4 --min-size 4M --max-size 4M
	session_make s "$(disk 2)" "$md"
	stay_hooked
	for _ in $(seq "$(rounds 20)"); do
		common_untraced take_of_raid
	done
	background_stop storm
	session_destroy s
	session_destroy hook
}

take_of_raid() {
	takes s && image_still "$(image_of s s1)" 512K 2 && releases s
}

# takes_delayed SESSION OFFSET LENGTH: until a take found writes on their way and waited for them. A slow machine may have
# none on its way for a moment.
takes_delayed() {
	local image hold attempt
	for attempt in {1..10}; do
		takes "$1" || return
		image=$(image_of "$1" s1)
		hold=$(session_get "$1" hold_us)
		image_still_kept "$image" "$3" 4 "$2" || return
		sleep 0.5
		image_as_kept "$image" "$3" "$2" || return
		releases "$1" || return
		[[ $hold -lt 20000 ]] || return 0
	done
	fail "waited for nothing, $attempt times"
}

# --- origins upon origins --------------------------------------------------------------------------------------------

# takes_agree FILE: three takes of the session s, the first origin of which has this file, and the second one is its device.
takes_agree() {
	for _ in 1 2 3; do
		session_take s || return
		ext4_right "$(image_of s s2)" || return
		ext4_right "$(image_of s s1)" lower-image || return
		cmp "/mnt/test-lower-image/$1" "$(image_of s s2)" || return
		umount /mnt/test-lower-image || return
		session_release s || return
	done
}

@test "take: a loop device and the volume that holds its file, one instant" {
	local upper lower
	lv_make "$(disk 3)" 32M
	ext4_make "$LV" lower
	lower=$DIR
	truncate -s 8M "$lower/loop"
	LOOP=$(losetup -f --show "$lower/loop")
	defer losetup -d "$LOOP"
	ext4_make "$LOOP" upper
	upper=$DIR
	churn lower "$lower"
	churn upper "$upper"
	# in the wrong order
	session_make s "$(disk 2)" "$LV" "$LOOP"
	takes_agree loop
	background_stop upper lower
	session_destroy s
}

@test "take: a disk that a program serves and the file system that holds its file, one instant" {
	local upper lower
	ext4_make "$(disk 3)" lower
	lower=$DIR
	truncate -s 16M "$lower/served"
	nbd_make "$lower/served"
	ext4_make "$NBD" upper
	upper=$DIR
	churn upper "$upper"
	# in the wrong order
	session_make s "$(disk 2)" "$(disk 3)" "$NBD"
	takes_agree served
	background_stop upper
	session_destroy s
}

@test "take: a volume and the disk under it, one instant" {
	local start dev
	dev=$(disk 3)
	lv_make "$dev" 16M
	start=$(dmsetup table "$LV" | awk '{ print $NF * 512 }')
	ext4_make "$LV" fs
	churn churn "$DIR"
	session_make s "$(disk 2)" "$dev" "$LV"
	for _ in 1 2 3; do
		session_take s
		cmp -i "$start:0" -n 16777216 "$(image_of s s1)" "$(image_of s s2)"
		ext4_right "$(image_of s s2)"
		session_release s
	done
	background_stop churn
	session_destroy s
}

@test "take: a RAID 0 and its members, one instant" {
	mdadm --create /dev/md9 --quiet --run --level=0 --raid-devices=2 --metadata=1.0 --chunk=64 "$(disk 3)" "$(disk 4)"
	defer md_stop /dev/md9
	settle
	ext4_make /dev/md9 fs 16M
	churn churn "$DIR"
	session_make s "$(disk 2)" "$(disk 3)" "$(disk 4)" /dev/md9
	for _ in 1 2 3; do
		session_take s
		ext4_right "$(image_of s s3)"
		dmsetup create --readonly together \
			--table "0 32768 striped 2 128 $(image_of s s1) 0 $(image_of s s2) 0"
		cmp -n 16777216 /dev/mapper/together "$(image_of s s3)"
		dmsetup remove --retry together
		session_release s
	done
	background_stop churn
	session_destroy s
}

md_stop() {
	settle
	mdadm --quiet --stop "$1"
}

# --- one instant, several devices and sessions -----------------------------------------------------------------------

# Stamps of order go to raw devices, and to files where nothing but their content changes while they are written. Where these
# are on the device is looked up, so that their images are checked without being mounted.

# ordered PATH DEVICE: one more place for stamps of order, in an origin; PATH is the device or a file on it.
ordered() {
	local at=0
	if [[ $1 != "$2" ]]; then
		# Not unwritten, or else the file system would have to note what was written. Of another seed.
		stamp fill "$1" --seed 59 --length 256K >/dev/null || return
		sync "$1"
		at=$(extent_of "$1") || return
	fi
	ORDERED+=("$1") ORIGINS+=("$2") SHIFTS+=${SHIFTS:+,}$at
}

# extent_of FILE: at which byte of its device it is; it has to be in one piece.
extent_of() {
	filefrag -v -b512 "$1" | awk '
		/^ *[0-9]+: / { sub(/\.\..*/, "", $4); first = $4 * 512; pieces++ }
		END { if (pieces == 1) printf "%.0f\n", first; exit pieces != 1 }' || fail "$1 is not in one piece" >&2
}

# takes_of_ordinals TAKES: of what is `ordered`. What every tenth one shows is also seen by who mounts it.
takes_of_ordinals() {
	local after log=$BATS_TEST_TMPDIR/ordinals
	session_make s "$(disk 2)" "${ORIGINS[@]}"
	background order nice stamp order "${ORDERED[@]}" --sync --seed 60 --length 256K --seconds "$(scaled 1200)" --log "$log"
	wait_until 10 test -s "$log"
	stay_hooked
	udev_off
	for TAKE in $(seq "$(rounds "$1")"); do
		common_untraced take_of_ordinals "$log"
	done
	udev_on
	after=$((10#$(<"$log")))
	[[ $after -gt 500 ]] || fail "too few writes to prove anything: $after"
	background_stop order
	session_destroy s
	session_destroy hook
}

# take_of_ordinals LOG: what was complete before is there, and what was not even begun after is not.
take_of_ordinals() {
	local before after images
	before=$((10#$(<"$1")))
	takes s || return
	after=$((10#$(<"$1")))
	mapfile -t images < <(cat "$SESSIONS"/s/s[1-4]/image)
	stamp order-check "${images[@]}" --seed 60 --length 256K --min "$before" --max $((after + 1)) --shifts "$SHIFTS" || return
	[[ $((TAKE % 10)) -ne 0 ]] || ordinals_mounted "$before" $((after + 1)) || return
	releases s
}

# ordinals_mounted MIN MAX: the same, in the files of the images' file systems.
ordinals_mounted() {
	local i images=() options mounts=()
	for i in "${!ORDERED[@]}"; do
		images[i]=$(image_of s s$((i + 1)))
		[[ ${ORDERED[i]} != "${ORIGINS[i]}" ]] || continue
		options=ro,noload
		[[ ${ORDERED[i]} != *xfs* ]] || options=ro,norecovery,nouuid
		mounts+=("$(mount_test "${images[i]}" "image$i" "$options")") || return
		images[i]=/mnt/test-image$i/${ORDERED[i]##*/}
	done
	[[ ${#mounts[@]} -eq 2 ]] || fail "${#mounts[@]} images were mounted" || return
	stamp order-check "${images[@]}" --seed 60 --length 256K --min "$1" --max "$2" && umount "${mounts[@]}"
}

# xfs_make DEVICE NAME: mounted; its directory in DIR.
xfs_make() {
	mkfs.xfs -q -f "$1" || return
	mount_test "$1" "$2" >/dev/null || return
	defer umount "/mnt/test-$2"
	DIR=/mnt/test-$2
}

@test "take: writes that depend on each other: raw volume, raw loop device, ext4 and XFS, sixty takes (I2)" {
	ORDERED=() ORIGINS=() SHIFTS=''
	lv_make "$(disk 4)" 64M
	ordered "$LV" "$LV"
	loop_make 64M
	ordered "$LOOP" "$LOOP"
	ext4_make "$(disk 3)" ext4 64M
	ordered "$DIR/ordinals" "$(disk 3)"
	xfs_make "$(disk 1)" xfs
	ordered "$DIR/ordinals" "$(disk 1)"
	takes_of_ordinals 60
}

@test "take: writes that depend on each other: ext4 on a volume, XFS on a loop device, two raw disks, forty takes (I2)" {
	long
	ORDERED=() ORIGINS=() SHIFTS=''
	lv_make "$(disk 4)" 64M
	ext4_make "$LV" ext4
	ordered "$DIR/ordinals" "$LV"
	loop_make 320M
	xfs_make "$LOOP" xfs
	ordered "$DIR/ordinals" "$LOOP"
	ordered "$(disk 1)" "$(disk 1)"
	ordered "$(disk 3)" "$(disk 3)"
	takes_of_ordinals 40
}

@test "take: a write that one session holds while another one is taken (I2)" {
	local slow=/dev/mapper/slow dev first second
	dev=$(disk 1)
	stamp fill "$dev" --seed 60 --length 4M
	modprobe dm-delay
	# Only here, since udev reads elsewhere.
	dm_make slow "0 2048 linear $dev 0
		2048 128 delay $dev 2048 $((3000 * ${BLKSNAP_SLOW:-1})) $dev 2048 0
		2176 63360 linear $dev 2176"
	session_make one "$(disk 2)" "$slow"
	session_make two "$(disk 4)" "$slow"
	takes one
	background write stamp fill "$slow" --seed 60 --seq 2 --offset 1M --length 64K
	sleep 0.5
	takes two
	first=$(image_of one s1) second=$(image_of two s1)
	background_runs write
	[[ $(stat_of "$first" writes_held) -eq 0 ]]
	background_end write
	[[ $(stat_of "$first" chunks_preserved) -ge 16 && $(stat_of "$second" chunks_preserved) -ge 16 ]]
	stamp verify "$first" --seed 60 --length 4M --seq 1
	stamp verify "$second" --seed 60 --length 4M --seq 1
	stamp verify "$slow" --seed 60 --offset 1M --length 64K --seq 2
	session_destroy two
	session_destroy one
}

@test "take: writes that one session holds while others are taken, under load (I2)" {
	local slow=/dev/mapper/slow dev image
	dev=$(disk 1)
	stamp fill "$dev" --seed 60 --length 8M
	delayed slow "$dev" 65536 50 0
	session_make one "$(disk 2)" "$slow"
	session_make two "$(disk 4)" "$slow"
	takes one
	background storm nice stamp storm "$slow" "$(image_of one s1)" --seed 60 --taken-seq 1 --length 8M --seconds 600 \
		--writers 8 --readers 1 --max-size 16K
	for _ in 1 2 3 4; do
		sleep 0.5
		takes two
		image=$(image_of two s1)
		image_still_kept "$image" 2M 1
		sleep 0.5
		image_as_kept "$image" 2M
		releases two
	done
	# What is verified at the end need not be slow.
	dm_switch slow "0 65536 linear $dev 0"
	background_stop storm
	session_destroy two
	session_destroy one
}

@test "take: two at the same time, of different origins and of the same" {
	storm one "$(disk 1)" 1M
	storm two "$(disk 3)" 1M
	session_make a "$(disk 2)" "$(disk 1)"
	session_make b "$(disk 4)" "$(disk 3)"
	session_make c "$(disk 5)" "$(disk 1)" "$(disk 3)"
	stay_hooked
	for _ in 1 2 3; do
		common_untraced takes_together
	done
	background_stop one two
	session_destroy a
	session_destroy b
	session_destroy c
	session_destroy hook
}

takes_together() {
	together 1 a b || return
	image_still "$(image_of a s1)" 1M 2 && image_still "$(image_of b s1)" 1M 2 || return
	together 0 a b && together 1 a c || return
	image_still_kept "$(image_of a s1)" 1M 1 && image_still "$(image_of c s1)" 1M 2 &&
		image_still "$(image_of c s2)" 1M 2 || return
	# A take beside a release, too.
	background release put "$SESSIONS/c/active" 0
	takes b && background_end release || return
	image_as_kept "$(image_of a s1)" 1M && image_still "$(image_of b s1)" 1M 1 && together 0 a b
}

# together VALUE SESSION SESSION: to `active` of both, from two processes.
together() {
	background "$2" put "$SESSIONS/$2/active" "$1"
	background "$3" put "$SESSIONS/$3/active" "$1"
	background_end "$2" && background_end "$3"
}

# --- chained writes --------------------------------------------------------------------------------------------------

# BLKZEROOUT submits a chain of writes, a mebibyte each where the device knows no better. The completion of one leads to
# that of the next when the first one is the last to complete: here because its device is suspended until then.
@test "take: a chain of hundreds of writes that ends at its first link (I1)" {
	local mega=400 dev start image
	dev=$(disk 1)
	modprobe dm-delay
	parameter memory_limit 4M
	delayed first "$dev" 128 0 1
	dm_make chained "0 128 linear /dev/mapper/first 0"$'\n'"128 $((mega * 2048 - 128)) linear $dev 128"
	stamp fill /dev/mapper/chained --seed 60 --length 4M
	stamp fill /dev/mapper/chained --seed 60 --offset $((mega - 4))M --length 4M
	[[ $(cat "/sys/block/$(basename "$(readlink -e /dev/mapper/chained)")/queue/write_zeroes_max_bytes") -eq 0 ]]
	session_of "$(disk 2)" /dev/mapper/chained
	image=$(image_of s s1)
	# Preserved already: otherwise its old content would have to be read from where nothing can be read.
	stamp fill /dev/mapper/chained --seed 60 --seq 2 --length 64K
	# A probe of udev's that hangs in a read would keep blkdiscard from the device: it finds what it reads in memory.
	settle
	dd if=/dev/mapper/chained of=/dev/null bs=1M count=1 status=none
	dmsetup suspend --nolockfs --noflush first
	defer dmsetup resume first
	start=$(sectors_written "$dev")
	background zero blkdiscard -f -z /dev/mapper/chained
	wait_until 120 all_but_first "$dev" $((start + mega * 2048 - 128))
	background_runs zero
	dmsetup resume first
	background_end zero
	[[ $(session_get s state) == active ]]
	stamp verify "$image" --seed 60 --seq 1 --length 4M
	stamp verify "$image" --seed 60 --seq 1 --offset $((mega - 4))M --length 4M
	zeroes "$dev" 0 8
	zeroes "$dev" $((mega - 8)) 8
	session_destroy s
}

@test "take: a chain of writes whose first links are prepared last is waited for, and not held" {
	local dev start
	dev=$(disk 1)
	parameter take_timeout_ms 20000
	# As many links as nobody looks across in one go, and some more.
	delayed first "$dev" 40960 0 0
	dm_make chained < <(printf '%s\n' '0 40960 linear /dev/mapper/first 0' "40960 8192 linear $dev 40960")
	stamp fill /dev/mapper/chained --seed 60 --length 24M
	session_of "$(disk 2)" /dev/mapper/chained
	session_make other "$(disk 4)" /dev/mapper/chained
	settle
	start=$(sectors_written "$dev")
	# It would read what is slow now.
	udev_away
	DM_DISABLE_UDEV=1 dm_switch first "0 40960 delay $dev 0 8000 $dev 0 0"
	background zero blkdiscard -f -z /dev/mapper/chained
	wait_until 60 all_but_first "$dev" $((start + 8192))
	background_runs zero
	# The first ones are still read; the others wait for them, and the take for those.
	takes other
	[[ $(session_get other hold_us) -ge 300000 ]] || fail 'the take did not wait: nothing was shown'
	background_end zero
	DM_DISABLE_UDEV=1 dm_switch first "0 40960 linear $dev 0"
	udev_back
	cmp -n 25165824 "$(image_of other s1)" /dev/zero
	session_destroy other
	session_destroy s
}

# zeroes DEVICE MEGABYTE COUNT: that is what is on the disk there, whatever the page cache says.
zeroes() {
	dd if="$1" bs=1M skip="$2" count="$3" iflag=direct status=none | cmp -n $(($3 * 1048576)) - /dev/zero
}

sectors_written() {
	awk '{ print $7 }' "/sys/block/${1##*/}/stat"
}

# all_but_first DISK SECTORS
all_but_first() {
	[[ $(sectors_written "$1") -ge $2 ]]
}

# --- a difference storage upon an origin -----------------------------------------------------------------------------

@test "take: a diff upon an origin's disk is refused, whichever comes first (EXDEV)" {
	local dev
	dev=$(disk 3)
	lv_make "$dev" 64M
	# within one session
	session_make s "$LV" "$dev"
	take_refused s EXDEV "$LV" "$dev"
	session_destroy s
	# the origin is active
	session_make lower "$(disk 2)" "$dev"
	session_make upper "$LV" "$(disk 1)"
	takes lower
	take_refused upper EXDEV "$LV" "$dev"
	releases lower
	# the diff is active
	takes upper
	take_refused lower EXDEV "$LV" "$dev"
	[[ $(session_get upper state) == active ]]
	releases upper
	takes lower
	session_destroy lower
	session_destroy upper
}

@test "take: a diff in a loop device upon an origin's file system is refused, whichever comes first (EXDEV)" {
	local dev
	dev=$(disk 3)
	ext4_make "$dev" fs 128M
	truncate -s 64M "$DIR/diff"
	LOOP=$(losetup -f --show "$DIR/diff")
	defer losetup -d "$LOOP"
	session_make s "$LOOP" "$dev"
	take_refused s EXDEV "$LOOP" "$dev"
	fs_writes "$DIR"
	session_destroy s
	session_make lower "$(disk 2)" "$dev"
	session_make upper "$LOOP" "$(disk 1)"
	takes lower
	take_refused upper EXDEV "$LOOP" "$dev"
	releases lower
	takes upper
	take_refused lower EXDEV "$LOOP" "$dev"
	fs_writes "$DIR"
	session_destroy lower
	session_destroy upper
}

@test "take: a difference storage that an origin is built upon is refused, whichever comes first (EBUSY)" {
	LOOP=$(losetup -f --show --sizelimit 32M "$(disk 2)")
	defer losetup -d "$LOOP"
	session_make s "$(disk 2)" "$LOOP"
	take_refused s EBUSY "$LOOP" "$(disk 2)"
	session_make one "$(disk 4)" "$LOOP"
	takes one
	put "$SESSIONS/s/s1/device" "$(disk 1)"
	take_refused s EBUSY "$LOOP" "$(disk 2)"
	session_destroy one
	takes s
	session_make one "$(disk 4)" "$LOOP"
	take_refused one EBUSY "$LOOP" "$(disk 2)"
	session_destroy one
	session_destroy s
}

@test "take: a loop device whose file cannot be found is taken alone only (EINVAL), and is no difference storage (EXDEV)" {
	ext4_make "$(disk 3)" fs 128M
	truncate -s 32M "$DIR/file"
	LOOP=$(losetup -f --show "$DIR/file")
	defer losetup -d "$LOOP"
	rm "$DIR/file"
	session_make s "$(disk 2)" "$LOOP" "$(disk 3)"
	take_refused s EINVAL "$LOOP"
	rmdir "$SESSIONS/s/s2"
	takes s
	session_destroy s
	session_make s "$LOOP" "$(disk 3)"
	take_refused s EXDEV "$LOOP"
	session_destroy s
}

@test "take: a loop device whose path leads to another file now is taken alone only (EINVAL)" {
	ext4_make "$(disk 3)" fs 128M
	mkdir "$DIR/below"
	truncate -s 32M "$DIR/below/file"
	LOOP=$(losetup -f --show "$DIR/below/file")
	defer losetup -d "$LOOP"
	session_make s "$(disk 2)" "$LOOP" "$(disk 3)"
	takes s
	releases s
	mount -t tmpfs none "$DIR/below"
	defer umount "$DIR/below"
	truncate -s 32M "$DIR/below/file"
	take_refused s EINVAL "$LOOP"
	rmdir "$SESSIONS/s/s2"
	takes s
	session_destroy s
}

# --- file systems that are frozen ------------------------------------------------------------------------------------

@test "take: a file system that is frozen already (EBUSY), and the other one is not left so (lesson 14)" {
	local free frozen order
	ext4_make "$(disk 1)" free 32M
	free=$DIR
	ext4_make "$(disk 3)" frozen 32M
	frozen=$DIR
	fsfreeze -f "$frozen"
	defer thaw_if_frozen "$frozen"
	for order in "$(disk 1) $(disk 3)" "$(disk 3) $(disk 1)"; do
		# shellcheck disable=SC2086 # two disks
		session_make s "$(disk 2)" $order
		take_refused s EBUSY frozen
		no_images
		fs_writes "$free"
		session_destroy s
	done
	# It is still the user's.
	fsfreeze -u "$frozen"
	fs_writes "$frozen"
	session_of "$(disk 2)" "$(disk 1)" "$(disk 3)"
	ext4_right "$(image_of s s1)"
	ext4_right "$(image_of s s2)"
	session_destroy s
}

@test "take: a difference storage on a file system that is frozen (EBUSY)" {
	ext4_make "$(disk 3)" diffs 128M
	fsfreeze -f "$DIR"
	defer thaw_if_frozen "$DIR"
	session_make s "$DIR/diff" "$(disk 1)"
	take_refused s EBUSY "$DIR/diff" frozen
	put "$SESSIONS/s/diff_file" "$DIR"
	take_refused s EBUSY "$DIR" frozen
	fsfreeze -u "$DIR"
	takes s
	session_destroy s
}

thaw_if_frozen() {
	fsfreeze -u "$1" 2>/dev/null || true
}

# thaw_later SECONDS DIRECTORY
thaw_later() {
	sleep "$(($1 * ${BLKSNAP_SLOW:-1}))"
	fsfreeze -u "$2"
}

not_active() {
	[[ $(session_get "$1" active) == 0 ]]
}

@test "take: while a release waits for a file system that is frozen, others are taken and released" {
	ext4_make "$(disk 3)" diffs 128M
	session_make s "$DIR/diff" "$(disk 1)"
	session_make other "$(disk 2)" "$(disk 4)"
	takes s
	fsfreeze -f "$DIR"
	defer thaw_if_frozen "$DIR"
	background release put "$SESSIONS/s/active" 0
	background thaw thaw_later 30 "$DIR"
	wait_until 20 not_active s
	# Who waits for it keeps nobody from anything, and can be killed.
	background again put "$SESSIONS/s/active" 1
	refuses EBUSY mkdir "$SESSIONS/s/more"
	mkdir "$SESSIONS/third"
	rmdir "$SESSIONS/third"
	background_runs again || fail 'who takes it again did not wait: nothing was shown'
	background_kill again
	# Who has frozen it cannot thaw it before he has taken his own.
	takes other
	releases other
	background_runs release || fail 'the release did not wait: nothing was shown'
	background_end thaw
	background_end release
	[[ ! -e $DIR/diff ]]
	session_destroy other
	session_destroy s
}

# cannot_freeze FS: two file systems of this kind, one of which can be read, but not written, when it is to be frozen; in
# either order.
cannot_freeze() {
	local order good=/dev/mapper/good bad=/dev/mapper/bad written=/mnt/test-bad/written code=0
	modprobe dm-flakey
	dm_linear good "$(disk 1)" 655360
	dm_linear bad "$(disk 3)" 655360
	"$1_make" "$good" good
	"$1_make" "$bad" bad
	fs_writes "$DIR"
	# Something that the journal has to note.
	chmod 600 "$written"
	dm_switch bad "0 655360 flakey $(disk 3) 0 0 60 1 error_writes"
	for order in "$good $bad" "$bad $good"; do
		# shellcheck disable=SC2086 # two devices
		session_make s "$(disk 2)" $order
		take_refused s EIO "cannot freeze the file system on $(basename "$(readlink -e "$bad")")"
		no_images
		fs_writes /mnt/test-good
		session_destroy s
	done
	# It has its errors, but nobody who writes there waits.
	timeout 20 touch "$written" || code=$?
	[[ $code -le 1 ]] || fail "touch has ended with $code"
	dm_switch bad "0 655360 linear $(disk 3) 0"
	umount "$DIR"
	mount "$bad" "$DIR"
	fs_writes "$DIR"
	session_of "$(disk 2)" "$good" "$bad"
	[[ $(cat "$SESSIONS/s/s1/frozen" "$SESSIONS/s/s2/frozen" | wc -l) -eq 2 ]]
	session_destroy s
}

@test "take: an ext4 whose journal cannot be written (EIO), and the other one is not left frozen (lesson 14)" {
	cannot_freeze ext4
}

@test "take: an XFS whose log cannot be written (EIO), and the other one is not left frozen (lesson 14)" {
	cannot_freeze xfs
}

# A loop device, so that there are partitions on what device-mapper puts together.
@test "take: of two file systems on one disk the second cannot be frozen (EIO), and the first is not left so (lesson 14)" {
	local under=/dev/mapper/under sectors=196608 start end
	dm_linear under "$(disk 3)" "$sectors"
	LOOP=$(losetup -f -P --show --direct-io=on "$under")
	defer losetup -d "$LOOP"
	partition "$LOOP" 32M 32M
	ext4_make "$(part "$LOOP" 1)" first
	ext4_make "$(part "$LOOP" 2)" second
	fs_writes "$DIR"
	session_make s "$(disk 2)" "$LOOP"
	start=$(<"/sys/class/block/$(basename "$(part "$LOOP" 2)")/start")
	end=$((start + 65536))
	# Something that the journal has to note.
	chmod 600 "$DIR/written"
	dm_switch under <<-END
		0 $start linear $(disk 3) 0
		$start 65536 error
		$end $((sectors - end)) linear $(disk 3) $end
	END
	take_refused s EIO "cannot freeze the file system on $(basename "$(part "$LOOP" 2)")"
	[[ $(cat "$SESSIONS/s/s1/error") == EIO:* ]]
	no_images
	fs_writes /mnt/test-first
	dm_switch under "0 $sectors linear $(disk 3) 0"
	umount "$DIR"
	mount "$(part "$LOOP" 2)" "$DIR"
	takes s
	[[ $(wc -l <"$SESSIONS/s/s1/frozen") -eq 2 ]]
	fs_writes "$DIR"
	session_destroy s
}

# --- writers that wait for memory ------------------------------------------------------------------------------------

# A diff that takes five seconds for each write, and 4 MiB of memory: a writer of 16 MiB waits.
starve() {
	parameter memory_limit 4M
	delayed slow "$(disk 2)" 262144 0 5000
	stamp fill "$(disk 1)" --seed 60 --length 16M
	session_make s /dev/mapper/slow "$(disk 1)"
	takes s
	background writer stamp fill "$(disk 1)" --seed 60 --seq 2 --length 16M
}

@test "take: a release lets writers go that wait for memory (I1)" {
	parameter hold_limit_ms 60000
	starve
	sleep 3
	background_runs writer
	[[ $(session_get s state) == active ]]
	background release put "$SESSIONS/s/active" 0
	wait_until 2 background_gone writer
	background_end writer
	background_end release
	stamp verify "$(disk 1)" --seed 60 --length 16M --seq 2
	no_images
	session_destroy s
}

@test "take: hold_limit_ms ends the wait for memory, and the snapshot (I1)" {
	local image
	parameter hold_limit_ms 1000
	starve
	image=$(image_of s s1)
	wait_until 4 background_gone writer
	background_end writer
	wait_until 2 state_is s failed
	[[ $(session_get s error) == ETIMEDOUT:* ]]
	[[ $(cat "$SESSIONS/s/s1/error") == ETIMEDOUT:* ]]
	run ! dd if="$image" of=/dev/null bs=4096 count=1 iflag=direct status=none
	[[ $output == *'Input/output error'* ]]
	stamp verify "$(disk 1)" --seed 60 --length 16M --seq 2
	session_destroy s
}

@test "take: reading the origin takes longer than hold_limit_ms: that is no wait for memory (I1)" {
	local image
	parameter hold_limit_ms 700
	parameter memory_limit 4M
	stamp fill "$(disk 1)" --seed 60 --length 16M
	modprobe dm-delay
	dm_linear slow "$(disk 1)" 262144
	session_make s "$(disk 2)" /dev/mapper/slow
	takes s
	image=$(image_of s s1)
	# Only now, since udev reads it, too.
	dm_switch slow "0 262144 delay $(disk 1) 0 1500 $(disk 1) 0 0"
	stamp fill /dev/mapper/slow --seed 60 --seq 2 --length 16M
	state_is s active || fail "$(session_get s error)"
	stamp verify "$image" --seed 60 --length 16M --seq 1
	dm_switch slow "0 262144 linear $(disk 1) 0"
	session_destroy s
}
