// SPDX-License-Identifier: GPL-2.0
/*
 * Segments: the files that a difference storage consists of.
 *
 * A segment is opened or made, allocated, then either pinned or guarded, and in
 * the end as it was before: gone, empty, or as large as it had been given.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/err.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

#include "compat/file.h"
#include "diff_segment.h"
#include "file_io.h"
#include "pinned_file.h"

#define SEGMENT_FLAGS (O_RDWR | O_LARGEFILE)
#define SEGMENT_MODE 0600

/* Opening may make a file, which who has no memory must not leave. */
static struct diff_segment *segment_open(const struct path *root,
					 const char *path, int flags,
					 const char *who)
{
	struct diff_segment *segment;
	struct file *file;

	segment = kzalloc(sizeof(*segment), GFP_KERNEL);
	if (!segment)
		return ERR_PTR(-ENOMEM);
	file = file_open_root(root, path, SEGMENT_FLAGS | flags, SEGMENT_MODE);
	if (IS_ERR(file)) {
		kfree(segment);
		return ERR_CAST(file);
	}
	segment->who = who;
	segment->file = file;
	INIT_LIST_HEAD(&segment->node);
	return segment;
}

struct diff_segment *diff_segment_open(const struct path *root,
				       const char *path, const char *who)
{
	/* Links were followed when the path was written. */
	return segment_open(root, path, O_CREAT | O_NOFOLLOW, who);
}

struct diff_segment *diff_segment_open_unnamed(const struct path *directory,
					       const char *who)
{
	return segment_open(directory, ".", O_TMPFILE, who);
}

/*
 * The open file must not be the only one who knows the name: that would take the
 * inode from it.
 */
static void segment_unlink(struct diff_segment *segment)
{
	const struct path *path = &segment->file->f_path;
	struct dentry *parent = dget_parent(path->dentry);
	struct inode *dir = d_inode(parent);
	int ret;

	path_get(path);
	ret = mnt_want_write(path->mnt);
	if (ret)
		goto out;
	inode_lock_nested(dir, I_MUTEX_PARENT);
	if (path->dentry->d_parent == parent && !d_unhashed(path->dentry))
		ret = compat_unlink(path, dir);
	inode_unlock(dir);
	mnt_drop_write(path->mnt);
out:
	if (ret)
		pr_warn("%s: cannot remove %pD: error %d\n", segment->who,
			segment->file, ret);
	path_put(path);
	dput(parent);
}

/*
 * Whether anything was ever written. What was only read is in the page cache as
 * well, as zeroes, and must not count; tmpfs has nothing but that, and knows.
 */
int diff_segment_find_data(const struct diff_segment *segment)
{
	struct file *file = segment->file;
	struct address_space *mapping = file->f_mapping;
	loff_t pos;
	int ret;

	ret = filemap_write_and_wait(mapping);
	if (!ret && file_inode(file)->i_sb->s_magic != TMPFS_MAGIC)
		ret = invalidate_inode_pages2(mapping);
	if (ret)
		return ret;
	pos = vfs_llseek(file, 0, SEEK_DATA);
	if (pos == -ENXIO)
		return 0;
	return pos < 0 ? pos : -EINVAL;
}

/*
 * btrfs writes elsewhere what it overwrites, and so has no fixed place for it,
 * unless it is told otherwise while the file is empty.
 */
int diff_segment_allocate(struct diff_segment *segment, u64 bytes)
{
	struct file *file = segment->file;
	int ret = 0;

	if (file_inode(file)->i_sb->s_magic == BTRFS_SUPER_MAGIC &&
	    !compat_is_nocow(&file->f_path)) {
		ret = compat_set_nocow(&file->f_path, true);
		segment->nocow = !ret;
	}
	if (ret)
		return ret;
	segment->grown = true;
	file_io_prepare(file);
	return vfs_fallocate(file, 0, 0, bytes);
}

int diff_segment_guard(struct diff_segment *segment)
{
	int ret = file_io_guard(segment->file);

	segment->guarded = !ret;
	return ret;
}

int diff_segment_pin(struct diff_segment *segment)
{
	struct pinned_file *pin = pinned_file_pin(segment->file);

	if (IS_ERR(pin))
		return PTR_ERR(pin);
	segment->pin = pin;
	return 0;
}

/*
 * As it was: what was written to a file that was given is gone. Not so what
 * somebody else has written to it before it was pinned.
 */
static void segment_restore(struct diff_segment *segment)
{
	int ret;

	if (!segment->used && diff_segment_find_data(segment) == -EINVAL) {
		pr_warn("%s: somebody has written to %pD: it is left as it is\n",
			segment->who, segment->file);
		return;
	}
	ret = vfs_truncate(&segment->file->f_path, 0);
	if (!ret && segment->nocow)
		ret = compat_set_nocow(&segment->file->f_path, false);
	if (!ret && segment->given)
		ret = vfs_fallocate(segment->file, 0, 0, segment->given);
	if (ret)
		pr_warn("%s: cannot make %pD again what it was: error %d\n",
			segment->who, segment->file, ret);
}

void diff_segment_close(struct diff_segment *segment)
{
	if (segment->pin)
		pinned_file_unpin(segment->pin);
	if (segment->guarded)
		file_io_unguard(segment->file);
	else if (segment->grown)
		file_io_unprepare(segment->file);
	if (segment->made)
		segment_unlink(segment);
	else if (segment->grown || segment->used)
		segment_restore(segment);
	filp_close(segment->file, NULL);
	kfree(segment);
}
