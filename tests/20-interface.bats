#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 4
# What an administrator types and reads: each attribute as it should be, and each refusal with its errno, its one line
# in the log, its text in `error`, and nothing changed.

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so is its `output`
load lib/common
load lib/devices
load lib/refusals

setup() {
	common_setup
}

teardown() {
	common_teardown
}

# A session with one snapshot of disk 1, and its differences on disk 2.
usual() {
	session_make s "$(disk 2)" "$(disk 1)"
}

# --- the top ---------------------------------------------------------------------------------------------------------

@test "interface: version and features" {
	[[ $(cat "$CONFIG/version") == "$(modinfo -F version "$KO")" ]]
	grep -qx cbt "$CONFIG/features"
	grep -qx diff-bdev "$CONFIG/features"
	grep -qx overlap "$CONFIG/features"
	[[ -z $(ls "$SESSIONS") ]]
	[[ -z $(ls "$TRACKERS") ]]
	refuses EACCES put "$CONFIG/version" 1 || refuses EPERM put "$CONFIG/version" 1
}

@test "interface: module parameters are read and written" {
	local dir=/sys/module/blksnap/parameters limit
	limit=$(cat "$dir/memory_limit")
	[[ $limit -ge 4194304 && $limit -le 268435456 ]]
	put "$dir/memory_limit" 8M
	[[ $(cat "$dir/memory_limit") -eq 8388608 ]]
	logged_refusal EINVAL put "$dir/memory_limit" 1M
	logged_refusal EINVAL put "$dir/memory_limit" much
	logged_refusal EINVAL put "$dir/memory_limit" 1T
	# No digits; more than 64 bits can hold, which would be 4 MiB; 0; octal or not.
	logged_refusal EINVAL put "$dir/memory_limit" M
	logged_refusal EINVAL put "$dir/memory_limit" $'16M\nmuch'
	logged_refusal ERANGE put "$dir/memory_limit" 18446744073713746944
	logged_refusal ERANGE put "$dir/memory_limit" 16777216T
	[[ $(cat "$dir/memory_limit") -eq 8388608 ]]
	put "$dir/memory_limit" 010M
	[[ $(cat "$dir/memory_limit") -eq 10485760 ]]
	logged_refusal ERANGE put "$dir/cbt_map_limit" 18446744073709551617
	logged_refusal EINVAL put "$dir/cbt_map_limit" much
	logged_refusal EINVAL put "$dir/cbt_map_limit" 1T
	put "$dir/memory_limit" 0
	[[ $(cat "$dir/memory_limit") -eq $limit ]]
	[[ $(cat "$dir/hold_limit_ms") -eq 10000 ]]
	[[ $(cat "$dir/take_timeout_ms") -eq 5000 ]]
}

# --- attributes as they should be ------------------------------------------------------------------------------------

@test "interface: paths are echoed as they were written" {
	local link=/dev/disk/by-id/virtio-t1
	mkdir "$SESSIONS/s" "$SESSIONS/s/a"
	[[ -z $(cat "$SESSIONS/s/a/device") ]]
	[[ -z $(session_get s diff_file) ]]
	put "$SESSIONS/s/a/device" "$link"
	[[ $(cat "$SESSIONS/s/a/device") == "$link" ]]
	put -n "$SESSIONS/s/a/device" "/dev/../dev/disk/./by-id/virtio-t3"
	[[ $(cat "$SESSIONS/s/a/device") == /dev/../dev/disk/./by-id/virtio-t3 ]]
	put "$SESSIONS/s/diff_file" /dev/disk/by-id/virtio-t2
	[[ $(session_get s diff_file) == /dev/disk/by-id/virtio-t2 ]]
	session_take s
	[[ $(cat "$SESSIONS/s/a/device") == /dev/../dev/disk/./by-id/virtio-t3 ]]
	[[ $(session_get s diff_file) == /dev/disk/by-id/virtio-t2 ]]
	session_destroy s
}

@test "interface: a path with spaces and other characters" {
	mkdir "$BATS_TEST_TMPDIR/a  b"
	ln -s "$(disk 1)" "$BATS_TEST_TMPDIR/a  b/%s \"ä\""
	usual
	put "$SESSIONS/s/s1/device" "$BATS_TEST_TMPDIR/a  b/%s \"ä\""
	[[ $(cat "$SESSIONS/s/s1/device") == "$BATS_TEST_TMPDIR/a  b/%s \"ä\"" ]]
	session_destroy s
}

@test "interface: chunk_size takes suffixes and is read back in bytes" {
	local value
	usual
	[[ $(cat "$SESSIONS/s/s1/chunk_size") -eq 0 ]]
	for value in 4096=4096 4K=4096 8192=8192 64K=65536 1M=1048576 64M=67108864 67108864=67108864 0=0 0K=0; do
		put "$SESSIONS/s/s1/chunk_size" "${value%=*}"
		[[ $(cat "$SESSIONS/s/s1/chunk_size") == "${value#*=}" ]]
	done
	session_destroy s
}

@test "interface: chunk_size as it was set is in force after the take" {
	usual
	put "$SESSIONS/s/s1/chunk_size" 256K
	session_take s
	[[ $(cat "$SESSIONS/s/s1/chunk_size") -eq 262144 ]]
	[[ $(stat_of "$(image_of s s1)" chunk_size) -eq 262144 ]]
	[[ $(stat_of "$(image_of s s1)" chunks) -eq 4096 ]]
	session_destroy s
}

@test "interface: chunk_size 0 picks a page, and what was picked is read back" {
	session_make s "$(disk 2)" "$(disk 1)" "$(disk 6)"
	session_take s
	[[ $(cat "$SESSIONS/s/s1/chunk_size") -eq 4096 ]]
	[[ $(cat "$SESSIONS/s/s2/chunk_size") -eq 4096 ]]
	[[ $(stat_of "$(image_of s s1)" chunk_size) -eq 4096 ]]
	[[ $(stat_of "$(image_of s s1)" chunks) -eq 262144 ]]
	session_destroy s
}

