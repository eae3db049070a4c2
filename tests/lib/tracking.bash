# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034 # suites use IMAGE
# Change tracking as an administrator sees it, on top of lib/common: trackers, change maps, quick snapshots.

# tracker_get NAME ATTRIBUTE
tracker_get() {
	cat "$TRACKERS/$1/$2"
}

# cbt_of IMAGE ATTRIBUTE
cbt_of() {
	cat "/sys/block/${1##*/}/cbt/$2"
}

# changed IMAGE: prints BLOCK:NUMBER for each block that has changed, on one line.
changed() {
	od -An -v -tu1 -w1 "/sys/block/${1##*/}/cbt/map" | awk '$1 { print NR - 1 ":" $1 + 0 }' | paste -sd' '
}

# changed_is IMAGE BLOCK:NUMBER...
changed_is() {
	local said
	said=$(changed "$1")
	[[ $said == "${*:2}" ]] || fail "changed is: $said, not: ${*:2}"
}

# written DEVICE OFFSET LENGTH: direct writes of something new there, in one piece. Never makes a file of what has gone: as a partition
# may have for a moment, since udev has the table read again when a writer has closed the disk.
written() {
	head -c "$3" /dev/urandom >"$BATS_TEST_TMPDIR/piece"
	dd if="$BATS_TEST_TMPDIR/piece" of="$1" bs="$3" count=1 oflag=direct,seek_bytes seek="$2" conv=notrunc,nocreat status=none
}

# snap SESSION: taken without waiting for udev; its first image in IMAGE.
snap() {
	echo 1 >"$SESSIONS/$1/active" || fail "not taken: $(cat "$SESSIONS/$1/error")" || return
	read -r IMAGE <"$SESSIONS/$1/s1/image"
}

# unsnap SESSION
unsnap() {
	echo 0 >"$SESSIONS/$1/active"
}
