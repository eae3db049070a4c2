// SPDX-License-Identifier: GPL-2.0
/*
 * stamp: the oracle of the test-suite. See usage() for what it does.
 *
 * Exit codes: 0 all is as expected; 1 a mismatch; 2 wrong usage; 3 an I/O
 * error, or something else that kept it from judging. Mismatches are described
 * on standard error, counts go to standard output as KEY=VALUE lines.
 */
#define _GNU_SOURCE
#include "stamp.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage_text[] =
"Usage: stamp COMMAND PATH... [OPTION]...\n"
"\n"
"Each block of a device (or regular file) carries a stamp: seed, block number,\n"
"sequence; every byte follows from it, so torn or misplaced data is found.\n"
"\n"
"  fill DEV --seed S [--seq 1]\n"
"      Writes stamps to all blocks. With --length a regular file is made longer.\n"
"  verify DEV --seed S --seq N | --seq-max N | --table FILE\n"
"      Each block must hold a valid stamp of its own number and exactly sequence\n"
"      N, at most N, or exactly what the table says. The first ten mismatches\n"
"      are printed.\n"
"  verify-stable IMAGE --seed S [--rounds 2]\n"
"      Reads all of it several times: it must never change, and each block must\n"
"      hold a valid stamp of its own number, of any sequence. Prints a histogram.\n"
"      (Buffered and mmap writers may leave torn blocks in a snapshot: the kernel\n"
"      lets them change a page while it is being written.)\n"
"  storm ORIGIN IMAGE|- --seed S --taken-seq N | --table FILE\n"
"      Writers overwrite the origin with newer sequences while readers check that\n"
"      the image, at the places just being written, stays as taken (sequence N or\n"
"      the table). At the end all of the image and of the origin is verified.\n"
"      '-': no image. Ends after --count writes, --seconds, or on SIGTERM.\n"
"  order DEV... --seed S [--count C | --seconds T] [--start 1] [--log FILE]\n"
"      Each write gets the next ordinal, and begins when the last has completed,\n"
"      going round the devices. The log holds the last completed ordinal.\n"
"  order-check IMAGE... --seed S [--min K] [--max K] [--shifts B,B,...]\n"
"      Images in the order of the devices, same --block, --offset, --length: if\n"
"      they hold ordinal M, each of 1..M that was not overwritten must be there;\n"
"      M is at least --min and at most --max. What was written to a file is so\n"
"      many bytes further on in the image of its disk (0 for the other images).\n"
"\n"
"Sizes take a suffix K, M, G. Options:\n"
"  --block B          block size, 512 (order: 4096)\n"
"  --offset B         start of the range, in bytes\n"
"  --length B         length of the range; to the end\n"
"  --number-base B    the device begins at this byte in the numbering of blocks\n"
"                     (a partition whose disk was filled)\n"
"  --buffered         fill, verify, order: through the page cache\n"
"  --zero-ok          verify: blocks of zeroes are right too\n"
"  --save-table FILE  verify, verify-stable, storm: the sequences found or left\n"
"  --rounds N         verify-stable: how often to read all\n"
"  --sync             order: O_DSYNC, so that ordinals survive on a file system\n"
"storm:\n"
"  --writers W        4            --readers R   2\n"
"  --count C          10000, or no bound with --seconds\n"
"  --seconds T        writers stop after so long\n"
"  --mode M           direct (default), nowait (RWF_NOWAIT, and again without it\n"
"                     on EAGAIN), hipri (RWF_HIPRI, which newer kernels do not\n"
"                     poll), buffered, mmap, uring (io_uring, half of them as\n"
"                     nowait), polled (io_uring, and polled), mix\n"
"  --min-size B       smallest write; --align\n"
"  --max-size B       largest write; 64K\n"
"  --align B          of places and sizes; --block\n"
"  --hot F/B          this share of the writes goes to a window of B bytes that\n"
"                     moves on when it has been filled; 0.9/4K with eight writers\n"
"                     of 512 bytes lets several of them meet in one granule\n"
"  --image-base B     the image begins at this byte in the numbering of blocks: what\n"
"                     it has of the range is read (--number-base, the same size)\n"
"  --image-may-fail   read errors of the image are counted, but no failure\n"
"\n"
"Exit codes: 0 as expected, 1 mismatch, 2 usage, 3 I/O error.\n";

