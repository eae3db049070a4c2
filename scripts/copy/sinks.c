// SPDX-License-Identifier: GPL-2.0
/* Where cells go: the files of a backup, a device that is restored, nowhere. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "copy.h"

/* So many seconds are lost at most when a backup is interrupted: then what was written is made durable, and indexed. */
#define CHECKPOINT 2
/* After so many bytes the disk begins to write them. */
#define WRITEBACK (16ull << 20)

/* --- writing ------------------------------------------------------------------------------------------------------ */

struct output {
	const char *name;
	int fd;
	bool blank;			/* reads as zeroes where nothing was written */
	bool device;
	bool no_holes;			/* its file system cannot make them */
};

static void write_zeroes(struct output *output, uint64_t offset, uint32_t length)
{
	static const unsigned char zeroes[CELL] __attribute__((aligned(ALIGNMENT)));
	uint64_t range[2] = { offset, length };

	if (output->blank)
		return;
	if (output->device && ioctl(output->fd, BLKZEROOUT, range) == 0)
		return;
	if (!output->device && !output->no_holes) {
		if (fallocate(output->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, length) == 0)
			return;
		output->no_holes = true;
	}
	write_all(output->fd, zeroes, length, offset, output->name);
}

/* Writes a part of a cell, with a hole for each HOLE of zeroes; what is not, in pieces as large as can be. */
static void write_sparse(struct output *output, const unsigned char *data, uint64_t offset, uint32_t length)
{
	uint32_t begin = 0, at = 0;
	bool zero = false;

	while (at < length) {
		uint32_t part = HOLE - (uint32_t)((offset + at) % HOLE);
		bool is;

		if (part > length - at)
			part = length - at;
		is = is_zero(data + at, part);
		if (at > begin && is != zero) {
			if (zero)
				write_zeroes(output, offset + begin, at - begin);
			else
				write_all(output->fd, data + begin, at - begin, offset + begin, output->name);
			begin = at;
		}
		zero = is;
		at += part;
	}
	if (zero)
		write_zeroes(output, offset + begin, at - begin);
	else
		write_all(output->fd, data + begin, at - begin, offset + begin, output->name);
}

static void make_durable(int fd, const char *name)
{
	if (fdatasync(fd) < 0)
		die("cannot write %s: %s", name, strerror(errno));
}

/* --- the files of a backup ---------------------------------------------------------------------------------------- */

struct files {
	struct sink sink;
	struct output data;
	const char *index_name;
	int index;
	struct unwritten unwritten;
	bool packed;
	uint64_t position;		/* of the next piece, in a packed file */
	uint64_t size;			/* of the device, for a raw file */
	uint64_t unsynced;
	time_t checkpoint;		/* when the last one was */
	char *lines;			/* of the index, that wait until their data is on the disk */
	size_t line_count, line_room;
};

static time_t seconds(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
	return time.tv_sec;
}

static int open_file(const char *path, int more)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | more, 0600);

	if (fd < 0)
		die("cannot make %s: %s", path, strerror(errno));
	return fd;
}

static void add_line(struct files *files, const struct piece *piece)
{
	if (files->line_count == files->line_room) {
		files->line_room = files->line_room ? 2 * files->line_room : 1024;
		files->lines = realloc(files->lines, files->line_room * LINE_BYTES);
		if (!files->lines)
			die("no memory");
	}
	piece_print(piece, files->lines + files->line_count++ * LINE_BYTES);
}

/* At the beginning: when its image has gone it cannot be read, whatever has its name then. */
void unwritten_open(struct unwritten *unwritten, const char *name)
{
	unwritten->name = name;
	unwritten->fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	if (name && unwritten->fd < 0)
		die("cannot open %s: %s", name, strerror(errno));
}

void unwritten_check(const struct unwritten *unwritten)
{
	char text[32];
	ssize_t got;

	if (!unwritten->name)
		return;
	got = pread(unwritten->fd, text, sizeof(text), 0);
	if (got < 0)
		die("cannot read %s: %s: the image has gone", unwritten->name, strerror(errno));
	if (got != 2 || memcmp(text, "0\n", 2) != 0)
		die("the image was written to (was it mounted?), so it is not the snapshot any more");
}

