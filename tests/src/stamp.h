/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Stamped sectors: the oracle of the test-suite.
 *
 * A device is cut into blocks (512 bytes unless told otherwise) and each block
 * carries a stamp that says whose it is, which block it is and which write put
 * it there. Every byte of a block follows from its header, so a torn, shifted
 * or foreign block is recognised without knowing what should have been there.
 *
 * Layers: format (one block) <- report (mismatches) <- io (targets, scans)
 *         <- fill, storm, order (the subcommands) <- stamp.c (command line).
 */
#ifndef BLKSNAP_TESTS_STAMP_H
#define BLKSNAP_TESTS_STAMP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	EXIT_OK = 0,
	EXIT_MISMATCH = 1,
	EXIT_USAGE = 2,
	EXIT_IO = 3,
};

/* ---- format: one block ---- */

struct stamp {
	uint64_t magic;
	uint64_t seed;		/* which fill or test it belongs to */
	uint64_t number;	/* block number on its device */
	uint64_t seq;		/* which write; in `order` the ordinal */
	uint64_t time;		/* CLOCK_REALTIME, nanoseconds; information only */
	uint32_t writer;	/* thread that wrote it; information only */
	uint32_t size;		/* of the block */
	uint64_t check;		/* over all of the above; the body follows from it */
};

enum stamp_state {
	STAMP_VALID,
	STAMP_ZERO,		/* nothing but zeroes */
	STAMP_NONE,		/* no magic */
	STAMP_TORN,		/* magic, but header or body are not of one piece */
};

/* Fills @size bytes at @block; magic, size and check of @stamp are set here. */
void stamp_encode(void *block, size_t size, struct stamp *stamp);

/* Header into @stamp. STAMP_TORN: *@torn_at is the first byte that is wrong. */
enum stamp_state stamp_decode(const void *block, size_t size,
			      struct stamp *stamp, size_t *torn_at);

/* ---- report: what was expected, what was found ---- */

struct expect {
	uint64_t seed;
	uint64_t number;
	uint64_t seq_min;
	uint64_t seq_max;
	bool zero_ok;
};

enum verdict {
	VERDICT_OK,
	VERDICT_ZERO,
	VERDICT_NO_STAMP,
	VERDICT_TORN,
	VERDICT_OTHER_SEED,
	VERDICT_OTHER_NUMBER,
	VERDICT_OLDER,
	VERDICT_NEWER,
	VERDICT_CHANGED,	/* stable images only: valid, but not as before */
	VERDICT_COUNT,
};

/* Thread-safe; the first mismatches are printed, all are counted. */
struct report {
	const char *path;
	_Atomic uint64_t mismatches;
	_Atomic uint64_t by_verdict[VERDICT_COUNT];
	_Atomic uint64_t zeroes;	/* accepted because of zero_ok */
	_Atomic uint64_t io_errors;
	bool coarse;			/* a failed large read is not tried by block */
};

/* @found may be NULL. Returns true if the block is as expected. */
bool report_check(struct report *report, const void *block, size_t size,
		  const struct expect *expect, struct stamp *found);
void report_mismatch(struct report *report, enum verdict verdict, size_t size,
		     const struct expect *expect, const struct stamp *found,
		     size_t torn_at);
/* Prints the counts by kind, if there are any. */
void report_summary(const struct report *report);
/* The exit code that this report calls for. */
int report_exit(const struct report *report);

/* ---- io: devices and files ---- */

struct target {
	const char *path;
	int fd;
	uint64_t size;		/* bytes */
	uint32_t align;		/* of direct I/O */
	bool is_block_device;
	bool direct;		/* really opened with O_DIRECT */
};

enum target_flags {
	TARGET_WRITE = 1,
	TARGET_BUFFERED = 2,	/* no O_DIRECT */
	TARGET_DSYNC = 4,
	TARGET_CREATE = 8,	/* a missing regular file is made */
};

/* These exit with EXIT_IO and a message, as the caller could do nothing else. */
void target_open(struct target *target, const char *path, int flags);
void *io_buffer(size_t size);
void *xcalloc(size_t count, size_t size);
_Noreturn void die(int code, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Whole transfers, or -errno. A short read at the end of the target is -EIO. */
int io_read(int fd, void *buffer, size_t size, uint64_t offset);
int io_write(int fd, const void *buffer, size_t size, uint64_t offset);

uint64_t now_ns(void);
uint64_t monotonic_ns(void);

struct rng {
	uint64_t state;
};

uint64_t rng_next(struct rng *rng);
uint64_t rng_below(struct rng *rng, uint64_t bound);

/* SIGTERM and SIGINT set this: long runs end in an orderly way. */
extern atomic_bool stop_requested;
void stop_on_signals(void);

/* ---- options ---- */

enum write_mode {
	MODE_DIRECT,
	MODE_NOWAIT,
	MODE_HIPRI,
	MODE_BUFFERED,
	MODE_MMAP,
	MODE_URING,
	MODE_POLLED,
	MODE_COUNT,
	MODE_MIX = MODE_COUNT,
};

#define MAX_PATHS 64

struct options {
	uint64_t seed;
	uint64_t seq;
	uint64_t seq_max;
	uint64_t taken_seq;
	uint64_t offset;
	uint64_t length;	/* 0: to the end */
	uint64_t number_base;	/* bytes; the device begins there in the numbering */
	uint64_t image_base;	/* bytes; and the image there */
	uint64_t count;
	uint64_t seconds;
	uint64_t min_size;
	uint64_t max_size;
	uint64_t align;
	uint64_t hot_size;
	double hot_fraction;
	uint64_t start;
	uint64_t min_ordinal;
	uint64_t max_ordinal;
	uint64_t shifts[MAX_PATHS];	/* bytes, one a path; all 0 without nr_shifts */
	int nr_shifts;
	uint32_t block;
	unsigned int writers;
	unsigned int readers;
	unsigned int rounds;
	enum write_mode mode;
	const char *table;
	const char *save_table;
	const char *log;
	bool buffered;
	bool sync;
	bool zero_ok;
	bool image_may_fail;
	bool have_seq, have_seq_max, have_taken, have_seed, have_count;
	bool have_image_base;
};

/* A range of whole blocks of a target, checked against its size. */
struct region {
	uint64_t offset;	/* bytes */
	uint64_t blocks;
	uint64_t first_number;	/* number of the first block */
	uint32_t block;
};

void region_init(struct region *region, const struct target *target,
		 const struct options *options);

/*
 * Reads the region in order and hands each block to @fn with its index in the
 * region. A failed read is printed, counted in @report and skipped. With
 * @report NULL a failed read is the end.
 */
typedef void (*scan_fn)(void *context, uint64_t index, const void *block);
void region_scan(const struct target *target, const struct region *region,
		 struct report *report, scan_fn fn, void *context);

/*
 * Tables hold one sequence per block of a region: what a verify or a storm
 * found or wrote, so that a later one knows the exact state that was taken.
 */
uint64_t *table_load(const char *path, const struct region *region);
void table_save(const char *path, const struct region *region,
		const uint64_t *table);

/* ---- subcommands ---- */

int command_fill(const struct options *options, char **paths, int count);
int command_verify(const struct options *options, char **paths, int count);
int command_verify_stable(const struct options *options, char **paths,
			  int count);
int command_storm(const struct options *options, char **paths, int count);
int command_order(const struct options *options, char **paths, int count);
int command_order_check(const struct options *options, char **paths,
			int count);

#endif
