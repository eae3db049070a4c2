# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# blksnap show: all that is known of a session.

# attributes_of DIRECTORY: KEY<tab>VALUE, lines of a value joined by a space
attributes_of() {
	local file key value
	for file in "$1"/*; do
		key=${file##*/}
		[[ -f $file && -r $file && $key != map && $key != written ]] || continue
		get_attr value "$1" "$key"
		printf '%s\t%s\n' "$key" "${value//$'\n'/ }"
	done
}

# statistics_of IMAGE: the directory of its statistics
statistics_of() {
	printf '%s\n' "$sysfs_block/${1##*/}/blksnap"
}

show_text() {
	local session=$1 object=$configfs/sessions/$1 snapshot image key value
	printf 'session %s\n' "$session"
	while IFS=$'\t' read -r key value; do
		printf '  %-22s %s\n' "$key" "$value"
	done < <(attributes_of "$object")
	while read -r snapshot; do
		printf '  snapshot %s\n' "$snapshot"
		while IFS=$'\t' read -r key value; do
			printf '    %-22s %s\n' "$key" "$value"
		done < <(attributes_of "$object/$snapshot")
		image=$(attr_read "$object/$snapshot" image)
		[[ -n $image ]] || continue
		printf '    %-22s %s\n' link "$(link_of "$session" "$snapshot")"
		while IFS=$'\t' read -r key value; do
			printf '      %-22s %s\n' "$key" "$value"
		done < <(attributes_of "$(statistics_of "$image")")
	done < <(children "$object")
}

# json_attributes DIRECTORY: its members, each with a comma behind
json_attributes() {
	local key value
	while IFS=$'\t' read -r key value; do
		json_member "$key" "$value"
		printf ', '
	done < <(attributes_of "$1")
}

json_snapshot() {
	local session=$1 snapshot=$2 object=$configfs/sessions/$1/$2 image members
	printf '{'
	json_attributes "$object"
	image=$(attr_read "$object" image)
	if [[ -n $image ]]; then
		json_member link "$(link_of "$session" "$snapshot")"
		members=$(json_attributes "$(statistics_of "$image")")
		printf ', "statistics": {%s}, ' "${members%, }"
	fi
	json_member snapshot "$snapshot"
	printf '}'
}

json_session() {
	local session=$1 object=$configfs/sessions/$1 snapshot separator=
	printf '{'
	json_member session "$session"
	printf ', '
	json_attributes "$object"
	printf '"snapshots": ['
	while read -r snapshot; do
		printf '%s' "$separator"
		json_snapshot "$session" "$snapshot"
		separator=', '
	done < <(children "$object")
	printf ']}'
}

usage_show() {
	cat <<'END'
Usage: blksnap show SESSION [--json]

Prints what is set and known of a session, its snapshots and their images, with the
statistics, but not with what changed (blksnap changed). Exit codes: 0 done; 1 no such
session; 2 wrong usage; 3 the driver is not loaded.
END
}

command_show() {
	parse_options ' --json ' "$@"
	operands+=("${after[@]}")
	[[ ${#operands[@]} -eq 1 ]] || usage_error "show takes one SESSION"
	need_driver
	need_session "${operands[0]}"
	if [[ -n $opt_json ]]; then
		json_session "${operands[0]}"
		echo
	else
		show_text "${operands[0]}"
	fi
}
