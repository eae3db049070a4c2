#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 1
# The test machine itself: what every other suite relies on. No module.

load lib/common

@test "machine: the kernel is the one that modules are built for" {
	[[ -d /lib/modules/$(uname -r)/build/include ]]
	[[ ! -e $KO ]] || [[ $(modinfo -F vermagic "$KO") == "$(uname -r) "* ]]
}

@test "machine: udev runs and has made the links of the test disks" {
	local n
	pgrep -x 'systemd-udevd|udevd' >/dev/null
	for n in 1 2 3 4 5 6; do
		[[ -b $(disk "$n") ]]
	done
	[[ $(lsblk -bdno SIZE "$(disk 1)") -eq $((1 << 30)) ]]
	[[ $(lsblk -dno LOG-SEC "$(disk 6)") -eq 4096 ]]
}

@test "machine: a disk that was written to is blank again for the next test" {
	common_log_begin
	mkfs.ext4 -q "$(disk 5)"
	settle
	[[ $(lsblk -dno FSTYPE "$(disk 5)") == ext4 ]]
	common_blank_disks
	settle
	[[ -z $(lsblk -dno FSTYPE "$(disk 5)") ]]
	cmp -n 4194304 "$(disk 5)" /dev/zero
	common_log_check
}

@test "machine: the file systems, device-mapper, loop and configfs are there" {
	local fs
	for fs in ext4 xfs btrfs vfat; do
		modprobe "$fs"
		grep -qw "$fs" /proc/filesystems
	done
	dmsetup version >/dev/null
	losetup -f >/dev/null
	mountpoint -q /sys/kernel/config
}

@test "machine: results can be handed to the host" {
	mountpoint -q /results
	echo "$$" >/results/probe
	[[ $(cat /results/probe) -eq $$ ]]
	rm /results/probe
}

@test "machine: a warning in the kernel's log is noticed" {
	common_log_begin
	echo '<4>WARNING: CPU: 0 PID: 1 at nothing.c:1 (a test of the tests)' >/dev/kmsg
	run ! common_log_check
	[[ $output == *'nothing.c:1'* ]]
	expect_log 'a test of the tests'
	common_log_check
}

@test "machine: a warning that comes when a test is over is kept for the end of the suite" {
	local LOG_UNSEEN=$BATS_TEST_TMPDIR/unseen
	printf '<6>%s\n' "$LOG_LOOKED" >/dev/kmsg
	echo '<4>WARNING: CPU: 0 PID: 1 at late.c:1 (a test of the tests)' >/dev/kmsg
	common_log_begin
	grep -q 'late.c:1' "$LOG_UNSEEN"
	: >"$LOG_UNSEEN"
	common_log_begin
	[[ ! -s $LOG_UNSEEN ]]
	# The words of a kernel that starts.
	[[ -z $(log_unseen 'WARNING: early') ]]
}

@test "machine: what a test leaves behind is noticed, and removed" {
	local loop
	common_begin
	common_look
	[[ ${#LEFT[@]} -eq 0 ]] || fail "there is ${LEFT[*]}"
	truncate -s 8M "$BATS_TEST_TMPDIR/file"
	loop=$(losetup -f --show "$BATS_TEST_TMPDIR/file")
	dmsetup create below --table "0 2048 linear $(disk 1) 0"
	dmsetup create above --table '0 1024 linear /dev/mapper/below 0'
	settle
	common_look
	[[ " ${LEFT[*]} " == *" $loop "* && " ${LEFT[*]} " == *' below '* && " ${LEFT[*]} " == *' above '* ]] || fail "only ${LEFT[*]}"
	common_remove_left
	settle
	common_look
	[[ ${#LEFT[@]} -eq 0 ]] || fail "there is ${LEFT[*]} still"
}

@test "machine: put names the errno of a refusal" {
	refuses EINVAL put /sys/module/loop/uevent nonsense
	refuses ENOENT put /nowhere/file 1
	refuses ENOENT rmdir /nowhere
	run ! refuses EBUSY put /nowhere/file 1
}
