/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_MEMORY_H
#define BLKSNAP_MEMORY_H

#include <linux/atomic.h>
#include <linux/list.h>
#include <linux/types.h>

struct memory_user;

/**
 * struct memory_user_ops - what a user of the budget is told
 * @store: much of the budget is used: begin to write back
 * @relief: some of the budget became free: whoever waits may try again
 *
 * Both are called in any context, also from interrupts, and must not sleep.
 */
struct memory_user_ops {
	void (*store)(struct memory_user *user);
	void (*relief)(struct memory_user *user);
};

/**
 * struct memory_user - embedded in whoever holds preserved data in memory
 * @node: protected by the lock of memory.c
 * @ops: set once
 * @held: bytes that it has of the budget
 * @reserve: bytes that it has from its reserve, beyond the budget
 */
struct memory_user {
	struct list_head node;
	const struct memory_user_ops *ops;
	atomic_long_t held;
	atomic_long_t reserve;
};

/**
 * memory_init() - reads the limit, or chooses one from the size of the memory
 *
 * Context: module init. Return: 0 or -ENOMEM.
 */
int memory_init(void);

/**
 * memory_exit() - undoes memory_init(). Context: module exit; nothing is charged.
 */
void memory_exit(void);

/**
 * memory_register() - begins to tell a user
 * @user: @ops is set. Context: any that may take a spinlock.
 */
void memory_register(struct memory_user *user);

/**
 * memory_unregister() - ends it
 * @user: when this returns it is not being told anything any more
 *
 * Context: any that may take a spinlock.
 */
void memory_unregister(struct memory_user *user);

/**
 * memory_charge() - takes bytes from the budget of all sessions
 * @user: is registered
 * @bytes: how many
 *
 * A share is left for each of the other users (memory_share()): whatever one of
 * them holds, because its storage is slow, the others get on. Asks the users to
 * write back once half of the limit is used. Context: any. Return: true, or false
 * and nothing taken.
 */
bool memory_charge(struct memory_user *user, size_t bytes);

/**
 * memory_share_left() - what a user can have now, whatever the others hold
 * @user: is registered
 *
 * Context: any. Return: bytes, whole pages: what it has not used of its share.
 */
size_t memory_share_left(const struct memory_user *user);

/**
 * memory_most() - what can be charged at most, where nobody has anything
 *
 * Context: any. Return: bytes, at least half of the limit.
 */
size_t memory_most(void);

/**
 * memory_uncharge() - gives bytes back
 * @user: who has them
 * @bytes: how many
 *
 * If a charge was refused since the last time, it tells the users. Context: any.
 */
void memory_uncharge(struct memory_user *user, size_t bytes);

/**
 * memory_charge_reserve() - takes bytes that a user has beside the budget
 * @user: the user
 * @bytes: how many
 *
 * For what others need to free memory: if that waited for the budget, and the
 * budget for that, nobody would get on. One buffer of any size is always granted,
 * more of them up to 1 MiB. Context: any. Return: true, or false and nothing
 * taken.
 */
bool memory_charge_reserve(struct memory_user *user, size_t bytes);

/**
 * memory_uncharge_reserve() - gives them back, and tells the users as above
 * @user: the user
 * @bytes: how many. Context: any.
 */
void memory_uncharge_reserve(struct memory_user *user, size_t bytes);

/**
 * memory_reliefs() - how often something became free
 *
 * Who reads it before a charge fails, and finds it changed when he has put
 * himself where memory_user_ops.relief looks, may have missed a relief.
 * Context: any.
 */
unsigned long memory_reliefs(void);

/**
 * memory_note_exhausted() - the kernel had no page for a buffer
 *
 * All users are told to store what they have, whoever needs the memory: what
 * lies in the buffers of one may be what another one waits for. Context: any.
 */
void memory_note_exhausted(void);

/**
 * memory_is_short() - is more than half of the budget used? Or more than a
 *	little, while the kernel is short of memory; or anything, while it has none
 *
 * Context: any. Return: true if it is time to write back.
 */
bool memory_is_short(void);

/**
 * memory_bound() - the limit in force, in bytes
 *
 * Context: any.
 */
size_t memory_bound(void);

/**
 * memory_used() - how much is charged, in bytes
 *
 * Context: any.
 */
size_t memory_used(void);

#endif
