#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 8
# File systems on the origin, in use all the while: frozen for the take, whole in the image, unharmed on the origin.

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so are its variables
load lib/common
load lib/devices

setup() {
	common_setup
}

teardown() {
	common_teardown
}

# busy DIR: files come, change and go there, in the background, until it is ended; its process group in BUSY.
busy() {
	mkdir -p "$1"
	dd if=/dev/zero of="$1/fio.data" bs=1M count=8 status=none
	# shellcheck disable=SC2016 # the inner shell expands these
	background setsid bash -c '
		cd "$1" || exit
		fio --thread --name=busy --filename=fio.data --rw=randwrite --bs=4k --size=8M --ioengine=psync --fsync=16 \
			--time_based --runtime=600 --rate_iops=200 --output=/dev/null &
		while :; do
			n=$((RANDOM % 16))
			case $((RANDOM % 6)) in
			0) cp /usr/bin/bash "cp.$n" ;;
			1) rm -rf "cp.$n" "dir.$n" ;;
			2) dd if=/dev/urandom of="dd.$n" bs=4k count=50 seek=$((RANDOM % 100)) conv=notrunc,fsync status=none ;;
			3) mkdir -p "dir.$n/sub" && echo "$RANDOM" >"dir.$n/sub/$RANDOM" ;;
			4) mv -f "cp.$n" "moved.$((RANDOM % 8))" 2>/dev/null ;;
			5) truncate -s "$RANDOM" "dd.$n" && ln -sf "dd.$n" "link.$n" ;;
			esac
		done
	' busy "$1" >/dev/null 2>&1
	BUSY=$BACKGROUND
	defer busy_end "$BUSY"
	wait_until 20 busy_has_begun "$1"
}

busy_has_begun() {
	[[ $(find "$1" -type f | wc -l) -ge 4 ]]
}

busy_end() {
	kill -KILL -- "-$1" 2>/dev/null || true
	wait_until 10 busy_is_gone "$1"
}

busy_is_gone() {
	! pgrep -g "$1" >/dev/null
}

busy_stands() {
	local state
	while read -r state; do
		[[ $state == [TZ]* ]] || return
	done < <(ps -o stat= -p "$(pgrep -d, -g "$1")")
}

# Between these two nobody writes.
busy_pause() {
	kill -STOP -- "-$BUSY"
	wait_until 20 busy_stands "$BUSY"
}

busy_resume() {
	kill -CONT -- "-$BUSY"
}

# tree DIR: prints all that is in it: kinds, modes, sizes, times, targets, contents.
tree() (
	cd "$1" || exit
	find . \( -type d -printf '%y %m %p\n' \) -o -printf '%y %m %s %T@ %p %l\n' | sort
	find . -type f -print0 | sort -z | xargs -0 -r md5sum
)

# same_tree FILE DIR: the directory is what `tree` has printed into the file.
same_tree() {
	tree "$2" >"$BATS_TEST_TMPDIR/now"
	diff "$1" "$BATS_TEST_TMPDIR/now" || fail "$2 is not as it was taken"
}

# taken_busy TYPE IMAGE-OPTIONS CHECK...: the whole way of a file system on disk 1.
taken_busy() {
	local type=$1 options=$2 dev image taken=$BATS_TEST_TMPDIR/taken
	shift 2
	dev=$(disk 1)
	"mkfs.$type" -q "$dev"
	mount_test "$dev" fs
	busy /mnt/test-fs/busy
	session_make s "$(disk 2)" "$dev"

	busy_pause
	tree /mnt/test-fs >"$taken"
	put "$SESSIONS/s/active" 1
	busy_resume
	settle
	[[ $(session_get s s1/frozen) == "$(major_minor "$dev")" ]]

	image=$(image_of s s1)
	mount_test "$image" image "$options"
	same_tree "$taken" /mnt/test-image
	sleep 3
	umount /mnt/test-image
	echo 3 >/proc/sys/vm/drop_caches
	mount_test "$image" image "$options"
	same_tree "$taken" /mnt/test-image
	umount /mnt/test-image
	[[ $(stat_of "$image" chunks_preserved) -gt 0 ]]
	[[ $(lsblk -dno FSTYPE "$image") == "$type" ]]
	session_release s

	busy_end "$BUSY"
	tree /mnt/test-fs >"$taken"
	umount /mnt/test-fs
	"$@" "$dev"
	mount_test "$dev" fs
	same_tree "$taken" /mnt/test-fs
	umount /mnt/test-fs
	session_destroy s
}

