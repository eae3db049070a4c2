// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/config/blksnap/sessions/: sessions and their snapshots.
 *
 * Here values are parsed and shown; what they do is in snapshot.c and take.c.
 * While a session is active, its directory and those of its snapshots depend on
 * it, so that rmdir answers EBUSY, and so does rmmod.
 */
#include <linux/configfs.h>
#include <linux/kdev_t.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "configfs_sessions.h"
#include "diff_storage.h"
#include "image.h"
#include "snapshot.h"
#include "take.h"
#include "value.h"

static struct config_group sessions_group;	/* the directory; set once */

struct session_item {
	struct config_group group;
	struct session session;
};

struct snapshot_item {
	struct config_item item;
	struct snapshot snapshot;
};

static struct session *to_session(struct config_item *item)
{
	return &container_of(to_config_group(item), struct session_item,
			     group)->session;
}

static struct snapshot *to_snapshot(struct config_item *item)
{
	return &container_of(item, struct snapshot_item, item)->snapshot;
}

/* sessions/SESSION/SNAPSHOT */

static ssize_t snapshot_device_show(struct config_item *item, char *page)
{
	struct snapshot *snapshot = to_snapshot(item);
	ssize_t len = 0;

	mutex_lock(&snapshot->session->mutex);
	if (snapshot->device)
		len = sysfs_emit(page, "%s\n", snapshot->device);
	mutex_unlock(&snapshot->session->mutex);
	return len;
}

static ssize_t snapshot_device_store(struct config_item *item, const char *page,
				     size_t count)
{
	struct snapshot *snapshot = to_snapshot(item);
	char *path;
	int ret;

	path = value_get(page, count, "device", &snapshot->error,
			 snapshot->label);
	if (IS_ERR(path))
		return PTR_ERR(path);
	ret = snapshot_set_device(snapshot, path);
	kfree(path);
	return ret ?: count;
}
CONFIGFS_ATTR(snapshot_, device);

static ssize_t snapshot_chunk_size_show(struct config_item *item, char *page)
{
	struct snapshot *snapshot = to_snapshot(item);

	return sysfs_emit(page, "%u\n", READ_ONCE(snapshot->granule));
}

static ssize_t snapshot_chunk_size_store(struct config_item *item,
					 const char *page, size_t count)
{
	struct snapshot *snapshot = to_snapshot(item);
	u64 bytes;
	int ret;

	ret = value_get_size(page, count, "chunk_size", &snapshot->error,
			     snapshot->label, &bytes);
	return ret ?: snapshot_set_chunk_size(snapshot, bytes) ?: count;
}
CONFIGFS_ATTR(snapshot_, chunk_size);

static ssize_t snapshot_discard_show(struct config_item *item, char *page)
{
	struct snapshot *snapshot = to_snapshot(item);

	return sysfs_emit(page, "%s\n", READ_ONCE(snapshot->preserve_discards) ?
			  "preserve" : "drop");
}

static ssize_t snapshot_discard_store(struct config_item *item,
				      const char *page, size_t count)
{
	static const char *const names[] = { "drop", "preserve" };
	struct snapshot *snapshot = to_snapshot(item);
	char *value;
	int ret;

	value = value_get(page, count, "discard", &snapshot->error,
			  snapshot->label);
	if (IS_ERR(value))
		return PTR_ERR(value);
	ret = match_string(names, ARRAY_SIZE(names), value);
	if (ret < 0)
		error_set(&snapshot->error, snapshot->label, ret,
			  "discard: %s is neither drop nor preserve", value);
	else
		ret = snapshot_set_discard(snapshot, ret);
	kfree(value);
	return ret ?: count;
}
CONFIGFS_ATTR(snapshot_, discard);

static ssize_t snapshot_image_show(struct config_item *item, char *page)
{
	struct snapshot *snapshot = to_snapshot(item);
	ssize_t len = 0;

	mutex_lock(&snapshot->session->mutex);
	if (snapshot->session->active)
		len = sysfs_emit(page, "/dev/%s\n", image_name(snapshot->image));
	mutex_unlock(&snapshot->session->mutex);
	return len;
}
CONFIGFS_ATTR_RO(snapshot_, image);

