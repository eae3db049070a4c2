// SPDX-License-Identifier: GPL-2.0
/*
 * Difference storage on a block device of its own, opened exclusively.
 *
 * Its first and last mebibyte are left alone: there blkid and others look for
 * file systems and RAID members, and must not take a preserved block for one.
 */
#include <linux/blkdev.h>
#include <linux/rcupdate.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "compat/bdev.h"
#include "diff_storage.h"
#include "error.h"
#include "origin.h"

#define RESERVED_SECTORS (SZ_1M >> SECTOR_SHIFT)

struct diff_storage_bdev {
	struct diff_storage storage;
	struct compat_bdev handle;
};

static struct diff_storage_bdev *to_bdev(struct diff_storage *storage)
{
	return container_of(storage, struct diff_storage_bdev, storage);
}

static void bdev_close(struct diff_storage *storage)
{
	struct diff_storage_bdev *self = to_bdev(storage);

	diff_storage_exit(storage);
	compat_bdev_close(&self->handle);
	kfree(self);
}

static const struct diff_storage_ops bdev_ops = {
	.close = bdev_close,
};

static int bdev_check(struct block_device *bdev,
		      const struct diff_storage_config *config)
{
	if (bdev_read_only(bdev))
		return error_set(config->error, config->who, -EROFS,
				 "%s is read-only", config->path);
	if (bdev_is_zoned(bdev))
		return error_set(config->error, config->who, -EOPNOTSUPP,
				 "%s is zoned: it cannot be written to anywhere",
				 config->path);
	if (bdev_logical_block_size(bdev) > config->block_size)
		return error_set(config->error, config->who, -EINVAL,
				 "%s has blocks of %u bytes, the origins of %u",
				 config->path, bdev_logical_block_size(bdev),
				 config->block_size);
	if (bdev_nr_sectors(bdev) < 2 * RESERVED_SECTORS + DIFF_STORAGE_UNIT_SECTORS)
		return error_set(config->error, config->who, -ENOSPC,
				 "%s is too small: 2 MiB of it are left alone",
				 config->path);
	return 0;
}

/*
 * What was written to a device through the page cache, and is not on it yet,
 * would be written over what is preserved there. So would what was written to
 * the whole of its disk, or to a partition of it.
 */
static int bdev_write_back_part(struct block_device *part)
{
	int ret = sync_blockdev(part);

	if (!ret)
		invalidate_bdev(part);
	return ret;
}

static int bdev_write_back(struct block_device *bdev,
			   const struct diff_storage_config *config)
{
	struct block_device *part;
	unsigned long index;
	int ret = 0;

	rcu_read_lock();
	xa_for_each(&bdev->bd_disk->part_tbl, index, part) {
		if (!origin_overlaps(bdev, part) ||
		    !kobject_get_unless_zero(bdev_kobj(part)))
			continue;
		rcu_read_unlock();
		ret = bdev_write_back_part(part);
		kobject_put(bdev_kobj(part));
		rcu_read_lock();
		if (ret)
			break;
	}
	rcu_read_unlock();
	if (!ret)
		return 0;
	return error_set(config->error, config->who, ret,
			 "cannot write back what is cached of %s", config->path);
}

static int bdev_fill(struct diff_storage *storage,
		     const struct diff_storage_config *config)
{
	struct block_device *bdev = to_bdev(storage)->handle.bdev;
	sector_t sectors = bdev_nr_sectors(bdev) - 2 * RESERVED_SECTORS;
	int ret;

	ret = diff_storage_init(storage, &bdev_ops, config);
	if (ret)
		return ret;
	storage->bdev = bdev;
	ret = diff_storage_add(storage, bdev, NULL, RESERVED_SECTORS,
			       round_down(sectors, DIFF_STORAGE_UNIT_SECTORS));
	if (!ret)
		return 0;
	diff_storage_exit(storage);
	return diff_storage_no_memory(config);
}

struct diff_storage *
diff_storage_open_bdev(const struct origin_id *id,
		       const struct diff_storage_config *config)
{
	struct diff_storage_bdev *self;
	int ret;

	self = kzalloc(sizeof(*self), GFP_KERNEL);
	if (!self)
		return ERR_PTR(diff_storage_no_memory(config));
	ret = compat_bdev_open(&self->handle, id->dev, self);
	if (ret) {
		error_set(config->error, config->who, ret, "cannot open %s%s",
			  config->path,
			  ret == -EBUSY ? ": it is mounted or in use" : "");
		goto out;
	}
	ret = origin_check_id(self->handle.bdev, id, config->path,
			      config->error, config->who);
	if (!ret)
		ret = bdev_check(self->handle.bdev, config);
	if (!ret)
		ret = bdev_write_back(self->handle.bdev, config);
	if (ret)
		goto out_close;
	ret = bdev_fill(&self->storage, config);
	if (ret)
		goto out_close;
	return &self->storage;

out_close:
	compat_bdev_close(&self->handle);
out:
	kfree(self);
	return ERR_PTR(ret);
}
