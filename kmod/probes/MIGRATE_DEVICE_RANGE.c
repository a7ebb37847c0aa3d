// SPDX-License-Identifier: GPL-2.0-only
/* 6.1: a device page can be migrated by its number, also one that KSM merged. */
#include <linux/mm.h>
#include <linux/migrate.h>

static int (*const probe)(unsigned long *, unsigned long, unsigned long)
	__maybe_unused = migrate_device_range;
