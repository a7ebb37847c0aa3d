// SPDX-License-Identifier: GPL-2.0-only
/*
 * Device memory of the binding `interval`, private or coherent: memremap_pages()
 * makes the struct pages, migrate_vma_*() moves their data.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "compat.h"

#if defined(HH_INTERVAL) && defined(HH_DEVMEM)

#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/pagemap.h>

#include "interval.h"

/**
 * struct hh_interval_memory - the struct pages of a device
 * @pgmap: what the kernel needs to know of them
 * @device: whose they are
 * @region: the addresses that they have, or, if private, pretend to have, of
 *          which there may be more than were asked for
 */
struct hh_interval_memory {
	struct dev_pagemap pgmap;
	struct hh_device *device;
	struct resource *region;
};

static struct hh_device *hh_page_device(struct page *page)
{
	return container_of(hh_page_pgmap(page), struct hh_interval_memory,
			    pgmap)->device;
}

static void hh_page_free(struct hh_freed *freed)
{
	struct page *page = hh_freed_page(freed);

	hh_devmem_free(hh_page_device(page), page);
}

#ifdef HH_PRIVATE
static vm_fault_t hh_migrate_to_ram(struct vm_fault *vmf)
{
	unsigned int order = 0;

#ifdef HH_COMPOUND
	/* A large page that is not mapped as such goes by pieces. */
	if (!vmf->pte)
		order = folio_order(page_folio(vmf->page));
#endif
	return hh_devmem_fault(hh_page_device(vmf->page), vmf->vma,
			       vmf->address, vmf->page, order);
}

#ifdef HH_COMPOUND
static void hh_folio_split(struct folio *head, struct folio *tail)
{
	/* The end of a split, of which there is nothing to say */
	if (!tail)
		return;
	hh_devmem_split(&head->page, &tail->page);
	tail->pgmap = head->pgmap;
	tail->page.mapping = head->page.mapping;
}
#endif

static const struct dev_pagemap_ops hh_private_ops = {
	.hh_free_op = hh_page_free,
#ifdef HH_COMPOUND
	.folio_split = hh_folio_split,
#endif
	.migrate_to_ram = hh_migrate_to_ram,
};

static struct resource *hh_map_private(struct hh_device *device,
				       struct dev_pagemap *pgmap,
				       unsigned long size)
{
	pgmap->type = MEMORY_DEVICE_PRIVATE;
	pgmap->ops = &hh_private_ops;
	return request_free_mem_region(&iomem_resource, size, device->name);
}
#endif

#ifdef HH_COHERENT
/*
 * Nothing is done about it. But to leave that to the kernel would not do: its
 * mf_generic_kill_procs() takes what an anonymous page is mapped by for a file.
 */
static int hh_memory_failure(struct dev_pagemap *pgmap, unsigned long pfn,
			     unsigned long npages, int flags)
{
	return -ENXIO;
}

static const struct dev_pagemap_ops hh_coherent_ops = {
	.hh_free_op = hh_page_free,
	.memory_failure = hh_memory_failure,
};

/* Of what the kernel does not use itself: not of System RAM, which is busy. */
static struct resource *hh_map_coherent(struct hh_device *device,
					struct dev_pagemap *pgmap,
					unsigned long size)
{
	phys_addr_t start = device->devmem.address;
	struct resource *region;

	pgmap->type = MEMORY_DEVICE_COHERENT;
	pgmap->ops = &hh_coherent_ops;
	region = request_mem_region(start, size, device->name);
	if (region)
		return region;
	pr_err("%s: not free for coherent memory: %pap, %lu MiB; the kernel's command line takes memmap=SIZE$ADDRESS\n",
	       device->name, &start, size >> 20);
	return ERR_PTR(-EBUSY);
}
#endif

static struct resource *hh_map_memory(struct hh_device *device,
				      struct dev_pagemap *pgmap,
				      unsigned long size)
{
#ifdef HH_COHERENT
	if (device->devmem.address)
		return hh_map_coherent(device, pgmap, size);
#endif
#ifdef HH_PRIVATE
	return hh_map_private(device, pgmap, size);
#else
	return NULL;
#endif
}

/**
 * hh_interval_add_memory() - see struct hh_binding
 * @device: the device
 * @size: how many bytes
 */
int hh_interval_add_memory(struct hh_device *device, unsigned long size)
{
	struct hh_devmem *devmem = &device->devmem;
	struct hh_interval_memory *memory;
	struct dev_pagemap *pgmap;
	struct resource *region;
	void *ret;

	memory = kzalloc_obj(*memory, GFP_KERNEL);
	if (!memory)
		return -ENOMEM;
	pgmap = &memory->pgmap;
	region = hh_map_memory(device, pgmap, size);
	if (IS_ERR_OR_NULL(region)) {
		kfree(memory);
		return PTR_ERR_OR_ZERO(region);
	}
	memory->device = device;
	memory->region = region;
	pgmap->range.start = region->start;
	pgmap->range.end = region->start + size - 1;
	pgmap->nr_range = 1;
	pgmap->owner = hh_wrong(HH_MEMORY_UNOWNED) ? NULL : device;
	ret = memremap_pages(pgmap, numa_node_id());
	if (IS_ERR(ret)) {
		release_mem_region(region->start, resource_size(region));
		kfree(memory);
		return PTR_ERR(ret);
	}
	devmem->pgmap = pgmap;
	devmem->private = memory;
	devmem->first = PHYS_PFN(pgmap->range.start);
	devmem->npages = size >> PAGE_SHIFT;
	return 0;
}

