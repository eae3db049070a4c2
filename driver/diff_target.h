/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_DIFF_TARGET_H
#define BLKSNAP_DIFF_TARGET_H

#include <linux/path.h>
#include <linux/types.h>

#include "origin.h"

struct cred;
struct error_text;

/**
 * struct diff_target - where an administrator wants differences to go
 * @memory: in memory, if this build can do that; then nothing else is set
 * @id: a block device; its number is 0 if it is a file, an existing one or not,
 *	or a directory
 * @path: of the file or directory: absolute, since it is opened later, when the
 *	session is taken; else NULL
 * @root: where @path begins: who takes the session may have another root, or
 *	other mounts
 * @cred: whose rights count then
 */
struct diff_target {
	bool memory;
	struct origin_id id;
	char *path;
	struct path root;
	const struct cred *cred;
};

/**
 * diff_target_resolve() - looks at a path, with the rights of the current task
 * @target: is filled in
 * @path: as it was written
 * @error: gets the reason of a refusal
 * @who: for its log line
 *
 * Nothing is kept open, but the root of a task in a chroot stays mounted. Context: may sleep. Return: 0; -ENOENT when there is
 * neither such a thing nor a directory to make it in; -EACCES; -EINVAL for what
 * is neither a block device, nor a regular file, nor a directory; -EROFS; or
 * another errno of the path's resolution.
 */
int diff_target_resolve(struct diff_target *target, const char *path,
			struct error_text *error, const char *who);

/**
 * diff_target_copy() - copies one that has a path
 * @target: is filled in; diff_target_clear() is due in any case
 * @from: the other one
 *
 * Context: may sleep. Return: 0 or -ENOMEM.
 */
int diff_target_copy(struct diff_target *target, const struct diff_target *from);

/**
 * diff_target_clear() - frees what it holds. Context: may sleep.
 * @target: zeroed, or resolved
 */
void diff_target_clear(struct diff_target *target);

#endif
