#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 20
# Difference storage in files and directories: mapped, pinned, growing, and on the origin's own file system.

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so are its variables
load lib/common
load lib/devices
load lib/refusals
load lib/stamped

setup() {
	common_setup
	# Little memory, so that differences are stored, and soon.
	echo 4M >"$MEMORY_LIMIT"
}

teardown() {
	common_teardown
}

# fs_on DISK TYPE: makes and mounts it; its directory in `dir`.
fs_on() {
	case $2 in
	ext4) mkfs.ext4 -q -F "$1" ;;
	ext4-1k) mkfs.ext4 -q -F -b 1024 "$1" ;;
	xfs) mkfs.xfs -q -f "$1" ;;
	btrfs) mkfs.btrfs -q -f "$1" ;;
	esac
	dir=$(mount_test "$1" "${1##*/}")
}

# fs_whole DISK TYPE: no error in it; it is not mounted.
fs_whole() {
	case $2 in
	ext4*) e2fsck -fn "$1" ;;
	xfs) xfs_repair -n "$1" ;;
	btrfs) btrfs check "$1" ;;
	esac
}

# zeroes FILE: nothing else in it, and it is not empty.
zeroes() {
	[[ -s $1 ]] || fail "$1 is empty" || return
	cmp -n "$(stat -c %s "$1")" "$1" /dev/zero
}

# stormy FILE ORIGIN: a storm while differences go to FILE; ends with the session active and much of it stored.
stormy() {
	filled "$2" --length 64M
	session_make s "$1" "$2"
	session_take s
	storm "$2" "$(image_of s s1)" --length 64M --count 3000 --max-size 64K
	[[ $(session_get s state) == active ]] || fail "$(session_get s error)" || return
	consistent "$(image_of s s1)"
	[[ $(stat_of "$(image_of s s1)" chunks_stored) -gt 100 ]] || fail 'little was stored'
}

# --- kinds of file systems -------------------------------------------------------------------------------------------

# on_fs TYPE
on_fs() {
	local dir before
	fs_on "$(disk 2)" "$1"
	sync -f "$dir"
	before=$(df --output=avail -B1 "$dir" | tail -1)
	stormy "$dir/diff" "$(disk 1)"
	[[ $(stat -c '%a %U' "$dir/diff") == '600 root' ]]
	# What was preserved cannot be read through the file.
	echo 3 >/proc/sys/vm/drop_caches
	zeroes "$dir/diff"
	refuses ETXTBSY truncate -s 0 "$dir/diff"
	refuses EPERM rm -f "$dir/diff"
	# What the file system writes does not go there.
	dd if=/dev/urandom of="$dir/other" bs=1M count=32 conv=fsync status=none
	image_is "$(image_of s s1)" --length 64M
	session_destroy s
	[[ ! -e $dir/diff ]]
	rm "$dir/other"
	sync -f "$dir"
	[[ $(df --output=avail -B1 "$dir" | tail -1) -ge $((before - 4194304)) ]]
	umount "$dir"
	fs_whole "$(disk 2)" "$1"
}

@test "diff file: on ext4: made, unreadable, unmovable, removed (lesson 19)" {
	on_fs ext4
}

@test "diff file: on ext4 with blocks of 1024 bytes" {
	on_fs ext4-1k
}

@test "diff file: on XFS (lesson 19)" {
	on_fs xfs
}

@test "diff file: on btrfs, without copy-on-write (lesson 19)" {
	on_fs btrfs
}

@test "diff file: a directory: a file without a name" {
	local dir
	fs_on "$(disk 2)" ext4
	mkdir "$dir/diffs"
	stormy "$dir/diffs" "$(disk 1)"
	[[ -z $(ls -A "$dir/diffs") ]]
	session_destroy s
	umount "$dir"
	fs_whole "$(disk 2)" ext4
}

# --- through the file system -----------------------------------------------------------------------------------------

# tmpfs_make SIZE: its directory in `dir`.
tmpfs_make() {
	dir=/mnt/test-tmpfs
	mkdir -p "$dir"
	mount -t tmpfs -o "size=$1" none "$dir"
}

# guarded FILE: nobody can change it.
guarded() {
	refuses EPERM truncate -s 0 "$1"
	refuses EPERM dd if=/dev/zero of="$1" count=1 conv=notrunc status=none
	refuses EPERM rm -f "$1"
	refuses EPERM mv "$1" "$1.other"
}

@test "diff file: on tmpfs: made, guarded, removed" {
	local dir
	tmpfs_make 160M
	stormy "$dir/diff" "$(disk 1)"
	[[ $(stat -c '%a %U' "$dir/diff") == '600 root' ]]
	guarded "$dir/diff"
	session_destroy s
	[[ -z $(ls -A "$dir") && $(df --output=used -B1 "$dir" | tail -1) -eq 0 ]]
}

@test "diff file: a directory on tmpfs, and it grows there" {
	local dir
	tmpfs_make 400M
	session_make s "$dir" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 256M
	put "$SESSIONS/s/diff_low" 16M
	session_take s
	[[ $(session_get s diff_size) -eq $((64 << 20)) && -z $(ls -A "$dir") ]]
	dd if=/dev/zero of="$(disk 1)" bs=1M count=180 oflag=direct conv=notrunc status=none
	[[ $(session_get s state) == active ]] || fail "$(session_get s error)"
	larger_than $((160 << 20))
	cmp -n $((180 << 20)) "$(image_of s s1)" /dev/zero
	session_destroy s
	[[ $(df --output=used -B1 "$dir" | tail -1) -eq 0 ]]
}

@test "diff file: what is found in a file on tmpfs is left there (EINVAL); nor is one with holes used" {
	local dir
	tmpfs_make 160M
	head -c 1M /dev/urandom >"$dir/diff"
	cp "$dir/diff" "$BATS_TEST_TMPDIR/was"
	session_make s "$dir/diff" "$(disk 1)"
	refused_take s EINVAL
	cmp "$dir/diff" "$BATS_TEST_TMPDIR/was"
	truncate -s 64M "$dir/hole"
	put "$SESSIONS/s/diff_file" "$dir/hole"
	refused_take s EINVAL
	[[ $(stat -c '%s %b' "$dir/hole") == "$((64 << 20)) 0" ]]
	session_destroy s
}

