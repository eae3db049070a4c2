// SPDX-License-Identifier: GPL-2.0
/*
 * A partition's number has an accessor since 6.10, 1116b9fa15c0 "bdev:
 * infrastructure for flags", which took away the field.
 */
#include <linux/blkdev.h>

#ifdef PROBE_NEW
static unsigned int probe(struct block_device *bdev)
{
	return bdev_partno(bdev);
}
#else
static unsigned int probe(struct block_device *bdev)
{
	return bdev->bd_partno;
}
#endif
