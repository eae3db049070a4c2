// SPDX-License-Identifier: GPL-2.0
/*
 * How the end of a disk, and a change of its size, is noticed without holding
 * it open, so that losetup -d, lvremove and mdadm --stop go on as if nobody
 * were there (I7).
 *
 * The end of a device is told by the driver core, to an interface of the class
 * that all block devices are in. It tells when the device has left sysfs.
 *
 * A change of size nobody tells. Drivers call set_capacity() or
 * set_capacity_and_notify(), which are exported, so a callback of ftrace sees
 * the call with the new size, before it takes effect: a device that shrinks and
 * then grows again is not taken for one that has stayed. It only looks, so
 * others may do the like with these functions. invalidate_disk(), as loop calls
 * it, and blk_mark_disk_dead() do the same inside the block layer, with a size of
 * 0. A partition is resized by bdev_resize_partition().
 *
 * Device-mapper and loop call it also when another table or file of the same
 * size is put below: then the content may be another one. So it may when the
 * kernel counts up the sequence number of a disk, in inc_diskseq(): the medium
 * has been changed. And so all of it may, when the machine is a virtual one that
 * was copied, or put back to what it was before, with its memory: then its
 * hypervisor gives it another generation, of which the kernel tells.
 *
 * Whoever is told asks for the verdict later, in his own context. It compares
 * what is there with what was there, so it needs no event to be right, but for
 * what the flags remember.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/random.h>
#include <linux/rculist.h>
#include <linux/string.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "compat/bdev.h"
#include "compat/device.h"
#include "compat/hook.h"
#include "compat/work.h"
#include "disk_watch.h"

enum { WATCH_LOST, WATCH_RENEWED };	/* bits of disk_watch.flags */

static LIST_HEAD(watches);		/* watches_mutex; read under RCU */
static DEFINE_MUTEX(watches_mutex);
static bool watch_runs;			/* there are callbacks; watches_mutex */

/* Noticing */

static void watch_tell(struct disk_watch *watch, int flag)
{
	set_bit(flag, &watch->flags);
	watch->event(watch);
}

/* A device leaves. A partition may come back, when its table is read again. */
static void watch_removed(COMPAT_CLASS_INTERFACE_PARAMS(dev))
{
	struct block_device *bdev = dev_to_bdev(dev);
	struct disk_watch *watch;

	rcu_read_lock();
	list_for_each_entry_rcu(watch, &watches, node) {
		if (watch->disk != bdev->bd_disk ||
		    watch->partno != compat_bdev_partno(bdev))
			continue;
		if (watch->partno)
			watch->event(watch);
		else
			watch_tell(watch, WATCH_LOST);
	}
	rcu_read_unlock();
}

static struct class_interface watch_interface = {
	.remove_dev = watch_removed,
};

/*
 * A driver that names a size, even the same one, has put something else below.
 * Not so multipath, the only target of device-mapper that takes requests: its
 * table changes with the paths, all of which lead to the same disk.
 */
static bool disk_is_renewable(const struct gendisk *disk)
{
	if (strstarts(disk->disk_name, "dm-"))
		return !queue_is_mq(disk->queue);
	return strstarts(disk->disk_name, "loop");
}

static void watch_resized(struct disk_watch *watch, sector_t sectors)
{
	if (sectors <= watch->last)
		watch_tell(watch, WATCH_LOST);
	else if (disk_is_renewable(watch->disk))
		watch_tell(watch, WATCH_RENEWED);
	else if (!watch->partno && sectors != watch->last + 1)
		watch_tell(watch, WATCH_RENEWED);
}

/* Under RCU. */
static void watch_disk_resized(const struct gendisk *disk, sector_t sectors)
{
	struct disk_watch *watch;

	list_for_each_entry_rcu(watch, &watches, node)
		if (watch->disk == disk)
			watch_resized(watch, sectors);
}

static void notrace watch_capacity(unsigned long ip, unsigned long parent_ip,
				   struct ftrace_ops *ops,
				   struct ftrace_regs *fregs)
{
	rcu_read_lock();
	watch_disk_resized((void *)compat_hook_arg(fregs, 0),
			   compat_hook_arg(fregs, 1));
	rcu_read_unlock();
}

/*
 * The end of what is there. Another medium is that too, or with LOOP_CHANGE_FD
 * another file, of whatever size. The kernel gives the disk another sequence
 * number before anybody can read from it, and so before it is there: what began
 * anew now could still have the old one.
 */
