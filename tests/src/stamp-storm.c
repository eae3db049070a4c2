// SPDX-License-Identifier: GPL-2.0
/*
 * storm: writers overwrite an origin while readers read its image at the very
 * places that are being written, before, in and after the flight of the write.
 *
 * Both directions are judged. The image must show the state as it was taken,
 * always; the origin must in the end hold, block by block, what the last
 * completed writer of that block wrote. Writers own disjoint ranges, so that
 * the newest stamp of a block is well defined; the table of sequences belongs,
 * block by block, to whoever holds the claim on it.
 */
#define _GNU_SOURCE
#include "stamp-storm.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNKNOWN UINT64_MAX /* a write to this block failed */
#define TRIES 8
#define NEIGHBOUR_BYTES (64 * 1024)
#define GRANULE 4096

struct counters {
	_Atomic uint64_t writes;
	_Atomic uint64_t bytes;
	_Atomic uint64_t hot;
	_Atomic uint64_t image_reads;
	_Atomic uint64_t image_bytes;
	_Atomic uint64_t reads_begun_in_flight;
	_Atomic uint64_t reads_wholly_in_flight;
	_Atomic uint64_t image_errors;
};

struct storm {
	const struct options *options;
	struct origin origin;
	struct target image;
	bool have_image;
	struct region region;
	struct region seen;	/* the part of it that the image has, in the image */
	uint64_t seen_first;	/* its first block in the region */
	struct claims claims;
	struct report origin_report;
	struct report image_report;
	struct counters counters;
	const uint64_t *taken;	/* per block, or NULL: taken_seq everywhere */
	uint64_t *written;	/* per block: sequence of the last write */
	uint64_t taken_seq;	/* the newest that was taken */
	uint64_t deadline;	/* monotonic; 0: none */
	uint64_t hot_period;	/* writes until the hot window moves */
	uint64_t last_seq;	/* the newest that the origin holds in the end */
	_Atomic uint64_t next;	/* write number, from 0 */
	atomic_bool writers_done;
	/* in blocks */
	uint64_t align, min_size, max_size, hot_size;
};

struct worker {
	struct storm *storm;
	pthread_t thread;
	unsigned int index;
	struct pen pen;
	char *buffer;
};

static uint64_t taken_of(const struct storm *storm, uint64_t block)
{
	return storm->taken ? storm->taken[block] : storm->taken_seq;
}

/* ---- where to write ---- */

/* Sizes are spread evenly over the powers of two, so that small ones are not rare. */
static uint64_t pick_size(const struct storm *storm, struct rng *rng)
{
	uint64_t steps = 0, size;

	while (storm->min_size << (steps + 1) <= storm->max_size)
		steps++;
	size = storm->min_size << rng_below(rng, steps + 1);
	size += rng_below(rng, size / storm->align) * storm->align;
	return size < storm->max_size ? size : storm->max_size;
}

static void place_within(const struct storm *storm, struct rng *rng,
			 uint64_t from, uint64_t blocks, struct range *range)
{
	uint64_t room;

	if (range->blocks > blocks)
		range->blocks = blocks / storm->align * storm->align;
	room = (blocks - range->blocks) / storm->align;
	range->first = from + rng_below(rng, room + 1) * storm->align;
}

/*
 * The window stays for about as many writes as fill it and then moves on: only
 * the first writes to a granule make the driver work, and joins need several
 * of them at the same moment.
 */
static void place_hot(const struct storm *storm, struct rng *rng,
		      uint64_t number, struct range *range)
{
	struct rng window = { storm->options->seed ^
			      (number / storm->hot_period) << 20 };
	uint64_t unit = GRANULE / storm->region.block;
	uint64_t room = storm->region.blocks - storm->hot_size;
	uint64_t from;

	if (unit < storm->align)
		unit = storm->align;
	from = rng_below(&window, room / unit + 1) * unit;
	place_within(storm, rng, from, storm->hot_size, range);
}

static void place_anywhere(const struct storm *storm, struct rng *rng,
			   struct range *range)
{
	uint64_t all = storm->region.blocks / storm->align * storm->align;

	place_within(storm, rng, 0, all, range);
	switch (rng_below(rng, 32)) {
	case 0:
		range->first = 0;
		break;
	case 1:
		range->first = all - range->blocks;
		break;
	}
}

