/* SPDX-License-Identifier: GPL-2.0 */
/* What the parts of `storm` share: rings, the origin's write paths, and the claims. */
#ifndef BLKSNAP_TESTS_STAMP_STORM_H
#define BLKSNAP_TESTS_STAMP_STORM_H

#include "stamp.h"

#include <pthread.h>
#include <sys/types.h>

/* ---- io_uring ---- */

struct ring;

/* Each writer has its own. @polled: with the submitter polling for the end. */
struct ring *ring_open(bool polled);
/* Returns what write() would, or -errno; @flags as of pwritev2(). */
ssize_t ring_write(struct ring *ring, int fd, int flags, const void *buffer,
		   size_t size, uint64_t offset);

/* ---- write paths of the origin ---- */

struct origin {
	struct target direct;
	struct target cached;
	char *map;		/* whole origin, shared; NULL unless mmap is used */
	_Atomic uint64_t by_mode[MODE_COUNT];
	_Atomic uint64_t nowait_again;		/* EAGAIN, then written without NOWAIT */
	_Atomic uint64_t nowait_unsupported;
};

void origin_open(struct origin *origin, const char *path,
		 const struct options *options);
void origin_close(struct origin *origin);
/* What a writer has for itself; its rings last as long as the process. */
struct pen {
	struct rng rng;
	struct ring *ring, *polled;	/* opened when they are wanted */
};

/* Through the page cache? Such a write and a direct one must not share a page. */
bool mode_is_cached(enum write_mode mode);
enum write_mode mode_pick(enum write_mode mode, struct rng *rng);
/* Returns when the data is on the device, or (cached, half of them) in the cache. */
int origin_write(struct origin *origin, enum write_mode mode, struct pen *pen,
		 const void *buffer, size_t size, uint64_t offset);
int origin_sync(struct origin *origin);

/* ---- claims: who writes where right now ---- */

struct range {
	uint64_t first;		/* block in the region */
	uint64_t blocks;
};

struct slot {
	/* protected by claims.lock */
	struct range range;
	bool busy;
	bool cached;
	/* for readers: odd while the write is in flight */
	_Atomic uint64_t generation;
	_Atomic uint64_t first;
	_Atomic uint64_t blocks;
};

struct claims {
	pthread_mutex_t lock;
	pthread_cond_t released;
	unsigned int count;
	uint64_t page_blocks;	/* blocks in a page of the cache */
	uint64_t page_shift;	/* blocks of the region's start in its page */
	struct slot *slots;
};

void claims_init(struct claims *claims, unsigned int count,
		 const struct region *region);
bool claims_try(struct claims *claims, unsigned int writer,
		const struct range *range, bool cached);
void claims_release(struct claims *claims, unsigned int writer);
/* Waits until any claim was released since nothing was free. */
void claims_wait(struct claims *claims);
void slot_publish(struct slot *slot);
void slot_land(struct slot *slot);
/* Returns the generation; odd: @range is being written. */
uint64_t slot_peek(struct slot *slot, struct range *range);

#endif
