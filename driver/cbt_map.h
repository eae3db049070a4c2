/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_CBT_MAP_H
#define BLKSNAP_CBT_MAP_H

#include <linux/kref.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/uuid.h>

#define CBT_NUMBER_MAX 255	/* what fits a byte */

/**
 * struct cbt_id - a snapshot of a generation
 * @generation: null: there is none
 * @number: 1, 2, ... CBT_NUMBER_MAX; 0 before the first
 */
struct cbt_id {
	uuid_t generation;
	unsigned int number;
};

/**
 * struct cbt_map - which blocks changed in which interval, in one generation
 * @kref: the struct
 * @generation: set once
 * @base: the snapshot at which it began, if another generation went before; set
 *	once
 * @sectors: size of the origin; set once
 * @block_shift: log2 of the block in sectors; set once
 * @blocks: how many; set once
 * @lock: protects changes of @number, @mark and @ended against cbt_map_dirty()
 * @number: of the last snapshot
 * @mark: of the interval that is under way; changes only while the gate is
 *	closed and drained
 * @ended: another generation has taken its place
 * @broken: continuity was lost: no snapshot may be taken of it any more
 * @freezing: a copy is being made, so touched pages are noted
 * @touched: one bit for each page of @bytes
 * @bytes: one for each block. Written without a lock, each by one plain store
 */
struct cbt_map {
	struct kref kref;
	uuid_t generation;
	struct cbt_id base;
	sector_t sectors;
	unsigned int block_shift;
	u64 blocks;
	spinlock_t lock;	/* protects the next three */
	unsigned int number;
	u8 mark;
	bool ended;
	bool broken;
	bool freezing;
	unsigned long *touched;
	u8 *bytes;
};

/**
 * struct cbt_frozen - the change map as it was at a take
 * @id: the snapshot
 * @base: see struct cbt_map
 * @block_shift: log2 of the block in sectors
 * @blocks: how many
 * @bytes: one for each block
 *
 * Does not change any more when its snapshot's image is there.
 */
struct cbt_frozen {
	struct cbt_id id;
	struct cbt_id base;
	unsigned int block_shift;
	u64 blocks;
	u8 *bytes;
};

/**
 * struct cbt_freeze - a take under way
 * @map: a reference
 * @frozen: the copy; the image's as soon as it was handed out
 * @next: the map of the next generation, if @map ends with this snapshot;
 *	the tracker's as soon as it was put in place
 * @replaced: @next is in place of @map, whose reference the tracker has given up
 */
struct cbt_freeze {
	struct cbt_map *map;
	struct cbt_frozen *frozen;
	struct cbt_map *next;
	bool replaced;
};

/**
 * cbt_map_pick() - the block size
 * @sectors: size of the origin
 * @wanted: in bytes; 0 leaves the choice
 * @picked: the answer, in bytes
 *
 * Context: any. Return: 0, or -EINVAL when the map would outgrow cbt_map_limit.
 */
int cbt_map_pick(sector_t sectors, u64 wanted, u64 *picked);

/**
 * cbt_map_bound() - the limit of one map, in bytes. Context: any.
 */
u64 cbt_map_bound(void);

/**
 * cbt_map_create() - the empty map of a new generation
 * @sectors: size of the origin
 * @block_size: in bytes, a power of two of at least one sector
 * @base: the snapshot at which the generation begins, or NULL
 *
 * Context: may sleep. Return: the map, with one reference, or NULL.
 */
struct cbt_map *cbt_map_create(sector_t sectors, u64 block_size,
			       const struct cbt_id *base);

/**
 * cbt_map_put() - gives a reference back. Context: may sleep.
 * @map: the map
 */
void cbt_map_put(struct cbt_map *map);

/**
 * cbt_map_mark() - sectors change in the interval that is under way
 * @map: the map
 * @first: first sector
 * @last: last sector, inside the origin
 *
 * Context: the RCU section in which the gate passes the write, so that the take
 * waits for it; any.
 */
void cbt_map_mark(struct cbt_map *map, sector_t first, sector_t last);

/**
 * cbt_map_dirty() - sectors count as changed, though nobody writes them
 * @map: the map
 * @first: first sector
 * @last: last sector, inside the origin
 *
 * Context: may sleep. Return: false if another map has taken the place of this.
 */
bool cbt_map_dirty(struct cbt_map *map, sector_t first, sector_t last);

/**
 * cbt_freeze_prepare() - allocates what a take needs
 * @map: the caller gives its reference away
 *
 * Context: may sleep; one at a time for a map. Return: to be ended by
 * cbt_freeze_end(); or NULL: no memory, the reference given back.
 */
struct cbt_freeze *cbt_freeze_prepare(struct cbt_map *map);

/**
 * cbt_freeze_start() - from now on touched pages are noted
 * @freeze: prepared. A grace period has to pass before cbt_freeze_copy().
 *
 * Context: any.
 */
void cbt_freeze_start(struct cbt_freeze *freeze);

/**
 * cbt_freeze_copy() - copies the map, while writes go on
 * @freeze: started. Context: may sleep.
 */
void cbt_freeze_copy(struct cbt_freeze *freeze);

/**
 * cbt_freeze_recopy() - copies what was touched since
 * @freeze: copied; the gate is closed and drained, so that only cbt_map_dirty()
 *	can still touch anything
 *
 * Context: any.
 */
void cbt_freeze_recopy(struct cbt_freeze *freeze);

/**
 * cbt_freeze_finish() - the instant of the take
 * @freeze: copied again; the gate is still closed
 *
 * The interval ends, and the next one begins. Context: any but interrupts.
 */
void cbt_freeze_finish(struct cbt_freeze *freeze);

/**
 * cbt_freeze_end() - frees what the take did not hand out
 * @freeze: at any stage; the gate is open
 *
 * Context: may sleep.
 */
void cbt_freeze_end(struct cbt_freeze *freeze);

/**
 * cbt_frozen_mark() - sectors count as changed in the interval that just ended
 * @frozen: of a take that has not made its images yet
 * @first: first sector
 * @last: last sector, inside the origin
 *
 * Context: any.
 */
void cbt_frozen_mark(struct cbt_frozen *frozen, sector_t first, sector_t last);

/**
 * cbt_frozen_free() - frees it. Context: may sleep.
 * @frozen: nobody reads it any more; or NULL
 */
void cbt_frozen_free(struct cbt_frozen *frozen);

/**
 * cbt_id_is() - is there such a snapshot at all? Context: any.
 * @id: the snapshot
 */
static inline bool cbt_id_is(const struct cbt_id *id)
{
	return !uuid_is_null(&id->generation);
}

#endif
