/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_CHUNK_H
#define BLKSNAP_CHUNK_H

#include <linux/atomic.h>
#include <linux/blk_types.h>
#include <linux/list.h>
#include <linux/mm_types.h>
#include <linux/refcount.h>
#include <linux/types.h>

struct bio_set;
struct memory_user;

/* The longest run that is preserved as one, unless a granule is longer. */
#define CHUNK_MAX_BYTES ((size_t)BIO_MAX_VECS << PAGE_SHIFT)

/**
 * enum chunk_state - what a chunk's pages hold
 * @CHUNK_LOADING: nothing yet; the origin still has the old content, since the
 *	write that overwrites it is held
 * @CHUNK_READY: the old content
 * @CHUNK_FAILED: nothing, for good: the origin could not be read, and the
 *	diff area has failed
 */
enum chunk_state { CHUNK_LOADING, CHUNK_READY, CHUNK_FAILED };

/**
 * struct chunk - a run of granules that was preserved as one, in memory
 * @refs: the map's, and one of each user at work on it
 * @state: changed once, by chunk_set_state()
 * @owner: whose it is; set once
 * @user: whom it is charged to; set once
 * @beside: to the reserve of @user, not to the budget; set once
 * @first: first granule; set once
 * @last: last granule; set once
 * @start: first sector of the origin; set once
 * @sectors: how many; set once. The device's last granule may be a short one
 * @born: when it was claimed, see diff_area_arms(), or when its twin was; set
 *	before it is found, or before CHUNK_READY
 * @copied: from another area's chunk, not read
 * @reserved: the struct is one of the reserve; set once
 * @node: in a list of reads that are to be submitted, which is its owner's; then
 *	in its area's list of chunks to be stored, or in the piece that is being
 *	stored, protected by the area's lock
 * @waiters: of struct origin_write; protected by the area's lock
 * @diff_sector: where it is being stored; belongs to the storing worker
 * @loads: reads of the origin in flight, and their builder
 * @load_err: of any of them
 * @loaded: called when they are complete; set once
 * @rcu: lookups find chunks without a lock
 * @nr_pages: how many; set once, 0 in the end
 * @pages: the content, page by page; written before CHUNK_READY only
 */
struct chunk {
	refcount_t refs;
	enum chunk_state state;
	void *owner;
	struct memory_user *user;
	unsigned long first;
	unsigned long last;
	sector_t start;
	unsigned int sectors;
	bool beside;
	bool copied;
	bool reserved;
	u64 born;
	struct list_head node;
	struct list_head waiters;
	sector_t diff_sector;
	atomic_t loads;
	int load_err;
	void (*loaded)(struct chunk *chunk, int err);
	struct rcu_head rcu;
	unsigned int nr_pages;
	struct page *pages[];
};

/**
 * chunk_init() - Context: module init. Return: 0 or -ENOMEM.
 */
int chunk_init(void);

/**
 * chunk_exit() - Context: module exit; no chunk is being loaded.
 */
void chunk_exit(void);

/**
 * chunk_alloc() - memory for a run, charged to the budget
 * @owner: whose it is
 * @user: of the budget; outlives the chunk
 * @urgent: may be taken from the reserve of @user
 * @start: first sector of the origin
 * @sectors: how many
 *
 * The caller fills in @first and @last. Context: any; does not reclaim.
 *
 * Return: a chunk in state CHUNK_LOADING with one reference; or an ERR_PTR:
 * -EAGAIN, the budget is used up, memory_user_ops.relief will tell when to try
 * again; -ENOMEM, there is no memory, and what the reserve has is too little.
 */
struct chunk *chunk_alloc(void *owner, struct memory_user *user, bool urgent,
			  sector_t start, unsigned int sectors);

/**
 * chunk_reclaim() - has the kernel look for memory, for the reserve
 *
 * Context: may sleep, and for long where memory is short, but waits for no I/O;
 * so not with a lock that stores under way need. Return: was there any?
 */
bool chunk_reclaim(void);

/**
 * chunk_tryget() - a reference, unless the last one is gone already
 * @chunk: found under rcu_read_lock(), which is still held
 *
 * Context: any. Return: false if the map has something newer by now.
 */
static inline bool chunk_tryget(struct chunk *chunk)
{
	return refcount_inc_not_zero(&chunk->refs);
}

/**
 * chunk_get() - one more reference for who has one
 * @chunk: the chunk. Context: any.
 */
static inline void chunk_get(struct chunk *chunk)
{
	refcount_inc(&chunk->refs);
}

/**
 * chunk_drop_pages() - gives the memory back before the last reference is gone
 * @chunk: it could not be loaded, and is going to be CHUNK_FAILED
 *
 * Context: any.
 */
void chunk_drop_pages(struct chunk *chunk);

/**
 * chunk_put() - gives a reference back; the last one frees pages and charge
 * @chunk: the chunk. Context: any.
 */
void chunk_put(struct chunk *chunk);

/**
 * chunk_is_ready() - has the old content been read?
 * @chunk: the chunk
 *
 * If so, the pages may be read: pairs with chunk_set_state(). Context: any.
 */
static inline bool chunk_is_ready(const struct chunk *chunk)
{
	/* pairs with chunk_set_state() */
	return smp_load_acquire(&chunk->state) == CHUNK_READY;
}

/**
 * chunk_granules() - how many granules it has. Context: any.
 * @chunk: the chunk
 */
static inline u64 chunk_granules(const struct chunk *chunk)
{
	return chunk->last - chunk->first + 1;
}

/**
 * chunk_set_state() - ends CHUNK_LOADING
 * @chunk: the chunk; the caller holds its area's lock
 * @state: CHUNK_READY or CHUNK_FAILED
 */
void chunk_set_state(struct chunk *chunk, enum chunk_state state);

/**
 * chunk_load() - begins to read the old content from the origin
 * @chunk: in state CHUNK_LOADING
 * @origin: the device
 * @bios: for the reads, with vectors; of this origin alone, since who waits for
 *	one waits for that
 * @loaded: called when the content is there, or could not be read (a negative
 *	errno); in any context
 *
 * The reads carry no flags: a copy read with FUA has destroyed data on disks
 * that take it for a write. Context: may sleep (for a bio of a mempool, and for
 * the device to take the request).
 */
void chunk_load(struct chunk *chunk, struct block_device *origin,
		struct bio_set *bios,
		void (*loaded)(struct chunk *chunk, int err));

/**
 * chunk_contains() - does one cover all of another? Context: any.
 * @chunk: a chunk
 * @other: of the same origin
 */
static inline bool chunk_contains(const struct chunk *chunk,
				  const struct chunk *other)
{
	return chunk->start <= other->start &&
	       other->start + other->sectors <= chunk->start + chunk->sectors;
}

/**
 * chunk_copy_twin() - takes the content from another one
 * @chunk: in state CHUNK_LOADING; only its loader writes to it
 * @twin: ready, and contains it. Context: any.
 */
void chunk_copy_twin(struct chunk *chunk, const struct chunk *twin);

/**
 * chunk_zero() - makes it a chunk of zeroes, and ready
 * @chunk: in state CHUNK_LOADING, nobody else knows it. Context: any.
 */
void chunk_zero(struct chunk *chunk);

/**
 * chunk_copy() - copies a part of the content into a bio
 * @chunk: ready
 * @from: first sector of the origin to copy
 * @bio: where to
 * @iter: where in @bio; as long as what is to be copied
 *
 * Context: any.
 */
void chunk_copy(const struct chunk *chunk, sector_t from, struct bio *bio,
		struct bvec_iter iter);

#endif
