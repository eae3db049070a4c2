# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Devices that suites make for themselves, on top of lib/common. Each function undoes at the end of the test what it
# did (see `defer`), so none may be called in a subshell; devices are found by their names.

# partition DISK SIZE...: a partition table (GPT) with partitions of these sizes, as sfdisk takes them.
partition() {
	local dev=$1
	shift
	printf 'size=%s\n' "$@" | sfdisk -q -X gpt "$dev" >/dev/null
	settle
	# udev reads the table once more when it hears that the disk was closed, perhaps only now.
	wait_until 10 partitioned "$dev" $# || true
	settle
	defer partition_wipe "$dev"
}

partitioned() {
	local n
	for ((n = 1; n <= $2; n++)); do
		[[ -b $(part "$1" "$n") ]] || return
	done
}

partition_wipe() {
	sfdisk -q --delete "$1" >/dev/null && settle
}

# part DISK N: prints a partition's device.
part() {
	local digit=''
	[[ $1 != *[0-9] ]] || digit=p
	printf '%s%s%s\n' "$1" "$digit" "$2"
}

# dm_make NAME [TABLE]: /dev/mapper/NAME; the table is read from standard input if it has several lines.
dm_make() {
	dmsetup create "$1" ${2:+--table "$2"} || return
	defer dmsetup remove --retry "$1"
}

# dm_linear NAME DEVICE SECTORS [START]
dm_linear() {
	dm_make "$1" "0 $3 linear $2 ${4:-0}"
}

# dm_repeated NAME DEVICE MEBIBYTES COUNT: what DEVICE begins with, so many times. What is written there is lost, so that it
# stays; to a snapshot it has been overwritten.
dm_repeated() {
	local i sectors=$(($3 << 11))
	modprobe dm-flakey || return
	dm_make "$1-kept" "0 $sectors flakey $2 0 0 1 1 drop_writes" || return
	dm_make "$1" < <(for ((i = 0; i < $4; i++)); do
		printf '%d %d linear /dev/mapper/%s-kept 0\n' "$((i * sectors))" "$sectors" "$1"
	done)
}

# dm_ten_gibibytes NAME: of disks 7 and 8, of which nothing was written.
dm_ten_gibibytes() {
	dm_make "$1" "0 10485760 linear $(disk 7) 0"$'\n'"10485760 10485760 linear $(disk 8) 0"
}

# dm_switch NAME [TABLE]: gives the device another table, from standard input if it has several lines, while I/O goes on.
dm_switch() {
	dmsetup suspend --nolockfs --noflush "$1" && dmsetup load "$1" ${2:+--table "$2"} && dmsetup resume "$1"
}

# requests_in_flight DEVICE
requests_in_flight() {
	awk '{ exit $9 == 0 }' "/sys/class/block/${1##*/}/stat"
}

# loop_make SIZE [LOSETUP-OPTION...]: a loop device on a file in memory; its path in LOOP.
loop_make() {
	local file
	file=$(mktemp "$BATS_TEST_TMPDIR/loop.XXXXXX")
	truncate -s "$1" "$file"
	loop_make_of "$file" "${@:2}"
}

# loop_make_of FILE [LOSETUP-OPTION...]: the same on that file or device.
loop_make_of() {
	LOOP=$(losetup -f --show "${@:2}" "$1") || return
	defer losetup -d "$LOOP"
}

# null_blk_make NAME ATTRIBUTE=VALUE...: /dev/NAME, of the null_blk driver.
null_blk_make() {
	local name=$1 dir=/sys/kernel/config/nullb/$1 setting
	shift
	modprobe null_blk nr_devices=0 || return
	mkdir "$dir"
	defer rmdir "$dir"
	for setting; do
		echo "${setting#*=}" >"$dir/${setting%%=*}"
	done
	echo 1 >"$dir/power"
	settle
	[[ -b /dev/$name ]] || fail "null_blk has made no $name"
}

# zram_make SIZE: a disk in compressed memory; its path in ZRAM.
zram_make() {
	modprobe zram num_devices=1 || return
	defer modprobe -r zram
	ZRAM=/dev/zram0
	echo "$1" >"/sys/block/${ZRAM#/dev/}/disksize"
	defer sh -c 'echo 1 >/sys/block/zram0/reset'
	settle
}

