// SPDX-License-Identifier: GPL-2.0
/*
 * confirm make PLACE WRITERS WRITES: a slot of 16 KiB for each write of each writer, all of them with number 0.
 * confirm write HOW PLACE WRITERS WRITES FIRST LAST: at the same time, each writer makes the writes FIRST to LAST, one
 *	after the other. Now and then, and at the end, it prints for each writer what was its last write that was
 *	confirmed: 17.20.18.
 * confirm check PLACE WRITERS WRITES CONFIRMED: are all there that such a line says, from the first on?
 *
 * PLACE is a block device, or a directory; in that each writer has a file. HOW is what confirms a write: fsync,
 * fdatasync of a direct write, fua for one that is written with RWF_DSYNC and for which nothing else is done, or nothing.
 * If there is a directory PLACE/new, each write also makes a small file there, and is confirmed when that is fsynced;
 * nothing is fsynced after that, since it would make up for a flush that was lost.
 *
 * Exit codes: 0 done, all there; 1 an error, or something is missing; 2 usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define SLOT 16384
#define MOST_WRITERS 16
#define LINES 3		/* so many are printed */

enum how { FSYNC, FDATASYNC, FUA, NOTHING };

static const char *const hows[] = { "fsync", "fdatasync", "fua", "nothing" };

static const char *place;
static bool is_directory, has_new;
static unsigned int writers, writes, first, last;
static enum how how;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t more = PTHREAD_COND_INITIALIZER;
static unsigned int confirmed[MOST_WRITERS];	/* protected by @lock */
static unsigned int total;			/* protected by @lock */

static void __attribute__((format(printf, 1, 2), noreturn)) die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fprintf(stderr, "confirm: %s: ", place);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(1);
}

static int usage(void)
{
	fputs("confirm make PLACE WRITERS WRITES | write HOW PLACE WRITERS WRITES FIRST LAST |\n"
	      "	check PLACE WRITERS WRITES CONFIRMED\n", stderr);
	return 2;
}

static unsigned int number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*end || end == text || value > 100000)
		die("%s is no number", text);
	return (unsigned int)value;
}

/* No two places of two writes have the same in them. */
static void fill(uint64_t *data, unsigned int writer, unsigned int write)
{
	for (uint64_t i = 0; i < SLOT / sizeof(*data); i++)
		data[i] = (uint64_t)(writer + 1) << 48 | (uint64_t)write << 16 | i;
}

static uint64_t *allocate(void)
{
	void *data;

	if (posix_memalign(&data, 4096, SLOT))
		die("no memory");
	return data;
}

static int open_slots(unsigned int writer, int flags)
{
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), is_directory ? "%s/%u" : "%s", place, writer);
	fd = open(path, flags | O_CLOEXEC, 0600);
	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	return fd;
}

/* Writes have numbers from 1 on. */
static off_t slot(unsigned int writer, unsigned int write)
{
	return (off_t)SLOT * ((is_directory ? 0 : writer * writes) + write - 1);
}

static int open_new(unsigned int writer, unsigned int write, int flags)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/new/%u.%u", place, writer, write);
	return open(path, flags | O_CLOEXEC, 0600);
}

static void make(void)
{
	uint64_t *data = allocate();

	for (unsigned int writer = 0; writer < writers; writer++) {
		int fd = open_slots(writer, O_WRONLY | (is_directory ? O_CREAT | O_EXCL : 0));

		fill(data, writer, 0);
		for (unsigned int write = 1; write <= writes; write++) {
			if (pwrite(fd, data, SLOT, slot(writer, write)) != SLOT)
				die("write: %s", strerror(errno));
		}
		if (fsync(fd) < 0 || close(fd) < 0)
			die("fsync: %s", strerror(errno));
	}
	free(data);
}

/* Whoever writes so and waits himself has it flushed as well, on a block device: so it is submitted. */
static void write_fua(int fd, aio_context_t aio, const uint64_t *data, off_t offset)
{
	struct iocb iocb = {
		.aio_lio_opcode = IOCB_CMD_PWRITE,
		.aio_rw_flags = RWF_DSYNC,
		.aio_fildes = (uint32_t)fd,
		.aio_buf = (uintptr_t)data,
		.aio_nbytes = SLOT,
		.aio_offset = offset,
	};
	struct iocb *iocbs[] = { &iocb };
	struct io_event event = { 0 };

	if (syscall(SYS_io_submit, aio, 1, iocbs) != 1 || syscall(SYS_io_getevents, aio, 1, 1, &event, NULL) != 1)
		die("asynchronous write: %s", strerror(errno));
	if (event.res != SLOT)
		die("asynchronous write: %s", event.res < 0 ? strerror((int)-event.res) : "too short");
}

static void write_slot(int fd, aio_context_t aio, const uint64_t *data, off_t offset)
{
	if (how == FUA) {
		write_fua(fd, aio, data, offset);
		return;
	}
	if (pwrite(fd, data, SLOT, offset) != SLOT)
		die("write: %s", strerror(errno));
	if ((how == FSYNC && fsync(fd) < 0) || (how == FDATASYNC && fdatasync(fd) < 0))
		die("%s: %s", hows[how], strerror(errno));
}

static void write_new(unsigned int writer, unsigned int write)
{
	int fd = open_new(writer, write, O_WRONLY | O_CREAT | O_EXCL);

	if (fd < 0 || dprintf(fd, "%u %u\n", writer, write) < 0 || fsync(fd) < 0 || close(fd) < 0)
		die("a new file: %s", strerror(errno));
}

