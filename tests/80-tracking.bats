#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 16
# Change tracking: what an administrator types and reads, which blocks the map names, and that it misses none, whoever
# writes, however sessions overlap, and past the last number of a generation.

# shellcheck disable=SC2030,SC2031,SC2153 # each test is a subshell, and so is its `output`; IMAGE is of lib/tracking
load lib/common
load lib/devices
load lib/refusals
load lib/tracking

setup() {
	common_setup
	skip_unless_feature cbt
}

teardown() {
	common_teardown
}

UUID='^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'

# tracker_refused NAME ERRNO COMMAND...: one line in the log, nothing changed, and the tracker's `error` says so.
tracker_refused() {
	local name=$1 said=''
	shift
	logged_refusal "$@" || return
	read -r said <"$TRACKERS/$name/error" || true
	[[ $said == "$1: "?* ]] || fail "not a text of $1 in the error file of $name: $said"
}

# increased IMAGE COPY [FILE]: brings the copy to the image by the map; fails if the map has missed anything. Numbers in
# INCREMENT. FILE: what the origin is made of, where only its data is to be compared.
increased() {
	local code=0
	INCREMENT=$(increment "$@" 2>&1) || code=$?
	[[ $code -eq 0 ]] || fail "increment of $1 ended with code $code:"$'\n'"$INCREMENT"
}

# increment_value KEY
increment_value() {
	[[ $'\n'$INCREMENT$'\n' =~ $'\n'"$1="([^$'\n']*) ]] && printf '%s\n' "${BASH_REMATCH[1]}"
}

# --- attributes ------------------------------------------------------------------------------------------------------

@test "tracking: the attributes that there are, and no others, with their modes" {
	local sorted
	mkdir "$TRACKERS/t"
	run -0 find "$TRACKERS/t" -type f -printf '%m %f\n'
	sorted=$(sort <<<"$output" | paste -sd' ')
	[[ $sorted == "200 dirty 444 error 444 generation 444 number 444 state 644 block_size 644 device 644 enabled" ]]
	rmdir "$TRACKERS/t"
}

@test "tracking: configured, tracking, configured" {
	local generation link=/dev/disk/by-id/virtio-t1
	mkdir "$TRACKERS/t"
	[[ -z $(tracker_get t device) && -z $(tracker_get t generation) && -z $(tracker_get t error) ]]
	[[ $(tracker_get t block_size) == 0 && $(tracker_get t enabled) == 0 && $(tracker_get t number) == 0 ]]
	[[ $(tracker_get t state) == configured ]]
	put "$TRACKERS/t/device" "$link"
	[[ $(tracker_get t device) == "$link" ]]
	put "$TRACKERS/t/enabled" 1
	[[ $(tracker_get t state) == tracking && $(tracker_get t enabled) == 1 && $(tracker_get t number) == 0 ]]
	[[ $(tracker_get t block_size) == 65536 ]]
	generation=$(tracker_get t generation)
	[[ $generation =~ $UUID ]]
	put "$TRACKERS/t/enabled" 0
	[[ $(tracker_get t state) == configured && $(tracker_get t enabled) == 0 && -z $(tracker_get t generation) ]]
	put "$TRACKERS/t/enabled" 0
	put "$TRACKERS/t/enabled" 1
	[[ $(tracker_get t generation) =~ $UUID && $(tracker_get t generation) != "$generation" ]]
	tracker_destroy t
}

@test "tracking: names as those of sessions (EINVAL)" {
	local name
	for name in .x 'a b' x-part1 "$(printf 'n%.0s' {1..65})" 'a,b'; do
		logged_refusal EINVAL mkdir "$TRACKERS/$name"
	done
	mkdir "$TRACKERS/a._:+-9"
	rmdir "$TRACKERS/a._:+-9"
}

@test "tracking: devices that are refused (ENOENT, ENOTBLK, EOPNOTSUPP, EEXIST)" {
	mkdir "$TRACKERS/t" "$TRACKERS/u"
	tracker_refused t ENOENT put "$TRACKERS/t/device" /dev/nowhere
	tracker_refused t ENOTBLK put "$TRACKERS/t/device" /dev/null
	session_of "$(disk 2)" "$(disk 1)"
	tracker_refused t EOPNOTSUPP put "$TRACKERS/t/device" "$(image_of s s1)"
	session_destroy s
	put "$TRACKERS/t/device" "$(disk 1)"
	tracker_refused u EEXIST put "$TRACKERS/u/device" /dev/disk/by-id/virtio-t1
	put "$TRACKERS/t/device" "$(disk 1)"
	put "$TRACKERS/u/device" "$(disk 3)"
	rmdir "$TRACKERS/t" "$TRACKERS/u"
}

@test "tracking: what is refused while it is enabled (EBUSY), and without a device (EINVAL)" {
	mkdir "$TRACKERS/t"
	tracker_refused t EINVAL put "$TRACKERS/t/enabled" 1
	put "$TRACKERS/t/device" "$(disk 1)"
	tracker_refused t EINVAL put "$TRACKERS/t/enabled" 2
	tracker_refused t EINVAL put "$TRACKERS/t/enabled" yes
	tracker_refused t EINVAL put "$TRACKERS/t/dirty" "0 1"
	put "$TRACKERS/t/enabled" 1
	[[ -z $(tracker_get t error) ]]
	tracker_refused t EBUSY put "$TRACKERS/t/enabled" 1
	tracker_refused t EBUSY put "$TRACKERS/t/device" "$(disk 3)"
	tracker_refused t EBUSY put "$TRACKERS/t/block_size" 128K
	silently_refused EBUSY rmdir "$TRACKERS/t"
	run ! rmmod blksnap
	tracker_destroy t
}

