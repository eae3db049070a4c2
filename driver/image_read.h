/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_IMAGE_READ_H
#define BLKSNAP_IMAGE_READ_H

#include <linux/bio.h>
#include <linux/mempool.h>

struct diff_area;
struct workqueue_struct;

/**
 * struct image_reader - what the reads of one image share
 * @area: where the content is; set once
 * @wq: for the second step of a read; set once
 * @bios: for requests to origin and difference storage
 * @reads: of struct image_read
 */
struct image_reader {
	struct diff_area *area;
	struct workqueue_struct *wq;
	struct bio_set bios;
	mempool_t reads;
};

/**
 * image_reader_init() - prepares to read
 * @reader: zeroed
 * @area: outlives the reader
 * @wq: reclaim-safe, and runs several works at a time
 *
 * Context: may sleep. Return: 0 or -ENOMEM; image_reader_exit() is due in both
 * cases.
 */
int image_reader_init(struct image_reader *reader, struct diff_area *area,
		      struct workqueue_struct *wq);

/**
 * image_reader_exit() - undoes image_reader_init()
 * @reader: no read is under way; or zeroed. Context: may sleep.
 */
void image_reader_exit(struct image_reader *reader);

/**
 * image_read_start() - reads a part of the image
 * @reader: the reader
 * @bio: a read; is ended when it is complete
 *
 * The caller has called diff_area_tryuse(); the end of the read undoes it.
 * Context: as ->submit_bio().
 */
void image_read_start(struct image_reader *reader, struct bio *bio);

#endif
