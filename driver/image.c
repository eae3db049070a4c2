// SPDX-License-Identifier: GPL-2.0
/*
 * The disk that shows an origin as it was at the take.
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
 *
 * Images are read-only in this version.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/idr.h>
#include <linux/mempool.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "chunk.h"
#include "compat/bdev.h"
#include "compat/disk.h"
#include "diff_area.h"
#include "diff_storage.h"
#include "image.h"

#define IMAGE_READS 16	/* that can always be under way, of one image */

struct image {
	struct image_config config;	/* set once; owns the names */
	struct gendisk *disk;		/* set once */
	int index;			/* N of blksnapN; set once */
	bool added;			/* by image_add(); the take's mutex */
	struct bio_set bios;
	mempool_t reads;
	struct workqueue_struct *wq;	/* set once */
};

/**
 * struct image_read - one read of an image
 * @image: the image
 * @bio: what the reader wants
 * @work: step 2
 * @iter: all of @bio, as it was submitted
 * @absent: sectors that were on the origin when it began
 * @pending: parts under way, and their builder
 * @status: of any part that failed
 */
struct image_read {
	struct image *image;
	struct bio *bio;
	struct work_struct work;
	struct bvec_iter iter;
	sector_t absent;
	atomic_t pending;
	blk_status_t status;
};

static DEFINE_IDA(image_ida);

/* What of a read is on the origin */

/**
 * struct image_part - a part of a read of which the same is true
 * @kind: see enum diff_kind; a loading chunk counts as DIFF_ORIGIN
 * @first: first sector
 * @sectors: how many
 * @chunk: for DIFF_CHUNK, with a reference
 * @displacement: for DIFF_STORED
 */
struct image_part {
	enum diff_kind kind;
	sector_t first;
	sector_t sectors;
	struct chunk *chunk;
	s64 displacement;
};

static bool image_try_part(struct diff_area *area, sector_t first,
			   sector_t end, struct image_part *part)
{
	unsigned int shift = area->granule_shift;
	struct diff_run run;
	bool valid = true;

	rcu_read_lock();
	diff_map_lookup(&area->map, first >> shift, &run);
	if (run.kind == DIFF_CHUNK && !chunk_is_ready(run.chunk))
		run.kind = DIFF_ORIGIN;
	if (run.kind == DIFF_CHUNK)
		valid = chunk_tryget(run.chunk);
	rcu_read_unlock();

	part->kind = run.kind;
	part->first = first;
	part->chunk = run.chunk;
	part->displacement = run.displacement;
	/* A run at the end of the map may reach to the largest number. */
	if (run.last < (end - 1) >> shift)
		end = (sector_t)(run.last + 1) << shift;
	part->sectors = end - first;
	return valid;
}

/*
 * The part of a read that begins at @first. A chunk whose last reference is
 * gone has been replaced in the map before: look again.
 */
static void image_next_part(struct diff_area *area, sector_t first,
			    sector_t end, struct image_part *part)
{
	while (!image_try_part(area, first, end, part))
		cpu_relax();
}

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
	struct image *image = read->image;
	struct diff_area *area = image->config.area;
	struct bio *bio = read->bio;

	if (!atomic_dec_and_test(&read->pending))
		return;
	bio->bi_status = READ_ONCE(read->status);
	/* After every look at the map. */
	if (diff_area_state(area) != DIFF_AREA_ACTIVE)
		bio->bi_status = BLK_STS_IOERR;
	mempool_free(read, &image->reads);
	diff_area_unuse(area);
	bio_endio(bio);
}

/* Step 2: what is preserved is laid over */

/**
 * struct image_gather - a read of the difference storage that is being built
 * @read: for whom
 * @bio: its pages are parts of the reader's
 * @pos: where it ends by now, in the storage
 * @room: sectors that lie in one piece from there on
 */
struct image_gather {
	struct image_read *read;
	struct bio *bio;
	sector_t pos;
	sector_t room;
};

static void image_gather_endio(struct bio *bio)
{
	struct image_read *read = bio->bi_private;

	if (bio->bi_status)
		WRITE_ONCE(read->status, bio->bi_status);
	bio_put(bio);
	image_read_put(read);
}

static void image_gather_submit(struct image_gather *gather)
{
	struct diff_stats *stats = &gather->read->image->config.area->stats;

	if (!gather->bio)
		return;
	atomic64_add(gather->bio->bi_iter.bi_size, &stats->reads_diff);
	atomic_inc(&gather->read->pending);
	submit_bio_noacct(gather->bio);
	gather->bio = NULL;
}

