// SPDX-License-Identifier: GPL-2.0
/*
 * The index of a backup: a line for each piece of the device that its data file has,
 *
 *	OFFSET LENGTH SHA256
 *
 * in bytes, in the order of the device, all lines of one length; `zero` in place of a checksum says that there is nothing
 * but zeroes, and no data. No piece crosses a boundary of a cell (1 MiB). Lines that begin with '#' say what it is.
 *
 * While a backup is written, a line is added only when its data is on the disk. So whatever has become of it, its index
 * tells what it has.
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "copy.h"


void sum_print(const unsigned char *sum, char *text)
{
	for (unsigned int i = 0; i < SUM_BYTES; i++)
		sprintf(text + 2 * i, "%02x", sum[i]);
}

static bool sum_parse(const char *text, unsigned char *sum)
{
	for (unsigned int i = 0; i < SUM_BYTES; i++) {
		char digits[3] = { text[2 * i], text[2 * i + 1] };

		if (!isxdigit((unsigned char)digits[0]) || !isxdigit((unsigned char)digits[1]))
			return false;
		sum[i] = (unsigned char)strtoul(digits, NULL, 16);
	}
	return text[2 * SUM_BYTES] == '\0';
}

void piece_print(const struct piece *piece, char *line)
{
	char text[LINE_BYTES + 1], sum[2 * SUM_BYTES + 1] = "zero";

	if (!piece->zero)
		sum_print(piece->sum, sum);
	snprintf(text, sizeof(text), "%20" PRIu64 " %7" PRIu32 " %-64s\n", piece->offset, piece->length, sum);
	memcpy(line, text, LINE_BYTES);
}

bool piece_parse(const char *line, struct piece *piece)
{
	char text[LINE_BYTES + 1], again[LINE_BYTES], sum[2 * SUM_BYTES + 1];

	memcpy(text, line, LINE_BYTES);
	text[LINE_BYTES] = '\0';
	memset(piece, 0, sizeof(*piece));
	if (sscanf(text, "%20" SCNu64 " %7" SCNu32 " %64s", &piece->offset, &piece->length, sum) != 3)
		return false;
	piece->zero = strcmp(sum, "zero") == 0;
	if (!piece->zero && !sum_parse(sum, piece->sum))
		return false;
	if (!piece->length || piece->length > CELL || piece->offset > INT64_MAX - CELL ||
	    piece->offset / CELL != (piece->offset + piece->length - 1) / CELL)
		return false;
	/* There is one way only to write it. */
	piece_print(piece, again);
	return memcmp(line, again, LINE_BYTES) == 0;
}

/* Adds what the line says; false if it does not follow. */
static bool index_add(struct index *index, const char *line, bool packed)
{
	struct piece *last = index->count ? &index->pieces[index->count - 1] : NULL;
	struct piece piece;

	if (!piece_parse(line, &piece) || (last && piece.offset < last->offset + last->length))
		return false;
	if (!(index->count & (index->count - 1))) {
		size_t room = index->count ? 2 * index->count : 1;

		index->pieces = realloc(index->pieces, room * sizeof(piece));
		if (!index->pieces)
			die("no memory for the index %s", index->path);
	}
	piece.at = packed ? index->data_size : piece.offset;
	if (!piece.zero)
		index->data_size += piece.length;
	index->pieces[index->count++] = piece;
	return true;
}

void index_load(struct index *index, const char *path, bool packed, bool partial)
{
	FILE *file = fopen(path, "re");
	unsigned int number = 0;
	char *line = NULL;
	size_t room = 0;
	ssize_t length;

	memset(index, 0, sizeof(*index));
	index->path = strdup(path);
	if (!file || !index->path)
		die("cannot read %s: %s", path, strerror(errno));
	while ((length = getline(&line, &room, file)) > 0) {
		number++;
		if (line[0] == '#' && line[length - 1] == '\n')
			continue;
		if (length == LINE_BYTES && index_add(index, line, packed))
			continue;
		if (partial)
			break;
		die("%s: line %u is not a line of an index, or not in order", path, number);
	}
	if (ferror(file))
		die("cannot read %s: %s", path, strerror(errno));
	free(line);
	fclose(file);
}

size_t index_find(const struct index *index, uint64_t offset)
{
	size_t low = 0, high = index->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (index->pieces[middle].offset + index->pieces[middle].length > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}
