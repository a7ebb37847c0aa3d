// SPDX-License-Identifier: GPL-2.0-only
/* up to 5.16: who migrates says that the new page is locked. */
#include <linux/mm.h>
#include <linux/migrate.h>

static const unsigned long probe __maybe_unused = MIGRATE_PFN_LOCKED;
