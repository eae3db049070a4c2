/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_SNAPSHOT_FAILURE_H
#define BLKSNAP_SNAPSHOT_FAILURE_H

struct session;
struct snapshot;

/**
 * session_init_failures() - the session's @fail_work. Context: any.
 * @session: the session
 */
void session_init_failures(struct session *session);

/**
 * session_look_soon() - has its failures looked for, and told
 * @session: nothing is told before it is active. Context: any.
 */
void session_look_soon(struct session *session);

/**
 * snapshot_lose_origin() - from now on nobody knows what the origin has
 * @snapshot: it has an area. Context: any.
 */
void snapshot_lose_origin(struct snapshot *snapshot);

#endif
