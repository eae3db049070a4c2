/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_TRACKING_H
#define BLKSNAP_TRACKING_H

#include <linux/list.h>
#include <linux/types.h>
#include <linux/workqueue.h>

#include "cbt_map.h"
#include "disk_watch.h"
#include "error.h"

#define TRACKING_NAME_MAX 64

struct tracker;

/**
 * enum tracking_state - what is shown
 * @TRACKING_CONFIGURED: not enabled
 * @TRACKING_ACTIVE: what changes is marked
 * @TRACKING_LOST: it was; the origin has gone, or is not what it was
 */
enum tracking_state { TRACKING_CONFIGURED, TRACKING_ACTIVE, TRACKING_LOST };

/**
 * struct tracking - the change tracking of one origin, as it is administered
 * @node: in the list of all; protected, as all that has no comment of its own,
 *	by the mutex of tracking.c
 * @name: set once
 * @error: the last refusal, or why it was lost
 * @device: path of the origin as it was written, or NULL
 * @id: what it was resolved to; its number is that which it has now
 * @block_size: wanted, in bytes; 0 for a choice
 * @picked: in force since it was last enabled, in bytes
 * @state: left and entered in tracking_set_state() only
 * @tracker: while active
 * @watch: while active
 * @work: looks at what @watch has noticed
 * @unsure: 1 while @work will look again, since it cannot be told yet
 */
struct tracking {
	struct list_head node;
	char name[TRACKING_NAME_MAX + 1];
	struct error_text error;
	char *device;
	struct origin_id id;
	u64 block_size;
	u64 picked;
	enum tracking_state state;
	struct tracker *tracker;
	struct disk_watch watch;
	struct delayed_work work;
	unsigned int unsure;
};

/**
 * struct tracking_status - what is shown of one that may be active
 * @state: its state
 * @id: generation and number; no generation unless it is active
 * @block_size: in bytes
 */
struct tracking_status {
	enum tracking_state state;
	struct cbt_id id;
	u64 block_size;
};

/**
 * struct tracking_range - bytes of an origin
 * @offset: of the first
 * @length: how many, at least one
 */
struct tracking_range {
	u64 offset;
	u64 length;
};

/**
 * tracking_add() - one more, with nothing configured. Context: may sleep.
 * @tracking: zeroed
 * @name: valid
 */
void tracking_add(struct tracking *tracking, const char *name);

/**
 * tracking_remove() - takes it out and frees what it holds, not the struct
 * @tracking: not enabled. Context: may sleep.
 */
void tracking_remove(struct tracking *tracking);

/**
 * tracking_show_device() - the path as it was written
 * @tracking: the tracking
 * @page: a buffer of a configfs file
 *
 * Context: may sleep. Return: the length.
 */
ssize_t tracking_show_device(struct tracking *tracking, char *page);

/**
 * tracking_set_device() - sets the origin
 * @tracking: the tracking
 * @path: resolved with the rights of the current task
 *
 * Context: may sleep. Return: 0, -EBUSY while enabled, -EEXIST when another one
 * has this device, or what origin_resolve() and origin_open() say.
 */
int tracking_set_device(struct tracking *tracking, const char *path);

/**
 * tracking_set_block_size() - sets the size of a block
 * @tracking: the tracking
 * @bytes: 0, or a power of two from 4096 to 67108864
 *
 * Context: may sleep. Return: 0, -EBUSY while enabled, -EINVAL.
 */
int tracking_set_block_size(struct tracking *tracking, u64 bytes);

/**
 * tracking_enable() - begins to mark what changes
 * @tracking: the tracking
 *
 * Context: may sleep. Return: 0, -EBUSY when it is enabled, -EINVAL when it has
 * no device or the map would be too large, or what opening and following the
 * device say.
 */
int tracking_enable(struct tracking *tracking);

/**
 * tracking_disable() - ends it, and forgets the map. Context: may sleep.
 * @tracking: the tracking
 *
 * Return: true if it was enabled.
 */
bool tracking_disable(struct tracking *tracking);

/**
 * tracking_dirty() - ranges count as changed
 * @tracking: the tracking
 * @ranges: the ranges
 * @nr: how many
 *
 * Context: may sleep. Return: 0; -EINVAL when it is not active; -ERANGE when one
 * is out of range, and then none is marked.
 */
int tracking_dirty(struct tracking *tracking, const struct tracking_range *ranges,
		   unsigned int nr);

/**
 * tracking_status() - looks at the origin, then says what is shown
 * @tracking: the tracking
 * @status: the answer
 *
 * Context: may sleep.
 */
void tracking_status(struct tracking *tracking, struct tracking_status *status);

/**
 * tracking_state_name() - as the administrator reads it. Context: any.
 * @state: the state
 */
const char *tracking_state_name(enum tracking_state state);

/**
 * tracking_settle() - what became of origins is dealt with when this returns
 *
 * For a take, so that it finds trackers of the size that origins have now.
 * Context: may sleep.
 */
void tracking_settle(void);

#endif
