// SPDX-License-Identifier: GPL-2.0
/*
 * What a block device is built upon.
 *
 * The kernel has no interface for modules to ask that, but one for people: the
 * "slaves" directories of sysfs, "loop/backing_file", and the "devices" of a
 * btrfs. That is read here.
 */
#include <linux/blkdev.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/kstrtox.h>
#include <linux/magic.h>
#include <linux/major.h>
#include <linux/namei.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "stack.h"

#define STACK_HEIGHT_MAX 16	/* more than anybody builds: bounds recursion */
#define SYSFS_DEVICE "/sys/dev/block/%u:%u/"

bool stack_has(const struct stack *stack, dev_t disk)
{
	unsigned int i;

	for (i = 0; i < stack->nr; i++)
		if (stack->below[i].disk == disk)
			return true;
	return false;
}

bool stack_shares(const struct stack *stack, const struct block_device *bdev)
{
	dev_t disk = disk_devt(bdev->bd_disk);
	unsigned int i;

	for (i = 0; i < stack->nr; i++) {
		if (stack->below[i].disk != disk)
			continue;
		if (bdev->bd_dev == disk || stack->below[i].dev == disk ||
		    stack->below[i].dev == bdev->bd_dev)
			return true;
	}
	return false;
}

static bool stack_has_device(const struct stack *stack, dev_t dev)
{
	unsigned int i;

	for (i = 0; i < stack->nr; i++)
		if (stack->below[i].dev == dev)
			return true;
	return false;
}

/* One short file of sysfs, without its newline. */
static int stack_read_file(struct file *file, char *text, size_t size)
{
	loff_t pos = 0;
	ssize_t len = kernel_read(file, text, size - 1, &pos);

	if (len < 0)
		return len;
	if (len && text[len - 1] == '\n')
		len--;
	text[len] = '\0';
	return 0;
}

static int stack_read(const char *path, char *text, size_t size)
{
	struct file *file = filp_open(path, O_RDONLY, 0);
	int ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = stack_read_file(file, text, size);
	filp_close(file, NULL);
	return ret;
}

/* The names in a directory, each ended by a zero byte. */
struct stack_names {
	struct dir_context ctx;
	size_t used;
	bool full;
	char text[1024];
};

static bool stack_add_name(struct dir_context *ctx, const char *name, int len,
			   loff_t offset, u64 ino, unsigned int type)
{
	struct stack_names *names = container_of(ctx, struct stack_names, ctx);

	if (name[0] == '.')
		return true;
	if (names->used + len + 1 >= sizeof(names->text)) {
		names->full = true;
		return false;
	}
	memcpy(names->text + names->used, name, len);
	names->used += len + 1;
	return true;
}

static int stack_list(const char *path, struct stack_names *names)
{
	struct file *file = filp_open(path, O_RDONLY | O_DIRECTORY, 0);
	int ret;

	if (IS_ERR(file))
		return PTR_ERR(file);
	ret = iterate_dir(file, &names->ctx);
	filp_close(file, NULL);
	return ret ?: names->full ? -E2BIG : 0;
}

static int stack_parse_dev(const char *text, dev_t *dev)
{
	unsigned int major, minor;

	if (sscanf(text, "%u:%u", &major, &minor) != 2)
		return -EINVAL;
	*dev = MKDEV(major, minor);
	return 0;
}

/* The device whose number is in a file of sysfs. */
static int stack_read_dev(const char *path, dev_t *dev)
{
	char text[32];
	int ret = stack_read(path, text, sizeof(text));

	return ret ?: stack_parse_dev(text, dev);
}

/*
 * The disk that a partition lies on; a disk is its own. Nothing is opened: what is
 * below may be broken, or hang, while what is above goes on without it.
 */
static int stack_disk_of(dev_t dev, dev_t *disk)
{
	char name[64], text[32];
	int ret;

	snprintf(name, sizeof(name), SYSFS_DEVICE "partition", MAJOR(dev),
		 MINOR(dev));
	ret = stack_read(name, text, sizeof(text));
	if (ret == -ENOENT) {
		*disk = dev;
		return 0;
	}
	if (ret)
		return ret;
	snprintf(name, sizeof(name), SYSFS_DEVICE "../dev", MAJOR(dev),
		 MINOR(dev));
	return stack_read_dev(name, disk);
}

static int stack_descend(struct stack *stack, dev_t disk, unsigned int level);

/* A device one layer below. */
static int stack_enter(struct stack *stack, dev_t dev, unsigned int level)
{
	dev_t disk;
	int ret;

	ret = stack_disk_of(dev, &disk);
	if (ret)
		return ret;
	if (!stack_has_device(stack, dev)) {
		if (stack->nr == STACK_DISKS_MAX)
			return -E2BIG;
		stack->below[stack->nr].dev = dev;
		stack->below[stack->nr++].disk = disk;
	}
	stack->height = max(stack->height, level);
	return stack_descend(stack, disk, level);
}

/*
 * One that a directory of sysfs names. A link of a device that is gone stays there
 * until what was built upon it lets go of it; nothing is read or written there.
 */
static int stack_enter_named(struct stack *stack, const char *path,
			     unsigned int level)
{
	dev_t dev;
	int ret = stack_read_dev(path, &dev);

	if (ret == -ENOENT)
		return 0;
	return ret ?: stack_enter(stack, dev, level);
}

