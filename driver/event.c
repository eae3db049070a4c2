// SPDX-License-Identifier: GPL-2.0
/*
 * State changes go out to udev and to whoever polls.
 */
#include <linux/blkdev.h>
#include <linux/kobject.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "diff_area.h"
#include "event.h"
#include "image.h"
#include "sysfs.h"

#define EVENT_VARS 4

void event_state_changed(const struct image *image, const char *event)
{
	struct gendisk *disk = image_disk(image);
	const struct image_config *config = image_of(disk);
	struct kobject *kobj = &disk_to_dev(disk)->kobj;
	char *envp[EVENT_VARS + 1] = {
		kasprintf(GFP_KERNEL, "BLKSNAP_EVENT=%s", event),
		kasprintf(GFP_KERNEL, "BLKSNAP_SESSION=%s", config->session),
		kasprintf(GFP_KERNEL, "BLKSNAP_SNAPSHOT=%s", config->snapshot),
		kasprintf(GFP_KERNEL, "BLKSNAP_ORIGIN=%u:%u",
			  MAJOR(config->area->config.origin->bd_dev),
			  MINOR(config->area->config.origin->bd_dev)),
	};
	unsigned int i;

	sysfs_notify(kobj, SYSFS_IMAGE_GROUP, "state");
	/* A variable that could not be allocated ends the list: send the rest. */
	kobject_uevent_env(kobj, KOBJ_CHANGE, envp);
	for (i = 0; i < EVENT_VARS; i++)
		kfree(envp[i]);
}
