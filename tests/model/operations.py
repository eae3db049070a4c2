# SPDX-License-Identifier: GPL-2.0
"""Operations on the administration interface, as lines of text, and at random.

	mkdir PATH              PATH is below /sys/kernel/config/blksnap
	rmdir PATH
	unlink PATH
	write PATH PIECE...     one open file, and one write(2) for each piece
	rewrite PATH PIECE...   the same, and all is read by that file before each piece
	read PATH BYTES         in parts of so many bytes, by one open file
	set PARAMETER VALUE     of the module
	rmmod                   while something is configured

In a PIECE `\\n`, `\\x20` and the like are what they are in Python; N*(TEXT) is TEXT, N times; "" is nothing; @a/x is the
image of the snapshot x of the session a.
"""
import codecs
import re

SESSIONS = ("a", "b", "c")
SNAPSHOTS = ("x", "y")
TRACKERS = ("t", "u")

DISK = "/dev/disk/by-id/virtio-t%d"
FILES = "/mnt/test-model"
LONG_PATH = "/dev/%s*(./)disk/by-id/virtio-t1"

# Whole disks, one of them with large blocks, one with partitions, and one below a device-mapper device.
ORIGINS = (DISK % 1, DISK % 1, DISK % 3, DISK % 5, DISK % 5 + "-part1", DISK % 5 + "-part2", DISK % 6,
	   "/dev/mapper/above", "/dev/../dev/./disk/by-id/virtio-t1")
DIFFS = (DISK % 2, DISK % 2, DISK % 4, DISK % 4, DISK % 1, DISK % 5, DISK % 5 + "-part1", DISK % 5 + "-part2",
	 DISK % 6, DISK % 3, "/dev/mapper/above", FILES, FILES + "/new", FILES + "/new", FILES + "/a\\x20b",
	 FILES + "/empty", FILES + "/full")
GRANULES = ("0", "4096", "8K", "64K", "1M", "4M", "64M", "16384", "0K")

GOOD = {
	"device": ORIGINS,
	"diff_file": DIFFS,
	"chunk_size": GRANULES,
	"block_size": GRANULES,
	"discard": ("drop", "preserve"),
	"diff_limit": ("0", "1M", "16M", "64M", "67108864"),
	"diff_low": ("0", "1M", "1G"),
	"dirty": ("0\\x201", "4096\\x208192", "1M\\x201M", "0\\x201\\n65535\\x202\\n262143K\\x201K", "0\\x20268435456"),
	"active": ("0", "1"),
	"enabled": ("0", "1"),
}

BAD = (
	'""', "\\n", "\\n\\n", "\\x20", "\\x00", "0\\x00", "1\\x00", "\\x001", "2", "-1", "+4096", "01", "1\\x20", "\\x201",
	"1\\n\\n", "0\\n\\n", "4096\\n\\n", "4096\\nK", "4096K\\n\\n", "4K\\x00", "\\x014096", "4096\\x7f", "\\x1b[2J", "\\r1",
	"yes", "K", "4k", "4KK", "4.0K", "0x1000", "4097", "2048", "128M", "4P", "18446744073709551615",
	"18446744073709551616", "18014398509481984K", "30*(9)", "30*(0)4096", "30*(9)K", "40*(1)x", "\\xc3\\xa4", "\\xff\\xfe",
	"drop\\n\\n", "Drop", "dro", "drops", "preserve\\x20", "drop\\x00",
	"/dev/nowhere", "/dev/zero", "/dev", "/nowhere/x", "/mnt/test-model/full", "/mnt/test-model/full/x",
	"/mnt/test-model/none/", "/mnt/test-model/300*(n)", "nowhere/x", "/dev/disk/by-id/virtio-t1\\n\\n", "@a/x", "@b/y",
	"/dev/nowhere\\nblksnap:\\x20a\\x20lie", "%s%n", "1\\x200", "0\\x20\\x201", "0\\x201\\x20", "1T\\x201", "0\\x20-1",
	"18446744073709551615\\x202", "0\\x201\\nx", "0\\x201\\n\\n", "268435456\\x201", "0\\x202G", "0\\x201\\n1T\\x201",
)

LONG = ("4093*(0)", "4094*(0)", "4095*(0)", "4096*(1)", "5000*(0)", "4095*(\\x20)", "4095*(\\x01)", "9000*(1)",
	"4094*(\\n)", "4095*(\\n)", LONG_PATH % 2033, LONG_PATH % 2034, LONG_PATH % 2035,
	"/dev/2034*(./)/disk/by-id/virtio-t1", "/4094*(n)")

NAMES = ("a", "b", "c", "x", "y", "ä", ".x", "x-part1", "-part0", "x-part", "a\\x20b", "64*(n)", "65*(n)", "255*(n)",
	 "256*(n)", "a,b", "a%s", "a\\nb", "\\x01", "x-par1", "+x", "a._:+-9", "..", "t", "u")


