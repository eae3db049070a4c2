// SPDX-License-Identifier: GPL-2.0
/*
 * What goes wrong while a session is active, and how that is told: areas that
 * fail, an origin that is lost, space that is low.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/jiffies.h>
#include <linux/printk.h>

#include "compat/work.h"
#include "diff_storage.h"
#include "event.h"
#include "snapshot.h"
#include "snapshot_failure.h"

static void snapshot_announce(struct snapshot *snapshot)
{
	enum diff_area_state state = diff_area_state(snapshot->area);

	snapshot->announced = true;
	error_copy(&snapshot->error, &snapshot->area->error);
	/* The session shows the cause. */
	if (!snapshot->consequence)
		error_copy(&snapshot->session->error, &snapshot->area->error);
	event_state_changed(snapshot->image, diff_area_state_name(state));
}

/* What one area met in the storage that it shares, the others would meet too. */
static void session_share_failure(struct session *session,
				  struct snapshot *failed)
{
	enum diff_area_state state = diff_area_state(failed->area);
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		if (diff_area_state(snapshot->area) != DIFF_AREA_ACTIVE)
			continue;
		snapshot->consequence = true;
		diff_area_fail(snapshot->area, state, false,
			       state == DIFF_AREA_OVERFLOW ? -ENOSPC : -EIO,
			       "the difference storage failed for %s",
			       failed->name);
	}
}

void snapshot_lose_origin(struct snapshot *snapshot)
{
	diff_area_fail(snapshot->area, DIFF_AREA_LOST, false, -ENODEV,
		       "the origin went away");
}

/*
 * A loop device may have got another size with the same content in front, or begin
 * elsewhere in its file: then all of it is something else.
 */
static void snapshot_check_offset(struct snapshot *snapshot)
{
	u64 offset;

	if (!stack_read_loop_offset(snapshot->loop_file, &offset) &&
	    offset == snapshot->loop_offset)
		return;
	diff_area_fail(snapshot->area, DIFF_AREA_LOST, false, -ENODEV,
		       "the origin, a loop device, was given another offset");
}

/*
 * The origin may have gone away, or have shrunk below what was snapshotted.
 * False: that cannot be told yet.
 */
static bool snapshot_look_at_origin(struct snapshot *snapshot)
{
	if (!xchg(&snapshot->noticed, false))
		return true;
	switch (disk_watch_verdict(&snapshot->watch)) {
	case DISK_LOST:
		snapshot_lose_origin(snapshot);
		return true;
	case DISK_BUSY:
		WRITE_ONCE(snapshot->noticed, true);
		return false;
	default:
		snapshot_check_offset(snapshot);
		return true;
	}
}

/* One event is enough, on the first image: what is low is the session's. */
static void session_announce_low_space(struct session *session)
{
	struct snapshot *snapshot = list_first_entry(&session->snapshots,
						     struct snapshot, node);
	char why[DIFF_STORAGE_WHY_MAX];
	u64 size, used;

	diff_storage_bytes(session->storage, &size, &used);
	pr_warn("%s: low_space: %llu of %llu bytes of the difference storage are free%s\n",
		session->name, size - used, size,
		diff_storage_why_full(session->storage, why));
	event_tell(snapshot->image, "low_space");
}

/*
 * Runs while the session is active: its list of snapshots does not change, and
 * their areas and images are there until this work was cancelled.
 */
static void session_fail_work(struct work_struct *work)
{
	struct session *session = container_of(to_delayed_work(work),
					       struct session, fail_work);
	struct snapshot *snapshot;
	bool again = false;

	if (!READ_ONCE(session->active))
		return; /* the take queues it again when the images are there */
	if (xchg(&session->low_space, false))
		session_announce_low_space(session);
	list_for_each_entry(snapshot, &session->snapshots, node)
		again |= !snapshot_look_at_origin(snapshot);
	list_for_each_entry(snapshot, &session->snapshots, node)
		if (READ_ONCE(snapshot->shared_failure))
			session_share_failure(session, snapshot);
	list_for_each_entry(snapshot, &session->snapshots, node)
		if (!snapshot->announced && diff_area_has_failed(snapshot->area))
			snapshot_announce(snapshot);
	if (again)
		queue_delayed_work(compat_unbound_wq(), &session->fail_work,
				   msecs_to_jiffies(DISK_WATCH_AGAIN_MS));
}

void session_init_failures(struct session *session)
{
	INIT_DELAYED_WORK(&session->fail_work, session_fail_work);
}

void session_look_soon(struct session *session)
{
	queue_delayed_work(compat_unbound_wq(), &session->fail_work, 0);
}
