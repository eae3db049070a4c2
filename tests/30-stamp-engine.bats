#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 14
# The engine under stamped storms: every kind of write, granule and origin, with readers of the image at the places
# that are just being written. The names cite the laws of docs/design.md that a test is for.

# shellcheck disable=SC2030,SC2031,SC2153 # each test is a subshell, and so are its variables
load lib/common
load lib/devices
load lib/diffs
load lib/memory
load lib/stamped

setup() {
	common_setup
	diff_begin
}

teardown() {
	common_teardown
}

# stormed ORIGIN DIFF [--offset B] [--length B] OPTION...: filled, taken, stormed, judged, released.
stormed() {
	local origin=$1 diff=$2 range=()
	shift 2
	while [[ $1 == --offset || $1 == --length ]]; do
		range+=("${@:1:2}")
		shift 2
	done
	set -- "${range[@]}" "$@"
	filled "$origin" "${range[@]}" --block "${BLOCK:-512}"
	session_make s "$diff" "$origin"
	[[ -z ${CHUNK:-} ]] || put "$SESSIONS/s/s1/chunk_size" "$CHUNK"
	session_take s
	storm "$origin" "$(image_of s s1)" --block "${BLOCK:-512}" "$@"
	[[ $(session_get s state) == active ]] || fail "$(session_get s error)"
	consistent "$(image_of s s1)"
	[[ $(stat_of "$(image_of s s1)" chunks_preserved) -gt 0 ]]
	session_destroy s
}

# --- tracepoints -----------------------------------------------------------------------------------------------------

@test "engine: tracepoints tell of each write that is held, each store and each image read" {
	local events image
	skip_with_diff beside 'events name the disk, and sectors of it: the origin is a partition'
	events=$BATS_TEST_TMPDIR/events
	echo 4M >"$MEMORY_LIMIT"
	session_of "$DIFF" "$(disk 1)"
	image=$(image_of s s1)
	trace blksnap
	dd if=/dev/zero of="$(disk 1)" bs=64k count=64 oflag=direct conv=notrunc status=none
	dd if="$image" of=/dev/null bs=64k count=64 iflag=direct status=none
	cat "$TRACING/trace" >"$events"
	[[ $(grep -c 'blksnap_hold: ' "$events") -eq $(stat_of "$image" writes_held) ]]
	[[ $(grep -c 'blksnap_release: ' "$events") -eq $(stat_of "$image" writes_held) ]]
	grep -q "blksnap_hold: $(major_minor "$(disk 1)") 128 + 128$" "$events"
	grep -Eq "blksnap_store: $(major_minor "$(disk 1)") [0-9]+ \+ [0-9]+, [1-9][0-9]* us \[0\]$" "$events"
	[[ $(grep -c 'blksnap_image_read: ' "$events") -ge 64 ]]
	session_destroy s
}

# events_are FILE IMAGE: there are as many as the statistics say.
events_are() {
	local event stat count
	while read -r event stat; do
		count=$(grep -c "blksnap_$event: " "$1") || true
		[[ $count -eq $(stat_of "$2" "$stat") ]] ||
			fail "$count events $event, and $stat is $(stat_of "$2" "$stat")" || return
	done <<-END
		hold writes_held
		release writes_held
		join writes_joined
		image_reread image_reads_repeated
	END
}

@test "engine: tracepoints tell of joins, of image reads that looked twice and, once, of the state, as the statistics do" {
	local origin=/dev/mapper/slow place=20480 events=$BATS_TEST_TMPDIR/events dir=$BATS_TEST_TMPDIR image number reader at pids=()
	skip_unless_diff device 'it needs a device that fails'
	echo 4M >"$MEMORY_LIMIT"
	filled "$(disk 1)" --length 16M
	dm_linear slow "$(disk 1)" 65536
	dm_linear store "$(disk 2)" 131072
	session_of /dev/mapper/store "$origin"
	image=$(image_of s s1)
	number=$(major_minor "$origin")
	# Of two granules the second one is read slowly; udev reads elsewhere.
	modprobe dm-delay
	dm_switch slow <<-END
		0 $((place + 8)) linear $(disk 1) 0
		$((place + 8)) 8 delay $(disk 1) $((place + 8)) 3000 $(disk 1) $((place + 8)) 0
		$((place + 16)) $((65520 - place)) linear $(disk 1) $((place + 16))
	END
	dd if="$(disk 1)" of="$dir/before" bs=8192 skip=$((place / 16)) count=1 iflag=direct status=none
	trace blksnap

	# While the image reads both, the first one is overwritten.
	background dd if="$image" of="$dir/read" bs=8192 skip=$((place / 16)) count=1 iflag=direct status=none
	reader=$BACKGROUND
	wait_until 5 grep -q "blksnap_image_read: $number $place + 16 \[16\]$" "$TRACING/trace"
	dd if=/dev/zero of="$origin" bs=4096 seek=$((place / 8)) count=1 oflag=direct conv=notrunc status=none
	wait "$reader"
	cmp "$dir/before" "$dir/read"
	grep -q "blksnap_image_reread: $number $place + 16 \[8\]$" "$TRACING/trace"

	# Two writers meet in the second one, and wait some seconds for one copy: the second one has to come meanwhile.
	for at in 8 9; do
		background dd if=/dev/zero of="$origin" bs=512 seek=$((place + at)) count=1 oflag=direct conv=notrunc status=none
		pids+=("$BACKGROUND")
		wait_until 5 grep -q "blksnap_hold: $number $((place + at)) + 1$" "$TRACING/trace"
	done
	wait "${pids[0]}"
	wait "${pids[1]}"
	cat "$TRACING/trace" >"$events"
	[[ $(stat_of "$image" writes_joined) -eq 1 && $(stat_of "$image" image_reads_repeated) -eq 1 ]]
	events_are "$events" "$image"
	grep -q "blksnap_join: $number $((place + 8)) + 8$" "$events"
	grep -Eq "blksnap_release: $number $((place + 9)) \+ 1 \[[0-9]{6,}\]$" "$events"
	run ! grep 'blksnap_state: ' "$events"
	image_is "$image" --length 16M

	dm_switch store '0 131072 error'
	dd if=/dev/zero of="$origin" bs=1M count=8 oflag=direct conv=notrunc status=none
	wait_until 10 state_is s failed
	dd if=/dev/zero of="$origin" bs=1M count=12 oflag=direct conv=notrunc status=none
	cat "$TRACING/trace" >"$events"
	events_are "$events" "$image"
	grep -q "blksnap_store: $number .* \[-5\]$" "$events"
	[[ $(grep 'blksnap_state: ' "$events") == *"blksnap_state: $number failed [-5]" ]]
	[[ $(grep -c 'blksnap_state: ' "$events") -eq 1 ]]
	session_destroy s
}

# --- several sessions ------------------------------------------------------------------------------------------------

@test "engine: a write that two sessions need is read once, and each keeps its own instant (I2)" {
	local origin one two read=0
	# Enough that neither has to wait for it: where one has to, the other one reads for itself.
	echo 128M >"$MEMORY_LIMIT"
	origin=$(disk 1)
	filled "$origin" --length 64M
	session_make s "$DIFF" "$origin"
	session_make t "$(disk 4)" "$origin"
	session_take s
	# What only the first one knows: its chunks are older than the second session.
	stamp fill "$origin" --seed "$SEED" --seq 2 --length 16M
	session_take t
	one=$(image_of s s1)
	two=$(image_of t s1)
	stamp fill "$origin" --seed "$SEED" --seq 3 --length 32M
	image_is "$one" --length 64M
	stamp verify "$two" --seed "$SEED" --seq 2 --length 16M
	stamp verify "$two" --seed "$SEED" --seq 1 --offset 16M --length 48M
	[[ $(stat_of "$one" chunks_preserved) -eq $((32 << 8)) && $(stat_of "$two" chunks_preserved) -eq $((32 << 8)) ]]
	# 16 MiB for the first one alone, then 16 MiB for the second one alone, and 16 MiB for both.
	read=$(($(stat_of "$one" origin_read_bytes) + $(stat_of "$two" origin_read_bytes)))
	[[ $read -lt $((50 << 20)) ]] || fail "$read bytes were read"
	session_destroy t
	session_destroy s
}

