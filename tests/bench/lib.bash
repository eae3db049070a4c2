# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034 # what one file sets, another reads
# What the benchmarks have in common, in a test machine. A group of cases (one row of docs/benchmarks.md) is a function
# that names its cases with `wanted`, makes a stack with one of the functions *_up, measures with `run_fio`, and takes the
# stack down with `down`. Each measurement is a line of JSON in $OUT.

: "${BENCH_ONLY:=.}" "${BENCH_REPEAT:=3}" "${BENCH_SECONDS:=6}"

KO=/blksnap/build/blksnap.ko
CONFIG=/sys/kernel/config/blksnap
OUT=/results/bench/$BENCH_MACHINE.jsonl
RAW=/results/bench/fio

# The device that a case writes to, and the one that shows it as it was; images of all sessions of the case.
TARGET='' IMAGE=''
declare -a IMAGES=()
declare -a UNDO=()

note() {
	printf '%6d s  %s\n' "$SECONDS" "$*"
}

die() {
	printf 'bench: %s\n' "$*" >&2
	exit 1
}

# wanted CASE: is it one of those asked for?
wanted() {
	[[ $1 =~ $BENCH_ONLY ]]
}

# any_wanted PREFIX NAME...: is one of the cases PREFIX/NAME?
any_wanted() {
	local prefix=$1 name
	shift
	for name; do
		! wanted "$prefix/$name" || return 0
	done
	return 1
}

# undo COMMAND...: for `down`, which runs the last one first.
undo() {
	UNDO+=("$(printf '%q ' "$@")")
}

