# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# blksnap run: a session for as long as a command runs.

usage_run() {
	cat <<'END'
Usage: blksnap run --diff PATH [--limit SIZE] DEVICE... -- COMMAND [ARGUMENT...]

Takes a snapshot as `blksnap take` does, under a name of its own, runs COMMAND and
releases it: when COMMAND ends, and on SIGINT, SIGTERM, SIGHUP, which COMMAND gets
too. If that cannot be, as blksnap was killed, it is released before the next snapshot
is taken, once COMMAND has ended. COMMAND finds in its environment

  BLKSNAP_SESSION   the session's name
  BLKSNAP_IMAGES    the images' paths, in the order of the devices, with spaces

Exit codes: that of COMMAND, 128 + N if signal N ended it, or came before it was
begun; 126 if it cannot be executed, 127 if there is none such; 125 if the snapshot
was not taken for another reason.
END
}

child='' child_status=''

# ignored_signals PROCESS: sets ignored to a mask of those that it ignores, 0 if it is gone.
ignored_signals() {
	local key value
	ignored=0
	while read -r key value; do
		[[ $key != SigIgn: ]] || ignored=$((16#$value))
	done <"/proc/$1/status"
} 2>/dev/null

# Would a signal be lost on the command? It ignores it until env has given it back.
child_is_deaf() {
	local ignored
	ignored_signals "$child" || return 1
	((ignored >> (${signal_status[$1]} - 129) & 1))
}

# Adds those of the signals that end it which this process does not ignore to defaults, as env wants them.
add_defaults() {
	local ignored name
	ignored_signals "$$"
	for name in HUP INT PIPE TERM; do
		((ignored >> (${signal_status[$name]} - 129) & 1)) || defaults+=${defaults:+,}$name
	done
}

# forward SIGNAL: to the command of `run`. A terminal has sent its interrupts there already.
forward() {
	local tries=20
	if [[ -z $child ]]; then
		signal=$1
		return
	fi
	if [[ $1 == INT && (-t 0 || -t 1 || -t 2) ]] && ! child_is_deaf INT; then
		return
	fi
	while ((tries-- > 0)) && child_is_deaf "$1"; do
		sleep 0.05
	done
	kill -s "$1" "$child" 2>/dev/null || true
}

# The child that starts the command, when it is told to, and waits for it. Writes its process, and at its end its status.
starter() {
	local status=0
	trap '' HUP INT TERM
	trap - EXIT
	read -r || return
	(
		exec <&"$input" >&"$output" {input}<&- {output}>&-
		exec env --default-signal="$1" "${callers_language[@]}" "${@:2}"
	) &
	echo "$!"
	# not while the command runs: whoever reads that might wait for the end of all that is written there
	exec {input}<&- {output}>&-
	wait "$!" || status=$?
	echo "$status"
}

# Runs the command that is in `after` while the session is there, which is released when this process ends. Sets
# child_status to its status.
run_in_session() {
	local defaults=QUIT input output answers
	# what the command is to have as this process has it, though its parent ignores them
	add_defaults
	trap 'forward HUP' HUP
	trap 'forward INT' INT
	trap 'forward TERM' TERM
	exec {input}<&0 {output}>&1
	coproc starter "$defaults" "${after[@]}"
	# bash closes its own copy, and forgets that there was one, when the child is gone
	exec {answers}<&"${COPROC[0]}"
	echo >&"${COPROC[1]}"
	read -r child <&"$answers"
	[[ -z $signal ]] || forward "$signal"
	read -r child_status <&"$answers" || child_status=$exit_refused
}

command_run() {
	local session
	exit_refused=125 exit_usage=125 exit_absent=125
	parse_options ' --diff --limit ' "$@"
	[[ -n $has_after && ${#after[@]} -ge 1 ]] || usage_error "'-- COMMAND' is missing"
	[[ ${#operands[@]} -ge 1 ]] || usage_error "DEVICE is missing"
	[[ -n $opt_diff ]] || usage_error "--diff is missing"
	need_driver
	session=run-$$-$RANDOM
	ends_with_us=1
	take_session "$session" "$opt_diff" "$opt_limit" "${operands[@]}"
	find_images "$session"
	export BLKSNAP_SESSION=$session BLKSNAP_IMAGES="${images[*]}"
	run_in_session
	exit "$child_status"
}