# --- ways to write ---------------------------------------------------------------------------------------------------

@test "engine: I2 I3: thirty thousand direct overwrites; image reads are repeated (lesson 3)" {
	local origin image round repeated=0 table=()
	origin=$(disk 1)
	filled "$origin" --length 32M
	for round in 1 2 3 4 5 6; do
		session_of "$DIFF" "$origin"
		image=$(image_of s s1)
		storm "$origin" "$image" --length 32M --count $((round == 1 ? 30000 : 2000)) --max-size 16K "${table[@]}" \
			--save-table "$BATS_TEST_TMPDIR/table.$round"
		consistent "$image"
		[[ $(storm_value image_reads) -gt 500 ]]
		[[ $(stat_of "$image" writes_held) -gt 100 ]]
		repeated=$((repeated + $(stat_of "$image" image_reads_repeated)))
		session_destroy s
		[[ $repeated -eq 0 ]] || break
		table=(--table "$BATS_TEST_TMPDIR/table.$round")
	done
	[[ $repeated -gt 0 ]]
}

@test "engine: I2 I3: buffered writes" {
	stormed "$(disk 1)" "$DIFF" --length 16M --count 6000 --max-size 16K --mode buffered
}

@test "engine: I2 I3: writes through a mapping" {
	stormed "$(disk 1)" "$DIFF" --length 16M --count 6000 --max-size 16K --mode mmap
}

@test "engine: I2 I3: writes that must not wait (lesson 6)" {
	local count=3000 mode
	for mode in nowait uring; do
		stormed "$(disk 1)" "$DIFF" --length 16M --count "$count" --max-size 16K --mode "$mode"
		[[ $(storm_value "writes_$mode") -eq $(scaled "$count") ]]
		[[ $(storm_value nowait_unsupported) -eq 0 ]]
	done
}

# watch_polled: from now on the kernel's trace has each bio that is submitted to be polled for. The number of that flag
# is not the same in all kernels, so it is counted in what the kernel was built from.
watch_polled() {
	local bit
	bit=$(cat "/lib/modules/$(uname -r)/"{source,build}/include/linux/blk_types.h 2>/dev/null |
		awk '/__REQ_FAILFAST_DEV =/ { bit = 9 } /__REQ_POLLED,/ { print bit; exit } /^\t__REQ_.*,/ { bit++ }')
	[[ -n $bit ]] || fail "which flag REQ_POLLED is cannot be found out" || return
	tracing
	# shellcheck disable=SC2016 # $arg1 is the kernel's
	echo 'p:polled submit_bio flags=+16($arg1):u32' >"$TRACING/kprobe_events"
	defer eval "echo >$TRACING/kprobe_events"
	echo "flags & $((1 << bit))" >"$TRACING/events/kprobes/polled/filter"
	trace kprobes/polled
}

@test "engine: I2 I3: polled writes, to a device that is polled" {
	local count=3000
	null_blk_make nullp memory_backed=1 size=16 blocksize=512 submit_queues=2 poll_queues=2
	[[ $(cat /sys/block/nullp/queue/io_poll) == 1 ]]
	watch_polled
	stormed /dev/nullp "$DIFF" --count "$count" --max-size 16K --mode polled
	[[ $(storm_value writes_polled) -eq $(scaled "$count") ]]
	[[ $(storm_value nowait_unsupported) -eq 0 ]]
	[[ $(grep -c ' polled: ' "$TRACING/trace") -ge $count ]]
}

@test "engine: I2 I3: polled writes, to a device that cannot be polled" {
	stormed "$(disk 1)" "$DIFF" --length 16M --count 2000 --max-size 16K --mode polled
	stormed "$(disk 1)" "$DIFF" --length 16M --count 1000 --max-size 16K --mode hipri
}

@test "engine: I2 I3: all kinds of writes at once" {
	stormed "$(disk 1)" "$DIFF" --length 16M --count 8000 --max-size 64K --mode mix --writers 8
}

@test "engine: I3: writers that meet in one granule wait for one copy" {
	local origin image joined=0 round
	origin=$(disk 1)
	for round in 1 2 3 4 5; do
		filled "$origin" --length 16M
		session_of "$DIFF" "$origin"
		image=$(image_of s s1)
		storm "$origin" "$image" --length 16M --count 8000 --writers 8 --hot 0.9/4K --min-size 512 --max-size 512
		joined=$(stat_of "$image" writes_joined)
		consistent "$image"
		session_destroy s
		[[ $joined -eq 0 ]] || break
	done
	[[ $joined -gt 0 ]]
}

# --- where preserved data goes ---------------------------------------------------------------------------------------

@test "engine: I4: memory_limit is lowered, and a granule is larger than what is left of it: the others store" {
	skip_unless_diff device 'it takes two storages'
	echo 64M >"$MEMORY_LIMIT"
	session_make s "$(disk 2)" "$(disk 1)"
	put "$SESSIONS/s/s1/chunk_size" 16M
	session_take s
	session_make t "$(disk 4)" "$(disk 3)"
	session_take t
	dd if=/dev/zero of="$(disk 3)" bs=1M count=10 oflag=direct status=none
	[[ $(stat_of "$(image_of t s1)" chunks_in_memory) -eq 2560 ]]
	# Less than half of it is in use, and not as much is left as the granule takes.
	echo 24M >"$MEMORY_LIMIT"
	dd if=/dev/zero of="$(disk 1)" bs=4K count=1 oflag=direct status=none
	state_is s active || fail "$(session_get s error)"
	state_is t active
	[[ $(stat_of "$(image_of t s1)" chunks_stored) -eq 2560 ]]
	session_destroy s
	session_destroy t
}

@test "engine: I4: with little memory, what is preserved is stored and read from there" {
	local origin image most=0 now storm
	echo 4M >"$MEMORY_LIMIT"
	origin=$(disk 1)
	filled "$origin" --length 32M
	session_of "$DIFF" "$origin"
	image=$(image_of s s1)
	background stamp storm "$origin" "$image" --seed "$SEED" --taken-seq 1 --readers 4 --length 32M --count 6000 \
		--max-size 16K >"$BATS_TEST_TMPDIR/storm" 2>&1
	storm=$BACKGROUND
	while kill -0 "$storm" 2>/dev/null; do
		read -r now <"/sys/block/${image##*/}/blksnap/memory_bytes"
		[[ $now -le $most ]] || most=$now
		sleep 0.1
	done
	wait "$storm" || fail "$(cat "$BATS_TEST_TMPDIR/storm")"
	echo "at most $most bytes in memory"
	[[ $most -gt 0 && $most -le 4194304 ]]
	[[ $(stat_of "$image" chunks_stored) -gt 0 ]]
	[[ $(stat_of "$image" image_reads_diff) -gt 0 ]]
	[[ $(stat_of "$image" diff_writes) -gt 0 ]]
	[[ $(session_get s diff_used) -ge $(($(stat_of "$image" chunks_stored) * 4096)) ]]
	[[ $(session_get s state) == active ]]
	consistent "$image"
	session_destroy s
}

@test "engine: what lies together on the origin is stored in few requests" {
	local origin image
	echo 4M >"$MEMORY_LIMIT"
	origin=$(disk 1)
	session_of "$DIFF" "$origin"
	image=$(image_of s s1)
	dd if=/dev/zero of="$origin" bs=64K count=512 oflag=direct conv=notrunc status=none
	[[ $(stat_of "$image" chunks_preserved) -eq 8192 ]]
	[[ $(stat_of "$image" map_entries) -le 1024 ]]
	[[ $(stat_of "$image" diff_writes) -le $(($(stat_of "$image" diff_written_bytes) / 65536)) ]]
	consistent "$image"
	session_destroy s
}

