/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_GATE_H
#define BLKSNAP_GATE_H

#include <linux/blk_types.h>
#include <linux/list.h>
#include <linux/types.h>
#include <linux/workqueue.h>

struct gate;
struct gendisk;
struct gate_watcher;

/**
 * struct origin_write - one write to a watched disk
 * @bio: the bio
 * @gate: the gate that it came to
 * @node: on one list at most while the write is held: the closed gate's, or
 *	that of the watcher that parked it
 * @work: brings it to its watchers, while it is held
 * @first: first sector, counted from the start of the disk
 * @last: last sector
 * @held_ns: when it was first held (ktime_get_ns()); 0 if it never was
 * @stalled_ns: since when it has waited for memory without progress, if there is
 *	a @stalled_for
 * @stalled_for: whose memory it waits for (&starved.id); 0: nobody's
 * @joined: belongs to the watcher that parks it; false at first
 * @keepers: who needs it yet, of a write that was held
 * @end_io: the submitter's completion, while the write is passed
 * @private: the submitter's private pointer, while the write is passed
 *
 * Owned by the gate; by a watcher from the moment that its prepare() answers
 * GATE_PARKED until it calls gate_resume().
 */
struct origin_write {
	struct bio *bio;
	struct gate *gate;
	struct list_head node;
	struct work_struct work;
	sector_t first;
	sector_t last;
	u64 held_ns;
	u64 stalled_ns;
	u64 stalled_for;
	bool joined;
	atomic_t keepers;
	bio_end_io_t *end_io;
	void *private;
};

/**
 * origin_write_is_awaited() - does somebody wait for the write?
 * @write: the write
 *
 * Context: any. Return: false if it is only written back.
 */
static inline bool origin_write_is_awaited(const struct origin_write *write)
{
	blk_opf_t opf = write->bio->bi_opf;

	return op_is_sync(opf) || (opf & (REQ_META | REQ_PRIO | REQ_SWAP));
}

/**
 * enum gate_answer - what a watcher says about a held write
 * @GATE_READY: it has nothing (more) to do before the write may pass
 * @GATE_PARKED: it keeps the write and will call gate_resume()
 * @GATE_DROPPED: the write is not to be passed on but completed as a success
 */
enum gate_answer { GATE_READY, GATE_PARKED, GATE_DROPPED };

/**
 * struct gate_watcher_ops - what a watcher of a disk range is asked
 * @satisfied: may a write of @op to these sectors pass as it is? Called under
 *	rcu_read_lock() in the submitter's context; must not sleep or wait.
 * @prepare: do what must be done before this write may pass. Called from a
 *	worker, for different writes at the same time, with no lock that I/O
 *	needs; may allocate with GFP_NOIO, must not wait for the write's own
 *	disk. What is to be read from that is put on the list.
 * @read: submits the reads of such a list. May wait for the disk: called with no
 *	lock, when the watcher may be gone
 * @passed: the write passes now, inside the section that @satisfied answered
 *	for. Same context as @satisfied.
 */
struct gate_watcher_ops {
	bool (*satisfied)(struct gate_watcher *watcher, enum req_op op,
			  sector_t first, sector_t last);
	enum gate_answer (*prepare)(struct gate_watcher *watcher,
				    struct origin_write *write,
				    struct list_head *reads);
	void (*read)(struct list_head *reads);
	void (*passed)(struct gate_watcher *watcher,
		       const struct origin_write *write);
};

/**
 * struct gate_watcher - embedded in whoever follows a range of a disk
 * @node: in the gate's list; protected by the gate's semaphore, read under RCU
 * @first: first sector, counted from the start of the disk; set once
 * @last: last sector; set once
 * @ops: set once
 */
struct gate_watcher {
	struct list_head node;
	sector_t first;
	sector_t last;
	const struct gate_watcher_ops *ops;
};

/**
 * gate_init() - what the gates need; registers with the filter
 *
 * Context: module init. Return: 0, -ENOMEM, or what filter_init() says.
 */
int gate_init(void);

/**
 * gate_exit() - waits for gates that are still closing down
 *
 * Context: module exit, after the last gate_put(). Waits for every write that
 * was passed while it was watched.
 */
