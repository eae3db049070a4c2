// SPDX-License-Identifier: GPL-2.0
/*
 * The change map: one byte for each block of an origin, the number of the
 * interval in which it last changed.
 *
 * Vocabulary. A generation is the time in which nothing was missed; a new one
 * begins whenever that cannot be said any more, and when the numbers are used
 * up. The snapshots that are taken in it have the numbers 1, 2, ... 255, and
 * the interval N is the one that ends with snapshot N. A byte V says that the
 * block last changed in interval V; 0: not in this generation. So between the
 * snapshots A and N exactly the blocks with V > A have changed.
 *
 * For that to be true, a write must be marked with the number of the interval
 * in which it is passed to the disk, whenever it came: the mark is made in the
 * section that passes it (I3's section), with the number that is current there.
 * A gate that is closed and drained has no such section under way. So while it
 * is, the number can change, and no write falls between two maps: what was
 * passed before is on the origin, in the image and in the frozen map; what is
 * passed after is in the next.
 *
 * The frozen map of a snapshot is a copy. It is made while writes go on, and
 * pages of it that were touched meanwhile are copied again when the gate is
 * closed (I1). To note them costs a mark nothing while nobody copies: who
 * copies says so first, and waits a grace period, so that every section that
 * does not know of it has ended.
 *
 * I4: a map has at most cbt_map_limit bytes; blocks are doubled until it fits.
 * I5: a mark takes no lock and allocates nothing.
 */
#include <linux/bitmap.h>
#include <linux/blk_types.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "cbt_map.h"
#include "error.h"
#include "value.h"

#define CBT_BLOCK_DEFAULT SZ_64K
#define CBT_LIMIT_SHARE 64	/* of all memory, one part in this many */
#define CBT_LIMIT_MIN_DEFAULT ((u64)SZ_1M)
#define CBT_LIMIT_MAX_DEFAULT ((u64)SZ_64M)
#define CBT_DIRTY_PIECE SZ_64K	/* bytes of a map, with the lock held */

static unsigned long cbt_map_limit;	/* 0: the default */

/* The limit, and the block size */

u64 cbt_map_bound(void)
{
	u64 share = totalram_pages() / CBT_LIMIT_SHARE * PAGE_SIZE;

	return READ_ONCE(cbt_map_limit) ?:
	       clamp(share, CBT_LIMIT_MIN_DEFAULT, CBT_LIMIT_MAX_DEFAULT);
}

static int cbt_map_limit_set(const char *value, const struct kernel_param *param)
{
	u64 bytes;
	int ret;

	ret = value_get_param_size(value, "cbt_map_limit", &bytes);
	if (ret)
		return ret;
	if (bytes > totalram_pages() * PAGE_SIZE / 2)
		return error_set(NULL, "cbt_map_limit", -EINVAL,
				 "%llu is more than half of the memory", bytes);
	WRITE_ONCE(cbt_map_limit, bytes);
	return 0;
}

static int cbt_map_limit_get(char *page, const struct kernel_param *param)
{
	return sysfs_emit(page, "%llu\n", cbt_map_bound());
}

static const struct kernel_param_ops cbt_map_limit_ops = {
	.set = cbt_map_limit_set,
	.get = cbt_map_limit_get,
};

module_param_cb(cbt_map_limit, &cbt_map_limit_ops, &cbt_map_limit, 0644);
MODULE_PARM_DESC(cbt_map_limit,
		 "Bytes of the change map of one tracker (default: 1/64 of the memory, 1M to 64M)");

static u64 cbt_blocks(sector_t sectors, u64 block_size)
{
	return ((sectors - 1) >> (ilog2(block_size) - SECTOR_SHIFT)) + 1;
}

int cbt_map_pick(sector_t sectors, u64 wanted, u64 *picked)
{
	u64 bound = cbt_map_bound();

	*picked = wanted ?: CBT_BLOCK_DEFAULT;
	if (wanted)
		return cbt_blocks(sectors, wanted) > bound ? -EINVAL : 0;
	while (cbt_blocks(sectors, *picked) > bound)
		*picked *= 2;
	return 0;
}

