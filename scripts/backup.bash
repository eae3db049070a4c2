# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2154 # what is not set here is set by blksnap
#
# The part of blksnap that makes, verifies, merges and restores backups; blksnap reads it in for these commands. It decides
# what is to be copied and what files are called; blksnap-copy (scripts/copy) moves the data.
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
# without a manifest is of no use, and removed by the next backup.
#
# Backups are linked by UUID: a parent that was replaced by another backup of the same number is noticed.

readonly manifest_format=1
readonly stream_head='blksnap-stream 1'
readonly hooks_default=/etc/blksnap/hooks.d

# ---- the copier ----

copier='' copier_pid=''

need_backup_tools() {
	local tool
	for tool in jq sha256sum flock; do
		command -v "$tool" >/dev/null || fail "$tool is missing (Debian: apt install jq coreutils util-linux)"
	done
	for copier in "$library/blksnap-copy" "${library%/*}/build/blksnap-copy"; do
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
	local progress=() status=0
	[[ ! -t 2 ]] || progress=(--progress "$1")
	# In the background, so that a signal does not have to wait for its end.
	trap 'interrupted 130' INT
	trap 'interrupted 143' TERM
	trap 'interrupted 129' HUP
	"$copier" "${progress[@]}" "${@:2}" <&0 &
	copier_pid=$!
	wait "$copier_pid" || status=$?
	copier_pid=
	trap - INT TERM HUP
	return "$status"
}

# ---- manifests ----
#
# That of a backup is in these, by its number, as it stands in its file.

# shellcheck disable=SC2034 # some are only used by reference
declare -A m_uuid=() m_kind=() m_parent=() m_parent_uuid=() m_created=() m_device=() m_size=() m_generation=() m_number=()
declare -A m_base=() m_since=() m_block_size=() m_data=() m_index=() m_index_sha256=()
# In the order of their numbers.
backups=()

readonly manifest_members='uuid kind parent parent_uuid created device size generation number base since block_size data index index_sha256'

# What manifests have to be; prints the members of each on a line, which is empty for one that is none.
# shellcheck disable=SC2016 # for jq
readonly manifest_filter='
	def uuid: test("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$");
	def id: test("^[0-9]{5,9}$");
	(try (select(.format == 1 and (.id | id) and (.uuid | uuid)
		and (.kind == "full" and .parent == "" and .parent_uuid == "" and .since == 0
			or (.kind == "increment" or .kind == "differential") and (.parent_uuid | uuid)
				and (.parent == "" or (.parent | id)) and (.generation | uuid))
		and (.generation == "" or (.generation | uuid))
		and (.size | type == "number" and . > 0 and . % 512 == 0)
		and (.number | type == "number" and . >= 0 and . <= 255)
		and (.since | type == "number" and . >= 0 and . <= 255)
		and (.block_size | type == "number")
		and (.base | type == "string") and (.created | type == "string") and (.device | type == "string")
		and (.data == "" and .index == "" and .index_sha256 == ""
			or .data == .id + "." + .kind and .index == .data + ".index"
				and (.index_sha256 | test("^[0-9a-f]{64}$"))))
	| [.id, .uuid, .kind, .parent, .parent_uuid, .created, .device, .size, .generation, .number, .base, .since,
		.block_size, .data, .index, .index_sha256]
	| map(tostring | gsub("\n"; " ")) | join("\u001f")) catch "") // ""'

# get_sums ARRAY FILE...: the SHA-256 of each.
get_sums() {
	local -n sums_=$1
	local lines_
	shift
	lines_=$(sha256sum -- "$@") || return
	mapfile -t sums_ <<<"$lines_"
	# A backslash in front says that the name has such characters in it.
	sums_=("${sums_[@]#\\}")
	sums_=("${sums_[@]%% *}")
}

# get_text_sums ARRAY TEXT...: of texts, and a newline behind each.
get_text_sums() {
	local array_=$1 text_ descriptor_ descriptors_=() files_=() status_=0
	shift
	for text_; do
		exec {descriptor_}<<<"$text_"
		descriptors_+=("$descriptor_")
		files_+=("/dev/fd/$descriptor_")
	done
	get_sums "$array_" "${files_[@]}" || status_=$?
	for descriptor_ in "${descriptors_[@]}"; do
		exec {descriptor_}<&-
	done
	return "$status_"
}