@test "interface: chunk_size 0 follows a stripe of 64K, and not one of 512K" {
	dm_make small "0 1048576 striped 2 128 $(disk 3) 0 $(disk 4) 0"
	dm_make large "0 1048576 striped 2 1024 $(disk 3) 524288 $(disk 4) 524288"
	[[ $(blockdev --getiomin /dev/mapper/small) -eq 65536 ]]
	[[ $(blockdev --getiomin /dev/mapper/large) -eq 524288 ]]
	session_make s "$(disk 2)" /dev/mapper/small /dev/mapper/large
	session_take s
	[[ $(cat "$SESSIONS/s/s1/chunk_size") -eq 65536 ]]
	[[ $(cat "$SESSIONS/s/s2/chunk_size") -eq 4096 ]]
	session_destroy s
}

@test "interface: chunk_size 0 picks no more than memory_limit allows, however large the device is" {
	echo 8M >/sys/module/blksnap/parameters/memory_limit
	# Four exbibytes.
	dm_make huge "0 $((1 << 53)) zero"
	session_of "$(disk 2)" /dev/mapper/huge
	[[ $(cat "$SESSIONS/s/s1/chunk_size") -eq $((2 << 20)) ]]
	dd if=/dev/urandom of=/dev/mapper/huge bs=4096 seek=$(((1 << 50) - 1)) count=1 oflag=direct conv=notrunc status=none
	[[ $(session_get s state) == active && $(stat_of "$(image_of s s1)" chunks_preserved) -eq 1 ]]
	session_destroy s
}

@test "interface: chunk_size 0 picks anew at each take" {
	dm_make small "0 1048576 striped 2 128 $(disk 3) 0 $(disk 4) 0"
	session_make s "$(disk 2)" /dev/mapper/small
	session_take s
	[[ $(cat "$SESSIONS/s/s1/chunk_size") -eq 65536 ]]
	session_release s
	put "$SESSIONS/s/s1/device" "$(disk 1)"
	session_take s
	[[ $(cat "$SESSIONS/s/s1/chunk_size") -eq 4096 ]]
	session_destroy s
}

@test "interface: discard is drop or preserve" {
	usual
	[[ $(cat "$SESSIONS/s/s1/discard") == drop ]]
	put "$SESSIONS/s/s1/discard" preserve
	[[ $(cat "$SESSIONS/s/s1/discard") == preserve ]]
	session_take s
	[[ $(cat "$SESSIONS/s/s1/discard") == preserve ]]
	session_release s
	put "$SESSIONS/s/s1/discard" drop
	[[ $(cat "$SESSIONS/s/s1/discard") == drop ]]
	session_destroy s
}

@test "interface: discard drop: counted, and neither origin nor image changes" {
	local dev image
	dev=$(disk 5)
	stamp fill "$dev" --seed 3 --length 8M
	session_of "$(disk 2)" "$dev"
	image=$(image_of s s1)
	blkdiscard -f -o 1M -l 4M "$dev"
	[[ $(stat_of "$image" discards_dropped) -eq 4194304 ]]
	[[ $(stat_of "$image" chunks_preserved) -eq 0 ]]
	stamp verify "$dev" --seed 3 --seq 1 --length 8M
	stamp verify "$image" --seed 3 --seq 1 --length 8M
	session_destroy s
}

@test "interface: discard preserve: the origin loses the data, the image keeps it" {
	local dev image
	dev=$(disk 5)
	stamp fill "$dev" --seed 3 --length 8M
	session_make s "$(disk 2)" "$dev"
	put "$SESSIONS/s/s1/discard" preserve
	session_take s
	image=$(image_of s s1)
	blkdiscard -f -o 1M -l 4M "$dev"
	[[ $(stat_of "$image" discards_dropped) -eq 0 ]]
	[[ $(stat_of "$image" chunks_preserved) -eq 1024 ]]
	stamp verify "$image" --seed 3 --seq 1 --length 8M
	cmp -n 4194304 -i 1048576:0 "$dev" /dev/zero
	stamp verify "$dev" --seed 3 --seq 1 --length 1M
	session_destroy s
}

@test "interface: discard: zeroes that are asked for are written, whatever it says" {
	local dev image
	dev=$(disk 5)
	stamp fill "$dev" --seed 3 --length 8M
	session_of "$(disk 2)" "$dev"
	image=$(image_of s s1)
	blkdiscard -f -z -o 1M -l 4M "$dev"
	[[ $(stat_of "$image" discards_dropped) -eq 0 ]]
	cmp -n 4194304 -i 1048576:0 "$dev" /dev/zero
	stamp verify "$image" --seed 3 --seq 1 --length 8M
	session_destroy s
}

@test "interface: image is the device while active, and empty else" {
	local image
	usual
	[[ -z $(cat "$SESSIONS/s/s1/image") ]]
	session_take s
	image=$(cat "$SESSIONS/s/s1/image")
	[[ $image =~ ^/dev/blksnap[0-9]+$ ]]
	[[ -b $image ]]
	[[ $(blockdev --getsize64 "$image") -eq $(blockdev --getsize64 "$(disk 1)") ]]
	[[ $(blockdev --getss "$image") -eq 512 ]]
	[[ $(readlink -e /dev/blksnap/s/s1) == "$image" ]]
	session_release s
	[[ -z $(cat "$SESSIONS/s/s1/image") ]]
	[[ ! -e $image ]]
	[[ ! -e /dev/blksnap/s/s1 ]]
	session_destroy s
}

@test "interface: image has the origin's logical block size" {
	session_of "$(disk 2)" "$(disk 6)"
	[[ $(blockdev --getss "$(image_of s s1)") -eq 4096 ]]
	session_destroy s
}

