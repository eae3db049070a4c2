# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034 # what one file sets, another reads
# The cases that are limited by storage: two disks of 500 requests and 50 MiB a second. In the origin's disk a1 is the
# origin, a2 the difference storage on the same disk, a3 and a4 data and metadata of a thin pool; on the other disk b1 is
# the difference storage, b2 metadata of a thin pool, b3 to b10 difference storages of more sessions.

DISKS=(a b c d)
A='' B=''
ORIGIN_SECTORS=4194304 # 2 GiB
SPAN=256M              # the region of cases that first overwrite it and then read
FS=/mnt/bench          # where cases with a file system have it
file_variants=()       # those that need a feature that not every build has

# partition_disk SERIAL SIZE...: prints the disk's device.
partition_disk() {
	local dev
	dev=/dev/$(disk_name "$1")
	shift
	printf 'size=%s\n' "$@" | sfdisk -q -X gpt "$dev" >/dev/null
	udevadm settle
	printf '%s\n' "$dev"
}

# throttle on|off: of all disks of this machine.
throttle() {
	local number bps=52428800 iops=500
	[[ $1 == on ]] || bps=0 iops=0
	for ((number = 1; number <= 4; number++)); do
		monitor "{\"execute\": \"block_set_io_throttle\", \"arguments\": {\"device\": \"disk$number\", \"bps\": $bps, \
\"bps_rd\": 0, \"bps_wr\": 0, \"iops\": $iops, \"iops_rd\": 0, \"iops_wr\": 0}}"
	done
}

io_begin() {
	monitor_begin
	modprobe -a dm_mod dm_snapshot dm_thin_pool raid0 libcrc32c
	A=$(partition_disk a 2G 2G 2560M 64M)
	B=$(partition_disk b 3G 64M 160M 160M 160M 160M 160M 160M 160M 160M)
	module_up
	if has_feature diff-file; then
		file_variants=(blksnap-file)
	else
		note "no feature diff-file: its cases are left out"
	fi
	down
	throttle on
}

# --- stacks ----------------------------------------------------------------------------------------------------------

# A variant's place says where its differences go: cow_of PLACE
cow_of() {
	case $1 in
	second) printf '%s1\n' "$B" ;;
	same) printf '%s2\n' "$A" ;;
	esac
}

bare_up() {
	dm bench-bare "0 $ORIGIN_SECTORS linear ${A}1 0"
	TARGET=/dev/mapper/bench-bare IMAGE=$TARGET
}

# snap_up KIND CHUNK_SECTORS COW...: dm-snapshot, persistent (P) or transient (N), one snapshot for each COW.
snap_up() {
	local kind=$1 chunk=$2 cow i=0
	shift 2
	dm bench-base "0 $ORIGIN_SECTORS linear ${A}1 0"
	for cow; do
		dd if=/dev/zero of="$cow" bs=64K count=1 oflag=direct status=none
		i=$((i + 1))
		dm "bench-snap$i" "0 $ORIGIN_SECTORS snapshot /dev/mapper/bench-base $cow $kind $chunk"
	done
	dm bench-origin "0 $ORIGIN_SECTORS snapshot-origin /dev/mapper/bench-base"
	TARGET=/dev/mapper/bench-origin IMAGE=/dev/mapper/bench-snap1
}

# thin_up METADATA: dm-thin with blocks of 64 KiB, all of the volume there and shared with one snapshot.
thin_up() {
	local xml blocks=$((ORIGIN_SECTORS / 128)) all
	all=$(($(sectors "${A}3") / 128))
	xml=$(mktemp)
	cat >"$xml" <<-END
		<superblock uuid="" time="0" transaction="0" data_block_size="128" nr_data_blocks="$all">
		<device dev_id="0" mapped_blocks="$blocks" transaction="0" creation_time="0" snap_time="0">
		<range_mapping origin_begin="0" data_begin="0" length="$blocks" time="0"/>
		</device>
		</superblock>
	END
	dd if=/dev/zero of="$1" bs=64K count=1 oflag=direct status=none
	thin_restore -q -i "$xml" -o "$1" >/dev/null
	rm "$xml"
	dm bench-pool "0 $((all * 128)) thin-pool $1 ${A}3 128 0 1 skip_block_zeroing"
	dmsetup message bench-pool 0 "create_snap 1 0"
	dm bench-thin "0 $ORIGIN_SECTORS thin /dev/mapper/bench-pool 0"
	dm bench-image "0 $ORIGIN_SECTORS thin /dev/mapper/bench-pool 1"
	TARGET=/dev/mapper/bench-thin IMAGE=/dev/mapper/bench-image
}

