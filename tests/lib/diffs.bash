# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034 # lib/common uses what is set here
# The kinds of difference storage, for suites that are to pass with each of them, on top of lib/common and lib/devices:
#
#	device		a whole disk
#	ext4, btrfs	a file that the take makes there
#	directory	one without a name, on ext4
#	tmpfs		a file that its file system writes
#	memory		what a build for tests has
#	beside		a file on the disk of the origin: disk 1 is a partition, and the file system its neighbour

# What is on one of them is given room, and asked to grow.
DIFF_ROOM=256M

# diff_begin [KIND]: for session_make, DIFF is its path; KIND is that of tests/run --diff, or `device`. In a setup, after
# common_setup.
diff_begin() {
	DIFF_KIND=${1:-${BLKSNAP_DIFF:-device}} DIFF_LIMIT=$DIFF_ROOM DISK_SUFFIX=()
	case $DIFF_KIND in
	device)
		DIFF_LIMIT=''
		DIFF=$(disk 2)
		;;
	ext4 | directory)
		mkfs.ext4 -q -F "$(disk 8)" 1000M
		DIFF=$(mount_test "$(disk 8)" diff)
		;;
	btrfs)
		mkfs.btrfs -q -f -b 1000M "$(disk 8)"
		DIFF=$(mount_test "$(disk 8)" diff)
		;;
	tmpfs)
		mkdir -p /mnt/test-diff
		mount -t tmpfs -o size=600M none /mnt/test-diff
		DIFF=/mnt/test-diff
		;;
	memory)
		skip_unless_feature diff-memory
		DIFF=/dev/null/memory
		;;
	beside)
		partition "$(disk 1)" 300M 600M
		mkfs.ext4 -q -F "$(part "$(disk 1)" 2)"
		DIFF=$(mount_test "$(part "$(disk 1)" 2)" diff)
		defer umount "$DIFF"
		DISK_SUFFIX=([1]=-part1)
		;;
	*) fail "no kind of difference storage: $DIFF_KIND" || return ;;
	esac
	[[ $DIFF_KIND == directory || $DIFF != /mnt/* ]] || DIFF+=/diff
}

# diff_small BYTES: DIFF has room for so many, and no more.
diff_small() {
	DIFF_LIMIT=$1
	[[ $DIFF_KIND == device ]] || return 0
	DIFF_LIMIT=''
	loop_make $(($1 + 2097152))
	DIFF=$LOOP
}

# skip_unless_diff KIND WHY
skip_unless_diff() {
	[[ $DIFF_KIND == "$1" ]] || skip "$2"
}

# skip_with_diff KIND WHY
skip_with_diff() {
	[[ $DIFF_KIND != "$1" ]] || skip "$2"
}
