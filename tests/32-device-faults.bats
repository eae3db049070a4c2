#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 12
# Devices that err, forget, hang, are slow, or go away while they are in use: docs/testing.md has the table of what breaks
# where. Those that an image's reader or a writer to the origin is the first to notice are in the suite of the engine.

# shellcheck disable=SC2030,SC2031,SC2153 # each test is a subshell, and so are its variables
load lib/common
load lib/devices
load lib/stamped

setup() {
	common_setup
}

teardown() {
	common_teardown
}

# zeroed DEVICE BLOCK [COUNT]: overwrites blocks of 4 KiB. Never makes a file of what has gone.
zeroed() {
	dd if=/dev/zero of="$1" bs=4096 seek="$2" count="${3:-1}" oflag=direct conv=notrunc,nocreat status=none
}

# zeroed_mebibytes DEVICE FIRST COUNT
zeroed_mebibytes() {
	dd if=/dev/zero of="$1" bs=1M seek="$2" count="$3" oflag=direct conv=notrunc,nocreat status=none
}

# store_make: /dev/mapper/store, a difference storage that can be made to fail, and little memory, so that it is needed.
store_make() {
	echo 4M >"$MEMORY_LIMIT"
	dm_linear store "$(disk 2)" 131072
}

# store_is TARGET [ARGUMENT...]: what is behind it from now on, with "{}" for the disk and where it begins there.
store_is() {
	dm_switch store "0 131072 ${*/\{\}/$(disk 2) 0}"
}

null_blk_delete() {
	echo 0 >"/sys/kernel/config/nullb/$1/power"
}

# --- the origin errs -------------------------------------------------------------------------------------------------

@test "device faults: the origin cannot be written: its writer is told, once, and nobody else; the image stays right (I1, I2)" {
	local origin=/dev/mapper/bad image at writers=() failed=()
	modprobe dm-flakey
	filled "$(disk 1)" --length 16M
	dm_linear bad "$(disk 1)" 32768
	session_make s "$(disk 2)" "$origin"
	put "$SESSIONS/s/s1/chunk_size" 64K
	session_take s
	image=$(image_of s s1)
	# Block 2051, one of sixteen of a granule; it can be read.
	dm_switch bad <<-END
		0 16408 linear $(disk 1) 0
		16408 8 flakey $(disk 1) 16408 0 60 1 error_writes
		16416 16352 linear $(disk 1) 16416
	END
	for at in {2048..2063}; do
		background zeroed "$origin" "$at"
		writers[at]=$BACKGROUND
	done
	for at in "${!writers[@]}"; do
		wait "${writers[at]}" || failed+=("$at")
	done
	[[ ${failed[*]} == 2051 ]] || fail "these have failed: ${failed[*]}"
	refuses EIO zeroed "$origin" 2051
	[[ $(($(stat_of "$image" writes_held) + $(stat_of "$image" writes_passed))) -eq 17 ]]
	[[ $(stat_of "$image" chunks_preserved) -eq 1 ]]
	state_is s active || fail "$(session_get s error)"
	consistent "$image"
	image_is "$image"
	stamp verify "$origin" --seed "$SEED" --seq 1 --offset $((2051 * 4096)) --length 4K
	cmp -i $((2052 * 4096)):0 -n $((12 * 4096)) "$origin" /dev/zero

	dm_switch bad "0 32768 linear $(disk 1) 0"
	zeroed "$origin" 2051
	image_is "$image"
	session_destroy s
}

# bad_make: /dev/mapper/bad, an origin of 16 MiB, with a session s.
bad_make() {
	filled "$(disk 1)" --length 16M
	dm_make nothing "0 32768 error"
	dm_linear bad "$(disk 1)" 32768
	session_of "$(disk 2)" /dev/mapper/bad
}

# bad_reads_fail BOOLEAN: and nothing but reads.
bad_reads_fail() {
	if [[ $1 == 1 ]]; then
		dm_switch bad "0 32768 delay /dev/mapper/nothing 0 0 $(disk 1) 0 0"
		refuses EIO dd if=/dev/mapper/bad of=/dev/null bs=4096 count=1 iflag=direct status=none
	else
		dm_switch bad "0 32768 linear $(disk 1) 0"
	fi
}

