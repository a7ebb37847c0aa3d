// SPDX-License-Identifier: GPL-2.0-only
/*
 * Eviction by the kernel's own look-up: migrate_device_range() and
 * migrate_device_pfns() take device pages by their numbers, and find by
 * themselves who has them.
 *
 * They find them by the page's anon_vma: to unmap the page, and once more to map
 * the one that takes its place. Nothing keeps the anon_vma in between, when the
 * page is mapped nowhere; whoever has it could exit or unmap it meanwhile. So
 * these functions are called only for pages of which a mapping is known that has
 * the anon_vma, and cannot go:
 *
 *  - it is found while the page is locked, in a memory whose mmap_lock is held;
 *    the lock is held to the end (hh_find_user() with @only);
 *  - from then on until the kernel has locked the page again, it cannot become
 *    another page under the same number, of a process that is not known:
 *    hh_devmem.reuse keeps free pages free.
 *
 * A page that KSM merged has no anon_vma; KSM holds on to those that it needs.
 */
#include "compat.h"

#ifdef HH_DEVMEM

#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "internal.h"

#ifdef HAVE_MIGRATE_DEVICE_RANGE

/* Pages taken at a time: as many as a large one has, at least */
#define HH_TAKE 512

/**
 * struct hh_numbers - device pages on their way to system memory
 * @count: how many there are
 * @src: their numbers; then where they are, as the kernel has it
 * @dst: where they go
 */
struct hh_numbers {
	unsigned long count;
	unsigned long src[HH_TAKE];
	unsigned long dst[HH_TAKE];
};

/* What is known of a page */
enum hh_keeper {
	HH_FREE,	/* nobody uses it */
	HH_KEPT,	/* it can be found as long as the lock is held */
	HH_UNKNOWN,
};

/* Also tells, of a page that is kept, how many it has. */
static enum hh_keeper hh_look(struct page *page, struct mm_struct *mm,
			      unsigned long *npages)
{
	enum hh_keeper keeper = HH_UNKNOWN;
	unsigned long addr;

	*npages = 1;
	/*
	 * Free pages that were a large one look like that until they are used
	 * again, also to the kernel, which would count them.
	 */
	if (!hh_page_get_unless_free(page))
		return PageCompound(page) ? HH_UNKNOWN : HH_FREE;
	if (trylock_page(page)) {
		if (hh_devmem_is_live(page) &&
		    (hh_is_merged(page) || hh_find_user(page, 0, mm, &addr)))
			keeper = HH_KEPT;
		*npages = hh_page_count(page);
		unlock_page(page);
	}
	put_page(page);
	return keeper;
}

/* Takes pages from @pfn on, as far as they are known, with free ones between. */
static void hh_take_range(struct hh_numbers *numbers, unsigned long pfn,
			  unsigned long end, struct mm_struct *mm)
{
	unsigned long n;

	end = min(end, pfn + HH_TAKE);
	for (numbers->count = 0; pfn + numbers->count < end;
	     numbers->count += n) {
		if (hh_look(pfn_to_page(pfn + numbers->count), mm, &n) ==
		    HH_UNKNOWN)
			break;
		/* One that crosses the end would be left out. */
		if (n > end - pfn - numbers->count)
			break;
	}
	if (numbers->count)
		migrate_device_range(numbers->src, pfn, numbers->count);
}

/* Takes all known pages from @pfn on. A large one has room for all of it. */
static void hh_take_numbers(struct hh_numbers *numbers, unsigned long pfn,
			    unsigned long end, struct mm_struct *mm)
{
#ifdef HAVE_MIGRATE_DEVICE_PFNS
	unsigned long n;

	unsigned long i;

	numbers->count = 0;
	for (; pfn < end; pfn += n) {
		if (hh_look(pfn_to_page(pfn), mm, &n) != HH_KEPT)
			continue;
		if (n > HH_TAKE - numbers->count)
			break;
		for (i = 0; i < n; i++)
			numbers->src[numbers->count++] = pfn + i;
	}
	if (numbers->count)
		migrate_device_pfns(numbers->src, numbers->count);
#endif
}

