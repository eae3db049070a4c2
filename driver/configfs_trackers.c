// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/config/blksnap/trackers/: change tracking.
 *
 * Here values are parsed and shown; what they do is in tracking.c. While a
 * tracker is enabled, rmdir answers EBUSY, and so does rmmod.
 */
#include <linux/configfs.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "configfs_trackers.h"
#include "snapshot.h"
#include "tracking.h"
#include "value.h"

static struct config_group trackers_group;	/* the directory; set once */

struct tracker_item {
	struct config_item item;
	struct tracking tracking;
};

static struct tracking *to_tracking(struct config_item *item)
{
	return &container_of(item, struct tracker_item, item)->tracking;
}

static struct config_item *tracking_to_item(struct tracking *tracking)
{
	return &container_of(tracking, struct tracker_item, tracking)->item;
}

/* trackers/TRACKER */

static ssize_t tracker_device_show(struct config_item *item, char *page)
{
	return tracking_show_device(to_tracking(item), page);
}

static ssize_t tracker_device_store(struct config_item *item, const char *page,
				    size_t count)
{
	struct tracking *tracking = to_tracking(item);
	char *path;
	int ret;

	path = value_get(page, count, "device", &tracking->error,
			 tracking->name);
	if (IS_ERR(path))
		return PTR_ERR(path);
	ret = tracking_set_device(tracking, path);
	kfree(path);
	return ret ?: count;
}
CONFIGFS_ATTR(tracker_, device);

static ssize_t tracker_block_size_show(struct config_item *item, char *page)
{
	struct tracking_status status;

	tracking_status(to_tracking(item), &status);
	return sysfs_emit(page, "%llu\n", status.block_size);
}

static ssize_t tracker_block_size_store(struct config_item *item,
					const char *page, size_t count)
{
	struct tracking *tracking = to_tracking(item);
	u64 bytes;
	int ret;

	ret = value_get_size(page, count, "block_size", &tracking->error,
			     tracking->name, &bytes);
	return ret ?: tracking_set_block_size(tracking, bytes) ?: count;
}
CONFIGFS_ATTR(tracker_, block_size);

/* The directory is held while enabled, so that rmdir does not lose the map. */
static int tracker_enable(struct tracking *tracking)
{
	struct config_item *item = tracking_to_item(tracking);
	int ret;

	ret = configfs_depend_item_unlocked(trackers_group.cg_subsys, item);
	if (ret)
		return error_set(&tracking->error, tracking->name, ret,
				 "the tracker is just being removed");
	ret = tracking_enable(tracking);
	if (ret)
		configfs_undepend_item_unlocked(item);
	return ret;
}

static int tracker_set_enabled(struct tracking *tracking, bool enabled)
{
	if (enabled)
		return tracker_enable(tracking);
	if (tracking_disable(tracking))
		configfs_undepend_item_unlocked(tracking_to_item(tracking));
	return 0;
}

static ssize_t tracker_enabled_show(struct config_item *item, char *page)
{
	struct tracking_status status;

	tracking_status(to_tracking(item), &status);
	return sysfs_emit(page, "%d\n", status.state != TRACKING_CONFIGURED);
}

static ssize_t tracker_enabled_store(struct config_item *item, const char *page,
				     size_t count)
{
	struct tracking *tracking = to_tracking(item);
	int ret;

	ret = value_get_switch(page, count, "enabled", &tracking->error,
			       tracking->name);
	if (ret >= 0)
		ret = tracker_set_enabled(tracking, ret);
	return ret ?: count;
}
CONFIGFS_ATTR(tracker_, enabled);

static ssize_t tracker_generation_show(struct config_item *item, char *page)
{
	struct tracking_status status;

	tracking_status(to_tracking(item), &status);
	if (!cbt_id_is(&status.id))
		return 0;
	return sysfs_emit(page, "%pUb\n", &status.id.generation);
}
CONFIGFS_ATTR_RO(tracker_, generation);

static ssize_t tracker_number_show(struct config_item *item, char *page)
{
	struct tracking_status status;

	tracking_status(to_tracking(item), &status);
	return sysfs_emit(page, "%u\n", status.id.number);
}
CONFIGFS_ATTR_RO(tracker_, number);

