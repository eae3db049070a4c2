/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_ORIGIN_H
#define BLKSNAP_ORIGIN_H

#include <linux/list.h>
#include <linux/types.h>

#include "compat/bdev.h"
#include "error.h"

struct path;

/**
 * struct origin - an open block device that is to be snapshotted
 * @handle: shared, for reading
 * @frozen: of struct frozen, what origin_freeze() has frozen
 * @held_by_other: somebody other than a file system that was frozen has
 *	claimed the device: RAID, device-mapper, swap, ...
 */
struct origin {
	struct compat_bdev handle;
	struct list_head frozen;
	bool held_by_other;
};

/**
 * struct frozen - a device that was frozen
 * @node: in &origin.frozen
 * @handle: of the device
 * @has_fs: it has a file system, which is frozen now
 */
struct frozen {
	struct list_head node;
	struct compat_bdev handle;
	bool has_fs;
};

/**
 * struct origin_id - which device was named; its name and its number may be those
 *	of another one later
 * @dev: its number, which a partition may change, too
 * @diskseq: the sequence number of its disk, which no other one gets
 * @partno: 0: the whole disk
 * @first: its first sector there
 */
struct origin_id {
	dev_t dev;
	u64 diskseq;
	unsigned int partno;
	sector_t first;
};

/**
 * origin_path_is_on() - is a path on a file system of this type?
 * @path: the path
 * @type: the name of the type
 *
 * Context: any. Return: true if it is.
 */
bool origin_path_is_on(const struct path *path, const char *type);

/**
 * origin_path_is_in_configfs() - would a path be looked up there?
 * @path: the path, as it is written; it is known if configfs is where it always
 *	is, or the current directory is there, and no symbolic link leads there
 *
 * Nothing of use is found there, as when "/dev/" was forgotten; and it must not be
 * looked for: that takes the lock of a directory, which rmdir has while it waits
 * for who writes an attribute of what it removes.
 *
 * Context: that of the task whose path it is. Return: true if it is.
 */
bool origin_path_is_in_configfs(const char *path);

/**
 * origin_resolve() - which block device a path names
 * @path: resolved with the rights of the current task
 * @mask: MAY_READ, MAY_WRITE: what he must be allowed to do with it
 * @dev: the answer
 *
 * Context: may sleep. Return: 0, -ENOENT, -ENOTBLK, -EACCES, or another errno of
 * the path's resolution.
 */
int origin_resolve(const char *path, int mask, dev_t *dev);

/**
 * origin_identify() - which device a number is of now
 * @dev: the number
 * @id: the answer
 *
 * Opens it, for reading, and closes it again. Context: may sleep. Return: 0 or
 * what opening says.
 */
int origin_identify(dev_t dev, struct origin_id *id);

/**
 * origin_get_id() - the same of a device that is open. Context: any.
 * @bdev: the device
 * @id: the answer
 */
void origin_get_id(struct block_device *bdev, struct origin_id *id);

/**
 * origin_same_id() - is it the same device? Context: any.
 * @one: one
 * @other: and the other
 */
bool origin_same_id(const struct origin_id *one, const struct origin_id *other);

/**
 * origin_check_id() - is a device still the one that was named?
 * @bdev: the device, open
 * @id: which one was named
 * @path: how it was called
 * @error: gets the reason of a refusal
 * @who: for its log line
 *
 * Context: may sleep. Return: 0 or -ENODEV.
 */
int origin_check_id(struct block_device *bdev, const struct origin_id *id,
		    const char *path, struct error_text *error, const char *who);

/**
 * origin_refuse_path() - says what was wrong with a path
 * @path: the path
 * @err: what origin_resolve() has returned
 * @error: gets the reason
 * @who: for its log line
 *
 * Context: may sleep. Return: @err.
 */
int origin_refuse_path(const char *path, int err, struct error_text *error,
		       const char *who);

/**
 * origin_open() - opens a device and checks that it can be followed
 * @origin: is filled in
 * @dev: the device
 * @error: gets the reason of a refusal
 * @who: for its log line
 *
 * Context: may sleep. Return: 0; -EOPNOTSUPP for devices whose writes would
 * bypass the hook or could not be preserved as they are; or what opening says.
 */
int origin_open(struct origin *origin, dev_t dev, struct error_text *error,
		const char *who);

/**
 * origin_try() - opens a device once, so that what cannot be followed is refused
 *	at once
 * @dev: the device
 * @id: which one it is
 * @error: gets the reason of a refusal
 * @who: for its log line
 *
 * Context: may sleep, for long where a disk hangs. Return: as origin_open().
 */
int origin_try(dev_t dev, struct origin_id *id, struct error_text *error,
	       const char *who);

/**
 * origin_close() - undoes origin_open(). Context: may sleep.
 * @origin: not frozen
 */
void origin_close(struct origin *origin);

/**
 * origin_list_fs() - prepares to freeze; nothing is frozen yet
 * @origin: open
 *
 * Lists the device itself, and for a whole disk its partitions. Context: may
 * sleep. Return: 0 or an errno; origin_forget_fs() is due in both cases.
 */
int origin_list_fs(struct origin *origin);

/**
 * origin_forget_fs() - undoes origin_list_fs(). Context: may sleep.
 * @origin: thawed
 */
void origin_forget_fs(struct origin *origin);

/**
 * origin_check_thawed() - refuses file systems that somebody else has frozen
 * @origin: listed
 * @error: gets the reason of a refusal
 * @who: for its log line
 *
 * To be asked of all origins before the first of them is frozen: a file system
 * that has several devices is frozen with each of them. Not every kernel can
 * tell: then origin_freeze() fails. Context: may sleep. Return: 0 or -EBUSY.
 */
int origin_check_thawed(struct origin *origin, struct error_text *error,
			const char *who);

/**
 * origin_sync() - writes back what its file systems have, without freezing
 * @origin: listed. Context: may sleep, as long as that takes.
 */
void origin_sync(struct origin *origin);

/**
 * origin_freeze() - freezes the file systems of an origin
 * @origin: listed
 * @error: gets the reason of a failure
 * @who: for its log line
 *
 * Context: may sleep. Return: 0, or an errno with nothing of this origin left
 * frozen.
 */
int origin_freeze(struct origin *origin, struct error_text *error,
		  const char *who);

/**
 * origin_thaw() - ends origin_freeze(). Context: may sleep.
 * @origin: frozen
 */
void origin_thaw(struct origin *origin);

/**
 * origin_overlaps() - do two devices share sectors of a disk? Context: any.
 * @a: a device
 * @b: another one, or the same
 */
bool origin_overlaps(struct block_device *a, struct block_device *b);

#endif
