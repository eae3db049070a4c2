// SPDX-License-Identifier: GPL-2.0
/*
 * The take: from a configured session to an active one, and back.
 *
 * Everything that can be allocated is, before anything is frozen. Then, with
 * the origins in an order in which what is stacked on top comes first:
 *
 *   sync, freeze        so that file systems are consistent, and quiet; change
 *                       maps are copied in between
 *   close, drain        the gates: what was not passed by now waits; what was
 *                       passed completes. Top down, since what drains from an
 *                       upper device has to pass the gates of lower ones
 *   arm                 the areas: the instant of the snapshot; change maps
 *                       are frozen
 *   open, thaw          bottom up
 *   add                 the image disks
 *
 * Gates have a deadline, take_timeout_ms: I1. On any failure the steps are
 * undone in reverse order, and nothing is armed.
 *
 * A write that depends on another one is submitted after that is complete. So
 * either the other was still held when the gates were closed, and then this one
 * does not exist; or it was drained, and is in the image of its origin.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/list_sort.h>
#include <linux/moduleparam.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "compat/work.h"
#include "cbt_map.h"
#include "diff_storage.h"
#include "event.h"
#include "gate.h"
#include "image.h"
#include "memory.h"
#include "session_storage.h"
#include "snapshot.h"
#include "sysfs.h"
#include "take.h"
#include "tracker.h"
#include "tracking.h"

/* A granule larger than this part of the memory limit could starve itself. */
#define GRANULE_SHARE 4

static unsigned int take_timeout_ms = 5000;
module_param(take_timeout_ms, uint, 0644);
MODULE_PARM_DESC(take_timeout_ms,
		 "How long a take may hold writes before it gives up (default: 5000)");

static LIST_HEAD(active_sessions);	/* protected by take_mutex */
static DEFINE_MUTEX(take_mutex);	/* one take, or end of one, at a time */

static int take_error(struct session *session, int err, const char *why)
{
	return error_set(&session->error, session->name, err, "%s", why);
}

/* A snapshot's refusal is the session's too. */
static int take_blame(struct snapshot *snapshot, int err)
{
	error_copy(&snapshot->session->error, &snapshot->error);
	return err;
}

static unsigned long take_deadline(void)
{
	/* What is more is no time for msecs_to_jiffies(), but for ever. */
	return jiffies + msecs_to_jiffies(min_t(unsigned int, INT_MAX,
						READ_ONCE(take_timeout_ms)));
}

/* Step: everything is configured */

static int take_check_configured(struct session *session)
{
	struct snapshot *snapshot;

	if (list_empty(&session->snapshots))
		return take_error(session, -EINVAL, "it has no snapshots");
	if (!session->diff_file)
		return take_error(session, -EINVAL, "diff_file is not set");
	list_for_each_entry(snapshot, &session->snapshots, node)
		if (!snapshot->device)
			return take_blame(snapshot,
					  error_set(&snapshot->error,
						    snapshot->label, -EINVAL,
						    "device is not set"));
	return 0;
}

/* Step: the origins are open, in the order of the take */

/*
 * What is stacked on another one has more layers below it; and a program that
 * serves a device may have its files on any other one.
 */
static int origin_top_down(void *priv, const struct list_head *a,
			   const struct list_head *b)
{
	const struct snapshot *one = list_entry(a, struct snapshot, node);
	const struct snapshot *two = list_entry(b, struct snapshot, node);

	if (one->stack.served != two->stack.served)
		return two->stack.served;
	return one->stack.height < two->stack.height;
}

static void take_close_origins(struct session *session, struct snapshot *until)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		if (snapshot == until)
			break;
		origin_forget_fs(&snapshot->origin);
		origin_close(&snapshot->origin);
	}
}

static int snapshot_pick_granule(struct snapshot *snapshot)
{
	long granule = diff_area_granule(snapshot_bdev(snapshot),
					 snapshot->chunk_size);

	if (granule < 0)
		return error_set(&snapshot->error, snapshot->label, granule,
				 "chunk_size is below the logical block of %s",
				 snapshot->device);
	if (granule > memory_bound() / GRANULE_SHARE)
		return error_set(&snapshot->error, snapshot->label, -EINVAL,
				 "chunk_size %ld is more than a quarter of memory_limit",
				 granule);
	snapshot->picked = granule;
	return 0;
}

