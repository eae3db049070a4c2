/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_DIFF_AREA_H
#define BLKSNAP_DIFF_AREA_H

#include <linux/atomic.h>
#include <linux/bio.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/percpu-refcount.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "diff_map.h"
#include "error.h"
#include "granule_set.h"
#include "memory.h"
#include "starved.h"

struct block_device;
struct diff_area;
struct diff_storage;
struct origin_write;

/**
 * enum diff_area_state - from better to worse
 * @DIFF_AREA_ACTIVE: everything that was overwritten is preserved
 * @DIFF_AREA_LOST: the origin went away
 * @DIFF_AREA_OVERFLOW: the difference storage is full
 * @DIFF_AREA_FAILED: an I/O error, memory or a time limit lost preserved data
 * @DIFF_AREA_RELEASED: nobody wants it any more
 *
 * Only the first is ever left.
 */
enum diff_area_state {
	DIFF_AREA_ACTIVE,
	DIFF_AREA_LOST,
	DIFF_AREA_OVERFLOW,
	DIFF_AREA_FAILED,
	DIFF_AREA_RELEASED,
};

/**
 * struct diff_area_config - what an area is made for
 * @origin: the device, held open for as long as the area is in use
 * @sectors: how many of it
 * @granule: the unit of preserving in bytes, a power of two, from
 *	diff_area_granule()
 * @storage: where differences go; shared by the areas of a session
 * @wq: for storing; may run in parallel for several areas
 * @name: for log lines
 * @drop_discards: discards of the origin are completed and not passed on
 * @failed: called once, in any context, when the area leaves DIFF_AREA_ACTIVE
 *	by itself; @shared says that the cause is the storage, so that the other
 *	areas that share it are to fail as well
 * @owner: for @failed
 */
struct diff_area_config {
	struct block_device *origin;
	sector_t sectors;
	unsigned int granule;
	struct diff_storage *storage;
	struct workqueue_struct *wq;
	const char *name;
	bool drop_discards;
	void (*failed)(void *owner, struct diff_area *area, bool shared);
	void *owner;
};

/**
 * struct diff_stats - what is counted, each value for itself
 * @preserved: granules copied so far
 * @stored: of them in the difference storage
 * @memory_bytes: preserved data held in memory
 * @origin_read_bytes: read to preserve
 * @diff_written_bytes: stored
 * @diff_writes: in so many requests
 * @writes_held: origin writes that had to wait
 * @writes_joined: of them, those that waited for a chunk of another write
 * @held_us_max: the longest time that one waited
 * @discards_dropped: bytes
 * @reads_origin: bytes that image reads took from the origin
 * @reads_diff: from the difference storage
 * @reads_memory: from chunks in memory
 * @reads_repeated: image reads of which a part was overwritten on the origin
 *	while it was read, and so was taken from where it is preserved
 */
struct diff_stats {
	atomic64_t preserved;
	atomic64_t stored;
	atomic64_t memory_bytes;
	atomic64_t origin_read_bytes;
	atomic64_t diff_written_bytes;
	atomic64_t diff_writes;
	atomic64_t writes_held;
	atomic64_t writes_joined;
	atomic64_t held_us_max;
	atomic64_t discards_dropped;
	atomic64_t reads_origin;
	atomic64_t reads_diff;
	atomic64_t reads_memory;
	atomic64_t reads_repeated;
};