# us_up MEMORY_LIMIT DIFF...: one session for each DIFF.
us_up() {
	local diff i=0
	module_up memory_limit="$1"
	shift
	for diff; do
		i=$((i + 1))
		session_up "s$i" "$diff" "${A}1"
	done
	TARGET=${A}1
	# shellcheck disable=SC2153 # of lib.bash
	IMAGE="${IMAGES[0]}"
}

# variant_up VARIANT [MEMORY_LIMIT]: a variant is NAME-PLACE; those of a case that overwrites.
variant_up() {
	local place=${1#*-}
	case $1 in
	bare) bare_up ;;
	dmsnap-p4-*) snap_up P 8 "$(cow_of "${1##*-}")" ;;
	dmsnap-p64-*) snap_up P 128 "$(cow_of "${1##*-}")" ;;
	dmsnap-t4-*) snap_up N 8 "$(cow_of "${1##*-}")" ;;
	dmsnap-t64-*) snap_up N 128 "$(cow_of "${1##*-}")" ;;
	thin-second) thin_up "${B}2" ;;
	thin-same) thin_up "${A}4" ;;
	blksnap-*) us_up "${2:-32M}" "$(cow_of "$place")" ;;
	*) die "no variant $1" ;;
	esac
}

all_variants=(bare {dmsnap-p4,dmsnap-p64,dmsnap-t4,dmsnap-t64,thin,blksnap}-{second,same})

# --- overwriting -----------------------------------------------------------------------------------------------------

# overwrite ROW MEMORY_LIMIT FIO-OPTION...: with all variants, first overwrites.
overwrite() {
	local row=$1 memory=$2 repeat variant
	shift 2
	any_wanted "$row" "${all_variants[@]:1}" || return 0
	for ((repeat = 1; repeat <= BENCH_REPEAT; repeat++)); do
		for variant in "${all_variants[@]}"; do
			[[ $variant == bare ]] || wanted "$row/$variant" || continue
			variant_up "$variant" "$memory"
			run_fio "$row/$variant" "$repeat" "$TARGET" --runtime="$BENCH_SECONDS" --size=2G "$@"
			down
		done
	done
}

# A small limit, so that what was preserved is stored while the case runs and not after it.
group_rand4k() {
	overwrite rand4k-d32 4M --rw=randwrite --bs=4k --iodepth=32
	overwrite rand4k-d1 4M --rw=randwrite --bs=4k --iodepth=1
}

group_seq1m() {
	overwrite seq1m 32M --rw=write --bs=1M --iodepth=4
}

# What is preserved already is overwritten, at random.
group_again() {
	local repeat variant variants=(bare {dmsnap-p4,dmsnap-t4,thin,blksnap}-second)
	any_wanted again4k-d32 "${variants[@]:1}" || return 0
	for ((repeat = 1; repeat <= BENCH_REPEAT; repeat++)); do
		for variant in "${variants[@]}"; do
			[[ $variant == bare ]] || wanted "again4k-d32/$variant" || continue
			variant_up "$variant" 4M
			throttle off
			overwrite_before --filename="$TARGET" --rw=write --bs=1M --iodepth=4 --size=16M
			throttle on
			run_fio "again4k-d32/$variant" "$repeat" "$TARGET" --rw=randwrite --bs=4k --iodepth=32 --size=16M \
				--norandommap --time_based --runtime="$BENCH_SECONDS"
			down
		done
	done
}

# --- reading images --------------------------------------------------------------------------------------------------

