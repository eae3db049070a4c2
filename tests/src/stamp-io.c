// SPDX-License-Identifier: GPL-2.0
/*
 * Targets (devices or regular files), regions, tables, and small helpers.
 */
#define _GNU_SOURCE
#include "stamp.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SCAN_BYTES (1024 * 1024)
#define TABLE_MAGIC 0x454c424154504d53ULL /* "SMPTABLE" */

atomic_bool stop_requested;

void die(int code, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("stamp: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(code);
}

void *xcalloc(size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size);

	if (!memory)
		die(EXIT_IO, "no memory for %zu * %zu bytes", count, size);
	return memory;
}

void *io_buffer(size_t size)
{
	void *memory;

	if (posix_memalign(&memory, 4096, size))
		die(EXIT_IO, "no memory for %zu bytes", size);
	return memory;
}

uint64_t now_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_REALTIME, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

uint64_t monotonic_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

uint64_t rng_next(struct rng *rng)
{
	uint64_t value = rng->state += 0x9e3779b97f4a7c15ULL;

	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
	return value ^ (value >> 31);
}

uint64_t rng_below(struct rng *rng, uint64_t bound)
{
	return bound ? rng_next(rng) % bound : 0;
}

static void on_signal(int signal)
{
	(void)signal;
	atomic_store(&stop_requested, true);
}

void stop_on_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal,
				    .sa_flags = SA_RESTART };

	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
}

static int open_flags(int flags)
{
	int result = O_CLOEXEC;

	result |= flags & TARGET_WRITE ? O_RDWR : O_RDONLY;
	result |= flags & TARGET_CREATE ? O_CREAT : 0;
	result |= flags & TARGET_DSYNC ? O_DSYNC : 0;
	return result;
}

static void query_block_device(struct target *target)
{
	unsigned int logical;
	uint64_t size;

	if (ioctl(target->fd, BLKGETSIZE64, &size) ||
	    ioctl(target->fd, BLKSSZGET, &logical))
		die(EXIT_IO, "%s: cannot ask for its size: %s", target->path,
		    strerror(errno));
	target->size = size;
	target->align = logical;
}

/*
 * A file system without O_DIRECT (tmpfs on older kernels) is used through the
 * page cache; a block device without it would not test what it is meant to.
 */
void target_open(struct target *target, const char *path, int flags)
{
	int mode = open_flags(flags);
	struct stat status;

	*target = (struct target){ .path = path, .align = 512 };
	target->direct = !(flags & TARGET_BUFFERED);
	target->fd = open(path, mode | (target->direct ? O_DIRECT : 0), 0600);
	if (target->fd < 0 && errno == EINVAL && target->direct) {
		target->direct = false;
		target->fd = open(path, mode, 0600);
	}
	if (target->fd < 0 || fstat(target->fd, &status))
		die(EXIT_IO, "%s: %s", path, strerror(errno));
	target->is_block_device = S_ISBLK(status.st_mode);
	if (target->is_block_device) {
		if (!target->direct && !(flags & TARGET_BUFFERED))
			die(EXIT_IO, "%s: no O_DIRECT on this device", path);
		query_block_device(target);
	} else if (S_ISREG(status.st_mode)) {
		target->size = (uint64_t)status.st_size;
	} else {
		die(EXIT_IO, "%s: neither a block device nor a regular file",
		    path);
	}
}

int io_read(int fd, void *buffer, size_t size, uint64_t offset)
{
	char *position = buffer;

	while (size) {
		ssize_t got = pread(fd, position, size, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got)
			return -EIO;
		position += got;
		offset += (uint64_t)got;
		size -= (size_t)got;
	}
	return 0;
}

