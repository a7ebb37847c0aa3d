// SPDX-License-Identifier: GPL-2.0-only
/* 6.19: a driver gets its device pages back as folios. */
#include <linux/memremap.h>

static void __maybe_unused probe(const struct dev_pagemap_ops *ops,
				 struct folio *folio)
{
	ops->folio_free(folio);
}