/* Moves pages from @pfn on of which @mm, whose mmap_lock is held, has a mapping. */
static unsigned long hh_move_numbers(struct hh_device *device,
				     unsigned long pfn, struct mm_struct *mm,
				     u32 how, struct hh_numbers *numbers)
{
	struct hh_devmem *devmem = &device->devmem;
	unsigned long end = devmem->first + devmem->npages;
	struct hh_migration move = {
		.src = numbers->src,
		.dst = numbers->dst,
	};

	down_write(&devmem->reuse);
	if (how == HMM_HARNESS_EVICT_RANGE)
		hh_take_range(numbers, pfn, end, mm);
	else
		hh_take_numbers(numbers, pfn, end, mm);
	up_write(&devmem->reuse);
	if (!numbers->count)
		return 0;

	move.npages = numbers->count;
	memset(numbers->dst, 0, numbers->count * sizeof(numbers->dst[0]));
	hh_gate(HMM_HARNESS_GATE_MIGRATE_SETUP, device);
	hh_migration_copy(device, &move);
	hh_gate(HMM_HARNESS_GATE_MIGRATE_COPIED, device);
	migrate_device_pages(numbers->src, numbers->dst, numbers->count);
	hh_migration_settle(device, &move);
	hh_gate(HMM_HARNESS_GATE_MIGRATE_PAGES, device);
	migrate_device_finalize(numbers->src, numbers->dst, numbers->count);
	hh_gate(HMM_HARNESS_GATE_MIGRATE_END, device);
	return move.moved;
}

/* Moves a page, and with it others that its process has. */
static unsigned long hh_evict_number(struct hh_device *device,
				     unsigned long pfn, u32 how,
				     struct hh_numbers *numbers)
{
	struct page *page = pfn_to_page(pfn);
	unsigned long addr, moved = 0;
	struct mm_struct *mm = NULL;
	bool merged = false;

	/* Ordered before all looks at the page, see hh_devmem_alloc(). */
	if (!hh_page_get_unless_free(page))
		return 0;
	if (trylock_page(page)) {
		merged = hh_is_merged(page);
		if (hh_devmem_is_live(page) && !merged)
			mm = hh_find_user(page, 0, NULL, &addr);
		unlock_page(page);
	}
	put_page(page);
	if (merged)
		return device->binding->evict_merged(device, page);
	if (!mm)
		return 0;
	if (!mmap_read_lock_killable(mm)) {
		moved = hh_move_numbers(device, pfn, mm, how, numbers);
		mmap_read_unlock(mm);
	}
	mmput(mm);
	return moved;
}

/**
 * hh_evict_by_number() - HMM_HARNESS_EVICT as the kernel does it
 * @device: the device
 * @how: HMM_HARNESS_EVICT_RANGE or _NUMBERS
 * @moved: (out) how many moved
 *
 * Return: 0, -EINVAL for both at once, -EOPNOTSUPP, -ENOMEM
 */
int hh_evict_by_number(struct hh_device *device, u32 how, u64 *moved)
{
	struct hh_devmem *devmem = &device->devmem;
	struct hh_numbers *numbers;
	unsigned long i;

	if (hweight32(how) != 1)
		return -EINVAL;
	if (!device->binding->finds_numbers)
		return -EOPNOTSUPP;
#ifndef HAVE_MIGRATE_DEVICE_PFNS
	if (how == HMM_HARNESS_EVICT_NUMBERS)
		return -EOPNOTSUPP;
#endif
	numbers = kmalloc_obj(*numbers, GFP_KERNEL);
	if (!numbers)
		return -ENOMEM;
	for (i = 0; i < devmem->npages; i++) {
		if (fatal_signal_pending(current))
			break;
		*moved += hh_evict_number(device, devmem->first + i, how,
					  numbers);
		cond_resched();
	}
	kfree(numbers);
	return 0;
}

#else /* HAVE_MIGRATE_DEVICE_RANGE */

int hh_evict_by_number(struct hh_device *device, u32 how, u64 *moved)
{
	return -EOPNOTSUPP;
}

#endif /* HAVE_MIGRATE_DEVICE_RANGE */
#endif /* HH_DEVMEM */
