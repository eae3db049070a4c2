# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2030,SC2031,SC2034,SC2154 # suites use what is set here, and bats sets more
# Backups of a device by the tool, for its suite, on top of lib/common and lib/devices. What a test says of them is kept in
# variables: $dev is backed up, to $chain in $backups.

# --- devices and their backups ---------------------------------------------------------------------------------------

# Where backups go, in $backups: a file system on disk 3, of as little as will do.
backup_disk() {
	mkfs.ext4 -q -N 1024 -E lazy_itable_init=0,lazy_journal_init=0 "$(disk 3)" 600M
	backups=$(mount_test "$(disk 3)" backups)
}

# origin_of SECTORS [DEVICE]: $dev, a piece of disk 1, or of that, with something in it here and there; and where its backups
# are, in $chain.
origin_of() {
	dm_linear origin "${2:-$(disk 1)}" "$1"
	dev=/dev/mapper/origin sectors=$1
	chain=$backups/origin
	scribbled 5
}

# origin_away: before the end of the test. Nothing else may have been deferred.
origin_away() {
	dmsetup remove --retry origin
	COMMON_DEFERRED=()
}

# scribbled COUNT: so many writes of something new somewhere on $dev, and one at its very end.
scribbled() {
	scribble "$dev" "$1"
}

# random_sectors START LENGTH: on $dev.
random_sectors() {
	scribble -o $(($1 * 512)) -l $(($2 * 512)) "$dev"
}

# backed_up [OPTION...]: $dev as it is now; and $dev as it is now is $BATS_TEST_TMPDIR/NUMBER. What it printed in $output.
backed_up() {
	# bats' run has an i that is not its own.
	local i
	run -0 blksnap backup "$backups" --diff "$(disk 2)" "$@" "$dev"
	[[ $output =~ ($chain/)([0-9]{5}): ]] || fail "blksnap backup says: $output" || return
	number=${BASH_REMATCH[2]}
	copy_of_origin "$BATS_TEST_TMPDIR/$number"
	nothing_left
}

# copy_of_origin FILE: what is on $dev now.
copy_of_origin() {
	dd if="$dev" of="$1" bs=1M iflag=direct conv=sparse status=none
	# Its end may be a hole.
	truncate -s "$(blockdev --getsize64 "$dev")" "$1"
}

# restored [NUMBER]: it is, byte for byte, what it was; the last one, if none is named.
restored() {
	local file=$BATS_TEST_TMPDIR/restored
	rm -f "$file"
	blksnap restore ${1:+--at "$1"} "$chain" "$file" || fail "not restored: $1" || return
	cmp "$file" "$BATS_TEST_TMPDIR/${1:-$number}"
}

# manifest NUMBER FILTER
manifest() {
	jq -er "$2" "$chain/$1.json"
}

# There is no session, whatever came before.
nothing_left() {
	[[ -z $(ls "$SESSIONS") ]] || fail "the sessions are: $(ls "$SESSIONS")"
}

# files DIRECTORY: prints what is in it, on one line.
files() {
	find "$1" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name .lock -printf '%f\n' | sort | paste -sd' '
}

# refused CODE TEXT COMMAND...: the code, and TEXT among the messages; nothing on stdout, and no backup has changed.
refused() {
	local code=$1 text=$2 before after
	shift 2
	before=$(find "$backups" -type f -printf '%p %s %T@\n' | sort)
	run -"$code" --separate-stderr "$@"
	[[ -z $output && $stderr == *"$text"* ]] || fail "$* says: $output $stderr" || return
	after=$(find "$backups" -type f ! -name .lock -printf '%p %s %T@\n' | sort)
	[[ $(grep -v '\.lock ' <<<"$before") == "$after" ]] || fail "changed by $*: $before, $after" || return
	nothing_left
}

# wrong_usage ARGUMENT...
wrong_usage() {
	run -2 --separate-stderr blksnap "$@"
	[[ -z $output && $stderr == *'--help'* ]] || fail "$* says: $output $stderr"
}

# renumbered FROM TO: a full of the chain that nothing is built upon.
renumbered() {
	local above
	above=$(sed '/^  "checksum"/,$d; s/"'"$1"'/"'"$2"'/' "$chain/$1.json")
	printf '%s\n  "checksum": "%s"\n}\n' "$above" "$(sha256sum <<<"$above" | cut -d' ' -f1)" >"$chain/$2.json"
	mv "$chain/$1.full" "$chain/$2.full"
	mv "$chain/$1.full.index" "$chain/$2.full.index"
	rm "$chain/$1.json"
}

