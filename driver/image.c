// SPDX-License-Identifier: GPL-2.0
/*
 * The disk that shows an origin as it was at the take. How it is read is in
 * image_read.c, and how it is written in image_write.c.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/idr.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat/bdev.h"
#include "compat/disk.h"
#include "cbt_map.h"
#include "diff_area.h"
#include "diff_storage.h"
#include "image.h"
#include "image_read.h"
#include "image_write.h"

struct image {
	struct image_config config;	/* set once; owns the names, and cbt */
	struct gendisk *disk;		/* set once */
	int index;			/* N of blksnapN; set once */
	bool added;			/* by image_add(); the session's mutex */
	struct image_reader reader;
	struct image_writer writer;
	struct workqueue_struct *write_wq; /* set once */
	struct workqueue_struct *wq;	/* set once */
};

#define IMAGE_MINORS DISK_MAX_PARTS
#define IMAGES_MAX ((1 << MINORBITS) / IMAGE_MINORS)

/*
 * A number of our own, that LVM does not know: it scans what it knows, and would
 * find each physical volume twice.
 */
static int image_major;		/* set once, in image_init() */
static DEFINE_IDA(image_ida);

/* The block layer lets go of a module before it lets go of the disk. */
static atomic_t images;
static DECLARE_WAIT_QUEUE_HEAD(no_images);

/*
 * Is each segment one of whole blocks? The block layer sees to that for disks that
 * take requests, and who reads or writes by O_DIRECT for others, but since 6.18 not
 * always; with io_uring's registered buffers not at all.
 */
static bool image_bio_is_aligned(const struct bio *bio)
{
	unsigned int mask = bdev_logical_block_size(bio->bi_bdev) - 1;
	struct bvec_iter iter;
	struct bio_vec bvec;

	bio_for_each_bvec(bvec, bio, iter)
		if ((bvec.bv_offset | bvec.bv_len) & mask)
			return false;
	return true;
}

static void image_end_bio(struct bio *bio, blk_status_t status)
{
	bio->bi_status = status;
	bio_endio(bio);
}