/* Life */

static u8 *cbt_alloc_bytes(u64 blocks, gfp_t flags)
{
	return __vmalloc(blocks, GFP_KERNEL | __GFP_NOWARN | flags);
}

static unsigned long cbt_pages(u64 blocks)
{
	return DIV_ROUND_UP_ULL(blocks, PAGE_SIZE);
}

static void cbt_map_free(struct kref *kref)
{
	struct cbt_map *map = container_of(kref, struct cbt_map, kref);

	vfree(map->bytes);
	bitmap_free(map->touched);
	kfree(map);
}

void cbt_map_put(struct cbt_map *map)
{
	kref_put(&map->kref, cbt_map_free);
}

struct cbt_map *cbt_map_create(sector_t sectors, u64 block_size,
			       const struct cbt_id *base)
{
	struct cbt_map *map;

	map = kzalloc(sizeof(*map), GFP_KERNEL);
	if (!map)
		return NULL;
	kref_init(&map->kref);
	spin_lock_init(&map->lock);
	generate_random_uuid(map->generation.b);
	if (base)
		map->base = *base;
	map->sectors = sectors;
	map->block_shift = ilog2(block_size) - SECTOR_SHIFT;
	map->blocks = cbt_blocks(sectors, block_size);
	map->mark = 1;
	map->touched = bitmap_zalloc(cbt_pages(map->blocks), GFP_KERNEL);
	map->bytes = cbt_alloc_bytes(map->blocks, __GFP_ZERO);
	if (map->touched && map->bytes)
		return map;
	cbt_map_put(map);
	return NULL;
}

/* Marking */

/* While a copy is made: it must see the bytes, or the bits of their pages. */
static void cbt_map_touch(struct cbt_map *map, u64 from, u64 to)
{
	unsigned long page = from >> PAGE_SHIFT;

	smp_mb(); /* pairs with test_and_clear_bit() in cbt_freeze_recopy() */
	for (; page <= to >> PAGE_SHIFT; page++)
		if (!test_bit(page, map->touched))
			set_bit(page, map->touched);
}

static void cbt_map_store(struct cbt_map *map, u64 from, u64 to)
{
	u8 mark = READ_ONCE(map->mark);

	if (likely(from == to))
		WRITE_ONCE(map->bytes[from], mark);
	else
		memset(map->bytes + from, mark, to - from + 1);
	/* Pairs with the grace period before cbt_freeze_copy(). */
	if (unlikely(READ_ONCE(map->freezing)))
		cbt_map_touch(map, from, to);
}

void cbt_map_mark(struct cbt_map *map, sector_t first, sector_t last)
{
	cbt_map_store(map, first >> map->block_shift, last >> map->block_shift);
}

/* Not a write: the gate does not keep it apart from the take, so the lock does. */
static bool cbt_map_dirty_piece(struct cbt_map *map, u64 from, u64 to)
{
	bool ended;

	spin_lock(&map->lock);
	rcu_read_lock();
	ended = map->ended;
	if (!ended)
		cbt_map_store(map, from, to);
	rcu_read_unlock();
	spin_unlock(&map->lock);
	return !ended;
}

bool cbt_map_dirty(struct cbt_map *map, sector_t first, sector_t last)
{
	u64 from = first >> map->block_shift, to = last >> map->block_shift;

	for (; from <= to; from += CBT_DIRTY_PIECE) {
		if (!cbt_map_dirty_piece(map, from,
					 min(to, from + CBT_DIRTY_PIECE - 1)))
			return false;
		cond_resched();
	}
	return true;
}

/* Freezing */

static struct cbt_frozen *cbt_frozen_create(const struct cbt_map *map)
{
	struct cbt_frozen *frozen;

	frozen = kzalloc(sizeof(*frozen), GFP_KERNEL);
	if (!frozen)
		return NULL;
	frozen->id.generation = map->generation;
	frozen->base = map->base;
	frozen->block_shift = map->block_shift;
	frozen->blocks = map->blocks;
	frozen->bytes = cbt_alloc_bytes(map->blocks, 0);
	if (frozen->bytes)
		return frozen;
	kfree(frozen);
	return NULL;
}