int io_write(int fd, const void *buffer, size_t size, uint64_t offset)
{
	const char *position = buffer;

	while (size) {
		ssize_t got = pwrite(fd, position, size, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (!got)
			return -EIO;
		position += got;
		offset += (uint64_t)got;
		size -= (size_t)got;
	}
	return 0;
}

void region_init(struct region *region, const struct target *target,
		 const struct options *options)
{
	uint64_t length = options->length;

	if (options->block < target->align && target->direct)
		die(EXIT_USAGE, "%s: needs blocks of at least %u (--block)",
		    target->path, target->align);
	if (options->offset % options->block || length % options->block ||
	    options->number_base % options->block)
		die(EXIT_USAGE,
		    "offset, length and number base must be whole blocks of %u",
		    options->block);
	if (options->offset >= target->size)
		die(EXIT_USAGE, "%s: offset %" PRIu64 " is behind its end",
		    target->path, options->offset);
	if (!length)
		length = target->size - options->offset;
	if (length > target->size - options->offset)
		die(EXIT_USAGE, "%s: the range ends behind its end at %" PRIu64,
		    target->path, target->size);
	region->offset = options->offset;
	region->block = options->block;
	region->blocks = length / options->block;
	region->first_number =
		(options->offset + options->number_base) / options->block;
	if (!region->blocks)
		die(EXIT_USAGE, "%s: smaller than one block", target->path);
}

/* A failed large read is tried again block by block, so that what can be read is judged. */
static void scan_blocks(const struct target *target,
			const struct region *region, struct report *report,
			uint64_t index, uint64_t count, void *buffer,
			scan_fn fn, void *context)
{
	for (uint64_t i = index; i < index + count; i++) {
		int error = io_read(target->fd, buffer, region->block,
				    region->offset + i * region->block);

		if (!error) {
			fn(context, i, buffer);
			continue;
		}
		if (atomic_fetch_add(&report->io_errors, 1) < 10)
			fprintf(stderr, "%s: block %" PRIu64 ": read: %s\n",
				target->path, region->first_number + i,
				strerror(-error));
	}
}

void region_scan(const struct target *target, const struct region *region,
		 struct report *report, scan_fn fn, void *context)
{
	uint64_t step = SCAN_BYTES / region->block;
	char *buffer = io_buffer(SCAN_BYTES);

	for (uint64_t at = 0; at < region->blocks; at += step) {
		uint64_t count = region->blocks - at;
		int error;

		if (count > step)
			count = step;
		error = io_read(target->fd, buffer, count * region->block,
				region->offset + at * region->block);
		if (error && !report)
			die(EXIT_IO, "%s: read: %s", target->path,
			    strerror(-error));
		if (error && report->coarse) {
			atomic_fetch_add(&report->io_errors, 1);
			continue;
		}
		if (error) {
			scan_blocks(target, region, report, at, count, buffer,
				    fn, context);
			continue;
		}
		for (uint64_t i = 0; i < count; i++)
			fn(context, at + i, buffer + i * region->block);
	}
	free(buffer);
}

struct table_header {
	uint64_t magic;
	uint64_t offset;
	uint64_t blocks;
	uint64_t block;
};

uint64_t *table_load(const char *path, const struct region *region)
{
	uint64_t *table = xcalloc(region->blocks, sizeof(*table));
	struct table_header header;
	FILE *file = fopen(path, "re");

	if (!file || fread(&header, sizeof(header), 1, file) != 1)
		die(EXIT_USAGE, "%s: cannot read the table", path);
	if (header.magic != TABLE_MAGIC || header.offset != region->offset ||
	    header.blocks != region->blocks || header.block != region->block)
		die(EXIT_USAGE, "%s: not a table of this range", path);
	if (fread(table, sizeof(*table), region->blocks, file) !=
	    region->blocks)
		die(EXIT_USAGE, "%s: the table is cut off", path);
	fclose(file);
	return table;
}

void table_save(const char *path, const struct region *region,
		const uint64_t *table)
{
	struct table_header header = { TABLE_MAGIC, region->offset,
				       region->blocks, region->block };
	FILE *file = fopen(path, "we");
	bool written;

	if (!file)
		die(EXIT_IO, "%s: %s", path, strerror(errno));
	written = fwrite(&header, sizeof(header), 1, file) == 1 &&
		  fwrite(table, sizeof(*table), region->blocks, file) ==
			  region->blocks;
	if (fclose(file) || !written)
		die(EXIT_IO, "%s: cannot write the table", path);
}