static void claim_range(struct worker *worker, uint64_t number, bool cached,
			struct range *range)
{
	struct storm *storm = worker->storm;
	struct rng *rng = &worker->pen.rng;
	bool hot = storm->hot_size &&
		   (double)rng_below(rng, 1 << 20) <
			   storm->options->hot_fraction * (1 << 20);
	uint64_t size = pick_size(storm, rng);

	for (unsigned int tries = 0;; tries++) {
		range->blocks = size;
		if (hot && tries < TRIES)
			place_hot(storm, rng, number, range);
		else
			place_anywhere(storm, rng, range);
		if (claims_try(&storm->claims, worker->index, range, cached))
			break;
		if (tries > 2 * TRIES)
			claims_wait(&storm->claims);
	}
	if (hot)
		atomic_fetch_add(&storm->counters.hot, 1);
}

/* ---- writers ---- */

static bool may_write(const struct storm *storm, uint64_t number)
{
	if (atomic_load(&stop_requested) || number >= storm->options->count)
		return false;
	return !storm->deadline || monotonic_ns() < storm->deadline;
}

static void encode_range(struct worker *worker, const struct range *range,
			 uint64_t seq)
{
	const struct region *region = &worker->storm->region;
	struct stamp stamp = {
		.seed = worker->storm->options->seed,
		.seq = seq,
		.time = now_ns(),
		.writer = worker->index,
	};

	for (uint64_t i = 0; i < range->blocks; i++) {
		stamp.number = region->first_number + range->first + i;
		stamp_encode(worker->buffer + i * region->block, region->block,
			     &stamp);
	}
}

static void write_one(struct worker *worker, uint64_t number)
{
	struct storm *storm = worker->storm;
	struct slot *slot = &storm->claims.slots[worker->index];
	uint32_t block = storm->region.block;
	uint64_t seq = storm->taken_seq + 1 + number;
	enum write_mode mode = mode_pick(storm->options->mode, &worker->pen.rng);
	struct range range;
	int error;

	claim_range(worker, number, mode_is_cached(mode), &range);
	encode_range(worker, &range, seq);
	slot_publish(slot);
	if (!rng_below(&worker->pen.rng, 4))
		sched_yield(); /* readers that come before the write */
	error = origin_write(&storm->origin, mode, &worker->pen, worker->buffer,
			     range.blocks * block,
			     storm->region.offset + range.first * block);
	slot_land(slot);
	for (uint64_t i = 0; i < range.blocks; i++)
		storm->written[range.first + i] = error ? UNKNOWN : seq;
	claims_release(&storm->claims, worker->index);
	atomic_fetch_add(&storm->counters.writes, 1);
	atomic_fetch_add(&storm->counters.bytes, range.blocks * block);
	if (error && atomic_fetch_add(&storm->origin_report.io_errors, 1) < 10)
		fprintf(stderr, "%s: block %" PRIu64 ": write: %s\n",
			storm->origin.direct.path,
			storm->region.first_number + range.first,
			strerror(-error));
}

static void *writer_main(void *argument)
{
	struct worker *worker = argument;
	uint64_t number;

	for (;;) {
		number = atomic_fetch_add(&worker->storm->next, 1);
		if (!may_write(worker->storm, number))
			return NULL;
		write_one(worker, number);
	}
}

/* ---- readers ---- */

static void image_check(struct storm *storm, uint64_t index, const void *block)
{
	struct expect expect = {
		.seed = storm->options->seed,
		.number = storm->region.first_number + index,
		.seq_min = taken_of(storm, index),
		.seq_max = taken_of(storm, index),
	};

	report_check(&storm->image_report, block, storm->region.block, &expect,
		     NULL);
}

/* A range at, in, across an end of, or next to the one that is being written. */
static void pick_read(const struct storm *storm, struct rng *rng,
		      struct range *range)
{
	uint64_t near = NEIGHBOUR_BYTES / storm->region.block;
	uint64_t end = range->first + range->blocks;
	uint64_t before = rng_below(rng, near) + 1;
	uint64_t inside = rng_below(rng, range->blocks) + 1;