enum option_id {
	OPTION_SEED = 256,
	OPTION_SEQ,
	OPTION_SEQ_MAX,
	OPTION_TAKEN_SEQ,
	OPTION_OFFSET,
	OPTION_LENGTH,
	OPTION_NUMBER_BASE,
	OPTION_BLOCK,
	OPTION_BUFFERED,
	OPTION_ZERO_OK,
	OPTION_TABLE,
	OPTION_SAVE_TABLE,
	OPTION_ROUNDS,
	OPTION_SYNC,
	OPTION_WRITERS,
	OPTION_READERS,
	OPTION_COUNT,
	OPTION_SECONDS,
	OPTION_MODE,
	OPTION_MIN_SIZE,
	OPTION_MAX_SIZE,
	OPTION_ALIGN,
	OPTION_HOT,
	OPTION_IMAGE_BASE,
	OPTION_IMAGE_MAY_FAIL,
	OPTION_START,
	OPTION_LOG,
	OPTION_MIN,
	OPTION_MAX,
	OPTION_SHIFTS,
};

static const struct option long_options[] = {
	{ "help", no_argument, NULL, 'h' },
	{ "seed", required_argument, NULL, OPTION_SEED },
	{ "seq", required_argument, NULL, OPTION_SEQ },
	{ "seq-max", required_argument, NULL, OPTION_SEQ_MAX },
	{ "taken-seq", required_argument, NULL, OPTION_TAKEN_SEQ },
	{ "offset", required_argument, NULL, OPTION_OFFSET },
	{ "length", required_argument, NULL, OPTION_LENGTH },
	{ "number-base", required_argument, NULL, OPTION_NUMBER_BASE },
	{ "block", required_argument, NULL, OPTION_BLOCK },
	{ "buffered", no_argument, NULL, OPTION_BUFFERED },
	{ "zero-ok", no_argument, NULL, OPTION_ZERO_OK },
	{ "table", required_argument, NULL, OPTION_TABLE },
	{ "save-table", required_argument, NULL, OPTION_SAVE_TABLE },
	{ "rounds", required_argument, NULL, OPTION_ROUNDS },
	{ "sync", no_argument, NULL, OPTION_SYNC },
	{ "writers", required_argument, NULL, OPTION_WRITERS },
	{ "readers", required_argument, NULL, OPTION_READERS },
	{ "count", required_argument, NULL, OPTION_COUNT },
	{ "seconds", required_argument, NULL, OPTION_SECONDS },
	{ "mode", required_argument, NULL, OPTION_MODE },
	{ "min-size", required_argument, NULL, OPTION_MIN_SIZE },
	{ "max-size", required_argument, NULL, OPTION_MAX_SIZE },
	{ "align", required_argument, NULL, OPTION_ALIGN },
	{ "hot", required_argument, NULL, OPTION_HOT },
	{ "image-base", required_argument, NULL, OPTION_IMAGE_BASE },
	{ "image-may-fail", no_argument, NULL, OPTION_IMAGE_MAY_FAIL },
	{ "start", required_argument, NULL, OPTION_START },
	{ "log", required_argument, NULL, OPTION_LOG },
	{ "min", required_argument, NULL, OPTION_MIN },
	{ "max", required_argument, NULL, OPTION_MAX },
	{ "shifts", required_argument, NULL, OPTION_SHIFTS },
	{ NULL, 0, NULL, 0 },
};

#define BIT(id) (1ULL << ((id) - OPTION_SEED))
#define RANGE_OPTIONS                                               \
	(BIT(OPTION_SEED) | BIT(OPTION_OFFSET) | BIT(OPTION_LENGTH) | \
	 BIT(OPTION_NUMBER_BASE) | BIT(OPTION_BLOCK))
#define STORM_OPTIONS                                                  \
	(BIT(OPTION_TAKEN_SEQ) | BIT(OPTION_TABLE) |                     \
	 BIT(OPTION_SAVE_TABLE) | BIT(OPTION_WRITERS) |                  \
	 BIT(OPTION_READERS) | BIT(OPTION_COUNT) | BIT(OPTION_SECONDS) | \
	 BIT(OPTION_MODE) | BIT(OPTION_MIN_SIZE) | BIT(OPTION_MAX_SIZE) | \
	 BIT(OPTION_ALIGN) | BIT(OPTION_HOT) | BIT(OPTION_IMAGE_BASE) |   \
	 BIT(OPTION_IMAGE_MAY_FAIL))

