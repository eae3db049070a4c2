#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 240
# Machine: --mem 512M
# A machine with little memory, whose swap lies on the origin: more is dirtied than it has, and nothing may be waited for
# that needs memory.

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so are its variables
load lib/common
load lib/devices
load lib/memory
load lib/stamped

setup() {
	common_setup
	long
	[[ ${BLKSNAP_RELEASE:-} != *-debug ]] || skip 'a debug kernel needs more memory'
	[[ $(meminfo MemTotal) -lt $((512 << 10)) ]] || fail "this machine has $(meminfo MemTotal) KiB"
}

teardown() {
	common_teardown
}

# pressed DIFF: three writers dirty 600 MiB, while a program has more memory than is left, so that the kernel can
# only go on by writing: to the origin.
pressed() {
	local origin data image before i code=0 stop=$BATS_TEST_TMPDIR/stop writers=() pages
	origin=$(disk 1)
	partition "$origin" 640M 320M
	data=$(part "$origin" 1)
	filled "$data" --length 600M
	swap_on "$(part "$origin" 2)"
	# The kernel looks for memory all the time, which takes an emulated CPU long. Who waits for ever is noticed as well.
	echo 60000 >/sys/module/blksnap/parameters/hold_limit_ms
	session_make s "$1" "$origin"
	session_take s
	image=$(image_of s s1)
	before=$(swapped_out)
	# As much as there is, so that some of it cannot be here.
	background pages_come_back "$(($(meminfo MemTotal) / 4))" "$stop"
	pages=$BACKGROUND
	for i in 0 1 2; do
		dd if=/dev/zero of="$data" bs=1M seek=$((i * 200)) count=200 conv=notrunc,fsync status=none 3>&- &
		writers+=($!)
	done
	wait "${writers[@]}"
	touch "$stop"
	wait "$pages" || code=$?
	[[ $code -eq 0 ]] || fail 'a page has not come back'
	[[ $(($(swapped_out) - before)) -gt 10000 ]] || fail "only $(($(swapped_out) - before)) pages went out"
	state_is s active || fail "$(session_get s error)"
	[[ $(stat_of "$image" chunks_preserved) -gt $((600 << 8)) && $(stat_of "$image" chunks_stored) -gt 140000 ]]
	image_is "${image}p1" --length 600M
	cmp -n $((600 << 20)) "$data" /dev/zero
	run ! log_has 'oom-kill|Out of memory|page allocation failure'
}

@test "little memory: more is dirtied than there is, swap on the origin; the diff is a device (I1, lesson 15)" {
	pressed "$(disk 7)"
	session_destroy s
}
