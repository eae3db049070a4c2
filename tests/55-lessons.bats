#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 26
# What went wrong in other drivers, where no other suite has it: docs/testing.md lists the lessons and their tests.

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so are its variables
load lib/common
load lib/devices
load lib/memory
load lib/stamped

setup() {
	common_setup
}

teardown() {
	common_teardown
}

@test "lesson 1: the flags of a write do not go into the read that preserves" {
	local events=$BATS_TEST_TMPDIR/events origin number
	origin=$(disk 1)
	number=$(major_minor "$origin")
	number=${number/:/,}
	filled "$origin" --length 4M
	session_of "$(disk 2)" "$origin"
	trace block/block_bio_queue
	dd if=/dev/zero of="$origin" bs=64k count=16 oflag=direct,dsync conv=notrunc status=none
	grep "block_bio_queue: $number " "$TRACING/trace" >"$events"
	# Forced to the medium, and synchronous.
	[[ $(grep -c "block_bio_queue: $number WFS" "$events") -ge 16 ]]
	[[ $(grep -c "block_bio_queue: $number R" "$events") -ge 16 ]]
	run ! grep -E "block_bio_queue: $number F?R[A-Z]*F" "$events"
	image_is "$(image_of s s1)" --length 4M
	cmp -n 1048576 "$origin" /dev/zero
	session_destroy s
}

# overwrite DEVICE MEBIBYTES: 4 KiB here and there, all over it.
overwrite() {
	fio --name=overwrite --filename="$1" --rw=randwrite --bs=4k --ioengine=libaio --iodepth=32 --direct=1 --norandommap \
		--io_size="$2M" --size=100% --randrepeat=0 --output="$BATS_TEST_TMPDIR/fio"
}

@test "lesson 7, 10: seven tebibytes with large optimal I/O: the difference storage lasts, and nothing is allocated ahead" {
	local dir before spent limit
	echo 4M >"$MEMORY_LIMIT"
	limit=$(scaled 256)
	[[ $limit -le 1024 ]] || limit=1024
	mkfs.ext4 -q "$(disk 7)"
	dir=$(mount_test "$(disk 7)" diff)
	# It needs no room for what is written: to a snapshot that makes no difference.
	dm_make nothing "0 $((7 << 31)) zero"
	dm_make huge "0 $((7 << 31)) striped 1 1024 /dev/mapper/nothing 0"
	[[ $(cat "/sys/block/$(basename "$(readlink -e /dev/mapper/huge)")/queue/minimum_io_size") -eq 524288 ]]
	before=$(meminfo MemAvailable)
	session_make s "$dir/diff" /dev/mapper/huge
	put "$SESSIONS/s/diff_limit" "${limit}M"
	session_take s
	spent=$((before - $(meminfo MemAvailable)))
	[[ $spent -lt 16384 ]] || fail "the take cost $spent KiB"
	[[ $(stat_of "$(image_of s s1)" chunk_size) -eq 4096 ]]
	overwrite /dev/mapper/huge $((limit * 9 / 10))
	state_is s active || fail "$(session_get s error)"
	[[ $(session_get s diff_used) -le $((limit * 91 / 100 << 20)) ]] || fail "$(session_get s diff_used) bytes are used"
	overwrite /dev/mapper/huge $((limit / 5))
	wait_until 20 state_is s overflow
	[[ $(session_get s error) == "ENOSPC: difference storage full at $((limit << 20)) bytes" ]]
	session_destroy s
}

# watched FILE: the most memory that session s had for what is preserved, until the test ends it.
watched() {
	local file
	file=/sys/block/$(basename "$(image_of s s1)")/blksnap/memory_bytes
	# shellcheck disable=SC2016 # the inner shell expands these
	background bash -c 'most=0; while read -r now <"$0"; do
		if [[ $now -gt $most ]]; then most=$now; echo "$most" >"$1"; fi; sleep 0.05; done' "$file" "$1"
	WATCHED=$BACKGROUND
}

# wiped HOW [OPTION]: 64 MiB with 4 MiB of memory.
wiped() {
	local most=$BATS_TEST_TMPDIR/most
	echo 4M >"$MEMORY_LIMIT"
	dm_linear wiped "$(disk 1)" 131072
	filled /dev/mapper/wiped
	session_make s "$(disk 2)" /dev/mapper/wiped
	put "$SESSIONS/s/s1/discard" "$1"
	session_take s
	echo 0 >"$most"
	watched "$most"
	blkdiscard -f "${@:2}" /dev/mapper/wiped
	end_background "$WATCHED"
	# The reserve comes on top.
	[[ $(<"$most") -le $((5 << 20)) ]] || fail "$(<"$most") bytes were in memory"
	[[ $(stat_of "$(image_of s s1)" chunks_preserved) -eq 16384 ]]
	image_is "$(image_of s s1)"
	cmp -n $((64 << 20)) /dev/mapper/wiped /dev/zero
	session_destroy s
}

