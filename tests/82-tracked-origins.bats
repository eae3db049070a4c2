#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 8
# What becomes of an origin whose changes are tracked: it goes, grows, shrinks, gets another table, file or medium, or is
# cut up anew; and trackers that come and go.

# shellcheck disable=SC2030,SC2031,SC2153 # each test is a subshell, and so is its `output`; IMAGE is of lib/tracking
load lib/common
load lib/devices
load lib/tracking

setup() {
	common_setup
	skip_unless_feature cbt
}

teardown() {
	common_teardown
}

# lost NAME: says so, and has given everything back.
lost() {
	[[ $(tracker_get "$1" state) == lost && $(tracker_get "$1" enabled) == 1 ]] ||
		fail "state $(tracker_get "$1" state)" || return
	[[ $(tracker_get "$1" error) == 'ENODEV: '* && -z $(tracker_get "$1" generation) ]] ||
		fail "error $(tracker_get "$1" error)" || return
	refuses EINVAL put "$TRACKERS/$1/dirty" "0 1"
}

@test "tracking: losetup -d goes on, and the tracker is lost, with an event (I7, I8)" {
	local events=$BATS_TEST_TMPDIR/events
	truncate -s 64M "$BATS_TEST_TMPDIR/file"
	LOOP=$(losetup -f --show "$BATS_TEST_TMPDIR/file")
	tracker_make t "$LOOP"
	udevadm monitor -k -p --subsystem-match=module >"$events" 3>&- &
	defer end_background $!
	wait_until 10 grep -q '^KERNEL - ' "$events"
	losetup -d "$LOOP"
	wait_until 10 grep -qx 'BLKSNAP_EVENT=lost' "$events"
	grep -qx 'BLKSNAP_TRACKER=t' "$events"
	grep -qx "BLKSNAP_ORIGIN=$(major_minor "$LOOP")" "$events" || grep -q '^BLKSNAP_ORIGIN=7:' "$events"
	log_has 'blksnap: t: ENODEV: '
	lost t
	# Another file in the same place is another origin.
	losetup "$LOOP" "$BATS_TEST_TMPDIR/file"
	[[ $(tracker_get t state) == lost ]]
	refuses EBUSY put "$TRACKERS/t/enabled" 1
	put "$TRACKERS/t/enabled" 0
	put "$TRACKERS/t/enabled" 1
	[[ $(tracker_get t state) == tracking && -z $(tracker_get t error) ]]
	losetup -d "$LOOP"
	lost t
	tracker_destroy t
}

@test "tracking: a loop device that gets another file at once has lost its tracker" {
	truncate -s 64M "$BATS_TEST_TMPDIR/one" "$BATS_TEST_TMPDIR/two"
	LOOP=$(losetup -f --show "$BATS_TEST_TMPDIR/one")
	settle
	tracker_make t "$LOOP"
	losetup -d "$LOOP" && losetup "$LOOP" "$BATS_TEST_TMPDIR/two"
	lost t
	losetup -d "$LOOP"
	tracker_destroy t
}

@test "tracking: a loop device whose file is changed below it has lost its tracker, and its session" {
	truncate -s 64M "$BATS_TEST_TMPDIR/one" "$BATS_TEST_TMPDIR/two"
	LOOP=$(losetup -r -f --show "$BATS_TEST_TMPDIR/one")
	settle
	tracker_make t "$LOOP"
	session_of "$(disk 2)" "$LOOP"
	# LOOP_CHANGE_FD
	perl -e 'open L, $ARGV[0] or die; open F, $ARGV[1] or die; ioctl L, 0x4C06, fileno F or die "$!\n"' \
		"$LOOP" "$BATS_TEST_TMPDIR/two"
	lost t
	wait_until 20 log_has 'blksnap: s/s1: ENODEV: '
	session_destroy s
	losetup -d "$LOOP"
	tracker_destroy t
}

# loop_shift OFFSET: LOOP_SET_STATUS64 with another offset, in bytes, and all else as it is.
loop_shift() {
	perl -e 'open L, $ARGV[0] or die; my $status = "\0" x 232; ioctl L, 0x4C05, $status or die "$!\n";
		substr $status, 24, 8, pack "Q", $ARGV[1]; ioctl L, 0x4C04, $status or die "$!\n"' "$LOOP" "$1"
}

