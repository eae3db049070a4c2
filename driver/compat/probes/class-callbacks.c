// SPDX-License-Identifier: GPL-2.0
/*
 * Callbacks of a class's interface are given the device alone since 6.4,
 * 2243acd50ac4 "driver core: class: remove struct class_interface * from
 * callbacks".
 */
#include <linux/device.h>

#ifdef PROBE_NEW
static void probe(struct device *dev)
{
}
#else
static void probe(struct device *dev, struct class_interface *interface)
{
}
#endif

struct class_interface probe_interface = { .remove_dev = probe };