# make_manifest ID: sets manifest to its text, of what the variables have.
manifest=

make_manifest() {
	local id=$1 member quoted sums
	json_quote quoted "$id"
	printf -v manifest '{\n  "format": %s,\n  "id": %s' "$manifest_format" "$quoted"
	for member in $manifest_members; do
		local -n value=m_$member
		quoted=${value[$id]}
		case $member in
		# These are never numbers, whatever they look like.
		uuid | parent | parent_uuid | created | data | index | index_sha256) json_quote quoted "${value[$id]}" ;;
		*) is_json_number "$member" "$quoted" || json_quote quoted "${value[$id]}" ;;
		esac
		manifest+=$',\n  "'$member'": '$quoted
	done
	manifest+=,
	get_text_sums sums "$manifest"
	manifest+=$'\n  "checksum": "'${sums[0]}$'"\n}'
}

# What is above the last line of a manifest, in manifest_above.
manifest_above=

cut_manifest() {
	manifest_above=${1%%$'\n  "checksum": '*}
}

# is_whole_manifest TEXT SUM: does its last line have the checksum of what is above?
is_whole_manifest() {
	cut_manifest "$1"
	[[ $1 == "$manifest_above"$'\n  "checksum": "'"$2"$'"\n}' ]]
}

# keep_manifest LINE: what the filter printed, into the variables; its number into manifest_id. Fails if it is empty.
manifest_id=

keep_manifest() {
	local member values number=0
	manifest_id=
	[[ -n $1 ]] || return
	IFS=$'\x1f' read -r -a values <<<"$1"$'\x1f'
	manifest_id=${values[0]}
	for member in $manifest_members; do
		local -n value=m_$member
		number=$((number + 1))
		# shellcheck disable=SC2034,SC2004 # a reference, to an associative one
		value[$manifest_id]=${values[number]:-}
	done
}

# read_manifest TEXT: into the variables. Fails if it is not one, or damaged.
read_manifest() {
	local sums line
	cut_manifest "$1"
	get_text_sums sums "$manifest_above" && is_whole_manifest "$1" "${sums[0]}" || return
	line=$(jq -r "$manifest_filter" <<<"$1" 2>/dev/null) || return
	keep_manifest "$line"
}

# filter_manifests TEXT...: what the filter prints of each into manifest_lines, all at once. Fails if one of them is not
# JSON, or damaged.
manifest_lines=()