void cbt_frozen_free(struct cbt_frozen *frozen)
{
	if (!frozen)
		return;
	vfree(frozen->bytes);
	kfree(frozen);
}

void cbt_frozen_mark(struct cbt_frozen *frozen, sector_t first, sector_t last)
{
	u64 from = first >> frozen->block_shift;

	memset(frozen->bytes + from, frozen->id.number,
	       (last >> frozen->block_shift) - from + 1);
}

/* The generation that begins with the last snapshot of this one. */
static struct cbt_map *cbt_map_successor(const struct cbt_map *map)
{
	struct cbt_id base = {
		.generation = map->generation,
		.number = CBT_NUMBER_MAX,
	};

	return cbt_map_create(map->sectors,
			      (u64)SECTOR_SIZE << map->block_shift,
			      &base);
}

struct cbt_freeze *cbt_freeze_prepare(struct cbt_map *map)
{
	struct cbt_freeze *freeze;
	bool is_last = READ_ONCE(map->number) + 1 == CBT_NUMBER_MAX;

	freeze = kzalloc(sizeof(*freeze), GFP_KERNEL);
	if (!freeze) {
		cbt_map_put(map);
		return NULL;
	}
	freeze->map = map;
	freeze->frozen = cbt_frozen_create(map);
	if (is_last)
		freeze->next = cbt_map_successor(map);
	if (freeze->frozen && (freeze->next || !is_last))
		return freeze;
	cbt_freeze_end(freeze);
	return NULL;
}

void cbt_freeze_start(struct cbt_freeze *freeze)
{
	struct cbt_map *map = freeze->map;

	bitmap_zero(map->touched, cbt_pages(map->blocks));
	WRITE_ONCE(map->freezing, true);
}

static void cbt_freeze_copy_page(struct cbt_freeze *freeze, unsigned long page)
{
	u64 from = (u64)page << PAGE_SHIFT;
	u64 size = min_t(u64, freeze->map->blocks - from, PAGE_SIZE);

	memcpy(freeze->frozen->bytes + from, freeze->map->bytes + from, size);
}

void cbt_freeze_copy(struct cbt_freeze *freeze)
{
	unsigned long page;

	for (page = 0; page < cbt_pages(freeze->map->blocks); page++) {
		cbt_freeze_copy_page(freeze, page);
		cond_resched();
	}
}

void cbt_freeze_recopy(struct cbt_freeze *freeze)
{
	unsigned long *touched = freeze->map->touched;
	unsigned long pages = cbt_pages(freeze->map->blocks), page;

	for_each_set_bit(page, touched, pages) {
		/* The bit, then the bytes: pairs with cbt_map_touch(). */
		if (test_and_clear_bit(page, touched))
			cbt_freeze_copy_page(freeze, page);
	}
}

/* What cbt_map_dirty() has touched since cbt_freeze_recopy() is little. */
void cbt_freeze_finish(struct cbt_freeze *freeze)
{
	struct cbt_map *map = freeze->map;

	spin_lock(&map->lock);
	cbt_freeze_recopy(freeze);
	WRITE_ONCE(map->number, map->number + 1);
	map->ended = map->number == CBT_NUMBER_MAX;
	if (!map->ended)
		WRITE_ONCE(map->mark, map->number + 1);
	freeze->frozen->id.number = map->number;
	spin_unlock(&map->lock);
}

void cbt_freeze_end(struct cbt_freeze *freeze)
{
	WRITE_ONCE(freeze->map->freezing, false);
	if (freeze->replaced) {
		synchronize_rcu();
		cbt_map_put(freeze->map); /* the tracker's */
	}
	cbt_map_put(freeze->map);
	if (freeze->next)
		cbt_map_put(freeze->next);
	cbt_frozen_free(freeze->frozen);
	kfree(freeze);
}
