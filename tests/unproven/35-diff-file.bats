#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Tests of difference storage in files that were not seen to pass yet: quotas, and file systems that become read-only.
# They belong into tests/35-diff-file.bats.

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so are its variables
load ../lib/common
load ../lib/devices

setup() {
	common_setup
	echo 4M >/sys/module/blksnap/parameters/memory_limit
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

# state_is STATE
state_is() {
	[[ $(session_get s state) == "$1" ]]
}

# larger_than BYTES: the difference storage is.
larger_than() {
	[[ $(session_get s diff_size) -gt $1 ]]
}

# last_byte: what is written fills it, 64 KiB at a time; the overflow comes when there is no room for one of these.
last_byte() {
	dd if=/dev/zero of="$(disk 1)" bs=64K seek="$1" count="$2" oflag=direct conv=notrunc status=none
	wait_until 30 state_is overflow
	[[ $(session_get s diff_used) -ge $(($(session_get s diff_size) - 65536)) ]] ||
		fail "an overflow with $(session_get s diff_used) of $(session_get s diff_size) bytes used"
}

# without_resources COMMAND...: as root, but subject to quotas.
without_resources() {
	setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource "$@"
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
	without_resources put "$SESSIONS/s/diff_file" "$dir"
	put "$SESSIONS/s/diff_limit" 512M
	put "$SESSIONS/s/diff_low" 16M
	session_take s
	image=$(image_of s s1)
	dd if=/dev/zero of="$(disk 1)" bs=1M count=90 oflag=direct conv=notrunc status=none
	wait_until 20 log_has 'low_space'
	state_is active || fail "$(session_get s error)"
	larger_than $((90 << 20))
	[[ $(session_get s diff_size) -le $((100 << 20)) ]]
	quota_is 300
	dd if=/dev/zero of="$(disk 1)" bs=1M count=200 oflag=direct conv=notrunc status=none
	state_is active || fail "$(session_get s error)"
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
	refuses EROFS touch "$dir/other"
	dd if=/dev/zero of="$(disk 1)" bs=1M count=60 oflag=direct conv=notrunc status=none
	wait_until 20 log_has 'low_space'
	state_is active || fail "$(session_get s error)"
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
