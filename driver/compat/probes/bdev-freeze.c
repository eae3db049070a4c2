// SPDX-License-Identifier: GPL-2.0
/*
 * Who has claimed a block device freezes it since 6.8, 49ef8832fb1a "bdev:
 * implement freeze and thaw holder operations"; the functions were renamed by
 * 982c3b305843 "bdev: rename freeze and thaw helpers", and the device forgot
 * its super block with 90f95dc415de "super: remove bd_fsfreeze_sb".
 */
#include <linux/blkdev.h>
#include <linux/fs.h>

#ifdef PROBE_NEW
static int probe(struct block_device *bdev)
{
	int (*freeze)(struct block_device *) = bdev->bd_holder_ops->freeze;
	atomic_t *count = &bdev->bd_fsfreeze_count;

	return bdev_freeze(bdev) + bdev_thaw(bdev);
}
#else
static int probe(struct block_device *bdev)
{
	struct super_block *sb = bdev->bd_fsfreeze_sb;

	return freeze_bdev(bdev) + thaw_bdev(bdev);
}
#endif
