// SPDX-License-Identifier: GPL-2.0
/*
 * Ready chunks go to the difference storage, in batches: sorted by their place
 * on the origin, in one sequential range. So random writes become sequential
 * ones, and what lies together on the origin lies together in the storage, which
 * is what sequential reads of the image need.
 *
 * A batch is written in pieces, two at a time, and the memory of each is free
 * when that is written: whoever waits for memory waits for a piece, however large
 * the batch.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/completion.h>
#include <linux/ktime.h>
#include <linux/list_sort.h>
#include <linux/sizes.h>

#include "chunk.h"
#include "diff_area.h"
#include "diff_io.h"
#include "diff_storage.h"
#include "diff_store.h"
#include "trace.h"

#define PIECE_SECTORS (SZ_8M >> SECTOR_SHIFT)

/* A batch that is given its place, then a piece of it that is written. */
struct store {
	struct diff_area *area;
	struct list_head chunks;	/* by origin position */
	sector_t sectors;		/* of them, in units of the storage */
	atomic_t pending;		/* bios in flight, and the builder */
	int err;			/* of any bio, or of the place */
	u64 start_ns;			/* of writing */
	struct completion done;
};

static int chunk_by_position(void *priv, const struct list_head *a,
			     const struct list_head *b)
{
	const struct chunk *one = list_entry(a, struct chunk, node);
	const struct chunk *two = list_entry(b, struct chunk, node);

	return one->first > two->first;
}

static sector_t chunk_stored_sectors(const struct chunk *chunk)
{
	return (sector_t)chunk->nr_pages << (PAGE_SHIFT - SECTOR_SHIFT);
}

static void store_init(struct store *store, struct diff_area *area)
{
	memset(store, 0, sizeof(*store));
	store->area = area;
	INIT_LIST_HEAD(&store->chunks);
	atomic_set(&store->pending, 1);
	init_completion(&store->done);
}

/* All that is ready. */
static bool store_take_ready(struct store *store)
{
	struct diff_area *area = store->area;
	struct chunk *chunk;

	spin_lock_irq(&area->lock);
	list_splice_init(&area->ready, &store->chunks);
	spin_unlock_irq(&area->lock);
	list_sort(NULL, &store->chunks, chunk_by_position);
	list_for_each_entry(chunk, &store->chunks, node)
		store->sectors += chunk_stored_sectors(chunk);
	return store->sectors;
}

/* The next piece of what has its place. */
static bool store_take_piece(struct store *store)
{
	struct diff_area *area = store->area;
	struct chunk *chunk, *next;

	store->sectors = 0;
	spin_lock_irq(&area->lock);
	list_for_each_entry_safe(chunk, next, &area->placed, node) {
		list_move_tail(&chunk->node, &store->chunks);
		store->sectors += chunk_stored_sectors(chunk);
		if (store->sectors >= PIECE_SECTORS)
			break;
	}
	spin_unlock_irq(&area->lock);
	return store->sectors;
}

/* Only the first so many sectors have a place: the others are of a later batch. */
static void store_cut(struct store *store, sector_t sectors)
{
	struct diff_area *area = store->area;
	struct chunk *chunk, *next;
	LIST_HEAD(later);

	store->sectors = sectors;
	list_for_each_entry_safe(chunk, next, &store->chunks, node) {
		if (sectors)
			sectors -= chunk_stored_sectors(chunk);
		else
			list_move_tail(&chunk->node, &later);
	}
	spin_lock_irq(&area->lock);
	list_splice(&later, &area->ready);
	spin_unlock_irq(&area->lock);
}

/*
 * In one range, so that what lies together on the origin does in the diff. If
 * there is no room for all of it, the storage is asked for more, and a part of
 * it is stored meanwhile; only if there is no room at all this waits, as long as
 * the area is active.
 */
static int store_place(struct store *store)
{
	struct diff_storage *storage = store->area->config.storage;
	sector_t sectors = 0, wanted, pos;
	struct chunk *chunk;
	int ret = 0;

	if (diff_storage_alloc_now(storage, store->sectors, &pos)) {
		list_for_each_entry(chunk, &store->chunks, node) {
			chunk->diff_sector = pos;
			pos += chunk_stored_sectors(chunk);
		}
		return 0;
	}
	list_for_each_entry(chunk, &store->chunks, node) {
		wanted = chunk_stored_sectors(chunk);
		if (!sectors)
			ret = diff_storage_alloc(storage, wanted,
						 &chunk->diff_sector,
						 &store->area->over);
		else if (!diff_storage_alloc_now(storage, wanted,
						 &chunk->diff_sector))
			ret = -EAGAIN;
		if (ret)
			break;
		sectors += wanted;
	}
	if (ret == -EAGAIN)
		store_cut(store, sectors);
	return sectors ? 0 : ret;
}

static void store_put(struct store *store)
{
	if (atomic_dec_and_test(&store->pending))
		complete(&store->done);
}

static void store_endio(struct bio *bio)
{
	struct store *store = bio->bi_private;

	if (bio->bi_status)
		WRITE_ONCE(store->err, blk_status_to_errno(bio->bi_status));
	else
		WRITE_ONCE(store->area->config.storage->stored_ns,
			   ktime_get_ns());
	bio_put(bio);
	store_put(store);
}

