// SPDX-License-Identifier: GPL-2.0
/*
 * Difference storage in files.
 *
 * The first segment is the file that the administrator has named; an unnamed one,
 * if he has named a directory. A pinned file cannot become larger, so each step
 * of growth adds a segment of its own: an unnamed file in the same directory, of
 * which nothing is left after a crash.
 *
 * Where the file system can say where the blocks are, segments are pinned: they
 * are allocated, and never written through the file system. So who reads the
 * file sees zeroes, whatever is preserved in it. Other segments are guarded, and
 * written by the file system.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blkdev.h>
#include <linux/cred.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/statfs.h>
#include <linux/string.h>

#include "compat/file.h"
#include "diff_storage.h"
#include "diff_storage_file.h"
#include "diff_target.h"
#include "error.h"
#include "file_io.h"
#include "pinned_file.h"

#define SEGMENT_FLAGS (O_RDWR | O_LARGEFILE)
#define SEGMENT_MODE 0600

/**
 * struct segment - one file
 * @storage: which it is for; set once
 * @node: in its list
 * @file: open
 * @pin: NULL until its blocks are known
 * @guarded: nobody else writes to it
 * @used: what is stored is written to it by its file system
 * @given: what size it had, in bytes, if it was there
 * @made: by us, with a name: it is removed in the end
 * @grown: by us, from nothing: it is made empty again in the end
 */
struct segment {
	struct diff_storage_file *storage;
	struct list_head node;
	struct file *file;
	struct pinned_file *pin;
	u64 given;
	bool guarded;
	bool used;
	bool made;
	bool grown;
};

/**
 * struct diff_storage_file - a storage of files
 * @storage: what it is for others
 * @owner: set once
 * @target: path and rights, as at the take
 * @directory: where unnamed files are made: the one of then, whatever its path
 *	names by now
 * @segments: the first one is of @target
 * @io: for segments that are not pinned
 */
struct diff_storage_file {
	struct diff_storage storage;
	const struct diff_file_ops *owner;
	struct diff_target target;
	struct path directory;
	struct list_head segments;
	struct file_io io;
};

static struct diff_storage_file *to_file(struct diff_storage *storage)
{
	return container_of(storage, struct diff_storage_file, storage);
}

static struct segment *file_first(struct diff_storage_file *self)
{
	return list_first_entry(&self->segments, struct segment, node);
}

/* Segments */

static struct segment *segment_new(struct diff_storage_file *self,
				   struct file *file)
{
	struct segment *segment;

	if (IS_ERR(file))
		return ERR_CAST(file);
	segment = kzalloc(sizeof(*segment), GFP_KERNEL);
	if (!segment) {
		filp_close(file, NULL);
		return ERR_PTR(-ENOMEM);
	}
	segment->storage = self;
	segment->file = file;
	INIT_LIST_HEAD(&segment->node);
	return segment;
}

static struct segment *segment_open(struct diff_storage_file *self,
				    const char *path)
{
	return segment_new(self, file_open_root(&self->target.root, path,
						SEGMENT_FLAGS | O_CREAT,
						SEGMENT_MODE));
}

static struct segment *segment_open_unnamed(struct diff_storage_file *self)
{
	return segment_new(self, file_open_root(&self->directory, ".",
						SEGMENT_FLAGS | O_TMPFILE,
						SEGMENT_MODE));
}

/*
 * The open file must not be the only one who knows the name: that would take the
 * inode from it.
 */
static void segment_unlink(struct segment *segment)
{
	const struct path *path = &segment->file->f_path;
	struct dentry *parent = dget_parent(path->dentry);
	struct inode *dir = d_inode(parent);

	path_get(path);
	if (mnt_want_write(path->mnt))
		goto out;
	inode_lock_nested(dir, I_MUTEX_PARENT);
	if (path->dentry->d_parent == parent && !d_unhashed(path->dentry))
		compat_unlink(path, dir);
	inode_unlock(dir);
	mnt_drop_write(path->mnt);
out:
	path_put(path);
	dput(parent);
}

/*
 * Whether anything was ever written. What was only read is in the page cache as
 * well, as zeroes, and must not count; tmpfs has nothing but that, and knows.
 */
