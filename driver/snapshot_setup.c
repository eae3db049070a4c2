// SPDX-License-Identifier: GPL-2.0
/*
 * What a snapshot has while it is active: a tracker of its origin, the copy of
 * the change map, the diff area, the image, and a watch over the origin.
 */
#include <linux/fs.h>

#include "cbt_map.h"
#include "image.h"
#include "snapshot.h"
#include "snapshot_failure.h"
#include "snapshot_setup.h"
#include "sysfs.h"
#include "tracker.h"

/* An area of this snapshot has failed. Any context. */
static void snapshot_area_failed(void *owner, struct diff_area *area, bool shared)
{
	struct snapshot *snapshot = owner;

	if (shared)
		WRITE_ONCE(snapshot->shared_failure, true);
	session_look_soon(snapshot->session);
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
	session_look_soon(snapshot->session);
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

static int snapshot_attach(struct snapshot *snapshot, unsigned long timeout)
{
	int ret;

	snapshot->tracker = tracker_get(snapshot_bdev(snapshot), timeout);
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

void snapshot_end_freeze(struct snapshot *snapshot)
{
	if (snapshot->freeze)
		cbt_freeze_end(snapshot->freeze);
	snapshot->freeze = NULL;
}

/*
 * The area outlives its image's disk, whose attributes read it, and the tracker
 * outlives the area.
 */
void snapshot_teardown(struct snapshot *snapshot)
{
	snapshot_unwatch(snapshot);
	image_destroy(snapshot->image);
	snapshot->image = NULL;
	snapshot_destroy_area(snapshot);
	snapshot_end_freeze(snapshot);
	tracker_put(snapshot->tracker);
	snapshot->tracker = NULL;
}

int snapshot_setup(struct snapshot *snapshot, unsigned long timeout)
{
	int ret;

	snapshot->shared_failure = false;
	snapshot->announced = false;
	snapshot->consequence = false;
	ret = snapshot_attach(snapshot, timeout);
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
	return snapshot_blame(snapshot, ret);
}
