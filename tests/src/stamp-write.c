// SPDX-License-Identifier: GPL-2.0
/*
 * The ways in which a storm writes its origin, and the claims that keep the
 * writers apart.
 *
 * Claims are by block, so that several writers can be inside one granule at
 * once. Only a cached and a direct write never share a page: the kernel does
 * not keep such mixtures coherent, and the expected content would be undefined.
 */
#define _GNU_SOURCE
#include "stamp-storm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- write paths ---- */

bool mode_is_cached(enum write_mode mode)
{
	return mode == MODE_BUFFERED || mode == MODE_MMAP;
}

enum write_mode mode_pick(enum write_mode mode, struct rng *rng)
{
	return mode == MODE_MIX ? (enum write_mode)rng_below(rng, MODE_COUNT) :
				  mode;
}

static bool mode_includes(const struct options *options, enum write_mode mode)
{
	return options->mode == mode || options->mode == MODE_MIX;
}

void origin_open(struct origin *origin, const char *path,
		 const struct options *options)
{
	target_open(&origin->direct, path, TARGET_WRITE);
	target_open(&origin->cached, path, TARGET_WRITE | TARGET_BUFFERED);
	if (!mode_includes(options, MODE_MMAP))
		return;
	origin->map = mmap(NULL, origin->cached.size, PROT_READ | PROT_WRITE,
			   MAP_SHARED, origin->cached.fd, 0);
	if (origin->map == MAP_FAILED)
		die(EXIT_IO, "%s: mmap: %s", path, strerror(errno));
	/*
	 * Nothing is read around a page that is touched: of what others write
	 * directly at this moment the cache would keep the old content, since the
	 * end of an asynchronous direct write to a block device invalidates
	 * nothing; and a later cached write to that page would bring it back.
	 */
	if (madvise(origin->map, origin->cached.size, MADV_RANDOM))
		die(EXIT_IO, "%s: madvise: %s", path, strerror(errno));
}

void origin_close(struct origin *origin)
{
	if (origin->map)
		munmap(origin->map, origin->cached.size);
	close(origin->cached.fd);
	close(origin->direct.fd);
}

/* @got is what the kernel said to a write with flags: what it left is written without. */
static int write_rest(struct origin *origin, ssize_t got, const void *buffer,
		      size_t size, uint64_t offset)
{
	if (got == -EAGAIN)
		atomic_fetch_add(&origin->nowait_again, 1);
	else if (got == -EOPNOTSUPP)
		atomic_fetch_add(&origin->nowait_unsupported, 1);
	else if (got < 0 && got != -EINTR)
		return (int)got;
	if (got < 0)
		got = 0;
	return io_write(origin->direct.fd, (const char *)buffer + got,
			size - (size_t)got, offset + (uint64_t)got);
}

static int write_flagged(struct origin *origin, int flags, const void *buffer,
			 size_t size, uint64_t offset)
{
	struct iovec vector = { (void *)buffer, size };
	ssize_t got = pwritev2(origin->direct.fd, &vector, 1, (off_t)offset,
			       flags);

	return write_rest(origin, got < 0 ? -errno : got, buffer, size, offset);
}

/* Half of them the kernel itself first tries without waiting, and then has a thread do. */
static int write_uring(struct origin *origin, struct pen *pen,
		       const void *buffer, size_t size, uint64_t offset)
{
	int flags = rng_below(&pen->rng, 2) ? RWF_NOWAIT : 0;

	if (!pen->ring)
		pen->ring = ring_open(false);
	return write_rest(origin,
			  ring_write(pen->ring, origin->direct.fd, flags,
				     buffer, size, offset),
			  buffer, size, offset);
}

static int write_polled(struct origin *origin, struct pen *pen,
			const void *buffer, size_t size, uint64_t offset)
{
	if (!pen->polled)
		pen->polled = ring_open(true);
	return write_rest(origin,
			  ring_write(pen->polled, origin->direct.fd, 0, buffer,
				     size, offset),
			  buffer, size, offset);
}

static int write_buffered(struct origin *origin, struct rng *rng,
			  const void *buffer, size_t size, uint64_t offset)
{
	int error = io_write(origin->cached.fd, buffer, size, offset);

	if (error || rng_below(rng, 2))
		return error;
	if (sync_file_range(origin->cached.fd, (off_t)offset, (off_t)size,
			    SYNC_FILE_RANGE_WAIT_BEFORE |
				    SYNC_FILE_RANGE_WRITE |
				    SYNC_FILE_RANGE_WAIT_AFTER))
		return -errno;
	return 0;
}

