/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_COMPAT_WORK_H
#define BLKSNAP_COMPAT_WORK_H

#include <linux/workqueue.h>

#include "probed/all.h"

/* Queues it on the system's workqueue that is bound to no CPU. Any context. */
static inline bool compat_queue_unbound(struct work_struct *work)
{
#ifdef HAVE_DFL_WQ
	return queue_work(system_dfl_wq, work);
#else
	return queue_work(system_unbound_wq, work);
#endif
}

#endif
