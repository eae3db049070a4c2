# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# File systems above an origin.
#
# The driver freezes the file system that lies directly on an origin, and those on the partitions of an origin that is a
# whole disk. Further up it cannot see: an LV on a tracked disk, an md array or LUKS on it, a loop device on a file in a
# file system on it. These are frozen here, the uppermost first, since a file system cannot be frozen once the one below
# it is. Only what is mounted in this mount namespace is found.
#
# A process of its own freezes and thaws. It thaws when the pipe to it is closed, thus also if this script is killed.
# While anything is frozen neither of the two writes anything but configfs, not even a message: standard output may lie
# on what is frozen. The root file system may be frozen as well, as reading and executing from it still work.

# By MAJ:MIN of a device: what is directly built on it; how far above an origin it is.
declare -A device_above=() device_depth=()
# By MAJ:MIN of a file system; where it is mounted as words ID:PLACE, the whole of it before parts (bind mounts).
declare -A mount_places=() mount_type=() mount_devices=()
declare -a freeze_targets=()
freezer_pid='' freezer_in='' freezer_out='' freezer_frozen=()
freeze_notes=()

# get_dev VARIABLE FILE: MAJ:MIN from a file of sysfs; empty if there is none.
get_dev() {
	{ read -r "${1?}" <"$2"; } 2>/dev/null || printf -v "$1" ''
}

# get_dev_of_path VARIABLE PATH: of a block device; empty if it is none.
get_dev_of_path() {
	local major_=0 minor_=0
	printf -v "$1" ''
	[[ -b $2 ]] || return 0
	read -r major_ minor_ < <(stat -L -c '%t %T' -- "$2") || return 0
	printf -v "$1" '%d:%d' "0x$major_" "0x$minor_"
}

# btrfs has a number of its own; the kernel lists its devices.
btrfs_devices() {
	local source member name dev
	source=$(readlink -f -- "$1") || return 0
	for member in /sys/fs/btrfs/*/devices/"${source##*/}"; do
		for name in "${member%/*}"/*; do
			get_dev dev "/sys/class/block/${name##*/}/dev"
			[[ -z $dev ]] || printf '%s\n' "$dev"
		done
	done
}

# unescape VARIABLE TEXT: as mountinfo has it, a backslash and three digits for what would be in the way. To printf one that
# begins with 0 has three more.
unescape() {
	printf -v "$1" '%b' "${2//\\0/\\00}"
}

read_mounts() {
	local mount id root place rest type source options
	while read -r mount _ id root place _ rest; do
		rest=" $rest"
		read -r type source options _ <<<"${rest#* - }"
		[[ $options != ro && $options != ro,* ]] || continue
		if [[ $root == / ]]; then
			mount_places[$id]="$mount:$place ${mount_places[$id]:-}"
		else
			mount_places[$id]+=" $mount:$place"
		fi
		mount_type[$id]=$type
		if [[ $type == btrfs ]]; then
			unescape source "$source"
			mount_devices[$id]=$(btrfs_devices "$source")
		else
			mount_devices[$id]=$id
		fi
	done </proc/self/mountinfo
}

# leads_to DIRECTORY ID: to that mount, and not to another one that was put over it, or over what it is in.
leads_to() {
	local key value descriptor id=
	{ exec {descriptor}<"$1"; } 2>/dev/null || return
	while read -r key value; do
		[[ $key != mnt_id: ]] || id=$value
	done <"/proc/self/fdinfo/$descriptor"
	exec {descriptor}<&-
	[[ $id == "$2" ]]
}

# place_of ID: prints a directory of a file system by which it can be frozen.
place_of() {
	local mounts mount place
	read -r -a mounts <<<"${mount_places[$1]}"
	for mount in "${mounts[@]}"; do
		unescape place "${mount#*:}"
		if [[ -d $place ]] && leads_to "$place" "${mount%%:*}"; then
			printf '%s\n' "$place"
			return
		fi
	done
	return 1
}

built_on() {
	device_above[$1]+=" $2"
}

