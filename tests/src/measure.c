// SPDX-License-Identifier: GPL-2.0
/*
 * measure write DEVICE FIRST STEP COUNT BATCHES: writes 4 KiB, O_DIRECT, one after the other, at the blocks FIRST,
 * FIRST + STEP, ... of DEVICE, COUNT of them BATCHES times. With FIRST "again" each batch is at the same blocks, from 0.
 * Prints the nanoseconds that a write took, one line a batch. With MEASURE_MONITOR=FD the batches are traced by QEMU, whose
 * monitor (QMP) is behind that descriptor: each instruction that is executed, and nothing of what this program does before and after.
 *
 * measure grace COUNT: prints the microseconds that a grace period of RCU takes, COUNT times.
 *
 * Exit codes: 0 done, 1 an error, 2 usage.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096

static long long now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Tells the monitor, and gives it the time to do it. */
static void trace(const char *command)
{
	const char *monitor = getenv("MEASURE_MONITOR");

	if (!monitor)
		return;
	dprintf(atoi(monitor), "{\"execute\": \"human-monitor-command\", \"arguments\": {\"command-line\": \"%s\"}}\n", command);
	usleep(300000);
}

static int measure_write(char **argv)
{
	int again = !strcmp(argv[1], "again");
	long long at = again ? 0 : atoll(argv[1]), step = atoll(argv[2]);
	long count = atol(argv[3]), batches = atol(argv[4]);
	int fd = open(argv[0], O_WRONLY | O_DIRECT);
	void *block;

	if (fd < 0 || posix_memalign(&block, BLOCK, BLOCK)) {
		perror(argv[0]);
		return 1;
	}
	memset(block, 0x5a, BLOCK);
	while (batches--) {
		long long begin;

		trace("log exec,nochain");
		begin = now_ns();
		for (long i = 0; i < count; i++, at += step) {
			if (pwrite(fd, block, BLOCK, at * BLOCK) != BLOCK) {
				perror("pwrite");
				return 1;
			}
		}
		printf("%.1f\n", (double)(now_ns() - begin) / count);
		trace("log none");
		if (again)
			at = 0;
	}
	return 0;
}

static int measure_grace(long count)
{
	while (count--) {
		long long begin = now_ns();

		if (syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0)) {
			perror("membarrier");
			return 1;
		}
		printf("%.1f\n", (now_ns() - begin) / 1000.0);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 7 && !strcmp(argv[1], "write"))
		return measure_write(argv + 2);
	if (argc == 3 && !strcmp(argv[1], "grace"))
		return measure_grace(atol(argv[2]));
	fputs("usage: measure write DEVICE FIRST STEP COUNT BATCHES | measure grace COUNT\n", stderr);
	return 2;
}
