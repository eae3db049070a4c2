// SPDX-License-Identifier: GPL-2.0
/*
 * scribble DEVICE COUNT: COUNT writes of something new, of a sector to 20 KiB, anywhere on the device, and one more at
 * its very end.
 * scribble -o OFFSET -l LENGTH DEVICE: one write, there.
 * scribble -l LENGTH DEVICE COUNT: COUNT writes of that length, one anywhere in each of COUNT equal parts of the device.
 *
 * OFFSET and LENGTH are bytes, or with K, M, G. The writes are buffered, as those of most programs, and are on the
 * device when it ends.
 *
 * Exit codes: 0 done, 1 an error, 2 usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <unistd.h>

#define LONGEST (20 * 1024)
#define NONE UINT64_MAX

static const char *device;
static int fd;
static uint64_t size, seed;
static unsigned int sector;

static void die(const char *what)
{
	fprintf(stderr, "scribble: %s: %s: %s\n", device, what, strerror(errno));
	exit(1);
}

static int usage(void)
{
	fputs("scribble DEVICE COUNT | scribble -o OFFSET -l LENGTH DEVICE | scribble -l LENGTH DEVICE COUNT\n", stderr);
	return 2;
}

static uint64_t random_number(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint64_t below(uint64_t bound)
{
	return random_number() % bound;
}

static uint64_t bytes(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 10);

	switch (*end) {
	case 'G':
		value *= 1024;
		/* fall through */
	case 'M':
		value *= 1024;
		/* fall through */
	case 'K':
		value *= 1024;
	}
	return value;
}

static void write_random(uint64_t offset, uint64_t length)
{
	uint64_t *data = malloc(length);
	ssize_t put;

	if (!data)
		die("no memory");
	for (uint64_t i = 0; i < length / sizeof(*data); i++)
		data[i] = random_number();
	for (uint64_t done = 0; done < length; done += (uint64_t)put) {
		put = pwrite(fd, (char *)data + done, length - done, (off_t)(offset + done));
		if (put <= 0)
			die("write");
	}
	free(data);
}

static void write_anywhere(uint64_t count)
{
	for (uint64_t i = 0; i <= count; i++) {
		uint64_t length = (below(LONGEST / sector) + 1) * sector;
		uint64_t places;

		if (length > size)
			length = sector;
		places = (size - length) / sector + 1;
		write_random((i == count ? places - 1 : below(places)) * sector, length);
	}
}

static void write_in_parts(uint64_t count, uint64_t length)
{
	uint64_t part = size / count / sector * sector;

	if (length > part) {
		errno = ERANGE;
		die("the parts are too small");
	}
	for (uint64_t i = 0; i < count; i++)
		write_random(i * part + below((part - length) / sector + 1) * sector, length);
}

int main(int argc, char **argv)
{
	uint64_t offset = NONE, length = 0, count = 0;
	int option;

	while ((option = getopt(argc, argv, "o:l:")) != -1) {
		if (option == 'o')
			offset = bytes(optarg);
		else if (option == 'l')
			length = bytes(optarg);
		else
			return usage();
	}
	if (optind + (offset == NONE ? 2 : 1) != argc || (offset != NONE && !length))
		return usage();
	device = argv[optind];
	if (offset == NONE)
		count = bytes(argv[optind + 1]);
	fd = open(device, O_RDWR | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, BLKGETSIZE64, &size) < 0 || ioctl(fd, BLKSSZGET, &sector) < 0)
		die("open");
	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		die("getrandom");
	seed |= 1;
	if (offset != NONE)
		write_random(offset, length);
	else if (length)
		write_in_parts(count, length);
	else
		write_anywhere(count);
	/* Whoever reads it past the page cache, or by another node of it, gets what is there. */
	if (fsync(fd) < 0 || ioctl(fd, BLKFLSBUF) < 0)
		die("fsync");
	return close(fd) < 0;
}