@test "lesson 8: a discard of sixteen times the memory is preserved in pieces" {
	wiped preserve
}

@test "lesson 8: write-zeroes of sixteen times the memory are preserved in pieces" {
	wiped drop -z
}

@test "lesson 9: an origin that hangs delays no other one" {
	dm_linear hangs "$(disk 1)" 65536
	filled "$(disk 3)" --length 16M
	session_make h "$(disk 2)" /dev/mapper/hangs
	session_take h
	session_of "$(disk 4)" "$(disk 3)"
	dmsetup suspend --nolockfs --noflush hangs
	defer dmsetup resume hangs
	background dd if=/dev/zero of=/dev/mapper/hangs bs=1M count=4 oflag=direct conv=notrunc status=none
	sleep 1
	storm "$(disk 3)" "$(image_of s s1)" --length 16M --count 1000 --max-size 16K
	session_destroy s
	session_of "$(disk 4)" "$(disk 3)"
	session_destroy s
	kill -0 "$BACKGROUND"
	dmsetup resume hangs
	wait_until 20 gone "$BACKGROUND"
	session_destroy h
}

# full DISK: all its requests are under way, and who has another one waits.
full() {
	[[ $(awk '{ print $9 }' "/sys/block/${1##*/}/stat") -ge $(<"/sys/block/${1##*/}/queue/nr_requests") ]]
}

@test "lesson 9: a tracked partition whose table is read from a disk that hangs holds up nobody" {
	local reader i
	dm_linear hangs "$(disk 4)" 262144
	loop_make_of /dev/mapper/hangs --partscan --direct-io=on
	partition "$LOOP" 64M
	for i in t u; do
		mkdir "$TRACKERS/$i"
	done
	put "$TRACKERS/t/device" "$(part "$LOOP" 1)"
	put "$TRACKERS/u/device" "$(disk 3)"
	put "$TRACKERS/t/enabled" 1
	put "$TRACKERS/u/enabled" 1
	session_of "$(disk 2)" "$(disk 1)"
	session_make other "$(disk 7)" "$(disk 3)"
	udev_away
	dmsetup suspend --nolockfs --noflush hangs
	defer dmsetup resume --noudevsync hangs
	background blockdev --rereadpt "$LOOP"
	reader=$BACKGROUND
	wait_until 10 hangs "$reader"
	for i in "cat $TRACKERS/u/state" "cat $TRACKERS/t/state" "eval echo 1 >$SESSIONS/other/active" \
		"eval echo 0 >$SESSIONS/s/active" "eval echo 0 >$TRACKERS/u/enabled" "rmdir $TRACKERS/u"; do
		# shellcheck disable=SC2086 # words
		background $i
		wait_until 20 gone "$BACKGROUND"
		wait "$BACKGROUND"
	done
	hangs "$reader" || fail 'it did not hang: nothing was shown'
	dmsetup resume --noudevsync hangs
	wait "$reader"
	udev_back
	[[ $(cat "$TRACKERS/t/state") == tracking ]]
	session_destroy other
	session_destroy s
	put "$TRACKERS/t/enabled" 0
	rmdir "$TRACKERS/t"
}

