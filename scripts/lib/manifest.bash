# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# Manifests of backups: what each of them is, as JSON with a checksum.

readonly manifest_format=1

# What is in that of a backup, by its number, as it stands in its file.
# shellcheck disable=SC2034 # some are only used by reference
declare -A m_uuid=() m_kind=() m_parent=() m_parent_uuid=() m_created=() m_device=() m_size=() m_generation=() m_number=()
declare -A m_base=() m_since=() m_block_size=() m_data=() m_index=() m_index_sha256=()

readonly manifest_members='uuid kind parent parent_uuid created device size generation number base since block_size data index index_sha256'

# What manifests have to be; prints the members of each on a line, which is empty for one that is none.
# shellcheck disable=SC2016 # for jq
readonly manifest_filter='
	def uuid: test("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$");
	def id: test("^[0-9]{5,9}$");
	(try (select(.format == 1 and (.id | id) and (.uuid | uuid)
		and (.kind == "full" and .parent == "" and .parent_uuid == "" and .since == 0
			or (.kind == "increment" or .kind == "differential") and (.parent_uuid | uuid)
				and (.parent == "" or (.parent | id)) and (.generation | uuid))
		and (.generation == "" or (.generation | uuid))
		and (.size | type == "number" and . > 0 and . % 512 == 0)
		and (.number | type == "number" and . >= 0 and . <= 255)
		and (.since | type == "number" and . >= 0 and . <= 255)
		and (.block_size | type == "number")
		and (.base | type == "string") and (.created | type == "string") and (.device | type == "string")
		and (.data == "" and .index == "" and .index_sha256 == ""
			or .data == .id + "." + .kind and .index == .data + ".index"
				and (.index_sha256 | test("^[0-9a-f]{64}$"))))
	| [.id, .uuid, .kind, .parent, .parent_uuid, .created, .device, .size, .generation, .number, .base, .since,
		.block_size, .data, .index, .index_sha256]
	| map(tostring | gsub("\n"; " ")) | join("\u001f")) catch "") // ""'

# get_sums ARRAY FILE...: the SHA-256 of each.
get_sums() {
	local -n sums_=$1
	local lines_
	shift
	lines_=$(sha256sum -- "$@") || return
	mapfile -t sums_ <<<"$lines_"
	# A backslash in front says that the name has such characters in it.
	sums_=("${sums_[@]#\\}")
	sums_=("${sums_[@]%% *}")
}

# get_text_sums ARRAY TEXT...: of texts, and a newline behind each.
get_text_sums() {
	local array_=$1 text_ descriptor_ descriptors_=() files_=() status_=0
	shift
	for text_; do
		exec {descriptor_}<<<"$text_"
		descriptors_+=("$descriptor_")
		files_+=("/dev/fd/$descriptor_")
	done
	get_sums "$array_" "${files_[@]}" || status_=$?
	for descriptor_ in "${descriptors_[@]}"; do
		exec {descriptor_}<&-
	done
	return "$status_"
}

# make_manifest ID: sets manifest to its text, of what the variables have.
manifest=

make_manifest() {
	local id=$1 member quoted sums
	json_quote quoted "$id"
	printf -v manifest '{\n  "format": %s,\n  "id": %s' "$manifest_format" "$quoted"
	for member in $manifest_members; do
		local -n value=m_$member
		quoted=${value[$id]}
		case $member in
		# These are never numbers, whatever they look like.
		uuid | parent | parent_uuid | created | data | index | index_sha256) json_quote quoted "${value[$id]}" ;;
		*) is_json_number "$member" "$quoted" || json_quote quoted "${value[$id]}" ;;
		esac
		manifest+=$',\n  "'$member'": '$quoted
	done
	manifest+=,
	get_text_sums sums "$manifest"
	manifest+=$'\n  "checksum": "'${sums[0]}$'"\n}'
}

# What is above the last line of a manifest, in manifest_above.
manifest_above=

cut_manifest() {
	manifest_above=${1%%$'\n  "checksum": '*}
}

# is_whole_manifest TEXT SUM: does its last line have the checksum of what is above?
is_whole_manifest() {
	cut_manifest "$1"
	[[ $1 == "$manifest_above"$'\n  "checksum": "'"$2"$'"\n}' ]]
}

# keep_manifest LINE: what the filter printed, into the variables; its number into manifest_id. Fails if it is empty.
manifest_id=

keep_manifest() {
	local member values number=0
	manifest_id=
	[[ -n $1 ]] || return
	IFS=$'\x1f' read -r -a values <<<"$1"$'\x1f'
	manifest_id=${values[0]}
	for member in $manifest_members; do
		local -n value=m_$member
		number=$((number + 1))
		# shellcheck disable=SC2034,SC2004 # a reference, to an associative one
		value[$manifest_id]=${values[number]:-}
	done
}

# read_manifest TEXT: into the variables. Fails if it is not one, or damaged.
read_manifest() {
	local sums line
	cut_manifest "$1"
	get_text_sums sums "$manifest_above" && is_whole_manifest "$1" "${sums[0]}" || return
	line=$(jq -r "$manifest_filter" <<<"$1" 2>/dev/null) || return
	keep_manifest "$line"
}

# filter_manifests TEXT...: what the filter prints of each into manifest_lines, all at once. Fails if one of them is not
# JSON, or damaged.
manifest_lines=()

filter_manifests() {
	local text above=() sums i=0
	for text; do
		cut_manifest "$text"
		above+=("$manifest_above")
	done
	get_text_sums sums "${above[@]}" || return
	for text; do
		is_whole_manifest "$text" "${sums[i]}" || return
		i=$((i + 1))
	done
	text=$(printf '%s\n' "$@" | jq -r "$manifest_filter" 2>/dev/null) || return
	mapfile -t manifest_lines <<<"$text"
	[[ ${#manifest_lines[@]} -eq $# ]]
}
