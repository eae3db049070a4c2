// SPDX-License-Identifier: GPL-2.0
/*
 * blksnap-copy: moves the data of `blksnap backup`, `verify`, `merge` and `restore`, which know what is to be moved.
 *
 *	save [--map FILE --block SIZE] [--since N] [--kept INDEX [--kept-since N]] [--unwritten FILE] [--size BYTES]
 *			[--diskseq N] --heading TEXT IMAGE DATA INDEX
 *		writes a backup of IMAGE. Without --since a full: DATA is IMAGE with holes. With it, one after the other,
 *		the blocks of which the map has a byte above N. INDEX has their checksums, below a line with the heading.
 *		--kept: the index of a backup to the same DATA that was interrupted. What it has is kept, but for blocks
 *		with a byte above --kept-since; DATA has to be as long as it says. --unwritten: how much was written to
 *		IMAGE. As soon as that is not 0, nothing more is indexed, and it fails. --size: what IMAGE has to have; one
 *		that is just being released has less.
 *	send [--map FILE --block SIZE --since N] [--unwritten FILE] [--size BYTES] [--diskseq N] IMAGE
 *		the same to stdout, which ends with a line that tells the other end whether it has all. It does not get that
 *		line if IMAGE was written to.
 *	restore [--device [--larger]] TARGET SIZE {full|packed DATA INDEX}...
 *		writes what the backups come to, one upon the other, to TARGET: with --device a block device, else an empty
 *		file. It has to be there: a device that has gone would become a file.
 *	merge --heading TEXT DATA INDEX SIZE {full|packed DATA INDEX}...
 *		the same, as a full backup.
 *	check SIZE {full|packed} DATA INDEX
 *		reads one backup, and names each damaged block; then it exits with 3.
 *	receive [--device [--larger]] [--update] SIZE [TARGET]
 *		checks what `send` has sent, from stdin, and writes it to TARGET, as restore does; --update: to a file that
 *		has what was received before.
 *
 * All of them take --progress LABEL: shows on stderr how far it is; and --parent PID: it ends when that process does, whose
 * child it has to be.
 *
 * Exit codes: 0 done; 1 failed, or, but of check, damaged; 2 wrong usage; 3 damaged.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <signal.h>
#include <unistd.h>

#include "copy.h"

static struct {
	const char *map, *kept, *heading, *unwritten, *label;
	uint64_t block_size, size, diskseq, parent;
	int since, kept_since;
	bool device, larger, update;
} option = { .size = UINT64_MAX, .diskseq = UINT64_MAX, .since = -1, .kept_since = 255 };

/* --- what all parts use ------------------------------------------------------------------------------------------- */

/* One write, as other processes write there too; on a line of its own, if progress is being shown. */
static void print_message(const char *format, va_list args)
{
	char text[1024];
	int length = snprintf(text, sizeof(text), "%sblksnap: ", option.label ? "\r\033[K" : "");

	vsnprintf(text + length, sizeof(text) - (size_t)length - 1, format, args);
	strcat(text, "\n");
	fputs(text, stderr);
}

void complain(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_message(format, args);
	va_end(args);
}

void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_message(format, args);
	va_end(args);
	_exit(EXIT_FAILED);
}

void *allocate(size_t size)
{
	void *memory = calloc(1, size);

	if (!memory)
		die("no memory");
	return memory;
}

