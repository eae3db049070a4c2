// SPDX-License-Identifier: GPL-2.0
/*
 * Which granules are preserved, and where: a maple tree by granule number.
 *
 * An entry is nothing (the granule is still on the origin), a pointer (a chunk
 * in memory) or a value (it is stored; or zero, or lost). A value is not a place but the
 * displacement from origin to difference storage, so a range that is cut in
 * two needs no arithmetic, and ranges that were stored side by side are one
 * entry. Entries never go back to nothing while the area lives: the image's
 * read path relies on that.
 *
 * The tree is changed by workers, under the mutex, and read without a lock,
 * under RCU. A change marks a node dead before it publishes its successor, and
 * a reader who meets a dead node starts again until he finds the successor. So
 * nobody may look on the CPU of a change that is not complete: it is made
 * without preemption, with memory that is there at once, and an interrupt asks
 * diff_map_may_walk() before.
 */
#include <linux/gfp.h>
#include <linux/rcupdate.h>
#include <linux/xarray.h>

#include "chunk.h"
#include "compat/maple.h"
#include "diff_map.h"

#define MAP_RESERVE_GFP (GFP_ATOMIC | __GFP_NOWARN)
#define MAP_TRIES 4
#define MAP_MEASURE_BATCH 1024	/* entries between two breaks for RCU */
#define MAP_NODE_BYTES 256

/* Displacements may be negative; what an entry can hold may not. */
#define MAP_BIAS BIT(60)
#define MAP_LOST xa_mk_value(0)
#define MAP_ZERO xa_mk_value(1)

/*
 * As the kernel's own maps of address spaces, on all kernels: on 6.1 a tree with
 * USE_RCU and without ALLOC_RANGE crashes when a subtree of it is freed, because
 * mt_free_walk() takes a node's metadata for its last slot.
 */
#define MAP_FLAGS (MT_FLAGS_ALLOC_RANGE | MT_FLAGS_USE_RCU | MT_FLAGS_LOCK_EXTERN)

static void *map_mk_stored(s64 displacement)
{
	return xa_mk_value(displacement + MAP_BIAS);
}

static s64 map_displacement(const void *entry)
{
	return (s64)xa_to_value(entry) - MAP_BIAS;
}

int diff_map_init(struct diff_map *map, u64 granules)
{
	mutex_init(&map->mutex);
	map->changing = false;
	mt_init_flags(&map->tree, MAP_FLAGS);
	mt_set_external_lock(&map->tree, &map->mutex);
	return granule_cache_init(&map->preserved, granules);
}

void diff_map_clear(struct diff_map *map)
{
	MA_STATE(mas, &map->tree, 0, 0);
	void *entry;

	mutex_lock(&map->mutex);
	mas_for_each(&mas, entry, ULONG_MAX)
		if (!xa_is_value(entry))
			chunk_put(entry);
	mt_clear_in_rcu(&map->tree); /* nobody looks: free it here and now */
	__mt_destroy(&map->tree);
	mutex_unlock(&map->mutex);
	granule_cache_exit(&map->preserved);
}

void diff_map_lookup(struct diff_map *map, unsigned long granule,
		     struct diff_run *run)
{
	MA_STATE(mas, &map->tree, granule, granule);
	void *entry = mas_walk(&mas);

	run->first = mas.index;
	run->last = mas.last;
	if (!entry) {
		run->kind = DIFF_ORIGIN;
	} else if (entry == MAP_LOST) {
		run->kind = DIFF_LOST;
	} else if (entry == MAP_ZERO) {
		run->kind = DIFF_ZERO;
	} else if (xa_is_value(entry)) {
		run->kind = DIFF_STORED;
		run->displacement = map_displacement(entry);
	} else {
		run->kind = DIFF_CHUNK;
		run->chunk = entry;
	}
}

static bool map_is_preserved(const void *entry)
{
	return entry && (xa_is_value(entry) || chunk_is_ready(entry));
}

static bool map_is_stored(const void *entry)
{
	return xa_is_value(entry) && entry != MAP_LOST && entry != MAP_ZERO;
}

/* Is it true of all granules of a range? Under rcu_read_lock(). */
static bool map_all(struct diff_map *map, unsigned long first,
		    unsigned long last, bool (*is)(const void *entry))
{
	MA_STATE(mas, &map->tree, first, first);

	while (is(mas_walk(&mas))) {
		if (mas.last >= last)
			return true;
		mas_set(&mas, mas.last + 1);
	}
	return false;
}

/* Apart, since what is found in the cache needs no room on the stack. */
static noinline bool map_walk_preserved(struct diff_map *map,
					unsigned long first, unsigned long last)
{
	if (!diff_map_may_walk(map) ||
	    !map_all(map, first, last, map_is_preserved))
		return false;
	granule_cache_add(&map->preserved, first, last);
	return true;
}

