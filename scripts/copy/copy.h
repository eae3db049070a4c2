/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of blksnap-copy share: a device is copied in cells of 1 MiB. A source says which cells there are, in the
 * order of the device, and reads them; a sink stores them. See run.c for who calls what, and when.
 */
#ifndef COPY_H
#define COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CELL (1024u * 1024u)
#define ALIGNMENT 4096u
#define HOLE (64u * 1024u)		/* the smallest hole that is looked for in a cell */
#define MAX_EXTENTS (CELL / ALIGNMENT)
#define SUM_BYTES 32
#define LINE_BYTES 94

enum { EXIT_FAILED = 1, EXIT_WRONG_USAGE = 2, EXIT_DAMAGED = 3 };

/* A part of the device, with its SHA-256; or one of which all bytes are zero. */
struct piece {
	uint64_t offset;
	uint32_t length;
	bool zero;
	uint64_t at;			/* where it lies in the data file */
	unsigned char sum[SUM_BYTES];
};

/* index.c */

struct index {
	char *path;
	struct piece *pieces;
	size_t count;
	uint64_t data_size;		/* what a packed data file has */
};

/*
 * Reads an index. Unless it is partial, anything that is not a whole line, in order, with pieces that do not cross cells,
 * is fatal; in a partial one it is the end. Lines that begin with '#' are skipped. With packed, the data file has the
 * pieces one after the other; else each where it is on the device.
 */
void index_load(struct index *index, const char *path, bool packed, bool partial);

/* The first piece that ends behind the offset; index->count if there is none. */
size_t index_find(const struct index *index, uint64_t offset);

/* A piece as a line of LINE_BYTES, without an end; and back: false if it is not one. */
void piece_print(const struct piece *piece, char *line);
bool piece_parse(const char *line, struct piece *piece);
void sum_print(const unsigned char *sum, char *text);

/* run.c */

struct cell {
	uint64_t turn;			/* cells are numbered as they are planned */
	uint64_t offset;
	uint32_t length;
	unsigned int count;
	struct piece pieces[MAX_EXTENTS];	/* what of the cell is copied, in order */
	bool kept;			/* of an interrupted copy: there already, sums included */
	bool summed;			/* the source knows the sums */
	unsigned char *data;		/* CELL bytes, those of the cell from the first on */
};

struct source {
	/* Plans the next cell; false if there is none. One caller at a time. */
	bool (*plan)(struct source *source, struct cell *cell);
	/* Reads what was planned. Many callers at a time. */
	void (*load)(struct source *source, struct cell *cell);
	uint64_t total;			/* bytes that will be copied, 0 if that is not known */
};

struct sink {
	/* Writes what needs no order. Many callers at a time; may be NULL. */
	void (*store)(struct sink *sink, const struct cell *cell);
	/* Each cell in its turn, after its store. */
	void (*record)(struct sink *sink, const struct cell *cell);
	void (*finish)(struct sink *sink);
};

/* Copies all of it. label: NULL, or what progress is shown under, on stderr. */
void run(struct source *source, struct sink *sink, const char *label);

bool is_zero(const unsigned char *data, size_t length);
void sum_of(const void *data, size_t length, unsigned char *sum);

/* sources.c */

struct map {
	unsigned char *bytes;		/* NULL: there is none */
	uint64_t count;
	uint64_t block_size;
};

struct image_options {
	struct map map;
	int since;			/* -1: everything; else blocks with a larger byte */
	const struct index *kept;	/* of an interrupted copy, or NULL */
	int kept_since;			/* blocks with a larger byte are not kept */
	uint64_t diskseq;		/* of the disk that it has to be; UINT64_MAX: any */
};

struct source *source_image(const char *path, const struct image_options *options, uint64_t *size);

struct member {
	bool packed;			/* an increment */
	const char *data;
	struct index index;
};

/*
 * What a chain comes to: a full, and increments. With keep_going, damage is counted and not fatal, and of an increment
 * alone only what it has is read: for checking.
 */
struct source *source_chain(const struct member *members, size_t count, uint64_t size, bool keep_going);
unsigned int chain_damages(void);

/* sinks.c */

/* A file with a number that has to be 0: how much was written to the image that is copied. name: NULL if there is none. */
struct unwritten {
	const char *name;
	int fd;
};

void unwritten_open(struct unwritten *unwritten, const char *name);

/* What was read up to now is what the image was, else it is fatal. */
void unwritten_check(const struct unwritten *unwritten);

/* unwritten: the name of such a file, or NULL; it is looked at whenever something is indexed. */
struct sink *sink_raw(const char *data, const char *index, const char *heading, const char *unwritten, uint64_t size);
struct sink *sink_packed(const char *data, const char *index, const char *heading, const char *unwritten);
struct sink *sink_none(void);

enum target_kind {
	TARGET_NEW,			/* an empty file */
	TARGET_UPDATE,			/* one that has what was restored before */
	TARGET_DEVICE,			/* a block device that nobody else uses */
};

/* It is there, whatever it is. larger: the device may be larger than what is restored. */
struct sink *sink_target(const char *path, uint64_t size, enum target_kind kind, bool larger);

/* stream.c */

/* Pieces and data from standard input, up to their end; and to standard output. unwritten: looked at before the end. */
struct source *source_stream(uint64_t size);
struct sink *sink_stream(const char *unwritten);

/* main.c */

void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *allocate(size_t size);

/* Fatal if it cannot all be read or written; name is what the message calls it. */
void read_all(int fd, void *data, size_t length, uint64_t offset, const char *name);
void write_all(int fd, const void *data, size_t length, uint64_t offset, const char *name);

#endif
