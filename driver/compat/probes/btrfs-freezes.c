// SPDX-License-Identifier: GPL-2.0
/*
 * Since 6.17 btrfs has claimed its devices like other file systems, 08fa138864d5
 * "btrfs: use fs_holder_ops for all opened devices", and so is frozen by them.
 * What the headers show of it is the operation which it needed first,
 * d9c37a4904ec "fs: add a new remove_bdev() callback".
 */
#include <linux/fs.h>

#ifdef PROBE_NEW
static bool probe(const struct super_operations *ops)
{
	return ops->remove_bdev;
}
#else
/* One member of that name and not two, as there is none in here: */
struct probe {
	struct super_operations;
	int remove_bdev;
};
#endif