@test "diff file: an empty one on btrfs has copy-on-write again, and checksums, after a take that is refused and after the release" {
	local dir
	fs_on "$(disk 2)" btrfs
	: >"$dir/diff"
	: >"$dir/without"
	chattr +C "$dir/without"
	# On its own origin all of it is allocated, which has not so much.
	session_make s "$dir/diff" "$(disk 2)"
	put "$SESSIONS/s/diff_limit" 4G
	refused_take s ENOSPC
	session_destroy s
	session_make s "$dir/diff" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 100M
	[[ $(lsattr "$dir/diff") != *C*/* && $(stat -c %s "$dir/diff") -eq 0 ]] || fail "$(lsattr "$dir/diff")"
	session_take s
	[[ $(lsattr "$dir/diff") == *C*/* ]]
	session_release s
	[[ $(lsattr "$dir/diff") != *C*/* && $(stat -c %s "$dir/diff") -eq 0 ]] || fail "$(lsattr "$dir/diff")"
	put "$SESSIONS/s/diff_file" "$dir/without"
	session_take s
	session_release s
	[[ $(lsattr "$dir/without") == *C*/* ]]
	session_destroy s
	umount "$dir"
	fs_whole "$(disk 2)" btrfs
}

@test "diff file: of a tiny origin it is not too small" {
	local dir
	fs_on "$(disk 2)" ext4
	dm_linear tiny "$(disk 1)" 128
	session_of "$dir/diff" /dev/mapper/tiny
	[[ $(session_get s diff_limit) -eq 65536 ]]
	dd if=/dev/urandom of=/dev/mapper/tiny bs=64K count=1 oflag=direct conv=notrunc status=none
	cmp -n 65536 "$(image_of s s1)" /dev/zero
	[[ $(session_get s state) == active ]]
	session_destroy s
	umount "$dir"
}

@test "diff file: on btrfs with copy-on-write, which is unwritten again afterwards" {
	local dir
	fs_on "$(disk 2)" btrfs
	fallocate -l 200M "$dir/diff"
	stormy "$dir/diff" "$(disk 1)"
	guarded "$dir/diff"
	dd if=/dev/urandom of="$dir/other" bs=1M count=32 conv=fsync status=none
	echo 3 >/proc/sys/vm/drop_caches
	image_is "$(image_of s s1)" --length 64M
	session_destroy s
	[[ $(stat -c %s "$dir/diff") -eq $((200 << 20)) ]]
	zeroes "$dir/diff"
	# Not while somebody else may write to it.
	exec 8>>"$dir/diff"
	session_make s "$dir/diff" "$(disk 1)"
	refused_take s EBUSY
	exec 8>&-
	session_take s
	session_destroy s
	umount "$dir"
	fs_whole "$(disk 2)" btrfs
}

@test "diff file: on the origin's own btrfs with copy-on-write (EXDEV)" {
	local dir
	fs_on "$(disk 1)" btrfs
	fallocate -l 100M "$dir/diff"
	session_make s "$dir/diff" "$(disk 1)"
	refused_take s EXDEV
	session_destroy s
	# Nor on the origin of another session.
	session_make s "$(disk 4)" "$(disk 1)"
	session_make t "$dir/diff" "$(disk 3)"
	session_take t
	refused_take s EXDEV
	session_destroy t
	session_destroy s
	umount "$dir"
	# Any of its devices counts, also below a loop device.
	mkfs.btrfs -q -f -d single "$(disk 3)" "$(disk 1)"
	dir=$(mount_test "$(disk 3)" two)
	fallocate -l 100M "$dir/diff"
	session_make s "$dir/diff" "$(disk 1)"
	refused_take s EXDEV
	truncate -s 100M "$dir/disk"
	losetup -f "$dir/disk"
	put "$SESSIONS/s/diff_file" "$(losetup -nO NAME -j "$dir/disk")"
	refused_take s EXDEV
	session_destroy s
	losetup -d "$(losetup -nO NAME -j "$dir/disk")"
	# Whoever has it open meanwhile keeps it.
	wait_until 20 umount "$dir"
}

# --- files that are there --------------------------------------------------------------------------------------------

@test "diff file: an empty one is used, and is empty afterwards" {
	local dir
	fs_on "$(disk 2)" ext4
	: >"$dir/diff"
	chmod 640 "$dir/diff"
	stormy "$dir/diff" "$(disk 1)"
	session_destroy s
	[[ $(stat -c '%a %s' "$dir/diff") == '640 0' ]]
}

@test "diff file: an allocated one is used as it is, and still unwritten afterwards" {
	local dir
	fs_on "$(disk 2)" xfs
	fallocate -l 200M "$dir/diff"
	stormy "$dir/diff" "$(disk 1)"
	[[ $(session_get s diff_size) -eq $((200 << 20)) ]]
	session_destroy s
	[[ $(stat -c %s "$dir/diff") -eq $((200 << 20)) ]]
	zeroes "$dir/diff"
	stormy "$dir/diff" "$(disk 1)"
	session_destroy s
}

@test "diff file: with data or holes in it, or in use (EINVAL, EBUSY)" {
	local dir
	fs_on "$(disk 2)" ext4
	dd if=/dev/urandom of="$dir/data" bs=1M count=1 status=none
	truncate -s 64M "$dir/hole"
	fallocate -l 64M "$dir/both"
	dd if=/dev/urandom of="$dir/both" bs=4096 seek=100 count=1 conv=notrunc status=none
	fallocate -l 64M "$dir/swap"
	dd if=/dev/zero of="$dir/swap" bs=1M count=64 conv=notrunc status=none
	mkswap -q "$dir/swap"
	swapon "$dir/swap"
	defer swapoff "$dir/swap"
	session_make s "$dir/data" "$(disk 1)"
	refused_take s EINVAL
	[[ $(session_get s error) == *' has data in it' ]]
	put "$SESSIONS/s/diff_file" "$dir/both"
	refused_take s EINVAL
	put "$SESSIONS/s/diff_file" "$dir/hole"
	refused_take s EINVAL
	[[ $(session_get s error) == *' has holes'* ]]
	put "$SESSIONS/s/diff_file" "$dir/swap"
	refused_take s EBUSY
	# In use by another session.
	fallocate -l 64M "$dir/diff"
	put "$SESSIONS/s/diff_file" "$dir/diff"
	session_take s
	session_make t "$dir/diff" "$(disk 3)"
	refused_take t EBUSY
	[[ $(stat -c %s "$dir/hole") -eq $((64 << 20)) ]]
	session_destroy t
	session_destroy s
}