static const struct command {
	const char *name;
	int (*run)(const struct options *options, char **paths, int count);
	int min_paths, max_paths;
	uint64_t allowed;	/* options, so that none is silently ignored */
	uint32_t block;
} commands[] = {
	{ "fill", command_fill, 1, 1,
	  RANGE_OPTIONS | BIT(OPTION_SEQ) | BIT(OPTION_BUFFERED), 512 },
	{ "verify", command_verify, 1, 1,
	  RANGE_OPTIONS | BIT(OPTION_SEQ) | BIT(OPTION_SEQ_MAX) |
		  BIT(OPTION_BUFFERED) | BIT(OPTION_ZERO_OK) |
		  BIT(OPTION_TABLE) | BIT(OPTION_SAVE_TABLE), 512 },
	{ "verify-stable", command_verify_stable, 1, 1,
	  RANGE_OPTIONS | BIT(OPTION_BUFFERED) | BIT(OPTION_ROUNDS) |
		  BIT(OPTION_SAVE_TABLE), 512 },
	{ "storm", command_storm, 2, 2, RANGE_OPTIONS | STORM_OPTIONS, 512 },
	{ "order", command_order, 1, MAX_PATHS,
	  RANGE_OPTIONS | BIT(OPTION_COUNT) | BIT(OPTION_SECONDS) |
		  BIT(OPTION_START) | BIT(OPTION_LOG) | BIT(OPTION_SYNC) |
		  BIT(OPTION_BUFFERED), 4096 },
	{ "order-check", command_order_check, 1, MAX_PATHS,
	  RANGE_OPTIONS | BIT(OPTION_MIN) | BIT(OPTION_MAX) |
		  BIT(OPTION_SHIFTS) | BIT(OPTION_BUFFERED), 4096 },
};

static uint64_t parse_number(const char *text)
{
	static const char suffixes[] = "KMGT";
	const char *suffix;
	uint64_t value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || end == text || *text == '-')
		die(EXIT_USAGE, "not a number: %s", text);
	if (!*end)
		return value;
	suffix = strchr(suffixes, *end);
	if (!suffix || end[1])
		die(EXIT_USAGE, "not a number: %s", text);
	return value << (10 * (suffix - suffixes + 1));
}

static unsigned int parse_threads(const char *text)
{
	uint64_t value = parse_number(text);

	if (value > 256)
		die(EXIT_USAGE, "too many threads: %s", text);
	return (unsigned int)value;
}

static enum write_mode parse_mode(const char *text)
{
	static const char *const names[] = { "direct", "nowait", "hipri",
					     "buffered", "mmap", "uring",
					     "polled", "mix" };

	for (int i = 0; i <= MODE_MIX; i++)
		if (!strcmp(text, names[i]))
			return (enum write_mode)i;
	die(EXIT_USAGE, "no such mode: %s", text);
}

static void parse_hot(struct options *options, const char *text)
{
	char *end;

	options->hot_fraction = strtod(text, &end);
	if (*end != '/' || options->hot_fraction < 0 ||
	    options->hot_fraction > 1)
		die(EXIT_USAGE, "--hot wants FRACTION/BYTES, not %s", text);
	options->hot_size = parse_number(end + 1);
}

static void parse_shifts(struct options *options, char *text)
{
	for (char *one; (one = strsep(&text, ","));) {
		if (options->nr_shifts == MAX_PATHS)
			die(EXIT_USAGE, "too many --shifts");
		options->shifts[options->nr_shifts++] = parse_number(one);
	}
}

static void parse_range_option(struct options *options, int id)
{
	uint64_t value = parse_number(optarg);

	switch (id) {
	case OPTION_SEED:
		options->seed = value;
		options->have_seed = true;
		break;
	case OPTION_SEQ:
		options->seq = value;
		options->have_seq = true;
		break;
	case OPTION_SEQ_MAX:
		options->seq_max = value;
		options->have_seq_max = true;
		break;
	case OPTION_TAKEN_SEQ:
		options->taken_seq = value;
		options->have_taken = true;
		break;
	case OPTION_OFFSET:
		options->offset = value;
		break;
	case OPTION_LENGTH:
		options->length = value;
		break;
	case OPTION_NUMBER_BASE:
		options->number_base = value;
		break;
	case OPTION_BLOCK:
		if (value < 512 || value > 65536 || value & (value - 1))
			die(EXIT_USAGE, "--block is a power of two from 512");
		options->block = (uint32_t)value;
		break;
	}
}

