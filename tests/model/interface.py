# SPDX-License-Identifier: GPL-2.0
"""What the administration interface promises: the state that it has to be in, and what it has to answer.

This is written from the contract alone, and where that is silent from docs/abi: which value is a size, what is picked for
"0", what the takes refuse. No order of checks is promised: of several reasons for a refusal each errno is right.
"""
import errno
import os
import re
import stat

VALUE_MAX = 4095
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\n"
OK = "ok"


class Device:
	"""A block device, as sysfs describes it."""

	def __init__(self, number):
		self.number = number
		path = os.path.realpath("/sys/dev/block/%d:%d" % (os.major(number), os.minor(number)))
		disk = os.path.dirname(path) if os.path.exists(path + "/partition") else path
		self.disk = os.path.basename(disk)
		self.sectors = int(get(path + "/size"))
		self.start = int(get(path + "/start")) if disk != path else 0
		self.block = int(get(disk + "/queue/logical_block_size"))
		self.held = bool(os.listdir(path + "/holders"))
		self.upon = set()
		for slave in os.listdir(disk + "/slaves"):
			below = os.path.realpath("/sys/class/block/" + slave)
			parent = os.path.dirname(below)
			self.upon.add(os.path.basename(parent if os.path.exists(below + "/partition") else below))

	def shares(self, other):
		return (self.disk == other.disk and self.start < other.start + other.sectors and
			other.start < self.start + self.sectors)


def get(path):
	with open(path, encoding="utf-8", errors="surrogateescape") as file:
		return file.read()


def lookup(path):
	"""What is there, or the name of the errno that says why not."""
	try:
		return os.stat(path), None
	except OSError as error:
		return None, errno_name(error)


def errno_name(error):
	return errno.errorcode[error.errno]


class Answer:
	"""What may come of an operation: one of these, and if it is "ok", then this effect. A refusal by the driver is
	said in the log and in the error of the object @where; one by the kernel (@where is None, @logged is not) nowhere."""

	def __init__(self, results, effect=None, where=None, logged=True, blamed=()):
		self.results = results or {OK}
		self.effect = effect
		self.where = where
		self.logged = logged
		self.blamed = blamed


def by_kernel(*results):
	return Answer(set(results), logged=False)


def parse_size(value):
	"""The number, and why it is none: decimal digits with an optional suffix, of 64 bits."""
	match = re.fullmatch(rb"([0-9]+)([KMGT]?)", value)
	if not match:
		return None, {"EINVAL"}
	number = int(match[1]) << (10 * (b"KMGT".index(match[2]) + 1) if match[2] else 0)
	return (None, {"ERANGE"}) if number >> 64 else (number, set())


def parse_granule(value):
	number, why = parse_size(value)
	if not why and number and (number & (number - 1) or not 4096 <= number <= 67108864):
		why = {"EINVAL"}
	return number, why


def valid_name(name):
	return (re.fullmatch(r"[A-Za-z0-9._:+-]{1,64}", name) and not name.startswith(".") and
		not re.search(r"-part[0-9]+$", name))


def line(value):
	return "" if value is None else "%s\n" % value


class Snapshot:
	attributes = {"device", "chunk_size", "discard"}

	def __init__(self, session, name):
		self.session, self.name, self.error = session, name, ""
		self.device = self.origin = None
		self.chunk_size = self.shown = 0
		self.discard = "drop"
		self.image = self.cbt = None

	def files(self):
		active = self.session.active
		return {
			"device": line(self.device), "chunk_size": line(self.shown), "discard": line(self.discard),
			"image": re.compile(r"/dev/blksnap[0-9]+\n") if active and not self.image else line(self.image),
			"frozen": "", "state": "active\n" if active else "configured\n", "error": self.error,
		}


class Session:
	attributes = {"diff_file", "diff_limit", "diff_low", "active"}

	def __init__(self, name):
		self.name, self.error, self.active = name, "", False
		self.snapshots = {}
		self.diff_file = self.diff = self.diff_limit = self.diff_low = None
		self.times = ("0\n", "0\n")

	def files(self):
		number = re.compile(r"[0-9]+\n")
		chosen = number if self.active else ""
		return {
			"diff_file": line(self.diff_file), "active": line(int(self.active)), "error": self.error,
			"diff_limit": chosen if self.diff_limit is None else line(self.diff_limit),
			"diff_low": chosen if self.diff_low is None else line(self.diff_low),
			"diff_size": number if self.active else "0\n", "diff_used": number if self.active else "0\n",
			"state": "active\n" if self.active else "configured\n",
			"hold_us": self.times[0], "frozen_us": self.times[1],
		}


