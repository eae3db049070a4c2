// SPDX-License-Identifier: GPL-2.0
/*
 * Space for differences, whatever it lies on.
 *
 * A storage is a range of sectors from 0 on, made of extents of a device. Space
 * is handed out from its beginning to its end and is given back only with the
 * whole storage: what is preserved stays preserved while the session lives.
 *
 * Where a kind can grow, a worker does it ahead of need: when less than the low
 * mark is free, it doubles what there is, within the limit. So the steps follow
 * the rate at which the storage fills. A store that finds no space has the worker
 * try, and waits: only an attempt that began after that, and failed, makes an
 * overflow.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "diff_storage.h"
#include "error.h"

#define STORE_BIOS 16	/* store requests that can always be in flight */
#define STEP_SECTORS (DIFF_STORAGE_STEP >> SECTOR_SHIFT)
#define EXTENT_FLAGS (MT_FLAGS_ALLOC_RANGE | MT_FLAGS_USE_RCU)

/* Growing */

static sector_t storage_free(const struct diff_storage *storage)
{
	return storage->size - storage->used;
}

/* A round: what was asked for until now is to be free at its end. */
static sector_t storage_begin_round(struct diff_storage *storage)
{
	sector_t need;

	spin_lock(&storage->lock);
	need = max(storage->low, storage->wanted);
	storage->wanted = 0;
	storage->begun++;
	storage->remarked = false;
	spin_unlock(&storage->lock);
	return need;
}

/* How much is to be added now; 0 if nothing is, or nothing may be. */
static sector_t storage_next_step(struct diff_storage *storage, sector_t need)
{
	sector_t step = 0;

	spin_lock(&storage->lock);
	if (storage_free(storage) < need && storage->size < storage->limit)
		step = min(max3(storage->size, need, STEP_SECTORS),
			   storage->limit - storage->size);
	spin_unlock(&storage->lock);
	return round_down(step, STEP_SECTORS);
}

/*
 * A limit, and so a step, may be larger than any disk or file. A tmpfs without a
 * limit says that it has no room; so does what has some left for root alone.
 */
static sector_t storage_bound_step(struct diff_storage *storage, sector_t step)
{
	unsigned int noio;
	sector_t room;

	if (!storage->ops->room)
		return step;
	/* As in &diff_storage_ops.grow: stores wait for this. */
	noio = memalloc_noio_save();
	room = storage->ops->room(storage) >> SECTOR_SHIFT;
	memalloc_noio_restore(noio);
	room = round_down(room, STEP_SECTORS);
	return room ? min(step, room) : step;
}

/* Is it the size of the step that there is no room for? */
static bool storage_is_no_room(int err)
{
	return err == -ENOSPC || err == -EDQUOT || err == -EFBIG;
}

/* If there is no room for the step, perhaps there is for a part of it. */
static int storage_grow_by(struct diff_storage *storage, sector_t step)
{
	sector_t size = storage->size; /* nobody else changes it */
	int ret;

	if (!storage->ops->grow)
		return -EOPNOTSUPP;
	step = storage_bound_step(storage, step);
	do {
		ret = storage->ops->grow(storage, step);
		step = round_down(step / 2, STEP_SECTORS);
	} while (storage_is_no_room(ret) && step);
	/* All that there was may have been of no use. */
	return ret ?: storage->size > size ? 0 : -ENOSPC;
}

static bool storage_may_grow(const struct diff_storage *storage)
{
	return storage->limit >= storage->size + STEP_SECTORS;
}

static void storage_end_round(struct diff_storage *storage, sector_t need,
			      int err)
{
	bool tell = false;

	spin_lock(&storage->lock);
	/*
	 * Somebody may have taken what has just been added. Who has made room
	 * meanwhile, and said so, is to have another round.
	 */
	if (storage_free(storage) < need && !storage->remarked &&
	    (err || !storage_may_grow(storage))) {
		tell = !storage->full;
		storage->full = true;
		storage->full_err = err;
	}
	storage->ended = storage->begun;
	spin_unlock(&storage->lock);
	wake_up_all(&storage->grown);
	if (tell)
		storage->config.low_space(storage->config.owner);
}

