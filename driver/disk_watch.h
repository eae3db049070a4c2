/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_DISK_WATCH_H
#define BLKSNAP_DISK_WATCH_H

#include <linux/list.h>
#include <linux/types.h>

struct block_device;
struct gendisk;

/**
 * struct disk_watch - embedded in whoever must know what becomes of a device
 * @node: protected by the mutex of disk_watch.c, read under RCU
 * @disk: the disk; whoever watches keeps the struct, but does not open it
 * @dev: number of the device, as it was last seen: a partition may come back
 *	with another one; for who asks for the verdict
 * @partno: 0: the whole disk; set by disk_watch_add(), as are the next two
 * @first: its first sector, counted from the start of the disk
 * @last: its last sector
 * @flags: what was noticed; atomic bits
 * @event: something was noticed: ask disk_watch_verdict(). Called in any
 *	context, under RCU; it may be too early, what is about to happen has not
 *	happened yet then
 */
struct disk_watch {
	struct list_head node;
	struct gendisk *disk;
	dev_t dev;
	unsigned int partno;
	sector_t first;
	sector_t last;
	unsigned long flags;
	void (*event)(struct disk_watch *watch);
};

/**
 * enum disk_verdict - what has become of a watched device
 * @DISK_SAME: nothing that matters
 * @DISK_RENEWED: it is where it was, but may have other content
 * @DISK_GROWN: it has more sectors
 * @DISK_LOST: it is gone, or for a moment was, or it has fewer sectors, or others,
 *	or another medium
 * @DISK_BUSY: its partition table is being changed: it is to be asked again
 */
enum disk_verdict { DISK_SAME, DISK_RENEWED, DISK_GROWN, DISK_LOST, DISK_BUSY };

/* After how many milliseconds, where it is DISK_BUSY. */
#define DISK_WATCH_AGAIN_MS 20

/**
 * disk_watch_init() - finds the functions to be watched
 *
 * Context: module init. Return: 0 or an errno of ftrace.
 */
int disk_watch_init(void);

/**
 * disk_watch_exit() - undoes disk_watch_init()
 *
 * Context: module exit; nobody watches any more.
 */
void disk_watch_exit(void);

/**
 * disk_watch_add() - starts to watch a device
 * @watch: @event is set
 * @bdev: the device; the caller holds it open, but only now
 * @sectors: how many it had when its user looked
 *
 * What has changed since then no event tells: the user asks for the verdict once
 * without. Context: may sleep. Return: 0 or an errno of ftrace or the driver core.
 */
int disk_watch_add(struct disk_watch *watch, struct block_device *bdev,
		   sector_t sectors);

/**
 * disk_watch_del() - ends it
 * @watch: when this returns, @event is not running any more
 *
 * Context: may sleep.
 */
void disk_watch_del(struct disk_watch *watch);

/**
 * disk_watch_is_lost() - will the verdict be DISK_LOST, whatever comes?
 * @watch: the watch
 *
 * Context: any, also that of @event. Return: false if that is not certain yet.
 */
bool disk_watch_is_lost(const struct disk_watch *watch);

/**
 * disk_watch_verdict() - what has become of it since the last time
 * @watch: the watch; one caller at a time
 *
 * Waits for nobody, since a disk that hangs can keep for ever who reads its
 * partition table. Context: any but an interrupt.
 */
enum disk_verdict disk_watch_verdict(struct disk_watch *watch);

#endif