static ssize_t snapshot_frozen_show(struct config_item *item, char *page)
{
	struct snapshot *snapshot = to_snapshot(item);
	unsigned int i;
	ssize_t len = 0;

	mutex_lock(&snapshot->session->mutex);
	for (i = 0; i < snapshot->nr_frozen; i++)
		len += sysfs_emit_at(page, len, "%u:%u\n",
				     MAJOR(snapshot->frozen[i]),
				     MINOR(snapshot->frozen[i]));
	mutex_unlock(&snapshot->session->mutex);
	return len;
}
CONFIGFS_ATTR_RO(snapshot_, frozen);

static ssize_t snapshot_state_show(struct config_item *item, char *page)
{
	struct snapshot *snapshot = to_snapshot(item);
	ssize_t len;

	mutex_lock(&snapshot->session->mutex);
	len = sysfs_emit(page, "%s\n", snapshot_state(snapshot));
	mutex_unlock(&snapshot->session->mutex);
	return len;
}
CONFIGFS_ATTR_RO(snapshot_, state);

static ssize_t snapshot_error_show(struct config_item *item, char *page)
{
	return error_emit(&to_snapshot(item)->error, page);
}
CONFIGFS_ATTR_RO(snapshot_, error);

static struct configfs_attribute *snapshot_attrs[] = {
	&snapshot_attr_device,
	&snapshot_attr_chunk_size,
	&snapshot_attr_discard,
	&snapshot_attr_image,
	&snapshot_attr_frozen,
	&snapshot_attr_state,
	&snapshot_attr_error,
	NULL
};

static void snapshot_item_release(struct config_item *item)
{
	kfree(container_of(item, struct snapshot_item, item));
}

static struct configfs_item_operations snapshot_item_ops = {
	.release = snapshot_item_release,
};

static const struct config_item_type snapshot_type = {
	.ct_item_ops = &snapshot_item_ops,
	.ct_attrs = snapshot_attrs,
	.ct_owner = THIS_MODULE,
};

/* sessions/SESSION */

static ssize_t session_diff_file_show(struct config_item *item, char *page)
{
	struct session *session = to_session(item);
	ssize_t len = 0;

	mutex_lock(&session->mutex);
	if (session->diff_file)
		len = sysfs_emit(page, "%s\n", session->diff_file);
	mutex_unlock(&session->mutex);
	return len;
}

static ssize_t session_diff_file_store(struct config_item *item,
				       const char *page, size_t count)
{
	struct session *session = to_session(item);
	char *path;
	int ret;

	path = value_get(page, count, "diff_file", &session->error,
			 session->name);
	if (IS_ERR(path))
		return PTR_ERR(path);
	ret = session_set_diff(session, path);
	kfree(path);
	return ret ?: count;
}
CONFIGFS_ATTR(session_, diff_file);

/* A size is shown as it was set; while active, as it is in force. */
static ssize_t session_diff_limit_show(struct config_item *item, char *page)
{
	struct session *session = to_session(item);
	ssize_t len = 0;

	mutex_lock(&session->mutex);
	if (session->has_diff_limit || session->active)
		len = sysfs_emit(page, "%llu\n", session->diff_limit);
	mutex_unlock(&session->mutex);
	return len;
}

static ssize_t session_diff_low_show(struct config_item *item, char *page)
{
	struct session *session = to_session(item);
	ssize_t len = 0;

	mutex_lock(&session->mutex);
	if (session->has_diff_low || session->active)
		len = sysfs_emit(page, "%llu\n",
				 session_diff_low(session, session_limit(session)));
	mutex_unlock(&session->mutex);
	return len;
}

static ssize_t session_store_size(struct config_item *item, const char *page,
				  size_t count, const char *attr,
				  int (*set)(struct session *session, u64 bytes))
{
	struct session *session = to_session(item);
	u64 bytes;
	int ret;

	ret = value_get_size(page, count, attr, &session->error, session->name,
			     &bytes);
	return ret ?: set(session, bytes) ?: count;
}

static ssize_t session_diff_limit_store(struct config_item *item,
					const char *page, size_t count)
{
	return session_store_size(item, page, count, "diff_limit",
				  session_set_diff_limit);
}
CONFIGFS_ATTR(session_, diff_limit);

static ssize_t session_diff_low_store(struct config_item *item,
				      const char *page, size_t count)
{
	return session_store_size(item, page, count, "diff_low",
				  session_set_diff_low);
}
CONFIGFS_ATTR(session_, diff_low);

