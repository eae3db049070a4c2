// SPDX-License-Identifier: GPL-2.0
/*
 * The budget for preserved data that is in memory, of all sessions together
 * (I4). Who needs a buffer charges it first; who cannot waits, without a
 * thread, until memory_uncharge() says that it is worth trying again.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>

#include "memory.h"

#define MEMORY_LIMIT_MIN (4UL * SZ_1M)
#define MEMORY_LIMIT_MAX_DEFAULT (256UL * SZ_1M)
#define MEMORY_RESERVE SZ_1M
#define MEMORY_SHARE_DEFAULT 64	/* of all memory, one part in this many */

static unsigned long memory_limit;

static atomic_long_t memory_charged;
static atomic_long_t memory_relief_count;
static bool memory_refused;	/* somebody, who was not told a relief since */
static LIST_HEAD(memory_users);		/* protected by memory_lock */
static DEFINE_SPINLOCK(memory_lock);

static unsigned long memory_default(void)
{
	unsigned long share = totalram_pages() / MEMORY_SHARE_DEFAULT * PAGE_SIZE;

	return clamp(share, MEMORY_LIMIT_MIN, MEMORY_LIMIT_MAX_DEFAULT);
}

size_t memory_bound(void)
{
	return READ_ONCE(memory_limit) ?: memory_default();
}

void memory_init(void)
{
	if (!memory_limit)
		memory_limit = memory_default();
}

void memory_register(struct memory_user *user)
{
	unsigned long flags;

	spin_lock_irqsave(&memory_lock, flags);
	list_add_tail(&user->node, &memory_users);
	spin_unlock_irqrestore(&memory_lock, flags);
}

void memory_unregister(struct memory_user *user)
{
	unsigned long flags;

	spin_lock_irqsave(&memory_lock, flags);
	list_del(&user->node);
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

static int memory_limit_set(const char *value, const struct kernel_param *param)
{
	char *end;
	unsigned long long bytes = memparse(value, &end);

	if (end == value || (*end && *end != '\n'))
		return -EINVAL;
	if (bytes && bytes < MEMORY_LIMIT_MIN) {
		pr_err("memory_limit: %llu is below the minimum of %lu bytes\n",
		       bytes, MEMORY_LIMIT_MIN);
		return -EINVAL;
	}
	if (bytes > totalram_pages() * PAGE_SIZE / 2) {
		pr_err("memory_limit: %llu is more than half of the memory\n",
		       bytes);
		return -EINVAL;
	}
	WRITE_ONCE(memory_limit, bytes);
	memory_tell_relief();
	return 0;
}

static const struct kernel_param_ops memory_limit_ops = {
	.set = memory_limit_set,
	.get = param_get_ulong,
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
static bool memory_take(atomic_long_t *sum, long bytes, long limit)
{
	if (memory_try(sum, bytes, limit))
		return true;
	WRITE_ONCE(memory_refused, true);
	smp_mb(); /* see above */
	return memory_try(sum, bytes, limit);
}

static void memory_give_back(atomic_long_t *sum, long bytes)
{
	atomic_long_sub(bytes, sum);
	smp_mb__after_atomic(); /* pairs with memory_take() */
	if (READ_ONCE(memory_refused))
		memory_tell_relief();
}

bool memory_charge(size_t bytes)
{
	bool taken = memory_take(&memory_charged, bytes, memory_bound());

	if (!taken || memory_is_short())
		memory_tell_store();
	return taken;
}

void memory_uncharge(size_t bytes)
{
	memory_give_back(&memory_charged, bytes);
}

/* One buffer is granted in any case. */
bool memory_charge_reserve(struct memory_user *user, size_t bytes)
{
	return memory_take(&user->reserve, bytes, max_t(long, bytes, MEMORY_RESERVE));
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
	return memory_used() > memory_bound() / 2;
}

size_t memory_used(void)
{
	return atomic_long_read(&memory_charged);
}
