// SPDX-License-Identifier: GPL-2.0
/*
 * Space for differences, whatever it lies on.
 *
 * A storage is a range of sectors from 0 on. Space is handed out from its
 * beginning to its end and is given back only with the whole storage: what is
 * preserved stays preserved while the session lives.
 */
#include <linux/bio.h>

#include "diff_storage.h"

#define STORE_BIOS 16	/* store requests that can always be in flight */
#define UNIT_SECTORS (DIFF_STORAGE_UNIT >> SECTOR_SHIFT)

int diff_storage_init(struct diff_storage *storage,
		      const struct diff_storage_ops *ops, sector_t size)
{
	spin_lock_init(&storage->lock);
	storage->ops = ops;
	storage->size = round_down(size, UNIT_SECTORS);
	storage->used = 0;
	return bioset_init(&storage->bios, STORE_BIOS, 0, BIOSET_NEED_BVECS);
}

void diff_storage_close(struct diff_storage *storage)
{
	bioset_exit(&storage->bios);
	storage->ops->close(storage);
}

int diff_storage_alloc(struct diff_storage *storage, sector_t sectors,
		       sector_t *pos)
{
	unsigned long flags;
	int ret = -ENOSPC;

	sectors = round_up(sectors, UNIT_SECTORS);
	spin_lock_irqsave(&storage->lock, flags);
	if (sectors <= storage->size - storage->used) {
		*pos = storage->used;
		storage->used += sectors;
		ret = 0;
	}
	spin_unlock_irqrestore(&storage->lock, flags);
	return ret;
}

void diff_storage_bytes(struct diff_storage *storage, u64 *size, u64 *used)
{
	unsigned long flags;

	spin_lock_irqsave(&storage->lock, flags);
	*size = storage->size << SECTOR_SHIFT;
	*used = storage->used << SECTOR_SHIFT;
	spin_unlock_irqrestore(&storage->lock, flags);
}
