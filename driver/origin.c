// SPDX-License-Identifier: GPL-2.0
/*
 * The device that is snapshotted, and the file systems that lie right on it.
 *
 * A file system further up (on LVM over this disk, say) is not ours to find:
 * what was frozen is listed, and the tool freezes the rest.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/blk-integrity.h>
#include <linux/blkdev.h>
#include <linux/fs_struct.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "image.h"
#include "origin.h"

static const char *const configfs_mount[] = { "sys", "kernel", "config" };

/* Resolving */

static int origin_path_to_dev(const struct path *path, int mask, dev_t *dev)
{
	struct inode *inode = d_backing_inode(path->dentry);

	if (!S_ISBLK(inode->i_mode))
		return -ENOTBLK;
	if (path->mnt->mnt_flags & MNT_NODEV)
		return -EACCES;
	*dev = inode->i_rdev;
	return path_permission(path, mask);
}

bool origin_path_is_on(const struct path *path, const char *type)
{
	return !strcmp(path->dentry->d_sb->s_type->name, type);
}

/*
 * As much of a path as was walked: how many directories down from the root, and how
 * many of these are those of configfs_mount.
 */
struct origin_walk {
	unsigned int depth;
	unsigned int mount;
};

/* Returns whether this step has led into configfs. */
static bool origin_walk_step(struct origin_walk *walk, const char *name,
			     size_t len)
{
	if (len == 2 && !strncmp(name, "..", len)) {
		walk->depth -= !!walk->depth;
		walk->mount = min(walk->mount, walk->depth);
		return false;
	}
	if (!len || (len == 1 && *name == '.'))
		return false;
	if (walk->mount == walk->depth &&
	    walk->mount < ARRAY_SIZE(configfs_mount) &&
	    strlen(configfs_mount[walk->mount]) == len &&
	    !strncmp(name, configfs_mount[walk->mount], len))
		walk->mount++;
	walk->depth++;
	return walk->mount == ARRAY_SIZE(configfs_mount) &&
	       walk->depth > walk->mount;
}

/* Where a relative path begins. Returns whether that is known. */
static bool origin_walk_from_pwd(struct origin_walk *walk)
{
	struct dentry *dentry, *parent;
	struct path pwd;
	bool inside;

	get_fs_pwd(current->fs, &pwd);
	inside = origin_path_is_on(&pwd, "configfs");
	walk->mount = ARRAY_SIZE(configfs_mount);
	walk->depth = walk->mount;
	for (dentry = dget(pwd.dentry); !IS_ROOT(dentry); dentry = parent) {
		walk->depth++;
		parent = dget_parent(dentry);
		dput(dentry);
	}
	dput(dentry);
	path_put(&pwd);
	return inside;
}

/* As it is written: where a symbolic link in it leads is not known. */
bool origin_path_is_in_configfs(const char *name)
{
	struct origin_walk walk = { };
	size_t len;

	if (name[0] != '/' && !origin_walk_from_pwd(&walk))
		return false;
	for (; *name; name += len + (name[len] == '/')) {
		len = strchrnul(name, '/') - name;
		if (origin_walk_step(&walk, name, len))
			return true;
	}
	return false;
}

int origin_resolve(const char *name, int mask, dev_t *dev)
{
	struct path path;
	int ret;

	if (origin_path_is_in_configfs(name))
		return -ENOENT;
	ret = kern_path(name, LOOKUP_FOLLOW, &path);
	if (ret)
		return ret;
	ret = origin_path_to_dev(&path, mask, dev);
	path_put(&path);
	return ret;
}

void origin_get_id(struct block_device *bdev, struct origin_id *id)
{
	id->dev = bdev->bd_dev;
	id->diskseq = bdev->bd_disk->diskseq;
	id->partno = compat_bdev_partno(bdev);
	id->first = bdev->bd_start_sect;
}

bool origin_same_id(const struct origin_id *one, const struct origin_id *other)
{
	return one->diskseq == other->diskseq &&
	       one->partno == other->partno && one->first == other->first;
}

int origin_identify(dev_t dev, struct origin_id *id)
{
	struct compat_bdev handle;
	int ret;

	ret = compat_bdev_open(&handle, dev, NULL);
	if (ret)
		return ret;
	origin_get_id(handle.bdev, id);
	compat_bdev_close(&handle);
	return 0;
}

