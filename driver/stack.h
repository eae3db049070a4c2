/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_STACK_H
#define BLKSNAP_STACK_H

#include <linux/types.h>

struct block_device;
struct file;
struct gendisk;
struct super_block;

#define STACK_DISKS_MAX 64

/**
 * struct stack - what a block device is built upon
 * @height: how many layers there are below it, at most
 * @unknown: there is something below of which nobody can tell what it is
 * @served: what is lowest may be served by a program (nbd, ublk), whose files can
 *	lie anywhere
 * @nr: how many of @below are used
 * @below: every device below it, at any depth, and the disk that it lies on; it
 *	is not among them itself
 */
struct stack {
	unsigned int height;
	bool unknown;
	bool served;
	unsigned int nr;
	struct {
		dev_t dev;
		dev_t disk;
	} below[STACK_DISKS_MAX];
};

/**
 * stack_walk() - finds out what a device is built upon
 * @dev: a disk or a partition
 * @stack: the answer
 *
 * Follows the slaves of device-mapper, md and others, and the file of a loop
 * device to the devices of its file system. A file that cannot be found (deleted,
 * or out of the task's reach), or whose file system lies on others (overlayfs), is
 * unknown. A slave that is gone is left out. Opens none of the devices.
 *
 * Context: may sleep. Return: 0; -ENOENT when sysfs is not mounted at /sys;
 * -E2BIG when there are more than STACK_DISKS_MAX devices.
 */
int stack_walk(dev_t dev, struct stack *stack);

/**
 * stack_walk_fs() - finds out what a file system is built upon
 * @sb: of a mount that the caller holds
 * @stack: the answer; the disks that it lies on are among its disks
 *
 * Context: may sleep. Return: as stack_walk().
 */
int stack_walk_fs(const struct super_block *sb, struct stack *stack);

/**
 * stack_open_loop_offset() - opens what says where in its file a loop device begins
 * @disk: any disk
 *
 * Context: may sleep; a task that has sysfs at /sys. Return: the file; NULL for what
 * is no loop device; or an ERR_PTR: -ENOENT if the loop device has no file any more.
 */
struct file *stack_open_loop_offset(const struct gendisk *disk);

/**
 * stack_read_loop_offset() - where in its file a loop device begins, now
 * @file: from stack_open_loop_offset()
 * @offset: the answer, in bytes; 0 if there is no file
 *
 * Context: may sleep. Return: 0; -ENODEV and others if it is gone.
 */
int stack_read_loop_offset(struct file *file, u64 *offset);

/**
 * stack_has() - is a disk below? Context: any.
 * @stack: from stack_walk()
 * @disk: the whole disk's number
 */
bool stack_has(const struct stack *stack, dev_t disk);

/**
 * stack_shares() - is something below that has sectors of a device? Context: any.
 * @stack: from stack_walk()
 * @bdev: a disk or a partition; partitions are taken to be apart
 */
bool stack_shares(const struct stack *stack, const struct block_device *bdev);

#endif
