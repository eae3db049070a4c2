# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2004,SC2034,SC2154 # what is set by one part of blksnap is used by others; m_* are associative
#
# Backups in a directory, and how they are linked.
#
# A backup directory has a chain in it for each device, a directory of the snapshot's name. A chain is made of backups,
# numbered from 00001, three files each:
#
#	00002.json              the manifest: what it is, and of what; its last line is the checksum of those above
#	00002.increment         its data: of a full (00001.full) the device as it is, with holes, of another one the changed
#	                        blocks one after the other
#	00002.increment.index   a checksum for each block; the manifest has the checksum of this file
#
# A backup exists when its manifest does: that is renamed into place when all else is on the disk. What is being written
# is called .partial. In an index that is, the first line says of which snapshot, and each other line is added when its
# data is on the disk: so a full that was interrupted is continued, by the change map even from a later snapshot. Data
# without a manifest is of no use, and removed by the next backup; if it is not called .partial, nor is there a manifest
# that is, it may have lost its own, and is named by verify.
#
# Backups are linked by UUID: a parent that was replaced by another backup of the same number is noticed.

# Their numbers, in order.
backups=()

# add_backup FILE COMMAND...: if the command reads it, and it is what its name says.
add_backup() {
	local file=$1
	shift
	manifest_id=
	if "$@" && [[ $manifest_id.json == "${file##*/}" && -n ${m_data[$manifest_id]} ]]; then
		backups+=("$manifest_id")
	else
		say "$file: damaged, or not the manifest of a backup"
		damaged_manifests+=("${file##*/}")
	fi
}

# get_listing ARRAY DIRECTORY PATTERN: the paths of what is in it and has such a name, in order. Fails if it cannot be listed,
# and says so: that is not an empty one.
get_listing() {
	local -n listing_=$1
	mapfile -d '' listing_ < <(find "$2/" -mindepth 1 -maxdepth 1 -name "$3" -print0 2>/dev/null | sort -z)
	wait "$!" || {
		say "cannot list $2"
		return 1
	}
}

# What is in the directory of the chain and begins with a number, as it was when the chain was read.
listing=()

