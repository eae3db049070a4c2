/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_STACK_H
#define BLKSNAP_STACK_H

#include <linux/types.h>

struct super_block;

#define STACK_DISKS_MAX 64

/**
 * struct stack - what a block device is built upon
 * @height: how many layers there are below it, at most
 * @nr: how many of @disks are used
 * @disks: every disk below it, at any depth; it is not among them itself
 */
struct stack {
	unsigned int height;
	unsigned int nr;
	dev_t disks[STACK_DISKS_MAX];
};

/**
 * stack_walk() - finds out what a device is built upon
 * @dev: a disk or a partition
 * @stack: the answer
 *
 * Follows the slaves of device-mapper, md and others, and the file of a loop
 * device to the devices of its file system.
 *
 * Context: may sleep. Return: 0; -ENOENT when sysfs is not mounted at /sys;
 * -E2BIG when there are more than STACK_DISKS_MAX disks.
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
 * stack_has() - is a disk below? Context: any.
 * @stack: from stack_walk()
 * @disk: the whole disk's number
 */
bool stack_has(const struct stack *stack, dev_t disk);

#endif
