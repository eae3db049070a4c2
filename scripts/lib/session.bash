# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# Sessions: their end, the names of what is in them, and those that are to end with a process.

# remove_session SESSION: releases and removes it; 1 if something of it remains.
remove_session() {
	local session=$1 object=$configfs/sessions/$1 snapshot snapshots active message
	[[ -d $object ]] || return 0
	get_attr active "$object" active
	if [[ $active == 1 ]]; then
		set_attr "$object" active 0 || return 1
	fi
	unmark_session "$session"
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

# A session that is to end with a process has a file of its name here, which that process has locked, and those that it
# starts. If nobody has, all of them have ended, and it was killed.
readonly session_marks=/run/blksnap

mark_descriptor=

# mark_session SESSION: before it is made. Where that cannot be done, it is like any other.
mark_session() {
	local mark=$session_marks/$1
	[[ -d $session_marks ]] || mkdir -m 700 -- "$session_marks" 2>/dev/null || true
	{ exec {mark_descriptor}>"$mark"; } 2>/dev/null || return 0
	flock --nonblock "$mark_descriptor" 2>/dev/null || unmark_session "$1"
}

unmark_session() {
	[[ ! -e $session_marks/$1 ]] || rm -f -- "$session_marks/$1"
}

# release_abandoned: sessions that should have ended with processes that are no more.
release_abandoned() {
	local mark session descriptor
	for mark in "$session_marks"/*; do
		session=${mark##*/}
		[[ -d $configfs/sessions/$session ]] || continue
		{ exec {descriptor}<"$mark"; } 2>/dev/null || continue
		if flock --nonblock "$descriptor"; then
			say "session '$session' is left over from a blksnap that was killed: released"
			! remove_session "$session" || wait_for_udev
		fi
		exec {descriptor}<&-
	done
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