@test "file system: ext4 in use: the image is the tree of that moment, the origin stays clean" {
	taken_busy ext4 ro,noload e2fsck -fn
}

@test "file system: xfs in use: the image is the tree of that moment, the origin stays clean" {
	taken_busy xfs ro,nouuid,norecovery xfs_repair -n
}

@test "file system: the image of ext4 was not in need of its journal, and passes the check" {
	local dev
	dev=$(disk 5)
	mkfs.ext4 -q "$dev"
	mount_test "$dev" fs
	busy /mnt/test-fs/busy
	session_of "$(disk 2)" "$dev"
	e2fsck -fn "$(image_of s s1)"
	run -0 dumpe2fs -h "$(image_of s s1)"
	[[ $output != *needs_recovery* ]]
	busy_end "$BUSY"
	umount /mnt/test-fs
	session_destroy s
}

@test "file system: one that was frozen by its user fails the take (EBUSY), and stays frozen" {
	local dev
	dev=$(disk 5)
	mkfs.ext4 -q "$dev"
	mkfs.ext4 -q "$(disk 3)" 64M
	mount_test "$dev" fs
	mount_test "$(disk 3)" other
	session_make s "$(disk 2)" "$(disk 3)" "$dev"
	fsfreeze -f /mnt/test-fs
	defer sh -c 'fsfreeze -u /mnt/test-fs 2>/dev/null || true'
	refuses EBUSY put "$SESSIONS/s/active" 1
	[[ $(session_get s state) == configured ]]
	[[ $(session_get s error) == 'EBUSY: '* ]]
	[[ $(session_get s s2/error) == 'EBUSY: '* ]]
	# Still frozen, and the other one, which the take had frozen, is not.
	refuses EBUSY fsfreeze -f /mnt/test-fs
	echo goes >/mnt/test-other/on
	sync -f /mnt/test-other
	fsfreeze -u /mnt/test-fs
	echo goes >/mnt/test-fs/on
	sync -f /mnt/test-fs
	session_take s
	[[ $(session_get s s2/frozen) == "$(major_minor "$dev")" ]]
	umount /mnt/test-fs
	umount /mnt/test-other
	session_destroy s
}

@test "file system: a take that fails late thaws what it has frozen" {
	local dev
	dev=$(disk 5)
	mkfs.ext4 -q "$dev"
	mount_test "$dev" fs
	dm_linear hangs "$(disk 3)" 65536
	session_make s "$(disk 2)" "$dev" /dev/mapper/hangs
	tracker_make t /dev/mapper/hangs
	dmsetup suspend --nolockfs --noflush hangs
	# It is passed, and not done when all is frozen.
	background dd if=/dev/zero of=/dev/mapper/hangs bs=4096 count=1 oflag=direct status=none
	defer dmsetup resume hangs
	wait_until 20 hangs "$BACKGROUND"
	put /sys/module/blksnap/parameters/take_timeout_ms 500
	refuses ETIMEDOUT put "$SESSIONS/s/active" 1
	[[ $(session_get s s2/error) == 'ETIMEDOUT: writes to /dev/mapper/hangs were not complete'* ]]
	fsfreeze -f /mnt/test-fs
	fsfreeze -u /mnt/test-fs
	echo goes >/mnt/test-fs/on
	dmsetup resume hangs
	wait "$BACKGROUND"
	session_take s
	[[ $(session_get s s1/frozen) == "$(major_minor "$dev")" ]]
	session_destroy s
	tracker_destroy t
	umount /mnt/test-fs
}

