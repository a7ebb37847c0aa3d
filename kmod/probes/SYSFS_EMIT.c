// SPDX-License-Identifier: GPL-2.0-only
/* 5.10 */
#include <linux/sysfs.h>

static int (*const probe)(char *, const char *, ...) __maybe_unused =
	sysfs_emit;
