// SPDX-License-Identifier: GPL-2.0
/*
 * Reading an image.
 *
 * A read goes in two steps:
 *
 *  1. If any of its granules is still on the origin, one request reads
 *     everything from the first to the last of them, across preserved holes.
 *  2. When that is complete, the map is walked. What has an entry by now is
 *     laid over: copied from its chunk, or read from the difference storage.
 *     What has none was not overwritten before the read was complete, because
 *     the entry comes before the write; so what was read is right. In the end
 *     the area's state is looked at: an area that is not active may have let
 *     writes pass without an entry, so the answer is EIO.
 *
 * A chunk that is still loading counts as "on the origin": its write is held.
 *
 * Thus a reader takes no lock and delays no writer, and a write that comes in
 * between costs the reader a second look (counted in reads_repeated).
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/bvec.h>
#include <linux/slab.h>
#include <linux/sort.h>

#include "chunk.h"
#include "diff_area.h"
#include "diff_io.h"
#include "image_part.h"
#include "image_read.h"
#include "trace.h"

#define IMAGE_READS 16	/* that can always be under way, of one image */

/* A read of 1 MiB has no more parts, unless granules are preserved in part. */
#define IMAGE_STORED_MAX 256

/**
 * struct image_read - one read of an image
 * @reader: of the image
 * @bio: what is to be read
 * @work: step 2
 * @iter: all of @bio, as it was submitted
 * @absent: sectors that were on the origin when it began
 * @pending: parts under way, and their builder
 * @status: of any part that failed
 */
struct image_read {
	struct image_reader *reader;
	struct bio *bio;
	struct work_struct work;
	struct bvec_iter iter;
	sector_t absent;
	atomic_t pending;
	blk_status_t status;
};

/* What of a read is on the origin */

/* How many sectors are on the origin, and from where to where they reach. */
static sector_t image_absent(struct diff_area *area, const struct bvec_iter *iter,
			     sector_t *from, sector_t *to)
{
	sector_t at = iter->bi_sector;
	sector_t end = at + (iter->bi_size >> SECTOR_SHIFT);
	struct image_part part;
	sector_t absent = 0;

	for (; at < end; at += part.sectors) {
		image_next_part(area, at, end, &part);
		if (part.kind == DIFF_CHUNK)
			chunk_put(part.chunk);
		if (part.kind != DIFF_ORIGIN)
			continue;
		if (!absent)
			*from = at;
		*to = at + part.sectors;
		absent += part.sectors;
	}
	return absent;
}

/* Is all of it on the origin, still? */
static bool image_all_absent(struct diff_area *area, const struct bvec_iter *iter)
{
	sector_t at = iter->bi_sector;
	sector_t end = at + (iter->bi_size >> SECTOR_SHIFT);
	struct image_part part;

	image_next_part(area, at, end, &part);
	if (part.kind == DIFF_CHUNK)
		chunk_put(part.chunk);
	return part.kind == DIFF_ORIGIN && part.sectors == end - at;
}

/* The end of a read */

static void image_read_put(struct image_read *read)
{
	struct image_reader *reader = read->reader;
	struct diff_area *area = reader->area;
	struct bio *bio = read->bio;
	blk_status_t status;

	if (!atomic_dec_and_test(&read->pending))
		return;
	status = READ_ONCE(read->status);
	/* After every look at the map. */
	if (diff_area_state(area) != DIFF_AREA_ACTIVE)
		status = BLK_STS_IOERR;
	/* What is chained to it may have failed already. */
	if (status)
		bio->bi_status = status;
	mempool_free(read, &reader->reads);
	diff_area_unuse(area);
	bio_endio(bio);
}

/* Step 2: what is preserved is laid over */

static void image_diff_begin(struct bio *bio)
{
	struct image_read *read = bio->bi_private;

	atomic64_add(bio->bi_iter.bi_size, &read->reader->area->stats.reads_diff);
	atomic_inc(&read->pending);
}

