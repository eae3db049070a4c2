// SPDX-License-Identifier: GPL-2.0
/*
 * No driver takes pages without a bio since 6.3, 3222d8c2a7f8 "block: remove
 * ->rw_page".
 */
#include <linux/blkdev.h>

#ifdef PROBE_NEW
/* The name of what called it is free. */
static int bdev_read_page;
#else
static bool probe(const struct block_device_operations *ops)
{
	return ops->rw_page;
}
#endif
