# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Stamped origins (see `stamp --help`) and storms on them, for suites, on top of lib/common.

SEED=17

# filled DEVICE [OPTION...]: sequence 1 everywhere.
filled() {
	stamp fill "$1" --seed "$SEED" "${@:2}"
}

# storm ORIGIN IMAGE OPTION...: as taken at sequence 1, unless a --table is among the options. Its numbers are for
# storm_value, and its --count for a scale of 1; a mismatch fails the test.
storm() {
	local code=0 i options=("${@:3}") taken=(--taken-seq 1)
	for i in "${!options[@]}"; do
		case ${options[i]} in
		--table) taken=() ;;
		--count) options[i + 1]=$(scaled "${options[i + 1]}") ;;
		esac
	done
	STORM=$(stamp storm "$1" "$2" --seed "$SEED" --readers 4 "${taken[@]}" "${options[@]}" 2>&1) || code=$?
	[[ $code -eq 0 ]] || fail "the storm on $1 ended with code $code:"$'\n'"$STORM" || return
	storm_note "$2"
}

# What tests/run adds up: writes of the storm, held ones that joined another, image reads that looked twice.
storm_note() {
	local dir=/sys/block/${1##*/}/blksnap
	[[ -d $dir ]] || return 0
	printf '%d %d %d\n' "$(storm_value writes)" "$(cat "$dir/writes_joined")" "$(cat "$dir/image_reads_repeated")" \
		>>/results/storms
}

# storm_value KEY
storm_value() {
	sed -n "s/^$1=//p" <<<"$STORM"
}

# image_is IMAGE [OPTION...]: still sequence 1 everywhere.
image_is() {
	local said
	said=$(stamp verify "$1" --seed "$SEED" --seq 1 "${@:2}" 2>&1) || fail "the image $1 has changed:"$'\n'"$said"
}

# image_fails IMAGE: reads of it have EIO, at its start and at its end.
image_fails() {
	local at end
	end=$(($(blockdev --getsize64 "$1") / 4096 - 1))
	for at in 0 $((end / 2)) "$end"; do
		refuses EIO dd if="$1" of=/dev/null bs=4096 count=1 skip="$at" iflag=direct status=none || return
	done
}

# consistent IMAGE: what the statistics of a quiet image must always agree in.
consistent() {
	local -A stat=()
	local file
	for file in "/sys/block/${1##*/}/blksnap"/*; do
		stat[${file##*/}]=''
		read -r "stat[${file##*/}]" <"$file" || true
	done
	[[ ${stat[chunks_preserved]} -eq $((stat[chunks_in_memory] + stat[chunks_stored])) ]] ||
		fail "preserved ${stat[chunks_preserved]}, in memory ${stat[chunks_in_memory]}, stored ${stat[chunks_stored]}" ||
		return
	[[ ${stat[chunks_preserved]} -le ${stat[chunks]} ]] || fail 'more is preserved than there is' || return
	# The last granule of a device may be shorter.
	[[ ${stat[memory_bytes]} -le $((stat[chunks_in_memory] * stat[chunk_size])) &&
		${stat[memory_bytes]} -gt $(((stat[chunks_in_memory] - 1) * stat[chunk_size])) ]] ||
		fail "${stat[memory_bytes]} bytes in memory for ${stat[chunks_in_memory]} granules" || return
	[[ ${stat[origin_read_bytes]} -le $((stat[chunks_preserved] * stat[chunk_size])) &&
		${stat[origin_read_bytes]} -gt $(((stat[chunks_preserved] - 1) * stat[chunk_size])) ]] ||
		fail "${stat[origin_read_bytes]} bytes read for ${stat[chunks_preserved]} granules" || return
	[[ ${stat[diff_written_bytes]} -le $((stat[chunks_stored] * stat[chunk_size])) &&
		${stat[diff_written_bytes]} -ge $(((stat[chunks_stored] - 1) * stat[chunk_size])) ]] ||
		fail "${stat[diff_written_bytes]} bytes written for ${stat[chunks_stored]} granules" || return
	[[ ${stat[writes_joined]} -le ${stat[writes_held]} ]] || fail 'more writes joined than held' || return
	[[ ${stat[map_entries]} -le ${stat[chunks_preserved]} ]] || fail 'more entries than granules'
}
