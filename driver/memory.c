// SPDX-License-Identifier: GPL-2.0
/*
 * The budget for preserved data that is in memory, of all sessions together
 * (I4). Who needs a buffer charges it first; who cannot waits, without a
 * thread, until memory_uncharge() says that it is worth trying again.
 *
 * When the kernel is short of memory the budget is not used for a while: what is
 * preserved is written back soon.
 */
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/sysfs.h>

#include "compat/shrinker.h"
#include "error.h"
#include "memory.h"
#include "value.h"

#define MEMORY_LIMIT_MIN (4UL * SZ_1M)
#define MEMORY_LIMIT_MAX_DEFAULT (256UL * SZ_1M)
#define MEMORY_RESERVE SZ_1M
#define MEMORY_SHARE_MAX ((size_t)SZ_1M)	/* of each user, whatever the others hold */
#define MEMORY_DEFAULT_PART 64	/* of all memory, one part in this many */

/* What the kernel is not asked to wait for, and how long it is short of memory. */
#define MEMORY_KEPT (2L * SZ_1M)
#define MEMORY_SQUEEZE_JIFFIES HZ

static unsigned long memory_limit;
static unsigned long memory_squeezed_until;	/* jiffies */
static bool memory_squeezed;
static bool memory_exhausted;	/* and there was not a page */
static struct shrinker *memory_shrinker;	/* set once */

static atomic_long_t memory_charged;
static atomic_long_t memory_relief_count;
static bool memory_refused;	/* somebody, who was not told a relief since */
static LIST_HEAD(memory_users);		/* protected by memory_lock */
static unsigned int memory_nr_users;	/* changed under memory_lock */
static DEFINE_SPINLOCK(memory_lock);

static unsigned long memory_default(void)
{
	unsigned long share = totalram_pages() / MEMORY_DEFAULT_PART * PAGE_SIZE;

	return clamp(share, MEMORY_LIMIT_MIN, MEMORY_LIMIT_MAX_DEFAULT);
}

size_t memory_bound(void)
{
	return READ_ONCE(memory_limit) ?: memory_default();
}

void memory_register(struct memory_user *user)
{
	unsigned long flags;

	spin_lock_irqsave(&memory_lock, flags);
	list_add_tail(&user->node, &memory_users);
	WRITE_ONCE(memory_nr_users, memory_nr_users + 1);
	spin_unlock_irqrestore(&memory_lock, flags);
}

static void memory_tell_store(void)
{
	struct memory_user *user;
	unsigned long flags;

	spin_lock_irqsave(&memory_lock, flags);
	list_for_each_entry(user, &memory_users, node)
		user->ops->store(user);
	spin_unlock_irqrestore(&memory_lock, flags);
}

static void memory_tell_relief(void)
{
	struct memory_user *user;
	unsigned long flags;

	WRITE_ONCE(memory_refused, false);
	atomic_long_inc(&memory_relief_count);
	smp_mb__after_atomic(); /* pairs with who waits for memory */
	spin_lock_irqsave(&memory_lock, flags);
	list_for_each_entry(user, &memory_users, node)
		user->ops->relief(user);
	spin_unlock_irqrestore(&memory_lock, flags);
}

void memory_unregister(struct memory_user *user)
{
	unsigned long flags;

	spin_lock_irqsave(&memory_lock, flags);
	list_del(&user->node);
	WRITE_ONCE(memory_nr_users, memory_nr_users - 1);
	spin_unlock_irqrestore(&memory_lock, flags);
	memory_tell_relief(); /* its share */
}

/* The kernel is short of memory */

static unsigned long memory_shrink_count(struct shrinker *shrinker,
					 struct shrink_control *control)
{
	long bytes = (long)memory_used() - MEMORY_KEPT;

	return bytes > 0 ? bytes >> PAGE_SHIFT : SHRINK_EMPTY;
}

static void memory_squeeze(void)
{
	WRITE_ONCE(memory_squeezed_until, jiffies + MEMORY_SQUEEZE_JIFFIES);
	WRITE_ONCE(memory_squeezed, true);
	memory_tell_store();
}

/* To wait for the stores would mean to wait for the disks of those who ask. */
static unsigned long memory_shrink_scan(struct shrinker *shrinker,
					struct shrink_control *control)
{
	memory_squeeze();
	return SHRINK_STOP;
}

void memory_note_exhausted(void)
{
	WRITE_ONCE(memory_exhausted, true);
	memory_squeeze();
}

static bool memory_is_squeezed(void)
{
	if (!READ_ONCE(memory_squeezed))
		return false;
	if (time_before(jiffies, READ_ONCE(memory_squeezed_until)))
		return true;
	WRITE_ONCE(memory_exhausted, false);
	WRITE_ONCE(memory_squeezed, false);
	return false;
}

int memory_init(void)
{
	if (!memory_limit)
		memory_limit = memory_default();
	memory_shrinker = compat_shrinker_register("blksnap",
						   memory_shrink_count,
						   memory_shrink_scan);
	return memory_shrinker ? 0 : -ENOMEM;
}

