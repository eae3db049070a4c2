#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 40
# The power is cut, and the disk forgets what is in its volatile cache: what was confirmed while a session is active, by a flush
# or by FUA, is there all the same, also if the driver held the write. dm-log-writes enters a write in its log only when a flush
# has made it last, or FUA: so what it has entered before a mark is what such a disk would hold then (`replay`, tests/src).

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so are its variables
load lib/common
load lib/devices

SECTORS=655360 # XFS wants as much; a smaller disk is faster to make blank
WRITERS=4

setup() {
	common_setup
}

teardown() {
	common_teardown
}

# cached_make: /dev/mapper/origin, a blank disk, what lasts on which is logged on disk 7; /dev/mapper/after is for what is left of
# it after a cut.
cached_make() {
	modprobe -q dm-log-writes || skip 'this kernel has no dm-log-writes'
	dm_linear below "$(disk 1)" "$SECTORS"
	dm_linear after "$(disk 3)" "$SECTORS"
	dm_make origin "0 $SECTORS log-writes /dev/mapper/below $(disk 7)"
	origin=/dev/mapper/origin marks=()
}

# log_ends: all of it is on the disk then, and a last mark.
log_ends() {
	dm_switch origin "0 $SECTORS linear /dev/mapper/below 0"
}

# taken: with so little memory, and granules so small, that writes are held, and what is preserved for them stored.
taken() {
	echo 4M >"$MEMORY_LIMIT"
	session_make s "$(disk 2)" "$origin"
	put "$SESSIONS/s/s1/chunk_size" 4K
	session_take s
	defer session_ends
	image=$(image_of s s1)
}

# session_ends: also after a test that has failed.
session_ends() {
	[[ ! -d $SESSIONS/s ]] || session_destroy s
}

# holds_at_least COUNT: so many writes were held, and all is well with the image.
holds_at_least() {
	[[ $(stat_of "$image" writes_held) -ge $1 ]] || fail "$(stat_of "$image" writes_held) writes were held" || return
	[[ $(stat_of "$image" chunks_stored) -gt 0 ]] || fail 'nothing was stored' || return
	state_is s active
}

# mark NAME
mark() {
	dmsetup message origin 0 mark "$1"
	marks+=("$1")
}

# written HOW PLACE WRITES FIRST LAST: and a mark, HOW and what was confirmed before, now and then while it is, and at the end.
written() {
	local line
	while read -r line; do
		mark "$1:$line"
	done < <(confirm write "$1" "$2" "$WRITERS" "${@:3}" 3>&-)
	wait "$!" || fail "not written: $*"
}

# each COUNT: prints it for each writer.
each() {
	local i text=$1
	for ((i = 1; i < WRITERS; i++)); do
		text+=.$1
	done
	printf '%s\n' "$text"
}

# cut_at MARK: what is left then.
cut_at() {
	replay "$(disk 7)" /dev/mapper/after "$1"
}

# there PLACE WRITES CONFIRMED
there() {
	run confirm check "$1" "$WRITERS" "$2" "$3"
	[[ $status -eq 0 ]] || fail "confirmed in $1 were $3: $output"
}

# missed PLACE WRITES COUNT: a write of that number is missed, of each writer. So what is there is told from what is not.
missed() {
	run -1 confirm check "$1" "$WRITERS" "$2" "$(each "$3")"
	[[ $(grep -c "^write $3 of writer" <<<"$output") -eq $WRITERS ]] || fail "not missed: write $3: $output"
}

# fs_clean TYPE DEVICE
fs_clean() {
	case $1 in
	xfs) run xfs_repair -n "$2" ;;
	*) run e2fsck -fn "$2" ;;
	esac
	[[ $status -eq 0 ]] || fail "not clean: $output"
}