@test "tracking: block_size takes suffixes; others than powers of two from 4K to 64M are refused (EINVAL)" {
	local value
	mkdir "$TRACKERS/t"
	put "$TRACKERS/t/device" "$(disk 5)"
	for value in 4096=4096 4K=4096 1M=1048576 64M=67108864 0=0; do
		put "$TRACKERS/t/block_size" "${value%=*}"
		[[ $(tracker_get t block_size) == "${value#*=}" ]]
	done
	for value in 2048 4097 96K 128M 1T x -1 ''; do
		tracker_refused t EINVAL put "$TRACKERS/t/block_size" "$value"
	done
	put "$TRACKERS/t/block_size" 1M
	put "$TRACKERS/t/enabled" 1
	[[ $(tracker_get t block_size) == 1048576 ]]
	session_of "$(disk 2)" "$(disk 5)"
	[[ $(cbt_of "$(image_of s s1)" block_size) == 1048576 ]]
	[[ $(cbt_of "$(image_of s s1)" map | wc -c) -eq 256 ]]
	session_destroy s
	tracker_destroy t
}

# map_of_hundred_mebibytes BYTES: so many has the map of what is tracked as t, and its last one is marked.
map_of_hundred_mebibytes() {
	session_of "$(disk 2)" /dev/mapper/huge
	[[ $(cbt_of "$(image_of s s1)" map | wc -c) -eq $1 ]] || fail "the map has not $1 bytes" || return
	session_release s
	put "$TRACKERS/t/dirty" '104857599 1'
	session_take s
	changed_is "$(image_of s s1)" 1599:2 || return
	session_destroy s
}

@test "tracking: blocks of 64 KiB are doubled as cbt_map_limit demands, and no further (I4)" {
	local limit size parameter=/sys/module/blksnap/parameters/cbt_map_limit
	[[ $(cat "$parameter") -ge 1048576 && $(cat "$parameter") -le 67108864 ]]
	refuses EINVAL put "$parameter" much
	for limit in 16384=65536 16383=131072 8K=131072 1000=2097152 1=1073741824; do
		put "$parameter" "${limit%=*}"
		tracker_make t "$(disk 1)"
		[[ $(tracker_get t block_size) == "${limit#*=}" ]] || fail "$limit: $(tracker_get t block_size)"
		tracker_destroy t
	done
	put "$parameter" 8K
	mkdir "$TRACKERS/t"
	put "$TRACKERS/t/device" "$(disk 1)"
	put "$TRACKERS/t/block_size" 64K
	tracker_refused t EINVAL put "$TRACKERS/t/enabled" 1
	[[ $(tracker_get t state) == configured ]]
	put "$TRACKERS/t/block_size" 128K
	put "$TRACKERS/t/enabled" 1
	tracker_destroy t
	put "$parameter" 4M
	# Of 100 MiB, 200 GiB, and 64 TiB; and what is no multiple of a block.
	for size in 204800=65536 204801=65536 $((200 << 21))=65536 $((65536 << 21))=16777216; do
		dmsetup create huge --table "0 ${size%=*} zero"
		tracker_make t /dev/mapper/huge
		[[ $(tracker_get t block_size) == "${size#*=}" ]] || fail "${size%=*} sectors: $(tracker_get t block_size)"
		[[ $size != 20480* ]] || map_of_hundred_mebibytes $((1600 + ${size%=*} % 2))
		tracker_destroy t
		dmsetup remove --retry huge
	done
}

@test "tracking: dirty is parsed strictly, and a line out of range refuses the whole write" {
	local value
	tracker_make t "$(disk 5)"
	for value in '' ' ' 0 '0 ' ' 0 1' '0 1 ' '0  1' '0 1 2' $'0 1\n\n0 1' $'\n0 1' 'a b' '-1 4' '0 -1' '0x10 1' '1K,1K' '0 1k'; do
		tracker_refused t EINVAL put "$TRACKERS/t/dirty" "$value"
	done
	for value in '256M 1' '0 268435457' '268435455 2' '0 0' '18446744073709551615 2' $'0 4096\n256M 1'; do
		tracker_refused t ERANGE put "$TRACKERS/t/dirty" "$value"
	done
	session_of "$(disk 2)" "$(disk 5)"
	changed_is "$(image_of s s1)"
	session_release s
	put "$TRACKERS/t/dirty" "0 1"
	put -n "$TRACKERS/t/dirty" $'128K 64K\n327679 2'
	put -n "$TRACKERS/t/dirty" $'268435455 1\n'
	session_take s
	changed_is "$(image_of s s1)" 0:2 2:2 4:2 5:2 4095:2
	session_release s
	put "$TRACKERS/t/dirty" "0 256M"
	session_take s
	[[ $(changed "$(image_of s s1)" | wc -w) -eq 4096 ]]
	session_destroy s
	tracker_destroy t
}

