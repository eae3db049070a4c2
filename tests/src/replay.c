// SPDX-License-Identifier: GPL-2.0
/*
 * replay LOG DEVICE MARK: makes DEVICE what a disk would hold that was blank when the log of dm-log-writes began, and
 * whose power was cut at the mark, so that all is lost that was in its volatile cache.
 *
 * The log, on the device LOG, begins with a sector that says what it is and how many entries there are. Each of these is
 * a sector that describes it, with its data behind it. A write is entered only when a flush that came after it has
 * ended, or when it was FUA and has ended itself: so nothing else has to be left out.
 *
 * Nothing is written unless there is exactly one such mark.
 *
 * Exit codes: 0 done, 1 an error, 2 usage.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MAGIC 0x6a736677736872
#define VERSION 1
#define LARGEST_SECTOR 4096
#define PIECE (1024 * 1024)

enum {
	FLUSH = 1 << 0,
	FUA = 1 << 1,
	DISCARD = 1 << 2,
	MARK = 1 << 3,
	METADATA = 1 << 4,
	KNOWN = FLUSH | FUA | DISCARD | MARK | METADATA,
};

/* Numbers on the disk are little-endian. */
struct super {
	uint64_t magic, version, entries;
	uint32_t sector_size;
};

struct head {
	uint64_t sector, sectors, flags, data_length;
};

struct entry {
	uint64_t offset, length, flags;
	uint64_t data;			/* where on the log */
	char mark[LARGEST_SECTOR];
};

static const char *log_name, *device_name;
static int log_fd, device_fd;
static uint64_t log_size, device_size, entries;
static uint32_t sector_size;

static void __attribute__((format(printf, 1, 2), noreturn)) die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("replay: ", stderr);
	vfprintf(stderr, format, arguments);
	fputc('\n', stderr);
	va_end(arguments);
	exit(1);
}

static int open_device(const char *name, int flags, uint64_t *size)
{
	int fd = open(name, flags | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, BLKGETSIZE64, size) < 0)
		die("%s: %s", name, strerror(errno));
	return fd;
}

static void read_log(void *data, uint64_t length, uint64_t offset)
{
	if (offset > log_size || length > log_size - offset)
		die("%s: the log goes on beyond the end of its device", log_name);
	if (pread(log_fd, data, length, (off_t)offset) != (ssize_t)length)
		die("%s: cannot be read at %" PRIu64, log_name, offset);
}

static void read_super(void)
{
	struct super super;

	read_log(&super, sizeof(super), 0);
	if (le64toh(super.magic) != MAGIC)
		die("%s has no log of dm-log-writes", log_name);
	if (le64toh(super.version) != VERSION)
		die("%s: its version is %" PRIu64 ", and only %d is known", log_name, le64toh(super.version), VERSION);
	entries = le64toh(super.entries);
	sector_size = le32toh(super.sector_size);
	if (sector_size < 512 || sector_size > LARGEST_SECTOR || sector_size & (sector_size - 1))
		die("%s: sectors of %u bytes", log_name, sector_size);
}

/* Reads the entry at this place of the log, and returns where the next one is. */
static uint64_t read_entry(struct entry *entry, uint64_t at)
{
	char sector[LARGEST_SECTOR];
	struct head head;
	uint64_t sectors, mark_length;

	read_log(sector, sector_size, at);
	memcpy(&head, sector, sizeof(head));
	sectors = le64toh(head.sectors);
	entry->flags = le64toh(head.flags);
	entry->data = at + sector_size;
	entry->mark[0] = '\0';
	if (entry->flags & ~(uint64_t)KNOWN)
		die("%s: an unknown kind of entry at %" PRIu64, log_name, at);
	if (entry->flags & MARK) {
		mark_length = le64toh(head.data_length);
		if (mark_length > sector_size - sizeof(head))
			die("%s: a mark of %" PRIu64 " bytes", log_name, mark_length);
		memcpy(entry->mark, sector + sizeof(head), mark_length);
		entry->mark[mark_length] = '\0';
		return entry->data;
	}
	if (sectors > device_size / sector_size || le64toh(head.sector) > device_size / sector_size - sectors)
		die("%s: an entry at %" PRIu64 " is beyond the end of %s", log_name, at, device_name);
	entry->offset = le64toh(head.sector) * sector_size;
	entry->length = sectors * sector_size;
	/* The flush is for what was before; whether this has come to last nobody knows. Device-mapper makes two of it. */
	if (entry->length && (entry->flags & (FLUSH | FUA)) == FLUSH)
		die("%s: a flush with data at %" PRIu64, log_name, at);
	return entry->flags & DISCARD ? entry->data : entry->data + entry->length;
}

/* Which entry is the mark? */
static uint64_t find_mark(const char *mark)
{
	uint64_t at = sector_size, found = entries;
	struct entry entry;

	for (uint64_t i = 0; i < entries; i++) {
		at = read_entry(&entry, at);
		if (!(entry.flags & MARK) || strcmp(entry.mark, mark))
			continue;
		if (found != entries)
			die("%s: the mark \"%s\" is there twice", log_name, mark);
		found = i;
	}
	if (found == entries)
		die("%s: there is no mark \"%s\" in %" PRIu64 " entries", log_name, mark, entries);
	return found;
}

static void zero(uint64_t offset, uint64_t length)
{
	uint64_t range[] = { offset, length };

	if (ioctl(device_fd, BLKZEROOUT, range) < 0)
		die("%s: cannot be zeroed: %s", device_name, strerror(errno));
}

static void apply(const struct entry *entry)
{
	static char data[PIECE];
	uint64_t done, length;

	if (entry->flags & MARK || !entry->length)
		return;
	if (entry->flags & DISCARD) {
		zero(entry->offset, entry->length);
		return;
	}
	for (done = 0; done < entry->length; done += length) {
		length = entry->length - done < PIECE ? entry->length - done : PIECE;
		read_log(data, length, entry->data + done);
		if (pwrite(device_fd, data, length, (off_t)(entry->offset + done)) != (ssize_t)length)
			die("%s: cannot be written at %" PRIu64, device_name, entry->offset + done);
	}
}

int main(int argc, char **argv)
{
	uint64_t at, last;
	struct entry entry;

	if (argc != 4) {
		fputs("replay LOG DEVICE MARK\n", stderr);
		return 2;
	}
	log_name = argv[1];
	device_name = argv[2];
	log_fd = open_device(log_name, O_RDONLY, &log_size);
	device_fd = open_device(device_name, O_RDWR, &device_size);
	read_super();
	last = find_mark(argv[3]);
	zero(0, device_size);
	at = sector_size;
	for (uint64_t i = 0; i < last; i++) {
		at = read_entry(&entry, at);
		apply(&entry);
	}
	if (fsync(device_fd) < 0)
		die("%s: %s", device_name, strerror(errno));
	return 0;
}
