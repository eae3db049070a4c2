#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 6
# Images are written, and neither the origin nor the other images notice.

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so are its variables
load lib/common
load lib/devices
load lib/stamped

setup() {
	common_setup
	skip_unless_feature image-write
}

teardown() {
	common_teardown
}

# A tree of some megabytes in DIR, and its checksums in FILE.
tree_make() {
	cp -r /usr/share/common-licenses /usr/share/perl5 "$1/" 2>/dev/null || cp -r /usr/share/common-licenses "$1/"
	(cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum) >"$2"
}

@test "image write: I2: what is written is read back, the origin and the rest of the image stay" {
	local dev image
	dev=$(disk 1)
	filled "$dev" --length 16M
	session_of "$(disk 2)" "$dev"
	image=$(image_of s s1)
	storm "$image" - --length 8M --writers 4 --count 600 --max-size 16K
	image_is "$image" --offset 8M --length 8M
	stamp verify "$dev" --seed "$SEED" --seq 1 --length 16M
	[[ $(stat_of "$image" chunks_written) -gt 0 ]]
	[[ $(stat_of "$image" chunks_written) -le 2048 ]]
	session_destroy s
}

@test "image write: what is behind the end of an image, in a partition that somebody adds there, is not there (EIO)" {
	local image part at
	null_blk_make nullo memory_backed=1 size=16 blocksize=512
	filled /dev/nullo
	session_of "$(disk 2)" /dev/nullo
	image=$(image_of s s1) part=$(image_of s s1)p9
	# 768 sectors of the image, and 1280 that it does not have.
	if ! addpart "$image" 9 32000 2048; then
		session_destroy s
		skip 'this kernel does not add it'
	fi
	settle
	for at in 96 97 191 255; do
		refuses EIO timeout 10 dd if=/dev/zero of="$part" bs=4K seek="$at" count=1 oflag=direct conv=notrunc status=none
		refuses EIO timeout 10 dd if="$part" of=/dev/null bs=4K skip="$at" count=1 iflag=direct status=none
	done
	# Half of it.
	refuses EIO timeout 10 dd if=/dev/zero of="$part" bs=4K seek=391168 count=1 oflag=direct,seek_bytes conv=notrunc status=none
	[[ $(stat_of "$image" chunks_preserved) -eq 0 ]]
	dd if=/dev/zero of="$part" bs=4K seek=95 count=1 oflag=direct conv=notrunc status=none
	[[ $(stat_of "$image" chunks_written) -eq 1 ]]
	image_is "$image" --length 16380K
	state_is s active || fail "$(session_get s error)"
	delpart "$image" 9
	session_destroy s
}

@test "image write: I2 I3: image and origin are written at the same places at once" {
	local dev image origin
	dev=$(disk 1)
	filled "$dev" --length 8M
	session_of "$(disk 2)" "$dev"
	image=$(image_of s s1)
	stamp storm "$dev" - --seed "$SEED" --taken-seq 1 --length 8M --count 600 >"$BATS_TEST_TMPDIR/origin" 2>&1 &
	origin=$!
	storm "$image" - --length 8M --count 600
	wait "$origin" || fail "$(cat "$BATS_TEST_TMPDIR/origin")"
	session_destroy s
}

@test "image write: one sector of a granule" {
	local dev image
	dev=$(disk 1)
	filled "$dev" --length 1M
	session_of "$(disk 2)" "$dev"
	image=$(image_of s s1)
	dd if=/dev/zero of="$image" bs=512 seek=5 count=1 oflag=direct conv=notrunc status=none
	image_is "$image" --offset 0 --length 2560
	image_is "$image" --offset 3072 --length 4K
	cmp -n 512 -i 2560:0 "$image" /dev/zero
	[[ $(stat_of "$image" chunks_written) -eq 1 ]]
	# The same granule again: it counts once.
	dd if=/dev/zero of="$image" bs=512 seek=6 count=1 oflag=direct conv=notrunc status=none
	[[ $(stat_of "$image" chunks_written) -eq 1 ]]
	stamp verify "$dev" --seed "$SEED" --seq 1 --length 1M
	session_destroy s
}

@test "image write: I4: with little memory" {
	local dev image
	dev=$(disk 1)
	filled "$dev" --length 64M
	echo 4M >/sys/module/blksnap/parameters/memory_limit
	session_of "$(disk 2)" "$dev"
	image=$(image_of s s1)
	dd if=/dev/zero of="$image" bs=1M count=32 oflag=direct conv=notrunc status=none
	cmp -n 33554432 "$image" /dev/zero
	image_is "$image" --offset 32M --length 32M
	stamp verify "$dev" --seed "$SEED" --seq 1 --length 64M
	[[ $(stat_of "$image" chunks_written) -eq 8192 ]]
	session_destroy s
}

