#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0
# Seconds a test: 22
# Life and end: module, sessions and images come and go under load, and each ends when its last user is gone.

# shellcheck disable=SC2030,SC2031 # each test is a subshell, and so are its variables
load lib/common
load lib/devices
load lib/refusals
load lib/stamped

setup() {
	common_setup
}

teardown() {
	common_teardown
}

# load_on DEVICE [FIO-OPTION...]: random writes to its first 32 MiB, direct and buffered, until the end of the test; PID
# in LOAD.
load_on() {
	background fio --filename="$1" --size=16M --rw=randwrite --bs=4k --ioengine=psync --time_based --runtime=600 \
		--thread --output="$BATS_TEST_TMPDIR/fio" \
		--name=direct --direct=1 --name=buffered --direct=0 --offset=16M --fsync=64
	LOAD=$BACKGROUND
	wait_until 20 load_has_begun "$(awk '{ print $5 }' "/sys/block/${1##*/}/stat")" "$1"
}

load_has_begun() {
	[[ $(awk '{ print $5 }' "/sys/block/${2##*/}/stat") -gt $(($1 + 20)) ]]
}

load_end() {
	kill -0 "$LOAD" || fail "the load has ended by itself: $(cat "$BATS_TEST_TMPDIR/fio")"
	end_background "$LOAD"
	[[ $(grep -Ec 'err= *[1-9]' "$BATS_TEST_TMPDIR/fio") -eq 0 ]] || fail "$(cat "$BATS_TEST_TMPDIR/fio")"
}

# life ROUND ORIGIN DIFF: a whole one, of module and session; reads the image in every third.
life() {
	{ module_loaded || module_load; } && session_make s "$3" "$2" && put "$SESSIONS/s/active" 1 || return
	[[ $(($1 % 3)) -ne 0 ]] || dd if="$(image_of s s1)" of=/dev/null bs=64K count=16 status=none || return
	put "$SESSIONS/s/active" 0 && rmdir "$SESSIONS/s/s1" "$SESSIONS/s" && module_unload
}

@test "life: fifty times loaded, taken, released, unloaded, under load" {
	local round
	load_on "$(disk 1)"
	for round in $(seq "$(rounds 50)"); do
		common_untraced life "$round" "$(disk 1)" "$(disk 2)"
	done
	load_end
	module_load
}

@test "life: taken and released many times in one module's life, under load" {
	local round
	load_on "$(disk 1)"
	session_make s "$(disk 2)" "$(disk 1)"
	for round in $(seq "$(rounds 30)"); do
		put "$SESSIONS/s/active" 1
		put "$SESSIONS/s/active" 0
	done
	load_end
	session_destroy s
}

@test "life: released while the image is open: EIO, and the module goes after the last close" {
	local image
	filled "$(disk 1)" --length 4M
	session_of "$(disk 2)" "$(disk 1)"
	image=$(image_of s s1)
	exec 9<"$image"
	head -c 4096 <&9 | cmp -n 4096 - "$(disk 1)"
	session_destroy s
	[[ ! -e $image ]]
	refuses EIO dd of=/dev/null bs=4096 count=1 skip=100 iflag=direct status=none <&9
	refuses EIO dd of=/dev/null bs=4096 count=1 skip=100000 status=none <&9
	run ! rmmod blksnap
	exec 9<&-
	module_unload
	module_load
}

@test "life: an image that is still open, and the next one" {
	local image
	session_of "$(disk 2)" "$(disk 1)"
	image=$(image_of s s1)
	exec 9<"$image"
	session_release s
	session_take s
	[[ $(image_of s s1) != "$image" ]]
	cmp -n 4096 "$(image_of s s1)" "$(disk 1)"
	exec 9<&-
	session_destroy s
}

@test "life: released while the image is read and the origin is written" {
	local image round reader code bytes size
	size=$(blockdev --getsize64 "$(disk 1)")
	load_on "$(disk 1)"
	session_make s "$(disk 2)" "$(disk 1)"
	for round in 1 2 3 4; do
		session_take s
		image=$(image_of s s1)
		background dd if="$image" of=/dev/null bs=64K iflag=direct 2>"$BATS_TEST_TMPDIR/dd"
		reader=$BACKGROUND
		background cat "$image" >/dev/null 2>&1
		sleep 0.5
		put "$SESSIONS/s/active" 0
		code=0
		wait "$reader" || code=$?
		if [[ $code -eq 0 ]]; then
			# It came while the disk was being taken away, and found its end there (docs/admin.md).
			read -r bytes _ < <(grep ' bytes ' "$BATS_TEST_TMPDIR/dd")
			[[ $bytes -lt $size ]] || fail 'read to its end'
		else
			[[ $code -eq 1 ]] || fail "the reader has ended with $code"
			grep -q 'Input/output error' "$BATS_TEST_TMPDIR/dd"
		fi
		wait "$BACKGROUND" || true
	done
	load_end
	session_destroy s
}

image_was_written() {
	[[ $(stat_of "$1" chunks_written) -gt 20 ]]
}

@test "life: released while the image is written: its writer is told, and the origin has nothing of it (I7)" {
	local image round writer code
	filled "$(disk 1)" --length 16M
	session_make s "$(disk 2)" "$(disk 1)"
	for round in 1 2 3; do
		session_take s
		image=$(image_of s s1)
		background dd if=/dev/zero of="$image" bs=4K count=4096 oflag=direct conv=notrunc,nocreat status=none \
			2>"$BATS_TEST_TMPDIR/dd"
		writer=$BACKGROUND
		wait_until 10 image_was_written "$image"
		put "$SESSIONS/s/active" 0
		code=0
		wait "$writer" || code=$?
		[[ $code -eq 1 ]] || fail "not refused, but ended with $code"
		# Or there is no disk any more.
		grep -Eq 'Input/output error|No space left on device' "$BATS_TEST_TMPDIR/dd"
	done
	stamp verify "$(disk 1)" --seed "$SEED" --seq 1 --length 16M
	session_destroy s
}

@test "life: released while the image is mounted (lesson 11)" {
	local dev
	dev=$(disk 5)
	mkfs.ext4 -q "$dev"
	mount_test "$dev" fs
	cp /usr/bin/bash /mnt/test-fs/small
	dd if=/dev/urandom of=/mnt/test-fs/large bs=1M count=16 status=none
	session_of "$(disk 2)" "$dev"
	mount_test "$(image_of s s1)" image ro,noload
	cmp /usr/bin/bash /mnt/test-image/small
	session_destroy s
	refuses EIO cat /mnt/test-image/large
	umount /mnt/test-image
	cmp /usr/bin/bash /mnt/test-fs/small
	umount /mnt/test-fs
	e2fsck -fn "$dev"
	module_unload
	module_load
}

@test "life: released while a partition of the image is mounted" {
	local dev
	dev=$(disk 5)
	partition "$dev" 64M
	mkfs.ext4 -q "$(part "$dev" 1)"
	session_of "$(disk 2)" "$dev"
	mount_test "$(image_of s s1)p1" image ro,noload
	session_destroy s
	umount /mnt/test-image
	module_unload
	module_load
}

@test "life: I1 I2: writers killed in the middle (lesson 5)" {
	local dev mode round
	dev=$(disk 1)
	filled "$dev" --length 16M
	session_of "$(disk 2)" "$dev"
	for mode in direct mix nowait buffered; do
		for round in 1 2; do
			background stamp storm "$dev" - --seed "$SEED" --taken-seq 1 --length 16M --seconds 60 --writers 8 \
				--mode "$mode" --max-size 1M
			sleep 0.7
			kill -KILL "$BACKGROUND"
			wait "$BACKGROUND" || true
		done
	done
	sync "$dev"
	[[ $(session_get s state) == active ]]
	image_is "$(image_of s s1)" --length 16M
	consistent "$(image_of s s1)"
	session_destroy s
}

# cycle NAME SECONDS DIFF DEVICE...: makes, takes, reads, releases and destroys, for so long and twice at least; prints how often.
cycle() {
	local name=$1 end=$((SECONDS + $2)) diff=$3 rounds=0
	shift 3
	set -e
	while [[ $SECONDS -lt $end || $rounds -lt 2 ]]; do
		session_make "$name" "$diff" "$@"
		put "$SESSIONS/$name/active" 1
		dd if="$(image_of "$name" s1)" of=/dev/null bs=64K count=4 iflag=direct status=none
		put "$SESSIONS/$name/active" 0
		rmdir "$SESSIONS/$name"/s[0-9]* "$SESSIONS/$name"
		rounds=$((rounds + 1))
	done
	echo "$rounds"
}

@test "life: sessions come and go in parallel, on different origins and on the same" {
	local n pids=() code=0 rounds
	for n in 0 1 2 3; do
		dm_linear "store$n" "$(disk 2)" 131072 $((n * 131072))
	done
	load_on "$(disk 1)"
	n=0
	for devices in "$(disk 1)" "$(disk 1)" "$(disk 3)" "$(disk 3) $(disk 1)"; do
		# shellcheck disable=SC2086 # two words
		background cycle "p$n" 20 "/dev/mapper/store$n" $devices >"$BATS_TEST_TMPDIR/cycle.$n" 2>&1
		pids+=("$BACKGROUND")
		n=$((n + 1))
	done
	for n in 0 1 2 3; do
		wait "${pids[n]}" || code=$?
		rounds=$(cat "$BATS_TEST_TMPDIR/cycle.$n")
		echo "$n: $rounds"
		[[ $code -eq 0 && $rounds -ge 2 ]] || code=1
	done
	[[ $code -eq 0 ]]
	load_end
}

@test "life: I2: ftrace cannot be switched off while a session is active (EBUSY)" {
	local switch=/proc/sys/kernel/ftrace_enabled never refusal=EBUSY
	defer put "$switch" 1
	# Newer kernels do not switch it off at all.
	never=$(put "$switch" 0) || refusal=$never
	put "$switch" 1
	[[ -z $never || $never == EOPNOTSUPP ]]
	session_of "$(disk 2)" "$(disk 1)"
	refuses "$refusal" put "$switch" 0
	[[ $(cat "$switch") -eq 1 ]]
	dd if=/dev/urandom of="$(disk 1)" bs=4096 count=1 oflag=direct conv=notrunc status=none
	[[ $(stat_of "$(image_of s s1)" chunks_preserved) -eq 1 ]]
	session_release s

	if [[ -z $never ]]; then
		wait_until 10 put "$switch" 0
		refused_take s EBUSY
		[[ $(session_get s error) == *'ftrace_enabled is 0'* ]] || fail "no reason: $(session_get s error)"
		put "$switch" 1
	fi
	session_take s
	session_destroy s
}

@test "life: I2: no hibernation while a session is active or a tracker is enabled (EBUSY)" {
	local power=/sys/power
	[[ -e $power/pm_test && $(<$power/state) == *disk* ]] || skip 'this kernel does not hibernate, or not for a test'
	# Tasks are frozen for some seconds, and that is all.
	put $power/pm_test freezer
	defer put $power/pm_test none
	session_of "$(disk 2)" "$(disk 1)"
	refuses EBUSY put $power/state disk
	log_has 'blksnap: EBUSY: no hibernation'
	session_destroy s
	tracker_make t "$(disk 1)"
	refuses EBUSY put $power/state disk
	tracker_destroy t
	wait_until 20 put $power/state disk
	session_of "$(disk 2)" "$(disk 1)"
	session_destroy s
}

# probe_count: how often the probe was hit.
probe_count() {
	awk '$1 == "blksnap_test" { print $2 }' /sys/kernel/tracing/kprobe_profile
}

# A probe on the function that the driver intercepts, and on no other.
probe_on() {
	echo 'p:blksnap_test submit_bio_noacct' >>/sys/kernel/tracing/kprobe_events
	echo 1 >/sys/kernel/tracing/events/kprobes/blksnap_test/enable
}

probe_off() {
	[[ ! -d /sys/kernel/tracing/events/kprobes/blksnap_test ]] || {
		echo 0 >/sys/kernel/tracing/events/kprobes/blksnap_test/enable
		echo '-:blksnap_test' >>/sys/kernel/tracing/kprobe_events
	}
}

# ten_writes IMAGE FIRST: overwrites ten granules, and the driver and the probe have both seen it.
ten_writes() {
	local before preserved
	before=$(probe_count)
	preserved=$(stat_of "$1" chunks_preserved)
	dd if=/dev/urandom of="$(disk 1)" bs=4096 count=10 seek="$2" oflag=direct conv=notrunc status=none
	[[ $(stat_of "$1" chunks_preserved) -eq $((preserved + 10)) ]]
	[[ $(probe_count) -ge $((before + 10)) ]]
}

@test "life: a probe on the same function works before, during and after a session" {
	local before
	defer probe_off
	probe_on
	session_of "$(disk 2)" "$(disk 1)"
	ten_writes "$(image_of s s1)" 0
	probe_off
	probe_on
	ten_writes "$(image_of s s1)" 10
	session_destroy s
	before=$(probe_count)
	dd if=/dev/urandom of="$(disk 1)" bs=4096 count=10 oflag=direct conv=notrunc status=none
	[[ $(probe_count) -ge $((before + 10)) ]]
	probe_off
}

@test "life: the module goes right after a release under load" {
	local round
	load_on "$(disk 1)"
	for round in 1 2 3; do
		session_of "$(disk 2)" "$(disk 1)" "$(disk 3)"
		put "$SESSIONS/s/active" 0
		rmdir "$SESSIONS"/s/s1 "$SESSIONS"/s/s2 "$SESSIONS/s"
		wait_until 10 rmmod blksnap
		module_load
	done
	load_end
}

# slow_disk_make: a disk, in SCSI, that can take long to be opened (slow_down).
slow_disk_make() {
	scsi_debug_make dev_size_mb=8 removable=1
	defer commands_take 0
}

# commands_take TICKS: of the disk. Refused while one is under way, as of who looks at the disk since it was closed.
commands_take() {
	wait_until 60 sh -c "echo $1 2>/dev/null >/sys/bus/pseudo/drivers/scsi_debug/delay"
}

# slow_down [TICKS]: for each of some commands. After 30 s the kernel would give one up.
slow_down() {
	local ticks=$((${1:-500} * ${BLKSNAP_SLOW:-1}))
	commands_take $((ticks < 6000 ? ticks : 6000))
}

# waits_in_background COMMAND...: its PID is added to WAITING.
waits_in_background() {
	background "$@"
	WAITING+=("$BACKGROUND")
	wait_until 5 hangs "$BACKGROUND" || fail "it does not wait: $*"
}

# Who makes a directory in configfs has its mutex, and waits here for a tracker that begins to follow a disk, which waits for
# what the disk is doing: five seconds at most.
@test "life: a directory is removed while its session waits to be taken (ENOENT)" {
	local code=0 WAITING=()
	scsi_debug_make dev_size_mb=8
	defer commands_take 0
	mkdir "$TRACKERS/t"
	put "$TRACKERS/t/device" "$SCSI"
	session_make s "$(disk 2)" "$(disk 1)"
	mkdir "$SESSIONS/s/s2"
	commands_take 1200
	waits_in_background dd if="$SCSI" of=/dev/null bs=4K count=1 iflag=direct status=none
	WAITING=()
	waits_in_background put "$TRACKERS/t/enabled" 1
	waits_in_background mkdir "$TRACKERS/u"
	waits_in_background put "$SESSIONS/s/active" 1
	waits_in_background rmdir "$SESSIONS/s/s2"
	hangs "${WAITING[0]}" || fail 'the tracker was enabled already: nothing was shown'
	wait "${WAITING[0]}" || [[ $(cat "$TRACKERS/t/error") == 'ETIMEDOUT: '* ]]
	wait "${WAITING[1]}"
	wait "${WAITING[2]}" || code=$?
	[[ $code -ne 0 && $(session_get s error) == 'ENOENT: '* ]]
	wait "${WAITING[3]}"
	rmdir "$TRACKERS/u"
	tracker_destroy t
	session_destroy s
}

@test "life: nobody waits for a tracker whose device takes long to be opened" {
	local WAITING=()
	slow_disk_make
	mkdir "$TRACKERS/t"
	put "$TRACKERS/t/device" "$SCSI"
	slow_down 4000
	waits_in_background put "$TRACKERS/t/enabled" 1
	session_of "$(disk 2)" "$(disk 1)"
	tracker_make u "$(disk 1)"
	[[ $(<"$TRACKERS/t/enabled") == 0 ]] || fail 'they have waited for it'
	tracker_destroy u
	session_destroy s
	wait "${WAITING[0]}"
	tracker_destroy t
}

@test "life: a path that leads into a session's directory, while that is being taken" {
	local code=0 WAITING=()
	slow_disk_make
	# Refused, but not before all of them have been opened.
	session_make s "$(disk 2)" "$SCSI" "$(disk 2)"
	slow_down
	waits_in_background put "$SESSIONS/s/active" 1
	cd "$SESSIONS/s"
	waits_in_background put s1/device missing
	cd /
	# Whoever makes a directory does not wait, here and elsewhere.
	refuses EBUSY mkdir "$SESSIONS/s/s3"
	mkdir "$SESSIONS/t"
	rmdir "$SESSIONS/t"
	hangs "${WAITING[0]}" || fail 'the take was over already: nothing was shown'
	wait "${WAITING[0]}" || code=$?
	[[ $code -ne 0 ]]
	code=0
	wait "${WAITING[1]}" || code=$?
	[[ $code -ne 0 && $(session_get s s1/error) == 'ENOENT: '* ]]
	mkdir "$SESSIONS/s/s3"
	rmdir "$SESSIONS/s/s3"
	session_destroy s
}

# administer NAME DIFF DEVICE...: as cycle, until it is killed, anywhere, and begins with what was left then.
administer() {
	local name=$1 diff=$2
	shift 2
	while :; do
		[[ ! -d $SESSIONS/$name ]] || unmake "$name" || return
		session_make "$name" "$diff" "$@" || return
		# A disk is as large as it is.
		[[ -b $diff ]] || { put "$SESSIONS/$name/diff_limit" 64M && put "$SESSIONS/$name/diff_low" 4M; } || return
		echo taking
		put "$SESSIONS/$name/active" 1 || fail "$(cat "$SESSIONS/$name/error")" || return
		echo taken
		stays "$(image_of "$name" s1)" || return
	done
}

# stays IMAGE: it is the same when it is read once more.
stays() {
	local sums=() n
	for n in 0 1; do
		sums[n]=$(dd if="$1" bs=256K count=4 iflag=direct status=none | cksum) || return
	done
	[[ ${sums[0]} == "${sums[1]}" ]] || fail "the image has changed: ${sums[*]}"
}

# unmake SESSION: as session_destroy, without waiting for udev.
unmake() {
	put "$SESSIONS/$1/active" 0 || return
	[[ ! -d $SESSIONS/$1/s1 ]] || rmdir "$SESSIONS/$1"/s[0-9]* || return
	rmdir "$SESSIONS/$1"
}

# all_have_taken COUNT: each administrator so often.
all_have_taken() {
	local n
	for n in 0 1 2 3; do
		[[ $(grep -c '^taken$' "$BATS_TEST_TMPDIR/takes.$n") -ge $1 ]] || return
	done
}

# again COMMAND...: whatever comes of it. Only the kill ends it. On a slow kernel it leaves some time to the others.
again() {
	while :; do
		"$@" || true
		[[ ${BLKSNAP_SLOW:-1} -eq 1 ]] || sleep 3
	done 2>/dev/null
}

unload_active() {
	! rmmod blksnap || echo 'the module went'
}

read_all() {
	grep -ar . "$CONFIG" /sys/block/blksnap*/blksnap /sys/block/blksnap*/cbt >/dev/null
}

# track DEVICE: its changes, again and again. Only the kill ends it.
track() {
	while :; do
		[[ ! -d $TRACKERS/t ]] || tracker_destroy t || return
		tracker_make t "$1" || return
		sleep 0.5
	done
}

# write_files DIRECTORY: overwrites the same few, and has them stored. Only the kill ends it.
write_files() {
	local n
	while :; do
		for n in 0 1 2 3 4 5; do
			dd if=/dev/urandom of="$1/file$n" bs=64K count=8 conv=fsync,notrunc status=none || return
		done
	done
}

# administrator N: a new one, whose PID is in ADMINISTRATORS. Each has another kind of storage: a disk, a file that grows, one on the
# origin's own file system, and one without a name in memory.
administrator() {
	local diffs=(/dev/mapper/store /mnt/test-diff/diff /mnt/test-own/diff /mnt/test-memory)
	local origins=("$(disk 1)" "$(disk 1) $(disk 3)" "$(disk 7) $(disk 5)" "$(part "$(disk 5)" 1) $(disk 3)")
	# shellcheck disable=SC2086 # two words
	background administer "p$1" "${diffs[$1]}" ${origins[$1]} >>"$BATS_TEST_TMPDIR/takes.$1" 2>&1
	ADMINISTRATORS[$1]=$BACKGROUND
}

# still_there PID WHAT OUTPUT
still_there() {
	kill -0 "$1" || fail "$2 has ended: $(tail -n 5 "$3")"
}

@test "life: administrators are killed anywhere, in the middle of a take as well; images stay right (I2, I7)" {
	local n pid seconds end stormer others=() killed=0 in_take=0 ADMINISTRATORS=() out=$BATS_TEST_TMPDIR
	seconds=$(($(rounds 45) * ${BLKSNAP_SLOW:-1}))
	partition "$(disk 5)" 64M 64M
	filled "$(disk 1)" --length 16M
	session_of "$(disk 4)" "$(disk 1)"
	dm_linear store "$(disk 2)" 131072
	for n in 3:origin 7:own 8:diff; do
		mkfs.ext4 -q "$(disk "${n%:*}")"
		mount_test "$(disk "${n%:*}")" "${n#*:}"
	done
	mkdir -p /mnt/test-memory
	mount -t tmpfs -o size=256M memory /mnt/test-memory
	background stamp storm "$(disk 1)" "$(image_of s s1)" --seed "$SEED" --taken-seq 1 --length 16M --readers 2 --writers 2 \
		--seconds $((seconds + 10)) >"$out/storm" 2>&1
	stormer=$BACKGROUND
	background track "$(disk 3)" >"$out/track" 2>&1
	others+=("$BACKGROUND")
	background write_files /mnt/test-origin >"$out/files" 2>&1
	others+=("$BACKGROUND")
	background again unload_active >"$out/unloaded"
	others+=("$BACKGROUND")
	background again read_all
	others+=("$BACKGROUND")
	background again udevadm trigger --settle --subsystem-match=block --action=change
	others+=("$BACKGROUND")
	for n in 0 1 2 3; do
		administrator "$n"
	done
	end=$((SECONDS + seconds))
	while [[ $SECONDS -lt $end || $in_take -lt 2 ]]; do
		[[ $SECONDS -lt $((end + 100 * ${BLKSNAP_SLOW:-1})) ]] || fail "only $in_take of $killed were killed in a take"
		sleep "$((RANDOM % 2)).$((RANDOM % 10))"
		n=$((RANDOM % 4))
		still_there "${ADMINISTRATORS[n]}" "administrator $n" "$out/takes.$n"
		kill_all "${ADMINISTRATORS[n]}"
		killed=$((killed + 1))
		[[ $(tail -n 1 "$out/takes.$n") != taking ]] || in_take=$((in_take + 1))
		administrator "$n"
	done
	wait_until 60 all_have_taken 2 || fail "$(tail -n 5 "$out"/takes.*)"
	still_there "${others[0]}" 'who tracks' "$out/track"
	still_there "${others[1]}" 'who writes files' "$out/files"
	for pid in "${ADMINISTRATORS[@]}" "${others[@]}"; do
		kill_all "$pid"
	done
	wait "$stormer" || fail "$(cat "$out/storm")"
	[[ ! -s $out/unloaded ]] || fail "$(cat "$out/unloaded")"
	for n in 0 1 2 3; do
		[[ ! -d $SESSIONS/p$n ]] || unmake "p$n"
	done
	[[ ! -d $TRACKERS/t ]] || tracker_destroy t
	printf '# %s: %d killed, %d of them in a take; takes: %s\n' "$BATS_TEST_DESCRIPTION" "$killed" "$in_take" \
		"$(grep -hc '^taken$' "$out"/takes.* | paste -sd' ')" >&3
	sync "$(disk 1)"
	image_is "$(image_of s s1)" --length 16M
	session_destroy s
	# Not frozen, whole, and without what is not theirs.
	[[ ! -e /mnt/test-own/diff && ! -e /mnt/test-diff/diff ]]
	for n in 3:origin 7:own 8:diff; do
		umount "/mnt/test-${n#*:}"
		e2fsck -fn "$(disk "${n%:*}")"
	done
	module_unload
	module_load
}

# come_and_go NAME DIFF DEVICE: makes, takes, reads, releases and destroys, until the file `over` is there. Only a session's directory
# may fail to be made, where there is no module; whoever has one has the module.
come_and_go() {
	local name=$1 diff=$2 device=$3
	while [[ ! -e $BATS_TEST_TMPDIR/over ]]; do
		mkdir "$SESSIONS/$name" 2>/dev/null || continue
		put "$SESSIONS/$name/diff_file" "$diff" && mkdir "$SESSIONS/$name/s1" && put "$SESSIONS/$name/s1/device" "$device" &&
			put "$SESSIONS/$name/active" 1 || return
		dd if="$(image_of "$name" s1)" of=/dev/null bs=64K count=4 iflag=direct status=none || return
		unmake "$name" || return
		echo finished
		# Who always has one leaves no moment for it.
		sleep "$((RANDOM % 2)).$((RANDOM % 10))"
	done
}

# remove_and_load: the module, whenever it can be, until the file `stays` is there.
remove_and_load() {
	while [[ ! -e $BATS_TEST_TMPDIR/stays ]]; do
		rmmod blksnap 2>/dev/null || continue
		echo gone
		insmod "$KO" || return
	done
}

@test "life: the module goes between any two sessions, while sessions are made and all is read, and never under one (I7)" {
	local n pids=() remover reader out=$BATS_TEST_TMPDIR
	load_on "$(disk 1)"
	dm_linear store0 "$(disk 2)" 131072
	dm_linear store1 "$(disk 2)" 131072 131072
	for n in 0 1; do
		background come_and_go "p$n" "/dev/mapper/store$n" "$(disk $((1 + 2 * n)))" >"$out/done.$n" 2>&1
		pids+=("$BACKGROUND")
	done
	# shellcheck disable=SC2016 # the inner shell expands it
	background sh -c 'while :; do grep -ar . "$0" /sys/module/blksnap /sys/block/blksnap*/blksnap; sleep 0.1; done' "$CONFIG" >/dev/null 2>&1
	reader=$BACKGROUND
	background remove_and_load >"$out/gone" 2>&1
	remover=$BACKGROUND
	sleep $(($(rounds 30) * ${BLKSNAP_SLOW:-1}))
	wait_until 60 have_said 5 "^finished$" "$out/done.0" "$out/done.1"
	wait_until 60 have_said 3 '^gone$' "$out/gone"
	touch "$out/over"
	for n in 0 1; do
		wait "${pids[n]}" || fail "$(tail -n 3 "$out/done.$n")"
	done
	touch "$out/stays"
	wait "$remover" || fail "it could not be loaded: $(tail -n 3 "$out/gone")"
	kill_all "$reader"
	load_end
	module_loaded
	printf '# %s: %d times, %s sessions\n' "$BATS_TEST_DESCRIPTION" "$(grep -c gone "$out/gone")" \
		"$(cat "$out"/done.* | grep -c finished)" >&3
}

# have_said COUNT REGEX FILE...: each of them so often.
have_said() {
	local count=$1 regex=$2 file
	shift 2
	for file; do
		[[ $(grep -c -- "$regex" "$file") -ge $count ]] || return
	done
}
