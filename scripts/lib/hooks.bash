# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# Hooks: programs that are run before the take and after it.
#
# They run while this process notes signals: nothing is substituted here, see taking.bash.

readonly hooks_default=/etc/blksnap/hooks.d

hooks=() hook_failed=''
hooks_begun=''
# What gives them the language of the caller back, and the signals that this process ignores when it is about to end.
hook_env=()

# find_hooks DIRECTORY: sets hooks to its executables, in the order in which they run. What packages and editors leave there is not told of.
find_hooks() {
	local hook found
	[[ -d $1 ]] || return 0
	get_listing found "$1" '*' || exit "$exit_refused"
	for hook in "${found[@]}"; do
		[[ -f $hook && -x $hook ]] || continue
		if [[ ${hook##*/} =~ ^[A-Za-z0-9_-]+$ ]]; then
			hooks+=("$hook")
		elif [[ ! $hook =~ (~|\.(dpkg|ucf)-[a-z]+)$ ]]; then
			say "$hook is not called: names of hooks have letters, digits, - and _ only"
		fi
	done
}

# Not with a lock: it may start something that stays; nor with the umask of backups.
run_hook() {
	local status=0
	(
		trap - EXIT
		[[ -z $lock_descriptor ]] || exec {lock_descriptor}>&-
		[[ -z $mark_descriptor ]] || exec {mark_descriptor}>&-
		umask "$callers_umask"
		exec "${hook_env[@]}" "$1" "$2" >&2
	) || status=$?
	[[ $status -eq 0 ]] || say "the hook $1 $2 ended with $status"
	return "$status"
}

# The last one first, as what it undoes was done last.
post_hooks() {
	local i
	[[ -n $hooks_begun ]] || return 0
	hooks_begun=
	for ((i = ${#hooks[@]} - 1; i >= 0; i--)); do
		run_hook "${hooks[i]}" post-take || hook_failed=1
	done
}

pre_hooks() {
	local hook defaults=
	hooks_begun=1
	add_defaults
	hook_env=(env ${defaults:+--default-signal="$defaults"} "${callers_language[@]}")
	for hook in "${hooks[@]}"; do
		run_hook "$hook" pre-take || fail "nothing is backed up"
		[[ -z $signal ]] || exit "${signal_status[$signal]}"
	done
}