# read_image CASE REPEAT FIO-OPTION...
read_image() {
	local case=$1 repeat=$2
	shift 2
	echo 3 >/proc/sys/vm/drop_caches
	run_fio "$case" "$repeat" "$IMAGE" --readonly --runtime="$BENCH_SECONDS" --size="$SPAN" "$@"
}

group_read_untouched() {
	local repeat variant variants=(bare {dmsnap-p4,thin,blksnap}-second)
	any_wanted read-seq-untouched "${variants[@]:1}" || return 0
	for ((repeat = 1; repeat <= BENCH_REPEAT; repeat++)); do
		for variant in "${variants[@]}"; do
			[[ $variant == bare ]] || wanted "read-seq-untouched/$variant" || continue
			variant_up "$variant"
			read_image "read-seq-untouched/$variant" "$repeat" --rw=read --bs=1M --iodepth=4
			down
		done
	done
}

# Has all that is preserved stored: a limit that is passed, and overwriting elsewhere until it is.
store_all() {
	local limit
	[[ -d /sys/module/blksnap ]] || return 0
	limit=$(</sys/module/blksnap/parameters/memory_limit)
	echo 4M >/sys/module/blksnap/parameters/memory_limit
	overwrite_before --filename="$TARGET" --rw=write --bs=4k --iodepth=32 --offset=1G --size=4M
	echo "$limit" >/sys/module/blksnap/parameters/memory_limit
}

# A region half overwritten, at random, in 4 KiB, and then read.
group_read_half() {
	local repeat variant memory row
	local variants=(bare dmsnap-p4-second dmsnap-t4-second thin-second blksnap-32m-second blksnap-4m-second)
	any_wanted read-seq-half "${variants[@]:1}" || any_wanted read-rand-half "${variants[@]:1}" || return 0
	for variant in "${variants[@]}"; do
		[[ $variant == bare ]] || any_wanted read-seq-half "$variant" || any_wanted read-rand-half "$variant" || continue
		memory=32M
		[[ $variant != blksnap-4m-* ]] || memory=4M
		throttle off
		case $variant in
		blksnap-*) variant_up blksnap-second "$memory" ;;
		*) variant_up "$variant" ;;
		esac
		[[ $variant == bare ]] || overwrite_before --filename="$TARGET" --rw=randwrite --bs=4k --iodepth=32 \
			--size="$SPAN" --io_size="$((${SPAN%M} / 2))M"
		store_all
		throttle on
		note "$variant: half of $SPAN is overwritten"
		for ((repeat = 1; repeat <= BENCH_REPEAT; repeat++)); do
			for row in read-seq-half read-rand-half; do
				[[ $variant == bare ]] || wanted "$row/$variant" || continue
				if [[ $row == read-seq-half ]]; then
					read_image "$row/$variant" "$repeat" --rw=read --bs=1M --iodepth=4
				else
					read_image "$row/$variant" "$repeat" --rw=randread --bs=4k --iodepth=32
				fi
			done
		done
		down
	done
}

# --- file systems ----------------------------------------------------------------------------------------------------

# The origin with ext4 and a file in it that has all its blocks.
make_file_system() {
	throttle off
	mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "${A}1"
	mkdir -p "$FS"
	mount "${A}1" "$FS"
	overwrite_before --filename="$FS/file" --rw=write --bs=1M --iodepth=4 --size=1G
	umount "$FS"
	udevadm settle
	throttle on
}

fs_mount() {
	mount "$TARGET" "$FS"
	undo umount "$FS"
}

# Each write of a file is followed by an fsync. Rates vary: what counts is requests.
group_fsync() {
	local repeat variant variants=(bare {dmsnap-p4,blksnap}-{second,same})
	any_wanted fsync "${variants[@]:1}" || return 0
	make_file_system
	for ((repeat = 1; repeat <= BENCH_REPEAT; repeat++)); do
		for variant in "${variants[@]}"; do
			[[ $variant == bare ]] || wanted "fsync/$variant" || continue
			variant_up "$variant" 4M
			fs_mount
			run_fio "fsync/$variant" "$repeat" "$FS/file" --ioengine=psync --direct=0 --fsync=1 --rw=randwrite --bs=4k \
				--size=1G --runtime="$BENCH_SECONDS"
			down
		done
	done
}

