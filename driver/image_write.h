/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_IMAGE_WRITE_H
#define BLKSNAP_IMAGE_WRITE_H

#include <linux/bio.h>
#include <linux/mempool.h>

struct diff_area;
struct workqueue_struct;

/**
 * struct image_writer - what the writes of one image share
 * @area: where the content is; set once
 * @wq: where writes are worked off; set once
 * @bios: for requests to the difference storage
 * @writes: of struct image_write
 */
struct image_writer {
	struct diff_area *area;
	struct workqueue_struct *wq;
	struct bio_set bios;
	mempool_t writes;
};

/**
 * image_writer_init() - prepares to write
 * @writer: zeroed
 * @area: outlives the writer
 * @wq: reclaim-safe, and runs several works at a time
 *
 * Context: may sleep. Return: 0 or -ENOMEM; image_writer_exit() is due in both
 * cases.
 */
int image_writer_init(struct image_writer *writer, struct diff_area *area,
		      struct workqueue_struct *wq);

/**
 * image_writer_exit() - undoes image_writer_init()
 * @writer: no write is under way; or zeroed. Context: may sleep.
 */
void image_writer_exit(struct image_writer *writer);

/**
 * image_write_start() - writes to the image
 * @writer: the writer
 * @bio: a write; is ended when it is complete
 *
 * The caller has called diff_area_tryuse(); the end of the write undoes it.
 * Context: as ->submit_bio().
 */
void image_write_start(struct image_writer *writer, struct bio *bio);

#endif