/**
 * hh_interval_remove_memory() - see struct hh_binding
 * @device: the device
 */
void hh_interval_remove_memory(struct hh_device *device)
{
	struct hh_interval_memory *memory = device->devmem.private;
	struct resource *region = memory->region;

	memunmap_pages(&memory->pgmap);
	release_mem_region(region->start, resource_size(region));
	kfree(memory);
}

/**
 * hh_interval_use_page() - see struct hh_binding
 * @device: the device
 * @page: the first of free pages of it
 * @order: how many they are
 */
void hh_interval_use_page(struct hh_device *device, struct page *page,
			  unsigned int order)
{
	hh_page_init(page, device->devmem.pgmap, order);
}

/**
 * hh_interval_target_page() - see struct hh_binding
 * @vma: where it will be mapped, or NULL
 * @addr: the address there
 */
struct page *hh_interval_target_page(struct vm_area_struct *vma,
				     unsigned long addr)
{
	const gfp_t gfp = GFP_HIGHUSER_MOVABLE | __GFP_NOWARN;
	struct page *page;

	page = vma ? alloc_page_vma(gfp, vma, addr) : alloc_page(gfp);
	if (page)
		lock_page(page);
	return page;
}

/* What the kernel collects of a device's memory */
static unsigned long hh_select_device(struct hh_device *device)
{
#ifdef HH_COHERENT
	if (device->devmem.address)
		return MIGRATE_VMA_SELECT_DEVICE_COHERENT;
#endif
	return MIGRATE_VMA_SELECT_DEVICE_PRIVATE;
}

/* Has the kernel collect what the caller chose. */
static void hh_select(struct migrate_vma *args, struct hh_device *device,
		      const struct hmm_harness_move *chosen)
{
	args->flags = 0;
	if (chosen->sources & HMM_HARNESS_FROM_SYSTEM)
		args->flags |= MIGRATE_VMA_SELECT_SYSTEM;
	if (chosen->sources & (HMM_HARNESS_FROM_OWN | HMM_HARNESS_FROM_OTHER))
		args->flags |= hh_select_device(device);
	if (chosen->sources & HMM_HARNESS_FROM_OTHER)
		args->pgmap_owner = hh_other_device(device);
	if (chosen->flags & HMM_HARNESS_MOVE_STRANGE_FAULT)
		hh_set_fault_page(args, ZERO_PAGE(0));
}

/*
 * Puts into a call what must not be there. Should the kernel take it, there is
 * room for as many pages as there were.
 */
static void hh_mistake(struct migrate_vma *args, u32 flags)
{
	unsigned long size = args->end - args->start;

	if (flags & HMM_HARNESS_MOVE_EMPTY)
		args->end = args->start;
	else if (flags & HMM_HARNESS_MOVE_NO_SOURCES)
		args->src = NULL;
	else if (flags & HMM_HARNESS_MOVE_NO_PLACES)
		args->dst = NULL;
	else if (flags & HMM_HARNESS_MOVE_NO_MAPPING)
		args->vma = NULL;
	else if (!args->vma)
		return;
	else if (flags & HMM_HARNESS_MOVE_BEFORE)
		args->start = args->vma->vm_start - PAGE_SIZE;
	else if (flags & HMM_HARNESS_MOVE_BEHIND)
		args->start = args->vma->vm_end;
	else if (flags & HMM_HARNESS_MOVE_BEYOND)
		args->start = args->vma->vm_end + PAGE_SIZE - size;
	if (flags & (HMM_HARNESS_MOVE_BEFORE | HMM_HARNESS_MOVE_BEHIND |
		     HMM_HARNESS_MOVE_BEYOND))
		args->end = args->start + size;
}

/*
 * Fills the targets, so that it can be told whether the set-up clears them: as
 * what a driver left there when it migrated something else.
 */
static void hh_spoil_targets(const struct hh_migration *move)
{
	memset(move->dst, 0xff, move->npages * sizeof(move->dst[0]));
}

static u64 hh_clear_targets(const struct hh_migration *move)
{
	unsigned long i;
	u64 uncleared = 0;

	for (i = 0; i < move->npages; i++) {
		uncleared += move->dst[i] != 0;
		move->dst[i] = 0;
	}
	return uncleared;
}

/*
 * The last entry that moves, or moved, from system memory as a page of its own,
 * or -1. None that KSM merged: what it knows of a page goes with it.
 */
