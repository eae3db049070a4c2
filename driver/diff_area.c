// SPDX-License-Identifier: GPL-2.0
/*
 * The diff area: the owner of information about overwritten blocks.
 *
 * Vocabulary. The origin is divided into granules, the unit of preserving. A
 * chunk is a run of granules that was preserved as one, as long as the write
 * that caused it. The map says of each granule where its content as of the
 * take is: still on the origin, in a chunk, or in the difference storage.
 *
 * A write to the origin that touches granules which are not preserved is held
 * by the gate, and comes here, from a worker of the gate (diff_area_preserve):
 *
 *  1. Under the map's mutex each run without an entry becomes a chunk in state
 *     LOADING. The entry is there before the read is issued, so whoever comes
 *     second finds it and waits for the same read.
 *  2. Reads of the origin are issued. The write is parked on one chunk that is
 *     still loading; when that is ready, the write starts again at the top, and
 *     parks on the next one if there is another.
 *  3. When all are ready, the write passes. It does not wait for the store.
 *  4. Ready chunks gather. When the budget is half used, a worker stores them,
 *     sorted by their place on the origin, in one sequential piece, and then
 *     replaces their entries by the place. A session that is released earlier
 *     stores nothing.
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
 *    gets none waits here without a thread (@starved).
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
#include <linux/moduleparam.h>
#include <linux/percpu.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "chunk.h"
#include "diff_area.h"
#include "diff_storage.h"
#include "diff_store.h"
#include "trace.h"

#define GRANULE_MIN SZ_4K
#define GRANULE_HINT_MAX SZ_64K
#define GRANULES_MAX BIT_ULL(32)
#define PIECE_CHUNKS 256
#define PIECE_BYTES SZ_2M
#define STARVED_RETRY_NS (10 * NSEC_PER_MSEC)
#define STARVED_LEAD 4	/* of hold_limit_ms, one part in so many */
#define HOLD_MOST 3	/* times that, who is awaited waits at most */

static unsigned int hold_limit_ms = 10000;
module_param(hold_limit_ms, uint, 0644);
MODULE_PARM_DESC(hold_limit_ms,
		 "How long an origin write may wait for memory before the snapshot gives up (default: 10000)");

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

long diff_area_granule(struct block_device *origin, unsigned int wanted)
{
	struct request_queue *q = bdev_get_queue(origin);
	long granule = GRANULE_MIN;

	if (wanted)
		return wanted < bdev_logical_block_size(origin) ? -EINVAL : wanted;
	granule = max_t(long, granule, bdev_logical_block_size(origin));
	granule = max_t(long, granule, granule_hint(queue_physical_block_size(q)));
	granule = max_t(long, granule, granule_hint(queue_io_min(q)));
	while (granule_is_too_small(origin, granule))
		granule *= 2;
	return granule;
}

/* Counts what diff_area_note_armed() is called for. */
static atomic64_t area_arms;

void diff_area_note_armed(struct diff_area *area)
{
	area->armed = atomic64_inc_return(&area_arms);
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
	return cmpxchg(&area->state, DIFF_AREA_ACTIVE, state) == DIFF_AREA_ACTIVE;
}

static u64 hold_limit_ns(void)
{
	return (u64)READ_ONCE(hold_limit_ms) * NSEC_PER_MSEC;
}

static void diff_area_resume(struct list_head *writes)
{
	struct origin_write *write, *next;

	list_for_each_entry_safe(write, next, writes, node)
		gate_resume(write);
}

static void diff_area_resume_starved(struct diff_area *area)
{
	LIST_HEAD(writes);

	starved_take_all(&area->starved, &writes);
	diff_area_resume(&writes);
}

static void diff_area_store_soon(struct diff_area *area)
{
	queue_work(area->config.wq, &area->store_work);
}

/*
 * Some memory is free: whose turn it is may try. Who gets what he needs lets the
 * next one try (diff_area_preserve); so nobody is woken in vain but one.
 */
void diff_area_resume_one(struct diff_area *area)
{
	struct origin_write *write = starved_take(&area->starved,
						  hold_limit_ns() / STARVED_LEAD);

	if (write)
		gate_resume(write);
}

