/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_INSTANT_H
#define BLKSNAP_INSTANT_H

struct session;

/**
 * instant_timeout() - how long writes may be held
 *
 * Context: any. Return: take_timeout_ms, in jiffies.
 */
unsigned long instant_timeout(void);

/**
 * instant_take() - gets the origins quiet, and arms the areas at one instant
 * @session: its origins are open, what is stacked on top first; its snapshots
 *	are set up, its mutex is held
 *
 * Notes how long writes were held and file systems frozen. Context: may sleep;
 * one take at a time.
 *
 * Return: 0, and each write that begins is preserved; or an errno, the reason in
 * the session's error text, and nothing is armed, closed or frozen: -EBUSY when
 * somebody else has frozen a file system, -ETIMEDOUT when writes were not
 * complete in time, -EOPNOTSUPP when nobody can tell whether they are, or what
 * freezing says.
 */
int instant_take(struct session *session);

/**
 * instant_disarm() - ends what instant_take() has armed
 * @session: its areas are retired. Context: may sleep.
 */
void instant_disarm(struct session *session);

#endif
