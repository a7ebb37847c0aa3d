// SPDX-License-Identifier: GPL-2.0-only
/* 5.11 */
#include <linux/highmem.h>

static void __maybe_unused probe(struct page *page)
{
	kunmap_local(kmap_local_page(page));
}
