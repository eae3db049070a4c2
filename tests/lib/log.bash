# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What the log of a test machine's kernel must not have in it. For tests, for who runs them in the machine, and for who has its console.

# A word of it may be allowed by expect_log.
BAD_LOG='WARNING:|BUG:|Oops|[Cc]all [Tt]race|cut here|lockdep([^_]|$)|possible (circular|recursive)|inconsistent lock state'
BAD_LOG+='|hung task|blocked for more than|general protection|refcount_t|KASAN|UBSAN|KFENCE|unable to handle'
BAD_LOG+='|suspicious RCU|rcu.*(stall|detected)|soft lockup|hard LOCKUP|list_(add|del) corruption|Bad page'
BAD_LOG+='|kmem_cache_destroy|Objects remaining|sysfs: cannot create|duplicate filename|sleeping function'
BAD_LOG+='|scheduling while atomic|bad unlock balance|freeing active|stack-protector|NULL pointer'
# What only a debug kernel says: slub, debugobjects, kmemleak, and lockdep when it gives up.
BAD_LOG+='|BUG [^ ]+ \(|ODEBUG|kmemleak: |turning off the locking correctness|non-static key|Busy inodes'

# A test writes this line to the log when it begins to look at it: what comes before, it has seen.
LOG_LOOKED='blksnap-test: looked'
# Where what no test has seen is kept, until the suite is over.
# shellcheck disable=SC2034 # of who loads this
LOG_UNSEEN=/run/blksnap-unseen

# log_unseen LOG: prints what is bad in a log since the last test has looked at it; nothing, if none has, as when a kernel starts.
log_unseen() {
	local unseen
	[[ $1 == *"$LOG_LOOKED"* ]] || return 0
	unseen=${1##*"$LOG_LOOKED"}
	[[ ${#unseen} -gt 20000 || $unseen =~ $BAD_LOG ]] || return 0
	grep -E -A 40 -- "$BAD_LOG" <<<"$unseen" | head -n 120 || true
}
