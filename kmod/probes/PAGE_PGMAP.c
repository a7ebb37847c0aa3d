// SPDX-License-Identifier: GPL-2.0-only
/* 6.15: the pagemap of a device page is that of its folio. */
#include <linux/memremap.h>
#include <linux/mm.h>

static struct dev_pagemap * __maybe_unused probe(struct page *page)
{
	return page_pgmap(page);
}