@test "engine: a session that is released early stores nothing" {
	local origin image
	skip_unless_diff device 'it looks at what is on the device'
	origin=$(disk 1)
	filled "$origin" --length 4M
	session_of "$DIFF" "$origin"
	image=$(image_of s s1)
	storm "$origin" "$image" --length 4M --count 200
	[[ $(stat_of "$image" diff_writes) -eq 0 ]]
	[[ $(session_get s diff_used) -eq 0 ]]
	session_destroy s
	cmp -n 8388608 "$(disk 2)" /dev/zero
}

@test "engine: the first and last mebibyte of the difference storage are left alone" {
	local origin diff
	skip_unless_diff device 'it is about devices'
	echo 4M >"$MEMORY_LIMIT"
	origin=$(disk 1)
	loop_make 24M
	diff=$LOOP
	filled "$origin" --length 16M
	session_of "$diff" "$origin"
	dd if=/dev/zero of="$origin" bs=1M count=16 oflag=direct conv=notrunc status=none
	[[ $(session_get s diff_used) -gt 0 ]]
	image_is "$(image_of s s1)" --length 16M
	session_destroy s
	cmp -n 1048576 "$diff" /dev/zero
	cmp -n 1048576 -i $((23 << 20)):0 "$diff" /dev/zero
}

# --- granules --------------------------------------------------------------------------------------------------------

# granule SIZE OPTION...: in memory, and then stored; at an origin that ends within a granule.
granule() {
	local CHUNK=$1
	shift
	dm_linear odd "$(disk 1)" 65539
	stormed /dev/mapper/odd "$DIFF" --max-size 16K "$@"
	echo 4M >"$MEMORY_LIMIT"
	[[ $CHUNK != 4M ]] || echo 16M >"$MEMORY_LIMIT"
	stormed /dev/mapper/odd "$DIFF" --max-size 16K "$@"
}

@test "engine: I3: granules of 4096 bytes" {
	granule 4096 --count 2000
}

@test "engine: I3: granules of 64K" {
	granule 64K --count 1000
}

@test "engine: I3: granules of 1M" {
	granule 1M --count 300
}

@test "engine: I3: granules of 4M" {
	granule 4M --count 200
}

# --- origins ---------------------------------------------------------------------------------------------------------

@test "engine: origin: an odd number of sectors, in the page cache as well (lesson 15)" {
	dm_linear odd "$(disk 1)" 16389
	stormed /dev/mapper/odd "$DIFF" --count 1500 --max-size 16K --mode mix
}

@test "engine: origin: one sector" {
	dm_linear tiny "$(disk 1)" 1
	stormed /dev/mapper/tiny "$DIFF" --count 20 --max-size 512 --writers 1
}

@test "engine: origin: a loop device of an odd size" {
	loop_make $((8388608 + 512 * 5))
	stormed "$LOOP" "$DIFF" --count 5000 --max-size 16K
}

@test "engine: origin: a partition that begins at an odd sector" {
	skip_with_diff beside 'it makes partitions of its own'
	printf 'start=2051, size=32771\nstart=40001, size=1000\n' | sfdisk -q -X dos "$(disk 1)" >/dev/null
	defer partition_wipe "$(disk 1)"
	settle
	stormed "$(part "$(disk 1)" 1)" "$DIFF" --count 5000 --max-size 16K --mode mix
}

@test "engine: origin: a partition, written through the whole disk" {
	local disk image
	disk=$(disk 5)
	partition "$disk" 16M 16M
	filled "$disk" --offset 1M --length 32M
	session_of "$DIFF" "$(part "$disk" 2)"
	image=$(image_of s s1)
	storm "$disk" "$image" --image-base 17M --offset 1M --length 32M --count 6000 --max-size 64K
	[[ $(storm_value reads_begun_in_flight) -gt 0 ]]
	[[ $(stat_of "$image" chunks_preserved) -gt 1000 ]]
	[[ $(stat_of "$image" chunks_preserved) -le 4096 ]]
	consistent "$image"
	session_destroy s
}

@test "engine: origin: a whole disk, written through its partitions (lesson 2)" {
	local disk image
	disk=$(disk 5)
	partition "$disk" 16M 16M
	filled "$disk" --offset 1M --length 32M
	session_of "$DIFF" "$disk"
	image=$(image_of s s1)
	[[ -b ${image}p2 ]]
	storm "$(part "$disk" 2)" "${image}p2" --number-base 17M --count 3000 --max-size 64K
	[[ $(storm_value reads_begun_in_flight) -gt 0 ]]
	storm "$(part "$disk" 1)" "$image" --number-base 1M --image-base 0 --count 3000 --max-size 64K
	[[ $(storm_value reads_begun_in_flight) -gt 0 ]]
	image_is "$image" --offset 1M --length 32M
	cmp -n 1048576 "$image" "$disk"
	consistent "$image"
	session_destroy s
}

@test "engine: origin: a whole disk and one of its partitions in one session" {
	local disk
	disk=$(disk 5)
	partition "$disk" 8M 8M
	filled "$disk" --offset 1M --length 16M
	session_of "$DIFF" "$disk" "$(part "$disk" 2)"
	storm "$disk" "$(image_of s s1)" --offset 1M --length 16M --count 5000 --max-size 64K
	image_is "$(image_of s s2)" --number-base 9M
	session_destroy s
}

@test "engine: origin: a partition is not charged for its neighbour" {
	local disk image
	disk=$(disk 5)
	partition "$disk" 8M 8M
	session_of "$DIFF" "$(part "$disk" 2)"
	image=$(image_of s s1)
	dd if=/dev/zero of="$(part "$disk" 1)" bs=1M count=8 oflag=direct status=none
	[[ $(stat_of "$image" chunks_preserved) -eq 0 ]]
	[[ $(stat_of "$image" writes_passed) -eq 0 ]]
	session_destroy s
}

@test "engine: origin: blocks of 4096 bytes" {
	local BLOCK=4096
	stormed "$(disk 6)" "$DIFF" --length 16M --count 6000 --max-size 32K
	stormed "$(disk 6)" "$DIFF" --length 16M --count 500 --max-size 32K --mode buffered
}

@test "engine: origin: device-mapper striped" {
	dm_make stripes "0 32768 striped 2 16 $(disk 3) 0 $(disk 4) 0"
	stormed /dev/mapper/stripes "$DIFF" --count 2000 --max-size 64K --mode mix
}

@test "engine: origin: a logical volume" {
	lv_make "$(disk 3)" 16M
	stormed "$LV" "$DIFF" --count 2000 --max-size 64K --mode mix
}

@test "engine: origin: a logical volume in stripes" {
	lv_make "$(disk 3) $(disk 4)" 16M --stripes 2 --stripesize 16K
	[[ $(dmsetup table "$LV") == *' striped 2 32 '* ]]
	stormed "$LV" "$DIFF" --count 2000 --max-size 64K --mode mix
}

# The volume has its space from the pool while it is written to, some of it only while it is a snapshot.
@test "engine: origin: a thin volume" {
	local image
	lv_make "$(disk 3)" 64M --type thin --thinpool pool --virtualsize 20M --chunksize 64K
	[[ $(dmsetup table "$LV") == *' thin '* ]]
	stormed "$LV" "$DIFF" --length 16M --count 1000 --max-size 64K --mode mix
	filled "$LV" --length 16M
	session_make s "$DIFF" "$LV"
	put "$SESSIONS/s/s1/discard" preserve
	session_take s
	image=$(image_of s s1)
	dd if=/dev/urandom of="$LV" bs=64K seek=256 count=64 oflag=direct conv=notrunc status=none
	blkdiscard -f "$LV"
	cmp -n 20M "$LV" /dev/zero
	image_is "$image" --length 16M
	cmp -n 4M -i 16M:0 "$image" /dev/zero
	session_destroy s
}