# --- what cannot be used ---------------------------------------------------------------------------------------------

@test "diff file: paths that are refused at once (ENOENT, EINVAL, EROFS)" {
	local dir
	fs_on "$(disk 2)" ext4
	session_make s '' "$(disk 1)"
	refused s ENOENT put "$SESSIONS/s/diff_file" "$dir/nowhere/diff"
	refused s ENOENT put "$SESSIONS/s/diff_file" "$dir/diff/"
	refused s ENOENT put "$SESSIONS/s/diff_file" /dev/nowhere
	mkfifo "$dir/fifo"
	refused s EINVAL put "$SESSIONS/s/diff_file" "$dir/fifo"
	refused s EINVAL put "$SESSIONS/s/diff_file" /dev/null
	mount -o remount,ro "$dir"
	refused s EROFS put "$SESSIONS/s/diff_file" "$dir/diff"
	[[ -z $(session_get s diff_file) ]]
	session_destroy s
}

# without CAPABILITIES: how a command is run as root, but without these, each with a minus, in WITHOUT.
without() {
	WITHOUT=(setpriv --bounding-set="$1" --inh-caps="$1")
}

@test "diff file: a path that its writer has no right to (EACCES), at once or when it is taken" {
	local dir path
	fs_on "$(disk 2)" ext4
	mkdir -m 700 "$dir/closed"
	mkdir -m 755 "$dir/open"
	fallocate -l 64M "$dir/closed/diff"
	fallocate -l 64M "$dir/file"
	chmod 600 "$dir/file"
	mknod -m 600 "$dir/node" b "$(stat -c 0x%t "$(disk 4)")" "$(stat -c 0x%T "$(disk 4)")"
	chown -R 65534 "$dir"/{closed,open,file,node}
	session_make s '' "$(disk 1)"
	without -dac_override,-dac_read_search
	# Root without the right to all files of others, which is what owners and modes stop.
	for path in closed closed/diff closed/new open open/new file node; do
		refused s EACCES "${WITHOUT[@]}" put "$SESSIONS/s/diff_file" "$dir/$path"
	done
	[[ -z $(session_get s diff_file) ]]
	refused s/s1 EACCES "${WITHOUT[@]}" put "$SESSIONS/s/s1/device" "$dir/node"
	# The rights of whoever has written it hold for the take too, whoever takes it.
	for path in file open/new; do
		chown 0 "$dir/${path%/*}"
		"${WITHOUT[@]}" put "$SESSIONS/s/diff_file" "$dir/$path"
		chown 65534 "$dir/${path%/*}"
		refused_take s EACCES
		[[ $path == file || ! -e $dir/$path ]]
		put "$SESSIONS/s/diff_file" "$dir/$path"
		session_take s
		session_release s
	done
	session_destroy s
	umount "$dir"
	fs_whole "$(disk 2)" ext4
}

@test "diff file: a relative path is that of whoever wrote it" {
	local dir
	fs_on "$(disk 2)" ext4
	session_make s '' "$(disk 1)"
	(cd "$dir" && put "$SESSIONS/s/diff_file" diff)
	[[ $(session_get s diff_file) == diff ]]
	session_take s
	[[ -e $dir/diff ]]
	session_destroy s
	[[ ! -e $dir/diff ]]
}

@test "diff file: symbolic links are followed, as open would; nothing but the file is removed" {
	local dir
	fs_on "$(disk 2)" ext4
	mkdir "$dir/real"
	ln -s real "$dir/link"
	ln -s link/diff "$dir/file"
	session_make s "$dir/link/diff" "$(disk 1)"
	session_take s
	[[ -e $dir/real/diff && $(session_get s diff_file) == "$dir/link/diff" ]]
	session_release s
	[[ -z $(ls -A "$dir/real") && -L $dir/link ]]
	# One that points to a file.
	: >"$dir/real/diff"
	put "$SESSIONS/s/diff_file" "$dir/file"
	session_take s
	refuses ETXTBSY truncate -s 0 "$dir/real/diff"
	session_release s
	[[ -L $dir/file && $(stat -c %s "$dir/real/diff") -eq 0 ]]
	# Or to itself.
	ln -s loop "$dir/loop"
	refused s ELOOP put "$SESSIONS/s/diff_file" "$dir/loop"
	# Or to nothing: what is made would lie in another directory, perhaps of another file system, than what it grows by.
	ln -s /dev/shm/blksnap-diff "$dir/nothing"
	refused s ELOOP put "$SESSIONS/s/diff_file" "$dir/nothing"
	[[ $(session_get s error) == "ELOOP: $dir/nothing is a symbolic link that leads to nothing" ]]
	# A link that has come since is not followed.
	put "$SESSIONS/s/diff_file" "$dir/later"
	ln -s /dev/shm/blksnap-diff "$dir/later"
	refused_take s ELOOP
	[[ ! -e /dev/shm/blksnap-diff ]]
	session_destroy s
	umount "$dir"
}

@test "diff file: a path is that of whoever wrote it, in a root or with mounts of his own" {
	local dir
	fs_on "$(disk 2)" ext4
	# The same names lead elsewhere for everybody else.
	mkdir "$dir/diffs" "$BATS_TEST_TMPDIR/diffs"
	session_make s '' "$(disk 1)"
	mkdir "$dir/proc"
	mount -t configfs none "$dir/proc"
	mkdir -p "$dir/bin"
	cp "$(command -v busybox)" "$dir/bin/sh"
	chroot "$dir" /bin/sh -c 'cd diffs && echo diff >/proc/blksnap/sessions/s/diff_file'
	umount "$dir/proc"
	session_take s
	[[ -e $dir/diffs/diff ]]
	session_release s
	[[ -z $(ls -A "$dir/diffs") ]]
	# shellcheck disable=SC2016 # the inner shell expands these
	background unshare --mount bash -c 'mount --bind "$1/diffs" "$2/diffs" && echo "$2/diffs/diff" >"$3" &&
		exec sleep 100' _ "$dir" "$BATS_TEST_TMPDIR" "$SESSIONS/s/diff_file"
	wait_until 20 grep -q "^$BATS_TEST_TMPDIR/diffs/diff" "$SESSIONS/s/diff_file"
	session_take s
	[[ -e $dir/diffs/diff && -z $(ls -A "$BATS_TEST_TMPDIR/diffs") ]]
	end_background
	session_destroy s
	[[ -z $(ls -A "$dir/diffs") ]]
	umount "$dir"
}

