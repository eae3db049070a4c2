// SPDX-License-Identifier: GPL-2.0
/*
 * The difference storage of a session: opened at the take, filled as far as it
 * must be, and in nobody's way, neither that of an origin nor that of another
 * session. Which conflicts there are: docs/design.md, "The take" and "Difference
 * storage in files".
 */
#include <linux/blkdev.h>
#include <linux/math64.h>
#include <linux/mutex.h>
#include <linux/overflow.h>
#include <linux/sizes.h>

#include "diff_storage.h"
#include "diff_storage_file.h"
#include "image.h"
#include "session_storage.h"
#include "snapshot.h"
#include "snapshot_failure.h"
#include "tracker.h"

/* A file may grow to this part of its origins, if nobody says another size. */
#define DIFF_ORIGIN_SHARE 5
#define DIFF_FIRST_MIN ((u64)SZ_64M)

/*
 * Whose areas are about to be armed: from when these exclude the storages on
 * their disks, no storage maps another piece there.
 */
static struct session *taking;		/* protected by ranges_mutex */
static DEFINE_MUTEX(ranges_mutex);	/* a piece is mapped, or nobody does it */

static unsigned int session_storage_block_size(struct session *session)
{
	struct snapshot *snapshot;
	unsigned int size = UINT_MAX;

	list_for_each_entry(snapshot, &session->snapshots, node)
		size = min(size, bdev_logical_block_size(snapshot_bdev(snapshot)));
	return size;
}

static struct snapshot *session_origin_on(struct session *session,
					  struct block_device *bdev)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node)
		if (origin_overlaps(snapshot_bdev(snapshot), bdev))
			return snapshot;
	return NULL;
}

static struct snapshot *session_origin_upon(struct session *session,
					    struct block_device *bdev)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node)
		if (stack_shares(&snapshot->stack, bdev))
			return snapshot;
	return NULL;
}

static struct snapshot *session_origin_below(struct session *session,
					     const struct stack *stack)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node)
		if (stack_has(stack, disk_devt(snapshot_bdev(snapshot)->bd_disk)))
			return snapshot;
	return NULL;
}

/*
 * May this session's origins and that one's difference storage live together?
 * Not if they share sectors, on whatever layer. And not if the storage is built
 * upon an origin's disk: what is stored would arrive there as a write of another
 * driver, be preserved, stored, and arrive again.
 */
static int session_storage_check_pair(struct session *session,
				      struct session *origins,
				      struct session *diff)
{
	struct snapshot *snapshot = NULL;

	/* A file may lie on an origin, if its blocks are known. */
	if (diff->diff_target.id.dev)
		snapshot = session_origin_on(origins, diff->storage->bdev);
	if (snapshot)
		return error_set(&session->error, session->name, -EBUSY,
				 "%s, the difference storage of session %s, shares sectors with the origin %s of %s",
				 diff->diff_file, diff->name, snapshot->device,
				 snapshot->label);
	if (diff->diff_target.id.dev)
		snapshot = session_origin_upon(origins, diff->storage->bdev);
	if (snapshot)
		return error_set(&session->error, session->name, -EBUSY,
				 "the origin %s of %s is built upon %s, the difference storage of session %s",
				 snapshot->device, snapshot->label,
				 diff->diff_file, diff->name);
	snapshot = session_origin_below(origins, &diff->diff_stack);
	if (snapshot)
		return error_set(&session->error, session->name, -EXDEV,
				 "%s, the difference storage of session %s, is built upon the disk of the origin %s of %s",
				 diff->diff_file, diff->name, snapshot->device,
				 snapshot->label);
	return 0;
}

/*
 * What an image is asked to write it stores, and waits for that: a store must
 * not wait for an image.
 */
static bool session_storage_is_on_image(const struct session *session)
{
	const struct block_device *bdev = session->storage->bdev;
	unsigned int i;

	for (i = 0; i < session->diff_stack.nr; i++)
		if (image_is(session->diff_stack.below[i].disk))
			return true;
	return bdev && image_is(disk_devt(bdev->bd_disk));
}

