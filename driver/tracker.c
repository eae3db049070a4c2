// SPDX-License-Identifier: GPL-2.0
/*
 * A tracker follows one origin: a range of a disk. It shows each write of that
 * range to the diff areas that are armed on it, one for each session, and marks
 * it in the change map, if there is one, in the section that passes it.
 */
#include <linux/blkdev.h>
#include <linux/mutex.h>
#include <linux/rculist.h>
#include <linux/rwsem.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "cbt_map.h"
#include "compat/bdev.h"
#include "diff_area.h"
#include "filter.h"
#include "gate.h"
#include "preserve.h"
#include "starved.h"
#include "tracker.h"

/**
 * struct tracker - one origin
 * @watcher: the range, and how the gate finds us
 * @gate: of the disk; set once
 * @node: in trackers
 * @disk: of the origin; set once, kept by the gate
 * @partno: of the origin; set once. A partition can have all of its disk
 * @users: protected by trackers_mutex
 * @areas_sem: keeps what is in @areas for the gate's workers, who may wait for
 *	memory with it; so who arms an area, with gates closed, does not take it
 * @areas: armed ones; changed under @areas_lock, and taken from under @areas_sem
 *	as well; read under RCU or @areas_sem
 * @areas_lock: see @areas
 * @map_lock: protects changes of @map
 * @map: what changed, or NULL; holds a reference; read under RCU
 */
struct tracker {
	struct gate_watcher watcher;
	struct gate *gate;
	struct list_head node;
	struct gendisk *disk;
	unsigned int partno;
	unsigned int users;
	struct rw_semaphore areas_sem;
	struct list_head areas;
	spinlock_t areas_lock;	/* protects changes of @areas */
	spinlock_t map_lock;	/* protects changes of @map */
	struct cbt_map __rcu *map;
};

/*
 * Who makes a tracker or ends it holds the mutex, and may wait for a disk with
 * it; who only walks needs no more than the lock.
 */
static LIST_HEAD(trackers);	/* changed under both; read under either */
static DEFINE_MUTEX(trackers_mutex);
static DEFINE_SPINLOCK(trackers_lock);

/* Each area that is armed; the caller has areas_sem, or is under RCU. */
#define tracker_for_each_area(area, tracker)				\
	list_for_each_entry_rcu(area, &(tracker)->areas, node,		\
				lockdep_is_held(&(tracker)->areas_sem))

static struct tracker *to_tracker(struct gate_watcher *watcher)
{
	return container_of(watcher, struct tracker, watcher);
}

/* The part of a write that touches the origin, as sectors of the origin. */
static void tracker_clip(const struct tracker *tracker, sector_t *first,
			 sector_t *last)
{
	const struct gate_watcher *watcher = &tracker->watcher;

	*first = max(*first, watcher->first) - watcher->first;
	*last = min(*last, watcher->last) - watcher->first;
}

static bool tracker_takes_discards(const struct tracker *tracker)
{
	return bdev_max_discard_sectors(tracker->disk->part0);
}

/*
 * A discard is advisory. While everybody who needs the old content agrees, it
 * is not passed on, so that there is nothing to preserve.
 */
static bool tracker_drops_discards(const struct tracker *tracker)
{
	struct diff_area *area;
	bool drops = false;

	if (!tracker_takes_discards(tracker))
		return false;
	tracker_for_each_area(area, tracker) {
		if (diff_area_state(area) != DIFF_AREA_ACTIVE)
			continue;
		if (!area->config.drop_discards)
			return false;
		drops = true;
	}
	return drops;
}

static bool tracker_drops(const struct tracker *tracker, enum req_op op)
{
	return op == REQ_OP_DISCARD && tracker_drops_discards(tracker);
}

static bool tracker_satisfied(struct gate_watcher *watcher, enum req_op op,
			      sector_t first, sector_t last)
{
	struct tracker *tracker = to_tracker(watcher);
	struct diff_area *area;

	if (tracker_drops(tracker, op))
		return false;
	tracker_clip(tracker, &first, &last);
	tracker_for_each_area(area, tracker)
		if (!diff_area_may_pass(area, first, last))
			return false;
	return true;
}

static void __tracker_count_dropped(struct tracker *tracker, sector_t sectors)
{
	struct diff_area *area;

	lockdep_assert_held(&tracker->areas_sem);
	tracker_for_each_area(area, tracker)
		if (diff_area_state(area) == DIFF_AREA_ACTIVE)
			atomic64_add(sectors << SECTOR_SHIFT,
				     &area->stats.discards_dropped);
}

static enum gate_answer tracker_prepare(struct gate_watcher *watcher,
					struct origin_write *write,
					struct list_head *reads)
{
	struct tracker *tracker = to_tracker(watcher);
	enum gate_answer answer = GATE_READY;
	sector_t first = write->first, last = write->last;
	struct diff_area *area;

