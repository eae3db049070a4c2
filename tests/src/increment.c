// SPDX-License-Identifier: GPL-2.0
/*
 * increment IMAGE COPY [FILE]: brings COPY, a file, from the snapshot that it
 * holds to that of IMAGE, with what the image's change map says, and then knows
 * whether the map was right: COPY must be equal to the image, byte for byte.
 *
 * With FILE, which the origin is made of and nothing was ever discarded in, only
 * the places where FILE has data are looked at: elsewhere all are zeroes.
 *
 * COPY.chain remembers the snapshot that COPY holds. The first time, and when
 * neither the image's generation nor its base goes on from there, all is copied.
 *
 * Prints mode=full|increment|wrap, number=, blocks= (of the map), reported= (as
 * changed since), same= (of them, those that were equal all the same) and
 * missed= (not reported, but not equal).
 *
 * increment --takes COUNT MS SESSION OTHER COPY: takes two sessions in turn, so
 * often, one each MS milliseconds if it can. They are directories of configfs,
 * with one snapshot of the same origin each, s1. One is taken before the other
 * is released, so one is always active. Each image is compared as above. All maps are
 * kept, and in the end they are looked at as a whole: from one to the next a byte
 * stays, or becomes the new number (torn= counts others); and what differs
 * between the first image and the last one was reported in one of them (lost=
 * counts others). Prints besides takes=, mean_ms= and longest_ms= of a take with
 * all that belongs to it, and changed=, blocks that were reported at all.
 *
 * Exit codes: 0 nothing was missed; 1 something was, or the map is not one; 2
 * usage; 3 an I/O error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PIECE (1024 * 1024)
#define SHOWN 10

struct map {
	char generation[64];
	char base[64];
	unsigned int number;
	uint64_t block_size;
	uint64_t blocks;
	unsigned char *bytes;
};

struct sums {
	uint64_t reported;
	uint64_t same;
	uint64_t missed;
};

static void die(int code, const char *format, ...)
{
	va_list args;

	fputs("increment: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(code);
}

/* A short text file, without its newline. */
static void read_line(const char *path, char *line, size_t size)
{
	FILE *file = fopen(path, "re");

	if (!file)
		die(3, "%s: %s", path, strerror(errno));
	if (!fgets(line, (int)size, file))
		line[0] = '\0';
	line[strcspn(line, "\n")] = '\0';
	fclose(file);
}

static void read_attribute(const char *image, const char *name, char *line,
			   size_t size)
{
	char path[256];

	snprintf(path, sizeof(path), "/sys/block/%s/cbt/%s",
		 strrchr(image, '/') + 1, name);
	read_line(path, line, size);
}

static void read_bytes(const char *image, struct map *map)
{
	uint64_t done = 0;
	char path[256];
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/sys/block/%s/cbt/map",
		 strrchr(image, '/') + 1);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	map->bytes = malloc(map->blocks + 1);
	if (fd < 0 || !map->bytes)
		die(3, "%s: %s", path, strerror(errno));
	/* One byte more, to see that there is none. */
	while ((got = read(fd, map->bytes + done, map->blocks + 1 - done)) > 0)
		done += (uint64_t)got;
	close(fd);
	if (got < 0)
		die(3, "%s: %s", path, strerror(errno));
	if (done != map->blocks)
		die(1, "the map has %" PRIu64 " bytes for %" PRIu64 " blocks",
		    done, map->blocks);
}

static void read_map(const char *image, uint64_t size, struct map *map)
{
	char text[64];

	read_attribute(image, "generation", map->generation,
		       sizeof(map->generation));
	read_attribute(image, "base", map->base, sizeof(map->base));
	read_attribute(image, "number", text, sizeof(text));
	map->number = (unsigned int)strtoul(text, NULL, 10);
	read_attribute(image, "block_size", text, sizeof(text));
	map->block_size = strtoull(text, NULL, 10);
	if (strlen(map->generation) != 36 || !map->number ||
	    map->number > 255 || map->block_size < 512)
		die(1, "not a map: generation %s, number %u, block_size %s",
		    map->generation, map->number, text);
	map->blocks = (size + map->block_size - 1) / map->block_size;
	read_bytes(image, map);
	for (uint64_t i = 0; i < map->blocks; i++)
		if (map->bytes[i] > map->number)
			die(1, "block %" PRIu64 " has changed in the future: %u",
			    i, map->bytes[i]);
}

/* From which number on the map tells what changed; -1: all has to be read. */
static int since(const char *chain_path, const struct map *map,
		 const char **mode)
{
	char chain[64], generation[64];
	unsigned int number;

	*mode = "full";
	if (access(chain_path, F_OK) < 0)
		return -1;
	read_line(chain_path, chain, sizeof(chain));
	if (sscanf(chain, "%63s %u", generation, &number) != 2)
		die(3, "%s: %s", chain_path, chain);
	if (!strcmp(generation, map->generation) && number < map->number) {
		*mode = "increment";
		return (int)number;
	}
	if (!strcmp(chain, map->base)) {
		*mode = "wrap";
		return 0;
	}
	return -1;
}

