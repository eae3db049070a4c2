// SPDX-License-Identifier: GPL-2.0
/* Where cells come from: an image, or a chain of backups. A pipe: stream.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "copy.h"

/* Files that this process may have besides those of a chain: what it was started with, the target, one for each worker. */
#define OTHER_FILES 64

static uint32_t cell_length(uint64_t offset, uint64_t size)
{
	return size - offset < CELL ? (uint32_t)(size - offset) : CELL;
}

static void one_piece(struct cell *cell)
{
	cell->count = 1;
	cell->pieces[0] = (struct piece){ .offset = cell->offset, .length = cell->length };
}

/* What the index has in the cell. */
static void add_pieces(const struct index *index, struct cell *cell)
{
	uint64_t end = cell->offset + cell->length;

	for (size_t i = index_find(index, cell->offset); i < index->count && index->pieces[i].offset < end; i++) {
		if (cell->count == MAX_EXTENTS)
			die("%s: too many blocks at %" PRIu64, index->path, cell->offset);
		cell->pieces[cell->count++] = index->pieces[i];
	}
}

/* --- an image ----------------------------------------------------------------------------------------------------- */

struct image {
	struct source source;
	struct image_options options;
	const char *path;
	uint64_t kept_end;		/* what lies before it was copied already */
	uint64_t size;
	uint64_t next;
	int fd;
};

/* What the map says of the block at the offset. */
static unsigned int changed_in(const struct map *map, uint64_t offset)
{
	return map->bytes[offset / map->block_size];
}

/* The length of the block at the offset, from there on, and no further than the end. */
static uint32_t block_left(const struct map *map, uint64_t offset, uint64_t end)
{
	uint64_t block_end = (offset / map->block_size + 1) * map->block_size;

	return (uint32_t)((block_end < end ? block_end : end) - offset);
}

static bool any_changed(const struct map *map, const struct cell *cell, int since)
{
	uint64_t end = cell->offset + cell->length;

	if (!map->bytes)
		return false;
	for (uint64_t at = cell->offset; at < end; at += block_left(map, at, end))
		if ((int)changed_in(map, at) > since)
			return true;
	return false;
}

/* The changed blocks of the cell, neighbours as one piece. */
static void plan_changed(const struct image *image, struct cell *cell)
{
	const struct map *map = &image->options.map;
	uint64_t end = cell->offset + cell->length;
	struct piece *last = NULL;

	for (uint64_t at = cell->offset; at < end;) {
		uint32_t length = block_left(map, at, end);

		if ((int)changed_in(map, at) <= image->options.since) {
			last = NULL;
		} else if (last) {
			last->length += length;
		} else {
			last = &cell->pieces[cell->count++];
			*last = (struct piece){ .offset = at, .length = length };
		}
		at += length;
	}
}

/* Is the cell there, of a copy that was interrupted? Its pieces are those of that copy then. */
static bool plan_kept(const struct image *image, struct cell *cell)
{
	if (cell->offset + cell->length > image->kept_end ||
	    any_changed(&image->options.map, cell, image->options.kept_since))
		return false;
	cell->kept = true;
	add_pieces(image->options.kept, cell);
	return true;
}

static bool image_plan(struct source *source, struct cell *cell)
{
	struct image *image = (struct image *)source;

	for (; image->next < image->size; image->next += CELL) {
		cell->offset = image->next;
		cell->length = cell_length(cell->offset, image->size);
		if (image->options.since >= 0 && !any_changed(&image->options.map, cell, image->options.since))
			continue;
		if (!plan_kept(image, cell)) {
			if (image->options.since >= 0)
				plan_changed(image, cell);
			else
				one_piece(cell);
		}
		image->next += CELL;
		return true;
	}
	return false;
}

static void image_load(struct source *source, struct cell *cell)
{
	struct image *image = (struct image *)source;

	if (cell->kept)
		return;
	for (unsigned int i = 0; i < cell->count; i++) {
		const struct piece *piece = &cell->pieces[i];

		read_all(image->fd, cell->data + (piece->offset - cell->offset), piece->length, piece->offset,
			 image->path);
	}
}

/* Opens it to be read past the page cache, where that can be. */
static int open_directly(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);

	if (fd < 0 && errno == EINVAL)
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die("cannot open %s: %s", path, strerror(errno));
	return fd;
}