static void notrace watch_end(unsigned long ip, unsigned long parent_ip,
			      struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
	rcu_read_lock();
	watch_disk_resized((void *)compat_hook_arg(fregs, 0), 0);
	rcu_read_unlock();
}

/*
 * One that shrinks is lost, and says so. One that grows may not have done so yet
 * when the verdict is asked for; the next who asks hears of it. The kernel
 * refuses to resize a partition that begins elsewhere than is said. It refuses,
 * too, if the new end is within another partition, and then this one is lost
 * for nothing; but partitions overlap only where somebody has made them so.
 */
static void notrace watch_partition(unsigned long ip, unsigned long parent_ip,
				    struct ftrace_ops *ops,
				    struct ftrace_regs *fregs)
{
	const struct gendisk *disk = (void *)compat_hook_arg(fregs, 0);
	unsigned int partno = compat_hook_arg(fregs, 1);
	sector_t first = compat_hook_arg(fregs, 2);
	sector_t sectors = compat_hook_arg(fregs, 3);
	struct disk_watch *watch;

	rcu_read_lock();
	list_for_each_entry_rcu(watch, &watches, node) {
		if (watch->disk != disk || watch->partno != partno ||
		    watch->first != first)
			continue;
		if (first + sectors <= watch->last)
			watch_tell(watch, WATCH_LOST);
		else
			watch->event(watch);
	}
	rcu_read_unlock();
}

/* What was marked is of another past than what will be. */
static int watch_forked(struct notifier_block *block, unsigned long action,
			void *data)
{
	struct disk_watch *watch;

	rcu_read_lock();
	list_for_each_entry_rcu(watch, &watches, node)
		watch_tell(watch, WATCH_RENEWED);
	rcu_read_unlock();
	return NOTIFY_DONE;
}

static struct notifier_block watch_fork_block = {
	.notifier_call = watch_forked,
};

static struct ftrace_ops capacity_ops = {
	.func = watch_capacity,
	.flags = FTRACE_OPS_FL_PERMANENT,
};

static struct ftrace_ops end_ops = {
	.func = watch_end,
	.flags = FTRACE_OPS_FL_PERMANENT,
};

static struct ftrace_ops partition_ops = {
	.func = watch_partition,
	.flags = FTRACE_OPS_FL_PERMANENT,
};

/* Life */

/*
 * What is traced, and by whom it is seen. ftrace would find a function by its
 * name too, but for that it names every function that it knows, and those of
 * modules by a search in all their symbols: with XFS and btrfs loaded that
 * takes seconds.
 */
static const struct watch_function {
	const char *name;
	void *function;			/* NULL: it is not exported */
	struct ftrace_ops *ops;
} watch_functions[] = {
	{ "set_capacity", set_capacity, &capacity_ops },
	{ "set_capacity_and_notify", set_capacity_and_notify, &capacity_ops },
	{ "invalidate_disk", invalidate_disk, &end_ops },
	{ "blk_mark_disk_dead", blk_mark_disk_dead, &end_ops },
	{ "inc_diskseq", NULL, &end_ops },
	{ "bdev_resize_partition", NULL, &partition_ops },
};

/* A kprobe is told where its function is; one that is disabled does no more. */
static int watch_find(const char *name, unsigned long *address)
{
	struct kprobe probe = {
		.symbol_name = name,
		.flags = KPROBE_FLAG_DISABLED,
	};
	int ret;

	ret = register_kprobe(&probe);
	if (ret)
		return ret;
	*address = (unsigned long)probe.addr;
	unregister_kprobe(&probe);
	return 0;
}

static int watch_function(const struct watch_function *watched)
{
	unsigned long address = (unsigned long)watched->function;
	int ret = 0;

	if (!address)
		ret = watch_find(watched->name, &address);
	if (!ret)
		ret = ftrace_set_filter_ip(watched->ops, address, 0, 0);
	if (ret)
		pr_err("cannot trace %s: error %d\n", watched->name, ret);
	return ret;
}

static struct ftrace_ops *const watch_ops[] = {
	&capacity_ops, &end_ops, &partition_ops
};

/* At the end only: ftrace does not forget a filter that was freed. */
static void watch_forget_functions(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(watch_ops); i++)
		ftrace_free_filter(watch_ops[i]);
}

int disk_watch_init(void)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; !ret && i < ARRAY_SIZE(watch_functions); i++)
		ret = watch_function(&watch_functions[i]);
	if (!ret)
		ret = register_random_vmfork_notifier(&watch_fork_block);
	if (ret)
		watch_forget_functions();
	return ret;
}

