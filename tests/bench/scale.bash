# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034 # what one file sets, another reads
# What grows with the size of an origin, on null_blk devices that hold nothing, whatever size they say they have.

TAKES=7
GIB=1024 TIB=$((1024 * 1024)) # as null_blk counts

null_make() {
	local dir=/sys/kernel/config/nullb/$1
	mkdir "$dir"
	undo rmdir "$dir"
	echo "$2" >"$dir/size"
	echo 1 >"$dir/power"
	udevadm settle
	echo none >"/sys/block/$1/queue/scheduler"
}

scale_begin() {
	modprobe null_blk nr_devices=0
}

# Kibibytes of memory that are in use and cannot be had back.
memory_in_use() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	awk '/^MemAvailable/ { available = $2 } /^MemTotal/ { total = $2 } END { print total - available }' /proc/meminfo
}

# Objects in use of a cache of the kernel's allocator: slab_objects NAME
slab_objects() {
	awk -v name="$1" '$1 == name { print $2 }' /proc/slabinfo
}

# Takes and releases, several times: take_case CASE ORIGIN...
take_case() {
	local case=$1 repeat before after hold frozen
	shift
	module_up memory_limit=4M
	for ((repeat = 0; repeat <= TAKES; repeat++)); do
		before=$(memory_in_use)
		session_up s1 /dev/bench-diff "$@"
		after=$(memory_in_use)
		hold=$(<"$CONFIG/sessions/s1/hold_us")
		frozen=$(<"$CONFIG/sessions/s1/frozen_us")
		session_release "$CONFIG/sessions/s1"
		for dir in "$CONFIG"/sessions/s1/*/; do
			rmdir "$dir"
		done
		rmdir "$CONFIG/sessions/s1"
		UNDO=("${UNDO[@]:0:$#+2}")
		IMAGES=()
		# The first one loads what it needs.
		[[ $repeat -gt 0 ]] || continue
		emit "$case" "$repeat" "{\"hold_us\": $hold, \"frozen_us\": $frozen, \"memory_kib\": $((after - before))}"
		note "$case #$repeat: hold $hold us, memory $((after - before)) KiB"
	done
}

group_grace() {
	local us=() i
	wanted grace-period || return 0
	mapfile -t us < <(measure grace 20)
	for i in "${!us[@]}"; do
		emit grace-period "$((i + 1))" "{\"us\": ${us[i]}}"
	done
	note "grace-period: $(printf '%s\n' "${us[@]}" | sort -n | sed -n 10p) us"
}

group_take_size() {
	local size mib
	for size in 1g 1t 16t; do
		wanted "take-size/$size" || continue
		case $size in
		1g) mib=$GIB ;;
		1t) mib=$TIB ;;
		16t) mib=$((16 * TIB)) ;;
		esac
		null_make bench-diff "$GIB"
		null_make bench-o1 "$mib"
		take_case "take-size/$size" /dev/bench-o1
		down
	done
}

group_take_origins() {
	local count i origins
	for count in 1 2 4 8; do
		wanted "take-origins/$count" || continue
		origins=()
		null_make bench-diff "$GIB"
		for ((i = 1; i <= count; i++)); do
			null_make "bench-o$i" "$TIB"
			origins+=("/dev/bench-o$i")
		done
		take_case "take-origins/$count" "${origins[@]}"
		down
	done
}

# What a preserved granule costs in memory: map_case CASE MIB RANGE_MIB BLOCKS FIO-OPTION...
map_case() {
	local case=$1 mib=$2 range=$3 blocks=$4 nodes_before nodes_after memory_before memory_after
	shift 4
	wanted "$case" || return 0
	null_make bench-diff "$((64 * GIB))"
	null_make bench-o1 "$mib"
	module_up memory_limit=4M
	session_up s1 /dev/bench-diff /dev/bench-o1
	memory_before=$(memory_in_use)
	nodes_before=$(slab_objects maple_node)
	if [[ $blocks -gt 0 ]]; then
		overwrite_before --filename=/dev/bench-o1 --bs=4k --iodepth=32 --size="${range}M" --io_size="$((blocks * 4))k" "$@"
	fi
	udevadm settle
	memory_after=$(memory_in_use)
	nodes_after=$(slab_objects maple_node)
	check_images
	emit "$case" 1 "$(jq -cn --argjson driver "$(driver_stats)" --argjson nodes "$((nodes_after - nodes_before))" \
		--argjson kib "$((memory_after - memory_before))" --argjson blocks "$blocks" \
		'{blocks: $blocks, node_bytes: ($nodes * 256), memory_kib: $kib, driver: $driver}')"
	note "$case: $(tail -n 1 "$OUT" | jq -r '.values | "\(.driver.chunks_preserved) preserved, \(.driver.map_entries) entries, map \(.driver.map_bytes), nodes \(.node_bytes), memory \(.memory_kib) KiB"')"
	down
}

group_map() {
	local share size
	map_case map-per-block/random "$TIB" "$TIB" 65536 --rw=randwrite --norandommap
	map_case map-per-block/sequential "$TIB" "$TIB" 65536 --rw=write
	for share in 0 10 25 50 75 100; do
		map_case "map-share/random-$share" "$GIB" 256 "$((65536 * share / 100))" --rw=randwrite
		map_case "map-share/sequential-$share" "$GIB" 256 "$((65536 * share / 100))" --rw=write
	done
	for size in 1g 1t 16t; do
		case $size in
		1g) map_case map-size/1g "$GIB" "$GIB" 32768 --rw=randwrite --norandommap ;;
		1t) map_case map-size/1t "$TIB" "$TIB" 32768 --rw=randwrite --norandommap ;;
		16t) map_case map-size/16t "$((16 * TIB))" "$((16 * TIB))" 32768 --rw=randwrite --norandommap ;;
		esac
	done
}

groups=(grace take_size take_origins map)