static void storage_grow_work(struct work_struct *work)
{
	struct diff_storage *storage = container_of(work, struct diff_storage,
						    grow_work);
	sector_t need = storage_begin_round(storage);
	sector_t step;
	int ret = 0;

	while (!ret && (step = storage_next_step(storage, need)))
		ret = storage_grow_by(storage, step);
	storage_end_round(storage, need, ret);
}

static bool storage_is_due(const struct diff_storage *storage)
{
	return !storage->full && storage_free(storage) < storage->low;
}

void diff_storage_set_marks(struct diff_storage *storage, u64 limit, u64 low)
{
	bool due;

	spin_lock(&storage->lock);
	storage->limit = limit >> SECTOR_SHIFT;
	storage->low = low >> SECTOR_SHIFT;
	storage->full = false;
	storage->remarked = true;
	due = storage_is_due(storage);
	spin_unlock(&storage->lock);
	if (due)
		queue_work(storage->wq, &storage->grow_work);
}

/* Life */

int diff_storage_no_memory(const struct diff_storage_config *config)
{
	return error_set(config->error, config->who, -ENOMEM,
			 "no memory for the difference storage");
}

int diff_storage_init(struct diff_storage *storage,
		      const struct diff_storage_ops *ops,
		      const struct diff_storage_config *config)
{
	storage->ops = ops;
	storage->config = *config;
	mt_init_flags(&storage->extents, EXTENT_FLAGS);
	spin_lock_init(&storage->lock);
	init_waitqueue_head(&storage->grown);
	INIT_WORK(&storage->grow_work, storage_grow_work);
	storage->wq = alloc_workqueue("blksnap_grow_%s",
				      WQ_UNBOUND | WQ_MEM_RECLAIM, 1,
				      config->who);
	if (!storage->wq)
		return diff_storage_no_memory(config);
	if (!bioset_init(&storage->bios, STORE_BIOS, 0, BIOSET_NEED_BVECS))
		return 0;
	destroy_workqueue(storage->wq);
	return diff_storage_no_memory(config);
}

void diff_storage_exit(struct diff_storage *storage)
{
	struct diff_extent *extent;
	unsigned long at = 0;

	destroy_workqueue(storage->wq);
	mt_for_each(&storage->extents, extent, at, ULONG_MAX)
		kfree(extent);
	mtree_destroy(&storage->extents);
	bioset_exit(&storage->bios);
}

void diff_storage_close(struct diff_storage *storage)
{
	cancel_work_sync(&storage->grow_work);
	storage->ops->close(storage);
}

/* Extents */

int diff_storage_add(struct diff_storage *storage, struct block_device *bdev,
		     void *data, sector_t first, sector_t sectors)
{
	struct diff_extent *extent = kmalloc(sizeof(*extent), GFP_KERNEL);
	int ret;

	if (!extent)
		return -ENOMEM;
	extent->bdev = bdev;
	extent->data = data;
	extent->first = first;
	extent->sectors = sectors;
	extent->pos = storage->size; /* nobody else changes it */
	ret = mtree_store_range(&storage->extents, extent->pos,
				extent->pos + sectors - 1, extent, GFP_KERNEL);
	if (ret) {
		kfree(extent);
		return ret;
	}
	spin_lock(&storage->lock);
	storage->size += sectors;
	storage->full = false;
	spin_unlock(&storage->lock);
	return 0;
}

/* It stays: space that was given out has its extent. */
const struct diff_extent *diff_storage_extent(struct diff_storage *storage,
					      sector_t pos)
{
	MA_STATE(mas, &storage->extents, pos, pos);
	const struct diff_extent *extent;

	rcu_read_lock();
	extent = mas_walk(&mas);
	rcu_read_unlock();
	return extent;
}

sector_t diff_storage_place(struct diff_storage *storage, sector_t pos,
			    struct bio *bio)
{
	const struct diff_extent *extent = diff_storage_extent(storage, pos);

