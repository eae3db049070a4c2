/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_TAKE_H
#define BLKSNAP_TAKE_H

struct session;

/**
 * session_take() - takes all snapshots of a session at one instant
 * @session: configured
 *
 * Context: may sleep: syncs and freezes file systems. The caller holds the
 * session's mutex.
 *
 * Return: 0, and the session is active; or an errno, the reason in the
 * session's error text, and nothing has changed: -EINVAL when something is not
 * configured, -EBUSY on a conflict with another user or session, -ETIMEDOUT
 * when the origins could not be got quiet within take_timeout_ms, or what the
 * steps say.
 */
int session_take(struct session *session);

/**
 * session_release() - gives everything back
 * @session: active
 *
 * Images vanish, also open ones: what they are asked from now on fails. Waits
 * for I/O of ours that is under way. Context: may sleep. The caller holds the
 * session's mutex.
 */
void session_release(struct session *session);

#endif
