// SPDX-License-Identifier: GPL-2.0-only
/* 5.14 to 6.14: a device can have pages to itself. */
#include <linux/mm.h>
#include <linux/rmap.h>

#ifndef CONFIG_DEVICE_PRIVATE
#error "It is declared, but it is not there."
#endif

static int (*const probe)(struct mm_struct *, unsigned long, unsigned long,
			  struct page **, void *)
	__maybe_unused = make_device_exclusive_range;