# file_up VARIANT MEMORY_LIMIT: on the mounted origin, the differences in a file of it.
file_up() {
	TARGET=${A}1
	fs_mount
	case $1 in
	blksnap-file)
		module_up memory_limit="$2"
		session_up s1 "$FS/diff" "${A}1"
		;;
	blksnap-second)
		module_up memory_limit="$2"
		session_up s1 "${B}1" "${A}1"
		;;
	esac
}

# overwrite_file ROW MEMORY_LIMIT FIO-OPTION...
overwrite_file() {
	local row=$1 memory=$2 repeat variant variants=(bare "${file_variants[@]}" blksnap-second)
	shift 2
	any_wanted "$row" "${variants[@]:1}" || return 0
	make_file_system
	for ((repeat = 1; repeat <= BENCH_REPEAT; repeat++)); do
		for variant in "${variants[@]}"; do
			[[ $variant == bare ]] || wanted "$row/$variant" || continue
			file_up "$variant" "$memory"
			run_fio "$row/$variant" "$repeat" "$FS/file" --runtime="$BENCH_SECONDS" --size=1G "$@"
			down
		done
	done
}

group_file() {
	[[ ${#file_variants[@]} -gt 0 ]] || return 0
	overwrite_file file-rand4k-d32 4M --rw=randwrite --bs=4k --iodepth=32
	overwrite_file file-rand4k-d1 4M --rw=randwrite --bs=4k --iodepth=1
	overwrite_file file-seq1m 32M --rw=write --bs=1M --iodepth=4
}

# --- other shapes ----------------------------------------------------------------------------------------------------

# Latency over depth. The throttle models rates, so a depth's latency is what waits before it.
group_depth() {
	local depth variant
	for depth in 1 2 4 8 16 32 64 128; do
		for variant in bare dmsnap-p4-second blksnap-second; do
			wanted "depth-$depth/$variant" || continue
			variant_up "$variant" 4M
			run_fio "depth-$depth/$variant" 1 "$TARGET" --rw=randwrite --bs=4k --iodepth="$depth" --size=2G \
				--runtime="$((BENCH_SECONDS / 2))"
			down
		done
	done
}

# Several sessions at a time on one origin.
group_sessions() {
	local count variant i cows
	for count in 1 2 4 8; do
		cows=()
		for ((i = 0; i < count; i++)); do
			cows+=("$B$((i + 3))")
		done
		for variant in bare dmsnap-p4 blksnap; do
			wanted "sessions-$count/$variant" || continue
			case $variant in
			bare) bare_up ;;
			dmsnap-p4) snap_up P 8 "${cows[@]}" ;;
			blksnap) us_up 4M "${cows[@]}" ;;
			esac
			run_fio "sessions-$count/$variant" 1 "$TARGET" --rw=randwrite --bs=4k --iodepth=32 --size=2G \
				--runtime="$BENCH_SECONDS"
			down
		done
	done
}

# On a RAID 0 with large chunks io_min is half a mebibyte: is that copied for each 4 KiB?
group_raid0() {
	local repeat
	wanted raid0-rand4k-d32/blksnap-second || return 0
	mdadm --create /dev/md/bench --run --level=0 --chunk=512 --raid-devices=2 "/dev/$(disk_name c)" \
		"/dev/$(disk_name d)" 2>/dev/null
	udevadm settle
	for ((repeat = 1; repeat <= BENCH_REPEAT; repeat++)); do
		module_up memory_limit=4M
		session_up s1 "${B}1" /dev/md/bench
		run_fio raid0-rand4k-d32/blksnap-second "$repeat" /dev/md/bench --rw=randwrite --bs=4k --iodepth=32 \
			--runtime="$((BENCH_SECONDS / 2))"
		down
	done
	mdadm --stop /dev/md/bench 2>/dev/null
}

groups=(rand4k seq1m again read_untouched read_half fsync file raid0 depth sessions)