/* For who waits in diff_area_settle(). */
static void diff_area_note_change(struct diff_area *area)
{
	atomic_inc(&area->changes);
	smp_mb__after_atomic(); /* pairs with diff_area_settle() */
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
	trace_blksnap_state(area->config.origin->bd_dev, state, err);

	diff_area_resume_starved(area);
	diff_area_note_change(area);
	diff_area_store_soon(area);
	area->config.failed(area->config.owner, area, shared);
}

/* Passing */

static unsigned long diff_area_granule_of(const struct diff_area *area,
					  sector_t sector)
{
	return sector >> area->granule_shift;
}

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

/* Preserving */

static void diff_area_count_ready(struct diff_area *area,
				  const struct chunk *chunk)
{
	atomic64_add(chunk_granules(chunk), &area->stats.preserved);
	atomic64_add((u64)chunk->nr_pages << PAGE_SHIFT, &area->stats.memory_bytes);
}

static void diff_area_count_loaded(struct diff_area *area,
				   const struct chunk *chunk)
{
	diff_area_count_ready(area, chunk);
	if (chunk->copied)
		return;
	atomic64_add((u64)chunk->sectors << SECTOR_SHIFT,
		     &area->stats.origin_read_bytes);
}

/* It waits for this area's memory no more; another one may have it wait, too. */
static void diff_area_end_stall(const struct diff_area *area,
				struct origin_write *write)
{
	if (write->stalled_for == area)
		write->stalled_for = NULL;
}

static void diff_area_end_load(struct diff_area *area, struct chunk *chunk,
			       bool ready)
{
	struct origin_write *write, *next;
	unsigned long flags;
	LIST_HEAD(waiters);

	if (ready)
		diff_area_count_loaded(area, chunk);
	spin_lock_irqsave(&area->lock, flags);
	chunk_set_state(chunk, ready ? CHUNK_READY : CHUNK_FAILED);
	if (ready) {
		chunk_get(chunk);
		list_add_tail(&chunk->node, &area->ready);
	}
	list_splice_init(&chunk->waiters, &waiters);
	spin_unlock_irqrestore(&area->lock, flags);

	list_for_each_entry_safe(write, next, &waiters, node) {
		diff_area_end_stall(area, write);
		gate_resume(write);
	}
}

/*
 * The requests of a disk that is being taken away fail before anybody is told
 * that it is gone.
 */
static void diff_area_fail_load(struct diff_area *area,
				const struct chunk *chunk, int err)
{
	const struct gendisk *disk = area->config.origin->bd_disk;

	if (err == -ENODEV || test_bit(GD_DEAD, &disk->state))
		diff_area_fail(area, DIFF_AREA_LOST, false, -ENODEV,
			       "the origin went away");
	else
		diff_area_fail(area, DIFF_AREA_FAILED, false, err,
			       "cannot read the origin at sector %llu",
			       (u64)chunk->start);
}

static void diff_area_loaded(struct chunk *chunk, int err)
{
	struct diff_area *area = chunk->owner;

	if (err) {
		diff_area_fail_load(area, chunk, err);
		chunk_drop_pages(chunk);
	}
	diff_area_end_load(area, chunk, !err);
	if (memory_is_short() || READ_ONCE(area->state) != DIFF_AREA_ACTIVE ||
	    atomic_read(&area->settling))
		diff_area_store_soon(area);
	chunk_put(chunk);
	diff_area_unuse(area);
}

/* A chunk for the run from @first on, of which only the caller knows. */
static struct chunk *diff_area_new_chunk(struct diff_area *area,
					 unsigned long first,
					 unsigned long last, bool urgent)
{
	sector_t start = (sector_t)first << area->granule_shift;
	sector_t max = max_t(sector_t, CHUNK_MAX_BYTES >> SECTOR_SHIFT,
			     1U << area->granule_shift);
	sector_t end = min_t(sector_t, (sector_t)(last + 1) << area->granule_shift,
			     start + max);
	struct chunk *chunk;

	end = min(end, area->sectors);
	chunk = chunk_alloc(area, &area->memory, urgent, start, end - start);
	if (IS_ERR(chunk))
		return chunk;
	chunk->first = first;
	chunk->last = diff_area_granule_of(area, end - 1);
	chunk->born = atomic64_read(&area_arms);
	return chunk;
}

