// SPDX-License-Identifier: GPL-2.0
/*
 * The diff area: the owner of information about overwritten blocks.
 *
 * Vocabulary. The origin is divided into granules, the unit of preserving. A
 * chunk is a run of granules that was preserved as one, as long as the write
 * that caused it. The map says of each granule where its content as of the
 * take is: still on the origin, in a chunk, or in the difference storage.
 *
 * A write that will overwrite granules which are not preserved is kept until
 * they are (preserve.c). It does not wait for what comes then: ready chunks
 * gather, and when the budget is half used, a worker stores them, sorted by
 * their place on the origin, in one sequential range, and then replaces their
 * entries by the place (diff_store.c). A session that is released earlier stores
 * nothing.
 *
 * The laws (docs/design.md has all of them, with how they are kept):
 *
 * I1 The origin comes first: a write that cannot be preserved passes, after
 *    the area has failed. Waiting for memory has a deadline (hold_limit_ms).
 * I2 The image never lies: it looks at the map, and then at the state, after
 *    its read of the origin is complete. Entries never go back to nothing, a
 *    chunk is entered before the write that it guards passes, and the state is
 *    left before any unpreserved write passes. So "no entry, and still active"
 *    proves that the origin had the old content.
 * I3 Preserve before overwrite: diff_area_may_pass() is true only for what is
 *    READY or stored.
 * I4 Everything is bounded: chunks are charged to the budget, and a write that
 *    gets none waits without a thread (@starved).
 * I5 Nobody sleeps where he must not: what runs in the submitter or in a
 *    completion takes spinlocks only.
 *
 * An overflow, an error or a lost origin leaves behind: a final state, the
 * reason in @error, an image that answers EIO, and an origin that goes on.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blkdev.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/percpu.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "diff_area.h"
#include "diff_storage.h"
#include "diff_store.h"
#include "gate.h"
#include "trace.h"

#define DIFF_AREA_LOAD_BIOS 4	/* reads that can always be in flight */
#define GRANULE_MIN SZ_4K
#define GRANULE_HINT_MAX SZ_64K
#define GRANULES_MAX BIT_ULL(32)

/* Choosing the granule */

/*
 * A larger io_min is the stripe of a RAID or a thin pool: to follow it would
 * copy half a mebibyte for each 4 KiB that are overwritten.
 */
static unsigned int granule_hint(unsigned int bytes)
{
	return is_power_of_2(bytes) && bytes <= GRANULE_HINT_MAX ? bytes : 0;
}

static bool granule_is_too_small(struct block_device *origin, long granule)
{
	return (u64)bdev_nr_bytes(origin) / granule > GRANULES_MAX;
}

long diff_area_granule(struct block_device *origin, long wanted, long most)
{
	struct request_queue *q = bdev_get_queue(origin);
	long granule = GRANULE_MIN;

	if (wanted)
		return wanted < bdev_logical_block_size(origin) ? -EINVAL : wanted;
	granule = max_t(long, granule, bdev_logical_block_size(origin));
	granule = max_t(long, granule, granule_hint(queue_physical_block_size(q)));
	granule = max_t(long, granule, granule_hint(queue_io_min(q)));
	while (granule_is_too_small(origin, granule) && granule <= most / 2)
		granule *= 2;
	return granule;
}

/* Counts what diff_area_note_armed() is called for. */
static atomic64_t area_arms;

void diff_area_note_armed(struct diff_area *area)
{
	area->armed = atomic64_inc_return(&area_arms);
}

u64 diff_area_arms(void)
{
	return atomic64_read(&area_arms);
}

/* The state */

const char *diff_area_state_name(enum diff_area_state state)
{
	static const char *const names[] = {
		[DIFF_AREA_ACTIVE] = "active",
		[DIFF_AREA_LOST] = "lost",
		[DIFF_AREA_OVERFLOW] = "overflow",
		[DIFF_AREA_FAILED] = "failed",
		[DIFF_AREA_RELEASED] = "configured",
	};

	return names[state];
}

/*
 * The only place where the state changes. cmpxchg() orders what follows, the
 * passing of writes, after it: pairs with diff_area_state().
 */
static bool diff_area_leave_active(struct diff_area *area,
				   enum diff_area_state state)
{
	if (cmpxchg(&area->state, DIFF_AREA_ACTIVE, state) != DIFF_AREA_ACTIVE)
		return false;
	WRITE_ONCE(area->over, true);
	diff_storage_wake(area->config.storage);
	return true;
}

