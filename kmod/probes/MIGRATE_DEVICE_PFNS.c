// SPDX-License-Identifier: GPL-2.0-only
/* 6.15: device pages can be migrated by their numbers, whatever these are. */
#include <linux/mm.h>
#include <linux/migrate.h>

static int (*const probe)(unsigned long *, unsigned long)
	__maybe_unused = migrate_device_pfns;
