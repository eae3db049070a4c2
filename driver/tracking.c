// SPDX-License-Identifier: GPL-2.0
/*
 * The change tracking of an origin, as the administrator sees it: it outlives
 * sessions, and does not hold the device open.
 *
 * While it is active it uses the tracker of the origin's range, as each session
 * does, and has given it a change map. What becomes of the device is noticed by
 * a watch, which takes away at once the right to freeze the map
 * (tracker_break_map()); what follows from it is decided here, by a work, or by
 * whoever looks first: a take (tracking_settle()), or a reader of the state.
 *
 *   it has more sectors         a new generation, with the new size
 *   it may have other content   a new generation
 *   it is gone, or has fewer    lost: everything is given back, the state stays
 *
 * What was frozen before stays valid for its image in all cases.
 *
 * I1: nothing here delays a write. I7: the device is not held open; its struct
 * and the module of its driver are, by the gate, until it is lost or disabled.
 * I8: a loss is a state, a text, a log line and an event.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blkdev.h>
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/mutex.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/wait.h>

#include "compat/work.h"
#include "event.h"
#include "origin.h"
#include "tracker.h"
#include "tracking.h"
#include "value.h"

#define BLOCK_SIZE_MIN SZ_4K
#define BLOCK_SIZE_MAX SZ_64M
#define LOOK_MS 1000	/* for who reads a partition table meanwhile */
#define ATTACH_MS 5000	/* for what a queue has when its disk is first followed */

static LIST_HEAD(trackings);	/* protected by trackings_mutex */
static DEFINE_MUTEX(trackings_mutex);	/* protects all of them */
static unsigned int trackings_unsure;	/* the sum; changed with the mutex */
static DECLARE_WAIT_QUEUE_HEAD(trackings_looked);

/* The state */

const char *tracking_state_name(enum tracking_state state)
{
	static const char *const names[] = {
		[TRACKING_CONFIGURED] = "configured",
		[TRACKING_ACTIVE] = "tracking",
		[TRACKING_LOST] = "lost",
	};

	return names[state];
}

/* configured <-> active -> lost -> configured */
static void tracking_set_state(struct tracking *tracking,
			       enum tracking_state state)
{
	lockdep_assert_held(&trackings_mutex);
	WARN_ON_ONCE(tracking->state == state ||
		     (state == TRACKING_LOST &&
		      tracking->state != TRACKING_ACTIVE) ||
		     (state == TRACKING_ACTIVE &&
		      tracking->state != TRACKING_CONFIGURED));
	tracking->state = state;
}

static int tracking_refuse_enabled(struct tracking *tracking)
{
	lockdep_assert_held(&trackings_mutex);
	if (tracking->state == TRACKING_CONFIGURED)
		return 0;
	return error_set(&tracking->error, tracking->name, -EBUSY,
			 "the tracker is enabled");
}

/* To begin, and to end */

static struct cbt_map *tracking_create_map(struct tracking *tracking,
					   sector_t sectors)
{
	struct cbt_map *map;
	int ret;

	ret = cbt_map_pick(sectors, tracking->block_size, &tracking->picked);
	if (ret) {
		error_set(&tracking->error, tracking->name, ret,
			  "blocks of %llu bytes make a map of more than %llu bytes (cbt_map_limit)",
			  tracking->block_size, cbt_map_bound());
		return ERR_PTR(ret);
	}
	map = cbt_map_create(sectors, tracking->picked, NULL);
	if (map)
		return map;
	error_set(&tracking->error, tracking->name, -ENOMEM,
		  "no memory for the change map");
	return ERR_PTR(-ENOMEM);
}

/*
 * Twins are refused before that. But the device may have become another one, for
 * which that does not hold, before it was watched.
 */
static int tracking_check_alone(struct tracking *tracking)
{
	struct cbt_map *map = tracker_get_map(tracking->tracker);

	if (!map)
		return 0;
	cbt_map_put(map);
	return error_set(&tracking->error, tracking->name, -EEXIST,
			 "%s is tracked by another one already",
			 tracking->device);
}

