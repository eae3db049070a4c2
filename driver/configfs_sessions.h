/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_CONFIGFS_SESSIONS_H
#define BLKSNAP_CONFIGFS_SESSIONS_H

struct config_group;

/**
 * configfs_sessions_add() - makes the directory sessions/
 * @top: the directory that it is in; not registered yet
 *
 * Context: module init. It goes with @top.
 */
void configfs_sessions_add(struct config_group *top);

#endif
