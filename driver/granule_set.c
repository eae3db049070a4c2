// SPDX-License-Identifier: GPL-2.0
/*
 * Which granules something has happened to, as ranges in a maple tree.
 */
#include <linux/bits.h>
#include <linux/lockdep.h>
#include <linux/minmax.h>
#include <linux/string.h>
#include <linux/xarray.h>

#include "granule_set.h"

#define SET_GFP (GFP_NOIO | __GFP_NOWARN)
#define SET_MEMBER xa_mk_value(1)

void granule_set_init(struct granule_set *set)
{
	mutex_init(&set->mutex);
	mt_init_flags(&set->tree, MT_FLAGS_LOCK_EXTERN);
	mt_set_external_lock(&set->tree, &set->mutex);
	set->count = 0;
}

void granule_set_destroy(struct granule_set *set)
{
	mutex_lock(&set->mutex);
	__mt_destroy(&set->tree);
	mutex_unlock(&set->mutex);
}

/* How many of a range are in the set, and the range with all it touches. */
static u64 __granule_set_widen(struct granule_set *set, unsigned long *first,
			       unsigned long *last)
{
	MA_STATE(mas, &set->tree, *first ? *first - 1 : 0, 0);
	unsigned long from = *first, to = *last;
	u64 members = 0;
	void *entry;

	lockdep_assert_held(&set->mutex);
	mas_for_each(&mas, entry, to == ULONG_MAX ? to : to + 1) {
		if (mas.last >= from && mas.index <= to)
			members += min(mas.last, to) - max(mas.index, from) + 1;
		*first = min(*first, mas.index);
		*last = max(*last, mas.last);
	}
	return members;
}

int granule_set_add(struct granule_set *set, unsigned long first,
		    unsigned long last)
{
	u64 members, nr = last - first + 1;
	int ret;

	mutex_lock(&set->mutex);
	members = __granule_set_widen(set, &first, &last);
	if (members < nr) {
		MA_STATE(mas, &set->tree, first, last);

		ret = mas_store_gfp(&mas, SET_MEMBER, SET_GFP);
		if (!ret)
			WRITE_ONCE(set->count, set->count + nr - members);
	} else {
		ret = 0;
	}
	mutex_unlock(&set->mutex);
	return ret;
}

void granule_set_read(struct granule_set *set, unsigned long first, u8 *bits,
		      size_t bytes)
{
	MA_STATE(mas, &set->tree, first, first);
	unsigned long last = first + bytes * BITS_PER_BYTE - 1;
	unsigned long at;
	void *entry;

	memset(bits, 0, bytes);
	mutex_lock(&set->mutex);
	mas_for_each(&mas, entry, last)
		for (at = max(mas.index, first); at <= min(mas.last, last); at++)
			bits[(at - first) / BITS_PER_BYTE] |=
				BIT((at - first) % BITS_PER_BYTE);
	mutex_unlock(&set->mutex);
}