@test "interface: diff_limit and diff_low: sizes, and what is none (EINVAL)" {
	local attr told
	usual
	for attr in diff_limit diff_low; do
		[[ -z $(session_get s "$attr") ]]
		put "$SESSIONS/s/$attr" 3G
		[[ $(session_get s "$attr") -eq $((3 << 30)) ]]
		refused s EINVAL put "$SESSIONS/s/$attr" -1
		refused s EINVAL put "$SESSIONS/s/$attr" much
		refused s ERANGE put "$SESSIONS/s/$attr" 99999999999T
		[[ $(session_get s "$attr") -eq $((3 << 30)) ]]
	done
	session_take s
	refused s EINVAL put "$SESSIONS/s/diff_limit" 4G
	put "$SESSIONS/s/diff_low" 1M
	session_destroy s
	# A limit means nothing to a device, nor to what is chosen for it.
	session_make s "$(disk 2)" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 16M
	session_take s
	[[ $(session_get s diff_low) -eq $(($(session_get s diff_size) / 10)) ]]
	session_release s
	told=$(log_since | grep -c low_space || true)
	put "$SESSIONS/s/diff_limit" 1T
	session_take s
	[[ $(session_get s diff_low) -eq $(($(session_get s diff_size) / 10)) ]]
	[[ $(session_get s diff_limit) -eq $((1 << 40)) ]]
	[[ $(log_since | grep -c low_space) -eq $told ]] || fail 'low space on a device that is empty'
	session_destroy s
}

@test "interface: diff_size and diff_used" {
	usual
	[[ $(session_get s diff_size) -eq 0 ]]
	[[ $(session_get s diff_used) -eq 0 ]]
	session_take s
	[[ $(session_get s diff_size) -gt 1000000000 ]]
	[[ $(session_get s diff_size) -le $((1 << 30)) ]]
	[[ $(session_get s diff_used) -ge 0 ]]
	[[ $(session_get s diff_used) -le $(session_get s diff_size) ]]
	session_release s
	[[ $(session_get s diff_size) -eq 0 ]]
	session_destroy s
}

@test "interface: state, of the session and its snapshots" {
	usual
	[[ $(session_get s state) == configured ]]
	[[ $(session_get s s1/state) == configured ]]
	[[ $(session_get s active) == 0 ]]
	session_take s
	[[ $(session_get s state) == active ]]
	[[ $(session_get s s1/state) == active ]]
	[[ $(session_get s active) == 1 ]]
	[[ $(stat_of "$(image_of s s1)" state) == active ]]
	session_release s
	[[ $(session_get s state) == configured ]]
	[[ $(session_get s s1/state) == configured ]]
	[[ $(session_get s active) == 0 ]]
	session_destroy s
}

@test "interface: hold_us and frozen_us are there after a take" {
	usual
	[[ $(session_get s hold_us) -eq 0 ]]
	[[ $(session_get s frozen_us) -eq 0 ]]
	session_take s
	[[ $(session_get s hold_us) -gt 0 ]]
	[[ $(session_get s frozen_us) -ge $(session_get s hold_us) ]]
	session_release s
	[[ $(session_get s hold_us) -gt 0 ]]
	session_destroy s
}

@test "interface: frozen lists the file system that was frozen" {
	mkfs.ext4 -q "$(disk 5)"
	mount_test "$(disk 5)" fs
	session_make s "$(disk 2)" "$(disk 5)" "$(disk 1)"
	[[ -z $(session_get s s1/frozen) ]]
	session_take s
	[[ $(session_get s s1/frozen) == "$(major_minor "$(disk 5)")" ]]
	[[ -z $(session_get s s2/frozen) ]]
	touch /mnt/test-fs/thawed
	session_destroy s
}

@test "interface: error is empty, then the last refusal, and empty after a take" {
	usual
	[[ -z $(session_get s error) ]]
	[[ -z $(session_get s s1/error) ]]
	refuses ENOENT put "$SESSIONS/s/s1/device" /dev/nowhere
	[[ $(session_get s s1/error) == 'ENOENT: '*/dev/nowhere* ]]
	refuses ENOTBLK put "$SESSIONS/s/s1/device" /dev/null
	[[ $(session_get s s1/error) == 'ENOTBLK: '*/dev/null* ]]
	refuses ENOENT put "$SESSIONS/s/diff_file" /dev/nothing
	[[ $(session_get s error) == 'ENOENT: '*/dev/nothing* ]]
	session_take s
	[[ -z $(session_get s error) ]]
	[[ -z $(session_get s s1/error) ]]
	session_destroy s
}

@test "interface: active 0 of an inactive session is fine" {
	usual
	put "$SESSIONS/s/active" 0
	session_take s
	session_release s
	put "$SESSIONS/s/active" 0
	[[ -z $(session_get s error) ]]
	session_destroy s
}

@test "interface: a session that was released can be changed and taken again" {
	usual
	session_take s
	session_release s
	put "$SESSIONS/s/s1/device" "$(disk 3)"
	mkdir "$SESSIONS/s/more"
	put "$SESSIONS/s/more/device" "$(disk 1)"
	put "$SESSIONS/s/diff_file" "$(disk 4)"
	session_take s
	[[ $(stat_of "$(image_of s s1)" origin) == "$(major_minor "$(disk 3)")" ]]
	[[ $(stat_of "$(image_of s more)" origin) == "$(major_minor "$(disk 1)")" ]]
	session_destroy s
}

@test "interface: a device that was replaced in one snapshot is free for another" {
	usual
	put "$SESSIONS/s/s1/device" "$(disk 3)"
	mkdir "$SESSIONS/s/b"
	put "$SESSIONS/s/b/device" "$(disk 1)"
	session_take s
	session_destroy s
}

@test "interface: the attributes that there are, and no others, with their modes" {
	local sorted
	usual
	run -0 find "$SESSIONS/s" -maxdepth 1 -type f -printf '%m %f\n'
	sorted=$(sort <<<"$output" | paste -sd' ')
	[[ $sorted == "444 diff_size 444 diff_used 444 error 444 frozen_us 444 hold_us 444 state 644 active 644 diff_file 644 diff_limit 644 diff_low" ]]
	run -0 find "$SESSIONS/s/s1" -type f -printf '%m %f\n'
	sorted=$(sort <<<"$output" | paste -sd' ')
	[[ $sorted == "444 error 444 frozen 444 image 444 state 644 chunk_size 644 device 644 discard" ]]
	session_destroy s
}

# --- sysfs -----------------------------------------------------------------------------------------------------------

