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
#include <linux/blkdev.h>
#include <linux/cred.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/statfs.h>
#include <linux/string.h>

#include "compat/file.h"
#include "diff_segment.h"
#include "diff_storage.h"
#include "diff_storage_file.h"
#include "diff_target.h"
#include "error.h"
#include "file_io.h"
#include "pinned_file.h"

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

static struct diff_segment *file_first(struct diff_storage_file *self)
{
	return list_first_entry(&self->segments, struct diff_segment, node);
}

/* Segments */

/* Nobody else can change it from then on. A storage lies on one device. */
static int file_pin(struct diff_storage_file *self,
		    struct diff_segment *segment)
{
	const struct diff_storage *storage = &self->storage;
	int ret;

	if (diff_storage_does_io(storage))
		return diff_segment_guard(segment);
	ret = diff_segment_pin(segment);
	if (ret)
		return ret;
	return storage->bdev &&
	       storage->bdev != pinned_file_bdev(segment->pin) ? -EXDEV : 0;
}

static int file_add_piece(void *priv, struct block_device *bdev, sector_t first,
			  sector_t sectors)
{
	struct diff_storage_file *self = priv;
	struct diff_storage *storage = &self->storage;
	sector_t untrimmed = first, end = first + sectors, rest;

	self->owner->trim(storage->config.owner, bdev, &first, &end);
	if (first >= end)
		return 0;
	/* An end that was trimmed lies well, whatever the partition begins with. */
	rest = (end - first) % DIFF_STORAGE_UNIT_SECTORS;
	if (first == untrimmed)
		first += rest;
	else
		end -= rest;
	if (first == end)
		return 0;
	return diff_storage_add(storage, bdev, NULL, first, end - first);
}

static int file_add_guarded(struct diff_storage_file *self,
			    struct diff_segment *segment)
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
			    struct diff_segment *segment)
{
	struct diff_storage *storage = &self->storage;

	list_move_tail(&segment->node, &self->segments);
	if (segment->guarded)
		return file_add_guarded(self, segment);
	if (!storage->bdev)
		storage->bdev = pinned_file_bdev(segment->pin);
	return pinned_file_each(segment->pin, file_add_piece, self);
}

/* A segment that is to become a part of a storage. */
struct file_addition {
	struct diff_storage_file *self;
	struct diff_segment *segment;
};

static int file_map_segment(void *data)
{
	const struct file_addition *addition = data;
	int ret = file_pin(addition->self, addition->segment);

	return ret ?: file_add_segment(addition->self, addition->segment);
}

/* Growing */

/* Asks the owner, whom it concerns where blocks are. */
static int file_map(struct diff_storage_file *self, int (*map)(void *data),
		    void *data)
{
	struct diff_storage *storage = &self->storage;

	if (!diff_storage_does_io(storage))
		return self->owner->map(storage->config.owner, storage->bdev,
					map, data);
	return map ? map(data) : 0;
}

/* The owner is asked before the work, and again for its result. */
static int file_grow_by(struct diff_storage_file *self, u64 bytes)
{
	struct file_addition addition = { .self = self };
	struct diff_segment *segment;
	int ret;

	ret = file_map(self, NULL, NULL);
	if (ret)
		return ret;
	segment = diff_segment_open_unnamed(&self->directory,
					    self->storage.config.who);
	if (IS_ERR(segment))
		return PTR_ERR(segment);
	addition.segment = segment;
	ret = diff_segment_allocate(segment, bytes);
	if (!ret)
		ret = file_map(self, file_map_segment, &addition);
	if (list_empty(&segment->node))
		diff_segment_close(segment);
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

	ret = file_grow_by(self, min_t(u64, (u64)sectors << SECTOR_SHIFT,
				       DIFF_SEGMENT_MAX));
	memalloc_noio_restore(noio);
	revert_creds(old);
	return ret;
}

