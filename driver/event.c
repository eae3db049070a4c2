// SPDX-License-Identifier: GPL-2.0
/*
 * State changes go out to udev and to whoever polls.
 */
#include <linux/blkdev.h>
#include <linux/kobject.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "diff_area.h"
#include "event.h"
#include "image.h"
#include "sysfs.h"

#define EVENT_VARS 4
#define EVENT_TRACKING_VARS 3

/* A variable that could not be allocated ends the list: the rest is sent. */
static void event_send(struct kobject *kobj, char **envp, unsigned int nr)
{
	unsigned int i;

	kobject_uevent_env(kobj, KOBJ_CHANGE, envp);
	for (i = 0; i < nr; i++)
		kfree(envp[i]);
}

void event_tell(const struct image *image, const char *event)
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

	event_send(kobj, envp, EVENT_VARS);
}

void event_wake(const struct image *image)
{
	sysfs_notify(&disk_to_dev(image_disk(image))->kobj, SYSFS_IMAGE_GROUP,
		     "state");
}

void event_state_changed(const struct image *image, const char *state)
{
	event_wake(image);
	event_tell(image, state);
}

void event_tracking_lost(const char *tracker, dev_t origin)
{
	char *envp[EVENT_TRACKING_VARS + 1] = {
		kasprintf(GFP_KERNEL, "BLKSNAP_EVENT=lost"),
		kasprintf(GFP_KERNEL, "BLKSNAP_TRACKER=%s", tracker),
		kasprintf(GFP_KERNEL, "BLKSNAP_ORIGIN=%u:%u", MAJOR(origin),
			  MINOR(origin)),
	};

	event_send(&THIS_MODULE->mkobj.kobj, envp, EVENT_TRACKING_VARS);
}
