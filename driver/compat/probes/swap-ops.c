// SPDX-License-Identifier: GPL-2.0
/*
 * A file system that takes the pages of a swap file by functions of its own says
 * so by them, and no longer by a flag, since 7.3, "mm/swap: remove SWP_FS_OPS".
 */
#include <linux/swap.h>

#ifdef PROBE_NEW
static bool probe(const struct swap_info_struct *info)
{
	return info->ops;
}
#else
static bool probe(const struct swap_info_struct *info)
{
	return info->flags & SWP_FS_OPS;
}
#endif
