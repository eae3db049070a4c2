/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_CONFIGFS_TRACKERS_H
#define BLKSNAP_CONFIGFS_TRACKERS_H

struct config_group;

/**
 * configfs_trackers_add() - makes the directory trackers/
 * @top: the directory that it is in; not registered yet
 *
 * Context: module init. It goes with @top.
 */
void configfs_trackers_add(struct config_group *top);

#endif