# f2fs can say where a swap file's blocks are, but has none for what is only allocated, or writes it for that.
@test "diff file: a file system that is of no use (EOPNOTSUPP); nothing is left there" {
	local dir
	mkfs.f2fs -q -f "$(disk 5)" >/dev/null
	dir=$(mount_test "$(disk 5)" f2fs)
	session_make s "$dir/diff" "$(disk 1)"
	refused_take s EOPNOTSUPP
	[[ ! -e $dir/diff ]]
	fallocate -l 1M "$dir/diff"
	refused_take s EOPNOTSUPP
	session_destroy s
	umount "$dir"
	mkdir -p /mnt/test-ramfs
	mount -t ramfs none /mnt/test-ramfs
	session_make s /mnt/test-ramfs/diff "$(disk 1)"
	refused_take s EOPNOTSUPP
	[[ -z $(ls -A /mnt/test-ramfs) ]]
	session_destroy s
}

@test "diff file: a limit of nothing (EINVAL), a full file system (ENOSPC); nothing is left there" {
	local dir
	fs_on "$(disk 5)" ext4
	session_make s "$dir/diff" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 0
	refused_take s EINVAL
	put "$SESSIONS/s/diff_limit" 1G
	put "$SESSIONS/s/diff_low" 1G
	# Half of the room will do to begin with, but not less than 64 MiB.
	fallocate -l $(($(stat -fc '%a * %S' "$dir") - (48 << 20))) "$dir/full"
	refused_take s ENOSPC
	[[ ! -e $dir/diff ]]
	rm "$dir/full"
	session_take s
	[[ $(session_get s diff_size) -ge $((64 << 20)) ]]
	session_destroy s
}

# larger_than BYTES: the difference storage is.
larger_than() {
	[[ $(session_get s diff_size) -gt $1 ]]
}

# --- sizes -----------------------------------------------------------------------------------------------------------

@test "diff file: sizes that nobody has set" {
	local dir limit
	fs_on "$(disk 2)" ext4
	session_make s "$dir/diff" "$(disk 1)"
	[[ -z $(session_get s diff_limit) && -z $(session_get s diff_low) ]]
	session_take s
	limit=$(session_get s diff_limit)
	# A fifth of 1 GiB, in steps.
	[[ $limit -le $(((1 << 30) / 5)) && $limit -gt $(((1 << 30) / 5 - 65536)) ]]
	[[ $(session_get s diff_low) -eq $((64 << 20)) ]]
	[[ $(session_get s diff_size) -eq $((128 << 20)) ]]
	[[ $(session_get s diff_used) -eq 0 ]]
	session_destroy s
}

@test "diff file: grows ahead of need, to its limit, then overflows" {
	local dir image
	fs_on "$(disk 2)" ext4
	session_make s "$dir/diff" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 512M
	put "$SESSIONS/s/diff_low" 16M
	session_take s
	image=$(image_of s s1)
	[[ $(session_get s diff_size) -eq $((64 << 20)) ]]
	dd if=/dev/zero of="$(disk 1)" bs=1M count=400 oflag=direct conv=notrunc status=none
	[[ $(session_get s state) == active ]]
	[[ $(session_get s diff_size) -gt $((384 << 20)) ]]
	[[ $(ls "$dir") == $'diff\nlost+found' ]]
	cmp -n $((400 << 20)) "$image" /dev/zero
	dd if=/dev/zero of="$(disk 1)" bs=1M count=700 oflag=direct conv=notrunc status=none
	wait_until 20 state_is s overflow
	[[ $(session_get s error) == "ENOSPC: difference storage full at $((512 << 20)) bytes" ]]
	log_has 'low_space'
	session_destroy s
	umount "$dir"
	fs_whole "$(disk 2)" ext4
}

# stalls: from now on $BATS_TEST_TMPDIR/stall.CPU says how long, at most, a processor has not come to run a program that was
# due, in microseconds. An emulated one can be held up by its host.
stalls() {
	local cpu
	for ((cpu = 0; cpu < $(nproc); cpu++)); do
		python3 - "$BATS_TEST_TMPDIR/stall" "$cpu" 3>&- <<-'END' &
			import os, sys, time
			most = 0
			os.sched_setaffinity(0, {int(sys.argv[2])})
			while True:
			    due = time.monotonic() + 0.005
			    time.sleep(0.005)
			    late = int((time.monotonic() - due) * 1000000)
			    if late > most:
			        most = late
			        with open("%s.%s" % (sys.argv[1], sys.argv[2]), "w") as file:
			            print(most, file=file)
		END
		defer end_background $!
	done
}

# full_speed TYPE: from 64 MiB to 4 GiB, as fast as it can be written: the origin takes no time for it. A write waits for
# stores at the most, and never until there is room for them.
full_speed() {
	local dir image held slowest stall at
	filled "$(disk 1)" --length 64M
	dm_repeated wide "$(disk 1)" 64 64
	fs_on "$(disk 8)" "$1"
	session_make s "$dir/diff" /dev/mapper/wide
	put "$SESSIONS/s/diff_limit" 4608M
	put "$SESSIONS/s/diff_low" 32M
	session_take s
	image=$(image_of s s1)
	[[ $(session_get s diff_size) -eq $((64 << 20)) ]]
	trace blksnap/blksnap_store
	stalls
	dd if=/dev/zero of=/dev/mapper/wide bs=1M count=4096 oflag=direct conv=notrunc status=none
	[[ $(session_get s state) == active ]] || fail "$(session_get s error)"
	larger_than $((4032 << 20))
	held=$(stat_of "$image" held_us_max)
	slowest=$(awk '/ blksnap_store: / && $(NF - 2) > most { most = $(NF - 2) } END { print most }' "$TRACING/trace")
	stall=$(sort -n "$BATS_TEST_TMPDIR"/stall.* | tail -1)
	printf '%s: held_us_max=%d, the slowest store took %d us, the machine stood still for %d us\n' "$1" "$held" \
		"$slowest" "$stall" | tee -a /results/figures
	[[ $held -le $((2 * (slowest + stall))) ]]
	for at in 0 2048 4032; do
		cmp <(mebibytes "$image" "$at" 16) <(mebibytes "$(disk 1)" 0 16)
	done
	session_destroy s
	umount "$dir"
	fs_whole "$(disk 8)" "$1"
}

