// SPDX-License-Identifier: GPL-2.0-only
/* 6.19: pages of a device's memory can be large, and are split. */
#include <linux/mm.h>
#include <linux/memremap.h>

static void (**probe(struct dev_pagemap_ops *ops))(struct folio *,
						   struct folio *)
{
	return &ops->folio_split;
}

static const void * const use __maybe_unused = probe;
