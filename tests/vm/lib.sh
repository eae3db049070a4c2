# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Shared by the scripts in tests/vm: where things are, and how to get the host packages they need.
# To be sourced by a script that has set -euo pipefail.
# shellcheck disable=SC2034 # most of it is for those scripts

vm_tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
vm_cache=${BLKSNAP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/blksnap}
vm_default_release=bookworm
vm_name=${0##*/}

die() {
	printf '%s: %s\n' "$vm_name" "$*" >&2
	exit 2
}

# The next option's value: need_value OPTION NUMBER_OF_ARGUMENTS_LEFT
need_value() {
	[[ $2 -ge 2 ]] || die "$1 wants a value"
}

as_root() {
	if [[ $EUID -eq 0 ]]; then
		"$@"
	else
		sudo -- "$@"
	fi
}

# Runs the calling script again as root, with the same cache: rerun_as_root "$@"
rerun_as_root() {
	[[ $EUID -ne 0 ]] || return 0
	exec sudo -- env BLKSNAP_CACHE="$vm_cache" TMPDIR="${TMPDIR:-/tmp}" \
		BLKSNAP_OWNER="$(id -u):$(id -g)" "$0" "$@"
}

# Gives files that a script made as root to the user who called it.
give_back() {
	if [[ -n ${BLKSNAP_OWNER:-} ]]; then
		chown -R "$BLKSNAP_OWNER" "$@"
	fi
}

# Installs the Debian packages named that are not there yet; apt's lists are fetched only when they have to be.
host_packages() {
	local package missing=()
	for package; do
		[[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
			missing+=("$package")
	done
	[[ ${#missing[@]} -gt 0 ]] || return 0
	printf '%s: installing %s\n' "$vm_name" "${missing[*]}" >&2
	as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get install -qy --no-install-recommends "${missing[@]}" >/dev/null 2>&1 && return 0
	as_root apt-get update -q >/dev/null
	as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get install -qy --no-install-recommends "${missing[@]}" >/dev/null
}

# Prints a directory for disk images: in memory where there is room for them.
vm_scratch() {
	local free
	free=$(df --output=avail -B1M /dev/shm 2>/dev/null | tail -n 1 || true)
	if [[ ${free:-0} -ge 3072 ]]; then
		echo /dev/shm
	else
		echo "${TMPDIR:-/tmp}"
	fi
}

# Prints the directory that holds the root of a release, whether it has been built or not. Its name changes with the
# recipe, so that one of another recipe is never used by mistake.
vm_root_dir() {
	local hash
	hash=$(cat "$vm_tree/tests/vm/root" "$vm_tree/tests/vm/packages" | sha256sum)
	printf '%s/root-%s-%s\n' "$vm_cache" "$1" "${hash:0:12}"
}
