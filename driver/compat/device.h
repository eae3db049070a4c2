/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_DEVICE_H
#define BLKSNAP_COMPAT_DEVICE_H

#include <linux/device.h>
#include <linux/sysfs.h>

/*
 * The parameters of a callback of struct class_interface. Until 6.4 ("driver
 * core: class: remove struct class_interface * from callbacks") there was a
 * second one.
 */
#define COMPAT_CLASS_INTERFACE_PARAMS(dev) \
	struct device *dev, struct class_interface *interface

/*
 * What the read callback of a binary attribute is given. Until 6.16 ("sysfs:
 * finalize the constification of bin_attributes") it was not const.
 */
#define compat_bin_attribute struct bin_attribute

#endif
