# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Faults that the kernel makes on request (fault injection, which a debug kernel has), on top of lib/common. KIND is
# failslab, fail_page_alloc or fail_make_request. Counted are the calls that the driver makes, in whatever task: those
# with the module's code in their stack.

FAULTS=/sys/kernel/debug

# More than any test makes.
FAULTS_MOST=1000000

# The fault of the test that is running, for who wants to know at which one it failed, and its number.
FAULT='' ROUND=0
COUNT=0 MADE=0

skip_unless_faults() {
	[[ -e $FAULTS/failslab/require-start ]] || skip 'no fault injection on this kernel (make test-debug has one)'
}

# fault_put KIND NAME=VALUE...
fault_put() {
	local dir=$FAULTS/$1 setting
	shift
	for setting; do
		echo "${setting#*=}" >"$dir/${setting%%=*}" || return
	done
}

# fault_fired KIND: the fault that was armed last has been made.
fault_fired() {
	[[ $(<"$FAULTS/$1/times") == 0 ]]
}

# How many calls the kernel has counted cannot be read. It makes those fail whose number is a multiple of `interval`; so
# when a fault has been made with an interval larger than the count was, that is the count. The last interval is kept in a
# file, since the kernel outlives the test.
fault_count() {
	COUNT=0
	[[ ! -e /run/fault-$1 ]] || read -r COUNT <"/run/fault-$1"
}

# fault_begin KIND: until the end of the test nothing fails that was not armed, and no fault is logged.
fault_begin() {
	local dir=$FAULTS/$1 file
	fault_put "$1" probability=0 space=0 verbose=0 stacktrace-depth=32 || return
	for file in ignore-gfp-wait ignore-gfp-highmem min-order; do
		[[ ! -e $dir/$file ]] || echo 0 >"$dir/$file"
	done
	defer fault_end "$1"
	fault_count "$1"
	[[ $COUNT -eq 0 ]] || fault_fired "$1" || fault_count_on "$1"
}

fault_end() {
	fault_put "$1" probability=0 task-filter=0
}

# Counts on to the next fault, with tasks that nobody needs and the requests of a disk that nobody uses.
fault_count_on() {
	local disk
	disk=$(disk 6)
	echo 1 >"/sys/block/${disk##*/}/make-it-fail"
	fault_put "$1" require-start=0 require-end=0xffffffffffffffff task-filter=1 probability=100
	until fault_fired "$1"; do
		bash -c 'echo 1 >/proc/self/make-it-fail; exec dd if="$0" of=/dev/null bs=4k count=64 iflag=direct' "$disk" \
			>/dev/null 2>&1 || true
	done
	fault_put "$1" probability=0 task-filter=0
	echo 0 >"/sys/block/${disk##*/}/make-it-fail"
}

# fault_arm KIND N [START END]: the N-th call from now on fails, and no other. With START and END, code there counts for
# the module's.
fault_arm() {
	local start=${3:-} end=${4:-} count
	[[ -n $start ]] || module_range
	fault_count "$1"
	count=$((COUNT + $2))
	# With an interval of 1 it does not count.
	[[ $count -eq 1 ]] || echo "$count" >"/run/fault-$1"
	fault_put "$1" "require-start=$start" "require-end=$end" "interval=$count" times=1 probability=100
}

# fault_arm_all KIND: every call from now on fails, until fault_disarm_all.
fault_arm_all() {
	local start end
	module_range
	# With this interval it does not count.
	fault_put "$1" "require-start=$start" "require-end=$end" interval=1 "times=$FAULTS_MOST" probability=100
}

# fault_disarm_all KIND: how many calls have failed is in MADE.
fault_disarm_all() {
	fault_put "$1" probability=0
	# shellcheck disable=SC2034 # of the suite
	MADE=$((FAULTS_MOST - $(<"$FAULTS/$1/times")))
	fault_put "$1" times=0
}

# fault_disarm KIND
fault_disarm() {
	fault_put "$1" probability=0
}

# requests_fail DISK...: those that the driver makes, when a fault of fail_make_request is due; until the end of the test.
requests_fail() {
	local disk
	for disk; do
		echo 1 >"/sys/block/${disk##*/}/make-it-fail"
		# shellcheck disable=SC2016 # the inner shell expands it
		defer sh -c 'echo 0 >"$0"' "/sys/block/${disk##*/}/make-it-fail"
	done
}

# each_fault KIND COMMAND...: COMMAND N for N from 1 on, which arms the N-th fault of KIND, until one of them has made none;
# each time nothing is left, and the module is loaded anew, unless COMMAND does that itself (RELOADS). FEWEST is how many
# there are at least.
each_fault() {
	local kind=$1 n=0 begin=$SECONDS
	shift
	fault_begin "$kind"
	while :; do
		n=$((n + 1))
		# shellcheck disable=SC2034 # of the suite
		FAULT="$kind $n" ROUND=$n
		printf '<6>blksnap-test: fault %s\n' "$FAULT" >/dev/kmsg
		"$@" "$n"
		fault_disarm "$kind"
		common_look
		[[ ${#LEFT[@]} -eq 0 ]] || fail "left behind: ${LEFT[*]}"
		fault_fired "$kind" || break
		[[ -z ${RELOADS:-} ]] || continue
		! module_loaded || module_unload
		module_load
	done
	[[ $n -gt ${FEWEST:-3} ]] || fail "only $((n - 1)) faults of $kind, and not ${FEWEST:-3}"
	printf '# %s: %d faults of %s, %d s each\n' "$BATS_TEST_DESCRIPTION" "$((n - 1))" "$kind" "$(((SECONDS - begin) / n))" >&3
	FAULT=''
}