@test "tracking: a loop device that is given another offset has other content: its session is lost, and its tracker begins anew (I2)" {
	local size generation
	truncate -s 64M "$BATS_TEST_TMPDIR/file"
	# It becomes larger; and it keeps its size.
	for size in 0 16M; do
		loop_make_of "$BATS_TEST_TMPDIR/file" --offset 1M --sizelimit "$size"
		settle
		tracker_make t "$LOOP"
		generation=$(<"$TRACKERS/t/generation")
		session_of "$(disk 2)" "$LOOP"
		loop_shift 0
		wait_until 20 state_is s lost
		[[ $(session_get s s1/error) == 'ENODEV: '*'another offset' ]]
		log_has 'blksnap: s/s1: ENODEV: .*another offset'
		session_destroy s
		[[ $(<"$TRACKERS/t/generation") != "$generation" ]]
		tracker_destroy t
	done
}

@test "tracking: a loop device that grows with its file keeps its session" {
	truncate -s 32M "$BATS_TEST_TMPDIR/file"
	loop_make_of "$BATS_TEST_TMPDIR/file" --offset 1M
	settle
	session_of "$(disk 2)" "$LOOP"
	truncate -s 64M "$BATS_TEST_TMPDIR/file"
	losetup -c "$LOOP"
	[[ $(<"/sys/block/${LOOP##*/}/size") -eq $((63 << 11)) ]]
	sleep 2
	state_is s active
	session_destroy s
}

# medium_is_another DISKSEQ: has the kernel noticed it?
medium_is_another() {
	dd if="$SCSI" of=/dev/null bs=4K count=1 iflag=direct 2>/dev/null || true
	[[ $(<"/sys/block/${SCSI##*/}/diskseq") != "$1" ]]
}

@test "tracking: another medium of the same size in the same drive: lost" {
	local medium
	scsi_debug_make dev_size_mb=64 removable=1
	tracker_make t "$SCSI"
	session_of "$(disk 2)" "$SCSI"
	# It says that its capacity has changed, and then has the same one; to the kernel that is another medium.
	medium=$(<"/sys/block/${SCSI##*/}/diskseq")
	echo 1 >/sys/bus/pseudo/drivers/scsi_debug/virtual_gb
	echo 0 >/sys/bus/pseudo/drivers/scsi_debug/virtual_gb
	wait_until 20 medium_is_another "$medium"
	lost t
	[[ $(session_get s state) == lost ]]
	session_destroy s
	tracker_destroy t
}

@test "tracking: lvremove goes on, after a session as well (I7)" {
	vgcreate -qq -y testvg "$(disk 3)"
	lvcreate -qq -y -n lv -L 64M testvg
	tracker_make t /dev/testvg/lv
	session_of "$(disk 2)" /dev/testvg/lv
	written /dev/testvg/lv 1M 65536
	[[ $(stat_of "$(image_of s s1)" chunks_preserved) -gt 0 ]]
	session_release s
	lvremove -qq -y testvg/lv
	lost t
	[[ $(session_get s state) == configured ]]
	session_destroy s
	tracker_destroy t
	vgremove -qq -y testvg
	pvremove -qq -y "$(disk 3)"
}

@test "tracking: lvextend begins a new generation, with the new size" {
	local generation
	vgcreate -qq -y testvg "$(disk 3)"
	lvcreate -qq -y -n lv -L 64M testvg
	tracker_make t /dev/testvg/lv
	session_of "$(disk 2)" /dev/testvg/lv
	generation=$(tracker_get t generation)
	lvextend -qq -L 128M testvg/lv
	[[ $(tracker_get t state) == tracking && $(tracker_get t number) == 0 ]]
	[[ $(tracker_get t generation) != "$generation" ]]
	# What was frozen stays valid, and the session goes on.
	[[ $(cbt_of "$(image_of s s1)" generation) == "$generation" ]]
	[[ $(session_get s state) == active ]]
	session_release s
	written /dev/testvg/lv 127M 4096
	session_take s
	[[ $(cbt_of "$(image_of s s1)" map | wc -c) -eq 2048 && $(cbt_of "$(image_of s s1)" number) == 1 ]]
	changed_is "$(image_of s s1)" 2032:1
	session_destroy s
	lvremove -qq -y testvg/lv
	tracker_destroy t
	vgremove -qq -y testvg
	pvremove -qq -y "$(disk 3)"
}

