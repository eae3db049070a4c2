// SPDX-License-Identifier: GPL-2.0
/*
 * A shrinker is allocated since 6.7, c42d50aefd17 "mm: shrinker: add
 * infrastructure for dynamically allocating shrinker"; before, it was embedded.
 */
#include <linux/mm.h>
#include <linux/shrinker.h>

#ifdef PROBE_NEW
static void probe(void)
{
	shrinker_register(shrinker_alloc(0, "probe"));
}
#else
static int probe(struct shrinker *shrinker)
{
	return register_shrinker(shrinker, "probe");
}
#endif