static int session_storage_walk(struct session *session)
{
	struct diff_storage *storage = session->storage;

	if (storage->ops->fs)
		return stack_walk_fs(storage->ops->fs(storage),
				     &session->diff_stack);
	if (storage->bdev)
		return stack_walk(storage->bdev->bd_dev, &session->diff_stack);
	session->diff_stack.nr = 0;
	session->diff_stack.unknown = false;
	return 0;
}

static int session_storage_check(struct session *session,
				 struct list_head *active)
{
	struct session *other;
	int ret;

	ret = session_storage_walk(session);
	if (ret)
		return error_set(&session->error, session->name, ret,
				 "cannot find out what %s consists of",
				 session->diff_file);
	if (session->diff_stack.unknown)
		return error_set(&session->error, session->name, -EXDEV,
				 "nobody can tell what %s is built upon: it may be an origin",
				 session->diff_file);
	if (session_storage_is_on_image(session))
		return error_set(&session->error, session->name, -EXDEV,
				 "%s is an image, or built upon one",
				 session->diff_file);
	ret = session_storage_check_pair(session, session, session);
	list_for_each_entry(other, active, active_node) {
		if (!ret)
			ret = session_storage_check_pair(session, other, session);
		if (!ret)
			ret = session_storage_check_pair(session, session, other);
	}
	return ret;
}

static void session_storage_low_space(void *owner)
{
	struct session *session = owner;

	WRITE_ONCE(session->low_space, true);
	session_look_soon(session);
}

/*
 * A granule of an origin that a piece of the storage covers in part is not used:
 * to store there would mean to preserve it.
 */
static void snapshot_trim(const struct snapshot *snapshot,
			  struct block_device *bdev, sector_t *first,
			  sector_t *end)
{
	const struct block_device *origin = snapshot_bdev(snapshot);
	sector_t granule = snapshot->picked >> SECTOR_SHIFT;
	sector_t start = origin->bd_start_sect;
	sector_t stop = start + bdev_nr_sectors((struct block_device *)origin);
	sector_t from = *first + bdev->bd_start_sect;
	sector_t to = *end + bdev->bd_start_sect;

	if (origin->bd_disk != bdev->bd_disk)
		return;
	if (from > start && from < stop)
		from = start + round_up(from - start, granule);
	if (to > start && to < stop)
		to = start + round_down(to - start, granule);
	*first = from - bdev->bd_start_sect;
	*end = max(from, to) - bdev->bd_start_sect;
}

static void session_storage_trim(void *owner, struct block_device *bdev,
				 sector_t *first, sector_t *end)
{
	struct session *session = owner;
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node)
		snapshot_trim(snapshot, bdev, first, end);
}

static bool session_has_origin_on(const struct session *session,
				  const struct gendisk *disk)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node)
		if (snapshot_bdev(snapshot)->bd_disk == disk)
			return true;
	return false;
}

/* Of an active session, or of one that is being taken. */
static bool session_storage_disk_is_origin(const struct session *session,
					   const struct gendisk *disk)
{
	return (session && session_has_origin_on(session, disk)) ||
	       tracker_disk_has_areas(disk);
}

/*
 * A piece that is mapped while an area of its disk is active, or about to be, is
 * not known to that: what is stored there would be preserved, and so on.
 */
static int session_storage_map(void *owner, struct block_device *bdev,
			       int (*map)(void *data), void *data)
{
	int ret = -EXDEV;

	mutex_lock(&ranges_mutex);
	if (!session_storage_disk_is_origin(taking, bdev->bd_disk))
		ret = map ? map(data) : 0;
	mutex_unlock(&ranges_mutex);
	return ret;
}

static const struct diff_file_ops session_storage_file_ops = {
	.trim = session_storage_trim,
	.map = session_storage_map,
};

static u64 session_storage_origin_bytes(struct session *session)
{
	struct snapshot *snapshot;
	u64 bytes = 0;

	list_for_each_entry(snapshot, &session->snapshots, node)
		if (check_add_overflow(bytes,
				       (u64)bdev_nr_bytes(snapshot_bdev(snapshot)),
				       &bytes))
			return U64_MAX;
	return bytes;
}

