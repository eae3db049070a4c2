// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/config/blksnap/: the top of what the administrator types and reads.
 */
#include <linux/configfs.h>
#include <linux/module.h>

#include "compat/bdev.h"
#include "configfs.h"
#include "configfs_sessions.h"
#include "configfs_trackers.h"
#include "diff_storage.h"

static ssize_t blksnap_version_show(struct config_item *item, char *page)
{
	return sysfs_emit(page, "%s\n", BLKSNAP_VERSION);
}
CONFIGFS_ATTR_RO(blksnap_, version);

static ssize_t blksnap_features_show(struct config_item *item, char *page)
{
	return sysfs_emit(page,
			  "cbt\ndiff-bdev\ndiff-dir\ndiff-file\ndiff-io\n%s%sgrow\nimage-write\noverlap\n",
			  DIFF_STORAGE_HAS_MEMORY ? "diff-memory\n" : "",
			  compat_bdev_freezes_btrfs() ? "freeze-btrfs\n" : "");
}
CONFIGFS_ATTR_RO(blksnap_, features);

static struct configfs_attribute *blksnap_attrs[] = {
	&blksnap_attr_version,
	&blksnap_attr_features,
	NULL
};

static const struct config_item_type blksnap_type = {
	.ct_attrs = blksnap_attrs,
	.ct_owner = THIS_MODULE,
};

static struct configfs_subsystem blksnap_subsys = {
	.su_group = {
		.cg_item = {
			.ci_namebuf = KBUILD_MODNAME,
			.ci_type = &blksnap_type,
		},
	},
	.su_mutex = __MUTEX_INITIALIZER(blksnap_subsys.su_mutex),
};

int blksnap_configfs_init(void)
{
	config_group_init(&blksnap_subsys.su_group);
	configfs_sessions_add(&blksnap_subsys.su_group);
	configfs_trackers_add(&blksnap_subsys.su_group);
	return configfs_register_subsystem(&blksnap_subsys);
}

void blksnap_configfs_exit(void)
{
	configfs_unregister_subsystem(&blksnap_subsys);
}