bool diff_store_is_store(const struct bio *bio)
{
	return bio->bi_end_io == store_endio;
}

static void store_begin_bio(struct bio *bio)
{
	struct store *store = bio->bi_private;
	struct diff_stats *stats = &store->area->stats;

	atomic64_inc(&stats->diff_writes);
	atomic64_add(bio->bi_iter.bi_size, &stats->diff_written_bytes);
	atomic_inc(&store->pending);
}

static void store_add_chunk(struct diff_io *io, const struct chunk *chunk)
{
	struct bio_vec bvec = { .bv_len = PAGE_SIZE };
	unsigned int i;

	for (i = 0; i < chunk->nr_pages; i++) {
		bvec.bv_page = chunk->pages[i];
		diff_io_add(io, chunk->diff_sector + i * PAGE_SECTORS, &bvec);
	}
}

static void store_submit(struct store *store)
{
	struct diff_storage *storage = store->area->config.storage;
	struct diff_io io = {
		.storage = storage,
		.bios = &storage->bios,
		.opf = REQ_OP_WRITE | REQ_PRIO, /* others wait for the memory */
		.pages = BIO_MAX_VECS,
		.begin = store_begin_bio,
		.end_io = store_endio,
		.private = store,
	};
	struct chunk *chunk;

	store->start_ns = ktime_get_ns();
	list_for_each_entry(chunk, &store->chunks, node)
		store_add_chunk(&io, chunk);
	diff_io_submit(&io);
	store_put(store);
}

static void diff_store_uncount_memory(struct diff_area *area,
				     const struct chunk *chunk)
{
	atomic64_sub((u64)chunk->nr_pages << PAGE_SHIFT,
		     &area->stats.memory_bytes);
}

/* The content is safe elsewhere: the chunk is not needed any more. */
static void store_finish_chunk(struct diff_area *area, struct chunk *chunk)
{
	mutex_lock(&area->map.mutex);
	diff_map_set_stored(&area->map, chunk,
			    (s64)chunk->diff_sector - (s64)chunk->start);
	mutex_unlock(&area->map.mutex);
	atomic64_add(chunk_granules(chunk), &area->stats.stored);
	diff_store_uncount_memory(area, chunk);
	chunk_put(chunk); /* the map's */
	chunk_put(chunk); /* the piece's */
}

static void store_finish(struct store *store)
{
	struct chunk *chunk, *next;

	list_for_each_entry_safe(chunk, next, &store->chunks, node) {
		list_del_init(&chunk->node);
		store_finish_chunk(store->area, chunk);
	}
}

/* The chunks are as they were before; their space is lost. */
static void store_undo(struct store *store)
{
	struct diff_area *area = store->area;

	spin_lock_irq(&area->lock);
	list_splice_init(&store->chunks, &area->ready);
	spin_unlock_irq(&area->lock);
}

static void store_trace(const struct store *store)
{
	const struct chunk *first = list_first_entry(&store->chunks,
						     struct chunk, node);
	u64 ns = store->start_ns ? ktime_get_ns() - store->start_ns : 0;

	trace_blksnap_store(store->area->config.origin->bd_dev, first->start,
			    store->sectors, ns / NSEC_PER_USEC, store->err);
}

/* Everything that is ready gets its place. Returns 1, 0 or an errno. */
static int store_place_ready(struct diff_area *area)
{
	struct store store;

	store_init(&store, area);
	if (!store_take_ready(&store))
		return 0;
	store.err = store_place(&store);
	if (store.err) {
		store_trace(&store);
		store_undo(&store);
		return store.err;
	}
	spin_lock_irq(&area->lock);
	list_splice_tail(&store.chunks, &area->placed);
	spin_unlock_irq(&area->lock);
	return 1;
}

/* The next piece. What an area has that is not active any more is given up. */
static bool store_begin(struct store *store, struct diff_area *area)
{
	store_init(store, area);
	if (READ_ONCE(area->over) || !store_take_piece(store))
		return false;
	store_submit(store);
	return true;
}

static int store_end(struct store *store)
{
	wait_for_completion_io(&store->done);
	store_trace(store);
	if (store->err)
		store_undo(store);
	else
		store_finish(store);
	return store->err;
}

int diff_store_ready(struct diff_area *area)
{
	struct store stores[2];
	int ret, err = 0, i = 0;
	bool more;

	ret = store_place_ready(area);
	if (ret <= 0)
		return ret;
	for (more = store_begin(&stores[i], area); more; i = !i) {
		more = !err && store_begin(&stores[!i], area);
		ret = store_end(&stores[i]);
		err = err ?: ret;
	}
	return err ?: 1;
}

void diff_store_purge(struct diff_area *area)
{
	struct chunk *chunk, *next;
	LIST_HEAD(chunks);

	spin_lock_irq(&area->lock);
	list_splice_init(&area->placed, &chunks);
	list_splice_init(&area->ready, &chunks);
	spin_unlock_irq(&area->lock);
	list_for_each_entry_safe(chunk, next, &chunks, node) {
		list_del_init(&chunk->node);
		diff_map_set_lost(&area->map, chunk);
		atomic64_sub(chunk_granules(chunk), &area->stats.preserved);
		diff_store_uncount_memory(area, chunk);
		chunk_put(chunk); /* the map's */
		chunk_put(chunk); /* the list's */
	}
}
