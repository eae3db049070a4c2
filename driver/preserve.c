// SPDX-License-Identifier: GPL-2.0
/*
 * Preserving: what a held write will overwrite is copied before it passes.
 *
 * A write to the origin that touches granules which are not preserved is held
 * by the gate, and comes here, from a worker of the gate (preserve_write):
 *
 *  1. Under the map's mutex each run without an entry becomes a chunk in state
 *     LOADING. The entry is there before the read is issued, so whoever comes
 *     second finds it and waits for the same read.
 *  2. The write is parked on one chunk that is still loading; when that is ready,
 *     the write starts again at the top, and parks on the next one if there is
 *     another. Then the origin is read (preserve_read): nothing is held meanwhile,
 *     as a disk that hangs takes no request.
 *  3. When all are ready, the write passes. It does not wait for the store.
 *
 * What gets no memory waits in the area's queue (starved.c), and comes here
 * again.
 *
 * A write to the image needs the same of what it touches, and that it is stored,
 * and waits for that (preserve_settle).
 */
#include <linux/blkdev.h>
#include <linux/ktime.h>
#include <linux/rculist.h>
#include <linux/sizes.h>

#include "chunk.h"
#include "diff_storage.h"
#include "diff_store.h"
#include "gate.h"
#include "memory.h"
#include "preserve.h"
#include "starved.h"
#include "trace.h"

#define PIECE_CHUNKS 256
#define PIECE_BYTES SZ_2M
#define PRESERVE_RETRY_NS (10 * NSEC_PER_MSEC)

/* Loading */

static void preserve_count_ready(struct diff_area *area,
				 const struct chunk *chunk)
{
	atomic64_add(chunk_granules(chunk), &area->stats.preserved);
	atomic64_add((u64)chunk->nr_pages << PAGE_SHIFT, &area->stats.memory_bytes);
}

static void preserve_count_loaded(struct diff_area *area,
				  const struct chunk *chunk)
{
	preserve_count_ready(area, chunk);
	if (chunk->copied)
		return;
	atomic64_add((u64)chunk->sectors << SECTOR_SHIFT,
		     &area->stats.origin_read_bytes);
}

static void preserve_end_load(struct diff_area *area, struct chunk *chunk,
			      bool ready)
{
	struct origin_write *write, *next;
	unsigned long flags;
	LIST_HEAD(waiters);

	if (ready)
		preserve_count_loaded(area, chunk);
	spin_lock_irqsave(&area->lock, flags);
	chunk_set_state(chunk, ready ? CHUNK_READY : CHUNK_FAILED);
	if (ready) {
		chunk_get(chunk);
		list_add_tail(&chunk->node, &area->ready);
	}
	list_splice_init(&chunk->waiters, &waiters);
	spin_unlock_irqrestore(&area->lock, flags);

	list_for_each_entry_safe(write, next, &waiters, node) {
		starved_end(&area->starved, write);
		gate_resume(write);
	}
}

/*
 * The requests of a disk that is being taken away fail before anybody is told
 * that it is gone.
 */