@test "engine: origin: below device-mapper, written through it" {
	local image
	dm_linear upper "$(disk 1)" 32768 2048
	filled "$(disk 1)" --offset 1M --length 16M
	session_of "$DIFF" "$(disk 1)"
	image=$(image_of s s1)
	storm /dev/mapper/upper "$image" --number-base 1M --image-base 0 --count 2000 --max-size 64K
	[[ $(storm_value reads_begun_in_flight) -gt 0 ]]
	image_is "$image" --offset 1M --length 16M
	session_destroy s
}

@test "engine: origin: both layers of a stack in one session (lesson 15)" {
	dm_linear upper "$(disk 1)" 32768 2048
	filled "$(disk 1)" --offset 1M --length 16M
	session_of "$DIFF" "$(disk 1)" /dev/mapper/upper
	[[ $(stat_of "$(image_of s s2)" origin) == "$(major_minor /dev/mapper/upper)" ]]
	storm /dev/mapper/upper "$(image_of s s2)" --number-base 1M --count 2000 --max-size 64K
	image_is "$(image_of s s1)" --offset 1M --length 16M
	session_destroy s
}

@test "engine: origin: md raid0" {
	mdadm --create /dev/md/test --run --assume-clean --level=0 --raid-devices=2 --chunk=64 --size=16M \
		"$(disk 3)" "$(disk 4)"
	defer md_stop "$(disk 3)" "$(disk 4)"
	settle
	stormed "$(readlink -e /dev/md/test)" "$DIFF" --length 16M --count 6000 --max-size 64K --mode mix
}

@test "engine: origin: md raid1" {
	mdadm --create /dev/md/test --run --assume-clean --level=1 --raid-devices=2 --size=16M "$(disk 3)" "$(disk 4)"
	defer md_stop "$(disk 3)" "$(disk 4)"
	settle
	stormed "$(readlink -e /dev/md/test)" "$DIFF" --length 16M --count 2000 --max-size 64K --mode mix
}

# md_stop MEMBER...
md_stop() {
	mdadm --stop /dev/md/test
	mdadm --zero-superblock "$@"
	settle
}

# Of a discard that does not begin with a stripe RAID 10 submits that part once more, as remapped from the partition.
@test "engine: origin: a partition of a RAID 10, of which some is discarded" {
	local md image
	dm_linear left "$(disk 5)" 81920
	dm_linear right "$(disk 5)" 81920 81920
	mdadm --create /dev/md/test --run --assume-clean --level=10 --raid-devices=2 --chunk=64 --size=32M \
		/dev/mapper/left /dev/mapper/right
	defer md_stop /dev/mapper/left /dev/mapper/right
	settle
	md=$(readlink -e /dev/md/test)
	partition "$md" 16M
	filled "$(part "$md" 1)"
	session_make s "$DIFF" "$(part "$md" 1)"
	put "$SESSIONS/s/s1/discard" preserve
	put "$SESSIONS/s/s1/chunk_size" 4K
	session_take s
	image=$(image_of s s1)
	blkdiscard -f -o 1028K -l 600K "$(part "$md" 1)"
	[[ $(stat_of "$image" chunks_preserved) -eq 150 ]]
	image_is "$image"
	cmp -n 600K -i 1028K:0 "$(part "$md" 1)" /dev/zero
	session_destroy s
}

@test "engine: origin: null_blk" {
	null_blk_make nulls memory_backed=1 size=16 blocksize=512
	stormed /dev/nulls "$DIFF" --count 2000 --max-size 64K
}

@test "engine: origin: null_blk, bio-based" {
	null_blk_make nullb memory_backed=1 size=16 blocksize=512 queue_mode=0
	stormed /dev/nullb "$DIFF" --count 2000 --max-size 64K
}

# Its end is more than 2^32 sectors from its start, and in the middle of a granule.
@test "engine: origin: the end of three tebibytes, of an odd size" {
	local size=$(((3 << 40) + 512 * 5))
	loop_make "$size"
	stormed "$LOOP" "$DIFF" --offset $(((3 << 40) - (8 << 20))) --count 2000 --max-size 64K --mode mix
}

@test "engine: origin: a loop device on a file of a snapshotted file system" {
	mkfs.ext4 -q "$(disk 5)"
	mount_test "$(disk 5)" host
	truncate -s 16M /mnt/test-host/file
	LOOP=$(losetup -f --show /mnt/test-host/file)
	filled "$LOOP"
	session_of "$DIFF" "$(disk 5)" "$LOOP"
	storm "$LOOP" "/dev/blksnap/s/s2" --count 5000 --max-size 64K
	[[ $(stat_of "$(image_of s s1)" chunks_preserved) -gt 0 ]]
	session_destroy s
	losetup -d "$LOOP"
}

# --- what others have cached, and chained ---------------------------------------------------------------------------

# cached_store STORE WRITTEN: what is in the page cache of a device, for a part of the difference storage STORE.
cached_store() {
	# The last one who closes a device writes it back; and so does the kernel, after a while.
	exec 9<"$2"
	dd if=/dev/zero of="$2" bs=1M seek=3 count=32 conv=nocreat status=none
	session_of "$1" "$(disk 1)"
	stamp fill "$(disk 1)" --seed "$SEED" --length 32M --seq 2
	[[ $(stat_of "$(image_of s s1)" chunks_stored) -gt 4000 ]]
	blockdev --flushbufs "$2"
	exec 9<&-
	image_is "$(image_of s s1)" --length 32M
	session_destroy s
}

@test "engine: I2: what was written to the device of the differences, and is still cached, is not written over them" {
	skip_unless_diff device 'it is about devices'
	echo 4M >"$MEMORY_LIMIT"
	partition "$(disk 2)" 100M
	# It would have the kernel read the table again, for which that is written back.
	udev_away
	filled "$(disk 1)" --length 32M
	cached_store "$(disk 2)" "$(disk 2)"
	filled "$(disk 1)" --length 32M
	cached_store "$(part "$(disk 2)" 1)" "$(disk 2)"
	filled "$(disk 1)" --length 32M
	cached_store "$(disk 2)" "$(part "$(disk 2)" 1)"
}

halves_stop() {
	[[ ! -e /dev/md/halves ]] || mdadm --stop /dev/md/halves
	settle
}

# The end of what was chained to a read comes before its own.
@test "engine: I2: a read in two parts, of two images, that fails in the first one, fails" {
	local name
	modprobe dm-delay
	for name in 1 2; do
		dm_linear "half$name" "$(disk 3)" 65536 $((name * 65536))
		filled "/dev/mapper/half$name" --length 1M
	done
	session_of "$DIFF" /dev/mapper/half{1,2}
	dm_switch half1 "0 128 error"$'\n'"128 65408 linear $(disk 3) $((65536 + 128))"
	dm_switch half2 "0 65536 delay $(disk 3) 131072 300 $(disk 3) 131072 0"
	refuses EIO dd if=/dev/blksnap/s/s1 of=/dev/null bs=64K count=1 iflag=direct status=none
	mdadm --build /dev/md/halves --level=0 --chunk=64 --raid-devices=2 /dev/blksnap/s/s1 /dev/blksnap/s/s2
	defer halves_stop
	settle
	name=$(readlink -e /dev/md/halves)
	# Or else it counts them by bios of its own.
	echo 0 >"/sys/block/${name##*/}/queue/iostats"
	refuses EIO dd if="$name" of=/dev/null bs=128K count=1 iflag=direct status=none
	dd if="$name" of=/dev/null bs=128K count=1 skip=1 iflag=direct status=none
	halves_stop
	session_destroy s
}

# --- statistics ------------------------------------------------------------------------------------------------------

