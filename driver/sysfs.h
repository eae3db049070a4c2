/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_SYSFS_H
#define BLKSNAP_SYSFS_H

struct attribute_group;

/* The directories below /sys/block/blksnapN. */
#define SYSFS_IMAGE_GROUP "blksnap"
#define SYSFS_CBT_GROUP "cbt"

/* The attributes of an image's disk; see docs/abi/sysfs.md. */
extern const struct attribute_group *sysfs_image_groups[];

/* The same, and those of its change map. */
extern const struct attribute_group *sysfs_image_cbt_groups[];

#endif
