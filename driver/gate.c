// SPDX-License-Identifier: GPL-2.0
/*
 * The gate of a disk: each write to a watched range comes through here, is
 * passed and counted until it completes, or is held.
 *
 * A write to a whole disk and one to its partitions end on the same sectors,
 * so there is one gate for a disk and ranges are absolute. What was remapped
 * from its partition already (BIO_REMAPPED) has an absolute sector.
 *
 * Passing. percpu_ref @writes is gate and counter in one: it is live while the
 * gate is open, and each passed write holds a reference from before its
 * watchers are asked until it completes (its completion is interposed). So
 * once the ref was killed and has come to zero, no decision is pending
 * anywhere and no passed write is in flight: not in a queue, not parked in
 * blk-throttle, not inside a bio-based driver, not on a current->bio_list.
 * A bio that is counted already is the remainder of a passed write, which
 * device-mapper and the split code submit again: it passes at once, also
 * through a closed gate, because the gate waits for it. So does a piece that was
 * split off it, and is split once more: it is chained to what is counted.
 * And what a chain has yet to submit again, one link of which is counted, passes
 * like any other, but through a closed gate as well.
 *
 * Holding. The submitter never waits (I5): a worker brings the write to its
 * watchers, who prepare it. They park it while they do, and gate_resume() brings
 * it back; then it starts again at the top, since meanwhile another watcher may
 * have come, or the gate be closed. It passes only in a section that finds
 * everybody satisfied. Held writes lose REQ_NOWAIT: the worker that submits them
 * may wait.
 *
 * Memory. An origin_write is needed to pass. The submitter must not wait for
 * one, so a bio that gets none is put on the list @raw, linked through the bio
 * itself, and is tried again whenever one is freed. The reserve is the gate's
 * own: gates of stacked disks must not wait for each other. What is freed goes
 * there first; then each CPU keeps one for its next write.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/hashtable.h>
#include <linux/iopoll.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/mempool.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/percpu-refcount.h>
#include <linux/rculist.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "compat/disk.h"
#include "accounted.h"
#include "chained.h"
#include "filter.h"
#include "gate.h"
#include "trace.h"

#define GATE_RESERVE 64	/* origin_writes that a gate can always have */

/*
 * To submit a bio can block, on a queue that is full or on a limit of its
 * cgroup: then the others go on, until so many are blocked. More are for what
 * somebody waits for, which must not wait for all that is written back, nor for
 * many writers of one cgroup.
 */
#define GATE_WORKERS 16
#define GATE_AWAITED_WORKERS 128

#define GATE_LINKS 16	/* of a chain of bios, that are followed */
#define GATE_POLL_US 1000	/* between two looks at a driver's accounting */
#define GATE_DRAIN_MS 20	/* between two looks at what waits for what */

struct gate {
	struct hlist_node node;		/* in gates; protected by gates_mutex, RCU */
	struct gendisk *disk;		/* set once; held, and its driver too */
	unsigned int users;		/* protected by gates_mutex */
	unsigned int closed;		/* protected by gates_mutex */
	bool ending;			/* @destroy_work is due; gates_mutex */
	atomic_t nr_watched;		/* watchers that were added so far */
	int drained_of;			/* so many, when nothing was left of before */
	struct percpu_ref writes;	/* live: open. A reference a passed write */
	wait_queue_head_t drained;	/* woken when @writes comes to zero */

	struct rw_semaphore watchers_sem; /* keeps @watchers for the workers */
	struct list_head watchers;	/* by @watchers_sem; read also under RCU */

	spinlock_t lock;		/* taken from completions */
	struct list_head held;		/* while closed; protected by @lock */
	struct bio_list raw;		/* held without origin_write; @lock */
	atomic_long_t nr_held;		/* in @held, in @raw, parked, at work */
	wait_queue_head_t none_held;

	mempool_t pool;			/* of origin_write */
	struct workqueue_struct *wq;	/* set once */
	struct workqueue_struct *awaited_wq; /* set once */
	struct work_struct raw_work;
	struct work_struct destroy_work;
};

static DEFINE_HASHTABLE(gates, 6);	/* by disk; gates_mutex, read under RCU */
static DEFINE_MUTEX(gates_mutex);
static struct kmem_cache *write_cache;	/* set once, in gate_init() */
static struct workqueue_struct *destroy_wq;	/* set once, in gate_init() */

/* Under rcu_read_lock() or gates_mutex. */
static struct gate *gate_find(const struct gendisk *disk)
{
	struct gate *gate;