def decode(text):
	"""The bytes of a PIECE, or of a PATH."""
	if text == '""':
		return b""
	text = re.sub(r"(\d+)\*\(([^)]*)\)", lambda match: match[2] * int(match[1]), text)
	# What is not ASCII stands for its bytes.
	text = "".join(char if char.isascii() else "".join("\\x%02x" % byte for byte in char.encode()) for char in text)
	return codecs.decode(text, "unicode_escape").encode("latin-1")


class Generator:
	"""Operations at random, the same ones for the same random numbers."""

	def __init__(self, random):
		self.random = random

	def sequence(self, count):
		operations = []
		while len(operations) < count:
			operations += self.scene()
		return operations[:count]

	def scene(self):
		scenes = ((12, self.usual_session), (6, self.usual_tracker), (14, self.switch), (6, self.ends),
			  (22, self.good), (16, self.bad), (8, self.pieces), (5, self.make), (4, self.remove),
			  (4, self.partial), (2, self.parameter), (1, self.odd))
		return self.random.choices([scene for _, scene in scenes], [weight for weight, _ in scenes])[0]()

	def session(self):
		return "sessions/" + self.random.choice(SESSIONS)

	def snapshot(self):
		return self.session() + "/" + self.random.choice(SNAPSHOTS)

	def tracker(self):
		return "trackers/" + self.random.choice(TRACKERS)

	def attribute(self):
		"""Of what can be written, mostly."""
		pick = self.random.random()
		if pick < 0.4:
			return self.session() + "/" + self.random.choice(
				("diff_file", "diff_file", "diff_limit", "diff_low", "active"))
		if pick < 0.75:
			return self.snapshot() + "/" + self.random.choice(("device", "device", "chunk_size", "discard"))
		if pick < 0.97:
			return self.tracker() + "/" + self.random.choice(
				("device", "block_size", "enabled", "dirty", "dirty"))
		return self.random.choice(("version", "features", self.session() + "/state", self.snapshot() + "/image",
					   self.tracker() + "/number", self.session() + "/none"))

	def value(self, path):
		return self.random.choice(GOOD.get(path.split("/")[-1], ("1",)))

	def newline(self):
		return self.random.choice(("\\n", "\\n", ""))

	def usual_session(self):
		session = self.session()
		operations = ["mkdir " + session]
		for snapshot in SNAPSHOTS[:self.random.choice((1, 1, 2))]:
			operations += ["mkdir %s/%s" % (session, snapshot),
				       "write %s/%s/device %s" % (session, snapshot, self.random.choice(ORIGINS))]
		return operations + ["write %s/diff_file %s" % (session, self.random.choice(DIFFS)),
				     "write %s/active 1\\n" % session]

	def usual_tracker(self):
		tracker = self.tracker()
		return ["mkdir " + tracker, "write %s/device %s\\n" % (tracker, self.random.choice(ORIGINS)),
			"write %s/enabled 1" % tracker]

	def switch(self):
		path = self.random.choice((self.session() + "/active", self.session() + "/active",
					   self.tracker() + "/enabled"))
		return ["write %s %s%s" % (path, self.value(path), self.newline())]

	def ends(self):
		if self.random.random() < 0.3:
			tracker = self.tracker()
			return ["write %s/enabled 0" % tracker, "rmdir " + tracker]
		session = self.session()
		return (["write %s/active 0" % session] + ["rmdir %s/%s" % (session, name) for name in SNAPSHOTS] +
			["rmdir " + session])

	def good(self):
		path = self.attribute()
		return ["write %s %s%s" % (path, self.value(path), self.newline())]

	def bad(self):
		path = self.attribute()
		return ["write %s %s" % (path, self.random.choice(BAD))]

	def pieces(self):
		"""Several writes by one open file, long ones among them."""
		path = self.attribute()
		pools = (GOOD.get(path.split("/")[-1], ("1",)), BAD, LONG)
		pieces = [self.random.choice(self.random.choices(pools, (4, 2, 4))[0]) for _ in range(self.random.randint(1, 4))]
		return ["%s %s %s" % (self.random.choice(("write", "rewrite")), path, " ".join(pieces))]

	def make(self):
		where = self.random.choice(("sessions", "trackers", self.session(), self.snapshot(), self.tracker(), "."))
		return ["mkdir %s/%s" % (where, self.random.choice(NAMES))]

	def remove(self):
		return ["rmdir " + self.random.choice((self.session(), self.snapshot(), self.tracker(), "sessions",
						       self.session() + "/state"))]

	def partial(self):
		return ["read %s %d" % (self.attribute(), self.random.choice((1, 2, 3, 7, 100, 4096)))]

	def parameter(self):
		return ["set " + self.random.choice(("memory_limit 4M", "memory_limit 16M", "memory_limit 0",
						     "cbt_map_limit 8", "cbt_map_limit 8K", "cbt_map_limit 1M", "cbt_map_limit 0"))]

	def odd(self):
		return [self.random.choice(("rmmod", "rmmod", "unlink " + self.attribute(), "unlink " + self.session()))]
