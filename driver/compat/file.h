/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_FILE_H
#define BLKSNAP_COMPAT_FILE_H

#include <linux/fs.h>
#include <linux/fileattr.h>
#include <linux/mount.h>

#include "probed/all.h"

/* How a mount maps owners. */
#ifdef HAVE_MOUNT_IDMAP
#define compat_idmap(mnt) mnt_idmap(mnt)
#else
#define compat_idmap(mnt) mnt_user_ns(mnt)
#endif

#ifdef HAVE_FILE_KATTR
#define compat_file_attr file_kattr
#else
#define compat_file_attr fileattr
#endif

/*
 * Removes a file's name from its directory, the caller holds the directory's
 * inode locked and may write to the mount.
 */
static inline int compat_unlink(const struct path *path, struct inode *dir)
{
	return vfs_unlink(compat_idmap(path->mnt), dir, path->dentry, NULL);
}

/* Will what is overwritten in the file stay where it is? */
static inline bool compat_is_nocow(const struct path *path)
{
	struct compat_file_attr attr;

	return !vfs_fileattr_get(path->dentry, &attr) &&
	       attr.flags & FS_NOCOW_FL;
}

/* Switches copy-on-write off, or on again, for a file that is empty. */
static inline int compat_set_nocow(const struct path *path, bool nocow)
{
	struct compat_file_attr attr;
	int ret = vfs_fileattr_get(path->dentry, &attr);

	if (ret)
		return ret;
	fileattr_fill_flags(&attr, nocow ? attr.flags | FS_NOCOW_FL :
					   attr.flags & ~FS_NOCOW_FL);
	return vfs_fileattr_set(compat_idmap(path->mnt), path->dentry, &attr);
}

#endif