	hash_for_each_possible_rcu(gates, gate, node, (unsigned long)disk,
				   lockdep_is_held(&gates_mutex))
		if (gate->disk == disk)
			return gate;
	return NULL;
}

/* Passed writes */

/* Freed last on this CPU; of any gate. */
static DEFINE_PER_CPU(struct origin_write *, spare_write);

static bool gate_reserve_is_full(const struct gate *gate)
{
	return READ_ONCE(gate->pool.curr_nr) >= GATE_RESERVE;
}

/*
 * Pairs with gate_adopt_raw(): it fails to allocate after it has seen the list,
 * or this sees the list after it has freed. What is a spare on another CPU it
 * does not find, but then the reserve was full; and what is taken from there
 * comes back there, by here.
 */
static void gate_free_write(struct gate *gate, struct origin_write *write)
{
	if (!gate_reserve_is_full(gate) ||
	    this_cpu_cmpxchg(spare_write, NULL, write))
		mempool_free(write, &gate->pool);
	smp_mb(); /* see above */
	if (unlikely(READ_ONCE(gate->raw.head)))
		queue_work(gate->awaited_wq, &gate->raw_work);
}

/*
 * The worker that submits a held write may be blocked by others when that is
 * complete already. Nobody may have its origin_write before: the kernel leaves a
 * work_struct that is queued to the worker who runs it.
 */
static void gate_leave_write(struct gate *gate, struct origin_write *write)
{
	if (!write->held_ns || atomic_dec_and_test(&write->keepers))
		gate_free_write(gate, write);
}

static void gate_endio(struct bio *bio)
{
	struct origin_write *write = bio->bi_private;
	struct gate *gate = write->gate;

	bio->bi_end_io = write->end_io;
	bio->bi_private = write->private;
	gate_leave_write(gate, write);
	percpu_ref_put(&gate->writes);

	if (chained_is(bio->bi_end_io))
		chained_complete(bio);
	else if (bio->bi_end_io)
		bio->bi_end_io(bio);
}

/* While a completion is being interposed, nobody can tell whose it is. */
static void gate_interposing(struct bio *bio)
{
}

/* Pairs with gate_interposed(). */
static void gate_interpose(struct origin_write *write)
{
	struct bio *bio = write->bio;

	write->end_io = bio->bi_end_io;
	write->private = bio->bi_private;
	WRITE_ONCE(bio->bi_end_io, gate_interposing);
	smp_wmb(); /* see gate_interposed() */
	WRITE_ONCE(bio->bi_private, write);
	smp_wmb(); /* see gate_interposed() */
	WRITE_ONCE(bio->bi_end_io, gate_endio);
}

/*
 * Who completes a bio, which may be interposed by another gate at this moment:
 * then it is gate_interposing() that does. Pairs with gate_interpose().
 */
static bio_end_io_t *gate_interposed(const struct bio *bio, void **private)
{
	bio_end_io_t *end_io = READ_ONCE(bio->bi_end_io);

	smp_rmb(); /* see gate_interpose() */
	*private = READ_ONCE(bio->bi_private);
	smp_rmb(); /* see gate_interpose() */
	return READ_ONCE(bio->bi_end_io) == end_io ? end_io : gate_interposing;
}

/*
 * The origin_write by which this gate has counted a bio, or NULL. Gates of
 * stacked disks may have interposed their completions over each other's, when a
 * driver sends the same bio down. In the end, what the bio had before.
 */
static const struct origin_write *gate_counted(const struct gate *gate,
					       bio_end_io_t **end_io,
					       void **private)
{
	const struct origin_write *write;

	while (*end_io == gate_endio) {
		write = *private;
		if (write->gate == gate)
			return write;
		*end_io = write->end_io;
		*private = write->private;
	}
	return NULL;
}

/*
 * Of the bios to which this one is chained, by its @private, the first one that
 * this gate has counted, or NULL. None of them can end before it.
 */
static const struct origin_write *gate_counted_parent(const struct gate *gate,
						      void *private)
{
	const struct origin_write *write;
	bio_end_io_t *end_io;
	unsigned int i;

	/* Whoever is about to chain a bio says first that it will be, then to what. */
	for (i = 0; private && i < GATE_LINKS; i++) {
		end_io = gate_interposed(private, &private);
		write = gate_counted(gate, &end_io, &private);
		if (write || !chained_is(end_io))
			return write;
	}
	return NULL;
}

/*
 * Has this gate counted the bio, or what it is a piece of? What the kernel splits
 * off lies within the whole, and is chained to that.
 */
