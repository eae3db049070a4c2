// SPDX-License-Identifier: GPL-2.0
/*
 * A cache of what is true of a granule for good, so that nothing has ever to be
 * taken out of it: a table of fixed size, direct-mapped. A word is all that is
 * read or written at a time, and is true in itself: a group of granules, which
 * tells whose word it is, and a bit for each granule of the group. Of two who
 * change a word at the same time, one may be forgotten.
 */
#include <linux/bits.h>
#include <linux/log2.h>
#include <linux/math.h>
#include <linux/minmax.h>
#include <linux/slab.h>

#include <asm/barrier.h>

#include "granule_cache.h"

#define GROUP_SHIFT 4
#define GROUP_GRANULES BIT(GROUP_SHIFT)
#define GROUP_LAST (GROUP_GRANULES - 1)	/* and a mask for a granule's bit */
#define GROUP_MASK GENMASK_ULL(GROUP_GRANULES - 1, 0)
#define CACHE_WORDS_MAX 4096ULL
#define CACHE_RANGE_MAX 1024	/* who asks for more is not in a hurry */

static u64 *group_word(const struct granule_cache *cache, unsigned long group)
{
	return &cache->words[group & (BIT(cache->shift) - 1)];
}

/* A word of zero is nobody's. */
static u64 group_tag(unsigned long group)
{
	return (u64)(group + 1) << GROUP_GRANULES;
}

/* The bits of granules of the same group. */
static u64 group_bits(unsigned long first, unsigned long last)
{
	return (2ULL << (last & GROUP_LAST)) - (1ULL << (first & GROUP_LAST));
}

static bool group_has(const struct granule_cache *cache, unsigned long first,
		      unsigned long last)
{
	unsigned long group = first >> GROUP_SHIFT;
	u64 bits = group_bits(first, last);
	/* Pairs with group_add(). */
	u64 word = smp_load_acquire(group_word(cache, group));

	return (word & (~GROUP_MASK | bits)) == (group_tag(group) | bits);
}

static void group_add(struct granule_cache *cache, unsigned long first,
		      unsigned long last)
{
	unsigned long group = first >> GROUP_SHIFT;
	u64 *word = group_word(cache, group);
	u64 tag = group_tag(group);
	u64 old = READ_ONCE(*word);

	if ((old & ~GROUP_MASK) != tag)
		old = tag;
	/* Pairs with group_has(). */
	smp_store_release(word, old | group_bits(first, last));
}

bool granule_cache_has(const struct granule_cache *cache, unsigned long first,
		       unsigned long last)
{
	for (; first >> GROUP_SHIFT != last >> GROUP_SHIFT;
	     first = (first | GROUP_LAST) + 1)
		if (!group_has(cache, first, first | GROUP_LAST))
			return false;
	return group_has(cache, first, last);
}

void granule_cache_add(struct granule_cache *cache, unsigned long first,
		       unsigned long last)
{
	if (last - first >= CACHE_RANGE_MAX)
		return;
	for (; first >> GROUP_SHIFT != last >> GROUP_SHIFT;
	     first = (first | GROUP_LAST) + 1)
		group_add(cache, first, first | GROUP_LAST);
	group_add(cache, first, last);
}

int granule_cache_init(struct granule_cache *cache, u64 granules)
{
	u64 words = DIV_ROUND_UP_ULL(granules, GROUP_GRANULES);

	words = roundup_pow_of_two(clamp(words, 1ULL, CACHE_WORDS_MAX));
	cache->shift = ilog2(words);
	cache->words = kvcalloc(words, sizeof(*cache->words), GFP_KERNEL);
	return cache->words ? 0 : -ENOMEM;
}

void granule_cache_exit(struct granule_cache *cache)
{
	kvfree(cache->words);
}