/**
 * struct diff_area - the owner of information about overwritten blocks
 * @config: set once
 * @granule_shift: log2 of the granule in sectors; set once
 * @sectors: size of the origin; set once
 * @armed: when it was, by the count of all that ever were; set while no write
 *	passes
 * @kref: the struct itself
 * @node: in its tracker's list; protected by the tracker's semaphore, read
 *	under RCU
 * @users: whoever is at work on it; killed at its end
 * @unused: woken when @users comes to zero
 * @state: left once, by diff_area_fail() or diff_area_retire(), with release
 *	semantics
 * @over: it has been left
 * @error: why
 * @explained: @error has the reason; set once, with release semantics
 * @map: which granules are preserved, and where
 * @lock: taken from completions; protects @ready, @placed and the chunks' lists
 *	and states
 * @ready: chunks that wait to be stored
 * @placed: those of them that have a place already, in that order
 * @starved: origin_writes that wait for memory, with a lock of its own
 * @store_work: stores what is ready
 * @purge_work: gives it up, when @state has been left: @store_work may hang then
 * @settling: how many wait in preserve_settle()
 * @changes: counts what may have brought one of them further
 * @changed: woken then
 * @load_bios: for reads of what is to be preserved
 * @written: granules that were written through the image
 * @memory: to hear from the budget
 * @stats: see there
 * @writes_passed: origin writes that had not to wait; one counter a CPU
 */
struct diff_area {
	struct diff_area_config config;
	unsigned int granule_shift;
	sector_t sectors;
	u64 armed;
	struct kref kref;
	struct list_head node;
	struct percpu_ref users;
	wait_queue_head_t unused;
	enum diff_area_state state;
	bool over;
	struct error_text error;
	bool explained;
	struct diff_map map;
	spinlock_t lock;	/* protects the next two, and the chunks */
	struct list_head ready;
	struct list_head placed;
	struct starved starved;
	struct work_struct store_work;
	struct work_struct purge_work;
	atomic_t settling;
	atomic_t changes;
	wait_queue_head_t changed;
	struct bio_set load_bios;
	struct granule_set written;
	struct memory_user memory;
	struct diff_stats stats;
	u64 __percpu *writes_passed;
};

/**
 * diff_area_granule() - the unit of preserving for a device
 * @origin: the device
 * @wanted: what the administrator wants, in bytes; 0 leaves the choice
 * @most: bytes; for the sake of a huge device alone nothing larger is chosen
 *
 * Context: any. Return: bytes, a power of two; or -EINVAL when @wanted is below
 * the device's logical block.
 */
long diff_area_granule(struct block_device *origin, long wanted, long most);

/**
 * diff_area_create() - an area that preserves nothing yet
 * @config: is copied; what it points to must outlive diff_area_stop()
 *
 * Context: may sleep. Return: the area, with one reference, or ERR_PTR(-ENOMEM).
 */
struct diff_area *diff_area_create(const struct diff_area_config *config);

/**
 * diff_area_get() - one more reference to the struct. Context: any.
 * @area: the area
 */
void diff_area_get(struct diff_area *area);

/**
 * diff_area_put() - gives a reference back. Context: may sleep.
 * @area: the area
 */
void diff_area_put(struct diff_area *area);

/**
 * diff_area_note_armed() - from now on it is shown each write
 * @area: the gate of its origin is closed and drained. Context: any.
 */
void diff_area_note_armed(struct diff_area *area);

/**
 * diff_area_arms() - how many areas were ever armed. Context: any.
 */
u64 diff_area_arms(void);

/**
 * diff_area_retire() - from now on images have errors, and nothing can fail
 * @area: the area; if it was active. Context: any.
 */
void diff_area_retire(struct diff_area *area);

/**
 * diff_area_stop() - the end of the area's work
 * @area: retired; no write is shown to it any more
 *
 * Writes that it has parked go on. Waits for every read and store that it has
 * under way, then frees the map. Context: may sleep.
 */
void diff_area_stop(struct diff_area *area);

/**
 * diff_area_tryuse() - keeps the area at work until diff_area_unuse()
 * @area: the area. Context: any. Return: false if it has come to its end.
 */
static inline bool diff_area_tryuse(struct diff_area *area)
{
	return percpu_ref_tryget_live(&area->users);
}

/**
 * diff_area_unuse() - ends diff_area_tryuse()
 * @area: the area. Context: any.
 */
static inline void diff_area_unuse(struct diff_area *area)
{
	percpu_ref_put(&area->users);
}

/**
 * diff_area_state() - the state, with acquire semantics
 * @area: the area
 *
 * Who has read the origin or the map before, and then sees DIFF_AREA_ACTIVE,
 * has read what nothing unpreserved could have changed (I2). Context: any.
 */