/* What it consists of, and what of it can be frozen. */
static int snapshot_explore(struct snapshot *snapshot)
{
	int ret = origin_list_fs(&snapshot->origin);

	if (!ret)
		ret = stack_walk(snapshot->id.dev, &snapshot->stack);
	if (ret)
		return error_set(&snapshot->error, snapshot->label, ret,
				 "cannot find out what %s consists of",
				 snapshot->device);
	return snapshot_pick_granule(snapshot);
}

static int take_open_origin(struct snapshot *snapshot)
{
	int ret;

	ret = origin_open(&snapshot->origin, snapshot->id.dev, &snapshot->error,
			  snapshot->label);
	if (ret)
		return take_blame(snapshot, ret);
	ret = origin_check_id(snapshot_bdev(snapshot), &snapshot->id,
			      snapshot->device, &snapshot->error,
			      snapshot->label);
	if (!ret)
		ret = snapshot_explore(snapshot);
	if (!ret)
		return 0;
	origin_forget_fs(&snapshot->origin);
	origin_close(&snapshot->origin);
	return take_blame(snapshot, ret);
}

/* What may be built upon another origin has no place in the order. */
static int take_check_order(struct session *session)
{
	struct snapshot *snapshot;

	if (list_is_singular(&session->snapshots))
		return 0;
	list_for_each_entry(snapshot, &session->snapshots, node)
		if (snapshot->stack.unknown)
			return take_blame(snapshot,
					  error_set(&snapshot->error,
						    snapshot->label, -EINVAL,
						    "nobody can tell what %s is built upon: it can only be taken alone",
						    snapshot->device));
	return 0;
}

static int take_open_origins(struct session *session)
{
	struct snapshot *snapshot;
	int ret;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		ret = take_open_origin(snapshot);
		if (ret) {
			take_close_origins(session, snapshot);
			return ret;
		}
	}
	ret = take_check_order(session);
	if (ret) {
		take_close_origins(session, NULL);
		return ret;
	}
	list_sort(NULL, &session->snapshots, origin_top_down);
	return 0;
}

/* Step: the difference storage is open: session_storage.c */

/* Step: each snapshot has its tracker, area and image */

/* An area of this snapshot has failed. Any context. */
static void snapshot_area_failed(void *owner, struct diff_area *area, bool shared)
{
	struct snapshot *snapshot = owner;

	if (shared)
		WRITE_ONCE(snapshot->shared_failure, true);
	queue_delayed_work(compat_unbound_wq(),
			   &snapshot->session->fail_work, 0);
}

static int snapshot_create_area(struct snapshot *snapshot)
{
	struct session *session = snapshot->session;
	struct diff_area_config config = {
		.origin = snapshot_bdev(snapshot),
		.sectors = tracker_sectors(snapshot->tracker),
		.granule = snapshot->picked,
		.storage = session->storage,
		.wq = session->wq,
		.name = snapshot->label,
		.failed = snapshot_area_failed,
		.owner = snapshot,
	};
	int ret;

	snapshot->area = diff_area_create(&config);
	ret = PTR_ERR_OR_ZERO(snapshot->area);
	if (ret)
		error_set(&snapshot->error, snapshot->label, ret,
			  "no memory for the diff area");
	return ret;
}

static void snapshot_destroy_area(struct snapshot *snapshot)
{
	diff_area_retire(snapshot->area);
	diff_area_stop(snapshot->area);
	diff_area_put(snapshot->area);
	snapshot->area = NULL;
}

static int snapshot_create_image(struct snapshot *snapshot)
{
	struct image_config config = {
		.area = snapshot->area,
		.session = snapshot->session->name,
		.snapshot = snapshot->name,
		.groups = sysfs_image_groups,
		.cbt_groups = sysfs_image_cbt_groups,
	};
	int ret;

	snapshot->image = image_create(&config);
	ret = PTR_ERR_OR_ZERO(snapshot->image);
	if (ret)
		error_set(&snapshot->error, snapshot->label, ret,
			  "cannot make the image");
	return ret;
}

/* Any context. */
static void snapshot_noticed(struct disk_watch *watch)
{
	struct snapshot *snapshot = container_of(watch, struct snapshot, watch);

	/* Before it takes effect: what is read after that is of another one. */
	if (disk_watch_is_lost(watch))
		snapshot_lose_origin(snapshot);
	WRITE_ONCE(snapshot->noticed, true);
	queue_delayed_work(compat_unbound_wq(),
			   &snapshot->session->fail_work, 0);
}