# get_manifests ARRAY: those that are listed, in the order of their numbers: those with more digits last.
get_manifests() {
	local -n manifests_=$1
	local path_ found_=() by_length_=() i_
	manifests_=()
	for path_ in "${listing[@]}"; do
		[[ $path_ == *.json ]] || continue
		by_length_[${#path_}]+="${#found_[@]} "
		found_+=("$path_")
	done
	# shellcheck disable=SC2048 # words
	for i_ in ${by_length_[*]}; do
		manifests_+=("${found_[i_]}")
	done
}

# So many manifests are read at once; each is an open file meanwhile.
readonly manifests_at_once=100

# read_chain DIRECTORY: all its manifests, and nothing else. What is damaged is left out, and told; it is in
# damaged_manifests. Fails if the directory cannot be listed.
read_chain() {
	local files member some texts text first i
	get_listing listing "$1" '[0-9]*' || return
	get_manifests files
	backups=() damaged_manifests=() index_sums=()
	for member in $manifest_members; do
		local -n known=m_$member
		# shellcheck disable=SC2034 # a reference
		known=()
	done
	for ((first = 0; first < ${#files[@]}; first += manifests_at_once)); do
		some=("${files[@]:first:manifests_at_once}") texts=()
		for i in "${!some[@]}"; do
			# Without its last newlines, as of a substitution. What has other characters than text in it is damaged.
			text=''
			IFS= read -r -d '' text <"${some[i]}" || true
			while [[ $text == *$'\n' ]]; do
				text=${text%$'\n'}
			done
			texts+=("$text")
		done
		if filter_manifests "${texts[@]}"; then
			for i in "${!some[@]}"; do
				add_backup "${some[i]}" keep_manifest "${manifest_lines[i]}"
			done
		else
			for i in "${!some[@]}"; do
				add_backup "${some[i]}" read_manifest "${texts[i]}"
			done
		fi
	done
}

# ---- links ----

# explain_link GENERATION NUMBER BASE SIZE PARENT: can a snapshot be backed up as what has changed since the parent? Sets
# link_since; fails with a reason in link_reason.
explain_link() {
	local generation=$1 number=$2 base=$3 size=$4 parent=$5
	link_reason=
	if [[ -z $generation ]]; then
		link_reason='it is not tracked (blksnap track)'
	elif [[ -z ${m_generation[$parent]} ]]; then
		link_reason="it was not tracked when $parent was made"
	elif [[ $size != "${m_size[$parent]}" ]]; then
		link_reason="it had ${m_size[$parent]} bytes in $parent, and has $size"
	elif [[ $generation == "${m_generation[$parent]}" && $number -gt ${m_number[$parent]} ]]; then
		link_since=${m_number[$parent]}
	elif [[ $base == "${m_generation[$parent]} ${m_number[$parent]}" ]]; then
		link_since=0
	else
		link_reason="tracking has begun anew since $parent, or that is of a later snapshot"
	fi
	[[ -z $link_reason ]]
}

# older ID OTHER
older() {
	((10#$1 < 10#$2))
}

# chain_of ID: sets chain_ids to it and all that it needs, from the full on. Fails if a link is broken, and says so.
chain_of() {
	local id=$1 parent ids=("$1") i
	while [[ ${m_kind[$id]} != full ]]; do
		parent=${m_parent[$id]}
		if [[ -z $parent || -z ${m_uuid[$parent]:-} ]]; then
			say "$chain/$id.json: its parent ${parent:-of a pipe} is not there"
			return 1
		fi
		if [[ ${m_uuid[$parent]} != "${m_parent_uuid[$id]}" ]] || ! older "$parent" "$id"; then
			say "$chain/$id.json: $parent is not its parent, but another backup of that number"
			return 1
		fi
		if ! explain_link "${m_generation[$id]}" "${m_number[$id]}" "${m_base[$id]}" "${m_size[$id]}" "$parent" ||
			[[ $link_since -ne ${m_since[$id]} ]]; then
			say "$chain/$id.json: does not follow $parent${link_reason:+: $link_reason}"
			return 1
		fi
		id=$parent
		ids+=("$id")
	done
	chain_ids=()
	for ((i = ${#ids[@]} - 1; i >= 0; i--)); do
		chain_ids+=("${ids[i]}")
	done
}

# The word of the copier for how the data of each kind lies.
declare -rA layout=([full]=full [increment]=packed [differential]=packed)

# By backup: the SHA-256 that its index has.
declare -A index_sums=()

# sum_indexes ID...: of those that are there, all at once. What fails is left to check_index.
sum_indexes() {
	local id ids=() files=() sums i
	for id; do
		[[ -f $chain/${m_index[$id]} ]] || continue
		ids+=("$id")
		files+=("$chain/${m_index[$id]}")
	done
	[[ ${#ids[@]} -gt 0 ]] || return 0
	get_sums sums "${files[@]}" 2>/dev/null || return 0
	for i in "${!ids[@]}"; do
		index_sums[${ids[i]}]=${sums[i]}
	done
}

# check_index ID: its index is the one that its manifest means.
check_index() {
	local index=$chain/${m_index[$1]} sums
	if [[ ! -f $index || ! -f $chain/${m_data[$1]} ]]; then
		[[ -f $index ]] || say "$index: missing"
		[[ -f $chain/${m_data[$1]} ]] || say "$chain/${m_data[$1]}: missing"
		return 1
	fi
	[[ -n ${index_sums[$1]:-} ]] || {
		get_sums sums "$index" && index_sums[$1]=${sums[0]}
	}
	[[ ${index_sums[$1]:-} == "${m_index_sha256[$1]}" ]] || {
		say "$index: damaged"
		return 1
	}
}

# check_backup ID: reads all of it, and says what is wrong. What it is built upon has to be there. Fails with damage_found if
# something is wrong with it.
readonly damage_found=3

check_backup() {
	chain_of "$1" && check_index "$1" || return "$damage_found"
	copy "${chain##*/}/$1" check "${m_size[$1]}" "${layout[${m_kind[$1]}]}" "$chain/${m_data[$1]}" "$chain/${m_index[$1]}"
}

# chain_arguments ID: sets chain_files to what the copier wants to know of it and all that it needs.
chain_arguments() {
	local id
	chain_files=()
	chain_of "$1" || return
	sum_indexes "${chain_ids[@]}"
	for id in "${chain_ids[@]}"; do
		check_index "$id" || return
		chain_files+=("${layout[${m_kind[$id]}]}" "$chain/${m_data[$id]}" "$chain/${m_index[$id]}")
	done
}

# ---- directories ----

# What follows `--` becomes operands that the copier takes for no option, whatever they begin with.
add_paths() {
	local path
	for path in "${after[@]}"; do
		[[ $path != -?* ]] || path=./$path
		operands+=("$path")
	done
}

# get_directories ARRAY DIRECTORY: those in it, which may be chains; not the one of fsck, which only root can list.
get_directories() {
	local -n directories_=$1
	local paths_ path_
	directories_=()
	get_listing paths_ "$2" '[!.]*' || return
	for path_ in "${paths_[@]}"; do
		[[ ! -d $path_ || $path_ == */lost+found ]] || directories_+=("$path_")
	done
}

# find_chain PATH: sets chain to the directory of a chain: this one, or the only one in it.
find_chain() {
	local path=${1%/} found=() directories directory manifests
	[[ -d $path ]] || fail "no directory $1"
	get_directories directories "$path" || exit "$exit_refused"
	for directory in "$path" "${directories[@]}"; do
		get_listing manifests "$directory" '[0-9]*.json' || exit "$exit_refused"
		[[ ${#manifests[@]} -ne 0 ]] || continue
		found+=("$directory")
		[[ $directory != "$path" ]] || break
	done
	[[ ${#found[@]} -ne 0 ]] || fail "there is no backup in $1"
	[[ ${#found[@]} -eq 1 ]] || fail "$1 has several chains, name one: ${found[*]}"
	chain=${found[0]}
}

lock_descriptor=

# lock DIRECTORY KIND: exclusive or shared; held until this process ends, and those that it starts. Fails if that cannot be, and
# says why.
lock() {
	local file=$1/.lock descriptor
	if [[ $2 == shared ]]; then
		# A directory that cannot be written to needs none.
		[[ -r $file ]] || return 0
		exec {descriptor}<"$file"
	else
		{ exec {descriptor}>>"$file"; } 2>/dev/null || {
			say "cannot write to $1"
			return 1
		}
	fi
	flock --nonblock "--$2" "$descriptor" || {
		say "$1 is in use by another blksnap backup, merge, verify or restore"
		exec {descriptor}>&-
		return 1
	}
	lock_descriptor=$descriptor
}

# publish ID: what the copier has written gets its name, the manifest last. The index first: it never tells of data that
# has gone.
publish() {
	local id=$1 data=$chain/${m_data[$1]} index=$chain/${m_index[$1]} sums
	get_sums sums "$index.partial"
	m_index_sha256[$id]=${sums[0]}
	make_manifest "$id"
	printf '%s\n' "$manifest" >"$chain/$id.json.partial" || fail "cannot write $chain/$id.json.partial"
	mv -f -- "$index.partial" "$index"
	mv -f -- "$data.partial" "$data"
	sync -- "$chain/$id.json.partial" "$chain"
	mv -f -- "$chain/$id.json.partial" "$chain/$id.json"
	sync -- "$chain"
}

# is_useless FILE: is it of a backup, and belongs to no manifest? Sets useless_id to its number.
is_useless() {
	[[ $1 =~ ^([0-9]{5,9})\.((full|increment|differential)(\.index)?(\.partial)?|json\.partial)$ ]] || return
	useless_id=${BASH_REMATCH[1]}
	[[ $1 != "${m_data[$useless_id]:-}" && $1 != "${m_index[$useless_id]:-}" ]] || return
	# Of a manifest that cannot be read, or not even be found, nobody knows what belongs to it.
	[[ " ${damaged_manifests[*]} " != *" $useless_id.json "* ]]
}

# is_lost PATH: is it data whose manifest is lost, as far as one can know? While that is being written or removed it is there as
# .partial. Sets useless_id to its number.
is_lost() {
	is_useless "${1##*/}" && [[ $1 != *.partial && -z ${m_uuid[$useless_id]:-} && ! -e $chain/$useless_id.json.partial ]]
}

say_lost() {
	say "$1: of a backup that was not completed, or its manifest is lost"
}

# remove_useless KEPT: files of backups that have no manifest; not those that begin with KEPT.
remove_useless() {
	local path file useless_id
	for path in "${listing[@]}"; do
		file=${path##*/}
		[[ $file != "$1"* || $file != *.partial ]] || continue
		is_useless "$file" || continue
		say "$path: of a backup that was not completed, removed"
		rm -f -- "$path"
	done
}

# backup_number NUMBER: sets id to it as files are called, if there is such a backup.
backup_number() {
	id=$1
	[[ ! $id =~ ^[0-9]{1,9}$ ]] || printf -v id '%05d' $((10#$id))
	[[ -n $id && -n ${m_uuid[$id]:-} ]] || fail "there is no good backup '$1' in $chain"
}

# Room that a file takes.
room_of() {
	local blocks size
	read -r blocks size < <(stat -c '%b %B' -- "$1")
	human_size $((blocks * size))
}
