#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# A test of life that was not seen to pass yet. It belongs into tests/50-life.bats, whose helpers it uses.
# shellcheck disable=SC2034,SC2154,SC2030,SC2031

# administer NAME SECONDS DIFF DEVICE...: as cycle, but it may be killed anywhere, and begins with what was left then.
administer() {
	local name=$1 end=$((SECONDS + $2)) diff=$3
	shift 3
	while [[ $SECONDS -lt $end ]]; do
		[[ ! -d $SESSIONS/$name ]] || unmake "$name" || return
		session_make "$name" "$diff" "$@" || return
		put "$SESSIONS/$name/active" 1 || fail "$(cat "$SESSIONS/$name/error")" || return
		echo taken
		dd if="$(image_of "$name" s1)" of=/dev/null bs=64K count=4 iflag=direct status=none || return
	done
}

# unmake SESSION: as session_destroy, without waiting for udev.
unmake() {
	put "$SESSIONS/$1/active" 0 || return
	[[ ! -d $SESSIONS/$1/s1 ]] || rmdir "$SESSIONS/$1"/s[0-9]* || return
	rmdir "$SESSIONS/$1"
}

# kill_all PID: and what it runs, which makes the system calls; when this returns, none of these is under way.
kill_all() {
	local child children
	mapfile -t children < <(pgrep -P "$1")
	for child in "${children[@]}" "$1"; do
		kill -KILL "$child" || true
	done
	wait "$1" || true
	for child in "${children[@]}"; do
		wait_until 30 test ! -d "/proc/$child"
	done
}

# pester: what others do meanwhile. Only the kill ends it.
pester() {
	while :; do
		! rmmod blksnap || echo 'the module went'
		grep -r . "$CONFIG" /sys/block/blksnap*/blksnap >/dev/null || true
		udevadm trigger --subsystem-match=block --action=change
	done 2>/dev/null
}

@test "life: administrators are killed anywhere, in the middle of a take as well; images stay right (I2, I7)" {
	local n pid pids=() seconds origins=() stormer pester killed=0
	seconds=$(scaled 45)
	partition "$(disk 5)" 64M 64M
	filled "$(disk 1)" --length 16M
	session_of "$(disk 4)" "$(disk 1)"
	for n in 0 1 2 3; do
		dm_linear "store$n" "$(disk 2)" 131072 $((n * 131072))
	done
	origins=("$(disk 1)" "$(disk 1) $(disk 3)" "$(disk 5) $(disk 1)" "$(part "$(disk 5)" 1) $(disk 3)")
	background stamp storm "$(disk 1)" "$(image_of s s1)" --seed "$SEED" --taken-seq 1 --length 16M --readers 2 --writers 2 \
		--seconds $((seconds + 10)) >"$BATS_TEST_TMPDIR/storm" 2>&1
	stormer=$BACKGROUND
	background pester >"$BATS_TEST_TMPDIR/pester"
	pester=$BACKGROUND
	for n in 0 1 2 3; do
		# shellcheck disable=SC2086 # two words
		background administer "p$n" 100000 "/dev/mapper/store$n" ${origins[n]} >>"$BATS_TEST_TMPDIR/takes.$n" 2>&1
		pids+=("$BACKGROUND")
	done
	seconds=$((SECONDS + seconds))
	while [[ $SECONDS -lt $seconds ]]; do
		sleep "$((RANDOM % 2)).$((RANDOM % 10))"
		n=$((RANDOM % 4))
		kill -0 "${pids[n]}" || fail "administrator $n has ended: $(tail -n 5 "$BATS_TEST_TMPDIR/takes.$n")"
		kill_all "${pids[n]}"
		killed=$((killed + 1))
		# shellcheck disable=SC2086 # two words
		background administer "p$n" 100000 "/dev/mapper/store$n" ${origins[n]} >>"$BATS_TEST_TMPDIR/takes.$n" 2>&1
		pids[n]=$BACKGROUND
	done
	for pid in "${pids[@]}" "$pester"; do
		kill_all "$pid"
	done
	wait "$stormer" || fail "$(cat "$BATS_TEST_TMPDIR/storm")"
	[[ ! -s $BATS_TEST_TMPDIR/pester ]] || fail "$(cat "$BATS_TEST_TMPDIR/pester")"
	for n in 0 1 2 3; do
		[[ $(grep -c '^taken$' "$BATS_TEST_TMPDIR/takes.$n") -ge 2 ]] || fail "$n: $(tail -n 5 "$BATS_TEST_TMPDIR/takes.$n")"
		[[ ! -d $SESSIONS/p$n ]] || unmake "p$n"
	done
	printf '# %s: %d killed, takes: %s\n' "$BATS_TEST_DESCRIPTION" "$killed" \
		"$(grep -hc '^taken$' "$BATS_TEST_TMPDIR"/takes.* | paste -sd' ')" >&3
	sync "$(disk 1)"
	image_is "$(image_of s s1)" --length 16M
	session_destroy s
	module_unload
	module_load
}
