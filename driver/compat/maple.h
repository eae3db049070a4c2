/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_MAPLE_H
#define BLKSNAP_COMPAT_MAPLE_H

#include <linux/gfp.h>
#include <linux/maple_tree.h>

#include "probed/all.h"

/* Stores with memory that is there at once. Called without preemption. */
static inline int compat_mas_store_now(struct ma_state *mas, void *entry,
				       gfp_t gfp)
{
#ifdef HAVE_MAS_SHEAF
	int ret = mas_preallocate(mas, entry, gfp);

	if (!ret)
		mas_store_prealloc(mas, entry);
	return ret;
#else
	struct page *page;

	/*
	 * mas_store_gfp() tries as long as it gets a part of what it needs; so it
	 * is called where there is a page for that, which but an interrupt nobody
	 * can take from this CPU.
	 */
	page = alloc_page(gfp);
	if (!page)
		return -ENOMEM;
	__free_page(page);
	return mas_store_gfp(mas, entry, gfp);
#endif
}

#endif
