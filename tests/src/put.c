// SPDX-License-Identifier: GPL-2.0
/*
 * put [-n] FILE VALUE: writes VALUE and a newline (-n: no newline) into an attribute, as `echo` does, and names the
 * errno exactly when that is refused: on stdout, alone on its line.
 *
 * put -e ERRNO: prints how the C library words that errno, for comparing with what other programs say.
 *
 * Exit codes: 0 written, 1 refused or no such errno, 2 usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int refused(int error)
{
	puts(strerrorname_np(error) ?: "unknown");
	return 1;
}

static int explain(const char *wanted)
{
	const char *name;

	for (int error = 1; error < 4096; error++) {
		name = strerrorname_np(error);
		if (name && !strcmp(name, wanted)) {
			puts(strerror(error));
			return 0;
		}
	}
	fprintf(stderr, "put: there is no errno %s\n", wanted);
	return 1;
}

int main(int argc, char **argv)
{
	int newline = argc < 2 || strcmp(argv[1], "-n") != 0;
	char *value;
	size_t length, done = 0;
	int fd;

	if (argc == 3 && !strcmp(argv[1], "-e"))
		return explain(argv[2]);
	if (!newline) {
		argc--;
		argv++;
	}
	if (argc != 3) {
		fprintf(stderr, "put [-n] FILE VALUE | put -e ERRNO\n");
		return 2;
	}
	value = argv[2];
	length = strlen(value);
	if (newline)
		value[length++] = '\n'; /* in place of the argument's end */

	fd = open(argv[1], O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return refused(errno);
	/* An empty value is a write as well. */
	do {
		ssize_t written = write(fd, value + done, length - done);

		if (written < 0 && errno != EINTR)
			return refused(errno);
		if (written > 0)
			done += (size_t)written;
	} while (done < length);
	return close(fd) < 0 ? refused(errno) : 0;
}
