# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2004,SC2034,SC2154 # what is set by one part of blksnap is used by others; m_* are associative
#
# blksnap backup: what is to be made of an image, and how; sessions and hooks around it.
#
# The data is moved by blksnap-copy (scripts/copy).

# ---- images ----

image='' image_device='' image_size='' image_id='' image_diskseq='' image_generation='' image_number='' image_base=''
image_block_size=''

# read_image SESSION SNAPSHOT: sets what is to be known of the image. When the session is released, its name may become that
# of another image. The number of its disk does not: what has it before and after something is read, is what was read.
read_image() {
	local object=$configfs/sessions/$1/$2 sysfs name
	get_attr name "$object" image
	sysfs=/sys/class/block/${name##*/}
	get_attr image_diskseq "$sysfs" diskseq
	get_attr image "$object" image
	[[ -n $image && $image == "$name" && -n $image_diskseq ]] || fail "$1/$2 has no image: the session is not active"
	get_attr image_device "$object" device
	need_plain "$image_device"
	image_statistics=$sysfs/blksnap
	image_cbt=$sysfs/cbt
	get_attr image_size "$sysfs" size
	image_size=$((image_size * 512))
	get_attr image_id /proc/sys/kernel/random boot_id
	image_id+=/$image_diskseq
	get_attr image_generation "$image_cbt" generation
	get_attr image_number "$image_cbt" number
	get_attr image_base "$image_cbt" base
	get_attr image_block_size "$image_cbt" block_size
	map_options=()
	[[ -z $image_generation ]] || map_options=(--map "$image_cbt/map" --block "$image_block_size")
}

# need_plain PATH: it can be kept in a manifest.
need_plain() {
	[[ $1 == *$'\x1f'* ]] || ! iconv -f UTF-8 -t UTF-8 >/dev/null 2>&1 <<<"$1" || return 0
	fail "$1: cannot be backed up by this path, which is not UTF-8 or has a separator in it"
}

# The change map knows nothing of what was written to an image, so that would be in one backup, and be
# neither in the next nor undone by it.
need_unwritten() {
	local chunks
	get_attr chunks "$image_statistics" chunks_written
	[[ -n $chunks ]] || fail "$image_device: its image has gone: the session was released"
	[[ $chunks -eq 0 ]] ||
		fail "$image_device: its image was written to (was it mounted?), so it is not the snapshot any more: not backed up"
}

# ---- what is to be made ----

# need_same_device NAME: the chain that was read is one of this device. Its directory has the last part of the path only,
# which two devices may share. Another path of the same device is as good.
need_same_device() {
	local before
	[[ ${#backups[@]} -gt 0 && -z $opt_renamed ]] || return 0
	before=${m_device[${backups[-1]}]}
	[[ $before == "$image_device" || $before -ef $image_device ]] ||
		fail "$1: the backups in $chain are of $before, and this is $image_device: give another DIRECTORY," \
			"or --renamed if it is the same device"
}

# plan_backup NAME PARENT: sets kind, parent and since. PARENT: the backup that the mode would build upon, or nothing.
plan_backup() {
	local name=$1 candidate=$2
	kind=full parent='' since=0
	[[ -z $opt_full ]] || return 0
	if [[ -n $candidate && $directory != - ]] && ! chain_whole "$candidate"; then
		say "$name: full, as something is missing of $candidate, or of what it is built upon (blksnap verify)"
	elif [[ -z $candidate ]]; then
		[[ -n $image_generation ]] || say "$name: full, as there is none yet; it is not tracked (blksnap track)"
		[[ -z $image_generation ]] || say "$name: full, as there is none yet"
	elif ! explain_link "$image_generation" "$image_number" "$image_base" "$image_size" "$candidate"; then
		say "$name: full, as $link_reason"
	else
		kind=increment parent=$candidate since=$link_since
		[[ -z $opt_differential ]] || kind=differential
	fi
}

# chain_whole ID: it and all that it needs are there; whether they are good is not looked at.
chain_whole() {
	local id
	chain_of "$1" 2>/dev/null || return
	for id in "${chain_ids[@]}"; do
		[[ -f $chain/${m_data[$id]} && -f $chain/${m_index[$id]} ]] || return
	done
}

# Sets candidate to the backup to build upon: the last one, or for a differential the last full.
find_candidate() {
	local i
	candidate=
	for ((i = ${#backups[@]} - 1; i >= 0; i--)); do
		if [[ -z $opt_differential || ${m_kind[${backups[i]}]} == full ]]; then
			candidate=${backups[i]}
			return
		fi
	done
}

# describe ID: fills the variables of the new backup.
# shellcheck disable=SC2034 # some are only used by reference
describe() {
	local id=$1 uuid
	get_attr uuid /proc/sys/kernel/random uuid
	m_uuid[$id]=$uuid
	m_kind[$id]=$kind
	m_parent[$id]=$parent
	m_parent_uuid[$id]=${parent:+${m_uuid[$parent]}}
	printf -v "m_created[$id]" '%(%Y-%m-%dT%H:%M:%S%z)T' -1
	m_device[$id]=$image_device
	m_size[$id]=$image_size
	m_generation[$id]=$image_generation
	m_number[$id]=${image_number:-0}
	m_base[$id]=$image_base
	m_since[$id]=$since
	m_block_size[$id]=${image_block_size:-0}
	m_data[$id]='' m_index[$id]='' m_index_sha256[$id]=''
}

# Sets id to the number of the next backup. A number is never used again, whatever has become of its backup: data may have
# lost its manifest. That of one that was interrupted is free.
next_id() {
	local path next
	id=1
	for path in "${listing[@]}"; do
		[[ ${path##*/} =~ ^([0-9]{5,9})\.(json|full|increment|differential)(\.index)?(\.partial)?$ ]] || continue
		next=$((10#${BASH_REMATCH[1]}))
		[[ -n ${BASH_REMATCH[4]} ]] || next=$((next + 1))
		[[ $id -ge $next ]] || id=$next
	done
	printf -v id '%05d' "$id"
}

# Sets heading to the first line of the index: of which snapshot it is.
make_heading() {
	local uuid=${parent:+${m_uuid[$parent]}}
	heading="# blksnap $kind ${uuid:--} ${image_generation:--} ${image_number:-0} $image_id $image_size"
}

# find_kept DATA: of a backup that was interrupted, what is still good. Sets kept_options; empty if nothing is.
find_kept() {
	local index=$1.index.partial line is_kind is_parent is_generation is_number is_image is_size
	kept_options=()
	# A full has its size from the beginning on.
	[[ -f $1.partial && ($kind != full || $(stat -c %s -- "$1.partial") -eq $image_size) ]] || return 0
	[[ -s $index ]] && IFS= read -r line <"$index" || return 0
	[[ $line != "$heading" ]] || {
		kept_options=(--kept "$index")
		return 0
	}
	read -r _ _ is_kind is_parent is_generation is_number is_image is_size <<<"$line"
	[[ $is_kind == full && $kind == full && $is_size == "$image_size" && $is_parent == - ]] || return 0
	[[ $is_image != "$image_id" ]] || kept_options=(--kept "$index")
	[[ -n $image_generation && $is_generation == "$image_generation" ]] || return 0
	[[ $is_number =~ ^[0-9]{1,3}$ && $is_number -lt $image_number ]] || return 0
	kept_options=(--kept "$index" --kept-since "$is_number")
}

# backup_image NAME: the image that was read, into the chain that was read.
backup_image() {
	local name=$1 kind parent since id data heading candidate kept_options increment=()
	find_candidate
	plan_backup "$name" "$candidate"
	next_id
	make_heading
	data=$chain/$id.$kind
	remove_useless "$id.$kind"
	find_kept "$data"
	if [[ ${#kept_options[@]} -eq 0 ]]; then
		rm -f -- "$data.index.partial" "$data.partial"
	else
		say "$name: goes on with $id.$kind, which was interrupted"
	fi
	[[ $kind == full ]] || increment=(--since "$since")
	# Nothing is indexed that was read when the image may have been written to already: what is indexed may be kept.
	copy "$name" save "${map_options[@]}" "${increment[@]}" "${kept_options[@]}" --unwritten "$image_statistics/chunks_written" \
		--diskseq "$image_diskseq" --size "$image_size" --heading "$heading" "$image" "$data.partial" "$data.index.partial" || fail "$name: not backed up"
	describe "$id"
	m_data[$id]=$id.$kind
	m_index[$id]=$id.$kind.index
	publish "$id"
	print_backup "$name" "$id"
}

# print_backup NAME ID
print_backup() {
	if [[ -n $opt_json ]]; then
		make_manifest "$2"
		printf '[%s\n]\n' "$manifest"
	else
		printf '%s: %s, %s%s\n' "$chain/$2" "${m_kind[$2]}" "$(room_of "$chain/${m_data[$2]}")" \
			"${m_parent[$2]:+, since ${m_parent[$2]}}"
	fi
}

# already_there NAME: is the last backup of this very snapshot?
already_there() {
	local last
	[[ ${#backups[@]} -gt 0 && -n $image_generation && -z $opt_full ]] || return
	last=${backups[-1]}
	[[ ${m_generation[$last]} == "$image_generation" && ${m_number[$last]} == "$image_number" ]] || return
	chain_whole "$last" || return
	say "$1: $last is a backup of this snapshot already"
	[[ -z $opt_json ]] || printf '[]\n'
}

# backup_stream NAME: the image that was read, to standard output.
backup_stream() {
	local name=$1 kind parent since id=00000 candidate='' increment=()
	if [[ -n $opt_parent ]]; then
		read_manifest "$(cat -- "$opt_parent")" 2>/dev/null || fail "$opt_parent: not the manifest of a backup"
		candidate=$manifest_id
		[[ -z $opt_differential || ${m_kind[$candidate]} == full ]] ||
			fail "$opt_parent: a differential is built upon a full, and this is of kind ${m_kind[$candidate]}"
		# Its number is one of another directory, or none.
		[[ $candidate != "$id" ]] || id=00001
	fi
	plan_backup "$name" "$candidate"
	describe "$id"
	m_parent[$id]=''
	[[ $kind == full ]] || increment=("${map_options[@]}" --since "$since")
	make_manifest "$id"
	printf '%s\n' "$stream_head" "$manifest"
	copy "$name" send "${increment[@]}" --unwritten "$image_statistics/chunks_written" \
		--diskseq "$image_diskseq" --size "$image_size" "$image" || fail "$name: not backed up"
	[[ -z $opt_manifest ]] || {
		printf '%s\n' "$manifest" >"$opt_manifest.partial"
		sync -- "$opt_manifest.partial"
		mv -f -- "$opt_manifest.partial" "$opt_manifest"
	}
}

# backup_to_chain DIRECTORY NAME: the image that was read, to the chain of that name.
backup_to_chain() {
	local snapshot=$2
	chain=$1/$snapshot
	[[ -d $chain ]] || mkdir -- "$chain" || fail "cannot make $chain"
	lock "$chain" exclusive
	read_chain "$chain" || exit "$exit_refused"
	need_same_device "$snapshot"
	already_there "$snapshot" || backup_image "$snapshot"
}

# ---- sessions around it ----

# backup_each DIRECTORY SESSION SNAPSHOT...: each in a process of its own, so that what ends one leaves the others; it ends with
# this one.
backup_each() {
	local directory=$1 session=$2 after snapshot status=0
	command -v setpriv >/dev/null || fail "setpriv is missing (Debian: apt install util-linux)"
	after=("$program" backup "$directory" --session "$session")
	inner_options
	export BLKSNAP_LOCKED=$directory
	for snapshot in "${@:3}"; do
		setpriv --pdeathsig KILL "${after[@]}" -- "$snapshot" || backup_failed $?
	done
	return "$status"
}

# backup_failed STATUS: of one of several. A signal was meant for all of them.
backup_failed() {
	case $1 in
	"${signal_status[HUP]}" | "${signal_status[INT]}" | "${signal_status[TERM]}") exit "$1" ;;
	esac
	status=$exit_refused
}

# backup_session DIRECTORY SESSION SNAPSHOT...: the images of a session that is active.
backup_session() {
	local directory=$1 session=$2 snapshots=("${@:3}") snapshot status=0
	need_session "$session"
	[[ ${#snapshots[@]} -gt 0 ]] || get_children snapshots "$configfs/sessions/$session"
	[[ $directory != - || ${#snapshots[@]} -eq 1 ]] ||
		fail "a pipe takes one device, and '$session' has ${#snapshots[@]} snapshots: name one"
	for snapshot in "${snapshots[@]}"; do
		need_name "$snapshot"
		[[ -d $configfs/sessions/$session/$snapshot ]] || fail "no snapshot '$snapshot' in '$session'"
	done
	if [[ ${#snapshots[@]} -eq 1 ]]; then
		read_image "$session" "$snapshot"
		need_unwritten
		if [[ $directory == - ]]; then
			backup_stream "$snapshot"
		else
			backup_to_chain "$directory" "$snapshot"
		fi
	elif [[ -z $opt_json ]]; then
		backup_each "$directory" "$session" "${snapshots[@]}"
	else
		# Lists, of which one is made.
		backup_each "$directory" "$session" "${snapshots[@]}" > >(jq -s 'add // []') || status=$?
		wait "$!" || status=$exit_refused
		return "$status"
	fi
}

# forget_interrupted SESSION: one that an interrupted backup to this directory has left. Nobody uses it, as we have the lock.
forget_interrupted() {
	[[ -d $configfs/sessions/$1 ]] || return 0
	say "session '$1' is left over from a backup that was interrupted: released"
	remove_session "$1" || exit "$exit_refused"
	wait_for_udev
}

# session_for DIRECTORY: sets session to the name of the session for backups to it. Another directory may have the same
# path, for another root or at another time.
session_for() {
	local path sums
	if [[ $1 == - ]]; then
		session=backup-$$-$RANDOM
	else
		path=$(CDPATH="" cd -- "$1" && pwd -P)
		get_text_sums sums "$path $(stat -c %d:%i -- "$path")"
		session=backup-${sums[0]:0:12}
	fi
}

# The options that the backup of the session gets, in `after`.
inner_options() {
	local name variable
	for name in full differential json renamed; do
		variable=opt_$name
		[[ -z ${!variable} ]] || after+=("--$name")
	done
	for name in parent manifest; do
		variable=opt_$name
		[[ -z ${!variable} ]] || after+=("--$name" "${!variable}")
	done
}

# backup_devices DIRECTORY DEVICE...: takes a session, backs it up, releases it.
backup_devices() {
	local directory=$1 session
	shift
	session_for "$directory"
	if [[ $directory == - ]]; then
		ends_with_us=1
	else
		lock "$directory" exclusive
		export BLKSNAP_LOCKED=$directory
		forget_interrupted "$session"
	fi
	[[ -z $opt_track ]] || track_untracked "$@" || exit "$exit_refused"
	[[ -n $opt_no_hooks ]] || find_hooks "${opt_hooks:-$hooks_default}"
	after=("$program" backup "$directory" --session "$session")
	inner_options
	plan_take "$session" "$opt_diff" "$opt_limit" "$@"
	# shellcheck disable=SC2034 # of blksnap
	links_wanted=
	export BLKSNAP_SESSION=$session BLKSNAP_DEVICES="${take_devices[*]}"
	note_signals
	pre_hooks
	take_planned
	post_hooks
	[[ -z $opt_track ]] || track_missed "$session" "$@"
	run_in_session
	if [[ $child_status -eq 0 && -n $hook_failed ]]; then
		say "the backup is complete, but a hook has failed"
		child_status=$exit_refused
	fi
	exit "$child_status"
}

usage_backup() {
	cat <<'END'
Usage: blksnap backup DIRECTORY --diff PATH [--limit SIZE] [OPTION...] DEVICE...
       blksnap backup DIRECTORY --session SESSION [OPTION...] [SNAPSHOT...]
       blksnap backup - ... [--parent FILE] [--manifest FILE]

Takes a snapshot of the devices at one instant, as `blksnap take` does, copies the
images into DIRECTORY, and releases the snapshot; or copies images of a session that
is there, if nothing was written to them. Each device gets a directory of its own in
DIRECTORY, named after the last part of its path, with a chain of backups: 00001,
00002, ... What is backed up is what has changed since the last one, if that is known:
the device is tracked, and was when that was made. If not, it is all of the device,
and why is said. To go on with a chain of another device is refused.

  --full            all of the device
  --differential    what has changed since the last full
  --track           begin to track devices that are not tracked (blksnap track)
  --renamed         go on with a chain whose last backup is of a device of another path
  --hooks DIR       instead of /etc/blksnap/hooks.d; --no-hooks: none
  --json            print the manifests, as a list
  -                 one device, to standard output instead of a directory
  --parent FILE     with -: the manifest of the backup that it is to follow; with
                    --differential that of a full
  --manifest FILE   with -: where to write the manifest of this one, when it is done

Hooks are the executables in that directory whose names have letters, digits, - and _
only. Before the take each is called with the argument pre-take, in the order of the
names; if one fails, nothing is taken. After the take, and whatever has happened,
each is called with post-take, in reverse order. BLKSNAP_SESSION and BLKSNAP_DEVICES
are in their environment.

A backup that is interrupted is continued or replaced by the next one; it never looks
complete. Progress is shown if standard error is a terminal.
Exit codes: 0 done; 1 refused or failed, or a hook has; 2 wrong usage; 3 the driver
is not loaded; 128 + N ended by signal N.
END
}

command_backup() {
	local directory
	# Who may read backups may read everything.
	umask 077
	# Who reads messages may have gone: that ends no backup.
	trap : PIPE
	parse_options ' --diff --limit --session --full --differential --track --renamed --hooks --no-hooks --json --parent --manifest ' "$@"
	if [[ -z $opt_session ]]; then
		add_paths
	else
		operands+=("${after[@]}") # names of snapshots, which may begin with a dash
	fi
	after=()
	[[ ${#operands[@]} -ge 1 ]] || usage_error "DIRECTORY is missing"
	directory=${operands[0]}
	[[ $directory != -?* ]] || directory=./$directory
	[[ -z $opt_full || -z $opt_differential ]] || usage_error "--full or --differential, not both"
	if [[ $directory == - ]]; then
		[[ -z $opt_json ]] || usage_error "--json and a pipe are not possible together"
	else
		[[ -z $opt_parent && -z $opt_manifest ]] || usage_error "--parent and --manifest are for pipes"
	fi
	if [[ -n $opt_session ]]; then
		[[ -z $opt_diff && -z $opt_limit && -z $opt_track && -z $opt_hooks ]] ||
			usage_error "--session is of a snapshot that is taken: no --diff, --limit, --track, --hooks"
	else
		[[ ${#operands[@]} -ge 2 ]] || usage_error "DEVICE is missing"
		[[ -n $opt_diff ]] || usage_error "--diff is missing"
		[[ $directory != - || ${#operands[@]} -eq 2 ]] || usage_error "a pipe takes one DEVICE"
	fi
	[[ $directory != - || ! -t 1 ]] || fail "standard output is a terminal: send it to a file or program"
	[[ $directory == - || (-d $directory && -w $directory) ]] || fail "no directory $directory that can be written to"
	[[ -z $opt_hooks || -d $opt_hooks ]] || fail "no directory $opt_hooks"
	[[ -z $opt_parent || -r $opt_parent ]] || fail "cannot read $opt_parent"
	[[ -z $opt_manifest || (! -d $opt_manifest && -w $(dirname -- "$opt_manifest")/) ]] || fail "cannot write $opt_manifest"
	need_driver
	need_backup_tools
	if [[ -z $opt_session ]]; then
		backup_devices "$directory" "${operands[@]:1}"
	fi
	[[ $directory == - || ${BLKSNAP_LOCKED:-} == "$directory" ]] || lock "$directory" exclusive
	backup_session "$directory" "$opt_session" "${operands[@]:1}"
}