static void snapshot_close_loop(struct snapshot *snapshot)
{
	if (snapshot->loop_file)
		filp_close(snapshot->loop_file, NULL);
	snapshot->loop_file = NULL;
}

static int snapshot_open_loop(struct snapshot *snapshot)
{
	struct file *file;
	int ret;

	file = stack_open_loop_offset(snapshot_bdev(snapshot)->bd_disk);
	if (IS_ERR(file))
		return PTR_ERR(file);
	snapshot->loop_file = file;
	ret = stack_read_loop_offset(file, &snapshot->loop_offset);
	if (ret)
		snapshot_close_loop(snapshot);
	return ret;
}

static int snapshot_watch(struct snapshot *snapshot)
{
	int ret = snapshot_open_loop(snapshot);

	if (ret)
		goto out;
	snapshot->noticed = true; /* what came before it was watched */
	snapshot->watch.event = snapshot_noticed;
	ret = disk_watch_add(&snapshot->watch, snapshot_bdev(snapshot),
			     tracker_sectors(snapshot->tracker));
	if (ret)
		snapshot_close_loop(snapshot);
out:
	if (ret)
		error_set(&snapshot->error, snapshot->label, ret,
			  "cannot watch %s", snapshot->device);
	return ret;
}

static void snapshot_unwatch(struct snapshot *snapshot)
{
	disk_watch_del(&snapshot->watch);
	snapshot_close_loop(snapshot);
}

static int snapshot_attach(struct snapshot *snapshot)
{
	int ret;

	snapshot->tracker = tracker_get(snapshot_bdev(snapshot), take_deadline());
	ret = PTR_ERR_OR_ZERO(snapshot->tracker);
	if (ret)
		error_set(&snapshot->error, snapshot->label, ret,
			  "cannot follow the writes of %s: %s",
			  snapshot->device, tracker_problem(ret));
	return ret;
}

static int snapshot_prepare_freeze(struct snapshot *snapshot)
{
	int ret = tracker_prepare_freeze(snapshot->tracker, &snapshot->freeze);

	if (ret)
		error_set(&snapshot->error, snapshot->label, ret,
			  "no memory for a copy of the change map");
	return ret;
}

static void snapshot_end_freeze(struct snapshot *snapshot)
{
	if (snapshot->freeze)
		cbt_freeze_end(snapshot->freeze);
	snapshot->freeze = NULL;
}

/*
 * The area outlives its image's disk, whose attributes read it, and the tracker
 * outlives the area.
 */
static void snapshot_teardown(struct snapshot *snapshot)
{
	snapshot_unwatch(snapshot);
	image_destroy(snapshot->image);
	snapshot->image = NULL;
	snapshot_destroy_area(snapshot);
	snapshot_end_freeze(snapshot);
	tracker_put(snapshot->tracker);
	snapshot->tracker = NULL;
}

static int snapshot_setup(struct snapshot *snapshot)
{
	int ret;

	snapshot->shared_failure = false;
	snapshot->announced = false;
	snapshot->consequence = false;
	ret = snapshot_attach(snapshot);
	if (ret)
		goto out;
	ret = snapshot_prepare_freeze(snapshot);
	if (ret)
		goto out_tracker;
	ret = snapshot_create_area(snapshot);
	if (ret)
		goto out_freeze;
	ret = snapshot_create_image(snapshot);
	if (ret)
		goto out_area;
	ret = snapshot_watch(snapshot);
	if (ret)
		goto out_image;
	return 0;

out_image:
	image_destroy(snapshot->image);
out_area:
	snapshot_destroy_area(snapshot);
out_freeze:
	snapshot_end_freeze(snapshot);
out_tracker:
	tracker_put(snapshot->tracker);
out:
	return take_blame(snapshot, ret);
}

/* In the end nobody is left who could announce a failure. */
static void take_teardown_snapshots(struct session *session,
				    struct snapshot *until)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		if (snapshot == until)
			break;
		snapshot_teardown(snapshot);
	}
	cancel_delayed_work_sync(&session->fail_work);
	destroy_workqueue(session->wq);
}

static int take_setup_snapshots(struct session *session)
{
	struct snapshot *snapshot;
	int ret;

	/* What frees memory must not wait for the gates' workers, who need it. */
	session->wq = alloc_workqueue("blksnap_store_%s",
				      WQ_UNBOUND | WQ_MEM_RECLAIM | WQ_HIGHPRI,
				      0, session->name);
	if (!session->wq)
		return take_error(session, -ENOMEM, "no memory for a workqueue");
	list_for_each_entry(snapshot, &session->snapshots, node) {
		ret = snapshot_setup(snapshot);
		if (ret) {
			take_teardown_snapshots(session, snapshot);
			return ret;
		}
	}
	return 0;
}