static void session_diff_bytes(struct session *session, u64 *size, u64 *used)
{
	*size = 0;
	*used = 0;
	mutex_lock(&session->mutex);
	if (session->active)
		diff_storage_bytes(session->storage, size, used);
	mutex_unlock(&session->mutex);
}

static ssize_t session_diff_size_show(struct config_item *item, char *page)
{
	u64 size, used;

	session_diff_bytes(to_session(item), &size, &used);
	return sysfs_emit(page, "%llu\n", size);
}
CONFIGFS_ATTR_RO(session_, diff_size);

static ssize_t session_diff_used_show(struct config_item *item, char *page)
{
	u64 size, used;

	session_diff_bytes(to_session(item), &size, &used);
	return sysfs_emit(page, "%llu\n", used);
}
CONFIGFS_ATTR_RO(session_, diff_used);

static struct config_item *snapshot_to_item(struct snapshot *snapshot)
{
	return &container_of(snapshot, struct snapshot_item, snapshot)->item;
}

static struct config_item *session_to_item(struct session *session)
{
	return &container_of(session, struct session_item,
			     session)->group.cg_item;
}

static void session_undepend(struct session *session, struct snapshot *until)
{
	struct snapshot *snapshot;

	list_for_each_entry(snapshot, &session->snapshots, node) {
		if (snapshot == until)
			break;
		configfs_undepend_item_unlocked(snapshot_to_item(snapshot));
	}
	configfs_undepend_item_unlocked(session_to_item(session));
}

static int session_depend(struct session *session)
{
	struct snapshot *snapshot;
	int ret;

	ret = configfs_depend_item_unlocked(sessions_group.cg_subsys,
					    session_to_item(session));
	if (ret)
		return ret;
	list_for_each_entry(snapshot, &session->snapshots, node) {
		ret = configfs_depend_item_unlocked(sessions_group.cg_subsys,
						    snapshot_to_item(snapshot));
		if (ret) {
			session_undepend(session, snapshot);
			return ret;
		}
	}
	return 0;
}

/*
 * Takes session->mutex, and configfs's before it. That one is everybody's: it is
 * not kept while a take or a release of the session lasts.
 */
static int session_lock_making(struct session *session, struct mutex *making)
{
	for (;;) {
		if (mutex_lock_killable(making))
			return -EINTR;
		if (mutex_trylock(&session->mutex))
			return 0;
		mutex_unlock(making);
		if (mutex_lock_killable(&session->mutex))
			return -EINTR;
		mutex_unlock(&session->mutex);
	}
}

/*
 * Directories are held before the take, so that none goes during it. While one
 * is made or removed there is a time when it is in the session, but not in
 * configfs, which must not be asked to hold it then: that has its mutex.
 *
 * Takes session->mutex, and keeps it if this succeeds.
 */
static int session_lock_depended(struct session *session)
{
	struct mutex *making = &sessions_group.cg_subsys->su_mutex;
	int ret;

	ret = session_lock_making(session, making);
	if (ret)
		return error_set(&session->error, session->name, ret,
				 "killed while it waited for the session");
	if (session->active) {
		ret = error_set(&session->error, session->name, -EBUSY,
				"the session is active");
	} else {
		ret = session_depend(session);
		if (ret)
			error_set(&session->error, session->name, ret,
				  "a snapshot is just being made or removed");
	}
	if (ret)
		mutex_unlock(&session->mutex);
	else
		WRITE_ONCE(session->busy, true);
	mutex_unlock(making);
	return ret;
}

static void session_unbusy(struct session *session)
{
	session_undepend(session, NULL);
	WRITE_ONCE(session->busy, false);
}

static int session_activate(struct session *session)
{
	int ret = session_lock_depended(session);

	if (ret)
		return ret;
	ret = session_take(session);
	if (ret)
		session_unbusy(session);
	mutex_unlock(&session->mutex);
	return ret;
}

static void session_deactivate(struct session *session)
{
	mutex_lock(&session->mutex);
	if (session->active) {
		session_release(session);
		session_unbusy(session);
	}
	mutex_unlock(&session->mutex);
}

static int session_set_active(struct session *session, bool active)
{
	if (active)
		return session_activate(session);
	session_deactivate(session);
	return 0;
}

static ssize_t session_active_show(struct config_item *item, char *page)
{
	return sysfs_emit(page, "%d\n", READ_ONCE(to_session(item)->active));
}

