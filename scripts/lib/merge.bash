# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2004,SC2034,SC2154 # what is set by one part of blksnap is used by others; m_* are associative
#
# blksnap merge: a full is made of the beginning of a chain.

usage_merge() {
	cat <<'END'
Usage: blksnap merge [--json] DIRECTORY NUMBER

Makes a full of the backup NUMBER, and removes those before it which no other one needs.
If it is a full already, it is read, and compared with its checksums, before that.
DIRECTORY has the chain of one device. The full is made beside the old one, so there
has to be room for both. Whatever happens meanwhile, every backup that is there can be
restored; if it was interrupted, start it again. With --json the manifest of the full
is printed.
Exit codes: 0 done; 1 refused or failed; 2 wrong usage.
END
}

# remove_older ID: the backups before it that none of the others needs, the last one first: what is left is always whole.
remove_older() {
	local id=$1 other needed=' ' i
	for other in "${backups[@]}"; do
		! older "$other" "$id" || continue
		chain_of "$other" || return
		needed+="${chain_ids[*]} "
	done
	for ((i = ${#backups[@]} - 1; i >= 0; i--)); do
		other=${backups[i]}
		older "$other" "$id" || continue
		if [[ $needed == *" $other "* ]]; then
			say "$chain/$other stays: a differential is built upon it"
			continue
		fi
		mv -f -- "$chain/$other.json" "$chain/$other.json.partial" && sync -- "$chain" &&
			rm -f -- "$chain/${m_data[$other]}" "$chain/${m_index[$other]}" "$chain/$other.json.partial" || return
	done
}

merge_to_full() {
	local id=$1 data=$chain/$1.full old_data=$chain/${m_data[$1]} old_index=$chain/${m_index[$1]}
	chain_arguments "$id" || fail "$id cannot be made a full; see: blksnap verify $chain"
	rm -f -- "$data.index.partial" "$data.partial"
	copy "${chain##*/}" merge --heading "# blksnap merged ${m_uuid[$id]}" "$data.partial" "$data.index.partial" \
		"${m_size[$id]}" "${chain_files[@]}" || {
		rm -f -- "$data.index.partial" "$data.partial"
		fail "$chain: nothing was merged"
	}
	m_kind[$id]=full m_parent[$id]='' m_parent_uuid[$id]='' m_since[$id]=0
	m_data[$id]=$id.full m_index[$id]=$id.full.index
	publish "$id"
	rm -f -- "$old_data" "$old_index"
}

command_merge() {
	local id
	umask 077
	parse_options ' --json ' "$@"
	add_paths
	[[ ${#operands[@]} -eq 2 ]] || usage_error "merge takes DIRECTORY and NUMBER"
	need_backup_tools
	find_chain "${operands[0]}"
	lock "$chain" exclusive
	read_chain "$chain" || exit "$exit_refused"
	[[ ${#damaged_manifests[@]} -eq 0 ]] || fail "$chain: nothing was merged"
	backup_number "${operands[1]}"
	if [[ ${m_kind[$id]} != full ]]; then
		merge_to_full "$id"
	else
		check_backup "$id" || fail "$chain: nothing was removed, as $id is not good, or cannot be read"
	fi
	remove_older "$id" || fail "$chain: older backups stay"
	if [[ -n $opt_json ]]; then
		make_manifest "$id"
		printf '%s\n' "$manifest"
	else
		printf '%s: full, %s\n' "$chain/$id" "$(room_of "$chain/${m_data[$id]}")"
	fi
}