/* Step: what belongs to a difference storage is not part of an image */

typedef int (*snapshot_range_fn)(struct snapshot *snapshot, sector_t first,
				 sector_t last);

/* The part of a piece of storage that lies on an origin, if any. */
static int snapshot_tell_extent(struct snapshot *snapshot,
				const struct diff_extent *extent,
				snapshot_range_fn fn)
{
	struct block_device *origin = snapshot_bdev(snapshot);
	sector_t start = origin->bd_start_sect;
	sector_t first, end;

	if (!extent->bdev || extent->bdev->bd_disk != origin->bd_disk)
		return 0;
	first = extent->first + extent->bdev->bd_start_sect;
	end = first + extent->sectors;
	first = max(first, start);
	end = min(end, start + tracker_sectors(snapshot->tracker));
	if (first >= end)
		return 0;
	return fn(snapshot, first - start, end - start - 1);
}

static int take_tell_storage(struct session *session,
			     struct diff_storage *storage, snapshot_range_fn fn)
{
	const struct diff_extent *extent;
	struct snapshot *snapshot;
	sector_t pos = 0;
	int ret = 0;

	while (!ret && (extent = diff_storage_next_extent(storage, &pos)))
		list_for_each_entry(snapshot, &session->snapshots, node)
			ret = ret ?: snapshot_tell_extent(snapshot, extent, fn);
	return ret;
}

/* Calls @fn for each range of the origins that belongs to a storage. */
static int take_tell_storages(struct session *session, snapshot_range_fn fn)
{
	struct session *other;
	int ret;

	ret = take_tell_storage(session, session->storage, fn);
	list_for_each_entry(other, &active_sessions, active_node)
		ret = ret ?: take_tell_storage(session, other->storage, fn);
	return ret;
}

static int snapshot_exclude(struct snapshot *snapshot, sector_t first,
			    sector_t last)
{
	return diff_area_exclude(snapshot->area, first, last);
}

static int take_exclude(struct session *session)
{
	int ret = take_tell_storages(session, snapshot_exclude);

	return ret ? take_error(session, ret, "no memory for the map") : 0;
}

static int snapshot_mark_excluded(struct snapshot *snapshot, sector_t first,
				  sector_t last)
{
	tracker_mark_diff(snapshot->tracker, image_cbt(snapshot->image), first,
			  last);
	return 0;
}

/* Step: the change maps are copied, while writes go on */

static void take_copy_maps(struct session *session)
{
	struct snapshot *snapshot;
	bool any = false;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		if (!snapshot->freeze)
			continue;
		cbt_freeze_start(snapshot->freeze);
		any = true;
	}
	if (!any)
		return;
	synchronize_rcu(); /* see cbt_freeze_start() */
	list_for_each_entry(snapshot, &session->snapshots, node)
		if (snapshot->freeze)
			cbt_freeze_copy(snapshot->freeze);
}

static void take_end_freezes(struct session *session)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node)
		snapshot_end_freeze(snapshot);
}

/* Step: the file systems are frozen */

static void take_thaw(struct session *session, struct snapshot *from)
{
	struct snapshot *snapshot = from;

	list_for_each_entry_continue_reverse(snapshot, &session->snapshots, node)
		origin_thaw(&snapshot->origin);
}

static void take_thaw_all(struct session *session)
{
	take_thaw(session, list_entry(&session->snapshots, struct snapshot, node));
}

/* @start: when the first one began to be frozen, if this returns 0 */
static int take_freeze(struct session *session, u64 *start)
{
	struct snapshot *snapshot;
	int ret;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		ret = origin_check_thawed(&snapshot->origin, &snapshot->error,
					  snapshot->label);
		if (ret)
			return take_blame(snapshot, ret);
	}
	list_for_each_entry(snapshot, &session->snapshots, node)
		origin_sync(&snapshot->origin);
	take_copy_maps(session);
	*start = ktime_get_ns();
	list_for_each_entry(snapshot, &session->snapshots, node) {
		ret = origin_freeze(&snapshot->origin, &snapshot->error,
				    snapshot->label);
		if (ret) {
			take_thaw(session, snapshot);
			return take_blame(snapshot, ret);
		}
	}
	return 0;
}