# mebibytes DEVICE FROM COUNT: prints them, by direct I/O.
mebibytes() {
	dd if="$1" bs=1M skip="$2" count="$3" iflag=direct status=none
}

@test "diff file: grows at full speed, on ext4" {
	full_speed ext4
}

@test "diff file: grows at full speed, on XFS" {
	long
	full_speed xfs
}

@test "diff file: with a limit beyond any disk or file it grows as far as there is room" {
	local dir
	fs_on "$(disk 2)" ext4
	session_make s "$dir/diff" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 64M
	session_take s
	put "$SESSIONS/s/diff_limit" 18446744073709551615
	wait_until 60 larger_than $((64 << 20))
	dd if=/dev/zero of="$(disk 1)" bs=1M count=100 oflag=direct conv=notrunc status=none
	[[ $(session_get s state) == active ]]
	session_destroy s
	umount "$dir"
	fs_whole "$(disk 2)" ext4
}

# What the kernel counts of a swap file has 32 bits.
@test "diff file: of seventeen tebibytes, made, given, and on its own origin" {
	local dir
	loop_make 40T
	mkfs.xfs -q -K -l size=64m "$LOOP"
	dir=$(mount_test "$LOOP" large)
	session_make s "$dir/diff" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 17T
	put "$SESSIONS/s/diff_low" 9T
	session_take s
	[[ $(session_get s diff_size) -eq $((17 << 40)) ]] || fail "it has $(session_get s diff_size) bytes"
	session_release s
	# It cannot grow there, so it has all of it at once.
	put "$SESSIONS/s/s1/device" "$LOOP"
	put "$SESSIONS/s/diff_low" 0
	session_take s
	[[ $(session_get s diff_size) -gt $(((17 << 40) - (16 << 20))) ]] || fail "it has $(session_get s diff_size) bytes"
	session_release s
	put "$SESSIONS/s/s1/device" "$(disk 1)"
	fallocate -l 17T "$dir/diff"
	put "$SESSIONS/s/diff_limit" 0
	session_take s
	[[ $(session_get s diff_size) -ge $(((16 << 40) - (1 << 20))) ]] || fail "it has $(session_get s diff_size) bytes"
	session_destroy s
	umount "$dir"
}

@test "diff file: on btrfs it grows ahead of need as elsewhere; on its own origin it has all of it at once" {
	local dir
	fs_on "$(disk 7)" btrfs
	session_make s "$dir" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 1G
	session_take s
	[[ $(session_get s diff_size) -le $((256 << 20)) ]] || fail "it has $(session_get s diff_size) bytes already"
	dd if=/dev/zero of="$(disk 1)" bs=1M count=400 oflag=direct status=none
	state_is s active || fail "$(session_get s error)"
	session_release s
	put "$SESSIONS/s/s1/device" "$(disk 7)"
	session_take s
	[[ $(session_get s diff_size) -gt $((1008 << 20)) ]] || fail "it has $(session_get s diff_size) bytes only"
	session_destroy s
	umount "$dir"
}

stored_at_least() {
	[[ $(stat_of "$(image_of s s1)" chunks_stored) -ge $1 ]]
}

@test "diff file: while it does not grow, what room there is is used" {
	local dir
	echo 96M >"$MEMORY_LIMIT"
	fs_on "$(disk 7)" ext4
	session_make s "$dir" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 192M
	put "$SESSIONS/s/diff_low" 64M
	session_take s
	[[ $(session_get s diff_size) -eq $((128 << 20)) ]]
	fsfreeze -f "$dir"
	defer eval "fsfreeze -u $dir 2>/dev/null || true"
	# The last batch is larger than what is left then, and more stays in memory than is stored for.
	dd if=/dev/zero of="$(disk 1)" bs=1M count=200 oflag=direct status=none
	wait_until 30 stored_at_least $((127 << 8))
	state_is s active || fail "$(session_get s error)"
	fsfreeze -u "$dir"
	session_destroy s
	umount "$dir"
}

# Its worker hangs, and has in hand what is to be stored; but that is in vain, and others need the memory.
@test "diff file: a snapshot that has failed while its storage cannot grow gives its memory back" {
	local dir
	echo 8M >"$MEMORY_LIMIT"
	put /sys/module/blksnap/parameters/hold_limit_ms 2000
	fs_on "$(disk 7)" ext4
	session_make s "$dir" "$(disk 1)"
	session_make other "$(disk 2)" "$(disk 3)"
	session_take s
	session_take other
	fsfreeze -f "$dir"
	defer eval "fsfreeze -u $dir 2>/dev/null || true"
	dd if=/dev/zero of="$(disk 1)" bs=1M count=200 oflag=direct status=none
	state_is s failed || fail "$(session_get s state)"
	wait_until 10 holds_no_memory s
	dd if=/dev/zero of="$(disk 3)" bs=1M count=32 oflag=direct status=none
	state_is other active || fail "$(session_get other error)"
	fsfreeze -u "$dir"
	session_destroy s
	session_destroy other
	umount "$dir"
}

holds_no_memory() {
	[[ $(stat_of "$(image_of "$1" s1)" memory_bytes) -eq 0 ]]
}

@test "diff file: low space is announced once, a limit that is raised takes effect" {
	local dir events=$BATS_TEST_TMPDIR/events
	fs_on "$(disk 2)" ext4
	session_make s "$dir/diff" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 64M
	put "$SESSIONS/s/diff_low" 16M
	session_take s
	udevadm monitor --kernel --property --subsystem-match=block >"$events" 3>&- &
	defer end_background $!
	sleep 1
	dd if=/dev/zero of="$(disk 1)" bs=1M count=56 oflag=direct conv=notrunc status=none
	wait_until 20 grep -q '^BLKSNAP_EVENT=low_space' "$events"
	[[ $(session_get s state) == active ]]
	refused s EINVAL put "$SESSIONS/s/diff_limit" 32M
	put "$SESSIONS/s/diff_limit" 400M
	wait_until 20 larger_than $((64 << 20))
	dd if=/dev/zero of="$(disk 1)" bs=1M count=300 oflag=direct conv=notrunc status=none
	[[ $(session_get s state) == active ]]
	[[ $(grep -c '^BLKSNAP_EVENT=low_space' "$events") -eq 1 ]]
	session_destroy s
}

