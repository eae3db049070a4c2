/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_DEVICE_H
#define BLKSNAP_COMPAT_DEVICE_H

#include <linux/device.h>
#include <linux/sysfs.h>

#include "probed/all.h"

/* The parameters of a callback of struct class_interface. */
#ifdef HAVE_CLASS_CALLBACKS
#define COMPAT_CLASS_INTERFACE_PARAMS(dev) struct device *dev
#else
#define COMPAT_CLASS_INTERFACE_PARAMS(dev) \
	struct device *dev, struct class_interface *interface
#endif

/* What the read callback of a binary attribute is given. */
#ifdef HAVE_CONST_BIN_ATTRIBUTE
#define compat_bin_attribute const struct bin_attribute
#else
#define compat_bin_attribute struct bin_attribute
#endif

/* An element of a group's list of them. */
#ifdef HAVE_CONST_BIN_ATTRS
#define compat_bin_attr_ptr const struct bin_attribute *const
#else
#define compat_bin_attr_ptr struct bin_attribute *
#endif

#endif
