// SPDX-License-Identifier: GPL-2.0
/*
 * Difference storage in memory: for tests, and the smallest example of a kind.
 *
 * What is stored here has left the driver's memory for other memory, so it is of
 * no use to an administrator, and is not built unless BLKSNAP_TEST=1 is said. It
 * has no device, file or file system, so that a test of the engine tests nothing
 * else, and sees all that a kind has to do: space comes in segments, I/O goes to
 * where the extent says.
 */
#include <linux/bio.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "diff_storage.h"
#include "error.h"

/* Half of what is free stays so: the machine has other uses for it. */
static u64 memory_room(struct diff_storage *storage)
{
	long pages = si_mem_available();

	return pages > 0 ? (u64)pages << PAGE_SHIFT >> 1 : 0;
}

/* Stores wait for this: it must not look for memory by writing to an origin. */
static int memory_grow(struct diff_storage *storage, sector_t sectors)
{
	u64 bytes = (u64)sectors << SECTOR_SHIFT;
	void *segment = NULL;
	int ret;

	if (bytes <= memory_room(storage))
		segment = __vmalloc(bytes, GFP_NOIO | __GFP_ZERO |
					   __GFP_NORETRY | __GFP_NOWARN);
	if (!segment)
		return -ENOSPC;
	ret = diff_storage_add(storage, NULL, segment, 0, sectors);
	if (ret)
		vfree(segment);
	return ret;
}

static int memory_fill(struct diff_storage *storage, u64 bytes)
{
	const struct diff_storage_config *config = &storage->config;
	int ret = memory_grow(storage, round_down(bytes, DIFF_STORAGE_STEP) >>
				       SECTOR_SHIFT);

	if (!ret)
		return 0;
	return error_set(config->error, config->who, ret,
			 "cannot allocate %llu bytes of memory", bytes);
}

/* A request lies in one extent: diff_storage_place() has seen to that. */
static void memory_submit(struct diff_storage *storage, struct bio *bio)
{
	sector_t pos = bio->bi_iter.bi_sector;
	const struct diff_extent *extent = diff_storage_extent(storage, pos);
	void *at = extent->data + ((pos - extent->pos) << SECTOR_SHIFT);
	struct bvec_iter iter;
	struct bio_vec bvec;

	bio_for_each_segment(bvec, bio, iter) {
		if (op_is_write(bio_op(bio)))
			memcpy_from_bvec(at, &bvec);
		else
			memcpy_to_bvec(&bvec, at);
		at += bvec.bv_len;
	}
	bio_endio(bio);
}

static void memory_close(struct diff_storage *storage)
{
	const struct diff_extent *extent;
	sector_t pos = 0;

	while ((extent = diff_storage_next_extent(storage, &pos)))
		vfree(extent->data);
	diff_storage_exit(storage);
	kfree(storage);
}

static const struct diff_storage_ops memory_ops = {
	.room = memory_room,
	.fill = memory_fill,
	.grow = memory_grow,
	.submit = memory_submit,
	.close = memory_close,
};

struct diff_storage *
diff_storage_open_memory(const struct diff_storage_config *config)
{
	struct diff_storage *storage = kzalloc(sizeof(*storage), GFP_KERNEL);
	int ret;

	if (!storage)
		return ERR_PTR(diff_storage_no_memory(config));
	ret = diff_storage_init(storage, &memory_ops, config);
	if (!ret)
		return storage;
	kfree(storage);
	return ERR_PTR(ret);
}
