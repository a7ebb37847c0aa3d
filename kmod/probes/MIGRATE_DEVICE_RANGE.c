// SPDX-License-Identifier: GPL-2.0-only
/* 6.1: device pages can be migrated without knowing who maps them. */
#include <linux/mm.h>
#include <linux/migrate.h>

int (*probe)(unsigned long *, unsigned long, unsigned long) =
	migrate_device_range;