static void watch_untrace(unsigned int nr)
{
	while (nr--)
		if (WARN_ON_ONCE(unregister_ftrace_function(watch_ops[nr])))
			__module_get(THIS_MODULE); /* as in filter_remove() */
}

static int watch_trace(void)
{
	unsigned int i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(watch_ops); i++) {
		ret = register_ftrace_function(watch_ops[i]);
		if (ret) {
			watch_untrace(i);
			return ret;
		}
	}
	return 0;
}

static int watch_start(struct block_device *bdev)
{
	int ret;

	ret = watch_trace();
	if (ret)
		return ret;
	watch_interface.class = disk_to_dev(bdev->bd_disk)->class;
	ret = class_interface_register(&watch_interface);
	if (ret)
		watch_untrace(ARRAY_SIZE(watch_ops));
	return ret;
}

/*
 * Takes a while, in which nobody should wait for the references that whoever
 * watched is about to give back. The interface is told of every device once
 * more; nobody hears it.
 */
static void watch_stop(struct work_struct *work)
{
	mutex_lock(&watches_mutex);
	if (watch_runs && list_empty(&watches)) {
		class_interface_unregister(&watch_interface);
		watch_untrace(ARRAY_SIZE(watch_ops));
		watch_runs = false;
	}
	mutex_unlock(&watches_mutex);
}

static DECLARE_WORK(watch_stop_work, watch_stop);

void disk_watch_exit(void)
{
	unregister_random_vmfork_notifier(&watch_fork_block);
	flush_work(&watch_stop_work);
	watch_forget_functions();
}

int disk_watch_add(struct disk_watch *watch, struct block_device *bdev,
		   sector_t sectors)
{
	int ret = 0;

	watch->disk = bdev->bd_disk;
	watch->dev = bdev->bd_dev;
	watch->partno = compat_bdev_partno(bdev);
	watch->first = bdev->bd_start_sect;
	watch->last = bdev->bd_start_sect + sectors - 1;
	watch->flags = 0;

	mutex_lock(&watches_mutex);
	if (!watch_runs)
		ret = watch_start(bdev);
	if (!ret) {
		watch_runs = true;
		list_add_tail_rcu(&watch->node, &watches);
	}
	mutex_unlock(&watches_mutex);
	return ret;
}

void disk_watch_del(struct disk_watch *watch)
{
	mutex_lock(&watches_mutex);
	list_del_rcu(&watch->node);
	if (list_empty(&watches))
		queue_work(compat_unbound_wq(), &watch_stop_work);
	mutex_unlock(&watches_mutex);
	synchronize_rcu_expedited();
}

/* The verdict */

static enum disk_verdict watch_compare(const struct disk_watch *watch,
				       sector_t first, sector_t sectors)
{
	sector_t before = watch->last - watch->first + 1;

	if (first != watch->first || sectors < before)
		return DISK_LOST;
	return sectors > before ? DISK_GROWN : DISK_SAME;
}

static enum disk_verdict watch_look_at_partition(struct disk_watch *watch)
{
	enum disk_verdict verdict = DISK_LOST;
	struct block_device *part;

	rcu_read_lock();
	part = xa_load(&watch->disk->part_tbl, watch->partno);
	if (part)
		verdict = watch_compare(watch, part->bd_start_sect,
					bdev_nr_sectors(part));
	if (verdict != DISK_LOST)
		watch->dev = part->bd_dev;
	rcu_read_unlock();
	return verdict;
}

/* Whoever reads the table anew drops all partitions first. */
static enum disk_verdict watch_judge_partition(struct disk_watch *watch)
{
	enum disk_verdict verdict = watch_look_at_partition(watch);

	if (verdict == DISK_SAME)
		return verdict;
	if (!mutex_trylock(&watch->disk->open_mutex))
		return DISK_BUSY;
	verdict = watch_look_at_partition(watch);
	mutex_unlock(&watch->disk->open_mutex);
	return verdict;
}

bool disk_watch_is_lost(const struct disk_watch *watch)
{
	return test_bit(WATCH_LOST, &watch->flags);
}

enum disk_verdict disk_watch_verdict(struct disk_watch *watch)
{
	enum disk_verdict verdict;

	if (watch->partno)
		verdict = watch_judge_partition(watch);
	else
		verdict = watch_compare(watch, 0, get_capacity(watch->disk));
	if (test_bit(WATCH_LOST, &watch->flags))
		return DISK_LOST;
	if (verdict == DISK_BUSY)
		return DISK_BUSY;
	if (test_and_clear_bit(WATCH_RENEWED, &watch->flags) &&
	    verdict == DISK_SAME)
		return DISK_RENEWED;
	return verdict;
}
