// SPDX-License-Identifier: GPL-2.0
/*
 * All that an ftrace callback may ask has an accessor since 6.3, 94d095ffa0e1
 * "ftrace: abstract DYNAMIC_FTRACE_WITH_ARGS accesses".
 */
#include <linux/ftrace.h>

#ifndef CONFIG_DYNAMIC_FTRACE_WITH_ARGS
#error "the kernel's ftrace gives callbacks no arguments"
#endif

#ifdef PROBE_NEW
static unsigned long probe(struct ftrace_regs *fregs, unsigned long ip)
{
	ftrace_regs_set_instruction_pointer(fregs, ip);
	return ftrace_regs_get_argument(fregs, 0);
}
#else
static unsigned long probe(struct ftrace_regs *fregs, unsigned long ip)
{
	ftrace_instruction_pointer_set(fregs, ip);
	return regs_get_kernel_argument(&fregs->regs, 0);
}
#endif
