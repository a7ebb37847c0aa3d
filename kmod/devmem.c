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
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"

static struct hh_device *hh_page_device(struct page *page)
{
	return container_of(hh_page_pgmap(page), struct hh_device,
			    devmem.pgmap);
}

/**
 * hh_devmem_owns() - whether a page is memory of a device
 * @device: the device
 * @page: any page
 */
bool hh_devmem_owns(struct hh_device *device, struct page *page)
{
	return is_device_private_page(page) &&
	       hh_page_pgmap(page) == &device->devmem.pgmap;
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
	if (!backing) {
		atomic64_inc(&device->refused);
		return NULL;
	}
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

	page->zone_device_data = backing;
	/*
	 * Eviction finds the page as soon as it has a reference: pairs with
	 * hh_page_get_unless_free() in hh_evict_page(), after which the backing
	 * page and its state are looked at.
	 */
	smp_wmb();
	hh_page_init(page, &devmem->pgmap);
	return page;
}

static void hh_page_free(struct hh_freed *freed)
{
	struct page *page = hh_freed_page(freed);
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
		from = migrate_pfn_to_page(src[i]);
		if (!HH_MERGED_MIGRATE && from && hh_is_merged(from))
			continue;
		to = hh_devmem_alloc(device);
		if (!to)
			continue;
		/*
		 * No page: there was none, or the zero page. The pages of
		 * files will not move, and may even be unreadable.
		 */
		if (from && PageAnon(from) && !hh_wrong(HH_MIGRATE_NO_COPY))
			copy_highpage(hh_devmem_backing(to), from);
		else
			clear_highpage(hh_devmem_backing(to));
		dst[i] = hh_migrate_dst(to);
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
			atomic64_inc(&device->refused);
			continue;
		}
		lock_page(to);
		from = hh_devmem_backing(from);
		if (hh_wrong(HH_MIGRATE_BACK_SHIFTED) && before)
			hh_copy_out(to, before);
		else
			hh_copy_out(to, from);
		before = from;
		dst[i] = hh_migrate_dst(to);
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

/*
 * Migrates a part of args->vma, whose mmap_lock is held, in the direction that
 * args->flags select. @failed, if not NULL, gets the number of pages that went
 * nowhere for lack of system memory. Returns how many moved, or an error.
 */
static long hh_migrate_vma(struct hh_device *device, struct migrate_vma *args,
			   u64 *pages, unsigned long *failed)
{
	unsigned long no_memory = 0, moved;
	int ret;

	args->pgmap_owner = device;
	ret = migrate_vma_setup(args);
	if (ret)
		return ret;
	if (args->flags & MIGRATE_VMA_SELECT_SYSTEM)
		hh_alloc_and_copy_in(device, args->src, args->dst,
				     args->npages);
	else
		no_memory = hh_alloc_and_copy_out(device, args->src, args->dst,
						  args->npages, args->vma,
						  args->start);
	migrate_vma_pages(args);
	moved = hh_settle(device, args->src, args->dst, args->npages, pages);
	migrate_vma_finalize(args);
	if (failed)
		*failed = no_memory;
	return moved;
}

/* Migrates at most @npages from @start on; @done says how many were tried. */
static int hh_migrate_chunk(struct hh_work *work, unsigned long start,
			    unsigned long npages, bool to_device,
			    unsigned long *done)
{
	struct migrate_vma args = {
		.start = start,
		.src = work->src,
		.dst = work->dst,
		.flags = to_device ? MIGRATE_VMA_SELECT_SYSTEM :
				     MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
	};
	long ret = -EINVAL;

	if (mmap_read_lock_killable(work->mm))
		return -EINTR;
	args.vma = vma_lookup(work->mm, start);
	if (args.vma && (args.vma->vm_flags & VM_READ)) {
		npages = min(npages, (args.vma->vm_end - start) >> PAGE_SHIFT);
		args.end = start + (npages << PAGE_SHIFT);
		memset(work->pages, 0, npages * sizeof(work->pages[0]));
		ret = hh_migrate_vma(work->mirror->device, &args, work->pages,
				     NULL);
	}
	mmap_read_unlock(work->mm);
	if (ret < 0)
		return ret;
	*done = npages;
	return 0;
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
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
	};

	hh_set_fault_page(&args, vmf->page);
	if (hh_migrate_vma(device, &args, NULL, &failed) < 0)
		return VM_FAULT_SIGBUS;
	return failed ? VM_FAULT_OOM : 0;
}

