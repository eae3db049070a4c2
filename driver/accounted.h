/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_ACCOUNTED_H
#define BLKSNAP_ACCOUNTED_H

#include <linux/blk_types.h>

/* Does a partition matter, or the whole disk? Called under rcu_read_lock(). */
typedef bool accounted_filter_fn(void *priv, struct block_device *part);

/**
 * accounted_all_ended() - has a disk's driver ended all writes it has accounted?
 * @disk: a bio-based disk, whose driver accounts what it does (md, device-mapper)
 * @matters: those to which device
 * @priv: for @matters
 *
 * Writes to a partition are accounted with the partition alone, others with the
 * whole disk. While new ones keep coming the answer may be no for ever.
 *
 * Context: any.
 */
bool accounted_all_ended(struct gendisk *disk, accounted_filter_fn *matters,
			 void *priv);

/**
 * accounted_is_off() - has somebody told the driver not to account? Context: any.
 * @disk: a bio-based disk
 *
 * Return: true of those that account only while queue/iostats is 1.
 */
bool accounted_is_off(const struct gendisk *disk);

#endif