static void write_chain(const char *path, const struct map *map)
{
	FILE *file = fopen(path, "we");

	if (!file || fprintf(file, "%s %u\n", map->generation,
			     map->number) < 0 || fclose(file))
		die(3, "%s: %s", path, strerror(errno));
}

enum { DIFFERS = 1, MISSED = 2 };	/* what was seen of a block so far */

/* A part of one block: at the offset, in the image and in the copy. */
static void take_part(const struct map *map, int from, uint64_t offset,
		      const char *image, char *copy, size_t length,
		      struct sums *sums, int *state)
{
	uint64_t block = offset / map->block_size;
	int reported = map->bytes[block] > from;
	int equal = !memcmp(image, copy, length);

	if (!equal && !reported && !(*state & MISSED)) {
		if (sums->missed++ < SHOWN)
			fprintf(stderr,
				"increment: block %" PRIu64 " at %" PRIu64
				" differs, but changed in %u, not after %d\n",
				block, offset, map->bytes[block], from);
		*state |= MISSED;
	}
	if (!equal)
		*state |= DIFFERS;
	if (!equal && reported)
		memcpy(copy, image, length);
}

static void end_block(const struct map *map, int from, uint64_t block,
		      struct sums *sums, int *state)
{
	if (map->bytes[block] > from) {
		sums->reported++;
		sums->same += !(*state & DIFFERS);
	}
	*state = 0;
}

/* The next place with data, from a whole piece and block on; the end if none is. */
static uint64_t next_data(int where, uint64_t at, uint64_t size,
			  const struct map *map)
{
	uint64_t unit = map->block_size > PIECE ? map->block_size : PIECE;
	off_t data;

	if (where < 0 || at % unit)
		return at;
	data = lseek(where, (off_t)at, SEEK_DATA);
	if (data < 0 && errno != ENXIO)
		die(3, "SEEK_DATA: %s", strerror(errno));
	return data < 0 ? size : (uint64_t)data / unit * unit;
}

static void compare(int fd, int where, char *copy, uint64_t size,
		    const struct map *map, int from, struct sums *sums)
{
	char *piece;
	int state = 0;

	if (posix_memalign((void **)&piece, 4096, PIECE))
		die(3, "no memory");
	for (uint64_t at = next_data(where, 0, size, map); at < size;
	     at = next_data(where, at, size, map)) {
		uint64_t left = size - at < PIECE ? size - at : PIECE;
		ssize_t got = pread(fd, piece, left, (off_t)at);

		if (got <= 0)
			die(3, "the image at %" PRIu64 ": %s", at,
			    got ? strerror(errno) : "end of file");
		for (uint64_t done = 0; done < (uint64_t)got;) {
			uint64_t offset = at + done;
			uint64_t end = (offset / map->block_size + 1) *
				       map->block_size;
			uint64_t length = (uint64_t)got - done;

			if (offset + length > end)
				length = end - offset;
			take_part(map, from, offset, piece + done,
				  copy + offset, length, sums, &state);
			done += length;
			if (offset + length == end || offset + length == size)
				end_block(map, from, offset / map->block_size,
					  sums, &state);
		}
		at += (uint64_t)got;
	}
	free(piece);
}

struct copy {
	const char *path;
	char chain[4096];
	char *bytes;
	uint64_t size;
};

static void open_copy(struct copy *copy, uint64_t size)
{
	int file = open(copy->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (file < 0 || ftruncate(file, (off_t)size) < 0)
		die(3, "%s: %s", copy->path, strerror(errno));
	copy->bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file,
			   0);
	if (copy->bytes == MAP_FAILED)
		die(3, "%s: %s", copy->path, strerror(errno));
	close(file);
	copy->size = size;
	snprintf(copy->chain, sizeof(copy->chain), "%s.chain", copy->path);
}

/* Brings the copy to the image; returns how. The map stays. */
static const char *bring(const char *path, int where, struct copy *copy,
			 struct map *map, struct sums *sums)
{
	int image = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	const char *mode;
	uint64_t size;
	int from;

	if (image < 0 || ioctl(image, BLKGETSIZE64, &size) < 0)
		die(3, "%s: %s", path, strerror(errno));
	if (!copy->bytes)
		open_copy(copy, size);
	if (copy->size != size)
		die(3, "%s: another size", path);
	read_map(path, size, map);
	from = since(copy->chain, map, &mode);
	compare(image, where, copy->bytes, size, map, from, sums);
	write_chain(copy->chain, map);
	close(image);
	return mode;
}

