# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# blksnap restore: a chain, or what comes through a pipe, goes to a device or file.

usage_restore() {
	cat <<'END'
Usage: blksnap restore [--at NUMBER] [--larger] DIRECTORY TARGET
       blksnap restore [--larger] - TARGET

Writes a backup, with all that it is built upon, to TARGET: a block device, of which
ALL IS OVERWRITTEN, or a file, which must not exist yet. DIRECTORY has the chain of one
device. -: one full from standard input, and what follows it, one after the other.

  --at NUMBER   which backup (00003); if it is not given, the last one
  --larger      the device may be larger than the backup; its end is left as it is

Refused are a device that is mounted or held by something, in whole or in part, and one
of another size. Every block is compared with its checksum before it is written: if
one is damaged, it is named, and what TARGET has then is not complete.
The driver is not needed. Exit codes: 0 done; 1 refused or failed; 2 wrong usage.
END
}

# among_devices PATH: a device with a name that was mistyped would be a file there, in memory.
among_devices() {
	local path
	path=$(realpath -m -- "$1")
	[[ $path != /dev/* || $path == /dev/shm/* ]] || return 0
	[[ $(findmnt -n -o FSTYPE -T "${path%/*}/" 2>/dev/null) == devtmpfs ]]
}

# hold_device DEVICE: until this process has ended udev leaves it alone, so that nobody assembles or mounts what is on it
# between two backups of a stream. The lock is the one of https://systemd.io/BLOCK_DEVICE_LOCKING, on the whole disk; udev
# heeds it but on dm, md and drbd, other programs do there as well.
hold_device() {
	local disk descriptor
	disk=$(readlink -e -- "/sys/dev/block/$(lsblk -d -n -r -o MAJ:MIN -- "$1")") || fail "$1 is not there any more"
	[[ ! -e $disk/partition ]] || disk=${disk%/*}
	disk=${disk##*/}
	disk=/dev/${disk//!//}
	exec {descriptor}<"$disk"
	flock --exclusive --timeout "$settle_seconds" "$descriptor" || fail "$1: another program has locked $disk"
}

# claim FILE: makes it, empty, for this process alone. Whoever else is at it, one of them gets it.
claim() {
	local message
	# What is no file would be opened.
	[[ ! -e $1 && ! -L $1 ]] && message=$( (umask 077 && set -C && : >"$1") 2>&1) && return
	[[ ! -e $1 && ! -L $1 ]] || fail "$1 exists: remove it, if no other restore is at work"
	fail "cannot make $1: ${message##*: }"
}

# restore_to TARGET COMMAND...: runs it with the path that is to be written to added: the device, or a file that gets its
# name when it is complete. Here it is decided which of them; the copier finds what it was told, or fails.
restore_to() {
	local target=$1
	shift
	if [[ -b $target ]]; then
		options+=(--device)
		hold_device "$target"
		"$@" "$target" || fail "$target: not restored"
		return
	fi
	[[ ! -e $target && ! -L $target ]] || fail "$target exists already; a file is only restored to a new one"
	[[ -d $(dirname -- "$target") ]] || fail "no directory $(dirname -- "$target")"
	! among_devices "$target" || fail "no device $target, and a file is not restored to where devices are"
	partial_target=$target.partial
	claim "$partial_target"
	trap 'rm -f -- "$partial_target"' EXIT
	"$@" "$partial_target" || fail "$target: not restored"
	# From here on another one may have this name.
	trap - EXIT
	mv -nT -- "$partial_target" "$target" || true
	[[ ! -e $partial_target ]] ||
		fail "what was restored is $partial_target: $target was made by another program meanwhile, or cannot be made"
	sync -- "$(dirname -- "$target")"
}

# Is it known which backup is the last one? Not if a manifest is damaged, or that of newer data than all of them have is lost.
last_is_known() {
	local path useless_id
	[[ ${#damaged_manifests[@]} -eq 0 ]] || return
	for path in "${listing[@]}"; do
		if is_lost "$path" && older "${backups[-1]}" "$useless_id"; then
			say_lost "$path"
			return 1
		fi
	done
}

restore_chain() {
	copy "${chain##*/}" restore "${options[@]}" "$1" "${m_size[$id]}" "${chain_files[@]}"
}

restore_streams() {
	receive_streams "$1" "${options[@]}"
}

command_restore() {
	local id options=()
	parse_options ' --at --larger ' "$@"
	add_paths
	[[ ${#operands[@]} -eq 2 ]] || usage_error "restore takes DIRECTORY and TARGET"
	[[ -n ${operands[1]} && ${operands[1]} != - ]] || usage_error "TARGET is a device, or a file that is made"
	[[ -z $opt_larger ]] || options=(--larger)
	need_backup_tools
	if [[ ${operands[0]} == - ]]; then
		[[ -z $opt_at ]] || usage_error "--at is for directories"
		restore_to "${operands[1]}" restore_streams
		return
	fi
	find_chain "${operands[0]}"
	lock "$chain" shared
	read_chain "$chain" || exit "$exit_refused"
	[[ ${#backups[@]} -gt 0 ]] || fail "there is no good backup in $chain"
	[[ -n $opt_at ]] || last_is_known || fail "which is the last one is not known: name one with --at"
	backup_number "${opt_at:-${backups[-1]}}"
	chain_arguments "$id" || fail "$id cannot be restored; see: blksnap verify $chain"
	restore_to "${operands[1]}" restore_chain
}
