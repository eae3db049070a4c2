// SPDX-License-Identifier: GPL-2.0
/*
 * One stamped block, and what can be wrong with it.
 *
 * The check word is a hash of the header; body word i is check + i * odd. So
 * each eight bytes of the block depend on every bit of the header and on their
 * place, and encoding and checking cost one addition a word, which matters in
 * an emulated machine that has to go through gigabytes.
 */
#include "stamp.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAGIC 0x504d4154536b6c62ULL /* "blkSTAMP" */
#define ODD 0x9e3779b97f4a7c15ULL
#define HEADER_WORDS (sizeof(struct stamp) / 8)
#define PRINT_LIMIT 10

static uint64_t mix(uint64_t hash, uint64_t value)
{
	hash = (hash ^ value) * 0xff51afd7ed558ccdULL;
	hash ^= hash >> 32;
	hash *= 0xc4ceb9fe1a85ec53ULL;
	return hash ^ (hash >> 29);
}

static uint64_t header_check(const struct stamp *stamp)
{
	uint64_t hash = mix(ODD, stamp->magic);

	hash = mix(hash, stamp->seed);
	hash = mix(hash, stamp->number);
	hash = mix(hash, stamp->seq);
	hash = mix(hash, stamp->time);
	return mix(hash, (uint64_t)stamp->writer << 32 | stamp->size);
}

void stamp_encode(void *block, size_t size, struct stamp *stamp)
{
	uint64_t *words = block;
	uint64_t value;

	stamp->magic = MAGIC;
	stamp->size = (uint32_t)size;
	stamp->check = header_check(stamp);
	memcpy(block, stamp, sizeof(*stamp));
	value = stamp->check;
	for (size_t i = HEADER_WORDS; i < size / 8; i++) {
		value += ODD;
		words[i] = value;
	}
}

static bool all_zero(const uint64_t *words, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (words[i])
			return false;
	return true;
}

enum stamp_state stamp_decode(const void *block, size_t size,
			      struct stamp *stamp, size_t *torn_at)
{
	const uint64_t *words = block;
	uint64_t value;

	memcpy(stamp, block, sizeof(*stamp));
	*torn_at = 0;
	if (stamp->magic != MAGIC)
		return all_zero(words, size / 8) ? STAMP_ZERO : STAMP_NONE;
	if (stamp->size != size || stamp->check != header_check(stamp)) {
		*torn_at = offsetof(struct stamp, check);
		return STAMP_TORN;
	}
	value = stamp->check;
	for (size_t i = HEADER_WORDS; i < size / 8; i++) {
		value += ODD;
		if (words[i] != value) {
			*torn_at = i * 8;
			return STAMP_TORN;
		}
	}
	return STAMP_VALID;
}

static const char *const verdict_names[VERDICT_COUNT] = {
	[VERDICT_OK] = "ok",
	[VERDICT_ZERO] = "zero",
	[VERDICT_NO_STAMP] = "no stamp",
	[VERDICT_TORN] = "torn",
	[VERDICT_OTHER_SEED] = "other seed",
	[VERDICT_OTHER_NUMBER] = "other sector",
	[VERDICT_OLDER] = "older sequence",
	[VERDICT_NEWER] = "newer sequence",
	[VERDICT_CHANGED] = "changed",
};

static enum verdict judge(enum stamp_state state, const struct expect *expect,
			  const struct stamp *found)
{
	switch (state) {
	case STAMP_ZERO:
		return expect->zero_ok ? VERDICT_OK : VERDICT_ZERO;
	case STAMP_NONE:
		return VERDICT_NO_STAMP;
	case STAMP_TORN:
		return VERDICT_TORN;
	case STAMP_VALID:
		break;
	}
	if (found->seed != expect->seed)
		return VERDICT_OTHER_SEED;
	if (found->number != expect->number)
		return VERDICT_OTHER_NUMBER;
	if (found->seq < expect->seq_min)
		return VERDICT_OLDER;
	if (found->seq > expect->seq_max)
		return VERDICT_NEWER;
	return VERDICT_OK;
}

static void print_expected(const struct expect *expect)
{
	fprintf(stderr, "expected seed %" PRIu64 " seq ", expect->seed);
	if (expect->seq_min == expect->seq_max)
		fprintf(stderr, "%" PRIu64, expect->seq_min);
	else if (expect->seq_max == UINT64_MAX)
		fprintf(stderr, "%" PRIu64 " or more", expect->seq_min);
	else
		fprintf(stderr, "%" PRIu64 "..%" PRIu64, expect->seq_min,
			expect->seq_max);
}

void report_mismatch(struct report *report, enum verdict verdict, size_t size,
		     const struct expect *expect, const struct stamp *found,
		     size_t torn_at)
{
	atomic_fetch_add(&report->by_verdict[verdict], 1);
	if (atomic_fetch_add(&report->mismatches, 1) >= PRINT_LIMIT)
		return;
	flockfile(stderr);
	fprintf(stderr, "%s: block %" PRIu64 " (byte %" PRIu64 "): ",
		report->path, expect->number, expect->number * size);
	print_expected(expect);
	fprintf(stderr, ", found: %s", verdict_names[verdict]);
	if (verdict == VERDICT_TORN)
		fprintf(stderr, " at byte %zu of the block", torn_at);
	if (verdict != VERDICT_ZERO && verdict != VERDICT_NO_STAMP)
		fprintf(stderr,
			" (seed %" PRIu64 " block %" PRIu64 " seq %" PRIu64
			" writer %" PRIu32 ")",
			found->seed, found->number, found->seq, found->writer);
	fputc('\n', stderr);
	funlockfile(stderr);
}

bool report_check(struct report *report, const void *block, size_t size,
		  const struct expect *expect, struct stamp *found)
{
	struct stamp scratch;
	enum stamp_state state;
	enum verdict verdict;
	size_t torn_at;

	if (!found)
		found = &scratch;
	state = stamp_decode(block, size, found, &torn_at);
	verdict = judge(state, expect, found);
	if (verdict == VERDICT_OK) {
		if (state == STAMP_ZERO)
			atomic_fetch_add(&report->zeroes, 1);
		return true;
	}
	report_mismatch(report, verdict, size, expect, found, torn_at);
	return false;
}

void report_summary(const struct report *report)
{
	for (int i = 0; i < VERDICT_COUNT; i++)
		if (report->by_verdict[i])
			fprintf(stderr, "%s: %" PRIu64 " blocks: %s\n",
				report->path, report->by_verdict[i],
				verdict_names[i]);
	if (report->io_errors)
		fprintf(stderr, "%s: %" PRIu64 " I/O errors\n", report->path,
			report->io_errors);
}

int report_exit(const struct report *report)
{
	if (report->mismatches)
		return EXIT_MISMATCH;
	return report->io_errors ? EXIT_IO : EXIT_OK;
}
