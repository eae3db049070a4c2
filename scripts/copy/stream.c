// SPDX-License-Identifier: GPL-2.0
/*
 * Both ends of a pipe: for each piece its line, as in an index, and its data; then a line that begins with "end", with the
 * sum over all lines. So what was cut off, or put together from parts, is noticed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "copy.h"

struct stream {
	struct source source;
	uint64_t size;
	uint64_t end;			/* of the piece before */
	unsigned char sum[SUM_BYTES];	/* of all lines so far, chained */
};

/*
 * The sum over lines: that of the sum so far and of the line. Both ends of a pipe count so, and the last line tells what
 * it came to.
 */
static void sum_line(unsigned char *sum, const char *line)
{
	unsigned char both[SUM_BYTES + LINE_BYTES];

	memcpy(both, sum, SUM_BYTES);
	memcpy(both + SUM_BYTES, line, LINE_BYTES);
	sum_of(both, sizeof(both), sum);
}

static void end_line(const unsigned char *sum, char *line)
{
	char text[LINE_BYTES + 1], digits[2 * SUM_BYTES + 1];

	sum_print(sum, digits);
	snprintf(text, sizeof(text), "%-28s %-64s\n", "end", digits);
	memcpy(line, text, LINE_BYTES);
}

static void read_input(void *data, size_t length)
{
	size_t done = 0;

	while (done < length) {
		ssize_t got = read(STDIN_FILENO, (char *)data + done, length - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			die("cannot read the stream: %s", strerror(errno));
		if (got == 0)
			die("the stream ends before its end line: it is not complete");
		done += (size_t)got;
	}
}

/* A cell for each piece. */
static bool stream_plan(struct source *source, struct cell *cell)
{
	struct stream *stream = (struct stream *)source;
	char line[LINE_BYTES], last[LINE_BYTES];
	struct piece piece;

	read_input(line, LINE_BYTES);
	if (!piece_parse(line, &piece)) {
		end_line(stream->sum, last);
		if (memcmp(line, last, LINE_BYTES) != 0)
			die("the stream is damaged behind the block at %" PRIu64, stream->end);
		return false;
	}
	if (piece.offset < stream->end || piece.offset + piece.length > stream->size)
		die("the stream is damaged: the block at %" PRIu64 " follows %" PRIu64, piece.offset, stream->end);
	stream->end = piece.offset + piece.length;
	sum_line(stream->sum, line);
	cell->offset = piece.offset;
	cell->length = piece.length;
	cell->count = 1;
	cell->pieces[0] = piece;
	cell->summed = true;
	if (piece.zero)
		memset(cell->data, 0, piece.length);
	else
		read_input(cell->data, piece.length);
	return true;
}

static void stream_load(struct source *source, struct cell *cell)
{
	const struct piece *piece = &cell->pieces[0];
	unsigned char sum[SUM_BYTES];

	(void)source;
	if (piece->zero)
		return;
	sum_of(cell->data, piece->length, sum);
	if (memcmp(sum, piece->sum, SUM_BYTES) != 0)
		die("the stream is damaged: the block at %" PRIu64 ", %" PRIu32 " bytes, is not what was backed up",
		    piece->offset, piece->length);
}

struct source *source_stream(uint64_t size)
{
	struct stream *stream = allocate(sizeof(*stream));

	stream->source.plan = stream_plan;
	stream->source.load = stream_load;
	stream->size = size;
	return &stream->source;
}

/* The other end of it. */

struct stream_sink {
	struct sink sink;
	struct unwritten unwritten;
	unsigned char sum[SUM_BYTES];
};

static void stream_record(struct sink *sink, const struct cell *cell)
{
	struct stream_sink *stream = (struct stream_sink *)sink;
	char line[LINE_BYTES];

	for (unsigned int i = 0; i < cell->count; i++) {
		const struct piece *piece = &cell->pieces[i];

		piece_print(piece, line);
		sum_line(stream->sum, line);
		write_all(STDOUT_FILENO, line, LINE_BYTES, UINT64_MAX, "the pipe");
		if (!piece->zero)
			write_all(STDOUT_FILENO, cell->data + (piece->offset - cell->offset), piece->length,
				  UINT64_MAX, "the pipe");
	}
}

static void stream_finish(struct sink *sink)
{
	struct stream_sink *stream = (struct stream_sink *)sink;
	char line[LINE_BYTES];

	/* Without its end nobody takes it for a backup. */
	unwritten_check(&stream->unwritten);
	end_line(stream->sum, line);
	write_all(STDOUT_FILENO, line, LINE_BYTES, UINT64_MAX, "the pipe");
}

struct sink *sink_stream(const char *unwritten)
{
	struct stream_sink *stream = allocate(sizeof(*stream));

	stream->sink.record = stream_record;
	stream->sink.finish = stream_finish;
	unwritten_open(&stream->unwritten, unwritten);
	return &stream->sink;
}