static void preserve_fail_load(struct diff_area *area,
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

static void preserve_loaded(struct chunk *chunk, int err)
{
	struct diff_area *area = chunk->owner;

	if (err) {
		preserve_fail_load(area, chunk, err);
		chunk_drop_pages(chunk);
	}
	preserve_end_load(area, chunk, !err);
	smp_mb(); /* pairs with memory_refuse(): what is ready now is to be stored */
	if (memory_is_short() || READ_ONCE(area->state) != DIFF_AREA_ACTIVE ||
	    atomic_read(&area->settling))
		diff_area_store_soon(area);
	chunk_put(chunk);
	diff_area_unuse(area);
}

/* Claiming */

/**
 * struct preserving - one call of preserve_write() or preserve_push()
 * @reliefs: memory_reliefs() when it began
 * @loads: chunks that it made, by their node
 * @blocker: the first chunk that is still loading, with a reference
 * @joins: that one is of another write
 * @nr_loads: how many chunks it made
 * @sectors: of them
 * @areas: those that follow the origin, or NULL
 * @urgent: for a store of another area, which frees memory
 * @newcomer: others wait for memory, and it has not waited yet
 * @longest: how many bytes a chunk may have, which is a granule at least
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
	size_t longest;
	bool settles;
	bool zeroed;
	int err;
};

/* A chunk for the run from @first on, of which only the caller knows. */
static struct chunk *preserve_new_chunk(struct diff_area *area,
					const struct preserving *work,
					unsigned long first,
					unsigned long last)
{
	sector_t start = (sector_t)first << area->granule_shift;
	sector_t max = max_t(sector_t,
			     round_down(work->longest, area->config.granule) >>
				     SECTOR_SHIFT,
			     1U << area->granule_shift);
	sector_t end = min_t(sector_t, (sector_t)(last + 1) << area->granule_shift,
			     start + max);
	struct chunk *chunk;

	end = min(end, area->sectors);
	chunk = chunk_alloc(area, &area->memory, work->urgent, start,
			    end - start);
	if (IS_ERR(chunk))
		return chunk;
	chunk->first = first;
	chunk->last = diff_area_granule_of(area, end - 1);
	chunk->born = diff_area_arms();
	return chunk;
}

/* Enters it, or gives it up. */
static struct chunk *__preserve_enter(struct diff_area *area,
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

static struct chunk *__preserve_add_chunk(struct diff_area *area,
					  const struct preserving *work,
					  unsigned long first,
					  unsigned long last)
{
	struct chunk *chunk = preserve_new_chunk(area, work, first, last);

	return IS_ERR(chunk) ? chunk : __preserve_enter(area, chunk);
}

/*
 * What reads as zeroes gets a chunk of zeroes, so that it can be written. It is
 * ready before it is found: readers take what is still loading from the origin.
 */
static struct chunk *__preserve_add_zeroes(struct diff_area *area,
					   const struct preserving *work,
					   unsigned long first,
					   unsigned long last)
{
	struct chunk *chunk = preserve_new_chunk(area, work, first, last);

	if (IS_ERR(chunk))
		return chunk;
	chunk_zero(chunk);
	chunk->born = 0; /* it is not what the origin has */
	chunk = __preserve_enter(area, chunk);
	if (IS_ERR(chunk))
		return chunk;
	preserve_count_ready(area, chunk);
	spin_lock_irq(&area->lock);
	list_add_tail(&chunk->node, &area->ready);
	spin_unlock_irq(&area->lock);
	return chunk;
}

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
static unsigned long __preserve_claim(struct diff_area *area,
				      struct preserving *work,
				      unsigned long at, unsigned long last)
{
	unsigned long end;
	struct diff_run run;
	struct chunk *chunk;

	diff_map_lookup(&area->map, at, &run);
	end = min(run.last, last);
	if (run.kind == DIFF_CHUNK && !chunk_is_ready(run.chunk))
		preserving_block(work, run.chunk, true);
	if (run.kind == DIFF_ZERO && work->settles) {
		chunk = __preserve_add_zeroes(area, work, at, end);
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
		chunk = __preserve_add_chunk(area, work, at, end);
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

static void preserve_try_claim(struct diff_area *area,
			       struct preserving *work, unsigned long first,
			       unsigned long last)
{
	work->err = 0;
	mutex_lock(&area->map.mutex);
	while (first <= last && !preserving_is_piece(work))
		first = __preserve_claim(area, work, first, last);
	mutex_unlock(&area->map.mutex);
}

/*
 * Where others have the budget, chunks of what is left of the area's own share;
 * and where there is no memory for a run there may be some for a granule, and the
 * kernel looks for more while nobody waits for the map.
 */
static void preserve_claim(struct diff_area *area, struct preserving *work,
			   unsigned long first, unsigned long last)
{
	work->longest = CHUNK_MAX_BYTES;
	preserve_try_claim(area, work, first, last);
	if (work->err == -EAGAIN && !work->newcomer && !work->blocker) {
		work->longest = memory_share_left(&area->memory);
		if (work->longest >= area->config.granule)
			preserve_try_claim(area, work, first, last);
	}
	if (work->err != -ENOMEM || work->blocker)
		return;
	chunk_reclaim();
	work->longest = 0;
	preserve_try_claim(area, work, first, last);
	if (work->err == -ENOMEM)
		memory_note_exhausted();
}

/* Issuing the reads */

/*
 * The content of a chunk is also in one of another area if that was read after
 * this area had been armed: since then nothing that this area lacks has been
 * overwritten. Returns that chunk, with a reference.
 */
static struct chunk *preserve_find_twin(struct diff_area *area,
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
static bool preserve_copy_twin(struct diff_area *area, struct chunk *chunk,
			       struct list_head *areas)
{
	struct diff_area *other;
	struct chunk *twin;

	/* Another one may be armed meanwhile; none goes. */
	list_for_each_entry_rcu(other, areas, node, true) {
		twin = preserve_find_twin(area, other, chunk);
		if (!twin)
			continue;
		chunk_copy_twin(chunk, twin);
		chunk_put(twin);
		return true;
	}
	return false;
}

/* What need not be read is loaded; the rest keeps the area until it is. */
static void preserve_copy(struct diff_area *area, struct preserving *work)
{
	struct chunk *chunk, *next;

	list_for_each_entry_safe(chunk, next, &work->loads, node) {
		percpu_ref_get(&area->users);
		if (!work->areas || !preserve_copy_twin(area, chunk, work->areas))
			continue;
		list_del_init(&chunk->node);
		preserve_loaded(chunk, 0);
	}
}

void preserve_read(struct list_head *reads)
{
	struct chunk *chunk, *next;
	struct diff_area *area;

	list_for_each_entry_safe(chunk, next, reads, node) {
		list_del_init(&chunk->node);
		area = chunk->owner;
		chunk_load(chunk, area->config.origin, &area->load_bios,
			   preserve_loaded);
	}
}

/* Waiting */

static void preserve_count_joined(struct diff_area *area,
				  const struct chunk *chunk)
{
	atomic64_inc(&area->stats.writes_joined);
	trace_blksnap_join(area->config.origin->bd_dev, chunk->start,
			   chunk->sectors);
}

/* Once the lock is dropped the write may be on its way again. */
static bool preserve_park_on(struct diff_area *area, struct chunk *chunk,
			     struct origin_write *write, bool joins)
{
	unsigned long flags;
	bool parked;

	spin_lock_irqsave(&area->lock, flags);
	parked = chunk->state == CHUNK_LOADING;
	if (parked) {
		if (joins && !write->joined)
			preserve_count_joined(area, chunk);
		write->joined |= joins;
		list_add_tail(&write->node, &chunk->waiters);
	}
	spin_unlock_irqrestore(&area->lock, flags);
	return parked;
}

static enum starved_class preserve_class(const struct diff_area *area,
					 const struct preserving *work,
					 const struct origin_write *write)
{
	if (work->urgent)
		return STARVED_STORE;
	/* memory_limit was lowered: no store makes room for it, so not for ever. */
	if (area->config.granule > memory_most())
		return STARVED_AWAITED;
	return starved_class(write);
}

/*
 * The write waits for memory. If some became free, or the area failed, between
 * the attempt and here, nobody may come to resume it: so look again after.
 * What the page allocator had not, nobody announces: try again after a while.
 * A newcomer has not tried, since others wait already: the first of them does.
 */
static void preserve_starve(struct diff_area *area, struct preserving *work,
			    struct origin_write *write, u64 delay)
{
	if (work->err == -ENOMEM)
		delay = min_t(u64, delay, PRESERVE_RETRY_NS);
	starved_add(&area->starved, preserve_class(area, work, write), write,
		    delay);
	diff_area_store_soon(area);

	smp_mb(); /* pairs with the change of state, and with the relief */
	if (READ_ONCE(area->state) != DIFF_AREA_ACTIVE)
		starved_resume_all(&area->starved);
	else if (work->newcomer || memory_reliefs() != work->reliefs)
		starved_resume_one(&area->starved);
}

/* Some of the range has no chunk. */
static enum gate_answer preserve_want(struct diff_area *area,
				      struct preserving *work,
				      struct origin_write *write)
{
	u64 left = starved_left(&area->starved, preserve_class(area, work, write),
				write, &area->config.storage->stored_ns);

	if (left) {
		preserve_starve(area, work, write, left);
		return GATE_PARKED;
	}
	diff_area_fail(area, DIFF_AREA_FAILED, false,
		       work->err == -ENOMEM ? -ENOMEM : -ETIMEDOUT,
		       "a write waited %llu ms for memory: the difference storage is too slow, or memory_limit too low",
		       starved_waited_ms(write));
	return GATE_READY;
}

static enum gate_answer preserve_park(struct diff_area *area,
				      struct preserving *work,
				      struct origin_write *write)
{
	if (!work->blocker)
		return work->err ? preserve_want(area, work, write) : GATE_READY;
	if (preserve_park_on(area, work->blocker, write, work->joins))
		return GATE_PARKED;
	return GATE_READY;
}

enum gate_answer preserve_write(struct diff_area *area,
				struct origin_write *write,
				sector_t first, sector_t last,
				struct list_head *areas,
				struct list_head *reads)
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
	work.newcomer = !work.urgent && !starved_has_waited(&area->starved, write) &&
			starved_any(&area->starved);
	preserve_claim(area, &work, diff_area_granule_of(area, first),
		       diff_area_granule_of(area, last));
	if (!list_empty(&work.loads))
		starved_end(&area->starved, write);
	preserve_copy(area, &work);
	list_splice_tail(&work.loads, reads);
	if (!work.err && starved_any(&area->starved))
		starved_resume_one(&area->starved);
	answer = preserve_park(area, &work, write);
	if (work.blocker)
		chunk_put(work.blocker);
out_unuse:
	diff_area_unuse(area);
out:
	if (answer == GATE_READY)
		starved_end(&area->starved, write);
	return answer;
}

/* Settling */

/*
 * Claims what has no entry yet, and has it stored as soon as it is loaded. That
 * there is no memory for all of it is no error: there will be when it is stored.
 */
static int preserve_push(struct diff_area *area, unsigned long first,
			 unsigned long last)
{
	struct preserving work = {
		.loads = LIST_HEAD_INIT(work.loads),
		.settles = true,
	};
	bool progress, never;

	preserve_claim(area, &work, first, last);
	progress = work.zeroed || work.blocker;
	/* It was lowered since the take. */
	never = work.err && area->config.granule > memory_most();
	preserve_copy(area, &work);
	preserve_read(&work.loads);
	if (work.blocker)
		chunk_put(work.blocker);
	diff_area_store_soon(area);
	return (never || work.err == -ENOMEM) && !progress ? -ENOMEM : 0;
}

int preserve_settle(struct diff_area *area, sector_t first, sector_t last)
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
		ret = preserve_push(area, from, to);
		if (!ret)
			wait_event_idle(area->changed,
					atomic_read(&area->changes) != changes);
	}
	atomic_dec(&area->settling);
	return ret;
}
