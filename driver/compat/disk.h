/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_DISK_H
#define BLKSNAP_COMPAT_DISK_H

#include <linux/blkdev.h>

/*
 * A bio-based disk with these block sizes, in bytes. Until 6.9 (74fa8f9c553f
 * "block: pass a queue_limits argument to blk_alloc_disk") limits were set one
 * by one after the allocation.
 */
static inline struct gendisk *compat_alloc_disk(unsigned int logical,
						unsigned int physical)
{
	struct gendisk *disk = blk_alloc_disk(NUMA_NO_NODE);

	if (!disk)
		return ERR_PTR(-ENOMEM);
	blk_queue_logical_block_size(disk->queue, logical);
	blk_queue_physical_block_size(disk->queue, physical);
	return disk;
}

#endif
