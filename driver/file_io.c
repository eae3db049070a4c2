// SPDX-License-Identifier: GPL-2.0
/*
 * A file that is used through its file system, where that cannot say where the
 * file's blocks are, or moves them with each write: tmpfs, and btrfs with
 * copy-on-write.
 *
 * Such I/O sleeps, takes the locks of the file system and needs its memory; so a
 * worker does it, and only for file systems that lie on no origin. Where a file
 * system can do direct I/O it is used, or it is waited for what was written: so
 * an error is known.
 */
#include <linux/blkdev.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/uio.h>

#include "file_io.h"

bool file_io_is_possible(const struct file *file)
{
	unsigned long magic = file_inode(file)->i_sb->s_magic;

	return magic == TMPFS_MAGIC || magic == BTRFS_SUPER_MAGIC;
}

void file_io_prepare(struct file *file)
{
	if (file_inode(file)->i_sb->s_magic == TMPFS_MAGIC)
		mapping_set_unevictable(file->f_mapping);
}

void file_io_unprepare(struct file *file)
{
	if (file_inode(file)->i_sb->s_magic == TMPFS_MAGIC)
		mapping_clear_unevictable(file->f_mapping);
}

/*
 * An immutable file cannot be opened for writing, truncated, renamed or removed.
 * The flag is that of the inode in memory, and does not outlive it.
 */
int file_io_guard(struct file *file)
{
	struct inode *inode = file_inode(file);
	int ret = 0;

	inode_lock(inode);
	if (IS_IMMUTABLE(inode) || atomic_read(&inode->i_writecount) != 1 ||
	    mapping_writably_mapped(inode->i_mapping))
		ret = -EBUSY;
	else
		inode->i_flags |= S_IMMUTABLE;
	inode_unlock(inode);
	if (!ret)
		file_io_prepare(file);
	return ret;
}

void file_io_unguard(struct file *file)
{
	struct inode *inode = file_inode(file);

	inode_lock(inode);
	inode->i_flags &= ~S_IMMUTABLE;
	inode_unlock(inode);
	file_io_unprepare(file);
}

static ssize_t file_io_write(struct file *file, struct kiocb *kiocb,
			     struct iov_iter *iter)
{
	ssize_t done;

	file_start_write(file);
	done = file->f_op->write_iter(kiocb, iter);
	file_end_write(file);
	return done;
}

/*
 * Pages of an image's writer may change while they are written, which checksums
 * do not bear: they are copied.
 */
static int file_io_flags(const struct file *file, const struct bio *bio)
{
	if (!(file->f_mode & FMODE_CAN_ODIRECT))
		return 0;
	if (op_is_write(bio_op(bio)) && bio->bi_opf & REQ_SYNC)
		return IOCB_DSYNC;
	return IOCB_DIRECT;
}

static int file_io_bio(struct file_io *io, struct bio *bio)
{
	ssize_t bytes = bio->bi_iter.bi_size, done;
	bool writes = op_is_write(bio_op(bio));
	struct iov_iter iter;
	struct kiocb kiocb;
	struct file *file;
	loff_t pos;

	file = io->find(io, bio, &pos);
	/* Whoever changes the file's attributes takes the guard away. */
	if (!IS_IMMUTABLE(file_inode(file)))
		return -EIO;
	init_sync_kiocb(&kiocb, file);
	kiocb.ki_pos = pos;
	kiocb.ki_flags |= file_io_flags(file, bio);
	iov_iter_bvec(&iter, writes ? WRITE : READ, bio->bi_io_vec,
		      bio->bi_vcnt, bytes);
	done = writes ? file_io_write(file, &kiocb, &iter) :
			file->f_op->read_iter(&kiocb, &iter);
	if (done == bytes)
		return 0;
	return done < 0 ? done : -EIO;
}

static struct bio *file_io_next(struct file_io *io)
{
	struct bio *bio;

	spin_lock_irq(&io->lock);
	bio = bio_list_pop(&io->bios);
	spin_unlock_irq(&io->lock);
	return bio;
}

/*
 * Memory must not be looked for by writing to an origin, nor is this worker to
 * wait until there are fewer dirty pages of one.
 */
static void file_io_work(struct work_struct *work)
{
	struct file_io *io = container_of(work, struct file_io, work);
	const struct cred *old = override_creds(io->cred);
	unsigned int noio = memalloc_noio_save();
	unsigned int local = current->flags & PF_LOCAL_THROTTLE;
	struct bio *bio;

	current->flags |= PF_LOCAL_THROTTLE;
	while ((bio = file_io_next(io))) {
		bio->bi_status = errno_to_blk_status(file_io_bio(io, bio));
		bio_endio(bio);
	}
	current->flags &= ~PF_LOCAL_THROTTLE | local;
	memalloc_noio_restore(noio);
	revert_creds(old);
}

int file_io_init(struct file_io *io, const char *name)
{
	spin_lock_init(&io->lock);
	bio_list_init(&io->bios);
	INIT_WORK(&io->work, file_io_work);
	io->wq = alloc_workqueue("blksnap_file_%s",
				 WQ_UNBOUND | WQ_MEM_RECLAIM | WQ_HIGHPRI, 1,
				 name);
	return io->wq ? 0 : -ENOMEM;
}

void file_io_exit(struct file_io *io)
{
	if (io->wq)
		destroy_workqueue(io->wq);
	io->wq = NULL;
}

void file_io_submit(struct file_io *io, struct bio *bio)
{
	unsigned long flags;

	spin_lock_irqsave(&io->lock, flags);
	bio_list_add(&io->bios, bio);
	spin_unlock_irqrestore(&io->lock, flags);
	queue_work(io->wq, &io->work);
}