	before = before < range->first ? before : range->first;
	switch (rng_below(rng, 6)) {
	case 0: /* a part of it */
		range->first += rng_below(rng, range->blocks);
		range->blocks = 1 + rng_below(rng, end - range->first);
		break;
	case 1: /* across its start */
		range->first -= before;
		range->blocks = before + inside;
		break;
	case 2: /* across its end */
		range->first = end - inside;
		range->blocks = inside + rng_below(rng, near) + 1;
		break;
	case 3: /* just before or just behind */
		range->first = rng_below(rng, 2) && before ?
				       range->first - before :
				       end;
		range->blocks = before ? before : 1;
		break;
	case 4: /* around it */
		range->first -= before;
		range->blocks = end - range->first + rng_below(rng, near);
		break;
	default: /* exactly it */
		break;
	}
}

/* To whole logical blocks of the image, and into what it has of the region. */
static bool fit_read(const struct storm *storm, struct range *range)
{
	uint64_t unit = storm->image.direct ?
				storm->image.align / storm->region.block :
				1;
	uint64_t end = range->first + range->blocks;
	uint64_t last = storm->seen_first + storm->seen.blocks;

	if (unit > 1) {
		range->first -= range->first % unit;
		end = (end + unit - 1) / unit * unit;
	}
	if (range->first < storm->seen_first)
		range->first = storm->seen_first;
	if (end > last)
		end = last;
	if (range->first >= end)
		return false;
	range->blocks = end - range->first;
	return true;
}

static bool image_has(const struct storm *storm, const struct range *range)
{
	return range->blocks &&
	       range->first < storm->seen_first + storm->seen.blocks &&
	       storm->seen_first < range->first + range->blocks;
}

/* Returns false if the place that it picked is outside. */
static bool read_one(struct worker *worker)
{
	struct storm *storm = worker->storm;
	struct slot *slot = &storm->claims.slots[rng_below(
		&worker->pen.rng, storm->claims.count)];
	uint32_t block = storm->region.block;
	struct range range;
	uint64_t generation = slot_peek(slot, &range);
	int error;

	if (!image_has(storm, &range)) {
		range.first = storm->seen_first +
			      rng_below(&worker->pen.rng, storm->seen.blocks);
		range.blocks = 1;
		generation = 0;
	}
	pick_read(storm, &worker->pen.rng, &range);
	if (!fit_read(storm, &range))
		return false;
	error = io_read(storm->image.fd, worker->buffer, range.blocks * block,
			storm->seen.offset +
				(range.first - storm->seen_first) * block);
	if (generation & 1) {
		atomic_fetch_add(&storm->counters.reads_begun_in_flight, 1);
		if (atomic_load(&slot->generation) == generation)
			atomic_fetch_add(
				&storm->counters.reads_wholly_in_flight, 1);
	}
	if (error) {
		if (atomic_fetch_add(&storm->counters.image_errors, 1) < 3)
			fprintf(stderr, "%s: block %" PRIu64 ": read: %s\n",
				storm->image.path,
				storm->region.first_number + range.first,
				strerror(-error));
		return true;
	}
	atomic_fetch_add(&storm->counters.image_reads, 1);
	atomic_fetch_add(&storm->counters.image_bytes, range.blocks * block);
	for (uint64_t i = 0; i < range.blocks; i++)
		image_check(storm, range.first + i, worker->buffer + i * block);
	return true;
}

static void *reader_main(void *argument)
{
	struct worker *worker = argument;
	bool any = false;

	while (!any || !atomic_load(&worker->storm->writers_done))
		any |= read_one(worker);
	return NULL;
}

/* ---- the end: both directions ---- */

static void final_image_block(void *context, uint64_t index, const void *block)
{
	struct storm *storm = context;

	image_check(storm, storm->seen_first + index, block);
}

static void final_origin_block(void *context, uint64_t index, const void *block)
{
	struct storm *storm = context;
	uint64_t seq = storm->written[index];
	struct expect expect = {
		.seed = storm->options->seed,
		.number = storm->region.first_number + index,
		.seq_min = seq == UNKNOWN ? 0 : seq,
		.seq_max = seq == UNKNOWN ? UINT64_MAX : seq,
	};

	if (seq != UNKNOWN && seq > storm->last_seq)
		storm->last_seq = seq;
	report_check(&storm->origin_report, block, storm->region.block, &expect,
		     NULL);
}