static void image_gather_begin(struct image_gather *gather, sector_t pos)
{
	struct image_read *read = gather->read;
	struct diff_storage *storage = read->image->config.area->config.storage;
	unsigned int pages = DIV_ROUND_UP(read->iter.bi_size, PAGE_SIZE) + 1;
	struct bio *bio;

	image_gather_submit(gather);
	bio = bio_alloc_bioset(NULL, bio_max_segs(pages), REQ_OP_READ, GFP_NOIO,
			       &read->image->bios);
	bio->bi_end_io = image_gather_endio;
	bio->bi_private = read;
	gather->room = storage->ops->place(storage, pos, bio);
	gather->pos = pos;
	gather->bio = bio;
}

static void image_gather_add(struct image_gather *gather, sector_t pos,
			     const struct bio_vec *bvec)
{
	unsigned int done = 0;

	while (done < bvec->bv_len) {
		unsigned int len;

		if (!gather->bio || pos != gather->pos || !gather->room ||
		    gather->bio->bi_vcnt == gather->bio->bi_max_vecs)
			image_gather_begin(gather, pos);
		len = min_t(u64, bvec->bv_len - done,
			    (u64)gather->room << SECTOR_SHIFT);
		__bio_add_page(gather->bio, bvec->bv_page, len,
			       bvec->bv_offset + done);
		done += len;
		pos += len >> SECTOR_SHIFT;
		gather->pos = pos;
		gather->room -= len >> SECTOR_SHIFT;
	}
}

static struct bvec_iter image_part_iter(const struct image_read *read,
					const struct image_part *part)
{
	struct bvec_iter iter = read->iter;

	bio_advance_iter(read->bio, &iter,
			 (part->first - iter.bi_sector) << SECTOR_SHIFT);
	iter.bi_size = part->sectors << SECTOR_SHIFT;
	return iter;
}

static void image_lay_over(struct image_read *read, struct image_gather *gather,
			   const struct image_part *part)
{
	struct diff_stats *stats = &read->image->config.area->stats;
	struct bvec_iter iter, at;
	struct bio_vec bvec;
	sector_t pos;

	iter = image_part_iter(read, part);
	if (part->kind == DIFF_CHUNK) {
		chunk_copy(part->chunk, part->first, read->bio, iter);
		chunk_put(part->chunk);
		atomic64_add(iter.bi_size, &stats->reads_memory);
		return;
	}
	pos = part->first + part->displacement;
	__bio_for_each_segment(bvec, read->bio, at, iter) {
		image_gather_add(gather, pos, &bvec);
		pos += bvec.bv_len >> SECTOR_SHIFT;
	}
}

static void image_overlay(struct image_read *read)
{
	struct diff_area *area = read->image->config.area;
	struct image_gather gather = { .read = read };
	sector_t at = read->iter.bi_sector;
	sector_t end = at + (read->iter.bi_size >> SECTOR_SHIFT);
	struct image_part part;
	sector_t absent = 0;

	for (; at < end; at += part.sectors) {
		image_next_part(area, at, end, &part);
		if (part.kind == DIFF_ORIGIN)
			absent += part.sectors;
		else
			image_lay_over(read, &gather, &part);
	}
	image_gather_submit(&gather);
	if (absent < read->absent)
		atomic64_inc(&area->stats.reads_repeated);
	image_read_put(read);
}

static void image_overlay_work(struct work_struct *work)
{
	image_overlay(container_of(work, struct image_read, work));
}

static void image_overlay_later(struct image_read *read)
{
	INIT_WORK(&read->work, image_overlay_work);
	queue_work(read->image->wq, &read->work);
}

/* Step 1: the origin */

static void image_origin_endio(struct bio *clone)
{
	struct image_read *read = clone->bi_private;
	struct diff_area *area = read->image->config.area;

	read->status = clone->bi_status;
	bio_put(clone);
	if (read->status || image_all_absent(area, &read->iter))
		image_read_put(read);
	else
		image_overlay_later(read);
}

static void image_read_origin(struct image_read *read, sector_t from, sector_t to)
{
	struct image *image = read->image;
	struct diff_area *area = image->config.area;
	struct bio *clone;

	clone = bio_alloc_clone(area->config.origin, read->bio, GFP_NOIO,
				&image->bios);
	bio_trim(clone, from - read->iter.bi_sector, to - from);
	clone->bi_end_io = image_origin_endio;
	clone->bi_private = read;
	atomic64_add(clone->bi_iter.bi_size, &area->stats.reads_origin);
	submit_bio_noacct(clone);
}