	bio->bi_iter.bi_sector = pos;
	if (extent->bdev) {
		bio_set_dev(bio, extent->bdev);
		bio->bi_iter.bi_sector += extent->first - extent->pos;
	}
	return extent->pos + extent->sectors - pos;
}

void diff_storage_submit(struct diff_storage *storage, struct bio *bio)
{
	if (bio->bi_bdev)
		submit_bio_noacct(bio);
	else
		storage->ops->submit(storage, bio);
}

const struct diff_extent *diff_storage_next_extent(struct diff_storage *storage,
						   sector_t *pos)
{
	unsigned long at = *pos;
	const struct diff_extent *extent;

	extent = mt_find(&storage->extents, &at, ULONG_MAX);
	if (extent)
		*pos = extent->pos + extent->sectors;
	return extent;
}

/* Space */

static bool __storage_take(struct diff_storage *storage, sector_t sectors,
			   sector_t *pos)
{
	lockdep_assert_held(&storage->lock);
	if (sectors > storage_free(storage))
		return false;
	*pos = storage->used;
	storage->used += sectors;
	return true;
}

/* Asks for a round. Returns its number. */
static unsigned int __storage_want(struct diff_storage *storage,
				   sector_t sectors)
{
	lockdep_assert_held(&storage->lock);
	storage->wanted = max(storage->wanted, sectors);
	queue_work(storage->wq, &storage->grow_work);
	return storage->begun + 1;
}

/* Returns -EAGAIN if it is to be tried again when @round has ended. */
static int storage_try(struct diff_storage *storage, sector_t sectors,
		       sector_t *pos, bool waited, unsigned int *round)
{
	int ret = 0;

	spin_lock(&storage->lock);
	if (__storage_take(storage, sectors, pos)) {
		if (storage_is_due(storage))
			queue_work(storage->wq, &storage->grow_work);
	} else if (waited && storage->full) {
		ret = -ENOSPC;
	} else {
		*round = __storage_want(storage, sectors);
		ret = -EAGAIN;
	}
	spin_unlock(&storage->lock);
	return ret;
}

static bool storage_has_ended(struct diff_storage *storage, unsigned int round)
{
	return (int)(READ_ONCE(storage->ended) - round) >= 0;
}

bool diff_storage_alloc_now(struct diff_storage *storage, sector_t sectors,
			    sector_t *pos)
{
	unsigned int round;

	sectors = round_up(sectors, DIFF_STORAGE_UNIT_SECTORS);
	return !storage_try(storage, sectors, pos, false, &round);
}

int diff_storage_alloc(struct diff_storage *storage, sector_t sectors,
		       sector_t *pos, const bool *needless)
{
	bool waited = false;
	unsigned int round;
	int ret;

	sectors = round_up(sectors, DIFF_STORAGE_UNIT_SECTORS);
	for (;;) {
		ret = storage_try(storage, sectors, pos, waited, &round);
		if (ret != -EAGAIN)
			return ret;
		wait_event_idle(storage->grown,
				storage_has_ended(storage, round) ||
					READ_ONCE(*needless));
		if (READ_ONCE(*needless))
			return -ECANCELED;
		waited = true;
	}
}

void diff_storage_wake(struct diff_storage *storage)
{
	wake_up_all(&storage->grown);
}

void diff_storage_bytes(struct diff_storage *storage, u64 *size, u64 *used)
{
	spin_lock(&storage->lock);
	*size = storage->size << SECTOR_SHIFT;
	*used = storage->used << SECTOR_SHIFT;
	spin_unlock(&storage->lock);
}

const char *diff_storage_why_full(struct diff_storage *storage, char *buffer)
{
	char name[ERROR_NAME_MAX];
	int err;

	spin_lock(&storage->lock);
	err = storage->full ? storage->full_err : 0;
	spin_unlock(&storage->lock);
	buffer[0] = '\0';
	if (err && !storage_is_no_room(err))
		snprintf(buffer, DIFF_STORAGE_WHY_MAX,
			 ", and it could not grow (%s)", error_name(err, name));
	return buffer;
}