/* Remembers what was frozen, for the attribute "frozen". */
static int snapshot_note_frozen(struct snapshot *snapshot)
{
	struct frozen *frozen;
	unsigned int nr = 0;
	dev_t *devs;

	list_for_each_entry(frozen, &snapshot->origin.frozen, node)
		nr++;
	devs = kcalloc(nr, sizeof(*devs), GFP_KERNEL);
	if (!devs)
		return -ENOMEM;
	nr = 0;
	list_for_each_entry(frozen, &snapshot->origin.frozen, node)
		if (frozen->has_fs)
			devs[nr++] = frozen->handle.bdev->bd_dev;
	kfree(snapshot->noted);
	snapshot->noted = devs;
	snapshot->nr_noted = nr;
	return 0;
}

/* Step: the instant */

static void take_open_gates(struct session *session, struct snapshot *from)
{
	struct snapshot *snapshot = from;

	list_for_each_entry_continue_reverse(snapshot, &session->snapshots, node)
		gate_open(tracker_gate(snapshot->tracker));
}

/* Are they on one layer, so that neither waits for the other? */
static bool snapshot_is_beside(const struct snapshot *snapshot,
			       const struct snapshot *other)
{
	return snapshot->stack.served == other->stack.served &&
	       snapshot->stack.height == other->stack.height;
}

/*
 * What is on one layer is closed before any of it is waited for: who writes to
 * several of them (btrfs with mirrors) may have passed one, and be held at the
 * next. Returns what is on the next layer, or the head of the list.
 */
static struct snapshot *take_close_layer(struct session *session,
					 struct snapshot *first)
{
	struct snapshot *snapshot = first;

	list_for_each_entry_from(snapshot, &session->snapshots, node) {
		if (!snapshot_is_beside(snapshot, first))
			return snapshot;
		gate_close(tracker_gate(snapshot->tracker));
	}
	return list_entry(&session->snapshots, struct snapshot, node);
}

static int snapshot_blame_drain(struct snapshot *snapshot, int err)
{
	if (err == -ETIMEDOUT)
		error_set(&snapshot->error, snapshot->label, err,
			  "writes to %s were not complete after %u ms",
			  snapshot->device, take_timeout_ms);
	else
		error_set(&snapshot->error, snapshot->label, err,
			  "whether writes to %s are complete cannot be told: its queue/iostats is 0",
			  snapshot->device);
	return take_blame(snapshot, err);
}

static int take_close_gates(struct session *session)
{
	unsigned long deadline = take_deadline();
	struct snapshot *snapshot, *next;
	int ret;

	next = list_first_entry(&session->snapshots, struct snapshot, node);
	list_for_each_entry(snapshot, &session->snapshots, node) {
		if (snapshot == next)
			next = take_close_layer(session, snapshot);
		ret = gate_drain(tracker_gate(snapshot->tracker), deadline);
		if (!ret)
			continue;
		take_open_gates(session, next);
		return snapshot_blame_drain(snapshot, ret);
	}
	return 0;
}

/* RAID and device-mapper may rely on what a discard does: it is passed on. */
static bool snapshot_drops_discards(const struct snapshot *snapshot)
{
	return !snapshot->preserve_discards && !snapshot->origin.held_by_other;
}

static void take_arm(struct session *session)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		snapshot->area->config.drop_discards =
			snapshot_drops_discards(snapshot);
		tracker_arm(snapshot->tracker, snapshot->area);
		if (snapshot->freeze)
			image_set_cbt(snapshot->image,
				      tracker_freeze(snapshot->tracker,
						     snapshot->freeze));
	}
}

static void take_disarm(struct session *session)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node)
		tracker_disarm(snapshot->tracker, snapshot->area);
}

static int take_instant(struct session *session)
{
	struct snapshot *snapshot;
	u64 start;
	int ret;

	list_for_each_entry(snapshot, &session->snapshots, node)
		gate_prepare_close(tracker_gate(snapshot->tracker));
	list_for_each_entry(snapshot, &session->snapshots, node)
		gate_await_prepared(tracker_gate(snapshot->tracker));

	start = ktime_get_ns();
	ret = take_close_gates(session);
	if (!ret) {
		take_arm(session);
		take_open_gates(session, list_entry(&session->snapshots,
						    struct snapshot, node));
	}
	session->hold_us = (ktime_get_ns() - start) / NSEC_PER_USEC;

	list_for_each_entry(snapshot, &session->snapshots, node)
		gate_settle(tracker_gate(snapshot->tracker));
	return ret;
}

