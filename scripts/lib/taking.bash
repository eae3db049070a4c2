# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# How a session is made and taken, and what a signal does meanwhile.
#
# Two things that bash (seen with 5.2) does not do well shape this part. While it expands command substitutions it cannot
# run traps: the parser, which is within the parentheses, reads the trap's text as a part of them, and ends the script with
# a syntax error and status 2. And `wait`, when a trapped signal ends it just as the child ends, loses the child's status.
#
# So as long as this process traps signals it expands no substitution, in traps neither, and does not call `wait`. The
# snapshots are taken by a child in the foreground, which ignores signals: one that comes is noted, and what was taken is
# released again. The command of `run` is waited for by a child that ignores signals too, and writes what it knows into a
# pipe.

# What the signal that came last is called; empty if there was none.
signal=
declare -rA signal_status=([HUP]=129 [INT]=130 [PIPE]=141 [TERM]=143)
# The session that is being made; whatever ends the process that has this set removes it. Its snapshots, by device.
unfinished=
snapshot_names=()
# Is it to end with this process, whatever ends that?
ends_with_us=
# Does anyone use the links that udev makes? If not, it may do so while the images are read.
links_wanted=1

clean_up() {
	local status=$?
	trap '' INT TERM HUP PIPE
	thaw
	[[ -z ${hooks_begun:-} ]] || post_hooks
	if [[ -n $unfinished ]]; then
		[[ -n $links_wanted ]] || wait_for_udev
		remove_session "$unfinished" || say "session '$unfinished' is left over: blksnap release $unfinished"
		unfinished=
		[[ -z $links_wanted ]] || wait_for_udev
	fi
	exit "$status"
}

# note SIGNAL: for later
note() {
	signal=$1
}

make_session() {
	local session=$1 diff=$2 limit=$3 object=$configfs/sessions/$1 device name message
	local -i number=0
	shift 3
	[[ ! -d $object ]] || fail "session '$session' exists already: blksnap release $session"
	message=$(mkdir -- "$object" 2>&1) || fail "cannot make session '$session': ${message##*: }"
	unfinished=$session
	for device; do
		name=${snapshot_names[number]}
		number+=1
		if ! message=$(mkdir -- "$object/$name" 2>&1); then
			explain "$object" "$session/$name: cannot be made" "$message"
			return 1
		fi
		set_attr "$object/$name" device "$device" || return 1
	done
	set_attr "$object" diff_file "$diff" || return 1
	[[ -z $limit ]] || set_attr "$object" diff_limit "$limit"
}

# Between freezing and thawing nothing is printed: see upper.bash.
activate() {
	local session=$1 diff=$2 object=$configfs/sessions/$1 message note status=0
	shift 2
	find_upper_file_systems "$diff" "$@"
	freeze || return 1
	message=$(attr_write "$object" active 1) || status=1
	thaw
	for note in "${freeze_notes[@]}"; do
		say "$note"
	done
	if [[ $status -ne 0 ]]; then
		explain "$object" "cannot take '$session'" "$message"
		return 1
	fi
}

# The child that takes: leaves an active session, or nothing.
taker() {
	local session=$1 diff=$2 limit=$3
	shift 3
	trap '' INT TERM HUP PIPE
	hooks_begun=
	trap clean_up EXIT
	make_session "$session" "$diff" "$limit" "$@" || exit "$exit_refused"
	activate "$session" "$diff" "$@" || exit "$exit_refused"
	unfinished=
	[[ -z $links_wanted ]] || wait_for_udev
	exit 0
}

# What is to be taken; see plan_take.
take_session='' take_diff='' take_limit='' take_devices=()

# get_absolute VARIABLE PATH: absolute, as the driver shows paths as they were written; links are kept.
get_absolute() {
	local path_=$2
	[[ $2 == /* && $2/ != *//* && $2/ != */./* && $2/ != */../* ]] || path_=$(realpath -s -m -- "$2")
	printf -v "$1" '%s' "$path_"
}

# plan_take SESSION DIFF LIMIT DEVICE...: all of take_planned that wants substitutions, and what is to be done before
plan_take() {
	local path device
	release_abandoned
	take_session=$1 take_limit=$3 take_devices=()
	get_absolute take_diff "$2"
	for path in "${@:4}"; do
		get_absolute device "$path"
		take_devices+=("$device")
	done
	name_snapshots "${take_devices[@]}"
}

# From here on signals are noted.
note_signals() {
	trap clean_up EXIT
	# Who reads messages may have gone: that ends nothing. What is started has the signal as it was.
	trap : PIPE
	trap 'note HUP' HUP
	trap 'note INT' INT
	trap 'note TERM' TERM
}

# Leaves an active session, or nothing.
take_planned() {
	local status=0
	[[ -z $ends_with_us ]] || mark_session "$take_session"
	(taker "$take_session" "$take_diff" "$take_limit" "${take_devices[@]}") || status=$?
	# The child may have been killed in the middle. Of a name that is ours alone that is known to be its session.
	[[ $status -ne 0 && ($status -le 128 || -z $ends_with_us) ]] || unfinished=$take_session
	[[ $status -eq 0 || -n $unfinished ]] || unmark_session "$take_session"
	[[ -z $signal ]] || exit "${signal_status[$signal]}"
	[[ $status -le 128 ]] || fail "the process that takes '$take_session' was killed"
	[[ $status -eq 0 ]] || exit "$status"
}

# take_session SESSION DIFF LIMIT DEVICE...: all three
take_session() {
	plan_take "$@"
	note_signals
	take_planned
}

# Sets images to those of the session that was just taken, in the order of the devices: the links that udev made, or the
# images' own names.
images=()

find_images() {
	local snapshot image link
	for snapshot in "${snapshot_names[@]}"; do
		image='' link=/dev/blksnap/$1/$snapshot
		read -r image <"$configfs/sessions/$1/$snapshot/image" || true
		[[ -n $image && ! $link -ef $image ]] || image=$link
		images+=("$image")
	done
}
