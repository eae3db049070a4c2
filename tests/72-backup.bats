#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 27
# Backups by the tool, scripts/blksnap: whether what is restored is what the image was, byte for byte; what is found when
# something is damaged or missing; and that nothing looks complete that is not. And docs/backup.md, as it is written.

# shellcheck disable=SC2030,SC2031,SC2034,SC2154 # each test is a subshell; and lib/backups has its variables
load lib/common
load lib/devices
load lib/pages
load lib/backups

setup() {
	# bats' own, of which LVM would complain.
	export LVM_SUPPRESS_FD_WARNINGS=1
	common_setup
	skip_unless_feature cbt
}

teardown() {
	common_teardown
}

# --- full, incremental, differential ---------------------------------------------------------------------------------

@test "backup: a full is the image, with holes; of a session, and of several devices at once" {
	local dir image other
	backup_disk
	origin_of 98304
	dm_linear second "$(disk 5)" 65536
	other=$backups/second
	mkfs.ext4 -q "$dev"
	dir=$(mount_test "$dev" origin)
	cp -r /etc "$dir"
	blksnap take s --diff "$(disk 2)" "$dev" /dev/mapper/second
	image=/dev/blksnap/s/origin
	cp -r /etc "$dir/later"
	run -0 blksnap backup "$backups" --session s
	[[ $output == *"$chain/00001: full, "*$'\n'*"$other/00001: full, 0"* ]]
	[[ $output == *'not tracked (blksnap track)'* ]]
	cmp "$image" "$chain/00001.full"
	cmp /dev/blksnap/s/second "$other/00001.full"
	# Far less than the 48 MiB.
	[[ $(($(stat -c '%b * %B' "$chain/00001.full"))) -lt $((12 << 20)) ]]
	[[ $(stat -c %s "$chain/00001.full") -eq $((48 << 20)) ]]
	[[ $(files "$chain") == '00001.full 00001.full.index 00001.json' ]]
	[[ $(manifest 00001 '.kind, .size, .device') == $'full\n50331648\n'"$dev" ]]
	run -0 blksnap verify "$backups"
	[[ $(grep -c ': full of .*, good$' <<<"$output") -eq 2 ]]
	# It can be looked into as it is.
	fsck.ext4 -fn "$chain/00001.full"
	# To a file, and to a device that is not blank.
	blksnap restore "$chain" "$BATS_TEST_TMPDIR/file"
	cmp "$image" "$BATS_TEST_TMPDIR/file"
	[[ $(($(stat -c '%b * %B' "$BATS_TEST_TMPDIR/file"))) -lt $((12 << 20)) ]]
	dm_linear target "$(disk 4)" 98304
	scribble -l 1M /dev/mapper/target 3
	blksnap restore "$chain" /dev/mapper/target
	cmp "$image" /dev/mapper/target
	blksnap release s
	umount "$dir"
}

@test "backup: increments and differentials: each of them is restored byte for byte" {
	local i
	backup_disk
	origin_of 24576
	backed_up --track
	[[ $output == *'full, as there is none yet'* ]]
	for i in 2 3 4 5 6 7; do
		scribbled 6
		case $i in
		4 | 6) backed_up --differential ;;
		*) backed_up ;;
		esac
		[[ $number == "0000$i" ]]
	done
	run -0 jq -r '"\(.id) \(.kind) \(.parent) \(.since) \(.number)"' "$chain"/*.json
	[[ $output == "00001 full  0 1
00002 increment 00001 1 2
00003 increment 00002 2 3
00004 differential 00001 1 4
00005 increment 00004 4 5
00006 differential 00001 1 6
00007 increment 00006 6 7" ]]
	for i in 1 2 3 4 5 6 7; do
		restored "0000$i"
	done
	# At most two blocks for each write.
	[[ $(stat -c %s "$chain/00002.increment") -le $((14 * 65536)) ]]
	run -0 blksnap verify "$chain"
	[[ $(grep -c ', good$' <<<"$output") -eq 7 ]]
	run -0 blksnap verify --json "$chain"
	[[ $(jq -r '.state, .kind' <<<"$output" | paste -sd' ') == 'good full good increment '*' good differential good increment' ]]
	# Nothing has changed.
	backed_up
	[[ $number == 00008 && $(stat -c %s "$chain/00008.increment") -eq 0 ]]
	restored
	backed_up --full
	[[ $(manifest 00009 .kind) == full ]]
	restored
	blksnap track --off "$dev"
}

@test "backup: of one percent that has changed, at most 1.1 percent of ten gibibytes is read" {
	local size image through below manifest=$BATS_TEST_TMPDIR/manifest stream=$BATS_TEST_TMPDIR/stream
	dm_ten_gibibytes origin
	dev=/dev/mapper/origin size=$((10 << 30))
	blksnap track "$dev"
	blksnap take s --diff "$(disk 2)" "$dev"
	# A full begins with its manifest; to read ten gibibytes of zeroes takes too long here.
	blksnap backup - --session s 2>/dev/null | sed '1d; /^}$/q' >"$manifest"
	[[ $(jq -r '.kind, .size' "$manifest") == $'full\n'"$size" ]]
	# So it is counted rightly.
	image=$(readlink -f /dev/blksnap/s/origin)
	reads_of dd if="$image" of=/dev/null bs=1M skip=1000 count=200 iflag=direct status=none
	[[ $through -eq $((200 << 20)) && $below -ge $through ]] || fail "200 MiB are $through, $below of the disk"
	blksnap release s
	# One percent and a little, in pieces that begin anywhere.
	scribble -l 1M "$dev" 103
	blksnap take s --diff "$(disk 2)" "$dev"
	reads_of streamed "$stream" --session s --parent "$manifest"
	[[ $(head -c 4096 "$stream" | sed '1d; /^}$/q' | jq -r '.kind, .since') == $'increment\n1' ]]
	[[ $through -ge $((103 << 20)) && $through -le $((size * 11 / 1000)) && $below -le $((size * 11 / 1000)) ]] ||
		fail "the increment has read $through of $size, $below of the disk"
	# And has all that it should have.
	[[ $(stat -c %s "$stream") -gt $((103 << 20)) ]]
	run -0 blksnap verify - <"$stream"
	[[ $output == *'increment of '*', good' ]]
	blksnap release s
	blksnap track --off "$dev"
}

@test "backup: zeroes in an increment take no room, and are restored as zeroes" {
	backup_disk
	origin_of 24576
	dd if=/dev/urandom of="$dev" bs=1M count=8 oflag=direct status=none
	backed_up --track
	blkdiscard -f -z -o 0 -l 4M "$dev"
	random_sectors 100 8
	backed_up
	[[ $(stat -c %s "$chain/00002.increment") -eq 1048576 ]]
	grep -q ' zero *$' "$chain/00002.increment.index"
	restored
	# Onto a device that is not blank.
	dm_linear target "$(disk 4)" 24576
	scribble -l 1M /dev/mapper/target 12
	blksnap restore "$chain" /dev/mapper/target
	cmp /dev/mapper/target "$BATS_TEST_TMPDIR/00002"
	blksnap track --off "$dev"
}

@test "backup: sizes that are no multiple of anything, and a disk with sectors of 4096 bytes" {
	local size
	backup_disk
	for size in 1 127 129 2047 20481; do
		origin_of "$size"
		backed_up --track
		scribbled 2
		backed_up
		restored 00001
		restored 00002
		[[ $(manifest 00002 '.kind, .size') == $'increment\n'"$((size * 512))" ]]
		blksnap track --off "$dev"
		origin_away
		rm -r "$chain"
	done
	dm_linear large "$(disk 6)" 32768
	dev=/dev/mapper/large chain=$backups/large
	[[ $(blockdev --getss "$dev") -eq 4096 ]]
	dd if=/dev/urandom of="$dev" bs=4096 count=3 seek=1000 oflag=direct status=none
	backed_up --track
	dd if=/dev/urandom of="$dev" bs=4096 count=1 seek=4095 oflag=direct status=none
	backed_up
	[[ $(manifest 00002 .kind) == increment ]]
	restored
	dd if=/dev/urandom of="$dev" bs=4096 count=9 seek=999 oflag=direct status=none
	blksnap restore "$chain" "$dev"
	cmp "$dev" "$BATS_TEST_TMPDIR/00002"
	blksnap track --off "$dev"
}

@test "backup: a new generation begins with a full, and says why; so does what was not tracked, or has another size" {
	backup_disk
	origin_of 20480
	backed_up
	[[ $output == *'full, as there is none yet; it is not tracked (blksnap track)'* ]]
	backed_up
	[[ $output == *'full, as it is not tracked (blksnap track)'* && $(manifest 00002 .generation) == '' ]]
	blksnap track "$dev"
	backed_up
	[[ $output == *'full, as it was not tracked when 00002 was made'* ]]
	backed_up
	[[ $(manifest 00004 .kind) == increment ]]
	blksnap track --off "$dev"
	scribbled 3
	blksnap track "$dev"
	backed_up
	[[ $output == *'full, as tracking has begun anew since 00004'* && $(manifest 00005 .kind) == full ]]
	backed_up
	[[ $(manifest 00006 .kind) == increment ]]
	dm_switch origin "0 40960 linear $(disk 1) 0"
	sectors=40960
	scribbled 3
	backed_up
	[[ $output == *'it had 10485760 bytes in 00006, and has 20971520'* && $(manifest 00007 .kind) == full ]]
	restored 00006
	restored 00007
	blksnap track --off "$dev"
}

@test "backup: --track tracks a device that has the path of another one, which is tracked, from the next one on" {
	backup_disk
	dm_linear before "$(disk 1)" 20480
	dmsetup rename before origin
	settle
	dev=/dev/mapper/origin sectors=20480 chain=$backups/origin
	backed_up --track
	dmsetup rename origin before
	dm_linear origin "$(disk 4)" 20480
	settle
	backed_up --track
	[[ $output == *'not tracked'* ]]
	backed_up --track
	backed_up --track
	[[ $(manifest 00004 .kind) == increment ]]
	blksnap track --off "$dev" /dev/mapper/before
}

@test "backup: a chain goes on past the last number of a generation" {
	local generation
	backup_disk
	origin_of 4096
	backed_up --track
	generation=$(manifest 00001 .generation)
	session_make s "$(disk 4)" "$dev"
	empty_takes s 253
	session_destroy s
	scribbled 2
	backed_up
	[[ $(manifest 00002 '.number, .since, .kind') == $'255\n1\nincrement' ]]
	scribbled 2
	backed_up
	[[ $(manifest 00003 '.number, .since, .kind, .base') == $'1\n0\nincrement\n'"$generation 255" ]]
	restored 00002
	restored 00003
	run -0 blksnap verify "$chain"
	blksnap track --off "$dev"
}

@test "backup: a chain goes on past the number 99999" {
	backup_disk
	origin_of 4096
	backed_up --track
	renumbered 00001 99999
	for number in 100000 100001; do
		scribbled 2
		run -0 blksnap backup "$backups" --diff "$(disk 2)" "$dev"
		copy_of_origin "$BATS_TEST_TMPDIR/$number"
	done
	[[ $(manifest 100001 '.kind, .parent') == $'increment\n100000' ]]
	restored 100000
	# The last one.
	rm "$BATS_TEST_TMPDIR/restored"
	blksnap restore "$chain" "$BATS_TEST_TMPDIR/restored"
	cmp "$BATS_TEST_TMPDIR/restored" "$BATS_TEST_TMPDIR/100001"
	run -0 blksnap verify "$chain"
	[[ $(sed -n 's;.*/\([0-9]*\): .*, good$;\1;p' <<<"$output" | paste -sd' ') == '99999 100000 100001' ]]
	blksnap track --off "$dev"
}