@test "engine: statistics: each write is counted once, as held or as passed" {
	local dev name image before after counted count=8000
	skip_with_diff beside 'it counts the requests to the disk'
	dev=$(disk 1)
	name=${dev##*/}
	filled "$dev" --length 16M
	session_of "$DIFF" "$dev"
	image=$(image_of s s1)
	# Write requests, and those that were merged into others; a flush is counted as a request, too.
	before=$(awk '{ print $5 + $6 - $16 }' "/sys/block/$name/stat")
	storm "$dev" "$image" --length 16M --count "$count" --max-size 32K
	count=$(scaled "$count")
	after=$(awk '{ print $5 + $6 - $16 }' "/sys/block/$name/stat")
	counted=$(($(stat_of "$image" writes_held) + $(stat_of "$image" writes_passed)))
	[[ $counted -eq $count && $counted -eq $((after - before)) ]] ||
		fail "$count writes, $counted counted, $((after - before)) by the disk"
	[[ $(stat_of "$image" held_us_max) -gt 0 ]]
	consistent "$image"
	session_destroy s
}

@test "engine: statistics: one write, to the byte" {
	local dev image
	dev=$(disk 1)
	session_of "$DIFF" "$dev"
	image=$(image_of s s1)
	[[ $(stat_of "$image" writes_passed) -eq 0 ]]
	dd if=/dev/urandom of="$dev" bs=512 seek=15 count=2 oflag=direct conv=notrunc status=none
	# dd writes twice: sector 15, of granule 1, and sector 16, of granule 2
	[[ $(stat_of "$image" chunks_preserved) -eq 2 ]]
	[[ $(stat_of "$image" chunks_in_memory) -eq 2 ]]
	[[ $(stat_of "$image" memory_bytes) -eq 8192 ]]
	[[ $(stat_of "$image" origin_read_bytes) -eq 8192 ]]
	[[ $(stat_of "$image" writes_held) -eq 2 ]]
	dd if=/dev/urandom of="$dev" bs=1536 seek=5 count=1 oflag=direct conv=notrunc status=none
	[[ $(stat_of "$image" writes_passed) -eq 1 ]]
	[[ $(stat_of "$image" chunks_preserved) -eq 2 ]]
	[[ $(stat_of "$image" writes_joined) -eq 0 ]]
	session_destroy s
}

# --- several origins, several sessions -------------------------------------------------------------------------------

@test "engine: several origins in one session, stormed at once" {
	local n pids=() pid code=0
	for n in 1 3 4; do
		filled "$(disk "$n")" --length 8M
	done
	session_of "$DIFF" "$(disk 1)" "$(disk 3)" "$(disk 4)"
	for n in 1 3 4; do
		background stamp storm "$(disk "$n")" "/dev/blksnap/s/s$((n == 1 ? 1 : n - 1))" --seed "$SEED" \
			--taken-seq 1 --length 8M --count 1000 >"$BATS_TEST_TMPDIR/storm.$n" 2>&1
		pids+=("$BACKGROUND")
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || code=$?
	done
	[[ $code -eq 0 ]] || fail "$(cat "$BATS_TEST_TMPDIR"/storm.*)"
	for n in 1 2 3; do
		consistent "$(image_of s "s$n")"
	done
	session_destroy s
}

@test "engine: one instant: an image never has a write without those that it depended on" {
	local log=$BATS_TEST_TMPDIR/log before after start=1 round
	for round in 1 2; do
		background stamp order "$(disk 1)" "$(disk 3)" "$(disk 4)" --seed "$SEED" --length 4M --start "$start" \
			--seconds 60 --log "$log"
		wait_until 20 log_reaches "$log" $((start + 40))
		session_make s "$DIFF" "$(disk 4)" "$(disk 1)" "$(disk 3)"
		before=$((10#$(<"$log")))
		session_take s
		after=$((10#$(<"$log")))
		wait_until 20 log_reaches "$log" $((after + 20))
		stop_background
		stamp order-check "$(image_of s s2)" "$(image_of s s3)" "$(image_of s s1)" --seed "$SEED" --length 4M \
			--min "$before" --max $((after + 1))
		start=$((10#$(<"$log") + 1))
		session_destroy s
	done
}

log_reaches() {
	[[ -s $1 && $((10#$(<"$1"))) -ge $2 ]]
}

@test "engine: several sessions on one origin, each with its own instant, released in any order (lesson 12)" {
	local dev dir=$BATS_TEST_TMPDIR
	dev=$(disk 1)
	filled "$dev" --length 8M
	session_make a "$(disk 2)" "$dev"
	session_make b "$(disk 3)" "$dev"
	session_make c "$(disk 4)" "$dev"
	session_take a
	storm "$dev" "$(image_of a s1)" --length 8M --count 500 --save-table "$dir/1"
	session_take b
	storm "$dev" "$(image_of b s1)" --length 8M --count 500 --table "$dir/1" --save-table "$dir/2"
	session_take c
	storm "$dev" "$(image_of c s1)" --length 8M --count 500 --table "$dir/2" --save-table "$dir/3"
	image_is "$(image_of a s1)" --length 8M
	stamp verify "$(image_of b s1)" --seed "$SEED" --length 8M --table "$dir/1"
	session_destroy b
	storm "$dev" - --length 8M --count 500 --table "$dir/3" --save-table "$dir/4"
	image_is "$(image_of a s1)" --length 8M
	session_destroy a
	storm "$dev" - --length 8M --count 500 --table "$dir/4"
	stamp verify "$(image_of c s1)" --seed "$SEED" --length 8M --table "$dir/2"
	session_destroy c
}

@test "engine: a session is taken and released under the storm of another" {
	local dev storm round
	dev=$(disk 1)
	filled "$dev" --length 8M
	session_of "$DIFF" "$dev"
	session_make b "$(disk 3)" "$dev"
	background stamp storm "$dev" "$(image_of s s1)" --seed "$SEED" --taken-seq 1 --length 8M --seconds 600 \
		>"$BATS_TEST_TMPDIR/storm" 2>&1
	storm=$BACKGROUND
	for round in 1 2 3; do
		session_take b
		stamp verify-stable "$(image_of b s1)" --seed "$SEED" --length 8M
		session_release b
	done
	kill "$storm"
	wait "$storm" || fail "$(cat "$BATS_TEST_TMPDIR/storm")"
	image_is "$(image_of s s1)" --length 8M
	session_destroy b
	session_destroy s
}

# --- failures --------------------------------------------------------------------------------------------------------

# watch_state IMAGE FILE: in the background, the states that a poll() on `state` shows, one a line; PID in WATCHER.
watch_state() {
	background python3 -c '
import os, select, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
poll = select.poll()
poll.register(fd, select.POLLPRI | select.POLLERR)
with open(sys.argv[2], "w") as out:
    while True:
        os.lseek(fd, 0, os.SEEK_SET)
        state = os.read(fd, 64).decode()
        out.write(state)
        out.flush()
        if state != "active\n" or not poll.poll(60000):
            break
' "/sys/block/${1##*/}/blksnap/state" "$2"
	WATCHER=$BACKGROUND
	wait_until 20 test -s "$2"
}

@test "engine: who polls the state is woken by the release" {
	local states=$BATS_TEST_TMPDIR/states
	session_of "$(disk 2)" "$(disk 1)"
	watch_state "$(image_of s s1)" "$states"
	session_release s
	# It is told that the file has gone, or reads its last state.
	wait_until 10 gone "$WATCHER"
	session_destroy s
}

# watch_events FILE: in the background, the events of block devices with their properties.
watch_events() {
	background stdbuf -oL udevadm monitor --kernel --property --subsystem-match=block >"$1" 2>&1
	wait_until 10 grep -q KERNEL "$1"
}

# event_of FILE STATE SNAPSHOT: there is such an event, with all that belongs to it.
event_of() {
	awk -v RS= -v event="BLKSNAP_EVENT=$2" -v snapshot="BLKSNAP_SNAPSHOT=$3" '
		{ text = $0 "\n" }
		index(text, "ACTION=change\n") && index(text, event "\n") && index(text, snapshot "\n") &&
			index(text, "BLKSNAP_SESSION=s\n") && text ~ /BLKSNAP_ORIGIN=[0-9]+:[0-9]+\n/ { found = 1 }
		END { exit !found }' "$1"
}

# A session of disks 1 and 3 whose difference storage has room for so many bytes: small_diff BYTES
small_diff() {
	echo 4M >"$MEMORY_LIMIT"
	diff_small "$1"
	filled "$(disk 1)" --length 24M
	filled "$(disk 3)" --length 1M
	session_of "$DIFF" "$(disk 1)" "$(disk 3)"
}

@test "engine: I1 I2 I8: storage full: overflow, EIO from the images only, told in every way" {
	local image events=$BATS_TEST_TMPDIR/events states=$BATS_TEST_TMPDIR/states
	small_diff 4194304
	image=$(image_of s s1)
	watch_events "$events"
	watch_state "$image" "$states"
	storm "$(disk 1)" "$image" --length 24M --count 6000 --max-size 16K --image-may-fail
	[[ $(storm_value image_errors) -gt 0 ]]
	[[ $(storm_value origin_errors) -eq 0 ]]

	[[ $(session_get s state) == overflow ]]
	[[ $(session_get s s1/state) == overflow ]]
	[[ $(session_get s s2/state) == overflow ]]
	[[ $(session_get s error) == 'ENOSPC: '*4194304* ]]
	[[ $(session_get s s1/error) == 'ENOSPC: '* ]]
	[[ $(stat_of "$image" state) == overflow ]]
	[[ $(stat_of "$image" error) == 'ENOSPC: '* ]]
	image_fails "$image"
	image_fails "$(image_of s s2)"
	wait "$WATCHER"
	[[ $(paste -sd' ' "$states") == 'active overflow' ]] || fail "a poller has seen: $(paste -sd' ' "$states")"
	wait_until 10 event_of "$events" overflow s1
	wait_until 10 event_of "$events" overflow s2
	[[ $(log_since | grep -c '^blksnap: s/s1: ENOSPC') -eq 1 ]]

	dd if=/dev/zero of="$(disk 3)" bs=1M count=1 oflag=direct conv=notrunc status=none
	[[ $(session_get s state) == overflow ]]
	session_release s
	[[ $(session_get s state) == configured ]]
	session_destroy s
}

@test "engine: after an overflow the next session works" {
	local round
	small_diff 4194304
	for round in 1 2; do
		dd if=/dev/zero of="$(disk 1)" bs=1M count=24 oflag=direct conv=notrunc status=none
		wait_until 10 state_is s overflow
		session_release s
		filled "$(disk 1)" --length 24M
		session_take s
		[[ $(session_get s state) == active ]]
		[[ -z $(session_get s error) ]]
		image_is "$(image_of s s1)" --length 24M
	done
	session_release s
	put "$SESSIONS/s/diff_file" "$(disk 2)"
	session_take s
	storm "$(disk 1)" "$(image_of s s1)" --length 24M --count 1000
	session_destroy s
}

@test "engine: I1: an overflow in one session leaves another one on the same origin alone" {
	local dev
	dev=$(disk 1)
	small_diff 4194304
	session_make other "$(disk 2)" "$dev"
	session_take other
	storm "$dev" "$(image_of other s1)" --length 24M --count 3000
	[[ $(session_get s state) == overflow ]]
	[[ $(session_get other state) == active ]]
	session_destroy s
	image_is "$(image_of other s1)" --length 24M
	session_destroy other
}

# An origin of 32 MiB, with read errors in 8 sectors from sector 20000 on while the option is set; in BAD.
bad_reads() {
	scsi_debug_make dev_size_mb=32 medium_error_start=20000 medium_error_count=8 || return
	BAD=$SCSI
}

bad_reads_on() {
	echo "$1" >/sys/bus/pseudo/drivers/scsi_debug/opts
}

@test "engine: I1 I8: the origin cannot be read: failed, its writers go on, other origins too" {
	local events=$BATS_TEST_TMPDIR/events
	bad_reads
	filled "$BAD" --length 16M
	filled "$(disk 3)" --length 4M
	session_of "$DIFF" "$BAD" "$(disk 3)"
	watch_events "$events"
	bad_reads_on 2
	dd if=/dev/zero of="$BAD" bs=4096 seek=2400 count=200 oflag=direct conv=notrunc status=none
	wait_until 10 state_is s failed
	wait_until 10 event_of "$events" failed s1
	[[ $(session_get s s1/state) == failed ]]
	# what such a disk says of a sector that it cannot read
	[[ $(session_get s s1/error) == 'ENODATA: '* ]]
	[[ $(session_get s error) == 'ENODATA: '* ]]
	[[ $(session_get s s2/state) == active ]]
	image_fails "$(image_of s s1)"
	storm "$(disk 3)" "$(image_of s s2)" --length 4M --count 500
	bad_reads_on 0
	cmp -n 819200 -i 9830400:0 "$BAD" /dev/zero
	storm "$BAD" - --length 8M --count 200
	session_destroy s
	wait_until 10 unused "$BAD"
}

@test "engine: I1 I8: the origin is unplugged: lost, and the other origin goes on (lesson 11)" {
	local events=$BATS_TEST_TMPDIR/events image
	bad_reads
	filled "$BAD" --length 16M
	filled "$(disk 3)" --length 4M
	session_of "$DIFF" "$BAD" "$(disk 3)"
	image=$(image_of s s1)
	watch_events "$events"
	scsi_debug_delete
	wait_until 20 state_is s lost
	wait_until 10 event_of "$events" lost s1
	[[ $(session_get s s1/error) == 'ENODEV: '* ]]
	[[ $(session_get s s2/state) == active ]]
	image_fails "$image"
	storm "$(disk 3)" "$(image_of s s2)" --length 4M --count 500
	session_destroy s
}

@test "engine: I8: the origin shrinks: lost; it grows: the session goes on" {
	dm_linear volume "$(disk 1)" 65536
	filled /dev/mapper/volume
	session_of "$DIFF" /dev/mapper/volume
	dm_switch volume "0 131072 linear $(disk 1) 0"
	dd if=/dev/urandom of=/dev/mapper/volume bs=64k count=600 oflag=direct conv=notrunc status=none
	image_is "$(image_of s s1)"
	[[ $(session_get s state) == active ]]
	dm_switch volume "0 32768 linear $(disk 1) 0"
	wait_until 20 state_is s lost
	image_fails "$(image_of s s1)"
	session_destroy s
}

unused() {
	settle
	! fuser -s "$1"
}

@test "engine: I2: a read error of the origin reaches the image's reader, and nothing else" {
	bad_reads
	filled "$BAD" --length 16M
	session_of "$DIFF" "$BAD"
	bad_reads_on 2
	refuses ENODATA dd if="$(image_of s s1)" of=/dev/null bs=4096 skip=2500 count=1 iflag=direct status=none
	bad_reads_on 0
	[[ $(session_get s state) == active ]]
	image_is "$(image_of s s1)" --length 16M
	session_destroy s
	wait_until 10 unused "$BAD"
}

@test "engine: I2: a read that is under way when the snapshot fails ends in EIO, not in newer data (lesson 4)" {
	local image reader
	skip_unless_diff device 'it needs a device that fails'
	echo 4M >"$MEMORY_LIMIT"
	filled "$(disk 1)" --length 8M
	dm_linear slow "$(disk 1)" 65536
	dm_linear store "$(disk 2)" 131072
	session_of /dev/mapper/store /dev/mapper/slow "$(disk 3)"
	image=$(image_of s s1)
	dm_switch store '0 131072 error'
	# Reads of one granule wait, where udev does not read, until the table is changed again.
	dm_switch slow <<-END
		0 12344 linear $(disk 1) 0
		12344 8 delay $(disk 1) 12344 60000 $(disk 1) 12344 0
		12352 53184 linear $(disk 1) 12352
	END
	background dd if="$image" of="$BATS_TEST_TMPDIR/read" bs=4096 skip=1543 count=1 iflag=direct status=none
	reader=$BACKGROUND
	sleep 1
	dd if=/dev/zero of="$(disk 3)" bs=1M count=8 oflag=direct conv=notrunc status=none
	wait_until 10 snapshot_is s1 failed
	dd if=/dev/urandom of=/dev/mapper/slow bs=4096 seek=1543 count=1 oflag=direct conv=notrunc status=none
	kill -0 "$reader" || fail 'the read was over too early for this test'
	dm_switch slow "0 65536 linear $(disk 1) 0"
	! wait "$reader" || fail 'the read has succeeded'
	session_destroy s
}

snapshot_is() {
	[[ $(session_get s "$1/state") == "$2" ]]
}

@test "engine: I1 I8: the difference storage cannot be written: failed, origins go on" {
	local image
	skip_unless_diff device 'it needs a device that fails'
	echo 4M >"$MEMORY_LIMIT"
	dm_linear store "$(disk 2)" 131072
	filled "$(disk 1)" --length 24M
	filled "$(disk 3)" --length 1M
	session_of /dev/mapper/store "$(disk 1)" "$(disk 3)"
	image=$(image_of s s1)
	dm_switch store '0 131072 error'
	storm "$(disk 1)" "$image" --length 24M --count 4000 --max-size 16K --image-may-fail
	[[ $(storm_value origin_errors) -eq 0 ]]
	[[ $(session_get s state) == failed ]]
	[[ $(session_get s s2/state) == failed ]]
	[[ $(session_get s error) == 'EIO: '* ]]
	image_fails "$image"
	image_fails "$(image_of s s2)"
	session_destroy s
}

@test "engine: I2: the difference storage cannot be read: EIO for these places only" {
	local image
	skip_unless_diff device 'it needs a device that fails'
	echo 4M >"$MEMORY_LIMIT"
	dm_linear store "$(disk 2)" 131072
	filled "$(disk 1)" --length 24M
	session_of /dev/mapper/store "$(disk 1)"
	image=$(image_of s s1)
	dd if=/dev/zero of="$(disk 1)" bs=1M count=16 oflag=direct conv=notrunc status=none
	[[ $(stat_of "$image" chunks_stored) -gt 0 ]]
	image_is "$image" --length 24M
	dm_switch store '0 131072 error'
	refuses EIO dd if="$image" of=/dev/null bs=1M count=16 iflag=direct status=none
	image_is "$image" --offset 16M --length 8M
	dm_switch store "0 131072 linear $(disk 2) 0"
	[[ $(session_get s state) == active ]]
	image_is "$image" --length 24M
	session_destroy s
}

# memory_below BYTES: what the image of session s preserves takes less memory.
memory_below() {
	[[ $(stat_of "$(image_of s s1)" memory_bytes) -lt $1 ]]
}

@test "engine: I4: the kernel asks for memory back: preserved data is stored, though the limit is far" {
	echo 200M >"$MEMORY_LIMIT"
	filled "$(disk 1)" --length 24M
	session_of "$DIFF" "$(disk 1)"
	dd if=/dev/zero of="$(disk 1)" bs=1M count=24 oflag=direct conv=notrunc status=none
	[[ $(stat_of "$(image_of s s1)" memory_bytes) -eq $((24 << 20)) ]]
	[[ $(stat_of "$(image_of s s1)" chunks_stored) -eq 0 ]]
	echo 2 >/proc/sys/vm/drop_caches
	wait_until 10 memory_below $((3 << 20))
	image_is "$(image_of s s1)" --length 24M
	session_destroy s
}

@test "engine: I1: a difference storage that hangs holds writers for hold_limit_ms at most" {
	local start
	skip_unless_diff device 'it needs a device that fails'
	echo 4M >"$MEMORY_LIMIT"
	echo 2000 >/sys/module/blksnap/parameters/hold_limit_ms
	dm_linear store "$(disk 2)" 131072
	filled "$(disk 1)" --length 24M
	session_of /dev/mapper/store "$(disk 1)"
	dmsetup suspend --nolockfs --noflush store
	start=$SECONDS
	dd if=/dev/zero of="$(disk 1)" bs=1M count=24 oflag=direct conv=notrunc status=none
	[[ $((SECONDS - start)) -lt 12 ]] || fail "held for $((SECONDS - start)) s"
	wait_until 5 state_is s failed
	[[ $(session_get s s1/error) == 'ETIMEDOUT: '* ]]
	image_fails "$(image_of s s1)"
	cmp -n 25165824 "$(disk 1)" /dev/zero
	dmsetup resume store
	session_destroy s
}

@test "engine: I1: hold_limit_ms is lowered while writers wait: it holds for them" {
	local writer
	skip_unless_diff device 'it needs a device that fails'
	echo 4M >"$MEMORY_LIMIT"
	echo 900000 >/sys/module/blksnap/parameters/hold_limit_ms
	dm_linear store "$(disk 2)" 131072
	session_of /dev/mapper/store "$(disk 1)"
	dmsetup suspend --nolockfs --noflush store
	defer dmsetup resume store
	background dd if=/dev/zero of="$(disk 1)" bs=1M count=24 oflag=direct conv=notrunc status=none
	writer=$BACKGROUND
	sleep 3
	state_is s active
	hangs "$writer" || fail 'it does not wait: nothing was shown'
	echo 1000 >/sys/module/blksnap/parameters/hold_limit_ms
	wait_until 10 state_is s failed
	wait "$writer"
	dmsetup resume store
	session_destroy s
}

@test "engine: I1: memory_limit is lowered below a granule: what is written back does not wait for ever" {
	local pid
	skip_unless_diff device 'only to say it once'
	echo 64M >"$MEMORY_LIMIT"
	echo 1000 >/sys/module/blksnap/parameters/hold_limit_ms
	session_make s "$(disk 2)" "$(disk 1)" "$(disk 3)"
	put "$SESSIONS/s/s1/chunk_size" 16M
	session_take s
	echo 4M >"$MEMORY_LIMIT"
	# Something is stored all the time.
	background fio --name=others --filename="$(disk 3)" --rw=randwrite --bs=4k --ioengine=psync --direct=1 --size=900M \
		--rate_iops=100 --output="$BATS_TEST_TMPDIR/fio"
	pid=$BACKGROUND
	wait_until 10 eval "[[ \$(stat_of '$(image_of s s2)' chunks_preserved) -gt 100 ]]"
	written_back "$(disk 1)" 1
	wait_until 20 state_is s failed
	[[ $(session_get s s1/error) == 'ETIMEDOUT: '* ]]
	wait_until 20 nothing_is_written_back
	[[ $(session_get s s2/state) == active ]]
	kill -0 "$pid" || fail "$(cat "$BATS_TEST_TMPDIR/fio")"
	end_background "$pid"
	session_destroy s
}

@test "engine: I1: a difference storage that hangs: a session that has preserved all of it already does not prolong that" {
	local origin start
	skip_unless_diff device 'it needs a device that fails'
	origin=$(disk 1)
	echo 2000 >/sys/module/blksnap/parameters/hold_limit_ms
	dm_linear store "$(disk 2)" 131072
	filled "$origin" --length 24M
	session_make other "$(disk 4)" "$origin"
	session_take other
	stamp fill "$origin" --seed "$SEED" --seq 2 --length 24M
	echo 4M >"$MEMORY_LIMIT"
	session_of /dev/mapper/store "$origin"
	dmsetup suspend --nolockfs --noflush store
	defer dmsetup resume store
	start=$SECONDS
	timeout 40 dd if=/dev/zero of="$origin" bs=1M count=24 oflag=direct conv=notrunc status=none
	[[ $((SECONDS - start)) -lt 12 ]] || fail "held for $((SECONDS - start)) s"
	wait_until 5 state_is s failed
	[[ $(session_get s s1/error) == 'ETIMEDOUT: '* ]]
	state_is other active
	image_is "$(image_of other s1)" --length 24M
	dmsetup resume store
	session_destroy s
	session_destroy other
}

# slow_store MILLISECONDS: $DIFF is a device that takes so long for each write, and little memory stands before it.
slow_store() {
	echo 4M >"$MEMORY_LIMIT"
	dm_make store "0 131072 delay $(disk 2) 0 0 $(disk 2) 0 $1"
	filled "$(disk 1)" --length 48M
	session_of /dev/mapper/store "$(disk 1)"
}

# written_back DISK MIB: zeroes, from the page cache, and nobody waits for them.
written_back() {
	dd if=/dev/zero of="$1" bs=1M count="$2" oflag=nocache conv=notrunc status=none
}

nothing_is_written_back() {
	[[ $(meminfo Writeback) -eq 0 && $(meminfo Dirty) -lt 1024 ]]
}

@test "engine: I1: a difference storage that hangs: what is written back goes on after hold_limit_ms, too" {
	skip_unless_diff device 'it needs a device that fails'
	slow_store 0
	echo 2000 >/sys/module/blksnap/parameters/hold_limit_ms
	dmsetup suspend --nolockfs --noflush store
	defer dmsetup resume store
	written_back "$(disk 1)" 24
	wait_until 30 state_is s failed
	[[ $(session_get s s1/error) == 'ETIMEDOUT: '* ]]
	wait_until 30 nothing_is_written_back
	cmp -n 25165824 "$(disk 1)" /dev/zero
	dmsetup resume store
	session_destroy s
}

not_slow() {
	[[ ${BLKSNAP_SLOW:-1} -eq 1 ]] || skip 'what is done with what was stored takes longer than hold_limit_ms, on this kernel'
}

@test "engine: I1: a slow difference storage: much that is written back takes longer than hold_limit_ms, and is preserved" {
	local image
	skip_unless_diff device 'it needs a device that is slow'
	not_slow
	slow_store 300
	image=$(image_of s s1)
	echo 1000 >/sys/module/blksnap/parameters/hold_limit_ms
	written_back "$(disk 1)" 48
	wait_until 60 nothing_is_written_back
	state_is s active || fail "$(session_get s s1/error)"
	[[ $(stat_of "$image" held_us_max) -gt 1500000 ]]
	image_is "$image" --length 48M
	session_destroy s
}

# slow_disk MIB MILLISECONDS: $SCSI takes so long for each 128 KiB, one after the other.
slow_disk() {
	scsi_debug_make dev_size_mb="$1" max_queue=1
	echo 128 >"/sys/block/${SCSI##*/}/queue/max_sectors_kb"
	# Not while a command runs.
	wait_until 10 eval "echo $(($2 * 1000000)) 2>/dev/null >/sys/bus/pseudo/drivers/scsi_debug/ndelay"
}

@test "engine: I1: a slow difference storage: memory comes back with each piece of a large batch" {
	skip_unless_diff device 'it needs a device that is slow'
	not_slow
	echo 128M >"$MEMORY_LIMIT"
	echo 2500 >/sys/module/blksnap/parameters/hold_limit_ms
	# Half of what memory there is takes 16 seconds: twice as long as anybody may wait.
	slow_disk 192 31
	filled "$(disk 1)" --length 160M
	session_of "$SCSI" "$(disk 1)"
	dd if=/dev/zero of="$(disk 1)" bs=1M count=152 oflag=direct conv=notrunc status=none
	state_is s active || fail "$(session_get s s1/error)"
	image_is "$(image_of s s1)" --length 8M
	session_destroy s
}

# Its share is smaller than a chunk could be: that of a write of 1 MiB.
@test "engine: I1 I4: a session whose difference storage is slow, with all memory: another one has its share" {
	skip_unless_diff device 'it needs a device that is slow'
	not_slow
	echo 6M >"$MEMORY_LIMIT"
	echo 2000 >/sys/module/blksnap/parameters/hold_limit_ms
	slow_disk 96 125
	session_of "$SCSI" "$(disk 1)"
	session_make other "$(disk 2)" "$(disk 4)" "$(disk 5)" "$(disk 7)"
	session_take other
	background written_back "$(disk 1)" 32
	wait_until 20 holds_memory s $((7 << 19))
	dd if=/dev/zero of="$(disk 4)" bs=1M count=16 oflag=direct conv=notrunc status=none
	holds_memory s $((5 << 19)) || fail 'the slow one did not write any more'
	state_is other active || fail "$(session_get other s1/error)"
	[[ $(stat_of "$(image_of other s1)" chunks_preserved) -eq 4096 ]]
	wait "$BACKGROUND"
	wait_until 60 nothing_is_written_back
	session_destroy s
	session_destroy other
}

# holds_memory SESSION BYTES: its first image has so much in memory, or more.
holds_memory() {
	[[ $(stat_of "$(image_of "$1" s1)" memory_bytes) -ge $2 ]]
}

@test "engine: I1: a session that is released while its difference storage hangs gives its memory back" {
	local image release
	skip_unless_diff device 'it needs a device that hangs'
	echo 64M >"$MEMORY_LIMIT"
	dm_linear store "$(disk 2)" 131072
	session_of /dev/mapper/store "$(disk 1)"
	session_make other "$(disk 5)" "$(disk 4)"
	session_take other
	image=$(image_of s s1)
	dmsetup suspend --nolockfs --noflush store
	defer dmsetup resume store
	dd if=/dev/zero of="$(disk 1)" bs=1M count=56 oflag=direct conv=notrunc status=none
	echo 0 >"$SESSIONS/s/active" 3>&- &
	release=$!
	wait_until 10 eval "! dd if=$image of=/dev/null bs=4K count=1 iflag=direct status=none 2>/dev/null"
	sleep 1
	kill -0 "$release" || fail 'nothing hangs'
	# With what the other one had it would begin to store now.
	dd if=/dev/zero of="$(disk 4)" bs=1M count=15 oflag=direct conv=notrunc status=none
	[[ $(stat_of "$(image_of other s1)" memory_bytes) -eq $((15 << 20)) ]]
	dmsetup resume store
	wait "$release"
	session_destroy s
	session_destroy other
}

@test "engine: I1: where memory is short, a write that somebody waits for goes before what is written back" {
	local writer after
	skip_unless_diff device 'it needs a device that hangs'
	slow_store 0
	echo 60000 >/sys/module/blksnap/parameters/hold_limit_ms
	trace blksnap
	dmsetup suspend --nolockfs --noflush store
	defer dmsetup resume store
	# Pages that do not lie side by side, so that each is a write of its own; and then one that is waited for.
	python3 - "$(disk 1)" 3>&- <<-'END' &
		import mmap, os, sys
		disk = os.open(sys.argv[1], os.O_WRONLY)
		direct = os.open(sys.argv[1], os.O_WRONLY | os.O_DIRECT)
		for page in range(0, 6000, 2):
		    os.pwrite(disk, bytes(4096), page * 4096)
		os.posix_fadvise(disk, 0, 0, os.POSIX_FADV_DONTNEED)
		os.pwrite(direct, mmap.mmap(-1, 4096), 40 << 20)
	END
	writer=$!
	wait_until 20 holds_at_least 2500
	wait_until 20 grep -q "blksnap_hold: [0-9:]* $((40 << 11)) " "$TRACING/trace"
	dmsetup resume store
	wait "$writer"
	wait_until 60 nothing_is_written_back
	after=$(sed "0,/blksnap_release: [0-9:]* $((40 << 11)) /d" "$TRACING/trace" | grep -c blksnap_release:)
	[[ $after -gt 500 ]] || fail "only $after writes went after it"
	image_is "$(image_of s s1)" --length 48M
	session_destroy s
}

holds_at_least() {
	[[ $(grep -c blksnap_hold: "$TRACING/trace") -ge $1 ]]
}
