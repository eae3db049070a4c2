/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_DIFF_MAP_H
#define BLKSNAP_DIFF_MAP_H

#include <linux/maple_tree.h>
#include <linux/mutex.h>
#include <linux/preempt.h>
#include <linux/types.h>

#include "granule_cache.h"

struct chunk;

/**
 * enum diff_kind - where the content of a granule as of the take is
 * @DIFF_ORIGIN: still on the origin
 * @DIFF_CHUNK: in a chunk, or being read into it
 * @DIFF_STORED: in the difference storage
 * @DIFF_ZERO: nowhere: it reads as zeroes, whatever is there
 * @DIFF_LOST: nowhere; the area has failed
 */
enum diff_kind { DIFF_ORIGIN, DIFF_CHUNK, DIFF_STORED, DIFF_ZERO, DIFF_LOST };

/**
 * struct diff_run - neighbouring granules of which the same is true
 * @kind: what
 * @first: first granule
 * @last: last granule
 * @chunk: for DIFF_CHUNK; see diff_map_lookup() for how long it is valid
 * @displacement: for DIFF_STORED: sectors to add to a sector of the origin to
 *	get the sector of the difference storage
 */
struct diff_run {
	enum diff_kind kind;
	unsigned long first;
	unsigned long last;
	struct chunk *chunk;
	s64 displacement;
};

/**
 * struct diff_map - which granules are preserved, and where
 * @tree: entries by granule; changed under @mutex, read under RCU
 * @mutex: serialises changes
 * @changing: a change is under way, on a CPU that does not preempt it
 * @preserved: in front of @tree, for those who only ask that
 */
struct diff_map {
	struct maple_tree tree;
	struct mutex mutex;	/* serialises changes */
	bool changing;
	struct granule_cache preserved;
};

/**
 * diff_map_may_walk() - may the map be looked at in this context?
 * @map: the map
 *
 * A lookup that meets a change waits for its end. So an interrupt must not look
 * while a change is under way: it may have interrupted the one who makes it.
 * Tasks always may. Context: any.
 */
static inline bool diff_map_may_walk(const struct diff_map *map)
{
	return in_task() || !READ_ONCE(map->changing);
}

/**
 * diff_map_init() - an empty map
 * @map: the map
 * @granules: how many there are
 *
 * Context: may sleep. Return: 0, to be undone by diff_map_clear(), or -ENOMEM.
 */
int diff_map_init(struct diff_map *map, u64 granules);

/**
 * diff_map_clear() - ends a map, and gives back its references to chunks
 * @map: nobody looks anything up any more. Context: may sleep.
 */
void diff_map_clear(struct diff_map *map);

/**
 * diff_map_lookup() - what is known about a granule and its neighbours
 * @map: the map
 * @granule: which
 * @run: the answer; it contains @granule, and may end where the map's inner
 *	structure does, so that a neighbour may be of the same kind
 *
 * Context: diff_map_may_walk(). The caller is in an RCU read-side section, or
 * holds @map's mutex; @run->chunk is valid that long.
 */
void diff_map_lookup(struct diff_map *map, unsigned long granule,
		     struct diff_run *run);

/**
 * diff_map_preserved() - is the content of all these granules safe?
 * @map: the map
 * @first: first granule
 * @last: last granule
 *
 * Context: any, under rcu_read_lock().
 * Return: true if each is stored, in a chunk that is ready, or zero; false also
 * where the map cannot be looked at, see diff_map_may_walk().
 */
bool diff_map_preserved(struct diff_map *map, unsigned long first,
			unsigned long last);

/**
 * diff_map_stored() - do all these granules have a place in the storage?
 * @map: the map
 * @first: first granule
 * @last: last granule
 *
 * Context: diff_map_may_walk(). Takes no lock.
 */
bool diff_map_stored(struct diff_map *map, unsigned long first,
		     unsigned long last);

/**
 * diff_map_set_zero() - says that granules read as zeroes
 * @map: the caller holds its mutex
 * @first: first granule
 * @last: last granule; none of them has an entry
 *
 * Context: may sleep; does not reclaim. Return: 0 or -ENOMEM.
 */
int diff_map_set_zero(struct diff_map *map, unsigned long first,
		      unsigned long last);

/**
 * diff_map_add_chunk() - enters a chunk for granules that have no entry, or
 * read as zeroes; in the latter case it is ready
 * @map: the caller holds its mutex
 * @chunk: from now on the map holds a reference to it
 *
 * Context: may sleep; does not reclaim. Return: 0 or -ENOMEM.
 */
int diff_map_add_chunk(struct diff_map *map, struct chunk *chunk);

/**
 * diff_map_set_stored() - says where a chunk's content has been stored
 * @map: the caller holds its mutex
 * @chunk: has an entry, which is replaced; the map's reference goes to the
 *	caller
 * @displacement: see struct diff_run
 *
 * Neighbours with the same displacement become one entry. Context: may sleep;
 * does not reclaim. Cannot fail: without memory, the entries stay apart.
 */
void diff_map_set_stored(struct diff_map *map, struct chunk *chunk,
			 s64 displacement);

/**
 * diff_map_set_lost() - gives up a chunk's content, whose area has failed
 * @map: the map
 * @chunk: has an entry, which is replaced; the map's reference goes to the
 *	caller
 *
 * Context: may sleep. Cannot fail.
 */
void diff_map_set_lost(struct diff_map *map, struct chunk *chunk);

/**
 * diff_map_measure() - the size of the map
 * @map: the map
 * @entries: how many runs it has
 * @bytes: how much memory the leaves of its tree take; the inner nodes add
 *	about a tenth, and are not counted
 *
 * Context: may sleep; takes a time that grows with the map.
 */
void diff_map_measure(struct diff_map *map, u64 *entries, u64 *bytes);

#endif
