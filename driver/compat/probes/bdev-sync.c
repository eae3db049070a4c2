// SPDX-License-Identifier: GPL-2.0
/*
 * Who has claimed a block device writes it back since 6.6, 560e20e4bf64 "block:
 * consolidate __invalidate_device and fsync_bdev". It is called with
 * bd_holder_lock, and lets go of it.
 */
#include <linux/blkdev.h>

#ifdef PROBE_NEW
static void probe(struct block_device *bdev)
{
	void (*sync)(struct block_device *) = bdev->bd_holder_ops->sync;

	mutex_lock(&bdev->bd_holder_lock);
	sync(bdev);
}
#else
static int probe(struct block_device *bdev)
{
	return fsync_bdev(bdev);
}
#endif