@test "device faults: the origin cannot be read for a while: readers are told; failed as soon as that fails a copy (I1, I2, I8)" {
	local origin=/dev/mapper/bad image
	bad_make
	image=$(image_of s s1)
	stamp fill "$origin" --seed "$SEED" --seq 2 --length 1M
	bad_reads_fail 1
	refuses EIO dd if="$image" of=/dev/null bs=4096 skip=512 count=1 iflag=direct status=none
	image_is "$image" --length 1M
	# What was preserved is not read again.
	stamp fill "$origin" --seed "$SEED" --seq 3 --length 1M
	state_is s active || fail "$(session_get s error)"
	bad_reads_fail 0
	image_is "$image"
	stamp verify "$origin" --seed "$SEED" --seq 3 --length 1M

	bad_reads_fail 1
	zeroed "$origin" 2048
	wait_until 10 state_is s failed
	[[ $(session_get s s1/error) == 'EIO: '* ]] || fail "$(session_get s s1/error)"
	image_fails "$image"
	zeroed_mebibytes "$origin" 9 1
	bad_reads_fail 0
	image_fails "$image"
	cmp -i $((8 << 20)):0 -n 4096 "$origin" /dev/zero
	cmp -i $((9 << 20)):0 -n 1048576 "$origin" /dev/zero
	session_destroy s
}

# It is preserved before it is changed in the image.
@test "device faults: the origin cannot be read where an image is written: its writer is told; failed (I1, I2, I8)" {
	local image
	bad_make
	image=$(image_of s s1)
	zeroed "$image" 256
	bad_reads_fail 1
	zeroed "$image" 256
	state_is s active || fail "$(session_get s error)"
	refuses EIO zeroed "$image" 1024
	wait_until 10 state_is s failed
	[[ $(session_get s s1/error) == 'EIO: '* ]] || fail "$(session_get s s1/error)"
	image_fails "$image"
	bad_reads_fail 0
	stamp verify /dev/mapper/bad --seed "$SEED" --seq 1
	session_destroy s
}

# --- the difference storage errs -------------------------------------------------------------------------------------

@test "device faults: the difference storage cannot be written for a moment: failed, and it stays so; the next take works (I1, I8)" {
	modprobe dm-flakey
	store_make
	filled "$(disk 1)" --length 24M
	session_of /dev/mapper/store "$(disk 1)"
	store_is flakey {} 0 60 1 error_writes
	storm "$(disk 1)" "$(image_of s s1)" --length 24M --count 2500 --max-size 16K --image-may-fail
	[[ $(storm_value origin_errors) -eq 0 ]]
	[[ $(session_get s error) == 'EIO: '* ]]
	store_is linear {}
	state_is s failed
	image_fails "$(image_of s s1)"
	session_release s
	filled "$(disk 1)" --length 24M
	session_take s
	zeroed_mebibytes "$(disk 1)" 0 12
	[[ $(stat_of "$(image_of s s1)" chunks_stored) -gt 0 ]]
	image_is "$(image_of s s1)" --length 24M
	session_destroy s
}

# Nothing can be known of such a storage, but for what was not read back from it.
@test "device faults: the difference storage forgets what it has confirmed: no origin is harmed (I1)" {
	modprobe dm-flakey
	store_make
	filled "$(disk 1)" --length 24M
	session_of /dev/mapper/store "$(disk 1)"
	store_is flakey {} 0 60 1 drop_writes
	zeroed_mebibytes "$(disk 1)" 0 16
	state_is s active || fail "$(session_get s error)"
	[[ $(stat_of "$(image_of s s1)" chunks_stored) -gt 0 ]]
	image_is "$(image_of s s1)" --offset 16M --length 8M
	# That it did forget.
	run ! image_is "$(image_of s s1)" --length 16M
	cmp -n $((16 << 20)) "$(disk 1)" /dev/zero
	stamp verify "$(disk 1)" --seed "$SEED" --seq 1 --offset 16M --length 8M
	session_destroy s
}

