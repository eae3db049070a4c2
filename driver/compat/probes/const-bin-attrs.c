// SPDX-License-Identifier: GPL-2.0
/*
 * A group's binary attributes are constant ones since 6.16, 9bec944506fa "sysfs:
 * constify attribute_group::bin_attrs".
 */
#include <linux/sysfs.h>

#ifdef PROBE_NEW
static const struct bin_attribute *const probe_attrs[] = { NULL };
#else
static struct bin_attribute *probe_attrs[] = { NULL };
#endif

struct attribute_group probe_group = { .bin_attrs = probe_attrs };
