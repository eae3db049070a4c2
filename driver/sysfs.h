/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_SYSFS_H
#define BLKSNAP_SYSFS_H

struct attribute_group;

/* The directory below /sys/block/blksnapN. */
#define SYSFS_IMAGE_GROUP "blksnap"

/* The attributes of an image's disk; see docs/abi/sysfs.md. */
extern const struct attribute_group *sysfs_image_groups[];

#endif
