#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Finds out which of two forms of an interface this kernel has, by compiling both; driver/Kbuild calls it.
#
#	probe.sh HEADER PROBE.c COMPILER [FLAG...]
#
# PROBE.c has the newer form where PROBE_NEW is defined, else the older one, and says which commit of the kernel made the
# difference. Writes HEADER, which defines HAVE_PROBE, the name in capitals, if this kernel has the newer form.
#
# Exit codes: 0 written; 1 not exactly one of the forms compiles: this kernel is not one that the probe knows.
set -eu

header=$1 probe=$2
shift 2
name=$(basename "$probe" .c)

# Warnings that stand for another form of the interface count as errors. With Microsoft's extensions a struct can have all
# members of another one, so that a probe can say what is not among them.
compiles() {
	"$@" -Wno-error -fms-extensions -Werror=implicit-function-declaration -Werror=incompatible-pointer-types -Werror=int-conversion \
		-Werror=discarded-qualifiers -DKBUILD_MODNAME='"probe"' -DKBUILD_BASENAME='"probe"' -fsyntax-only "$probe"
}

refuse() {
	printf 'blksnap: %s: %s (compat/probes/%s.c). This kernel is not supported by this version.\n' \
		"$name" "$1" "$name" >&2
	exit 1
}

new=1 old=1
compiles "$@" -DPROBE_NEW 2>"$header.said" || new=0
compiles "$@" 2>/dev/null || old=0
case $new$old in
10) line="#define HAVE_$(printf '%s' "$name" | tr a-z- A-Z_) 1" ;;
01) line="/* $name: the older form */" ;;
00)
	grep 'error:' "$header.said" | head -n 3 >&2
	refuse 'the kernel has neither of the two forms that are known'
	;;
*) refuse 'both forms compile, so that they cannot be told apart' ;;
esac
rm -f "$header.said"
printf '%s\n' "$line" >"$header"