/* Enters it, or gives it up. */
static struct chunk *__diff_area_enter(struct diff_area *area,
				       struct chunk *chunk)
{
	int ret;

	lockdep_assert_held(&area->map.mutex);
	ret = diff_map_add_chunk(&area->map, chunk);
	if (!ret)
		return chunk;
	chunk_put(chunk);
	return ERR_PTR(ret);
}

static struct chunk *__diff_area_add_chunk(struct diff_area *area,
					   unsigned long first,
					   unsigned long last, bool urgent)
{
	struct chunk *chunk = diff_area_new_chunk(area, first, last, urgent);

	return IS_ERR(chunk) ? chunk : __diff_area_enter(area, chunk);
}

/*
 * What reads as zeroes gets a chunk of zeroes, so that it can be written. It is
 * ready before it is found: readers take what is still loading from the origin.
 */
static struct chunk *__diff_area_add_zeroes(struct diff_area *area,
					    unsigned long first,
					    unsigned long last)
{
	struct chunk *chunk = diff_area_new_chunk(area, first, last, false);

	if (IS_ERR(chunk))
		return chunk;
	chunk_zero(chunk);
	chunk->born = 0; /* it is not what the origin has */
	chunk = __diff_area_enter(area, chunk);
	if (IS_ERR(chunk))
		return chunk;
	diff_area_count_ready(area, chunk);
	spin_lock_irq(&area->lock);
	list_add_tail(&chunk->node, &area->ready);
	spin_unlock_irq(&area->lock);
	return chunk;
}

/**
 * struct preserving - one call of diff_area_preserve()
 * @reliefs: memory_reliefs() when it began
 * @loads: chunks that it made, by their node
 * @blocker: the first chunk that is still loading, with a reference
 * @joins: that one is of another write
 * @nr_loads: how many chunks it made
 * @sectors: of them
 * @areas: those that follow the origin, or NULL
 * @urgent: for a store of another area, which frees memory
 * @newcomer: others wait for memory, and it has not waited yet
 * @scarce: memory is so short that each granule gets a chunk of its own
 * @settles: what reads as zeroes is to get a chunk, too
 * @zeroed: something of that has got one
 * @err: why not everything has a chunk
 */
struct preserving {
	unsigned long reliefs;
	struct list_head loads;
	struct chunk *blocker;
	bool joins;
	unsigned int nr_loads;
	sector_t sectors;
	struct list_head *areas;
	bool urgent;
	bool newcomer;
	bool scarce;
	bool settles;
	bool zeroed;
	int err;
};

static void preserving_block(struct preserving *work, struct chunk *chunk,
			     bool joins)
{
	if (work->blocker)
		return;
	chunk_get(chunk);
	work->blocker = chunk;
	work->joins = joins;
}

/*
 * One huge write must not take the whole budget, nor keep others from the map
 * for long: it gets a piece, waits for that, and comes back for the next.
 */
static bool preserving_is_piece(const struct preserving *work)
{
	return work->nr_loads >= PIECE_CHUNKS ||
	       work->sectors >= PIECE_BYTES >> SECTOR_SHIFT;
}

/* One run of the range that starts at @at. Returns the granule after it. */
static unsigned long __diff_area_claim(struct diff_area *area,
				       struct preserving *work,
				       unsigned long at, unsigned long last)
{
	unsigned long end;
	struct diff_run run;
	struct chunk *chunk;

	diff_map_lookup(&area->map, at, &run);
	end = work->scarce ? at : min(run.last, last);
	if (run.kind == DIFF_CHUNK && !chunk_is_ready(run.chunk))
		preserving_block(work, run.chunk, true);
	if (run.kind == DIFF_ZERO && work->settles) {
		chunk = __diff_area_add_zeroes(area, at, end);
		if (IS_ERR(chunk)) {
			work->err = PTR_ERR(chunk);
			return last + 1;
		}
		work->zeroed = true;
		return chunk->last + 1;
	}
	if (run.kind != DIFF_ORIGIN)
		return run.last + 1;

	if (work->newcomer)
		chunk = ERR_PTR(-EAGAIN);
	else
		chunk = __diff_area_add_chunk(area, at, end, work->urgent);
	if (IS_ERR(chunk)) {
		work->err = PTR_ERR(chunk);
		return last + 1;
	}
	list_add_tail(&chunk->node, &work->loads);
	work->nr_loads++;
	work->sectors += chunk->sectors;
	preserving_block(work, chunk, false);
	return chunk->last + 1;
}

