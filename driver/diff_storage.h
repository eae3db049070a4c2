/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_DIFF_STORAGE_H
#define BLKSNAP_DIFF_STORAGE_H

#include <linux/bio.h>
#include <linux/err.h>
#include <linux/maple_tree.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

struct diff_storage;
struct error_text;
struct origin_id;
struct super_block;

/* Space is given out in units of this many bytes, on any kind of storage. */
#define DIFF_STORAGE_UNIT 4096
#define DIFF_STORAGE_UNIT_SECTORS (DIFF_STORAGE_UNIT >> SECTOR_SHIFT)

/* Where a storage can be made larger, this is the least that is added. */
#define DIFF_STORAGE_STEP SZ_64K

#define DIFF_STORAGE_WHY_MAX 64	/* bytes, of diff_storage_why_full() */

/**
 * struct diff_extent - a piece of a device, or of something else, that belongs to a storage
 * @bdev: the device; NULL if its kind does the I/O
 * @data: of the kind, which finds by it where that is
 * @first: first sector there
 * @sectors: how many
 * @pos: where it lies in the storage
 */
struct diff_extent {
	struct block_device *bdev;
	void *data;
	sector_t first;
	sector_t sectors;
	sector_t pos;
};

/**
 * struct diff_storage_ops - a kind of difference storage
 *
 * Only @close must be there. A kind that has all its space when it is opened has
 * neither @given, @room, @fill, nor @grow; one that lies on devices needs neither
 * @submit nor @fs.
 *
 * @given: bytes that it has before it is filled, whatever the limit. May be NULL
 * @room: bytes that there were for it, if there was no limit. May sleep
 * @fill: adds space until there are so many bytes, or more, if it can: called
 *	after the take has looked at @given and @room, and again if it turns out
 *	that more is needed. Sets the error of the config. May sleep
 * @grow: adds so many sectors, or more or fewer, by diff_storage_add().
 *	Called by one worker at a time; may sleep. NULL where that is impossible
 * @submit: does I/O to an extent without a device, whose @bi_sector is a position
 *	in the storage. Must not sleep. NULL where all goes to devices
 * @fs: the file system that @submit uses, which must not lie on an origin. NULL
 *	where it uses none
 * @close: gives everything back. Called once, when no I/O is in flight. May
 *	sleep
 */
struct diff_storage_ops {
	u64 (*given)(struct diff_storage *storage);
	u64 (*room)(struct diff_storage *storage);
	int (*fill)(struct diff_storage *storage, u64 bytes);
	int (*grow)(struct diff_storage *storage, sector_t sectors);
	void (*submit)(struct diff_storage *storage, struct bio *bio);
	const struct super_block *(*fs)(struct diff_storage *storage);
	void (*close)(struct diff_storage *storage);
};

/**
 * struct diff_storage_config - what a storage is made for
 * @path: what it is called in an error's text
 * @block_size: the smallest unit of I/O, in bytes, that the images need
 * @error: gets the reason of a refusal
 * @who: for its log line
 * @low_space: called by a worker when less than the low mark is free and the
 *	storage does not grow; again only after it has grown or the marks have
 *	changed. May sleep
 * @owner: for @low_space, and whatever else a kind asks its owner
 */
struct diff_storage_config {
	const char *path;
	unsigned int block_size;
	struct error_text *error;
	const char *who;
	void (*low_space)(void *owner);
	void *owner;
};

