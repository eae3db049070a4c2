// SPDX-License-Identifier: GPL-2.0
/*
 * fill, verify, verify-stable: whole ranges, in order, by one thread.
 */
#define _GNU_SOURCE
#include "stamp.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILL_BYTES (1024 * 1024)
#define HISTOGRAM_LINES 16

/* ---- fill ---- */

/* A regular file may be shorter than the range that is asked for: it grows. */
static void extend_file(struct target *target, const struct options *options)
{
	uint64_t end = options->offset + options->length;

	if (target->is_block_device || target->size >= end)
		return;
	if (ftruncate(target->fd, (off_t)end))
		die(EXIT_IO, "%s: cannot make it %" PRIu64 " bytes long",
		    target->path, end);
	target->size = end;
}

int command_fill(const struct options *options, char **paths, int count)
{
	struct stamp stamp = { .seed = options->seed, .seq = options->seq };
	uint64_t step = FILL_BYTES / options->block;
	int flags = TARGET_WRITE | TARGET_CREATE;
	struct target target;
	struct region region;
	char *buffer;

	(void)count;
	target_open(&target, paths[0],
		    flags | (options->buffered ? TARGET_BUFFERED : 0));
	extend_file(&target, options);
	region_init(&region, &target, options);
	buffer = io_buffer(FILL_BYTES);
	for (uint64_t at = 0; at < region.blocks; at += step) {
		uint64_t blocks = region.blocks - at;
		int error;

		if (blocks > step)
			blocks = step;
		stamp.time = now_ns();
		for (uint64_t i = 0; i < blocks; i++) {
			stamp.number = region.first_number + at + i;
			stamp_encode(buffer + i * region.block, region.block,
				     &stamp);
		}
		error = io_write(target.fd, buffer, blocks * region.block,
				 region.offset + at * region.block);
		if (error)
			die(EXIT_IO, "%s: write at %" PRIu64 ": %s",
			    target.path, region.offset + at * region.block,
			    strerror(-error));
	}
	if (fsync(target.fd))
		die(EXIT_IO, "%s: fsync failed", target.path);
	free(buffer);
	close(target.fd);
	printf("blocks=%" PRIu64 "\nbytes=%" PRIu64 "\n", region.blocks,
	       region.blocks * region.block);
	return EXIT_OK;
}

/* ---- verify ---- */

struct verify {
	struct report report;
	struct expect expect;
	const struct region *region;
	const uint64_t *table;	/* exact sequences, or NULL */
	uint64_t *found;	/* sequences that were found, or NULL */
	uint64_t newest;
};

static void verify_block(void *context, uint64_t index, const void *block)
{
	struct verify *verify = context;
	struct stamp found = { 0 };

	verify->expect.number = verify->region->first_number + index;
	if (verify->table) {
		verify->expect.seq_min = verify->table[index];
		verify->expect.seq_max = verify->table[index];
	}
	if (!report_check(&verify->report, block, verify->region->block,
			  &verify->expect, &found))
		return;
	if (found.seq > verify->newest)
		verify->newest = found.seq;
	if (verify->found)
		verify->found[index] = found.seq;
}

int command_verify(const struct options *options, char **paths, int count)
{
	struct verify verify = { .report.path = paths[0] };
	struct target target;
	struct region region;

	(void)count;
	target_open(&target, paths[0], options->buffered ? TARGET_BUFFERED : 0);
	region_init(&region, &target, options);
	verify.region = &region;
	verify.expect.seed = options->seed;
	verify.expect.zero_ok = options->zero_ok;
	verify.expect.seq_min = options->have_seq ? options->seq : 0;
	verify.expect.seq_max = options->have_seq ? options->seq :
						    options->seq_max;
	if (options->table)
		verify.table = table_load(options->table, &region);
	if (options->save_table)
		verify.found = xcalloc(region.blocks, sizeof(uint64_t));
	region_scan(&target, &region, &verify.report, verify_block, &verify);
	close(target.fd);
	report_summary(&verify.report);
	if (verify.found && !report_exit(&verify.report))
		table_save(options->save_table, &region, verify.found);
	printf("blocks=%" PRIu64 "\nmismatches=%" PRIu64 "\nzeroes=%" PRIu64
	       "\nio_errors=%" PRIu64 "\nnewest_seq=%" PRIu64 "\n",
	       region.blocks, verify.report.mismatches, verify.report.zeroes,
	       verify.report.io_errors, verify.newest);
	return report_exit(&verify.report);
}