@test "diff file: no room for growth is announced, and tried again when space is needed" {
	local dir mib
	fs_on "$(disk 2)" ext4
	# What root alone may use as well, but not what ext4 keeps for itself: 199 MiB are left.
	fallocate -l $((($(stat -fc '%f * %S' "$dir") >> 20) - 215))M "$dir/other"
	session_make s "$dir/diff" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 512M
	put "$SESSIONS/s/diff_low" 16M
	session_take s
	# Some kernels give a few of those as well: it is written until less than diff_low is left.
	for ((mib = 185; mib < 212; mib += 3)); do
		dd if=/dev/zero of="$(disk 1)" bs=1M count="$mib" oflag=direct conv=notrunc status=none
		! wait_until 5 log_has 'low_space' >/dev/null || break
	done
	log_has 'low_space'
	[[ $(session_get s diff_size) -le $((210 << 20)) ]]
	[[ $(session_get s state) == active ]]
	# It has taken what there was, and not only what would have doubled it.
	larger_than $((180 << 20))
	rm "$dir/other"
	dd if=/dev/zero of="$(disk 1)" bs=1M count=300 oflag=direct conv=notrunc status=none
	[[ $(session_get s state) == active ]] || fail "$(session_get s error)"
	larger_than $((256 << 20))
	cmp -n $((300 << 20)) "$(image_of s s1)" /dev/zero
	session_destroy s
}

@test "diff file: one that cannot be removed is named in the log" {
	local dir
	fs_on "$(disk 2)" ext4
	session_make s "$dir/diff" "$(disk 1)"
	session_take s
	chattr +i "$dir"
	defer chattr -i "$dir"
	session_destroy s
	log_has '^blksnap: s: cannot remove diff: error -1$'
	chattr -i "$dir"
	rm "$dir/diff"
}

@test "diff file: its directory is renamed, and it grows" {
	local dir
	fs_on "$(disk 2)" xfs
	mkdir "$dir/old"
	session_make s "$dir/old" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 512M
	put "$SESSIONS/s/diff_low" 16M
	session_take s
	mv "$dir/old" "$dir/new"
	dd if=/dev/zero of="$(disk 1)" bs=1M count=300 oflag=direct conv=notrunc status=none
	[[ $(session_get s state) == active ]] || fail "$(session_get s error)"
	larger_than $((256 << 20))
	session_destroy s
	umount "$dir"
	fs_whole "$(disk 2)" xfs
}

@test "diff file: on blocks that are larger than the origin's (EINVAL), and a file is not left there" {
	local dir
	loop_make 256M --sector-size 4096
	fs_on "$LOOP" ext4
	session_make s "$dir/diff" "$(disk 1)"
	refused_take s EINVAL
	[[ ! -e $dir/diff ]]
	session_destroy s
	umount "$dir"
}

@test "diff file: one of less than the smallest step grows by that, and then overflows" {
	local dir
	fs_on "$(disk 2)" ext4
	fallocate -l 32K "$dir/diff"
	session_make s "$dir/diff" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 0
	session_take s
	put "$SESSIONS/s/diff_limit" 100K
	! dd if=/dev/urandom of="$(image_of s s1)" bs=4K count=30 oflag=direct conv=notrunc status=none || fail 'more than there is'
	[[ $(session_get s state) == overflow ]]
	[[ $(session_get s error) == "ENOSPC: difference storage full at $((96 << 10)) bytes" ]] || fail "$(session_get s error)"
	session_destroy s
}

@test "diff file: no growth on a disk with an active snapshot (EXDEV)" {
	local dir
	fs_on "$(disk 2)" ext4
	session_make s "$dir/diff" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 128M
	put "$SESSIONS/s/diff_low" 16M
	session_take s
	[[ $(session_get s diff_size) -eq $((64 << 20)) ]]
	session_make t "$(disk 4)" "$(disk 2)"
	session_take t
	refuses EXDEV put "$SESSIONS/s/diff_limit" 256M
	[[ $(session_get s error) == 'EXDEV: '* && $(session_get s diff_limit) -eq $((128 << 20)) ]]
	dd if=/dev/zero of="$(disk 1)" bs=1M count=60 oflag=direct conv=notrunc status=none
	wait_until 20 log_has 'low_space: .*, and it could not grow \(EXDEV\)'
	[[ $(session_get s diff_size) -eq $((64 << 20)) ]]
	session_destroy t
	put "$SESSIONS/s/diff_limit" 256M
	wait_until 20 larger_than $((64 << 20))
	session_destroy s
}

# --- on the origin itself --------------------------------------------------------------------------------------------

# churn DIR: files come and go there until the test ends it.
churn() {
	# shellcheck disable=SC2016 # the inner shell expands these
	background bash -c 'n=0; while :; do
		dd if=/dev/urandom of="$0/f.$((n % 8))" bs=64k count=$((1 + RANDOM % 20)) conv=fsync status=none
		n=$((n + 1)); [[ $((n % 5)) -ne 0 ]] || rm -f "$0/f.$((RANDOM % 8))"; sleep 0.3
	done' "$1"
	CHURN=$BACKGROUND
}