/**
 * struct diff_storage - space for differences, as one range of sectors
 * @ops: its kind; set once by the kind's open function
 * @config: set once
 * @bdev: the device that it lies on, or NULL; set by the kind's open function
 * @extents: where each sector lies, by position; grows only
 * @lock: protects the next ten
 * @size: sectors that there are
 * @used: sectors that are given out; they are never taken back one by one
 * @limit: up to what size it may grow, in sectors
 * @low: with fewer free sectors it grows
 * @wanted: what somebody waits for, for the next round
 * @begun: rounds of @grow_work that have begun
 * @ended: the last one that has come to its end
 * @full: that did not get enough, and nothing has been added since
 * @remarked: the marks were set since the round began
 * @full_err: what growing failed with then; 0: nothing more may be added
 * @wq: for @grow_work alone, since stores wait for it
 * @grow_work: grows, or says that it does not
 * @grown: woken then, and by diff_storage_wake()
 * @bios: for stores; a store can always get one
 * @stored_ns: when a write of a batch was last completed (ktime_get_ns()),
 *	whichever area's
 */
struct diff_storage {
	const struct diff_storage_ops *ops;
	struct diff_storage_config config;
	struct block_device *bdev;
	struct maple_tree extents;
	spinlock_t lock;	/* protects the next ten */
	sector_t size;
	sector_t used;
	sector_t limit;
	sector_t low;
	sector_t wanted;
	unsigned int begun;
	unsigned int ended;
	bool full;
	bool remarked;
	int full_err;
	struct workqueue_struct *wq;
	struct work_struct grow_work;
	wait_queue_head_t grown;
	struct bio_set bios;
	u64 stored_ns;
};

/**
 * diff_storage_no_memory() - for open functions: says that there was none
 * @config: whose error text gets it
 *
 * Context: may sleep. Return: -ENOMEM.
 */
int diff_storage_no_memory(const struct diff_storage_config *config);

/**
 * diff_storage_init() - for the open function of a kind: a storage without space
 * @storage: zeroed
 * @ops: the kind
 * @config: is copied; what it points to must outlive the storage
 *
 * Context: may sleep. Return: 0, or -ENOMEM with the reason in @config's error
 * text.
 */
int diff_storage_init(struct diff_storage *storage,
		      const struct diff_storage_ops *ops,
		      const struct diff_storage_config *config);

/**
 * diff_storage_exit() - undoes diff_storage_init(). Context: may sleep.
 * @storage: no I/O is in flight, nobody grows it
 */
void diff_storage_exit(struct diff_storage *storage);

/**
 * diff_storage_add() - for a kind: adds space
 * @storage: the storage
 * @bdev: the device, or NULL
 * @data: of the kind, as in &struct diff_extent
 * @first: first sector there
 * @sectors: a multiple of DIFF_STORAGE_UNIT
 *
 * Context: may sleep; one caller at a time. Return: 0 or -ENOMEM.
 */
int diff_storage_add(struct diff_storage *storage, struct block_device *bdev,
		     void *data, sector_t first, sector_t sectors);

/**
 * diff_storage_extent() - for a kind: which extent a position lies in
 * @storage: the storage
 * @pos: given out, in sectors
 *
 * Context: any. Takes no lock.
 */
const struct diff_extent *diff_storage_extent(struct diff_storage *storage,
					      sector_t pos);

/**
 * diff_storage_place() - says where a sector lies
 * @storage: the storage
 * @pos: of it
 * @bio: gets device and sector, for diff_storage_submit()
 *
 * Context: process. Takes no lock. Return: how many sectors follow in one piece.
 */
sector_t diff_storage_place(struct diff_storage *storage, sector_t pos,
			    struct bio *bio);

/**
 * diff_storage_submit() - does I/O
 * @storage: the storage
 * @bio: from diff_storage_place()
 *
 * Context: may sleep, for the device to take the request.
 */
void diff_storage_submit(struct diff_storage *storage, struct bio *bio);

/**
 * diff_storage_does_io() - does its kind do the I/O, and not a device?
 * @storage: the storage
 *
 * Then it makes no difference to it which disks have snapshots. Context: any.
 */
static inline bool diff_storage_does_io(const struct diff_storage *storage)
{
	return storage->ops->submit;
}

/**
 * diff_storage_next_extent() - goes through all extents
 * @storage: the storage; what is added meanwhile may be left out
 * @pos: 0 at first; is moved on
 *
 * Context: may sleep. Return: an extent, valid until the storage is closed; NULL
 * after the last one.
 */
