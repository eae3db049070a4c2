// SPDX-License-Identifier: GPL-2.0
/*
 * Reads or writes 64 KiB by one direct transfer whose memory is in pieces of half a kilobyte, each of which crosses a page's
 * end in the middle of a sector.
 *
 *	crooked read|write DEVICE OFFSET
 *
 * What is read goes to standard output, what is written comes from standard input. Exit codes: 0 done, 1 the device refused
 * it (errno's text is told), 2 usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define PIECE 512
#define PIECES 128
#define PAGE 4096
#define SKEW 0xf04	/* within a page: 252 bytes are left of it */

int main(int argc, char **argv)
{
	struct iovec pieces[PIECES];
	char *memory;
	ssize_t done;
	int fd, writes;

	if (argc != 4 || (strcmp(argv[1], "read") && strcmp(argv[1], "write"))) {
		fprintf(stderr, "usage: crooked read|write DEVICE OFFSET\n");
		return 2;
	}
	writes = !strcmp(argv[1], "write");
	fd = open(argv[2], (writes ? O_WRONLY : O_RDONLY) | O_DIRECT);
	if (fd < 0 || posix_memalign((void **)&memory, PAGE, PIECES * 2 * PAGE)) {
		perror(argv[2]);
		return 2;
	}
	for (int i = 0; i < PIECES; i++) {
		pieces[i].iov_base = memory + i * 2 * PAGE + SKEW;
		pieces[i].iov_len = PIECE;
		memset(pieces[i].iov_base, 0, PIECE);
		if (writes && fread(pieces[i].iov_base, PIECE, 1, stdin) != 1)
			return 2;
	}
	done = writes ? pwritev(fd, pieces, PIECES, atoll(argv[3])) : preadv(fd, pieces, PIECES, atoll(argv[3]));
	if (done != PIECES * PIECE) {
		fprintf(stderr, "crooked: %s\n", done < 0 ? strerror(errno) : "not all of it");
		return 1;
	}
	for (int i = 0; !writes && i < PIECES; i++)
		fwrite(pieces[i].iov_base, PIECE, 1, stdout);
	return fflush(stdout) ? 2 : 0;
}
