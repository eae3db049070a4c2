# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Pages of the documentation whose commands suites run, as they stand there, on top of lib/common. PAGE is the page.

# page_block SECTION KIND: prints what stands in that section in blocks that begin with three backquotes and KIND.
page_block() {
	awk -v section="$1" -v block='```'"$2" '
		/^##+ / && !inside { here = ($0 ~ ("^##+ " section "$")) }
		/^```/ { inside = !inside && $0 != "```"; run = here && $0 == block; next }
		run' "$PAGE" | grep '' || fail "no block of $2 in the section $1" >&2
}

# page SECTION [WORD]: runs the commands that stand there in that section, in blocks of `sh`, or `sh WORD`.
page() {
	local script=$BATS_TEST_TMPDIR/section
	page_block "$1" "sh${2:+ $2}" >"$script" || return
	bash -ex "$script" 3>&- || fail "the commands of the section $1 ended with $?"
}
