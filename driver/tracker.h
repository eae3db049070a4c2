/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_TRACKER_H
#define BLKSNAP_TRACKER_H

#include <linux/types.h>

struct block_device;
struct diff_area;
struct gendisk;
struct gate;
struct tracker;

/**
 * tracker_get() - the tracker of an origin, made if it has none
 * @origin: a whole disk or a partition; the caller holds it open
 * @deadline: in jiffies, see gate_watch()
 *
 * From its return on each write to the origin is seen. Context: may sleep.
 * Return: the tracker, or an ERR_PTR: -ENOMEM, -ETIMEDOUT, or what filter_get()
 * says.
 */
struct tracker *tracker_get(struct block_device *origin, unsigned long deadline);

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

#endif
