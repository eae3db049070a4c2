/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_HOOK_H
#define BLKSNAP_COMPAT_HOOK_H

#include <linux/ftrace.h>

/*
 * What an ftrace callback may ask of the call that it interrupts: its
 * first arguments, and where the call goes on.
 *
 * Until 6.3 (94d095ffa0e1 "ftrace: abstract DYNAMIC_FTRACE_WITH_ARGS
 * accesses") only the instruction pointer had an accessor.
 */

static __always_inline void *compat_hook_arg0(struct ftrace_regs *fregs)
{
	return (void *)regs_get_kernel_argument(&fregs->regs, 0);
}

static __always_inline unsigned long compat_hook_arg1(struct ftrace_regs *fregs)
{
	return regs_get_kernel_argument(&fregs->regs, 1);
}

static __always_inline void compat_hook_divert(struct ftrace_regs *fregs,
					       void (*to)(struct bio *bio))
{
	ftrace_instruction_pointer_set(fregs, (unsigned long)to);
}

#endif