# nbd_make FILE [QEMU-NBD-OPTION...]: a disk that a program serves from that file or device; its path in NBD.
nbd_make() {
	modprobe -q nbd nbds_max=1 || skip 'this kernel has no nbd'
	defer wait_until 10 modprobe -r nbd
	NBD=/dev/nbd0
	qemu-nbd --connect="$NBD" --format=raw "${@:2}" "$1" 3>&- || return
	defer qemu-nbd --disconnect "$NBD"
	wait_until 10 has_sectors "$NBD"
	settle
}

has_sectors() {
	[[ $(blockdev --getsz "$1") -gt 0 ]]
}

# lv_make DISKS SIZE [LVCREATE-OPTION...]: a logical volume on a volume group of its own, of these disks, in one word; its
# path in LV.
lv_make() {
	local disks vg
	read -ra disks <<<"$1"
	vg=test${disks[0]##*/}
	export LVM_SUPPRESS_FD_WARNINGS=1
	pvcreate -qq -y -ff "${disks[@]}" && vgcreate -qq "$vg" "${disks[@]}" || return
	defer lv_remove "$vg" "${disks[@]}"
	lvcreate -qq -y -Wn -n lv -L "$2" "${@:3}" "$vg" || return
	LV=/dev/$vg/lv
	settle
	[[ -b $LV ]] || fail "there is no $LV"
}

# lv_remove GROUP DISK...
lv_remove() {
	settle
	lvremove -qq -y "$1" && vgremove -qq -y "$1" && pvremove -qq -y "${@:2}"
}

# scsi_debug_make OPTION...: a disk of the scsi_debug driver; its path in SCSI. There is one at a time.
scsi_debug_make() {
	local dir
	modprobe scsi_debug "$@" || return
	# Who had the disk open has given it back by then, but the kernel may not have noticed.
	defer wait_until 10 modprobe -r scsi_debug
	settle
	dir=$(echo /sys/bus/pseudo/drivers/scsi_debug/adapter*/host*/target*/*/block/*)
	SCSI=/dev/${dir##*/}
	[[ -b $SCSI ]] || fail "scsi_debug has made no disk"
}

# scsi_debug_delete: unplugs it.
scsi_debug_delete() {
	echo 1 >"/sys/block/${SCSI##*/}/device/delete"
}

# background COMMAND...: its PID in BACKGROUND; ended with the test at the latest.
background() {
	"$@" 3>&- &
	BACKGROUND=$!
	defer end_background "$BACKGROUND"
}

# end_background [PID]: kills it and waits for it. Of one that the signal ends the exit code tells nothing; see stop_background
# for others.
end_background() {
	kill "${1:-$BACKGROUND}" 2>/dev/null || true
	wait "${1:-$BACKGROUND}" 2>/dev/null || true
}

# stop_background [PID]: one that ends with what it has found when it is asked to (stamp): that is good, or this fails.
stop_background() {
	local code=0
	kill "${1:-$BACKGROUND}" 2>/dev/null || true
	wait "${1:-$BACKGROUND}" || code=$?
	[[ $code -eq 0 ]] || fail "what ran in the background has ended with $code"
}

# kill_all PID: and what it runs, which makes the system calls; when this returns, none of these is under way.
kill_all() {
	local child children
	# Or else it begins another one.
	kill -STOP "$1" || true
	mapfile -t children < <(pgrep -P "$1")
	for child in "${children[@]}" "$1"; do
		kill -KILL "$child" || true
	done
	wait "$1" || true
	for child in "${children[@]}"; do
		wait_until 30 test ! -d "/proc/$child"
	done
}

# gone PID: it has ended.
gone() {
	! kill -0 "$1" 2>/dev/null
}

# hangs PID: it waits for a device, or for who does. Starts no program: what some look at lasts for seconds.
hangs() {
	local stat
	read -r stat 2>/dev/null <"/proc/$1/stat" && [[ ${stat##*) } == D* ]]
}

# throttle DEVICE BYTES-PER-SECOND: of writers in the control group THROTTLED.
throttle() {
	THROTTLED=/sys/fs/cgroup/blksnap-throttled
	echo +io >/sys/fs/cgroup/cgroup.subtree_control
	mkdir "$THROTTLED"
	defer wait_until 10 rmdir "$THROTTLED"
	echo "$(major_minor "$1") wbps=$2" >"$THROTTLED/io.max"
}

# in_throttle COMMAND...: becomes the command, the writes of which wait in the throttle. In a process of its own.
in_throttle() {
	echo "$BASHPID" >"$THROTTLED/cgroup.procs"
	exec "$@"
}