@test "interface: the image's attributes are all there at its add event" {
	local name copy=$BATS_TEST_TMPDIR/copy rule=/run/udev/rules.d/99-test.rules
	mkdir -p "$copy" /run/udev/rules.d
	cat >"$BATS_TEST_TMPDIR/program" <<-END
		#!/bin/sh
		cp -r /sys\$1/blksnap/. $copy/ 2>$copy.err
	END
	chmod +x "$BATS_TEST_TMPDIR/program"
	echo "ACTION==\"add\", KERNEL==\"blksnap[0-9]*\", ENV{DEVTYPE}==\"disk\", RUN+=\"$BATS_TEST_TMPDIR/program \$devpath\"" >"$rule"
	udevadm control --reload
	defer udevadm control --reload
	defer rm -f "$rule"

	session_of "$(disk 2)" "$(disk 1)"
	for name in session snapshot origin state error chunk_size chunks chunks_preserved chunks_in_memory \
		chunks_stored map_entries map_bytes memory_bytes origin_read_bytes diff_written_bytes diff_writes \
		writes_held writes_passed writes_joined held_us_max image_reads_origin image_reads_diff \
		image_reads_memory image_reads_repeated chunks_written written discards_dropped; do
		[[ -e $copy/$name ]] || fail "no $name: $(ls "$copy") $(cat "$copy.err")"
		case $name in
		session) [[ $(cat "$copy/$name") == s ]] ;;
		snapshot) [[ $(cat "$copy/$name") == s1 ]] ;;
		origin) [[ $(cat "$copy/$name") == "$(major_minor "$(disk 1)")" ]] ;;
		state) [[ $(cat "$copy/$name") == active ]] ;;
		error) [[ ! -s $copy/$name ]] ;;
		written) cmp "$copy/$name" <(head -c 32768 /dev/zero) ;;
		*) [[ $(cat "$copy/$name") =~ ^[0-9]+$ ]] ;;
		esac
	done
	[[ $(cat "$copy/chunks") -eq 262144 ]]
	session_destroy s
}

