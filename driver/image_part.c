// SPDX-License-Identifier: GPL-2.0
/*
 * Where the parts of an image are: what image_read.c and image_write.c share.
 */
#include <linux/bio.h>
#include <linux/rcupdate.h>

#include "chunk.h"
#include "diff_area.h"
#include "image_part.h"

static bool image_try_part(struct diff_area *area, sector_t first,
			   sector_t end, struct image_part *part)
{
	unsigned int shift = area->granule_shift;
	struct diff_run run;
	bool valid = true;

	rcu_read_lock();
	diff_map_lookup(&area->map, first >> shift, &run);
	if (run.kind == DIFF_CHUNK && !chunk_is_ready(run.chunk))
		run.kind = DIFF_ORIGIN;
	if (run.kind == DIFF_CHUNK)
		valid = chunk_tryget(run.chunk);
	rcu_read_unlock();

	part->kind = run.kind;
	part->first = first;
	part->chunk = run.chunk;
	part->displacement = run.displacement;
	/* A run at the end of the map may reach to the largest number. */
	if (run.last < (end - 1) >> shift)
		end = (sector_t)(run.last + 1) << shift;
	part->sectors = end - first;
	return valid;
}

/*
 * A chunk whose last reference is gone has been replaced in the map before: look
 * again.
 */
void image_next_part(struct diff_area *area, sector_t first,
			    sector_t end, struct image_part *part)
{
	while (!image_try_part(area, first, end, part))
		cpu_relax();
}

struct bvec_iter image_part_iter(const struct image_part *part, struct bio *bio,
				 struct bvec_iter iter)
{
	bio_advance_iter(bio, &iter,
			 (part->first - iter.bi_sector) << SECTOR_SHIFT);
	iter.bi_size = part->sectors << SECTOR_SHIFT;
	return iter;
}

/*
 * Memory may begin anywhere in a page, so that each block of it is in two; a
 * request must not end for want of room inside a block.
 */
unsigned int image_max_segments(const struct bvec_iter *iter)
{
	return 2 * DIV_ROUND_UP(iter->bi_size, PAGE_SIZE) + 1;
}
