#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 16
# The tool, scripts/blksnap, on the driver: what it prints, what it returns, and that it leaves nothing half done.

load lib/common
load lib/devices
load lib/pages

setup() {
	# bats' own, of which LVM would complain.
	export LVM_SUPPRESS_FD_WARNINGS=1
	common_setup
}

teardown() {
	common_teardown
}

# --- helpers ---------------------------------------------------------------------------------------------------------

# nothing_left [SESSION...]: there are these sessions and no others.
nothing_left() {
	local now
	now=$(ls "$SESSIONS")
	[[ $now == "$(printf '%s\n' "$@" | sort)" ]] || fail "the sessions are: $now"
}

# json FILTER: what jq makes of the last output.
json() {
	jq -er "$1" <<<"$output"
}

# refused_by_tool TEXT COMMAND...: exit code 1, TEXT among the messages, nothing on stdout.
refused_by_tool() {
	local text=$1
	shift
	run -1 --separate-stderr "$@"
	# shellcheck disable=SC2154 # bats sets it
	[[ -z $output && $stderr == *"$text"* ]] || fail "$* says: $output $stderr"
}

# wrong_usage COMMAND...: exit code 2, or that in `code`.
wrong_usage() {
	run -"${code:-2}" --separate-stderr blksnap "$@"
	[[ -z $output && $stderr == *'--help'* ]] || fail "$* says: $output $stderr"
}

# journal_empty DEVICE: an ext4 that was frozen, and so needs no recovery; and that has no errors.
journal_empty() {
	local features
	features=$(dumpe2fs -h "$1" 2>/dev/null | grep '^Filesystem features') || return
	[[ $features != *needs_recovery* ]]
}

# frozen DIRECTORY: the ext4 that is mounted there is frozen now. It is only looked at: to try it would be in the way of
# whoever is about to freeze it.
frozen() {
	journal_empty "$(findmnt -n -o SOURCE "$1")"
}

# The command of `run` in these tests: says that it runs, and waits.
# shellcheck disable=SC2016 # for that shell
waiting='echo "$BLKSNAP_SESSION $BLKSNAP_IMAGES" >"$0"; exec sleep 300'

# run_in_background FILE COMMAND...: `blksnap run` of disk 1, that an interrupt can reach; its process in `tool`.
run_in_background() {
	local file=$1
	shift
	env --default-signal=INT blksnap run --diff "$(disk 2)" "$(disk 1)" -- "$@" >"$file" 2>&1 3>&- &
	tool=$!
}

# ended_with CODE FILE: what run_in_background has started, which has written FILE.
ended_with() {
	local code=0
	wait "$tool" || code=$?
	[[ $code -eq $1 ]] || fail "ended with $code: $(cat "$2")" || return
	! grep -i 'syntax error\|unexpected' "$2" || fail 'bash could not run a trap' || return
	nothing_left
}

# --- take, list, show, release ---------------------------------------------------------------------------------------