down() {
	local i
	udevadm settle
	for ((i = ${#UNDO[@]} - 1; i >= 0; i--)); do
		eval "${UNDO[i]}" || die "cannot undo: ${UNDO[i]}"
	done
	UNDO=()
	IMAGES=()
	TARGET='' IMAGE=''
}

# --- QEMU's monitor --------------------------------------------------------------------------------------------------

MONITOR_SAID=/tmp/monitor
MONITOR_ASKED=0

# What it says has to be read all the time, or it stops listening.
monitor_begin() {
	exec 9<>/dev/virtio-ports/monitor
	cat <&9 >"$MONITOR_SAID" &
	monitor '{"execute": "qmp_capabilities"}'
}

# monitor COMMAND: of QMP; waits until it is done.
monitor() {
	local end=$((SECONDS + 30))
	MONITOR_ASKED=$((MONITOR_ASKED + 1))
	printf '%s\n' "$1" >&9
	until [[ $(grep -c '"return"\|"error"' "$MONITOR_SAID") -ge $MONITOR_ASKED ]]; do
		[[ $SECONDS -lt $end ]] || die "no answer from the monitor: $1"
		sleep 0.05
	done
	! grep '"error"' "$MONITOR_SAID" || die "the monitor refuses: $1"
}

sectors() {
	blockdev --getsz "$1"
}

# dm NAME TABLE: makes /dev/mapper/NAME until `down`.
dm() {
	dmsetup create "$1" --table "$2"
	undo dmsetup remove --retry "$1"
}

# --- the driver ------------------------------------------------------------------------------------------------------

module_up() {
	insmod "$KO" "$@"
	undo rmmod_quiet
}

# What udev has open for a moment keeps the module.
rmmod_quiet() {
	local tries=50
	until rmmod blksnap 2>/dev/null; do
		tries=$((tries - 1))
		[[ $tries -gt 0 ]] || die "the module cannot be removed"
		udevadm settle
		sleep 0.1
	done
}

has_feature() {
	grep -qx -- "$1" "$CONFIG/features"
}

# session_up NAME DIFF ORIGIN...: a session, until `down`; its images are added to IMAGES.
session_up() {
	local dir=$CONFIG/sessions/$1 i=0 diff=$2 origin
	shift 2
	mkdir "$dir"
	undo rmdir "$dir"
	echo "$diff" >"$dir/diff_file"
	[[ ! -f $diff && -b $diff ]] || echo "${BENCH_DIFF_LIMIT:-512M}" >"$dir/diff_limit"
	for origin; do
		i=$((i + 1))
		mkdir "$dir/s$i"
		undo rmdir "$dir/s$i"
		echo "$origin" >"$dir/s$i/device"
	done
	echo 1 >"$dir/active" || die "not taken: $(cat "$dir/error")"
	undo session_release "$dir"
	udevadm settle
	while [[ $i -gt 0 ]]; do
		IMAGES+=("$(cat "$dir/s$i/image")")
		i=$((i - 1))
	done
}

session_release() {
	echo 0 >"$1/active"
	udevadm settle
}

# stat_sum ATTRIBUTE: of all images of the case.
stat_sum() {
	local image sum=0
	for image in "${IMAGES[@]}"; do
		sum=$((sum + $(<"/sys/block/${image##*/}/blksnap/$1")))
	done
	printf '%d\n' "$sum"
}

# The images' statistics as an object of JSON, sums over all of them.
driver_stats() {
	local name pairs=()
	[[ ${#IMAGES[@]} -gt 0 ]] || {
		printf '{}\n'
		return
	}
	for name in chunks_preserved chunks_in_memory chunks_stored map_entries map_bytes memory_bytes origin_read_bytes \
		diff_written_bytes diff_writes writes_held writes_passed writes_joined held_us_max image_reads_origin \
		image_reads_diff image_reads_memory image_reads_repeated; do
		pairs+=("\"$name\":$(stat_sum "$name")")
	done
	local IFS=,
	printf '{%s}\n' "${pairs[*]}"
}

# Every image still has to be good, or what was measured was something else.
check_images() {
	local image
	for image in "${IMAGES[@]}"; do
		[[ $(<"/sys/block/${image##*/}/blksnap/state") == active ]] ||
			die "$image: $(<"/sys/block/${image##*/}/blksnap/error")"
	done
}

# --- measuring -------------------------------------------------------------------------------------------------------

# disk_stat NAME: reads, sectors read, writes and sectors written of the disk with this serial number.
disk_stat() {
	local stat
	read -ra stat <"/sys/block/$(disk_name "$1")/stat"
	printf '%s %s %s %s\n' "${stat[0]}" "${stat[2]}" "${stat[4]}" "${stat[6]}"
}

disk_name() {
	local path
	path=$(readlink -f "/dev/disk/by-id/virtio-$1")
	printf '%s\n' "${path##*/}"
}

declare -A STAT_BEFORE=()

# The disks of this machine, by serial number.
DISKS=()

disks_begin() {
	local disk
	for disk in "${DISKS[@]}"; do
		STAT_BEFORE[$disk]=$(disk_stat "$disk")
	done
}

# What the disks did since disks_begin, as an object of JSON.
disks_end() {
	local disk before now objects=()
	for disk in "${DISKS[@]}"; do
		read -ra before <<<"${STAT_BEFORE[$disk]}"
		read -ra now <<<"$(disk_stat "$disk")"
		objects+=("\"$disk\":{\"reads\":$((now[0] - before[0])),\"read_bytes\":$(((now[1] - before[1]) * 512)),\
\"writes\":$((now[2] - before[2])),\"written_bytes\":$(((now[3] - before[3]) * 512))}")
	done
	local IFS=,
	printf '{%s}\n' "${objects[*]}"
}

# emit CASE REPEAT VALUES: one measurement; VALUES is an object of JSON.
emit() {
	jq -cn --arg case "$1" --argjson repeat "$2" --argjson values "$3" \
		'{case: $case, repeat: $repeat, values: $values}' >>"$OUT"
}

# quiet_fio FIO-OPTION...: what every fio here has, with nothing of udev between, which reads a device that was written.
quiet_fio() {
	udevadm control --stop-exec-queue
	fio --name=bench --ioengine=libaio --direct=1 --randrepeat=0 --group_reporting "$@" ||
		die "fio failed: $*"
}

# The end of that.
unquiet() {
	udevadm control --start-exec-queue
	udevadm settle
}

# overwrite_before FIO-OPTION...: to get to where a case begins.
overwrite_before() {
	quiet_fio --randseed=99 --output=/dev/null "$@"
	unquiet
}

# run_fio CASE REPEAT FILE FIO-OPTION...: emits what fio, the disks and the driver say.
run_fio() {
	local case=$1 repeat=$2 target=$3 file disks values
	shift 3
	file=$RAW/${case//\//-}-$repeat.json
	# The disks' throttles have a burst of a tenth of a second.
	sleep 0.3
	disks_begin
	quiet_fio --randseed="$repeat" --output-format=json --output="$file" --filename="$target" "$@"
	disks=$(disks_end)
	unquiet
	check_images
	values=$(jq -c --argjson disks "$disks" --argjson driver "$(driver_stats)" '
		.jobs[0] | (if .write.total_ios > .read.total_ios then .write else .read end) as $io |
		{
			ios: $io.total_ios, bytes: $io.io_bytes, iops: ($io.total_ios / ($io.runtime / 1000)),
			mib_s: ($io.io_bytes / 1048576 / ($io.runtime / 1000)),
			lat_us: ($io.clat_ns.mean / 1000), p99_us: (($io.clat_ns.percentile."99.000000" // 0) / 1000),
			syncs: (.sync.total_ios // 0), disks: $disks, driver: $driver
		}' "$file")
	emit "$case" "$repeat" "$values"
	note "$case #$repeat: $(jq -r '"\(.iops * 10 | round / 10) a second, \(.mib_s * 100 | round / 100) MiB/s"' <<<"$values")"
}
