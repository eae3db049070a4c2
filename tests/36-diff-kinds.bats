#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 18
# A short storm with each kind of difference storage, so that each run of the suites has seen each of them; and the kind
# that is made for tests. The whole suite of the engine with one kind: tests/run --diff KIND tests/30-stamp-engine.bats.

# shellcheck disable=SC2030,SC2031,SC2153 # each test is a subshell, and so are its variables
load lib/common
load lib/devices
load lib/diffs
load lib/memory
load lib/refusals
load lib/stamped

setup() {
	common_setup
	echo 4M >/sys/module/blksnap/parameters/memory_limit
}

teardown() {
	common_teardown
}

# storm_on KIND: all kinds of writes, most of what is preserved stored and read from there; and what is left.
storm_on() {
	local image
	diff_begin "$1"
	filled "$(disk 1)" --length 24M
	session_of "$DIFF" "$(disk 1)"
	image=$(image_of s s1)
	storm "$(disk 1)" "$image" --length 24M --count 4000 --max-size 64K --mode mix
	image_is "$image" --length 24M
	consistent "$image"
	[[ $(session_get s state) == active ]] || fail "$(session_get s error)"
	[[ $(stat_of "$image" chunks_stored) -gt 1000 && $(stat_of "$image" image_reads_diff) -gt 0 ]]
	[[ $(session_get s diff_used) -ge $(($(stat_of "$image" chunks_stored) * 4096)) ]]
	session_destroy s
	[[ $DIFF == /dev/* || $DIFF_KIND == directory || ! -e $DIFF ]]
}

@test "diff kinds: a storm: device" {
	storm_on device
}

@test "diff kinds: a storm: a file on ext4" {
	storm_on ext4
}

@test "diff kinds: a storm: a file on btrfs" {
	storm_on btrfs
}

@test "diff kinds: a storm: a directory" {
	storm_on directory
}

@test "diff kinds: a storm: tmpfs" {
	storm_on tmpfs
}

@test "diff kinds: a storm: memory" {
	storm_on memory
}

@test "diff kinds: a storm: a file on the origin's own disk" {
	storm_on beside
}

# --- memory, which only builds for tests have ------------------------------------------------------------------------

@test "diff kinds: memory: grows by segments, up to diff_limit, then overflows; a limit that is raised takes effect" {
	local image
	diff_begin memory
	session_make s "$DIFF" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 128M
	session_take s
	image=$(image_of s s1)
	[[ $(session_get s diff_size) -eq $((64 << 20)) && $(session_get s diff_used) -eq 0 ]]
	dd if=/dev/urandom of="$(disk 1)" bs=1M count=110 oflag=direct conv=notrunc status=none
	[[ $(session_get s diff_size) -eq $((128 << 20)) ]]
	put "$SESSIONS/s/diff_limit" 192M
	dd if=/dev/urandom of="$(disk 1)" bs=1M count=180 oflag=direct conv=notrunc status=none
	state_is s active || fail "$(session_get s error)"
	[[ $(session_get s diff_size) -eq $((192 << 20)) ]]
	cmp -n $((180 << 20)) "$image" /dev/zero
	dd if=/dev/zero of="$(disk 1)" bs=1M count=300 oflag=direct conv=notrunc status=none
	wait_until 20 state_is s overflow
	[[ $(session_get s error) == "ENOSPC: difference storage full at $((192 << 20)) bytes" ]]
	image_fails "$image"
	session_destroy s
}

@test "diff kinds: memory: a limit of nothing (EINVAL); one of more than there is begins with a part of that" {
	local available
	diff_begin memory
	session_make s "$DIFF" "$(disk 1)"
	put "$SESSIONS/s/diff_limit" 0
	refused_take s EINVAL
	put "$SESSIONS/s/diff_limit" 64G
	put "$SESSIONS/s/diff_low" 256M
	available=$(meminfo MemAvailable)
	session_take s
	state_is s active
	[[ $(session_get s diff_size) -ge $((64 << 20)) && $(session_get s diff_size) -le $((available << 9)) ]]
	session_destroy s
}

@test "diff kinds: memory: no other name stands for it (ENOTDIR)" {
	session_make s '' "$(disk 1)"
	refused s ENOTDIR put "$SESSIONS/s/diff_file" /dev/null/memories
	session_destroy s
}