/* One image. */
static int increment(const char *path, const char *copy_path, const char *file)
{
	struct copy copy = { .path = copy_path };
	struct sums sums = { 0 };
	struct map map = { 0 };
	const char *mode;
	int where = -1;

	if (file) {
		where = open(file, O_RDONLY | O_CLOEXEC);
		if (where < 0)
			die(3, "%s: %s", file, strerror(errno));
	}
	mode = bring(path, where, &copy, &map, &sums);
	printf("mode=%s\n", mode);
	printf("number=%u\n", map.number);
	printf("blocks=%" PRIu64 "\n", map.blocks);
	printf("reported=%" PRIu64 "\n", sums.reported);
	printf("same=%" PRIu64 "\n", sums.same);
	printf("missed=%" PRIu64 "\n", sums.missed);
	return sums.missed ? 1 : 0;
}

static double now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static void sleep_ms(double ms)
{
	struct timespec time = {
		.tv_sec = (time_t)(ms / 1e3),
		.tv_nsec = (long)(ms * 1e6) % 1000000000,
	};

	if (ms > 0)
		nanosleep(&time, NULL);
}

static void set_active(const char *session, const char *value)
{
	char path[4096];
	int fd;

	snprintf(path, sizeof(path), "%s/active", session);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		die(3, "%s = %s: %s", path, value, strerror(errno));
	close(fd);
}

/* From one map to the next a byte stays, or becomes the number of the next. */
static uint64_t count_torn(const struct map *before, const struct map *map)
{
	bool same = !strcmp(before->generation, map->generation);
	uint64_t torn = 0;

	for (uint64_t i = 0; i < map->blocks; i++)
		torn += map->bytes[i] != map->number &&
			map->bytes[i] != (same ? before->bytes[i] : 0);
	return torn;
}

/* What differs between two images, and was in no map. */
static uint64_t count_lost(const char *first, const struct copy *copy,
			   const struct map *map, const bool *changed)
{
	uint64_t lost = 0;

	for (uint64_t i = 0; i < map->blocks; i++) {
		uint64_t at = i * map->block_size, left = copy->size - at;

		if (left > map->block_size)
			left = map->block_size;
		lost += !changed[i] && memcmp(first + at, copy->bytes + at, left);
	}
	return lost;
}

static int take_turns(unsigned int takes, double every, char **sessions,
		      const char *copy_path)
{
	double started = now_ms(), begun, took, longest = 0;
	struct copy copy = { .path = copy_path };
	struct map map = { 0 }, before;
	uint64_t torn = 0, lost, all = 0;
	struct sums sums = { 0 };
	char path[4096], image[256];
	char *first = NULL;
	bool *changed = NULL;

	for (unsigned int i = 0; i < takes; i++) {
		char *session = sessions[i % 2], *other = sessions[(i + 1) % 2];
		const char *mode;

		begun = now_ms();
		before = map;
		memset(&map, 0, sizeof(map));
		set_active(session, "1");
		snprintf(path, sizeof(path), "%s/s1/image", session);
		read_line(path, image, sizeof(image));
		mode = bring(image, -1, &copy, &map, &sums);
		if (!i) {
			memset(&sums, 0, sizeof(sums));
			first = malloc(copy.size);
			changed = calloc(map.blocks, sizeof(*changed));
			if (!first || !changed)
				die(3, "no memory");
			memcpy(first, copy.bytes, copy.size);
		} else {
			if (!strcmp(mode, "full"))
				die(1, "take %u begins a new chain", i + 1);
			torn += count_torn(&before, &map);
			for (uint64_t b = 0; b < map.blocks; b++)
				changed[b] |= map.bytes[b] == map.number;
			free(before.bytes);
			set_active(other, "0");
		}
		took = now_ms() - begun;
		if (took > longest)
			longest = took;
		sleep_ms(every - took);
	}
	lost = count_lost(first, &copy, &map, changed);
	for (uint64_t b = 0; b < map.blocks; b++)
		all += changed[b];
	printf("takes=%u\nmean_ms=%.0f\nlongest_ms=%.0f\n", takes,
	       (now_ms() - started) / takes, longest);
	printf("reported=%" PRIu64 "\nchanged=%" PRIu64 "\n", sums.reported,
	       all);
	printf("missed=%" PRIu64 "\ntorn=%" PRIu64 "\nlost=%" PRIu64 "\n",
	       sums.missed, torn, lost);
	return sums.missed || torn || lost ? 1 : 0;
}

int main(int argc, char **argv)
{
	if (argc == 7 && !strcmp(argv[1], "--takes") && atoi(argv[2]) > 0)
		return take_turns((unsigned int)atoi(argv[2]), atof(argv[3]),
				  argv + 4, argv[6]);
	if (argc >= 3 && argc <= 4 && argv[1][0] == '/')
		return increment(argv[1], argv[2], argv[3]);
	fputs("increment /dev/IMAGE COPY [FILE]\n"
	      "increment --takes COUNT MS SESSION OTHER COPY\n", stderr);
	return 2;
}