static int tracking_watch(struct tracking *tracking, struct block_device *bdev)
{
	int ret = disk_watch_add(&tracking->watch, bdev,
				 tracker_sectors(tracking->tracker));

	if (ret)
		error_set(&tracking->error, tracking->name, ret,
			  "cannot watch %s", tracking->device);
	return ret;
}

static int tracking_follow(struct tracking *tracking, struct block_device *bdev)
{
	int ret;

	tracking->tracker = tracker_get(bdev, msecs_to_jiffies(ATTACH_MS));
	ret = PTR_ERR_OR_ZERO(tracking->tracker);
	if (ret)
		return error_set(&tracking->error, tracking->name, ret,
				 "cannot follow the writes of %s: %s",
				 tracking->device, tracker_problem(ret));
	ret = tracking_check_alone(tracking) ?: tracking_watch(tracking, bdev);
	if (ret)
		tracker_put(tracking->tracker);
	return ret;
}

/*
 * A partition table that is being read takes a moment, or for ever where the disk
 * hangs; what becomes of its partition cannot be told meanwhile.
 */
static void __tracking_set_unsure(struct tracking *tracking, bool unsure)
{
	lockdep_assert_held(&trackings_mutex);
	if (tracking->unsure == unsure)
		return;
	WRITE_ONCE(trackings_unsure, trackings_unsure - tracking->unsure + unsure);
	WRITE_ONCE(tracking->unsure, unsure);
	wake_up_all(&trackings_looked);
}

static void tracking_detach(struct tracking *tracking)
{
	__tracking_set_unsure(tracking, false);
	disk_watch_del(&tracking->watch);
	tracker_set_map(tracking->tracker, NULL);
	tracker_put(tracking->tracker);
	tracking->tracker = NULL;
}

static int tracking_attach(struct tracking *tracking, struct block_device *bdev)
{
	struct cbt_map *map;
	int ret;

	ret = tracking_follow(tracking, bdev);
	if (ret)
		return ret;
	map = tracking_create_map(tracking, tracker_sectors(tracking->tracker));
	if (IS_ERR(map)) {
		tracking_detach(tracking);
		return PTR_ERR(map);
	}
	tracker_set_map(tracking->tracker, map);
	/* In case that the size has changed before it was watched. */
	queue_delayed_work(compat_unbound_wq(), &tracking->work, 0);
	return 0;
}

static int __tracking_refuse_twin(struct tracking *tracking,
				  const struct origin_id *id)
{
	struct tracking *other;

	lockdep_assert_held(&trackings_mutex);
	list_for_each_entry(other, &trackings, node)
		if (other != tracking && other->device &&
		    origin_same_id(&other->id, id))
			return error_set(&tracking->error, tracking->name,
					 -EEXIST,
					 "device %u:%u is tracked by %s already",
					 MAJOR(id->dev), MINOR(id->dev),
					 other->name);
	return 0;
}

/*
 * The device is open only for as long as it is being attached to. What the number
 * is of now may be another one than when it was named: that begins anew.
 */
static int __tracking_start(struct tracking *tracking, struct block_device *bdev)
{
	struct origin_id id;
	int ret;

	lockdep_assert_held(&trackings_mutex);
	origin_get_id(bdev, &id);
	ret = __tracking_refuse_twin(tracking, &id);
	if (!ret)
		ret = tracking_attach(tracking, bdev);
	/* What it has become until it was watched. */
	if (!ret)
		origin_get_id(bdev, &tracking->id);
	return ret;
}

static int __tracking_may_enable(struct tracking *tracking)
{
	int ret = tracking_refuse_enabled(tracking);

	if (!ret && !tracking->device)
		ret = error_set(&tracking->error, tracking->name, -EINVAL,
				"device is not set");
	return ret;
}

