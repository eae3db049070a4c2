# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# blksnap list: a line for each session.

usage_list() {
	cat <<'END'
Usage: blksnap list [--json]

Prints a line for each session: name, state, its snapshots, and how much of the
difference storage is used. Exit codes: 0 done; 2 usage; 3 driver not loaded.
END
}

command_list() {
	local session object snapshots separator=
	parse_options ' --json ' "$@"
	[[ ${#operands[@]} -eq 0 && ${#after[@]} -eq 0 ]] || usage_error "list takes no arguments"
	need_driver
	[[ -z $opt_json ]] || printf '['
	while read -r session; do
		object=$configfs/sessions/$session
		mapfile -t snapshots < <(children "$object")
		if [[ -n $opt_json ]]; then
			printf '%s{' "$separator"
			json_members session "$session" state "$(attr_read "$object" state)"
			printf ', "snapshots": '
			json_list "${snapshots[@]}"
			printf ', '
			json_members diff_used "$(attr_read "$object" diff_used)" diff_size "$(attr_read "$object" diff_size)"
			printf '}'
			separator=', '
		else
			printf '%-20s %-10s %s %s/%s\n' "$session" "$(attr_read "$object" state)" \
				"$(IFS=, && printf '%s' "${snapshots[*]:--}")" \
				"$(human_size "$(attr_read "$object" diff_used)")" \
				"$(human_size "$(attr_read "$object" diff_size)")"
		fi
	done < <(children "$configfs/sessions")
	[[ -z $opt_json ]] || printf ']\n'
}