int origin_check_id(struct block_device *bdev, const struct origin_id *id,
		    const char *path, struct error_text *error, const char *who)
{
	struct origin_id now;

	origin_get_id(bdev, &now);
	if (origin_same_id(&now, id))
		return 0;
	return error_set(error, who, -ENODEV,
			 "%s is not the device any more that it was when it was named",
			 path);
}

int origin_refuse_path(const char *path, int err, struct error_text *error,
		       const char *who)
{
	switch (err) {
	case -ENOTBLK:
		return error_set(error, who, err, "%s is not a block device", path);
	case -EACCES:
		return error_set(error, who, err, "no right to use %s", path);
	case -ENXIO:
		return error_set(error, who, err, "there is no device behind %s",
				 path);
	default:
		return error_set(error, who, err, "cannot find %s", path);
	}
}

/* Opening */

static const char *origin_obstacle(struct block_device *bdev)
{
	struct gendisk *disk = bdev->bd_disk;

	if (image_is(disk_devt(disk)))
		return "an image cannot be snapshotted";
	if (bdev_is_zoned(bdev))
		return "zoned devices cannot be followed";
	if (blk_queue_dax(disk->queue))
		return "a DAX device is written without block I/O";
	if (bdev_logical_block_size(bdev) > SZ_4K)
		return "logical blocks of more than 4 KiB are not supported";
	if (blk_get_integrity(disk))
		return "devices with an integrity profile are not supported";
	if (compat_bdev_has_rw_page(bdev))
		return "its driver takes pages without block I/O on this kernel";
	/* What is swapped to it is gone as soon as nobody needs it any more. */
	if (disk->fops->swap_slot_free_notify)
		return "its driver drops swapped pages without block I/O";
	if (!bdev_nr_sectors(bdev))
		return "the device is empty";
	/* Nobody can write the rest, nor read it, and so not preserve it. */
	if (bdev_nr_sectors(bdev) &
	    ((bdev_logical_block_size(bdev) >> SECTOR_SHIFT) - 1))
		return "its size is no multiple of its logical block";
	return NULL;
}

int origin_open(struct origin *origin, dev_t dev, struct error_text *error,
		const char *who)
{
	const char *obstacle;
	int ret;

	INIT_LIST_HEAD(&origin->frozen);
	origin->held_by_other = false;
	ret = compat_bdev_open(&origin->handle, dev, NULL);
	if (ret)
		return error_set(error, who, ret, "cannot open device %u:%u",
				 MAJOR(dev), MINOR(dev));
	obstacle = origin_obstacle(origin->handle.bdev);
	if (!obstacle)
		return 0;
	ret = error_set(error, who, -EOPNOTSUPP, "%pg: %s", origin->handle.bdev,
			obstacle);
	compat_bdev_close(&origin->handle);
	return ret;
}

void origin_close(struct origin *origin)
{
	compat_bdev_close(&origin->handle);
}

int origin_try(dev_t dev, struct origin_id *id, struct error_text *error,
	       const char *who)
{
	struct origin origin;
	int ret;

	ret = origin_open(&origin, dev, error, who);
	if (ret)
		return ret;
	origin_get_id(origin.handle.bdev, id);
	origin_close(&origin);
	return 0;
}

/* Freezing */

static int origin_list_dev(struct origin *origin, dev_t dev)
{
	struct frozen *frozen;
	int ret;

	frozen = kzalloc(sizeof(*frozen), GFP_KERNEL);
	if (!frozen)
		return -ENOMEM;
	ret = compat_bdev_open(&frozen->handle, dev, NULL);
	if (ret) {
		kfree(frozen);
		/* A partition that has gone meanwhile has nothing to freeze. */
		return ret == -ENXIO ? 0 : ret;
	}
	list_add_tail(&frozen->node, &origin->frozen);
	return 0;
}

/* The device of the next partition from @index on; 0 if there is none. */
static dev_t origin_next_partition(struct gendisk *disk, unsigned long *index)
{
	struct block_device *part;
	dev_t dev = 0;

	rcu_read_lock();
	part = xa_find(&disk->part_tbl, index, ULONG_MAX, XA_PRESENT);
	if (part)
		dev = part->bd_dev;
	rcu_read_unlock();
	return dev;
}

