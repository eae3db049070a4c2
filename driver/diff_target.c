// SPDX-License-Identifier: GPL-2.0
/*
 * Where differences are to go, as a path says it.
 *
 * The path is looked at when it is written, so that the administrator hears at
 * once what is wrong with it; a file is opened, or made, only when the session
 * is taken. What he may do is what he might then, with his own rights, and in his
 * own root: they are remembered with it.
 */
#include <linux/cred.h>
#include <linux/dcache.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/fs_struct.h>
#include <linux/namei.h>
#include <linux/slab.h>
#include <linux/stat.h>
#include <linux/string.h>

#include "diff_storage.h"
#include "diff_target.h"
#include "error.h"
#include "origin.h"

/* An absolute path, to be freed, of @path or of @name in it. */
static char *target_absolute(const struct path *path, const char *name)
{
	char *page = kmalloc(PATH_MAX, GFP_KERNEL);
	char *text, *copy;

	if (!page)
		return ERR_PTR(-ENOMEM);
	text = d_path(path, page, PATH_MAX);
	if (IS_ERR(text))
		copy = ERR_CAST(text);
	else if (text[0] != '/')
		copy = ERR_PTR(-ENOENT); /* out of the task's reach */
	else if (!name)
		copy = kstrdup(text, GFP_KERNEL) ?: ERR_PTR(-ENOMEM);
	else
		copy = kasprintf(GFP_KERNEL, "%s/%s", text[1] ? text : "",
				 name) ?: ERR_PTR(-ENOMEM);
	kfree(page);
	return copy;
}

/* To make a file there would take the lock that mkdir of a session has. */
static bool target_is_in_configfs(const struct path *path)
{
	return origin_path_is_on(path, "configfs");
}

/* The absolute path of what exists. */
static char *target_existing(const char *name)
{
	struct path path;
	umode_t mode;
	char *text;
	int ret;

	ret = kern_path(name, LOOKUP_FOLLOW, &path);
	if (ret)
		return ERR_PTR(ret);
	mode = d_backing_inode(path.dentry)->i_mode;
	if (target_is_in_configfs(&path))
		ret = -EINVAL;
	else if (S_ISREG(mode))
		ret = path_permission(&path, MAY_READ | MAY_WRITE);
	else if (S_ISDIR(mode))
		ret = path_permission(&path, MAY_WRITE | MAY_EXEC);
	else
		ret = -EINVAL;
	/* Another session's, perhaps: nobody may write to it. */
	if (ret == -EPERM && IS_IMMUTABLE(d_backing_inode(path.dentry)))
		ret = -EBUSY;
	text = ret ? ERR_PTR(ret) : target_absolute(&path, NULL);
	path_put(&path);
	return text;
}

/* Who names a device that is not there does not want a file instead. */
static bool target_is_for_devices(const struct path *path)
{
	return origin_path_is_on(path, "devtmpfs");
}

/* The absolute path of a file that could be made. */
static char *target_new(const char *name)
{
	const char *base = strrchr(name, '/');
	char *parent, *text;
	struct path path, link;
	int ret;

	base = base ? base + 1 : name;
	if (!*base)
		return ERR_PTR(-ENOENT);
	if (base == name)
		parent = kstrdup(".", GFP_KERNEL);
	else
		parent = kstrndup(name, base - name, GFP_KERNEL);
	if (!parent)
		return ERR_PTR(-ENOMEM);
	ret = kern_path(parent, LOOKUP_FOLLOW | LOOKUP_DIRECTORY, &path);
	kfree(parent);
	if (ret)
		return ERR_PTR(ret);
	ret = target_is_for_devices(&path) || target_is_in_configfs(&path) ?
		-ENOENT :
		path_permission(&path, MAY_WRITE | MAY_EXEC);
	/* What it leads to would be made in another directory. */
	if (!ret && !kern_path(name, 0, &link)) {
		path_put(&link);
		ret = -ELOOP;
	}
	text = ret ? ERR_PTR(ret) : target_absolute(&path, base);
	path_put(&path);
	return text;
}

static int target_refuse(const char *path, int err, struct error_text *error,
			 const char *who)
{
	switch (err) {
	case -EINVAL:
		return error_set(error, who, err,
				 "%s is neither a block device, nor a file, nor a directory",
				 path);
	case -EBUSY:
		return error_set(error, who, err, "%s is in use, or immutable",
				 path);
	case -ELOOP:
		return error_set(error, who, err,
				 "%s is a symbolic link that leads to nothing",
				 path);
	case -EROFS:
		return error_set(error, who, err,
				 "%s is on a file system that is read-only", path);
	default:
		return origin_refuse_path(path, err, error, who);
	}
}

/* Below a device there is nothing, so no file can have this name. */
static bool target_is_memory(const char *path)
{
	return DIFF_STORAGE_HAS_MEMORY && !strcmp(path, "/dev/null/memory");
}

int diff_target_resolve(struct diff_target *target, const char *path,
			struct error_text *error, const char *who)
{
	dev_t dev;
	int ret;

	memset(target, 0, sizeof(*target));
	target->memory = target_is_memory(path);
	if (target->memory)
		return 0;
	if (origin_path_is_in_configfs(path))
		return target_refuse(path, -ENOENT, error, who);
	ret = origin_resolve(path, MAY_READ | MAY_WRITE, &dev);
	if (!ret)
		ret = origin_identify(dev, &target->id);
	if (!ret)
		return 0;
	if (ret == -ENOTBLK)
		target->path = target_existing(path);
	else if (ret == -ENOENT)
		target->path = target_new(path);
	else
		target->path = ERR_PTR(ret);
	ret = PTR_ERR_OR_ZERO(target->path);
	if (ret) {
		target->path = NULL;
		return target_refuse(path, ret, error, who);
	}
	target->cred = get_current_cred();
	get_fs_root(current->fs, &target->root);
	return 0;
}

int diff_target_copy(struct diff_target *target, const struct diff_target *from)
{
	*target = *from;
	target->path = kstrdup(from->path, GFP_KERNEL);
	target->cred = get_cred(from->cred);
	path_get(&target->root);
	return target->path ? 0 : -ENOMEM;
}

void diff_target_clear(struct diff_target *target)
{
	kfree(target->path);
	if (target->cred)
		put_cred(target->cred);
	path_put(&target->root);
	memset(target, 0, sizeof(*target));
}
