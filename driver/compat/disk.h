/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_DISK_H
#define BLKSNAP_COMPAT_DISK_H

#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/string.h>

#include "probed/all.h"

/*
 * A bio-based disk with these block sizes, in bytes. Memory is to be aligned to
 * the logical one, so that each segment of a bio consists of whole blocks. Stable:
 * what is being written to it must not change meanwhile.
 */
static inline struct gendisk *compat_alloc_disk(unsigned int logical,
						unsigned int physical,
						bool stable)
{
#ifdef HAVE_ALLOC_DISK_LIMITS
	struct queue_limits limits = {
		.logical_block_size = logical,
		.physical_block_size = physical,
		.dma_alignment = logical - 1,
		.features = stable ? BLK_FEAT_STABLE_WRITES : 0,
	};

	return blk_alloc_disk(&limits, NUMA_NO_NODE);
#else
	struct gendisk *disk = blk_alloc_disk(NUMA_NO_NODE);

	if (!disk)
		return ERR_PTR(-ENOMEM);
	blk_queue_logical_block_size(disk->queue, logical);
	blk_queue_physical_block_size(disk->queue, physical);
	blk_queue_dma_alignment(disk->queue, logical - 1);
	if (stable)
		blk_queue_flag_set(QUEUE_FLAG_STABLE_WRITES, disk->queue);
	return disk;
#endif
}

/*
 * Does the driver of a bio-based disk account what it does only while queue/iostats
 * is 1? Others have their own ways: most do not ask, some do not account at all.
 * On kernels that have this flag among a disk's limits (6.11, "block: move the
 * io_stat flag setting to queue_limits") device-mapper asks, and so does NVMe with
 * several paths, which does not account before 6.4.
 */
static inline bool compat_accounts_if_told(const struct gendisk *disk)
{
#ifdef HAVE_ALLOC_DISK_LIMITS
	if (strstarts(disk->disk_name, "dm-") ||
	    strstarts(disk->disk_name, "nvme"))
		return true;
#endif
	return strstarts(disk->disk_name, "md");
}

/* Undoes blk_freeze_queue_start(). */
static inline void compat_queue_unfreeze(struct request_queue *q)
{
#ifdef HAVE_UNFREEZE_MEMFLAGS
	blk_mq_unfreeze_queue_nomemrestore(q);
#else
	blk_mq_unfreeze_queue(q);
#endif
}

#endif