static bool gate_has_counted(const struct gate *gate, const struct bio *bio,
			     sector_t first, sector_t last)
{
	const struct origin_write *whole;
	bio_end_io_t *end_io = bio->bi_end_io;
	void *private = bio->bi_private;

	if (likely(end_io != gate_endio && !chained_is(end_io)))
		return false;
	if (gate_counted(gate, &end_io, &private))
		return true;
	if (!chained_is(end_io))
		return false;
	whole = gate_counted_parent(gate, private);
	return whole && whole->first <= first && last <= whole->last;
}

/* Does what this gate has counted wait for a bio that it has not? */
static bool gate_waits_for(const struct gate *gate, const struct bio *bio)
{
	bio_end_io_t *end_io = bio->bi_end_io;
	void *private = bio->bi_private;

	if (likely(end_io != gate_endio && !chained_is(end_io)))
		return false;
	gate_counted(gate, &end_io, &private);
	return chained_is(end_io) && gate_counted_parent(gate, private);
}

/* Watchers of a write, one after the other: under rcu_read_lock() */

static struct gate_watcher *gate_watcher_from(struct gate *gate,
					      struct list_head *node,
					      sector_t first, sector_t last)
{
	struct gate_watcher *watcher;

	for (; node != &gate->watchers;
	     node = rcu_dereference(list_next_rcu(node))) {
		watcher = list_entry(node, struct gate_watcher, node);
		if (watcher->first <= last && first <= watcher->last)
			return watcher;
	}
	return NULL;
}

static struct gate_watcher *gate_first_watcher(struct gate *gate,
					       sector_t first, sector_t last)
{
	return gate_watcher_from(gate,
				 rcu_dereference(list_next_rcu(&gate->watchers)),
				 first, last);
}

static struct gate_watcher *gate_next_watcher(struct gate *gate,
					      struct gate_watcher *watcher,
					      sector_t first, sector_t last)
{
	return gate_watcher_from(gate,
				 rcu_dereference(list_next_rcu(&watcher->node)),
				 first, last);
}

/* @watcher is the first one of the write, or NULL. */
static bool gate_satisfied(struct gate *gate, struct gate_watcher *watcher,
			   enum req_op op, sector_t first, sector_t last)
{
	for (; watcher;
	     watcher = gate_next_watcher(gate, watcher, first, last))
		if (!watcher->ops->satisfied(watcher, op, first, last))
			return false;
	return true;
}

/* @watcher is the first one of the write, or NULL. */
static void gate_tell_passed(struct gate *gate, struct gate_watcher *watcher,
			     const struct origin_write *write)
{
	for (; watcher; watcher = gate_next_watcher(gate, watcher, write->first,
						    write->last))
		watcher->ops->passed(watcher, write);
}

static void gate_trace_release(struct gate *gate,
			       const struct origin_write *write)
{
	if (trace_blksnap_release_enabled())
		trace_blksnap_release(disk_devt(gate->disk), write->first,
				      write->last - write->first + 1,
				      (ktime_get_ns() - write->held_ns) /
				      NSEC_PER_USEC);
}

/*
 * A closed gate waits for what it has counted; and so must let through what that
 * waits for: a link of a chain that was not prepared yet when a later one was.
 */
static bool gate_count(struct gate *gate, const struct bio *bio)
{
	if (likely(percpu_ref_tryget_live_rcu(&gate->writes)))
		return true;
	return gate_waits_for(gate, bio) && percpu_ref_tryget(&gate->writes);
}

/*
 * The one place where a write is passed. Under rcu_read_lock(). @watcher is the
 * first one of the write, or NULL. A successful tryget orders what follows after
 * everything that was stored before gate_open(): pairs with the barrier there.
 */
static bool gate_try(struct gate *gate, struct gate_watcher *watcher,
		     struct origin_write *write)
{
	struct bio *bio = write->bio;

	if (!gate_count(gate, bio))
		return false;
	smp_rmb(); /* pairs with __gate_open() */
	if (!gate_satisfied(gate, watcher, bio_op(bio), write->first,
			    write->last)) {
		percpu_ref_put(&gate->writes);
		return false;
	}
	gate_tell_passed(gate, watcher, write);
	if (write->held_ns)
		gate_trace_release(gate, write);
	/* A polled bio's private pointer belongs to whoever polls it. */
	bio_clear_polled(bio);
	gate_interpose(write);
	return true;
}

/* Held writes */