@test "tracking: mdadm --stop goes on, after a session as well, and the array can be assembled again (I7)" {
	mdadm --create /dev/md77 -q -R -l0 -n2 "$(disk 3)" "$(disk 4)" 2>/dev/null
	settle
	tracker_make t /dev/md77
	mdadm -q --stop /dev/md77
	lost t
	settle
	[[ -e /dev/md77 ]] || mdadm -q --assemble /dev/md77 "$(disk 3)" "$(disk 4)"
	settle
	tracker_destroy t
	tracker_make t /dev/md77
	# Nor is there anything left of a session.
	session_of "$(disk 2)" /dev/md77
	written /dev/md77 1M 65536
	[[ $(stat_of "$(image_of s s1)" chunks_preserved) -gt 0 ]]
	session_release s
	mdadm -q --stop /dev/md77
	lost t
	[[ $(session_get s state) == configured ]]
	session_destroy s
	tracker_destroy t
	mdadm -q --zero-superblock "$(disk 3)" "$(disk 4)"
}

@test "tracking: another table below begins a new generation, a smaller one loses the tracker" {
	local generation
	dm_linear origin "$(disk 1)" 131072
	tracker_make t /dev/mapper/origin
	generation=$(tracker_get t generation)
	dmsetup suspend origin
	dmsetup resume origin
	[[ $(tracker_get t generation) == "$generation" ]]
	dm_switch origin "0 131072 linear $(disk 3) 0"
	[[ $(tracker_get t state) == tracking && $(tracker_get t generation) != "$generation" ]]
	dm_switch origin "0 65536 linear $(disk 3) 0"
	lost t
	tracker_destroy t
}

@test "tracking: a partition table that is read again loses only what has changed" {
	local dev one two generation
	dev=$(disk 1)
	partition "$dev" 64M 64M
	one=$(part "$dev" 1) two=$(part "$dev" 2)
	tracker_make t "$one"
	tracker_make u "$two"
	generation=$(tracker_get t generation)
	blockdev --rereadpt "$dev"
	settle
	[[ $(tracker_get t generation) == "$generation" && $(tracker_get t state) == tracking ]]
	[[ $(tracker_get u state) == tracking ]]
	# The first one stays, the second one begins elsewhere.
	printf 'start=2048, size=64M\nstart=140000, size=64M\n' | sfdisk -q -X gpt "$dev" >/dev/null
	settle
	[[ $(tracker_get t generation) == "$generation" && $(tracker_get t state) == tracking ]]
	lost u
	written "$dev" 1M 4096
	settle
	session_of "$(disk 2)" "$one"
	changed_is "$(image_of s s1)" 0:1
	session_destroy s
	tracker_destroy t
	tracker_destroy u
}

# table_read DISK: anew, when udev has it no more open.
table_read() {
	settle
	wait_until 10 blockdev --rereadpt "$1"
	settle
}

another_number() {
	table_read "$LOOP"
	[[ $(major_minor "$one") != "$number" ]]
}

@test "tracking: a partition that gets another number when the table is read again is the same" {
	local one generation number lower
	# A partition gets the lowest number that is free: so there is a lower one later.
	loop_make 16M --partscan
	lower=$LOOP
	partition "$lower" 8M
	loop_make 128M --partscan
	partition "$LOOP" 64M 32M
	partx -d "$lower"
	one=$(part "$LOOP" 1)
	number=$(major_minor "$one")
	tracker_make t "$one"
	generation=$(tracker_get t generation)
	wait_until 60 another_number
	[[ $(tracker_get t generation) == "$generation" && $(tracker_get t state) == tracking ]]
	written "$LOOP" 1M 4096
	session_of "$(disk 2)" "$one"
	changed_is "$(image_of s s1)" 0:1
	session_release s
	# What is done with it is done with what has the new number.
	printf 'start=2048, size=80M\n' | sfdisk -q -X gpt --no-reread --no-tell-kernel "$LOOP"
	table_read "$LOOP"
	[[ $(tracker_get t generation) != "$generation" && $(tracker_get t state) == tracking ]]
	sfdisk -q --delete --no-reread --no-tell-kernel "$LOOP"
	table_read "$LOOP"
	lost t
	session_destroy s
	tracker_destroy t
	settle
}

