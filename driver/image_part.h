/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_IMAGE_PART_H
#define BLKSNAP_IMAGE_PART_H

#include <linux/bio.h>
#include <linux/types.h>

#include "diff_map.h"

struct chunk;
struct diff_area;

/**
 * struct image_part - a part of an image of which the same is true
 * @kind: see enum diff_kind; a loading chunk counts as DIFF_ORIGIN
 * @first: first sector
 * @sectors: how many
 * @chunk: for DIFF_CHUNK, with a reference
 * @displacement: for DIFF_STORED
 */
struct image_part {
	enum diff_kind kind;
	sector_t first;
	sector_t sectors;
	struct chunk *chunk;
	s64 displacement;
};

/**
 * image_next_part() - what is known about a place of the image
 * @area: where the content is
 * @first: first sector
 * @end: the sector after the last one that is asked for
 * @part: the answer: begins at @first, ends at @end at the latest. If it is a
 *	chunk, the caller puts it
 *
 * Context: diff_map_may_walk().
 */
void image_next_part(struct diff_area *area, sector_t first, sector_t end,
		     struct image_part *part);

/**
 * image_part_iter() - the memory of a part. Context: any.
 * @part: inside of @iter
 * @bio: whose memory it is
 * @iter: all of it
 */
struct bvec_iter image_part_iter(const struct image_part *part, struct bio *bio,
				 struct bvec_iter iter);

/**
 * image_max_segments() - pieces of memory that a range may consist of, at most.
 * Context: any.
 * @iter: the range
 */
unsigned int image_max_segments(const struct bvec_iter *iter);

#endif
