// SPDX-License-Identifier: GPL-2.0
/*
 * A disk is allocated with its limits since 6.9, 74fa8f9c553f "block: pass a
 * queue_limits argument to blk_alloc_disk". That it needs stable pages is one of
 * them since 6.11, 1a02f3a73f8c "block: move the stable_writes flag to
 * queue_limits". (What has the one and not the other is not supported.)
 */
#include <linux/blkdev.h>

#ifdef PROBE_NEW
static struct gendisk *probe(struct queue_limits *limits)
{
	limits->features |= BLK_FEAT_STABLE_WRITES;
	return blk_alloc_disk(limits, NUMA_NO_NODE);
}
#else
static struct gendisk *probe(void)
{
	return blk_alloc_disk(NUMA_NO_NODE);
}
#endif