@test "backup: an image that has not the size it had, as it is being released, is not copied" {
	local file=$BATS_TEST_TMPDIR/image
	truncate -s 1M "$file"
	run -1 blksnap-copy save --size 2097152 --heading '# test' "$file" "$file.full" "$file.index"
	[[ $output == "blksnap: $file has 1048576 bytes, and had 2097152: the image has gone" && ! -e $file.full ]]
	blksnap-copy save --size 1048576 --heading '# test' "$file" "$file.full" "$file.index"
	run -1 blksnap-copy send --size 2097152 "$file"
	[[ $output == *'the image has gone' ]]
}

@test "backup: a snapshot is backed up once; an image that was written to is not" {
	local image
	backup_disk
	origin_of 20480
	backed_up --track
	blksnap take s --diff "$(disk 2)" "$dev"
	image=/dev/blksnap/s/origin
	blksnap backup "$backups" --session s origin
	run -0 blksnap backup "$backups" --session s
	[[ $output == *'00002 is a backup of this snapshot already'* && ! -e $chain/00003.json ]]
	cmp "$image" <(blksnap restore --at 2 "$chain" "$BATS_TEST_TMPDIR/two" && cat "$BATS_TEST_TMPDIR/two")
	dd if=/dev/urandom of="$image" bs=4096 count=1 oflag=direct status=none
	run -1 blksnap backup "$backups" --full --session s
	[[ $output == *"was written to"* && ! -e $chain/00003.json ]]
	run -1 blksnap backup "$backups" --session s nothing
	[[ $output == *"no snapshot 'nothing' in 's'"* ]]
	run -1 blksnap backup "$backups" --session t
	[[ $output == *"no session 't'"* ]]
	blksnap release s
	blksnap track --off "$dev"
}

@test "backup: a chain is of one device, whatever the last part of its path is" {
	local link=$BATS_TEST_TMPDIR/origin other=$BATS_TEST_TMPDIR/other/origin
	backup_disk
	origin_of 4096
	backed_up --track
	# Another path of the same device.
	ln -s "$dev" "$link"
	dev=$link backed_up
	[[ $(manifest 00002 '.kind, .device') == $'increment\n'"$link" ]]
	# Another device.
	mkdir "${other%/*}"
	ln -s "$(disk 5)" "$other"
	refused 1 "the backups in $chain are of $link, and this is $other" blksnap backup "$backups" --diff "$(disk 2)" "$other"
	# A path that is no more.
	rm "$link"
	refused 1 "the backups in $chain are of $link, and this is $dev" blksnap backup "$backups" --diff "$(disk 2)" "$dev"
	backed_up --renamed
	[[ $(manifest 00003 '.kind, .device') == $'increment\n'"$dev" ]]
	restored
	blksnap track --off "$dev"
}

# --- interruptions ---------------------------------------------------------------------------------------------------

@test "backup: a full that was killed looks like none, and is continued, from a later snapshot too" {
	local next=00001.full first
	backup_disk
	slow_origin
	interrupted_backup --track
	run -1 blksnap verify "$backups"
	[[ $output == *'there is no backup in'* ]]
	run -1 blksnap restore "$chain" "$BATS_TEST_TMPDIR/file"
	[[ ! -e $BATS_TEST_TMPDIR/file ]]
	# What has been copied changes.
	random_sectors 0 16
	random_sectors 3000 16
	first=$(stat -c %i "$chain/$next.partial")
	backed_up
	[[ $output == *'left over from a backup that was interrupted: released'* ]]
	[[ $output == *'goes on with 00001.full, which was interrupted'* ]]
	[[ $(stat -c %i "$chain/$next") == "$first" ]]
	restored
	run -0 blksnap verify "$backups"
	[[ $(files "$chain") == '00001.full 00001.full.index 00001.json' ]]
	blksnap track --off "$dev"
}

@test "backup: what was killed is continued from the same image, also where nothing is tracked, and else replaced" {
	long
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
	interrupted blksnap backup "$backups" --session s
	random_sectors 0 16
	run -0 blksnap backup "$backups" --session s
	[[ $output == *'goes on with 00002.full, which was interrupted'* ]]
	cmp "$chain/00002.full" "$BATS_TEST_TMPDIR/copy"
	blksnap release s
	run -0 blksnap verify "$backups"
}

