// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory of a device: struct pages that the CPU cannot reach, each with an
 * ordinary page behind it that holds the data, in place of a real device's
 * memory. And migration, in all three directions: to the device, back on
 * request, and back because a CPU touched the page.
 *
 * The page behind is told from page->zone_device_data; its private field holds
 * the state of the device page, see enum hh_page_state.
 */
#include "compat.h"

#ifdef HH_DEVMEM

#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"

static struct hh_device *hh_page_device(struct page *page)
{
	return container_of(page->pgmap, struct hh_device, devmem.pgmap);
}

/**
 * hh_devmem_owns() - whether a page is memory of a device
 * @device: the device
 * @page: any page
 */
bool hh_devmem_owns(struct hh_device *device, struct page *page)
{
	return is_device_private_page(page) &&
	       page->pgmap == &device->devmem.pgmap;
}

/**
 * hh_devmem_backing() - the page that holds the data of a device page
 * @page: memory of one of our devices, in use
 */
struct page *hh_devmem_backing(struct page *page)
{
	return page->zone_device_data;
}

/**
 * enum hh_page_state - bits of the state of a device page in use
 * @HH_PAGE_LIVE: it has been migrated to and not yet been migrated from.
 *                Changes with the page locked. Eviction finds pages by their
 *                number, in any state, and must leave those alone that are just
 *                being set up or abandoned.
 * @HH_PAGE_FAULTING: migrate_to_ram() is at it
 */
enum hh_page_state {
	HH_PAGE_LIVE,
	HH_PAGE_FAULTING,
};

static unsigned long *hh_page_state(struct page *page)
{
	return &page_private(hh_devmem_backing(page));
}

static bool hh_is_live(struct page *page)
{
	return test_bit(HH_PAGE_LIVE, hh_page_state(page));
}

static void hh_push(struct page **list, struct page *page)
{
	page->zone_device_data = *list;
	*list = page;
}

static struct page *hh_pop(struct page **list)
{
	struct page *page = *list;

	if (page)
		*list = page->zone_device_data;
	return page;
}

/* Takes back what was lost on purpose once that is over. Under devmem->lock. */
static void hh_recover_lost(struct hh_devmem *devmem)
{
	if (hh_wrong(HH_LEAK_DEVICE_PAGE))
		return;
	for (; devmem->nr_lost; devmem->nr_lost--) {
		hh_push(&devmem->free, hh_pop(&devmem->lost));
		devmem->freed++;
	}
}

/* Returns a device page, locked and with one reference, or NULL. */
static struct page *hh_devmem_alloc(struct hh_device *device)
{
	struct hh_devmem *devmem = &device->devmem;
	struct page *backing, *page;

	backing = alloc_page(GFP_HIGHUSER | __GFP_NOWARN);
	if (!backing)
		return NULL;
	set_page_private(backing, 0);

	spin_lock(&devmem->lock);
	hh_recover_lost(devmem);
	page = hh_pop(&devmem->free);
	if (page)
		devmem->allocated++;
	spin_unlock(&devmem->lock);
	if (!page) {
		__free_page(backing);
		return NULL;
	}

	/* Eviction can see the page as soon as it has a reference. */
	page->zone_device_data = backing;
	zone_device_page_init(page);
	return page;
}

static void hh_page_free(struct page *page)
{
	struct hh_devmem *devmem = &hh_page_device(page)->devmem;
	struct page *backing = hh_devmem_backing(page);

	set_page_private(backing, 0);
	__free_page(backing);
	/* Set by writes of the device, and nobody clears it for us. */
	ClearPageDirty(page);

	spin_lock(&devmem->lock);
	if (hh_wrong(HH_LEAK_DEVICE_PAGE)) {
		hh_push(&devmem->lost, page);
		devmem->nr_lost++;
	} else {
		hh_push(&devmem->free, page);
		devmem->freed++;
	}
	spin_unlock(&devmem->lock);
}