static uint64_t size_of(int fd, const char *path)
{
	struct stat stat;
	uint64_t size;

	if (fstat(fd, &stat) < 0)
		die("%s: %s", path, strerror(errno));
	if (!S_ISBLK(stat.st_mode))
		return (uint64_t)stat.st_size;
	if (ioctl(fd, BLKGETSIZE64, &size) < 0)
		die("%s: %s", path, strerror(errno));
	return size;
}

static uint64_t count_changed(const struct image *image)
{
	const struct map *map = &image->options.map;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < map->count; i++)
		if (map->bytes[i] > image->options.since)
			sum += block_left(map, i * map->block_size, image->size);
	return sum;
}

/* Its path may be that of another one by now, and the map as well: both had this number before. */
static void need_diskseq(int fd, const char *path, uint64_t wanted)
{
	uint64_t diskseq;

	if (wanted == UINT64_MAX)
		return;
	if (ioctl(fd, BLKGETDISKSEQ, &diskseq) < 0)
		die("%s: %s", path, strerror(errno));
	if (diskseq != wanted)
		die("%s is another image: that which was to be read has gone", path);
}

struct source *source_image(const char *path, const struct image_options *options, uint64_t *size)
{
	struct image *image = allocate(sizeof(*image));
	const struct map *map = &options->map;

	image->source.plan = image_plan;
	image->source.load = image_load;
	image->options = *options;
	image->path = path;
	image->fd = open_directly(path);
	need_diskseq(image->fd, path, options->diskseq);
	image->size = size_of(image->fd, path);
	if (map->bytes && map->count != (image->size + map->block_size - 1) / map->block_size)
		die("the change map has %" PRIu64 " bytes, and %s %" PRIu64, map->count, path, image->size);
	/* The last cell may be there in part only. */
	if (options->kept && options->kept->count)
		image->kept_end = options->kept->pieces[options->kept->count - 1].offset / CELL * CELL;
	image->source.total = options->since >= 0 ? count_changed(image) : image->size;
	*size = image->size;
	return &image->source;
}

/* --- a chain ------------------------------------------------------------------------------------------------------ */

struct chain {
	struct source source;
	const struct member *members;
	size_t count;
	uint64_t size;
	uint64_t next;
	bool keep_going;
	int fds[];			/* -1: opened for each read, as there are too many members */
};

static atomic_uint damages;

unsigned int chain_damages(void)
{
	return damages;
}

static void damaged(const struct chain *chain, const struct member *member, const struct piece *piece,
		    const char *what)
{
	damages++;
	complain("%s: the block at %" PRIu64 ", %" PRIu32 " bytes, %s (in the file at %" PRIu64 ")", member->data,
		 piece->offset, piece->length, what, piece->at);
	if (!chain->keep_going)
		die("nothing can be made of this chain from there on; see: blksnap verify");
}

/* Said is what no block can be read of, which is as bad as all of them. */
static _Noreturn void end_damaged(const struct chain *chain)
{
	_exit(chain->keep_going ? EXIT_DAMAGED : EXIT_FAILED);
}