static int __tracking_enable(struct tracking *tracking, struct block_device *bdev)
{
	u64 picked = tracking->picked;
	int ret = __tracking_may_enable(tracking);

	if (ret)
		return ret;
	if (tracking->id.dev != bdev->bd_dev)
		return error_set(&tracking->error, tracking->name, -EBUSY,
				 "device has been set meanwhile");
	ret = __tracking_start(tracking, bdev);
	if (ret) {
		tracking->picked = picked;
		return ret;
	}
	tracking_set_state(tracking, TRACKING_ACTIVE);
	error_clear(&tracking->error);
	return 0;
}

/* Opened, and closed, without the mutex: that takes long where the device hangs. */
int tracking_enable(struct tracking *tracking)
{
	struct origin origin;
	dev_t dev;
	int ret;

	mutex_lock(&trackings_mutex);
	ret = __tracking_may_enable(tracking);
	dev = tracking->id.dev;
	mutex_unlock(&trackings_mutex);
	if (ret)
		return ret;
	ret = origin_open(&origin, dev, &tracking->error, tracking->name);
	if (ret)
		return ret;
	mutex_lock(&trackings_mutex);
	ret = __tracking_enable(tracking, origin.handle.bdev);
	mutex_unlock(&trackings_mutex);
	origin_close(&origin);
	return ret;
}

bool tracking_disable(struct tracking *tracking)
{
	bool was_enabled;

	mutex_lock(&trackings_mutex);
	was_enabled = tracking->state != TRACKING_CONFIGURED;
	if (tracking->state == TRACKING_ACTIVE)
		tracking_detach(tracking);
	if (was_enabled)
		tracking_set_state(tracking, TRACKING_CONFIGURED);
	mutex_unlock(&trackings_mutex);
	return was_enabled;
}

/* What becomes of the origin */

static void __tracking_lose(struct tracking *tracking)
{
	lockdep_assert_held(&trackings_mutex);
	tracking_set_state(tracking, TRACKING_LOST);
	event_tracking_lost(tracking->name, tracking->id.dev);
}

static void __tracking_lose_origin(struct tracking *tracking)
{
	lockdep_assert_held(&trackings_mutex);
	tracking_detach(tracking);
	error_set(&tracking->error, tracking->name, -ENODEV,
		  "%s is gone, or is not what it was: tracking has ended",
		  tracking->device);
	__tracking_lose(tracking);
}

static int __tracking_restart(struct tracking *tracking)
{
	struct origin origin;
	int ret = origin_open(&origin, tracking->id.dev, &tracking->error,
			      tracking->name);

	if (ret)
		return ret;
	ret = __tracking_start(tracking, origin.handle.bdev);
	origin_close(&origin);
	return ret;
}

static void __tracking_grow(struct tracking *tracking)
{
	lockdep_assert_held(&trackings_mutex);
	pr_notice("%s: %s has grown: a new generation begins\n", tracking->name,
		  tracking->device);
	tracking_detach(tracking);
	if (__tracking_restart(tracking))
		__tracking_lose(tracking);
}

static void __tracking_renew(struct tracking *tracking)
{
	sector_t sectors = tracking->watch.last - tracking->watch.first + 1;
	struct cbt_map *map;

	lockdep_assert_held(&trackings_mutex);
	pr_notice("%s: what is below %s has been replaced: a new generation begins\n",
		  tracking->name, tracking->device);
	map = tracking_create_map(tracking, sectors);
	if (!IS_ERR(map)) {
		tracker_set_map(tracking->tracker, map);
		return;
	}
	tracking_detach(tracking);
	__tracking_lose(tracking);
}

