// SPDX-License-Identifier: GPL-2.0-only
/* 6.15: a device can have a page to itself. */
#include <linux/mm.h>
#include <linux/rmap.h>

#ifndef CONFIG_DEVICE_PRIVATE
#error "It is declared, but it is not there."
#endif

static struct page *(*const probe)(struct mm_struct *, unsigned long, void *,
				   struct folio **)
	__maybe_unused = make_device_exclusive;
