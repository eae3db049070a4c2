# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034 # what one file sets, another reads
# The cases that are limited by storage: two disks of 500 requests and 50 MiB a second. In the origin's disk a1 is the
# origin, a2 the difference storage on the same disk, a3 and a4 data and metadata of a thin pool; on the other disk b1 is
# the difference storage, b2 metadata of a thin pool, b3 to b10 difference storages of more sessions.

DISKS=(a b)
A='' B=''
ORIGIN_SECTORS=4194304 # 2 GiB
SPAN=256M              # the region of cases that first overwrite it and then read

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
	local number limits='52428800 0 0 500 0 0' said
	[[ $1 == on ]] || limits='0 0 0 0 0 0'
	for ((number = 1; number <= 4; number++)); do
		printf 'block_set_io_throttle disk%d %s\n' "$number" "$limits" >&9
	done
	# What the monitor says has to be read, or it stops listening.
	said=$(timeout 0.3 cat <&9 || true)
	[[ $said != *[Ee]rror* ]] || die "the monitor says: $said"
}

io_begin() {
	exec 9<>/dev/virtio-ports/monitor
	modprobe -a dm_mod dm_snapshot dm_thin_pool raid0 libcrc32c
	A=$(partition_disk a 2G 2G 2560M 64M)
	B=$(partition_disk b 3G 64M 160M 160M 160M 160M 160M 160M 160M 160M)
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
	IMAGE=${IMAGES[0]}
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
			run_fio "$row/$variant" "$repeat" --runtime="$BENCH_SECONDS" --size=2G "$@"
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

groups=(rand4k seq1m)
