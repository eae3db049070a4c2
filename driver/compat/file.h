/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_FILE_H
#define BLKSNAP_COMPAT_FILE_H

#include <linux/fileattr.h>
#include <linux/fs.h>
#include <linux/mount.h>

/*
 * How a mount maps owners. Until 6.3 (abf08576afe3 "fs: port vfs_*() helpers to
 * struct mnt_idmap") that was a user namespace.
 */
#define compat_idmap(mnt) mnt_user_ns(mnt)

/*
 * Removes a file's name from its directory, the caller holds the directory's
 * inode locked and may write to the mount.
 */
static inline int compat_unlink(const struct path *path, struct inode *dir)
{
	return vfs_unlink(compat_idmap(path->mnt), dir, path->dentry, NULL);
}

/* Switches off copy-on-write for a file that is still empty. */
static inline int compat_set_nocow(const struct path *path)
{
	struct fileattr attr;
	int ret = vfs_fileattr_get(path->dentry, &attr);

	if (ret)
		return ret;
	fileattr_fill_flags(&attr, attr.flags | FS_NOCOW_FL);
	return vfs_fileattr_set(compat_idmap(path->mnt), path->dentry, &attr);
}

#endif
