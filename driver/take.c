// SPDX-License-Identifier: GPL-2.0
/*
 * The take: from a configured session to an active one, and back.
 *
 * The origins are opened, and put in an order in which what is stacked on top
 * comes first; then the difference storage; then the snapshots are set up.
 * Everything that can be allocated is, before anything is frozen. Then comes the
 * instant (instant.c), and in the end the image disks are added. On any failure
 * the steps are undone in reverse order.
 */
#include <linux/blkdev.h>
#include <linux/list_sort.h>
#include <linux/slab.h>

#include "diff_storage.h"
#include "event.h"
#include "image.h"
#include "instant.h"
#include "memory.h"
#include "session_storage.h"
#include "snapshot.h"
#include "snapshot_failure.h"
#include "snapshot_setup.h"
#include "take.h"
#include "tracker.h"
#include "tracking.h"

/* A granule larger than this part of the memory limit could starve itself. */
#define GRANULE_SHARE 4

static LIST_HEAD(active_sessions);	/* protected by take_mutex */
static DEFINE_MUTEX(take_mutex);	/* one take, or end of one, at a time */

static int take_error(struct session *session, int err, const char *why)
{
	return error_set(&session->error, session->name, err, "%s", why);
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
			return snapshot_blame(snapshot,
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
	long most = memory_bound() / GRANULE_SHARE;
	long granule = diff_area_granule(snapshot_bdev(snapshot),
					 snapshot->chunk_size,
					 min_t(long, most, CHUNK_SIZE_MAX));

	if (granule < 0)
		return error_set(&snapshot->error, snapshot->label, granule,
				 "chunk_size is below the logical block of %s",
				 snapshot->device);
	if (granule > most)
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
		return snapshot_blame(snapshot, ret);
	ret = origin_check_id(snapshot_bdev(snapshot), &snapshot->id,
			      snapshot->device, &snapshot->error,
			      snapshot->label);
	if (!ret)
		ret = snapshot_explore(snapshot);
	if (!ret)
		return 0;
	origin_forget_fs(&snapshot->origin);
	origin_close(&snapshot->origin);
	return snapshot_blame(snapshot, ret);
}

/* What may be built upon another origin has no place in the order. */
static int take_check_order(struct session *session)
{
	struct snapshot *snapshot;

	if (list_is_singular(&session->snapshots))
		return 0;
	list_for_each_entry(snapshot, &session->snapshots, node)
		if (snapshot->stack.unknown)
			return snapshot_blame(snapshot,
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

/* Step: each snapshot has its tracker, area and image: snapshot_setup.c */

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
		ret = snapshot_setup(snapshot, instant_timeout());
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

/* Step: what was frozen is remembered, for the attribute "frozen" */

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

/* Step: the images are there */

static int take_add_images(struct session *session)
{
	struct snapshot *snapshot;
	int ret;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		ret = image_add(snapshot->image);
		if (ret)
			return snapshot_blame(snapshot,
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
	instant_disarm(session);
}

static void take_end_freezes(struct session *session)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node)
		snapshot_end_freeze(snapshot);
}

static int take_armed(struct session *session)
{
	int ret;

	session_storage_begin_take(session);
	ret = take_exclude(session);
	if (!ret)
		ret = instant_take(session);
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
	session_look_soon(session);
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
