# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Shared by the scripts in tests/vm: where things are, and how to get the host packages they need.
# To be sourced by a script that has set -euo pipefail.
# shellcheck disable=SC2034 # most of it is for those scripts

vm_tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
vm_cache=${BLKSNAP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/blksnap}
vm_default_release=bookworm
# The releases whose kernels are supported, the oldest first. What they have in common is in docs/kernels.md.
vm_releases=(bookworm trixie trixie-backports)
vm_name=${0##*/}

# Nothing ever comes from there.
exec {vm_silence}<> <(:)

# Waits, without a process that waits: pause SECONDS
pause() {
	read -rt "$1" -u "$vm_silence" || true
}

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

# Prints the name by which Debian knows a release of ours.
vm_debian() {
	local release=${1%-backports}
	printf '%s\n' "${release%-debug}"
}

# Prints a release's apt sources, from the mirrors that this machine's apt uses itself.
apt_sources() {
	local release main security
	release=$(vm_debian "$1")
	mirror() {
		# shellcheck disable=SC2016 # apt-get expands these
		apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' |
			awk -v label="$1" '$1 == label { print $2; exit }'
	}
	main=$(mirror Debian)
	if [[ -z $main ]]; then
		apt-get update -q >/dev/null
		main=$(mirror Debian)
	fi
	[[ -n $main ]] || die "this machine's apt has no Debian mirror"
	security=$(mirror Debian-Security)
	printf 'deb %s %s main\n' "$main" "$release"
	[[ $release != sid && $release != unstable ]] || return 0
	printf 'deb %s %s-updates main\n' "$main" "$release"
	[[ -z $security ]] || printf 'deb %s %s-security main\n' "$security" "$release"
	[[ $1 != *-backports ]] || printf 'deb %s %s main\n' "$main" "$1"
}

# Prints the options that carry this machine's way to its mirrors (proxies and the like) into the root's apt.
apt_options() {
	apt-config dump | sed -n 's/^\(Acquire::\(http\|https\|ftp\|Retries\|Check-\)[^ ]* "..*";\)$/--aptopt=\1/p'
}

# Installs packages, after whoever is installing something now: apt_install PACKAGE...
apt_install() {
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends \
		-o DPkg::Lock::Timeout=600 "$@" >/dev/null
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
	apt_install "${missing[@]}" 2>/dev/null && return 0
	as_root apt-get update -q >/dev/null
	apt_install "${missing[@]}"
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
	local hash recipe=(root packages)
	[[ $1 != *-debug ]] || recipe+=(kernel debug.config debug.patch)
	hash=$(cd "$vm_tree/tests/vm" && cat "${recipe[@]}" | sha256sum)
	printf '%s/root-%s-%s\n' "$vm_cache" "$1" "${hash:0:12}"
}
