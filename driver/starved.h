/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_STARVED_H
#define BLKSNAP_STARVED_H

#include <linux/list.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/types.h>

struct origin_write;

/**
 * enum starved_class - who waits for a write, and so whose turn it is
 * @STARVED_STORE: it is a store of another area, and frees memory
 * @STARVED_AWAITED: a program or the kernel waits for its end
 * @STARVED_BACKGROUND: it is written back, and nobody waits for it yet
 * @STARVED_CLASSES: how many there are
 */
enum starved_class {
	STARVED_STORE,
	STARVED_AWAITED,
	STARVED_BACKGROUND,
	STARVED_CLASSES,
};

/**
 * struct starved - writes that wait for memory, each in its turn
 * @lock: taken in any context
 * @id: no other one has it, nor will have it
 * @lists: of origin_writes, by class, the oldest first; protected by @lock, but
 *	emptiness is read without
 * @timer: lets the oldest of each class try, when one of them is out of time or
 *	may find memory that nobody announces
 */
struct starved {
	spinlock_t lock;	/* protects the lists */
	u64 id;
	struct list_head lists[STARVED_CLASSES];
	struct timer_list timer;
};

/**
 * starved_init() - nobody waits. Context: any.
 * @starved: the queue
 */
void starved_init(struct starved *starved);

/**
 * starved_stop() - nobody is resumed by time any more
 * @starved: the queue, to which nobody adds any more. Context: may sleep.
 */
void starved_stop(struct starved *starved);

/**
 * starved_class() - the class of a write that is no store
 * @write: the write. Context: any.
 *
 * Return: STARVED_AWAITED for direct and synchronous writes, metadata, and what
 * is swapped out.
 */
enum starved_class starved_class(const struct origin_write *write);

/**
 * starved_any() - does anybody wait?
 * @starved: the queue. Context: any, without a lock.
 */
bool starved_any(const struct starved *starved);

/**
 * starved_has_waited() - has this write been refused memory before, and got none
 * since?
 * @starved: the queue
 * @write: the write. Context: its owner's.
 */
bool starved_has_waited(const struct starved *starved,
			const struct origin_write *write);

/**
 * starved_left() - how long a write that was refused memory may still wait
 * @starved: the queue
 * @class: its class
 * @write: the write; its time begins with the first call since starved_end()
 * @stored_ns: when the storage last took something (ktime_get_ns()), read here. The
 *	time of what is written back ends hold_limit_ms after that, that of
 *	others too, but at the latest three times hold_limit_ms after it began
 *
 * Context: the write's owner's. Return: nanoseconds; 0 if its time is over.
 */
u64 starved_left(const struct starved *starved, enum starved_class class,
		 struct origin_write *write, const u64 *stored_ns);

/**
 * starved_waited_ms() - how long ago the time of a write began
 * @write: starved_left() was called for it
 *
 * Context: its owner's. Return: milliseconds.
 */
u64 starved_waited_ms(const struct origin_write *write);

/**
 * starved_end() - a write has got memory, or needs none: it waits no more
 * @starved: the queue
 * @write: the write, which may wait for another queue's memory now. Context: its
 *	owner's.
 */
void starved_end(const struct starved *starved, struct origin_write *write);

/**
 * starved_add() - a write waits
 * @starved: the queue
 * @class: its class
 * @write: starved_left() was called for it
 * @delay_ns: when the oldest of each class try again, at the latest
 *
 * The write is the queue's from now on, and may be on its way again when this
 * returns; the caller keeps the queue. Context: any.
 */
void starved_add(struct starved *starved, enum starved_class class,
		 struct origin_write *write, u64 delay_ns);

/**
 * starved_resume_one() - some memory is free: whose turn it is tries again
 * @starved: the queue
 *
 * Stores first; then who is awaited, unless one of the background has waited
 * longer by a quarter of hold_limit_ms. Who gets what he needs is to call this
 * in turn, as is who does not need it any more; so nobody is woken in vain but
 * one. Context: any.
 */
void starved_resume_one(struct starved *starved);

/**
 * starved_resume_all() - nobody waits any more. Context: any.
 * @starved: the queue
 */
void starved_resume_all(struct starved *starved);

#endif