const struct diff_extent *diff_storage_next_extent(struct diff_storage *storage,
						   sector_t *pos);

/**
 * diff_storage_set_marks() - sets how far it may grow, and when it does
 * @storage: the storage
 * @limit: bytes; no less than it has
 * @low: bytes that shall be free
 *
 * It is tried anew to grow, if that is due. Context: any.
 */
void diff_storage_set_marks(struct diff_storage *storage, u64 limit, u64 low);

/**
 * diff_storage_open_bdev() - uses a whole block device
 * @id: the device
 * @config: see there
 *
 * Context: may sleep.
 *
 * Return: the storage, or an ERR_PTR: -EBUSY when the device is mounted or in
 * use, -ENODEV when its number is that of another one now, -EOPNOTSUPP when it is
 * zoned, -EINVAL when its blocks are larger than those of the images, -ENOSPC
 * when it is too small, -EROFS, or what opening it says.
 */
struct diff_storage *
diff_storage_open_bdev(const struct origin_id *id,
		       const struct diff_storage_config *config);

#ifdef BLKSNAP_TEST
#define DIFF_STORAGE_HAS_MEMORY true

/**
 * diff_storage_open_memory() - uses memory, which only builds for tests do
 * @config: see there
 *
 * There is no space in it yet. Context: may sleep. Return: the storage, or
 * ERR_PTR(-ENOMEM).
 */
struct diff_storage *
diff_storage_open_memory(const struct diff_storage_config *config);
#else
#define DIFF_STORAGE_HAS_MEMORY false

static inline struct diff_storage *
diff_storage_open_memory(const struct diff_storage_config *config)
{
	return ERR_PTR(-EOPNOTSUPP);
}
#endif

/**
 * diff_storage_close() - lets the storage go
 * @storage: no I/O is in flight. Context: may sleep.
 */
void diff_storage_close(struct diff_storage *storage);

/**
 * diff_storage_alloc_now() - takes space, in one piece, if it is there
 * @storage: the storage
 * @sectors: how many; rounded up to DIFF_STORAGE_UNIT
 * @pos: where it begins
 *
 * If there is too little, it is to grow by as much, and this does not wait.
 * Context: any but interrupts. Return: false if nothing was taken.
 */
bool diff_storage_alloc_now(struct diff_storage *storage, sector_t sectors,
			    sector_t *pos);

/**
 * diff_storage_alloc() - takes space, in one piece
 * @storage: the storage
 * @sectors: how many; rounded up to DIFF_STORAGE_UNIT
 * @pos: where it begins
 * @needless: true as soon as the caller does not need it any more; whoever sets
 *	that calls diff_storage_wake()
 *
 * If there is too little, it waits until the storage has grown, or has tried to.
 * Context: may sleep. Return: 0; -ENOSPC, or -ECANCELED if it became needless
 * meanwhile, and nothing taken.
 */
int diff_storage_alloc(struct diff_storage *storage, sector_t sectors,
		       sector_t *pos, const bool *needless);

/**
 * diff_storage_wake() - who waits for space may not need it any more
 * @storage: the storage. Context: any.
 */
void diff_storage_wake(struct diff_storage *storage);

/**
 * diff_storage_bytes() - its size and how much of it is in use, in bytes
 * @storage: the storage
 * @size: the size
 * @used: 0 <= @used <= @size
 *
 * Context: any.
 */
void diff_storage_bytes(struct diff_storage *storage, u64 *size, u64 *used);

/**
 * diff_storage_why_full() - in words, behind a number of bytes
 * @storage: there is not enough space in it
 * @buffer: DIFF_STORAGE_WHY_MAX bytes, for the words
 *
 * Context: any but interrupts. Return: ", and ..." if growing failed, and not
 * for want of space; else "".
 */
const char *diff_storage_why_full(struct diff_storage *storage, char *buffer);

#endif
