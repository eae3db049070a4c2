/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_DIFF_SEGMENT_H
#define BLKSNAP_DIFF_SEGMENT_H

#include <linux/list.h>
#include <linux/types.h>

struct file;
struct path;
struct pinned_file;

/**
 * struct diff_segment - one file of a difference storage
 * @node: for the list of the owner, who serialises all that is done with it;
 *	empty at first
 * @who: for log lines; set once
 * @file: open; set once
 * @pin: NULL until its blocks are known
 * @given: what size it had, in bytes, if it was there; set by the owner
 * @guarded: nobody else writes to it
 * @used: what is stored is written to it by its file system; set by the owner
 * @made: by us, with a name: it is removed in the end; set by the owner
 * @grown: by us, from nothing: it is made empty again in the end
 * @nocow: by us, and not before
 */
struct diff_segment {
	struct list_head node;
	const char *who;
	struct file *file;
	struct pinned_file *pin;
	u64 given;
	bool guarded;
	bool used;
	bool made;
	bool grown;
	bool nocow;
};

/* Larger ones are not made: a pin ends at 16 TiB, and so do files of ext4. */
#define DIFF_SEGMENT_MAX (8ULL << 40)

/**
 * diff_segment_open() - opens a file, or makes it
 * @root: where the path begins
 * @path: of it
 * @who: for log lines; outlives the segment
 *
 * With the rights of the current task. Context: may sleep. Return: the segment, or
 * an ERR_PTR: -ENOMEM, or what opening it says, -EISDIR for a directory, -ELOOP
 * for a symbolic link.
 */
struct diff_segment *diff_segment_open(const struct path *root,
				       const char *path, const char *who);

/**
 * diff_segment_open_unnamed() - makes a file without a name
 * @directory: in which; it must be possible to write there
 * @who: as for diff_segment_open()
 *
 * Context and return: as diff_segment_open(); -EOPNOTSUPP where the file system
 * has no such files.
 */
struct diff_segment *diff_segment_open_unnamed(const struct path *directory,
					       const char *who);

/**
 * diff_segment_find_data() - was anything ever written to it?
 * @segment: the segment
 *
 * Context: may sleep. Return: 0 if not; -EINVAL if so; -EBUSY when it is mapped
 * and in use; or what the file system says.
 */
int diff_segment_find_data(const struct diff_segment *segment);

/**
 * diff_segment_allocate() - gives an empty file its size, and the blocks for it
 * @segment: neither pinned nor guarded
 * @bytes: the size
 *
 * Context: may sleep; with the rights that it was opened with. Return: 0, -ENOSPC, -EDQUOT, -EROFS, or another errno of the
 * file system.
 */
int diff_segment_allocate(struct diff_segment *segment, u64 bytes);

/**
 * diff_segment_guard() - from now on nobody else changes the file
 * @segment: whether all of it is allocated can be looked at from then on
 *
 * Context and return: as file_io_guard().
 */
int diff_segment_guard(struct diff_segment *segment);

/**
 * diff_segment_pin() - finds out where the file lies, and keeps it there
 * @segment: allocated
 *
 * Context: as pinned_file_pin(). Return: 0 or what that says.
 */
int diff_segment_pin(struct diff_segment *segment);

/**
 * diff_segment_close() - lets go of the file, which is again what it was
 * @segment: no I/O to it is in flight; in no list that anybody looks at
 *
 * What we have made is gone, if it still has its name; what was given has its
 * size, and nothing that we have stored. What somebody else has written to it is
 * left, and a line in the log says so, as it does where restoring it fails.
 *
 * Context: may sleep; with the rights that it was opened with.
 */
void diff_segment_close(struct diff_segment *segment);

#endif
