// SPDX-License-Identifier: GPL-2.0
/*
 * Init and exit, and nothing else.
 */
#include <linux/module.h>

#include "chunk.h"
#include "configfs.h"
#include "disk_watch.h"
#include "gate.h"
#include "hibernation.h"
#include "image.h"
#include "memory.h"

#if PAGE_SHIFT != 12
#error "pages of more than 4 KiB are not supported: a granule is a page at least"
#endif
#ifndef CONFIG_TASKS_RCU
#error "a kernel without RCU-tasks is not supported: who is about to enter a queue cannot be waited for"
#endif
#ifdef CONFIG_PREEMPT_RT
#error "PREEMPT_RT is not supported: writes complete where such a kernel may not sleep"
#endif

static int __init blksnap_init(void)
{
	int ret;

	ret = memory_init();
	if (ret)
		return ret;
	ret = chunk_init();
	if (ret)
		goto out_memory;
	ret = gate_init();
	if (ret)
		goto out_chunk;
	ret = disk_watch_init();
	if (ret)
		goto out_gate;
	ret = hibernation_init();
	if (ret)
		goto out_watch;
	ret = image_init();
	if (ret)
		goto out_hibernation;
	ret = blksnap_configfs_init();
	if (ret)
		goto out_image;
	return 0;

out_image:
	image_exit();
out_hibernation:
	hibernation_exit();
out_watch:
	disk_watch_exit();
out_gate:
	gate_exit();
out_chunk:
	chunk_exit();
out_memory:
	memory_exit();
	return ret;
}

static void __exit blksnap_exit(void)
{
	blksnap_configfs_exit();
	image_exit();
	hibernation_exit();
	disk_watch_exit();
	gate_exit();
	chunk_exit();
	memory_exit();
}

module_init(blksnap_init);
module_exit(blksnap_exit);

MODULE_DESCRIPTION("Snapshots of live block devices");
MODULE_AUTHOR("The blksnap authors");
MODULE_LICENSE("GPL");
MODULE_VERSION(BLKSNAP_VERSION);
