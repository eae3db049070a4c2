#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Tests of backups that were not seen to pass yet. They belong into tests/72-backup.bats, whose helpers they use.
# shellcheck disable=SC2034,SC2154,SC2030,SC2031

@test "merge: of what is damaged, nothing; one that was killed leaves all that was there" {
	local before i
	chain_of_three
	flip "$chain/00002.increment" 70
	run -1 blksnap merge "$chain" 3
	[[ $output == *"$chain/00002.increment: the block at 1048576"* && $output == *'nothing was merged'* ]]
	as_before
	flip "$chain/00001.full" 1048577
	run -1 blksnap merge "$chain" 3
	[[ $output == *"$chain/00001.full: the block at "* ]]
	as_before
	# Killed at some moments, each time one after the other.
	for i in 0 1 2 3 4 5; do
		setsid blksnap merge "$chain" 3 >/dev/null 2>&1 3>&- &
		tool=$!
		sleep "0.$((i * 2))"
		kill -KILL -- "-$tool" 2>/dev/null || true
		wait "$tool" || true
		run -0 blksnap verify "$chain"
		restored 00003
	done
	blksnap merge "$chain" 3
	restored 00003
	backed_up
	[[ $(manifest 00004 .kind) == increment ]]
	[[ $(files "$chain") == '00003.full 00003.full.index 00003.json 00004.increment 00004.increment.index 00004.json' ]]
	blksnap track --off "$dev"
}

@test "backup: what was killed is continued from the same image, also where nothing is tracked, and else replaced" {
	local next=00001.full
	backup_disk
	slow_origin
	# Another snapshot of what is not tracked: nothing of it is known.
	interrupted_backup
	blksnap release --all
	random_sectors 0 16
	run -0 blksnap backup "$backups" --diff "$(disk 2)" "$dev"
	[[ $output != *'goes on with'* ]]
	copy_of_origin "$BATS_TEST_TMPDIR/copy"
	cmp "$chain/00001.full" "$BATS_TEST_TMPDIR/copy"
	# The same one.
	blksnap take s --diff "$(disk 2)" "$dev"
	next=00002.full
	setsid blksnap backup "$backups" --session s >"$BATS_TEST_TMPDIR/said" 2>&1 3>&- &
	tool=$!
	wait_until 100 has_lines 1 "$chain/$next"
	kill -KILL -- "-$tool"
	wait "$tool" || true
	random_sectors 0 16
	run -0 blksnap backup "$backups" --session s
	[[ $output == *'goes on with 00002.full, which was interrupted'* ]]
	cmp "$chain/00002.full" "$BATS_TEST_TMPDIR/copy"
	blksnap release s
	run -0 blksnap verify "$backups"
}

@test "backup: an increment that was killed is continued from the same image, and else replaced" {
	local next=00002.increment i
	backup_disk
	slow_origin
	backed_up --track
	put "$TRACKERS/origin/dirty" '0 50331648'
	blksnap take s --diff "$(disk 2)" "$dev"
	for i in 1 2; do
		setsid blksnap backup "$backups" --session s >"$BATS_TEST_TMPDIR/said" 2>&1 3>&- &
		tool=$!
		[[ $i -eq 1 ]] || wait_until 100 grep -q 'goes on with' "$BATS_TEST_TMPDIR/said"
		wait_until 100 has_lines 1 "$chain/$next"
		kill -KILL -- "-$tool"
		wait "$tool" || true
	done
	grep -q 'goes on with 00002.increment' "$BATS_TEST_TMPDIR/said"
	run -0 blksnap backup "$backups" --session s
	[[ $output == *'goes on with 00002.increment, which was interrupted'* ]]
	blksnap restore "$chain" "$BATS_TEST_TMPDIR/file"
	copy_of_origin "$BATS_TEST_TMPDIR/copy"
	cmp "$BATS_TEST_TMPDIR/file" "$BATS_TEST_TMPDIR/copy"
	blksnap release s
	put "$TRACKERS/origin/dirty" '0 50331648'
	next=00003.increment
	interrupted_backup
	random_sectors 5000 8
	backed_up
	[[ $output != *'goes on with'* && $number == 00003 ]]
	restored
	run -0 blksnap verify "$backups"
	# One that is never continued is in nobody's way.
	put "$TRACKERS/origin/dirty" '0 50331648'
	next=00004.increment
	interrupted_backup
	run -0 blksnap backup "$backups" --diff "$(disk 2)" --full "$dev"
	[[ $output == *"$chain/00004.increment.partial: of a backup that was not completed, removed"* ]]
	[[ $(files "$chain") != *partial* ]]
	blksnap track --off "$dev"
}

@test "backup: a signal releases the session, and what was begun is no backup" {
	local next=00001.full signal code
	backup_disk
	slow_origin
	blksnap track "$dev"
	for signal in INT=130 TERM=143; do
		rm -rf "$chain"
		env --default-signal=INT blksnap backup "$backups" --diff "$(disk 2)" "$dev" >"$BATS_TEST_TMPDIR/said" 2>&1 3>&- &
		tool=$!
		wait_until 100 has_lines 1 "$chain/$next"
		kill -s "${signal%=*}" "$tool"
		code=0
		wait "$tool" || code=$?
		[[ $code -eq ${signal#*=} ]] || fail "ended with $code: $(cat "$BATS_TEST_TMPDIR/said")"
		nothing_left
		[[ ! -e $chain/00001.json && -e $chain/00001.full.partial ]]
	done
	backed_up
	[[ $output == *'goes on with 00001.full'* ]]
	restored
	blksnap track --off "$dev"
}