static struct workqueue_struct *gate_queue(struct gate *gate,
					   const struct origin_write *write)
{
	return origin_write_is_awaited(write) ? gate->awaited_wq : gate->wq;
}

/*
 * A held write goes to its watchers at once, or, while the gate is closed, when
 * it opens. Whether it is closed is asked under the lock that gate_open() takes
 * after it has made the ref live: no write is left behind.
 */
static void gate_hold(struct gate *gate, struct origin_write *write)
{
	unsigned long flags;

	spin_lock_irqsave(&gate->lock, flags);
	if (percpu_ref_is_dying(&gate->writes) &&
	    !gate_waits_for(gate, write->bio))
		list_add_tail(&write->node, &gate->held);
	else
		queue_work(gate_queue(gate, write), &write->work);
	spin_unlock_irqrestore(&gate->lock, flags);
}

static void gate_release_held(struct gate *gate)
{
	struct origin_write *write, *next;
	LIST_HEAD(writes);

	spin_lock_irq(&gate->lock);
	list_splice_init(&gate->held, &writes);
	spin_unlock_irq(&gate->lock);
	list_for_each_entry_safe(write, next, &writes, node)
		gate_hold(gate, write);
}

void gate_resume(struct origin_write *write)
{
	gate_hold(write->gate, write);
}

static void gate_work(struct work_struct *work);

static void gate_begin_hold(struct origin_write *write)
{
	INIT_WORK(&write->work, gate_work);
	write->held_ns = ktime_get_ns();
	atomic_set(&write->keepers, 2); /* its worker, and its completion */
	write->stalled_for = 0;
	trace_blksnap_hold(disk_devt(write->gate->disk), write->first,
			   write->last - write->first + 1);
}

/* The submitter's flags do not fit the worker who will submit it again. */
static void gate_first_hold(struct gate *gate, struct bio *bio)
{
	bio->bi_opf &= ~REQ_NOWAIT;
	atomic_long_inc(&gate->nr_held);
}

static void gate_hold_raw(struct gate *gate, struct bio *bio)
{
	unsigned long flags;

	gate_first_hold(gate, bio);
	spin_lock_irqsave(&gate->lock, flags);
	bio_list_add(&gate->raw, bio);
	spin_unlock_irqrestore(&gate->lock, flags);
	queue_work(gate->awaited_wq, &gate->raw_work);
}

static void gate_unhold(struct gate *gate)
{
	if (atomic_long_dec_and_test(&gate->nr_held))
		wake_up(&gate->none_held);
}

/* Where on the disk a bio begins. */
static sector_t gate_first_sector(struct bio *bio)
{
	sector_t first = bio->bi_iter.bi_sector;

	if (!bio_flagged(bio, BIO_REMAPPED))
		first += bio->bi_bdev->bd_start_sect;
	return first;
}

static struct origin_write *gate_new_write(struct gate *gate, struct bio *bio,
					   sector_t first, sector_t last)
{
	struct origin_write *write;

	write = this_cpu_xchg(spare_write, NULL) ?:
		kmem_cache_alloc(write_cache, GFP_NOWAIT | __GFP_NOWARN) ?:
		mempool_alloc(&gate->pool, GFP_NOWAIT | __GFP_NOWARN);
	if (!write)
		return NULL;
	write->bio = bio;
	write->gate = gate;
	write->held_ns = 0;
	write->joined = false;
	write->first = first;
	write->last = last;
	return write;
}

static bool gate_submit_to(struct gate *gate, struct bio *bio)
{
	sector_t first = gate_first_sector(bio);
	sector_t last = first + bio_sectors(bio) - 1;
	struct gate_watcher *watcher;
	struct origin_write *write;

	watcher = gate_first_watcher(gate, first, last);
	if (!watcher || gate_has_counted(gate, bio, first, last))
		return false;

	write = gate_new_write(gate, bio, first, last);
	if (unlikely(!write)) {
		gate_hold_raw(gate, bio);
		return true;
	}
	if (likely(gate_try(gate, watcher, write)))
		return false;
	gate_first_hold(gate, bio);
	gate_begin_hold(write);
	gate_hold(gate, write);
	return true;
}

bool gate_submit(struct bio *bio)
{
	struct gate *gate;
	bool held = false;

	if (!op_is_write(bio->bi_opf) || !bio_sectors(bio))
		return false;
	rcu_read_lock();
	gate = gate_find(bio->bi_bdev->bd_disk);
	if (gate)
		held = gate_submit_to(gate, bio);
	rcu_read_unlock();
	return held;
}

/* The worker */

