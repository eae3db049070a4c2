/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_BDEV_H
#define BLKSNAP_COMPAT_BDEV_H

#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/namei.h>

#include "probed/all.h"

/* Opening */

/*
 * An open block device. Shared and for reading; or, with a holder, exclusive
 * and for both.
 */
#ifdef HAVE_BDEV_FILE

struct compat_bdev {
	struct block_device *bdev;
	struct file *file;
};

static inline int compat_bdev_open(struct compat_bdev *handle, dev_t dev,
				   void *holder)
{
	blk_mode_t mode = BLK_OPEN_READ;

	if (holder)
		mode |= BLK_OPEN_WRITE;
	handle->file = bdev_file_open_by_dev(dev, mode, holder, NULL);
	if (IS_ERR(handle->file))
		return PTR_ERR(handle->file);
	handle->bdev = file_bdev(handle->file);
	return 0;
}

static inline void compat_bdev_close(struct compat_bdev *handle)
{
	bdev_fput(handle->file);
	handle->bdev = NULL;
}

#else

struct compat_bdev {
	struct block_device *bdev;
	fmode_t mode;
};

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

#endif

/* Freezing */

#ifdef HAVE_BDEV_FREEZE

/*
 * What cannot be written back is to make this fail before there is anything to
 * thaw: bdev_freeze() looks at that last, and then leaves the file system frozen.
 */
static inline int compat_bdev_freeze(struct block_device *bdev)
{
	return sync_blockdev(bdev) ?: bdev_freeze(bdev);
}

static inline int compat_bdev_thaw(struct block_device *bdev)
{
	return bdev_thaw(bdev);
}

/*
 * After compat_bdev_thaw() has failed, since the file system was not frozen any
 * more: freezes it alone, so that both are thawed together.
 */
static inline int compat_bdev_thaw_again(struct block_device *bdev)
{
	int ret = -EINVAL;

	mutex_lock(&bdev->bd_fsfreeze_mutex);
	mutex_lock(&bdev->bd_holder_lock);
	if (bdev->bd_holder_ops && bdev->bd_holder_ops->freeze)
		ret = bdev->bd_holder_ops->freeze(bdev); /* unlocks */
	else
		mutex_unlock(&bdev->bd_holder_lock);
	mutex_unlock(&bdev->bd_fsfreeze_mutex);
	return ret ?: bdev_thaw(bdev);
}

/* Only file systems claim their devices with an operation that freezes. */
static inline bool __compat_bdev_has_fs(struct block_device *bdev)
{
	lockdep_assert_held(&bdev->bd_holder_lock);
	return bdev->bd_holder_ops && bdev->bd_holder_ops->freeze;
}

/*
 * Did compat_bdev_freeze() find a file system to freeze? Without one it writes
 * the page cache back, and returns 0 as well.
 */
static inline bool compat_bdev_fs_frozen(struct block_device *bdev)
{
	bool has_fs;

	mutex_lock(&bdev->bd_holder_lock);
	has_fs = __compat_bdev_has_fs(bdev);
	mutex_unlock(&bdev->bd_holder_lock);
	return has_fs;
}

/*
 * A file system claims its devices with its super block; or, where several share
 * a device, with its type, which is not memory of the slab but a part of the
 * kernel or of a module. It cannot go while it is the holder.
 */
static inline bool __compat_bdev_super_frozen(struct block_device *bdev)
{
	struct super_block *sb = bdev->bd_holder;

	lockdep_assert_held(&bdev->bd_holder_lock);
	if (!virt_addr_valid(sb) || !folio_test_slab(virt_to_folio(sb)))
		return false;
	return READ_ONCE(sb->s_writers.frozen) != SB_UNFROZEN;
}

/*
 * Has the file system been frozen already, and not by its device? Then these
 * kernels freeze it once more, and some of them do not thaw it rightly.
 */
static inline bool compat_bdev_user_frozen(struct block_device *bdev)
{
	bool frozen;

	mutex_lock(&bdev->bd_holder_lock);
	frozen = __compat_bdev_has_fs(bdev) &&
		 !atomic_read(&bdev->bd_fsfreeze_count) &&
		 __compat_bdev_super_frozen(bdev);
	mutex_unlock(&bdev->bd_holder_lock);
	return frozen;
}

#else

static inline int compat_bdev_freeze(struct block_device *bdev)
{
	return freeze_bdev(bdev);
}

static inline int compat_bdev_thaw(struct block_device *bdev)
{
	return thaw_bdev(bdev);
}

/* There is no way to freeze the file system alone, without a reference to it. */
static inline int compat_bdev_thaw_again(struct block_device *bdev)
{
	return -EINVAL;
}

static inline bool compat_bdev_fs_frozen(struct block_device *bdev)
{
	return READ_ONCE(bdev->bd_fsfreeze_sb);
}

/* compat_bdev_freeze() itself says so. */
static inline bool compat_bdev_user_frozen(struct block_device *bdev)
{
	return false;
}

#endif

/* Is a btrfs frozen with its device? Else only who has it mounted can do that. */
static inline bool compat_bdev_freezes_btrfs(void)
{
#ifdef HAVE_BTRFS_FREEZES
	return true;
#else
	return false;
#endif
}

/* Writes back a device's file system, or its page cache, without freezing. */
static inline int compat_bdev_sync(struct block_device *bdev)
{
#ifdef HAVE_BDEV_SYNC
	mutex_lock(&bdev->bd_holder_lock);
	if (bdev->bd_holder_ops && bdev->bd_holder_ops->sync) {
		bdev->bd_holder_ops->sync(bdev); /* unlocks */
		return 0;
	}
	mutex_unlock(&bdev->bd_holder_lock);
	return sync_blockdev(bdev);
#else
	return fsync_bdev(bdev);
#endif
}

/* Others */

/* Can reads and writes bypass submit_bio()? */
static inline bool compat_bdev_has_rw_page(struct block_device *bdev)
{
#ifdef HAVE_NO_RW_PAGE
	return false;
#else
	return bdev->bd_disk->fops->rw_page;
#endif
}

static inline unsigned int compat_bdev_partno(struct block_device *bdev)
{
#ifdef HAVE_BDEV_PARTNO
	return bdev_partno(bdev);
#else
	return bdev->bd_partno;
#endif
}

#endif
