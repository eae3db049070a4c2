/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_SESSION_STORAGE_H
#define BLKSNAP_SESSION_STORAGE_H

struct list_head;
struct session;

/**
 * session_storage_open() - opens the difference storage of a session
 * @session: configured, its origins are open; its mutex is held
 * @active: the sessions that are active, by &struct session.active_node
 *
 * The storage has as much space as it must have from the start. Context: may
 * sleep; one take at a time.
 *
 * Return: 0; or an errno, the reason in the session's error text, and nothing is
 * open: -EBUSY and -EXDEV when it is in the way of an origin or of another
 * session, may be, or is on an image; -ENOSPC, -EINVAL, -ENOMEM, or what opening
 * says.
 */
int session_storage_open(struct session *session, struct list_head *active);

/**
 * session_storage_close() - undoes session_storage_open()
 * @session: no area of it is left
 *
 * Waits for its @fail_work. Context: may sleep, not that work.
 */
void session_storage_close(struct session *session);

/**
 * session_storage_begin_take() - no storage gets another piece of a disk with an
 * origin of this session
 * @session: its areas are about to exclude the storages that lie on their disks
 *
 * Until session_storage_end_take(); after that the active areas are known by
 * their trackers. When this returns, those who map pieces know of it. Context:
 * may sleep.
 */
void session_storage_begin_take(struct session *session);

/**
 * session_storage_end_take() - ends session_storage_begin_take(). Context: may
 * sleep.
 */
void session_storage_end_take(void);

#endif
