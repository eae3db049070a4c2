/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_DIFF_STORAGE_H
#define BLKSNAP_DIFF_STORAGE_H

#include <linux/bio.h>
#include <linux/spinlock.h>
#include <linux/types.h>

struct diff_storage;
struct error_text;

/* Space is given out in units of this many bytes, on any kind of storage. */
#define DIFF_STORAGE_UNIT 4096

/**
 * struct diff_storage_ops - a kind of difference storage
 * @place: says where a sector lies. Fills in the bio's device and sector for
 *	@pos, and returns how many sectors follow there in one piece.
 *	Must not sleep.
 * @device: the block device that it lies on. Must not sleep.
 * @close: gives everything back. Called once, when no I/O is in flight. May
 *	sleep.
 */
struct diff_storage_ops {
	sector_t (*place)(struct diff_storage *storage, sector_t pos,
			  struct bio *bio);
	struct block_device *(*device)(struct diff_storage *storage);
	void (*close)(struct diff_storage *storage);
};

/**
 * struct diff_storage - space for differences, as one range of sectors
 * @ops: its kind; set once by the kind's open function
 * @lock: protects @used
 * @size: sectors that there are; set once
 * @used: sectors that are given out; they are never taken back one by one
 * @bios: for stores; a store can always get one
 */
struct diff_storage {
	const struct diff_storage_ops *ops;
	spinlock_t lock;	/* protects @used */
	sector_t size;
	sector_t used;
	struct bio_set bios;
};

/**
 * diff_storage_init() - for the open function of a kind
 * @storage: zeroed
 * @ops: the kind
 * @size: in sectors
 *
 * Context: may sleep. Return: 0 or -ENOMEM.
 */
int diff_storage_init(struct diff_storage *storage,
		      const struct diff_storage_ops *ops, sector_t size);

/**
 * diff_storage_open_bdev() - uses a whole block device
 * @dev: the device
 * @path: what it is called in an error's text
 * @block_size: the smallest unit of I/O, in bytes, that the images need
 * @error: gets the reason of a refusal
 * @who: for its log line
 *
 * Context: may sleep.
 *
 * Return: the storage, or an ERR_PTR: -EBUSY when the device is mounted or in
 * use, -EINVAL when its blocks are larger than @block_size, -ENOSPC when it is
 * too small, -EROFS, or what opening it says.
 */
struct diff_storage *diff_storage_open_bdev(dev_t dev, const char *path,
					    unsigned int block_size,
					    struct error_text *error,
					    const char *who);

/**
 * diff_storage_close() - lets the storage go
 * @storage: no I/O is in flight. Context: may sleep.
 */
void diff_storage_close(struct diff_storage *storage);

/**
 * diff_storage_alloc() - takes space, in one piece
 * @storage: the storage
 * @sectors: how many; rounded up to DIFF_STORAGE_UNIT
 * @pos: where it begins
 *
 * Context: any. Return: 0 or -ENOSPC, and nothing taken.
 */
int diff_storage_alloc(struct diff_storage *storage, sector_t sectors,
		       sector_t *pos);

/**
 * diff_storage_device() - the block device that it lies on. Context: any.
 * @storage: the storage
 */
static inline struct block_device *
diff_storage_device(struct diff_storage *storage)
{
	return storage->ops->device(storage);
}

/**
 * diff_storage_bytes() - its size and how much of it is in use, in bytes
 * @storage: the storage
 * @size: the size
 * @used: 0 <= @used <= @size
 *
 * Context: any.
 */
void diff_storage_bytes(struct diff_storage *storage, u64 *size, u64 *used);

#endif
