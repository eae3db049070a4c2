// SPDX-License-Identifier: GPL-2.0
/*
 * The workers. Each takes a cell, reads it, sums it, and writes it, so that as many cells are under way as there are
 * workers: the disk that is read gets its next requests while others are being summed and written.
 *
 *	plan	under a lock, in the order of the device
 *	load	all at the same time
 *	sum	all at the same time
 *	store	all at the same time
 *	record	each in its turn: what has an order (an index, a pipe) is written here
 */
#include <gcrypt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "copy.h"

#define WORKERS 8

static struct {
	pthread_mutex_t lock;		/* of all that follows */
	pthread_cond_t turned;
	struct source *source;
	struct sink *sink;
	uint64_t planned;		/* cells */
	uint64_t recorded;
	bool ended;
	uint64_t done;			/* bytes */
	uint64_t kept;
	const char *label;
	double started;
	double shown;
} work = { .lock = PTHREAD_MUTEX_INITIALIZER, .turned = PTHREAD_COND_INITIALIZER };

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

bool is_zero(const unsigned char *data, size_t length)
{
	return length == 0 || (data[0] == 0 && memcmp(data, data + 1, length - 1) == 0);
}

void sum_of(const void *data, size_t length, unsigned char *sum)
{
	gcry_md_hash_buffer(GCRY_MD_SHA256, sum, data, length);
}

static const char *human(double bytes, char *text, size_t size)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
	unsigned int unit = 0;

	while (bytes >= 1024 && unit < 5) {
		bytes /= 1024;
		unit++;
	}
	snprintf(text, size, unit && bytes < 100 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
	return text;
}

/* Caller holds the lock. */
static void show_progress(bool last)
{
	double time = now(), seconds = time - work.started;
	uint64_t total = work.source->total;
	char done[32], all[32], rate[32];
	double speed;

	if (!work.label || (!last && time - work.shown < 0.5))
		return;
	work.shown = time;
	speed = seconds > 0 ? (double)(work.done - work.kept) / seconds : 0;
	fprintf(stderr, "\r%s: %s", work.label, human((double)work.done, done, sizeof(done)));
	if (total)
		fprintf(stderr, " of %s (%.0f %%)", human((double)total, all, sizeof(all)),
			100.0 * (double)work.done / (double)total);
	fprintf(stderr, ", %s/s", human(speed, rate, sizeof(rate)));
	if (total > work.done && speed > 0) {
		uint64_t left = (uint64_t)((double)(total - work.done) / speed);

		fprintf(stderr, ", %u:%02u:%02u left", (unsigned int)(left / 3600),
			(unsigned int)(left / 60 % 60), (unsigned int)(left % 60));
	}
	fputs(last ? "\033[K\n" : "\033[K", stderr);
}

static void sum_cell(struct cell *cell)
{
	if (cell->kept || cell->summed)
		return;
	for (unsigned int i = 0; i < cell->count; i++) {
		struct piece *piece = &cell->pieces[i];
		const unsigned char *data = cell->data + (piece->offset - cell->offset);

		piece->zero = is_zero(data, piece->length);
		if (!piece->zero)
			sum_of(data, piece->length, piece->sum);
	}
}

static bool take_cell(struct cell *cell)
{
	bool more;

	pthread_mutex_lock(&work.lock);
	cell->kept = false;
	cell->summed = false;
	cell->count = 0;
	more = !work.ended && work.source->plan(work.source, cell);
	if (more)
		cell->turn = work.planned++;
	else
		work.ended = true;
	pthread_mutex_unlock(&work.lock);
	return more;
}

/* What is kept and has no piece is all zeroes. */
static uint64_t cell_bytes(const struct cell *cell)
{
	uint64_t bytes = 0;

	for (unsigned int i = 0; i < cell->count; i++)
		bytes += cell->pieces[i].length;
	return cell->count ? bytes : cell->length;
}

static void record_cell(struct cell *cell)
{
	uint64_t bytes;

	pthread_mutex_lock(&work.lock);
	while (work.recorded != cell->turn)
		pthread_cond_wait(&work.turned, &work.lock);
	/* It is nobody else's turn: the lock is for those who plan. */
	pthread_mutex_unlock(&work.lock);
	work.sink->record(work.sink, cell);
	pthread_mutex_lock(&work.lock);
	bytes = cell_bytes(cell);
	work.done += bytes;
	work.kept += cell->kept ? bytes : 0;
	show_progress(false);
	work.recorded++;
	pthread_cond_broadcast(&work.turned);
	pthread_mutex_unlock(&work.lock);
}

static void *worker(void *unused)
{
	struct cell cell = { 0 };

	(void)unused;
	cell.data = aligned_alloc(ALIGNMENT, CELL);
	if (!cell.data)
		die("no memory");
	while (take_cell(&cell)) {
		work.source->load(work.source, &cell);
		sum_cell(&cell);
		if (work.sink->store && !cell.kept)
			work.sink->store(work.sink, &cell);
		record_cell(&cell);
	}
	free(cell.data);
	return NULL;
}

void run(struct source *source, struct sink *sink, const char *label)
{
	pthread_t threads[WORKERS];

	if (!gcry_check_version(NULL))
		die("libgcrypt cannot be used");
	gcry_control(GCRYCTL_DISABLE_SECMEM, 0);
	gcry_control(GCRYCTL_INITIALIZATION_FINISHED, 0);
	work.source = source;
	work.sink = sink;
	work.label = label;
	work.started = work.shown = now();
	for (unsigned int i = 0; i < WORKERS; i++)
		if (pthread_create(&threads[i], NULL, worker, NULL))
			die("cannot start a thread");
	for (unsigned int i = 0; i < WORKERS; i++)
		pthread_join(threads[i], NULL);
	sink->finish(sink);
	show_progress(true);
}
