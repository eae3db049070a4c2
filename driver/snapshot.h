/* SPDX-License-Identifier: GPL-2.0 */
#ifndef BLKSNAP_SNAPSHOT_H
#define BLKSNAP_SNAPSHOT_H

#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/workqueue.h>

#include "diff_area.h"
#include "diff_target.h"
#include "disk_watch.h"
#include "error.h"
#include "origin.h"
#include "stack.h"

#define SNAPSHOT_NAME_MAX 64
#define CHUNK_SIZE_MIN SZ_4K
#define CHUNK_SIZE_MAX SZ_64M

struct cbt_freeze;
struct diff_storage;
struct image;
struct session;
struct tracker;

/**
 * struct snapshot - one origin in a session
 * @node: in the session's list; protected by the session's mutex
 * @session: set once
 * @name: set once
 * @label: "session/snapshot", for log lines; set once
 * @error: the last refusal or failure
 * @device: path of the origin as it was written, or NULL; session's mutex
 * @id: what it was resolved to; session's mutex
 * @chunk_size: wanted granule in bytes, 0 for a choice; session's mutex
 * @preserve_discards: see the attribute "discard"; session's mutex
 * @granule: in force since the last take, in bytes; session's mutex
 * @picked: granule of the take that is under way
 * @origin: while active
 * @stack: what the origin is built upon; while active
 * @watch: tells that the origin goes away; while active
 * @noticed: it has told something
 * @loop_file: tells where in its file the origin begins, if it is a loop device;
 *	while it is watched
 * @loop_offset: where that is, in bytes
 * @tracker: while active
 * @freeze: of the tracker's change map, if there is one; during the take
 * @area: while active
 * @image: while active
 * @shared_failure: its area failed for a reason of the session's storage
 * @announced: the failure was announced; used by the session's fail work only
 * @consequence: its area failed because another's had; as @announced
 * @frozen: devices whose file systems were frozen at the last take
 * @nr_frozen: how many
 * @noted: the same of a take that may still be refused
 * @nr_noted: how many
 */
struct snapshot {
	struct list_head node;
	struct session *session;
	char name[SNAPSHOT_NAME_MAX + 1];
	char label[2 * SNAPSHOT_NAME_MAX + 2];
	struct error_text error;
	char *device;
	struct origin_id id;
	unsigned int chunk_size;
	bool preserve_discards;
	unsigned int granule;
	unsigned int picked;
	struct origin origin;
	struct stack stack;
	struct disk_watch watch;
	bool noticed;
	struct file *loop_file;
	u64 loop_offset;
	struct tracker *tracker;
	struct cbt_freeze *freeze;
	struct diff_area *area;
	struct image *image;
	bool shared_failure;
	bool announced;
	bool consequence;
	dev_t *frozen;
	unsigned int nr_frozen;
	dev_t *noted;
	unsigned int nr_noted;
};

/**
 * struct session - snapshots that are taken at one instant
 * @name: set once
 * @mutex: serialises whatever the administrator does to it
 * @snapshots: protected by @mutex; does not change while active
 * @nr_snapshots: how many
 * @error: the last refusal or failure
 * @diff_file: path as it was written, or NULL; protected by @mutex
 * @diff_target: what it was resolved to; protected by @mutex
 * @diff_limit: bytes up to which a file may grow; protected by @mutex
 * @diff_low: bytes that shall be free; protected by @mutex
 * @has_diff_limit: @diff_limit was set by the administrator; as it
 * @has_diff_low: the same of @diff_low
 * @active: written under @mutex
 * @busy: from the beginning of a take to the end of the release; set under
 *	configfs's su_mutex, and written under @mutex
 * @storage: while active
 * @diff_stack: what its device is built upon; while active
 * @wq: stores of its areas; while active
 * @fail_work: announces failures of its areas, and that space is low
 * @low_space: that is to be announced
 * @active_node: in the list of active sessions; protected by the take's mutex
 * @hold_us: how long writes were held at the last take
 * @frozen_us: from the first freeze to the last thaw at the last take
 */
struct session {
	char name[SNAPSHOT_NAME_MAX + 1];
	struct mutex mutex;	/* protects all that is configured */
	struct list_head snapshots;
	unsigned int nr_snapshots;
	struct error_text error;
	char *diff_file;
	struct diff_target diff_target;
	u64 diff_limit;
	u64 diff_low;
	bool has_diff_limit;
	bool has_diff_low;
	bool active;
	bool busy;
	struct diff_storage *storage;
	struct stack diff_stack;
	struct workqueue_struct *wq;
	struct delayed_work fail_work;
	bool low_space;
	struct list_head active_node;
	u64 hold_us;
	u64 frozen_us;
};

