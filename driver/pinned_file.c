// SPDX-License-Identifier: GPL-2.0
/*
 * A file that is used without its file system.
 *
 * The kernel has one way for a file system to say where a file's blocks are, and
 * to promise that they stay: that of swap files. It is used here with a
 * swap_info_struct of our own, which the swap code never sees. The file system
 * fills in the extents, S_SWAPFILE keeps everybody from changing the file, and
 * I/O goes straight to the device: without journal, page cache, or locks, also
 * while the file system is frozen.
 *
 * Blocks that were allocated but never written stay so for the file system: what
 * is put there cannot be read through the file.
 */
#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rbtree.h>
#include <linux/slab.h>
#include <linux/swap.h>

#include "compat/swap.h"
#include "pinned_file.h"

/**
 * struct pinned_file - a pinned file
 * @file: open
 * @info: what the file system has said
 */
struct pinned_file {
	struct file *file;
	struct swap_info_struct info;
};

static const struct address_space_operations *pin_ops(const struct file *file)
{
	return file->f_mapping->a_ops;
}

static void pin_free_extents(struct pinned_file *pin)
{
	struct rb_node *node;

	while ((node = rb_first(&pin->info.swap_extent_root))) {
		rb_erase(node, &pin->info.swap_extent_root);
		kfree(rb_entry(node, struct swap_extent, rb_node));
	}
}

/* btrfs and XFS say on which device it is; ext4 wants to hear it. */
static int pin_activate(struct pinned_file *pin)
{
	struct inode *inode = file_inode(pin->file);
	sector_t span;
	int ret;

	pin->info.swap_extent_root = RB_ROOT;
	spin_lock_init(&pin->info.lock);
	pin->info.bdev = inode->i_sb->s_bdev;
	pin->info.max = min_t(u64, i_size_read(inode) >> PAGE_SHIFT,
			      PINNED_FILE_MAX >> PAGE_SHIFT);
	ret = pin_ops(pin->file)->swap_activate(&pin->info, pin->file, &span);
	if (ret >= 0 && !compat_swap_through_fs(&pin->info) && pin->info.bdev)
		return 0;
	if (ret >= 0 && pin_ops(pin->file)->swap_deactivate)
		pin_ops(pin->file)->swap_deactivate(pin->file);
	pin_free_extents(pin);
	return ret < 0 ? ret : -EOPNOTSUPP;
}

static int pin_locked(struct pinned_file *pin)
{
	struct inode *inode = file_inode(pin->file);
	int ret;

	if (IS_SWAPFILE(inode) || mapping_writably_mapped(inode->i_mapping))
		return -EBUSY;
	inode->i_flags |= S_SWAPFILE;
	inode_dio_wait(inode);
	ret = filemap_write_and_wait(inode->i_mapping);
	if (!ret)
		ret = pin_activate(pin);
	if (ret)
		inode->i_flags &= ~S_SWAPFILE;
	return ret;
}

/*
 * Others do more than they say, or say less: f2fs writes to what is only allocated,
 * and names no place of it.
 */
static bool pin_is_known(const struct super_block *sb)
{
	switch (sb->s_magic) {
	case EXT4_SUPER_MAGIC:
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
		return true;
	default:
		return false;
	}
}

bool pinned_file_is_possible(const struct file *file)
{
	return pin_is_known(file_inode(file)->i_sb) &&
	       pin_ops(file)->swap_activate && !IS_DAX(file_inode(file));
}

struct pinned_file *pinned_file_pin(struct file *file)
{
	struct inode *inode = file_inode(file);
	struct pinned_file *pin;
	int ret;

	if (!pinned_file_is_possible(file))
		return ERR_PTR(-EOPNOTSUPP);
	pin = kvzalloc(sizeof(*pin), GFP_KERNEL);
	if (!pin)
		return ERR_PTR(-ENOMEM);
	pin->file = file;
	inode_lock(inode);
	ret = pin_locked(pin);
	inode_unlock(inode);
	if (!ret)
		return pin;
	kvfree(pin);
	return ERR_PTR(ret);
}

void pinned_file_unpin(struct pinned_file *pin)
{
	struct inode *inode = file_inode(pin->file);

	inode_lock(inode);
	inode->i_flags &= ~S_SWAPFILE;
	inode_unlock(inode);
	if (pin_ops(pin->file)->swap_deactivate)
		pin_ops(pin->file)->swap_deactivate(pin->file);
	pin_free_extents(pin);
	kvfree(pin);
}

struct block_device *pinned_file_bdev(const struct pinned_file *pin)
{
	return pin->info.bdev;
}

int pinned_file_each(struct pinned_file *pin, pinned_file_fn fn, void *owner)
{
	const struct swap_extent *extent;
	struct rb_node *node;
	int ret = 0;

	for (node = rb_first(&pin->info.swap_extent_root); node && !ret;
	     node = rb_next(node)) {
		extent = rb_entry(node, struct swap_extent, rb_node);
		ret = fn(owner, pin->info.bdev,
			 (sector_t)extent->start_block << PAGE_SECTORS_SHIFT,
			 (sector_t)extent->nr_pages << PAGE_SECTORS_SHIFT);
	}
	return ret;
}
