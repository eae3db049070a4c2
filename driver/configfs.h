/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_CONFIGFS_H
#define BLKSNAP_CONFIGFS_H

/**
 * blksnap_configfs_init() - shows /sys/kernel/config/blksnap
 *
 * Context: module init, last. Return: 0 or an errno.
 */
int blksnap_configfs_init(void);

/**
 * blksnap_configfs_exit() - takes it away. Context: module exit, first.
 */
void blksnap_configfs_exit(void);

#endif