static void __tracking_look(struct tracking *tracking)
{
	enum disk_verdict verdict;

	lockdep_assert_held(&trackings_mutex);
	if (tracking->state != TRACKING_ACTIVE)
		return;
	verdict = disk_watch_verdict(&tracking->watch);
	tracking->id.dev = tracking->watch.dev;
	__tracking_set_unsure(tracking, verdict == DISK_BUSY);
	switch (verdict) {
	case DISK_BUSY:
		queue_delayed_work(compat_unbound_wq(), &tracking->work,
				   msecs_to_jiffies(DISK_WATCH_AGAIN_MS));
		break;
	case DISK_SAME:
		/* Broken by an event that was dealt with before it did so. */
		if (tracker_map_is_broken(tracking->tracker))
			__tracking_renew(tracking);
		break;
	case DISK_RENEWED:
		__tracking_renew(tracking);
		break;
	case DISK_GROWN:
		__tracking_grow(tracking);
		break;
	case DISK_LOST:
		__tracking_lose_origin(tracking);
		break;
	}
}

static void tracking_work(struct work_struct *work)
{
	struct tracking *tracking = container_of(to_delayed_work(work),
						 struct tracking, work);

	mutex_lock(&trackings_mutex);
	__tracking_look(tracking);
	mutex_unlock(&trackings_mutex);
}

/* Lets go of the mutex until the works can tell, of one or of all; not for ever. */
static void tracking_wait(const unsigned int *unsure)
{
	lockdep_assert_held(&trackings_mutex);
	mutex_unlock(&trackings_mutex);
	wait_event_timeout(trackings_looked, !READ_ONCE(*unsure),
			   msecs_to_jiffies(LOOK_MS));
	mutex_lock(&trackings_mutex);
}

static void tracking_look(struct tracking *tracking)
{
	__tracking_look(tracking);
	tracking_wait(&tracking->unsure);
}

/*
 * A partition whose table is being read anew will mostly be the same: its map
 * is not broken by that alone, since its disk's gate sees every write meanwhile.
 */
static void tracking_noticed(struct disk_watch *watch)
{
	struct tracking *tracking = container_of(watch, struct tracking, watch);

	if (READ_ONCE(watch->flags))
		tracker_break_map(tracking->tracker);
	queue_delayed_work(compat_unbound_wq(), &tracking->work, 0);
}

void tracking_settle(void)
{
	struct tracking *tracking;

	mutex_lock(&trackings_mutex);
	list_for_each_entry(tracking, &trackings, node)
		__tracking_look(tracking);
	tracking_wait(&trackings_unsure);
	mutex_unlock(&trackings_mutex);
}

/* Configuring */

void tracking_add(struct tracking *tracking, const char *name)
{
	strscpy(tracking->name, name, sizeof(tracking->name));
	error_init(&tracking->error);
	INIT_DELAYED_WORK(&tracking->work, tracking_work);
	tracking->watch.event = tracking_noticed;
	mutex_lock(&trackings_mutex);
	list_add_tail(&tracking->node, &trackings);
	mutex_unlock(&trackings_mutex);
}

void tracking_remove(struct tracking *tracking)
{
	mutex_lock(&trackings_mutex);
	list_del(&tracking->node);
	mutex_unlock(&trackings_mutex);
	/* Nothing is watched, so that nothing queues it any more. */
	cancel_delayed_work_sync(&tracking->work);
	kfree(tracking->device);
}

ssize_t tracking_show_device(struct tracking *tracking, char *page)
{
	ssize_t len = 0;

	mutex_lock(&trackings_mutex);
	if (tracking->device)
		len = sysfs_emit(page, "%s\n", tracking->device);
	mutex_unlock(&trackings_mutex);
	return len;
}

static int __tracking_set_device(struct tracking *tracking, const char *path,
				 const struct origin_id *id)
{
	int ret;

	lockdep_assert_held(&trackings_mutex);
	ret = tracking_refuse_enabled(tracking);
	if (!ret)
		ret = __tracking_refuse_twin(tracking, id);
	if (!ret)
		ret = value_keep(&tracking->device, path, "device",
				 &tracking->error, tracking->name);
	if (!ret)
		tracking->id = *id;
	return ret;
}

/*
 * A path is looked up without the mutex, as in session_look_idle(), and the device
 * opened, which takes long where it hangs.
 */
