# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# Backups that come through a pipe, one after the other.

readonly stream_head='blksnap-stream 1'

# read_stream_head: the manifest of the next backup in standard input, as $manifest_id; fails at the end of it.
read_stream_head() {
	local line='' text=''
	IFS= read -r line || {
		[[ -z $line ]] || fail "the stream ends in the middle"
		return 1
	}
	[[ $line == "$stream_head" ]] || fail "not what \`blksnap backup -\` writes"
	while IFS= read -r line && [[ $line != '}' ]]; do
		text+=$line$'\n'
		[[ ${#text} -lt 65536 ]] || break
	done
	read_manifest "$text$line" || fail "the stream is damaged: its manifest is not one"
}

# receive_streams TARGET [OPTION...]: all backups in standard input, one upon the other; TARGET may be empty.
receive_streams() {
	local target=$1 id before='' number=0 update=()
	shift
	stream_full=
	while read_stream_head; do
		number=$((number + 1))
		# Numbers mean nothing in a pipe: each is kept under one of its own.
		id=stream-$number
		move_manifest "$manifest_id" "$id"
		follows "$id" "$before" || fail "backup $number of the stream does not follow the one before it"
		copy "backup $number" receive "$@" "${update[@]}" "${m_size[$id]}" ${target:+"$target"} || return
		update=(--update)
		[[ ${m_kind[$id]} != full ]] || stream_full=$id
		before=$id
		[[ -n $target ]] || print_verdict "$id" "$id" good
	done
	[[ $number -gt 0 ]] || fail "there is no backup in standard input"
}

# move_manifest FROM TO
move_manifest() {
	local member
	for member in $manifest_members; do
		local -n members=m_$member
		# shellcheck disable=SC2034,SC2004 # a reference, to an associative one
		members[$2]=${members[$1]}
		unset "members[$1]"
	done
}

# not_older ID BEFORE: is it of the same snapshot, or of a later one? What is built upon that one is.
not_older() {
	[[ ${m_parent_uuid[$1]} == "${m_uuid[$2]}" || ${m_base[$1]} == "${m_generation[$2]} ${m_number[$2]}" ]] ||
		[[ ${m_generation[$1]} == "${m_generation[$2]}" && ${m_number[$1]} -ge ${m_number[$2]} ]]
}

# follows ID BEFORE: a full, or what goes on with what was restored so far. An increment alone can only be verified.
follows() {
	local parent=$2
	[[ ${m_kind[$1]} != full ]] || return 0
	if [[ -z $parent ]]; then
		[[ $command == verify ]] || fail "this is an increment: its full, and what lies between, have to come before it"
		return 0
	fi
	# It may be a differential: whatever came after the full is overwritten by it, if it is not older than that.
	[[ ${m_kind[$1]} != differential ]] || parent=${stream_full:-$2}
	not_older "$1" "$2" || return
	[[ ${m_parent_uuid[$1]} == "${m_uuid[$parent]}" && ${m_size[$1]} == "${m_size[$parent]}" ]]
}
