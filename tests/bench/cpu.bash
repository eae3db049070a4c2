# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034 # what one file sets, another reads
# Instructions of a 4 KiB write, on a machine with one CPU whose clock counts them: one instruction is two nanoseconds.
# The device is null_blk, which completes at once in the submitter, so all there is to be counted is software.

COUNT=1000 BATCHES=9
NULL=/dev/bench-null OTHER=/dev/bench-other DIFF=/dev/bench-diff

# null_make NAME MIB: a device without content.
null_make() {
	local dir=/sys/kernel/config/nullb/$1
	mkdir "$dir"
	echo "$2" >"$dir/size"
	echo 0 >"$dir/irqmode"
	echo 2 >"$dir/queue_mode"
	echo 1 >"$dir/power"
	udevadm settle
	echo none >"/sys/block/$1/queue/scheduler"
}

cpu_begin() {
	modprobe null_blk nr_devices=0
	modprobe dm_snapshot
	null_make bench-null 1024
	null_make bench-other 1024
	null_make bench-diff 2048
}

# count_writes CASE DEVICE FIRST [STEP]: the median of the batches, each of which is emitted.
count_writes() {
	local case=$1 ns=() value i sorted
	udevadm settle
	if [[ -n ${BENCH_PROFILE:-} ]]; then
		profile_writes "$@"
		return
	fi
	udevadm control --stop-exec-queue
	mapfile -t ns < <(measure write "$2" "$3" "${4:-1}" "$COUNT" "$BATCHES")
	unquiet
	[[ ${#ns[@]} -eq $BATCHES ]] || die "$case: no figures"
	check_images
	for i in "${!ns[@]}"; do
		emit "$case" "$((i + 1))" "{\"instructions\": $(bc <<<"scale=1; ${ns[i]} / 2")}"
	done
	sorted=$(printf '%s\n' "${ns[@]}" | sort -n)
	value=$(sed -n "$(((BATCHES + 1) / 2))p" <<<"$sorted")
	note "$case: $(bc <<<"${value%.*} / 2") instructions"
}

# The same, with each instruction traced: QEMU writes the trace, and tests/bench/profile reads it.
profile_writes() {
	monitor_begin
	udevadm control --stop-exec-queue
	# Once before, for what is done only once.
	measure write "$2" "$3" "${4:-1}" "$COUNT" 1 >/dev/null
	monitor '{"execute": "human-monitor-command", "arguments": {"command-line": "one-insn-per-tb on"}}'
	cat /proc/kallsyms >/results/bench/kallsyms
	# What is overwritten for the first time is so only once.
	if [[ $3 == again ]]; then
		MEASURE_MONITOR=9 measure write "$2" again "${4:-1}" "$BENCH_PROFILE" 1 >/dev/null
	else
		MEASURE_MONITOR=9 measure write "$2" "$(($3 + COUNT * ${4:-1}))" "${4:-1}" "$BENCH_PROFILE" 1 >/dev/null
	fi
	unquiet
	note "$1: traced"
}

# fill: the region that `count_writes ... again` writes to is preserved; and stored, if that is said.
fill() {
	measure write "$1" again 1 "$COUNT" 1 >/dev/null
	if [[ ${2:-} == stored ]]; then
		measure write "$1" 100000 1 4000 1 >/dev/null
		udevadm settle
		[[ $(stat_sum chunks_stored) -ge $COUNT ]] || die "not stored"
	fi
}

session_case() {
	wanted "$1" || return 1
	module_up memory_limit="${3:-32M}"
	session_up s1 "$DIFF" "$2"
}

group_driver() {
	wanted instructions/no-module && count_writes instructions/no-module "$NULL" again
	if wanted instructions/loaded; then
		module_up
		count_writes instructions/loaded "$NULL" again
		down
	fi
	if session_case instructions/not-tracked "$OTHER"; then
		count_writes instructions/not-tracked "$NULL" again
		down
	fi
	if session_case instructions/preserved-in-memory "$NULL"; then
		fill "$NULL"
		count_writes instructions/preserved-in-memory "$NULL" again
		down
	fi
	if session_case instructions/preserved-stored "$NULL" 4M; then
		fill "$NULL" stored
		count_writes instructions/preserved-stored "$NULL" again
		down
	fi
	# Preserved one by one, at places that do not follow on each other: a map with many entries.
	if session_case instructions/preserved-scattered "$NULL" 4M; then
		measure write "$NULL" 0 10 20000 1 >/dev/null
		count_writes instructions/preserved-scattered "$NULL" again 10
		down
	fi
	# Each tenth block, so that no two of them are one run in the map.
	if session_case instructions/first-in-memory "$NULL" 256M; then
		count_writes instructions/first-in-memory "$NULL" 0 10
		down
	fi
	if session_case instructions/first-and-stored "$NULL" 4M; then
		count_writes instructions/first-and-stored "$NULL" 0 10
		down
	fi
	if session_case instructions/first-sequential "$NULL" 4M; then
		count_writes instructions/first-sequential "$NULL" 0
		down
	fi
	group_tracked
}

# With a change map, which not every build has.
group_tracked() {
	wanted instructions/change-map || return 0
	module_up memory_limit=4M
	if has_feature cbt; then
		mkdir "$CONFIG/trackers/t"
		undo rmdir "$CONFIG/trackers/t"
		echo "$NULL" >"$CONFIG/trackers/t/device"
		echo 1 >"$CONFIG/trackers/t/enabled"
		undo tracker_disable
		count_writes instructions/change-map-only "$NULL" again
		session_up s1 "$DIFF" "$NULL"
		fill "$NULL" stored
		count_writes instructions/change-map "$NULL" again
	else
		note "no feature cbt: its case is left out"
	fi
	down
}

tracker_disable() {
	echo 0 >"$CONFIG/trackers/t/enabled"
}

group_peers() {
	local sectors=1048576
	if wanted instructions/dm-linear; then
		dm bench-linear "0 $sectors linear $NULL 0"
		count_writes instructions/dm-linear /dev/mapper/bench-linear again
		down
	fi
	wanted instructions/dmsnap || return 0
	dm bench-base "0 $sectors linear $NULL 0"
	dm bench-snap "0 $sectors snapshot /dev/mapper/bench-base $DIFF N 8"
	dm bench-origin "0 $sectors snapshot-origin /dev/mapper/bench-base"
	fill /dev/mapper/bench-origin
	count_writes instructions/dmsnap-preserved /dev/mapper/bench-origin again
	count_writes instructions/dmsnap-first /dev/mapper/bench-origin 10000 10
	down
}

groups=(driver peers)