static int finish(struct storm *storm)
{
	const struct options *options = storm->options;
	int image_exit = EXIT_OK;
	int error = origin_sync(&storm->origin);

	if (error) {
		fprintf(stderr, "%s: fsync: %s\n", storm->origin.direct.path,
			strerror(-error));
		storm->origin_report.io_errors++;
	}
	if (storm->have_image) {
		region_scan(&storm->image, &storm->seen, &storm->image_report,
			    final_image_block, storm);
		storm->counters.image_errors += storm->image_report.io_errors;
		storm->image_report.io_errors =
			options->image_may_fail ? 0 :
						  storm->counters.image_errors;
		report_summary(&storm->image_report);
		image_exit = report_exit(&storm->image_report);
	}
	region_scan(&storm->origin.direct, &storm->region,
		    &storm->origin_report, final_origin_block, storm);
	report_summary(&storm->origin_report);
	if (options->save_table)
		table_save(options->save_table, &storm->region, storm->written);
	if (image_exit == EXIT_MISMATCH)
		return image_exit;
	return report_exit(&storm->origin_report) ?
		       report_exit(&storm->origin_report) :
		       image_exit;
}

static void print_counters(const struct storm *storm)
{
	const struct counters *counters = &storm->counters;
	static const char *const modes[MODE_COUNT] = { "direct", "nowait",
						       "hipri", "buffered",
						       "mmap", "uring",
						       "polled" };

	printf("writes=%" PRIu64 "\nbytes=%" PRIu64 "\nhot_writes=%" PRIu64
	       "\n",
	       counters->writes, counters->bytes, counters->hot);
	for (int i = 0; i < MODE_COUNT; i++)
		printf("writes_%s=%" PRIu64 "\n", modes[i],
		       storm->origin.by_mode[i]);
	printf("nowait_again=%" PRIu64 "\nnowait_unsupported=%" PRIu64 "\n",
	       storm->origin.nowait_again, storm->origin.nowait_unsupported);
	printf("image_reads=%" PRIu64 "\nimage_bytes=%" PRIu64
	       "\nreads_begun_in_flight=%" PRIu64
	       "\nreads_wholly_in_flight=%" PRIu64 "\nimage_errors=%" PRIu64
	       "\n",
	       counters->image_reads, counters->image_bytes,
	       counters->reads_begun_in_flight,
	       counters->reads_wholly_in_flight, counters->image_errors);
	printf("image_mismatches=%" PRIu64 "\norigin_mismatches=%" PRIu64
	       "\norigin_errors=%" PRIu64 "\nlast_seq=%" PRIu64 "\n",
	       storm->image_report.mismatches, storm->origin_report.mismatches,
	       storm->origin_report.io_errors,
	       storm->last_seq);
}

/* ---- set-up ---- */

/*
 * What the image has of the region, by the numbers of the blocks: all of it,
 * unless the image is of a part of the origin, or of more than that.
 */
static void storm_see(struct storm *storm)
{
	const struct options *options = storm->options;
	uint64_t base = options->have_image_base ? options->image_base :
						   options->number_base;
	const struct region *region = &storm->region;
	struct region *seen = &storm->seen;
	uint64_t end = region->first_number + region->blocks;
	uint64_t image_first = base / region->block;
	uint64_t image_end = image_first + storm->image.size / region->block;

	if (!options->have_image_base &&
	    storm->image.size != storm->origin.direct.size)
		die(EXIT_MISMATCH,
		    "%s has %" PRIu64 " bytes, but %s has %" PRIu64,
		    storm->image.path, storm->image.size,
		    storm->origin.direct.path, storm->origin.direct.size);
	*seen = *region;
	if (seen->first_number < image_first)
		seen->first_number = image_first;
	if (end > image_end)
		end = image_end;
	if (base % region->block || seen->first_number >= end)
		die(EXIT_USAGE, "%s: nothing of the range is in it",
		    storm->image.path);
	seen->blocks = end - seen->first_number;
	seen->offset = (seen->first_number - image_first) * region->block;
	storm->seen_first = seen->first_number - region->first_number;
}

