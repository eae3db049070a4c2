/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_DIFF_STORAGE_FILE_H
#define BLKSNAP_DIFF_STORAGE_FILE_H

#include <linux/types.h>

struct block_device;
struct diff_storage;
struct diff_storage_config;
struct diff_target;

/**
 * struct diff_file_ops - what a storage of files asks its owner
 * @trim: leaves out of a piece of @bdev what must not be used, by moving @first
 *	(up) or @end (down). May sleep
 * @map: calls @map with @data, which makes more of @bdev a part of the storage,
 *	unless @bdev may not be used now; nothing that changes the answer happens
 *	meanwhile. May sleep. Returns what that does, or -EXDEV. With NULL it only
 *	answers
 */
struct diff_file_ops {
	void (*trim)(void *owner, struct block_device *bdev, sector_t *first,
		     sector_t *end);
	int (*map)(void *owner, struct block_device *bdev,
		   int (*map)(void *data), void *data);
};

/**
 * diff_storage_open_file() - opens or makes the file, or one in a directory
 * @target: a file or directory
 * @ops: of the owner
 * @config: see there
 *
 * There is no space in it yet. The owner sees to it that while it is filled
 * nothing happens which struct diff_file_ops speaks of. Context: may sleep.
 *
 * Return: the storage, whose device may still be unknown (NULL), or an ERR_PTR:
 * -EINVAL when the file has data in it, -EBUSY when it is in use, -EOPNOTSUPP
 * when its file system is of no use for this, or what opening it says.
 */
struct diff_storage *
diff_storage_open_file(const struct diff_target *target,
		       const struct diff_file_ops *ops,
		       const struct diff_storage_config *config);

#endif