static void diff_area_try_claim(struct diff_area *area,
				struct preserving *work, unsigned long first,
				unsigned long last)
{
	work->err = 0;
	mutex_lock(&area->map.mutex);
	while (first <= last && !preserving_is_piece(work))
		first = __diff_area_claim(area, work, first, last);
	mutex_unlock(&area->map.mutex);
}

/*
 * Where there is no memory for a run there may be some for a granule; and the
 * kernel looks for more while nobody waits for the map.
 */
static void diff_area_claim(struct diff_area *area, struct preserving *work,
			    unsigned long first, unsigned long last)
{
	diff_area_try_claim(area, work, first, last);
	if (work->err != -ENOMEM || work->blocker)
		return;
	chunk_reclaim();
	work->scarce = true;
	diff_area_try_claim(area, work, first, last);
	if (work->err == -ENOMEM)
		memory_note_exhausted();
}

/*
 * The content of a chunk is also in one of another area if that was read after
 * this area had been armed: since then nothing that this area lacks has been
 * overwritten. Returns that chunk, with a reference.
 */
static struct chunk *diff_area_find_twin(struct diff_area *area,
					 struct diff_area *other,
					 const struct chunk *chunk)
{
	struct chunk *twin = NULL;
	struct diff_run run;

	if (other == area || !diff_map_may_walk(&other->map))
		return NULL;
	rcu_read_lock();
	diff_map_lookup(&other->map, diff_area_granule_of(other, chunk->start),
			&run);
	if (run.kind == DIFF_CHUNK && chunk_is_ready(run.chunk) &&
	    run.chunk->born >= area->armed &&
	    chunk_contains(run.chunk, chunk) && chunk_tryget(run.chunk))
		twin = run.chunk;
	rcu_read_unlock();
	return twin;
}

/* Several sessions that need the same content read it once. */
static bool diff_area_copy_twin(struct diff_area *area, struct chunk *chunk,
				struct list_head *areas)
{
	struct diff_area *other;
	struct chunk *twin;

	/* Another one may be armed meanwhile; none goes. */
	list_for_each_entry_rcu(other, areas, node, true) {
		twin = diff_area_find_twin(area, other, chunk);
		if (!twin)
			continue;
		chunk_copy_twin(chunk, twin);
		chunk_put(twin);
		return true;
	}
	return false;
}

static void diff_area_issue(struct diff_area *area, struct preserving *work)
{
	struct chunk *chunk, *next;

	list_for_each_entry_safe(chunk, next, &work->loads, node) {
		list_del_init(&chunk->node);
		percpu_ref_get(&area->users);
		if (work->areas && diff_area_copy_twin(area, chunk, work->areas))
			diff_area_loaded(chunk, 0);
		else
			chunk_load(chunk, area->config.origin,
				   diff_area_loaded);
	}
}

static void diff_area_count_joined(struct diff_area *area,
				   const struct chunk *chunk)
{
	atomic64_inc(&area->stats.writes_joined);
	trace_blksnap_join(area->config.origin->bd_dev, chunk->start,
			   chunk->sectors);
}

/* Once the lock is dropped the write may be on its way again. */
static bool diff_area_park_on(struct diff_area *area, struct chunk *chunk,
			      struct origin_write *write, bool joins)
{
	unsigned long flags;
	bool parked;

	spin_lock_irqsave(&area->lock, flags);
	parked = chunk->state == CHUNK_LOADING;
	if (parked) {
		if (joins && !write->joined)
			diff_area_count_joined(area, chunk);
		write->joined |= joins;
		list_add_tail(&write->node, &chunk->waiters);
	}
	spin_unlock_irqrestore(&area->lock, flags);
	return parked;
}

/*
 * How long a write that was refused memory may still wait, in nanoseconds. A
 * large one is worked off in pieces, as memory comes: it may take long, but each
 * piece has this limit. It begins anew as long as the storage takes what it is
 * given, since all that a large machine has to write back may be here at once;
 * but if somebody waits for the write, not for ever.
 */