static int file_find_data(struct file *file)
{
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
 * As it was: what was written to a file that was given is gone. Not so what
 * somebody else has written to it before it was pinned.
 */
static void segment_restore(struct segment *segment)
{
	int ret;

	if (!segment->used && file_find_data(segment->file) == -EINVAL) {
		pr_warn("%s: somebody has written to %pD: it is left as it is\n",
			segment->storage->storage.config.who, segment->file);
		return;
	}
	ret = vfs_truncate(&segment->file->f_path, 0);
	if (!ret && segment->given)
		ret = vfs_fallocate(segment->file, 0, 0, segment->given);
	if (ret)
		pr_warn("%s: cannot make %pD again what it was: error %d\n",
			segment->storage->storage.config.who, segment->file,
			ret);
}

static void segment_close(struct segment *segment)
{
	if (segment->pin)
		pinned_file_unpin(segment->pin);
	if (segment->guarded)
		file_io_unguard(segment->file);
	if (segment->made)
		segment_unlink(segment);
	else if (segment->grown || segment->used)
		segment_restore(segment);
	filp_close(segment->file, NULL);
	kfree(segment);
}

/*
 * btrfs writes elsewhere what it overwrites, and so has no fixed place for it,
 * unless it is told otherwise while the file is empty.
 */
static int segment_allocate(struct segment *segment, u64 bytes)
{
	struct file *file = segment->file;
	int ret = 0;

	if (file_inode(file)->i_sb->s_magic == BTRFS_SUPER_MAGIC)
		ret = compat_set_nocow(&file->f_path);
	if (ret)
		return ret;
	segment->grown = true;
	file_io_prepare(file);
	return vfs_fallocate(file, 0, 0, bytes);
}

static int segment_guard(struct segment *segment)
{
	int ret = file_io_guard(segment->file);

	segment->guarded = !ret;
	return ret;
}

/* Nobody else can change it from then on. A storage lies on one device. */
static int segment_pin(struct segment *segment)
{
	const struct diff_storage *storage = &segment->storage->storage;
	struct pinned_file *pin;

	if (diff_storage_does_io(storage))
		return segment_guard(segment);
	pin = pinned_file_pin(segment->file);
	if (IS_ERR(pin))
		return PTR_ERR(pin);
	segment->pin = pin;
	return storage->bdev && storage->bdev != pinned_file_bdev(pin) ?
		-EXDEV : 0;
}

static int file_add_piece(void *priv, struct block_device *bdev, sector_t first,
			  sector_t sectors)
{
	struct diff_storage_file *self = priv;
	struct diff_storage *storage = &self->storage;
	sector_t end = first + sectors;

	self->owner->trim(storage->config.owner, bdev, &first, &end);
	first = round_up(first, DIFF_STORAGE_UNIT_SECTORS);
	end = round_down(end, DIFF_STORAGE_UNIT_SECTORS);
	if (first >= end)
		return 0;
	return diff_storage_add(storage, bdev, NULL, first, end - first);
}

static int file_add_guarded(struct diff_storage_file *self,
			    struct segment *segment)
{
	sector_t sectors = i_size_read(file_inode(segment->file)) >>
			   SECTOR_SHIFT;

	sectors = round_down(sectors, DIFF_STORAGE_UNIT_SECTORS);
	if (!sectors)
		return 0;
	segment->used = true;
	return diff_storage_add(&self->storage, NULL, segment->file, 0, sectors);
}

/* From here on it belongs to the storage, also if not all of it could be added. */
static int file_add_segment(struct diff_storage_file *self,
			    struct segment *segment)
{
	struct diff_storage *storage = &self->storage;

	list_move_tail(&segment->node, &self->segments);
	if (segment->guarded)
		return file_add_guarded(self, segment);
	if (!storage->bdev)
		storage->bdev = pinned_file_bdev(segment->pin);
	return pinned_file_each(segment->pin, file_add_piece, self);
}

static int file_map_segment(struct segment *segment)
{
	struct diff_storage_file *self = segment->storage;
	int ret = segment_pin(segment);

	return ret ?: file_add_segment(self, segment);
}

/* Growing */

/* Asks the owner, whom it concerns where blocks are. */
static int file_map(struct diff_storage_file *self,
		    int (*map)(struct segment *segment),
		    struct segment *segment)
{
	struct diff_storage *storage = &self->storage;

	if (!diff_storage_does_io(storage))
		return self->owner->map(storage->config.owner, storage->bdev,
					map, segment);
	return map ? map(segment) : 0;
}

/* The owner is asked before the work, and again for its result. */
static int file_grow_by(struct diff_storage_file *self, u64 bytes)
{
	struct segment *segment;
	int ret;

	ret = file_map(self, NULL, NULL);
	if (ret)
		return ret;
	segment = segment_open_unnamed(self);
	if (IS_ERR(segment))
		return PTR_ERR(segment);
	ret = segment_allocate(segment, bytes);
	if (!ret)
		ret = file_map(self, file_map_segment, segment);
	if (list_empty(&segment->node))
		segment_close(segment);
	return ret;
}

/*
 * Stores wait for this: it must not look for memory by writing to an origin.
 */
static int file_grow(struct diff_storage *storage, sector_t sectors)
{
	struct diff_storage_file *self = to_file(storage);
	const struct cred *old = override_creds(self->target.cred);
	unsigned int noio = memalloc_noio_save();
	int ret;

	ret = file_grow_by(self, (u64)sectors << SECTOR_SHIFT);
	memalloc_noio_restore(noio);
	revert_creds(old);
	return ret;
}

static void file_close(struct diff_storage *storage)
{
	struct diff_storage_file *self = to_file(storage);
	const struct cred *old = override_creds(self->target.cred);
	struct segment *segment, *next;

	diff_storage_exit(storage);
	file_io_exit(&self->io);
	list_for_each_entry_safe(segment, next, &self->segments, node)
		segment_close(segment);
	revert_creds(old);
	diff_target_clear(&self->target);
	path_put(&self->directory);
	kfree(self);
}

/* Segments that the file system writes */

static struct file *file_find(struct file_io *io, const struct bio *bio,
			      loff_t *pos)
{
	struct diff_storage_file *self =
		container_of(io, struct diff_storage_file, io);
	sector_t at = bio->bi_iter.bi_sector;
	const struct diff_extent *extent =
		diff_storage_extent(&self->storage, at);

	*pos = (at - extent->pos) << SECTOR_SHIFT;
	return extent->data;
}

static void file_submit(struct diff_storage *storage, struct bio *bio)
{
	file_io_submit(&to_file(storage)->io, bio);
}

/* Filling */

static const char *file_problem(int err)
{
	switch (err) {
	case -EINVAL:
		return ": it has holes, or blocks that are shared or compressed";
	case -EBUSY:
		return ": it is in use";
	default:
		return "";
	}
}

static int file_check_empty(const struct segment *segment,
			    const struct diff_storage_config *config)
{
	int ret = file_find_data(segment->file);

	if (!ret)
		return 0;
	return error_set(config->error, config->who, ret,
			 ret == -EINVAL ? "%s has data in it" :
					  "cannot use %s: it is in use",
			 config->path);
}

/* What is not allocated could be missing when it is needed. */
static bool file_has_holes(const struct file *file)
{
	const struct inode *inode = file_inode(file);

	return (u64)inode->i_blocks << SECTOR_SHIFT < i_size_read(inode);
}

/* Only now nobody can write to it any more, and its device is known. */
static int file_check_pinned(const struct segment *segment,
			     const struct diff_storage_config *config)
{
	struct block_device *bdev;

	if (segment->guarded && file_has_holes(segment->file))
		return error_set(config->error, config->who, -EINVAL,
				 "cannot use %s%s", config->path,
				 file_problem(-EINVAL));
	if (segment->guarded)
		return file_check_empty(segment, config);
	bdev = pinned_file_bdev(segment->pin);
	if (bdev_logical_block_size(bdev) > config->block_size)
		return error_set(config->error, config->who, -EINVAL,
				 "%s lies on blocks of %u bytes, the origins have %u",
				 config->path, bdev_logical_block_size(bdev),
				 config->block_size);
	return file_check_empty(segment, config);
}

static int file_fill_first(struct diff_storage_file *self, u64 bytes)
{
	const struct diff_storage_config *config = &self->storage.config;
	struct segment *segment = file_first(self);
	int ret = 0;

	if (!i_size_read(file_inode(segment->file)))
		ret = segment_allocate(segment, bytes);
	if (ret)
		return error_set(config->error, config->who, ret,
				 "cannot allocate %llu bytes for %s", bytes,
				 config->path);
	self->storage.bdev = NULL; /* the pin knows better, if there is one */
	ret = segment_pin(segment);
	if (ret)
		return error_set(config->error, config->who, ret,
				 "cannot use %s%s", config->path,
				 file_problem(ret));
	ret = file_check_pinned(segment, config);
	if (ret)
		return ret;
	ret = file_add_segment(self, segment);
	if (ret)
		return error_set(config->error, config->who, ret,
				 "no memory for the pieces of %s", config->path);
	return 0;
}

/* The rest of what is wanted, where the given file is smaller. */
static int file_fill_rest(struct diff_storage_file *self, u64 bytes)
{
	const struct diff_storage_config *config = &self->storage.config;
	struct segment *segment = segment_open_unnamed(self);
	int ret = PTR_ERR_OR_ZERO(segment);

	if (!ret) {
		list_add_tail(&segment->node, &self->segments);
		ret = segment_allocate(segment, bytes);
		if (!ret)
			ret = segment_pin(segment);
		if (!ret)
			ret = file_add_segment(self, segment);
	}
	if (!ret)
		return 0;
	return error_set(config->error, config->who, ret,
			 "cannot allocate %llu bytes more beside %s", bytes,
			 config->path);
}

static int file_fill_both(struct diff_storage_file *self, u64 bytes)
{
	const struct diff_storage_config *config = &self->storage.config;
	u64 first = i_size_read(file_inode(file_first(self)->file));
	int ret;

	ret = file_fill_first(self, bytes);
	if (!ret && first && bytes >= first + DIFF_STORAGE_STEP)
		ret = file_fill_rest(self, round_down(bytes - first,
						      DIFF_STORAGE_STEP));
	if (!ret && !self->storage.size)
		ret = error_set(config->error, config->who, -EINVAL,
				"nothing of %s can be used", config->path);
	return ret;
}

static int file_fill(struct diff_storage *storage, u64 bytes)
{
	struct diff_storage_file *self = to_file(storage);
	const struct cred *old = override_creds(self->target.cred);
	int ret = file_fill_both(self, bytes);

	revert_creds(old);
	return ret;
}

static u64 file_given(struct diff_storage *storage)
{
	return i_size_read(file_inode(file_first(to_file(storage))->file));
}

static u64 file_room(struct diff_storage *storage)
{
	struct kstatfs stat;

	if (vfs_statfs(&file_first(to_file(storage))->file->f_path, &stat))
		return 0;
	return stat.f_bavail * stat.f_bsize;
}

static const struct super_block *file_fs(struct diff_storage *storage)
{
	return file_inode(file_first(to_file(storage))->file)->i_sb;
}

/* Kinds */

static const struct diff_storage_ops pinned_ops = {
	.given = file_given,
	.room = file_room,
	.fill = file_fill,
	.grow = file_grow,
	.close = file_close,
};

static const struct diff_storage_ops guarded_ops = {
	.given = file_given,
	.room = file_room,
	.fill = file_fill,
	.grow = file_grow,
	.submit = file_submit,
	.fs = file_fs,
	.close = file_close,
};

/* btrfs writes elsewhere what it overwrites, unless told otherwise in time. */
static bool file_stays_in_place(const struct segment *segment)
{
	const struct inode *inode = file_inode(segment->file);

	return pinned_file_is_possible(segment->file) &&
	       (inode->i_sb->s_magic != BTRFS_SUPER_MAGIC ||
		!i_size_read(inode) || compat_is_nocow(&segment->file->f_path));
}

static int file_choose_kind(struct diff_storage_file *self,
			    const struct diff_storage_config *config)
{
	const struct segment *segment = file_first(self);

	if (file_stays_in_place(segment))
		return 0;
	if (!file_io_is_possible(segment->file))
		return error_set(config->error, config->who, -EOPNOTSUPP,
				 "cannot use %s: its file system does not say where its blocks are",
				 config->path);
	self->storage.ops = &guarded_ops;
	self->storage.bdev = NULL;
	self->io.find = file_find;
	self->io.cred = self->target.cred;
	return file_io_init(&self->io, config->who) ?
		       diff_storage_no_memory(config) : 0;
}

/* Opening */

/* To make a file in a frozen file system is to wait for whoever froze it. */
static int file_check_thawed(const struct super_block *sb)
{
	return READ_ONCE(sb->s_writers.frozen) == SB_UNFROZEN ? 0 : -EBUSY;
}

static int file_find_directory(struct diff_storage_file *self, const char *path)
{
	struct file *file = file_open_root(&self->target.root, path,
					   O_PATH | O_DIRECTORY, 0);

	if (IS_ERR(file))
		return PTR_ERR(file);
	self->directory = file->f_path;
	path_get(&self->directory);
	filp_close(file, NULL);
	return file_check_thawed(self->directory.mnt->mnt_sb);
}

/* The directory that the path names something in. */
static int file_find_parent(struct diff_storage_file *self)
{
	const char *path = self->target.path;
	const char *slash = strrchr(path, '/');
	char *name = kstrndup(path, slash == path ? 1 : slash - path, GFP_KERNEL);
	int ret;

	if (!name)
		return -ENOMEM;
	ret = file_find_directory(self, name);
	kfree(name);
	return ret;
}

/* The file, if need be a new one; an unnamed one if it is a directory. */
static int file_open_first(struct diff_storage_file *self)
{
	const char *path = self->target.path;
	struct segment *segment;
	bool named = true;
	int ret;

	ret = file_find_parent(self);
	if (ret)
		return ret;
	segment = segment_open(self, path);
	if (segment == ERR_PTR(-EISDIR)) {
		named = false;
		path_put(&self->directory);
		self->directory = (struct path){};
		ret = file_find_directory(self, path);
		segment = ret ? ERR_PTR(ret) : segment_open_unnamed(self);
	}
	/* What is guarded by another session is immutable. */
	if (segment == ERR_PTR(-EPERM))
		return -ETXTBSY;
	if (IS_ERR(segment))
		return PTR_ERR(segment);
	segment->made = named && segment->file->f_mode & FMODE_CREATED;
	segment->given = i_size_read(file_inode(segment->file));
	list_add(&segment->node, &self->segments);
	return 0;
}

static int file_check_first(const struct segment *segment,
			    const struct diff_storage_config *config)
{
	struct inode *inode = file_inode(segment->file);

	if (!S_ISREG(inode->i_mode))
		return error_set(config->error, config->who, -EINVAL,
				 "%s is not a file any more", config->path);
	if (IS_SWAPFILE(inode))
		return error_set(config->error, config->who, -EBUSY,
				 "%s is in use", config->path);
	return file_check_empty(segment, config);
}

static int file_open(struct diff_storage_file *self,
		     const struct diff_storage_config *config)
{
	int ret = file_open_first(self);

	if (ret == -EBUSY)
		return error_set(config->error, config->who, ret,
				 "the file system of %s is frozen",
				 config->path);
	if (ret == -ETXTBSY)
		return error_set(config->error, config->who, -EBUSY,
				 "%s is in use, or immutable", config->path);
	if (ret)
		return error_set(config->error, config->who, ret,
				 "cannot open %s", config->path);
	ret = file_check_first(file_first(self), config);
	if (ret)
		return ret;
	self->storage.bdev = file_inode(file_first(self)->file)->i_sb->s_bdev;
	return file_choose_kind(self, config);
}

struct diff_storage *
diff_storage_open_file(const struct diff_target *target,
		       const struct diff_file_ops *ops,
		       const struct diff_storage_config *config)
{
	struct diff_storage_file *self;
	const struct cred *old;
	int ret;

	self = kzalloc(sizeof(*self), GFP_KERNEL);
	if (!self)
		return ERR_PTR(diff_storage_no_memory(config));
	self->owner = ops;
	INIT_LIST_HEAD(&self->segments);
	if (diff_target_copy(&self->target, target))
		ret = diff_storage_no_memory(config);
	else
		ret = diff_storage_init(&self->storage, &pinned_ops, config);
	if (ret) {
		diff_target_clear(&self->target);
		kfree(self);
		return ERR_PTR(ret);
	}
	old = override_creds(self->target.cred);
	ret = file_open(self, config);
	revert_creds(old);
	if (!ret)
		return &self->storage;
	diff_storage_close(&self->storage);
	return ERR_PTR(ret);
}
