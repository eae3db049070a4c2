// SPDX-License-Identifier: GPL-2.0
/*
 * A queue that is unfrozen restores the flags of the task's allocations since
 * 6.14, 1e1a9cecfab3 "block: force noio scope in blk_mq_freeze_queue", unless
 * it is asked not to.
 */
#include <linux/blk-mq.h>

#ifdef PROBE_NEW
static void probe(struct request_queue *q)
{
	blk_mq_unfreeze_queue(q, 0);
	blk_mq_unfreeze_queue_nomemrestore(q);
}
#else
static void probe(struct request_queue *q)
{
	blk_mq_unfreeze_queue(q);
}
#endif
