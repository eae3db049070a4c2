/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_SNAPSHOT_SETUP_H
#define BLKSNAP_SNAPSHOT_SETUP_H

struct snapshot;

/**
 * snapshot_setup() - makes what a snapshot has while it is active
 * @snapshot: its origin and its session's storage are open, its session has a
 *	workqueue; the session's mutex is held
 * @timeout: in jiffies; see gate_watch()
 *
 * Nothing is armed by that, and the image not added. Context: may sleep.
 *
 * Return: 0; or an errno, the reason in the error texts of snapshot and session,
 * and nothing is left: -ENOMEM, -ETIMEDOUT, -EBUSY when the hook is not to be had,
 * or what the parts say.
 */
int snapshot_setup(struct snapshot *snapshot, unsigned long timeout);

/**
 * snapshot_teardown() - undoes snapshot_setup()
 * @snapshot: not armed, or not any more
 *
 * Waits for I/O of ours that is under way. Its session's fail work may be queued
 * once more by that. Context: may sleep.
 */
void snapshot_teardown(struct snapshot *snapshot);

/**
 * snapshot_end_freeze() - gives back what copying the change map needed
 * @snapshot: set up. May be called again. Context: may sleep.
 */
void snapshot_end_freeze(struct snapshot *snapshot);

#endif