/* Fills @dst for all of @src that are to move to the device. */
static void hh_alloc_and_copy_in(struct hh_device *device,
				 const unsigned long *src, unsigned long *dst,
				 unsigned long npages)
{
	struct page *from, *to;
	unsigned long i;

	for (i = 0; i < npages; i++) {
		if (!(src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		to = hh_devmem_alloc(device);
		if (!to)
			continue;
		/*
		 * No page: there was none, or the zero page. The pages of
		 * files will not move, and may even be unreadable.
		 */
		from = migrate_pfn_to_page(src[i]);
		if (from && PageAnon(from) && !hh_wrong(HH_MIGRATE_NO_COPY))
			copy_highpage(hh_devmem_backing(to), from);
		else
			clear_highpage(hh_devmem_backing(to));
		dst[i] = migrate_pfn(page_to_pfn(to));
	}
}

static void hh_copy_out(struct page *to, struct page *from)
{
	copy_highpage(to, from);
	if (hh_wrong(HH_MIGRATE_BACK_SHORT))
		memzero_page(to, PAGE_SIZE / 2, PAGE_SIZE / 2);
}

/*
 * Fills @dst for all of @src that are to move back. @vma is where they are
 * mapped from @addr on, NULL if not known. Returns how many there was no memory
 * for.
 */
static unsigned long hh_alloc_and_copy_out(struct hh_device *device,
					   const unsigned long *src,
					   unsigned long *dst,
					   unsigned long npages,
					   struct vm_area_struct *vma,
					   unsigned long addr)
{
	const gfp_t gfp = GFP_HIGHUSER_MOVABLE | __GFP_NOWARN;
	struct page *from, *to, *before = NULL;
	unsigned long i, failed = 0;

	for (i = 0; i < npages; i++, addr += PAGE_SIZE) {
		from = migrate_pfn_to_page(src[i]);
		if (!from || !(src[i] & MIGRATE_PFN_MIGRATE) ||
		    !hh_devmem_owns(device, from) || !hh_is_live(from))
			continue;
		to = vma ? alloc_page_vma(gfp, vma, addr) : alloc_page(gfp);
		if (!to) {
			failed++;
			continue;
		}
		lock_page(to);
		from = hh_devmem_backing(from);
		if (hh_wrong(HH_MIGRATE_BACK_SHIFTED) && before)
			hh_copy_out(to, before);
		else
			hh_copy_out(to, from);
		before = from;
		dst[i] = migrate_pfn(page_to_pfn(to));
	}
	return failed;
}

/*
 * Called between migrate_*_pages() and migrate_*_finalize(): all pages are
 * still locked, and those with MIGRATE_PFN_MIGRATE have moved. Returns how many.
 */
static unsigned long hh_settle(struct hh_device *device,
			       const unsigned long *src,
			       const unsigned long *dst, unsigned long npages,
			       u64 *pages)
{
	unsigned long i, moved = 0;
	struct page *from, *to;

	for (i = 0; i < npages; i++) {
		from = migrate_pfn_to_page(src[i]);
		to = migrate_pfn_to_page(dst[i]);
		if (!to || !(src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		if (from && hh_devmem_owns(device, from))
			clear_bit(HH_PAGE_LIVE, hh_page_state(from));
		if (hh_devmem_owns(device, to))
			set_bit(HH_PAGE_LIVE, hh_page_state(to));
		if (pages)
			pages[i] = HMM_HARNESS_PAGE_MOVED;
		moved++;
	}
	return moved;
}

/* Migrates at most @npages from @start on; @done says how many were tried. */
static int hh_migrate_chunk(struct hh_work *work, unsigned long start,
			    unsigned long npages, bool to_device,
			    unsigned long *done)
{
	struct hh_device *device = work->mirror->device;
	struct migrate_vma args = {
		.start = start,
		.src = work->src,
		.dst = work->dst,
		.pgmap_owner = device,
		.flags = to_device ? MIGRATE_VMA_SELECT_SYSTEM :
				     MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
	};
	int ret = -EINVAL;

	if (mmap_read_lock_killable(work->mm))
		return -EINTR;
	args.vma = vma_lookup(work->mm, start);
	if (!args.vma || !(args.vma->vm_flags & VM_READ))
		goto unlock;
	npages = min(npages, (args.vma->vm_end - start) >> PAGE_SHIFT);
	args.end = start + (npages << PAGE_SHIFT);
	ret = migrate_vma_setup(&args);
	if (ret)
		goto unlock;

	if (to_device)
		hh_alloc_and_copy_in(device, args.src, args.dst, args.npages);
	else
		hh_alloc_and_copy_out(device, args.src, args.dst, args.npages,
				      args.vma, start);
	migrate_vma_pages(&args);
	memset(work->pages, 0, npages * sizeof(work->pages[0]));
	hh_settle(device, args.src, args.dst, args.npages, work->pages);
	migrate_vma_finalize(&args);
	*done = npages;
unlock:
	mmap_read_unlock(work->mm);
	return ret;
}

/**
 * hh_migrate() - HMM_HARNESS_MIGRATE
 * @work: the operation
 * @args: what the caller asked for
 *
 * Return: 0; -EINVAL at an address that has no memory that can migrate, the one
 * at @args->done; those of hh_walk()
 */
int hh_migrate(struct hh_work *work, struct hmm_harness_range *args)
{
	bool to_device = args->flags & HMM_HARNESS_MIGRATE_TO_DEVICE;
	unsigned long start, n, i;
	int ret;

	if (!work->mirror->device->devmem.npages)
		return -EOPNOTSUPP;

	while (args->done < args->npages) {
		if (fatal_signal_pending(current))
			return -EINTR;
		start = args->addr + (args->done << PAGE_SHIFT);
		n = min_t(u64, args->npages - args->done, HH_CHUNK);
		ret = hh_migrate_chunk(work, start, n, to_device, &n);
		if (!ret)
			ret = hh_note_local(work, start, n, to_device);
		if (ret)
			return ret;
		if (hh_wrong(HH_MIGRATE_CLAIMS_ALL))
			for (i = 0; i < n; i++)
				work->pages[i] |= HMM_HARNESS_PAGE_MOVED;
		ret = hh_tell_pages(work, args, n);
		if (ret)
			return ret;
	}
	return 0;
}

static vm_fault_t hh_try_to_ram(struct hh_device *device, struct vm_fault *vmf)
{
	unsigned long src = 0, dst = 0, failed;
	struct migrate_vma args = {
		.vma = vmf->vma,
		.start = vmf->address & PAGE_MASK,
		.end = (vmf->address & PAGE_MASK) + PAGE_SIZE,
		.src = &src,
		.dst = &dst,
		.pgmap_owner = device,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		.fault_page = vmf->page,
	};

	if (migrate_vma_setup(&args))
		return VM_FAULT_SIGBUS;
	failed = hh_alloc_and_copy_out(device, &src, &dst, args.npages,
				       args.vma, args.start);
	migrate_vma_pages(&args);
	hh_settle(device, &src, &dst, args.npages, NULL);
	migrate_vma_finalize(&args);
	return failed ? VM_FAULT_OOM : 0;
}

/*
 * A CPU touched a device page: of any process that has it, not only a mirror's.
 *
 * Each CPU that comes here has a reference to the page, and migration fails as
 * long as more than one has. So all but the first turn round at once, to come
 * again until the page is gone, and the first does not give up at once.
 */
static vm_fault_t hh_migrate_to_ram(struct vm_fault *vmf)
{
	unsigned long *state = hh_page_state(vmf->page);
	struct hh_device *device = hh_page_device(vmf->page);
	struct hh_devmem *devmem = &device->devmem;
	vm_fault_t ret = 0;
	int tries = 32;

	spin_lock(&devmem->lock);
	devmem->cpu_faults++;
	spin_unlock(&devmem->lock);

	if (test_and_set_bit(HH_PAGE_FAULTING, state))
		return 0;
	while (!ret && hh_is_live(vmf->page) && tries--)
		ret = hh_try_to_ram(device, vmf);
	clear_bit(HH_PAGE_FAULTING, state);
	return ret;
}

static const struct dev_pagemap_ops hh_pagemap_ops = {
	.page_free = hh_page_free,
	.migrate_to_ram = hh_migrate_to_ram,
};

/* Pages that exist now, whatever the accounts are made to say. */
static unsigned long hh_pages_in_use(struct hh_devmem *devmem)
{
	unsigned long in_use;

	spin_lock(&devmem->lock);
	in_use = devmem->allocated - devmem->freed - devmem->nr_lost;
	spin_unlock(&devmem->lock);
	return in_use;
}

static unsigned long hh_evict_chunk(struct hh_device *device, unsigned long pfn,
				    unsigned long npages, unsigned long *src,
				    unsigned long *dst)
{
	unsigned long moved;

	memset(dst, 0, npages * sizeof(*dst));
	migrate_device_range(src, pfn, npages);
	hh_alloc_and_copy_out(device, src, dst, npages, NULL, 0);
	migrate_device_pages(src, dst, npages);
	moved = hh_settle(device, src, dst, npages, NULL);
	migrate_device_finalize(src, dst, npages);
	return moved;
}

/* Goes over all device pages once. Stops early when the caller is killed. */
static unsigned long hh_evict_pass(struct hh_device *device, unsigned long *src,
				   unsigned long *dst)
{
	struct hh_devmem *devmem = &device->devmem;
	unsigned long pfn = PHYS_PFN(devmem->pgmap.range.start);
	unsigned long end = pfn + devmem->npages;
	unsigned long n, moved = 0;

	for (; pfn < end && !fatal_signal_pending(current); pfn += n) {
		n = min_t(unsigned long, end - pfn, HH_CHUNK);
		moved += hh_evict_chunk(device, pfn, n, src, dst);
		cond_resched();
	}
	return moved;
}

/**
 * hh_evict() - move all pages of a device back to system memory
 * @device: the device
 * @moved: (out) how many moved
 * @left: (out) how many are still there: those that somebody had in hand
 *
 * Return: 0; -EINTR when the caller is being killed; -EOPNOTSUPP without device
 * memory; -ENOMEM
 */
int hh_evict(struct hh_device *device, u64 *moved, u64 *left)
{
	unsigned long *pfns;
	int ret = 0;

	if (!device->devmem.npages)
		return -EOPNOTSUPP;
	if (hh_wrong(HH_EVICT_NOTHING)) {
		*moved = hh_pages_in_use(&device->devmem);
		*left = 0;
		return 0;
	}

	pfns = kmalloc_array(2 * HH_CHUNK, sizeof(*pfns), GFP_KERNEL);
	if (!pfns)
		return -ENOMEM;
	*moved = hh_evict_pass(device, pfns, pfns + HH_CHUNK);
	*left = hh_pages_in_use(&device->devmem);
	if (fatal_signal_pending(current))
		ret = -EINTR;
	kfree(pfns);
	return ret;
}

/**
 * hh_devmem_usage() - fill in the accounts of a device's memory
 * @device: the device
 * @usage: what to fill in
 */
void hh_devmem_usage(struct hh_device *device, struct hmm_harness_usage *usage)
{
	struct hh_devmem *devmem = &device->devmem;

	spin_lock(&devmem->lock);
	hh_recover_lost(devmem);
	usage->allocated = devmem->allocated;
	usage->freed = devmem->freed;
	usage->in_use = devmem->allocated - devmem->freed;
	usage->cpu_faults = devmem->cpu_faults;
	spin_unlock(&devmem->lock);
}

/**
 * hh_devmem_init() - give a device memory
 * @device: the device
 * @mebibytes: how much, 0 for none
 *
 * Return: 0 or a negative error
 */
int hh_devmem_init(struct hh_device *device, unsigned int mebibytes)
{
	struct hh_devmem *devmem = &device->devmem;
	struct dev_pagemap *pgmap = &devmem->pgmap;
	unsigned long i, pfn;
	resource_size_t size;
	void *ret;

	spin_lock_init(&devmem->lock);
	/* Struct pages are made and removed 2 MiB at a time. */
	size = (resource_size_t)ALIGN(mebibytes, 2) << 20;
	if (!size)
		return 0;

	devmem->region = request_free_mem_region(&iomem_resource, size,
						 device->name);
	if (IS_ERR(devmem->region))
		return PTR_ERR(devmem->region);
	pgmap->type = MEMORY_DEVICE_PRIVATE;
	pgmap->range.start = devmem->region->start;
	pgmap->range.end = devmem->region->start + size - 1;
	pgmap->nr_range = 1;
	pgmap->ops = &hh_pagemap_ops;
	pgmap->owner = device;
	ret = memremap_pages(pgmap, numa_node_id());
	if (IS_ERR(ret)) {
		release_mem_region(devmem->region->start,
				   resource_size(devmem->region));
		return PTR_ERR(ret);
	}

	devmem->npages = size >> PAGE_SHIFT;
	pfn = PHYS_PFN(pgmap->range.start);
	for (i = devmem->npages; i > 0; i--)
		hh_push(&devmem->free, pfn_to_page(pfn + i - 1));
	return 0;
}

/**
 * hh_devmem_exit() - take the memory of a device away
 * @device: the device, which nobody can open any more
 *
 * Processes may still have pages there.
 */
void hh_devmem_exit(struct hh_device *device)
{
	struct hh_devmem *devmem = &device->devmem;
	unsigned long *pfns;

	if (!devmem->npages)
		return;

	pfns = kmalloc_array(2 * HH_CHUNK, sizeof(*pfns),
			     GFP_KERNEL | __GFP_NOFAIL);
	for (;;) {
		hh_evict_pass(device, pfns, pfns + HH_CHUNK);
		if (!hh_pages_in_use(devmem))
			break;
		/* Somebody has a page in hand, or memory is short. */
		msleep(20);
	}
	kfree(pfns);

	memunmap_pages(&devmem->pgmap);
	release_mem_region(devmem->region->start,
			   resource_size(devmem->region));
}

#endif /* HH_DEVMEM */