static ssize_t session_active_store(struct config_item *item, const char *page,
				    size_t count)
{
	struct session *session = to_session(item);
	int ret;

	ret = value_get_switch(page, count, "active", &session->error,
			       session->name);
	if (ret >= 0)
		ret = session_set_active(session, ret);
	return ret ?: count;
}
CONFIGFS_ATTR(session_, active);

static ssize_t session_state_show(struct config_item *item, char *page)
{
	struct session *session = to_session(item);
	ssize_t len;

	mutex_lock(&session->mutex);
	len = sysfs_emit(page, "%s\n", session_state(session));
	mutex_unlock(&session->mutex);
	return len;
}
CONFIGFS_ATTR_RO(session_, state);

static ssize_t session_error_show(struct config_item *item, char *page)
{
	return error_emit(&to_session(item)->error, page);
}
CONFIGFS_ATTR_RO(session_, error);

static ssize_t session_hold_us_show(struct config_item *item, char *page)
{
	return sysfs_emit(page, "%llu\n", READ_ONCE(to_session(item)->hold_us));
}
CONFIGFS_ATTR_RO(session_, hold_us);

static ssize_t session_frozen_us_show(struct config_item *item, char *page)
{
	return sysfs_emit(page, "%llu\n", READ_ONCE(to_session(item)->frozen_us));
}
CONFIGFS_ATTR_RO(session_, frozen_us);

static struct configfs_attribute *session_attrs[] = {
	&session_attr_diff_file,
	&session_attr_diff_limit,
	&session_attr_diff_low,
	&session_attr_diff_size,
	&session_attr_diff_used,
	&session_attr_active,
	&session_attr_state,
	&session_attr_error,
	&session_attr_hold_us,
	&session_attr_frozen_us,
	NULL
};

static struct config_item *session_make_snapshot(struct config_group *group,
						 const char *name)
{
	struct session *session = to_session(&group->cg_item);
	struct snapshot_item *self;
	int ret;

	if (!snapshot_name_valid(name))
		return ERR_PTR(error_set(&session->error, session->name, -EINVAL,
					 "%s is not a valid name for a snapshot",
					 name));
	self = kzalloc(sizeof(*self), GFP_KERNEL);
	if (!self)
		return ERR_PTR(error_set(&session->error, session->name, -ENOMEM,
					 "no memory for %s", name));
	ret = session_add(session, &self->snapshot, name);
	if (ret) {
		kfree(self);
		return ERR_PTR(ret);
	}
	config_item_init_type_name(&self->item, name, &snapshot_type);
	return &self->item;
}

static void session_drop_snapshot(struct config_group *group,
				  struct config_item *item)
{
	session_remove(to_snapshot(item));
	config_item_put(item);
}

static struct configfs_group_operations session_group_ops = {
	.make_item = session_make_snapshot,
	.drop_item = session_drop_snapshot,
};

static void session_item_release(struct config_item *item)
{
	struct session_item *self = container_of(to_config_group(item),
						 struct session_item, group);

	session_destroy(&self->session);
	kfree(self);
}

static struct configfs_item_operations session_item_ops = {
	.release = session_item_release,
};

static const struct config_item_type session_type = {
	.ct_item_ops = &session_item_ops,
	.ct_group_ops = &session_group_ops,
	.ct_attrs = session_attrs,
	.ct_owner = THIS_MODULE,
};

/* sessions */

static struct config_group *sessions_make_session(struct config_group *group,
						  const char *name)
{
	struct session_item *self;

	if (!snapshot_name_valid(name))
		return ERR_PTR(error_set(NULL, "sessions", -EINVAL,
					 "%s is not a valid name for a session",
					 name));
	self = kzalloc(sizeof(*self), GFP_KERNEL);
	if (!self)
		return ERR_PTR(error_set(NULL, "sessions", -ENOMEM,
					 "no memory for %s", name));
	session_init(&self->session, name);
	config_group_init_type_name(&self->group, name, &session_type);
	return &self->group;
}

static struct configfs_group_operations sessions_group_ops = {
	.make_group = sessions_make_session,
};

static const struct config_item_type sessions_type = {
	.ct_group_ops = &sessions_group_ops,
	.ct_owner = THIS_MODULE,
};

void configfs_sessions_add(struct config_group *top)
{
	config_group_init_type_name(&sessions_group, "sessions", &sessions_type);
	configfs_add_default_group(&sessions_group, top);
}
