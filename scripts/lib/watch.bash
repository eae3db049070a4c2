# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# blksnap watch: events, as they come.

usage_watch() {
	cat <<'END'
Usage: blksnap watch [--json] [SESSION]

Prints a line for each event of a session, or of all, as it comes, until it is
interrupted: time, session, snapshot and origin (MAJ:MIN), and what happened:
low_space, overflow, failed or lost; what happens to the whole difference storage
(low_space) is said of the session's first snapshot. Without SESSION also what is
tracked no more: time, tracker, origin, and lost. With --json each line is an
object. Exit codes: 0 interrupted; 1 udev cannot be listened to; 2 usage;
3 driver not loaded.
END
}

# print_event TIME SESSION SNAPSHOT TRACKER ORIGIN EVENT: of a snapshot, or of a tracker.
print_event() {
	if [[ -z $opt_json ]]; then
		printf '%s %s (%s): %s\n' "$1" "${4:+tracker }${4:-$2/$3}" "$5" "$6"
		return
	fi
	printf '{'
	if [[ -n $4 ]]; then
		json_members time "$1" tracker "$4" origin "$5" event "$6"
	else
		json_members time "$1" session "$2" snapshot "$3" origin "$5" event "$6"
	fi
	printf '}\n'
}

# read_events SESSION: from what udevadm says; an event is lines KEY=VALUE, and ends with an empty one.
read_events() {
	local line time event='' session='' snapshot='' tracker='' origin=''
	while IFS= read -r line; do
		case $line in
		BLKSNAP_EVENT=*) event=${line#*=} ;;
		BLKSNAP_SESSION=*) session=${line#*=} ;;
		BLKSNAP_SNAPSHOT=*) snapshot=${line#*=} ;;
		BLKSNAP_TRACKER=*) tracker=${line#*=} ;;
		BLKSNAP_ORIGIN=*) origin=${line#*=} ;;
		'')
			if [[ -n $event && (-z $1 || $1 == "$session") ]]; then
				printf -v time '%(%Y-%m-%dT%H:%M:%S%z)T' -1
				print_event "$time" "$session" "$snapshot" "$tracker" "$origin" "$event"
			fi
			event='' session='' snapshot='' tracker='' origin=''
			;;
		esac
	done
}

command_watch() {
	parse_options ' --json ' "$@"
	operands+=("${after[@]}")
	[[ ${#operands[@]} -le 1 ]] || usage_error "watch takes one SESSION, or none"
	need_driver
	[[ ${#operands[@]} -eq 0 ]] || need_session "${operands[0]}"
	trap 'exit 0' INT TERM
	# The kernel's own events: to be told must not depend on rules. That of a tracker is one of the module.
	read_events "${operands[0]:-}" < <(exec udevadm monitor --kernel --property \
		--subsystem-match=block --subsystem-match=module 2>&1)
	fail "udevadm monitor has ended"
}