int origin_list_fs(struct origin *origin)
{
	struct block_device *bdev = origin->handle.bdev;
	unsigned long index = 0;
	dev_t dev;
	int ret;

	if (compat_bdev_partno(bdev))
		return origin_list_dev(origin, bdev->bd_dev);
	/* Index 0 is the whole disk itself. */
	for (; (dev = origin_next_partition(bdev->bd_disk, &index)); index++) {
		ret = origin_list_dev(origin, dev);
		if (ret)
			return ret;
	}
	return 0;
}

void origin_forget_fs(struct origin *origin)
{
	struct frozen *frozen, *next;

	list_for_each_entry_safe(frozen, next, &origin->frozen, node) {
		list_del(&frozen->node);
		compat_bdev_close(&frozen->handle);
		kfree(frozen);
	}
}

static int origin_refuse_freeze(const struct frozen *frozen, int err,
				struct error_text *error, const char *who)
{
	return error_set(error, who, err,
			 "cannot freeze the file system on %pg%s",
			 frozen->handle.bdev,
			 err == -EBUSY ? ": it is frozen already" : "");
}

int origin_check_thawed(struct origin *origin, struct error_text *error,
			const char *who)
{
	struct frozen *frozen;

	list_for_each_entry(frozen, &origin->frozen, node)
		if (compat_bdev_user_frozen(frozen->handle.bdev))
			return origin_refuse_freeze(frozen, -EBUSY, error, who);
	return 0;
}

void origin_sync(struct origin *origin)
{
	struct frozen *frozen;

	list_for_each_entry(frozen, &origin->frozen, node)
		compat_bdev_sync(frozen->handle.bdev);
}

/*
 * Somebody else may have thawed it meanwhile (FITHAW). Then it was not quiet for
 * as long as it had to be, and some kernels count one freeze too many.
 */
static void origin_thaw_one(struct frozen *frozen)
{
	struct block_device *bdev = frozen->handle.bdev;
	int ret = compat_bdev_thaw(bdev);

	if (!ret)
		return;
	frozen->has_fs = false;
	pr_warn("%pg: its file system was thawed by somebody else\n", bdev);
	ret = compat_bdev_thaw_again(bdev);
	if (ret)
		pr_err("%pg: cannot thaw: error %d\n", bdev, ret);
}

/*
 * Is anything claimed that has no file system? Who claims a partition marks the
 * whole disk as claimed, too; then nobody else can have claimed the disk.
 */
static bool origin_is_held_by_other(struct origin *origin)
{
	bool whole = false, partition = false, other = false;
	struct frozen *frozen;

	list_for_each_entry(frozen, &origin->frozen, node) {
		struct block_device *bdev = frozen->handle.bdev;

		if (!bdev->bd_holder)
			continue;
		if (!compat_bdev_partno(bdev)) {
			whole = !frozen->has_fs;
			continue;
		}
		partition = true;
		other |= !frozen->has_fs;
	}
	return other || (whole && !partition);
}

int origin_freeze(struct origin *origin, struct error_text *error,
		  const char *who)
{
	struct frozen *frozen;
	int ret;

	list_for_each_entry(frozen, &origin->frozen, node) {
		struct block_device *bdev = frozen->handle.bdev;

		ret = compat_bdev_freeze(bdev);
		if (ret) {
			origin_refuse_freeze(frozen, ret, error, who);
			goto out_thaw;
		}
		frozen->has_fs = compat_bdev_fs_frozen(bdev);
	}
	origin->held_by_other = origin_is_held_by_other(origin);
	return 0;

out_thaw:
	list_for_each_entry_continue_reverse(frozen, &origin->frozen, node)
		origin_thaw_one(frozen);
	return ret;
}

void origin_thaw(struct origin *origin)
{
	struct frozen *frozen;

	list_for_each_entry_reverse(frozen, &origin->frozen, node)
		origin_thaw_one(frozen);
}

bool origin_overlaps(struct block_device *a, struct block_device *b)
{
	return a->bd_disk == b->bd_disk &&
	       a->bd_start_sect < b->bd_start_sect + bdev_nr_sectors(b) &&
	       b->bd_start_sect < a->bd_start_sect + bdev_nr_sectors(a);
}
