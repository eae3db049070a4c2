// SPDX-License-Identifier: GPL-2.0
/*
 * witness COMMAND [ARGUMENT...]: runs a command, and then prints each line that the driver has logged meanwhile, with
 * "log: " before it.
 *
 * Exit codes: the command's; 126 if it was ended by a signal; 127 if it cannot be run; 2 usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define DRIVER "blksnap: "

/* A record is "priority,number,time,flags;text", and lines of its own after that. */
static void print_record(char *record)
{
	char *text = strchr(record, ';');

	if (!text++)
		return;
	text[strcspn(text, "\n")] = '\0';
	if (!strncmp(text, DRIVER, strlen(DRIVER)))
		printf("log: %s\n", text);
}

static void print_log(int log)
{
	char record[8192];
	ssize_t length;

	for (;;) {
		length = read(log, record, sizeof(record) - 1);
		if (length < 0 && errno == EPIPE)
			continue; /* the oldest ones were overwritten */
		if (length <= 0)
			return;
		record[length] = '\0';
		print_record(record);
	}
}

static int run(char **argv)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		return 127;
	if (!child) {
		execvp(*argv, argv);
		perror(*argv);
		_exit(127);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return 127;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 126;
}

int main(int argc, char **argv)
{
	int log, code;

	if (argc < 2) {
		fprintf(stderr, "witness COMMAND [ARGUMENT...]\n");
		return 2;
	}
	log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (log < 0 || lseek(log, 0, SEEK_END) < 0) {
		perror("/dev/kmsg");
		return 127;
	}
	code = run(argv + 1);
	print_log(log);
	return code;
}
