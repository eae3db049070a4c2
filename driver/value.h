/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_VALUE_H
#define BLKSNAP_VALUE_H

#include <linux/types.h>

/**
 * value_get() - the value that was written to an attribute, as a string
 * @page: as configfs hands it over
 * @count: bytes of it
 *
 * Context: may sleep.
 *
 * Return: a copy without the newline at its end, to be freed by kfree(); or an
 * ERR_PTR: -ENAMETOOLONG for 4095 bytes or more, and for what follows such a
 * write on the same open file; -EINVAL for an empty value or one with a zero
 * byte; -ENOMEM.
 */
char *value_get(const char *page, size_t count);

/**
 * value_get_switch() - the value that was written to an attribute, as 0 or 1
 * @page: as configfs hands it over
 * @count: bytes of it
 *
 * Needs no memory: what ends something must not.
 *
 * Context: any.
 *
 * Return: 0 or 1; -ENAMETOOLONG as for value_get(); -EINVAL for anything else.
 */
int value_get_switch(const char *page, size_t count);

/**
 * value_parse_size() - a size in bytes
 * @value: digits, and optionally one of K, M, G, T: powers of 1024
 * @bytes: the answer
 *
 * Context: any. Return: 0, -EINVAL, or -ERANGE.
 */
int value_parse_size(const char *value, u64 *bytes);

/**
 * value_parse_range() - a range in bytes: "OFFSET LENGTH", with one space
 * @value: two sizes; is changed
 * @offset: the first
 * @length: the second
 *
 * Context: any. Return: 0, -EINVAL, or -ERANGE.
 */
int value_parse_range(char *value, u64 *offset, u64 *length);

#endif
