// SPDX-License-Identifier: GPL-2.0
/*
 * io_uring by its bare system calls, one request at a time: what storm wants of
 * it is the bios that nothing else submits, those that must not wait and those
 * whose submitter polls for their end.
 */
#define _GNU_SOURCE
#include "stamp-storm.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ring {
	int fd;
	unsigned int *tail, *array;	/* of the submissions */
	struct io_uring_sqe *requests;
	unsigned int *done_head, *done_tail, *done_mask;
	const struct io_uring_cqe *done;
};

static void *ring_map(const struct ring *ring, size_t size, off_t what)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_POPULATE, ring->fd, what);

	if (memory == MAP_FAILED)
		die(EXIT_IO, "io_uring: mmap: %s", strerror(errno));
	return memory;
}

struct ring *ring_open(bool polled)
{
	struct io_uring_params params = {
		.flags = polled ? IORING_SETUP_IOPOLL : 0,
	};
	struct ring *ring = xcalloc(1, sizeof(*ring));
	char *sq, *cq;

	ring->fd = (int)syscall(SYS_io_uring_setup, 1, &params);
	if (ring->fd < 0)
		die(EXIT_IO, "io_uring: %s", strerror(errno));
	sq = ring_map(ring, params.sq_off.array + sizeof(unsigned int),
		      IORING_OFF_SQ_RING);
	cq = ring_map(ring,
		      params.cq_off.cqes +
			      params.cq_entries * sizeof(*ring->done),
		      IORING_OFF_CQ_RING);
	ring->requests = ring_map(ring, sizeof(*ring->requests),
				  IORING_OFF_SQES);
	ring->tail = (unsigned int *)(sq + params.sq_off.tail);
	ring->array = (unsigned int *)(sq + params.sq_off.array);
	ring->done_head = (unsigned int *)(cq + params.cq_off.head);
	ring->done_tail = (unsigned int *)(cq + params.cq_off.tail);
	ring->done_mask = (unsigned int *)(cq + params.cq_off.ring_mask);
	ring->done = (struct io_uring_cqe *)(cq + params.cq_off.cqes);
	return ring;
}

/* The one request's end. The kernel writes the tail, we the head. */
static bool ring_done(struct ring *ring, ssize_t *result)
{
	unsigned int head = *ring->done_head;

	if (__atomic_load_n(ring->done_tail, __ATOMIC_ACQUIRE) == head)
		return false;
	*result = ring->done[head & *ring->done_mask].res;
	__atomic_store_n(ring->done_head, head + 1, __ATOMIC_RELEASE);
	return true;
}

ssize_t ring_write(struct ring *ring, int fd, int flags, const void *buffer,
		   size_t size, uint64_t offset)
{
	unsigned int submit = 1;
	ssize_t result;

	ring->requests[0] = (struct io_uring_sqe){
		.opcode = IORING_OP_WRITE,
		.fd = fd,
		.off = offset,
		.addr = (uintptr_t)buffer,
		.len = (unsigned int)size,
		.rw_flags = flags,
	};
	ring->array[0] = 0;
	__atomic_store_n(ring->tail, *ring->tail + 1, __ATOMIC_RELEASE);
	/* On a ring that polls, this is where it does. */
	do {
		long got = syscall(SYS_io_uring_enter, ring->fd, submit, 1,
				   IORING_ENTER_GETEVENTS, NULL, 0);

		if (got > 0)
			submit = 0;
		else if (got < 0 && errno != EINTR && errno != EAGAIN &&
			 errno != EBUSY)
			die(EXIT_IO, "io_uring: %s", strerror(errno));
	} while (!ring_done(ring, &result));
	return result;
}
