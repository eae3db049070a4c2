// SPDX-License-Identifier: GPL-2.0
/*
 * The instant of a session: what its images show.
 *
 * With the origins in an order in which what is stacked on top comes first:
 *
 *   sync, freeze        so that file systems are consistent, and quiet; change
 *                       maps are copied in between
 *   close, drain        the gates: what was not passed by now waits; what was
 *                       passed completes. Top down, since what drains from an
 *                       upper device has to pass the gates of lower ones
 *   arm                 the areas: the instant; change maps are frozen
 *   open, thaw          bottom up
 *
 * Gates have a deadline, take_timeout_ms: I1. On any failure the steps are
 * undone in reverse order, and nothing is armed.
 *
 * A write that depends on another one is submitted after that is complete. So
 * either the other was still held when the gates were closed, and then this one
 * does not exist; or it was drained, and is in the image of its origin.
 */
#include <linux/blkdev.h>
#include <linux/jiffies.h>
#include <linux/ktime.h>
#include <linux/moduleparam.h>
#include <linux/sched/mm.h>

#include "cbt_map.h"
#include "gate.h"
#include "image.h"
#include "instant.h"
#include "origin.h"
#include "snapshot.h"
#include "tracker.h"

static unsigned int take_timeout_ms = 5000;
module_param(take_timeout_ms, uint, 0644);
MODULE_PARM_DESC(take_timeout_ms,
		 "How long a take may hold writes before it gives up (default: 5000)");

unsigned long instant_timeout(void)
{
	/* What is more is no time for msecs_to_jiffies(), but for ever. */
	return msecs_to_jiffies(min_t(unsigned int, INT_MAX,
				      READ_ONCE(take_timeout_ms)));
}

/* The change maps are copied, while writes go on */

static void instant_copy_maps(struct session *session)
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

/* The file systems are frozen */

static void instant_thaw(struct session *session, struct snapshot *from)
{
	struct snapshot *snapshot = from;

	list_for_each_entry_continue_reverse(snapshot, &session->snapshots, node)
		origin_thaw(&snapshot->origin);
}

static void instant_thaw_all(struct session *session)
{
	instant_thaw(session, list_entry(&session->snapshots, struct snapshot, node));
}

/* Nothing is frozen yet: what makes the time short in which something is. */
static int instant_prepare(struct session *session)
{
	struct snapshot *snapshot;
	int ret;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		ret = origin_check_thawed(&snapshot->origin, &snapshot->error,
					  snapshot->label);
		if (ret)
			return snapshot_blame(snapshot, ret);
	}
	list_for_each_entry(snapshot, &session->snapshots, node)
		origin_sync(&snapshot->origin);
	instant_copy_maps(session);
	return 0;
}

static int instant_freeze(struct session *session)
{
	struct snapshot *snapshot;
	int ret;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		ret = origin_freeze(&snapshot->origin, &snapshot->error,
				    snapshot->label);
		if (ret) {
			instant_thaw(session, snapshot);
			return snapshot_blame(snapshot, ret);
		}
	}
	return 0;
}

/* Writes are held, and the areas armed */

static void instant_open_gates(struct session *session, struct snapshot *from)
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
static struct snapshot *instant_close_layer(struct session *session,
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
	return snapshot_blame(snapshot, err);
}

static int instant_close_gates(struct session *session)
{
	unsigned long deadline = jiffies + instant_timeout();
	struct snapshot *snapshot, *next;
	int ret;

	next = list_first_entry(&session->snapshots, struct snapshot, node);
	list_for_each_entry(snapshot, &session->snapshots, node) {
		if (snapshot == next)
			next = instant_close_layer(session, snapshot);
		ret = gate_drain(tracker_gate(snapshot->tracker), deadline);
		if (!ret)
			continue;
		instant_open_gates(session, next);
		return snapshot_blame_drain(snapshot, ret);
	}
	return 0;
}

/* RAID and device-mapper may rely on what a discard does: it is passed on. */
static bool snapshot_drops_discards(const struct snapshot *snapshot)
{
	return !snapshot->preserve_discards && !snapshot->origin.held_by_other;
}

static void instant_arm(struct session *session)
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

void instant_disarm(struct session *session)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node)
		tracker_disarm(snapshot->tracker, snapshot->area);
}

static int instant_hold(struct session *session)
{
	struct snapshot *snapshot;
	u64 start;
	int ret;

	list_for_each_entry(snapshot, &session->snapshots, node)
		gate_prepare_close(tracker_gate(snapshot->tracker));
	list_for_each_entry(snapshot, &session->snapshots, node)
		gate_await_prepared(tracker_gate(snapshot->tracker));

	start = ktime_get_ns();
	ret = instant_close_gates(session);
	if (!ret) {
		instant_arm(session);
		instant_open_gates(session, list_entry(&session->snapshots,
						    struct snapshot, node));
	}
	session->hold_us = (ktime_get_ns() - start) / NSEC_PER_USEC;

	list_for_each_entry(snapshot, &session->snapshots, node)
		gate_settle(tracker_gate(snapshot->tracker));
	return ret;
}

int instant_take(struct session *session)
{
	unsigned int noio;
	u64 start;
	int ret;

	ret = instant_prepare(session);
	if (ret)
		return ret;
	/*
	 * Memory must not be reclaimed by writes that are held here, nor through
	 * a file system that is frozen.
	 */
	noio = memalloc_noio_save();
	start = ktime_get_ns();
	ret = instant_freeze(session);
	if (!ret) {
		ret = instant_hold(session);
		instant_thaw_all(session);
		session->frozen_us = (ktime_get_ns() - start) / NSEC_PER_USEC;
	}
	memalloc_noio_restore(noio);
	return ret;
}