# flip FILE OFFSET: changes a bit there.
flip() {
	local byte
	byte=$(od -An -tu1 -j "$2" -N 1 "$1")
	# shellcheck disable=SC2059 # the format is the byte
	printf "\\x$(printf %x $((byte ^ 4)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# finds TEXT...: verify fails, and says all of these, in one line.
finds() {
	local text line
	run -1 blksnap verify "$backups"
	while read -r line; do
		for text; do
			[[ $line == *"$text"* ]] || continue 2
		done
		return 0
	done <<<"$output"
	fail "verify does not find $*, but says: $output"
}

# --- interruptions ---------------------------------------------------------------------------------------------------

# slow_origin: $dev, of 48 MiB without a hole; what it lies on, /dev/mapper/slow, is not slow yet.
slow_origin() {
	dm_linear slow "$(disk 1)" 98304
	origin_of 98304 /dev/mapper/slow
	scribble -l 1M "$dev" 48
}

# slow_down: reads take more than a second each, but in the first and the last 4 MiB, where udev looks for something again
# and again. What is under way while speed_up is called is completed at once.
slow_down() {
	dm_switch slow <<-END
		0 8192 linear $(disk 1) 0
		8192 81920 delay $(disk 1) 8192 1100 $(disk 1) 8192 0
		90112 8192 linear $(disk 1) 90112
	END
}

speed_up() {
	dm_switch slow "0 98304 linear $(disk 1) 0"
}

# interrupted COMMAND...: killed when more than $there lines of it were on the disk, in the index of $chain/$next. It reads
# slowly, and what comes after does not.
interrupted() {
	slow_down
	setsid "$@" >"$BATS_TEST_TMPDIR/said" 2>&1 3>&- &
	tool=$!
	wait_until 100 has_lines || return
	killed
	[[ ! -e ${chain:?}/${next%%.*}.json ]] || fail "it was complete: $next"
}

# Backups of $dev that were killed.
interrupted_backup() {
	interrupted blksnap backup "$backups" --diff "$(disk 2)" "$@" "$dev"
}

# killed: the tool, in the middle of something. What it has started may still wait for a read, and has the locks until then.
killed() {
	kill -KILL -- "-$tool" 2>/dev/null || true
	wait "$tool" || true
	[[ ! -e /dev/mapper/slow ]] || speed_up
	flock --timeout 60 "$backups/.lock" true
	flock --timeout 60 "$chain/.lock" true
}

# There are more lines than $there in the index that is being written; or more than its heading.
has_lines() {
	local lines
	[[ -e $chain/$next.index.partial ]] || return
	mapfile -t lines <"$chain/$next.index.partial"
	[[ ${#lines[@]} -gt ${there:-1} ]]
}

# --- chains, and damage to them --------------------------------------------------------------------------------------

# chain_of_three: a full and two increments.
chain_of_three() {
	backup_disk
	origin_of 20480
	backed_up --track
	random_sectors 2048 128
	backed_up
	random_sectors 16384 64
	random_sectors 4096 64
	backed_up
	cp -a "$chain" "$BATS_TEST_TMPDIR/chain"
}

# as_before: the chain as it was.
as_before() {
	rm -r "$chain"
	cp -a "$BATS_TEST_TMPDIR/chain" "$chain"
}

# --- how much is read ------------------------------------------------------------------------------------------------

# image_reads IMAGE: prints how many bytes were read from it so far.
image_reads() {
	echo $(($(stat_of "$1" image_reads_origin) + $(stat_of "$1" image_reads_diff) + $(stat_of "$1" image_reads_memory)))
}

# disk_reads DEVICE: prints how many bytes were read from it so far.
disk_reads() {
	local sectors
	read -r _ _ sectors _ <"/sys/class/block/$(basename "$(readlink -f "$1")")/stat"
	echo $((sectors * 512))
}

# reads_of COMMAND...: how many bytes it reads from the image of $dev in session s, in $through, and from $dev, in $below.
reads_of() {
	local image
	image=$(readlink -f "/dev/blksnap/s/$(basename "$dev")")
	through=$(image_reads "$image") below=$(disk_reads "$dev")
	"$@" || return
	through=$(($(image_reads "$image") - through)) below=$(($(disk_reads "$dev") - below))
}

# streamed FILE OPTION...: blksnap backup to a pipe, into the file.
streamed() {
	blksnap backup - "${@:2}" >"$1"
}

# --- what is restored from a pipe, step by step ----------------------------------------------------------------------

# begin_restore TARGET: it waits for backups; they are written to the descriptor in $pipe, and what it says is in $said.
begin_restore() {
	rm -f "$BATS_TEST_TMPDIR/pipe"
	mkfifo "$BATS_TEST_TMPDIR/pipe"
	said=$BATS_TEST_TMPDIR/said
	blksnap restore - "$1" <"$BATS_TEST_TMPDIR/pipe" >"$said" 2>&1 3>&- &
	tool=$!
	exec {pipe}>"$BATS_TEST_TMPDIR/pipe"
}

# end_restore CODE: no more comes, and it ends with that.
end_restore() {
	local code=0
	exec {pipe}>&-
	wait "$tool" || code=$?
	[[ $code -eq $1 ]] || fail "ended with $code: $(cat "$said")"
}

# --- hooks -----------------------------------------------------------------------------------------------------------

# hooks_made: the usual directory of hooks, in $hooks; nothing is in it yet.
hooks_made() {
	hooks=/etc/blksnap/hooks.d
	mkdir -p "$hooks"
	defer rm -r /etc/blksnap
}

# hook NAME [COMMAND]: one that notes that it was called, and does that.
hook() {
	printf '#!/bin/sh\necho "%s $*" >>"%s"\n%s\n' "$1" "$BATS_TEST_TMPDIR/called" "${2:-}" >"$hooks/$1"
	chmod +x "$hooks/$1"
}

# called: what was, on one line.
called() {
	paste -sd, "$BATS_TEST_TMPDIR/called"
	rm "$BATS_TEST_TMPDIR/called"
}