@test "tracking: an image has cbt only where its origin has a tracker, and keeps it" {
	local image first
	tracker_make t "$(disk 1)"
	session_of "$(disk 2)" "$(disk 1)" "$(disk 3)"
	image=$(image_of s s1)
	[[ ! -e /sys/block/$(basename "$(image_of s s2)")/cbt ]]
	run -0 find "/sys/block/${image##*/}/cbt/" -type f -printf '%m %f\n'
	[[ $(sort <<<"$output" | paste -sd' ') == "444 base 444 block_size 444 generation 444 map 444 number" ]]
	[[ $(cbt_of "$image" generation) == "$(tracker_get t generation)" ]]
	[[ $(cbt_of "$image" number) == 1 && -z $(cbt_of "$image" base) && $(tracker_get t number) == 1 ]]
	[[ $(cbt_of "$image" map | wc -c) -eq 16384 ]]
	first=$(cbt_of "$image" generation)

	# Another session has its own, and this one is frozen.
	written "$(disk 1)" 65536 4096
	session_make r "$(disk 4)" "$(disk 1)"
	session_take r
	[[ $(cbt_of "$(image_of r s1)" number) == 2 ]]
	changed_is "$(image_of r s1)" 1:2
	changed_is "$image"
	session_destroy r

	# It outlives its tracker; and what comes after is another generation.
	tracker_destroy t
	[[ $(cbt_of "$image" generation) == "$first" ]]
	changed_is "$image"
	tracker_make t "$(disk 1)"
	session_destroy s
	session_of "$(disk 2)" "$(disk 1)"
	[[ $(cbt_of "$(image_of s s1)" generation) != "$first" && $(cbt_of "$(image_of s s1)" number) == 1 ]]
	session_destroy s
	tracker_destroy t
}

@test "tracking: a take that fails has no number" {
	tracker_make t "$(disk 1)"
	dm_make slow "0 65536 delay $(disk 3) 0 0 $(disk 3) 0 3000"
	put /sys/module/blksnap/parameters/take_timeout_ms 300
	tracker_make u /dev/mapper/slow
	session_make s "$(disk 2)" "$(disk 1)" /dev/mapper/slow
	background dd if=/dev/zero of=/dev/mapper/slow bs=4096 count=1 oflag=direct status=none
	sleep 0.5
	refuses ETIMEDOUT put "$SESSIONS/s/active" 1
	[[ $(tracker_get t number) == 0 && $(tracker_get u number) == 0 ]]
	wait "$BACKGROUND"
	session_take s
	[[ $(tracker_get t number) == 1 && $(tracker_get u number) == 1 ]]
	session_destroy s
	tracker_destroy t
	tracker_destroy u
}

@test "tracking: without a tracker that is enabled there is no hook (I6)" {
	local functions=$TRACING/enabled_functions
	tracing
	mkdir "$TRACKERS/t"
	put "$TRACKERS/t/device" "$(disk 1)"
	run ! grep -Eq '^(submit_bio_noacct|set_capacity)' "$functions"
	put "$TRACKERS/t/enabled" 1
	grep -q '^submit_bio_noacct' "$functions"
	grep -q '^set_capacity' "$functions"
	put "$TRACKERS/t/enabled" 0
	unhooked() {
		! grep -Eq '^(submit_bio_noacct|set_capacity|bdev_resize_partition)' "$functions"
	}
	wait_until 10 unhooked
	rmdir "$TRACKERS/t"
}

# --- what is marked --------------------------------------------------------------------------------------------------

@test "tracking: a write marks the blocks that it touches, with the number of its interval" {
	local dev
	dev=$(disk 5)
	tracker_make t "$dev"
	session_make s "$(disk 2)" "$dev"
	written "$dev" 0 512
	written "$dev" 131071K 2048
	written "$dev" $((5 * 65536 - 512)) 1024
	snap s
	changed_is "$IMAGE" 0:1 4:1 5:1 2047:1 2048:1
	unsnap s
	written "$dev" 0 4096
	written "$dev" $((268435456 - 512)) 512
	snap s
	changed_is "$IMAGE" 0:2 4:1 5:1 2047:1 2048:1 4095:2
	# While a session is active, too: first overwrites and others.
	written "$dev" 65536 4096
	written "$dev" 65536 4096
	unsnap s
	snap s
	changed_is "$IMAGE" 0:2 1:3 4:1 5:1 2047:1 2048:1 4095:2
	session_destroy s
	tracker_destroy t
}

@test "tracking: zeroes and discards that are passed are marked, discards that are dropped are not" {
	local dev
	dev=$(disk 5)
	tracker_make t "$dev"
	session_make s "$(disk 2)" "$dev"
	blkdiscard -f -o 1M -l 64K "$dev"
	blkdiscard -f -z -o 2M -l 128K "$dev"
	snap s
	changed_is "$IMAGE" 16:1 32:1 33:1
	blkdiscard -f -o 3M -l 64K "$dev"
	blkdiscard -f -z -o 4M -l 64K "$dev"
	[[ $(stat_of "$IMAGE" discards_dropped) -eq 65536 ]]
	unsnap s
	put "$SESSIONS/s/s1/discard" preserve
	snap s
	changed_is "$IMAGE" 16:1 32:1 33:1 64:2
	blkdiscard -f -o 5M -l 64K "$dev"
	unsnap s
	snap s
	changed_is "$IMAGE" 16:1 32:1 33:1 64:2 80:3
	session_destroy s
	tracker_destroy t
}

