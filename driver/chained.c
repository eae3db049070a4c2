// SPDX-License-Identifier: GPL-2.0
/*
 * Completions of chained bios.
 *
 * bio_endio() works off a chain of bios in a loop, but only as long as it finds
 * bio_chain_endio() in each. A chain of interposed bios would recurse instead,
 * one level a link, and the kernel's own callers build chains of thousands
 * (BLKZEROOUT). So a chained bio's completion that is reached from within another
 * one is put on a list of the CPU, and the outer one works it off.
 */
#include <linux/bio.h>
#include <linux/irqflags.h>
#include <linux/percpu.h>

#include "chained.h"

bio_end_io_t *chained_endio;

struct chained_completion {
	struct bio_list bios;
	bool active;
};

/* Used with interrupts off: completions come from every context. */
static DEFINE_PER_CPU(struct chained_completion, chained_completion);

void chained_init(void)
{
	struct bio child, parent;

	bio_init(&child, NULL, NULL, 0, 0);
	bio_init(&parent, NULL, NULL, 0, 0);
	bio_chain(&child, &parent);
	chained_endio = child.bi_end_io;
}

static bool chained_enter(struct chained_completion *cpu, struct bio *bio)
{
	unsigned long flags;
	bool outermost;

	local_irq_save(flags);
	outermost = !cpu->active;
	if (outermost)
		cpu->active = true;
	else
		bio_list_add(&cpu->bios, bio);
	local_irq_restore(flags);
	return outermost;
}

static struct bio *chained_next(struct chained_completion *cpu)
{
	unsigned long flags;
	struct bio *bio;

	local_irq_save(flags);
	bio = bio_list_pop(&cpu->bios);
	if (!bio)
		cpu->active = false;
	local_irq_restore(flags);
	return bio;
}

/* bio_endio() has seen this bio once: what it did then, it must not repeat. */
void chained_complete(struct bio *bio)
{
	struct chained_completion *cpu = get_cpu_ptr(&chained_completion);

	bio_clear_flag(bio, BIO_QOS_THROTTLED);
	bio_clear_flag(bio, BIO_QOS_MERGED);
	if (chained_enter(cpu, bio))
		for (; bio; bio = chained_next(cpu))
			bio_endio(bio);
	put_cpu_ptr(&chained_completion);
}