static int take_note_frozen(struct session *session)
{
	struct snapshot *snapshot;
	int ret;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		ret = snapshot_note_frozen(snapshot);
		if (ret)
			return take_error(session, ret, "no memory");
	}
	return 0;
}

static int take_frozen(struct session *session)
{
	unsigned int noio;
	u64 start;
	int ret;

	ret = take_freeze(session, &start);
	if (ret)
		return ret;
	/* Memory must not be reclaimed by writes that are held here. */
	noio = memalloc_noio_save();
	ret = take_instant(session);
	memalloc_noio_restore(noio);
	take_thaw_all(session);
	session->frozen_us = (ktime_get_ns() - start) / NSEC_PER_USEC;
	return ret;
}

/* Step: the images are there */

static int take_add_images(struct session *session)
{
	struct snapshot *snapshot;
	int ret;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		ret = image_add(snapshot->image);
		if (ret)
			return take_blame(snapshot,
					  error_set(&snapshot->error,
						    snapshot->label, ret,
						    "cannot add the image disk"));
	}
	return 0;
}

/*
 * The end of what was armed: nothing can fail any more, then nobody announces
 * failures, then the images and the areas go.
 */
static void take_undo_armed(struct session *session)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node)
		diff_area_retire(snapshot->area);
	cancel_delayed_work_sync(&session->fail_work);
	take_disarm(session);
}

static int take_armed(struct session *session)
{
	int ret;

	session_storage_begin_take(session);
	ret = take_exclude(session);
	if (!ret)
		ret = take_frozen(session);
	if (!ret)
		take_tell_storages(session, snapshot_mark_excluded);
	session_storage_end_take();
	take_end_freezes(session);
	if (ret)
		return ret;
	ret = take_note_frozen(session);
	if (!ret)
		ret = take_add_images(session);
	if (ret)
		take_undo_armed(session);
	return ret;
}

/* What attributes show changes only now that nothing can fail any more. */
static void take_succeed(struct session *session)
{
	struct snapshot *snapshot;

	error_clear(&session->error);
	list_for_each_entry(snapshot, &session->snapshots, node) {
		error_clear(&snapshot->error);
		WRITE_ONCE(snapshot->granule, snapshot->area->config.granule);
		swap(snapshot->frozen, snapshot->noted);
		swap(snapshot->nr_frozen, snapshot->nr_noted);
	}
}

static int __session_take(struct session *session)
{
	int ret;

	ret = take_check_configured(session);
	if (ret)
		goto out;
	tracking_settle();
	ret = take_open_origins(session);
	if (ret)
		goto out;
	ret = session_storage_open(session, &active_sessions);
	if (ret)
		goto out_origins;
	ret = take_setup_snapshots(session);
	if (ret)
		goto out_storage;
	ret = take_armed(session);
	if (ret)
		goto out_snapshots;
	list_add_tail(&session->active_node, &active_sessions);
	take_succeed(session);
	WRITE_ONCE(session->active, true);
	/* In case that an area has failed already. */
	queue_delayed_work(compat_unbound_wq(), &session->fail_work, 0);
	return 0;

out_snapshots:
	take_teardown_snapshots(session, NULL);
out_storage:
	session_storage_close(session);
out_origins:
	take_close_origins(session, NULL);
out:
	return ret;
}

int session_take(struct session *session)
{
	int ret;

	lockdep_assert_held(&session->mutex);
	/* Who has frozen what another take waits for may be waiting here. */
	if (mutex_lock_killable(&take_mutex))
		return take_error(session, -EINTR,
				  "killed while another session was taken");
	ret = __session_take(session);
	mutex_unlock(&take_mutex);
	return ret;
}

/*
 * What follows the end of what was armed waits: for reads of origins that hang,
 * and for whoever has frozen the file system that the storage lies on. That may
 * be somebody who is about to take another session.
 */
void session_release(struct session *session)
{
	struct snapshot *snapshot;

	lockdep_assert_held(&session->mutex);
	mutex_lock(&take_mutex);
	list_del_init(&session->active_node);
	WRITE_ONCE(session->active, false);
	take_undo_armed(session);
	mutex_unlock(&take_mutex);
	/* The attributes go with the image, and nobody would be told. */
	list_for_each_entry(snapshot, &session->snapshots, node)
		event_wake(snapshot->image);
	take_teardown_snapshots(session, NULL);
	session_storage_close(session);
	take_close_origins(session, NULL);
}
