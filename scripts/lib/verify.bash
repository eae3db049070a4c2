# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# blksnap verify: is every backup of a chain good?

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

# print_state PATH STATE: of a backup of which there is no manifest to be read, or a chain that cannot be read, for programs.
print_state() {
	[[ -n $opt_json ]] || return 0
	printf '{'
	json_members backup "$1" state "$2"
	printf '}\n'
}

# verify_useless: what belongs to no manifest.
verify_useless() {
	local path useless_id last=''
	for path in "${listing[@]}"; do
		is_useless "${path##*/}" || continue
		if ! is_lost "$path"; then
			say "$path: of a backup or merge that was interrupted"
			continue
		fi
		say_lost "$path"
		[[ $useless_id != "$last" ]] || continue
		last=$useless_id
		print_state "$chain/$useless_id" damaged
		bad=$((bad + 1))
	done
}

# verify_backup ID: prints what is to be said of it.
verify_backup() {
	local id=$1 status=0
	check_backup "$id" || status=$?
	case $status in
	0) print_verdict "$id" "$chain/$id" good ;;
	"$damage_found") print_verdict "$id" "$chain/$id" DAMAGED ;;
	*) print_verdict "$id" "$chain/$id" UNKNOWN ;;
	esac
	return "$status"
}

verify_chain() {
	local id bad=0 file
	lock "$chain" shared || {
		print_state "$chain" unknown
		return 1
	}
	read_chain "$chain" || {
		print_state "$chain" damaged
		return 1
	}
	bad=${#damaged_manifests[@]}
	for file in "${damaged_manifests[@]}"; do
		print_state "$chain/${file%.json}" damaged
	done
	sum_indexes "${backups[@]}"
	for id in "${backups[@]}"; do
		verify_backup "$id" || bad=$((bad + 1))
	done
	verify_useless
	[[ $bad -eq 0 ]]
}

# is_chain DIRECTORY: it has manifests, or data that may have lost its own; or nobody knows, as it cannot be listed.
is_chain() {
	local paths path
	get_listing paths "$1" '[0-9]*' 2>/dev/null || return 0
	for path in "${paths[@]}"; do
		[[ ! ${path##*/} =~ \.json$|^[0-9]{5,9}\.(full|increment|differential)$ ]] || return 0
	done
	return 1
}

usage_verify() {
	cat <<'END'
Usage: blksnap verify [--json] DIRECTORY
       blksnap verify [--json] -

Reads all backups in DIRECTORY (of one chain, or of all that are in it), or those that
come from standard input, and compares them with their checksums. Also looks whether
each has what it is built upon, and whether there is data of which the manifest is
lost. Prints a line for each backup, and for damage the file and block. With --json
each line is an object. What could not be looked at, as memory was short or the program
that reads was killed, is unknown, and fails, too. The driver is not needed.
Exit codes: 0 all are good; 1 something is damaged, missing or unknown; 2 wrong usage.
END
}

command_verify() {
	local status=0 chains=() directories path
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
	get_directories directories "$path" || exit "$exit_refused"
	for chain in "$path" "${directories[@]}"; do
		! is_chain "$chain" || chains+=("$chain")
	done
	[[ ${#chains[@]} -gt 0 ]] || fail "there is no backup in $path"
	for chain in "${chains[@]}"; do
		verify_chain || status=$exit_refused
	done
	return "$status"
}