static inline enum diff_area_state diff_area_state(struct diff_area *area)
{
	/*
	 * What was read before must not be read after: pairs with
	 * diff_area_leave_active().
	 */
	smp_rmb();
	/* what comes after must not be read before: the same pair */
	return smp_load_acquire(&area->state);
}

/**
 * diff_area_has_failed() - has it failed, and does @error say why?
 * @area: the area
 *
 * Somewhat later than diff_area_state(); never after a release. Context: any.
 */
static inline bool diff_area_has_failed(struct diff_area *area)
{
	/* what @error has must not be read before: pairs with diff_area_fail() */
	return smp_load_acquire(&area->explained);
}

/**
 * diff_area_state_name() - as the administrator reads it. Context: any.
 * @state: the state
 */
const char *diff_area_state_name(enum diff_area_state state);

/**
 * diff_area_fail() - preserved data was lost: from now on the image has errors
 * @area: the area; nothing happens if it is not active any more
 * @state: one of the failed states
 * @shared: see struct diff_area_config
 * @err: a negative errno
 * @fmt: what happened
 *
 * Every write that it has parked goes on. Context: any.
 */
__printf(5, 6)
void diff_area_fail(struct diff_area *area, enum diff_area_state state,
		    bool shared, int err, const char *fmt, ...);

/**
 * diff_area_store_soon() - a worker looks what is to be stored, or given up
 * @area: not stopped yet: the caller uses it, fails it, or is told by the budget
 *
 * Context: any.
 */
void diff_area_store_soon(struct diff_area *area);

/**
 * diff_area_granule_of() - in which granule a sector is. Context: any.
 * @area: the area
 * @sector: the sector
 */
static inline unsigned long diff_area_granule_of(const struct diff_area *area,
						 sector_t sector)
{
	return sector >> area->granule_shift;
}

/**
 * diff_area_may_pass() - may these sectors of the origin be overwritten?
 * @area: the area
 * @first: first sector
 * @last: last sector, inside the origin
 *
 * Context: any; takes no lock (I6).
 */
bool diff_area_may_pass(struct diff_area *area, sector_t first, sector_t last);

/**
 * diff_area_exclude() - says that sectors belong to a difference storage
 * @area: not armed yet
 * @first: first sector
 * @last: last sector, inside the origin
 *
 * The image shows zeroes there, and writes to them are not preserved. Granules
 * that belong to it in part are not excluded. Context: may sleep. Return: 0 or
 * -ENOMEM.
 */
int diff_area_exclude(struct diff_area *area, sector_t first, sector_t last);

/**
 * diff_area_note_written() - counts what is written through the image
 * @area: the area
 * @first: first sector
 * @last: last sector
 *
 * Context: may sleep; does not reclaim. Return: 0 or -ENOMEM.
 */
int diff_area_note_written(struct diff_area *area, sector_t first,
			   sector_t last);

/**
 * diff_area_passed() - counts a write that passes now
 * @area: the area
 * @write: the write
 *
 * Context: as gate_watcher_ops.passed.
 */
void diff_area_passed(struct diff_area *area, const struct origin_write *write);

/**
 * diff_area_granules() - how many granules the origin has. Context: any.
 * @area: the area
 */
static inline u64 diff_area_granules(const struct diff_area *area)
{
	return ((area->sectors - 1) >> area->granule_shift) + 1;
}

/**
 * diff_area_in_memory() - preserved granules that are not stored. Context: any.
 * @area: the area
 */
static inline u64 diff_area_in_memory(const struct diff_area *area)
{
	/* In this order: between the two reads it can only seem to be more. */
	u64 stored = atomic64_read(&area->stats.stored);

	smp_rmb(); /* counters only: no partner */
	return atomic64_read(&area->stats.preserved) - stored;
}

/**
 * diff_area_writes_passed() - sum of the counters. Context: any.
 * @area: the area
 */
u64 diff_area_writes_passed(const struct diff_area *area);

#endif