static struct origin_write *gate_adopt_raw(struct gate *gate)
{
	struct origin_write *write = NULL;
	struct bio *bio;
	sector_t first;

	spin_lock_irq(&gate->lock);
	smp_mb(); /* pairs with gate_free_write() */
	bio = bio_list_peek(&gate->raw);
	if (bio) {
		first = gate_first_sector(bio);
		write = gate_new_write(gate, bio, first,
				       first + bio_sectors(bio) - 1);
	}
	if (write)
		bio_list_pop(&gate->raw);
	spin_unlock_irq(&gate->lock);
	return write;
}

/* Gives origin_writes to bios that came without, as far as there are any. */
static void gate_raw_work(struct work_struct *work)
{
	struct gate *gate = container_of(work, struct gate, raw_work);
	struct origin_write *write;

	while ((write = gate_adopt_raw(gate))) {
		gate_begin_hold(write);
		gate_hold(gate, write);
	}
}

/*
 * Reads that cannot be submitted, since the disk takes no request, must not keep
 * the semaphores: a take or a release would wait for them, and all others behind
 * that.
 */
static enum gate_answer gate_ask_prepare(struct gate *gate,
					 struct origin_write *write)
{
	const struct gate_watcher_ops *ops = NULL;
	enum gate_answer answer = GATE_READY;
	struct gate_watcher *watcher;
	sector_t first = write->first, last = write->last;
	LIST_HEAD(reads);

	down_read(&gate->watchers_sem);
	list_for_each_entry(watcher, &gate->watchers, node) {
		if (watcher->first > last || first > watcher->last)
			continue;
		ops = watcher->ops;
		answer = ops->prepare(watcher, write, &reads);
		if (answer != GATE_READY)
			break;
	}
	up_read(&gate->watchers_sem);
	/* Those of one gate have the same. */
	if (!list_empty(&reads))
		ops->read(&reads);
	return answer;
}

static void gate_drop(struct gate *gate, struct origin_write *write)
{
	struct bio *bio = write->bio;

	gate_free_write(gate, write);
	gate_unhold(gate);
	bio_endio(bio);
}

static void gate_work(struct work_struct *work)
{
	struct origin_write *write = container_of(work, struct origin_write, work);
	struct gate *gate = write->gate;
	struct bio *bio = write->bio;
	struct gate_watcher *watcher;
	bool passes;

	switch (gate_ask_prepare(gate, write)) {
	case GATE_PARKED:
		return;
	case GATE_DROPPED:
		gate_drop(gate, write);
		return;
	case GATE_READY:
		break;
	}

	rcu_read_lock();
	watcher = gate_first_watcher(gate, write->first, write->last);
	passes = gate_try(gate, watcher, write);
	rcu_read_unlock();
	if (!passes) {
		gate_hold(gate, write);
		return;
	}
	submit_bio_noacct(bio);
	gate_leave_write(gate, write);
	gate_unhold(gate);
}

/* Watchers */

/*
 * Waits for what the queue holds; and, if that is bio-based, for who has not come
 * back from the driver: he may sleep there, and his write not be accounted yet.
 * @alone: nobody else had it frozen, neither at the beginning nor at the end
 */
static int __gate_flush_queue(struct gate *gate, unsigned long timeout,
			      bool *alone)
{
	struct request_queue *q = gate->disk->queue;
	int ret = 0;

	blk_freeze_queue_start(q);
	*alone = READ_ONCE(q->mq_freeze_depth) == 1;
	if (!timeout || !blk_mq_freeze_queue_wait_timeout(q, timeout))
		ret = -ETIMEDOUT;
	*alone = *alone && READ_ONCE(q->mq_freeze_depth) == 1;
	compat_queue_unfreeze(q);
	return ret;
}

/*
 * Somebody else may have the queue frozen (another elevator is put in, an adapter
 * is reset). Who sleeps there then has not entered it, and is not waited for. When
 * the others have gone he is awake, and on his way into it for as long as nobody
 * freezes it; that is waited for, and then it is flushed once more. At least once,
 * since they may have gone just before this began; but no more than once after
 * @timeout, which each flush has for itself.
 */
static int gate_flush_queue(struct gate *gate, unsigned long timeout)
{
	unsigned long deadline = jiffies + timeout;
	bool alone, alone_before;
	int ret;

	ret = __gate_flush_queue(gate, timeout, &alone);
	while (!ret) {
		alone_before = alone;
		synchronize_rcu_tasks();
		ret = __gate_flush_queue(gate, timeout, &alone);
		if (alone && alone_before)
			break;
		if (!ret && time_after(jiffies, deadline))
			ret = -ETIMEDOUT;
	}
	return ret;
}

