/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_DIFF_IO_H
#define BLKSNAP_DIFF_IO_H

#include <linux/bio.h>
#include <linux/types.h>

struct diff_storage;

/**
 * struct diff_io - requests to the difference storage that are being built
 * @storage: where to
 * @bios: to allocate from; every bio that was allocated is submitted before
 *	the next one is
 * @opf: operation and flags of each request
 * @pages: how many pages all requests together may need, at most
 * @begin: called for each request just before it is submitted
 * @end_io: called for each request at its end; must bio_put() it
 * @private: bi_private of each request
 * @bio: being filled
 * @pos: where it ends by now, in sectors of the storage
 * @room: sectors that lie in one piece from there on
 *
 * What is added one after the other and lies side by side in the storage goes
 * there in one request, wherever its pages are.
 */
struct diff_io {
	struct diff_storage *storage;
	struct bio_set *bios;
	blk_opf_t opf;
	unsigned int pages;
	void (*begin)(struct bio *bio);
	bio_end_io_t *end_io;
	void *private;
	struct bio *bio;
	sector_t pos;
	sector_t room;
};

/**
 * diff_io_add() - adds a piece of memory
 * @io: the requests
 * @pos: where it lies in the storage, in sectors
 * @bvec: the memory, a multiple of a sector
 *
 * Context: may sleep, for a bio of @bios and for the device to take a request.
 */
void diff_io_add(struct diff_io *io, sector_t pos, const struct bio_vec *bvec);

/**
 * diff_io_submit() - submits what was added and not submitted yet
 * @io: the requests
 *
 * Context: may sleep, for the device to take the request.
 */
void diff_io_submit(struct diff_io *io);

#endif
