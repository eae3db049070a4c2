/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_VALUE_H
#define BLKSNAP_VALUE_H

#include <linux/types.h>

struct error_text;

/**
 * value_get() - the value that was written to an attribute, as a string
 * @page: as configfs hands it over
 * @count: bytes of it
 * @attr: the attribute's name
 * @error: gets the reason of a refusal
 * @who: for its log line
 *
 * Context: may sleep.
 *
 * Return: a copy without the newline at its end, to be freed by kfree(); or an
 * ERR_PTR: -ENAMETOOLONG for 4095 bytes or more, and for what follows such a
 * write on the same open file; -EINVAL for an empty value or one with a zero
 * byte; -ENOMEM.
 */
char *value_get(const char *page, size_t count, const char *attr,
		struct error_text *error, const char *who);

/**
 * value_get_switch() - the value that was written to an attribute, as 0 or 1
 * @page: as configfs hands it over
 * @count: bytes of it
 * @attr: the attribute's name
 * @error: gets the reason of a refusal
 * @who: for its log line
 *
 * Needs no memory: what ends something must not, such as a session (I7).
 *
 * Context: any.
 *
 * Return: 0 or 1; -ENAMETOOLONG as for value_get(); -EINVAL for anything else.
 */
int value_get_switch(const char *page, size_t count, const char *attr,
		     struct error_text *error, const char *who);

/**
 * value_get_size() - the value that was written to an attribute, as a size
 * @page: as configfs hands it over
 * @count: bytes of it
 * @attr: the attribute's name
 * @error: gets the reason of a refusal
 * @who: for its log line
 * @bytes: the answer: digits were written, and optionally one of K, M, G, T:
 *	powers of 1024
 *
 * Context: may sleep. Return: 0; what value_get() says; -EINVAL for what is no
 * size, -ERANGE for one that no number can hold.
 */
int value_get_size(const char *page, size_t count, const char *attr,
		   struct error_text *error, const char *who, u64 *bytes);

/**
 * value_get_param_size() - a size that was written to a parameter of the module
 * @value: as the kernel hands it over, perhaps with a newline
 * @name: the parameter's name, for the log line of a refusal
 * @bytes: the answer, as that of value_get_size()
 *
 * Context: may sleep. Return: 0; -EINVAL for what is no size, -ERANGE for one
 * that no number can hold; -ENOMEM.
 */
int value_get_param_size(const char *value, const char *name, u64 *bytes);

/**
 * value_keep() - replaces a value that is kept by a copy of another one
 * @where: where it is; NULL there if none is kept
 * @value: the other one
 * @attr: the attribute's name
 * @error: gets the reason of a refusal
 * @who: for its log line
 *
 * Context: may sleep. Return: 0; -ENOMEM, and the one that was kept still is.
 */
int value_keep(char **where, const char *value, const char *attr,
	       struct error_text *error, const char *who);

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