int gate_watch(struct gate *gate, struct gate_watcher *watcher,
	       unsigned long timeout)
{
	int ret;

	down_write(&gate->watchers_sem);
	list_add_tail_rcu(&watcher->node, &gate->watchers);
	up_write(&gate->watchers_sem);
	/*
	 * Who was not counted has not only decided, but also left the function
	 * below the hook, or sleeps there: what he has entered is the queue.
	 */
	synchronize_rcu();
	synchronize_rcu_tasks();
	ret = gate_flush_queue(gate, timeout);
	if (ret)
		gate_unwatch(gate, watcher);
	else /* its range was not counted before: see gate_drain_uncounted() */
		atomic_inc(&gate->nr_watched);
	return ret;
}

void gate_unwatch(struct gate *gate, struct gate_watcher *watcher)
{
	down_write(&gate->watchers_sem);
	list_del_rcu(&watcher->node);
	up_write(&gate->watchers_sem);
	synchronize_rcu_expedited();
}

/* Closing and opening */

static void gate_drained(struct percpu_ref *ref)
{
	wake_up_all(&container_of(ref, struct gate, writes)->drained);
}

void gate_prepare_close(struct gate *gate)
{
	percpu_ref_switch_to_atomic(&gate->writes, NULL);
}

void gate_await_prepared(struct gate *gate)
{
	percpu_ref_switch_to_atomic_sync(&gate->writes);
}

static void __gate_close(struct gate *gate)
{
	lockdep_assert_held(&gates_mutex);
	if (!gate->closed++)
		percpu_ref_kill(&gate->writes);
}

static void __gate_open(struct gate *gate)
{
	lockdep_assert_held(&gates_mutex);
	if (--gate->closed)
		return;
	smp_mb(); /* pairs with gate_try() */
	percpu_ref_resurrect(&gate->writes);
	gate_release_held(gate);
}

void gate_close(struct gate *gate)
{
	mutex_lock(&gates_mutex);
	__gate_close(gate);
	mutex_unlock(&gates_mutex);
}

void gate_open(struct gate *gate)
{
	mutex_lock(&gates_mutex);
	__gate_open(gate);
	mutex_unlock(&gates_mutex);
}

/*
 * What nobody watches goes on also while the gate is closed. Under
 * rcu_read_lock().
 */
static bool gate_watches(void *gate, struct block_device *part)
{
	sector_t first = part->bd_start_sect;

	return bdev_nr_sectors(part) &&
	       gate_first_watcher(gate, first,
				  first + bdev_nr_sectors(part) - 1);
}

/*
 * What a bio-based disk was given before it had a gate nobody has counted but
 * its driver. While the gate is closed and drained, that is all there can be.
 * Nobody tells when it ends, so this has to look again and again. A watcher that
 * is just being added may have a write yet that is not accounted: it is not among
 * those that this has drained.
 */
static int gate_drain_uncounted(struct gate *gate, unsigned long deadline)
{
	long left = max_t(long, deadline - jiffies, 1);
	int watched = atomic_read(&gate->nr_watched);
	bool ended;
	int ret;

	if (queue_is_mq(gate->disk->queue) || gate->drained_of == watched)
		return 0;
	if (accounted_is_off(gate->disk))
		return -EOPNOTSUPP;
	ret = read_poll_timeout(accounted_all_ended, ended, ended, GATE_POLL_US,
				div_u64(jiffies64_to_nsecs(left), NSEC_PER_USEC),
				false, gate->disk, gate_watches, gate);
	if (!ret)
		gate->drained_of = watched;
	return ret;
}

/*
 * What is held was looked at when it came. Since then what waits for it may have
 * passed: who decided about that had seen the gate open; or it is farther away in
 * a chain than GATE_LINKS, and what is between them has passed.
 */
static int gate_drain_counted(struct gate *gate, unsigned long deadline)
{
	long left;

	for (;;) {
		left = max_t(long, deadline - jiffies, 0);
		left = min_t(long, left, msecs_to_jiffies(GATE_DRAIN_MS));
		if (wait_event_timeout(gate->drained,
				       percpu_ref_is_zero(&gate->writes), left))
			return 0;
		if (time_is_before_eq_jiffies(deadline))
			return -ETIMEDOUT;
		gate_release_held(gate);
	}
}

int gate_drain(struct gate *gate, unsigned long deadline)
{
	return gate_drain_counted(gate, deadline) ?:
	       gate_drain_uncounted(gate, deadline);
}

