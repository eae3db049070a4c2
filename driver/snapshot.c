// SPDX-License-Identifier: GPL-2.0
/*
 * Sessions and snapshots: what the administrator has configured, and the state
 * that he is shown. How a session is taken and released is in take.c.
 */
#include <linux/ctype.h>
#include <linux/log2.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "diff_storage.h"
#include "snapshot.h"
#include "snapshot_failure.h"
#include "tracker.h"
#include "value.h"

#define LOW_MIN ((u64)SZ_64M)
#define LOW_SHARE 10	/* of the limit, one part in this many */

static bool snapshot_name_is_partition(const char *name)
{
	size_t len = strlen(name);
	size_t end = len;

	while (end && isdigit(name[end - 1]))
		end--;
	return end < len && end >= 5 && !strncmp(name + end - 5, "-part", 5);
}

bool snapshot_name_valid(const char *name)
{
	size_t len = strlen(name);
	size_t i;

	for (i = 0; i < len; i++)
		if (!isascii(name[i]) ||
		    !(isalnum(name[i]) || strchr("._:+-", name[i])))
			return false;
	return len && len <= SNAPSHOT_NAME_MAX && name[0] != '.' &&
	       !snapshot_name_is_partition(name);
}

int snapshot_blame(struct snapshot *snapshot, int err)
{
	error_copy(&snapshot->session->error, &snapshot->error);
	return err;
}

/* The state */

static enum diff_area_state snapshot_area_state(struct snapshot *snapshot)
{
	return diff_area_state(snapshot->area);
}

const char *snapshot_state(struct snapshot *snapshot)
{
	lockdep_assert_held(&snapshot->session->mutex);
	if (!snapshot->session->active)
		return diff_area_state_name(DIFF_AREA_RELEASED);
	return diff_area_state_name(snapshot_area_state(snapshot));
}

const char *session_state(struct session *session)
{
	enum diff_area_state worst = DIFF_AREA_ACTIVE;
	struct snapshot *snapshot;

	lockdep_assert_held(&session->mutex);
	if (!session->active)
		return diff_area_state_name(DIFF_AREA_RELEASED);
	list_for_each_entry(snapshot, &session->snapshots, node)
		worst = max(worst, snapshot_area_state(snapshot));
	return diff_area_state_name(worst);
}

/* Configuring */

static int session_say_active(struct error_text *error, const char *who)
{
	return error_set(error, who, -EBUSY, "the session is active");
}

static int session_refuse_active(struct session *session,
				 struct error_text *error, const char *who)
{
	lockdep_assert_held(&session->mutex);
	return session->active ? session_say_active(error, who) : 0;
}

/*
 * Before a path is looked up. That is done without the mutex: it takes the lock
 * of a directory, which may be a session's, and mkdir in there has that already.
 */
static int session_look_idle(struct session *session, struct error_text *error,
			     const char *who)
{
	int ret;

	mutex_lock(&session->mutex);
	ret = session_refuse_active(session, error, who);
	mutex_unlock(&session->mutex);
	return ret;
}

void session_init(struct session *session, const char *name)
{
	strscpy(session->name, name, sizeof(session->name));
	mutex_init(&session->mutex);
	INIT_LIST_HEAD(&session->snapshots);
	INIT_LIST_HEAD(&session->active_node);
	session_init_failures(session);
	error_init(&session->error);
}

void session_destroy(struct session *session)
{
	kfree(session->diff_file);
	diff_target_clear(&session->diff_target);
	mutex_destroy(&session->mutex);
}

int session_add(struct session *session, struct snapshot *snapshot,
		const char *name)
{
	snapshot->session = session;
	strscpy(snapshot->name, name, sizeof(snapshot->name));
	snprintf(snapshot->label, sizeof(snapshot->label), "%s/%s",
		 session->name, name);
	error_init(&snapshot->error);

	/* No take begins meanwhile; and one that is under way can last. */
	if (READ_ONCE(session->busy))
		return session_say_active(&session->error, snapshot->label);
	mutex_lock(&session->mutex);
	list_add_tail(&snapshot->node, &session->snapshots);
	session->nr_snapshots++;
	mutex_unlock(&session->mutex);
	return 0;
}

void session_remove(struct snapshot *snapshot)
{
	struct session *session = snapshot->session;

	mutex_lock(&session->mutex);
	list_del(&snapshot->node);
	session->nr_snapshots--;
	mutex_unlock(&session->mutex);
	kfree(snapshot->device);
	kfree(snapshot->frozen);
	kfree(snapshot->noted);
}

int session_set_diff(struct session *session, const char *path)
{
	struct diff_target target;
	int ret;

	ret = session_look_idle(session, &session->error, session->name);
	if (!ret)
		ret = diff_target_resolve(&target, path, &session->error,
					  session->name);
	if (ret)
		return ret;
	mutex_lock(&session->mutex);
	ret = session_refuse_active(session, &session->error, session->name);
	if (ret)
		goto out;
	ret = value_keep(&session->diff_file, path, "diff_file",
			 &session->error, session->name);
	if (!ret)
		swap(session->diff_target, target);
out:
	mutex_unlock(&session->mutex);
	diff_target_clear(&target);
	return ret;
}

u64 session_diff_low(const struct session *session, u64 limit)
{
	if (session->has_diff_low)
		return session->diff_low;
	return min(max(LOW_MIN, div_u64(limit, LOW_SHARE)), limit / 2);
}