	tracker_clip(tracker, &first, &last);
	down_read(&tracker->areas_sem);
	if (tracker_drops(tracker, bio_op(write->bio))) {
		__tracker_count_dropped(tracker, last - first + 1);
		/* It may have been resumed, and needs no memory any more. */
		tracker_for_each_area(area, tracker)
			starved_resume_one(&area->starved);
		answer = GATE_DROPPED;
		goto out;
	}
	tracker_for_each_area(area, tracker) {
		answer = preserve_write(area, write, first, last,
					&tracker->areas, reads);
		if (answer != GATE_READY)
			break;
	}
out:
	up_read(&tracker->areas_sem);
	return answer;
}

static void tracker_passed(struct gate_watcher *watcher,
			   const struct origin_write *write)
{
	struct tracker *tracker = to_tracker(watcher);
	struct cbt_map *map = rcu_dereference(tracker->map);
	sector_t first = write->first, last = write->last;
	struct diff_area *area;

	if (map) {
		tracker_clip(tracker, &first, &last);
		cbt_map_mark(map, first, last);
	}
	tracker_for_each_area(area, tracker)
		diff_area_passed(area, write);
}

static const struct gate_watcher_ops tracker_ops = {
	.satisfied = tracker_satisfied,
	.prepare = tracker_prepare,
	.read = preserve_read,
	.passed = tracker_passed,
};

struct gate *tracker_gate(const struct tracker *tracker)
{
	return tracker->gate;
}

sector_t tracker_sectors(const struct tracker *tracker)
{
	return tracker->watcher.last - tracker->watcher.first + 1;
}

void tracker_arm(struct tracker *tracker, struct diff_area *area)
{
	diff_area_note_armed(area);
	spin_lock(&tracker->areas_lock);
	list_add_tail_rcu(&area->node, &tracker->areas);
	spin_unlock(&tracker->areas_lock);
}

void tracker_disarm(struct tracker *tracker, struct diff_area *area)
{
	down_write(&tracker->areas_sem);
	spin_lock(&tracker->areas_lock);
	list_del_rcu(&area->node);
	spin_unlock(&tracker->areas_lock);
	up_write(&tracker->areas_sem);
	synchronize_rcu();
}

static bool tracker_has_areas(const struct tracker *tracker)
{
	struct diff_area *area;
	bool has = false;

	rcu_read_lock();
	tracker_for_each_area(area, tracker)
		has |= diff_area_state(area) == DIFF_AREA_ACTIVE;
	rcu_read_unlock();
	return has;
}

bool tracker_disk_has_areas(const struct gendisk *disk)
{
	struct tracker *tracker;
	bool has = false;

	spin_lock(&trackers_lock);
	list_for_each_entry(tracker, &trackers, node)
		has |= tracker->disk == disk && tracker_has_areas(tracker);
	spin_unlock(&trackers_lock);
	return has;
}

/* The change map */

/* Return: the one that it replaces, to be put after a grace period. */
static struct cbt_map *__tracker_replace_map(struct tracker *tracker,
					     struct cbt_map *map)
{
	return rcu_replace_pointer(tracker->map, map,
				   lockdep_is_held(&tracker->map_lock));
}

void tracker_set_map(struct tracker *tracker, struct cbt_map *map)
{
	struct cbt_map *old;

	spin_lock(&tracker->map_lock);
	old = __tracker_replace_map(tracker, map);
	spin_unlock(&tracker->map_lock);
	if (!old)
		return;
	synchronize_rcu_expedited();
	cbt_map_put(old);
}

struct cbt_map *tracker_get_map(struct tracker *tracker)
{
	struct cbt_map *map;

	rcu_read_lock();
	map = rcu_dereference(tracker->map);
	/* The tracker's reference lasts for a grace period. */
	if (map)
		kref_get(&map->kref);
	rcu_read_unlock();
	return map;
}

void tracker_break_map(struct tracker *tracker)
{
	struct cbt_map *map;

	rcu_read_lock();
	map = rcu_dereference(tracker->map);
	if (map)
		WRITE_ONCE(map->broken, true);
	rcu_read_unlock();
}

bool tracker_map_is_broken(struct tracker *tracker)
{
	bool broken;

	rcu_read_lock();
	broken = READ_ONCE(rcu_dereference(tracker->map)->broken);
	rcu_read_unlock();
	return broken;
}

int tracker_prepare_freeze(struct tracker *tracker, struct cbt_freeze **freeze)
{
	struct cbt_map *map = tracker_get_map(tracker);

	*freeze = NULL;
	if (!map)
		return 0;
	*freeze = cbt_freeze_prepare(map);
	return *freeze ? 0 : -ENOMEM;
}