static void storm_open(struct storm *storm, char **paths)
{
	const struct options *options = storm->options;

	origin_open(&storm->origin, paths[0], options);
	region_init(&storm->region, &storm->origin.direct, options);
	storm->origin_report.path = paths[0];
	storm->have_image = strcmp(paths[1], "-") != 0;
	if (!storm->have_image)
		return;
	target_open(&storm->image, paths[1], 0);
	storm->image_report.path = paths[1];
	storm->image_report.coarse = options->image_may_fail;
	storm_see(storm);
}

static void storm_sizes(struct storm *storm)
{
	const struct options *options = storm->options;
	uint64_t block = storm->region.block;
	uint64_t align = options->align ? options->align : block;
	uint64_t min_size = options->min_size ? options->min_size : align;
	uint64_t max_size = options->max_size;

	if (!max_size)
		max_size = min_size > 65536 ? min_size : 65536;
	if (align < storm->origin.direct.align && storm->origin.direct.direct)
		die(EXIT_USAGE, "--align must be at least %u here",
		    storm->origin.direct.align);
	if (align % block || min_size % align || max_size % align ||
	    options->hot_size % align || min_size > max_size)
		die(EXIT_USAGE,
		    "sizes must be multiples of --align, which is one of --block, and min <= max");
	storm->align = align / block;
	storm->min_size = min_size / block;
	storm->max_size = max_size / block;
	storm->hot_size = options->hot_size / block;
	if (storm->max_size > storm->region.blocks ||
	    storm->hot_size > storm->region.blocks)
		die(EXIT_USAGE,
		    "the range is smaller than --max-size or --hot");
	storm->hot_period = storm->hot_size / storm->min_size;
	if (storm->hot_period < options->writers)
		storm->hot_period = options->writers;
}

static void storm_tables(struct storm *storm)
{
	const struct options *options = storm->options;

	storm->taken_seq = options->taken_seq;
	storm->written = xcalloc(storm->region.blocks, sizeof(uint64_t));
	if (options->table)
		storm->taken = table_load(options->table, &storm->region);
	for (uint64_t i = 0; i < storm->region.blocks; i++) {
		storm->written[i] = taken_of(storm, i);
		if (storm->taken && storm->taken[i] > storm->taken_seq)
			storm->taken_seq = storm->taken[i];
	}
}

static struct worker *start(struct storm *storm, unsigned int count,
			    uint64_t buffer_size, void *(*main)(void *))
{
	struct worker *workers = xcalloc(count, sizeof(*workers));

	for (unsigned int i = 0; i < count; i++) {
		workers[i].storm = storm;
		workers[i].index = i;
		workers[i].pen.rng.state = storm->options->seed * 1000003 + i +
				       (main == reader_main ? 500000 : 0);
		workers[i].buffer = io_buffer(buffer_size);
		if (pthread_create(&workers[i].thread, NULL, main, &workers[i]))
			die(EXIT_IO, "cannot start a thread");
	}
	return workers;
}

static void join(struct worker *workers, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		pthread_join(workers[i].thread, NULL);
		free(workers[i].buffer);
	}
	free(workers);
}

int command_storm(const struct options *options, char **paths, int count)
{
	static struct storm storm;
	struct worker *writers, *readers;
	unsigned int reader_count;
	uint64_t max_bytes;
	int result;

	(void)count;
	storm.options = options;
	storm_open(&storm, paths);
	storm_sizes(&storm);
	storm_tables(&storm);
	claims_init(&storm.claims, options->writers, &storm.region);
	if (options->seconds)
		storm.deadline = monotonic_ns() + options->seconds * 1000000000;
	stop_on_signals();
	max_bytes = storm.max_size * storm.region.block;
	reader_count = storm.have_image ? options->readers : 0;
	readers = start(&storm, reader_count,
			max_bytes + 4 * (uint64_t)NEIGHBOUR_BYTES, reader_main);
	writers = start(&storm, options->writers, max_bytes, writer_main);
	join(writers, options->writers);
	atomic_store(&storm.writers_done, true);
	join(readers, reader_count);
	result = finish(&storm);
	print_counters(&storm);
	origin_close(&storm.origin);
	return result;
}