@test "image write: I4: for a granule that memory_limit has no room for any more (ENOMEM)" {
	local image
	echo 64M >/sys/module/blksnap/parameters/memory_limit
	session_make s "$(disk 2)" "$(disk 1)"
	put "$SESSIONS/s/s1/chunk_size" 8M
	session_take s
	image=$(image_of s s1)
	echo 4M >/sys/module/blksnap/parameters/memory_limit
	refuses ENOMEM dd if=/dev/urandom of="$image" bs=4096 count=1 oflag=direct status=none
	state_is s active
	echo 0 >/sys/module/blksnap/parameters/memory_limit
	dd if=/dev/urandom of="$image" bs=4096 count=1 oflag=direct status=none
	session_destroy s
}

@test "image write: I4: what is preserved in memory is stored, though memory_limit has no room for it any more" {
	local image
	dm_linear store "$(disk 2)" 262144
	filled "$(disk 1)" --length 8M
	echo 64M >/sys/module/blksnap/parameters/memory_limit
	session_make s /dev/mapper/store "$(disk 1)"
	put "$SESSIONS/s/s1/chunk_size" 8M
	session_take s
	image=$(image_of s s1)
	dmsetup suspend --nolockfs --noflush store
	defer dmsetup resume store
	dd if=/dev/zero of="$(disk 1)" bs=4096 count=1 oflag=direct conv=notrunc status=none
	echo 4M >/sys/module/blksnap/parameters/memory_limit
	background dd if=/dev/zero of="$image" bs=4096 seek=1 count=1 oflag=direct status=none
	sleep 1
	hangs "$BACKGROUND" || fail 'it has not waited for the storage: nothing was shown'
	dmsetup resume store
	wait "$BACKGROUND"
	image_is "$image" --length 4096
	cmp -i 4096:0 -n 4096 "$image" /dev/zero
	state_is s active
	session_destroy s
}

@test "image write: of two images of one origin only the one changes" {
	local dev
	dev=$(disk 1)
	filled "$dev" --length 8M
	session_of "$(disk 2)" "$dev"
	session_make t "$(disk 3)" "$dev"
	session_take t
	storm "$(image_of s s1)" - --length 8M --count 300
	image_is "$(image_of t s1)" --length 8M
	[[ $(stat_of "$(image_of t s1)" chunks_written) -eq 0 ]]
	session_destroy s
	session_destroy t
}

@test "image write: I1: the difference storage is full: an error for the image, none for the origin" {
	local dev image
	dev=$(disk 1)
	filled "$dev" --length 16M
	dmsetup create small --table "0 $((6 * 2048)) linear $(disk 2) 0"
	defer dmsetup remove --retry small
	session_of /dev/mapper/small "$dev"
	image=$(image_of s s1)
	run ! dd if=/dev/zero of="$image" bs=1M count=8 oflag=direct conv=notrunc
	wait_until 10 grep -qx overflow "$SESSIONS/s/state"
	stamp verify "$dev" --seed "$SEED" --seq 1 --length 16M
	storm "$dev" - --length 8M --count 100
	session_destroy s
}

@test "image write: ext4 is mounted read-write from the image of a mounted origin" {
	local dev image
	dev=$(disk 1)
	mkfs.ext4 -q "$dev"
	mount_test "$dev" origin
	tree_make /mnt/test-origin "$BATS_TEST_TMPDIR/sums"
	session_of "$(disk 2)" "$dev"
	image=$(image_of s s1)
	rm -rf /mnt/test-origin/common-licenses
	mount_test "$image" image
	(cd /mnt/test-image && sha256sum --quiet -c "$BATS_TEST_TMPDIR/sums")
	echo new >/mnt/test-image/new
	rm -rf /mnt/test-image/common-licenses
	umount /mnt/test-image
	e2fsck -fn "$image"
	[[ ! -e /mnt/test-origin/new ]]
	umount /mnt/test-origin
	e2fsck -fn "$dev"
	session_destroy s
}

@test "image write: xfs replays its journal on the image (lesson 17)" {
	local dev image
	dev=$(disk 1)
	mkfs.xfs -q "$dev"
	mount_test "$dev" origin
	tree_make /mnt/test-origin "$BATS_TEST_TMPDIR/sums"
	session_of "$(disk 2)" "$dev"
	image=$(image_of s s1)
	rm -rf /mnt/test-origin/common-licenses
	mount_test "$image" image nouuid
	(cd /mnt/test-image && sha256sum --quiet -c "$BATS_TEST_TMPDIR/sums")
	echo new >/mnt/test-image/new
	umount /mnt/test-image
	xfs_repair -n "$image"
	umount /mnt/test-origin
	xfs_repair -n "$dev"
	session_destroy s
}

