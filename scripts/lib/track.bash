# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# blksnap track: which devices are followed between snapshots.
#
# Which tracker has a device only the driver knows: the path that was written to a tracker may be another device's by now.
# It says so when it refuses the device to a second tracker, and logs that.

usage_track() {
	cat <<'END'
Usage: blksnap track [--off] DEVICE...

Starts to track the changes of each device, or ends it with --off: then what was
known is forgotten. What is tracked already goes on, what was lost begins anew. A
tracker is named after its device, costs a byte for each 64 KiB, and stays until the
machine is shut down. Exit codes: 0 done; 1 refused, and nothing was changed for that
device; 2 usage; 3 driver not loaded.
END
}

# tracker_twin NAME: prints the name of the tracker that has the device which was just refused to this one.
tracker_twin() {
	[[ $(attr_read "$configfs/trackers/$1" error) =~ ^EEXIST:.*\ is\ tracked\ by\ (.+)\ already$ ]] || return
	printf '%s\n' "${BASH_REMATCH[1]}"
}

# tracker_for DEVICE STATE...: prints the name of a tracker for this path that is in one of the states.
tracker_for() {
	local name names path state
	get_children names "$configfs/trackers"
	for name in "${names[@]}"; do
		get_attr path "$configfs/trackers/$name" device
		[[ $path == "$1" || $path -ef $1 ]] || continue
		get_attr state "$configfs/trackers/$name" state
		[[ " ${*:2} " == *" $state "* ]] || continue
		printf '%s\n' "$name"
		return
	done
	return 1
}

# tracker_of DEVICE: prints the name of the tracker that has it; if none has, of one that has lost what had this path.
tracker_of() {
	local name=asks-$$ status=0 states=(configured lost)
	if mkdir -- "$configfs/trackers/$name" 2>/dev/null; then
		attr_write "$configfs/trackers/$name" device "$1" >/dev/null || tracker_twin "$name" || status=1
		[[ -z $(attr_read "$configfs/trackers/$name" device) ]] || status=1
		rmdir -- "$configfs/trackers/$name"
		[[ $status -ne 0 ]] || return 0
	fi
	[[ -e $1 ]] || states+=(tracking)
	tracker_for "$1" "${states[@]}"
}

# enable_tracker NAME DEVICE: if another tracker has the device: that one.
enable_tracker() {
	local object=$configfs/trackers/$1 message twin
	[[ $(attr_read "$object" state) != tracking ]] || return 0
	message=$(attr_write "$object" enabled 0 && attr_write "$object" device "$2" && attr_write "$object" enabled 1) &&
		return
	if [[ $message == *'File exists' ]] && twin=$(tracker_twin "$1"); then
		enable_tracker "$twin" "$2"
		return
	fi
	explain "$object" "$2" "$message"
	return 1
}

# track_on NAME DEVICE: with a tracker of that name, if a new one is needed. One that does not track is used again.
track_on() {
	local object=$configfs/trackers/$1 name message status=0
	if name=$(tracker_for "$2" configured lost); then
		enable_tracker "$name" "$2"
		return
	fi
	message=$(mkdir -- "$object" 2>&1) || {
		say "cannot track $2: ${message##*: }"
		return 1
	}
	enable_tracker "$1" "$2" || status=1
	[[ $(attr_read "$object" state) == tracking ]] || rmdir -- "$object"
	return "$status"
}

# track_off DEVICE
track_off() {
	local name message
	name=$(tracker_of "$1") || {
		say "$1 is not tracked"
		return 1
	}
	message=$(attr_write "$configfs/trackers/$name" enabled 0 && rmdir -- "$configfs/trackers/$name" 2>&1) || {
		explain "$configfs/trackers/$name" "$1" "$message"
		return 1
	}
}

# track_devices DEVICE...: under names that are not taken.
track_devices() {
	local device status=0 taken_names
	local -i number=0
	taken_names=$(children "$configfs/trackers")
	name_snapshots "$@"
	for device; do
		track_on "${snapshot_names[number]}" "$device" || status=$exit_refused
		number+=1
	done
	return "$status"
}

# track_untracked DEVICE...: those for whose path there is no tracker. To ask the driver, as track_devices does, would be logged as a
# refusal for each.
track_untracked() {
	local device untracked=()
	for device; do
		tracker_for "$device" tracking >/dev/null || untracked+=("$device")
	done
	[[ ${#untracked[@]} -eq 0 ]] || track_devices "${untracked[@]}"
}

# track_missed SESSION DEVICE...: those of them whose image says that they are not tracked: what has their path was another one's.
track_missed() {
	local device image missed=()
	local -i number=0
	for device in "${@:2}"; do
		get_attr image "$configfs/sessions/$1/${snapshot_names[number]}" image
		[[ -d /sys/block/${image##*/}/cbt ]] || missed+=("$device")
		number+=1
	done
	[[ ${#missed[@]} -eq 0 ]] || track_devices "${missed[@]}" || true
}

command_track() {
	local device status=0
	parse_options ' --off ' "$@"
	operands+=("${after[@]}")
	[[ ${#operands[@]} -ge 1 ]] || usage_error "DEVICE is missing"
	need_driver
	if [[ -z $opt_off ]]; then
		track_devices "${operands[@]}"
		return
	fi
	for device in "${operands[@]}"; do
		track_off "$device" || status=$exit_refused
	done
	return "$status"
}
