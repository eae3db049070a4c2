/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_IMAGE_H
#define BLKSNAP_IMAGE_H

#include <linux/types.h>

struct attribute_group;
struct cbt_frozen;
struct diff_area;
struct gendisk;
struct image;

/**
 * struct image_config - what an image shows, and to whom it belongs
 * @area: the diff area; the image holds a reference
 * @session: name of the session
 * @snapshot: name of the snapshot
 * @groups: attributes of the disk, there when its "add" event is sent
 * @cbt_groups: those of one with a change map
 * @cbt: the change map, or NULL; see image_set_cbt()
 */
struct image_config {
	struct diff_area *area;
	const char *session;
	const char *snapshot;
	const struct attribute_group **groups;
	const struct attribute_group **cbt_groups;
	struct cbt_frozen *cbt;
};

/**
 * image_init() - gets a major number
 *
 * Context: module init. Return: 0 or an errno.
 */
int image_init(void);

/**
 * image_exit() - waits until the last opener of the last image has gone
 *
 * Context: module exit; there is no session any more.
 */
void image_exit(void);

/**
 * image_create() - everything that an image needs, but no disk to be seen
 * @config: is copied, the names too
 *
 * Context: may sleep. Return: the image, or ERR_PTR(-ENOMEM).
 */
struct image *image_create(const struct image_config *config);

/**
 * image_set_cbt() - gives it the origin's change map as of the take
 * @image: not added yet
 * @frozen: the image's from now on; or NULL
 *
 * Context: any.
 */
void image_set_cbt(struct image *image, struct cbt_frozen *frozen);

/**
 * image_cbt() - what image_set_cbt() has given it, or NULL. Context: any.
 * @image: the image
 */
struct cbt_frozen *image_cbt(const struct image *image);

/**
 * image_add() - shows the disk
 * @image: from image_create(); its area is armed
 *
 * Reads the partition table through the image. Context: may sleep.
 * Return: 0, or an errno; image_destroy() is due in both cases.
 */
int image_add(struct image *image);

/**
 * image_destroy() - takes the disk away
 * @image: whoever has it open gets EIO from now on; its memory goes with the
 *	last of them
 *
 * Context: may sleep.
 */
void image_destroy(struct image *image);

/**
 * image_is() - is this the number of an image, or of a partition of one?
 * @dev: of any block device. Context: any.
 */
bool image_is(dev_t dev);

/**
 * image_name() - the name of the disk, blksnapN. Context: any.
 * @image: the image
 */
const char *image_name(const struct image *image);

/**
 * image_disk() - the disk, while it is shown. Context: any.
 * @image: the image
 */
struct gendisk *image_disk(const struct image *image);

/**
 * image_of() - what a disk of ours shows, and to whom it belongs
 * @disk: an image's. Context: any.
 */
const struct image_config *image_of(const struct gendisk *disk);

#endif