@test "tracking: what is written to an image marks nothing on its origin" {
	tracker_make t "$(disk 1)"
	session_of "$(disk 2)" "$(disk 1)"
	written "$(image_of s s1)" 1048576 65536
	session_make r "$(disk 4)" "$(disk 1)"
	session_take r
	changed_is "$(image_of r s1)"
	session_destroy r
	session_destroy s
	tracker_destroy t
}

@test "tracking: a partition's tracker sees writes to the whole disk, and the reverse" {
	local dev one two
	dev=$(disk 1)
	partition "$dev" 64M 64M
	one=$(part "$dev" 1) two=$(part "$dev" 2)
	tracker_make t "$one"
	tracker_make u "$two"
	tracker_make w "$dev"
	session_make s "$(disk 2)" "$one" "$two"
	# The second partition begins at 65 MiB.
	written "$dev" 2M 4096
	written "$dev" $((65 * 1024 * 1024 - 512)) 1024
	settle
	written "$two" 1M 4096
	session_take s
	changed_is "$(image_of s s1)" 16:1 1023:1
	changed_is "$(image_of s s2)" 0:1 16:1
	[[ $(tracker_get w number) == 0 ]]
	session_destroy s
	session_of "$(disk 2)" "$dev"
	changed_is "$(image_of s s1)" 32:1 1039:1 1040:1 1056:1
	session_destroy s
	tracker_destroy w
	tracker_destroy u
	tracker_destroy t
}

# extents FILE: prints FIRST LAST, in blocks of 4096 bytes of its device, for each of its extents.
extents() {
	filefrag -e -b4096 "$1" | sed -nE 's/^ *[0-9]+: +[0-9]+\.\. *[0-9]+: +([0-9]+)\.\. *([0-9]+):.*/\1 \2/p'
}

# blocks_are NUMBER FIRST LAST: what the map of $IMAGE says of these blocks.
blocks_are() {
	local said
	said=$(tail -c "+$(($2 + 1))" "/sys/block/${IMAGE##*/}/cbt/map" | head -c $(($3 - $2 + 1)) | od -An -v -tu1 -w1 | sort -u)
	[[ ${said//[[:space:]]/ } =~ ^\ *"$1"$ ]] || fail "blocks $2 to $3 changed in ${said//[[:space:]]/ }, not in $1"
}

# diff_changed_in NUMBER SESSION: a snapshot in which all of the diff, at $extents, has last changed in that interval; and the map
# has missed nothing.
diff_changed_in() {
	local first last
	snap "$2"
	while read -r first last; do
		blocks_are "$1" "$first" "$last" || return
	done <<<"$extents"
	increased "$IMAGE" "$BATS_TEST_TMPDIR/copy"
}

@test "tracking: a diff on the origin counts as changed in the interval that the take closes, and in the next" {
	local dev=/dev/mapper/origin dir file extents first last
	dm_linear origin "$(disk 1)" $((48 << 11))
	mkfs.ext4 -q -b 4096 "$dev"
	dir=$(mount_test "$dev" fs)
	file=$dir/diff
	fallocate -l 8M "$file"
	dd if=/dev/urandom of="$dir/data" bs=1M count=8 conv=fsync status=none
	extents=$(extents "$file")
	[[ $(awk '{ sum += $2 - $1 + 1 } END { print sum }' <<<"$extents") -eq 2048 ]] || fail "the extents are $extents"
	put "$MEMORY_LIMIT" 4M
	tracker_make t "$dev" 4K
	session_make s "$file" "$dev"
	session_make r "$(disk 2)" "$dev"
	diff_changed_in 0 r
	unsnap r
	# On the image it is zero, until the release; what gets there meanwhile is seen by the next one.
	diff_changed_in 2 s
	dd if=/dev/urandom of="$dir/data" bs=1M count=8 conv=notrunc,fsync status=none
	[[ $(stat_of "$IMAGE" chunks_stored) -gt 100 ]]
	unsnap s
	read -r first last <<<"$extents"
	run ! cmp -s -n $(((last - first + 1) * 4096)) -i "$((first * 4096)):0" "$dev" /dev/zero
	diff_changed_in 3 r
	[[ $(increment_value mode) == increment && $(increment_value reported) -ge 2048 ]]
	unsnap r
	diff_changed_in 3 r
	unsnap r
	# Each time that it is taken.
	diff_changed_in 5 s
	unsnap s
	diff_changed_in 6 r
	unsnap r
	session_destroy s
	session_destroy r
	tracker_destroy t
	umount "$dir"
}

# --- an oracle: the image itself, byte for byte ----------------------------------------------------------------------

# random_writes DEVICE COUNT LENGTH: buffered, direct, mmapped, NOWAIT and polled ones, anywhere, of whole blocks.
random_writes() {
	stamp storm "$1" - --seed "$RANDOM" --taken-seq 1 --count "$2" --writers 2 --mode mix --max-size 16K --length "$3" \
		--block "$(blockdev --getss "$1")" >/dev/null 2>&1 || [[ $? -eq 1 ]]
}

# reported_at_most BLOCKS: at the last increment.
reported_at_most() {
	local reported
	reported=$(increment_value reported)
	[[ $reported -le $1 ]] || fail "more than $1 blocks: $INCREMENT"
}

# mixed_increments DISK ROUNDS: of a part of it.
mixed_increments() {
	local dev=/dev/mapper/origin copy=$BATS_TEST_TMPDIR/copy i most
	dm_linear origin "$1" $((32 << 11))
	tracker_make t "$dev" 4K
	session_make s "$(disk 2)" "$dev"
	udev_away
	for ((i = 1; i <= $2; i++)); do
		# Twenty writes of at most 16 KiB, which may begin and end within a block; and what comes in each case.
		most=$((20 * 5))
		case $((i % 5)) in
		0) blkdiscard -f -z -o $((i * 1048576)) -l 60K "$dev" && most=$((most + 15)) ;;
		1) random_writes "$dev" 40 32M && most=$((most + 40 * 5)) ;;
		2) blkdiscard -f -o $((i * 1048576)) -l 300K "$dev" && most=$((most + 75)) ;;
		3) mkfs.ext4 -qF "$dev" && most=8192 ;;
		4) put "$TRACKERS/t/dirty" "$((i * 1048576)) 8K" && most=$((most + 2)) ;;
		esac
		random_writes "$dev" 10 32M
		snap s
		increased "$IMAGE" "$copy"
		[[ $i -eq 1 || $(increment_value mode) == increment ]]
		[[ $i -eq 1 ]] || reported_at_most "$most"
		# While the session is active as well.
		random_writes "$dev" 10 32M
		unsnap s
	done
	udev_back
	cmp "$copy" "$dev" && fail 'the copy is what came after the last snapshot'
	session_destroy s
	tracker_destroy t
}