/* All lines of "dirty". Return: how many, or an errno. */
static int tracker_parse_ranges(char *text, struct tracking_range *ranges)
{
	unsigned int nr = 0;
	char *line;
	int ret;

	while ((line = strsep(&text, "\n"))) {
		ret = value_parse_range(line, &ranges[nr].offset,
					&ranges[nr].length);
		if (ret)
			return ret;
		nr++;
	}
	return nr;
}

static int tracker_mark_dirty(struct tracking *tracking, char *text)
{
	struct tracking_range *ranges;
	int ret;

	/* The shortest line is "0 1" and its newline. */
	ranges = kcalloc(strlen(text) / 4 + 2, sizeof(*ranges), GFP_KERNEL);
	if (!ranges)
		return error_set(&tracking->error, tracking->name, -ENOMEM,
				 "dirty: no memory for the ranges");
	ret = tracker_parse_ranges(text, ranges);
	if (ret < 0)
		error_set(&tracking->error, tracking->name, ret,
			  "dirty: not lines of OFFSET LENGTH");
	else
		ret = tracking_dirty(tracking, ranges, ret);
	kfree(ranges);
	return ret;
}

static ssize_t tracker_dirty_store(struct config_item *item, const char *page,
				   size_t count)
{
	struct tracking *tracking = to_tracking(item);
	char *text;
	int ret;

	text = value_get(page, count, "dirty", &tracking->error,
			 tracking->name);
	if (IS_ERR(text))
		return PTR_ERR(text);
	ret = tracker_mark_dirty(tracking, text);
	kfree(text);
	return ret ?: count;
}
CONFIGFS_ATTR_WO(tracker_, dirty);

static ssize_t tracker_state_show(struct config_item *item, char *page)
{
	struct tracking_status status;

	tracking_status(to_tracking(item), &status);
	return sysfs_emit(page, "%s\n", tracking_state_name(status.state));
}
CONFIGFS_ATTR_RO(tracker_, state);

static ssize_t tracker_error_show(struct config_item *item, char *page)
{
	return error_emit(&to_tracking(item)->error, page);
}
CONFIGFS_ATTR_RO(tracker_, error);

static struct configfs_attribute *tracker_attrs[] = {
	&tracker_attr_device,
	&tracker_attr_block_size,
	&tracker_attr_enabled,
	&tracker_attr_generation,
	&tracker_attr_number,
	&tracker_attr_dirty,
	&tracker_attr_state,
	&tracker_attr_error,
	NULL
};

static void tracker_item_release(struct config_item *item)
{
	kfree(container_of(item, struct tracker_item, item));
}

static struct configfs_item_operations tracker_item_ops = {
	.release = tracker_item_release,
};

static const struct config_item_type tracker_type = {
	.ct_item_ops = &tracker_item_ops,
	.ct_attrs = tracker_attrs,
	.ct_owner = THIS_MODULE,
};

/* trackers */

static struct config_item *trackers_make_tracker(struct config_group *group,
						 const char *name)
{
	struct tracker_item *self;

	if (!snapshot_name_valid(name))
		return ERR_PTR(error_set(NULL, "trackers", -EINVAL,
					 "%s is not a valid name for a tracker",
					 name));
	self = kzalloc(sizeof(*self), GFP_KERNEL);
	if (!self)
		return ERR_PTR(error_set(NULL, "trackers", -ENOMEM,
					 "no memory for %s", name));
	tracking_add(&self->tracking, name);
	config_item_init_type_name(&self->item, name, &tracker_type);
	return &self->item;
}

static void trackers_drop_tracker(struct config_group *group,
				  struct config_item *item)
{
	tracking_remove(to_tracking(item));
	config_item_put(item);
}

static struct configfs_group_operations trackers_group_ops = {
	.make_item = trackers_make_tracker,
	.drop_item = trackers_drop_tracker,
};

static const struct config_item_type trackers_type = {
	.ct_group_ops = &trackers_group_ops,
	.ct_owner = THIS_MODULE,
};

void configfs_trackers_add(struct config_group *top)
{
	config_group_init_type_name(&trackers_group, "trackers", &trackers_type);
	configfs_add_default_group(&trackers_group, top);
}
