// SPDX-License-Identifier: GPL-2.0-only
/*
 * Huge pages that migrate whole. The kernel describes one by the entry of its
 * first page, with MIGRATE_PFN_COMPOUND; those that follow are empty. It may go
 * to a page that is as large, or to small ones, which the kernel splits it for.
 */
#include "compat.h"

#if defined(HH_DEVMEM) && defined(HH_COMPOUND)

#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/pagemap.h>

#include "internal.h"

static struct page *hh_alloc_whole(struct hh_device *device,
				   struct hh_migration *move,
				   unsigned long addr)
{
	const gfp_t gfp = GFP_TRANSHUGE | __GFP_NOWARN;
	struct folio *folio;

	if (move->to_device)
		return hh_devmem_alloc(device, HH_WHOLE_ORDER);
	if (move->vma)
		folio = vma_alloc_folio(gfp, HH_WHOLE_ORDER, move->vma, addr);
	else
		folio = folio_alloc(gfp, HH_WHOLE_ORDER);
	if (!folio)
		return NULL;
	folio_lock(folio);
	return &folio->page;
}

static void hh_fill_whole(struct page *to, struct page *from)
{
	unsigned long i;

	for (i = 0; i < HH_WHOLE; i++)
		hh_devmem_fill(to + i, from ? from + i : NULL);
}

/* Small pages for all of it, or for nothing: the kernel does not stand gaps. */
static bool hh_place_pieces(struct hh_device *device,
			    struct hh_migration *move, unsigned long at,
			    struct page *from)
{
	unsigned long *dst = move->dst + at;
	unsigned long addr = move->start + (at << PAGE_SHIFT);
	struct page *to;
	unsigned long i;

	for (i = 0; i < HH_WHOLE; i++) {
		to = hh_devmem_target(device, move, addr + (i << PAGE_SHIFT));
		if (!to)
			break;
		hh_devmem_fill(to, from ? from + i : NULL);
		dst[i] = hh_migrate_dst(to);
	}
	if (i == HH_WHOLE)
		return true;
	while (i--) {
		to = migrate_pfn_to_page(dst[i]);
		dst[i] = 0;
		unlock_page(to);
		put_page(to);
	}
	return false;
}

/**
 * hh_place_whole() - allocate where a huge page goes, and copy it there
 * @device: the device
 * @move: the migration
 * @at: of the entry of the first page, which has MIGRATE_PFN_COMPOUND
 * @pieces: to small pages, in any case
 */
void hh_place_whole(struct hh_device *device, struct hh_migration *move,
		    unsigned long at, bool pieces)
{
	struct page *from = migrate_pfn_to_page(move->src[at]);
	struct page *to = NULL;

	if (!pieces && !(move->chosen && hh_wrong(HH_SPLIT_WHOLE)))
		to = hh_alloc_whole(device, move,
				    move->start + (at << PAGE_SHIFT));
	if (to) {
		hh_fill_whole(to, from);
		move->dst[at] = hh_migrate_dst(to) | MIGRATE_PFN_COMPOUND;
		return;
	}
	/* What is found by its number is not split. */
	if (!move->vma || !hh_place_pieces(device, move, at, from))
		move->failed++;
}

#endif /* HH_DEVMEM && HH_COMPOUND */