# The device is the file system's, but not the one that it is mounted from: what is cached of it nobody looks at before.
@test "file system: a take that its journal's device fails, as it cannot be written back, leaves it thawed" {
	dm_linear journal "$(disk 3)" 131072
	mke2fs -q -O journal_dev -b 4096 /dev/mapper/journal
	mkfs.ext4 -q -b 4096 -J device=/dev/mapper/journal "$(disk 5)"
	mount_test "$(disk 5)" fs
	echo before >/mnt/test-fs/file
	sync -f /mnt/test-fs
	session_make s "$(disk 2)" /dev/mapper/journal
	printf '%s\n' "0 98304 linear $(disk 3) 0" '98304 32768 error' | dm_switch journal
	dd if=/dev/zero of=/dev/mapper/journal bs=4096 seek=16000 count=1 conv=notrunc status=none
	put "$SESSIONS/s/active" 1 || [[ $(session_get s error) == 'EIO: '* ]]
	timeout 20 sh -c 'echo goes >/mnt/test-fs/on && sync -f /mnt/test-fs'
	[[ $(session_get s active) == 0 ]] || session_release s
	umount /mnt/test-fs
	session_destroy s
}

# btrfs_taken: a session "s" of a btrfs on disk 5 that was written to just before.
btrfs_taken() {
	mkfs.btrfs -q "$(disk 5)"
	mount_test "$(disk 5)" fs
	echo before >/mnt/test-fs/file
	session_make s "$(disk 2)" "$(disk 5)"
	session_take s
}

# btrfs_goes_on: it is not frozen any more, and can be unmounted.
btrfs_goes_on() {
	echo goes >/mnt/test-fs/on
	sync -f /mnt/test-fs
	session_destroy s
	umount /mnt/test-fs
}

@test "file system: btrfs is not frozen where the kernel cannot do it, and \`frozen\` says so" {
	! grep -qx freeze-btrfs "$CONFIG/features" || skip "it has the feature freeze-btrfs"
	btrfs_taken
	[[ -z $(session_get s s1/frozen) ]]
	btrfs_goes_on
}

@test "file system: btrfs is frozen where the kernel can do it: the image has what was written before" {
	skip_unless_feature freeze-btrfs
	btrfs_taken
	[[ $(session_get s s1/frozen) == "$(major_minor "$(disk 5)")" ]]
	# It has the UUID of its origin, which is mounted: its content is looked at where it is, not mounted.
	btrfs check --readonly "$(image_of s s1)"
	btrfs restore "$(image_of s s1)" "$BATS_TEST_TMPDIR"
	[[ $(<"$BATS_TEST_TMPDIR/file") == before ]]
	btrfs_goes_on
}

@test "file system: btrfs that was frozen by its user fails the take where the kernel would freeze it (EBUSY)" {
	skip_unless_feature freeze-btrfs
	mkfs.btrfs -q "$(disk 5)"
	mount_test "$(disk 5)" fs
	session_make s "$(disk 2)" "$(disk 5)"
	fsfreeze -f /mnt/test-fs
	defer sh -c 'fsfreeze -u /mnt/test-fs 2>/dev/null || true'
	refuses EBUSY put "$SESSIONS/s/active" 1
	refuses EBUSY fsfreeze -f /mnt/test-fs
	fsfreeze -u /mnt/test-fs
	session_take s
	btrfs_goes_on
}

@test "file system: btrfs on two disks, both origins: frozen with each, and thawed" {
	skip_unless_feature freeze-btrfs
	mkfs.btrfs -q -d raid1 -m raid1 "$(disk 3)" "$(disk 4)"
	btrfs device scan "$(disk 3)" "$(disk 4)"
	mount_test "$(disk 3)" fs
	session_make s "$(disk 2)" "$(disk 3)" "$(disk 4)"
	session_take s
	[[ $(session_get s s1/frozen) == "$(major_minor "$(disk 3)")" ]]
	[[ $(session_get s s2/frozen) == "$(major_minor "$(disk 4)")" ]]
	btrfs_goes_on
}

