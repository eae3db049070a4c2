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

bool memory_charge(size_t bytes)
{
	long limit = memory_bound();
	long used = atomic_long_add_return(bytes, &memory_charged);

	if (used > limit) {
		atomic_long_sub(bytes, &memory_charged);
		memory_tell_store();
		return false;
	}
	if (used > limit / 2)
		memory_tell_store();
	return true;
}

void memory_uncharge(size_t bytes)
{
	atomic_long_sub(bytes, &memory_charged);
	memory_tell_relief();
}

bool memory_charge_reserve(struct memory_user *user, size_t bytes)
{
	long used = atomic_long_read(&user->reserve);

	do {
		if (used && used + bytes > MEMORY_RESERVE)
			return false;
	} while (!atomic_long_try_cmpxchg(&user->reserve, &used, used + bytes));
	return true;
}

void memory_uncharge_reserve(struct memory_user *user, size_t bytes)
{
	atomic_long_sub(bytes, &user->reserve);
	memory_tell_relief();
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
