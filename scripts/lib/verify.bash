# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# blksnap verify: is every backup of a chain good?

# verify_backup ID: all of it; says what is wrong.
verify_backup() {
	local id=$1
	chain_of "$id" || return
	check_index "$id" || return
	copy "${chain##*/}/$id" check "${m_size[$id]}" "${layout[${m_kind[$id]}]}" "$chain/${m_data[$id]}" "$chain/${m_index[$id]}"
}

# print_verdict ID NAME VERDICT
print_verdict() {
	if [[ -z $opt_json ]]; then
		printf '%s: %s of %s, %s\n' "$2" "${m_kind[$1]}" "${m_created[$1]}" "$3"
		return
	fi
	printf '{'
	json_members backup "$2" kind "${m_kind[$1]}" created "${m_created[$1]}" state "${3,,}"
	printf '}\n'
}

verify_chain() {
	local id bad=0 path file
	lock "$chain" shared
	read_chain "$chain"
	bad=${#damaged_manifests[@]}
	for file in "${damaged_manifests[@]}"; do
		[[ -n $opt_json ]] || continue
		printf '{'
		json_members backup "$chain/${file%.json}" state damaged
		printf '}\n'
	done
	sum_indexes "${backups[@]}"
	for id in "${backups[@]}"; do
		if verify_backup "$id"; then
			print_verdict "$id" "$chain/$id" good
		else
			print_verdict "$id" "$chain/$id" DAMAGED
			bad=$((bad + 1))
		fi
	done
	for path in "$chain"/[0-9]*.partial; do
		say "$path: of a backup that was interrupted"
	done
	[[ $bad -eq 0 ]]
}

usage_verify() {
	cat <<'END'
Usage: blksnap verify [--json] DIRECTORY
       blksnap verify [--json] -

Reads all backups in DIRECTORY (of one chain, or of all that are in it), or those that
come from standard input, and compares them with their checksums. Also looks whether
each has what it is built upon. Prints a line for each backup, and for damage the file
and block. With --json each line is an object. The driver is not needed.
Exit codes: 0 all are good; 1 something is damaged or missing; 2 wrong usage.
END
}

command_verify() {
	local status=0 chains=() path
	parse_options ' --json ' "$@"
	add_paths
	[[ ${#operands[@]} -eq 1 ]] || usage_error "verify takes one DIRECTORY"
	need_backup_tools
	if [[ ${operands[0]} == - ]]; then
		receive_streams ''
		return
	fi
	path=${operands[0]%/}
	[[ -d $path ]] || fail "no directory $path"
	for chain in "$path" "$path"/*; do
		for _ in "$chain"/[0-9]*.json; do
			chains+=("$chain")
			break
		done
	done
	[[ ${#chains[@]} -gt 0 ]] || fail "there is no backup in $path"
	for chain in "${chains[@]}"; do
		verify_chain || status=$exit_refused
	done
	return "$status"
}
