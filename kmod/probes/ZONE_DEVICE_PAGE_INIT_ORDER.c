// SPDX-License-Identifier: GPL-2.0-only
/* 6.19: device pages may be large, so that it has to be told. */
#include <linux/memremap.h>

static void (*const probe)(struct page *, struct dev_pagemap *, unsigned int)
	__maybe_unused = zone_device_page_init;
