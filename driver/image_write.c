// SPDX-License-Identifier: GPL-2.0
/*
 * Writing to an image.
 *
 * What is written first gets its place in the difference storage, with its
 * content as of the take, like what is overwritten on the origin; then it is
 * changed there. So a write of a part of a granule needs no special care, the
 * origin is not touched, and reads need not know. Images are written little (a
 * journal's replay, a mount time), which makes that good enough.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "chunk.h"
#include "diff_area.h"
#include "diff_io.h"
#include "image_part.h"
#include "image_write.h"
#include "preserve.h"

#define IMAGE_WRITES 16	/* that can always be under way, of one image */

/**
 * struct image_write - one write to an image
 * @writer: of the image
 * @bio: what is to be written
 * @work: does it
 * @iter: all of @bio, as it was submitted
 * @pending: parts under way, and their builder
 * @status: of any part that failed
 */
struct image_write {
	struct image_writer *writer;
	struct bio *bio;
	struct work_struct work;
	struct bvec_iter iter;
	atomic_t pending;
	blk_status_t status;
};

static void image_write_put(struct image_write *write)
{
	struct image_writer *writer = write->writer;
	struct diff_area *area = writer->area;
	struct bio *bio = write->bio;
	blk_status_t status;

	if (!atomic_dec_and_test(&write->pending))
		return;
	status = READ_ONCE(write->status);
	/* What is chained to it may have failed already. */
	if (status)
		bio->bi_status = status;
	mempool_free(write, &writer->writes);
	diff_area_unuse(area);
	bio_endio(bio);
}

static void image_write_begin(struct bio *bio)
{
	struct image_write *write = bio->bi_private;

	atomic_inc(&write->pending);
}

static void image_write_endio(struct bio *bio)
{
	struct image_write *write = bio->bi_private;

	if (bio->bi_status)
		WRITE_ONCE(write->status, bio->bi_status);
	bio_put(bio);
	image_write_put(write);
}

static void image_write_part(struct image_write *write, struct diff_io *io,
			     const struct image_part *part)
{
	sector_t pos = part->first + part->displacement;
	struct bvec_iter iter, at;
	struct bio_vec bvec;

	iter = image_part_iter(part, write->bio, write->iter);
	__bio_for_each_segment(bvec, write->bio, at, iter) {
		diff_io_add(io, pos, &bvec);
		pos += bvec.bv_len >> SECTOR_SHIFT;
	}
}

/* All of it has its place. */
static void image_write_settled(struct image_write *write)
{
	struct diff_area *area = write->writer->area;
	struct diff_io io = {
		.storage = area->config.storage,
		.bios = &write->writer->bios,
		.opf = REQ_OP_WRITE | REQ_SYNC,
		.pages = image_max_segments(&write->iter),
		.begin = image_write_begin,
		.end_io = image_write_endio,
		.private = write,
	};
	sector_t at = write->iter.bi_sector;
	sector_t end = at + (write->iter.bi_size >> SECTOR_SHIFT);
	struct image_part part;

	for (; at < end; at += part.sectors) {
		image_next_part(area, at, end, &part);
		if (part.kind != DIFF_STORED) {
			/* The area has failed meanwhile. */
			if (part.kind == DIFF_CHUNK)
				chunk_put(part.chunk);
			WRITE_ONCE(write->status, BLK_STS_IOERR);
			break;
		}
		image_write_part(write, &io, &part);
	}
	diff_io_submit(&io);
}

static void image_write_work(struct work_struct *work)
{
	struct image_write *write = container_of(work, struct image_write, work);
	sector_t first = write->iter.bi_sector;
	sector_t last = first + (write->iter.bi_size >> SECTOR_SHIFT) - 1;
	int err;

	err = preserve_settle(write->writer->area, first, last);
	if (!err)
		err = diff_area_note_written(write->writer->area, first, last);
	if (err)
		write->status = errno_to_blk_status(err);
	else
		image_write_settled(write);
	image_write_put(write);
}

void image_write_start(struct image_writer *writer, struct bio *bio)
{
	struct image_write *write = mempool_alloc(&writer->writes, GFP_NOIO);

	write->writer = writer;
	write->bio = bio;
	write->iter = bio->bi_iter;
	write->status = BLK_STS_OK;
	atomic_set(&write->pending, 1);
	INIT_WORK(&write->work, image_write_work);
	queue_work(writer->wq, &write->work);
}

int image_writer_init(struct image_writer *writer, struct diff_area *area,
		      struct workqueue_struct *wq)
{
	int ret;

	writer->area = area;
	writer->wq = wq;
	ret = bioset_init(&writer->bios, IMAGE_WRITES, 0, BIOSET_NEED_BVECS);
	if (ret)
		return ret;
	return mempool_init_kmalloc_pool(&writer->writes, IMAGE_WRITES,
					 sizeof(struct image_write));
}

void image_writer_exit(struct image_writer *writer)
{
	mempool_exit(&writer->writes);
	bioset_exit(&writer->bios);
}