@test "image write: what is being written stays as it is, where the difference storage needs that" {
	local queue directory
	queue=/sys/block/$(basename "$(disk 2)")/queue
	session_of "$(disk 3)" "$(disk 1)"
	[[ $(<"/sys/block/$(basename "$(image_of s s1)")/queue/stable_writes") == 0 ]]
	session_destroy s
	echo 1 >"$queue/stable_writes"
	defer eval "echo 0 >$queue/stable_writes"
	session_of "$(disk 2)" "$(disk 1)"
	[[ $(<"/sys/block/$(basename "$(image_of s s1)")/queue/stable_writes") == 1 ]]
	session_destroy s
	mkfs.ext4 -q -F "$(disk 2)"
	directory=$(mount_test "$(disk 2)" diff)
	session_make s "$directory/diff" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 64M
	session_take s
	[[ $(<"/sys/block/$(basename "$(image_of s s1)")/queue/stable_writes") == 1 ]]
	session_destroy s
	umount "$directory"
}

@test "image write: discards and write-zeroes are not offered" {
	local image
	session_of "$(disk 2)" "$(disk 1)"
	image=$(image_of s s1)
	[[ $(cat "/sys/block/${image##*/}/queue/discard_max_bytes") -eq 0 ]]
	[[ $(cat "/sys/block/${image##*/}/queue/write_zeroes_max_bytes") -eq 0 ]]
	session_destroy s
}

# target_make DEVICE: gives it to the kernel's SCSI target, and the disk that this makes of it is TARGET.
TARGETS=/sys/kernel/config/target
target_make() {
	local core=$TARGETS/core/iblock_0/test group=$TARGETS/loopback/naa.6001405000000001/tpgt_1 disks
	modprobe -a target_core_mod target_core_iblock tcm_loop
	defer eval "[[ ! -d $TARGETS/core/iblock_0 ]] || target_delete"
	mkdir -p "$core"
	echo "udev_path=$1" >"$core/control"
	echo 1 >"$core/enable"
	mkdir -p "$group"
	echo naa.6001405000000002 >"$group/nexus"
	mkdir "$group/lun/lun_0"
	ln -s "$core" "$group/lun/lun_0/test"
	disks='/sys/devices/*tcm_loop*/*/host*/target*/*/block/*'
	wait_until 20 eval "compgen -G '$disks' >/dev/null"
	settle
	TARGET=/dev/$(basename "$(compgen -G "$disks")")
}

target_delete() {
	local group=$TARGETS/loopback/naa.6001405000000001/tpgt_1
	[[ ! -e $group/lun/lun_0 ]] || rm -f "$group/lun/lun_0/test"
	rmdir "$group/lun/lun_0" "$group" "${group%/*}" "${group%/*/*}" "$TARGETS/core/iblock_0/test" "$TARGETS/core/iblock_0"
	settle
}

# The block layer sees to it that memory is aligned, for who reads and writes the image itself; not for drivers.
@test "image write: I2: memory that is not aligned gets an error, or what it should; nothing else is written" {
	local dev image data=$BATS_TEST_TMPDIR/data truth=$BATS_TEST_TMPDIR/truth got=$BATS_TEST_TMPDIR/got
	dev=$(disk 1)
	filled "$dev" --length 8M
	echo 4M >"$MEMORY_LIMIT"
	session_of "$(disk 2)" "$dev"
	image=$(image_of s s1)
	dd if="$dev" of="$truth" bs=64K skip=16 count=1 iflag=direct status=none
	dd if=/dev/zero of="$dev" bs=1M count=8 oflag=direct conv=notrunc status=none
	wait_until 20 eval "[[ \$(stat_of $image chunks_stored) -gt 1024 ]]"
	# That memory comes through as it is: what does not care does what it is asked for. (Newer kernels refuse for all disks
	# that take requests.)
	dm_linear plain "$(disk 3)" 16384
	dd if="$truth" of=/dev/mapper/plain bs=64K seek=16 count=1 oflag=direct conv=notrunc status=none
	target_make /dev/mapper/plain
	crooked read "$TARGET" $((1 << 20)) >"$got" || [[ $BLKSNAP_RELEASE != bookworm* ]]
	[[ ! -s $got ]] || cmp "$truth" "$got"
	target_delete
	target_make "$image"
	dd if="$TARGET" of="$got" bs=64K skip=16 count=1 iflag=direct status=none
	cmp "$truth" "$got"
	crooked read "$TARGET" $((1 << 20)) >"$got" || cp "$truth" "$got"
	cmp "$truth" "$got"
	head -c 65536 /dev/urandom >"$data"
	if crooked write "$TARGET" $((1 << 20)) <"$data"; then
		dd if="$image" of="$got" bs=64K skip=16 count=1 iflag=direct status=none
		cmp "$data" "$got"
	else
		image_is "$image" --offset 1M --length 64K
	fi
	image_is "$image" --offset 0 --length 1M
	image_is "$image" --offset $((1088 << 10)) --length $((6 << 20))
	state_is s active || fail "$(session_get s error)"
	target_delete
	session_destroy s
}
