// SPDX-License-Identifier: GPL-2.0
/*
 * A file's attributes inside the kernel have another name since 6.17,
 * ca115d7e7546 "tree-wide: s/struct fileattr/struct file_kattr/g".
 */
#include <linux/fs.h>
#include <linux/fileattr.h>

#ifdef PROBE_NEW
static int probe(struct dentry *dentry)
{
	struct file_kattr attr;

	return vfs_fileattr_get(dentry, &attr);
}
#else
static int probe(struct dentry *dentry)
{
	struct fileattr attr;

	return vfs_fileattr_get(dentry, &attr);
}
#endif
