# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# blksnap changed: what differs between two snapshots, and what was written through an image.

usage_changed() {
	cat <<'END'
Usage: blksnap changed [--since N] [--json] IMAGE
       blksnap changed --written [--json] IMAGE

Prints what changed on the origin between an earlier snapshot and the one that
IMAGE shows, one range a line: OFFSET LENGTH, in bytes. IMAGE is /dev/blksnapN or
a link to it; the origin has to be tracked (blksnap track). With --written: what was
written through the image since the take, in whole granules. That is no change of the
origin; the two together are where IMAGE differs from the earlier snapshot.

  --since N   the number of the earlier snapshot, as it is in the file cbt/number of
              its image; 0, the default: since the generation began. Only numbers
              of the same generation (cbt/generation) mean anything; for any other
              snapshot everything has to be read
  --json      print an object: generation, number, since, and a list of ranges;
              with --written: chunk_size, and the list

Exit codes: 0 done; 1 IMAGE is none or has no change map, or a number that is too
large; 2 usage; 3 driver not loaded.
END
}

# changed_blocks CBT: prints FIRST LAST, the numbers of blocks whose byte is larger than `opt_since`.
changed_blocks() {
	od -An -v -t u1 -w1 <"$1/map" | awk -v since="$opt_since" '$1 > since { printf "%.0f %.0f\n", NR - 1, NR - 1 }'
}

# written_granules STATISTICS: the same, of granules that were written. od prints a byte where it is not as the one before.
written_granules() {
	od -A d -t u1 -w1 <"$1/written" | awk '
		function granules(end,    i) {
			if (value == 255)
				printf "%.0f %.0f\n", at * 8, end * 8 - 1
			for (; value && value < 255 && at < end; at++)
				for (i = 0; i < 8; i++)
					if (int(value / 2 ^ i) % 2)
						printf "%.0f %.0f\n", at * 8 + i, at * 8 + i
		}
		$1 == "*" { next }
		{ granules($1 + 0); at = $1 + 0; value = $2 }'
}

# print_ranges FORMAT BLOCK SIZE: of what the two above print; neighbours are one range.
print_ranges() {
	awk -v format="$1" -v block="$2" -v size="$3" '
		function flush(    to) {
			if (last < 0)
				return
			to = (last + 1) * block < size ? (last + 1) * block : size
			printf format, first * block, to - first * block
			format = after format
			after = ""
		}
		BEGIN { last = -1; after = format ~ /^\[/ ? ", " : "" }
		$1 == last + 1 && last >= 0 { last = $2; next }
		{ flush(); first = $1; last = $2 }
		END { flush() }'
}

# print_changed BLOCK SIZE COMMAND...: the ranges of what it prints, as lines, or as the end of an object.
print_changed() {
	local block=$1 size=$2
	shift 2
	if [[ -z $opt_json ]]; then
		"$@" | print_ranges '%.0f %.0f\n' "$block" "$size"
		return
	fi
	printf ', "ranges": ['
	"$@" | print_ranges '[%.0f, %.0f]' "$block" "$size"
	printf ']}\n'
}

# written_through IMAGE SYSFS SIZE
written_through() {
	local statistics=$2/blksnap granule
	[[ -e $statistics/written ]] || fail "$1 is not an image, or of a driver that does not say what was written to it"
	granule=$(<"$statistics/chunk_size")
	[[ -z $opt_json ]] || printf '{%s' "$(json_member chunk_size "$granule")"
	print_changed "$granule" "$3" written_granules "$statistics"
}

# changed_since IMAGE SYSFS SIZE
changed_since() {
	local cbt=$2/cbt number
	[[ -d $cbt ]] || fail "$1 has no change map: its origin is not tracked; see: blksnap track --help"
	number=$(<"$cbt/number")
	[[ $opt_since -lt $number ]] || fail "$1 is snapshot $number of its generation: nothing is known since $opt_since"
	if [[ -n $opt_json ]]; then
		printf '{'
		json_members generation "$(<"$cbt/generation")" number "$number" since "$opt_since"
	fi
	print_changed "$(<"$cbt/block_size")" "$3" changed_blocks "$cbt"
}

command_changed() {
	local image sysfs
	parse_options ' --json --since --written ' "$@"
	operands+=("${after[@]}")
	[[ ${#operands[@]} -eq 1 ]] || usage_error "changed takes one IMAGE"
	[[ -z $opt_since || -z $opt_written ]] || usage_error "--since or --written, not both"
	opt_since=${opt_since:-0}
	[[ $opt_since =~ ^[0-9]{1,3}$ ]] || usage_error "--since wants a number from 0 to 254"
	opt_since=$((10#$opt_since))
	need_driver
	image=$(readlink -e -- "${operands[0]}") || fail "no such image: ${operands[0]}"
	sysfs=/sys/class/block/${image##*/}
	[[ -e $sysfs/size ]] || fail "${operands[0]} is not an image"
	if [[ -n $opt_written ]]; then
		written_through "${operands[0]}" "$sysfs" $(($(<"$sysfs/size") * 512))
	else
		changed_since "${operands[0]}" "$sysfs" $(($(<"$sysfs/size") * 512))
	fi
}