# own_fs TYPE OPTIONS: the diff in a file of the origin's own file system, under load.
own_fs() {
	local dir image round origin
	partition "$(disk 1)" 400M
	origin=$(part "$(disk 1)" 1)
	fs_on "$origin" "$1"
	mkdir "$dir/load" "$dir/keep"
	cp -r /etc "$dir/keep"
	sync -f "$dir"
	(cd "$dir/keep" && find . -type f -exec sha256sum {} +) >"$BATS_TEST_TMPDIR/sums"
	churn "$dir/load"
	for round in 1 2; do
		session_make s "$dir/diff" "$origin"
		put "$SESSIONS/s/diff_limit" 160M
		session_take s
		[[ $(session_get s diff_size) -ge $((159 << 20)) ]]
		image=$(image_of s s1)
		rm -rf "$dir/keep/etc/s"*
		sha256sum "$image" >"$BATS_TEST_TMPDIR/image"
		dd if=/dev/urandom of="$dir/load/big" bs=1M count=24 conv=fsync status=none
		[[ $(session_get s state) == active ]] || fail "$(session_get s error)"
		[[ $(stat_of "$image" chunks_stored) -gt 1000 ]]
		sha256sum -c --quiet "$BATS_TEST_TMPDIR/image"
		mkdir -p /mnt/test-image
		mount -o "$2" "$image" /mnt/test-image
		if [[ $round -eq 1 ]]; then
			(cd /mnt/test-image/keep && sha256sum -c --quiet "$BATS_TEST_TMPDIR/sums")
		fi
		# The file is there, and reads as zeroes.
		zeroes /mnt/test-image/diff
		[[ $(session_get s state) == active ]] || fail "$(session_get s error)"
		umount /mnt/test-image
		fs_whole "$image" "$1"
		session_destroy s
		[[ ! -e $dir/diff ]]
	done
	kill_all "$CHURN"
	umount "$dir"
	fs_whole "$origin" "$1"
}

@test "diff file: on the origin's own ext4, under load" {
	own_fs ext4 ro,norecovery
}

@test "diff file: on the origin's own XFS, under load" {
	own_fs xfs nouuid
}

# The pieces of the file are no multiple of anything on the disk.
@test "diff file: on a partition that begins anywhere, the disk is the origin: what is stored is not preserved" {
	local dir disk before
	disk=$(disk 7)
	printf 'start=63, size=600000, type=83\n' | sfdisk -q -X dos "$disk" >/dev/null
	settle
	defer partition_wipe "$disk"
	fs_on "$(part "$disk" 1)" ext4
	# Holes of 12 KiB and more everywhere.
	dd if=/dev/zero of="$dir/all" bs=1M status=none || true
	for ((at = 0; at < 160; at++)); do
		fallocate -p -o $((at * 1048576)) -l $((512 * 1024 + at % 7 * 4096)) "$dir/all"
	done
	sync -f "$dir"
	session_make s "$dir" "$disk"
	put "$SESSIONS/s/diff_limit" 64M
	session_take s
	before=$(stat_of "$(image_of s s1)" chunks_preserved)
	# Outside of the partition.
	dd if=/dev/zero of="$disk" bs=1M seek=1000 count=32 oflag=direct status=none
	wait_until 30 stored_at_least 6000
	[[ $(($(stat_of "$(image_of s s1)" chunks_preserved) - before)) -le $((8192 + 40)) ]] ||
		fail "$before granules were preserved, and then $(stat_of "$(image_of s s1)" chunks_preserved)"
	session_destroy s
	umount "$dir"
}

@test "diff file: an image is written to where the difference storage is" {
	local dir image at
	fs_on "$(disk 1)" ext4
	session_make s "$dir/diff" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 64M
	session_take s
	image=$(image_of s s1)
	at=$(filefrag -v -b4096 "$dir/diff" | awk '$1 == "0:" { sub(/\.\./, "", $4); print $4 }')
	# Stored there by now is something else.
	dd if=/dev/urandom of="$dir/load" bs=1M count=16 conv=fsync status=none
	dd if="$image" bs=4096 skip="$at" count=1024 iflag=direct status=none | cmp -n 4194304 - /dev/zero
	dd if=/dev/urandom of="$BATS_TEST_TMPDIR/new" bs=4096 count=100 status=none
	dd if="$BATS_TEST_TMPDIR/new" of="$image" bs=4096 seek=$((at + 50)) oflag=direct conv=notrunc status=none
	dd if="$image" bs=4096 skip=$((at + 50)) count=100 iflag=direct status=none | cmp - "$BATS_TEST_TMPDIR/new"
	dd if="$image" bs=4096 skip="$at" count=50 iflag=direct status=none | cmp -n 204800 - /dev/zero
	dd if="$image" bs=4096 skip=$((at + 150)) count=50 iflag=direct status=none | cmp -n 204800 - /dev/zero
	session_destroy s
	umount "$dir"
	fs_whole "$(disk 1)" ext4
}

@test "diff file: a partition is the origin, the file is on its neighbour, the disk is the origin of another session" {
	local dir
	partition "$(disk 1)" 256M 512M
	fs_on "$(part "$(disk 1)" 2)" ext4
	filled "$(part "$(disk 1)" 1)" --length 64M
	session_make s "$dir/diff" "$(part "$(disk 1)" 1)"
	session_take s
	# All of it at once: it could not grow later.
	[[ $(session_get s diff_size) -eq $(session_get s diff_limit) ]]
	session_make t "$(disk 2)" "$(disk 1)"
	session_take t
	storm "$(part "$(disk 1)" 1)" "$(image_of s s1)" --length 64M --count 3000 --max-size 32K
	[[ $(stat_of "$(image_of s s1)" chunks_stored) -gt 100 ]]
	cmp -n $((64 << 20)) "$(image_of s s1)" "$(image_of t s1)p1"
	session_destroy t
	session_destroy s
}

@test "diff file: two sessions whose diffs lie on each other's origins, under load (I1 I2)" {
	local dir a b one two
	partition "$(disk 1)" 512M
	partition "$(disk 3)" 512M
	one=$(part "$(disk 1)" 1)
	two=$(part "$(disk 3)" 1)
	fs_on "$one" ext4
	a=$dir
	fs_on "$two" ext4
	b=$dir
	fallocate -l 64M "$a/data"
	fallocate -l 64M "$b/data"
	sync
	# What the second one stores the first one has to preserve. It begins with all that it needs, since it cannot grow
	# while the other one's snapshot is active there.
	session_make s "$b/diff" "$one"
	put "$SESSIONS/s/diff_limit" 220M
	put "$SESSIONS/s/diff_low" 110M
	session_make t "$a/diff" "$two"
	put "$SESSIONS/t/diff_limit" 220M
	session_take s
	session_take t
	sha256sum "$(image_of s s1)" "$(image_of t s1)" >"$BATS_TEST_TMPDIR/images"
	dd if=/dev/urandom of="$a/data" bs=1M count=64 conv=notrunc,fsync status=none 3>&- &
	dd if=/dev/urandom of="$b/data" bs=1M count=64 conv=notrunc,fsync status=none
	wait $!
	[[ $(session_get s state) == active ]] || fail "$(session_get s error)"
	[[ $(session_get t state) == active ]] || fail "$(session_get t error)"
	[[ $(stat_of "$(image_of s s1)" chunks_stored) -gt 1000 ]]
	[[ $(stat_of "$(image_of t s1)" chunks_stored) -gt 1000 ]]
	sha256sum -c --quiet "$BATS_TEST_TMPDIR/images"
	session_destroy s
	session_destroy t
	umount "$a" "$b"
	fs_whole "$one" ext4
	fs_whole "$two" ext4
}

