/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_GRANULE_CACHE_H
#define BLKSNAP_GRANULE_CACHE_H

#include <linux/types.h>

/**
 * struct granule_cache - granules of which something was once found to be true
 * @words: direct-mapped: a group of granules, and a bit for each of them
 * @shift: log2 of how many
 */
struct granule_cache {
	u64 *words;
	unsigned int shift;
};

/**
 * granule_cache_init() - an empty cache
 * @cache: the cache
 * @granules: how many there are in all; at most 2^44
 *
 * Takes 32 KiB at most. Context: may sleep. Return: 0 or -ENOMEM.
 */
int granule_cache_init(struct granule_cache *cache, u64 granules);

/**
 * granule_cache_exit() - frees it
 * @cache: nobody uses it any more. Context: may sleep.
 */
void granule_cache_exit(struct granule_cache *cache);

/**
 * granule_cache_add() - remembers that it is true of all granules of a range
 * @cache: the cache
 * @first: first granule
 * @last: last granule
 *
 * Context: any. May forget others; does not remember ranges of more than 1024.
 */
void granule_cache_add(struct granule_cache *cache, unsigned long first,
		       unsigned long last);

/**
 * granule_cache_has() - is it known to be true of all granules of a range?
 * @cache: the cache
 * @first: first granule
 * @last: last granule
 *
 * Context: any. Return: false says nothing. After true, all is seen that was
 * before granule_cache_add().
 */
bool granule_cache_has(const struct granule_cache *cache, unsigned long first,
		       unsigned long last);

#endif