@test "tracking: full and increments are the image: mixed writes, zeroes, discards, dirty, mkfs" {
	mixed_increments "$(disk 1)" "$(scaled 15)"
}

@test "tracking: full and increments are the image: the same, on blocks of 4096 bytes" {
	mixed_increments "$(disk 6)" 10
}

@test "tracking: full and increments are the image: a whole disk whose partitions come, go and are written to" {
	local dev copy=$BATS_TEST_TMPDIR/copy i table
	dev=$(disk 5)
	partition "$dev" 40M 40M
	tracker_make t "$dev"
	session_make s "$(disk 2)" "$dev"
	for ((i = 1; i <= $(scaled 6); i++)); do
		# Each time the second one begins and ends elsewhere, and every other time there is a third.
		table=$(printf 'size=40M\nstart=%d, size=%dM\n' $((100000 + i % 10 * 2048)) $((30 + i % 10)))
		[[ $((i % 2)) -eq 0 ]] || table+=$'\nstart=300000, size=40M'
		sfdisk -q -X gpt "$dev" <<<"$table" >/dev/null
		settle
		random_writes "$(part "$dev" 1)" 10 32M
		random_writes "$(part "$dev" 2)" 10 30M
		[[ $((i % 2)) -eq 0 ]] || mkfs.ext4 -qF "$(part "$dev" 3)"
		blkdiscard -f -z -o 4M -l 60K "$(part "$dev" 2)"
		sync "$dev"
		snap s
		increased "$IMAGE" "$copy"
		[[ $i -eq 1 || $(increment_value mode) == increment ]]
		unsnap s
	done
	session_destroy s
	tracker_destroy t
}

# used_increments DEVICE TYPE ROUNDS: of a file system in use; its copy in COPY.
used_increments() {
	local dev=$1 i dir
	COPY=$BATS_TEST_TMPDIR/copy
	"mkfs.$2" -q "$dev"
	dir=$(mount_test "$dev" fs discard)
	tracker_make t "$dev" 4K
	session_make s "$(disk 2)" "$dev"
	for ((i = 1; i <= $3; i++)); do
		cp -r /usr/share/doc/bash "$dir/$i" 2>/dev/null || mkdir "$dir/$i"
		head -c 300K /dev/urandom >"$dir/$i/random"
		[[ $i -lt 4 ]] || rm -r "${dir:?}/$((i - 3))"
		[[ $((i % 3)) -ne 0 ]] || fstrim "$dir"
		snap s
		increased "$IMAGE" "$COPY"
		[[ $i -eq 1 || $(increment_value mode) == increment ]]
		touch "$dir/after-$i"
		unsnap s
	done
	session_destroy s
	tracker_destroy t
}

@test "tracking: full and increments are the image: ext4 in use, on a partition" {
	partition "$(disk 1)" 48M
	used_increments "$(part "$(disk 1)" 1)" ext4 8
	fsck.ext4 -fn "$COPY" >/dev/null
}

@test "tracking: full and increments are the image: XFS in use, on a partition" {
	partition "$(disk 1)" 320M
	used_increments "$(part "$(disk 1)" 1)" xfs 4
	mkdir -p /mnt/test-copy
	mount -o loop,nouuid "$COPY" /mnt/test-copy
	umount /mnt/test-copy
	xfs_repair -n "$COPY"
}

