/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_ERROR_H
#define BLKSNAP_ERROR_H

#include <linux/compiler_attributes.h>
#include <linux/spinlock.h>
#include <linux/types.h>

#define ERROR_TEXT_MAX 256
#define ERROR_NAME_MAX 20

/**
 * struct error_text - the last refusal or failure of an object, in words
 * @lock: taken in any context
 * @text: empty or "ERRNO: what was wrong"; protected by @lock
 */
struct error_text {
	spinlock_t lock;	/* protects @text */
	char text[ERROR_TEXT_MAX];
};

/**
 * error_init() - no error yet
 * @error: the text. Context: any.
 */
void error_init(struct error_text *error);

/**
 * error_clear() - forgets it
 * @error: the text. Context: any.
 */
void error_clear(struct error_text *error);

/**
 * error_name() - the name of an errno, as "ENOSPC"
 * @err: a negative errno
 * @buffer: ERROR_NAME_MAX bytes, for the name
 *
 * Context: any. Return: the name, which lies in @buffer.
 */
const char *error_name(int err, char *buffer);

/**
 * error_set() - remembers a refusal or failure and logs it, once
 * @error: the text; NULL where there is no object yet: only logged then
 * @who: what the log line begins with
 * @err: a negative errno
 * @fmt: what was wrong, without a newline
 *
 * Context: any. Return: @err, so that it can be passed on at once.
 */
__printf(4, 5)
int error_set(struct error_text *error, const char *who, int err,
	      const char *fmt, ...);

/**
 * error_copy() - takes the text of one object over to another, without a log
 * @to: where to
 * @from: where from. Context: any.
 */
void error_copy(struct error_text *to, struct error_text *from);

/**
 * error_emit() - the text and a newline, or nothing if there is no error
 * @error: the text
 * @page: a buffer of a sysfs or configfs file
 *
 * Context: any. Return: the length.
 */
ssize_t error_emit(struct error_text *error, char *page);

#endif
