/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_PRESERVE_H
#define BLKSNAP_PRESERVE_H

#include "diff_area.h"
#include "gate.h"

/**
 * preserve_write() - preserves what a held write will overwrite
 * @area: the area
 * @write: the held write
 * @first: its first sector on this origin
 * @last: its last one
 * @areas: all that follow this origin, by &struct diff_area.node; they stay there
 *	while this is called
 * @reads: gets what the caller has to give to preserve_read(), whatever the answer
 *
 * Context: as gate_watcher_ops.prepare. Return: see enum gate_answer.
 */
enum gate_answer preserve_write(struct diff_area *area,
				struct origin_write *write,
				sector_t first, sector_t last,
				struct list_head *areas,
				struct list_head *reads);

/**
 * preserve_read() - submits reads of what is to be preserved
 * @reads: from preserve_write(); empty afterwards
 *
 * Context: as gate_watcher_ops.read.
 */
void preserve_read(struct list_head *reads);

/**
 * preserve_settle() - gives sectors their place in the difference storage
 * @area: the caller has called diff_area_tryuse()
 * @first: first sector
 * @last: last sector, inside the origin
 *
 * When it returns 0, each granule of them has its content as of the take there,
 * or what was written to the image since. Context: may sleep, for reads of the
 * origin, for stores, and for memory.
 *
 * Return: 0; -EIO when the area is not active; -ENOMEM.
 */
int preserve_settle(struct diff_area *area, sector_t first, sector_t last);

#endif
