// SPDX-License-Identifier: GPL-2.0
/*
 * Why a machine does not hibernate while writes are intercepted.
 *
 * The kernel copies its memory, and then writes the copy to the swap space. What
 * those writes overwrite would be preserved, or marked as changed, in a memory
 * that is not the one that comes back: after it, images would have the new
 * content of these blocks, and change maps would not know of them (I2).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/notifier.h>
#include <linux/printk.h>
#include <linux/suspend.h>

#include "filter.h"
#include "hibernation.h"

static int hibernation_notify(struct notifier_block *block,
			      unsigned long event, void *data)
{
	int ret;

	switch (event) {
	case PM_HIBERNATION_PREPARE:
		ret = filter_forbid();
		if (ret)
			pr_err("EBUSY: no hibernation while a session is active or a tracker is enabled\n");
		return notifier_from_errno(ret);
	case PM_POST_HIBERNATION:
		filter_allow();
		break;
	}
	return NOTIFY_DONE;
}

static struct notifier_block hibernation_block = {
	.notifier_call = hibernation_notify,
};

int hibernation_init(void)
{
	return register_pm_notifier(&hibernation_block);
}

void hibernation_exit(void)
{
	unregister_pm_notifier(&hibernation_block);
}