/*
 * A CPU touched a device page: of any process that has it, not only a mirror's.
 *
 * Where each CPU that comes here has a reference to the page, migration fails as
 * long as more than one has. So all but the first turn round at once, to come
 * again until the page is gone, and the first does not give up at once.
 */
static vm_fault_t hh_migrate_to_ram(struct vm_fault *vmf)
{
	struct hh_device *device = hh_page_device(vmf->page);
	struct hh_devmem *devmem = &device->devmem;
	unsigned long *state;
	vm_fault_t ret = 0;
	int tries = 32;

	spin_lock(&devmem->lock);
	devmem->cpu_faults++;
	spin_unlock(&devmem->lock);

	if (!HH_FAULT_PAGE_HELD)
		return hh_try_to_ram(device, vmf);

	state = hh_page_state(vmf->page);
	if (test_and_set_bit(HH_PAGE_FAULTING, state))
		return 0;
	while (!ret && hh_is_live(vmf->page) && tries--)
		ret = hh_try_to_ram(device, vmf);
	clear_bit(HH_PAGE_FAULTING, state);
	return ret;
}

static const struct dev_pagemap_ops hh_pagemap_ops = {
	.hh_free_op = hh_page_free,
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

/*
 * Pages evicted at a time: so few that struct hh_evict fits in a page, which is
 * what there is always memory for when the module is unloaded.
 */
#define HH_EVICT_CHUNK 128

/**
 * struct hh_evict - an eviction under way
 * @killable: whether it may stop when the caller is being killed
 * @src: where pages are
 * @dst: where they go
 */
struct hh_evict {
	bool killable;
	unsigned long src[HH_EVICT_CHUNK];
	unsigned long dst[HH_EVICT_CHUNK];
};

/*
 * Finds who has a page: memory number @nth of those where it may be mapped, and
 * the address there. The page is locked. Returns a memory that has a user now,
 * or NULL when there are no more, or they cannot be looked at.
 *
 * The kernel has migrate_device_range() for this, which looks the processes up
 * by itself. But it looks twice, before and after the copy, and nothing keeps
 * what it finds them by, the page's anon_vma, from being freed in between by
 * the exit of the last process that has the page. mmap_lock does.
 */
static struct mm_struct *hh_find_user(struct page *page, unsigned long nth,
				      unsigned long *addr)
{
	struct mm_struct *mm = NULL;
	struct hh_mapped *mapped = hh_mapped_of(page);
	struct anon_vma *anon_vma, *root;
	struct vm_area_struct *vma;
	unsigned long mapping;
	struct rb_node *node;
	pgoff_t first;

	/* The steps of folio_lock_anon_vma_read(), which is not exported */
	rcu_read_lock();
	mapping = (unsigned long)READ_ONCE(mapped->mapping);
	if ((mapping & HH_MAPPING_FLAGS) != HH_MAPPING_ANON ||
	    !hh_is_mapped(page))
		goto unlock;
	anon_vma = (struct anon_vma *)(mapping - HH_MAPPING_ANON);
	root = READ_ONCE(anon_vma->root);
	if (!down_read_trylock(&root->rwsem))
		goto unlock;
	if (!hh_is_mapped(page))
		goto up;

	for (node = rb_first_cached(&anon_vma->rb_root); node && !mm;
	     node = rb_next(node)) {
		vma = rb_entry(node, struct anon_vma_chain, rb)->vma;
		first = hh_vma_anon_pgoff(vma);
		if (mapped->index < first ||
		    mapped->index - first >= vma_pages(vma))
			continue;
		if (nth) {
			nth--;
			continue;
		}
		*addr = vma->vm_start +
			((mapped->index - first) << PAGE_SHIFT);
		if (mmget_not_zero(vma->vm_mm))
			mm = vma->vm_mm;
	}
up:
	up_read(&root->rwsem);
unlock:
	rcu_read_unlock();
	return mm;
}

/* Moves what one memory has of the device, from @addr on. */
static unsigned long hh_evict_from(struct hh_device *device,
				   struct mm_struct *mm, unsigned long addr,
				   struct hh_evict *evict)
{
	struct migrate_vma args = {
		.start = addr,
		.src = evict->src,
		.dst = evict->dst,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
	};
	long moved = 0;

	if (!evict->killable)
		mmap_read_lock(mm);
	else if (mmap_read_lock_killable(mm))
		return 0;
	args.vma = vma_lookup(mm, addr);
	if (args.vma) {
		args.end = min(args.vma->vm_end,
			       addr + (HH_EVICT_CHUNK << PAGE_SHIFT));
		moved = hh_migrate_vma(device, &args, NULL, NULL);
	}
	mmap_read_unlock(mm);
	return max(moved, 0L);
}

/*
 * Pages that KSM merged are not found by an anon_vma of theirs. For them the
 * kernel's own look-up is safe: KSM holds on to what it needs.
 */
static unsigned long hh_evict_merged(struct hh_device *device,
				     struct page *page)
{
	unsigned long src = 0, dst = 0, moved;

	migrate_device_range(&src, page_to_pfn(page), 1);
	hh_alloc_and_copy_out(device, &src, &dst, 1, NULL, 0);
	migrate_device_pages(&src, &dst, 1);
	moved = hh_settle(device, &src, &dst, 1, NULL);
	migrate_device_finalize(&src, &dst, 1);
	return moved;
}

/* Moves a page, and with it others that are mapped behind it. */
static unsigned long hh_evict_page(struct hh_device *device, struct page *page,
				   struct hh_evict *evict)
{
	unsigned long nth, addr, moved = 0;
	struct mm_struct *mm;
	bool merged = false;

	/* Ordered before all looks at the page, see hh_devmem_alloc(). */
	for (nth = 0; hh_page_get_unless_free(page); nth++) {
		mm = NULL;
		if (trylock_page(page)) {
			merged = hh_is_merged(page);
			if (hh_is_live(page))
				mm = hh_find_user(page, nth, &addr);
			unlock_page(page);
		}
		/* Nothing migrates as long as we hold on to it. */
		put_page(page);
		if (merged)
			return hh_evict_merged(device, page);
		if (!mm)
			break;
		moved += hh_evict_from(device, mm, addr, evict);
		mmput(mm);
	}
	return moved;
}

/* Goes over all device pages once. */
static unsigned long hh_evict_pass(struct hh_device *device,
				   struct hh_evict *evict)
{
	struct hh_devmem *devmem = &device->devmem;
	unsigned long pfn = PHYS_PFN(devmem->pgmap.range.start);
	unsigned long end = pfn + devmem->npages;
	unsigned long moved = 0;

	for (; pfn < end; pfn++) {
		if (evict->killable && fatal_signal_pending(current))
			break;
		moved += hh_evict_page(device, pfn_to_page(pfn), evict);
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
	struct hh_evict *evict;
	int ret = 0;

	if (!device->devmem.npages)
		return -EOPNOTSUPP;
	if (hh_wrong(HH_EVICT_NOTHING)) {
		*moved = hh_pages_in_use(&device->devmem);
		*left = 0;
		return 0;
	}

	evict = kmalloc_obj(*evict, GFP_KERNEL);
	if (!evict)
		return -ENOMEM;
	evict->killable = true;
	*moved = hh_evict_pass(device, evict);
	*left = hh_pages_in_use(&device->devmem);
	if (fatal_signal_pending(current))
		ret = -EINTR;
	kfree(evict);
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
	struct hh_evict *evict;

	if (!devmem->npages)
		return;

	evict = kmalloc_obj(*evict, GFP_KERNEL | __GFP_NOFAIL);
	evict->killable = false;
	for (;;) {
		hh_evict_pass(device, evict);
		if (!hh_pages_in_use(devmem))
			break;
		/* Somebody has a page in hand, or memory is short. */
		msleep(20);
	}
	kfree(evict);

	memunmap_pages(&devmem->pgmap);
	release_mem_region(devmem->region->start,
			   resource_size(devmem->region));
}

#endif /* HH_DEVMEM */