void diff_area_store_soon(struct diff_area *area)
{
	queue_work(area->config.wq, READ_ONCE(area->state) == DIFF_AREA_ACTIVE ?
		   &area->store_work : &area->purge_work);
}

/* For who waits in preserve_settle(). */
static void diff_area_note_change(struct diff_area *area)
{
	atomic_inc(&area->changes);
	smp_mb__after_atomic(); /* pairs with preserve_settle() */
	if (atomic_read(&area->settling))
		wake_up_all(&area->changed);
}

void diff_area_fail(struct diff_area *area, enum diff_area_state state,
		    bool shared, int err, const char *fmt, ...)
{
	struct va_format what = { .fmt = fmt };
	va_list args;

	if (!diff_area_leave_active(area, state))
		return;
	va_start(args, fmt);
	what.va = &args;
	error_set(&area->error, area->config.name, err, "%pV", &what);
	va_end(args);
	/* what @error has comes first: pairs with diff_area_has_failed() */
	smp_store_release(&area->explained, true);
	trace_blksnap_state(area->config.origin->bd_dev, state, err);

	starved_resume_all(&area->starved);
	diff_area_note_change(area);
	diff_area_store_soon(area);
	area->config.failed(area->config.owner, area, shared);
}

/* Passing */

bool diff_area_may_pass(struct diff_area *area, sector_t first, sector_t last)
{
	return READ_ONCE(area->state) != DIFF_AREA_ACTIVE ||
	       diff_map_preserved(&area->map, diff_area_granule_of(area, first),
				  diff_area_granule_of(area, last));
}

static void diff_area_count_held(struct diff_area *area, u64 since_ns)
{
	s64 us = (ktime_get_ns() - since_ns) / NSEC_PER_USEC;
	s64 max = atomic64_read(&area->stats.held_us_max);

	while (us > max && !atomic64_try_cmpxchg(&area->stats.held_us_max, &max, us))
		;
	atomic64_inc(&area->stats.writes_held);
}

void diff_area_passed(struct diff_area *area, const struct origin_write *write)
{
	if (write->held_ns)
		diff_area_count_held(area, write->held_ns);
	else
		this_cpu_inc(*area->writes_passed);
}

u64 diff_area_writes_passed(const struct diff_area *area)
{
	u64 sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += *per_cpu_ptr(area->writes_passed, cpu);
	return sum;
}

/* Ranges */

int diff_area_exclude(struct diff_area *area, sector_t first, sector_t last)
{
	unsigned long from, to;
	int ret = 0;

	/* Granules of which all belongs to it; the last one may be short. */
	from = diff_area_granule_of(area, first + (1UL << area->granule_shift) - 1);
	if (last == area->sectors - 1)
		last |= (1UL << area->granule_shift) - 1;
	to = diff_area_granule_of(area, last + 1);
	if (from >= to)
		return 0;
	mutex_lock(&area->map.mutex);
	ret = diff_map_set_zero(&area->map, from, to - 1);
	mutex_unlock(&area->map.mutex);
	return ret;
}

int diff_area_note_written(struct diff_area *area, sector_t first, sector_t last)
{
	return granule_set_add(&area->written, diff_area_granule_of(area, first),
			       diff_area_granule_of(area, last));
}

/* Storing */

static void diff_area_store_fail(struct diff_area *area, int err)
{
	struct diff_storage *storage = area->config.storage;
	char why[DIFF_STORAGE_WHY_MAX];
	u64 size, used;

	if (err == -ENOSPC) {
		diff_storage_bytes(storage, &size, &used);
		diff_area_fail(area, DIFF_AREA_OVERFLOW, true, err,
			       "difference storage full at %llu bytes%s", size,
			       diff_storage_why_full(storage, why));
	} else {
		diff_area_fail(area, DIFF_AREA_FAILED, true, err,
			       "cannot write to the difference storage");
	}
}

/*
 * What became ready while a batch was stored waits for the next large one, if
 * nobody needs it stored now.
 */
static bool diff_area_wants_store(struct diff_area *area)
{
	return READ_ONCE(area->state) == DIFF_AREA_ACTIVE &&
	       (memory_is_short() || starved_any(&area->starved) ||
		atomic_read(&area->settling));
}

static void diff_area_store(struct diff_area *area)
{
	int ret = 1;

	while (ret > 0 && diff_area_wants_store(area)) {
		ret = diff_store_ready(area);
		if (ret > 0)
			diff_area_note_change(area);
	}
	if (ret < 0)
		diff_area_store_fail(area, ret);
	if (READ_ONCE(area->state) != DIFF_AREA_ACTIVE)
		diff_store_purge(area);
}