static void file_close(struct diff_storage *storage)
{
	struct diff_storage_file *self = to_file(storage);
	const struct cred *old = override_creds(self->target.cred);
	struct diff_segment *segment, *next;

	diff_storage_exit(storage);
	file_io_exit(&self->io);
	list_for_each_entry_safe(segment, next, &self->segments, node)
		diff_segment_close(segment);
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

static int file_check_empty(const struct diff_segment *segment,
			    const struct diff_storage_config *config)
{
	int ret = diff_segment_find_data(segment);

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
static int file_check_pinned(const struct diff_segment *segment,
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
	struct diff_segment *segment = file_first(self);
	int ret = 0;

	if (!i_size_read(file_inode(segment->file)))
		ret = diff_segment_allocate(segment, bytes);
	if (ret)
		return error_set(config->error, config->who, ret,
				 "cannot allocate %llu bytes for %s", bytes,
				 config->path);
	self->storage.bdev = NULL; /* the pin knows better, if there is one */
	ret = file_pin(self, segment);
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

/* One more segment. */
static int file_fill_more(struct diff_storage_file *self, u64 bytes)
{
	const struct diff_storage_config *config = &self->storage.config;
	struct diff_segment *segment;
	int ret;

	segment = diff_segment_open_unnamed(&self->directory, config->who);
	ret = PTR_ERR_OR_ZERO(segment);
	if (!ret) {
		list_add_tail(&segment->node, &self->segments);
		ret = diff_segment_allocate(segment, bytes);
		if (!ret)
			ret = file_pin(self, segment);
		if (!ret)
			ret = file_add_segment(self, segment);
	}
	if (!ret)
		return 0;
	return error_set(config->error, config->who, ret,
			 "cannot allocate %llu bytes more beside %s", bytes,
			 config->path);
}

/* What is missing to what is wanted, in segments that are not too large. */
static int file_fill_rest(struct diff_storage_file *self, u64 have, u64 bytes)
{
	u64 step;
	int ret = 0;

	for (; !ret && bytes >= have + DIFF_STORAGE_STEP; have += step) {
		step = min_t(u64, round_down(bytes - have, DIFF_STORAGE_STEP),
			     DIFF_SEGMENT_MAX);
		ret = file_fill_more(self, step);
	}
	return ret;
}

static int file_fill_all(struct diff_storage_file *self, u64 bytes)
{
	const struct diff_storage_config *config = &self->storage.config;
	int ret;

	if (self->storage.size)
		return file_fill_rest(self, self->storage.size << SECTOR_SHIFT,
				      bytes);
	ret = file_fill_first(self, min_t(u64, bytes, DIFF_SEGMENT_MAX));
	if (!ret)
		ret = file_fill_rest(self, i_size_read(file_inode(file_first(self)->file)),
				     bytes);
	if (!ret && !self->storage.size)
		ret = error_set(config->error, config->who, -EINVAL,
				"nothing of %s can be used", config->path);
	return ret;
}

static int file_fill(struct diff_storage *storage, u64 bytes)
{
	struct diff_storage_file *self = to_file(storage);
	const struct cred *old = override_creds(self->target.cred);
	int ret = file_fill_all(self, bytes);

	revert_creds(old);
	return ret;
}

static u64 file_given(struct diff_storage *storage)
{
	return i_size_read(file_inode(file_first(to_file(storage))->file));
}

/* Of a directory, unlike of a file, it is what the quota of a project leaves. */
static u64 file_room(struct diff_storage *storage)
{
	struct kstatfs stat;

	if (vfs_statfs(&to_file(storage)->directory, &stat))
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
static bool file_stays_in_place(const struct diff_segment *segment)
{
	const struct inode *inode = file_inode(segment->file);

	return pinned_file_is_possible(segment->file) &&
	       (inode->i_sb->s_magic != BTRFS_SUPER_MAGIC ||
		!i_size_read(inode) || compat_is_nocow(&segment->file->f_path));
}

static int file_choose_kind(struct diff_storage_file *self,
			    const struct diff_storage_config *config)
{
	const struct diff_segment *segment = file_first(self);

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
	const char *who = self->storage.config.who;
	const char *path = self->target.path;
	struct diff_segment *segment;
	bool named = true;
	int ret;

	ret = file_find_parent(self);
	if (ret)
		return ret;
	segment = diff_segment_open(&self->target.root, path, who);
	if (segment == ERR_PTR(-EISDIR)) {
		named = false;
		path_put(&self->directory);
		self->directory = (struct path){};
		ret = file_find_directory(self, path);
		segment = ret ? ERR_PTR(ret) :
				diff_segment_open_unnamed(&self->directory, who);
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

static int file_check_first(const struct diff_segment *segment,
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