@test "tool: take prints the images, in the order of the devices; release removes all" {
	run -0 --separate-stderr blksnap take daily --diff "$(disk 2)" "$(disk 3)" /dev/disk/by-id/virtio-t1
	[[ ${#lines[@]} -eq 2 && -z $stderr ]]
	[[ ${lines[0]} == "/dev/blksnap/daily/$(basename "$(disk 3)")" ]]
	[[ ${lines[1]} == /dev/blksnap/daily/virtio-t1 ]]
	[[ ${lines[0]} -ef $(image_of daily "$(basename "$(disk 3)")") ]]
	[[ ${lines[1]} -ef $(image_of daily virtio-t1) ]]
	[[ $(cat "$SESSIONS/daily/virtio-t1/device") == /dev/disk/by-id/virtio-t1 ]]
	run -0 --separate-stderr blksnap release daily
	[[ -z $output && -z $stderr ]]
	nothing_left
	[[ ! -e /dev/blksnap ]]
}

@test "tool: names of snapshots are made of the devices" {
	local dir=$BATS_TEST_TMPDIR/x long
	long=$(printf 'n%.0s' {1..70})
	partition "$(disk 1)" 32M 32M
	dm_linear a "$(disk 3)" 8192 0
	dm_linear b "$(disk 3)" 8192 8192
	dm_linear c "$(disk 3)" 8192 16384
	mkdir "$dir"
	ln -s /dev/mapper/a "$dir/..strange, isn't it"
	ln -s /dev/mapper/b "$dir/t1"
	ln -s /dev/mapper/c "$dir/$long"
	ln -s "$(disk 5)" "$BATS_TEST_TMPDIR/t1"
	run -0 blksnap take s --diff "$(disk 2)" /dev/disk/by-id/virtio-t1-part1 /dev/disk/by-id/../by-id/virtio-t1-part2 \
		"$dir/..strange, isn't it" "$dir/t1" "$BATS_TEST_TMPDIR/t1" "$dir/$long"
	[[ $output == "/dev/blksnap/s/virtio-t1_part1
/dev/blksnap/s/virtio-t1_part2
/dev/blksnap/s/strange__isn_t_it
/dev/blksnap/s/t1
/dev/blksnap/s/t1_2
/dev/blksnap/s/${long:0:64}" ]]
	[[ $(cat "$SESSIONS/s/t1_2/device") == "$BATS_TEST_TMPDIR/t1" ]]
	[[ $(cat "$SESSIONS/s/strange__isn_t_it/device") == "$dir/..strange, isn't it" ]]
	blksnap release s
}

@test "tool: take, list and show print JSON" {
	local dir image
	run -0 blksnap list --json
	[[ $(json 'length') -eq 0 ]]
	mkfs.ext4 -q "$(disk 1)" 65536
	dir=$(mount_test "$(disk 1)" origin)
	run -0 --separate-stderr blksnap take s --json --diff="$(disk 2)" /dev/disk/by-id/virtio-t1 "$(disk 3)"
	image=$(image_of s virtio-t1)
	[[ $(json .session) == s && $(json .state) == active && $(json .active) == 1 && $(json .error) == '' ]]
	[[ $(json .diff_file) == "$(disk 2)" ]]
	json '.diff_size > 0 and .diff_used >= 0 and (.hold_us | type) == "number" and (.snapshots | length) == 2' >/dev/null
	run -0 jq -c '.snapshots[] | select(.snapshot == "virtio-t1") | [.image, .link, .state, .chunk_size]' <<<"$output"
	[[ $output == "[\"$image\",\"/dev/blksnap/s/virtio-t1\",\"active\",4096]" ]]
	run -0 blksnap show s --json
	[[ $(json '.snapshots[] | select(.snapshot == "virtio-t1") | .frozen[]') == "$(major_minor "$(disk 1)")" ]]
	[[ $(json '.snapshots[] | select(.snapshot != "virtio-t1") | .frozen | length') == 0 ]]
	[[ $(json '.snapshots[] | select(.snapshot == "virtio-t1") | .statistics.chunks') -eq $(stat_of "$image" chunks) ]]
	umount "$dir"
	[[ $(json '.session, .state') == $'s\nactive' && $(json '.snapshots | length') -eq 2 ]]
	[[ $(json '.snapshots[].statistics.session') == $'s\ns' ]]
	mkdir "$SESSIONS/empty"
	run -0 blksnap list --json
	[[ $(json 'map(.session) | sort | join(" ")') == 'empty s' ]]
	[[ $(json '.[] | select(.session == "s") | .state, (.snapshots | length)') == $'active\n2' ]]
	[[ $(json '.[] | select(.session == "empty") | .state, (.snapshots | length)') == $'configured\n0' ]]
	blksnap release --all
	nothing_left
}

@test "tool: list and show, for the eye; release of some and of all" {
	run -0 blksnap list
	[[ -z $output ]]
	blksnap take a --diff "$(disk 2)" "$(disk 1)" "$(disk 3)"
	blksnap take b --diff "$(disk 4)" "$(disk 1)"
	run -0 blksnap list
	[[ ${#lines[@]} -eq 2 ]]
	[[ ${lines[0]} =~ ^a\ +active\ +$(basename "$(disk 1)"),$(basename "$(disk 3)")\ .*/.* ]]
	[[ ${lines[1]} =~ ^b\ +active\ +$(basename "$(disk 1)")\ .*/.* ]]
	run -0 blksnap show b
	[[ ${lines[0]} == 'session b' ]]
	grep -Eqx " +device +$(disk 1)" <<<"$output"
	grep -Eqx " +link +/dev/blksnap/b/$(basename "$(disk 1)")" <<<"$output"
	grep -Eq ' +chunks_preserved +[0-9]+' <<<"$output"
	# One of them does not exist: none is released.
	refused_by_tool "no session 'c'" blksnap release b c
	nothing_left a b
	refused_by_tool "no session 'c'" blksnap show c
	blksnap release b
	nothing_left a
	blksnap take b --diff "$(disk 4)" "$(disk 1)"
	blksnap release --all
	nothing_left
	blksnap release --all
}

@test "tool: wrong usage and a missing driver have exit codes of their own" {
	local code
	run -0 blksnap --help
	[[ $output == *Usage:* ]]
	run -0 blksnap run --help
	[[ $output == *"Usage: blksnap run"* ]]
	run -2 blksnap
	wrong_usage unknown
	wrong_usage take
	wrong_usage take s
	wrong_usage take s --diff
	wrong_usage take s "$(disk 1)"
	wrong_usage take s --diff "$(disk 2)"
	wrong_usage take .s --diff "$(disk 2)" "$(disk 1)"
	wrong_usage take s-part1 --diff "$(disk 2)" "$(disk 1)"
	wrong_usage list s
	wrong_usage release
	wrong_usage release --all s
	code=125 wrong_usage run --diff "$(disk 2)" "$(disk 1)"
	code=125 wrong_usage run --diff "$(disk 2)" -- true
	nothing_left
	module_unload
	run -3 blksnap list
	run -125 blksnap run --diff "$(disk 2)" "$(disk 1)" -- true
}

# --- refusals --------------------------------------------------------------------------------------------------------

@test "tool: a refusal undoes everything and prints the driver's error" {
	local before switch=/proc/sys/kernel/ftrace_enabled
	before=$(own_images)
	refused_by_tool 'ENOENT: ' blksnap take s --diff "$(disk 2)" /dev/nothing
	nothing_left
	refused_by_tool 'ENOTBLK: ' blksnap take s --diff "$(disk 2)" "$(disk 1)" /tmp
	nothing_left
	refused_by_tool 'ENOENT: ' blksnap take s --diff /nowhere/diff "$(disk 1)"
	nothing_left
	refused_by_tool 'diff_limit = much: ' blksnap take s --diff "$(disk 2)" --limit much "$(disk 1)"
	nothing_left
	refused_by_tool 'a value with a newline' blksnap take s --diff "$(disk 2)" $'/dev/nothing\n'"$(disk 1)"
	nothing_left
	# shellcheck disable=SC2016 # for sh
	refused_by_tool 'write error' sh -c 'exec blksnap take s --diff "$1" "$2" >/dev/full' _ "$(disk 2)" "$(disk 1)"
	nothing_left
	mkfs.ext4 -q "$(disk 4)" 65536
	mount_test "$(disk 4)" diff
	refused_by_tool 'EBUSY: ' blksnap take s --diff "$(disk 4)" "$(disk 1)"
	[[ $stderr == *'it is in use'* ]]
	nothing_left
	# By Linux 7.3 it cannot be switched off.
	defer put "$switch" 1
	if put "$switch" 0; then
		refused_by_tool 'ftrace_enabled is 0' blksnap take s --diff "$(disk 2)" "$(disk 1)"
		[[ $stderr != *'in use'* ]] || fail "$stderr"
		nothing_left
		put "$switch" 1
	fi
	run -125 --separate-stderr blksnap run --diff "$(disk 4)" "$(disk 1)" -- touch "$BATS_TEST_TMPDIR/begun"
	[[ $stderr == *'EBUSY: '* && ! -e $BATS_TEST_TMPDIR/begun ]]
	nothing_left
	# Beside another session, which stays as it is.
	blksnap take t --diff "$(disk 2)" "$(disk 3)"
	refused_by_tool 'exists already' blksnap take t --diff "$(disk 5)" "$(disk 1)"
	refused_by_tool 'EEXIST: ' blksnap take s --diff "$(disk 5)" "$(disk 1)" /dev/disk/by-id/virtio-t1
	refused_by_tool 'EBUSY: ' blksnap take s --diff "$(disk 2)" "$(disk 1)"
	nothing_left t
	[[ $(session_get t state) == active ]]
	blksnap release t
	[[ $(own_images) == "$before" ]]
}

own_images() {
	find /sys/block -name 'blksnap*'
}

# --- run -------------------------------------------------------------------------------------------------------------

@test "tool: run returns the command's status, and releases" {
	local name
	name=$(basename "$(disk 1)")
	# shellcheck disable=SC2016 # for the command
	run -7 --separate-stderr blksnap run --diff "$(disk 2)" "$(disk 1)" "$(disk 3)" -- \
		sh -c 'cat; echo "$BLKSNAP_IMAGES"; cat "$0/$BLKSNAP_SESSION/state"; test -b ${BLKSNAP_IMAGES% *} && exit 7' \
		"$SESSIONS" < <(echo input)
	[[ ${lines[0]} == input && ${lines[2]} == active ]]
	[[ ${lines[1]} =~ ^/dev/blksnap/run-[^/]*/$name\ /dev/blksnap/run-[^/]*/$(basename "$(disk 3)")$ ]]
	nothing_left
	[[ ! -e /dev/blksnap ]]
	# It has the language of who has called.
	# shellcheck disable=SC2016 # for the command
	run -0 env LC_ALL=C.UTF-8 blksnap run --diff "$(disk 2)" "$(disk 1)" -- sh -c 'echo "${LC_ALL-none}"'
	[[ $output == C.UTF-8 ]]
	# shellcheck disable=SC2016 # for the command
	run -0 env -u LC_ALL blksnap run --diff "$(disk 2)" "$(disk 1)" -- sh -c 'echo "${LC_ALL-none}"'
	[[ $output == none ]]
	nothing_left
	run -127 blksnap run --diff "$(disk 2)" "$(disk 1)" -- /nowhere/program
	mkdir "$BATS_TEST_TMPDIR/a=b"
	ln -s /bin/echo "$BATS_TEST_TMPDIR/a=b/echo"
	run -0 blksnap run --diff "$(disk 2)" "$(disk 1)" -- "$BATS_TEST_TMPDIR/a=b/echo" 'one  two'
	[[ $output == 'one  two' ]]
	nothing_left
	# shellcheck disable=SC2016 # for the command
	run -137 blksnap run --diff "$(disk 2)" "$(disk 1)" -- sh -c 'kill -KILL $$'
	nothing_left
}

# Bash forgets a coprocess that has ended, also before it was asked where that is to be read.
@test "tool: run returns the status of a command that ends at once, and before it is looked for" {
	cat >"$BATS_TEST_TMPDIR/once" <<-'END'
		set -euTo pipefail
		. "$1"
		declare -A signal_status=([HUP]=129 [INT]=130 [PIPE]=141 [TERM]=143)
		callers_language=(--) signal='' exit_refused=1 after=(sh -c 'exit 7')
		trap '[[ $BASH_COMMAND != "exec {answers}"* ]] || sleep 1' DEBUG
		run_in_session
		exit "$child_status"
	END
	run -7 bash "$BATS_TEST_TMPDIR/once" /blksnap/scripts/lib/run.bash
}

@test "tool: run passes INT, TERM and HUP on to the command, and releases" {
	local said=$BATS_TEST_TMPDIR/said begun=$BATS_TEST_TMPDIR/begun signal
	for signal in INT=130 TERM=143 HUP=129; do
		rm -f "$begun"
		run_in_background "$said" sh -c "$waiting" "$begun"
		wait_until 60 test -s "$begun"
		kill -s "${signal%=*}" "$tool"
		ended_with "${signal#*=}" "$said"
	done
	# The command may have its own opinion.
	rm -f "$begun"
	# shellcheck disable=SC2016 # for that shell
	run_in_background "$said" sh -c 'trap "exit 9" TERM; echo >"$0"; while :; do sleep 0.2; done' "$begun"
	wait_until 60 test -s "$begun"
	kill -s TERM "$tool"
	ended_with 9 "$said"
}

@test "tool: a signal at whatever moment of run leaves nothing behind" {
	local said=$BATS_TEST_TMPDIR/said i signals=(TERM HUP INT) codes=(143 129 130)
	for i in {0..3}; do
		run_in_background "$said" sleep 300
		wait_until 60 traps_signals "$tool"
		sleep "$i.$((i * 3))"
		kill -s "${signals[i % 3]}" "$tool"
		ended_with "${codes[i % 3]}" "$said"
	done
	[[ ! -e /dev/blksnap ]]
}

@test "tool: a session of run that was killed is released before the next take, when its command has ended" {
	local said=$BATS_TEST_TMPDIR/said begun=$BATS_TEST_TMPDIR/begun session command
	# shellcheck disable=SC2016 # for that shell
	run_in_background "$said" sh -c 'echo "$BLKSNAP_SESSION $$" >"$0"; exec sleep 300' "$begun"
	wait_until 60 test -s "$begun"
	read -r session command <"$begun"
	kill -KILL "$tool"
	wait "$tool" || true
	# What it has started may still read. A session that was taken by that command stays, whatever its name is.
	blksnap take run-1-1 --diff "$(disk 4)" "$(disk 3)"
	nothing_left "$session" run-1-1
	run -125 blksnap run --diff "$(disk 2)" "$(disk 1)" -- true
	[[ $output == *'EBUSY: '* ]]
	kill "$command"
	wait_until 10 flock --nonblock "/run/blksnap/$session" true
	run -0 --separate-stderr blksnap run --diff "$(disk 2)" "$(disk 1)" -- true
	[[ $stderr == *"session '$session' is left over from a blksnap that was killed: released"* ]]
	nothing_left run-1-1
	blksnap release run-1-1
	# Nothing is left of those that were refused or ended, either.
	[[ -z $(ls /run/blksnap) ]]
}

# traps_signals PROCESS: it has become the tool, and traps INT (bit 1), TERM (bit 14) and HUP (bit 0), as that does when it
# begins to take.
traps_signals() {
	local mask
	grep -qa scripts/blksnap "/proc/$1/cmdline" || return
	mask=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$1/status")
	[[ $((16#$mask & 0x4003)) -eq $((0x4003)) ]]
}

@test "tool: a signal to take: there is a session, or exit code 130 and none" {
	local i code said=$BATS_TEST_TMPDIR/said tool
	for i in 0 2; do
		env --default-signal=INT blksnap take s --diff "$(disk 2)" "$(disk 1)" >"$said" 2>&1 3>&- &
		tool=$!
		wait_until 60 traps_signals "$tool"
		sleep "$i"
		# It may have ended before that.
		kill -s INT "$tool" 2>/dev/null || true
		code=0
		wait "$tool" || code=$?
		if [[ $code -eq 0 ]]; then
			[[ $(session_get s state) == active ]]
			blksnap release s
		else
			[[ $code -eq 130 ]] || fail "ended with $code: $(cat "$said")"
		fi
		nothing_left
	done
}

# --- file systems above an origin ------------------------------------------------------------------------------------

# An ext4 on a logical volume of disk 1, at its first extent: mounted on $dir, which mountinfo writes otherwise.
lv_of_disk_1() {
	vgcreate -q -q testvg "$(disk 1)"
	defer vgremove -q -q -ff -y testvg
	lvcreate -q -q -y -L 64M -n lv testvg
	mkfs.ext4 -q /dev/testvg/lv
	dir=$(mount_test /dev/testvg/lv 'a 1\2')
	defer umount "$dir"
	start=$(pvs --noheadings --nosuffix --units s -o pe_start "$(disk 1)" | tr -d ' ')
}

@test "tool: a file system on an LV of a tracked disk is frozen for the take, and thawed" {
	local dir start
	lv_of_disk_1
	echo before >"$dir/file"
	# Mounts that came later, and by which it cannot be frozen: a file, and a place that another file system hides.
	touch /mnt/test-file
	mount --bind "$dir/file" /mnt/test-file
	mount_test /dev/testvg/lv hidden
	mount -t tmpfs none /mnt/test-hidden
	run -0 --separate-stderr blksnap take s --diff "$(disk 2)" "$(disk 1)"
	[[ -z $stderr ]]
	umount /mnt/test-file /mnt/test-hidden /mnt/test-hidden
	rm /mnt/test-file
	# Thawed: it can be written to.
	echo after >"$dir/file"
	timeout 10 sync -f "$dir"
	[[ -z $(cat "$SESSIONS/s/$(basename "$(disk 1)")/frozen") ]]
	dmsetup create image-lv --table "0 131072 linear $output $start"
	journal_empty /dev/mapper/image-lv
	e2fsck -fn /dev/mapper/image-lv
	mkdir -p /mnt/test-image
	mount -o ro /dev/mapper/image-lv /mnt/test-image
	[[ $(cat /mnt/test-image/file) == before ]]
	umount /mnt/test-image
	dmsetup remove --retry image-lv
	blksnap release s
	# The twin: the driver by itself does not know that there is one.
	echo more >"$dir/file"
	sync -f "$dir"
	session_of "$(disk 2)" "$(disk 1)"
	dmsetup create image-lv --table "0 131072 linear $(image_of s s1) $start"
	run ! journal_empty /dev/mapper/image-lv
	dmsetup remove --retry image-lv
	session_destroy s
}

@test "tool: what was frozen is thawed when the take is refused, or when a signal comes" {
	local dir start writer tool code passed said=$BATS_TEST_TMPDIR/said
	echo 4000 >/sys/module/blksnap/parameters/take_timeout_ms
	lv_of_disk_1
	# An origin with a write that does not end: a take waits for it, and is refused in the end. It was let pass, since
	# what it overwrites is preserved.
	dm_linear slow "$(disk 3)" 65536
	session_of "$(disk 2)" /dev/mapper/slow
	dd if=/dev/urandom of=/dev/mapper/slow bs=4096 count=1 oflag=direct status=none
	# Or else udev may be reading it when it is suspended, and the next write wait for that page.
	settle
	dmsetup suspend --nolockfs --noflush slow
	defer dmsetup resume slow
	passed=$(stat_of "$(image_of s s1)" writes_passed)
	dd if=/dev/urandom of=/dev/mapper/slow bs=4096 count=1 oflag=direct status=none 3>&- &
	writer=$!
	wait_until 20 has_passed_more "$(image_of s s1)" "$passed"
	blksnap take t --diff "$(disk 4)" "$(disk 1)" /dev/mapper/slow >"$said" 2>&1 3>&- &
	tool=$!
	wait_until 60 frozen "$dir"
	code=0
	wait "$tool" || code=$?
	[[ $code -eq 1 ]] || fail "ended with $code: $(cat "$said")"
	grep -q 'ETIMEDOUT: ' "$said"
	run ! frozen "$dir"
	nothing_left s
	echo written >"$dir/file"
	timeout 10 sync -f "$dir"
	# The same with a signal while it waits.
	env --default-signal=INT blksnap run --diff "$(disk 4)" "$(disk 1)" /dev/mapper/slow -- sleep 300 \
		>"$said" 2>&1 3>&- &
	tool=$!
	wait_until 60 frozen "$dir"
	kill -INT "$tool"
	dmsetup resume slow
	code=0
	wait "$tool" || code=$?
	[[ $code -eq 130 ]] || fail "ended with $code: $(cat "$said")"
	run ! frozen "$dir"
	wait "$writer"
	nothing_left s
	session_destroy s
}

@test "tool: watch prints the events of a session, as they come, for the eye and as JSON" {
	local all=$BATS_TEST_TMPDIR/all one=$BATS_TEST_TMPDIR/one eye=$BATS_TEST_TMPDIR/eye before time times
	echo 4M >/sys/module/blksnap/parameters/memory_limit
	dm_linear small "$(disk 2)" 24576
	dm_linear large "$(disk 2)" 131072 65536
	blksnap take s --diff /dev/mapper/small "$(disk 1)"
	blksnap take t --diff /dev/mapper/large "$(disk 1)"
	env --default-signal=INT blksnap watch --json >"$all" 3>&- &
	defer end_background $!
	env --default-signal=INT blksnap watch t >"$one" 3>&- &
	defer end_background $!
	env --default-signal=INT blksnap watch s >"$eye" 3>&- &
	defer end_background $!
	sleep 2
	before=$(date +%s)
	dd if=/dev/zero of="$(disk 1)" bs=1M count=32 oflag=direct conv=notrunc status=none
	wait_until 20 grep -q '"event": "overflow"' "$all"
	run -0 jq -r 'select(.event == "overflow") | "\(.session)/\(.snapshot) \(.origin)"' "$all"
	[[ $output == "s/$(basename "$(disk 1)") $(major_minor "$(disk 1)")" ]]
	run -0 jq -r 'select(.event == "low_space") | .session' "$all"
	[[ $output == s* ]]
	run ! grep -q ' s/' "$one"
	wait_until 20 grep -q ': overflow$' "$eye"
	# When, which session, which origin, and what, in one line.
	run -0 grep ': overflow$' "$eye"
	[[ $output =~ ^([^ ]+)\ s/$(basename "$(disk 1)")\ \($(major_minor "$(disk 1)")\):\ overflow$ ]] || fail "$output"
	times=("${BASH_REMATCH[1]}" "$(jq -r 'select(.event == "overflow") | .time' "$all")")
	for time in "${times[@]}"; do
		[[ $time =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{4}$ ]] || fail "the time is $time"
		[[ $(date -d "$time" +%s) -ge $before && $(date -d "$time" +%s) -le $(date +%s) ]] || fail "the time is $time"
	done
	blksnap release --all
	# A tracker's, which is not one of a session.
	dm_linear tracked "$(disk 3)" 8192
	blksnap track /dev/mapper/tracked
	dm_switch tracked "0 4096 linear $(disk 3) 0"
	wait_until 20 grep -q '"event": "lost"' "$all"
	run -0 jq -r 'select(.event == "lost") | .tracker, .origin, .session' "$all"
	[[ $output == $'tracked\n'"$(major_minor /dev/mapper/tracked)"$'\nnull' ]]
	run ! grep -q 'lost' "$one"
	blksnap track --off /dev/mapper/tracked
	run -2 blksnap watch a b
	run -1 blksnap watch nowhere
}

# told_of_low_space TIMES: in the kernel's log.
told_of_low_space() {
	[[ $(log_since | grep -c 'blksnap: s: low_space: ') -eq $1 ]]
}

# shellcheck disable=SC2034 # of lib/pages
PAGE=/blksnap/docs/admin.md

@test "admin.md: a rule that raises the limit when space is low, once" {
	local dir
	echo 4M >/sys/module/blksnap/parameters/memory_limit
	mkfs.ext4 -q "$(disk 2)"
	dir=$(mount_test "$(disk 2)" diff)
	mkdir -p /run/udev/rules.d
	page_block 'Sizing the difference storage' udev >/run/udev/rules.d/99-test-low-space.rules
	defer rm /run/udev/rules.d/99-test-low-space.rules
	udevadm control --reload
	blksnap take s --diff "$dir/diff" --limit 64M "$(disk 1)"
	dd if=/dev/zero of="$(disk 1)" bs=1M count=50 oflag=direct conv=notrunc status=none
	wait_until 30 grep -qx $((300 << 30)) "$SESSIONS/s/diff_limit"
	dd if=/dev/zero of="$(disk 1)" bs=1M count=200 oflag=direct conv=notrunc status=none
	[[ $(session_get s state) == active ]]
	# The file system has not as much as that: this is said once more, and not again and again.
	wait_until 30 told_of_low_space 2
	sleep 2
	settle
	told_of_low_space 2
	blksnap release s
}

@test "tool: track, and what changed since an earlier snapshot" {
	local image first
	image=/dev/blksnap/s/$(basename "$(disk 1)")
	blksnap track "$(disk 1)"
	run -0 blksnap track "$(disk 1)"
	blksnap take s --diff "$(disk 2)" "$(disk 1)"
	run -0 blksnap changed "$image"
	[[ -z $output ]]
	first=$(cat "/sys/class/block/$(basename "$(readlink -e "$image")")/cbt/number")
	dd if=/dev/zero of="$(disk 1)" bs=64k count=2 oflag=direct conv=notrunc status=none
	dd if=/dev/zero of="$(disk 1)" bs=4096 seek=1000 count=1 oflag=direct conv=notrunc status=none
	dd if=/dev/zero of="$(disk 1)" bs=4096 seek=262143 count=1 oflag=direct conv=notrunc status=none
	blksnap release s
	blksnap take s --diff "$(disk 2)" "$(disk 1)"
	run -0 blksnap changed --since "$first" "$image"
	[[ $output == $'0 131072\n4063232 65536\n1073676288 65536' ]]
	run -0 blksnap changed --json --since "$first" "$image"
	jq -e '.ranges == [[0, 131072], [4063232, 65536], [1073676288, 65536]] and .since == 1 and .number == 2' <<<"$output"
	run -1 blksnap changed --since 2 "$image"
	run -2 blksnap changed --since x "$image"
	run -1 blksnap changed "$(disk 2)"
	blksnap release s
	blksnap track --off "$(disk 1)"
	[[ -z $(ls "$TRACKERS") ]]
	run -1 blksnap track --off "$(disk 1)"
	run -1 blksnap track "$(disk 2)" /nowhere
	[[ $(ls "$TRACKERS") == "$(basename "$(disk 2)")" ]]
	blksnap track --off "$(disk 2)"
}

@test "tool: track: a tracker that is lost, or has another device by now, is none; names are found" {
	local a=/dev/mapper/a b=/dev/mapper/b
	dm_linear b "$(disk 1)" 8192
	dmsetup rename b a
	settle
	blksnap track $a
	# What was a is b now, and is still tracked.
	dmsetup rename a b
	dm_linear a "$(disk 3)" 8192
	settle
	blksnap track $a
	[[ $(cat "$TRACKERS"/{a,a_2}/state) == $'tracking\ntracking' ]]
	blksnap track $a $b "$(disk 5)"
	[[ $(ls "$TRACKERS") == $'a\na_2\n'"$(basename "$(disk 5)")" ]]
	blksnap track --off $a "$(disk 5)"
	run -1 blksnap track --off $a
	[[ $output == *"$a is not tracked"* && $(ls "$TRACKERS") == a ]]
	# One that is lost is used again.
	dm_switch b "0 4096 linear $(disk 1) 0"
	[[ $(cat "$TRACKERS/a/state") == lost ]]
	blksnap track $b
	[[ $(cat "$TRACKERS/a/state" "$TRACKERS/a/device") == $'tracking\n'$b ]]
	blksnap track --off $b
	[[ -z $(ls "$TRACKERS") ]]
}

@test "tool: what was written through an image is listed, and is in no change map" {
	local image=/dev/blksnap/s/origin dev=/dev/mapper/origin
	# The last granule is one of 512 bytes.
	dm_linear origin "$(disk 1)" 2097001
	blksnap track "$dev"
	blksnap take s --diff "$(disk 2)" "$dev"
	run -0 blksnap changed --written "$image"
	[[ -z $output ]]
	run -0 blksnap changed --written --json "$image"
	json '.chunk_size == 4096 and .ranges == []'
	dd if=/dev/urandom of="$image" bs=4096 count=2 seek=3 oflag=direct conv=notrunc status=none
	dd if=/dev/urandom of="$image" bs=512 count=1 seek=8000 oflag=direct conv=notrunc status=none
	# A whole byte of the file; and where a reader gets its second piece.
	dd if=/dev/urandom of="$image" bs=4096 count=16 seek=8192 oflag=direct conv=notrunc status=none
	dd if=/dev/urandom of="$image" bs=4096 count=2 seek=32767 oflag=direct conv=notrunc status=none
	dd if=/dev/urandom of="$image" bs=512 count=1 seek=2097000 oflag=direct conv=notrunc status=none
	# The same ones again, and one beside them. What is written to the origin is not meant.
	dd if=/dev/urandom of="$image" bs=4096 count=2 seek=4 oflag=direct conv=notrunc status=none
	dd if=/dev/urandom of="$dev" bs=4096 count=1 seek=50 oflag=direct conv=notrunc status=none
	run -0 blksnap changed --written "$image"
	[[ $output == $'12288 12288\n4096000 4096\n33554432 65536\n134213632 8192\n1073664000 512' ]]
	[[ $(stat_of "$(image_of s origin)" chunks_written) -eq $((3 + 1 + 16 + 2 + 1)) ]]
	run -0 blksnap changed --written --json "$image"
	json '.ranges == [[12288, 12288], [4096000, 4096], [33554432, 65536], [134213632, 8192], [1073664000, 512]]'
	run -0 blksnap changed "$image"
	[[ -z $output ]]
	run -0 blksnap show s
	[[ $output != *' written '* ]]
	blksnap release s
	# The next one knows of the write to the origin alone.
	blksnap take s --diff "$(disk 2)" "$dev"
	run -0 blksnap changed --since 1 "$image"
	[[ $output == '196608 65536' ]]
	run -0 blksnap changed --written "$image"
	[[ -z $output ]]
	refused_by_tool 'is not an image' blksnap changed --written "$(disk 2)"
	refused_by_tool 'is not an image' blksnap changed --written /dev/null
	wrong_usage changed --written --since 1 "$image"
	blksnap release s
	# It does not need a tracker.
	blksnap track --off "$dev"
	blksnap take s --diff "$(disk 2)" "$dev"
	dd if=/dev/urandom of="$image" bs=4096 count=1 oflag=direct conv=notrunc status=none
	run -0 blksnap changed --written "$image"
	[[ $output == '0 4096' ]]
	blksnap release s
}
