// SPDX-License-Identifier: GPL-2.0
/*
 * The read callback of a binary attribute gets a constant one since 6.16,
 * 97d06802d10a "sysfs: constify bin_attribute argument of
 * bin_attribute::read/write()".
 */
#include <linux/sysfs.h>

#ifdef PROBE_NEW
static ssize_t probe(struct file *file, struct kobject *kobj,
		     const struct bin_attribute *attr, char *buf, loff_t pos,
		     size_t count)
#else
static ssize_t probe(struct file *file, struct kobject *kobj,
		     struct bin_attribute *attr, char *buf, loff_t pos,
		     size_t count)
#endif
{
	return 0;
}

struct bin_attribute probe_attribute = { .read = probe };
