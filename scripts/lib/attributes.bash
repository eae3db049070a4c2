# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154 # what is set by one part of blksnap is used by others
#
# Files of configfs and sysfs: how they are read and written, and what is said of a refusal.

readonly configfs=/sys/kernel/config/blksnap
readonly sysfs_block=/sys/block

# Where much is read, functions set the variable that their first argument names: a substitution is a process, and on
# slow machines many of them are most of the time that a command takes.

# get_attr VARIABLE DIRECTORY ATTRIBUTE: its value; empty if there is no such attribute or it cannot be read.
get_attr() {
	local -n got_=$1
	local lines_=()
	got_=
	[[ -r $2/$3 ]] || return 0
	{ mapfile -t lines_ <"$2/$3"; } 2>/dev/null || return 0
	[[ ${#lines_[@]} -gt 0 ]] || return 0
	printf -v got_ '%s\n' "${lines_[@]}"
	got_=${got_%$'\n'}
}

# attr_read DIRECTORY ATTRIBUTE: prints it.
attr_read() {
	local value
	get_attr value "$1" "$2"
	printf '%s' "$value"
}

# What to do about what the driver said, if there is something to say.
advice() {
	case $1 in
	'EBUSY: cannot follow '*) ;;
	EBUSY:*) echo 'it is in use: see "blksnap list", and lsblk for what is mounted or built on it' ;;
	EEXIST:*) echo 'give each device once; for a session of that name, see "blksnap list"' ;;
	EXDEV:*) echo 'put the differences elsewhere (--diff): on a disk that has no snapshot and is not built on an origin' ;;
	ENOSPC:*) echo 'make room, or give a larger --limit or another --diff' ;;
	ETIMEDOUT:*) echo 'the devices did not come to rest in time: try again with less load, or raise the module parameter take_timeout_ms' ;;
	EOPNOTSUPP:*) echo 'this device cannot be followed: snapshot the device below or above it' ;;
	ENOTBLK:*) echo 'give a block device, not a mount point or file' ;;
	ENOENT:*) echo 'check the path' ;;
	EACCES:* | EPERM:*) echo 'become root' ;;
	ENOMEM:*) echo 'free memory, or give fewer devices' ;;
	esac
}

# The lines in which the driver says why it refused something to the object, or to what is in it.
driver_errors() {
	local object=$1 file line previous=
	for file in "$object"/error "$object"/*/error; do
		line=$(cat -- "$file" 2>/dev/null) || continue
		[[ -n $line && $line != "$previous" ]] || continue
		previous=$line
		printf '%s\n' "$line"
	done
}

# explain OBJECT WHAT MESSAGE: why the driver refused WHAT; MESSAGE stands in where it left no line.
explain() {
	local object=$1 what=$2 message=$3 lines line hint
	lines=$(driver_errors "$object")
	if [[ -z $lines ]]; then
		lines=${message##*: }
	fi
	while IFS= read -r line; do
		say "$what: $line"
		hint=$(advice "$line")
		[[ -z $hint ]] || say "  $hint"
	done < <(printf '%s\n' "$lines")
}

# attr_write OBJECT ATTRIBUTE VALUE: prints nothing if it succeeds; else the system's message.
attr_write() {
	local file=$1/$2
	if [[ ! -e $file ]]; then
		echo "this version of the driver has no attribute $2"
		return 1
	fi
	# It would be written line by line, and the last one count.
	if [[ $3 == *$'\n'* ]]; then
		echo "a value with a newline"
		return 1
	fi
	# in braces, so that the message of a failed redirection is caught too
	{ printf '%s\n' "$3" >"$file"; } 2>&1
}

# set_attr OBJECT ATTRIBUTE VALUE: the same, and explains a refusal.
set_attr() {
	local message
	if ! message=$(attr_write "$1" "$2" "$3"); then
		explain "$1" "${1#"$configfs/sessions/"}: $2 = $3" "$message"
		return 1
	fi
}

need_driver() {
	[[ -d $configfs/sessions ]] && return
	say "the driver is not loaded, or configfs is not mounted"
	say "  modprobe blksnap; mount -t configfs configfs /sys/kernel/config"
	exit "$exit_absent"
}

valid_name() {
	[[ $1 =~ ^[A-Za-z0-9_:+-][A-Za-z0-9._:+-]{0,63}$ && ! $1 =~ -part[0-9]+$ ]]
}

need_name() {
	valid_name "$1" ||
		usage_error "not a name: '$1' (A-Z a-z 0-9 . _ : + -, 1 to 64, no dot in front, not ending in -part and a number)"
}

need_session() {
	need_name "$1"
	[[ -d $configfs/sessions/$1 ]] || fail "no session '$1'; see: blksnap list"
}