read_loops() {
	local file backing id name dev below
	for file in "$sysfs_block"/loop*/loop; do
		name=${file#"$sysfs_block/"}
		name=${name%%/*}
		get_attr backing "$file" backing_file
		[[ -n $backing ]] || continue
		get_dev dev "$sysfs_block/$name/dev"
		if [[ -b $backing ]]; then
			get_dev_of_path below "$backing"
			built_on "$below" "$dev"
			continue
		fi
		id=$(findmnt -n -o MAJ:MIN -T "$backing" 2>/dev/null) || continue
		for below in ${mount_devices[${id//[[:space:]]/}]:-}; do
			built_on "$below" "$dev"
		done
	done
}

read_devices() {
	local path holder dev other
	for path in /sys/class/block/*; do
		get_dev dev "$path/dev"
		[[ -n $dev ]] || continue
		for holder in "$path"/holders/*; do
			get_dev other "/sys/class/block/${holder##*/}/dev"
			built_on "$dev" "$other"
		done
		if [[ -e $path/partition ]]; then
			get_dev other "$path/../dev"
			built_on "$other" "$dev"
		fi
	done
	read_loops
}

# Gives all that is built on DEVICE a depth, the largest if it is reached on several ways.
descend() {
	local dev=$1 depth=$2 above
	if [[ -n $dev && ${device_depth[$dev]:--1} -lt $depth && $depth -lt 64 ]]; then
		device_depth[$dev]=$depth
		for above in ${device_above[$dev]:-}; do
			descend "$above" $((depth + 1))
		done
	fi
}

# frozen_by_driver DEV ORIGIN_DEV...: on an origin, or on a partition of one?
frozen_by_driver() {
	local dev=$1 disk=
	shift
	[[ ! -e /sys/dev/block/$dev/partition ]] || get_dev disk "/sys/dev/block/$dev/../dev"
	[[ " $* " == *" $dev "* || (-n $disk && " $* " == *" $disk "*) ]]
}

# Does the driver freeze btrfs? On kernels that cannot freeze it by its device it does not.
driver_freezes_btrfs() {
	grep -q -s -x freeze-btrfs "$configfs/features"
}

# find_upper_file_systems DIFF DEVICE...: sets freeze_targets, the uppermost first
find_upper_file_systems() {
	local diff=$1 origins=() found=() diff_id path id dev depth line place
	shift
	for path; do
		get_dev_of_path dev "$path"
		origins+=("$dev")
	done
	read_mounts
	read_devices
	for dev in "${origins[@]}"; do
		descend "$dev" 0
	done
	for id in "${!mount_places[@]}"; do
		depth=-1
		for dev in ${mount_devices[$id]}; do
			if frozen_by_driver "$dev" "${origins[@]}" &&
				{ [[ ${mount_type[$id]} != btrfs ]] || driver_freezes_btrfs; }; then
				continue
			fi
			[[ ${device_depth[$dev]:--1} -le $depth ]] || depth=${device_depth[$dev]}
		done
		[[ $depth -lt 0 ]] || found+=("$depth $id")
	done
	[[ ${#found[@]} -gt 0 ]] || return 0
	[[ -e $diff ]] || diff=${diff%/*}/
	diff_id=$(findmnt -n -o MAJ:MIN -T "$diff" 2>/dev/null || true)
	diff_id=${diff_id//[[:space:]]/}
	while read -r line; do
		id=${line#* }
		if ! place=$(place_of "$id"); then
			freeze_notes+=("not frozen: the file system of device $id (no directory leads to it)")
		elif [[ $id == "$diff_id" ]]; then
			freeze_notes+=("not frozen: $place (the difference storage lies on it)")
		else
			freeze_targets+=("$place")
		fi
	done < <(printf '%s\n' "${found[@]}" | sort -rn)
}

# The process that freezes: reads mount points, answers each with a line, thaws at the end of its input.
freezer() {
	local target message frozen=() failed=()
	trap '' INT TERM HUP
	while IFS= read -r -d '' target; do
		if message=$(fsfreeze -f -- "$target" 2>&1); then
			frozen=("$target" "${frozen[@]}")
			echo ok
		else
			echo "${message##*: }"
		fi
	done
	for target in "${frozen[@]}"; do
		fsfreeze -u -- "$target" 2>/dev/null || failed+=("$target")
	done
	# only now, as everything that can be has been thawed
	for target in "${failed[@]}"; do
		say "could not thaw $target: fsfreeze -u"
	done
}

# Freezes freeze_targets. A file system that cannot be frozen, or that is frozen already, is noted and left.
freeze() {
	local target answer
	[[ ${#freeze_targets[@]} -gt 0 ]] || return 0
	command -v fsfreeze >/dev/null || fail "fsfreeze is missing (package util-linux)"
	for target in "${freeze_targets[@]}"; do
		sync -f -- "$target" || true
	done
	coproc freezer
	# shellcheck disable=SC2153 # bash sets it, with COPROC
	freezer_pid=$COPROC_PID
	freezer_out=${COPROC[0]} freezer_in=${COPROC[1]}
	for target in "${freeze_targets[@]}"; do
		printf '%s\0' "$target" >&"$freezer_in"
		IFS= read -r answer <&"$freezer_out" || answer='the freezing process ended'
		case $answer in
		ok) freezer_frozen=("$target" "${freezer_frozen[@]}") ;;
		*'not supported'*) freeze_notes+=("not frozen: $target (its file system cannot be)") ;;
		*busy*) freeze_notes+=("frozen already, and left so: $target") ;;
		*)
			thaw
			say "cannot freeze $target: $answer"
			return 1
			;;
		esac
	done
}

thaw() {
	local status=0
	[[ -n $freezer_pid ]] || return 0
	{ exec {freezer_in}>&-; } 2>/dev/null || true
	{ exec {freezer_out}<&-; } 2>/dev/null || true
	wait "$freezer_pid" 2>/dev/null || status=$?
	[[ $status -le 128 ]] || thaw_frozen
	freezer_pid='' freezer_frozen=()
}

# The process that freezes was killed, and cannot thaw.
thaw_frozen() {
	local target
	for target in "${freezer_frozen[@]}"; do
		fsfreeze -u -- "$target" 2>/dev/null || freeze_notes+=("could not thaw $target: fsfreeze -u")
	done
}