# The name of an image is free again when its session is released.
@test "backup: an image that took the place of the one that was to be backed up is not taken for it" {
	local bin=$BATS_TEST_TMPDIR/bin
	backup_disk
	origin_of 4096
	dm_linear second "$(disk 5)" 4096
	dd if=/dev/urandom of=/dev/mapper/second bs=1M count=2 oflag=direct conv=notrunc status=none
	backed_up
	blksnap take s --diff "$(disk 2)" "$dev"
	mkdir "$bin"
	# What the tool calls when it has looked at the image, and not yet opened it.
	cat >"$bin/jq" <<-END
		#!/bin/bash
		if mkdir "$BATS_TEST_TMPDIR/once" 2>/dev/null; then
			blksnap release s >&2
			blksnap take t --diff "$(disk 2)" /dev/mapper/second >&2
		fi
		exec $(command -v jq) "\$@"
	END
	chmod +x "$bin/jq"
	run -1 env PATH="$bin:$PATH" blksnap backup "$backups" --session s
	[[ -e $BATS_TEST_TMPDIR/once && $output == *'another image'* ]] || fail "it says: $output"
	[[ $(ls "$chain"/*.json) == "$chain/00001.json" ]]
	blksnap release t
	run -0 blksnap verify "$backups"
	restored 00001
}

@test "backup: to a directory that has another one's path, for somebody else, its session is left alone" {
	local tool
	backup_disk
	slow_origin
	slow_down
	blksnap backup "$backups" --diff "$(disk 2)" "$dev" >"$BATS_TEST_TMPDIR/said" 2>&1 3>&- &
	tool=$!
	wait_until 100 test -e "$chain/00001.full.partial"
	# shellcheck disable=SC2016 # the other shell's
	unshare -m bash -c 'mount -t tmpfs none "$1" && blksnap backup "$1" --diff "$2" "$3"' other "$backups" "$(disk 4)" "$(disk 5)"
	speed_up
	wait "$tool" || fail "it has failed: $(cat "$BATS_TEST_TMPDIR/said")"
	run -0 blksnap verify "$backups"
	nothing_left
}

@test "backup: a path that no manifest can hold is refused" {
	local path
	backup_disk
	origin_of 4096
	for path in $'/dev/caf\xe9' $'/dev/a\x1fb'; do
		ln -s "$dev" "$path"
		run -1 blksnap backup "$backups" --diff "$(disk 2)" "$path"
		[[ $output == *'cannot be backed up by this path'* ]] || fail "it says: $output"
		rm "$path"
		nothing_left
	done
	ln -s "$dev" /dev/café
	blksnap backup "$backups" --diff "$(disk 2)" /dev/café
	blksnap backup "$backups" --diff "$(disk 2)" /dev/café
	rm /dev/café
}

@test "backup: what was read of an image that had been written to is not kept" {
	local next=00001.full code=0
	backup_disk
	slow_origin
	blksnap track "$dev"
	blksnap take s --diff "$(disk 2)" "$dev"
	slow_down
	blksnap backup "$backups" --session s >"$BATS_TEST_TMPDIR/said" 2>&1 3>&- &
	tool=$!
	wait_until 100 has_lines
	# Where it gets last.
	dd if=/dev/urandom of=/dev/blksnap/s/origin bs=4096 seek=11800 count=1 oflag=direct status=none
	wait "$tool" || code=$?
	[[ $code -eq 1 ]] || fail "ended with $code: $(cat "$BATS_TEST_TMPDIR/said")"
	grep -q 'was written to' "$BATS_TEST_TMPDIR/said"
	[[ ! -e $chain/00001.json ]]
	has_lines
	run ! grep -q '^ *48234496 ' "$chain/$next.index.partial"
	speed_up
	blksnap release s
	backed_up
	[[ $output == *'goes on with 00001.full, which was interrupted'* ]]
	restored
	run -0 blksnap verify "$backups"
	blksnap track --off "$dev"
}

@test "backup: an increment that was killed is continued from the same image, and else replaced" {
	local next=00002.increment there=1 i
	backup_disk
	slow_origin
	backed_up --track
	put "$TRACKERS/origin/dirty" '0 50331648'
	blksnap take s --diff "$(disk 2)" "$dev"
	for i in 1 2; do
		# The second one gets further than the first.
		interrupted blksnap backup "$backups" --session s
		there=$(wc -l <"$chain/$next.index.partial")
	done
	there=1
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

@test "backup: a full whose data has got its name, is too short or missing is not continued" {
	local state
	backup_disk
	origin_of 20480
	backed_up --track
	for state in renamed short missing; do
		rm "$chain/00001.json"
		mv "$chain/00001.full.index" "$chain/00001.full.index.partial"
		[[ $state == renamed ]] || mv "$chain/00001.full" "$chain/00001.full.partial"
		[[ $state != short ]] || truncate -s -512 "$chain/00001.full.partial"
		[[ $state != missing ]] || rm "$chain/00001.full.partial"
		backed_up
		[[ $output != *'goes on with'* ]] || fail "$state: $output"
		restored
		# Data that has got its name may have been a backup: its number is not used again.
		if [[ $state == renamed ]]; then
			[[ $number == 00002 && $output == *"$chain/00001.full: of a backup that was not completed, removed"* ]]
			renumbered 00002 00001
			mv "$BATS_TEST_TMPDIR/00002" "$BATS_TEST_TMPDIR/00001"
		fi
		[[ $(files "$chain") == '00001.full 00001.full.index 00001.json' ]]
	done
	# Nor by the copier, whatever it is told.
	cp "$chain/00001.full" "$BATS_TEST_TMPDIR/data"
	for state in short missing; do
		[[ $state == short ]] && truncate -s -512 "$BATS_TEST_TMPDIR/data" || rm "$BATS_TEST_TMPDIR/data"
		run -1 blksnap-copy save --kept "$chain/00001.full.index" --heading '# test' \
			"$dev" "$BATS_TEST_TMPDIR/data" "$BATS_TEST_TMPDIR/index"
		[[ $output == *'nothing of it can be kept' && ! -e $BATS_TEST_TMPDIR/index ]]
	done
	blksnap track --off "$dev"
}

@test "backup: a signal releases the session, and what was begun is no backup" {
	local next=00001.full signal code
	backup_disk
	slow_origin
	blksnap track "$dev"
	for signal in INT=130 TERM=143; do
		rm -rf "$chain"
		slow_down
		env --default-signal=INT blksnap backup "$backups" --diff "$(disk 2)" "$dev" >"$BATS_TEST_TMPDIR/said" 2>&1 3>&- &
		tool=$!
		wait_until 100 has_lines
		kill -s "${signal%=*}" "$tool"
		code=0
		wait "$tool" || code=$?
		[[ $code -eq ${signal#*=} ]] || fail "ended with $code: $(cat "$BATS_TEST_TMPDIR/said")"
		nothing_left
		[[ ! -e $chain/00001.json && -e $chain/00001.full.partial ]]
		speed_up
	done
	backed_up
	[[ $output == *'goes on with 00001.full'* ]]
	restored
	blksnap track --off "$dev"
}

@test "backup: one at a time" {
	backup_disk
	origin_of 20480
	backed_up --track
	exec {held}>>"$backups/.lock"
	flock "$held"
	refused 1 "$backups is in use by another" blksnap backup "$backups" --diff "$(disk 2)" "$dev"
	exec {held}>&-
	exec {held}>>"$chain/.lock"
	flock --shared "$held"
	restored 00001
	refused 1 "$chain is in use by another" blksnap merge "$chain" 1
	refused 1 "$chain is in use by another" blksnap backup "$backups" --diff "$(disk 2)" "$dev"
	exec {held}>&-
	backed_up
	blksnap track --off "$dev"
}

@test "backup: of several devices, one that fails does not keep the others; verify goes on after a chain that is in use" {
	backup_disk
	origin_of 20480
	dm_linear second "$(disk 5)" 20480
	blksnap take s --diff "$(disk 2)" "$dev" /dev/mapper/second
	mkdir "$chain"
	exec {held}>>"$chain/.lock"
	flock "$held"
	run -1 --separate-stderr blksnap backup "$backups" --json --session s
	[[ $stderr == *"$chain is in use by another"* ]]
	[[ $(jq -r '.[].device' <<<"$output") == /dev/mapper/second ]]
	exec {held}>&-
	run -0 --separate-stderr blksnap backup "$backups" --json --session s
	[[ $(jq -r '.[].device' <<<"$output" | paste -sd' ') == "$dev /dev/mapper/second" ]]
	# Nor does one whose image was written to.
	dd if=/dev/urandom of=/dev/blksnap/s/origin bs=4096 count=1 oflag=direct status=none
	run -1 --separate-stderr blksnap backup "$backups" --json --full --session s
	[[ $stderr == *"$dev: its image was written to"* ]]
	[[ $(jq -r '.[].device' <<<"$output") == /dev/mapper/second ]]
	blksnap release s
	exec {held}>>"$chain/.lock"
	flock "$held"
	run -1 --separate-stderr blksnap verify --json "$backups"
	[[ $stderr == *"$chain is in use by another"* ]]
	[[ $(jq -s -r '.[].state' <<<"$output" | paste -sd' ') == 'unknown good good good' ]]
	exec {held}>&-
	# Names that begin with a dash are names.
	mkdir "$SESSIONS/s" "$SESSIONS/s/-x"
	put "$SESSIONS/s/-x/device" "$dev"
	put "$SESSIONS/s/diff_file" "$(disk 2)"
	put "$SESSIONS/s/active" 1
	run -0 blksnap backup "$backups" --session s -- -x
	[[ -e $backups/-x/00001.json ]]
	blksnap release s
}

# --- damage ----------------------------------------------------------------------------------------------------------

@test "verify: names the file and the block that is damaged, and a restore stops there" {
	local file=$BATS_TEST_TMPDIR/file
	chain_of_three
	run -0 blksnap verify "$backups"
	flip "$chain/00002.increment" 70
	finds "$chain/00002.increment: the block at 1048576, 65536 bytes"
	[[ $output == *"$chain/00002: increment of "*', DAMAGED'* && $output == *"$chain/00003: increment of "*', good'* ]]
	run -1 blksnap restore "$chain" "$file"
	[[ $output == *"$chain/00002.increment: the block at 1048576"* && ! -e $file && ! -e $file.partial ]]
	restored 00001
	as_before
	# The second block of a file.
	flip "$chain/00003.increment" 65536
	finds "$chain/00003.increment: the block at 8388608" "in the file at 65536"
	as_before
	flip "$chain/00001.full" 1048576
	finds "$chain/00001.full: the block at 1048576"
	as_before
	truncate -s -1 "$chain/00003.increment"
	finds "$chain/00003.increment has 131071 bytes, and should have 131072"
	[[ $output == *"$chain/00003: increment of "*', DAMAGED'* && $output != *UNKNOWN* ]]
	as_before
	flip "$chain/00003.increment.index" 130
	finds "$chain/00003.increment.index: damaged"
	as_before
	sed -i 's/"number": 2,/"number": 1,/' "$chain/00002.json"
	finds "$chain/00002.json: damaged"
	run -1 blksnap restore "$chain" "$file"
	[[ $output == *'name one with --at'* ]]
	blksnap track --off "$dev"
}

@test "verify: what it could not read for want of memory is not called damaged" {
	backup_disk
	origin_of 20480
	backed_up
	# shellcheck disable=SC2016 # for the other shell
	run -1 --separate-stderr bash -c 'ulimit -v 40000; exec blksnap verify --json "$0"' "$chain"
	[[ $(jq -r .state <<<"$output") == unknown ]] || fail "it says: $output $stderr"
}

@test "verify: what is not where the image was zero" {
	backup_disk
	origin_of 20480
	blkdiscard -f -z "$dev"
	random_sectors 0 8
	backed_up
	flip "$chain/00001.full" 5242881
	finds "$chain/00001.full: the block at 5242880" 'is not zero'
}

@test "verify: data without a manifest is named, and its number is not used again; what was interrupted is no fault" {
	chain_of_three
	rm "$chain/00003.json"
	finds "$chain/00003.increment: of a backup that was not completed, or its manifest is lost"
	run -1 --separate-stderr blksnap verify --json "$backups"
	[[ $(jq -rs 'map(.backup[-5:] + .state) | join(" ")' <<<"$output") == '00001good 00002good 00003damaged' ]]
	# So nobody knows whether the one before it is the last.
	refused 1 "$chain/00003.increment: of a backup that was not completed, or its manifest is lost" \
		blksnap restore "$chain" "$BATS_TEST_TMPDIR/restored"
	[[ $stderr == *'name one with --at'* ]]
	restored 00002
	# As it is for a moment of a backup or a merge.
	cp "$BATS_TEST_TMPDIR/chain/00003.json" "$chain/00003.json.partial"
	run -0 blksnap verify "$backups"
	[[ $output == *"$chain/00003.increment: of a backup or merge that was interrupted"* ]]
	number=00002 restored
	rm "$chain/00003.json.partial"
	backed_up
	[[ $number == 00004 && $output == *"$chain/00003.increment: of a backup that was not completed, removed"* ]]
	restored
	run -0 blksnap verify "$backups"
	# One that is lost before the last.
	backed_up --full
	rm "$chain/00002.json"
	finds "$chain/00002.increment: of a backup that was not completed, or its manifest is lost"
	restored
	# Nothing else is there.
	rm "$chain"/0000[245]* "$chain/00001.json"
	finds "$chain/00001.full: of a backup that was not completed, or its manifest is lost"
	blksnap track --off "$dev"
}

@test "verify: a parent that is missing, or another backup of the same number" {
	local other
	chain_of_three
	rm "$chain/00002.json"
	finds "$chain/00003.json: its parent 00002 is not there"
	refused 1 "00003 cannot be restored" blksnap restore "$chain" "$BATS_TEST_TMPDIR/file"
	# Backups go on all the same.
	backed_up
	[[ $output == *'full, as something is missing of 00003'* ]]
	restored
	as_before
	rm "$chain/00002.increment"
	finds "$chain/00002.increment: missing"
	as_before
	# The parent of another chain.
	other=$BATS_TEST_TMPDIR/other
	mkdir "$other"
	blksnap take s --diff "$(disk 2)" "$dev"
	blksnap backup "$other" --session s
	blksnap release s
	blksnap take s --diff "$(disk 2)" "$dev"
	blksnap backup "$other" --session s
	blksnap release s
	cp "$other"/origin/00002.* "$chain/"
	finds "$chain/00003.json: 00002 is not its parent"
	run -1 blksnap restore "$chain" "$BATS_TEST_TMPDIR/file"
	[[ ! -e $BATS_TEST_TMPDIR/file ]]
	blksnap track --off "$dev"
}

@test "backup: what belongs to a damaged manifest stays, also beside a chain with the same numbers" {
	local other before
	backup_disk
	origin_of 4096
	dm_linear second "$(disk 5)" 4096
	other=$backups/second
	blksnap track "$dev"
	for _ in 1 2; do
		blksnap backup "$backups" --diff "$(disk 2)" "$dev" /dev/mapper/second
	done
	[[ -e $chain/00002.increment && -e $other/00002.full ]]
	sed -i 's/"size": /"size": 9/' "$other/00002.json"
	before=$(sha256sum "$other"/0000[12]*)
	run -0 blksnap backup "$backups" --diff "$(disk 2)" "$dev" /dev/mapper/second
	[[ $output == *"$other/00002.json: damaged"* && $output != *'removed'* ]]
	[[ $(sha256sum "$other"/0000[12]*) == "$before" && -e $other/00003.json ]]
	run -1 --separate-stderr blksnap verify --json "$other"
	[[ $(jq -rs 'map(.backup[-5:] + .state) | join(" ")' <<<"$output") == '00002damaged 00001good 00003good' ]]
	# One that is listed, and cannot be read at all.
	ln -sf /nowhere "$other/00002.json"
	run -0 blksnap backup "$backups" --diff "$(disk 2)" "$dev" /dev/mapper/second
	[[ $output == *"$other/00002.json: damaged"* && $output != *'removed'* && -e $other/00002.full ]]
	run -1 blksnap verify "$other"
	blksnap track --off "$dev"
}

@test "backup, verify, merge and restore: a directory that cannot be listed is not taken for an empty one" {
	local file=$BATS_TEST_TMPDIR/file unlisted=(setpriv "--bounding-set=-dac_override,-dac_read_search" blksnap)
	backup_disk
	origin_of 4096
	backed_up
	cp -a "$chain" "$backups/second"
	chmod a-r "$chain"
	refused 1 "cannot list $chain" "${unlisted[@]}" backup "$backups" --diff "$(disk 2)" "$dev"
	refused 1 "cannot list $chain" "${unlisted[@]}" restore "$chain" "$file"
	refused 1 "cannot list $chain" "${unlisted[@]}" restore "$backups" "$file"
	refused 1 "cannot list $chain" "${unlisted[@]}" merge "$chain" 1
	# What else there is is verified all the same.
	run -1 --separate-stderr "${unlisted[@]}" verify --json "$backups"
	[[ $(jq -rs 'map(.backup + .state) | join(" ")' <<<"$output") == "${chain}damaged $backups/second/00001good" ]]
	[[ $stderr == *"cannot list $chain"* ]]
	chmod a-r "$backups"
	refused 1 "cannot list $backups" "${unlisted[@]}" verify "$backups"
	refused 1 "cannot list $backups" "${unlisted[@]}" restore "$backups" "$file"
	run -0 "${unlisted[@]}" verify "$backups/second"
	[[ ! -e $file ]]
}

# --- pipes -----------------------------------------------------------------------------------------------------------

@test "backup: to a pipe, and back; cut off and damaged streams are found" {
	local one=$BATS_TEST_TMPDIR/one two=$BATS_TEST_TMPDIR/two target=$BATS_TEST_TMPDIR/target
	backup_disk
	origin_of 20480
	blksnap track "$dev"
	blksnap backup - --diff "$(disk 2)" --manifest "$one.json" "$dev" | gzip >"$one.gz"
	cp "$dev" "$BATS_TEST_TMPDIR/00001"
	scribbled 4
	blksnap backup - --diff "$(disk 2)" --parent "$one.json" --manifest "$two.json" "$dev" >"$two"
	nothing_left
	refused 1 "$two.json: a differential is built upon a full" \
		blksnap backup - --differential --diff "$(disk 2)" --parent "$two.json" "$dev"
	[[ $(jq -r '.kind, .since' "$two.json") == $'increment\n1' && $(stat -c %s "$two") -lt $((1 << 20)) ]]
	# shellcheck disable=SC2016 # for that shell
	run -0 bash -c 'gzip -dc "$1" | cat - "$2" | blksnap verify -' - "$one.gz" "$two"
	[[ $(grep -c ', good$' <<<"$output") -eq 2 ]]
	# shellcheck disable=SC2016 # for that shell
	run -0 bash -c 'gzip -dc "$1" | cat - "$2" | blksnap restore - "$3"' - "$one.gz" "$two" "$target"
	cmp "$target" "$dev"
	rm "$target"
	gzip -dc "$one.gz" >"$one"
	blksnap restore - "$target" <"$one"
	cmp "$target" "$BATS_TEST_TMPDIR/00001"
	rm "$target"
	dm_linear target "$(disk 4)" 20480
	scribble -l 1M /dev/mapper/target 10
	# Also between the two nobody takes it.
	begin_restore /dev/mapper/target
	cat "$one" >&"$pipe"
	wait_until 30 cmp -s "$BATS_TEST_TMPDIR/00001" /dev/mapper/target
	run ! flock --shared --nonblock /dev/mapper/target true
	cat "$two" >&"$pipe"
	end_restore 0
	flock --shared --timeout 10 /dev/mapper/target true
	cmp "$dev" /dev/mapper/target
	# The increment alone, or behind something else.
	run -1 blksnap restore - "$target" <"$two"
	[[ $output == *'this is an increment'* && ! -e $target && ! -e $target.partial ]]
	cat "$one" "$two" "$two" >"$BATS_TEST_TMPDIR/three"
	run -1 blksnap verify - <"$BATS_TEST_TMPDIR/three"
	[[ $output == *'backup 3 of the stream does not follow'* ]]
	# Cut off in its data, before its last line, and in its head.
	for size in -100 -94 -1000000; do
		cp "$one" "$BATS_TEST_TMPDIR/cut"
		truncate -s "$size" "$BATS_TEST_TMPDIR/cut"
		run -1 blksnap verify - <"$BATS_TEST_TMPDIR/cut"
		[[ $output == *'is not complete'* ]]
		run -1 blksnap restore - "$target" <"$BATS_TEST_TMPDIR/cut"
		[[ ! -e $target && ! -e $target.partial ]]
	done
	head -c 200 "$one" >"$BATS_TEST_TMPDIR/cut"
	run -1 blksnap verify - <"$BATS_TEST_TMPDIR/cut"
	run -1 blksnap verify - </dev/null
	run -1 blksnap verify - <"$dev"
	flip "$one" 5000
	run -1 blksnap verify - <"$one"
	[[ $output == *'the stream is damaged: the block at '* ]]
	# Who reads has gone.
	# shellcheck disable=SC2016 # for that shell
	run ! bash -c 'set -o pipefail; blksnap backup - --full --diff "$1" --manifest "$2" "$3" | head -c 10 >/dev/null' - \
		"$(disk 2)" "$BATS_TEST_TMPDIR/none.json" "$dev"
	[[ ! -e $BATS_TEST_TMPDIR/none.json ]]
	nothing_left
	blksnap track --off "$dev"
}

@test "backup: a stream of an image that is written to meanwhile has no end" {
	local pipe code=0 stream=$BATS_TEST_TMPDIR/stream said=$BATS_TEST_TMPDIR/said
	backup_disk
	origin_of 20480
	scribble -l 1M "$dev" 10
	blksnap take s --diff "$(disk 2)" "$dev"
	mkfifo "$BATS_TEST_TMPDIR/pipe"
	blksnap backup - --session s --manifest "$stream.json" >"$BATS_TEST_TMPDIR/pipe" 2>"$said" 3>&- &
	tool=$!
	exec {pipe}<"$BATS_TEST_TMPDIR/pipe"
	head -c 1M <&"$pipe" >"$stream"
	dd if=/dev/urandom of=/dev/blksnap/s/origin bs=4096 count=1 oflag=direct conv=notrunc status=none
	cat <&"$pipe" >>"$stream"
	exec {pipe}<&-
	wait "$tool" || code=$?
	[[ $code -eq 1 && ! -e $stream.json ]]
	grep -q 'image was written to' "$said"
	run -1 blksnap verify - <"$stream"
	[[ $output == *'it is not complete'* ]]
	run -1 blksnap restore - "$BATS_TEST_TMPDIR/file" <"$stream"
	[[ ! -e $BATS_TEST_TMPDIR/file ]]
	blksnap release s
}

@test "backup: a session of a stream that was killed is released before the next one" {
	local pipe session
	backup_disk
	origin_of 20480
	scribble -l 1M "$dev" 10
	mkfifo "$BATS_TEST_TMPDIR/pipe"
	setsid blksnap backup - --diff "$(disk 2)" "$dev" >"$BATS_TEST_TMPDIR/pipe" 2>/dev/null 3>&- &
	tool=$!
	exec {pipe}<"$BATS_TEST_TMPDIR/pipe"
	head -c 1M <&"$pipe" >/dev/null
	session=$(ls "$SESSIONS")
	kill -KILL -- "-$tool"
	wait "$tool" || true
	exec {pipe}<&-
	wait_until 10 flock --nonblock "/run/blksnap/$session" true
	[[ -e $SESSIONS/$session ]]
	blksnap backup - --diff "$(disk 2)" "$dev" 2>"$BATS_TEST_TMPDIR/said" >"$BATS_TEST_TMPDIR/stream"
	grep -q "session '$session' is left over from a blksnap that was killed: released" "$BATS_TEST_TMPDIR/said"
	nothing_left
	blksnap verify - <"$BATS_TEST_TMPDIR/stream"
}

@test "backup: a differential in a stream follows its full, and what is not newer than itself" {
	local i dir=$BATS_TEST_TMPDIR previous=''
	backup_disk
	origin_of 4096
	blksnap track "$dev"
	for i in 1 2 3; do
		random_sectors $((i * 1000)) 8
		blksnap take s --diff "$(disk 2)" "$dev"
		streamed "$dir/s$i" --session s --manifest "$dir/m$i" ${previous:+--parent "$previous"}
		[[ $i -eq 1 ]] || streamed "$dir/d$i" --session s --differential --parent "$dir/m1"
		previous=$dir/m$i
		blksnap release s
		copy_of_origin "$dir/copy$i"
	done
	cd "$dir"
	# What is older would leave what it does not know of as it is.
	cat s1 s2 s3 d2 >stream
	run -1 blksnap restore - file <stream
	[[ $output == *'backup 4 of the stream does not follow'* && ! -e file ]]
	run -1 blksnap verify - <stream
	for i in 's1 s2 s3 d3' 's1 s2 d3' 's1 d2 d3' 's1 d3'; do
		# shellcheck disable=SC2086 # words
		cat $i >stream
		run -0 blksnap verify - <stream
		run -0 blksnap restore - file <stream
		cmp file copy3
		rm file
	done
	cd /
	blksnap track --off "$dev"
}

# --- restore ---------------------------------------------------------------------------------------------------------

@test "restore: what is mounted, held, too small, too large or there already is refused, and not changed" {
	local dir file=$BATS_TEST_TMPDIR/file
	backup_disk
	origin_of 20480
	backed_up
	mkfs.ext4 -q "$(disk 4)"
	dir=$(mount_test "$(disk 4)" target)
	refused 1 "$(disk 4) is in use" blksnap restore --larger "$chain" "$(disk 4)"
	umount "$dir"
	fsck.ext4 -fn "$(disk 4)"
	dm_linear target "$(disk 4)" 20480
	refused 1 "$(disk 4) is in use" blksnap restore --larger "$chain" "$(disk 4)"
	fsck.ext4 -fn "$(disk 4)"
	blkdiscard -f -z "$(disk 5)"
	partition "$(disk 5)" 10M 30M 40M
	mkfs.ext4 -q "$(part "$(disk 5)" 3)"
	dir=$(mount_test "$(part "$(disk 5)" 3)" part)
	refused 1 "$(disk 5) is in use" blksnap restore --larger "$chain" "$(disk 5)"
	umount "$dir"
	dm_linear small "$(disk 2)" 20479
	dm_linear large "$(disk 2)" 20481 65536
	refused 1 '/dev/mapper/small has 10485248 bytes, and the backup 10485760' blksnap restore "$chain" /dev/mapper/small
	refused 1 '/dev/mapper/large has 10486272 bytes, and the backup 10485760' blksnap restore "$chain" /dev/mapper/large
	refused 1 '/dev/mapper/small has 10485248 bytes' blksnap restore --larger "$chain" /dev/mapper/small
	cmp -n 50331648 "$(disk 2)" /dev/zero
	blksnap restore --larger "$chain" /dev/mapper/large
	cmp -n 10485760 /dev/mapper/large "$BATS_TEST_TMPDIR/00001"
	blksnap restore "$chain" "$(part "$(disk 5)" 1)"
	cmp "$(part "$(disk 5)" 1)" "$BATS_TEST_TMPDIR/00001"
	echo precious >"$file"
	refused 1 "$file exists already" blksnap restore "$chain" "$file"
	[[ $(cat "$file") == precious ]]
	refused 1 '/dev/null exists already' blksnap restore "$chain" /dev/null
	refused 1 'no directory /nowhere' blksnap restore "$chain" /nowhere/file
	refused 1 'no device /dev/mapper/nosuch' blksnap restore "$chain" /dev/mapper/nosuch
	mkdir -p /mnt/test-dev
	mount -t devtmpfs none /mnt/test-dev
	refused 1 'no device /mnt/test-dev/vdz' blksnap restore "$chain" /mnt/test-dev/vdz
	[[ ! -e /dev/mapper/nosuch && ! -e /dev/vdz ]]
	refused 1 "there is no good backup '2'" blksnap restore --at 2 "$chain" "$file.2"
	refused 1 'there is no backup in /etc' blksnap restore /etc "$file.2"
	mkdir "$backups/second"
	cp "$chain"/0* "$backups/second"
	refused 1 'has several chains' blksnap restore "$backups" "$file.2"
	refused 1 'not what' blksnap restore - "$file.2" </etc/passwd
	[[ ! -e $file.2 && ! -e $file.2.partial ]]
}

@test "restore: what the target is is known from the beginning; who makes, removes or replaces it meanwhile is noticed" {
	local one=$BATS_TEST_TMPDIR/one two=$BATS_TEST_TMPDIR/two target=$BATS_TEST_TMPDIR/target said pipe tool
	backup_disk
	origin_of 20480
	blksnap track "$dev"
	blksnap backup - --diff "$(disk 2)" --manifest "$one.json" "$dev" >"$one"
	cp "$dev" "$BATS_TEST_TMPDIR/00001"
	scribbled 4
	blksnap backup - --diff "$(disk 2)" --parent "$one.json" "$dev" >"$two"
	blksnap track --off "$dev"
	# Two at a time: one of them does it, and the other changes nothing.
	begin_restore "$target"
	wait_until 10 test -e "$target.partial"
	run -1 blksnap restore - "$target" <"$one"
	[[ $output == *"$target.partial exists: remove it, if no other restore is at work" && -e $target.partial ]]
	cat "$one" "$two" >&"$pipe"
	end_restore 0
	cmp "$target" "$dev"
	rm "$target"
	# It is lost between the two.
	begin_restore "$target"
	cat "$one" >&"$pipe"
	wait_until 30 cmp -s "$BATS_TEST_TMPDIR/00001" "$target.partial"
	rm "$target.partial"
	# It may not wait for the end of it.
	cat "$two" >&"$pipe" || true
	end_restore 1
	grep -q "cannot open $target.partial: No such file" "$said"
	[[ ! -e $target && ! -e $target.partial ]]
	# There is another one by the time that it is complete.
	begin_restore "$target"
	cat "$one" "$two" >&"$pipe"
	echo precious >"$target"
	end_restore 1
	grep -q "what was restored is $target.partial" "$said"
	[[ $(cat "$target") == precious ]]
	cmp "$target.partial" "$dev"
	# A device that goes is no file then.
	dm_linear target "$(disk 4)" 20480
	# It would make the link again, when the first of the two backups is written.
	udev_away
	begin_restore /dev/mapper/target
	cat "$one" >&"$pipe"
	wait_until 30 cmp -s "$BATS_TEST_TMPDIR/00001" /dev/mapper/target
	rm /dev/mapper/target
	# It may not wait for the end of it.
	cat "$two" >&"$pipe" || true
	end_restore 1
	grep -q 'cannot open /dev/mapper/target: No such file' "$said"
	[[ ! -e /dev/mapper/target ]]
	udev_back
	dmsetup mknodes target
}

@test "restore: a chain may have more backups than there can be open files" {
	local i members=() file=$BATS_TEST_TMPDIR/file limit
	chain_of_three
	blksnap track --off "$dev"
	members=(full "$chain/00001.full" "$chain/00001.full.index")
	for i in {1..50} 3; do
		members+=(packed "$chain/0000$((i % 2 + 2)).increment" "$chain/0000$((i % 2 + 2)).increment.index")
	done
	# The first limit can be raised, the second cannot.
	for limit in '-S -n 30' '-n 40'; do
		: >"$file"
		# shellcheck disable=SC2086 # words
		(ulimit $limit && blksnap-copy restore "$file" $((sectors * 512)) "${members[@]}")
		cmp "$file" "$BATS_TEST_TMPDIR/00003"
		rm "$file"
	done
}

@test "restore: to the beginning of a larger disk whose blocks are larger than what it ends with" {
	backup_disk
	origin_of 8193
	backed_up
	loop_make 8M --sector-size 4096
	run -1 blksnap restore "$chain" "$LOOP"
	blksnap restore --larger "$chain" "$LOOP"
	cmp -n $((8193 * 512)) "$LOOP" "$BATS_TEST_TMPDIR/00001"
	run -2 blksnap restore "$chain" -
}

@test "restore, verify and merge need no driver" {
	chain_of_three
	blksnap track --off "$dev"
	origin_away
	module_unload
	run -0 blksnap verify "$backups"
	# What begins with a dash is no option, of the copier neither.
	cd "$BATS_TEST_TMPDIR"
	cp -a "$chain" ./-chain
	run -0 blksnap verify -- -chain
	run -0 blksnap restore -- -chain -restored
	cmp ./-restored 00003
	cd /
	rm -f "$BATS_TEST_TMPDIR/restored"
	restored 00002
	blksnap merge "$chain" 3
	restored 00003
	run -3 blksnap backup "$backups" --diff "$(disk 2)" "$(disk 1)"
}

# --- merge -----------------------------------------------------------------------------------------------------------

@test "merge: makes a full of the beginning of a chain; what follows goes on" {
	chain_of_three
	scribbled 3
	backed_up --differential
	scribbled 3
	backed_up
	run -0 blksnap merge "$chain" 2
	[[ $output == *"$chain/00001 stays: a differential is built upon it"*"$chain/00002: full, "* ]]
	for i in 1 2 3 4 5; do
		restored "0000$i"
	done
	run -0 blksnap verify "$chain"
	run -0 blksnap merge "$chain" 4
	[[ $(files "$chain") == '00004.full 00004.full.index 00004.json 00005.increment 00005.increment.index 00005.json' ]]
	restored 00004
	restored 00005
	cmp "$chain/00004.full" "$BATS_TEST_TMPDIR/00004"
	[[ $(manifest 00004 '.kind, .parent, .since') == $'full\n\n0' ]]
	run -0 --separate-stderr blksnap merge --json "$chain" 4
	[[ $(jq -r '.id + .kind' <<<"$output") == 00004full ]]
	scribbled 3
	backed_up
	[[ $(manifest 00006 '.kind, .parent') == $'increment\n00005' ]]
	restored
	run -0 blksnap verify "$chain"
	refused 1 "there is no good backup '3'" blksnap merge "$chain" 3
	blksnap track --off "$dev"
}

@test "merge: of what is damaged, nothing; one that was killed leaves all that was there" {
	local i
	chain_of_three
	flip "$chain/00002.increment" 70
	run -1 blksnap merge "$chain" 3
	[[ $output == *"$chain/00002.increment: the block at 1048576"* && $output == *'nothing was merged'* ]]
	as_before
	# In its last block, which no increment replaces.
	flip "$chain/00001.full" $((sectors * 512 - 1))
	run -1 blksnap merge "$chain" 3
	[[ $output == *"$chain/00001.full: the block at 9437184"* ]]
	as_before
	# Killed at some moments, each time one after the other.
	for i in 0 1 2 3 4 5; do
		setsid blksnap merge "$chain" 3 >/dev/null 2>&1 3>&- &
		tool=$!
		sleep "$((i / 2)).$((i % 2 * 5))"
		killed
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

@test "merge: at a full what is older is removed, if that is good, and all of it or none" {
	backup_disk
	origin_of 20480
	backed_up --track
	scribbled 2
	backed_up
	backed_up --full
	mv "$chain/00003.full" "$BATS_TEST_TMPDIR/full"
	run -1 blksnap merge "$chain" 3
	[[ $output == *"$chain/00003.full: missing"*'nothing was removed'* ]]
	cp "$BATS_TEST_TMPDIR/full" "$chain/00003.full"
	flip "$chain/00003.full" $((sectors * 512 - 1))
	run -1 blksnap merge "$chain" 3
	[[ $output == *"$chain/00003.full: the block at 9437184"*'nothing was removed'* ]]
	cp "$BATS_TEST_TMPDIR/full" "$chain/00003.full"
	restored 00002
	chattr +i "$chain/00002.json"
	run -1 blksnap merge "$chain" 3
	[[ $output == *'older backups stay'* ]]
	chattr -i "$chain/00002.json"
	run -0 blksnap verify "$backups"
	restored 00002
	blksnap merge "$chain" 3
	[[ $(files "$chain") == '00003.full 00003.full.index 00003.json' ]]
	restored 00003
	blksnap track --off "$dev"
}

# --- hooks -----------------------------------------------------------------------------------------------------------

@test "backup: nobody reads what it says, or it cannot be written: the backup is made, and all hooks are called" {
	local hooks seen=$BATS_TEST_TMPDIR/seen
	backup_disk
	origin_of 20480
	hooks_made
	# What a hook says before the take has to be read, as it would be by anybody else.
	# shellcheck disable=SC2016 # for the hook
	hook 10-first '[ "$1" = pre-take ]'
	# shellcheck disable=SC2016 # for the hook
	hook 20_second 'umask >>'"$seen"'; [ "$1" = pre-take ] || echo noise'
	(
		umask 022
		blksnap backup "$backups" --diff "$(disk 2)" "$dev" 2>&1 >/dev/null || echo "$?" >"$BATS_TEST_TMPDIR/code"
	) | true
	[[ $(cat "$BATS_TEST_TMPDIR/code") -eq 1 ]]
	[[ $(called) == '10-first pre-take,20_second pre-take,20_second post-take,10-first post-take' ]]
	[[ $(sort -u "$seen") == 0022 ]]
	[[ -e $chain/00001.json ]]
	nothing_left
	blksnap backup "$backups" --no-hooks --diff "$(disk 2)" "$dev" 2>/dev/full
	blksnap backup "$backups" --no-hooks --diff "$(disk 2)" "$dev" <&- >&- 2>&-
	[[ -e $chain/00003.json ]]
	run -0 blksnap verify "$backups"
}

@test "hooks: before the take in order, after it in reverse order; also when something fails" {
	local hooks seen=$BATS_TEST_TMPDIR/seen
	backup_disk
	origin_of 20480
	hooks_made
	# shellcheck disable=SC2016 # for the hook
	hook 10-first 'echo "$BLKSNAP_DEVICES $(ls '"$SESSIONS"') '"$seen"'" >>'"$seen"
	hook 20_second
	hook ignored.dpkg-old
	hook 05-not-executable
	chmod -x "$hooks/05-not-executable"
	hook 15-other.sh
	backed_up
	[[ $output == *"$hooks/15-other.sh is not called"* && $output != *ignored* && $output != *executable* ]] || fail "$output"
	rm "$hooks/15-other.sh"
	[[ $(called) == '10-first pre-take,20_second pre-take,20_second post-take,10-first post-take' ]]
	# No session before the take; one, and a backup not yet, after it.
	[[ $(wc -l <"$seen") -eq 2 ]]
	grep -qx "$dev  $seen" "$seen"
	grep -qx "$dev backup-[0-9a-f]* $seen" "$seen"
	backed_up --no-hooks
	[[ ! -e $BATS_TEST_TMPDIR/called ]]
	# What a hook prints does not get among what goes to a pipe.
	hook 10-first 'echo noise'
	blksnap backup - --diff "$(disk 2)" "$dev" | blksnap verify -
	called
	hook 20_second 'exit 3'
	refused 1 "the hook $hooks/20_second pre-take ended with 3" blksnap backup "$backups" --diff "$(disk 2)" "$dev"
	[[ $(called) == '10-first pre-take,20_second pre-take,20_second post-take,10-first post-take' ]]
	# A take that is refused. A signal ends what a hook then begins as it ends what one begins before.
	# shellcheck disable=SC2016 # for the hook
	hook 20_second 'echo "$1 $(sed -n "s/^SigIgn://p" /proc/self/status)" >>'"$seen"
	rm "$seen"
	refused 1 'ENOENT: ' blksnap backup "$backups" --diff "$(disk 2)" "$dev" /dev/nothing
	[[ $(called) == '10-first pre-take,20_second pre-take,20_second post-take,10-first post-take' ]]
	[[ $(awk '$1 == "pre-take" { before = $2 } $1 == "post-take" { after = $2 } END { print (before == after && before != "") }' \
		"$seen") -eq 1 ]] || fail "they ignore: $(cat "$seen")"
	# One that fails afterwards does not harm the backup, and is told.
	# shellcheck disable=SC2016 # for the hook
	hook 20_second '[ "$1" = pre-take ]'
	run -1 blksnap backup "$backups" --diff "$(disk 2)" "$dev"
	[[ $output == *'post-take ended with 1'*'a hook has failed'* && -e $chain/00003.json ]]
	[[ $(called) == '10-first pre-take,20_second pre-take,20_second post-take,10-first post-take' ]]
	nothing_left
	run -0 blksnap verify "$backups"
	# A directory of one's own.
	hooks=$BATS_TEST_TMPDIR/hooks
	mkdir "$hooks"
	# It has the language of who has called.
	# shellcheck disable=SC2016 # for the hook
	hook only 'echo "${LC_ALL-none}" >>'"$seen"
	rm "$seen"
	run -0 env -u LC_ALL blksnap backup "$backups" --diff "$(disk 2)" --hooks "$hooks" "$dev"
	[[ $(called) == 'only pre-take,only post-take' && $(paste -sd' ' "$seen") == 'none none' ]]
	# That it cannot be listed does not mean that there is none.
	chmod a-r "$hooks"
	refused 1 "cannot list $hooks" setpriv --bounding-set=-dac_override,-dac_read_search \
		blksnap backup "$backups" --diff "$(disk 2)" --hooks "$hooks" "$dev"
	nothing_left
}

# --- the page --------------------------------------------------------------------------------------------------------

PAGE=/blksnap/docs/backup.md

# a_server: /dev/vg0/srv with something on it, mounted on /srv, and a disk for backups. All that the page makes is undone.
a_server() {
	local file tool
	vgcreate -qq -y vg0 "$(disk 1)"
	defer vgremove -q -q -ff -y vg0
	lvcreate -qq -y -n srv -L 96M vg0
	# So that nothing is written later that the test has not written.
	mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/vg0/srv
	mkfs.ext4 -q -L backup "$(disk 3)"
	settle
	mkdir -p /srv
	mount /dev/vg0/srv /srv
	defer umount /srv
	cp -r /etc /srv
	for file in /backup /usr/local/sbin/nightly-backup /etc/cron.d/nightly-backup /etc/blksnap /var/lib/blksnap; do
		[[ ! -e $file ]] || fail "$file is there already" || return
		defer rm -rf "$file"
	done
	# Where they are installed.
	for tool in blksnap blksnap-copy; do
		ln -s "$(command -v "$tool")" /usr/local/sbin/
		defer rm "/usr/local/sbin/$tool"
	done
}

# The disk for backups is mounted, and may be used.
use_backup_disk() {
	mkdir -p /backup
	mount LABEL=backup /backup
	defer umount /backup
}

# same_files DIRECTORY: as on /srv.
same_files() {
	diff -r --no-dereference --exclude=lost+found /srv "$1"
}

@test "backup.md: a nightly backup of a server, from the first mkdir to a restore" {
	local i
	a_server
	page 'The place'
	defer umount /backup
	page Tracking
	defer blksnap track --off /dev/vg0/srv
	page 'The first backup'
	[[ $(files /backup/server/srv) == '00001.full 00001.full.index 00001.json' ]]
	cp -r /etc /srv/second
	page 'Every night'
	[[ $(jq -r .kind /backup/server/srv/00002.json) == increment ]]
	rm -r /srv/etc
	mkdir /srv/application
	# shellcheck disable=SC2016 # for that shell
	printf '#!/bin/sh\necho "$1" >>/srv/application/called\n' >/srv/application/control
	chmod +x /srv/application/control
	page Hooks
	[[ $(paste -sd' ' /srv/application/called) == 'pause resume' ]]
	sed -i '$d' /srv/application/called
	page Restore
	defer umount /mnt/restored
	same_files /mnt/restored
	page 'Keeping it small'
	[[ $(files /backup/server/srv) == '00002.full 00002.full.index 00002.json 00003.increment '* ]]
	blksnap verify /backup/server
	page 'Somewhere else'
	fsck.ext4 -fn /backup/srv.img
	[[ $(debugfs -R 'ls -l /second' /backup/srv.img 2>/dev/null | wc -l) -gt 3 ]]
	nothing_left
}

@test "backup.md: qemu-img, with the ranges that blksnap changed prints" {
	a_server
	use_backup_disk
	blksnap track /dev/vg0/srv
	defer blksnap track --off /dev/vg0/srv
	cp -r /etc /srv/second
	page qemu-img qemu
	[[ $(stat -c %s /backup/srv-2.qcow2) -lt $(stat -c %s /backup/srv-1.qcow2) ]]
	nothing_left
	# Of another generation: the second part fails, and releases what it has taken.
	sed -i '1s/.*/"another"/' /backup/srv-1.number
	page_block qemu-img 'sh qemu' | sed -n '/^($/,$p' >"$BATS_TEST_TMPDIR/second"
	run -1 bash "$BATS_TEST_TMPDIR/second"
	nothing_left
}

@test "backup.md: partclone" {
	a_server
	use_backup_disk
	sync -f /srv
	page partclone partclone
	mkdir -p /mnt/test-again
	mount /dev/vg0/again /mnt/test-again
	defer umount /mnt/test-again
	same_files /mnt/test-again
	nothing_left
}

@test "backup.md: restic, with a full and an increment from a pipe" {
	a_server
	use_backup_disk
	blksnap track /dev/vg0/srv
	defer blksnap track --off /dev/vg0/srv
	page restic restic
	fsck.ext4 -fn /backup/restored.img
	debugfs -R 'stat /something-new' /backup/restored.img 2>/dev/null | grep -q 'Type: regular'
	nothing_left
}

# --- a terminal ------------------------------------------------------------------------------------------------------

@test "backup: how far it is, how fast, and how long it will take, on a terminal and nowhere else" {
	local seen=$BATS_TEST_TMPDIR/seen amount='[0-9.]+ ([KMG]i)?B'
	backup_disk
	slow_origin
	slow_down
	script -qec "blksnap backup $backups --diff $(disk 2) $dev" "$seen" >/dev/null </dev/null
	speed_up
	grep -aqE $'\rorigin: '"$amount"' of 48\.0 MiB \([1-9][0-9]? %\), '"$amount"'/s, 0:0[0-9]:[0-5][0-9] left' "$seen"
	grep -aqE $'\rorigin: 48\.0 MiB of 48\.0 MiB \(100 %\), '"$amount"'/s' "$seen"
	script -qec "blksnap verify $chain" "$seen" >/dev/null </dev/null
	grep -aqE $'\rorigin/00001: 48\.0 MiB of 48\.0 MiB \(100 %\), '"$amount"'/s' "$seen"
	# A command that fails does so there as well.
	run -1 script -qec "blksnap verify /nowhere" "$seen" </dev/null
	run -0 --separate-stderr blksnap backup "$backups" --diff "$(disk 2)" "$dev"
	[[ $stderr != *%* && $output == "$chain/00002: full, "* ]]
}

# --- usage -----------------------------------------------------------------------------------------------------------

@test "backup: wrong usage and wrong paths change nothing" {
	backup_disk
	origin_of 20480
	for command in backup verify merge restore; do
		run -0 blksnap "$command" --help
		[[ $output == "Usage: blksnap $command "* ]]
		wrong_usage "$command"
	done
	wrong_usage backup "$backups" "$dev"
	wrong_usage backup "$backups" --diff "$(disk 2)"
	wrong_usage backup "$backups" --diff "$(disk 2)" --full --differential "$dev"
	wrong_usage backup "$backups" --diff "$(disk 2)" --parent x "$dev"
	wrong_usage backup "$backups" --diff "$(disk 2)" --since 3 "$dev"
	wrong_usage backup "$backups" --session s --diff "$(disk 2)"
	wrong_usage backup - --diff "$(disk 2)" "$dev" "$(disk 1)"
	wrong_usage backup - --json --diff "$(disk 2)" "$dev"
	wrong_usage verify "$backups" "$backups"
	wrong_usage merge "$backups"
	wrong_usage restore "$backups"
	wrong_usage restore --at 3 - "$BATS_TEST_TMPDIR/file"
	refused 1 'no directory /nowhere' blksnap backup /nowhere --diff "$(disk 2)" "$dev"
	refused 1 'no directory /nowhere' blksnap backup "$backups" --diff "$(disk 2)" --hooks /nowhere "$dev"
	refused 1 'cannot read /nowhere' blksnap backup - --diff "$(disk 2)" --parent /nowhere "$dev"
	refused 1 'cannot write /nowhere/one' blksnap backup - --diff "$(disk 2)" --manifest /nowhere/one "$dev"
	refused 1 'cannot write /tmp' blksnap backup - --diff "$(disk 2)" --manifest /tmp "$dev"
	refused 1 "not the manifest" blksnap backup - --diff "$(disk 2)" --parent /etc/passwd "$dev"
	refused 1 'ENOTBLK: ' blksnap backup "$backups" --diff "$(disk 2)" /tmp
	refused 1 'no directory /nowhere' blksnap verify /nowhere
	refused 1 "there is no backup in $backups" blksnap verify "$backups"
	refused 1 "there is no backup in $backups" blksnap merge "$backups" 1
	[[ $(files "$backups") == '' ]]
	run -0 --separate-stderr blksnap backup "$backups" --json --diff "$(disk 2)" "$dev"
	[[ $(jq -r 'length, .[0].kind, .[0].id' <<<"$output") == $'1\nfull\n00001' ]]
}