void gate_settle(struct gate *gate)
{
	percpu_ref_switch_to_percpu(&gate->writes);
}

/* Life */

/* What is held goes on, as nobody watches; nothing new is held. */
static void __gate_await_unheld(struct gate *gate)
{
	lockdep_assert_held(&gates_mutex);
	mutex_unlock(&gates_mutex);
	wait_event(gate->none_held, !atomic_long_read(&gate->nr_held) ||
		   READ_ONCE(gate->users));
	mutex_lock(&gates_mutex);
}

/* Through a closed gate nothing passes: so what has passed comes to an end. */
static void __gate_await_complete(struct gate *gate)
{
	lockdep_assert_held(&gates_mutex);
	mutex_unlock(&gates_mutex);
	wait_event(gate->drained, percpu_ref_is_zero(&gate->writes) ||
		   READ_ONCE(gate->users));
	mutex_lock(&gates_mutex);
}

/* A user may have come, have had writes held, and have gone again. */
static bool __gate_is_over(struct gate *gate)
{
	lockdep_assert_held(&gates_mutex);
	return !gate->users && !atomic_long_read(&gate->nr_held) &&
	       percpu_ref_is_zero(&gate->writes);
}

/*
 * The end of a gate begins when the last user has gone. Nobody watches any
 * more, so that no write is counted any more; those that are must complete
 * before the gate goes, or else a gate that comes after it would not know of
 * them. What is still held has to pass before the gate is closed for that:
 * nobody may have to wait for the end of other writes. Should a user come first,
 * the gate lives on.
 */
static bool gate_outlives_writes(struct gate *gate)
{
	bool over = false;

	mutex_lock(&gates_mutex);
	while (!over && !gate->users) {
		__gate_await_unheld(gate);
		if (gate->users)
			break;
		__gate_close(gate);
		__gate_await_complete(gate);
		over = __gate_is_over(gate);
		if (over)
			hash_del_rcu(&gate->node);
		__gate_open(gate);
	}
	if (!over)
		gate->ending = false;
	mutex_unlock(&gates_mutex);
	return over;
}

/* Nothing points to it any more, or did yet. */
static void gate_free(struct gate *gate)
{
	struct module *owner = gate->disk->fops->owner;

	destroy_workqueue(gate->awaited_wq);
	destroy_workqueue(gate->wq);
	percpu_ref_exit(&gate->writes);
	mempool_exit(&gate->pool);
	put_device(disk_to_dev(gate->disk));
	module_put(owner);
	kfree(gate);
	filter_put();
}

/*
 * The disk may have gone, and its name, or number, not be free again before this
 * has given its reference back (md): so grace periods are expedited. Nobody
 * counts on the end of a gate being cheap.
 *
 * Then, in this order: no submitter looks at it any more; what it still holds
 * passes, and is complete, as nobody watches; nothing points to it.
 */
static void gate_destroy(struct work_struct *work)
{
	struct gate *gate = container_of(work, struct gate, destroy_work);

	if (!gate_outlives_writes(gate))
		return;
	synchronize_rcu_expedited();
	wait_event(gate->none_held, !atomic_long_read(&gate->nr_held));
	percpu_ref_kill(&gate->writes);
	wait_event(gate->drained, percpu_ref_is_zero(&gate->writes));
	/* The last write's completion may still be on its way out of the ref. */
	synchronize_rcu_expedited();
	gate_free(gate);
}

/* mempool_init_slab_pool() takes no cache with a constructor. */
static void *gate_pool_alloc(gfp_t gfp, void *data)
{
	return kmem_cache_alloc(write_cache, gfp);
}

static void gate_pool_free(void *write, void *data)
{
	kmem_cache_free(write_cache, write);
}

static struct workqueue_struct *gate_create_wq(const char *name, int workers,
					       const struct gendisk *disk)
{
	return alloc_workqueue(name, WQ_UNBOUND | WQ_MEM_RECLAIM | WQ_HIGHPRI,
			       workers, disk->disk_name);
}

static struct gate *gate_create(struct gendisk *disk)
{
	struct gate *gate;
	int ret = -ENOMEM;

	gate = kzalloc(sizeof(*gate), GFP_KERNEL);
	if (!gate)
		return ERR_PTR(-ENOMEM);
	gate->disk = disk;
	init_rwsem(&gate->watchers_sem);
	spin_lock_init(&gate->lock);
	INIT_LIST_HEAD(&gate->watchers);
	INIT_LIST_HEAD(&gate->held);
	bio_list_init(&gate->raw);
	init_waitqueue_head(&gate->none_held);
	init_waitqueue_head(&gate->drained);
	INIT_WORK(&gate->raw_work, gate_raw_work);
	INIT_WORK(&gate->destroy_work, gate_destroy);