static void parse_storm_option(struct options *options, int id)
{
	switch (id) {
	case OPTION_WRITERS:
		options->writers = parse_threads(optarg);
		if (!options->writers)
			die(EXIT_USAGE, "--writers is at least 1");
		break;
	case OPTION_READERS:
		options->readers = parse_threads(optarg);
		break;
	case OPTION_COUNT:
		options->count = parse_number(optarg);
		options->have_count = true;
		break;
	case OPTION_SECONDS:
		options->seconds = parse_number(optarg);
		break;
	case OPTION_MODE:
		options->mode = parse_mode(optarg);
		break;
	case OPTION_MIN_SIZE:
		options->min_size = parse_number(optarg);
		break;
	case OPTION_MAX_SIZE:
		options->max_size = parse_number(optarg);
		break;
	case OPTION_ALIGN:
		options->align = parse_number(optarg);
		break;
	case OPTION_HOT:
		parse_hot(options, optarg);
		break;
	case OPTION_IMAGE_BASE:
		options->image_base = parse_number(optarg);
		options->have_image_base = true;
		break;
	case OPTION_IMAGE_MAY_FAIL:
		options->image_may_fail = true;
		break;
	}
}

static void parse_other_option(struct options *options, int id)
{
	switch (id) {
	case OPTION_BUFFERED:
		options->buffered = true;
		break;
	case OPTION_ZERO_OK:
		options->zero_ok = true;
		break;
	case OPTION_TABLE:
		options->table = optarg;
		break;
	case OPTION_SAVE_TABLE:
		options->save_table = optarg;
		break;
	case OPTION_ROUNDS:
		options->rounds = parse_threads(optarg);
		if (!options->rounds)
			die(EXIT_USAGE, "--rounds is at least 1");
		break;
	case OPTION_SYNC:
		options->sync = true;
		break;
	case OPTION_START:
		options->start = parse_number(optarg);
		if (!options->start)
			die(EXIT_USAGE, "--start is at least 1");
		break;
	case OPTION_LOG:
		options->log = optarg;
		break;
	case OPTION_MIN:
		options->min_ordinal = parse_number(optarg);
		break;
	case OPTION_MAX:
		options->max_ordinal = parse_number(optarg);
		break;
	case OPTION_SHIFTS:
		parse_shifts(options, optarg);
		break;
	}
}

static void parse_options(struct options *options,
			  const struct command *command, int argc, char **argv)
{
	int id;

	while ((id = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
		if (id == 'h') {
			fputs(usage_text, stdout);
			exit(EXIT_OK);
		}
		if (id == '?')
			exit(EXIT_USAGE);
		if (!(command->allowed & BIT(id)))
			die(EXIT_USAGE, "%s: this option is not for it: %s",
			    command->name,
			    long_options[id - OPTION_SEED + 1].name);
		if (id <= OPTION_BLOCK)
			parse_range_option(options, id);
		else if (id >= OPTION_WRITERS && id <= OPTION_IMAGE_MAY_FAIL)
			parse_storm_option(options, id);
		else
			parse_other_option(options, id);
	}
}

static void check_options(struct options *options,
			  const struct command *command, int paths)
{
	bool is_verify = command->run == command_verify;
	bool is_storm = command->run == command_storm;

	if (paths < command->min_paths || paths > command->max_paths)
		die(EXIT_USAGE, "%s: wrong number of paths; see --help",
		    command->name);
	if (!options->have_seed)
		die(EXIT_USAGE, "%s: --seed is missing", command->name);
	if (is_verify &&
	    options->have_seq + options->have_seq_max + !!options->table != 1)
		die(EXIT_USAGE,
		    "verify: one of --seq, --seq-max, --table is needed");
	if (is_storm && !options->have_taken && !options->table)
		die(EXIT_USAGE, "storm: --taken-seq or --table is needed");
	if (options->nr_shifts && options->nr_shifts != paths)
		die(EXIT_USAGE, "--shifts wants a number for each path");
	if (!options->have_count)
		options->count = options->seconds ? UINT64_MAX : 10000;
}

int main(int argc, char **argv)
{
	struct options options = {
		.seq = 1,
		.max_ordinal = UINT64_MAX,
		.writers = 4,
		.readers = 2,
		.rounds = 2,
		.start = 1,
		.mode = MODE_DIRECT,
	};

	if (argc < 2) {
		fputs(usage_text, stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		fputs(usage_text, stdout);
		return EXIT_OK;
	}
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		options.block = commands[i].block;
		parse_options(&options, &commands[i], argc - 1, argv + 1);
		check_options(&options, &commands[i], argc - 1 - optind);
		return commands[i].run(&options, argv + 1 + optind,
				       argc - 1 - optind);
	}
	die(EXIT_USAGE, "no such command: %s; see --help", argv[1]);
}
