/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_CHAINED_H
#define BLKSNAP_CHAINED_H

#include <linux/blk_types.h>

/* The kernel's completion of chained bios, which is not exported; set once. */
extern bio_end_io_t *chained_endio;

/**
 * chained_init() - finds out what the kernel completes chained bios with
 *
 * Context: module init, before the first use of the others.
 */
void chained_init(void);

/**
 * chained_is() - is a completion that of a chained bio? Context: any.
 * @end_io: the completion
 */
static inline bool chained_is(bio_end_io_t *end_io)
{
	return end_io == chained_endio;
}

/**
 * chained_complete() - completes a chained bio, from within its completion
 * @bio: bio_endio() has called an interposed completion of it, which has put
 *	the kernel's back
 *
 * Does not recurse, however long the chain. Context: any.
 */
void chained_complete(struct bio *bio);

#endif
