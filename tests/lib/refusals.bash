# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Refusals as the interface promises them: the errno, nothing changed, one line in the log, and the text in `error`. On
# top of lib/common.

# bats notes where it is before every command, and that takes far longer than what is done here (see common_untraced).

# Everything that is configured, one value a line, in CONFIGURED.
configured() {
	local file lines
	CONFIGURED=''
	shopt -s globstar
	for file in "$SESSIONS"/** "$TRACKERS"/**; do
		CONFIGURED+=$file
		if [[ -f $file && $file != */error && $file != */dirty ]]; then
			mapfile -t lines <"$file"
			CONFIGURED+="=${lines[*]}"
		fi
		CONFIGURED+=$'\n'
	done
	shopt -u globstar
}

# silently_refused ERRNO COMMAND...: by the kernel, before it has asked the driver; and nothing changed.
silently_refused() {
	common_untraced untraced_silently_refused "$@"
}

untraced_silently_refused() {
	local before
	configured
	before=$CONFIGURED
	refuses "$@" || return
	configured
	[[ $CONFIGURED == "$before" ]] ||
		fail "refused, and yet changed: $(diff <(echo "$before") <(echo "$CONFIGURED"))"
}

# logged_refusal ERRNO COMMAND...: and one line in the log says so.
logged_refusal() {
	common_untraced untraced_logged_refusal "$@"
}

untraced_logged_refusal() {
	local line count=0
	untraced_silently_refused "$1" witness "${@:2}" || return
	while read -r line; do
		[[ $line != 'log: '* ]] || count=$((count + 1))
	done <<<"$REFUSAL"
	[[ $count -eq 1 ]] || fail "not one line in the log: $* says: $REFUSAL"
}

# refused OBJECT ERRNO COMMAND...: and OBJECT's `error` says so as well (OBJECT is SESSION or SESSION/SNAPSHOT).
refused() {
	common_untraced untraced_refused "$@"
}

untraced_refused() {
	local object=$1 said=''
	shift
	untraced_logged_refusal "$@" || return
	read -r said <"$SESSIONS/$object/error" || true
	[[ $said == "$1: "?* ]] || fail "not a text of $1 in the error file of $object: $said"
}

# refused_take SESSION ERRNO
refused_take() {
	refused "$1" "$2" put "$SESSIONS/$1/active" 1 || return
	[[ $(session_get "$1" state) == configured ]] || fail "the state is $(session_get "$1" state)"
}
