#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 9
# What udev makes of images: their names and properties, and that nobody takes an image for its origin.

load lib/common
load lib/devices
load lib/pages

setup() {
	# bats' own, of which LVM would complain.
	export LVM_SUPPRESS_FD_WARNINGS=1
	common_setup
}

teardown() {
	common_teardown
}

# --- helpers ---------------------------------------------------------------------------------------------------------

# property DEVICE NAME: prints what udev's database has.
property() {
	udevadm info --query=property --property="$2" --value "$1"
}

# identified DEVICE SESSION SNAPSHOT ORIGIN: the three properties of an image, or of a partition of one, are there; an
# event is not.
identified() {
	local all
	all=$(udevadm info --query=property "$1")
	grep -qx "BLKSNAP_SESSION=$2" <<<"$all" || fail "no BLKSNAP_SESSION=$2 at $1: $all" || return
	grep -qx "BLKSNAP_SNAPSHOT=$3" <<<"$all" || fail "no BLKSNAP_SNAPSHOT=$3 at $1: $all" || return
	grep -qx "BLKSNAP_ORIGIN=$(major_minor "$4")" <<<"$all" || fail "not the origin $4 at $1: $all" || return
	grep -qx UDISKS_IGNORE=1 <<<"$all" || fail "desktops do not ignore $1: $all" || return
	! grep '^BLKSNAP_EVENT=' <<<"$all" || fail "an event was kept at $1"
}

# Prints every link below /dev/disk and where it points to, one a line.
disk_links() {
	find /dev/disk -type l ! -path '*/by-diskseq/*' -printf '%p %l\n' | sort
}

# links_unchanged BEFORE: of /dev/disk.
links_unchanged() {
	local now
	now=$(disk_links)
	[[ $now == "$1" ]] || fail "links of /dev/disk have changed: $(diff <(echo "$1") <(echo "$now"))"
}

# retrigger DEVICE...: events as at a boot and as after `udevadm trigger`, and all that comes of them.
retrigger() {
	udevadm trigger --action=add "$@"
	udevadm trigger "$@"
	settle
}

# holders DEVICE: prints what is built on it.
holders() {
	ls "/sys/class/block/${1##*/}/holders"
}

