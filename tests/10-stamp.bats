#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 1
# The oracle itself: `stamp` accepts what is right and finds each kind of damage. Regular files only; no module, no
# devices. Takes `stamp` from the PATH, else builds it.

setup_file() {
	bats_require_minimum_version 1.5.0
	if ! command -v stamp >/dev/null; then
		make -C "$BATS_TEST_DIRNAME/src" OUT="$BATS_FILE_TMPDIR/bin" >/dev/null
		export PATH="$BATS_FILE_TMPDIR/bin:$PATH"
	fi
}

setup() {
	cd "$BATS_TEST_TMPDIR" || return
	stamp fill origin --seed 7 --length 4M >/dev/null
	cp origin image
}

teardown() {
	rm -f "$BATS_TEST_TMPDIR"/*
}

# overwrite FILE BYTE TEXT
overwrite() {
	printf '%s' "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# copy_block FILE FROM TO [OTHER]: block FROM of FILE to place TO of OTHER (FILE)
copy_block() {
	dd if="$1" of="${4:-$1}" bs=512 skip="$2" seek="$3" count=1 conv=notrunc status=none
}

# value KEY: the number that the last command printed
value() {
	sed -n "s/^$1=//p" <<<"$output"
}

@test "stamp: a filled file verifies, by exact and by highest sequence" {
	stamp verify origin --seed 7 --seq 1
	stamp verify origin --seed 7 --seq-max 1
	stamp verify origin --seed 7 --seq-max 5
	stamp verify origin --seed 7 --seq 1 --buffered
	stamp verify origin --seed 7 --seq 1 --offset 1M --length 512
}

@test "stamp: a flipped byte is found wherever it is" {
	local at
	for at in 0 8 17 24 33 41 47 48 56 300 511; do
		cp origin image
		overwrite image $((512 * 99 + at)) '!'
		run -1 stamp verify image --seed 7 --seq 1
		[[ $output == *'block 99 (byte 50688)'* ]]
		[[ $(value mismatches) -eq 1 ]]
	done
}

@test "stamp: a torn block is found, and where" {
	stamp fill newer --seed 7 --seq 2 --length 4M
	dd if=newer of=image bs=64 skip=$((512 * 40 / 64 + 5)) seek=$((512 * 40 / 64 + 5)) count=3 conv=notrunc status=none
	run -1 stamp verify image --seed 7 --seq-max 2
	[[ $output == *'block 40 '*'torn at byte 320'* ]]
	[[ $(value mismatches) -eq 1 ]]
}

@test "stamp: a block at another place is found" {
	copy_block image 5 6
	run -1 stamp verify image --seed 7 --seq 1
	[[ $output == *'block 6 '*'other sector (seed 7 block 5 '* ]]
}

@test "stamp: another seed is found" {
	stamp fill other --seed 8 --length 4M
	copy_block other 77 77 image
	run -1 stamp verify image --seed 7 --seq 1
	[[ $output == *'block 77 '*'other seed (seed 8 block 77 '* ]]
}

@test "stamp: a newer and an older sequence are found" {
	stamp fill image --seed 7 --seq 3 --offset 1M --length 1K
	run -1 stamp verify image --seed 7 --seq 1
	[[ $output == *'block 2048 '*'expected seed 7 seq 1, found: newer sequence'*'seq 3'* ]]
	[[ $(value mismatches) -eq 2 ]]
	run -1 stamp verify image --seed 7 --seq 3 --offset 1M --length 2K
	[[ $output == *'block 2050 '*'older sequence'* ]]
	[[ $(value mismatches) -eq 2 ]]
	stamp verify image --seed 7 --seq-max 3
}

@test "stamp: zeroes and foreign data are told apart" {
	dd if=/dev/zero of=image bs=512 seek=10 count=1 conv=notrunc status=none
	run -1 stamp verify image --seed 7 --seq 1
	[[ $output == *'block 10 '*'found: zero'* ]]
	run -0 stamp verify image --seed 7 --seq 1 --zero-ok
	[[ $(value zeroes) -eq 1 ]]
	overwrite image $((512 * 10 + 100)) 'some text'
	run -1 stamp verify image --seed 7 --seq 1 --zero-ok
	[[ $output == *'block 10 '*'found: no stamp'* ]]
}

@test "stamp: only the first ten mismatches are printed, all are counted" {
	run -1 stamp verify image --seed 9 --seq 1
	[[ $(grep -c 'expected seed' <<<"$output") -eq 10 ]]
	[[ $(value mismatches) -eq 8192 ]]
}

@test "stamp: blocks of 4096 bytes, ranges, and another numbering" {
	stamp fill big --seed 7 --block 4096 --length 1M
	stamp verify big --seed 7 --block 4096 --seq 1
	run -1 stamp verify big --seed 7 --seq 1
	dd if=origin of=part bs=512 skip=2048 status=none
	run -1 stamp verify part --seed 7 --seq 1
	stamp verify part --seed 7 --seq 1 --number-base 1M
}

@test "stamp: a file that is too short, or missing, is an error" {
	run -3 stamp verify missing --seed 7 --seq 1
	run -2 stamp verify origin --seed 7 --seq 1 --offset 4M
	run -2 stamp verify origin --seed 7 --seq 1 --length 8M
	run -2 stamp verify origin --seed 7 --seq 1 --offset 100
}

@test "stamp: wrong usage is refused" {
	run -2 stamp
	run -2 stamp nonsense
	run -2 stamp verify origin --seq 1
	run -2 stamp verify origin --seed 7
	run -2 stamp verify origin --seed 7 --seq 1 --seq-max 1
	run -2 stamp verify origin --seed 7 --seq 1 --writers 3
	run -2 stamp storm origin --seed 7 --taken-seq 1
	run -2 stamp storm origin image --seed 7 --taken-seq 1 --mode sideways
	run -2 stamp storm origin image --seed 7 --taken-seq 1 --hot 4K
	run -0 stamp --help
}

@test "stamp: a storm passes in each mode, and its table describes the origin" {
	local mode
	for mode in direct nowait hipri buffered mmap uring polled mix; do
		cp image origin
		run -0 stamp storm origin image --seed 7 --taken-seq 1 --writers 8 --readers 2 --count 2000 \
			--mode "$mode" --max-size 8K --hot 0.5/4K --save-table table
		[[ $(value writes) -eq 2000 ]]
		[[ $(value image_reads) -gt 0 ]]
		stamp verify origin --seed 7 --table table
	done
}

@test "stamp: io_uring does what it is asked to, or it is done without it" {
	local mode
	for mode in uring polled; do
		cp image origin
		run -0 strace -f -q -e trace=io_uring_enter -o calls \
			stamp storm origin image --seed 7 --taken-seq 1 --count 50 --mode "$mode" --save-table table
		[[ $(value "writes_$mode") -eq 50 && $(value writes) -eq 50 ]]
		[[ $(grep -c ') *= 1$' calls) -eq 50 ]]
		stamp verify origin --seed 7 --table table
	done
}

@test "stamp: a storm begins where the last one ended" {
	stamp storm origin - --seed 7 --taken-seq 1 --count 500 --save-table first
	cp origin image
	run -0 stamp storm origin image --seed 7 --table first --count 500 --save-table second
	[[ $(value last_seq) -gt 501 ]]
	stamp verify image --seed 7 --table first
	stamp verify origin --seed 7 --table second
	run -1 stamp verify origin --seed 7 --table first
}

@test "stamp: a storm finds an image that shows the new data" {
	ln -f origin image
	run -1 stamp storm origin image --seed 7 --taken-seq 1 --count 200
	[[ $output == *'newer sequence'* ]]
	[[ $(value image_mismatches) -gt 0 ]]
	[[ $(value origin_mismatches) -eq 0 ]]
}

@test "stamp: a storm finds a single wrong block of the image" {
	copy_block image 100 101
	run -1 stamp storm origin image --seed 7 --taken-seq 1 --count 10
	[[ $(value image_mismatches) -gt 0 ]]
}

@test "stamp: a storm reads the image of a part of the origin, and of more than it" {
	dd if=image of=part bs=1M skip=1 count=2 status=none
	run -1 stamp storm origin part --seed 7 --taken-seq 1
	run -2 stamp storm origin part --seed 7 --taken-seq 1 --image-base 4M
	run -2 stamp storm origin part --seed 7 --taken-seq 1 --image-base 100
	run -0 stamp storm origin part --seed 7 --taken-seq 1 --count 500 --image-base 1M --save-table table
	[[ $(value image_reads) -gt 0 ]]
	stamp verify origin --seed 7 --table table
	run -0 stamp storm part image --seed 7 --taken-seq 1 --count 500 --number-base 1M --image-base 0
	[[ $(value image_reads) -gt 0 ]]
	run -1 stamp verify part --seed 7 --seq 1 --number-base 1M
}

@test "stamp: a storm finds a wrong block of the image in the part that it reads, and there only" {
	dd if=image of=part bs=1M skip=1 count=2 status=none
	cp part right
	copy_block image 2046 2047
	copy_block image 6144 6145
	run -0 stamp storm part image --seed 7 --taken-seq 1 --count 50 --number-base 1M --image-base 0
	copy_block image 5000 5001
	cp right part
	run -1 stamp storm part image --seed 7 --taken-seq 1 --count 50 --number-base 1M --image-base 0
	[[ $output == *'block 5001 '*'other sector'* && $(value origin_mismatches) -eq 0 ]]
	copy_block right 0 4095
	run -0 stamp storm origin right --seed 7 --taken-seq 1 --count 50 --image-base 1M --length 2M
	run -1 stamp storm origin right --seed 7 --taken-seq 1 --count 50 --image-base 1M --offset 2M
	[[ $output == *'block 6143 '*'other sector'* && $(value origin_mismatches) -eq 0 ]]
}

@test "stamp: a storm finds what the origin lost" {
	stamp fill origin --seed 7 --seq 2 --offset 1M --length 512
	run -1 stamp storm origin image --seed 7 --taken-seq 1 --length 2M --count 1 --max-size 512
	[[ $(value origin_mismatches) -eq 1 ]]
}

@test "stamp: a storm stays in its range" {
	stamp storm origin - --seed 7 --taken-seq 1 --offset 1M --length 1M --count 3000 --hot 0.5/64K
	stamp verify origin --seed 7 --seq 1 --length 1M
	stamp verify origin --seed 7 --seq 1 --offset 2M
	run -1 stamp verify origin --seed 7 --seq 1 --offset 1M --length 1M
}

@test "stamp: a storm aligns its writes" {
	stamp fill origin --seed 7 --block 4096
	run -0 stamp storm origin - --seed 7 --taken-seq 1 --block 4096 --count 300 --min-size 8K --max-size 32K --align 8K
	[[ $(($(value bytes) % 8192)) -eq 0 ]]
	run -2 stamp storm origin - --seed 7 --taken-seq 1 --block 4096 --min-size 6K
}

@test "stamp: a storm ends at its time, and at SIGTERM with everything verified" {
	run -0 stamp storm origin image --seed 7 --taken-seq 1 --seconds 1
	[[ $(value writes) -gt 0 ]]
	cp image origin
	stamp storm origin image --seed 7 --taken-seq 1 --seconds 60 >result &
	sleep 1
	kill "$!"
	wait "$!"
	grep -q '^origin_mismatches=0' result
}

@test "stamp: a stable mixture passes, a changing or torn one does not" {
	stamp storm origin - --seed 7 --taken-seq 1 --count 500
	run -0 stamp verify-stable origin --seed 7 --rounds 3
	[[ $(value rounds) -eq 3 ]]
	[[ $(value distinct_seqs) -gt 100 ]]
	stamp storm origin - --seed 7 --taken-seq 1 --seconds 60 >/dev/null &
	run -1 stamp verify-stable origin --seed 7 --rounds 200
	kill "$!"
	wait "$!" || true
	# which of the two depends on whether a read met the write or came after it
	[[ $output == *'found: changed'* || $output == *'found: torn'* ]]
	overwrite image 700 x
	run -1 stamp verify-stable image --seed 7
}

@test "stamp: ordinals over three devices hold, and in later laps" {
	local start=1 count
	truncate -s 1M a b c
	for count in 1 2 3 700 68 1500; do
		stamp order a b c --seed 5 --start "$start" --count "$count" --log log
		start=$((start + count))
		[[ $((10#$(<log))) -eq $((start - 1)) ]]
		run -0 stamp order-check a b c --seed 5 --min $((start - 1)) --max $((start - 1))
		[[ $(value last_ordinal) -eq $((start - 1)) ]]
	done
	run -1 stamp order-check a b c --seed 5 --min "$start"
	run -1 stamp order-check a b c --seed 5 --max $((start - 2))
}

@test "stamp: an image that is one write older than the others is found" {
	local device start=1
	truncate -s 256K a b c
	# four writes: even if the last of them is missing, an earlier one of the same device is too
	for device in a b c b c a; do
		stamp order a b c --seed 5 --start "$start" --count 50
		cp "$device" old
		stamp order a b c --seed 5 --start $((start + 50)) --count 4
		start=$((start + 54))
		case $device in
		a) run -1 stamp order-check old b c --seed 5 ;;
		b) run -1 stamp order-check a old c --seed 5 ;;
		c) run -1 stamp order-check a b old --seed 5 ;;
		esac
		[[ $output == *' is due here, but found: '* ]]
		stamp order-check a b c --seed 5
	done
}

@test "stamp: ordinals that were written to a file are found further on, in the image of its disk" {
	truncate -s 256K a b c
	truncate -s 1M disk
	stamp order a b c --seed 5 --count 700
	dd if=b of=disk bs=4096 seek=37 conv=notrunc status=none
	stamp order-check a disk c --seed 5 --length 256K --shifts 0,148K,0 --min 700 --max 700
	run -1 stamp order-check a disk c --seed 5 --length 256K --shifts 0,144K,0
	run -2 stamp order-check a disk c --seed 5 --length 256K --shifts 0,148K
	copy_block a 24 304 disk
	run -1 stamp order-check a disk c --seed 5 --length 256K --shifts 0,148K,0
}

@test "stamp: ordinals of another seed count as not written" {
	truncate -s 256K a b
	stamp order a b --seed 4 --count 100
	run -0 stamp order-check a b --seed 5
	[[ $(value last_ordinal) -eq 0 ]]
	stamp order a b --seed 5 --count 30
	stamp order-check a b --seed 5 --min 30
}
