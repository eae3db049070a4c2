/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_SWAP_H
#define BLKSNAP_COMPAT_SWAP_H

#include <linux/swap.h>

#include "probed/all.h"

/*
 * Has the file system, when it activated the file, asked for pages to go through
 * functions of its own? Network file systems do; then there are no extents.
 */
static inline bool compat_swap_through_fs(const struct swap_info_struct *info)
{
#ifdef HAVE_SWAP_OPS
	return info->ops;
#else
	return info->flags & SWP_FS_OPS;
#endif
}

#endif