static u64 diff_area_hold_left(struct diff_area *area,
			       struct origin_write *write,
			       enum starved_class class)
{
	u64 limit = hold_limit_ns(), now = ktime_get_ns();
	u64 since = READ_ONCE(area->config.storage->stored_ns);

	if (write->stalled_for != area) {
		write->stalled_for = area;
		write->stalled_ns = now;
	}
	if (class != STARVED_BACKGROUND)
		since = min(since, write->stalled_ns + (HOLD_MOST - 1) * limit);
	since = max(since, write->stalled_ns);
	return since + limit > now ? since + limit - now : 0;
}

static enum starved_class diff_area_class(const struct preserving *work,
					  const struct origin_write *write)
{
	return work->urgent ? STARVED_STORE : starved_class(write);
}

/*
 * The write waits for memory. If some became free, or the area failed, between
 * the attempt and here, nobody may come to resume it: so look again after.
 * What the page allocator had not, nobody announces: try again after a while.
 * A newcomer has not tried, since others wait already: the first of them does.
 */
static void diff_area_starve(struct diff_area *area, struct preserving *work,
			     struct origin_write *write, u64 delay)
{
	if (work->err == -ENOMEM)
		delay = min_t(u64, delay, STARVED_RETRY_NS);
	starved_add(&area->starved, diff_area_class(work, write), write);
	/* After it: a timer that finds nobody is not set again. */
	timer_reduce(&area->hold_timer,
		     jiffies + nsecs_to_jiffies(delay + NSEC_PER_MSEC));
	diff_area_store_soon(area);

	smp_mb(); /* pairs with the change of state, and with the relief */
	if (READ_ONCE(area->state) != DIFF_AREA_ACTIVE)
		diff_area_resume_starved(area);
	else if (work->newcomer || memory_reliefs() != work->reliefs)
		diff_area_resume_one(area);
}

/* Some of the range has no chunk. */
static enum gate_answer diff_area_want(struct diff_area *area,
				       struct preserving *work,
				       struct origin_write *write)
{
	u64 left = diff_area_hold_left(area, write, diff_area_class(work, write));

	if (left) {
		diff_area_starve(area, work, write, left);
		return GATE_PARKED;
	}
	diff_area_fail(area, DIFF_AREA_FAILED, false,
		       work->err == -ENOMEM ? -ENOMEM : -ETIMEDOUT,
		       "a write waited %llu ms for memory: the difference storage is too slow, or memory_limit too low",
		       (ktime_get_ns() - write->stalled_ns) / NSEC_PER_MSEC);
	return GATE_READY;
}

static enum gate_answer diff_area_park(struct diff_area *area,
				       struct preserving *work,
				       struct origin_write *write)
{
	if (!work->blocker)
		return work->err ? diff_area_want(area, work, write) : GATE_READY;
	if (diff_area_park_on(area, work->blocker, write, work->joins))
		return GATE_PARKED;
	return GATE_READY;
}

enum gate_answer diff_area_preserve(struct diff_area *area,
				    struct origin_write *write,
				    sector_t first, sector_t last,
				    struct list_head *areas)
{
	enum gate_answer answer = GATE_READY;
	struct preserving work = {
		.reliefs = memory_reliefs(),
		.loads = LIST_HEAD_INIT(work.loads),
		.areas = areas,
		.urgent = diff_store_is_store(write->bio),
	};

	if (!diff_area_tryuse(area))
		goto out;
	if (READ_ONCE(area->state) != DIFF_AREA_ACTIVE)
		goto out_unuse;
	work.newcomer = !work.urgent && write->stalled_for != area &&
			starved_any(&area->starved);
	diff_area_claim(area, &work, diff_area_granule_of(area, first),
			diff_area_granule_of(area, last));
	if (!list_empty(&work.loads))
		diff_area_end_stall(area, write);
	diff_area_issue(area, &work);
	if (!work.err && starved_any(&area->starved))
		diff_area_resume_one(area);
	answer = diff_area_park(area, &work, write);
	if (work.blocker)
		chunk_put(work.blocker);
out_unuse:
	diff_area_unuse(area);
out:
	if (answer == GATE_READY)
		diff_area_end_stall(area, write);
	return answer;
}

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

