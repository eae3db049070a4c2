/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_STARVED_H
#define BLKSNAP_STARVED_H

#include <linux/list.h>
#include <linux/spinlock.h>
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
 * @lists: of origin_writes, by class, the oldest first; protected by @lock, but
 *	emptiness is read without
 */
struct starved {
	spinlock_t lock;
	struct list_head lists[STARVED_CLASSES];
};

/**
 * starved_init() - nobody waits
 * @starved: the queue
 */
void starved_init(struct starved *starved);

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
 * starved_add() - a write waits
 * @starved: the queue
 * @class: its class
 * @write: the write; its @stalled_ns says how long it has waited already
 *
 * Context: any.
 */
void starved_add(struct starved *starved, enum starved_class class,
		 struct origin_write *write);

/**
 * starved_take() - whose turn it is
 * @starved: the queue
 * @lead_ns: how much earlier the background must have come to go first
 *
 * Stores first; then who is awaited, unless one of the background has waited so
 * much longer. Context: any. Return: a write that does not wait any more, or
 * NULL.
 */
struct origin_write *starved_take(struct starved *starved, u64 lead_ns);

/**
 * starved_take_oldest() - the oldest of each class do not wait any more
 * @starved: the queue
 * @writes: where they go
 *
 * Context: any.
 */
void starved_take_oldest(struct starved *starved, struct list_head *writes);

/**
 * starved_take_all() - nobody waits any more
 * @starved: the queue
 * @writes: where they go
 *
 * Context: any.
 */
void starved_take_all(struct starved *starved, struct list_head *writes);

#endif
