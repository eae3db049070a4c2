// SPDX-License-Identifier: GPL-2.0
/*
 * Values as they are written to attributes.
 *
 * What cannot be a value is refused in words, as anything else is.
 */
#include <linux/err.h>
#include <linux/kernel.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "error.h"
#include "value.h"

/* The most that configfs hands over in one piece. */
#define VALUE_MAX (PAGE_SIZE - 1)

/*
 * configfs cuts a longer write: its beginning comes as a full piece, which is
 * refused here; and some shells then write the rest as well, as a piece of its
 * own, which must not be taken for a value. It comes in the same buffer, whose
 * last byte no shorter piece reaches, not even with the zero behind it: there is
 * what the first piece has left. A fresh buffer is zeroed, unless the kernel was
 * booted with init_on_alloc=0; then a rest cannot be told from a value.
 */
static bool value_is_too_long(char *page, size_t count)
{
	char *mark = &page[VALUE_MAX];

	if (count >= VALUE_MAX) {
		*mark = 1;
		return true;
	}
	if (!want_init_on_alloc(GFP_KERNEL) || !*mark)
		return false;
	*mark = 0;
	return true;
}

static int value_parse_switch(const char *page, size_t count)
{
	if (value_is_too_long((char *)page, count))
		return -ENAMETOOLONG;
	if (count == 2 && page[1] == '\n')
		count--;
	if (count != 1 || (page[0] != '0' && page[0] != '1'))
		return -EINVAL;
	return page[0] - '0';
}

static char *value_copy(const char *page, size_t count)
{
	if (value_is_too_long((char *)page, count))
		return ERR_PTR(-ENAMETOOLONG);
	if (count && page[count - 1] == '\n')
		count--;
	if (!count || memchr(page, '\0', count))
		return ERR_PTR(-EINVAL);
	return kmemdup_nul(page, count, GFP_KERNEL) ?: ERR_PTR(-ENOMEM);
}

static const char *value_problem(int err)
{
	switch (err) {
	case -ENAMETOOLONG:
		return "a value of 4095 bytes or more";
	case -ENOMEM:
		return "no memory for the value";
	default:
		return "not a value";
	}
}

char *value_get(const char *page, size_t count, const char *attr,
		struct error_text *error, const char *who)
{
	char *value = value_copy(page, count);

	if (IS_ERR(value))
		error_set(error, who, PTR_ERR(value), "%s: %s", attr,
			  value_problem(PTR_ERR(value)));
	return value;
}

int value_get_switch(const char *page, size_t count, const char *attr,
		     struct error_text *error, const char *who)
{
	int value = value_parse_switch(page, count);

	if (value == -ENAMETOOLONG)
		error_set(error, who, value, "%s: %s", attr,
			  value_problem(value));
	else if (value < 0)
		error_set(error, who, value, "%s: %.*s is neither 0 nor 1",
			  attr, (int)strcspn(page, "\n"), page);
	return value;
}

static unsigned int value_shift_of(char suffix)
{
	static const char suffixes[] = "KMGT";
	const char *found = strchr(suffixes, suffix);

	return suffix && found ? 10 * (found - suffixes + 1) : 0;
}

static int value_parse_size(const char *value, u64 *bytes)
{
	size_t digits = strspn(value, "0123456789");
	unsigned int shift = value_shift_of(value[digits]);
	size_t i;

	if (!digits || value[digits + !!shift])
		return -EINVAL;
	*bytes = 0;
	for (i = 0; i < digits; i++)
		if (check_mul_overflow(*bytes, (u64)10, bytes) ||
		    check_add_overflow(*bytes, (u64)(value[i] - '0'), bytes))
			return -ERANGE;
	return check_shl_overflow(*bytes, shift, bytes) ? -ERANGE : 0;
}

int value_get_size(const char *page, size_t count, const char *attr,
		   struct error_text *error, const char *who, u64 *bytes)
{
	char *value = value_get(page, count, attr, error, who);
	int ret;

	if (IS_ERR(value))
		return PTR_ERR(value);
	ret = value_parse_size(value, bytes);
	if (ret)
		error_set(error, who, ret, "%s: %s is not a size", attr, value);
	kfree(value);
	return ret;
}

int value_get_param_size(const char *value, const char *name, u64 *bytes)
{
	size_t length = strlen(value);
	char *copy;
	int ret;

	if (length && value[length - 1] == '\n')
		length--;
	copy = kmemdup_nul(value, length, GFP_KERNEL);
	if (!copy)
		return -ENOMEM;
	ret = value_parse_size(copy, bytes);
	if (ret)
		error_set(NULL, name, ret, "%s is not a size", copy);
	kfree(copy);
	return ret;
}

int value_keep(char **where, const char *value, const char *attr,
	       struct error_text *error, const char *who)
{
	char *copy = kstrdup(value, GFP_KERNEL);

	if (!copy)
		return error_set(error, who, -ENOMEM, "%s: %s", attr,
				 value_problem(-ENOMEM));
	kfree(*where);
	*where = copy;
	return 0;
}

int value_parse_range(char *value, u64 *offset, u64 *length)
{
	char *second = strchr(value, ' ');
	int ret;

	if (!second)
		return -EINVAL;
	*second++ = '\0';
	ret = value_parse_size(value, offset);
	return ret ?: value_parse_size(second, length);
}
