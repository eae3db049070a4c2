// SPDX-License-Identifier: GPL-2.0
/*
 * Difference storage on a block device of its own, opened exclusively.
 *
 * Its first and last mebibyte are left alone: there blkid and others look for
 * file systems and RAID members, and must not take a preserved block for one.
 */
#include <linux/blkdev.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "compat/bdev.h"
#include "diff_storage.h"
#include "error.h"

#define RESERVED_SECTORS (SZ_1M >> SECTOR_SHIFT)

struct diff_storage_bdev {
	struct diff_storage storage;
	struct compat_bdev handle;
};

static struct diff_storage_bdev *to_bdev(struct diff_storage *storage)
{
	return container_of(storage, struct diff_storage_bdev, storage);
}

static sector_t bdev_place(struct diff_storage *storage, sector_t pos,
			   struct bio *bio)
{
	bio_set_dev(bio, to_bdev(storage)->handle.bdev);
	bio->bi_iter.bi_sector = RESERVED_SECTORS + pos;
	return storage->size - pos;
}

static struct block_device *bdev_device(struct diff_storage *storage)
{
	return to_bdev(storage)->handle.bdev;
}

static void bdev_close(struct diff_storage *storage)
{
	struct diff_storage_bdev *self = to_bdev(storage);

	compat_bdev_close(&self->handle);
	kfree(self);
}

static const struct diff_storage_ops bdev_ops = {
	.place = bdev_place,
	.device = bdev_device,
	.close = bdev_close,
};

static int bdev_check(struct block_device *bdev, const char *path,
		      unsigned int block_size, struct error_text *error,
		      const char *who)
{
	if (bdev_read_only(bdev))
		return error_set(error, who, -EROFS, "%s is read-only", path);
	if (bdev_logical_block_size(bdev) > block_size)
		return error_set(error, who, -EINVAL,
				 "%s has blocks of %u bytes, the origins of %u",
				 path, bdev_logical_block_size(bdev), block_size);
	if (bdev_nr_sectors(bdev) <= 2 * RESERVED_SECTORS)
		return error_set(error, who, -ENOSPC,
				 "%s is too small: 2 MiB of it are left alone",
				 path);
	return 0;
}

struct diff_storage *diff_storage_open_bdev(dev_t dev, const char *path,
					    unsigned int block_size,
					    struct error_text *error,
					    const char *who)
{
	struct diff_storage_bdev *self;
	struct block_device *bdev;
	int ret;

	self = kzalloc(sizeof(*self), GFP_KERNEL);
	if (!self)
		return ERR_PTR(-ENOMEM);
	ret = compat_bdev_open(&self->handle, dev, self);
	if (ret) {
		error_set(error, who, ret, "cannot open %s%s", path,
			  ret == -EBUSY ? ": it is mounted or in use" : "");
		goto out;
	}
	bdev = self->handle.bdev;
	ret = bdev_check(bdev, path, block_size, error, who);
	if (ret)
		goto out_close;
	ret = diff_storage_init(&self->storage, &bdev_ops,
				bdev_nr_sectors(bdev) - 2 * RESERVED_SECTORS);
	if (ret)
		goto out_close;
	return &self->storage;

out_close:
	compat_bdev_close(&self->handle);
out:
	kfree(self);
	return ERR_PTR(ret);
}
