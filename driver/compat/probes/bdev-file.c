// SPDX-License-Identifier: GPL-2.0
/*
 * A block device is opened as a file since 6.9, f3a608827d1f "bdev: open block
 * device as files". (What 6.5 to 6.8 had between the two is not known here.)
 */
#include <linux/blkdev.h>

#ifdef PROBE_NEW
static void probe(dev_t dev, void *holder)
{
	struct file *file = bdev_file_open_by_dev(dev, BLK_OPEN_READ, holder,
						  NULL);
	struct block_device *bdev = file_bdev(file);

	bdev_fput(file);
}
#else
static void probe(dev_t dev, void *holder)
{
	struct block_device *bdev = blkdev_get_by_dev(dev, FMODE_READ, holder);

	blkdev_put(bdev, FMODE_READ);
}
#endif
