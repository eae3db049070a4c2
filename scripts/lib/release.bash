# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# blksnap release: the end of sessions.

usage_release() {
	cat <<'END'
Usage: blksnap release SESSION... | --all

Releases the sessions and removes them: their images vanish, the differences are
discarded. An image that is still open or mounted does not prevent it; it answers
with I/O errors from then on.
Exit codes: 0 done; 1 something could not be released; 2 wrong usage; 3 the driver
is not loaded.
END
}

command_release() {
	local session status=0
	parse_options ' --all ' "$@"
	operands+=("${after[@]}")
	if [[ -n $opt_all ]]; then
		[[ ${#operands[@]} -eq 0 ]] || usage_error "--all or SESSION, not both"
		need_driver
		mapfile -t operands < <(children "$configfs/sessions")
	else
		[[ ${#operands[@]} -ge 1 ]] || usage_error "SESSION is missing"
		need_driver
	fi
	for session in "${operands[@]}"; do
		[[ -n $opt_all ]] || need_session "$session"
	done
	for session in "${operands[@]}"; do
		remove_session "$session" || status=$exit_refused
	done
	wait_for_udev
	return "$status"
}