/**
 * snapshot_bdev() - the origin, while it is open. Context: any.
 * @snapshot: the snapshot
 */
static inline struct block_device *snapshot_bdev(const struct snapshot *snapshot)
{
	return snapshot->origin.handle.bdev;
}

/**
 * snapshot_name_valid() - may an object have this name?
 * @name: 1 to 64 of [A-Za-z0-9._:+-], not beginning with a dot, not ending
 *	in "-part" and a number, which udev uses for partitions of images
 *
 * Context: any.
 */
bool snapshot_name_valid(const char *name);

/**
 * session_init() - an empty session. Context: any.
 * @session: zeroed
 * @name: valid
 */
void session_init(struct session *session, const char *name);

/**
 * session_destroy() - frees what a session holds, not the struct
 * @session: not active, empty. Context: may sleep.
 */
void session_destroy(struct session *session);

/**
 * session_add() - adds a snapshot
 * @session: the session
 * @snapshot: zeroed
 * @name: valid
 *
 * Context: may sleep; configfs's su_mutex is held. Return: 0, or -EBUSY while the
 * session is active, or is being taken or released.
 */
int session_add(struct session *session, struct snapshot *snapshot,
		const char *name);

/**
 * session_remove() - takes a snapshot out and frees what it holds
 * @snapshot: of a session that is not active. Context: may sleep.
 */
void session_remove(struct snapshot *snapshot);

/**
 * session_set_diff() - sets the difference storage
 * @session: the session
 * @path: resolved with the rights of the current task
 *
 * Context: may sleep. Return: 0, -EBUSY while active, or what
 * diff_target_resolve() says.
 */
int session_set_diff(struct session *session, const char *path);

/**
 * session_set_diff_limit() - sets how large a file may grow
 * @session: the session; also while it is active
 * @bytes: 0: not at all. While active, not less than there is
 *
 * Context: may sleep. Return: 0; -EINVAL, or -EXDEV when the storage cannot grow
 * since its disk has an active snapshot.
 */
int session_set_diff_limit(struct session *session, u64 bytes);

/**
 * session_set_diff_low() - sets how much space shall be free
 * @session: the session; also while it is active
 * @bytes: how much
 *
 * Context: may sleep. Return: 0.
 */
int session_set_diff_low(struct session *session, u64 bytes);

/**
 * session_apply_marks() - tells the storage what was set, or what is right
 * @session: with storage; the caller holds its mutex
 *
 * Context: may sleep.
 */
void session_apply_marks(struct session *session);

/**
 * session_limit() - how large its storage may become
 * @session: the caller holds its mutex
 *
 * Context: any. Return: bytes; what was set, if it has no storage yet.
 */
u64 session_limit(struct session *session);

/**
 * session_diff_low() - how much space shall be free, in bytes
 * @session: the caller holds its mutex
 * @limit: of the storage, in bytes. Context: any.
 */
u64 session_diff_low(const struct session *session, u64 limit);

/**
 * session_state() - the worst of its snapshots, or "configured"
 * @session: the caller holds its mutex. Context: any.
 */
const char *session_state(struct session *session);

/**
 * snapshot_state() - active, overflow, failed, lost, or "configured"
 * @snapshot: the caller holds its session's mutex. Context: any.
 */
const char *snapshot_state(struct snapshot *snapshot);

/**
 * snapshot_blame() - a snapshot's refusal is the session's, too
 * @snapshot: has the reason in its error text
 * @err: an errno
 *
 * Context: may sleep. Return: @err.
 */
int snapshot_blame(struct snapshot *snapshot, int err);

/**
 * snapshot_set_device() - sets the origin
 * @snapshot: the snapshot
 * @path: resolved with the rights of the current task
 *
 * Context: may sleep. Return: 0, -EBUSY while active, -EEXIST when the session
 * has this device already, or what origin_resolve() and origin_open() say.
 */
int snapshot_set_device(struct snapshot *snapshot, const char *path);

/**
 * snapshot_set_chunk_size() - sets the granule
 * @snapshot: the snapshot
 * @bytes: 0, or a power of two from 4096 to 67108864
 *
 * Context: may sleep. Return: 0, -EBUSY while active, -EINVAL.
 */
int snapshot_set_chunk_size(struct snapshot *snapshot, u64 bytes);

/**
 * snapshot_set_discard() - sets what happens to discards of the origin
 * @snapshot: the snapshot
 * @preserve: pass them on, and preserve what they discard
 *
 * Context: may sleep. Return: 0, or -EBUSY while active.
 */
int snapshot_set_discard(struct snapshot *snapshot, bool preserve);

#endif
