/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_HOOK_H
#define BLKSNAP_COMPAT_HOOK_H

#include <linux/ftrace.h>

#include "probed/all.h"

/*
 * What an ftrace callback may ask of the call that it interrupts: its first
 * arguments, and where the call goes on.
 */

static __always_inline unsigned long
compat_hook_arg(struct ftrace_regs *fregs, unsigned int nr)
{
#ifdef HAVE_FTRACE_ACCESSORS
	return ftrace_regs_get_argument(fregs, nr);
#else
	return regs_get_kernel_argument(&fregs->regs, nr);
#endif
}

static __always_inline void compat_hook_divert(struct ftrace_regs *fregs,
					       void (*to)(struct bio *bio))
{
#ifdef HAVE_FTRACE_ACCESSORS
	ftrace_regs_set_instruction_pointer(fregs, (unsigned long)to);
#else
	ftrace_instruction_pointer_set(fregs, (unsigned long)to);
#endif
}

#endif
