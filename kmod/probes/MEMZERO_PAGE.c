// SPDX-License-Identifier: GPL-2.0-only
/* 5.13 */
#include <linux/highmem.h>

static void __maybe_unused probe(struct page *page)
{
	memzero_page(page, 0, PAGE_SIZE);
}