static long hh_last_moving(const struct hh_migration *move)
{
	struct page *from;
	long i;

	for (i = move->npages - 1; i >= 0; i--) {
		from = migrate_pfn_to_page(move->src[i]);
		if (from && move->src[i] & MIGRATE_PFN_MIGRATE &&
		    migrate_pfn_to_page(move->dst[i]) && PageAnon(from) &&
		    !(move->dst[i] & HH_MIGRATE_COMPOUND) &&
		    !is_zone_device_page(from) && !hh_is_merged(from))
			break;
	}
	return i;
}

/* Changes the sources after the set-up, on purpose: one of them stays. */
static void hh_touch_sources(const struct hh_migration *move)
{
	long i = hh_last_moving(move);

	if (i >= 0)
		move->src[i] &= ~MIGRATE_PFN_MIGRATE;
}

/*
 * Changes the targets when all has moved, on purpose: the kernel takes one back.
 * Returns the page that it does not know of any more, or NULL.
 */
static struct page *hh_touch_targets(const struct hh_migration *move)
{
	struct page *to;
	long i = hh_last_moving(move);

	if (i < 0)
		return NULL;
	to = migrate_pfn_to_page(move->dst[i]);
	move->dst[i] = 0;
	return to;
}

/**
 * hh_interval_migrate() - see struct hh_binding
 * @device: the device
 * @move: the migration
 */
int hh_interval_migrate(struct hh_device *device, struct hh_migration *move)
{
	struct migrate_vma args = {
		.vma = move->vma,
		.start = move->start,
		.end = move->start + (move->npages << PAGE_SHIFT),
		.src = move->src,
		.dst = move->dst,
		.flags = move->to_device ? MIGRATE_VMA_SELECT_SYSTEM :
					   hh_select_device(device),
		.pgmap_owner = device,
	};
	struct page *untold = NULL;
	int ret;

	hh_set_fault_page(&args, move->fault_page);
	if (move->chosen) {
		hh_select(&args, device, move->chosen->args);
		hh_mistake(&args, move->chosen->args->flags);
	}
#ifdef HH_COMPOUND
	if (move->whole)
		args.flags |= MIGRATE_VMA_SELECT_COMPOUND;
#endif
	if (move->chosen)
		hh_spoil_targets(move);
	hh_gate(HMM_HARNESS_GATE_MIGRATE_BEGIN, device);
	ret = migrate_vma_setup(&args);
	if (ret)
		return ret;
	if (move->chosen)
		move->chosen->args->uncleared = hh_clear_targets(move);
	hh_gate(HMM_HARNESS_GATE_MIGRATE_SETUP, device);
	hh_migration_copy(device, move);
	if (move->chosen)
		move->chosen->args->collected = args.cpages;
	hh_gate(HMM_HARNESS_GATE_MIGRATE_COPIED, device);
	if (hh_wrong(HH_TOUCH_SOURCES))
		hh_touch_sources(move);
	migrate_vma_pages(&args);
	hh_migration_settle(device, move);
	if (hh_wrong(HH_TOUCH_TARGETS) && move->to_device)
		untold = hh_touch_targets(move);
	hh_gate(HMM_HARNESS_GATE_MIGRATE_PAGES, device);
	migrate_vma_finalize(&args);
	if (untold) {
		unlock_page(untold);
		put_page(untold);
	}
	hh_gate(HMM_HARNESS_GATE_MIGRATE_END, device);
	return 0;
}

#ifdef HAVE_MIGRATE_DEVICE_RANGE
/* Whether @page is in use, and one that KSM merged. */
static bool hh_is_merged_still(struct page *page)
{
	bool merged = false;

	if (!hh_page_get_unless_free(page))
		return false;
	if (trylock_page(page)) {
		merged = hh_devmem_is_live(page) && hh_is_merged(page);
		unlock_page(page);
	}
	put_page(page);
	return merged;
}

/**
 * hh_interval_evict_merged() - see struct hh_binding
 * @device: the device
 * @page: its page
 *
 * Pages that KSM merged are not found by an anon_vma of theirs. For them the
 * kernel's own look-up is safe: KSM holds on to what it needs. It is not for any
 * other page, see evict.c; so none may come up under the same number before the
 * kernel has locked it.
 */
unsigned long hh_interval_evict_merged(struct hh_device *device,
				       struct page *page)
{
	unsigned long src = 0, dst = 0;
	struct hh_migration move = {
		.npages = 1,
		.src = &src,
		.dst = &dst,
	};

	down_write(&device->devmem.reuse);
	if (hh_is_merged_still(page))
		migrate_device_range(&src, page_to_pfn(page), 1);
	up_write(&device->devmem.reuse);
	if (!src)
		return 0;
	hh_migration_copy(device, &move);
	migrate_device_pages(&src, &dst, 1);
	hh_migration_settle(device, &move);
	migrate_device_finalize(&src, &dst, 1);
	return move.moved;
}
#endif

#endif /* HH_INTERVAL && HH_DEVMEM */