filter_manifests() {
	local text above=() sums i=0
	for text; do
		cut_manifest "$text"
		above+=("$manifest_above")
	done
	get_text_sums sums "${above[@]}" || return
	for text; do
		is_whole_manifest "$text" "${sums[i]}" || return
		i=$((i + 1))
	done
	text=$(printf '%s\n' "$@" | jq -r "$manifest_filter" 2>/dev/null) || return
	mapfile -t manifest_lines <<<"$text"
	[[ ${#manifest_lines[@]} -eq $# ]]
}

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

# So many manifests are read at once; each is an open file meanwhile.
readonly manifests_at_once=100

# read_chain DIRECTORY: all its manifests, and nothing else. What is damaged is left out, and told; it is in
# damaged_manifests.
read_chain() {
	local file files=() member some texts text first i
	for file in "$1"/[0-9]*.json; do
		files+=("$file")
	done
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
	local id=$1 parent
	chain_ids=("$id")
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
		chain_ids=("$id" "${chain_ids[@]}")
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

# find_chain PATH: sets chain to the directory of a chain: this one, or the only one in it.
find_chain() {
	local path=${1%/} found=() candidate
	[[ -d $path ]] || fail "no directory $1"
	for candidate in "$path"/[0-9]*.json; do
		chain=$path
		return
	done
	for candidate in "$path"/*/[0-9]*.json; do
		candidate=${candidate%/*}
		[[ " ${found[*]} " == *" $candidate "* ]] || found+=("$candidate")
	done
	[[ ${#found[@]} -ne 0 ]] || fail "there is no backup in $1"
	[[ ${#found[@]} -eq 1 ]] || fail "$1 has several chains, name one: ${found[*]}"
	chain=${found[0]}
}

lock_descriptor=

# lock DIRECTORY KIND: exclusive or shared; held until this process ends, and those that it starts.
lock() {
	local file=$1/.lock descriptor
	if [[ $2 == shared ]]; then
		# A directory that cannot be written to needs none.
		[[ -r $file ]] || return 0
		exec {descriptor}<"$file"
	else
		{ exec {descriptor}>>"$file"; } 2>/dev/null || fail "cannot write to $1"
	fi
	flock --nonblock "--$2" "$descriptor" || fail "$1 is in use by another blksnap backup, merge, verify or restore"
	lock_descriptor=$descriptor
}

# publish ID: what the copier has written gets its name, the manifest last. The index first: it never tells of data that
# has gone.
publish() {
	local id=$1 data=$chain/${m_data[$1]} index=$chain/${m_index[$1]} sums
	get_sums sums "$index.partial"
	m_index_sha256[$id]=${sums[0]}
	make_manifest "$id"
	printf '%s\n' "$manifest" >"$chain/$id.json.partial"
	mv -f -- "$index.partial" "$index"
	mv -f -- "$data.partial" "$data"
	sync -- "$chain/$id.json.partial" "$chain"
	mv -f -- "$chain/$id.json.partial" "$chain/$id.json"
	sync -- "$chain"
}

# remove_useless KEPT: files of backups that have no manifest; not those that begin with KEPT.
remove_useless() {
	local path file id
	for path in "$chain"/[0-9]*; do
		file=${path##*/}
		[[ $file =~ ^([0-9]{5,9})\.((full|increment|differential)(\.index)?(\.partial)?|json\.partial)$ ]] || continue
		id=${BASH_REMATCH[1]}
		[[ $file != "$1"* || $file != *.partial ]] || continue
		[[ $file != "${m_data[$id]:-}" && $file != "${m_index[$id]:-}" ]] || continue
		# Of a manifest that cannot be read nobody knows what belongs to it.
		[[ ! -e $chain/$id.json || -n ${m_data[$id]:-} ]] || continue
		say "$path: of a backup that was not completed, removed"
		rm -f -- "$path"
	done
}

# ---- images ----

# read_image SESSION SNAPSHOT: sets what is to be known of the image.
read_image() {
	local object=$configfs/sessions/$1/$2 sysfs
	get_attr image "$object" image
	[[ -n $image ]] || fail "$1/$2 has no image: the session is not active"
	get_attr image_device "$object" device
	sysfs=/sys/class/block/${image##*/}
	image_statistics=$sysfs/blksnap
	image_cbt=$sysfs/cbt
	get_attr image_size "$sysfs" size
	image_size=$((image_size * 512))
	get_attr image_id /proc/sys/kernel/random boot_id
	get_attr image_diskseq "$sysfs" diskseq
	image_id+=/$image_diskseq
	get_attr image_generation "$image_cbt" generation
	get_attr image_number "$image_cbt" number
	get_attr image_base "$image_cbt" base
	get_attr image_block_size "$image_cbt" block_size
	map_options=()
	[[ -z $image_generation ]] || map_options=(--map "$image_cbt/map" --block "$image_block_size")
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

# Sets id to the number of the next backup. A number is never used again, whatever has become of its backup.
next_id() {
	local path
	id=0
	for path in "$chain"/[0-9]*.json; do
		path=${path##*/}
		[[ $path =~ ^([0-9]{5,9})\.json$ ]] || continue
		! older "$id" "${BASH_REMATCH[1]}" || id=$((10#${BASH_REMATCH[1]}))
	done
	printf -v id '%05d' $((id + 1))
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
		--heading "$heading" "$image" "$data.partial" "$data.index.partial" || fail "$name: not backed up"
	describe "$id"
	m_data[$id]=$id.$kind
	m_index[$id]=$id.$kind.index
	publish "$id"
	print_backup "$name" "$id"
}

# Room that a file takes.
room_of() {
	local blocks size
	read -r blocks size < <(stat -c '%b %B' -- "$1")
	human_size $((blocks * size))
}

# print_backup NAME ID
print_backup() {
	if [[ -n $opt_json ]]; then
		printf '%s' "$json_separator"
		make_manifest "$2"
		printf '%s\n' "$manifest"
		json_separator=,
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
	copy "$name" send "${increment[@]}" "$image" || fail "$name: not backed up"
	need_unwritten
	[[ -z $opt_manifest ]] || {
		printf '%s\n' "$manifest" >"$opt_manifest.partial"
		sync -- "$opt_manifest.partial"
		mv -f -- "$opt_manifest.partial" "$opt_manifest"
	}
}

# ---- blksnap backup ----

# backup_session DIRECTORY SESSION SNAPSHOT...: the images of a session that is active.
backup_session() {
	local directory=$1 session=$2 snapshots=("${@:3}") snapshot
	need_session "$session"
	[[ ${#snapshots[@]} -gt 0 ]] || get_children snapshots "$configfs/sessions/$session"
	[[ $directory != - || ${#snapshots[@]} -eq 1 ]] ||
		fail "a pipe takes one device, and '$session' has ${#snapshots[@]} snapshots: name one"
	for snapshot in "${snapshots[@]}"; do
		need_name "$snapshot"
		[[ -d $configfs/sessions/$session/$snapshot ]] || fail "no snapshot '$snapshot' in '$session'"
		read_image "$session" "$snapshot"
		need_unwritten
	done
	[[ -z $opt_json ]] || printf '['
	json_separator=
	for snapshot in "${snapshots[@]}"; do
		read_image "$session" "$snapshot"
		if [[ $directory == - ]]; then
			backup_stream "$snapshot"
			continue
		fi
		chain=$directory/$snapshot
		[[ -d $chain ]] || mkdir -- "$chain" || fail "cannot make $chain"
		lock "$chain" exclusive
		read_chain "$chain"
		need_same_device "$snapshot"
		already_there "$snapshot" || backup_image "$snapshot"
		exec {lock_descriptor}>&-
		lock_descriptor=
	done
	[[ -z $opt_json ]] || printf ']\n'
}

# Hooks run while this process notes signals: nothing is substituted here, see blksnap.

# find_hooks DIRECTORY: sets hooks to its executables, in the order in which they run.
hooks=() hook_failed=''
hooks_begun=''

find_hooks() {
	local hook
	for hook in "$1"/*; do
		if [[ -f $hook && -x $hook && ${hook##*/} =~ ^[A-Za-z0-9_-]+$ ]]; then
			hooks+=("$hook")
		fi
	done
}

# Not with the lock: it may start something that stays.
run_hook() {
	local status=0
	(
		trap - EXIT
		[[ -z $lock_descriptor ]] || exec {lock_descriptor}>&-
		exec "$1" "$2" >&2
	) || status=$?
	[[ $status -eq 0 ]] || say "the hook $1 $2 ended with $status"
	return "$status"
}

# The last one first, as what it undoes was done last.
post_hooks() {
	local i
	[[ -n $hooks_begun ]] || return 0
	hooks_begun=
	for ((i = ${#hooks[@]} - 1; i >= 0; i--)); do
		run_hook "${hooks[i]}" post-take || hook_failed=1
	done
}

pre_hooks() {
	local hook
	hooks_begun=1
	for hook in "${hooks[@]}"; do
		run_hook "$hook" pre-take || fail "nothing is backed up"
		[[ -z $signal ]] || exit "${signal_status[$signal]}"
	done
}

# forget_interrupted SESSION: one that an interrupted backup to this directory has left. Nobody uses it, as we have the lock.
forget_interrupted() {
	[[ -d $configfs/sessions/$1 ]] || return 0
	say "session '$1' is left over from a backup that was interrupted: released"
	remove_session "$1" || exit "$exit_refused"
	wait_for_udev
}

# session_for DIRECTORY: sets session to the name of the session for backups to it.
session_for() {
	local path sums
	if [[ $1 == - ]]; then
		session=backup-$$-$RANDOM
	else
		path=$(CDPATH="" cd -- "$1" && pwd -P)
		get_text_sums sums "$path"
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
	if [[ $directory != - ]]; then
		lock "$directory" exclusive
		export BLKSNAP_LOCKED=$directory
		forget_interrupted "$session"
	fi
	[[ -z $opt_track ]] || track_devices "$@" || exit "$exit_refused"
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
is there. Each device gets a directory of its own in DIRECTORY, named after the last
part of its path, with a chain of backups: 00001, 00002, ... What is backed up is what
has changed since the last one, if that is known: the device is tracked, and was when
that was made. If not, it is all of the device, and why is said. To go on with a chain
of another device is refused.

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
	parse_options ' --diff --limit --session --full --differential --track --renamed --hooks --no-hooks --json --parent --manifest ' "$@"
	operands+=("${after[@]}")
	after=()
	[[ ${#operands[@]} -ge 1 ]] || usage_error "DIRECTORY is missing"
	directory=${operands[0]}
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
	need_driver
	need_backup_tools
	if [[ -z $opt_session ]]; then
		backup_devices "$directory" "${operands[@]:1}"
	fi
	[[ $directory == - || ${BLKSNAP_LOCKED:-} == "$directory" ]] || lock "$directory" exclusive
	backup_session "$directory" "$opt_session" "${operands[@]:1}"
}

# ---- blksnap verify ----

# verify_backup ID: all of it; says what is wrong.
verify_backup() {
	local id=$1
	chain_of "$id" || return
	check_index "$id" || return
	copy "${chain##*/}/$id" check "${m_size[$id]}" "${layout[${m_kind[$id]}]}" "$chain/${m_data[$id]}" "$chain/${m_index[$id]}"
}

# print_verdict ID NAME VERDICT
print_verdict() {
	if [[ -z $opt_json ]]; then
		printf '%s: %s of %s, %s\n' "$2" "${m_kind[$1]}" "${m_created[$1]}" "$3"
		return
	fi
	printf '{'
	json_member backup "$2"
	printf ', '
	json_member kind "${m_kind[$1]}"
	printf ', '
	json_member created "${m_created[$1]}"
	printf ', '
	json_member state "${3,,}"
	printf '}\n'
}

verify_chain() {
	local id bad=0 path
	lock "$chain" shared
	read_chain "$chain"
	bad=${#damaged_manifests[@]}
	sum_indexes "${backups[@]}"
	for id in "${backups[@]}"; do
		if verify_backup "$id"; then
			print_verdict "$id" "$chain/$id" good
		else
			print_verdict "$id" "$chain/$id" DAMAGED
			bad=$((bad + 1))
		fi
	done
	for path in "$chain"/[0-9]*.partial; do
		say "$path: of a backup that was interrupted"
	done
	[[ $bad -eq 0 ]]
}

# read_stream_head: the manifest of the next backup in standard input, as $manifest_id; fails at the end of it.
read_stream_head() {
	local line text=
	IFS= read -r line || {
		[[ -z $line ]] || fail "the stream ends in the middle"
		return 1
	}
	[[ $line == "$stream_head" ]] || fail "not what \`blksnap backup -\` writes"
	while IFS= read -r line && [[ $line != '}' ]]; do
		text+=$line$'\n'
		[[ ${#text} -lt 65536 ]] || break
	done
	read_manifest "$text$line" || fail "the stream is damaged: its manifest is not one"
}

# receive_streams TARGET [OPTION...]: all backups in standard input, one upon the other; TARGET may be empty.
receive_streams() {
	local target=$1 id before='' number=0 update=()
	shift
	stream_full=
	while read_stream_head; do
		number=$((number + 1))
		# Numbers mean nothing in a pipe: each is kept under one of its own.
		id=stream-$number
		move_manifest "$manifest_id" "$id"
		follows "$id" "$before" || fail "backup $number of the stream does not follow the one before it"
		copy "backup $number" receive "$@" "${update[@]}" "${m_size[$id]}" ${target:+"$target"} || return
		[[ -z $target || -b $target ]] || update=(--update)
		[[ ${m_kind[$id]} != full ]] || stream_full=$id
		before=$id
		[[ -n $target ]] || print_verdict "$id" "$id" good
	done
	[[ $number -gt 0 ]] || fail "there is no backup in standard input"
}

# move_manifest FROM TO
move_manifest() {
	local member
	for member in $manifest_members; do
		local -n members=m_$member
		# shellcheck disable=SC2034,SC2004 # a reference, to an associative one
		members[$2]=${members[$1]}
		unset "members[$1]"
	done
}

# follows ID BEFORE: a full, or what goes on with what was restored so far. An increment alone can only be verified.
follows() {
	local parent=$2
	[[ ${m_kind[$1]} != full ]] || return 0
	if [[ -z $parent ]]; then
		[[ $command == verify ]] || fail "this is an increment: its full, and what lies between, have to come before it"
		return 0
	fi
	# It may be a differential: whatever came after the full is overwritten by it.
	[[ ${m_kind[$1]} != differential ]] || parent=${stream_full:-$2}
	[[ ${m_parent_uuid[$1]} == "${m_uuid[$parent]}" && ${m_size[$1]} == "${m_size[$parent]}" ]]
}

usage_verify() {
	cat <<'END'
Usage: blksnap verify [--json] DIRECTORY
       blksnap verify [--json] -

Reads all backups in DIRECTORY (of one chain, or of all that are in it), or those that
come from standard input, and compares them with their checksums. Also looks whether
each has what it is built upon. Prints a line for each backup, and for damage the file
and block. With --json each line is an object. The driver is not needed.
Exit codes: 0 all are good; 1 something is damaged or missing; 2 wrong usage.
END
}

command_verify() {
	local status=0 chains=() path
	parse_options ' --json ' "$@"
	operands+=("${after[@]}")
	[[ ${#operands[@]} -eq 1 ]] || usage_error "verify takes one DIRECTORY"
	need_backup_tools
	if [[ ${operands[0]} == - ]]; then
		receive_streams ''
		return
	fi
	path=${operands[0]%/}
	[[ -d $path ]] || fail "no directory $path"
	for chain in "$path" "$path"/*; do
		for _ in "$chain"/[0-9]*.json; do
			chains+=("$chain")
			break
		done
	done
	[[ ${#chains[@]} -gt 0 ]] || fail "there is no backup in $path"
	for chain in "${chains[@]}"; do
		verify_chain || status=$exit_refused
	done
	return "$status"
}

# ---- blksnap restore ----

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

# restore_to TARGET COMMAND...: runs it with the path that is to be written to added: the device, or a file that gets its
# name when it is complete.
restore_to() {
	local target=$1
	shift
	if [[ -b $target ]]; then
		hold_device "$target"
		"$@" "$target" || fail "$target: not restored"
		return
	fi
	[[ ! -e $target && ! -L $target ]] || fail "$target exists already; a file is only restored to a new one"
	[[ -d $(dirname -- "$target") ]] || fail "no directory $(dirname -- "$target")"
	! among_devices "$target" || fail "no device $target, and a file is not restored to where devices are"
	[[ ! -e $target.partial ]] || fail "$target.partial exists: remove it, if no other restore is at work"
	partial_target=$target.partial
	trap 'rm -f -- "$partial_target"' EXIT
	"$@" "$target.partial" || fail "$target: not restored"
	mv -- "$target.partial" "$target"
	sync -- "$(dirname -- "$target")"
}

restore_chain() {
	copy "${chain##*/}" restore "${larger[@]}" "$1" "${m_size[$id]}" "${chain_files[@]}"
}

restore_streams() {
	receive_streams "$1" "${larger[@]}"
}

command_restore() {
	local id larger=()
	parse_options ' --at --larger ' "$@"
	operands+=("${after[@]}")
	[[ ${#operands[@]} -eq 2 ]] || usage_error "restore takes DIRECTORY and TARGET"
	[[ -z $opt_larger ]] || larger=(--larger)
	need_backup_tools
	if [[ ${operands[0]} == - ]]; then
		[[ -z $opt_at ]] || usage_error "--at is for directories"
		restore_to "${operands[1]}" restore_streams
		return
	fi
	find_chain "${operands[0]}"
	lock "$chain" shared
	read_chain "$chain"
	[[ ${#backups[@]} -gt 0 ]] || fail "there is no good backup in $chain"
	[[ -n $opt_at || ${#damaged_manifests[@]} -eq 0 ]] || fail "which is the last one is not known: name one with --at"
	backup_number "${opt_at:-${backups[-1]}}"
	chain_arguments "$id" || fail "$id cannot be restored; see: blksnap verify $chain"
	restore_to "${operands[1]}" restore_chain
}

# backup_number NUMBER: sets id to it as files are called, if there is such a backup.
backup_number() {
	id=$1
	[[ ! $id =~ ^[0-9]{1,9}$ ]] || printf -v id '%05d' $((10#$id))
	[[ -n $id && -n ${m_uuid[$id]:-} ]] || fail "there is no good backup '$1' in $chain"
}

# ---- blksnap merge ----

usage_merge() {
	cat <<'END'
Usage: blksnap merge DIRECTORY NUMBER

Makes a full of the backup NUMBER, and removes those before it which no other one needs.
DIRECTORY has the chain of one device. The full is made beside the old one, so there
has to be room for both. Whatever happens meanwhile, every backup that is there can be
restored; if it was interrupted, start it again.
Exit codes: 0 done; 1 refused or failed; 2 wrong usage.
END
}

# remove_older ID: the backups before it that none of the others needs, the last one first: what is left is always whole.
remove_older() {
	local id=$1 other needed=' ' i
	for other in "${backups[@]}"; do
		! older "$other" "$id" || continue
		chain_of "$other" || return
		needed+="${chain_ids[*]} "
	done
	for ((i = ${#backups[@]} - 1; i >= 0; i--)); do
		other=${backups[i]}
		older "$other" "$id" || continue
		if [[ $needed == *" $other "* ]]; then
			say "$chain/$other stays: a differential is built upon it"
			continue
		fi
		rm -f -- "$chain/$other.json"
		sync -- "$chain"
		rm -f -- "$chain/${m_data[$other]}" "$chain/${m_index[$other]}"
	done
}

merge_to_full() {
	local id=$1 data=$chain/$1.full old_data=$chain/${m_data[$1]} old_index=$chain/${m_index[$1]}
	chain_arguments "$id" || fail "$id cannot be made a full; see: blksnap verify $chain"
	rm -f -- "$data.index.partial" "$data.partial"
	copy "${chain##*/}" merge --heading "# blksnap merged ${m_uuid[$id]}" "$data.partial" "$data.index.partial" \
		"${m_size[$id]}" "${chain_files[@]}" || fail "$chain: nothing was merged"
	m_kind[$id]=full m_parent[$id]='' m_parent_uuid[$id]='' m_since[$id]=0
	m_data[$id]=$id.full m_index[$id]=$id.full.index
	publish "$id"
	rm -f -- "$old_data" "$old_index"
}

command_merge() {
	local id
	umask 077
	parse_options ' ' "$@"
	operands+=("${after[@]}")
	[[ ${#operands[@]} -eq 2 ]] || usage_error "merge takes DIRECTORY and NUMBER"
	need_backup_tools
	find_chain "${operands[0]}"
	lock "$chain" exclusive
	read_chain "$chain"
	[[ ${#damaged_manifests[@]} -eq 0 ]] || fail "$chain: nothing was merged"
	backup_number "${operands[1]}"
	[[ ${m_kind[$id]} == full ]] || merge_to_full "$id"
	remove_older "$id" || fail "$chain: older backups stay"
	printf '%s: full, %s\n' "$chain/$id" "$(room_of "$chain/${m_data[$id]}")"
}
