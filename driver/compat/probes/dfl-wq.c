// SPDX-License-Identifier: GPL-2.0
/*
 * The unbound workqueue of the system has another name since 6.17, 128ea9f6ccfb
 * "workqueue: Add system_percpu_wq and system_dfl_wq"; later kernels complain
 * of the old one, which is still there.
 */
#include <linux/workqueue.h>

#ifdef PROBE_NEW
static bool probe(struct work_struct *work)
{
	return queue_work(system_dfl_wq, work);
}
#else
/* The name was free. */
static int system_dfl_wq;

static bool probe(struct work_struct *work)
{
	return queue_work(system_unbound_wq, work);
}
#endif
