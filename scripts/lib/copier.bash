# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# The copier of backups, blksnap-copy (scripts/copy), which moves the data; and what else they need.

copier='' copier_pid=''

need_backup_tools() {
	local tool
	for tool in jq sha256sum flock; do
		command -v "$tool" >/dev/null || fail "$tool is missing (Debian: apt install jq coreutils util-linux)"
	done
	for copier in "$library/blksnap-copy" "${library%/*/*}/build/blksnap-copy"; do
		[[ ! -x $copier ]] || return 0
	done
	copier=$(command -v blksnap-copy) || fail "blksnap-copy is missing: make install, or, in the source tree, make tool"
}

# interrupted STATUS: ends the copier, and this.
interrupted() {
	[[ -z $copier_pid ]] || kill "$copier_pid" 2>/dev/null || true
	exit "$1"
}

# copy LABEL COMMAND ARGUMENT...: runs the copier, with its progress under that label if there is a terminal.
copy() {
	local progress=() status=0 us=$BASHPID
	[[ ! -t 2 ]] || progress=(--progress "$1")
	# In the background, so that a signal does not have to wait for its end.
	trap 'interrupted 130' INT
	trap 'interrupted 143' TERM
	trap 'interrupted 129' HUP
	"$copier" --parent "$us" "${progress[@]}" "${@:2}" <&0 &
	copier_pid=$!
	wait "$copier_pid" || status=$?
	copier_pid=
	trap - INT TERM HUP
	return "$status"
}
