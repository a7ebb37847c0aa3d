// SPDX-License-Identifier: GPL-2.0-only
/* 5.10 */
#include <linux/sysfs.h>

static __printf(2, 3) int (*const probe)(char *, const char *, ...) __maybe_unused =
	sysfs_emit;