void memory_exit(void)
{
	compat_shrinker_unregister(memory_shrinker);
}

/* The limit */

static int memory_limit_set(const char *value, const struct kernel_param *param)
{
	u64 bytes;
	int ret;

	ret = value_get_param_size(value, "memory_limit", &bytes);
	if (ret)
		return ret;
	if (bytes && bytes < MEMORY_LIMIT_MIN)
		return error_set(NULL, "memory_limit", -EINVAL,
				 "%llu is below the minimum of %lu bytes",
				 bytes, MEMORY_LIMIT_MIN);
	if (bytes > totalram_pages() * PAGE_SIZE / 2)
		return error_set(NULL, "memory_limit", -EINVAL,
				 "%llu is more than half of the memory", bytes);
	WRITE_ONCE(memory_limit, bytes);
	memory_tell_relief();
	return 0;
}

/* What is in force: whoever has written 0 reads what it has picked. */
static int memory_limit_get(char *page, const struct kernel_param *param)
{
	return sysfs_emit(page, "%zu\n", memory_bound());
}

static const struct kernel_param_ops memory_limit_ops = {
	.set = memory_limit_set,
	.get = memory_limit_get,
};

module_param_cb(memory_limit, &memory_limit_ops, &memory_limit, 0644);
MODULE_PARM_DESC(memory_limit,
		 "Bytes of preserved data in memory, all sessions (default: 1/64 of the memory, 4M to 256M)");

static bool memory_try(atomic_long_t *sum, long bytes, long limit)
{
	long used = atomic_long_read(sum);

	do {
		if (used + bytes > limit)
			return false;
	} while (!atomic_long_try_cmpxchg(sum, &used, used + bytes));
	return true;
}

/* Who is refused says so, and looks again: pairs with memory_give_back(). */
static void memory_refuse(void)
{
	WRITE_ONCE(memory_refused, true);
	smp_mb(); /* see above */
}

static void memory_give_back(atomic_long_t *sum, long bytes)
{
	atomic_long_sub(bytes, sum);
	smp_mb__after_atomic(); /* pairs with memory_refuse() */
	if (READ_ONCE(memory_refused))
		memory_tell_relief();
}

static unsigned int memory_users_now(void)
{
	return max(READ_ONCE(memory_nr_users), 1U);
}

/* What a user can have whatever the others hold. */
static size_t memory_share(void)
{
	return min(MEMORY_SHARE_MAX, memory_bound() / 2 / memory_users_now());
}

size_t memory_share_left(const struct memory_user *user)
{
	long left = memory_share() - atomic_long_read(&user->held);

	return left > 0 ? round_down(left, PAGE_SIZE) : 0;
}

/* Without the shares of all others. */
size_t memory_most(void)
{
	return memory_bound() - memory_share() * (memory_users_now() - 1);
}

/*
 * From what all can have, or from the user's own share. Those who go beyond what
 * all can have are fewer than there are shares kept from it: so all together stay
 * within the limit, as long as there are not more of them.
 */
static bool memory_try_charge(struct memory_user *user, long bytes)
{
	if (memory_try(&memory_charged, bytes, memory_most())) {
		atomic_long_add(bytes, &user->held);
		return true;
	}
	if (!memory_try(&user->held, bytes, memory_share()))
		return false;
	atomic_long_add(bytes, &memory_charged);
	return true;
}

bool memory_charge(struct memory_user *user, size_t bytes)
{
	bool taken = memory_try_charge(user, bytes);

	if (!taken) {
		memory_refuse();
		taken = memory_try_charge(user, bytes);
	}
	if (!taken || memory_is_short())
		memory_tell_store();
	return taken;
}

void memory_uncharge(struct memory_user *user, size_t bytes)
{
	atomic_long_sub(bytes, &user->held);
	memory_give_back(&memory_charged, bytes);
}

static bool memory_try_reserve(struct memory_user *user, long bytes)
{
	/* One buffer is granted in any case. */
	return memory_try(&user->reserve, bytes, max_t(long, bytes, MEMORY_RESERVE));
}

bool memory_charge_reserve(struct memory_user *user, size_t bytes)
{
	if (memory_try_reserve(user, bytes))
		return true;
	memory_refuse();
	return memory_try_reserve(user, bytes);
}

void memory_uncharge_reserve(struct memory_user *user, size_t bytes)
{
	memory_give_back(&user->reserve, bytes);
}

unsigned long memory_reliefs(void)
{
	return atomic_long_read(&memory_relief_count);
}

bool memory_is_short(void)
{
	size_t share = memory_bound() / 2;

	/* Less than half of it may be in use, and what is wanted be more than the rest. */
	if (unlikely(READ_ONCE(memory_refused)))
		return true;
	if (unlikely(memory_is_squeezed()))
		share = READ_ONCE(memory_exhausted) ?
				0 : min_t(size_t, share, MEMORY_KEPT);
	return memory_used() > share;
}

size_t memory_used(void)
{
	return atomic_long_read(&memory_charged);
}