@test "tracking: two hundred gibibytes: what changed at their end is known to be there (lesson 13)" {
	local dev gib=$((1 << 30)) i file copy=$BATS_TEST_TMPDIR/copy
	loop_make 200G
	dev=$LOOP
	file=$(losetup -n -O BACK-FILE "$dev")
	tracker_make t "$dev"
	session_make s "$(disk 2)" "$dev"
	[[ $(tracker_get t block_size) -eq 65536 ]]
	written "$dev" 0 4096
	written "$dev" $((127 * gib)) 4096
	written "$dev" $((128 * gib - 4096)) 8192
	written "$dev" $((200 * gib - 4096)) 4096
	snap s
	changed_is "$IMAGE" 0:1 2080768:1 2097151:1 2097152:1 3276799:1
	unsnap s
	written "$dev" $((190 * gib)) 65536
	snap s
	changed_is "$IMAGE" 0:1 2080768:1 2097151:1 2097152:1 3112960:2 3276799:1
	increased "$IMAGE" "$copy" "$file"
	[[ $(increment_value mode) == full ]]
	unsnap s
	for ((i = 0; i < $(scaled 10); i++)); do
		written "$dev" $(((i * 37 % 200) * gib + RANDOM * 512)) 8192
		written "$dev" $((RANDOM * 65536 * 100 + RANDOM * 512)) 65536
		snap s
		increased "$IMAGE" "$copy" "$file"
		[[ $(increment_value mode) == increment && $(increment_value reported) -ge 2 ]]
		reported_at_most 4
		unsnap s
	done
	session_destroy s
	tracker_destroy t
}

@test "tracking: one percent of ten gibibytes has changed, and little more is reported (lesson 13)" {
	local dev=/dev/mapper/origin reported
	dm_ten_gibibytes origin
	tracker_make t "$dev"
	session_make s "$(disk 2)" "$dev"
	snap s
	unsnap s
	# 103 MiB, in pieces of 1 MiB that begin anywhere.
	scribble -l 1M "$dev" 103
	snap s
	reported=$(changed "$IMAGE" | tr ' ' '\n' | grep -c ':2$')
	[[ $((reported * 65536)) -ge $((103 << 20)) && $((reported * 65536)) -le $((110 << 20)) ]] || fail "$reported blocks"
	session_destroy s
	tracker_destroy t
}

# one_of_many I: a change, a snapshot that is compared, and what is to be said of it, by its number. For common_untraced.
one_of_many() {
	local i=$1
	case $((i % 4)) in
	0) scribble -o $((RANDOM % 4000 * 512)) -l 4K "$dev" ;;
	1) random_writes "$dev" 4 2M ;;
	2) blkdiscard -f -z -o $((RANDOM % 500 * 4096)) -l 8K "$dev" ;;
	3) blkdiscard -f -o $((RANDOM % 500 * 4096)) -l 12K "$dev" ;;
	esac || return
	snap s && increased "$IMAGE" "$copy" || return
	[[ $i -eq 1 ]] || reported_at_most 20 || return
	unsnap s || return
	case $i in
	1) [[ $INCREMENT == mode=full$'\n'* ]] ;;
	256) [[ $INCREMENT == mode=wrap$'\n'number=1$'\n'* && $INCREMENT == *$'\n'reported=[12]$'\n'* ]] ;;
	*) [[ $INCREMENT == mode=increment$'\n'* ]] ;;
	esac || fail "at $i: $INCREMENT" || return
	case $i in
	254) [[ $(tracker_get t generation) == "$first" && $(tracker_get t number) == 254 ]] ;;
	255)
		second=$(tracker_get t generation)
		[[ $second != "$first" && $(tracker_get t number) == 0 ]]
		;;
	esac || fail "at $i: $(tracker_get t generation) $(tracker_get t number), first $first"
}

@test "tracking: full and increments are the image, over 300 snapshots and past the last number (lesson 13)" {
	local dev=/dev/mapper/origin copy=$BATS_TEST_TMPDIR/copy i first second=''
	dm_linear origin "$(disk 1)" $((2 << 11))
	tracker_make t "$dev" 4K
	first=$(tracker_get t generation)
	session_make s "$(disk 2)" "$dev"
	udev_away
	for ((i = 1; i <= 300; i++)); do
		common_untraced one_of_many "$i"
	done
	udev_back
	[[ $(tracker_get t number) == 45 ]]
	snap s
	[[ $(cbt_of "$IMAGE" base) == "$first 255" && $(cbt_of "$IMAGE" generation) == "$second" ]]
	session_destroy s
	tracker_destroy t
}

# fio_jobs NAME WHERE ENGINE=DIRECT...: for each engine a job that writes a few blocks, in the file NAME of a directory, or
# on a device.
fio_jobs() {
	local name=$1 where=$2 engine
	shift 2
	for engine; do
		printf '[%s-%s]\nioengine=%s\ndirect=%s\nfilename=%s\n' "$name" "${engine/=/-}" "${engine%=*}" "${engine#*=}" \
			"$where$([[ -b $where ]] || printf '/%s' "${engine/=/-}")"
	done
}

# written_by_all RAW EXT4 XFS: by io_uring, mmap, through the cache and past it, to a device and to two file systems.
written_by_all() {
	local engines=(io_uring=1 mmap=0 psync=0 psync=1) where name=0
	{
		printf '[global]\nrw=randwrite\nbs=4k\nsize=1M\nnumber_ios=12\niodepth=4\nthread\nrandrepeat=0\nrefill_buffers\n'
		printf 'end_fsync=1\n'
		for where; do
			name=$((name + 1))
			fio_jobs "$name" "$where" "${engines[@]}"
		done
	} >"$BATS_TEST_TMPDIR/jobs"
	fio --minimal "$BATS_TEST_TMPDIR/jobs" >"$BATS_TEST_TMPDIR/fio" 2>&1 || fail "fio: $(cat "$BATS_TEST_TMPDIR/fio")"
}