@test "interface: the image's attributes cannot be written" {
	local file
	session_of "$(disk 2)" "$(disk 1)"
	for file in "/sys/block/$(basename "$(image_of s s1)")/blksnap"/*; do
		[[ $(stat -c %a "$file") == 444 ]]
	done
	session_destroy s
}

@test "interface: udev knows session, snapshot and origin of an image" {
	local image
	session_of "$(disk 2)" "$(disk 1)"
	image=$(image_of s s1)
	udevadm trigger --action=change --settle "$image"
	run -0 udevadm info --query=property "$image"
	grep -qx BLKSNAP_SESSION=s <<<"$output"
	grep -qx BLKSNAP_SNAPSHOT=s1 <<<"$output"
	grep -qx "BLKSNAP_ORIGIN=$(major_minor "$(disk 1)")" <<<"$output"
	session_destroy s
}

# --- names -----------------------------------------------------------------------------------------------------------

@test "interface: names that are fine, of sessions and snapshots" {
	local name long
	long=$(printf 'n%.0s' {1..64})
	for name in a 0 "$long" a._:+-9 x-part part1 x-part1a x-par1 +x; do
		mkdir "$SESSIONS/$name" "$SESSIONS/$name/$name"
		rmdir "$SESSIONS/$name/$name" "$SESSIONS/$name"
	done
	session_make "$long" "$(disk 2)"
	mkdir "$SESSIONS/$long/$long"
	put "$SESSIONS/$long/$long/device" "$(disk 1)"
	session_take "$long"
	[[ -b /dev/blksnap/$long/$long ]]
	session_destroy "$long"
}

# bad_names NAME...: refused as a session's and as a snapshot's.
bad_names() {
	local name
	mkdir "$SESSIONS/s"
	for name; do
		logged_refusal EINVAL mkdir "$SESSIONS/$name"
		refused s EINVAL mkdir "$SESSIONS/s/$name"
	done
	session_destroy s
}

@test "interface: a name with a space (EINVAL)" {
	bad_names 'a b'
}

@test "interface: a name that begins with a dot (EINVAL)" {
	bad_names .x
}

@test "interface: a name that ends like a partition (EINVAL)" {
	bad_names x-part1 a-part12
}

@test "interface: a name of 65 characters (EINVAL)" {
	bad_names "$(printf 'n%.0s' {1..65})"
}

@test "interface: a name of 255 characters (EINVAL)" {
	bad_names "$(printf 'n%.0s' {1..255})"
}

@test "interface: a name that is not ASCII (EINVAL)" {
	bad_names ä
}

@test "interface: a name with a comma, a percent sign, a quote, a backslash (EINVAL)" {
	bad_names 'a,b' 'a%s%n' "a'b" 'a\b'
}

@test "interface: a name with a newline (EINVAL), which cannot forge a line of the log" {
	bad_names $'a\nblksnap: a lie'
	run ! log_has '^blksnap: a lie'
}

@test "interface: the same name twice (EEXIST)" {
	usual
	silently_refused EEXIST mkdir "$SESSIONS/s"
	silently_refused EEXIST mkdir "$SESSIONS/s/s1"
	session_destroy s
}

# --- bad values ------------------------------------------------------------------------------------------------------

@test "interface: device that does not exist (ENOENT)" {
	usual
	refused s/s1 ENOENT put "$SESSIONS/s/s1/device" /dev/nowhere
	session_destroy s
}

@test "interface: device that is a directory (ENOTBLK)" {
	usual
	refused s/s1 ENOTBLK put "$SESSIONS/s/s1/device" /dev
	session_destroy s
}

@test "interface: device that is a character device (ENOTBLK)" {
	usual
	refused s/s1 ENOTBLK put "$SESSIONS/s/s1/device" /dev/zero
	session_destroy s
}

@test "interface: device that is a regular file (ENOTBLK)" {
	usual
	refused s/s1 ENOTBLK put "$SESSIONS/s/s1/device" "$KO"
	session_destroy s
}

@test "interface: device below something that is not a directory (ENOTDIR)" {
	usual
	refused s/s1 ENOTDIR put "$SESSIONS/s/s1/device" "$(disk 3)/x"
	session_destroy s
}

@test "interface: a node without a device behind it is refused" {
	usual
	mknod "$BATS_TEST_TMPDIR/node" b 240 77
	# tmpfs of the machine is mounted nodev: not for devices at all
	refused s/s1 EACCES put "$SESSIONS/s/s1/device" "$BATS_TEST_TMPDIR/node"
	mknod /dev/test-node b 240 77
	defer rm -f /dev/test-node
	refused s/s1 ENXIO put "$SESSIONS/s/s1/device" /dev/test-node
	session_destroy s
}

@test "interface: an empty path (EINVAL)" {
	usual
	refused s/s1 EINVAL put "$SESSIONS/s/s1/device" ''
	refused s EINVAL put "$SESSIONS/s/diff_file" ''
	session_destroy s
}

@test "interface: the same origin twice, also by another path (EEXIST)" {
	usual
	mkdir "$SESSIONS/s/b"
	refused s/b EEXIST put "$SESSIONS/s/b/device" "$(disk 1)"
	refused s/b EEXIST put "$SESSIONS/s/b/device" /dev/disk/by-id/virtio-t1
	put "$SESSIONS/s/s1/device" "$(disk 1)"
	session_destroy s
}

@test "interface: diff_file that cannot be found (ENOENT), or in no directory" {
	usual
	refused s ENOENT put "$SESSIONS/s/diff_file" /nowhere/diff
	refused s ENOENT put "$SESSIONS/s/diff_file" /dev/nowhere
	session_destroy s
}

@test "interface: diff_file that is a file or a directory, without these features (EOPNOTSUPP)" {
	usual
	grep -qx diff-file "$CONFIG/features" || refused s EOPNOTSUPP put "$SESSIONS/s/diff_file" "$KO"
	grep -qx diff-dir "$CONFIG/features" || refused s EOPNOTSUPP put "$SESSIONS/s/diff_file" /root
	session_destroy s
}

# bad_chunk_sizes ERRNO VALUE...
bad_chunk_sizes() {
	local errno=$1 value
	shift
	usual
	put "$SESSIONS/s/s1/chunk_size" 8K
	for value; do
		refused s/s1 "$errno" put "$SESSIONS/s/s1/chunk_size" "$value" || fail "with the value '$value'" || return
	done
	[[ $(cat "$SESSIONS/s/s1/chunk_size") -eq 8192 ]]
	session_destroy s
}

@test "interface: chunk_size that is no power of two (EINVAL)" {
	bad_chunk_sizes EINVAL 4095 5000 12K
}

@test "interface: chunk_size that is too small or too large (EINVAL)" {
	bad_chunk_sizes EINVAL 2048 1 128M 1G 1T 4294967296
}

@test "interface: chunk_size that is no number (EINVAL)" {
	bad_chunk_sizes EINVAL 1x -1 '' K 0x1000 4KB 4.0K '4 K' ' 4096' '4096 ' +4096 4KK
}

@test "interface: chunk_size that no number can hold (ERANGE)" {
	bad_chunk_sizes ERANGE 18446744073709551616 18446744073709551615K 16777216T
}

@test "interface: chunk_size of more than a quarter of memory_limit (EINVAL at the take)" {
	put /sys/module/blksnap/parameters/memory_limit 4M
	session_make s "$(disk 2)" "$(disk 1)" "$(disk 3)"
	put "$SESSIONS/s/s2/chunk_size" 2M
	refused_take s EINVAL
	[[ $(cat "$SESSIONS/s/s2/error") == 'EINVAL: '* ]]
	put "$SESSIONS/s/s2/chunk_size" 1M
	session_take s
	session_destroy s
}

@test "interface: discard that is neither (EINVAL)" {
	usual
	refused s/s1 EINVAL put "$SESSIONS/s/s1/discard" maybe
	refused s/s1 EINVAL put "$SESSIONS/s/s1/discard" dro
	refused s/s1 EINVAL put "$SESSIONS/s/s1/discard" drops
	refused s/s1 EINVAL put "$SESSIONS/s/s1/discard" ''
	session_destroy s
}

@test "interface: active that is neither (EINVAL)" {
	usual
	refused s EINVAL put "$SESSIONS/s/active" 2
	refused s EINVAL put "$SESSIONS/s/active" -1
	refused s EINVAL put "$SESSIONS/s/active" 11
	refused s EINVAL put "$SESSIONS/s/active" yes
	refused s EINVAL put "$SESSIONS/s/active" ''
	session_destroy s
}

@test "interface: a refusal's text is one line, whatever was written" {
	usual
	refused s/s1 ENOENT put "$SESSIONS/s/s1/device" $'/dev/none\nblksnap: a lie'
	[[ $(wc -l <"$SESSIONS/s/s1/error") -eq 1 ]]
	run ! log_has '^blksnap: a lie'
	session_destroy s
}

# --- long values -----------------------------------------------------------------------------------------------------

# long_path BYTES: prints a path of so many bytes, with components of 9.
long_path() {
	local path
	path=$(printf '/%.0snowhere00' $(seq 1 500))
	printf '%s' "${path:0:$1}"
}

@test "interface: a value of 4094 bytes is looked for like any path (ENOENT)" {
	usual
	refused s/s1 ENOENT put -n "$SESSIONS/s/s1/device" "$(long_path 4094)"
	refused s/s1 ENOENT put "$SESSIONS/s/s1/device" "$(long_path 4093)"
	refused s ENOENT put -n "$SESSIONS/s/diff_file" "$(long_path 4094)"
	refused s/s1 ENAMETOOLONG put -n "$SESSIONS/s/s1/device" "/$(printf 'n%.0s' {1..4093})"
	session_destroy s
}

@test "interface: a value of 4094 bytes and its newline is one of 4095 (ENAMETOOLONG)" {
	usual
	refused s/s1 ENAMETOOLONG put "$SESSIONS/s/s1/device" "$(long_path 4094)"
	session_destroy s
}

@test "interface: a value of 4095 bytes or more (ENAMETOOLONG)" {
	usual
	refused s/s1 ENAMETOOLONG put -n "$SESSIONS/s/s1/device" "$(long_path 4095)"
	refused s/s1 ENAMETOOLONG put "$SESSIONS/s/s1/device" "$(long_path 4095)"
	refused s/s1 ENAMETOOLONG put -n "$SESSIONS/s/s1/device" "$(long_path 4096)"
	refused s/s1 ENAMETOOLONG put "$SESSIONS/s/s1/chunk_size" "$(printf '%05000d' 8192)"
	refused s ENAMETOOLONG put "$SESSIONS/s/diff_file" "$(printf 'n%.0s' {1..5000})"
	refused s ENAMETOOLONG put "$SESSIONS/s/active" "$(printf '%05000d' 1)"
	session_destroy s
}

# pieces FILE PIECE...: writes each piece with one write(2) of the same open file, and prints the errnos, or "ok".
# A piece "N*C" is the character C N times.
pieces() {
	python3 -c '
import errno, os, sys
fd = os.open(sys.argv[1], os.O_WRONLY)
for piece in sys.argv[2:]:
    if "*" in piece:
        count, char = piece.split("*")
        piece = char * int(count)
    try:
        os.write(fd, piece.encode())
        print("ok")
    except OSError as error:
        print(errno.errorcode[error.errno])
' "$@"
}

# tail_test PIECE...: these pieces leave chunk_size as it is, and do not spoil a fresh open.
tail_test() {
	local file=$SESSIONS/s/s1/chunk_size
	usual
	put "$file" 64K
	run -0 pieces "$file" "$@"
	[[ ${lines[0]} == ENAMETOOLONG ]] || fail "the first piece: $output"
	[[ $output != *ok* ]] || fail "a tail was taken: $output"
	[[ $(cat "$file") -eq 65536 ]]
	put "$file" 8K
	[[ $(cat "$file") -eq 8192 ]]
	session_destroy s
}

@test "interface: the tail of a value of 5000 bytes has no effect" {
	tail_test '5000*0' $'8192\n'
}

@test "interface: the tail of a value of exactly 4095 bytes has no effect" {
	tail_test '4095*0' $'8192\n'
}

@test "interface: the tail of a value of spaces has no effect" {
	tail_test '4095* ' 4096
}

@test "interface: the tail of a value of several full pieces has no effect" {
	tail_test '4095*0' '4095*0' $'8192\n'
}

@test "interface: the tail of a long value does not take a session" {
	usual
	run -0 pieces "$SESSIONS/s/active" '4095*0' $'1\n'
	[[ $output == $'ENAMETOOLONG\n'* && $output != *ok* ]]
	[[ $(session_get s active) == 0 ]]
	session_take s
	run -0 pieces "$SESSIONS/s/active" '5000*0' $'0\n'
	[[ $output != *ok* ]]
	[[ $(session_get s active) == 1 ]]
	session_destroy s
}

@test "interface: several good values by one open file" {
	usual
	run -0 pieces "$SESSIONS/s/s1/chunk_size" 8192 4096 $'64K\n'
	[[ $output == $'ok\nok\nok' ]]
	[[ $(cat "$SESSIONS/s/s1/chunk_size") -eq 65536 ]]
	session_destroy s
}

# --- takes that are refused ------------------------------------------------------------------------------------------

@test "interface: take without a snapshot (EINVAL)" {
	mkdir "$SESSIONS/s"
	put "$SESSIONS/s/diff_file" "$(disk 2)"
	refused_take s EINVAL
	session_destroy s
}

@test "interface: take without a device (EINVAL)" {
	usual
	mkdir "$SESSIONS/s/b"
	refused_take s EINVAL
	[[ $(session_get s b/error) == 'EINVAL: '* ]]
	session_destroy s
}

@test "interface: take without a diff_file (EINVAL)" {
	session_make s '' "$(disk 1)"
	refused_take s EINVAL
	session_destroy s
}

@test "interface: take with a diff that is mounted (EBUSY)" {
	mkfs.ext4 -q "$(disk 5)"
	mount_test "$(disk 5)" fs
	session_make s "$(disk 5)" "$(disk 1)"
	refused_take s EBUSY
	umount /mnt/test-fs
	session_take s
	session_destroy s
}

@test "interface: take with a diff that another program has opened exclusively (EBUSY)" {
	dm_linear holder "$(disk 2)" 2048
	usual
	refused_take s EBUSY
	session_destroy s
}

@test "interface: take with a diff that another session uses (EBUSY)" {
	usual
	session_take s
	session_make other "$(disk 2)" "$(disk 3)"
	refused_take other EBUSY
	session_destroy s
	session_take other
	session_destroy other
}

@test "interface: take with a diff that is an origin of the session (EBUSY)" {
	session_make s "$(disk 1)" "$(disk 1)"
	refused_take s EBUSY
	put "$SESSIONS/s/diff_file" /dev/disk/by-id/virtio-t1
	refused_take s EBUSY
	session_destroy s
}

@test "interface: take with a diff that is an origin of another active session (EBUSY)" {
	usual
	session_take s
	session_make other "$(disk 1)" "$(disk 3)"
	refused_take other EBUSY
	session_destroy s
	session_take other
	session_destroy other
}

@test "interface: take with a diff that is a partition of an origin (EBUSY)" {
	partition "$(disk 5)" 64M 64M
	session_make s "$(part "$(disk 5)" 1)" "$(disk 5)"
	refused_take s EBUSY
	session_destroy s
	session_of "$(disk 2)" "$(disk 5)"
	session_make other "$(part "$(disk 5)" 2)" "$(disk 3)"
	refused_take other EBUSY
	session_destroy other
	session_destroy s
}

@test "interface: take with a diff that is the whole disk of an origin (EBUSY)" {
	partition "$(disk 5)" 64M 64M
	session_make s "$(disk 5)" "$(part "$(disk 5)" 1)"
	refused_take s EBUSY
	session_destroy s
	session_of "$(disk 2)" "$(part "$(disk 5)" 2)"
	session_make other "$(disk 5)" "$(disk 3)"
	refused_take other EBUSY
	session_destroy other
	session_destroy s
}

@test "interface: take with a diff on another partition of an origin's disk is fine" {
	partition "$(disk 5)" 64M 64M
	session_of "$(part "$(disk 5)" 2)" "$(part "$(disk 5)" 1)"
	session_destroy s
}

@test "interface: take of an origin that holds another session's diff (EBUSY)" {
	usual
	session_take s
	session_make other "$(disk 4)" "$(disk 2)"
	refused_take other EBUSY
	session_destroy s
	session_take other
	session_destroy other
}

@test "interface: take of a disk of which a partition holds another session's diff (EBUSY)" {
	partition "$(disk 5)" 64M 64M
	session_of "$(part "$(disk 5)" 1)" "$(disk 1)"
	session_make other "$(disk 4)" "$(disk 5)"
	refused_take other EBUSY
	put "$SESSIONS/other/s1/device" "$(part "$(disk 5)" 2)"
	session_take other
	session_destroy other
	session_destroy s
}

@test "interface: take with a diff of larger blocks than the origin (EINVAL)" {
	session_make s "$(disk 6)" "$(disk 1)"
	refused_take s EINVAL
	session_destroy s
	session_make s "$(disk 5)" "$(disk 6)"
	session_take s
	session_destroy s
	session_make s "$(disk 6)" "$(disk 5)"
	refused_take s EINVAL
	session_destroy s
}

@test "interface: take with a diff that is read-only (EROFS)" {
	loop_make 64M -r
	session_make s "$LOOP" "$(disk 1)"
	refused_take s EROFS
	session_destroy s
}

@test "interface: take with a diff that is too small (ENOSPC)" {
	loop_make 2M
	session_make s "$LOOP" "$(disk 1)"
	refused_take s ENOSPC
	session_destroy s
}

@test "interface: take of an origin that is gone since it was configured is refused" {
	dmsetup create gone --table "0 2048 linear $(disk 3) 0"
	session_make s "$(disk 2)" /dev/mapper/gone "$(disk 1)"
	dmsetup remove gone
	settle
	refused_take s ENXIO
	session_destroy s
}

@test "interface: take of an origin that does not become quiet (ETIMEDOUT)" {
	local writer passed
	echo 1000 >/sys/module/blksnap/parameters/take_timeout_ms
	dm_linear slow "$(disk 1)" 65536
	# A write from before the first take could not be counted: so there is a session, which has preserved the place.
	session_of "$(disk 2)" /dev/mapper/slow
	session_make other "$(disk 4)" "$(disk 3)" /dev/mapper/slow
	dd if=/dev/urandom of=/dev/mapper/slow bs=4096 count=1 oflag=direct status=none
	# Or else udev may be reading it when it is suspended, and the next write wait for that page.
	settle
	dmsetup suspend --nolockfs --noflush slow
	defer dmsetup resume slow
	passed=$(stat_of "$(image_of s s1)" writes_passed)
	dd if=/dev/urandom of=/dev/mapper/slow bs=4096 count=1 oflag=direct status=none &
	writer=$!
	wait_until 20 has_passed_more "$(image_of s s1)" "$passed"
	refused_take_timeout other
	kill -0 "$writer"
	dmsetup resume slow
	wait "$writer"
	[[ $(session_get s state) == active ]]
	cmp -n 4096 "$(image_of s s1)" /dev/zero
	session_take other
	[[ $(session_get other hold_us) -lt 1000000 ]]
	session_destroy other
	session_destroy s
}

# The times of the last take may have changed, and nothing else.
refused_take_timeout() {
	local start=$SECONDS
	refuses ETIMEDOUT put "$SESSIONS/$1/active" 1
	[[ $((SECONDS - start)) -le 8 ]] || fail "the take was refused after $((SECONDS - start)) s only"
	[[ $(session_get "$1" state) == configured ]]
	[[ $(session_get "$1" error) == 'ETIMEDOUT: '* ]]
	[[ $(log_since | grep -c '^blksnap: .*ETIMEDOUT') -eq 1 ]]
	[[ $(find /sys/block -name 'blksnap*' | wc -l) -eq 1 ]]
}

# --- while active ----------------------------------------------------------------------------------------------------

@test "interface: attributes are frozen while active (EBUSY)" {
	usual
	session_take s
	refused s EBUSY put "$SESSIONS/s/diff_file" "$(disk 3)"
	refused s/s1 EBUSY put "$SESSIONS/s/s1/device" "$(disk 3)"
	refused s/s1 EBUSY put "$SESSIONS/s/s1/chunk_size" 64K
	refused s/s1 EBUSY put "$SESSIONS/s/s1/discard" preserve
	session_destroy s
}

@test "interface: active 1 twice (EBUSY)" {
	usual
	session_take s
	refused s EBUSY put "$SESSIONS/s/active" 1
	[[ $(session_get s state) == active ]]
	session_destroy s
}

@test "interface: mkdir of a snapshot while active (EBUSY)" {
	usual
	session_take s
	refused s EBUSY mkdir "$SESSIONS/s/more"
	session_destroy s
}

@test "interface: a path that leads into configfs (ENOENT, EINVAL)" {
	local path
	usual
	cd "$SESSIONS/s"
	refused s/s1 ENOENT put s1/device missing
	refused s/s1 ENOENT put s1/device ./s1/error
	refused s ENOENT put diff_file active
	refused s ENOENT put diff_file .//active
	refused s ENOENT put diff_file ../s/active
	refused s ENOENT put diff_file s1/../../s/active
	put s1/device "../../../../../../dev/$(basename "$(readlink -e "$(disk 1)")")"
	cd /
	refused s ENOENT put "$SESSIONS/s/diff_file" "$SESSIONS/s"
	refused s ENOENT put "$SESSIONS/s/diff_file" "$SESSIONS/s/new"
	for path in "/$SESSIONS/s" "/.$SESSIONS/s" "${SESSIONS/kernel//kernel/.}/s" "/sys/..$SESSIONS/s" "/../sys/kernel/../kernel/config/blksnap/version"; do
		refused s ENOENT put "$SESSIONS/s/diff_file" "$path"
	done
	put "$SESSIONS/s/s1/device" "/sys/kernel/config/../../../$(disk 1)"
	# Elsewhere it is found out by looking, in an order of locks that the debug kernel does not like; no rmdir is under way here.
	if [[ ! -e /proc/lockdep ]]; then
		mkdir -p /mnt/test-configfs
		mount --bind "$SESSIONS" /mnt/test-configfs
		defer umount /mnt/test-configfs
		refused s EINVAL put "$SESSIONS/s/diff_file" /mnt/test-configfs/s
		refused s EINVAL put "$SESSIONS/s/diff_file" /mnt/test-configfs/s/active
		refused s ENOENT put "$SESSIONS/s/diff_file" /mnt/test-configfs/s/new
	fi
	session_destroy s
}

@test "interface: rmdir of a session and of a snapshot while active (EBUSY)" {
	usual
	session_take s
	silently_refused EBUSY rmdir "$SESSIONS/s/s1"
	run ! rmdir "$SESSIONS/s"
	[[ -d $SESSIONS/s/s1 ]]
	[[ $(session_get s state) == active ]]
	session_destroy s
}

@test "interface: rmmod while a directory exists, and while active" {
	mkdir "$SESSIONS/s"
	run ! rmmod blksnap
	[[ $output == *'in use'* ]]
	rmdir "$SESSIONS/s"
	usual
	session_take s
	run ! rmmod blksnap
	[[ $output == *'in use'* ]]
	session_destroy s
	module_unload
	module_load
}

# --- devices that cannot be followed ---------------------------------------------------------------------------------

@test "interface: a zoned device (EOPNOTSUPP)" {
	null_blk_make nullz zoned=1 zone_size=4 size=64 memory_backed=1
	usual
	refused s/s1 EOPNOTSUPP put "$SESSIONS/s/s1/device" /dev/nullz
	session_destroy s
	session_make s /dev/nullz "$(disk 1)"
	refused_take s EOPNOTSUPP
	session_destroy s
}

@test "interface: logical blocks of more than 4 KiB, where the kernel has them (EOPNOTSUPP)" {
	loop_make 64M --sector-size 16384 || skip 'not on this kernel'
	usual
	refused s/s1 EOPNOTSUPP put "$SESSIONS/s/s1/device" "$LOOP"
	session_destroy s
}

@test "interface: a size that is no multiple of the logical block (EOPNOTSUPP), of an origin and to be tracked" {
	truncate -s $(((1 << 20) + 512)) "$BATS_TEST_TMPDIR/odd"
	LOOP=$(losetup -f --show --sector-size 4096 "$BATS_TEST_TMPDIR/odd")
	defer losetup -d "$LOOP"
	[[ $(blockdev --getsz "$LOOP") -eq 2049 ]] || skip 'not on this kernel'
	usual
	refused s/s1 EOPNOTSUPP put "$SESSIONS/s/s1/device" "$LOOP"
	mkdir "$TRACKERS/t"
	refuses EOPNOTSUPP put "$TRACKERS/t/device" "$LOOP"
	rmdir "$TRACKERS/t"
	session_destroy s
}

@test "interface: a number that is another device's by now is not taken for the one that was named (ENODEV)" {
	local number
	usual
	mkdir "$TRACKERS/t" "$TRACKERS/u"
	session_make d "" "$(disk 1)"
	dmsetup create before --table "0 65536 linear $(disk 3) 0"
	number=$(major_minor /dev/mapper/before)
	put "$SESSIONS/s/s1/device" /dev/mapper/before
	put "$SESSIONS/d/diff_file" /dev/mapper/before
	put "$TRACKERS/t/device" /dev/mapper/before
	session_take d
	session_release d
	settle
	dmsetup remove --retry before
	dm_linear after "$(disk 4)" 65536
	[[ $(major_minor /dev/mapper/after) == "$number" ]]
	refused_take s ENODEV
	refused_take d ENODEV
	cmp -n 33554432 "$(disk 4)" /dev/zero
	# A tracker begins anew with what is there, unless another one has that.
	put "$TRACKERS/u/device" /dev/mapper/after
	logged_refusal EEXIST put "$TRACKERS/t/enabled" 1
	rmdir "$TRACKERS/u"
	put "$TRACKERS/t/enabled" 1
	put "$TRACKERS/t/enabled" 0
	# It is named again, by what it is called now.
	put "$SESSIONS/d/diff_file" /dev/mapper/after
	session_take d
	session_destroy d
	put "$SESSIONS/s/s1/device" /dev/mapper/after
	session_take s
	session_destroy s
	rmdir "$TRACKERS/t"
}

@test "interface: a device with an integrity profile (EOPNOTSUPP) (lesson 14)" {
	local dir
	modprobe scsi_debug dif=1 dix=1 dev_size_mb=16
	defer modprobe -r scsi_debug
	settle
	dir=$(echo /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/*)
	[[ -b /dev/${dir##*/} ]]
	usual
	refused s/s1 EOPNOTSUPP put "$SESSIONS/s/s1/device" "/dev/${dir##*/}"
	session_destroy s
	wait_until 10 unused_by_udev "/dev/${dir##*/}"
}

