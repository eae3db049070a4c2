/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_WORK_H
#define BLKSNAP_COMPAT_WORK_H

#include <linux/workqueue.h>

#include "probed/all.h"

/* The system's workqueue that is bound to no CPU. Any context. */
static inline struct workqueue_struct *compat_unbound_wq(void)
{
#ifdef HAVE_DFL_WQ
	return system_dfl_wq;
#else
	return system_unbound_wq;
#endif
}

#endif
