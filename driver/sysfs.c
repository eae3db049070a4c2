// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/block/blksnapN/blksnap/: whose image it is, and its chunk statistics.
 * /sys/block/blksnapN/cbt/: the origin's change map, if it has a tracker.
 *
 * The files are gone before the area stops, so no reader finds it unusable.
 */
#include <linux/bits.h>
#include <linux/blkdev.h>
#include <linux/device.h>
#include <linux/math.h>
#include <linux/minmax.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "cbt_map.h"
#include "compat/device.h"
#include "diff_area.h"
#include "image.h"
#include "sysfs.h"

static const struct image_config *image_config_of(struct device *dev)
{
	return image_of(dev_to_disk(dev));
}

static struct diff_area *area_of(struct device *dev)
{
	return image_config_of(dev)->area;
}

static ssize_t session_show(struct device *dev, struct device_attribute *attr,
			    char *page)
{
	return sysfs_emit(page, "%s\n", image_config_of(dev)->session);
}
static DEVICE_ATTR_RO(session);

static ssize_t snapshot_show(struct device *dev, struct device_attribute *attr,
			     char *page)
{
	return sysfs_emit(page, "%s\n", image_config_of(dev)->snapshot);
}
static DEVICE_ATTR_RO(snapshot);

static ssize_t origin_show(struct device *dev, struct device_attribute *attr,
			   char *page)
{
	dev_t origin = area_of(dev)->config.origin->bd_dev;

	return sysfs_emit(page, "%u:%u\n", MAJOR(origin), MINOR(origin));
}
static DEVICE_ATTR_RO(origin);

static ssize_t state_show(struct device *dev, struct device_attribute *attr,
			  char *page)
{
	enum diff_area_state state = diff_area_state(area_of(dev));

	return sysfs_emit(page, "%s\n", diff_area_state_name(state));
}
static DEVICE_ATTR_RO(state);

static ssize_t error_show(struct device *dev, struct device_attribute *attr,
			  char *page)
{
	return error_emit(&area_of(dev)->error, page);
}
static DEVICE_ATTR_RO(error);

/* One attribute for each number; EXPRESSION is of a struct diff_area *area. */
#define NUMBER_ATTR(NAME, EXPRESSION)						\
static ssize_t NAME##_show(struct device *dev,					\
			   struct device_attribute *attr, char *page)		\
{										\
	struct diff_area *area = area_of(dev);					\
										\
	return sysfs_emit(page, "%llu\n", (u64)(EXPRESSION));			\
}										\
static DEVICE_ATTR_RO(NAME)

#define COUNTER_ATTR(NAME, COUNTER)						\
	NUMBER_ATTR(NAME, atomic64_read(&area->stats.COUNTER))

NUMBER_ATTR(chunk_size, area->config.granule);
NUMBER_ATTR(chunks, diff_area_granules(area));
COUNTER_ATTR(chunks_preserved, preserved);
COUNTER_ATTR(chunks_stored, stored);
NUMBER_ATTR(chunks_in_memory, diff_area_in_memory(area));
NUMBER_ATTR(chunks_written, READ_ONCE(area->written.count));
COUNTER_ATTR(memory_bytes, memory_bytes);
COUNTER_ATTR(origin_read_bytes, origin_read_bytes);
COUNTER_ATTR(diff_written_bytes, diff_written_bytes);
COUNTER_ATTR(diff_writes, diff_writes);
COUNTER_ATTR(writes_held, writes_held);
COUNTER_ATTR(writes_joined, writes_joined);
NUMBER_ATTR(writes_passed, diff_area_writes_passed(area));
COUNTER_ATTR(held_us_max, held_us_max);
COUNTER_ATTR(image_reads_origin, reads_origin);
COUNTER_ATTR(image_reads_diff, reads_diff);
COUNTER_ATTR(image_reads_memory, reads_memory);
COUNTER_ATTR(image_reads_repeated, reads_repeated);
COUNTER_ATTR(discards_dropped, discards_dropped);

static ssize_t map_entries_show(struct device *dev,
				struct device_attribute *attr, char *page)
{
	u64 entries, bytes;

	diff_map_measure(&area_of(dev)->map, &entries, &bytes);
	return sysfs_emit(page, "%llu\n", entries);
}
static DEVICE_ATTR_RO(map_entries);

static ssize_t map_bytes_show(struct device *dev, struct device_attribute *attr,
			      char *page)
{
	u64 entries, bytes;

	diff_map_measure(&area_of(dev)->map, &entries, &bytes);
	return sysfs_emit(page, "%llu\n", bytes);
}
static DEVICE_ATTR_RO(map_bytes);