@test "diff file: on a volume above an origin's disk (EXDEV), and a file is not left there" {
	local dir
	dm_linear volume "$(disk 1)" 1048576 2048
	fs_on /dev/mapper/volume ext4
	session_make s "$dir/diff" "$(disk 1)"
	refused_take s EXDEV
	[[ ! -e $dir/diff ]]
	session_destroy s
	umount "$dir"
}

# --- no room, and no writing ----------------------------------------------------------------------------------------

# last_byte: what is written fills it, 64 KiB at a time; the overflow comes when there is no room for one of these.
last_byte() {
	dd if=/dev/zero of="$(disk 1)" bs=64K seek="$1" count="$2" oflag=direct conv=notrunc status=none
	wait_until 30 state_is s overflow
	[[ $(session_get s diff_used) -ge $(($(session_get s diff_size) - 65536)) ]] ||
		fail "an overflow with $(session_get s diff_used) of $(session_get s diff_size) bytes used"
}

# quota_on TYPE MEBIBYTES: a file system on disk 2, and in its directory `dir` that much room for project 42.
quota_on() {
	local features=()
	[[ $1 != ext4 ]] || features=(-O 'quota,project' -E 'quotatype=prjquota')
	"mkfs.$1" -q "${features[@]}" "$(disk 2)"
	dir=$(mount_test "$(disk 2)" quota prjquota)/diffs
	mkdir "$dir"
	xfs_quota -f -x -c "project -s -p $dir 42" "${dir%/*}"
	quota_is "$2"
}

# quota_is MEBIBYTES
quota_is() {
	xfs_quota -f -x -c "limit -p bhard=$1m 42" "${dir%/*}"
}

# no_room TYPE: growth ends at the quota, and goes on when there is more.
no_room() {
	local dir image
	quota_on "$1" 100
	session_make s '' "$(disk 1)"
	without -sys_resource
	"${WITHOUT[@]}" put "$SESSIONS/s/diff_file" "$dir"
	put "$SESSIONS/s/diff_limit" 512M
	put "$SESSIONS/s/diff_low" 16M
	session_take s
	image=$(image_of s s1)
	dd if=/dev/zero of="$(disk 1)" bs=1M count=90 oflag=direct conv=notrunc status=none
	wait_until 20 log_has 'low_space'
	state_is s active || fail "$(session_get s error)"
	larger_than $((90 << 20))
	[[ $(session_get s diff_size) -le $((100 << 20)) ]]
	quota_is 300
	dd if=/dev/zero of="$(disk 1)" bs=1M count=200 oflag=direct conv=notrunc status=none
	state_is s active || fail "$(session_get s error)"
	larger_than $((200 << 20))
	cmp -n $((200 << 20)) "$image" /dev/zero
	last_byte 3200 2400
	[[ $(session_get s diff_size) -le $((300 << 20)) ]]
	session_destroy s
	umount "${dir%/*}"
	fs_whole "$(disk 2)" "$1"
}

@test "diff file: the quota of a project ends its growth, until there is more (ext4: EDQUOT)" {
	no_room ext4
}

@test "diff file: the quota of a project ends its growth, until there is more (XFS: ENOSPC)" {
	no_room xfs
}

# within_quota TYPE: sizes that nobody has set. More than that is left on the disk.
within_quota() {
	local dir limit
	quota_on "$1" 100
	session_make s "$dir" "$(disk 1)"
	session_take s
	limit=$(session_get s diff_limit)
	[[ $limit -le $((50 << 20)) && $limit -gt $((49 << 20)) && $(session_get s diff_size) -eq $limit ]] ||
		fail "a limit of $limit bytes, $(session_get s diff_size) of them there"
	session_destroy s
	umount "${dir%/*}"
}

@test "diff file: half of what the quota of a project leaves is the most that is used where nobody has set a limit (ext4)" {
	within_quota ext4
}

@test "diff file: half of what the quota of a project leaves is the most that is used where nobody has set a limit (XFS)" {
	within_quota xfs
}

@test "diff file: its file system becomes read-only: what is allocated is used to the last byte; the file stays" {
	local dir image
	expect_log 'EXT4-fs error|Remounting filesystem read-only'
	mkfs.ext4 -q -e remount-ro "$(disk 2)"
	dir=$(mount_test "$(disk 2)" ro)
	session_make s "$dir/diff" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 512M
	put "$SESSIONS/s/diff_low" 16M
	session_take s
	image=$(image_of s s1)
	# Nobody can ask for it while the file is open.
	run -32 mount -o remount,ro "$dir"
	[[ $output == *busy* ]]
	dd if=/dev/zero of="$(disk 1)" bs=1M count=20 oflag=direct conv=notrunc status=none
	echo 1 >"/sys/fs/ext4/$(basename "$(disk 2)")/trigger_fs_error"
	# 6.12 says EIO.
	refuses EROFS touch "$dir/other" || refuses EIO touch "$dir/other"
	dd if=/dev/zero of="$(disk 1)" bs=1M count=60 oflag=direct conv=notrunc status=none
	wait_until 20 log_has 'low_space'
	state_is s active || fail "$(session_get s error)"
	[[ $(session_get s diff_size) -eq $((64 << 20)) ]]
	cmp -n $((60 << 20)) "$image" /dev/zero
	last_byte 960 300
	session_destroy s
	umount "$dir"
	e2fsck -fy "$(disk 2)" || [[ $? -eq 1 ]]
	mount "$(disk 2)" "$dir"
	zeroes "$dir/diff"
	rm "$dir/diff"
	umount "$dir"
	fs_whole "$(disk 2)" ext4
}
