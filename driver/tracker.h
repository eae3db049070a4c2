/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_TRACKER_H
#define BLKSNAP_TRACKER_H

#include <linux/types.h>

struct block_device;
struct cbt_freeze;
struct cbt_frozen;
struct cbt_map;
struct diff_area;
struct gendisk;
struct gate;
struct tracker;

/**
 * tracker_get() - the tracker of an origin, made if it has none
 * @origin: a whole disk or a partition; the caller holds it open
 * @timeout: in jiffies, see gate_watch()
 *
 * From its return on each write to the origin is seen. Context: may sleep.
 * Return: the tracker, or an ERR_PTR: -ENOMEM, -ETIMEDOUT, or what filter_get()
 * says.
 */
struct tracker *tracker_get(struct block_device *origin, unsigned long timeout);

/**
 * tracker_problem() - what a refusal of tracker_get() means
 * @err: the errno
 *
 * Context: any. Return: the reason in words, for an administrator.
 */
const char *tracker_problem(int err);

/**
 * tracker_put() - gives a tracker back. Context: may sleep.
 * @tracker: from tracker_get()
 */
void tracker_put(struct tracker *tracker);

/**
 * tracker_gate() - the gate of the origin's disk. Context: any.
 * @tracker: the tracker
 */
struct gate *tracker_gate(const struct tracker *tracker);

/**
 * tracker_sectors() - how large the origin was when it was first followed
 * @tracker: the tracker
 *
 * Whoever follows it takes the size from here: it may have changed since.
 * Context: any.
 */
sector_t tracker_sectors(const struct tracker *tracker);

/**
 * tracker_disk_has_areas() - is an active area armed on any part of a disk?
 * @disk: the disk. Context: may sleep.
 */
bool tracker_disk_has_areas(const struct gendisk *disk);

/**
 * tracker_arm() - from now on writes are preserved in an area
 * @tracker: its gate is closed and drained
 * @area: an area of this origin
 *
 * Context: may sleep; does not allocate.
 */
void tracker_arm(struct tracker *tracker, struct diff_area *area);

/**
 * tracker_disarm() - ends tracker_arm()
 * @tracker: the tracker
 * @area: when this returns no write is shown to it any more
 *
 * Context: may sleep.
 */
void tracker_disarm(struct tracker *tracker, struct diff_area *area);

/**
 * tracker_set_map() - begins, begins anew, or ends to mark what changes
 * @tracker: the tracker
 * @map: of the tracker's range; the caller gives his reference away. NULL: the
 *	end
 *
 * A take that has begun does not freeze the map that was there before.
 * Context: may sleep.
 */
void tracker_set_map(struct tracker *tracker, struct cbt_map *map);

/**
 * tracker_get_map() - the change map
 * @tracker: the tracker
 *
 * Context: any. Return: a reference, to be given back by cbt_map_put(); or NULL
 * if there is none.
 */
struct cbt_map *tracker_get_map(struct tracker *tracker);

/**
 * tracker_break_map() - from now on no snapshot has a part of this map
 * @tracker: the tracker; what changed can no longer be told. Context: any.
 */
void tracker_break_map(struct tracker *tracker);

/**
 * tracker_map_is_broken() - has it been broken? Context: any.
 * @tracker: the tracker, which has a map
 */
bool tracker_map_is_broken(struct tracker *tracker);

/**
 * tracker_prepare_freeze() - allocates what a take needs of the change map
 * @tracker: the tracker
 * @freeze: the answer; NULL if there is no map
 *
 * Context: may sleep; one take at a time. Return: 0 or -ENOMEM.
 */
int tracker_prepare_freeze(struct tracker *tracker, struct cbt_freeze **freeze);

/**
 * tracker_freeze() - the instant: the change map is frozen, an interval begins
 * @tracker: its gate is closed and drained
 * @freeze: copied by cbt_freeze_copy()
 *
 * Context: may sleep; does not allocate. Return: the frozen map, to be freed by
 * the caller; or NULL if the map has been broken or replaced since @freeze was
 * prepared.
 */
struct cbt_frozen *tracker_freeze(struct tracker *tracker,
				  struct cbt_freeze *freeze);

/**
 * tracker_mark_diff() - a range of a difference storage lies on the origin
 * @tracker: frozen by a take that is still under way
 * @frozen: what tracker_freeze() has returned; NULL is fine
 * @first: first sector of the origin
 * @last: last sector, inside the origin
 *
 * The image reads it as zeroes, so it counts as changed in the interval that has just ended, and, as
 * the next image may read something else there, in the one that begins. To be
 * called for each such range, at every take of the origin. Context: any.
 */
void tracker_mark_diff(struct tracker *tracker, struct cbt_frozen *frozen,
		       sector_t first, sector_t last);

#endif
