/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints, as /sys/kernel/tracing/events/blksnap/: docs/abi/tracepoints.md
 * says what they mean. All sectors are of 512 bytes.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM blksnap

#if !defined(BLKSNAP_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define BLKSNAP_TRACE_H

#include <linux/fs.h>
#include <linux/tracepoint.h>

/* Sectors of a device */
DECLARE_EVENT_CLASS(blksnap_range,
	TP_PROTO(dev_t dev, sector_t sector, sector_t sectors),
	TP_ARGS(dev, sector, sectors),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, sector)
		__field(u64, sectors)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sector = sector;
		__entry->sectors = sectors;
	),
	TP_printk("%u:%u %llu + %llu", MAJOR(__entry->dev), MINOR(__entry->dev),
		  __entry->sector, __entry->sectors)
);

/* The same, and a number that the event's page explains */
DECLARE_EVENT_CLASS(blksnap_range_value,
	TP_PROTO(dev_t dev, sector_t sector, sector_t sectors, s64 value),
	TP_ARGS(dev, sector, sectors, value),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, sector)
		__field(u64, sectors)
		__field(s64, value)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sector = sector;
		__entry->sectors = sectors;
		__entry->value = value;
	),
	TP_printk("%u:%u %llu + %llu [%lld]", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->sector, __entry->sectors,
		  __entry->value)
);

DEFINE_EVENT(blksnap_range, blksnap_hold,
	TP_PROTO(dev_t dev, sector_t sector, sector_t sectors),
	TP_ARGS(dev, sector, sectors));

DEFINE_EVENT(blksnap_range, blksnap_join,
	TP_PROTO(dev_t dev, sector_t sector, sector_t sectors),
	TP_ARGS(dev, sector, sectors));

DEFINE_EVENT(blksnap_range_value, blksnap_release,
	TP_PROTO(dev_t dev, sector_t sector, sector_t sectors, s64 value),
	TP_ARGS(dev, sector, sectors, value));

DEFINE_EVENT(blksnap_range_value, blksnap_image_read,
	TP_PROTO(dev_t dev, sector_t sector, sector_t sectors, s64 value),
	TP_ARGS(dev, sector, sectors, value));

DEFINE_EVENT(blksnap_range_value, blksnap_image_reread,
	TP_PROTO(dev_t dev, sector_t sector, sector_t sectors, s64 value),
	TP_ARGS(dev, sector, sectors, value));

TRACE_EVENT(blksnap_store,
	TP_PROTO(dev_t dev, sector_t sector, sector_t sectors, u64 us, int err),
	TP_ARGS(dev, sector, sectors, us, err),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(u64, sector)
		__field(u64, sectors)
		__field(u64, us)
		__field(int, err)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->sector = sector;
		__entry->sectors = sectors;
		__entry->us = us;
		__entry->err = err;
	),
	TP_printk("%u:%u %llu + %llu, %llu us [%d]", MAJOR(__entry->dev),
		  MINOR(__entry->dev), __entry->sector, __entry->sectors,
		  __entry->us, __entry->err)
);

TRACE_EVENT(blksnap_state,
	TP_PROTO(dev_t dev, int state, int err),
	TP_ARGS(dev, state, err),
	TP_STRUCT__entry(
		__field(dev_t, dev)
		__field(int, state)
		__field(int, err)
	),
	TP_fast_assign(
		__entry->dev = dev;
		__entry->state = state;
		__entry->err = err;
	),
	TP_printk("%u:%u %s [%d]", MAJOR(__entry->dev), MINOR(__entry->dev),
		  __print_symbolic(__entry->state,
				   { 1, "lost" }, { 2, "overflow" },
				   { 3, "failed" }),
		  __entry->err)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