void gate_exit(void);

/**
 * gate_submit() - the filter's handler: decides about one bio
 * @bio: see filter_fn
 *
 * Context: must not sleep. Return: true if the bio was held.
 */
bool gate_submit(struct bio *bio);

/**
 * gate_get() - the gate of a disk, made and hooked in if it has none
 * @disk: the disk; the caller holds it open
 *
 * Context: may sleep.
 *
 * Return: the gate, to be given back by gate_put(), or an ERR_PTR: -ENOMEM, or
 * what filter_get() says.
 */
struct gate *gate_get(struct gendisk *disk);

/**
 * gate_put() - gives a gate back
 * @gate: from gate_get(); no watcher of the caller is on it any more
 *
 * The last one takes the gate down from a worker, when the writes that it has
 * passed are complete; until then gate_get() finds it again. Context: may sleep;
 * does not wait for I/O.
 */
void gate_put(struct gate *gate);

/**
 * gate_watch() - starts to show the writes of a range to a watcher
 * @gate: the gate of the disk
 * @watcher: filled in by the caller; stays valid until gate_unwatch()
 * @timeout: in jiffies; how long those who submit may have to wait, at a time,
 *	while this waits for what was submitted before
 *
 * When this returns, each write that begins is shown, and on a request-based
 * disk those that had begun earlier are complete, but for what is parked in
 * blk-throttle. On a bio-based disk the driver has been given them; for what it
 * does with them see gate_drain().
 *
 * Context: may sleep. Return: 0, or -ETIMEDOUT with the watcher removed again.
 */
int gate_watch(struct gate *gate, struct gate_watcher *watcher,
	       unsigned long timeout);

/**
 * gate_unwatch() - ends gate_watch()
 * @gate: the gate
 * @watcher: when this returns, no call to it is running any more; writes that
 *	it has parked must be resumed by their owner
 *
 * Context: may sleep.
 */
void gate_unwatch(struct gate *gate, struct gate_watcher *watcher);

/**
 * gate_prepare_close() - makes the next gate_close() immediate
 * @gate: the gate, still open
 *
 * Starts what needs an RCU grace period; gate_close() waits for it, so that
 * several gates share one. Context: may sleep.
 */
void gate_prepare_close(struct gate *gate);

/**
 * gate_await_prepared() - waits for what gate_prepare_close() has started
 * @gate: the gate
 *
 * Context: may sleep, for one RCU grace period at most.
 */
void gate_await_prepared(struct gate *gate);

/**
 * gate_close() - from now on writes are held, until gate_open()
 * @gate: prepared by gate_prepare_close(). May be closed several times (two
 *	origins on one disk), and is open again after as many gate_open().
 *
 * Remainders of writes that were passed still pass. Context: may sleep; does
 * not wait for I/O.
 */
void gate_close(struct gate *gate);

/**
 * gate_drain() - waits until every write that was passed is complete
 * @gate: closed
 * @deadline: in jiffies
 *
 * The first time also for what a bio-based disk was given before it had a gate,
 * as far as its driver accounts it (device-mapper and md do; but dm-crypt, dm-thin,
 * dm-cache and dm-delay only from when they pass it on).
 *
 * Context: may sleep. Return: 0, -ETIMEDOUT, or -EOPNOTSUPP if the accounting of
 * such a driver has been switched off, so that nobody can tell.
 */
int gate_drain(struct gate *gate, unsigned long deadline);

/**
 * gate_open() - ends gate_close(); held writes start again at the top
 * @gate: closed and drained, or not drained in time
 *
 * What the caller has stored before is seen by every write that passes after.
 * Context: as gate_close().
 */
void gate_open(struct gate *gate);

/**
 * gate_settle() - undoes gate_prepare_close() after the last gate_open()
 * @gate: open. Context: may sleep.
 */
void gate_settle(struct gate *gate);

/**
 * gate_resume() - gives a parked write back: it starts again at the top
 * @write: was parked by the caller, who must not touch it any more
 *
 * Context: any.
 */
void gate_resume(struct origin_write *write);

#endif