@test "device faults: the difference storage hangs: who needs what is stored there waits, and nobody else (I1, I2)" {
	local image read=$BATS_TEST_TMPDIR/read reader writer
	store_make
	filled "$(disk 1)" --length 24M
	dd if="$(disk 1)" of="$read.before" bs=1M count=2 iflag=direct status=none
	session_of /dev/mapper/store "$(disk 1)"
	image=$(image_of s s1)
	zeroed_mebibytes "$(disk 1)" 0 16
	[[ $(stat_of "$image" chunks_stored) -gt 512 ]]
	# From now on none of the others needs it.
	echo 64M >"$MEMORY_LIMIT"
	dmsetup suspend --nolockfs --noflush store
	defer dmsetup resume store
	background dd if="$image" of="$read" bs=1M count=2 iflag=direct status=none
	reader=$BACKGROUND
	background zeroed "$image" $((23 * 256))
	writer=$BACKGROUND
	sleep 1
	image_is "$image" --offset 18M --length 4M
	zeroed_mebibytes "$(disk 1)" 20 2
	image_is "$image" --offset 18M --length 4M
	kill -0 "$reader" || fail 'the reader has not waited'
	kill -0 "$writer" || fail 'the writer of the image has not waited'
	state_is s active || fail "$(session_get s error)"
	dmsetup resume store
	wait "$reader"
	wait "$writer"
	cmp "$read.before" "$read"
	image_is "$image" --length 23M
	cmp -i $((23 << 20)):0 -n 4096 "$image" /dev/zero
	stamp verify "$(disk 1)" --seed "$SEED" --seq 1 --offset 22M --length 2M
	session_destroy s
}

@test "device faults: the difference storage is unplugged: failed, origins go on, and it is let go (I1, I7, I8)" {
	local image
	echo 4M >"$MEMORY_LIMIT"
	scsi_debug_make dev_size_mb=64
	filled "$(disk 1)" --length 16M
	session_of "$SCSI" "$(disk 1)"
	image=$(image_of s s1)
	zeroed_mebibytes "$(disk 1)" 0 8
	[[ $(stat_of "$image" chunks_stored) -gt 512 ]]
	image_is "$image" --length 16M
	scsi_debug_delete
	run ! image_is "$image" --length 2M
	image_is "$image" --offset 8M --length 8M
	storm "$(disk 1)" "$image" --offset 8M --length 8M --count 1000 --max-size 16K --image-may-fail
	[[ $(storm_value origin_errors) -eq 0 ]]
	wait_until 10 state_is s failed
	[[ $(session_get s error) =~ ^(EIO|ENODEV|ENXIO):\  ]] || fail "$(session_get s error)"
	image_fails "$image"
	session_destroy s
}

# stormed_meanwhile LENGTH [OPTION...]: a storm of the origin that session s has of disk 1, which may lose its image, until
# stop_background.
stormed_meanwhile() {
	background stamp storm "$(disk 1)" "$(image_of s s1)" --seed "$SEED" --taken-seq 1 --length "$1" --seconds 600 --readers 2 \
		--image-may-fail "${@:2}"
}

# stat_above IMAGE STATISTIC COUNT
stat_above() {
	[[ $(stat_of "$1" "$2") -gt $3 ]]
}

# writes_of DEVICE: prints how many it has completed.
writes_of() {
	awk '{ print $5 }' "/sys/block/${1##*/}/stat"
}

# writes_above DEVICE COUNT
writes_above() {
	[[ $(writes_of "$1") -gt $2 ]]
}

# store_unplugged_under_load DEVICE COMMAND...: the difference storage, which is slow, is taken away by the command while it is
# written to and writers of the origin wait for that.
store_unplugged_under_load() {
	local diff=$1 image
	shift
	echo 4M >"$MEMORY_LIMIT"
	filled "$(disk 1)" --length 64M
	session_of "$diff" "$(disk 1)"
	image=$(image_of s s1)
	stormed_meanwhile 64M --min-size 4K --align 4K
	wait_until 30 stat_above "$image" chunks_stored 512
	wait_until 10 requests_in_flight "$diff"
	state_is s active || fail "$(session_get s error)"
	"$@"
	wait_until 30 state_is s failed
	[[ $(session_get s error) =~ ^(EIO|ENODEV|ENXIO):\  ]] || fail "$(session_get s error)"
	[[ $(stat_of "$image" chunks_preserved) -lt 16384 ]] || fail 'all was preserved: nothing was shown'
	wait_until 30 writes_above "$(disk 1)" $(($(writes_of "$(disk 1)") + 200))
	stop_background
	image_fails "$image"
	session_destroy s
}

