// SPDX-License-Identifier: GPL-2.0-only
/* up to 5.17: device pages are free when they have one reference. */
#include <linux/mm.h>

static bool (*const probe)(struct page *) __maybe_unused =
	page_is_devmap_managed;
