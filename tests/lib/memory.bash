# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Memory, and what becomes of it when there is too little of it, on top of lib/common.

# meminfo NAME: prints it, in KiB.
meminfo() {
	awk -v name="$1:" '$1 == name { print $2 }' /proc/meminfo
}

# swap_on DEVICE: until the end of the test.
swap_on() {
	mkswap "$1" >/dev/null
	swapon "$1"
	defer swapoff "$1"
}

# Prints how many pages have gone out to swap.
swapped_out() {
	awk '$1 == "pswpout" { print $2 }' /proc/vmstat
}

# pages_come_back COUNT [FILE]: so many pages, of which no two are the same, are written and read twice; or once, and again
# until FILE is there. Fails if one is not what it was. In a subshell, which it ends.
pages_come_back() {
	exec python3 - "$@" <<-'END'
		import mmap, os, sys
		pages = int(sys.argv[1])
		memory = mmap.mmap(-1, pages * 4096)
		turn = 0
		while turn < 2 if len(sys.argv) < 3 else not turn or not os.path.exists(sys.argv[2]):
		    turn += 1
		    for page in range(pages):
		        memory[page * 4096:page * 4096 + 16] = b"%08d%08d" % (turn, page)
		    for page in range(pages):
		        if memory[page * 4096:page * 4096 + 16] != b"%08d%08d" % (turn, page):
		            raise SystemExit("page %d is not what it was" % page)
	END
}