void read_all(int fd, void *data, size_t length, uint64_t offset, const char *name)
{
	size_t done = 0;

	while (done < length) {
		ssize_t got = pread(fd, (char *)data + done, length - done, (off_t)(offset + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			die("cannot read %s at %" PRIu64 ": %s", name, offset + done,
			    got ? strerror(errno) : "it ends there");
		done += (size_t)got;
	}
}

/* At the offset, or where the file is if that is UINT64_MAX. */
void write_all(int fd, const void *data, size_t length, uint64_t offset, const char *name)
{
	size_t done = 0;

	while (done < length) {
		const char *from = (const char *)data + done;
		ssize_t put = offset == UINT64_MAX ? write(fd, from, length - done) :
						     pwrite(fd, from, length - done, (off_t)(offset + done));

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			die("cannot write %s: %s", name, strerror(errno));
		done += (size_t)put;
	}
}

/* --- the commands ------------------------------------------------------------------------------------------------- */

static void usage(void)
{
	fputs("blksnap-copy is a part of blksnap, and is not used by itself: blksnap --help\n", stderr);
	exit(EXIT_WRONG_USAGE);
}

static uint64_t number(const char *text, uint64_t max)
{
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *end || end == text || text[0] == '-' || value > max)
		usage();
	return value;
}

/* An attribute of sysfs says nothing of its size: read until its end. */
static void load_map(struct map *map)
{
	uint64_t room = 1 << 20;
	ssize_t got;
	int fd;

	if (!option.map)
		return;
	if (option.block_size < ALIGNMENT)
		usage();
	map->block_size = option.block_size;
	map->bytes = allocate(room);
	fd = open(option.map, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("cannot open %s: %s", option.map, strerror(errno));
	while ((got = read(fd, map->bytes + map->count, room - map->count)) > 0) {
		map->count += (uint64_t)got;
		if (map->count < room)
			continue;
		room *= 2;
		map->bytes = realloc(map->bytes, room);
		if (!map->bytes)
			die("no memory for the change map");
	}
	if (got < 0)
		die("cannot read %s: %s", option.map, strerror(errno));
	close(fd);
}

static struct source *open_image(const char *path, struct index *kept, uint64_t *size)
{
	struct image_options options = {
		.since = option.since,
		.kept_since = option.kept_since,
		.diskseq = option.diskseq,
	};
	struct source *source;

	load_map(&options.map);
	if (option.since >= 0 && !options.map.bytes)
		usage();
	if (option.kept) {
		index_load(kept, option.kept, option.since >= 0, true);
		options.kept = kept;
	}
	source = source_image(path, &options, size);
	if (option.size != UINT64_MAX && *size != option.size)
		die("%s has %" PRIu64 " bytes, and had %" PRIu64 ": the image has gone", path, *size, option.size);
	return source;
}

/* A file that was lost would be made anew, as one hole. */
static void need_kept_data(const char *path, const struct index *kept, uint64_t size)
{
	uint64_t wanted = option.since >= 0 ? kept->data_size : size;
	struct stat data;

	if (stat(path, &data) < 0)
		die("%s: %s: nothing of it can be kept", path, strerror(errno));
	if ((uint64_t)data.st_size < wanted)
		die("%s has %" PRIu64 " bytes, and should have %" PRIu64 ": nothing of it can be kept", path,
		    (uint64_t)data.st_size, wanted);
}

static int save(int count, char **arguments)
{
	struct source *source;
	struct index kept;
	struct sink *sink;
	uint64_t size;

	if (count != 3 || !option.heading)
		usage();
	source = open_image(arguments[0], &kept, &size);
	if (option.kept)
		need_kept_data(arguments[1], &kept, size);
	if (option.since >= 0)
		sink = sink_packed(arguments[1], arguments[2], option.heading, option.unwritten);
	else
		sink = sink_raw(arguments[1], arguments[2], option.heading, option.unwritten, size);
	run(source, sink, option.label);
	return 0;
}

static int send_image(int count, char **arguments)
{
	struct index unused;
	uint64_t size;

	if (count != 1 || option.kept)
		usage();
	run(open_image(arguments[0], &unused, &size), sink_stream(option.unwritten), option.label);
	return 0;
}

/* {full|packed DATA INDEX}... */
static struct member *members(int count, char **arguments)
{
	struct member *chain = allocate((size_t)count / 3 * sizeof(*chain));

	if (!count || count % 3)
		usage();
	for (int i = 0; i < count / 3; i++) {
		chain[i].packed = strcmp(arguments[3 * i], "packed") == 0;
		chain[i].data = arguments[3 * i + 1];
		index_load(&chain[i].index, arguments[3 * i + 2], chain[i].packed, false);
	}
	return chain;
}

static enum target_kind target_kind(void)
{
	if (option.device)
		return TARGET_DEVICE;
	return option.update ? TARGET_UPDATE : TARGET_NEW;
}

static int restore(int count, char **arguments)
{
	uint64_t size = count < 2 ? 0 : number(arguments[1], INT64_MAX);
	struct source *source;

	if (count < 2)
		usage();
	source = source_chain(members(count - 2, arguments + 2), (size_t)(count - 2) / 3, size, false);
	run(source, sink_target(arguments[0], size, target_kind(), option.larger), option.label);
	return 0;
}

static int merge(int count, char **arguments)
{
	uint64_t size = count < 3 ? 0 : number(arguments[2], INT64_MAX);
	struct source *source;

	if (count < 3 || !option.heading)
		usage();
	source = source_chain(members(count - 3, arguments + 3), (size_t)(count - 3) / 3, size, false);
	run(source, sink_raw(arguments[0], arguments[1], option.heading, NULL, size), option.label);
	return 0;
}

static int check(int count, char **arguments)
{
	uint64_t size = count != 4 ? 0 : number(arguments[0], INT64_MAX);

	if (count != 4)
		usage();
	run(source_chain(members(3, arguments + 1), 1, size, true), sink_none(), option.label);
	return chain_damages() ? EXIT_DAMAGED : 0;
}

static int receive(int count, char **arguments)
{
	uint64_t size = count < 1 ? 0 : number(arguments[0], INT64_MAX);
	struct sink *sink;

	if (count < 1 || count > 2)
		usage();
	sink = count == 1 ? sink_none() : sink_target(arguments[1], size, target_kind(), option.larger);
	run(source_stream(size), sink, option.label);
	return 0;
}

static const struct option long_options[] = {
	{ "map", required_argument, NULL, 'm' },
	{ "block", required_argument, NULL, 'b' },
	{ "since", required_argument, NULL, 's' },
	{ "kept", required_argument, NULL, 'k' },
	{ "kept-since", required_argument, NULL, 'c' },
	{ "heading", required_argument, NULL, 'h' },
	{ "unwritten", required_argument, NULL, 'w' },
	{ "size", required_argument, NULL, 'z' },
	{ "diskseq", required_argument, NULL, 'q' },
	{ "progress", required_argument, NULL, 'p' },
	{ "parent", required_argument, NULL, 'r' },
	{ "larger", no_argument, NULL, 'l' },
	{ "device", no_argument, NULL, 'd' },
	{ "update", no_argument, NULL, 'u' },
	{ 0 }
};

static void parse_options(int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
		switch (c) {
		case 'm':
			option.map = optarg;
			break;
		case 'b':
			option.block_size = number(optarg, 1ull << 40);
			break;
		case 's':
			option.since = (int)number(optarg, 255);
			break;
		case 'k':
			option.kept = optarg;
			break;
		case 'c':
			option.kept_since = (int)number(optarg, 255);
			break;
		case 'h':
			option.heading = optarg;
			break;
		case 'w':
			option.unwritten = optarg;
			break;
		case 'z':
			option.size = number(optarg, INT64_MAX);
			break;
		case 'q':
			option.diskseq = number(optarg, INT64_MAX);
			break;
		case 'p':
			option.label = optarg;
			break;
		case 'r':
			option.parent = number(optarg, INT32_MAX);
			break;
		case 'l':
			option.larger = true;
			break;
		case 'd':
			option.device = true;
			break;
		case 'u':
			option.update = true;
			break;
		default:
			usage();
		}
	}
}

/* A chain of which each member is open may have more than are usual. */
static void raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* Who started this may be killed, or have been: what goes on without it would be in the way of the next. */
static void end_with_parent(void)
{
	if (!option.parent)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if ((uint64_t)getppid() != option.parent)
		_exit(EXIT_FAILED);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(int count, char **arguments);
	} commands[] = {
		{ "save", save },	{ "send", send_image },	{ "restore", restore },
		{ "merge", merge },	{ "check", check },	{ "receive", receive },
	};

	raise_file_limit();
	parse_options(argc, argv);
	end_with_parent();
	for (size_t i = 0; optind < argc && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(argv[optind], commands[i].name))
			return commands[i].run(argc - optind - 1, argv + optind + 1);
	usage();
}