/* First the data, then what says that it is there. */
static void checkpoint(struct files *files)
{
	make_durable(files->data.fd, files->data.name);
	posix_fadvise(files->data.fd, 0, 0, POSIX_FADV_DONTNEED);
	unwritten_check(&files->unwritten);
	write_all(files->index, files->lines, files->line_count * LINE_BYTES, UINT64_MAX, files->index_name);
	make_durable(files->index, files->index_name);
	files->line_count = 0;
	files->unsynced = 0;
	files->checkpoint = seconds();
}

static void files_store(struct sink *sink, const struct cell *cell)
{
	struct files *files = (struct files *)sink;

	write_sparse(&files->data, cell->data, cell->offset, cell->length);
}

static void pack(struct files *files, const struct cell *cell, const struct piece *piece)
{
	if (!cell->kept)
		write_all(files->data.fd, cell->data + (piece->offset - cell->offset), piece->length,
			  files->position, files->data.name);
	files->position += piece->length;
}

static void files_record(struct sink *sink, const struct cell *cell)
{
	struct files *files = (struct files *)sink;
	uint64_t before = files->unsynced;

	for (unsigned int i = 0; i < cell->count; i++) {
		const struct piece *piece = &cell->pieces[i];

		/* In a raw file, what has no line is zero. */
		if (piece->zero && !files->packed)
			continue;
		add_line(files, piece);
		if (piece->zero)
			continue;
		if (files->packed)
			pack(files, cell, piece);
		files->unsynced += cell->kept ? 0 : piece->length;
	}
	/* Begun early, so that little is left to wait for. */
	if (before / WRITEBACK != files->unsynced / WRITEBACK)
		sync_file_range(files->data.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	if (seconds() - files->checkpoint >= CHECKPOINT)
		checkpoint(files);
}

static void files_finish(struct sink *sink)
{
	struct files *files = (struct files *)sink;
	uint64_t size = files->packed ? files->position : files->size;

	if (ftruncate(files->data.fd, (off_t)size) < 0 || fsync(files->data.fd) < 0)
		die("cannot write %s: %s", files->data.name, strerror(errno));
	checkpoint(files);
	if (fsync(files->index) < 0 || close(files->index) < 0 || close(files->data.fd) < 0)
		die("cannot write %s: %s", files->index_name, strerror(errno));
}

/*
 * The index is made empty before anything is written to the data, so that it never tells of data that is being
 * overwritten.
 */
static struct files *open_files(const char *data, const char *index, const char *heading, const char *unwritten)
{
	struct files *files = allocate(sizeof(*files));
	struct stat stat;

	files->sink.record = files_record;
	files->sink.finish = files_finish;
	files->data.name = data;
	files->index_name = index;
	unwritten_open(&files->unwritten, unwritten);
	files->index = open_file(index, O_TRUNC | O_APPEND);
	write_all(files->index, heading, strlen(heading), UINT64_MAX, index);
	write_all(files->index, "\n", 1, UINT64_MAX, index);
	make_durable(files->index, index);
	files->data.fd = open_file(data, 0);
	if (fstat(files->data.fd, &stat) < 0)
		die("%s: %s", data, strerror(errno));
	files->data.blank = stat.st_size == 0;
	files->checkpoint = seconds();
	return files;
}

struct sink *sink_raw(const char *data, const char *index, const char *heading, const char *unwritten, uint64_t size)
{
	struct files *files = open_files(data, index, heading, unwritten);

	files->sink.store = files_store;
	files->size = size;
	if (ftruncate(files->data.fd, (off_t)size) < 0)
		die("cannot make %s of %" PRIu64 " bytes: %s", data, size, strerror(errno));
	return &files->sink;
}

struct sink *sink_packed(const char *data, const char *index, const char *heading, const char *unwritten)
{
	struct files *files = open_files(data, index, heading, unwritten);

	files->packed = true;
	return &files->sink;
}

/* --- what is restored --------------------------------------------------------------------------------------------- */

struct target {
	struct sink sink;
	struct output output;
	uint64_t unsynced;
};

static void target_store(struct sink *sink, const struct cell *cell)
{
	struct target *target = (struct target *)sink;

	write_sparse(&target->output, cell->data, cell->offset, cell->length);
}

static void target_record(struct sink *sink, const struct cell *cell)
{
	struct target *target = (struct target *)sink;

	target->unsynced += cell->length;
	if (target->output.device || target->unsynced < WRITEBACK)
		return;
	target->unsynced = 0;
	sync_file_range(target->output.fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static void target_finish(struct sink *sink)
{
	struct target *target = (struct target *)sink;

	if (fsync(target->output.fd) < 0 || close(target->output.fd) < 0)
		die("cannot write %s: %s", target->output.name, strerror(errno));
}

/* That it is there, and not made here, is what keeps one that has gone from being made anew in the middle of a stream. */
static void open_restored(struct output *output, uint64_t size, bool update)
{
	struct stat stat;

	output->blank = !update;
	output->fd = open(output->name, O_RDWR | O_CLOEXEC);
	if (output->fd < 0 || fstat(output->fd, &stat) < 0)
		die("cannot open %s: %s", output->name, strerror(errno));
	if (!S_ISREG(stat.st_mode) || (stat.st_size != 0) != update)
		die("%s is not %s any more", output->name, update ? "what was restored before" : "an empty file");
	if (ftruncate(output->fd, (off_t)size) < 0)
		die("cannot make %s of %" PRIu64 " bytes: %s", output->name, size, strerror(errno));
}

/* What ends within a block of the device can only be written through the page cache. */
static void allow_end(struct output *output, uint64_t size)
{
	int block, flags = fcntl(output->fd, F_GETFL);

	if (flags < 0 || ioctl(output->fd, BLKSSZGET, &block) < 0)
		die("cannot open %s: %s", output->name, strerror(errno));
	if (size % (unsigned int)block && fcntl(output->fd, F_SETFL, flags & ~O_DIRECT) < 0)
		die("cannot open %s: %s", output->name, strerror(errno));
}

static void open_device(struct output *output, uint64_t size, bool larger)
{
	struct stat stat;
	uint64_t has;

	output->device = true;
	output->fd = open(output->name, O_RDWR | O_EXCL | O_DIRECT | O_CLOEXEC);
	if (output->fd < 0 && errno == EBUSY)
		die("%s is in use: it, or a part of it, is mounted, or held by swap, LVM, md or the like (see lsblk)",
		    output->name);
	if (output->fd < 0 || fstat(output->fd, &stat) < 0)
		die("cannot open %s: %s", output->name, strerror(errno));
	if (!S_ISBLK(stat.st_mode))
		die("%s is not a block device any more", output->name);
	if (ioctl(output->fd, BLKGETSIZE64, &has) < 0)
		die("cannot open %s: %s", output->name, strerror(errno));
	if (has < size || (has > size && !larger))
		die("%s has %" PRIu64 " bytes, and the backup %" PRIu64 "%s", output->name, has, size,
		    has > size ? " (--larger restores to its beginning)" : "");
	allow_end(output, size);
}

struct sink *sink_target(const char *path, uint64_t size, enum target_kind kind, bool larger)
{
	struct target *target = allocate(sizeof(*target));

	target->sink.store = target_store;
	target->sink.record = target_record;
	target->sink.finish = target_finish;
	target->output.name = path;
	if (kind == TARGET_DEVICE)
		open_device(&target->output, size, larger);
	else
		open_restored(&target->output, size, kind == TARGET_UPDATE);
	return &target->sink;
}

/* --- nowhere ------------------------------------------------------------------------------------------------------ */

static void none_record(struct sink *sink, const struct cell *cell)
{
	(void)sink;
	(void)cell;
}

static void none_finish(struct sink *sink)
{
	(void)sink;
}

struct sink *sink_none(void)
{
	struct sink *sink = allocate(sizeof(*sink));

	sink->record = none_record;
	sink->finish = none_finish;
	return sink;
}