# changed_by_all I RAW EXT4 XFS: the disk gets partitions that lie elsewhere each time, a file system in the one, writes of all
# kinds in the other, zeroes and discards; the file systems get files and lose some.
changed_by_all() {
	local i=$1 raw=$2 dir
	printf 'size=8M\nstart=%d, size=8M\n' $((2560 + i % 4 * 16)) | sfdisk -q -X gpt "$raw" >/dev/null
	settle
	mkfs.ext4 -qF "$(part "$raw" 1)"
	random_writes "$(part "$raw" 1)" 10 4M
	blkdiscard -f -z -o $((i % 4))M -l 60K "$(part "$raw" 2)"
	blkdiscard -f -o $((4 + i % 3))M -l 300K "$(part "$raw" 2)"
	written_by_all "$(part "$raw" 2)" "$3" "$4"
	for dir in "$3" "$4"; do
		cp -r /etc/default "$dir/$i"
		rm -rf "${dir:?}/$((i - 2))"
	done
	fstrim "$3"
}

# changed_by_some I RAW EXT4 XFS: a little of that, of which each kind comes in turn.
changed_by_some() {
	local i=$1 raw=$2 dir
	random_writes "$raw" 6 8M
	case $((i % 3)) in
	0) blkdiscard -f -z -o $((8 + i % 4))M -l 60K "$raw" ;;
	1) blkdiscard -f -o $((8 + i % 7))M -l 300K "$raw" ;;
	2) random_writes "$raw" 6 20M ;;
	esac
	for dir in "$3" "$4"; do
		head -c $((i % 5 * 9000 + 4000)) /dev/urandom >"$dir/$i"
		rm -rf "${dir:?}/$((i - 2))"
	done
	[[ $((i % 8)) -ne 0 ]] || fstrim "$3"
	sync -f "$3" "$4"
}

@test "tracking: full and increments are the image past the last number: sectors of 4096 bytes, ext4, XFS on 200 GiB (lesson 13)" {
	long
	local origins raw ext4=/dev/mapper/ext4 xfs ext4_dir xfs_dir file i name mode first=254 last=257 kind
	# A long run has changes before each of three hundred snapshots, a short one only around the last number.
	[[ ${BLKSNAP_SCALE:-1} -eq 1 ]] || first=2 last=300
	loop_make 24M -P --sector-size 4096
	raw=$LOOP
	loop_make 200G
	xfs=$LOOP file=$(losetup -n -O BACK-FILE "$LOOP")
	dm_linear ext4 "$(disk 1)" $((24 << 11))
	origins=("$raw" "$ext4" "$xfs")
	settle
	tracker_make raw "$raw" 4K
	tracker_make ext4 "$ext4" 4K
	tracker_make xfs "$xfs"
	session_make s "$(disk 2)" "${origins[@]}"
	# Of what is still blank.
	compared_at s 1 full all
	[[ $first -eq 2 ]] || empty_takes s 252
	mkfs.ext4 -q "$ext4"
	ext4_dir=$(mount_test "$ext4" ext4 discard)
	# Nothing is discarded in it, so that only the places with data are to be compared.
	mkfs.xfs -q -K -l size=64m "$xfs"
	xfs_dir=$(mount_test "$xfs" xfs)
	for ((i = first; i <= last; i++)); do
		[[ $i -ge 254 && $i -le 257 || $((i % 25)) -eq 0 ]] && kind=all || kind=some
		"changed_by_$kind" "$i" "$raw" "$ext4_dir" "$xfs_dir"
		[[ $i -eq 256 ]] && mode=wrap || mode=increment
		compared_at s $(((i - 1) % 255 + 1)) "$mode" "$kind"
	done
	session_destroy s
	umount "$ext4_dir" "$xfs_dir"
	fsck.ext4 -fn "$BATS_TEST_TMPDIR/copy.2" >/dev/null
	mkdir -p /mnt/test-copy
	mount -o loop,nouuid "$BATS_TEST_TMPDIR/copy.3" /mnt/test-copy
	[[ -e /mnt/test-copy/$last && ! -e /mnt/test-copy/$((last - 2)) ]]
	umount /mnt/test-copy
	for name in raw ext4 xfs; do
		[[ $(tracker_get "$name" number) == $((last - 255)) ]]
		tracker_destroy "$name"
	done
}

# compared_at SESSION NUMBER MODE KIND: a snapshot of all its origins, each of which is brought into a copy. $file is what the
# third one is made of; KIND says what was changed.
compared_at() {
	local k image least
	snap "$1"
	for k in 1 2 3; do
		image=$(image_of "$1" "s$k")
		increased "$image" "$BATS_TEST_TMPDIR/copy.$k" ${file:+$([[ $k -ne 3 ]] || echo "$file")}
		[[ $(increment_value mode) == "$3" && $(increment_value number) == "$2" ]] || fail "$image: $INCREMENT" || return
		least=2
		[[ $4 == some ]] || least=$((k == 3 ? 3 : 40))
		[[ $3 == full || $(increment_value reported) -gt $least ]] || fail "$image: $INCREMENT" || return
	done
	unsnap "$1"
}

