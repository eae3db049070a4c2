/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_PINNED_FILE_H
#define BLKSNAP_PINNED_FILE_H

#include <linux/limits.h>
#include <linux/mm_types.h>
#include <linux/types.h>

struct block_device;
struct file;
struct pinned_file;

/* Of a larger file only so much is used: the kernel counts swap in 32 bits. */
#define PINNED_FILE_MAX ((u64)UINT_MAX << PAGE_SHIFT)

/**
 * typedef pinned_file_fn - is told of a piece of a file
 * @owner: as it was given to pinned_file_each()
 * @bdev: the device
 * @first: first sector there
 * @sectors: a multiple of a page
 *
 * Context: may sleep. Return: 0, or an errno that ends the walk.
 */
typedef int (*pinned_file_fn)(void *owner, struct block_device *bdev,
			      sector_t first, sector_t sectors);

/**
 * pinned_file_is_possible() - can its file system pin files at all?
 * @file: open
 *
 * Context: any.
 */
bool pinned_file_is_possible(const struct file *file);

/**
 * pinned_file_pin() - finds out where a file lies, and keeps it there
 * @file: regular, open for writing, all of it allocated; stays the caller's,
 *	and open, until pinned_file_unpin()
 *
 * From then on the file cannot be written, truncated, moved, renamed, nor
 * unlinked by anybody. Context: may sleep; no lock of the file system is held.
 *
 * Return: the pin, or an ERR_PTR: -EOPNOTSUPP when its file system has no way to
 * tell; -EBUSY when it is in use as swap, as another difference storage, or
 * mapped for writing; -EINVAL when it has holes, shared or compressed extents;
 * or another errno of the file system.
 */
struct pinned_file *pinned_file_pin(struct file *file);

/**
 * pinned_file_unpin() - the file is free again
 * @pin: no I/O to its pieces is in flight. Context: may sleep.
 */
void pinned_file_unpin(struct pinned_file *pin);

/**
 * pinned_file_bdev() - the device that all of it lies on. Context: any.
 * @pin: the pin
 */
struct block_device *pinned_file_bdev(const struct pinned_file *pin);

/**
 * pinned_file_each() - goes through the pieces, in the order of the file
 * @pin: the pin
 * @fn: is told of each
 * @owner: for @fn
 *
 * Blocks that do not fill a page are left out. Context: may sleep. Return: 0, or
 * what @fn returned last.
 */
int pinned_file_each(struct pinned_file *pin, pinned_file_fn fn, void *owner);

#endif
