// SPDX-License-Identifier: GPL-2.0
/*
 * order, order-check: do several images show one instant?
 *
 * One writer goes over several devices; each write carries the next ordinal
 * and begins only when the one before has completed, so each depends on all
 * before it. A consistent set of images holds exactly the ordinals 1..M for
 * some M. Ordinal k goes to device k % n, place k / n of a ring; places are
 * scattered over the device by a multiplication modulo the ring, and are
 * overwritten lap by lap. So for each M and each place there is one ordinal
 * that must be there, and anything else is a hole in history.
 */
#define _GNU_SOURCE
#include "stamp.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ring {
	uint64_t devices;
	uint64_t places;	/* on each device */
	uint64_t factor;	/* scatters them; has no divisor in common with places */
	struct target *targets;
	struct region *regions;	/* the same on each, but for their offsets */
};

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
	while (b) {
		uint64_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

static void ring_open(struct ring *ring, const struct options *options,
		      char **paths, int count, int flags)
{
	ring->devices = (uint64_t)count;
	ring->targets = xcalloc(ring->devices, sizeof(*ring->targets));
	ring->regions = xcalloc(ring->devices, sizeof(*ring->regions));
	ring->places = UINT64_MAX;
	for (uint64_t i = 0; i < ring->devices; i++) {
		struct options shifted = *options;

		shifted.offset += options->shifts[i];
		target_open(&ring->targets[i], paths[i], flags);
		region_init(&ring->regions[i], &ring->targets[i], &shifted);
		ring->regions[i].first_number -=
			options->shifts[i] / options->block;
		if (ring->regions[i].blocks < ring->places)
			ring->places = ring->regions[i].blocks;
	}
	for (uint64_t i = 0; i < ring->devices; i++)
		ring->regions[i].blocks = ring->places;
	ring->factor = ring->places * 5 / 8 | 1;
	while (common_divisor(ring->places, ring->factor) != 1)
		ring->factor++;
}

static uint64_t place_to_block(const struct ring *ring, uint64_t place)
{
	return (uint64_t)((unsigned __int128)place * ring->factor %
			  ring->places);
}

/* The ordinal that @place of @device holds when 1..@last have been written; 0: none. */
static uint64_t ordinal_due(const struct ring *ring, uint64_t device,
			    uint64_t place, uint64_t last)
{
	uint64_t lap = ring->devices * ring->places;
	uint64_t first = place * ring->devices + device;

	if (!first)
		first = lap; /* ordinals begin at 1 */
	if (last < first)
		return 0;
	return first + (last - first) / lap * lap;
}

/* ---- order ---- */

static int open_log(const char *path)
{
	int fd = -1;

	if (path) {
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (fd < 0)
			die(EXIT_IO, "%s: %s", path, strerror(errno));
	}
	return fd;
}

/* Of fixed width: a reader that comes in between sees one or the other number. */
static void write_log(int fd, uint64_t ordinal)
{
	char line[24];
	int size;

	if (fd < 0)
		return;
	size = snprintf(line, sizeof(line), "%020" PRIu64 "\n", ordinal);
	if (pwrite(fd, line, (size_t)size, 0) != size)
		die(EXIT_IO, "cannot write the log");
}

static void write_ordinal(const struct ring *ring, uint64_t seed,
			  uint64_t ordinal, void *buffer)
{
	const struct target *target = &ring->targets[ordinal % ring->devices];
	const struct region *region = &ring->regions[ordinal % ring->devices];
	uint32_t size = region->block;
	uint64_t block = place_to_block(ring, ordinal / ring->devices %
						      ring->places);
	struct stamp stamp = {
		.seed = seed,
		.number = region->first_number + block,
		.seq = ordinal,
		.time = now_ns(),
	};
	int error;

	stamp_encode(buffer, size, &stamp);
	error = io_write(target->fd, buffer, size,
			 region->offset + block * size);
	if (error)
		die(EXIT_IO, "%s: write of ordinal %" PRIu64 ": %s",
		    target->path, ordinal, strerror(-error));
}

int command_order(const struct options *options, char **paths, int count)
{
	uint64_t ordinal = options->start - 1;
	uint64_t deadline = 0;
	struct ring ring;
	void *buffer;
	int log;

	ring_open(&ring, options, paths, count,
		  TARGET_WRITE | (options->buffered ? TARGET_BUFFERED : 0) |
			  (options->sync ? TARGET_DSYNC : 0));
	log = open_log(options->log);
	buffer = io_buffer(options->block);
	if (options->seconds)
		deadline = monotonic_ns() + options->seconds * 1000000000;
	stop_on_signals();
	write_log(log, ordinal);
	for (uint64_t i = 0; i < options->count; i++) {
		if (atomic_load(&stop_requested) ||
		    (deadline && monotonic_ns() >= deadline))
			break;
		write_ordinal(&ring, options->seed, ++ordinal, buffer);
		write_log(log, ordinal);
	}
	free(buffer);
	printf("first_ordinal=%" PRIu64 "\nlast_ordinal=%" PRIu64
	       "\nlaps=%" PRIu64 "\n",
	       options->start, ordinal,
	       ordinal / (ring.devices * ring.places));
	return EXIT_OK;
}

/* ---- order-check ---- */

struct order_scan {
	struct report report;
	const struct region *region;
	uint64_t seed;
	uint64_t *ordinals;	/* by block; 0: none of this seed */
	uint64_t newest;
};

/* Foreign and empty blocks have not been written yet; a torn one is wrong at once. */
static void order_block(void *context, uint64_t index, const void *block)
{
	struct order_scan *scan = context;
	size_t size = scan->region->block;
	struct expect expect = {
		.seed = scan->seed,
		.number = scan->region->first_number + index,
		.seq_max = UINT64_MAX,
	};
	struct stamp found;
	size_t torn_at;

	switch (stamp_decode(block, size, &found, &torn_at)) {
	case STAMP_TORN:
		report_mismatch(&scan->report, VERDICT_TORN, size, &expect,
				&found, torn_at);
		return;
	case STAMP_VALID:
		if (found.seed != scan->seed)
			return;
		break;
	default:
		return;
	}
	if (found.number != expect.number)
		report_mismatch(&scan->report, VERDICT_OTHER_NUMBER, size,
				&expect, &found, 0);
	scan->ordinals[index] = found.seq;
	if (found.seq > scan->newest)
		scan->newest = found.seq;
}

static void check_history(struct order_scan *scan, const struct ring *ring,
			  uint64_t device, uint64_t last)
{
	for (uint64_t place = 0; place < ring->places; place++) {
		uint64_t due = ordinal_due(ring, device, place, last);
		uint64_t block = place_to_block(ring, place);
		uint64_t found = scan->ordinals[block];

		if (found == due)
			continue;
		if (atomic_fetch_add(&scan->report.mismatches, 1) < 10)
			fprintf(stderr,
				"%s: block %" PRIu64
				": the images hold ordinal %" PRIu64
				", so %" PRIu64
				" is due here, but found: %" PRIu64 "\n",
				scan->report.path,
				scan->region->first_number + block, last, due,
				found);
	}
}

static bool check_bounds(const struct options *options, uint64_t last)
{
	if (last < options->min_ordinal) {
		fprintf(stderr,
			"the images end at ordinal %" PRIu64
			", but %" PRIu64 " had completed before the take\n",
			last, options->min_ordinal);
		return false;
	}
	if (last > options->max_ordinal) {
		fprintf(stderr,
			"the images end at ordinal %" PRIu64
			", but at most %" PRIu64 " can have been begun\n",
			last, options->max_ordinal);
		return false;
	}
	return true;
}

int command_order_check(const struct options *options, char **paths, int count)
{
	struct order_scan *scans;
	uint64_t last = 0, mismatches = 0, io_errors = 0;
	struct ring ring;
	bool in_bounds;

	ring_open(&ring, options, paths, count,
		  options->buffered ? TARGET_BUFFERED : 0);
	scans = xcalloc(ring.devices, sizeof(*scans));
	for (uint64_t i = 0; i < ring.devices; i++) {
		scans[i].report.path = paths[i];
		scans[i].region = &ring.regions[i];
		scans[i].seed = options->seed;
		scans[i].ordinals = xcalloc(ring.places, sizeof(uint64_t));
		region_scan(&ring.targets[i], &ring.regions[i],
			    &scans[i].report, order_block, &scans[i]);
		if (scans[i].newest > last)
			last = scans[i].newest;
	}
	for (uint64_t i = 0; i < ring.devices; i++) {
		check_history(&scans[i], &ring, i, last);
		report_summary(&scans[i].report);
		mismatches += scans[i].report.mismatches;
		io_errors += scans[i].report.io_errors;
	}
	in_bounds = check_bounds(options, last);
	printf("last_ordinal=%" PRIu64 "\nmismatches=%" PRIu64
	       "\nio_errors=%" PRIu64 "\n",
	       last, mismatches, io_errors);
	if (mismatches || !in_bounds)
		return EXIT_MISMATCH;
	return io_errors ? EXIT_IO : EXIT_OK;
}
