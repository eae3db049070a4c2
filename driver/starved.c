// SPDX-License-Identifier: GPL-2.0
/*
 * Writes that wait for memory, without a thread: whose turn it is, and for how
 * long they may. All of what a large machine writes back may come here at once,
 * and would keep those waiting that somebody waits for; so the latter go first.
 * But nobody is left behind: who came so much earlier goes before them.
 */
#include <linux/atomic.h>
#include <linux/bio.h>
#include <linux/blk_types.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/minmax.h>
#include <linux/moduleparam.h>

#include "gate.h"
#include "starved.h"

#define STARVED_LEAD 4	/* of hold_limit_ms, one part in so many */
#define STARVED_MOST 3	/* times that, who is awaited waits at most */

static unsigned int hold_limit_ms = 10000;
module_param(hold_limit_ms, uint, 0644);
MODULE_PARM_DESC(hold_limit_ms,
		 "How long an origin write may wait for memory before the snapshot gives up (default: 10000)");

static u64 starved_limit_ns(void)
{
	return (u64)READ_ONCE(hold_limit_ms) * NSEC_PER_MSEC;
}

static void starved_timer(struct timer_list *timer);

/* A write may outlive the queue, whose memory is another one's then. */
static atomic64_t starved_ids;

void starved_init(struct starved *starved)
{
	int class;

	starved->id = atomic64_inc_return(&starved_ids);
	spin_lock_init(&starved->lock);
	for (class = 0; class < STARVED_CLASSES; class++)
		INIT_LIST_HEAD(&starved->lists[class]);
	timer_setup(&starved->timer, starved_timer, 0);
}

void starved_stop(struct starved *starved)
{
	timer_shutdown_sync(&starved->timer);
}

enum starved_class starved_class(const struct origin_write *write)
{
	return origin_write_is_awaited(write) ? STARVED_AWAITED :
						STARVED_BACKGROUND;
}

bool starved_any(const struct starved *starved)
{
	int class;

	for (class = 0; class < STARVED_CLASSES; class++)
		if (!list_empty(&starved->lists[class]))
			return true;
	return false;
}

bool starved_has_waited(const struct starved *starved,
			const struct origin_write *write)
{
	return write->stalled_for == starved->id;
}

/* Another area may have it wait, too. */
void starved_end(const struct starved *starved, struct origin_write *write)
{
	if (write->stalled_for == starved->id)
		write->stalled_for = 0;
}

u64 starved_waited_ms(const struct origin_write *write)
{
	return (ktime_get_ns() - write->stalled_ns) / NSEC_PER_MSEC;
}

/*
 * A large write is worked off in pieces, as memory comes: it may take long, but
 * each piece has this limit. It begins anew as long as the storage takes what it
 * is given, since all that a large machine has to write back may be here at once;
 * but if somebody waits for the write, not for ever.
 */
u64 starved_left(const struct starved *starved, enum starved_class class,
		 struct origin_write *write, const u64 *stored_ns)
{
	u64 limit = starved_limit_ns(), now = ktime_get_ns();
	u64 since = READ_ONCE(*stored_ns); /* not before the time was read */

	if (write->stalled_for != starved->id) {
		write->stalled_for = starved->id;
		write->stalled_ns = now;
	}
	if (class != STARVED_BACKGROUND)
		since = min(since, write->stalled_ns + (STARVED_MOST - 1) * limit);
	since = max(since, write->stalled_ns);
	return since + limit > now ? since + limit - now : 0;
}

/* Who comes again was among the first, and is so still. */
static void __starved_insert(struct list_head *list, struct origin_write *write)
{
	struct origin_write *other;

	if (list_empty(list) ||
	    list_last_entry(list, struct origin_write, node)->stalled_ns <=
		    write->stalled_ns) {
		list_add_tail(&write->node, list);
		return;
	}
	list_for_each_entry(other, list, node)
		if (other->stalled_ns > write->stalled_ns)
			break;
	list_add_tail(&write->node, &other->node);
}

void starved_add(struct starved *starved, enum starved_class class,
		 struct origin_write *write, u64 delay_ns)
{
	unsigned long flags;

	spin_lock_irqsave(&starved->lock, flags);
	__starved_insert(&starved->lists[class], write);
	spin_unlock_irqrestore(&starved->lock, flags);
	/* hold_limit_ms may be lowered meanwhile. */
	delay_ns = min_t(u64, delay_ns, NSEC_PER_SEC);
	/* After it: a timer that finds nobody is not set again. */
	timer_reduce(&starved->timer,
		     jiffies + nsecs_to_jiffies(delay_ns + NSEC_PER_MSEC));
}

static struct origin_write *__starved_first(struct starved *starved,
					    enum starved_class class)
{
	return list_first_entry_or_null(&starved->lists[class],
					struct origin_write, node);
}

static struct origin_write *__starved_next(struct starved *starved,
					   u64 lead_ns)
{
	struct origin_write *store = __starved_first(starved, STARVED_STORE);
	struct origin_write *awaited = __starved_first(starved, STARVED_AWAITED);
	struct origin_write *background =
		__starved_first(starved, STARVED_BACKGROUND);

	if (store || !background)
		return store ?: awaited;
	if (!awaited)
		return background;
	return background->stalled_ns + lead_ns < awaited->stalled_ns ?
		       background : awaited;
}

static struct origin_write *starved_take(struct starved *starved)
{
	u64 lead_ns = starved_limit_ns() / STARVED_LEAD;
	struct origin_write *write;
	unsigned long flags;

	spin_lock_irqsave(&starved->lock, flags);
	write = __starved_next(starved, lead_ns);
	if (write)
		list_del(&write->node);
	spin_unlock_irqrestore(&starved->lock, flags);
	return write;
}

void starved_resume_one(struct starved *starved)
{
	struct origin_write *write = starved_take(starved);

	if (write)
		gate_resume(write);
}

static void starved_resume(struct list_head *writes)
{
	struct origin_write *write, *next;

	list_for_each_entry_safe(write, next, writes, node)
		gate_resume(write);
}

void starved_resume_all(struct starved *starved)
{
	unsigned long flags;
	LIST_HEAD(writes);
	int class;

	spin_lock_irqsave(&starved->lock, flags);
	for (class = 0; class < STARVED_CLASSES; class++)
		list_splice_tail_init(&starved->lists[class], &writes);
	spin_unlock_irqrestore(&starved->lock, flags);
	starved_resume(&writes);
}

static void starved_resume_oldest(struct starved *starved)
{
	unsigned long flags;
	LIST_HEAD(writes);
	int class;

	spin_lock_irqsave(&starved->lock, flags);
	for (class = 0; class < STARVED_CLASSES; class++)
		if (!list_empty(&starved->lists[class]))
			list_move_tail(starved->lists[class].next, &writes);
	spin_unlock_irqrestore(&starved->lock, flags);
	starved_resume(&writes);
}

/*
 * Time to try again; whose time is over finds that out himself. Those behind him
 * may depend on this timer, too, should he be kept elsewhere.
 */
static void starved_timer(struct timer_list *timer)
{
	struct starved *starved = container_of(timer, struct starved, timer);

	starved_resume_oldest(starved);
	if (starved_any(starved))
		timer_reduce(timer, jiffies + HZ);
}