/*
 * Claims what has no entry yet, and has it stored as soon as it is loaded. That
 * there is no memory for all of it is no error: there will be when it is stored.
 */
static int diff_area_push(struct diff_area *area, unsigned long first,
			  unsigned long last)
{
	struct preserving work = {
		.loads = LIST_HEAD_INIT(work.loads),
		.settles = true,
	};
	bool progress;

	diff_area_claim(area, &work, first, last);
	progress = work.zeroed || work.blocker;
	diff_area_issue(area, &work);
	if (work.blocker)
		chunk_put(work.blocker);
	diff_area_store_soon(area);
	return work.err == -ENOMEM && !progress ? -ENOMEM : 0;
}

int diff_area_settle(struct diff_area *area, sector_t first, sector_t last)
{
	unsigned long from = diff_area_granule_of(area, first);
	unsigned long to = diff_area_granule_of(area, last);
	int changes, ret = 0;

	atomic_inc(&area->settling);
	smp_mb__after_atomic(); /* pairs with diff_area_note_change() */
	for (;;) {
		changes = atomic_read(&area->changes);
		if (diff_area_state(area) != DIFF_AREA_ACTIVE)
			ret = -EIO;
		if (ret || diff_map_stored(&area->map, from, to))
			break;
		ret = diff_area_push(area, from, to);
		if (!ret)
			wait_event(area->changed,
				   atomic_read(&area->changes) != changes);
	}
	atomic_dec(&area->settling);
	return ret;
}

int diff_area_note_written(struct diff_area *area, sector_t first, sector_t last)
{
	return granule_set_add(&area->written, diff_area_granule_of(area, first),
			       diff_area_granule_of(area, last));
}

/*
 * Time to try again; whose time is over finds that out himself. Those behind him
 * may depend on this timer, too, should he be kept elsewhere.
 */
static void diff_area_hold_expired(struct timer_list *timer)
{
	struct diff_area *area = container_of(timer, struct diff_area, hold_timer);
	LIST_HEAD(writes);

	starved_take_oldest(&area->starved, &writes);
	diff_area_resume(&writes);
	if (starved_any(&area->starved))
		timer_reduce(&area->hold_timer, jiffies + HZ);
}

/* Storing */

static void diff_area_store_fail(struct diff_area *area, int err)
{
	u64 size, used;

	if (err == -ENOSPC) {
		diff_storage_bytes(area->config.storage, &size, &used);
		diff_area_fail(area, DIFF_AREA_OVERFLOW, true, err,
			       "difference storage full at %llu bytes", size);
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
		diff_area_resume_one(area);
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
	starved_init(&area->starved);
	timer_setup(&area->hold_timer, diff_area_hold_expired, 0);
	INIT_WORK(&area->store_work, diff_area_store_work);
	area->memory.ops = &diff_area_memory_ops;

	if (diff_map_init(&area->map,
			  diff_area_granule_of(area, area->sectors - 1) + 1))
		goto out;
	area->writes_passed = alloc_percpu(u64);
	if (!area->writes_passed)
		goto out_map;
	if (percpu_ref_init(&area->users, diff_area_unused, 0, GFP_KERNEL))
		goto out_passed;
	memory_register(&area->memory);
	return area;

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
	diff_area_resume_starved(area);
	diff_area_note_change(area);
}

/*
 * The end comes in this order. The state has been left: images answer EIO, and
 * writes need nothing from us any more. Now there is no new user; loads, stores
 * and image reads that are under way end, each with its reference. Only then are
 * the map and its chunks touched.
 */
void diff_area_stop(struct diff_area *area)
{
	memory_unregister(&area->memory);
	percpu_ref_kill(&area->users);
	wait_event(area->unused, percpu_ref_is_zero(&area->users));
	timer_shutdown_sync(&area->hold_timer);
	cancel_work_sync(&area->store_work);
	/* The last user may still be on its way out of diff_area_unused(). */
	synchronize_rcu();
	diff_store_purge(area);
	diff_map_clear(&area->map);
}

static void diff_area_free(struct kref *kref)
{
	struct diff_area *area = container_of(kref, struct diff_area, kref);

	granule_set_destroy(&area->written);
	percpu_ref_exit(&area->users);
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