static int open_member(const struct member *member)
{
	int fd = open(member->data, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die("cannot open %s: %s", member->data, strerror(errno));
	return fd;
}

/* The data of a member, and when that is no longer used. */
static int get_member(const struct chain *chain, size_t number)
{
	return chain->fds[number] < 0 ? open_member(&chain->members[number]) : chain->fds[number];
}

static void put_member(const struct chain *chain, size_t number, int fd)
{
	if (chain->fds[number] < 0)
		close(fd);
}

static bool read_piece(const struct chain *chain, size_t number, const struct piece *piece, unsigned char *data)
{
	const struct member *member = &chain->members[number];
	int fd = get_member(chain, number);
	const char *fault = NULL;
	uint32_t done = 0;

	while (done < piece->length && !fault) {
		ssize_t got = pread(fd, data + done, piece->length - done, (off_t)(piece->at + done));

		if (got > 0)
			done += (uint32_t)got;
		else if (!got || errno != EINTR)
			fault = got ? "cannot be read" : "is missing";
	}
	put_member(chain, number, fd);
	if (fault)
		damaged(chain, member, piece, fault);
	return !fault;
}

static void load_piece(const struct chain *chain, size_t number, const struct piece *piece, unsigned char *data)
{
	unsigned char sum[SUM_BYTES];

	if (piece->zero) {
		memset(data, 0, piece->length);
		return;
	}
	if (!read_piece(chain, number, piece, data))
		return;
	sum_of(data, piece->length, sum);
	if (memcmp(sum, piece->sum, SUM_BYTES) != 0)
		damaged(chain, &chain->members[number], piece, "is not what was backed up");
}

/* What a full has in no piece has to read as zeroes in its file. */
static void check_hole(const struct chain *chain, size_t number, const struct cell *cell)
{
	const struct member *member = &chain->members[number];
	struct piece piece = { .offset = cell->offset, .length = cell->length, .at = cell->offset };
	int fd = get_member(chain, number);
	off_t data = lseek(fd, (off_t)cell->offset, SEEK_DATA);
	bool at_end = data < 0 && errno == ENXIO;

	put_member(chain, number, fd);
	if (at_end || data >= (off_t)(cell->offset + cell->length))
		return;
	if (read_piece(chain, number, &piece, cell->data) && !is_zero(cell->data, cell->length))
		damaged(chain, member, &piece, "is not zero, as it was when it was backed up");
}

static bool has_pieces(const struct index *index, const struct cell *cell)
{
	size_t i = index_find(index, cell->offset);

	return i < index->count && index->pieces[i].offset < cell->offset + cell->length;
}

static bool chain_plan(struct source *source, struct cell *cell)
{
	struct chain *chain = (struct chain *)source;

	for (; chain->next < chain->size; chain->next += CELL) {
		cell->offset = chain->next;
		cell->length = cell_length(cell->offset, chain->size);
		if (chain->keep_going && chain->members[0].packed)
			add_pieces(&chain->members[0].index, cell);
		else
			one_piece(cell);
		if (!cell->count)
			continue;
		chain->next += CELL;
		return true;
	}
	return false;
}

static void chain_load(struct source *source, struct cell *cell)
{
	struct chain *chain = (struct chain *)source;
	uint64_t end = cell->offset + cell->length;

	memset(cell->data, 0, cell->length);
	for (size_t m = 0; m < chain->count; m++) {
		const struct index *index = &chain->members[m].index;
		size_t i = index_find(index, cell->offset);

		if (chain->keep_going && !chain->members[m].packed && !has_pieces(index, cell))
			check_hole(chain, m, cell);
		for (; i < index->count && index->pieces[i].offset < end; i++)
			load_piece(chain, m, &index->pieces[i],
				   cell->data + (index->pieces[i].offset - cell->offset));
	}
	/* Nobody wants the sum of what is only checked. */
	cell->summed = chain->keep_going;
}

/* How many members can be open all the time. */
static size_t member_room(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur <= OTHER_FILES)
		return 0;
	return limit.rlim_cur - OTHER_FILES;
}

struct source *source_chain(const struct member *members, size_t count, uint64_t size, bool keep_going)
{
	struct chain *chain = allocate(sizeof(*chain) + count * sizeof(int));
	size_t room = member_room();

	chain->source.plan = chain_plan;
	chain->source.load = chain_load;
	chain->source.total = size;
	chain->members = members;
	chain->count = count;
	chain->size = size;
	chain->keep_going = keep_going;
	for (size_t m = 0; m < count; m++) {
		const struct member *member = &members[m];
		const struct index *index = &member->index;
		const struct piece *last = index->count ? &index->pieces[index->count - 1] : NULL;
		uint64_t has, wanted = member->packed ? index->data_size : size;

		if (last && last->offset + last->length > size) {
			complain("%s goes beyond %" PRIu64 " bytes", index->path, size);
			end_damaged(chain);
		}
		chain->fds[m] = open_member(member);
		has = size_of(chain->fds[m], member->data);
		if (has != wanted) {
			complain("%s has %" PRIu64 " bytes, and should have %" PRIu64, member->data, has, wanted);
			end_damaged(chain);
		}
		posix_fadvise(chain->fds[m], 0, 0, POSIX_FADV_SEQUENTIAL);
		if (m < room)
			continue;
		close(chain->fds[m]);
		chain->fds[m] = -1;
	}
	if (keep_going && members[0].packed) {
		chain->source.total = 0;
		for (size_t i = 0; i < members[0].index.count; i++)
			chain->source.total += members[0].index.pieces[i].length;
	}
	return &chain->source;
}