int tracking_set_device(struct tracking *tracking, const char *path)
{
	struct origin_id id;
	dev_t dev;
	int ret;

	mutex_lock(&trackings_mutex);
	ret = tracking_refuse_enabled(tracking);
	mutex_unlock(&trackings_mutex);
	if (ret)
		return ret;
	ret = origin_resolve(path, MAY_READ, &dev);
	if (ret)
		return origin_refuse_path(path, ret, &tracking->error,
					  tracking->name);
	ret = origin_try(dev, &id, &tracking->error, tracking->name);
	if (ret)
		return ret;
	mutex_lock(&trackings_mutex);
	ret = __tracking_set_device(tracking, path, &id);
	mutex_unlock(&trackings_mutex);
	return ret;
}

int tracking_set_block_size(struct tracking *tracking, u64 bytes)
{
	int ret;

	mutex_lock(&trackings_mutex);
	ret = tracking_refuse_enabled(tracking);
	if (ret)
		goto out;
	if (bytes && (bytes < BLOCK_SIZE_MIN || bytes > BLOCK_SIZE_MAX ||
		      !is_power_of_2(bytes))) {
		ret = error_set(&tracking->error, tracking->name, -EINVAL,
				"block_size %llu is not 0 nor a power of two from %u to %u",
				bytes, BLOCK_SIZE_MIN, BLOCK_SIZE_MAX);
		goto out;
	}
	tracking->block_size = bytes;
	tracking->picked = bytes;
out:
	mutex_unlock(&trackings_mutex);
	return ret;
}

/* What is asked of one that is active */

void tracking_status(struct tracking *tracking, struct tracking_status *status)
{
	struct cbt_map *map = NULL;

	memset(status, 0, sizeof(*status));
	mutex_lock(&trackings_mutex);
	tracking_look(tracking);
	status->state = tracking->state;
	status->block_size = tracking->picked;
	if (tracking->state == TRACKING_ACTIVE)
		map = tracker_get_map(tracking->tracker);
	mutex_unlock(&trackings_mutex);
	if (!map)
		return;
	status->id.generation = map->generation;
	status->id.number = READ_ONCE(map->number);
	cbt_map_put(map);
}

static bool tracking_has_range(const struct tracking *tracking,
			       const struct tracking_range *range)
{
	u64 size = (tracking->watch.last - tracking->watch.first + 1)
		   << SECTOR_SHIFT;

	return range->length && range->length <= size &&
	       range->offset <= size - range->length;
}

static void __tracking_dirty(struct tracking *tracking,
			     const struct tracking_range *range)
{
	sector_t first = range->offset >> SECTOR_SHIFT;
	sector_t last = (range->offset + range->length - 1) >> SECTOR_SHIFT;
	struct cbt_map *map;
	bool done;

	/* A take may begin another generation meanwhile. */
	do {
		map = tracker_get_map(tracking->tracker);
		done = cbt_map_dirty(map, first, last);
		cbt_map_put(map);
	} while (!done);
}

int tracking_dirty(struct tracking *tracking, const struct tracking_range *ranges,
		   unsigned int nr)
{
	unsigned int i;
	int ret = 0;

	mutex_lock(&trackings_mutex);
	tracking_look(tracking);
	if (tracking->state != TRACKING_ACTIVE)
		ret = error_set(&tracking->error, tracking->name, -EINVAL,
				"dirty: the tracker is not tracking");
	for (i = 0; !ret && i < nr; i++)
		if (!tracking_has_range(tracking, &ranges[i]))
			ret = error_set(&tracking->error, tracking->name,
					-ERANGE,
					"dirty: %llu %llu is empty or beyond the end of %s",
					ranges[i].offset, ranges[i].length,
					tracking->device);
	for (i = 0; !ret && i < nr; i++)
		__tracking_dirty(tracking, &ranges[i]);
	mutex_unlock(&trackings_mutex);
	return ret;
}
