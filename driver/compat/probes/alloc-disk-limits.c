// SPDX-License-Identifier: GPL-2.0
/*
 * A disk is allocated with its limits since 6.9, 74fa8f9c553f "block: pass a
 * queue_limits argument to blk_alloc_disk".
 */
#include <linux/blkdev.h>

#ifdef PROBE_NEW
static struct gendisk *probe(struct queue_limits *limits)
{
	return blk_alloc_disk(limits, NUMA_NO_NODE);
}
#else
static struct gendisk *probe(void)
{
	return blk_alloc_disk(NUMA_NO_NODE);
}
#endif
