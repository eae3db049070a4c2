/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_DIFF_STORE_H
#define BLKSNAP_DIFF_STORE_H

#include <linux/types.h>

struct bio;
struct diff_area;

/**
 * diff_store_is_store() - is this a request that stores chunks of any area?
 * @bio: not passed by a gate yet. Context: any.
 */
bool diff_store_is_store(const struct bio *bio);

/**
 * diff_store_ready() - stores the chunks of an area that are ready
 * @area: used by the caller; one call at a time
 *
 * Context: may sleep, as long as the difference storage needs.
 *
 * Return: 1 when something was stored, 0 when nothing was ready, or an errno,
 * and the chunks are ready still: -ENOSPC when the storage is full, or what it
 * says.
 */
int diff_store_ready(struct diff_area *area);

/**
 * diff_store_purge() - gives up the chunks of an area that are not stored yet
 * @area: is not active any more: nobody will read them. Other sessions can use
 *	the memory. Not those that are being written
 *
 * Context: may sleep.
 */
void diff_store_purge(struct diff_area *area);

#endif
