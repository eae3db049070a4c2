/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_BDEV_H
#define BLKSNAP_COMPAT_BDEV_H

#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/namei.h>

/*
 * An open block device. Until 6.9 (f3a608827d1f "bdev: open block device as
 * files") the device itself stood for its opening, and the mode had to be
 * remembered.
 */
struct compat_bdev {
	struct block_device *bdev;
	fmode_t mode;
};

/* Shared and for reading; or, with a holder, exclusive and for both. */
static inline int compat_bdev_open(struct compat_bdev *handle, dev_t dev,
				   void *holder)
{
	handle->mode = FMODE_READ;
	if (holder)
		handle->mode |= FMODE_WRITE | FMODE_EXCL;
	handle->bdev = blkdev_get_by_dev(dev, handle->mode, holder);
	if (!IS_ERR(handle->bdev))
		return 0;
	return PTR_ERR(handle->bdev);
}

static inline void compat_bdev_close(struct compat_bdev *handle)
{
	blkdev_put(handle->bdev, handle->mode);
	handle->bdev = NULL;
}

/* Until 6.8 (982c3b3058433f "bdev: rename freeze and thaw helpers"). */
static inline int compat_bdev_freeze(struct block_device *bdev)
{
	return freeze_bdev(bdev);
}

static inline int compat_bdev_thaw(struct block_device *bdev)
{
	return thaw_bdev(bdev);
}

/* Did compat_bdev_freeze() find a file system to freeze? */
static inline bool compat_bdev_fs_frozen(struct block_device *bdev)
{
	return READ_ONCE(bdev->bd_fsfreeze_sb);
}

/* Writes back a device's file system, or its page cache, without freezing. */
static inline int compat_bdev_sync(struct block_device *bdev)
{
	return fsync_bdev(bdev);
}

/*
 * Can reads and writes bypass submit_bio()? Until 6.3 (3222d8c2a7f8 "block:
 * remove ->rw_page").
 */
static inline bool compat_bdev_has_rw_page(struct block_device *bdev)
{
	return bdev->bd_disk->fops->rw_page;
}

static inline unsigned int compat_bdev_partno(struct block_device *bdev)
{
	return bdev->bd_partno;
}

#endif