@test "device faults: a SCSI disk is unplugged while differences are stored there: failed, origins go on (I1, I2, I7, I8)" {
	scsi_debug_make dev_size_mb=96 ndelay=100000000
	store_unplugged_under_load "$SCSI" scsi_debug_delete
}

@test "device faults: a null_blk goes while differences are stored there: failed, origins go on (I1, I2, I7, I8)" {
	null_blk_make nulls memory_backed=1 size=96 blocksize=512 irqmode=2 completion_nsec=100000000
	store_unplugged_under_load /dev/nulls null_blk_delete nulls
}

@test "device faults: losetup -d of the difference storage of an active session: it stays until the release (I7)" {
	local file=$BATS_TEST_TMPDIR/file image
	echo 4M >"$MEMORY_LIMIT"
	truncate -s 64M "$file"
	LOOP=$(losetup -f --show "$file")
	filled "$(disk 1)" --length 16M
	session_of "$LOOP" "$(disk 1)"
	image=$(image_of s s1)
	losetup -d "$LOOP"
	storm "$(disk 1)" "$image" --length 16M --count 2000 --max-size 32K
	state_is s active || fail "$(session_get s error)"
	[[ $(stat_of "$image" chunks_stored) -gt 512 ]]
	consistent "$image"
	[[ -d /sys/block/${LOOP##*/}/loop ]]
	session_release s
	wait_until 10 test ! -d "/sys/block/${LOOP##*/}/loop"
	# There is nothing in it any more.
	run ! put "$SESSIONS/s/active" 1
	state_is s configured
	session_destroy s
}

@test "device faults: an image cannot be written: its writer is told; what was never stored fails the snapshot (I1, I2, I8)" {
	local image
	store_make
	filled "$(disk 1)" --length 8M
	session_of /dev/mapper/store "$(disk 1)"
	image=$(image_of s s1)
	zeroed "$image" 256
	store_is error
	# It has its place, whose content is lost, but nothing else.
	refuses EIO zeroed "$image" 256
	state_is s active || fail "$(session_get s error)"
	image_is "$image" --offset 2M --length 6M
	store_is linear {}
	zeroed "$image" 256
	cmp -i $((1 << 20)):0 -n 4096 "$image" /dev/zero
	image_is "$image" --length 1M
	store_is error
	refuses EIO zeroed "$image" 512
	wait_until 10 state_is s failed
	[[ $(session_get s error) == 'EIO: '* ]]
	image_fails "$image"
	stamp verify "$(disk 1)" --seed "$SEED" --seq 1 --length 8M
	storm "$(disk 1)" - --length 8M --count 100
	session_destroy s
}

# --- SCSI's own errors -----------------------------------------------------------------------------------------------

# scsi_writes_fail BOOLEAN: each write is answered with an error (the disk is write-protected), and reads are not.
scsi_writes_fail() {
	echo "$1" >/sys/module/scsi_debug/parameters/wp
}

# scsi_reads_fail BOOLEAN: each read that is among the blocks of medium_error_start is.
scsi_reads_fail() {
	echo $(($1 * 2)) >/sys/bus/pseudo/drivers/scsi_debug/opts
}

# error_of COMMAND...: it fails, and how is printed.
error_of() {
	local said
	! said=$(LC_ALL=C "$@" 2>&1) || fail "it has not failed: $*" >&2 || return
	printf '%s\n' "${said##*: }"
}

# Where udev sees that such a disk is closed by a writer, it has the kernel look at it again, which then refuses all writers.
@test "device faults: a SCSI disk refuses writes: its writers are told as without a session; the image stays right (I1, I2)" {
	local image first second
	scsi_debug_make dev_size_mb=16
	defer scsi_writes_fail 0
	filled "$SCSI"
	session_of "$(disk 2)" "$SCSI"
	image=$(image_of s s1)
	udev_away
	# Its granule has been preserved, so that the next write there is passed at once.
	stamp fill "$SCSI" --seed "$SEED" --seq 2 --length 4K
	scsi_writes_fail 1
	first=$(error_of zeroed "$SCSI" 0)
	second=$(error_of zeroed "$SCSI" 256)
	[[ $(stat_of "$image" writes_held) -eq 2 && $(stat_of "$image" writes_passed) -eq 1 ]]
	state_is s active || fail "$(session_get s error)"
	image_is "$image"
	stamp verify "$SCSI" --seed "$SEED" --seq 2 --length 4K
	stamp verify "$SCSI" --seed "$SEED" --seq 1 --offset 4K
	scsi_writes_fail 0
	zeroed "$SCSI" 256
	cmp -i $((1 << 20)):0 -n 4096 "$SCSI" /dev/zero
	image_is "$image"
	consistent "$image"
	put "$SESSIONS/s/active" 0
	scsi_writes_fail 1
	[[ $(error_of zeroed "$SCSI" 0) == "$first" && $first == "$second" ]] || fail "$first, $second"
	scsi_writes_fail 0
	udev_back
	session_destroy s
}

@test "device faults: a SCSI disk refuses writes of differences: failed, origins go on; the next take works (I1, I8)" {
	scsi_debug_make dev_size_mb=64
	echo 4M >"$MEMORY_LIMIT"
	filled "$(disk 1)" --length 32M
	session_of "$SCSI" "$(disk 1)"
	defer scsi_writes_fail 0
	stormed_meanwhile 32M
	wait_until 30 stat_above "$(image_of s s1)" chunks_stored 64
	state_is s active || fail "$(session_get s error)"
	scsi_writes_fail 1
	wait_until 30 state_is s failed
	scsi_writes_fail 0
	stop_background
	[[ $(session_get s error) =~ ^E[A-Z]+:\ .*writ ]] || fail "$(session_get s error)"
	image_fails "$(image_of s s1)"
	session_release s
	filled "$(disk 1)" --length 24M
	session_take s
	zeroed_mebibytes "$(disk 1)" 0 12
	[[ $(stat_of "$(image_of s s1)" chunks_stored) -gt 0 ]]
	image_is "$(image_of s s1)" --length 24M
	session_destroy s
}

@test "device faults: a SCSI disk cannot read differences for a while: the image never lies, origins go on (I1, I2)" {
	local image
	# All of it is such.
	scsi_debug_make dev_size_mb=64 medium_error_start=0 medium_error_count=131072
	defer scsi_reads_fail 0
	echo 4M >"$MEMORY_LIMIT"
	filled "$(disk 1)" --length 32M
	session_of "$SCSI" "$(disk 1)"
	image=$(image_of s s1)
	zeroed_mebibytes "$(disk 1)" 0 8
	stormed_meanwhile 24M --offset 8M
	[[ $(stat_of "$image" chunks_stored) -gt 512 ]]
	for _ in 1 2 3; do
		scsi_reads_fail 1
		run ! dd if="$image" of=/dev/null bs=1M count=8 iflag=direct status=none
		state_is s active || fail "$(session_get s error)"
		wait_until 30 writes_above "$(disk 1)" $(($(writes_of "$(disk 1)") + 50))
		scsi_reads_fail 0
		image_is "$image" --length 8M
	done
	stop_background
	state_is s active || fail "$(session_get s error)"
	image_is "$image" --length 32M
	consistent "$image"
	session_destroy s
}

# --- disks with peculiarities ----------------------------------------------------------------------------------------

# stormed ORIGIN OPTION...: filled, taken, stormed, judged, released; differences go to DIFF.
stormed() {
	filled "$1" --block "${BLOCK:-512}"
	session_of "${DIFF:-$(disk 2)}" "$1"
	storm "$1" "$(image_of s s1)" --block "${BLOCK:-512}" --max-size 32K "${@:2}"
	state_is s active || fail "$(session_get s error)"
	consistent "$(image_of s s1)"
	[[ $(stat_of "$(image_of s s1)" chunks_preserved) -gt 100 ]]
	[[ -z ${DIFF:-} || $(stat_of "$(image_of s s1)" chunks_stored) -gt 100 ]]
	session_destroy s
}

@test "device faults: a SCSI disk with sectors of 4096 bytes" {
	local BLOCK=4096
	scsi_debug_make dev_size_mb=16 sector_size=4096
	[[ $(blockdev --getss "$SCSI") -eq 4096 ]]
	stormed "$SCSI" --count 2000
}

@test "device faults: differences on a SCSI disk with sectors of 4096 bytes" {
	local BLOCK=4096 DIFF
	echo 4M >"$MEMORY_LIMIT"
	scsi_debug_make dev_size_mb=64 sector_size=4096
	DIFF=$SCSI
	null_blk_make nullo memory_backed=1 size=16 blocksize=4096
	stormed /dev/nullo --count 2000
}

@test "device faults: differences on a null_blk with a cache of one mebibyte" {
	local DIFF=/dev/nullc
	echo 4M >"$MEMORY_LIMIT"
	null_blk_make nullc memory_backed=1 size=64 blocksize=512 cache_size=1
	dm_linear origin "$(disk 1)" 32768
	stormed /dev/mapper/origin --count 2000
}

@test "device faults: a SCSI disk on which each command takes a while" {
	scsi_debug_make dev_size_mb=16 ndelay=1000000
	stormed "$SCSI" --count 1000
}

@test "device faults: a null_blk with a cache of one mebibyte and so many a second" {
	null_blk_make nullc memory_backed=1 size=16 blocksize=512 cache_size=1 mbps=30
	stormed /dev/nullc --count 1000
}

# while_written_back DEVICE PAGES COUNTER: scattered pages are written back, since they are old, and nobody waits for them. Prints
# what the counter is then, and when one write more is done, which is waited for. All in one process, with the device open: when it
# is closed, udev has the partition table read again, and that writes everything back.
while_written_back() {
	local name vm=/proc/sys/vm
	for name in dirty_writeback_centisecs dirty_expire_centisecs; do
		defer eval "echo $(cat $vm/$name) >$vm/$name"
		echo 10 >$vm/$name
	done
	python3 -c '
import mmap, os, sys, time
path, pages, counter = sys.argv[1], int(sys.argv[2]), sys.argv[3]
buffered, direct = os.open(path, os.O_WRONLY), os.open(path, os.O_WRONLY | os.O_DIRECT)
for page in range(pages):
    os.pwrite(buffered, bytes([1]) * 4096, page << 18)
def under_writeback():
    return next(int(line.split()[1]) for line in open("/proc/meminfo") if line.startswith("Writeback:")) // 4
while under_writeback() < pages * 3 // 4:
    time.sleep(0.1)
before = open(counter).read().strip()
os.pwrite(direct, mmap.mmap(-1, 4096), pages << 18)
print(before, open(counter).read().strip())
' "$@"
}

@test "device faults: on a slow disk a write that somebody waits for does not wait for all that is written back (I1)" {
	local image before after
	scsi_debug_make dev_size_mb=64 ndelay=100000000 max_queue=2
	session_of "$(disk 2)" "$SCSI"
	image=$(image_of s s1)
	read -r before after < <(while_written_back "$SCSI" 200 "/sys/block/${image##*/}/blksnap/chunks_preserved")
	echo "preserved: $before before it, $after when it was done"
	# Those that had begun, and those that the disk took in turn with it.
	[[ $after -lt 150 ]]
	wait_until 60 stat_above "$image" chunks_preserved 200
	session_destroy s
}

# --- devices that go away under load ---------------------------------------------------------------------------------

# load_on DEVICE NAME RW [FIO-OPTION...]: many requests at a time, until the first error; PID in BACKGROUND.
load_on() {
	background fio --name="$2" --filename="$1" --rw="$3" --bs=4k --ioengine=libaio --iodepth=16 --numjobs=2 --thread --direct=1 \
		--size=8M --time_based --runtime=600 --output="$BATS_TEST_TMPDIR/$2" "${@:4}"
}

# has_failed PID NAME: what load_on has started ends, and was told of an error.
has_failed() {
	wait_until 30 gone "$1" && grep -Eq 'err= *[1-9]' "$BATS_TEST_TMPDIR/$2"
}

# tracker_is NAME STATE
tracker_is() {
	[[ $(cat "$TRACKERS/$1/state") == "$2" ]]
}

# unplugged_under_load ORIGIN COMMAND...: the command takes it away while it is written to, its image is read and, elsewhere,
# written, its changes are tracked; another origin of the session is as good as before.
unplugged_under_load() {
	local origin=$1 image reader writer image_writer pid
	shift
	filled "$origin"
	filled "$(disk 3)" --length 4M
	tracker_make t "$origin"
	session_of "$(disk 2)" "$origin" "$(disk 3)"
	image=$(image_of s s1)
	load_on "$image" reader randread
	reader=$BACKGROUND
	load_on "$image" image-writer randwrite --offset=8M
	image_writer=$BACKGROUND
	load_on "$origin" writer randwrite
	writer=$BACKGROUND
	wait_until 10 requests_in_flight "$origin"
	wait_until 10 stat_above "$image" chunks_preserved 200
	wait_until 10 stat_above "$image" chunks_written 20
	for pid in "$reader" "$writer" "$image_writer"; do
		kill -0 "$pid" || fail "one has ended by itself: $(cat "$BATS_TEST_TMPDIR"/{reader,writer,image-writer})"
	done
	"$@"
	wait_until 20 state_is s lost
	wait_until 20 tracker_is t lost
	has_failed "$reader" reader
	has_failed "$image_writer" image-writer
	has_failed "$writer" writer
	[[ $(session_get s s1/error) == 'ENODEV: '* && $(cat "$TRACKERS/t/error") == 'ENODEV: '* ]]
	image_fails "$image"
	[[ $(session_get s s2/state) == active ]]
	storm "$(disk 3)" "$(image_of s s2)" --length 4M --count 300
	session_destroy s
	tracker_destroy t
}

@test "device faults: a SCSI disk is unplugged with requests in flight and a tracker: lost, and nothing hangs (I1, I7, I8, lesson 11)" {
	scsi_debug_make dev_size_mb=16 ndelay=3000000
	unplugged_under_load "$SCSI" scsi_debug_delete
}

@test "device faults: a null_blk goes with requests in flight and a tracker: lost, and nothing hangs (I1, I7, I8, lesson 11)" {
	null_blk_make nullu memory_backed=1 size=16 blocksize=512 irqmode=2 completion_nsec=3000000
	unplugged_under_load /dev/nullu null_blk_delete nullu
}

# tracked_unplugged_under_load ORIGIN COMMAND...: nothing but a tracker knows of it.
tracked_unplugged_under_load() {
	local origin=$1
	shift
	tracker_make t "$origin"
	load_on "$origin" writer randwrite
	wait_until 10 requests_in_flight "$origin"
	wait_until 10 writes_above "$origin" 200
	kill -0 "$BACKGROUND" || fail "it has ended by itself: $(cat "$BATS_TEST_TMPDIR/writer")"
	"$@"
	wait_until 20 tracker_is t lost
	has_failed "$BACKGROUND" writer
	[[ $(<"$TRACKERS/t/error") == 'ENODEV: '* && -z $(<"$TRACKERS/t/generation") ]]
	refuses EINVAL put "$TRACKERS/t/dirty" '0 1'
	tracker_destroy t
}

@test "device faults: a SCSI disk with nothing but a tracker is unplugged under load: lost, and nothing hangs (I1, I7, I8)" {
	scsi_debug_make dev_size_mb=16 ndelay=3000000
	tracked_unplugged_under_load "$SCSI" scsi_debug_delete
}

@test "device faults: a null_blk with nothing but a tracker goes under load: lost, and nothing hangs (I1, I7, I8)" {
	null_blk_make nullu memory_backed=1 size=16 blocksize=512 irqmode=2 completion_nsec=3000000
	tracked_unplugged_under_load /dev/nullu null_blk_delete nullu
}

# ended_lost_or_failed: what comes first cannot be said: its origin goes, or what is stored there cannot be written.
ended_lost_or_failed() {
	state_is s lost || state_is s failed
}

@test "device faults: a mounted disk with its own differences in a file is unplugged under load: all can be released (I1, I7, I8)" {
	local dir image writer reader
	echo 4M >"$MEMORY_LIMIT"
	scsi_debug_make dev_size_mb=192 ndelay=1000000
	mkfs.ext4 -q "$SCSI"
	dir=$(mount_test "$SCSI" fs)
	fallocate -l 64M "$dir/data"
	session_make s "$dir/diff" "$SCSI"
	put "$SESSIONS/s/diff_limit" 96M
	session_take s
	image=$(image_of s s1)
	load_on "$dir/data" writer randwrite --size=32M --allow_file_create=0
	writer=$BACKGROUND
	load_on "$image" reader randread --size=64M
	reader=$BACKGROUND
	wait_until 30 stat_above "$image" chunks_stored 64
	kill -0 "$writer" || fail "it has ended by itself: $(cat "$BATS_TEST_TMPDIR/writer")"
	state_is s active || fail "$(session_get s error)"
	scsi_debug_delete
	wait_until 30 ended_lost_or_failed
	[[ $(session_get s error) =~ ^(EIO|ENODEV|ENXIO):\  ]] || fail "$(session_get s error)"
	has_failed "$writer" writer
	has_failed "$reader" reader
	image_fails "$image"
	session_destroy s
	umount "$dir"
}

@test "device faults: a disk that goes while it is taken, before its writes are followed (ENODEV)" {
	local dir code=0
	null_blk_make nullu memory_backed=1 size=16
	dm_linear store "$(disk 2)" 524288
	mkfs.ext4 -q /dev/mapper/store
	dir=$(mount_test /dev/mapper/store store)
	session_make s "$dir/diff" /dev/nullu
	put "$SESSIONS/s/diff_limit" 64M
	dmsetup suspend --nolockfs store
	defer dmsetup resume store
	# It is about to make the file.
	background put "$SESSIONS/s/active" 1
	wait_until 20 hangs "$BACKGROUND"
	null_blk_delete nullu
	dmsetup resume store
	wait "$BACKGROUND" || code=$?
	[[ $code -ne 0 ]]
	[[ $(session_get s error) == 'ENODEV: '* && $(session_get s state) == configured ]] ||
		fail "$(session_get s state): $(session_get s error)"
	session_destroy s
	umount "$dir"
}

# degraded STATE: a RAID 1 of two disks that is on one of them alone, since the other one was set offline or deleted, and whose
# table still names both; what it holds can be snapshotted, and be a difference storage.
degraded() {
	local image
	scsi_debug_make dev_size_mb=64
	modprobe dm-raid
	# Without what is noted there, it waits for ever where a member has failed.
	dd if=/dev/zero of="$(disk 5)" bs=1M count=8 oflag=direct status=none
	dm_linear note0 "$(disk 5)" 8192
	dm_linear note1 "$(disk 5)" 8192 8192
	dm_make origin "0 65536 raid raid1 3 0 region_size 1024 2 /dev/mapper/note0 $(disk 1) /dev/mapper/note1 $SCSI"
	wait_until 60 eval 'dmsetup status origin | grep -q " AA "'
	filled /dev/mapper/origin --length 16M
	[[ $1 != deleted ]] || scsi_debug_delete
	[[ $1 != offline ]] || echo offline >"/sys/block/${SCSI##*/}/device/state"
	[[ -L /sys/block/$(basename "$(readlink -f /dev/mapper/origin)")/slaves/${SCSI##*/} ]] || fail 'it has let go of it'
	session_of "$(disk 2)" /dev/mapper/origin
	image=$(image_of s s1)
	storm /dev/mapper/origin "$image" --length 16M --count 500 --max-size 16K
	state_is s active || fail "$(session_get s error)"
	image_is "$image" --length 16M
	session_destroy s
	session_of /dev/mapper/origin "$(disk 3)"
	dd if=/dev/zero of="$(disk 3)" bs=64K count=16 oflag=direct conv=notrunc status=none
	state_is s active || fail "$(session_get s error)"
	session_destroy s
}

@test "device faults: an origin, and a difference storage, of which a mirror has died" {
	degraded offline
}

@test "device faults: an origin, and a difference storage, of which a mirror is gone" {
	degraded deleted
}

@test "device faults: losetup -d while a session is active: it keeps the device, then that goes, and the tracker is lost (I7)" {
	local file=$BATS_TEST_TMPDIR/file
	truncate -s 16M "$file"
	LOOP=$(losetup -f --show "$file")
	filled "$LOOP"
	tracker_make t "$LOOP"
	session_of "$(disk 2)" "$LOOP"
	losetup -d "$LOOP"
	storm "$LOOP" "$(image_of s s1)" --count 1000 --max-size 16K
	state_is s active || fail "$(session_get s error)"
	tracker_is t tracking
	consistent "$(image_of s s1)"
	session_destroy s
	wait_until 10 test ! -d "/sys/block/${LOOP##*/}/loop"
	wait_until 10 tracker_is t lost
	tracker_destroy t
}