static void image_diff_endio(struct bio *bio)
{
	struct image_read *read = bio->bi_private;

	if (bio->bi_status)
		WRITE_ONCE(read->status, bio->bi_status);
	bio_put(bio);
	image_read_put(read);
}

static void image_zero(struct bio *bio, struct bvec_iter iter)
{
	struct bvec_iter at;
	struct bio_vec bvec;

	__bio_for_each_segment(bvec, bio, at, iter)
		memzero_bvec(&bvec);
}

/**
 * struct image_stored - a part of a read that is in the difference storage
 * @pos: where
 * @iter: its memory
 */
struct image_stored {
	sector_t pos;
	struct bvec_iter iter;
};

/**
 * struct image_overlay - step 2 of a read, under way
 * @read: the read
 * @io: requests to the difference storage
 * @stored: parts that are to be read there; NULL if there was no memory
 * @nr_stored: how many
 */
struct image_overlay {
	struct image_read *read;
	struct diff_io io;
	struct image_stored *stored;
	unsigned int nr_stored;
};

static int image_stored_by_pos(const void *a, const void *b)
{
	const struct image_stored *one = a;
	const struct image_stored *two = b;

	return one->pos < two->pos ? -1 : one->pos > two->pos;
}

static void image_read_stored(struct image_overlay *overlay,
			      const struct image_stored *stored)
{
	sector_t pos = stored->pos;
	struct bvec_iter at;
	struct bio_vec bvec;

	__bio_for_each_segment(bvec, overlay->read->bio, at, stored->iter) {
		diff_io_add(&overlay->io, pos, &bvec);
		pos += bvec.bv_len >> SECTOR_SHIFT;
	}
}

/*
 * Neighbours in the storage are neighbours in the image only within the batch
 * that they were stored with: so sorted by place they are fewer requests.
 */
static void image_read_all_stored(struct image_overlay *overlay)
{
	unsigned int i;

	sort(overlay->stored, overlay->nr_stored, sizeof(*overlay->stored),
	     image_stored_by_pos, NULL);
	for (i = 0; i < overlay->nr_stored; i++)
		image_read_stored(overlay, &overlay->stored[i]);
	overlay->nr_stored = 0;
	diff_io_submit(&overlay->io);
}

static void image_add_stored(struct image_overlay *overlay, sector_t pos,
			     struct bvec_iter iter)
{
	struct image_stored stored = { .pos = pos, .iter = iter };

	if (!overlay->stored) {
		image_read_stored(overlay, &stored);
		return;
	}
	if (overlay->nr_stored == IMAGE_STORED_MAX)
		image_read_all_stored(overlay);
	overlay->stored[overlay->nr_stored++] = stored;
}

static void image_lay_over(struct image_overlay *overlay,
			   const struct image_part *part,
			   struct bvec_iter iter)
{
	struct image_read *read = overlay->read;
	struct diff_stats *stats = &read->reader->area->stats;

	switch (part->kind) {
	case DIFF_ORIGIN:
		break;
	case DIFF_CHUNK:
		chunk_copy(part->chunk, part->first, read->bio, iter);
		chunk_put(part->chunk);
		atomic64_add(iter.bi_size, &stats->reads_memory);
		break;
	case DIFF_STORED:
		image_add_stored(overlay, part->first + part->displacement,
				 iter);
		break;
	case DIFF_ZERO:
		image_zero(read->bio, iter);
		break;
	case DIFF_LOST:
		WRITE_ONCE(read->status, BLK_STS_IOERR);
		break;
	}
}

/* Returns how many sectors are on the origin still. */
static sector_t image_lay_over_all(struct image_overlay *overlay)
{
	struct image_read *read = overlay->read;
	struct bvec_iter rest = read->iter, iter;
	struct image_part part;
	sector_t absent = 0;

	while (rest.bi_size) {
		image_next_part(read->reader->area, rest.bi_sector,
				rest.bi_sector + (rest.bi_size >> SECTOR_SHIFT), &part);
		iter = rest;
		iter.bi_size = part.sectors << SECTOR_SHIFT;
		image_lay_over(overlay, &part, iter);
		if (part.kind == DIFF_ORIGIN)
			absent += part.sectors;
		bio_advance_iter(read->bio, &rest, iter.bi_size);
	}
	return absent;
}

