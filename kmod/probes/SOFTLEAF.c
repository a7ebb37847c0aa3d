// SPDX-License-Identifier: GPL-2.0-only
/* 6.19: what a page table entry says that is not present has a type. */
#include <linux/mm.h>
#include <linux/swap.h>
#include <linux/leafops.h>

static bool __maybe_unused probe(pte_t pte)
{
	return softleaf_is_device_exclusive(softleaf_from_pte(pte)) &&
	       softleaf_to_page(softleaf_from_pte(pte));
}