# unclaimed DEVICE: nothing is built on it, and nobody has it open exclusively.
unclaimed() {
	[[ -z $(holders "$1") ]] || fail "$1 is held by $(holders "$1")" || return
	[[ $(lsblk -nro MOUNTPOINT "$1") != */* ]] || fail "$1 is mounted"
}

# partlabel DISK N LABEL
partlabel() {
	sfdisk -q --no-reread --no-tell-kernel --part-label "$1" "$2" "$3" >/dev/null 2>&1
}

# --- names and properties --------------------------------------------------------------------------------------------

@test "udev: links appear with the take and go with the release" {
	local a=S.1:a_b+c-d b=snap.2:x_y+z-part1a
	mkdir "$SESSIONS/$a" "$SESSIONS/$a/$b" "$SESSIONS/$a/0"
	put "$SESSIONS/$a/diff_file" "$(disk 2)"
	put "$SESSIONS/$a/$b/device" "$(disk 1)"
	put "$SESSIONS/$a/0/device" "$(disk 3)"
	settle
	[[ ! -e /dev/blksnap ]]
	for _ in 1 2; do
		session_take "$a"
		[[ -L /dev/blksnap/$a/$b && /dev/blksnap/$a/$b -ef $(image_of "$a" "$b") ]]
		[[ -L /dev/blksnap/$a/0 && /dev/blksnap/$a/0 -ef $(image_of "$a" 0) ]]
		[[ $(find /dev/blksnap -type l | wc -l) -eq 2 ]]
		identified "/dev/blksnap/$a/$b" "$a" "$b" "$(disk 1)"
		identified "/dev/blksnap/$a/0" "$a" 0 "$(disk 3)"
		session_release "$a"
		[[ ! -e /dev/blksnap ]]
	done
	session_destroy "$a"
}

@test "udev: links of two sessions with one origin" {
	session_make s "$(disk 2)" "$(disk 1)"
	session_make t "$(disk 4)" "$(disk 1)" "$(disk 3)"
	session_take s
	session_take t
	[[ /dev/blksnap/s/s1 -ef $(image_of s s1) ]]
	[[ /dev/blksnap/t/s1 -ef $(image_of t s1) ]]
	[[ /dev/blksnap/t/s2 -ef $(image_of t s2) ]]
	[[ ! /dev/blksnap/s/s1 -ef /dev/blksnap/t/s1 ]]
	session_release s
	[[ ! -e /dev/blksnap/s ]]
	[[ /dev/blksnap/t/s1 -ef $(image_of t s1) ]]
	session_destroy s
	session_destroy t
	[[ ! -e /dev/blksnap ]]
}

@test "udev: partitions of an image: links, properties, also after a trigger" {
	local image n
	partition "$(disk 1)" 64M 32M
	# As of a disk that the machine was booted from; and what systemd does with that.
	mkdir -p /run/udev/rules.d
	defer rm /run/udev/rules.d/80-test-boot.rules /run/udev/rules.d/90-image-test.rules
	for n in '' _UUID _DISK _DISK_NEEDS_LOOP; do
		printf 'KERNEL=="blksnap*", ENV{ID_PART_GPT_AUTO_ROOT%s}="1"\n' "$n" >>/run/udev/rules.d/80-test-boot.rules
		printf 'ENV{ID_PART_GPT_AUTO_ROOT%s}=="1", ENV{TEST_BOOTED}="1"\n' "$n" >>/run/udev/rules.d/90-image-test.rules
	done
	udevadm control --reload
	session_of "$(disk 2)" "$(disk 1)"
	image=$(image_of s s1)
	run -1 grep -E '^(ID_PART_GPT_AUTO_ROOT|TEST_BOOTED)' < <(udevadm info --query=property "$image" "${image}p1")
	for n in 1 2; do
		[[ /dev/blksnap/s/s1-part$n -ef ${image}p$n ]]
		[[ $(sectors "${image}p$n") -eq $(sectors "$(part "$(disk 1)" "$n")") ]]
	done
	[[ $(find /dev/blksnap -type l | wc -l) -eq 3 ]]
	[[ $(udevadm info --query=symlink "$image") == blksnap/s/s1 ]]
	[[ $(udevadm info --query=symlink "${image}p2") == blksnap/s/s1-part2 ]]
	for n in '' p1 p2; do
		identified "$image$n" s s1 "$(disk 1)"
	done
	# Plain: all devices that there are.
	udevadm trigger
	settle
	for n in '' p1 p2; do
		identified "$image$n" s s1 "$(disk 1)"
	done
	udevadm trigger --action=add "$image" "${image}p1" "${image}p2"
	settle
	for n in '' p1 p2; do
		identified "$image$n" s s1 "$(disk 1)"
	done
	[[ $(find /dev/blksnap -type l | wc -l) -eq 3 ]]
	session_release s
	[[ ! -e /dev/blksnap ]]
	session_destroy s
}

# --- nobody takes an image for its origin ----------------------------------------------------------------------------

@test "udev: links of the origin stay with the origin; lsblk -f shows what is on an image (lesson 17)" {
	local before image link
	mkfs.ext4 -q -L onext4 "$(disk 1)" 65536
	partition "$(disk 3)" 320M 32M
	partlabel "$(disk 3)" 1 onegpt
	partx -u "$(disk 3)"
	mkfs.xfs -q -L onxfs "$(part "$(disk 3)" 1)"
	udevadm trigger --settle "$(disk 1)" "$(disk 3)" "$(part "$(disk 3)" 1)"
	settle
	before=$(disk_links)
	for link in by-label/onext4 by-label/onxfs by-partlabel/onegpt by-id/virtio-t1 by-id/virtio-t3-part1 \
		"by-uuid/$(lsblk -dnro UUID "$(disk 1)")" "by-uuid/$(lsblk -dnro UUID "$(part "$(disk 3)" 1)")" \
		"by-partuuid/$(lsblk -dnro PARTUUID "$(part "$(disk 3)" 1)")"; do
		[[ -b /dev/disk/$link ]] || fail "the origin has no link $link"
	done
	session_of "$(disk 2)" "$(disk 1)" "$(disk 3)" "$(part "$(disk 3)" 1)"
	links_unchanged "$before"
	# Images, and origins while they have images.
	retrigger --sysname-match='blksnap*' --sysname-match='vd*'
	links_unchanged "$before"
	for link in s1 s2 s2-part1 s2-part2 s3; do
		image=$(readlink -e "/dev/blksnap/s/$link")
		[[ $(udevadm info --query=symlink "$image") == "blksnap/s/$link" ]]
	done
	lsblk -f
	[[ $(lsblk -dnro FSTYPE,LABEL /dev/blksnap/s/s1) == 'ext4 onext4' ]]
	[[ $(lsblk -dnro FSTYPE,LABEL /dev/blksnap/s/s2-part1) == 'xfs onxfs' ]]
	[[ $(lsblk -dnro FSTYPE,LABEL /dev/blksnap/s/s3) == 'xfs onxfs' ]]
	[[ $(lsblk -dnro PTTYPE /dev/blksnap/s/s2) == gpt ]]
	[[ $(lsblk -dnro PARTLABEL /dev/blksnap/s/s2-part1) == onegpt ]]
	[[ $(lsblk -dnro UUID /dev/blksnap/s/s1) == "$(lsblk -dnro UUID "$(disk 1)")" ]]
	session_destroy s
	links_unchanged "$before"
}

# lvm_quiet COMMAND...: an LVM command that succeeds, and has nothing to complain about; its output in `output`.
lvm_quiet() {
	run -0 --separate-stderr "$@"
	# shellcheck disable=SC2154 # bats sets it
	[[ -z $stderr ]] || fail "$*: $stderr"
	[[ ${output,,} != *duplicate* && ${output,,} != *warning* ]] || fail "$*: $output"
}

# lvm_knows DEVICE: LVM sees this one PV of the group, and no other.
lvm_knows() {
	lvm_quiet pvs --noheadings -o pv_name,vg_name
	[[ $(tr -s ' ' <<<"$output") == " $1 testvg"* && $(wc -l <<<"$output") -eq 1 ]] || fail "pvs: $output"
}

@test "udev: an image of an LV: the LV keeps its links by name, id, UUID and label" {
	local before image link lv
	vgcreate -q -q testvg "$(disk 1)"
	defer vgremove -q -q -ff -y testvg
	lvcreate -q -q -y -L 64M -n one testvg
	lv=$(readlink -e /dev/testvg/one)
	mkfs.ext4 -q -L onlv "$lv"
	udevadm trigger --settle "$lv"
	settle
	before=$(disk_links)
	for link in by-label/onlv "by-uuid/$(lsblk -dnro UUID "$lv")" by-id/dm-name-testvg-one \
		"by-id/dm-uuid-$(cat "/sys/block/${lv##*/}/dm/uuid")"; do
		[[ /dev/disk/$link -ef $lv ]] || fail "the origin has no link $link"
	done
	session_of "$(disk 2)" /dev/testvg/one
	image=$(image_of s s1)
	links_unchanged "$before"
	retrigger "$lv" "$image"
	links_unchanged "$before"
	[[ /dev/testvg/one -ef $lv && /dev/mapper/testvg-one -ef $lv ]]
	[[ $(udevadm info --query=symlink "$image") == blksnap/s/s1 ]]
	[[ $(lsblk -dnro FSTYPE,LABEL "$image") == 'ext4 onlv' ]]
	run ! grep -E '^DM_(NAME|UUID|VG_NAME)=' <(udevadm info --query=property "$image")
	lvm_knows "$(disk 1)"
	unclaimed "$image"
	session_destroy s
	links_unchanged "$before"
}

@test "udev: LVM leaves an image of a PV alone, and works with the origin" {
	local image
	vgcreate -q -q testvg "$(disk 1)"
	defer vgremove -q -q -ff -y testvg
	lvcreate -q -q -y -L 32M -n one testvg
	session_of "$(disk 2)" "$(disk 1)"
	image=$(image_of s s1)
	[[ $(lsblk -dnro FSTYPE "$image") == LVM2_member ]]
	lvm_knows "$(disk 1)"
	retrigger "$(disk 1)" "$image"
	lvm_knows "$(disk 1)"
	lvm_quiet lvcreate -q -q -y -L 32M -n two testvg
	lvm_quiet lvextend -q -q -L +32M testvg/one
	# A group that is not active is not activated by what happens to an image.
	lvm_quiet vgchange -q -q -an testvg
	retrigger "$image"
	pvscan --cache -aay "$image" || true
	unclaimed "$image"
	run ! grep -h testvg /sys/block/dm-*/dm/name
	lvm_quiet vgchange -q -q -ay testvg
	[[ $(holders "$(disk 1)" | wc -l) -eq 2 ]]
	unclaimed "$image"
	session_destroy s
	lvm_knows "$(disk 1)"
}

@test "udev: LVM leaves alone a PV on a partition of an image" {
	local image
	partition "$(disk 1)" 128M
	vgcreate -q -q testvg "$(part "$(disk 1)" 1)"
	defer vgremove -q -q -ff -y testvg
	lvcreate -q -q -y -L 32M -n one testvg
	session_of "$(disk 2)" "$(disk 1)"
	image=$(image_of s s1)
	[[ $(lsblk -dnro FSTYPE "${image}p1") == LVM2_member ]]
	lvm_knows "$(part "$(disk 1)" 1)"
	lvm_quiet lvcreate -q -q -y -L 32M -n two testvg
	lvm_quiet vgchange -q -q -an testvg
	retrigger "${image}p1"
	unclaimed "${image}p1"
	run ! grep -h testvg /sys/block/dm-*/dm/name
	lvm_quiet vgchange -q -q -ay testvg
	[[ $(holders "$(part "$(disk 1)" 1)" | wc -l) -eq 2 ]]
	unclaimed "${image}p1"
	session_destroy s
}

@test "udev: md leaves an image of a member alone, also when the array is stopped" {
	local image member
	member=$(disk 3)
	mdadm --quiet --create /dev/md42 --run --metadata=1.2 --level=1 --raid-devices=2 --size=32M "$member" missing
	settle
	session_of "$(disk 2)" "$member"
	image=$(image_of s s1)
	[[ $(lsblk -dnro FSTYPE "$image") == linux_raid_member ]]
	retrigger "$image"
	unclaimed "$image"
	[[ $(holders "$member") == md42 ]]
	mdadm --quiet --stop /dev/md42
	defer mdadm --quiet --zero-superblock "$member"
	retrigger "$image"
	unclaimed "$image"
	[[ $(cat /proc/mdstat) != *blksnap* ]]
	# What udev does with the origin, and what a booting machine does in the end.
	udevadm trigger --action=add --settle "$member"
	mdadm --quiet --incremental --run --scan || true
	settle
	[[ $(holders "$member") == md* ]] || fail "the origin is not assembled: $(cat /proc/mdstat)"
	unclaimed "$image"
	mdadm --quiet --stop "/dev/$(holders "$member")"
	session_destroy s
}

@test "udev: btrfs leaves an image alone, the origin mounted or not (lesson 17)" {
	local dir image
	mkfs.btrfs -q -L onbtrfs "$(disk 1)"
	settle
	dir=$(mount_test "$(disk 1)" origin)
	echo before >"$dir/file"
	session_of "$(disk 2)" "$(disk 1)"
	image=$(image_of s s1)
	[[ $(lsblk -dnro FSTYPE,LABEL "$image") == 'btrfs onbtrfs' ]]
	retrigger "$image"
	btrfs device scan
	echo during >"$dir/file"
	sync -f "$dir"
	[[ $(btrfs device usage "$dir") == *"$(disk 1)"* ]]
	umount "$dir"
	btrfs device scan
	retrigger "$image"
	dir=$(mount_test "$(disk 1)" origin)
	[[ $(btrfs device usage "$dir") == *"$(disk 1)"* ]]
	[[ $(<"$dir/file") == during ]]
	umount "$dir"
	! log_since | grep -i 'btrfs.*blksnap' || fail 'btrfs has seen the image'
	session_destroy s
	dir=$(mount_test "$(disk 1)" origin)
	[[ $(<"$dir/file") == during ]]
}

# multipath_conf [LINE...]: what it is told.
multipath_conf() {
	printf '%s\n' 'defaults {' 'find_multipaths yes' 'user_friendly_names yes' '}' "$@" >/etc/multipath.conf
}

# no_path IMAGE: multipath does not take it for one, and leaves the device mpatha with the two that it has.
no_path() {
	local paths
	paths=$(dmsetup deps -o devname mpatha)
	[[ $paths == '2 dependencies'*'(sd'*'(sd'* ]] || fail "mpatha has $paths"
	run -0 multipath -c "/dev/$(grep -o 'sd[a-z]*' <<<"$paths" | head -1)"
	run -1 multipath -c "$1"
	retrigger "$1"
	multipath -v0
	multipath -v0 "$1" || true
	settle
	[[ $(dmsetup deps -o devname mpatha) == "$paths" && $(multipath -l) != *blksnap* ]] || fail "$(multipath -l)"
	unclaimed "$1"
}

@test "udev: multipath takes no image for a path, not even where it may look at all devices" {
	modprobe dm-multipath
	# Two ways to one disk.
	modprobe scsi_debug vpd_use_hostno=0 add_host=2 dev_size_mb=32
	defer modprobe -r scsi_debug
	defer settle
	settle
	defer rm -f /etc/multipath.conf
	multipath_conf
	multipath -v0
	defer multipath -F
	settle
	session_of "$(disk 2)" /dev/mapper/mpatha
	no_path "$(image_of s s1)"
	multipath_conf 'blacklist_exceptions {' 'devnode "^(sd|blksnap)"' 'property ".*"' '}'
	no_path "$(image_of s s1)"
	session_destroy s
}

# --- what is in an image is opened -----------------------------------------------------------------------------------

# shellcheck disable=SC2034 # of lib/pages
PAGE=/blksnap/docs/admin.md

# nightly SNAPSHOT DEVICE DIRECTORY: as the page has it, the session `nightly`, of what is on DEVICE and mounted on
# DIRECTORY. Since then the origin has changed.
nightly() {
	echo before >"$3/file"
	sync -f "$3"
	mkdir "$SESSIONS/nightly" "$SESSIONS/nightly/$1"
	put "$SESSIONS/nightly/diff_file" "$(disk 2)"
	put "$SESSIONS/nightly/$1/device" "$2"
	session_take nightly
	echo after >"$3/file"
	sync -f "$3"
	mkdir /backup
	defer rm -rf /backup
}

# opened SECTION WORD: the commands there have read the image. While it was open no link led away from the origin, and
# afterwards they are as they were.
opened() {
	local before lost
	export DURING=$BATS_TEST_TMPDIR/during
	cp() {
		udevadm settle
		disk_links >"$DURING"
		command cp "$@"
	}
	export -f cp disk_links
	before=$(disk_links)
	page "$1" "$2"
	settle
	[[ $(</backup/file) == before ]] || fail "the image has $(</backup/file)" || return
	links_unchanged "$before" || return
	[[ ! -e $DURING ]] || lost=$(grep -vxFf "$DURING" <<<"$before") || true
	[[ -z ${lost:-} ]] || fail "led to what was built upon the image: $lost"
}

# home_on PV [OPTION...]: an ext4 on the volume vg0/home there, mounted on $dir; lvcreate has the options, or a size alone.
home_on() {
	local options=("${@:2}")
	vgcreate -q -q vg0 "$1"
	defer vgremove -q -q -ff -y vg0
	[[ $# -gt 1 ]] || options=(-L 64M)
	lvcreate -q -q -y "${options[@]}" -n home vg0
	mkfs.ext4 -q -L onlv /dev/vg0/home
	settle
	dir=$(mount_test /dev/vg0/home home)
}

@test "admin.md: LVM in an image is opened beside its origin" {
	local dir
	home_on "$(disk 1)"
	nightly pv "$(disk 1)" "$dir"
	opened 'LVM in an image' lvm
	[[ -e $DURING && -z $(holders "$(image_of nightly pv)") ]]
	lvm_quiet vgs --noheadings -o vg_name
	[[ ${output// /} == vg0 ]]
	[[ $(<"$dir/file") == after ]]
	umount "$dir"
	session_destroy nightly
	lvm_quiet lvs --noheadings -o vg_name,lv_name
}

@test "admin.md: a thin volume in an image is opened beside its origin" {
	local dir
	home_on "$(disk 1)" --type thin --thinpool pool -L 64M -V 64M
	nightly pv "$(disk 1)" "$dir"
	opened 'LVM in an image' lvm
	[[ -e $DURING && -z $(holders "$(image_of nightly pv)") ]]
	umount "$dir"
	session_destroy nightly
}

@test "admin.md: LVM in a partition of an image is opened by the name of the partition" {
	local dir
	partition "$(disk 1)" 128M
	home_on "$(part "$(disk 1)" 1)"
	nightly pv "$(disk 1)" "$dir"
	sed 's|nightly/pv$|nightly/pv-part1|' "$PAGE" >"$BATS_TEST_TMPDIR/page"
	PAGE=$BATS_TEST_TMPDIR/page opened 'LVM in an image' lvm
	[[ -e $DURING && $(<"$dir/file") == after ]]
	umount "$dir"
	session_destroy nightly
}

@test "admin.md: an md member in an image is opened beside its origin" {
	local dir image
	mdadm --quiet --create /dev/md42 --run --metadata=1.2 --level=1 --raid-devices=2 --size=32M "$(disk 3)" missing
	mkfs.ext4 -q -L onmd /dev/md42
	settle
	dir=$(mount_test /dev/md42 array)
	nightly member "$(disk 3)" "$dir"
	image=$(image_of nightly member)
	opened 'md members in an image' md
	[[ -e $DURING && -z $(holders "$image") ]]
	[[ $(holders "$(disk 3)") == md42 && $(<"$dir/file") == after ]]
	umount "$dir"
	session_destroy nightly
	mdadm --quiet --stop /dev/md42
	mdadm --quiet --zero-superblock "$(disk 3)"
}

@test "admin.md: a btrfs in an image is read without being mounted, while its origin is" {
	local dir
	mkfs.btrfs -q "$(disk 1)"
	settle
	dir=$(mount_test "$(disk 1)" origin)
	nightly srv "$(disk 1)" "$dir"
	opened 'btrfs in an image' btrfs
	[[ $(<"$dir/file") == after ]]
	umount "$dir"
	btrfs check --readonly "$(disk 1)"
	session_destroy nightly
}

# --- events ----------------------------------------------------------------------------------------------------------

# Prints the properties, one a line, of the events that udev has sent and `udevadm monitor` has written to a file, of
# those that have a BLKSNAP_EVENT: overflow_event FILE
driver_events() {
	awk -v RS= '/BLKSNAP_EVENT=/' "$1"
}

# found_on DEVICE...: prints what udev knows of what is on them.
found_on() {
	local device
	for device; do
		udevadm info --query=property "$device" | grep -E '^ID_(FS|PART)_' | sort || true
	done
}

@test "udev: the overflow is told by an event and by poll, once for each image" {
	local image before seen=$BATS_TEST_TMPDIR/seen woken=$BATS_TEST_TMPDIR/woken monitor poller
	echo 4M >/sys/module/blksnap/parameters/memory_limit
	dm_linear small "$(disk 5)" 16384
	partition "$(disk 1)" 64M 32M
	mkfs.ext4 -q -L onext4 "$(part "$(disk 1)" 1)"
	settle
	session_of /dev/mapper/small "$(disk 1)"
	image=$(image_of s s1)
	before=$(found_on "$image" "${image}p1")
	[[ $before == *ID_PART_TABLE_TYPE=*ID_PART_ENTRY_UUID=* && $before == *ID_FS_UUID=* ]] || fail "$before"
	udevadm monitor --property --udev --subsystem-match=block >"$seen" 3>&- &
	monitor=$!
	defer kill "$monitor"
	python3 - "/sys/block/${image##*/}/blksnap/state" >"$woken" 3>&- <<-'END' &
		import select, sys
		with open(sys.argv[1], "rb", buffering=0) as state:
		    poll = select.poll()
		    poll.register(state, select.POLLPRI)
		    print(state.read().decode().strip(), flush=True)
		    print(len(poll.poll(60000)), flush=True)
		    state.seek(0)
		    print(state.read().decode().strip(), flush=True)
	END
	poller=$!
	wait_until 20 grep -q '^UDEV' "$seen"
	wait_until 20 grep -qx active "$woken"
	dd if=/dev/zero of="$(disk 1)" bs=1M count=40 seek=512 oflag=direct status=none
	wait_until 30 grep -qx overflow "$SESSIONS/s/state"
	wait "$poller"
	[[ $(<"$woken") == active$'\n'1$'\n'overflow ]]
	wait_until 20 grep -q 'BLKSNAP_EVENT=overflow' "$seen"
	settle
	run -0 driver_events "$seen"
	echo "$output"
	[[ $(grep -c '^BLKSNAP_EVENT=overflow$' <<<"$output") -eq 1 ]]
	grep -qx 'ACTION=change' <<<"$output"
	grep -qx "DEVNAME=$image" <<<"$output"
	grep -qx BLKSNAP_SESSION=s <<<"$output"
	grep -qx BLKSNAP_SNAPSHOT=s1 <<<"$output"
	grep -qx "BLKSNAP_ORIGIN=$(major_minor "$(disk 1)")" <<<"$output"
	# What was known of the image is still shown, though nothing can be read from it any more.
	udevadm trigger --settle "$image" "${image}p1"
	identified "$image" s s1 "$(disk 1)"
	[[ $(lsblk -dnro FSTYPE,LABEL "${image}p1") == 'ext4 onext4' ]]
	diff - <(found_on "$image" "${image}p1") <<<"$before"
	[[ /dev/blksnap/s/s1 -ef $image ]]
	session_destroy s
	[[ ! -e /dev/blksnap ]]
}