/* All devices that a directory of sysfs names. Says whether there are any. */
static int stack_enter_all(struct stack *stack, const char *dir,
			   unsigned int level, bool *any)
{
	struct stack_names *names;
	char path[160];
	size_t at;
	int ret;

	names = kzalloc(sizeof(*names), GFP_KERNEL);
	if (!names)
		return -ENOMEM;
	names->ctx.actor = stack_add_name;
	ret = stack_list(dir, names);
	for (at = 0; !ret && at < names->used; at += strlen(names->text + at) + 1) {
		snprintf(path, sizeof(path), "%s/%s/dev", dir, names->text + at);
		ret = stack_enter_named(stack, path, level);
	}
	*any = names->used;
	kfree(names);
	return ret;
}

static int stack_enter_btrfs(struct stack *stack, const struct super_block *sb,
			     unsigned int level)
{
	char dir[80];
	bool any;

	snprintf(dir, sizeof(dir), "/sys/fs/btrfs/%pU/devices", sb->s_uuid.b);
	return stack_enter_all(stack, dir, level, &any);
}

/* Memory, or another machine's affair. */
static bool stack_is_nothing(const struct super_block *sb)
{
	switch (sb->s_magic) {
	case TMPFS_MAGIC:
	case RAMFS_MAGIC:
	case NFS_SUPER_MAGIC:
	case CIFS_SUPER_MAGIC:
	case SMB2_SUPER_MAGIC:
	case V9FS_MAGIC:
		return true;
	default:
		return false;
	}
}

static int stack_enter_fs(struct stack *stack, const struct super_block *sb,
			  unsigned int level)
{
	if (sb->s_magic == BTRFS_SUPER_MAGIC)
		return stack_enter_btrfs(stack, sb, level);
	if (sb->s_bdev)
		return stack_enter(stack, sb->s_bdev->bd_dev, level);
	stack->unknown |= !stack_is_nothing(sb);
	return 0;
}

/*
 * The file that is found by a loop device's path may be another one: something
 * was mounted over it, or it is a path of another mount namespace. A loop device
 * keeps what its file allocates from I/O; what allows that is no loop's file.
 */
static int stack_enter_file(struct stack *stack, const struct path *path,
			    unsigned int level)
{
	const struct inode *inode = d_backing_inode(path->dentry);

	if (S_ISBLK(inode->i_mode))
		return stack_enter(stack, inode->i_rdev, level);
	if (mapping_gfp_mask(inode->i_mapping) & __GFP_IO)
		stack->unknown = true;
	return stack_enter_fs(stack, inode->i_sb, level);
}

/* The file system that holds a loop device's file, if that has a name here. */
static int stack_descend_loop(struct stack *stack, dev_t disk,
			      unsigned int level)
{
	char name[64], *file;
	struct path path;
	int ret;

	file = kmalloc(PATH_MAX, GFP_KERNEL);
	if (!file)
		return -ENOMEM;
	snprintf(name, sizeof(name), SYSFS_DEVICE "loop/backing_file",
		 MAJOR(disk), MINOR(disk));
	ret = stack_read(name, file, PATH_MAX);
	if (!ret)
		ret = kern_path(file, LOOKUP_FOLLOW, &path);
	kfree(file);
	if (ret == -ENOENT) {
		stack->unknown = true;
		return 0;
	}
	if (ret)
		return ret;
	ret = stack_enter_file(stack, &path, level);
	path_put(&path);
	return ret;
}

/*
 * By Linux 7.3 a kernel thread finds no path, so who asks again and again has the
 * file open.
 */
struct file *stack_open_loop_offset(const struct gendisk *disk)
{
	char name[64];

	if (disk->major != LOOP_MAJOR)
		return NULL;
	snprintf(name, sizeof(name), SYSFS_DEVICE "loop/offset", disk->major,
		 disk->first_minor);
	return filp_open(name, O_RDONLY, 0);
}

int stack_read_loop_offset(struct file *file, u64 *offset)
{
	char text[24];
	int ret;

	*offset = 0;
	if (!file)
		return 0;
	ret = stack_read_file(file, text, sizeof(text));
	return ret ?: kstrtou64(text, 10, offset);
}

static int stack_descend_slaves(struct stack *stack, dev_t disk,
				unsigned int level, bool *any)
{
	char dir[64];

	snprintf(dir, sizeof(dir), SYSFS_DEVICE "slaves", MAJOR(disk),
		 MINOR(disk));
	return stack_enter_all(stack, dir, level, any);
}

/* What has no hardware, and nothing below: memory, or a program's. */
static int stack_note_served(struct stack *stack, dev_t disk)
{
	struct path path;
	char name[64];
	int ret;

	snprintf(name, sizeof(name), SYSFS_DEVICE "device", MAJOR(disk),
		 MINOR(disk));
	ret = kern_path(name, LOOKUP_FOLLOW, &path);
	if (!ret)
		path_put(&path);
	else if (ret == -ENOENT)
		stack->served = true;
	else
		return ret;
	return 0;
}

static int stack_descend(struct stack *stack, dev_t disk, unsigned int level)
{
	bool any;
	int ret;

	if (level == STACK_HEIGHT_MAX)
		return -E2BIG;
	ret = stack_descend_slaves(stack, disk, level + 1, &any);
	if (ret)
		return ret;
	if (MAJOR(disk) == LOOP_MAJOR)
		return stack_descend_loop(stack, disk, level + 1);
	return any ? 0 : stack_note_served(stack, disk);
}

static void stack_begin(struct stack *stack)
{
	stack->height = 0;
	stack->unknown = false;
	stack->served = false;
	stack->nr = 0;
}

int stack_walk(dev_t dev, struct stack *stack)
{
	dev_t disk;
	int ret;

	stack_begin(stack);
	ret = stack_disk_of(dev, &disk);
	return ret ?: stack_descend(stack, disk, 0);
}

int stack_walk_fs(const struct super_block *sb, struct stack *stack)
{
	stack_begin(stack);
	return stack_enter_fs(stack, sb, 1);
}