static void image_start_read(struct image *image, struct bio *bio)
{
	struct diff_area *area = image->config.area;
	struct image_read *read;
	sector_t from, to;

	read = mempool_alloc(&image->reads, GFP_NOIO);
	read->image = image;
	read->bio = bio;
	read->iter = bio->bi_iter;
	read->status = BLK_STS_OK;
	atomic_set(&read->pending, 1);
	read->absent = image_absent(area, &read->iter, &from, &to);
	if (read->absent)
		image_read_origin(read, from, to);
	else
		image_overlay_later(read);
}

static void image_submit_bio(struct bio *bio)
{
	struct image *image = bio->bi_bdev->bd_disk->private_data;
	struct diff_area *area = image->config.area;

	if (!bio_sectors(bio)) {
		bio_endio(bio); /* a flush of a disk without a cache */
		return;
	}
	if (bio_op(bio) != REQ_OP_READ) {
		bio->bi_status = BLK_STS_NOTSUPP;
		bio_endio(bio);
		return;
	}
	if (!diff_area_tryuse(area)) {
		bio_io_error(bio);
		return;
	}
	if (diff_area_state(area) != DIFF_AREA_ACTIVE) {
		diff_area_unuse(area);
		bio_io_error(bio);
		return;
	}
	image_start_read(image, bio);
}

/* Life */

static void image_free(struct image *image)
{
	mempool_exit(&image->reads);
	bioset_exit(&image->bios);
	if (image->wq)
		destroy_workqueue(image->wq);
	if (image->index >= 0)
		ida_free(&image_ida, image->index);
	kfree(image->config.session);
	kfree(image->config.snapshot);
	diff_area_put(image->config.area);
	kfree(image);
}

/* The last opener has gone. */
static void image_free_disk(struct gendisk *disk)
{
	image_free(disk->private_data);
}

static const struct block_device_operations image_fops = {
	.owner = THIS_MODULE,
	.submit_bio = image_submit_bio,
	.free_disk = image_free_disk,
};

static bool image_has_partitions(struct block_device *origin)
{
	return !compat_bdev_partno(origin) &&
	       !(origin->bd_disk->flags & GENHD_FL_NO_PART);
}

static int image_alloc_disk(struct image *image)
{
	struct block_device *origin = image->config.area->config.origin;
	struct gendisk *disk;

	disk = compat_alloc_disk(bdev_logical_block_size(origin),
				 bdev_physical_block_size(origin));
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	snprintf(disk->disk_name, DISK_NAME_LEN, "blksnap%d", image->index);
	disk->fops = &image_fops;
	disk->private_data = image;
	if (!image_has_partitions(origin))
		disk->flags |= GENHD_FL_NO_PART;
	set_capacity(disk, image->config.area->sectors);
	set_disk_ro(disk, true);
	image->disk = disk;
	return 0;
}

static int image_alloc(struct image *image, const struct image_config *config)
{
	image->config.session = kstrdup(config->session, GFP_KERNEL);
	image->config.snapshot = kstrdup(config->snapshot, GFP_KERNEL);
	if (!image->config.session || !image->config.snapshot)
		return -ENOMEM;
	if (bioset_init(&image->bios, IMAGE_READS, 0, BIOSET_NEED_BVECS))
		return -ENOMEM;
	if (mempool_init_kmalloc_pool(&image->reads, IMAGE_READS,
				      sizeof(struct image_read)))
		return -ENOMEM;
	image->index = ida_alloc(&image_ida, GFP_KERNEL);
	if (image->index < 0)
		return image->index;
	image->wq = alloc_workqueue("blksnap%d", WQ_UNBOUND | WQ_MEM_RECLAIM, 0,
				    image->index);
	return image->wq ? image_alloc_disk(image) : -ENOMEM;
}

struct image *image_create(const struct image_config *config)
{
	struct image *image;
	int ret;

	image = kzalloc(sizeof(*image), GFP_KERNEL);
	if (!image)
		return ERR_PTR(-ENOMEM);
	image->index = -1;
	image->config = *config;
	diff_area_get(config->area);
	ret = image_alloc(image, config);
	if (!ret)
		return image;
	image_free(image);
	return ERR_PTR(ret);
}

int image_add(struct image *image)
{
	int ret = device_add_disk(NULL, image->disk, image->config.groups);

	image->added = !ret;
	return ret;
}

void image_destroy(struct image *image)
{
	if (image->added) {
		del_gendisk(image->disk);
		put_disk(image->disk);
	} else {
		/* The block layer calls free_disk() only for what was added. */
		put_disk(image->disk);
		image_free(image);
	}
}

const char *image_name(const struct image *image)
{
	return image->disk->disk_name;
}

struct gendisk *image_disk(const struct image *image)
{
	return image->disk;
}

const struct image_config *image_of(const struct gendisk *disk)
{
	const struct image *image = disk->private_data;

	return &image->config;
}
