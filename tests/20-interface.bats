#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# What an administrator types and reads: each attribute as it should be, and each refusal with its errno, its one line
# in the log, its text in `error`, and nothing changed.

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so is its `output`
load lib/common
load lib/devices

setup() {
	common_setup
}

teardown() {
	common_teardown
}

# --- what is common to refusals --------------------------------------------------------------------------------------

# Everything that is configured, one value a line, in CONFIGURED.
configured() {
	local file lines
	CONFIGURED=''
	shopt -s globstar
	for file in "$SESSIONS"/** "$TRACKERS"/**; do
		CONFIGURED+=$file
		if [[ -f $file && $file != */error ]]; then
			mapfile -t lines <"$file"
			CONFIGURED+="=${lines[*]}"
		fi
		CONFIGURED+=$'\n'
	done
	shopt -u globstar
}

# The lines of this test that the driver logged, in LOGGED.
own_log() {
	local line mine=''
	LOGGED=()
	while IFS= read -r line; do
		case $line in
		*"$COMMON_BEGIN"*) mine=1 LOGGED=() ;;
		'blksnap: '*) [[ -z $mine ]] || LOGGED+=("$line") ;;
		esac
	done < <(dmesg --notime)
}

# silently_refused ERRNO COMMAND...: by the kernel, before it has asked the driver; and nothing changed.
silently_refused() {
	local before
	configured
	before=$CONFIGURED
	refuses "$@" || return
	configured
	[[ $CONFIGURED == "$before" ]] ||
		fail "refused, and yet changed: $(diff <(echo "$before") <(echo "$CONFIGURED"))"
}

# logged_refusal ERRNO COMMAND...: and one line in the log says so.
logged_refusal() {
	local before
	own_log
	before=${#LOGGED[@]}
	silently_refused "$@" || return
	own_log
	[[ ${#LOGGED[@]} -eq $((before + 1)) ]] ||
		fail "not one line in the log, but: $(printf '%s\n' "${LOGGED[@]:before}")"
}

# refused OBJECT ERRNO COMMAND...: and OBJECT's `error` says so as well (OBJECT is SESSION or SESSION/SNAPSHOT).
refused() {
	local object=$1 said=''
	shift
	logged_refusal "$@" || return
	read -r said <"$SESSIONS/$object/error" || true
	[[ $said == "$1: "?* ]] || fail "not a text of $1 in the error file of $object: $said"
}

# refused_take SESSION ERRNO
refused_take() {
	refused "$1" "$2" put "$SESSIONS/$1/active" 1 || return
	[[ $(session_get "$1" state) == configured ]] || fail "the state is $(session_get "$1" state)"
}

# A session with one snapshot of disk 1, and its differences on disk 2.
usual() {
	session_make s "$(disk 2)" "$(disk 1)"
}

# --- the top ---------------------------------------------------------------------------------------------------------

@test "interface: version and features" {
	[[ $(cat "$CONFIG/version") == "$(modinfo -F version "$KO")" ]]
	grep -qx diff-bdev "$CONFIG/features"
	grep -qx overlap "$CONFIG/features"
	[[ -z $(ls "$SESSIONS") ]]
	[[ -z $(ls "$TRACKERS") ]]
	refuses EACCES put "$CONFIG/version" 1 || refuses EPERM put "$CONFIG/version" 1
}

@test "interface: a tracker is refused without the feature cbt (EOPNOTSUPP)" {
	! grep -qx cbt "$CONFIG/features" || skip "it has this feature"
	logged_refusal EOPNOTSUPP mkdir "$TRACKERS/t"
}

@test "interface: module parameters are read and written" {
	local dir=/sys/module/blksnap/parameters limit
	limit=$(cat "$dir/memory_limit")
	[[ $limit -ge 4194304 && $limit -le 268435456 ]]
	put "$dir/memory_limit" 8M
	[[ $(cat "$dir/memory_limit") -eq 8388608 ]]
	refuses EINVAL put "$dir/memory_limit" 1M
	refuses EINVAL put "$dir/memory_limit" much
	refuses EINVAL put "$dir/memory_limit" 1T
	[[ $(cat "$dir/memory_limit") -eq 8388608 ]]
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
	[[ $sorted == "444 diff_size 444 diff_used 444 error 444 frozen_us 444 hold_us 444 state 644 active 644 diff_file" ]]
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
		image_reads_memory image_reads_repeated chunks_written discards_dropped; do
		[[ -e $copy/$name ]] || fail "no $name: $(ls "$copy") $(cat "$copy.err")"
		case $name in
		session) [[ $(cat "$copy/$name") == s ]] ;;
		snapshot) [[ $(cat "$copy/$name") == s1 ]] ;;
		origin) [[ $(cat "$copy/$name") == "$(major_minor "$(disk 1)")" ]] ;;
		state) [[ $(cat "$copy/$name") == active ]] ;;
		error) [[ ! -s $copy/$name ]] ;;
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

# --- bad values ------------------------------------------------------------------------------------------------------

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

@test "interface: discard that is neither (EINVAL)" {
	usual
	refused s/s1 EINVAL put "$SESSIONS/s/s1/discard" maybe
	refused s/s1 EINVAL put "$SESSIONS/s/s1/discard" dro
	refused s/s1 EINVAL put "$SESSIONS/s/s1/discard" drops
	refused s/s1 EINVAL put "$SESSIONS/s/s1/discard" ''
	session_destroy s
}

# --- long values -----------------------------------------------------------------------------------------------------

# long_path BYTES: prints a path of so many bytes, with components of 9.
long_path() {
	local path
	path=$(printf '/%.0snowhere00' $(seq 1 500))
	printf '%s' "${path:0:$1}"
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

# --- takes that are refused ------------------------------------------------------------------------------------------

# The times of the last take may have changed, and nothing else.
refused_take_timeout() {
	local start=$SECONDS
	refuses ETIMEDOUT put "$SESSIONS/$1/active" 1
	[[ $((SECONDS - start)) -le 8 ]] || fail "the take was refused after $((SECONDS - start)) s only"
	[[ $(session_get "$1" state) == configured ]]
	[[ $(session_get "$1" error) == 'ETIMEDOUT: '* ]]
	own_log
	[[ $(printf '%s\n' "${LOGGED[@]}" | grep -c ETIMEDOUT) -eq 1 ]]
	[[ $(find /sys/block -name 'blksnap*' | wc -l) -eq 1 ]]
}

# --- while active ----------------------------------------------------------------------------------------------------

# --- devices that cannot be followed ---------------------------------------------------------------------------------

unused_by_udev() {
	settle
	! fuser -s "$1"
}
