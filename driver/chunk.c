// SPDX-License-Identifier: GPL-2.0
/*
 * One preserved run: its pages, its state, its life.
 *
 * A chunk is in the map from before its read is issued until its content is in
 * the difference storage. Lookups find it under RCU, so it is used only after
 * chunk_tryget(), and the struct is freed after a grace period.
 *
 * What is short of memory may be the machine as a whole, whose only way out is to
 * write what is dirty; and that waits here. So there is a reserve, of pages and
 * of structs, from which some granules can always be preserved.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/highmem.h>
#include <linux/mempool.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>

#include "chunk.h"
#include "memory.h"

/* Who allocates holds a lock that the stores need, which free memory. */
#define CHUNK_GFP (GFP_NOWAIT | __GFP_NOWARN)
#define CHUNK_RECLAIM_GFP (GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN)
#define CHUNK_RESERVE_PAGES 128
#define CHUNK_RESERVE_STRUCTS 16
#define CHUNK_RESERVE_BYTES PAGE_SIZE	/* of a struct in the reserve */

static mempool_t reserve_pages;
static mempool_t reserve_structs;

int chunk_init(void)
{
	int ret = mempool_init_page_pool(&reserve_pages, CHUNK_RESERVE_PAGES, 0);

	if (ret)
		return ret;
	ret = mempool_init_kmalloc_pool(&reserve_structs, CHUNK_RESERVE_STRUCTS,
					CHUNK_RESERVE_BYTES);
	if (ret)
		mempool_exit(&reserve_pages);
	return ret;
}

void chunk_exit(void)
{
	rcu_barrier(); /* for chunk_free_reserved() */
	mempool_exit(&reserve_structs);
	mempool_exit(&reserve_pages);
}

static void chunk_free_pages(struct chunk *chunk)
{
	while (chunk->nr_pages)
		mempool_free(chunk->pages[--chunk->nr_pages], &reserve_pages);
}

static void chunk_free_reserved(struct rcu_head *rcu)
{
	mempool_free(container_of(rcu, struct chunk, rcu), &reserve_structs);
}

/* Lookups may still have found it, unless it was never entered. */
static void chunk_free_struct(struct chunk *chunk)
{
	if (chunk->reserved)
		call_rcu(&chunk->rcu, chunk_free_reserved);
	else
		kfree_rcu(chunk, rcu);
}

static struct chunk *chunk_alloc_struct(unsigned int nr_pages)
{
	struct chunk *chunk;
	size_t bytes = struct_size(chunk, pages, nr_pages);

	chunk = kmalloc(bytes, CHUNK_GFP);
	if (chunk) {
		chunk->reserved = false;
		return chunk;
	}
	if (bytes > CHUNK_RESERVE_BYTES)
		return NULL;
	chunk = mempool_alloc(&reserve_structs, CHUNK_GFP);
	if (chunk)
		chunk->reserved = true;
	return chunk;
}

/* In @beside, whether it is charged to the reserve. */
static bool chunk_charge(struct memory_user *user, size_t bytes, bool urgent,
			 bool *beside)
{
	*beside = false;
	if (memory_charge(user, bytes))
		return true;
	*beside = urgent && memory_charge_reserve(user, bytes);
	return *beside;
}

static void chunk_uncharge(struct memory_user *user, size_t bytes, bool beside)
{
	if (beside)
		memory_uncharge_reserve(user, bytes);
	else
		memory_uncharge(user, bytes);
}

struct chunk *chunk_alloc(void *owner, struct memory_user *user, bool urgent,
			  sector_t start, unsigned int sectors)
{
	unsigned int nr_pages = DIV_ROUND_UP(sectors, PAGE_SECTORS);
	size_t bytes = (size_t)nr_pages << PAGE_SHIFT;
	struct chunk *chunk;
	bool beside;

	if (!chunk_charge(user, bytes, urgent, &beside))
		return ERR_PTR(-EAGAIN);
	chunk = chunk_alloc_struct(nr_pages);
	if (!chunk)
		goto out_charge;
	refcount_set(&chunk->refs, 1);
	chunk->state = CHUNK_LOADING;
	chunk->owner = owner;
	chunk->user = user;
	chunk->beside = beside;
	chunk->copied = false;
	chunk->start = start;
	chunk->sectors = sectors;
	INIT_LIST_HEAD(&chunk->node);
	INIT_LIST_HEAD(&chunk->waiters);
	for (chunk->nr_pages = 0; chunk->nr_pages < nr_pages; chunk->nr_pages++) {
		struct page *page = mempool_alloc(&reserve_pages, CHUNK_GFP);

		if (!page)
			goto out_pages;
		chunk->pages[chunk->nr_pages] = page;
	}
	/* Pages are stored whole: what the device ends before is not ours. */
	if (sectors % PAGE_SECTORS)
		clear_highpage(chunk->pages[nr_pages - 1]);
	return chunk;

out_pages:
	chunk_free_pages(chunk);
	chunk_free_struct(chunk);
out_charge:
	chunk_uncharge(user, bytes, beside);
	return ERR_PTR(-ENOMEM);
}