@test "lesson 9: a part of an origin that takes no request does not hold up what is done with the rest of it" {
	local both=/dev/mapper/both leg readers=() write
	dm_linear hangs "$(disk 4)" 65536
	nbd_make /dev/mapper/hangs --cache=none
	leg=${NBD##*/}
	echo none >"/sys/block/$leg/queue/scheduler"
	echo 4 >"/sys/block/$leg/queue/nr_requests"
	dm_make both < <(printf '%s\n' "0 65536 linear $(disk 1) 0" "65536 65536 linear $NBD 0")
	filled "$both" --length 32M
	session_of "$(disk 2)" "$both"
	session_make other "$(disk 3)" "$both"
	# It would read the image of the part, too.
	udev_away
	dmsetup suspend --nolockfs --noflush hangs
	defer dmsetup resume --noudevsync hangs
	for i in {1..5}; do
		background dd if="$NBD" of=/dev/null bs=4096 skip="$i" count=1 iflag=direct status=none
		readers+=("$BACKGROUND")
	done
	wait_until 10 full "$NBD"
	background dd if=/dev/zero of="$both" bs=4096 seek=8192 count=1 oflag=direct conv=notrunc status=none
	write=$BACKGROUND
	wait_until 10 hangs "$write"
	# Whoever reads what it overwrites waits for a request.
	sleep 1
	# Without a flush, which goes to all of its parts.
	dd if=/dev/zero of="$both" bs=64k count=16 oflag=direct conv=notrunc status=none
	put "$SESSIONS/other/active" 1
	dd if=/dev/zero of="$both" bs=64k seek=16 count=16 oflag=direct conv=notrunc status=none
	put "$SESSIONS/other/active" 0
	dd if=/dev/zero of="$both" bs=64k seek=32 count=16 oflag=direct conv=notrunc status=none
	image_is "$(image_of s s1)" --length 16M
	hangs "$write" || fail 'it did not hang: nothing was shown'
	dmsetup resume --noudevsync hangs
	wait "$write" "${readers[@]}"
	cmp -i 33554432:0 -n 4096 "$both" /dev/zero
	udev_back
	image_is "$(image_of s s1)" --length 32M
	session_destroy s
	session_destroy other
}

@test "lesson 15: swap on the origin: pages go out and come back while a session is active (I1)" {
	local origin before group=/sys/fs/cgroup/blksnap-swap
	origin=$(disk 1)
	partition "$origin" 256M 256M
	filled "$(part "$origin" 1)" --length 32M
	swap_on "$(part "$origin" 2)"
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	mkdir "$group"
	defer rmdir "$group"
	echo 48M >"$group/memory.max"
	session_of "$(disk 2)" "$origin"
	before=$(swapped_out)
	# 128 MiB.
	(echo "$BASHPID" >"$group/cgroup.procs" && pages_come_back 32768)
	[[ $(($(swapped_out) - before)) -gt 30000 ]] || fail "only $(($(swapped_out) - before)) pages went out"
	state_is s active || fail "$(session_get s error)"
	[[ $(stat_of "$(image_of s s1)" chunks_preserved) -gt 10000 ]]
	image_is "$(image_of s s1)p1" --length 32M
	# The disk was blank, but for the first page.
	cmp -i 4096:0 -n $((96 << 20)) "$(image_of s s1)p2" /dev/zero
	run ! cmp -s -i 4096:0 -n $((96 << 20)) "$(part "$origin" 2)" /dev/zero
	session_destroy s
}

@test "lesson 15: little memory, dirty pages of more than that, swap on the origin (I1)" {
	local origin data free
	origin=$(disk 1)
	partition "$origin" 640M 256M
	data=$(part "$origin" 1)
	filled "$data" --length 600M
	swap_on "$(part "$origin" 2)"
	session_of "$(disk 2)" "$origin"
	# All but 400 MiB of the memory are out of reach.
	echo 3 >/proc/sys/vm/drop_caches
	free=$(meminfo MemFree)
	defer eval 'echo 0 >/proc/sys/vm/nr_hugepages'
	echo $(((free - 409600) / 2048)) >/proc/sys/vm/nr_hugepages
	free=$(meminfo MemAvailable)
	[[ $free -lt 450000 ]] || fail "$free KiB are available"
	dd if=/dev/zero of="$data" bs=1M count=600 conv=notrunc,fsync status=none
	state_is s active || fail "$(session_get s error)"
	image_is "$(image_of s s1)p1" --length 600M
	run ! log_has 'oom-kill'
	cmp -n $((600 << 20)) "$data" /dev/zero
	session_destroy s
}

# four_written: something that a freeze has to write, on each of the four.
four_written() {
	local number
	for number in 1 3 4 5; do
		dd if=/dev/urandom of="/mnt/test-slow$number/data" bs=64k count=32 status=none
	done
}

@test "lesson 18: four file systems on slow disks are taken in one go" {
	local number frozen by_hand
	modprobe dm-delay
	session_make s "$(disk 2)"
	for number in 1 3 4 5; do
		dm_make "slow$number" "0 262144 delay $(disk "$number") 0 0 $(disk "$number") 0 100"
		mkfs.ext4 -q "/dev/mapper/slow$number"
		mount_test "/dev/mapper/slow$number" "slow$number"
		mkdir "$SESSIONS/s/s$number"
		put "$SESSIONS/s/s$number/device" "/dev/mapper/slow$number"
	done
	# A write takes a tenth of a second: some for each journal, none for what is not the snapshot's. So long does it take by hand,
	# on this machine.
	four_written
	by_hand=${EPOCHREALTIME/./}
	for number in 1 3 4 5; do
		fsfreeze -f "/mnt/test-slow$number"
	done
	for number in 1 3 4 5; do
		fsfreeze -u "/mnt/test-slow$number"
	done
	by_hand=$((${EPOCHREALTIME/./} - by_hand))
	four_written
	session_take s
	frozen=$(session_get s frozen_us)
	echo "frozen for $frozen us, of which held $(session_get s hold_us) us; by hand $by_hand us"
	[[ $frozen -gt 0 && $frozen -lt $((3 * by_hand)) && $(session_get s hold_us) -lt $by_hand ]]
	session_destroy s
	for number in 1 3 4 5; do
		umount "/mnt/test-slow$number"
	done
}