/* How large a storage may grow, if the administrator has not said it. */
static u64 session_storage_default_limit(struct session *session)
{
	u64 share = div_u64(session_storage_origin_bytes(session),
			    DIFF_ORIGIN_SHARE);
	u64 room = session->storage->ops->room(session->storage);

	share = max_t(u64, share, DIFF_STORAGE_STEP);
	return round_down(min(share, room / 2), DIFF_STORAGE_STEP);
}

static int session_storage_pick_limit(struct session *session)
{
	struct diff_storage *storage = session->storage;
	u64 given = storage->ops->given ? storage->ops->given(storage) : 0;

	if (!session->has_diff_limit)
		session->diff_limit = session_storage_default_limit(session);
	if (given || session->diff_limit >= DIFF_STORAGE_STEP)
		return 0;
	if (session->has_diff_limit)
		return error_set(&session->error, session->name, -EINVAL,
				 "diff_limit is %llu: there is nothing to use in %s",
				 session->diff_limit, session->diff_file);
	return error_set(&session->error, session->name, -ENOSPC,
			 "too little free space for %s", session->diff_file);
}

/* As far as it is known where it lies. */
static bool session_storage_is_on_origin(const struct session *session)
{
	const struct block_device *bdev = session->storage->bdev;

	return bdev && session_storage_disk_is_origin(session, bdev->bd_disk);
}

/* It has all its space from the start where it could not grow later. */
static int session_storage_fill(struct session *session)
{
	struct diff_storage *storage = session->storage;
	u64 all = min_t(u64, session->diff_limit, S64_MAX), bytes = all;
	u64 low = min(session_diff_low(session, bytes), bytes / 2);
	u64 first = max(2 * low, DIFF_FIRST_MIN);
	int ret;

	/* The limit may be far away: to begin with, half of the room will do. */
	first = min(first, max(storage->ops->room(storage) / 2, DIFF_FIRST_MIN));
	if (!session_storage_is_on_origin(session))
		bytes = min(bytes, round_up(first, DIFF_STORAGE_STEP));
	ret = storage->ops->fill(storage, bytes);
	/* btrfs, or XFS with two devices, says only now where that is. */
	if (!ret && bytes < all && session_storage_is_on_origin(session))
		ret = storage->ops->fill(storage, all);
	return ret;
}

static int session_storage_prepare(struct session *session,
				   struct list_head *active)
{
	int ret = session_storage_pick_limit(session);

	/* Before it is filled, if it is known where it lies; and after. */
	if (!ret && (session->storage->bdev ||
		     diff_storage_does_io(session->storage)))
		ret = session_storage_check(session, active);
	return ret ?: session_storage_fill(session);
}

static struct diff_storage *session_storage_try(struct session *session)
{
	struct diff_storage_config config = {
		.path = session->diff_file,
		.block_size = session_storage_block_size(session),
		.error = &session->error,
		.who = session->name,
		.low_space = session_storage_low_space,
		.owner = session,
	};

	if (session->diff_target.memory)
		return diff_storage_open_memory(&config);
	if (session->diff_target.id.dev)
		return diff_storage_open_bdev(&session->diff_target.id, &config);
	return diff_storage_open_file(&session->diff_target, &session_storage_file_ops,
				      &config);
}

/* Nobody is left then who could say that space is low. */
void session_storage_close(struct session *session)
{
	diff_storage_close(session->storage);
	session->storage = NULL;
	cancel_delayed_work_sync(&session->fail_work);
}

int session_storage_open(struct session *session, struct list_head *active)
{
	struct diff_storage *storage = session_storage_try(session);
	int ret = 0;

	if (IS_ERR(storage))
		return PTR_ERR(storage);
	session->storage = storage;
	session->low_space = false;
	if (storage->ops->fill)
		ret = session_storage_prepare(session, active);
	if (!ret)
		ret = session_storage_check(session, active);
	if (ret)
		session_storage_close(session);
	else
		session_apply_marks(session);
	return ret;
}

void session_storage_begin_take(struct session *session)
{
	mutex_lock(&ranges_mutex);
	taking = session;
	mutex_unlock(&ranges_mutex);
}

void session_storage_end_take(void)
{
	session_storage_begin_take(NULL);
}
