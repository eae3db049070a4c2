/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_FILE_IO_H
#define BLKSNAP_FILE_IO_H

#include <linux/bio.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/workqueue.h>

struct cred;
struct file;

/**
 * struct file_io - I/O to files through their file system
 * @find: which file a bio is for, and from which byte on; set before
 *	file_io_init(). Called by a worker
 * @cred: whose rights count; set before file_io_init()
 * @lock: protects @bios
 * @bios: that are waiting
 * @wq: for @work
 * @work: does what @bios ask for, one after the other
 */
struct file_io {
	struct file *(*find)(struct file_io *io, const struct bio *bio,
			     loff_t *pos);
	const struct cred *cred;
	spinlock_t lock;	/* protects @bios */
	struct bio_list bios;
	struct workqueue_struct *wq;
	struct work_struct work;
};

/**
 * file_io_is_possible() - may files of this file system be used so?
 * @file: open
 *
 * Only those whose behaviour is known: tmpfs, which needs no device, and btrfs.
 * Context: any.
 */
bool file_io_is_possible(const struct file *file);

/**
 * file_io_prepare() - before memory is allocated for a file
 * @file: on any file system
 *
 * What tmpfs holds is not to be swapped out: a swap on an origin would wait for
 * what waits for it. Context: any.
 */
void file_io_prepare(struct file *file);

/**
 * file_io_unprepare() - undoes file_io_prepare(). Context: any.
 * @file: the file
 */
void file_io_unprepare(struct file *file);

/**
 * file_io_guard() - from now on nobody else changes the file
 * @file: open for writing, by the caller alone
 *
 * Context: may sleep. Return: 0; -EBUSY when others have it open for writing.
 */
int file_io_guard(struct file *file);

/**
 * file_io_unguard() - undoes file_io_guard(). Context: may sleep.
 * @file: the file
 */
void file_io_unguard(struct file *file);

/**
 * file_io_init() - prepares a queue
 * @io: zeroed, but for what its user sets
 * @name: for its worker
 *
 * Context: may sleep. Return: 0 or -ENOMEM.
 */
int file_io_init(struct file_io *io, const char *name);

/**
 * file_io_exit() - undoes file_io_init()
 * @io: nothing is in flight; zeroed is fine, too. Context: may sleep.
 */
void file_io_exit(struct file_io *io);

/**
 * file_io_submit() - reads or writes, in the background
 * @io: the queue
 * @bio: without a device; ends with what the file system says
 *
 * Context: any.
 */
void file_io_submit(struct file_io *io, struct bio *bio);

#endif