class Tracker:
	attributes = {"device", "block_size", "enabled", "dirty"}

	def __init__(self, name):
		self.name, self.error, self.enabled = name, "", False
		self.device = self.origin = self.generation = None
		self.block_size = self.shown = self.number = 0
		self.base, self.changed = "", {}

	def files(self):
		generation = re.compile(UUID) if self.enabled and not self.generation else line(self.generation)
		return {
			"device": line(self.device), "block_size": line(self.shown), "enabled": line(int(self.enabled)),
			"generation": generation if self.enabled else "", "number": line(self.number if self.enabled else 0),
			"state": "tracking\n" if self.enabled else "configured\n", "error": self.error,
		}

	def begin(self):
		self.generation, self.number, self.changed = None, 0, {}


class Interface:
	def __init__(self, root):
		self.root = root
		self.sessions, self.trackers = {}, {}
		self.taken = None		# the session of the last operation, if that was a take

	def objects(self):
		"""All directories that were made, by their paths."""
		found = {}
		for session in self.sessions.values():
			found["sessions/" + session.name] = session
			for snapshot in session.snapshots.values():
				found["sessions/%s/%s" % (session.name, snapshot.name)] = snapshot
		for tracker in self.trackers.values():
			found["trackers/" + tracker.name] = tracker
		return found

	def active(self):
		return [session for session in self.sessions.values() if session.active]

	# Directories

	def mkdir(self, path):
		parent, name = path.rsplit("/", 1)
		session = self.objects().get(parent)
		if name in (".", ".."):
			return by_kernel("EEXIST", "ENOENT")
		if len(os.fsencode(name)) > 255:
			return by_kernel("ENAMETOOLONG") if self.is_directory(parent) else by_kernel("ENOENT", "ENOTDIR")
		if path in self.objects():
			return by_kernel("EEXIST")
		if parent == "sessions":
			return Answer(set() if valid_name(name) else {"EINVAL"},
				      lambda: self.sessions.update({name: Session(name)}))
		if parent == "trackers":
			return Answer(set() if valid_name(name) else {"EINVAL"},
				      lambda: self.trackers.update({name: Tracker(name)}))
		if isinstance(session, Session):
			why = {"EBUSY"} if session.active else set()
			if not valid_name(name):
				why.add("EINVAL")
			return Answer(why, lambda: session.snapshots.update({name: Snapshot(session, name)}), session)
		# The contract is silent: nothing is made elsewhere.
		return by_kernel("EPERM", "ENOENT", "EEXIST", "EACCES")

	def is_directory(self, path):
		return path in ("sessions", "trackers", ".") or path in self.objects()

	def rmdir(self, path):
		item = self.objects().get(path)
		if item is None:
			return by_kernel("ENOENT", "ENOTDIR", "EPERM", "EBUSY", "ENOTEMPTY")
		if isinstance(item, Snapshot):
			if item.session.active:
				return by_kernel("EBUSY")
			return Answer(set(), lambda: item.session.snapshots.pop(item.name))
		if isinstance(item, Session):
			if item.snapshots:
				return by_kernel("ENOTEMPTY", *(["EBUSY"] if item.active else []))
			return Answer(set(), lambda: self.sessions.pop(item.name))
		if item.enabled:
			return by_kernel("EBUSY")
		return Answer(set(), lambda: self.trackers.pop(item.name))

	# Files

	def open(self, path, mode):
		"""To read ("r"), to write ("w"), or both."""
		parent, name = path.rsplit("/", 1) if "/" in path else ("", path)
		item = self.objects().get(parent)
		if not parent:
			return by_kernel("EACCES", "EPERM") if "w" in mode else Answer(set())
		if item is None or name not in set(item.files()) | item.attributes:
			return by_kernel("ENOENT")
		if ("w" in mode and name not in item.attributes) or ("r" in mode and name == "dirty"):
			return by_kernel("EACCES", "EPERM")
		return Answer(set())

	def write(self, path, data, is_tail):
		parent, name = path.rsplit("/", 1)
		item = self.objects()[parent]
		if not data:
			return by_kernel(OK, "EFAULT")	# nothing to deliver; what is said of it depends on the kernel
		if is_tail or len(data) >= VALUE_MAX:
			return Answer({"ENAMETOOLONG"}, None, item)
		value = data[:-1] if data.endswith(b"\n") else data
		if not value or b"\0" in value:
			return Answer({"EINVAL"} | self.busy(item, name), None, item)
		return getattr(self, "%s_%s" % (type(item).__name__.lower(), name))(item, value)

	@staticmethod
	def busy(item, name):
		"""While active, or enabled, most is frozen."""
		if isinstance(item, Tracker):
			return {"EBUSY"} if item.enabled and name not in ("enabled", "dirty") else set()
		session = item.session if isinstance(item, Snapshot) else item
		return {"EBUSY"} if session.active and name not in ("active", "diff_limit", "diff_low") else set()

	def set(self, item, name, why, **values):
		return Answer(why | self.busy(item, name), lambda: item.__dict__.update(values), item)

	def resolve(self, value):
		"""The block device of a path, and why there is none."""
		found, why = lookup(value)
		if why:
			return None, {why}
		if not stat.S_ISBLK(found.st_mode):
			return None, {"ENOTBLK"}
		device = Device(found.st_rdev)
		return device, {"EOPNOTSUPP"} if device.disk.startswith("blksnap") else set()

	def set_device(self, item, value, others):
		device, why = self.resolve(value)
		if device and any(other is not item and other.origin and other.origin.number == device.number
				  for other in others):
			why = why | {"EEXIST"}
		return self.set(item, "device", why, device=os.fsdecode(value), origin=device)

	def snapshot_device(self, item, value):
		return self.set_device(item, value, item.session.snapshots.values())

	def snapshot_chunk_size(self, item, value):
		number, why = parse_granule(value)
		return self.set(item, "chunk_size", why, chunk_size=number, shown=number)

	def snapshot_discard(self, item, value):
		return self.set(item, "discard", set() if value in (b"drop", b"preserve") else {"EINVAL"},
				discard=os.fsdecode(value))

	def session_diff_file(self, item, value):
		found, why = lookup(value)
		path = os.fsdecode(value)
		diff = os.path.abspath(path)
		why = {why} if why else set()
		if found and stat.S_ISBLK(found.st_mode):
			diff = Device(found.st_rdev)
		elif found and not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
			why = {"EINVAL"}
		elif why == {"ENOENT"}:
			# A file that could be made; but not among the devices.
			parent, name = os.path.split(path)
			if name and os.path.isdir(parent or ".") and not os.path.realpath(parent or ".").startswith("/dev"):
				why = set()
		return self.set(item, "diff_file", why, diff_file=path, diff=diff)

	def session_diff_limit(self, item, value):
		number, why = parse_size(value)
		answer = self.set(item, "diff_limit", why, diff_limit=number)
		if why or not item.active:
			return answer
		if isinstance(item.diff, Device):
			answer.results = {"EINVAL"}
		elif number < int(get("%s/sessions/%s/diff_size" % (self.root, item.name))):
			answer.results = {"EINVAL"}
		return answer

	def session_diff_low(self, item, value):
		number, why = parse_size(value)
		return self.set(item, "diff_low", why, diff_low=number)

	# Trackers

	def tracker_device(self, item, value):
		return self.set_device(item, value, self.trackers.values())

	def tracker_block_size(self, item, value):
		number, why = parse_granule(value)
		return self.set(item, "block_size", why, block_size=number, shown=number)

	def tracker_enabled(self, item, value):
		if value not in (b"0", b"1"):
			return Answer({"EINVAL"}, None, item)
		if value == b"0":
			return self.set(item, "enabled", set(), enabled=False)
		if item.enabled:
			return Answer({"EBUSY"}, None, item)
		if not item.origin:
			return Answer({"EINVAL"}, None, item)
		limit = int(get("/sys/module/blksnap/parameters/cbt_map_limit"))
		size, block = item.origin.sectors * 512, item.block_size or 65536
		while not item.block_size and -(-size // block) > limit:
			block *= 2

		def enable():
			item.enabled, item.shown, item.error, item.base = True, block, "", ""
			item.begin()
		return Answer({"EINVAL"} if -(-size // block) > limit else set(), enable, item)

	def tracker_dirty(self, item, value):
		why, ranges = set(), []
		for text in value.split(b"\n"):
			offset, space, length = text.partition(b" ")
			numbers = [parse_size(offset), parse_size(length)]
			why = why | numbers[0][1] | numbers[1][1] | (set() if space else {"EINVAL"})
			ranges.append((numbers[0][0], numbers[1][0]))
		if not item.enabled:
			why = why | {"EINVAL"}
		elif not why or why == {"ERANGE"}:
			size = item.origin.sectors * 512
			if any(None in pair or not pair[1] or sum(pair) > size for pair in ranges):
				why = {"ERANGE"}

		def mark():
			for offset, length in ranges:
				for block in range(offset // item.shown, (offset + length - 1) // item.shown + 1):
					item.changed[block] = item.number + 1
		return Answer(why, mark, item)

	# Sessions

	def session_active(self, item, value):
		if value not in (b"0", b"1"):
			return Answer({"EINVAL"}, None, item)
		if value == b"0":
			return Answer(set(), lambda: self.release(item), item)
		if item.active:
			return Answer({"EBUSY"}, None, item)
		why = self.refused_take(item)
		self.taken = item
		answer = Answer(why, lambda: self.take(item), item, blamed=item.snapshots.values())
		if not why and not isinstance(item.diff, Device) and self.room_is_short(item):
			answer.results = {OK, "ENOSPC"}
		return answer

	@staticmethod
	def room_is_short(session):
		found = os.statvfs(os.path.dirname(session.diff))
		free = found.f_bavail * found.f_bsize
		return free < 4 << 20 or free < (session.diff_limit or 0)

	def refused_take(self, session):
		snapshots = session.snapshots.values()
		if not snapshots or not session.diff or any(not snapshot.origin for snapshot in snapshots):
			return {"EINVAL"}
		why = set()
		limit = int(get("/sys/module/blksnap/parameters/memory_limit"))
		if any(self.granule(snapshot) * 4 > limit for snapshot in snapshots):
			why.add("EINVAL")
		for other in self.active():
			why |= self.conflicts([snapshot.origin for snapshot in snapshots], other.diff)
			why |= self.conflicts([snapshot.origin for snapshot in other.snapshots.values()], session.diff)
		why |= self.conflicts([snapshot.origin for snapshot in snapshots], session.diff)
		if isinstance(session.diff, Device):
			why |= self.refused_device(session)
		else:
			why |= self.refused_file(session)
		return why

	@staticmethod
	def granule(snapshot):
		return snapshot.chunk_size or max(4096, snapshot.origin.block)

	@staticmethod
	def conflicts(origins, diff):
		"""May these origins and that difference storage live together?"""
		if not isinstance(diff, Device):
			return set()
		why = set()
		if any(diff.shares(origin) for origin in origins):
			why.add("EBUSY")
		if any(origin.disk in diff.upon for origin in origins):
			why.add("EXDEV")
		return why

	def refused_device(self, session):
		diff, why = session.diff, set()
		if diff.held or any(isinstance(other.diff, Device) and other.diff.shares(diff) for other in self.active()):
			why.add("EBUSY")
		if any(snapshot.origin.block < diff.block for snapshot in session.snapshots.values()):
			why.add("EINVAL")
		return why

	def refused_file(self, session):
		is_directory = os.path.isdir(session.diff)
		if any(other.diff == session.diff for other in self.active()) and not is_directory:
			return {"EBUSY"}
		size = os.path.getsize(session.diff) if os.path.exists(session.diff) and not is_directory else 0
		if size:
			return {"EINVAL"}	# those that there are have data in them
		return {"EINVAL"} if session.diff_limit is not None and session.diff_limit < 65536 else set()

	def take(self, session):
		session.active, session.error = True, ""
		for snapshot in session.snapshots.values():
			snapshot.error, snapshot.image, snapshot.cbt = "", None, None
			snapshot.shown = self.granule(snapshot)
			for tracker in self.trackers.values():
				if tracker.enabled and tracker.origin.number == snapshot.origin.number:
					snapshot.cbt = self.freeze(tracker)

	@staticmethod
	def freeze(tracker):
		"""What the image's cbt/ shows, and the next interval begins."""
		blocks = -(-tracker.origin.sectors * 512 // tracker.shown)
		frozen = {"generation": line(tracker.generation), "number": line(tracker.number + 1), "base": tracker.base,
			  "block_size": line(tracker.shown),
			  "map": bytes(bytearray(tracker.changed.get(block, 0) for block in range(blocks)))}
		tracker.number += 1
		if tracker.number == 255:
			tracker.base = "%s 255\n" % tracker.generation
			tracker.begin()
		return frozen

	@staticmethod
	def release(session):
		session.active = False
		for snapshot in session.snapshots.values():
			snapshot.image = snapshot.cbt = None