static void image_count_reread(struct image_read *read, sector_t sectors)
{
	struct diff_area *area = read->reader->area;

	atomic64_inc(&area->stats.reads_repeated);
	trace_blksnap_image_reread(area->config.origin->bd_dev,
				   read->iter.bi_sector,
				   read->iter.bi_size >> SECTOR_SHIFT, sectors);
}

static void image_overlay(struct image_read *read)
{
	struct diff_area *area = read->reader->area;
	struct image_overlay overlay = {
		.read = read,
		.io = {
			.storage = area->config.storage,
			.bios = &read->reader->bios,
			.opf = REQ_OP_READ,
			.pages = image_max_segments(&read->iter),
			.begin = image_diff_begin,
			.end_io = image_diff_endio,
			.private = read,
		},
		.stored = kmalloc_array(IMAGE_STORED_MAX,
					sizeof(*overlay.stored),
					GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN),
	};
	sector_t absent = image_lay_over_all(&overlay);

	image_read_all_stored(&overlay);
	kfree(overlay.stored);
	if (absent < read->absent)
		image_count_reread(read, read->absent - absent);
	image_read_put(read);
}

static void image_overlay_work(struct work_struct *work)
{
	image_overlay(container_of(work, struct image_read, work));
}

static void image_overlay_later(struct image_read *read)
{
	INIT_WORK(&read->work, image_overlay_work);
	queue_work(read->reader->wq, &read->work);
}

/* Step 1: the origin */

static void image_origin_endio(struct bio *clone)
{
	struct image_read *read = clone->bi_private;
	struct diff_area *area = read->reader->area;

	read->status = clone->bi_status;
	bio_put(clone);
	if (read->status || (diff_map_may_walk(&area->map) &&
			     image_all_absent(area, &read->iter)))
		image_read_put(read);
	else
		image_overlay_later(read);
}

static void image_read_origin(struct image_read *read, sector_t from, sector_t to)
{
	struct image_reader *reader = read->reader;
	struct diff_area *area = reader->area;
	struct bio *clone;

	clone = bio_alloc_clone(area->config.origin, read->bio, GFP_NOIO,
				&reader->bios);
	bio_trim(clone, from - read->iter.bi_sector, to - from);
	clone->bi_end_io = image_origin_endio;
	clone->bi_private = read;
	atomic64_add(clone->bi_iter.bi_size, &area->stats.reads_origin);
	submit_bio_noacct(clone);
}

void image_read_start(struct image_reader *reader, struct bio *bio)
{
	struct diff_area *area = reader->area;
	struct image_read *read;
	sector_t from, to;

	read = mempool_alloc(&reader->reads, GFP_NOIO);
	read->reader = reader;
	read->bio = bio;
	read->iter = bio->bi_iter;
	read->status = BLK_STS_OK;
	atomic_set(&read->pending, 1);
	read->absent = image_absent(area, &read->iter, &from, &to);
	trace_blksnap_image_read(area->config.origin->bd_dev,
				 read->iter.bi_sector,
				 read->iter.bi_size >> SECTOR_SHIFT,
				 read->absent);
	if (read->absent)
		image_read_origin(read, from, to);
	else
		image_overlay_later(read);
}

int image_reader_init(struct image_reader *reader, struct diff_area *area,
		      struct workqueue_struct *wq)
{
	int ret;

	reader->area = area;
	reader->wq = wq;
	ret = bioset_init(&reader->bios, IMAGE_READS, 0, BIOSET_NEED_BVECS);
	if (ret)
		return ret;
	return mempool_init_kmalloc_pool(&reader->reads, IMAGE_READS,
					 sizeof(struct image_read));
}

void image_reader_exit(struct image_reader *reader)
{
	mempool_exit(&reader->reads);
	bioset_exit(&reader->bios);
}
