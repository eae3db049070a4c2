// SPDX-License-Identifier: GPL-2.0
/*
 * How a mount maps owners has a type of its own since 6.3, abf08576afe3 "fs: port
 * vfs_*() helpers to struct mnt_idmap"; before, it was a user namespace.
 */
#include <linux/fs.h>
#include <linux/mount.h>

#ifdef PROBE_NEW
static int probe(const struct path *path, struct inode *dir)
{
	return vfs_unlink(mnt_idmap(path->mnt), dir, path->dentry, NULL);
}
#else
static int probe(const struct path *path, struct inode *dir)
{
	return vfs_unlink(mnt_user_ns(path->mnt), dir, path->dentry, NULL);
}
#endif
