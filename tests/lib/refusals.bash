# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Refusals as the interface promises them: the errno, nothing changed, one line in the log, and the text in `error`. On
# top of lib/common.

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

# The lines of this test that the driver logged, in LOGGED.
own_log() {
	mapfile -t LOGGED < <(dmesg --notime | awk -v begin="$COMMON_BEGIN" '
		index($0, begin) { n = 0 }
		/^blksnap: / { lines[++n] = $0 }
		END { for (i = 1; i <= n; i++) print lines[i] }')
}

# silently_refused ERRNO COMMAND...: by the kernel, before it has asked the driver; and nothing changed.
silently_refused() {
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
	local before
	own_log
	before=${#LOGGED[@]}
	silently_refused "$@" || return
	own_log
	[[ ${#LOGGED[@]} -eq $((before + 1)) ]] ||
		fail "not one line in the log, but: $(printf '%s\n' "${LOGGED[@]:before}")"
}

# refused OBJECT ERRNO COMMAND...: and OBJECT's `error` says so as well (OBJECT is SESSION or SESSION/SNAPSHOT).
refused() {
	local object=$1 said=''
	shift
	logged_refusal "$@" || return
	read -r said <"$SESSIONS/$object/error" || true
	[[ $said == "$1: "?* ]] || fail "not a text of $1 in the error file of $object: $said"
}

# refused_take SESSION ERRNO
refused_take() {
	refused "$1" "$2" put "$SESSIONS/$1/active" 1 || return
	[[ $(session_get "$1" state) == configured ]] || fail "the state is $(session_get "$1" state)"
}
