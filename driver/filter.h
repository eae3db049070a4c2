/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_FILTER_H
#define BLKSNAP_FILTER_H

#include <linux/types.h>

struct bio;

/**
 * typedef filter_fn - decides about a bio on its way into the block layer
 * @bio: as the submitter gave it: not yet remapped, not yet split
 *
 * Context: that of submit_bio_noacct()'s caller, inside an ftrace callback:
 * must not sleep. May be interrupted by itself from an interrupt.
 *
 * Return: true if the handler took the bio (the submitter's call returns at
 * once, and the handler answers for the bio); false lets it pass untouched.
 */
typedef bool (*filter_fn)(struct bio *bio);

/**
 * filter_init() - names the handler; nothing is intercepted yet
 * @handler: the one handler of this module
 *
 * Context: module init, once. Return: 0, or an errno of ftrace.
 */
int filter_init(filter_fn handler);

/**
 * filter_exit() - undoes filter_init(). Context: module exit.
 */
void filter_exit(void);

/**
 * filter_get() - intercepts I/O until the matching filter_put()
 *
 * The first call installs the hook. When it returns, every submission that
 * begins from then on is shown to the handler.
 *
 * Context: may sleep (tens of milliseconds on the first call).
 *
 * Return: 0; -EBUSY when a live patch or another module holds the function, or
 * while it is forbidden; another errno of ftrace.
 */
int filter_get(void);

/**
 * filter_problem() - what a refusal of filter_get() means
 * @err: the errno
 *
 * Context: any. Return: the reason in words, for an administrator.
 */
const char *filter_problem(int err);

/**
 * filter_put() - undoes one filter_get(); the last one removes the hook
 *
 * When the last one returns, no call of the handler is running any more.
 *
 * Context: may sleep. Waits for tasks to pass a quiescent point, never for I/O.
 */
void filter_put(void);

/**
 * filter_forbid() - nothing is intercepted until filter_allow()
 *
 * Context: any but interrupts; waits for nobody. Return: 0; -EBUSY, and nothing
 * is forbidden, if something is intercepted, or about to be.
 */
int filter_forbid(void);

/**
 * filter_allow() - undoes filter_forbid(), if that was called. Context: any.
 */
void filter_allow(void);

#endif
