# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# What is printed: JSON, sizes, and links.

readonly settle_seconds=30
# Values of these are texts even if they look like numbers; `frozen` is a list.
readonly text_keys=' session snapshot tracker origin device diff_file image link state error discard generation base '

# json_quote VARIABLE TEXT
json_quote() {
	local -n quoted_=$1
	local text_=$2 char_ code_ i_
	if [[ $text_ != *[\"\\[:cntrl:]]* ]]; then
		quoted_="\"$text_\""
		return
	fi
	quoted_='"'
	for ((i_ = 0; i_ < ${#text_}; i_++)); do
		char_=${text_:i_:1}
		case $char_ in
		\" | \\) quoted_+="\\$char_" ;;
		$'\n') quoted_+='\n' ;;
		$'\t') quoted_+='\t' ;;
		[[:cntrl:]])
			printf -v code_ '\\u%04x' "'$char_"
			quoted_+=$code_
			;;
		*) quoted_+=$char_ ;;
		esac
	done
	quoted_+='"'
}

json_string() {
	local string
	json_quote string "$1"
	printf '%s' "$string"
}

# is_json_number KEY VALUE: its value is a number, and looks like one.
is_json_number() {
	[[ $2 =~ ^(0|[1-9][0-9]{0,17})$ && $text_keys != *" $1 "* ]]
}

json_list() {
	local item separator=
	printf '['
	for item; do
		printf '%s' "$separator"
		json_string "$item"
		separator=', '
	done
	printf ']'
}

# json_member KEY VALUE
json_member() {
	json_string "$1"
	printf ': '
	if [[ $1 == frozen ]]; then
		# shellcheck disable=SC2086 # numbers with a colon, one a line
		json_list $2
	elif is_json_number "$1" "$2"; then
		printf '%s' "$2"
	else
		json_string "$2"
	fi
}

# json_members KEY VALUE...: with commas between them
json_members() {
	local separator=
	while [[ $# -gt 0 ]]; do
		printf '%s' "$separator"
		json_member "$1" "$2"
		separator=', '
		shift 2
	done
}

# human_size BYTES: as 512, 1.5K, 20M; rounded up.
human_size() {
	local units=KMGTPE unit=0 factor=1024 tenths
	if [[ ! $1 =~ ^[0-9]+$ || $1 -lt 1024 ]]; then
		printf '%s\n' "${1:--}"
		return
	fi
	while [[ unit -lt 5 && $1 -gt $((factor * 1023)) ]]; do
		((unit += 1, factor *= 1024))
	done
	# Not 10 * $1, which may be too large.
	tenths=$((10 * ($1 / factor) + (10 * ($1 % factor) + factor - 1) / factor))
	if [[ $tenths -lt 100 ]]; then
		printf '%s.%s%s\n' $((tenths / 10)) $((tenths % 10)) "${units:unit:1}"
	else
		printf '%s%s\n' $((($1 + factor - 1) / factor)) "${units:unit:1}"
	fi
}

# get_children ARRAY DIRECTORY: the names of the directories in it.
get_children() {
	local -n children_=$1
	local path_
	children_=()
	for path_ in "$2"/*/; do
		path_=${path_%/}
		children_+=("${path_##*/}")
	done
}

# Names of the directories in a directory, one a line.
children() {
	local names=()
	get_children names "$1"
	[[ ${#names[@]} -eq 0 ]] || printf '%s\n' "${names[@]}"
}

# link_of SESSION SNAPSHOT: the link that udev made to the image; else the image's own name; nothing while there is none.
link_of() {
	local link=/dev/blksnap/$1/$2 image
	image=$(attr_read "$configfs/sessions/$1/$2" image)
	if [[ -n $image && $link -ef $image ]]; then
		image=$link
	fi
	printf '%s\n' "$image"
}

wait_for_udev() {
	if command -v udevadm >/dev/null; then
		udevadm settle --timeout="$settle_seconds" || say "udev has not finished after $settle_seconds s"
	fi
}
