// SPDX-License-Identifier: GPL-2.0-only
/* 6.1: free device pages have no reference, and this gives them their first. */
#include <linux/memremap.h>

static void (*const probe)(struct page *) __maybe_unused =
	zone_device_page_init;