/* ---- verify-stable ---- */

struct stable {
	struct report report;
	const struct region *region;
	uint64_t seed;
	uint64_t *seqs;
	uint64_t *checks;	/* a block's check word stands for all its bytes */
	bool first_round;
};

static void stable_block(void *context, uint64_t index, const void *block)
{
	struct stable *stable = context;
	struct expect expect = {
		.seed = stable->seed,
		.number = stable->region->first_number + index,
		.seq_max = UINT64_MAX,
	};
	struct stamp found;

	if (!report_check(&stable->report, block, stable->region->block,
			  &expect, &found))
		return;
	if (stable->first_round) {
		stable->seqs[index] = found.seq;
		stable->checks[index] = found.check;
	} else if (stable->checks[index] != found.check) {
		expect.seq_min = stable->seqs[index];
		expect.seq_max = stable->seqs[index];
		report_mismatch(&stable->report, VERDICT_CHANGED,
				stable->region->block, &expect, &found, 0);
	}
}

static int compare_seq(const void *left, const void *right)
{
	const uint64_t *a = left, *b = right;

	return (*a > *b) - (*a < *b);
}

/* One line for each sequence if they are few, else for equal ranges of them. */
static void print_histogram(uint64_t *seqs, uint64_t blocks)
{
	uint64_t distinct = 1, width = 1, from = 0;

	qsort(seqs, blocks, sizeof(*seqs), compare_seq);
	for (uint64_t i = 1; i < blocks; i++)
		distinct += seqs[i] != seqs[i - 1];
	if (distinct > HISTOGRAM_LINES)
		width = (seqs[blocks - 1] - seqs[0]) / HISTOGRAM_LINES + 1;
	printf("distinct_seqs=%" PRIu64 "\nfirst_seq=%" PRIu64
	       "\nlast_seq=%" PRIu64 "\n",
	       distinct, seqs[0], seqs[blocks - 1]);
	while (from < blocks) {
		uint64_t low = seqs[0] + (seqs[from] - seqs[0]) / width * width;
		uint64_t to = from;

		while (to < blocks && seqs[to] - low < width)
			to++;
		printf("seq %" PRIu64, low);
		if (width > 1)
			printf("..%" PRIu64, low + width - 1);
		printf(": %" PRIu64 " blocks\n", to - from);
		from = to;
	}
}

int command_verify_stable(const struct options *options, char **paths,
			  int count)
{
	struct stable stable = { .report.path = paths[0],
				 .seed = options->seed };
	struct target target;
	struct region region;
	unsigned int round;

	(void)count;
	target_open(&target, paths[0], options->buffered ? TARGET_BUFFERED : 0);
	region_init(&region, &target, options);
	stable.region = &region;
	stable.seqs = xcalloc(region.blocks, sizeof(uint64_t));
	stable.checks = xcalloc(region.blocks, sizeof(uint64_t));
	for (round = 0; round < options->rounds; round++) {
		stable.first_round = round == 0;
		region_scan(&target, &region, &stable.report, stable_block,
			    &stable);
		if (report_exit(&stable.report))
			break;
	}
	close(target.fd);
	report_summary(&stable.report);
	if (options->save_table && !report_exit(&stable.report))
		table_save(options->save_table, &region, stable.seqs);
	printf("blocks=%" PRIu64 "\nrounds=%u\nmismatches=%" PRIu64
	       "\nio_errors=%" PRIu64 "\n",
	       region.blocks, round, stable.report.mismatches,
	       stable.report.io_errors);
	print_histogram(stable.seqs, region.blocks);
	return report_exit(&stable.report);
}