/* A bit for each granule, so that where a range is read needs no state. */
static ssize_t written_read(struct file *file, struct kobject *kobj,
			    compat_bin_attribute *attr, char *buffer,
			    loff_t pos, size_t count)
{
	struct diff_area *area = area_of(kobj_to_dev(kobj));
	u64 size = DIV_ROUND_UP_ULL(diff_area_granules(area), BITS_PER_BYTE);

	if (pos >= size || !count)
		return 0;
	count = min_t(u64, count, size - pos);
	granule_set_read(&area->written, pos * BITS_PER_BYTE, (u8 *)buffer,
			 count);
	return count;
}
static BIN_ATTR_RO(written, 0);

static struct attribute *sysfs_image_attrs[] = {
	&dev_attr_session.attr,
	&dev_attr_snapshot.attr,
	&dev_attr_origin.attr,
	&dev_attr_state.attr,
	&dev_attr_error.attr,
	&dev_attr_chunk_size.attr,
	&dev_attr_chunks.attr,
	&dev_attr_chunks_preserved.attr,
	&dev_attr_chunks_in_memory.attr,
	&dev_attr_chunks_stored.attr,
	&dev_attr_chunks_written.attr,
	&dev_attr_map_entries.attr,
	&dev_attr_map_bytes.attr,
	&dev_attr_memory_bytes.attr,
	&dev_attr_origin_read_bytes.attr,
	&dev_attr_diff_written_bytes.attr,
	&dev_attr_diff_writes.attr,
	&dev_attr_writes_held.attr,
	&dev_attr_writes_passed.attr,
	&dev_attr_writes_joined.attr,
	&dev_attr_held_us_max.attr,
	&dev_attr_image_reads_origin.attr,
	&dev_attr_image_reads_diff.attr,
	&dev_attr_image_reads_memory.attr,
	&dev_attr_image_reads_repeated.attr,
	&dev_attr_discards_dropped.attr,
	NULL
};

static compat_bin_attr_ptr sysfs_image_bin_attrs[] = {
	&bin_attr_written,
	NULL
};

static const struct attribute_group sysfs_image_group = {
	.name = SYSFS_IMAGE_GROUP,
	.attrs = sysfs_image_attrs,
	.bin_attrs = sysfs_image_bin_attrs,
};

const struct attribute_group *sysfs_image_groups[] = {
	&sysfs_image_group,
	NULL
};

/* The change map. It does not change, and is freed after the files are gone. */

static const struct cbt_frozen *cbt_of(struct device *dev)
{
	return image_config_of(dev)->cbt;
}

static ssize_t cbt_generation_show(struct device *dev,
				   struct device_attribute *attr, char *page)
{
	return sysfs_emit(page, "%pUb\n", &cbt_of(dev)->id.generation);
}

static ssize_t cbt_number_show(struct device *dev,
			       struct device_attribute *attr, char *page)
{
	return sysfs_emit(page, "%u\n", cbt_of(dev)->id.number);
}

static ssize_t cbt_base_show(struct device *dev, struct device_attribute *attr,
			     char *page)
{
	const struct cbt_id *base = &cbt_of(dev)->base;

	if (!cbt_id_is(base))
		return 0;
	return sysfs_emit(page, "%pUb %u\n", &base->generation, base->number);
}

static ssize_t cbt_block_size_show(struct device *dev,
				   struct device_attribute *attr, char *page)
{
	return sysfs_emit(page, "%llu\n",
			  (u64)SECTOR_SIZE << cbt_of(dev)->block_shift);
}

static ssize_t map_read(struct file *file, struct kobject *kobj,
			compat_bin_attribute *attr, char *buffer, loff_t pos,
			size_t count)
{
	const struct cbt_frozen *cbt = cbt_of(kobj_to_dev(kobj));

	return memory_read_from_buffer(buffer, count, &pos, cbt->bytes,
				       cbt->blocks);
}

#define CBT_ATTR(NAME)						\
	static struct device_attribute dev_attr_cbt_##NAME =	\
		__ATTR(NAME, 0444, cbt_##NAME##_show, NULL)

CBT_ATTR(generation);
CBT_ATTR(number);
CBT_ATTR(base);
CBT_ATTR(block_size);
static BIN_ATTR_RO(map, 0);

static struct attribute *sysfs_cbt_attrs[] = {
	&dev_attr_cbt_generation.attr,
	&dev_attr_cbt_number.attr,
	&dev_attr_cbt_base.attr,
	&dev_attr_cbt_block_size.attr,
	NULL
};

static compat_bin_attr_ptr sysfs_cbt_bin_attrs[] = {
	&bin_attr_map,
	NULL
};

static const struct attribute_group sysfs_cbt_group = {
	.name = SYSFS_CBT_GROUP,
	.attrs = sysfs_cbt_attrs,
	.bin_attrs = sysfs_cbt_bin_attrs,
};

const struct attribute_group *sysfs_image_cbt_groups[] = {
	&sysfs_image_group,
	&sysfs_cbt_group,
	NULL
};
