// SPDX-License-Identifier: GPL-2.0
/*
 * How I/O is intercepted, and nothing else.
 *
 * Every bio of file systems, of raw block device I/O and of stacked drivers
 * enters the block layer through submit_bio_noacct(), which is exported and so
 * never inlined. An ftrace callback with IPMODIFY sees it there. The whole
 * decision is made inside the callback:
 *
 *  - a bio that passes: the callback returns, the original function runs on as
 *    if nothing had been there. No code of this module stays on the stack, so
 *    removing the hook never waits for somebody's slow disk;
 *  - a bio that is taken: the instruction pointer is set to an empty function,
 *    so the submitter's call returns at once. Whoever took the bio submits it
 *    again later, and it comes by here again.
 *
 * IPMODIFY is exclusive: a live patch of the function, or another driver of
 * this kind, makes filter_get() fail with -EBUSY, and a live patch that comes
 * later is refused by the kernel. PERMANENT keeps "sysctl
 * kernel.ftrace_enabled=0" from switching the hook off behind our back (I2).
 *
 * Since the callback runs in the submitter, it never sleeps (I5).
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/ftrace.h>
#include <linux/mutex.h>

#include "compat/hook.h"
#include "filter.h"

#define FILTER_FUNCTION "submit_bio_noacct"

static filter_fn filter_handler;	/* set once, in filter_init() */

static DEFINE_MUTEX(filter_mutex);
static unsigned int filter_users;	/* protected by filter_mutex */
static bool filter_forbidden;		/* set under filter_mutex */

/* Where a taken bio's submitter goes instead of into the original function. */
static notrace noinline void filter_taken(struct bio *bio)
{
}

static void notrace filter_hook(unsigned long ip, unsigned long parent_ip,
				struct ftrace_ops *ops,
				struct ftrace_regs *fregs)
{
	if (filter_handler((struct bio *)compat_hook_arg(fregs, 0)))
		compat_hook_divert(fregs, filter_taken);
}

static struct ftrace_ops filter_ops = {
	.func = filter_hook,
	.flags = FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_PERMANENT,
};

int filter_init(filter_fn handler)
{
	int ret;

	filter_handler = handler;
	/* Not by its name: see disk_watch.c. */
	ret = ftrace_set_filter_ip(&filter_ops, (unsigned long)submit_bio_noacct,
				   0, 1);
	if (ret)
		pr_err("cannot trace " FILTER_FUNCTION ": error %d\n", ret);
	return ret;
}

/* Only here: ftrace does not forget a filter that was freed. */
void filter_exit(void)
{
	ftrace_free_filter(&filter_ops);
}

static void filter_remove(void)
{
	/*
	 * For the callbacks of a module this waits until no task can be inside
	 * the callback (rude RCU-tasks) nor in a function that the callback has
	 * sent it to and that does not sleep (RCU-tasks): filter_taken().
	 */
	if (!WARN_ON_ONCE(unregister_ftrace_function(&filter_ops)))
		return;
	/* ftrace has switched itself off, and leaves everything as it is. */
	__module_get(THIS_MODULE);
}

int filter_get(void)
{
	int ret = 0;

	mutex_lock(&filter_mutex);
	if (READ_ONCE(filter_forbidden))
		ret = -EBUSY;
	else if (!filter_users)
		ret = register_ftrace_function(&filter_ops);
	if (!ret)
		filter_users++;
	mutex_unlock(&filter_mutex);
	return ret;
}

void filter_put(void)
{
	mutex_lock(&filter_mutex);
	if (!--filter_users)
		filter_remove();
	mutex_unlock(&filter_mutex);
}

const char *filter_problem(int err)
{
	if (err != -EBUSY)
		return FILTER_FUNCTION " cannot be hooked";
	return FILTER_FUNCTION " is modified by a live patch or another module, kernel.ftrace_enabled is 0, or the machine hibernates";
}

/*
 * Who calls this holds a lock that ftrace takes with its own held, and that one
 * is taken with the mutex held: so nobody waits for the mutex here.
 */
int filter_forbid(void)
{
	int ret = 0;

	if (!mutex_trylock(&filter_mutex))
		return -EBUSY;
	if (filter_users)
		ret = -EBUSY;
	else
		WRITE_ONCE(filter_forbidden, true);
	mutex_unlock(&filter_mutex);
	return ret;
}

void filter_allow(void)
{
	WRITE_ONCE(filter_forbidden, false);
}