@test "file system: two on the partitions of a disk: both frozen, and the image has both" {
	local dev image n
	dev=$(disk 1)
	partition "$dev" 200M 400M
	mkfs.ext4 -q "$(part "$dev" 1)"
	mkfs.xfs -q "$(part "$dev" 2)"
	mount_test "$(part "$dev" 1)" one
	mount_test "$(part "$dev" 2)" two
	busy /mnt/test-one/busy
	cp /usr/bin/bash /mnt/test-two/
	session_make s "$(disk 2)" "$dev"
	busy_pause
	tree /mnt/test-one >"$BATS_TEST_TMPDIR/1"
	tree /mnt/test-two >"$BATS_TEST_TMPDIR/2"
	session_take s
	busy_resume
	[[ $(session_get s s1/frozen | sort) == "$({
		major_minor "$(part "$dev" 1)"
		major_minor "$(part "$dev" 2)"
	} | sort)" ]]

	image=$(image_of s s1)
	for n in 1 2; do
		[[ -b ${image}p$n ]]
		[[ $(readlink -e "/dev/blksnap/s/s1-part$n") == "${image}p$n" ]]
		[[ $(blockdev --getsz "${image}p$n") -eq $(blockdev --getsz "$(part "$dev" "$n")") ]]
	done
	rm /mnt/test-two/bash
	sync -f /mnt/test-two
	mount_test "${image}p1" image1 ro,noload
	mount_test /dev/blksnap/s/s1-part2 image2 ro,nouuid,norecovery
	same_tree "$BATS_TEST_TMPDIR/1" /mnt/test-image1
	same_tree "$BATS_TEST_TMPDIR/2" /mnt/test-image2
	umount /mnt/test-image1
	umount /mnt/test-image2
	busy_end "$BUSY"
	umount /mnt/test-one
	umount /mnt/test-two
	session_release s
	[[ ! -e /dev/blksnap/s/s1-part1 ]]
	e2fsck -fn "$(part "$dev" 1)"
	xfs_repair -n "$(part "$dev" 2)"
	session_destroy s
}

@test "file system: of a partition only its own is frozen" {
	local dev
	dev=$(disk 5)
	partition "$dev" 64M 64M
	mkfs.ext4 -q "$(part "$dev" 1)"
	mkfs.ext4 -q "$(part "$dev" 2)"
	mount_test "$(part "$dev" 1)" one
	mount_test "$(part "$dev" 2)" two
	session_of "$(disk 2)" "$(part "$dev" 2)"
	[[ $(session_get s s1/frozen) == "$(major_minor "$(part "$dev" 2)")" ]]
	session_destroy s
	umount /mnt/test-one
	umount /mnt/test-two
}

@test "file system: fstrim while active: nothing is lost, neither here nor there" {
	local dev image
	dev=$(disk 5)
	mkfs.ext4 -q -E nodiscard "$dev"
	mount_test "$dev" fs
	cp /usr/bin/bash /mnt/test-fs/kept
	cp /usr/bin/bash /mnt/test-fs/removed
	session_make s "$(disk 2)" "$dev"
	tree /mnt/test-fs >"$BATS_TEST_TMPDIR/taken"
	session_take s
	image=$(image_of s s1)
	rm /mnt/test-fs/removed
	sync -f /mnt/test-fs
	fstrim /mnt/test-fs
	[[ $(stat_of "$image" discards_dropped) -gt 100000000 ]]
	mount_test "$image" image ro,noload
	same_tree "$BATS_TEST_TMPDIR/taken" /mnt/test-image
	umount /mnt/test-image
	umount /mnt/test-fs
	e2fsck -fn "$dev"
	session_destroy s
}
