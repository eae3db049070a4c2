# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# blksnap take: a session that stays.

usage_take() {
	cat <<'END'
Usage: blksnap take SESSION --diff PATH [--limit SIZE] [--json] DEVICE...

Takes a snapshot of all devices at one instant and prints the path of each image,
/dev/blksnap/SESSION/SNAPSHOT, or /dev/blksnapN where udev has made no such link. A
snapshot is named after its device.

  --diff PATH    where overwritten data is kept: a block device, a file (made if
                 it is missing, and then removed at the release), a directory
  --limit SIZE   how large a file may grow: bytes, or with K, M, G, T
  --json         print the session as JSON

The driver freezes the file systems on the devices. Those further up (on LVM, md,
LUKS or a loop device over them) are frozen here for the moment of the take, and
thawed whatever happens. What cannot be frozen is named, and is then as after a
power failure. File systems in other mount namespaces are not found.

If anything is refused, the reason is printed and nothing is left.
Exit codes: 0 taken; 1 refused; 2 wrong usage; 3 the driver is not loaded.
END
}

command_take() {
	local session
	parse_options ' --diff --limit --json ' "$@"
	operands+=("${after[@]}")
	[[ ${#operands[@]} -ge 1 ]] || usage_error "SESSION is missing"
	session=${operands[0]}
	need_name "$session"
	[[ ${#operands[@]} -ge 2 ]] || usage_error "DEVICE is missing"
	[[ -n $opt_diff ]] || usage_error "--diff is missing"
	need_driver
	take_session "$session" "$opt_diff" "$opt_limit" "${operands[@]:1}"
	# It is there, and that is what the exit code is to say; but if nobody is told of it, it is removed again.
	trap '' INT TERM HUP PIPE
	if [[ -n $opt_json ]]; then
		json_session "$session"
		echo
	else
		find_images "$session"
		printf '%s\n' "${images[@]}"
	fi
	unfinished=
}
