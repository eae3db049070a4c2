#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# The engine under stamped storms: every kind of write, granule and origin, with readers of the image at the places
# that are just being written. The names cite the laws of docs/design.md that a test is for.

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so are its variables
load lib/common
load lib/devices
load lib/stamped

MEMORY_LIMIT=/sys/module/blksnap/parameters/memory_limit

setup() {
	common_setup
}

teardown() {
	common_teardown
}

# stormed ORIGIN DIFF [--length B] OPTION...: filled, taken, stormed, judged, released.
stormed() {
	local origin=$1 diff=$2 length=()
	shift 2
	[[ $1 != --length ]] || length=("${@:1:2}")
	filled "$origin" "${length[@]}" --block "${BLOCK:-512}"
	session_make s "$diff" "$origin"
	[[ -z ${CHUNK:-} ]] || put "$SESSIONS/s/s1/chunk_size" "$CHUNK"
	session_take s
	storm "$origin" "$(image_of s s1)" --block "${BLOCK:-512}" "$@"
	[[ $(session_get s state) == active ]] || fail "$(session_get s error)"
	consistent "$(image_of s s1)"
	[[ $(stat_of "$(image_of s s1)" chunks_preserved) -gt 0 ]]
	session_destroy s
}

# --- ways to write ---------------------------------------------------------------------------------------------------

# --- where preserved data goes ---------------------------------------------------------------------------------------

# --- granules --------------------------------------------------------------------------------------------------------

# granule SIZE OPTION...: in memory, and then stored; at an origin that ends within a granule.
granule() {
	local CHUNK=$1
	shift
	dm_linear odd "$(disk 1)" 65539
	stormed /dev/mapper/odd "$(disk 2)" --max-size 16K "$@"
	echo 4M >"$MEMORY_LIMIT"
	[[ $CHUNK != 4M ]] || echo 16M >"$MEMORY_LIMIT"
	stormed /dev/mapper/odd "$(disk 2)" --max-size 16K "$@"
}

# --- origins ---------------------------------------------------------------------------------------------------------

md_stop() {
	mdadm --stop /dev/md/test
	mdadm --zero-superblock "$(disk 3)" "$(disk 4)"
	settle
}

# --- statistics ------------------------------------------------------------------------------------------------------

@test "engine: statistics: each write is counted once, as held or as passed" {
	local dev name image before after counted
	dev=$(disk 1)
	name=${dev##*/}
	filled "$dev" --length 16M
	session_of "$(disk 2)" "$dev"
	image=$(image_of s s1)
	# Write requests, and those that were merged into others; a flush is counted as a request, too.
	before=$(awk '{ print $5 + $6 - $16 }' "/sys/block/$name/stat")
	storm "$dev" "$image" --length 16M --count 3000 --max-size 32K
	after=$(awk '{ print $5 + $6 - $16 }' "/sys/block/$name/stat")
	counted=$(($(stat_of "$image" writes_held) + $(stat_of "$image" writes_passed)))
	[[ $counted -eq 3000 && $counted -eq $((after - before)) ]] ||
		fail "3000 writes, $counted counted, $((after - before)) by the disk"
	[[ $(stat_of "$image" held_us_max) -gt 0 ]]
	consistent "$image"
	session_destroy s
}

# --- several origins, several sessions -------------------------------------------------------------------------------

log_reaches() {
	[[ -s $1 && $((10#$(<"$1"))) -ge $2 ]]
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
	export WATCHER=$BACKGROUND
	wait_until 20 test -s "$2"
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
	loop_make $(($1 + 2097152))
	filled "$(disk 1)" --length 24M
	filled "$(disk 3)" --length 1M
	session_of "$LOOP" "$(disk 1)" "$(disk 3)"
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

state_is() {
	[[ $(session_get s state) == "$1" ]]
}

# An origin of 32 MiB, with read errors in 8 sectors from sector 20000 on while the option is set; in BAD.
bad_reads() {
	local dir
	modprobe scsi_debug dev_size_mb=32 medium_error_start=20000 medium_error_count=8
	defer modprobe -r scsi_debug
	settle
	dir=$(echo /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/*)
	BAD=/dev/${dir##*/}
	[[ -b $BAD ]]
}

bad_reads_on() {
	echo "$1" >/sys/bus/pseudo/drivers/scsi_debug/opts
}

unused() {
	settle
	! fuser -s "$1"
}

snapshot_is() {
	[[ $(session_get s "$1/state") == "$2" ]]
}
