// SPDX-License-Identifier: GPL-2.0
/*
 * Writes that wait for memory, without a thread, and whose turn it is. All of
 * what a large machine writes back may come here at once, and would keep those
 * waiting that somebody waits for; so the latter go first. But nobody is left
 * behind: who came so much earlier goes before them.
 */
#include <linux/bio.h>
#include <linux/blk_types.h>

#include "gate.h"
#include "starved.h"

void starved_init(struct starved *starved)
{
	int class;

	spin_lock_init(&starved->lock);
	for (class = 0; class < STARVED_CLASSES; class++)
		INIT_LIST_HEAD(&starved->lists[class]);
}

enum starved_class starved_class(const struct origin_write *write)
{
	blk_opf_t opf = write->bio->bi_opf;

	if (op_is_sync(opf) || (opf & (REQ_META | REQ_PRIO | REQ_SWAP)))
		return STARVED_AWAITED;
	return STARVED_BACKGROUND;
}

bool starved_any(const struct starved *starved)
{
	int class;

	for (class = 0; class < STARVED_CLASSES; class++)
		if (!list_empty(&starved->lists[class]))
			return true;
	return false;
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
		 struct origin_write *write)
{
	unsigned long flags;

	spin_lock_irqsave(&starved->lock, flags);
	__starved_insert(&starved->lists[class], write);
	spin_unlock_irqrestore(&starved->lock, flags);
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

struct origin_write *starved_take(struct starved *starved, u64 lead_ns)
{
	struct origin_write *write;
	unsigned long flags;

	spin_lock_irqsave(&starved->lock, flags);
	write = __starved_next(starved, lead_ns);
	if (write)
		list_del(&write->node);
	spin_unlock_irqrestore(&starved->lock, flags);
	return write;
}

void starved_take_oldest(struct starved *starved, struct list_head *writes)
{
	unsigned long flags;
	int class;

	spin_lock_irqsave(&starved->lock, flags);
	for (class = 0; class < STARVED_CLASSES; class++)
		if (!list_empty(&starved->lists[class]))
			list_move_tail(starved->lists[class].next, writes);
	spin_unlock_irqrestore(&starved->lock, flags);
}

void starved_take_all(struct starved *starved, struct list_head *writes)
{
	unsigned long flags;
	int class;

	spin_lock_irqsave(&starved->lock, flags);
	for (class = 0; class < STARVED_CLASSES; class++)
		list_splice_tail_init(&starved->lists[class], writes);
	spin_unlock_irqrestore(&starved->lock, flags);
}
