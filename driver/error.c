// SPDX-License-Identifier: GPL-2.0
/*
 * Refusals and failures in words: kept for the "error" files, logged once.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/err.h>
#include <linux/kernel.h>
#include <linux/printk.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "error.h"

void error_init(struct error_text *error)
{
	spin_lock_init(&error->lock);
	error->text[0] = '\0';
}

void error_clear(struct error_text *error)
{
	unsigned long flags;

	spin_lock_irqsave(&error->lock, flags);
	error->text[0] = '\0';
	spin_unlock_irqrestore(&error->lock, flags);
}

/* %pe prints "-ENOSPC"; the minus is for us, not for an administrator. */
const char *error_name(int err, char *buffer)
{
	snprintf(buffer, ERROR_NAME_MAX, "%pe", ERR_PTR(err));
	return buffer[0] == '-' ? buffer + 1 : buffer;
}

static void error_format(char *text, int err, const struct va_format *what)
{
	char name[ERROR_NAME_MAX];

	scnprintf(text, ERROR_TEXT_MAX, "%s: %pV", error_name(err, name), what);
	strreplace(text, '\n', '?');
}

int error_set(struct error_text *error, const char *who, int err,
	      const char *fmt, ...)
{
	struct va_format what = { .fmt = fmt };
	char text[ERROR_TEXT_MAX];
	unsigned long flags;
	va_list args;

	va_start(args, fmt);
	what.va = &args;
	error_format(text, err, &what);
	va_end(args);

	pr_err("%s: %s\n", who, text);
	if (!error)
		return err;
	spin_lock_irqsave(&error->lock, flags);
	strscpy(error->text, text, ERROR_TEXT_MAX);
	spin_unlock_irqrestore(&error->lock, flags);
	return err;
}

void error_copy(struct error_text *to, struct error_text *from)
{
	char text[ERROR_TEXT_MAX];
	unsigned long flags;

	spin_lock_irqsave(&from->lock, flags);
	strscpy(text, from->text, ERROR_TEXT_MAX);
	spin_unlock_irqrestore(&from->lock, flags);

	spin_lock_irqsave(&to->lock, flags);
	strscpy(to->text, text, ERROR_TEXT_MAX);
	spin_unlock_irqrestore(&to->lock, flags);
}

ssize_t error_emit(struct error_text *error, char *page)
{
	char text[ERROR_TEXT_MAX];
	unsigned long flags;

	spin_lock_irqsave(&error->lock, flags);
	strscpy(text, error->text, ERROR_TEXT_MAX);
	spin_unlock_irqrestore(&error->lock, flags);
	return text[0] ? sysfs_emit(page, "%s\n", text) : 0;
}
