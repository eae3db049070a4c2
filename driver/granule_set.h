/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_GRANULE_SET_H
#define BLKSNAP_GRANULE_SET_H

#include <linux/maple_tree.h>
#include <linux/mutex.h>
#include <linux/types.h>

/**
 * struct granule_set - a set of granules, kept as ranges
 * @tree: protected by @mutex
 * @mutex: serialises everything
 * @count: how many granules are in it; written under @mutex
 */
struct granule_set {
	struct maple_tree tree;
	struct mutex mutex;	/* serialises everything */
	u64 count;
};

/**
 * granule_set_init() - an empty set. Context: any.
 * @set: the set
 */
void granule_set_init(struct granule_set *set);

/**
 * granule_set_destroy() - frees the set. Context: may sleep.
 * @set: the set
 */
void granule_set_destroy(struct granule_set *set);

/**
 * granule_set_add() - adds a range
 * @set: the set
 * @first: first granule
 * @last: last granule; granules that are in the set already count once
 *
 * Context: may sleep; does not reclaim. Return: 0 or -ENOMEM.
 */
int granule_set_add(struct granule_set *set, unsigned long first,
		    unsigned long last);

/**
 * granule_set_read() - which granules of a range are in the set
 * @set: the set
 * @first: first granule
 * @bits: the bit N % 8 of the byte N / 8 is of the granule @first + N
 * @bytes: size of @bits; not 0
 *
 * Context: may sleep.
 */
void granule_set_read(struct granule_set *set, unsigned long first, u8 *bits,
		      size_t bytes);

#endif