static void confirm(unsigned int writer, unsigned int write)
{
	pthread_mutex_lock(&lock);
	confirmed[writer] = write;
	total++;
	pthread_cond_signal(&more);
	pthread_mutex_unlock(&lock);
}

static void *writer_main(void *argument)
{
	unsigned int writer = (unsigned int)(uintptr_t)argument;
	int fd = open_slots(writer, O_WRONLY | (how == FSYNC ? 0 : O_DIRECT));
	uint64_t *data = allocate();
	aio_context_t aio = 0;

	if (how == FUA && syscall(SYS_io_setup, 1, &aio) < 0)
		die("io_setup: %s", strerror(errno));
	for (unsigned int write = first; write <= last; write++) {
		fill(data, writer, write);
		write_slot(fd, aio, data, slot(writer, write));
		if (has_new)
			write_new(writer, write);
		confirm(writer, write);
	}
	if (how == FUA)
		syscall(SYS_io_destroy, aio);
	free(data);
	close(fd);
	return NULL;
}

static void print_confirmed(const unsigned int *counts)
{
	for (unsigned int writer = 0; writer < writers; writer++)
		printf("%s%u", writer ? "." : "", counts[writer]);
	putchar('\n');
	if (fflush(stdout))
		die("cannot print: %s", strerror(errno));
}

/* The last line is that of all of them. */
static void print_lines(void)
{
	unsigned int all = (last - first + 1) * writers, counts[MOST_WRITERS];

	for (unsigned int line = 1; line <= LINES; line++) {
		pthread_mutex_lock(&lock);
		while (total < all * line / LINES)
			pthread_cond_wait(&more, &lock);
		memcpy(counts, confirmed, sizeof(counts));
		pthread_mutex_unlock(&lock);
		print_confirmed(counts);
	}
}

static void write_all(void)
{
	pthread_t threads[MOST_WRITERS];

	for (unsigned int writer = 0; writer < writers; writer++) {
		confirmed[writer] = first - 1;
		if (pthread_create(&threads[writer], NULL, writer_main, (void *)(uintptr_t)writer))
			die("no thread");
	}
	print_lines();
	for (unsigned int writer = 0; writer < writers; writer++)
		pthread_join(threads[writer], NULL);
}

static bool has_new_file(unsigned int writer, unsigned int write)
{
	char expected[32], found[32] = "";
	int fd = open_new(writer, write, O_RDONLY);
	bool same;

	snprintf(expected, sizeof(expected), "%u %u\n", writer, write);
	same = fd >= 0 && read(fd, found, sizeof(found) - 1) > 0 && !strcmp(found, expected);
	if (fd >= 0)
		close(fd);
	return same;
}

static bool check_writer(unsigned int writer, unsigned int until)
{
	int fd = open_slots(writer, O_RDONLY);
	uint64_t *expected = allocate(), *found = allocate();
	bool good = true;

	if (until > writes)
		die("writer %u has no write %u", writer, until);
	for (unsigned int write = 1; write <= until; write++) {
		fill(expected, writer, write);
		if (pread(fd, found, SLOT, slot(writer, write)) != SLOT)
			die("read: %s", strerror(errno));
		if (memcmp(expected, found, SLOT)) {
			printf("write %u of writer %u is not there\n", write, writer);
			good = false;
		}
		if (has_new && !has_new_file(writer, write)) {
			printf("the file of write %u of writer %u is not there\n", write, writer);
			good = false;
		}
	}
	free(expected);
	free(found);
	close(fd);
	return good;
}

static bool check(char *counts)
{
	unsigned int writer = 0;
	bool good = true;
	char *count;

	while ((count = strsep(&counts, "."))) {
		if (writer == writers)
			die("more counts than writers");
		good = check_writer(writer++, number(count)) && good;
	}
	if (writer != writers)
		die("fewer counts than writers");
	return good;
}

static void look_at_place(const char *name)
{
	struct stat status;

	place = name;
	if (stat(place, &status) < 0)
		die("%s", strerror(errno));
	is_directory = S_ISDIR(status.st_mode);
	if (is_directory) {
		char path[PATH_MAX];

		snprintf(path, sizeof(path), "%s/new", place);
		has_new = !access(path, F_OK);
	}
}

static bool find_how(const char *name)
{
	for (how = FSYNC; how <= NOTHING; how++) {
		if (!strcmp(hows[how], name))
			return true;
	}
	return false;
}

int main(int argc, char **argv)
{
	bool writing = argc == 8 && !strcmp(argv[1], "write");

	if (!writing && !(argc == 5 && !strcmp(argv[1], "make")) && !(argc == 6 && !strcmp(argv[1], "check")))
		return usage();
	if (writing && !find_how(argv[2]))
		return usage();
	argv += writing ? 3 : 2;
	look_at_place(argv[0]);
	writers = number(argv[1]);
	writes = number(argv[2]);
	if (!writers || writers > MOST_WRITERS)
		die("too many writers, or none");
	if (writing) {
		first = number(argv[3]);
		last = number(argv[4]);
		if (!first || last < first || last > writes)
			die("not %u to %u", first, last);
		write_all();
	} else if (argc == 6) {
		return !check(argv[3]);
	} else {
		make();
	}
	return 0;
}