# resized DISK SIZE: its first partition, which stays in use.
resized() {
	printf 'start=2048, size=%s\n' "$2" | sfdisk -q -X gpt --no-reread --no-tell-kernel "$1"
	partx -u "$1"
}

@test "tracking: a partition that is resized in place: grown, a new generation; shrunk, lost, and told without being asked" {
	local dev part generation
	dev=$(disk 1)
	partition "$dev" 64M
	part=$(part "$dev" 1)
	tracker_make t "$part"
	session_of "$(disk 2)" "$part"
	generation=$(tracker_get t generation)
	resized "$dev" 128M
	[[ $(tracker_get t state) == tracking && $(tracker_get t number) == 0 ]]
	[[ $(tracker_get t generation) != "$generation" ]]
	log_has 'blksnap: t: .*has grown'
	[[ $(session_get s state) == active && $(blockdev --getsz "$(image_of s s1)") -eq $((64 * 2048)) ]]
	written "$part" 127M 4096
	session_release s
	session_take s
	changed_is "$(image_of s s1)" 2032:1
	resized "$dev" 32M
	wait_until 20 log_has 'blksnap: t: ENODEV: '
	wait_until 20 log_has 'blksnap: s/s1: ENODEV: '
	lost t
	[[ $(session_get s state) == lost ]]
	session_destroy s
	tracker_destroy t
}

@test "tracking: a partition that is all of its disk has a tracker of its own" {
	local dev part
	dev=$(disk 5)
	# A DOS table of one partition, from sector 0 on; sfdisk makes none of that kind.
	perl -e 'print "\0" x 446, pack("C8VV", 0, 0, 0, 0, 0x83, 0, 0, 0, 0, $ARGV[0]), "\0" x 48, "\x55\xaa"' \
		"$(blockdev --getsz "$dev")" | dd of="$dev" oflag=direct conv=sync status=none
	blockdev --rereadpt "$dev"
	settle
	part=$(part "$dev" 1)
	tracker_make t "$dev"
	tracker_make u "$part"
	[[ $(tracker_get t generation) != "$(tracker_get u generation)" ]]
	session_of "$(disk 2)" "$dev" "$part"
	session_release s
	written "$dev" 1M 4096
	settle
	written "$part" 2M 4096
	session_take s
	[[ $(cbt_of "$(image_of s s1)" generation) == "$(tracker_get t generation)" ]]
	[[ $(cbt_of "$(image_of s s2)" generation) == "$(tracker_get u generation)" ]]
	changed_is "$(image_of s s1)" 16:2 32:2
	changed_is "$(image_of s s2)" 16:2 32:2
	session_destroy s
	tracker_destroy u
	[[ $(tracker_get t state) == tracking ]]
	put "$TRACKERS/t/dirty" '0 1'
	session_of "$(disk 2)" "$dev"
	session_destroy s
	tracker_destroy t
}

@test "tracking: trackers that come and go while there are writers and sessions" {
	local dev
	dev=$(disk 5)
	stamp fill "$dev" --seed 5 --length 16M >/dev/null
	background stamp storm "$dev" - --seed 5 --taken-seq 1 --length 16M --seconds 600 --writers 2 --max-size 16K
	session_make s "$(disk 2)" "$dev"
	for _ in {1..8}; do
		tracker_make t "$dev"
		snap s
		[[ $(cbt_of "$IMAGE" number) == 1 ]]
		tracker_destroy t
		unsnap s
	done
	session_destroy s
	stop_background
}