	gate->wq = gate_create_wq("blksnap_%s", GATE_WORKERS, disk);
	if (!gate->wq)
		goto out;
	gate->awaited_wq = gate_create_wq("blksnap_a_%s", GATE_AWAITED_WORKERS,
					  disk);
	if (!gate->awaited_wq)
		goto out_wq;
	ret = mempool_init(&gate->pool, GATE_RESERVE, gate_pool_alloc,
			   gate_pool_free, NULL);
	if (ret)
		goto out_awaited_wq;
	ret = percpu_ref_init(&gate->writes, gate_drained,
			      PERCPU_REF_ALLOW_REINIT, GFP_KERNEL);
	if (ret)
		goto out_pool;
	/* Nobody may hold it open for as long as this gate has a reference. */
	ret = -ENXIO;
	if (!try_module_get(disk->fops->owner))
		goto out_ref;
	ret = filter_get();
	if (ret)
		goto out_module;
	get_device(disk_to_dev(disk));
	return gate;

out_module:
	module_put(disk->fops->owner);
out_ref:
	percpu_ref_exit(&gate->writes);
out_pool:
	mempool_exit(&gate->pool);
out_awaited_wq:
	destroy_workqueue(gate->awaited_wq);
out_wq:
	destroy_workqueue(gate->wq);
out:
	kfree(gate);
	return ERR_PTR(ret);
}

/* Returns the disk's gate with one more user, or NULL. */
static struct gate *__gate_join(struct gendisk *disk)
{
	struct gate *gate;

	lockdep_assert_held(&gates_mutex);
	gate = gate_find(disk);
	if (!gate)
		return NULL;
	WRITE_ONCE(gate->users, gate->users + 1);
	/* Should its end have begun. */
	wake_up_all(&gate->none_held);
	wake_up_all(&gate->drained);
	return gate;
}

/* Who opens a gate waits for the mutex: nothing is allocated under it. */
struct gate *gate_get(struct gendisk *disk)
{
	struct gate *gate, *made;

	mutex_lock(&gates_mutex);
	gate = __gate_join(disk);
	mutex_unlock(&gates_mutex);
	if (gate)
		return gate;
	made = gate_create(disk);
	if (IS_ERR(made))
		return made;
	mutex_lock(&gates_mutex);
	gate = __gate_join(disk);
	if (!gate) {
		made->users = 1;
		hash_add_rcu(gates, &made->node, (unsigned long)disk);
	}
	mutex_unlock(&gates_mutex);
	if (!gate)
		return made;
	gate_free(made);
	return gate;
}

void gate_put(struct gate *gate)
{
	mutex_lock(&gates_mutex);
	WRITE_ONCE(gate->users, gate->users - 1);
	if (!gate->users && !gate->ending) {
		gate->ending = true;
		queue_work(destroy_wq, &gate->destroy_work);
	}
	mutex_unlock(&gates_mutex);
}

/*
 * A cache with a constructor is not zeroed at each allocation (init_on_alloc): every
 * field is set where an origin_write is made, and it is made for each write.
 */
static void gate_construct_write(void *write)
{
}

int gate_init(void)
{
	int ret = -ENOMEM;

	write_cache = kmem_cache_create("blksnap_origin_write",
					sizeof(struct origin_write), 0, 0,
					gate_construct_write);
	if (!write_cache)
		return -ENOMEM;
	destroy_wq = alloc_workqueue("blksnap_gates", WQ_UNBOUND, 0);
	if (!destroy_wq)
		goto out_cache;
	chained_init();
	ret = filter_init(gate_submit);
	if (ret)
		goto out_wq;
	return 0;

out_wq:
	destroy_workqueue(destroy_wq);
out_cache:
	kmem_cache_destroy(write_cache);
	return ret;
}

static void gate_free_spares(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		if (per_cpu(spare_write, cpu))
			kmem_cache_free(write_cache, per_cpu(spare_write, cpu));
}

/*
 * The last gate has removed the hook after the last write's completion had left
 * the gate; and that waits also for tasks that were preempted in gate_endio().
 */
void gate_exit(void)
{
	destroy_workqueue(destroy_wq);
	filter_exit();
	gate_free_spares();
	kmem_cache_destroy(write_cache);
}
