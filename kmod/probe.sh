#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Usage: $0 DIRECTORY OUTPUT COMPILER [FLAG...]
#
# Writes to OUTPUT a header that defines HAVE_NAME for every DIRECTORY/NAME.c
# that the kernel's own compiler command accepts without a warning, and
# HH_PROBED, the names of these. It is left alone if it says so already.
set -eu

directory=$1
output=$2
shift 2

# A probe that cannot compile for a reason of the build's own would look like a
# missing feature: one with nothing but the headers must compile.
if ! printf '#include <linux/mm.h>\n#include <linux/migrate.h>\n' |
	"$@" -Werror -fsyntax-only -x c -; then
	echo "$0: the compiler command does not work: $*" >&2
	exit 1
fi

{
	echo "/* Generated: what this kernel has. */"
	names=
	for source in "$directory"/*.c; do
		name=$(basename "$source" .c)
		if "$@" -Werror -fsyntax-only -x c "$source" 2>/dev/null; then
			echo "#define HAVE_$name 1"
			names=$names${names:+,}$name
		else
			echo "/* no $name */"
		fi
	done
	echo "#define HH_PROBED \"$names\""
} > "$output.new"
if cmp -s "$output.new" "$output"; then
	rm "$output.new"
else
	mv "$output.new" "$output"
fi
