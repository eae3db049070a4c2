// SPDX-License-Identifier: GPL-2.0
/*
 * Since 6.18 a maple state keeps its memory in a sheaf, 9b05890a25d9
 * "maple_tree: Prefilled sheaf conversion and testing". From then on
 * mas_preallocate() is exported, and in 7.3 at least mas_store_gfp() warns if it
 * finds no memory and must not wait, where the tree has a lock of its own.
 */
#include <linux/maple_tree.h>

#ifdef PROBE_NEW
static void *probe(const struct ma_state *mas)
{
	return mas->sheaf;
}
#else
static struct maple_alloc *probe(const struct ma_state *mas)
{
	return mas->alloc;
}
#endif
