// SPDX-License-Identifier: GPL-2.0-only
/* 6.19: huge pages can migrate whole. */
#include <linux/mm.h>
#include <linux/migrate.h>

static const unsigned long probe __maybe_unused = MIGRATE_PFN_COMPOUND;