# overlapping DEVICE STEPS: two sessions of it take turns, so that one of them is always active and holds writes, while
# somebody writes at full speed. At each step the copy becomes the image. The sum of what was reported in REPORTED.
overlapping() {
	local dev=$1 copy=$BATS_TEST_TMPDIR/copy i session other
	session_make a "$(disk 2)" "$dev"
	session_make b "$(disk 4)" "$dev"
	REPORTED=0
	udev_away
	for ((i = 1; i <= $2; i++)); do
		session=a other=b
		[[ $((i % 2)) -eq 1 ]] || session=b other=a
		snap "$session"
		increased "$IMAGE" "$copy"
		[[ $i -eq 1 || $(increment_value mode) == increment ]] || fail "step $i: $INCREMENT"
		[[ $i -eq 1 ]] || REPORTED=$((REPORTED + $(increment_value reported)))
		unsnap "$other"
	done
	udev_back
	session_destroy a
	session_destroy b
}

@test "tracking: no write falls between two maps: overlapping takes with writers at full speed" {
	local dev
	dm_linear origin "$(disk 1)" $((64 << 11))
	dev=/dev/mapper/origin
	tracker_make t "$dev" 4K
	stamp fill "$dev" --seed 5 >/dev/null
	background stamp storm "$dev" - --seed 5 --taken-seq 1 --seconds 600 --writers 4 --align 4K --min-size 4K --max-size 4K
	overlapping "$dev" 40
	stop_background
	[[ $REPORTED -gt 400 ]] || fail "only $REPORTED blocks were written"
	tracker_destroy t
}

@test "tracking: no write falls between two maps: writes that are delayed below, and mixed ones" {
	local dev
	dm_make origin "0 $((32 << 11)) delay $(disk 1) 0 0 $(disk 1) 0 20"
	dev=/dev/mapper/origin
	tracker_make t "$dev" 4K
	stamp fill "$dev" --seed 5 >/dev/null
	background stamp storm "$dev" - --seed 5 --taken-seq 1 --seconds 600 --writers 6 --mode mix --max-size 8K
	overlapping "$dev" 15
	stop_background
	[[ $REPORTED -gt 50 ]] || fail "only $REPORTED blocks were written"
	tracker_destroy t
}

@test "tracking: no write falls between two maps: writes that are parked in a throttle" {
	local dev
	dm_linear origin "$(disk 1)" $((32 << 11))
	dev=/dev/mapper/origin
	tracker_make t "$dev" 4K
	stamp fill "$dev" --seed 5 >/dev/null
	throttle "$dev" 1048576
	background in_throttle \
		stamp storm "$dev" - --seed 5 --taken-seq 1 --seconds 600 --writers 32 --align 4K --min-size 4K --max-size 4K
	overlapping "$dev" 12
	stop_background
	[[ $REPORTED -gt 100 ]] || fail "only $REPORTED blocks were written"
	tracker_destroy t
}

@test "tracking: no write falls between two maps: sessions that are taken and released every 100 ms" {
	local dev=/dev/mapper/origin fast near far takes
	takes=$(scaled 40)
	dm_linear origin "$(disk 1)" $((4 << 11))
	tracker_make t "$dev" 4K
	session_make a "$(disk 2)" "$dev"
	session_make b "$(disk 4)" "$dev"
	stamp fill "$dev" --seed 5 >/dev/null
	# At full speed in one half, and waiting in a throttle in the other.
	background stamp storm "$dev" - --seed 5 --taken-seq 1 --seconds 600 --writers 2 --mode mix --max-size 8K --length 2M
	fast=$BACKGROUND
	throttle "$dev" 262144
	background in_throttle stamp storm "$dev" - --seed 5 --taken-seq 1 --seconds 600 --writers 2 --align 4K --min-size 4K \
		--max-size 4K --offset 2M --length 2M
	udev_away
	run -0 increment --takes "$takes" 100 "$SESSIONS/a" "$SESSIONS/b" "$BATS_TEST_TMPDIR/copy"
	udev_back
	INCREMENT=$output
	printf '# %s takes, one each %s ms%s; the longest took %s ms\n' "$takes" "$(increment_value mean_ms)" \
		"$([[ $(increment_value mean_ms) -le 105 ]] || echo ', back to back')" "$(increment_value longest_ms)" >&3
	[[ $(increment_value missed) -eq 0 && $(increment_value torn) -eq 0 && $(increment_value lost) -eq 0 ]]
	[[ $(increment_value takes) -eq $takes && $(increment_value mean_ms) -le $((1000 * ${BLKSNAP_SLOW:-1})) ]]
	# There were writes in each half, and some were held.
	[[ $(increment_value reported) -gt $((takes * 10)) ]]
	[[ $(stat_of "$(image_of b s1)" writes_held) -gt 0 ]]
	snap a
	read -r near far < <(changed "$IMAGE" | tr ' ' '\n' | awk -F: '{ n[$1 < 512]++ } END { print n[1] + 0, n[0] + 0 }')
	[[ $near -gt 100 && $far -gt 20 ]] || fail "$near and $far blocks have changed"
	session_destroy a
	session_destroy b
	stop_background "$fast"
	stop_background
	tracker_destroy t
}
