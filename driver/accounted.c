// SPDX-License-Identifier: GPL-2.0
/*
 * What the driver of a bio-based disk says of the writes that it was given.
 *
 * Its counters are each CPU's own, and what begins on one may end on another. So
 * their sum is looked at while they move: a write that begins on a CPU which was
 * looked at already, and ends on one which was not, would make up for another one
 * that is under way. But then one has ended meanwhile, which is counted, too.
 */
#include <linux/blkdev.h>
#include <linux/part_stat.h>
#include <linux/rcupdate.h>
#include <linux/xarray.h>

#include "compat/disk.h"
#include "accounted.h"

static unsigned long accounted_in_flight(struct block_device *part)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += part_stat_local_read_cpu(part, in_flight[WRITE], cpu);
	return sum;
}

static unsigned long accounted_ended(struct block_device *part)
{
	return part_stat_read(part, ios[STAT_WRITE]) +
	       part_stat_read(part, ios[STAT_DISCARD]);
}

typedef unsigned long accounted_stat_fn(struct block_device *part);

/* Under rcu_read_lock(). */
static unsigned long accounted_sum(struct gendisk *disk,
				   accounted_filter_fn *matters, void *priv,
				   accounted_stat_fn *stat)
{
	struct block_device *part;
	unsigned long sum = 0;
	unsigned long index;

	/* The whole disk is the one with index 0. */
	xa_for_each(&disk->part_tbl, index, part)
		if (matters(priv, part))
			sum += stat(part);
	return sum;
}

bool accounted_all_ended(struct gendisk *disk, accounted_filter_fn *matters,
			 void *priv)
{
	unsigned long ended;
	bool all;

	rcu_read_lock();
	ended = accounted_sum(disk, matters, priv, accounted_ended);
	smp_rmb(); /* drivers count the end before they are done with the write */
	all = !accounted_sum(disk, matters, priv, accounted_in_flight);
	smp_rmb(); /* the same */
	all = all && accounted_sum(disk, matters, priv, accounted_ended) == ended;
	rcu_read_unlock();
	return all;
}

bool accounted_is_off(const struct gendisk *disk)
{
	return compat_accounts_if_told(disk) && !blk_queue_io_stat(disk->queue);
}