u64 session_limit(struct session *session)
{
	u64 size, used;

	lockdep_assert_held(&session->mutex);
	if (!session->storage)
		return session->diff_limit;
	diff_storage_bytes(session->storage, &size, &used);
	if (!session->storage->ops->grow)
		return size;
	return max(size, session->diff_limit);
}

void session_apply_marks(struct session *session)
{
	u64 limit = session_limit(session);

	if (!session->storage->ops->grow && !session->has_diff_limit)
		session->diff_limit = limit;
	diff_storage_set_marks(session->storage, limit,
			       session_diff_low(session, limit));
}

/* May the storage of an active session grow to this size? */
static int session_check_growth(struct session *session, u64 bytes)
{
	struct diff_storage *storage = session->storage;
	u64 size, used;

	diff_storage_bytes(storage, &size, &used);
	if (!storage->ops->grow)
		return error_set(&session->error, session->name, -EINVAL,
				 "diff_limit: %s is a block device, and does not grow",
				 session->diff_file);
	if (bytes < size)
		return error_set(&session->error, session->name, -EINVAL,
				 "diff_limit: the difference storage has %llu bytes already",
				 size);
	if (bytes > size && storage->bdev &&
	    tracker_disk_has_areas(storage->bdev->bd_disk))
		return error_set(&session->error, session->name, -EXDEV,
				 "diff_limit: %s cannot grow while its disk has an active snapshot",
				 session->diff_file);
	return 0;
}

int session_set_diff_limit(struct session *session, u64 bytes)
{
	int ret = 0;

	mutex_lock(&session->mutex);
	if (session->active)
		ret = session_check_growth(session, bytes);
	if (!ret) {
		session->diff_limit = bytes;
		session->has_diff_limit = true;
		if (session->active)
			session_apply_marks(session);
	}
	mutex_unlock(&session->mutex);
	return ret;
}

int session_set_diff_low(struct session *session, u64 bytes)
{
	mutex_lock(&session->mutex);
	session->diff_low = bytes;
	session->has_diff_low = true;
	if (session->active)
		session_apply_marks(session);
	mutex_unlock(&session->mutex);
	return 0;
}

static int __snapshot_refuse_twin(struct snapshot *snapshot,
				  const struct origin_id *id)
{
	struct session *session = snapshot->session;
	struct snapshot *other;

	lockdep_assert_held(&session->mutex);
	list_for_each_entry(other, &session->snapshots, node)
		if (other != snapshot && other->device &&
		    origin_same_id(&other->id, id))
			return error_set(&snapshot->error, snapshot->label,
					 -EEXIST, "device %u:%u is %s already",
					 MAJOR(id->dev), MINOR(id->dev),
					 other->name);
	return 0;
}

static int snapshot_resolve(struct snapshot *snapshot, const char *path,
			    dev_t *dev)
{
	int ret = origin_resolve(path, MAY_READ, dev);

	if (!ret)
		return 0;
	return origin_refuse_path(path, ret, &snapshot->error, snapshot->label);
}

int snapshot_set_device(struct snapshot *snapshot, const char *path)
{
	struct session *session = snapshot->session;
	struct origin_id id;
	dev_t dev;
	int ret;

	ret = session_look_idle(session, &snapshot->error, snapshot->label);
	if (!ret)
		ret = snapshot_resolve(snapshot, path, &dev);
	/* Without the mutex: to open a disk that hangs takes long. */
	if (!ret)
		ret = origin_try(dev, &id, &snapshot->error, snapshot->label);
	if (ret)
		return ret;
	mutex_lock(&session->mutex);
	ret = session_refuse_active(session, &snapshot->error, snapshot->label);
	if (!ret)
		ret = __snapshot_refuse_twin(snapshot, &id);
	if (!ret)
		ret = value_keep(&snapshot->device, path, "device",
				 &snapshot->error, snapshot->label);
	if (!ret)
		snapshot->id = id;
	mutex_unlock(&session->mutex);
	return ret;
}

int snapshot_set_chunk_size(struct snapshot *snapshot, u64 bytes)
{
	struct session *session = snapshot->session;
	int ret;

	mutex_lock(&session->mutex);
	ret = session_refuse_active(session, &snapshot->error, snapshot->label);
	if (ret)
		goto out;
	if (bytes && (bytes < CHUNK_SIZE_MIN || bytes > CHUNK_SIZE_MAX ||
		      !is_power_of_2(bytes))) {
		ret = error_set(&snapshot->error, snapshot->label, -EINVAL,
				"chunk_size %llu is not 0 nor a power of two from %u to %u",
				bytes, CHUNK_SIZE_MIN, CHUNK_SIZE_MAX);
		goto out;
	}
	snapshot->chunk_size = bytes;
	snapshot->granule = bytes;
out:
	mutex_unlock(&session->mutex);
	return ret;
}

int snapshot_set_discard(struct snapshot *snapshot, bool preserve)
{
	struct session *session = snapshot->session;
	int ret;

	mutex_lock(&session->mutex);
	ret = session_refuse_active(session, &snapshot->error, snapshot->label);
	if (!ret)
		snapshot->preserve_discards = preserve;
	mutex_unlock(&session->mutex);
	return ret;
}