# fs_survives TYPE MKFS-OPTION...: the power is cut while files are overwritten and made, and fsynced; and while they are
# overwritten with FUA, of which there is no flush.
fs_survives() {
	local type=$1 writes=31 mark dir=/mnt/test-fs after=/mnt/test-after origin image marks
	shift
	cached_make
	defer common_umount
	"mkfs.$type" -q "$@" "$origin"
	mount_test "$origin" fs
	mkdir -p "$dir/fsync/new" "$dir/fua"
	confirm make "$dir/fsync" "$WRITERS" "$writes"
	confirm make "$dir/fua" "$WRITERS" "$writes"
	sync -f "$dir"
	taken
	written fsync "$dir/fsync" "$writes" 1 $((writes - 1))
	written fua "$dir/fua" "$writes" 1 $((writes - 1))
	holds_at_least $((2 * WRITERS * (writes - 1)))
	session_destroy s
	umount "$dir"
	log_ends

	for mark in "${marks[@]}"; do
		cut_at "$mark"
		mount_test /dev/mapper/after after
		case $mark in
		fsync:*)
			there "$after/fsync" "$writes" "${mark#*:}"
			missed "$after/fua" "$writes" 1
			;;
		fua:*)
			there "$after/fsync" "$writes" "$(each $((writes - 1)))"
			there "$after/fua" "$writes" "${mark#*:}"
			;;
		esac
		umount "$after"
		fs_clean "$type" /dev/mapper/after
	done
	mount_test /dev/mapper/after after
	missed "$after/fsync" "$writes" "$writes"
	umount "$after"
}

@test "power cut: what was fsynced on ext4 while a session is active lasts on a disk that forgets its cache (I1)" {
	# Its journal does not come to where it began.
	fs_survives ext4 -b 4096 -N 2048 -J size=32 -E nodiscard,lazy_itable_init=0,lazy_journal_init=1
}

@test "power cut: what was fsynced on XFS while a session is active lasts on a disk that forgets its cache (I1)" {
	# Writes of its log do not share a granule.
	fs_survives xfs -K -l size=64m,su=4k
}

@test "power cut: held writes of a disk that forgets its cache last when fsync, fdatasync or FUA confirm them, else not (I1)" {
	local mark writes=81 origin image marks SECTORS=16384
	cached_make
	confirm make "$origin" "$WRITERS" "$writes"
	taken
	written fsync "$origin" "$writes" 1 20
	written fdatasync "$origin" "$writes" 21 40
	written fua "$origin" "$writes" 41 60
	written nothing "$origin" "$writes" 61 80
	holds_at_least $((WRITERS * 80))
	session_destroy s
	log_ends

	for mark in "${marks[@]}"; do
		cut_at "$mark"
		case $mark in
		nothing:*)
			there /dev/mapper/after "$writes" "$(each 60)"
			missed /dev/mapper/after "$writes" 61
			;;
		*) there /dev/mapper/after "$writes" "${mark#*:}" ;;
		esac
	done
	# With the device's end all is flushed.
	cut_at dm-log-writes-end
	there /dev/mapper/after "$writes" "$(each 80)"
	missed /dev/mapper/after "$writes" 81
}

@test "power cut: a mark that is not in the log, and a disk without a log, are not replayed" {
	local origin marks SECTORS=16384
	cached_make
	run -1 replay "$(disk 2)" /dev/mapper/after one
	[[ $output == *'has no log of dm-log-writes'* ]]
	confirm make "$origin" "$WRITERS" 4
	mark one
	mark two
	mark two
	log_ends
	stamp fill /dev/mapper/after --seed 17 --length 1M
	run -1 cut_at three
	[[ $output == *'there is no mark "three"'* ]]
	run -1 cut_at two
	[[ $output == *'the mark "two" is there twice'* ]]
	# Nothing was done to it.
	stamp verify /dev/mapper/after --seed 17 --seq 1 --length 1M
	cut_at one
	missed /dev/mapper/after 4 1
	# Its version is in the second word.
	printf '\2' | dd of="$(disk 7)" bs=1 seek=8 conv=notrunc status=none
	run -1 cut_at one
	[[ $output == *'its version is 2'* ]]
}