bool chunk_reclaim(void)
{
	struct page *page = alloc_page(CHUNK_RECLAIM_GFP);

	if (!page)
		return false;
	mempool_free(page, &reserve_pages);
	return true;
}

void chunk_drop_pages(struct chunk *chunk)
{
	size_t bytes = (size_t)chunk->nr_pages << PAGE_SHIFT;

	if (!bytes)
		return;
	chunk_free_pages(chunk);
	chunk_uncharge(chunk->user, bytes, chunk->beside);
}

void chunk_put(struct chunk *chunk)
{
	if (!refcount_dec_and_test(&chunk->refs))
		return;
	chunk_drop_pages(chunk);
	chunk_free_struct(chunk);
}

void chunk_set_state(struct chunk *chunk, enum chunk_state state)
{
	WARN_ON_ONCE(chunk->state != CHUNK_LOADING);
	smp_store_release(&chunk->state, state); /* pairs with chunk_is_ready() */
}

static void chunk_load_put(struct chunk *chunk)
{
	if (atomic_dec_and_test(&chunk->loads))
		chunk->loaded(chunk, READ_ONCE(chunk->load_err));
}

static void chunk_load_endio(struct bio *bio)
{
	struct chunk *chunk = bio->bi_private;

	if (bio->bi_status)
		WRITE_ONCE(chunk->load_err, blk_status_to_errno(bio->bi_status));
	bio_put(bio);
	chunk_load_put(chunk);
}

/* Reads as many pages from @index on as one bio can hold; how many they are. */
static unsigned int chunk_load_pages(struct chunk *chunk,
				     struct block_device *origin,
				     struct bio_set *bios, unsigned int index)
{
	unsigned int nr = bio_max_segs(chunk->nr_pages - index);
	sector_t start = (sector_t)index * PAGE_SECTORS;
	unsigned int i, sectors;
	struct bio *bio;

	bio = bio_alloc_bioset(origin, nr, REQ_OP_READ, GFP_NOIO, bios);
	bio->bi_iter.bi_sector = chunk->start + start;
	bio->bi_end_io = chunk_load_endio;
	bio->bi_private = chunk;
	for (i = 0; i < nr; i++) {
		sectors = min_t(sector_t, chunk->sectors - start, PAGE_SECTORS);
		__bio_add_page(bio, chunk->pages[index + i],
			       sectors << SECTOR_SHIFT, 0);
		start += sectors;
	}
	atomic_inc(&chunk->loads);
	submit_bio_noacct(bio);
	return nr;
}

void chunk_load(struct chunk *chunk, struct block_device *origin,
		struct bio_set *bios,
		void (*loaded)(struct chunk *chunk, int err))
{
	unsigned int index = 0;

	chunk->loaded = loaded;
	chunk->load_err = 0;
	atomic_set(&chunk->loads, 1);
	while (index < chunk->nr_pages)
		index += chunk_load_pages(chunk, origin, bios, index);
	chunk_load_put(chunk);
}

void chunk_copy_twin(struct chunk *chunk, const struct chunk *twin)
{
	unsigned int from = (chunk->start - twin->start) / PAGE_SECTORS;
	unsigned int i;

	for (i = 0; i < chunk->nr_pages; i++)
		copy_highpage(chunk->pages[i], twin->pages[from + i]);
	chunk->copied = true;
	chunk->born = twin->born;
}

void chunk_zero(struct chunk *chunk)
{
	unsigned int i;

	for (i = 0; i < chunk->nr_pages; i++)
		clear_highpage(chunk->pages[i]);
	chunk_set_state(chunk, CHUNK_READY);
}

void chunk_copy(const struct chunk *chunk, sector_t from, struct bio *bio,
		struct bvec_iter iter)
{
	size_t pos = (from - chunk->start) << SECTOR_SHIFT;
	struct bvec_iter at;
	struct bio_vec bvec;

	__bio_for_each_segment(bvec, bio, at, iter) {
		unsigned int done = 0;

		while (done < bvec.bv_len) {
			unsigned int offset = offset_in_page(pos);
			unsigned int len = min_t(unsigned int, bvec.bv_len - done,
						 PAGE_SIZE - offset);

			memcpy_page(bvec.bv_page, bvec.bv_offset + done,
				    chunk->pages[pos >> PAGE_SHIFT], offset, len);
			done += len;
			pos += len;
		}
	}
}