/* Most writes go to where others went shortly before. */
bool diff_map_preserved(struct diff_map *map, unsigned long first,
			unsigned long last)
{
	return granule_cache_has(&map->preserved, first, last) ||
	       map_walk_preserved(map, first, last);
}

bool diff_map_stored(struct diff_map *map, unsigned long first,
		     unsigned long last)
{
	bool stored;

	rcu_read_lock();
	stored = map_all(map, first, last, map_is_stored);
	rcu_read_unlock();
	return stored;
}

static void map_begin_change(struct diff_map *map)
{
	lockdep_assert_held(&map->mutex);
	preempt_disable();
	WRITE_ONCE(map->changing, true);
	barrier(); /* for interrupts on this CPU: see diff_map_may_walk() */
}

static void map_end_change(struct diff_map *map)
{
	barrier();
	WRITE_ONCE(map->changing, false);
	preempt_enable();
}

/* With memory that is there at once; what is too little is kept in @mas. */
static int __map_try_store(struct diff_map *map, struct ma_state *mas,
			   void *entry)
{
	int ret;

	map_begin_change(map);
	mas_store(mas, entry);
	map_end_change(map);
	ret = xa_err(mas->node);
	if (ret)
		mas_reset(mas);
	return ret;
}

/*
 * A few nodes may come from what the kernel keeps for those who cannot wait:
 * writes wait for this that free memory.
 */
static int __map_reserve_store(struct diff_map *map, struct ma_state *mas,
			       void *entry)
{
	int ret;

	map_begin_change(map);
	ret = compat_mas_store_now(mas, entry, MAP_RESERVE_GFP);
	map_end_change(map);
	return ret;
}

static int map_store(struct diff_map *map, unsigned long first,
		     unsigned long last, void *entry)
{
	MA_STATE(mas, &map->tree, first, last);
	int ret = __map_try_store(map, &mas, entry);

	if (ret == -ENOMEM)
		ret = __map_reserve_store(map, &mas, entry);
	mas_destroy(&mas);
	return ret;
}

int diff_map_set_zero(struct diff_map *map, unsigned long first,
		      unsigned long last)
{
	unsigned int tries = MAP_TRIES;
	int ret;

	do {
		ret = map_store(map, first, last, MAP_ZERO);
	} while (ret == -ENOMEM && --tries && chunk_reclaim());
	return ret;
}

int diff_map_add_chunk(struct diff_map *map, struct chunk *chunk)
{
	int ret = map_store(map, chunk->first, chunk->last, chunk);

	if (!ret)
		chunk_get(chunk);
	return ret;
}

/* To replace an entry by one of the same extent takes no memory. */
static void map_replace(struct diff_map *map, struct chunk *chunk, void *entry)
{
	WARN_ON_ONCE(map_store(map, chunk->first, chunk->last, entry));
}

void diff_map_set_lost(struct diff_map *map, struct chunk *chunk)
{
	mutex_lock(&map->mutex);
	map_replace(map, chunk, MAP_LOST);
	mutex_unlock(&map->mutex);
}

/* Widens a range over the neighbours that have the same entry. */
static void map_unite(struct diff_map *map, unsigned long *first,
		      unsigned long *last, const void *entry)
{
	MA_STATE(before, &map->tree, *first - 1, *first - 1);
	MA_STATE(after, &map->tree, *last + 1, *last + 1);

	if (*first && mas_walk(&before) == entry)
		*first = before.index;
	if (mas_walk(&after) == entry)
		*last = after.last;
}

void diff_map_set_stored(struct diff_map *map, struct chunk *chunk,
			 s64 displacement)
{
	void *entry = map_mk_stored(displacement);
	unsigned long first = chunk->first;
	unsigned long last = chunk->last;

	rcu_read_lock();
	map_unite(map, &first, &last, entry);
	rcu_read_unlock();
	if (map_store(map, first, last, entry))
		map_replace(map, chunk, entry);
}

void diff_map_measure(struct diff_map *map, u64 *entries, u64 *bytes)
{
	MA_STATE(mas, &map->tree, 0, 0);
	unsigned long leaf = 0;
	void *entry;

	*entries = 0;
	*bytes = 0;
	rcu_read_lock();
	mas_for_each(&mas, entry, ULONG_MAX) {
		unsigned long node = (unsigned long)mas.node & ~(MAP_NODE_BYTES - 1UL);

		if (node != leaf)
			*bytes += MAP_NODE_BYTES;
		leaf = node;
		if (++*entries % MAP_MEASURE_BATCH == 0) {
			mas_pause(&mas);
			rcu_read_unlock();
			cond_resched();
			rcu_read_lock();
		}
	}
	rcu_read_unlock();
}