unused_by_udev() {
	settle
	! fuser -s "$1"
}

@test "interface: an image as a device (EOPNOTSUPP), and as a diff (EXDEV)" {
	usual
	session_take s
	session_make other "$(image_of s s1)" "$(disk 3)"
	refused_take other EXDEV
	refused other/s1 EOPNOTSUPP put "$SESSIONS/other/s1/device" "$(image_of s s1)"
	session_destroy other
	session_destroy s
}

# Pages come and go without block I/O: before Linux 6.3 all, since then what was swapped out and is needed no more.
@test "interface: zram (EOPNOTSUPP), as an origin and to be tracked" {
	zram_make 32M
	usual
	refused s/s1 EOPNOTSUPP put "$SESSIONS/s/s1/device" "$ZRAM"
	session_destroy s
	mkdir "$TRACKERS/t"
	refuses EOPNOTSUPP put "$TRACKERS/t/device" "$ZRAM"
	rmdir "$TRACKERS/t"
}

@test "interface: a device that is written without block I/O (DAX), as an origin and to be tracked (EOPNOTSUPP)" {
	local text='a DAX device is written without block I/O'
	modinfo nd_e820 nd_pmem >/dev/null 2>&1 || skip 'this kernel has no driver for persistent memory'
	# Memory that the kernel was told to take for such (tests/run).
	modprobe -a nd_e820 nd_pmem
	settle
	[[ $(cat /sys/block/pmem0/queue/dax) == 1 ]]
	usual
	refused s/s1 EOPNOTSUPP put "$SESSIONS/s/s1/device" /dev/pmem0
	[[ $(session_get s s1/error) == *"$text" ]]
	mkdir "$TRACKERS/t"
	logged_refusal EOPNOTSUPP put "$TRACKERS/t/device" /dev/pmem0
	[[ $(cat "$TRACKERS/t/error") == *"$text" ]]
	rmdir "$TRACKERS/t"
	session_destroy s
}