static int write_mmap(struct origin *origin, struct rng *rng,
		      const void *buffer, size_t size, uint64_t offset)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t start = offset / page * page;

	memcpy(origin->map + offset, buffer, size);
	if (rng_below(rng, 2))
		return 0;
	return msync(origin->map + start, offset + size - start, MS_SYNC) ?
		       -errno :
		       0;
}

int origin_write(struct origin *origin, enum write_mode mode, struct pen *pen,
		 const void *buffer, size_t size, uint64_t offset)
{
	atomic_fetch_add(&origin->by_mode[mode], 1);
	switch (mode) {
	case MODE_NOWAIT:
		return write_flagged(origin, RWF_NOWAIT, buffer, size, offset);
	case MODE_HIPRI:
		return write_flagged(origin, RWF_HIPRI, buffer, size, offset);
	case MODE_BUFFERED:
		return write_buffered(origin, &pen->rng, buffer, size, offset);
	case MODE_MMAP:
		return write_mmap(origin, &pen->rng, buffer, size, offset);
	case MODE_URING:
		return write_uring(origin, pen, buffer, size, offset);
	case MODE_POLLED:
		return write_polled(origin, pen, buffer, size, offset);
	default:
		return io_write(origin->direct.fd, buffer, size, offset);
	}
}

int origin_sync(struct origin *origin)
{
	if (origin->map && msync(origin->map, origin->cached.size, MS_SYNC))
		return -errno;
	return fsync(origin->cached.fd) ? -errno : 0;
}

/* ---- claims ---- */

void claims_init(struct claims *claims, unsigned int count,
		 const struct region *region)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	pthread_mutex_init(&claims->lock, NULL);
	pthread_cond_init(&claims->released, NULL);
	claims->count = count;
	claims->page_blocks = page > region->block ? page / region->block : 1;
	claims->page_shift =
		region->offset / region->block % claims->page_blocks;
	claims->slots = xcalloc(count, sizeof(*claims->slots));
}

static bool ranges_meet(const struct claims *claims, const struct range *a,
			const struct range *b, bool by_page)
{
	uint64_t unit = by_page ? claims->page_blocks : 1;
	uint64_t shift = by_page ? claims->page_shift : 0;
	uint64_t a_first = (a->first + shift) / unit;
	uint64_t a_last = (a->first + a->blocks - 1 + shift) / unit;
	uint64_t b_first = (b->first + shift) / unit;
	uint64_t b_last = (b->first + b->blocks - 1 + shift) / unit;

	return a_first <= b_last && b_first <= a_last;
}

bool claims_try(struct claims *claims, unsigned int writer,
		const struct range *range, bool cached)
{
	struct slot *own = &claims->slots[writer];
	bool free = true;

	pthread_mutex_lock(&claims->lock);
	for (unsigned int i = 0; i < claims->count && free; i++) {
		const struct slot *slot = &claims->slots[i];

		free = !slot->busy || !ranges_meet(claims, &slot->range, range,
						   slot->cached != cached);
	}
	if (free) {
		own->range = *range;
		own->cached = cached;
		own->busy = true;
	}
	pthread_mutex_unlock(&claims->lock);
	return free;
}

void claims_release(struct claims *claims, unsigned int writer)
{
	pthread_mutex_lock(&claims->lock);
	claims->slots[writer].busy = false;
	pthread_cond_broadcast(&claims->released);
	pthread_mutex_unlock(&claims->lock);
}

void claims_wait(struct claims *claims)
{
	bool any = false;

	pthread_mutex_lock(&claims->lock);
	for (unsigned int i = 0; i < claims->count; i++)
		any |= claims->slots[i].busy;
	if (any)
		pthread_cond_wait(&claims->released, &claims->lock);
	pthread_mutex_unlock(&claims->lock);
}

void slot_publish(struct slot *slot)
{
	atomic_store(&slot->first, slot->range.first);
	atomic_store(&slot->blocks, slot->range.blocks);
	atomic_fetch_add(&slot->generation, 1);
}

void slot_land(struct slot *slot)
{
	atomic_fetch_add(&slot->generation, 1);
}

/*
 * Between landing and the next publication the place changes under an even
 * generation; a reader then reads a place that was or will be written, which
 * is just as good.
 */
uint64_t slot_peek(struct slot *slot, struct range *range)
{
	uint64_t generation = atomic_load(&slot->generation);

	range->first = atomic_load(&slot->first);
	range->blocks = atomic_load(&slot->blocks);
	if (atomic_load(&slot->generation) != generation)
		generation &= ~1ULL;
	return generation;
}