static void image_submit_bio(struct bio *bio)
{
	struct image *image = bio->bi_bdev->bd_disk->private_data;
	struct diff_area *area = image->config.area;

	if (!bio_sectors(bio)) {
		bio_endio(bio); /* a flush of a disk without a cache */
		return;
	}
	if (bio_op(bio) != REQ_OP_READ && bio_op(bio) != REQ_OP_WRITE) {
		image_end_bio(bio, BLK_STS_NOTSUPP);
		return;
	}
	if (!image_bio_is_aligned(bio)) {
		image_end_bio(bio, errno_to_blk_status(-EINVAL));
		return;
	}
	/* Linux 6.1 lets a partition be added that ends behind its disk. */
	if (bio_end_sector(bio) > area->sectors) {
		bio_io_error(bio);
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
	if (bio_op(bio) == REQ_OP_READ)
		image_read_start(&image->reader, bio);
	else
		image_write_start(&image->writer, bio);
}

/* Life */

static void image_free(struct image *image)
{
	image_reader_exit(&image->reader);
	image_writer_exit(&image->writer);
	if (image->wq)
		destroy_workqueue(image->wq);
	if (image->write_wq)
		destroy_workqueue(image->write_wq);
	if (image->index >= 0)
		ida_free(&image_ida, image->index);
	kfree(image->config.session);
	kfree(image->config.snapshot);
	cbt_frozen_free(image->config.cbt);
	diff_area_put(image->config.area);
	kfree(image);

	/* image_exit() waits for this section, so that it may be the last. */
	rcu_read_lock();
	if (atomic_dec_and_test(&images))
		wake_up(&no_images);
	rcu_read_unlock();
}

int image_init(void)
{
	image_major = register_blkdev(0, KBUILD_MODNAME);
	return min(image_major, 0);
}

void image_exit(void)
{
	wait_event(no_images, !atomic_read(&images));
	synchronize_rcu();
	/* For tasks that were preempted on their way out of a function. */
	synchronize_rcu_tasks();
	unregister_blkdev(image_major, KBUILD_MODNAME);
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

/* What is written to it goes to the storage as it is, in the writer's memory. */
static bool image_writes_are_stable(const struct image *image)
{
	struct block_device *bdev = image->config.area->config.storage->bdev;

	return bdev && bdev_stable_writes(bdev);
}

static int image_alloc_disk(struct image *image)
{
	struct block_device *origin = image->config.area->config.origin;
	struct gendisk *disk;

	disk = compat_alloc_disk(bdev_logical_block_size(origin),
				 bdev_physical_block_size(origin),
				 image_writes_are_stable(image));
	if (IS_ERR(disk))
		return PTR_ERR(disk);
	snprintf(disk->disk_name, DISK_NAME_LEN, "blksnap%d", image->index);
	disk->major = image_major;
	disk->first_minor = image->index * IMAGE_MINORS;
	disk->minors = IMAGE_MINORS;
	disk->fops = &image_fops;
	disk->private_data = image;
	if (!image_has_partitions(origin))
		disk->flags |= GENHD_FL_NO_PART;
	set_capacity(disk, image->config.area->sectors);
	image->disk = disk;
	return 0;
}

static int image_alloc(struct image *image, const struct image_config *config)
{
	int ret;

	image->config.session = kstrdup(config->session, GFP_KERNEL);
	image->config.snapshot = kstrdup(config->snapshot, GFP_KERNEL);
	if (!image->config.session || !image->config.snapshot)
		return -ENOMEM;
	image->index = ida_alloc_max(&image_ida, IMAGES_MAX - 1, GFP_KERNEL);
	if (image->index < 0)
		return image->index;
	image->wq = alloc_workqueue("blksnap%d", WQ_UNBOUND | WQ_MEM_RECLAIM, 0,
				    image->index);
	/* Writes wait for stores; reads must not wait behind them. */
	image->write_wq = alloc_workqueue("blksnap%d_write",
					  WQ_UNBOUND | WQ_MEM_RECLAIM, 0,
					  image->index);
	if (!image->wq || !image->write_wq)
		return -ENOMEM;
	ret = image_reader_init(&image->reader, config->area, image->wq);
	if (!ret)
		ret = image_writer_init(&image->writer, config->area,
					image->write_wq);
	return ret ?: image_alloc_disk(image);
}

struct image *image_create(const struct image_config *config)
{
	struct image *image;
	int ret;

	image = kzalloc(sizeof(*image), GFP_KERNEL);
	if (!image)
		return ERR_PTR(-ENOMEM);
	atomic_inc(&images);
	image->index = -1;
	image->config = *config;
	diff_area_get(config->area);
	ret = image_alloc(image, config);
	if (!ret)
		return image;
	image_free(image);
	return ERR_PTR(ret);
}

void image_set_cbt(struct image *image, struct cbt_frozen *frozen)
{
	image->config.cbt = frozen;
}

struct cbt_frozen *image_cbt(const struct image *image)
{
	return image->config.cbt;
}

int image_add(struct image *image)
{
	const struct image_config *config = &image->config;
	int ret;

	ret = device_add_disk(NULL, image->disk, config->cbt ?
			      config->cbt_groups : config->groups);
	image->added = !ret;
	/* Its name had no memory: the kernel has not looked, and misses it here. */
	return ret == -EINVAL ? -ENOMEM : ret;
}

void image_destroy(struct image *image)
{
	if (image->added) {
		del_gendisk(image->disk);
		/*
		 * Without a size, who reads on would find the end of the disk,
		 * and take a half-read image for a whole one. So he gets EIO.
		 */
		set_capacity(image->disk, image->config.area->sectors);
		put_disk(image->disk);
	} else {
		/* The block layer calls free_disk() only for what was added. */
		put_disk(image->disk);
		image_free(image);
	}
}

bool image_is(dev_t dev)
{
	return MAJOR(dev) == image_major;
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
