// SPDX-License-Identifier: GPL-2.0-only
/* 5.18: what a page is mapped by, and how often, is asked of its folio. */
#include <linux/mm.h>

static pgoff_t __maybe_unused probe(struct page *page)
{
	struct folio *folio = page_folio(page);

	return folio_test_ksm(folio) || folio_mapped(folio) ? folio->index : 0;
}