static void diff_area_store_work(struct work_struct *work)
{
	struct diff_area *area = container_of(work, struct diff_area, store_work);

	if (!diff_area_tryuse(area))
		return;
	diff_area_store(area);
	diff_area_unuse(area);
}

/*
 * A store may hang for as long as the storage does, and who uses the area, too,
 * while diff_area_stop() waits for them; the others need the memory.
 */
static void diff_area_purge_work(struct work_struct *work)
{
	diff_store_purge(container_of(work, struct diff_area, purge_work));
}

/* The budget */

static void diff_area_told_store(struct memory_user *user)
{
	struct diff_area *area = container_of(user, struct diff_area, memory);

	if (!list_empty(&area->ready))
		diff_area_store_soon(area);
}

static void diff_area_told_relief(struct memory_user *user)
{
	struct diff_area *area = container_of(user, struct diff_area, memory);

	if (starved_any(&area->starved))
		starved_resume_one(&area->starved);
	if (atomic_read(&area->settling))
		diff_area_note_change(area);
}

static const struct memory_user_ops diff_area_memory_ops = {
	.store = diff_area_told_store,
	.relief = diff_area_told_relief,
};

/* Life */

static void diff_area_unused(struct percpu_ref *users)
{
	wake_up_all(&container_of(users, struct diff_area, users)->unused);
}

struct diff_area *diff_area_create(const struct diff_area_config *config)
{
	struct diff_area *area;

	area = kzalloc(sizeof(*area), GFP_KERNEL);
	if (!area)
		return ERR_PTR(-ENOMEM);
	area->config = *config;
	area->granule_shift = ilog2(config->granule) - SECTOR_SHIFT;
	area->sectors = config->sectors;
	kref_init(&area->kref);
	init_waitqueue_head(&area->unused);
	init_waitqueue_head(&area->changed);
	granule_set_init(&area->written);
	error_init(&area->error);
	spin_lock_init(&area->lock);
	INIT_LIST_HEAD(&area->ready);
	INIT_LIST_HEAD(&area->placed);
	starved_init(&area->starved);
	INIT_WORK(&area->store_work, diff_area_store_work);
	INIT_WORK(&area->purge_work, diff_area_purge_work);
	area->memory.ops = &diff_area_memory_ops;

	if (diff_map_init(&area->map,
			  diff_area_granule_of(area, area->sectors - 1) + 1))
		goto out;
	area->writes_passed = alloc_percpu(u64);
	if (!area->writes_passed)
		goto out_map;
	if (bioset_init(&area->load_bios, DIFF_AREA_LOAD_BIOS, 0,
			BIOSET_NEED_BVECS))
		goto out_passed;
	if (percpu_ref_init(&area->users, diff_area_unused, 0, GFP_KERNEL))
		goto out_bios;
	memory_register(&area->memory);
	return area;

out_bios:
	bioset_exit(&area->load_bios);
out_passed:
	free_percpu(area->writes_passed);
out_map:
	diff_map_clear(&area->map);
out:
	kfree(area);
	return ERR_PTR(-ENOMEM);
}

void diff_area_retire(struct diff_area *area)
{
	if (!diff_area_leave_active(area, DIFF_AREA_RELEASED))
		return;
	starved_resume_all(&area->starved);
	diff_area_note_change(area);
	diff_area_store_soon(area);
}

/*
 * The end comes in this order. The state has been left: images answer EIO, and
 * writes need nothing from us any more. Now there is no new user; loads, stores
 * and image reads that are under way end, each with its reference. Until then no
 * more is done than to give up what is not stored; after it the map goes.
 */
void diff_area_stop(struct diff_area *area)
{
	percpu_ref_kill(&area->users);
	wait_event(area->unused, percpu_ref_is_zero(&area->users));
	diff_store_purge(area);
	memory_unregister(&area->memory); /* with nothing to be told to store */
	starved_stop(&area->starved);
	cancel_work_sync(&area->store_work);
	cancel_work_sync(&area->purge_work);
	/* The last user may still be on its way out of diff_area_unused(). */
	synchronize_rcu();
	diff_map_clear(&area->map);
}

static void diff_area_free(struct kref *kref)
{
	struct diff_area *area = container_of(kref, struct diff_area, kref);

	granule_set_destroy(&area->written);
	percpu_ref_exit(&area->users);
	bioset_exit(&area->load_bios);
	free_percpu(area->writes_passed);
	kfree(area);
}

void diff_area_get(struct diff_area *area)
{
	kref_get(&area->kref);
}

void diff_area_put(struct diff_area *area)
{
	kref_put(&area->kref, diff_area_free);
}
