# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# Sessions: their end, and the names of what is in them.

# remove_session SESSION: releases and removes it; 1 if something of it remains.
remove_session() {
	local session=$1 object=$configfs/sessions/$1 snapshot snapshots active message
	[[ -d $object ]] || return 0
	get_attr active "$object" active
	if [[ $active == 1 ]]; then
		set_attr "$object" active 0 || return 1
	fi
	get_children snapshots "$object"
	! rmdir -- "${snapshots[@]/#/$object/}" "$object" 2>/dev/null || return 0
	# Something is in the way: each by itself, to say which.
	get_children snapshots "$object"
	for snapshot in "${snapshots[@]}"; do
		if ! message=$(rmdir -- "$object/$snapshot" 2>&1); then
			explain "$object" "$session/$snapshot: cannot be removed" "$message"
			return 1
		fi
	done
	if ! message=$(rmdir -- "$object" 2>&1); then
		explain "$object" "$session: cannot be removed" "$message"
		return 1
	fi
}

taken_names=

# name_snapshots DEVICE...: sets snapshot_names, a name for each, made of its own; none of the lines of taken_names.
name_snapshots() {
	local device base name suffix
	local -i number
	snapshot_names=()
	for device; do
		base=${device##*/}
		base=${base//[!A-Za-z0-9._:+-]/_}
		while [[ $base == .* ]]; do
			base=${base#.}
		done
		base=${base:-device}
		if [[ $base =~ ^(.*)-(part[0-9]+)$ ]]; then
			base=${BASH_REMATCH[1]}_${BASH_REMATCH[2]}
		fi
		name=${base:0:64} number=1
		while [[ " ${snapshot_names[*]} ${taken_names//$'\n'/ } " == *" $name "* ]] || ! valid_name "$name"; do
			number+=1
			suffix=_$number
			name=${base:0:64-${#suffix}}$suffix
		done
		snapshot_names+=("$name")
	done
}
