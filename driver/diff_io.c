// SPDX-License-Identifier: GPL-2.0
/*
 * Requests to the difference storage, built from pieces of memory.
 */
#include <linux/bio.h>

#include "diff_io.h"
#include "diff_storage.h"

void diff_io_submit(struct diff_io *io)
{
	struct bio *bio = io->bio;

	if (!bio)
		return;
	io->bio = NULL;
	io->begin(bio);
	diff_storage_submit(io->storage, bio);
}

static void diff_io_begin_bio(struct diff_io *io, sector_t pos)
{
	struct bio *bio;

	diff_io_submit(io);
	bio = bio_alloc_bioset(NULL, bio_max_segs(io->pages), io->opf, GFP_NOIO,
			       io->bios);
	bio->bi_end_io = io->end_io;
	bio->bi_private = io->private;
	io->room = diff_storage_place(io->storage, pos, bio);
	io->pos = pos;
	io->bio = bio;
}

static bool diff_io_continues(const struct diff_io *io, sector_t pos)
{
	return io->bio && pos == io->pos && io->room &&
	       io->bio->bi_vcnt < io->bio->bi_max_vecs;
}

void diff_io_add(struct diff_io *io, sector_t pos, const struct bio_vec *bvec)
{
	unsigned int done = 0;

	while (done < bvec->bv_len) {
		unsigned int len;

		if (!diff_io_continues(io, pos))
			diff_io_begin_bio(io, pos);
		len = min_t(u64, bvec->bv_len - done,
			    (u64)io->room << SECTOR_SHIFT);
		__bio_add_page(io->bio, bvec->bv_page, len,
			       bvec->bv_offset + done);
		done += len;
		pos += len >> SECTOR_SHIFT;
		io->pos = pos;
		io->room -= len >> SECTOR_SHIFT;
	}
}