/* No write is passed now: a map that was taken away in time has missed some. */
static bool __tracker_may_freeze(struct tracker *tracker,
				 const struct cbt_freeze *freeze)
{
	lockdep_assert_held(&tracker->map_lock);
	return rcu_access_pointer(tracker->map) == freeze->map &&
	       !READ_ONCE(freeze->map->broken);
}

struct cbt_frozen *tracker_freeze(struct tracker *tracker,
				  struct cbt_freeze *freeze)
{
	struct cbt_frozen *frozen = NULL;

	cbt_freeze_recopy(freeze); /* most of it, with no lock held */
	spin_lock(&tracker->map_lock);
	if (!__tracker_may_freeze(tracker, freeze))
		goto out;
	cbt_freeze_finish(freeze);
	if (freeze->next) {
		__tracker_replace_map(tracker, freeze->next);
		freeze->next = NULL;
		freeze->replaced = true;
	}
	frozen = freeze->frozen;
	freeze->frozen = NULL;
out:
	spin_unlock(&tracker->map_lock);
	return frozen;
}

void tracker_mark_diff(struct tracker *tracker, struct cbt_frozen *frozen,
		       sector_t first, sector_t last)
{
	struct cbt_map *map;

	rcu_read_lock();
	map = rcu_dereference(tracker->map);
	if (map)
		cbt_map_mark(map, first, last);
	rcu_read_unlock();
	if (frozen)
		cbt_frozen_mark(frozen, first, last);
}

/* Life */

static struct tracker *tracker_find(struct block_device *origin,
				    sector_t sectors)
{
	sector_t first = origin->bd_start_sect;
	struct tracker *tracker;

	lockdep_assert_held(&trackers_mutex);
	list_for_each_entry(tracker, &trackers, node)
		if (tracker->disk == origin->bd_disk &&
		    tracker->partno == compat_bdev_partno(origin) &&
		    tracker->watcher.first == first &&
		    tracker_sectors(tracker) == sectors)
			return tracker;
	return NULL;
}

static struct tracker *tracker_create(struct block_device *origin,
				      sector_t sectors, unsigned long timeout)
{
	struct tracker *tracker;
	int ret;

	tracker = kzalloc(sizeof(*tracker), GFP_KERNEL);
	if (!tracker)
		return ERR_PTR(-ENOMEM);
	tracker->disk = origin->bd_disk;
	tracker->partno = compat_bdev_partno(origin);
	tracker->watcher.first = origin->bd_start_sect;
	tracker->watcher.last = origin->bd_start_sect + sectors - 1;
	tracker->watcher.ops = &tracker_ops;
	init_rwsem(&tracker->areas_sem);
	spin_lock_init(&tracker->areas_lock);
	INIT_LIST_HEAD(&tracker->areas);
	spin_lock_init(&tracker->map_lock);

	tracker->gate = gate_get(origin->bd_disk);
	ret = PTR_ERR_OR_ZERO(tracker->gate);
	if (ret)
		goto out;
	ret = gate_watch(tracker->gate, &tracker->watcher, timeout);
	if (ret)
		goto out_gate;
	return tracker;

out_gate:
	gate_put(tracker->gate);
out:
	kfree(tracker);
	return ERR_PTR(ret);
}

static void tracker_list(struct tracker *tracker)
{
	spin_lock(&trackers_lock);
	list_add_tail(&tracker->node, &trackers);
	spin_unlock(&trackers_lock);
}

struct tracker *tracker_get(struct block_device *origin, unsigned long timeout)
{
	struct tracker *tracker;
	sector_t sectors;

	mutex_lock(&trackers_mutex);
	sectors = bdev_nr_sectors(origin);
	tracker = tracker_find(origin, sectors);
	if (!sectors) {
		/* It went while it was open. */
		tracker = ERR_PTR(-ENODEV);
	} else if (!tracker) {
		tracker = tracker_create(origin, sectors, timeout);
		if (!IS_ERR(tracker))
			tracker_list(tracker);
	}
	if (!IS_ERR(tracker))
		tracker->users++;
	mutex_unlock(&trackers_mutex);
	return tracker;
}

const char *tracker_problem(int err)
{
	switch (err) {
	case -ENODEV:
		return "it is gone";
	case -ENXIO:
		return "its driver is being removed";
	case -ENOMEM:
		return "no memory";
	case -ETIMEDOUT:
		return "what was under way before did not end in time";
	default:
		return filter_problem(err);
	}
}

void tracker_put(struct tracker *tracker)
{
	mutex_lock(&trackers_mutex);
	if (!--tracker->users) {
		spin_lock(&trackers_lock);
		list_del(&tracker->node);
		spin_unlock(&trackers_lock);
		gate_unwatch(tracker->gate, &tracker->watcher);
		gate_put(tracker->gate);
		kfree(tracker);
	}
	mutex_unlock(&trackers_mutex);
}
