// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device's page table: for each virtual page that the device may access,
 * the struct page that the CPU's table points to, and whether it is writable.
 *
 * The table holds no references: an entry is true because the invalidation
 * callback removes it before the CPU's table changes. What is deliberately
 * left in the table against that rule is turned into a ghost, a copy of the
 * page as it was: the device goes on with old data, as hardware with a stale
 * translation would, and the page itself is free to go.
 */
#include <linux/highmem.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

/* Tags of the pointers in the table */
#define HH_READ 0UL
#define HH_WRITE 1UL
#define HH_GHOST 3UL

/* Mark of the entries of pages that the device has to itself */
#define HH_OWN XA_MARK_0

/* So many entries are removed before others may have the CPU. */
#define HH_BREATH 4096

/* Ghosts of a mirror, at most: memory that nobody asked for is bounded. */
#define HH_MAX_GHOSTS 4096

/**
 * struct hh_ghost - what an entry was when it should have gone
 * @data: the data of that time
 * @pfn: number of the page
 * @flags: HMM_HARNESS_PAGE_*
 */
struct hh_ghost {
	struct page *data;
	unsigned long pfn;
	u64 flags;
};

static u64 hh_describe_page(struct hh_device *device, struct page *page)
{
	u64 flags = HMM_HARNESS_PAGE_VALID;

	if (is_zero_pfn(page_to_pfn(page)))
		flags |= HMM_HARNESS_PAGE_ZERO;
	if (hh_devmem_owns(device, page))
		flags |= HMM_HARNESS_PAGE_LOCAL;
	else if (is_device_private_page(page) || is_device_coherent_page(page))
		flags |= HMM_HARNESS_PAGE_REMOTE;
	return flags;
}

/**
 * hh_describe() - say in the terms of user space what HMM says
 * @device: the device that asks
 * @cpu: what the CPU's page table says, HH_CPU_*
 *
 * A page that the kernel has no struct page for cannot be used here, and is
 * reported like one that HMM itself refuses.
 *
 * Return: HMM_HARNESS_PAGE_*
 */
u64 hh_describe(struct hh_device *device, unsigned long cpu)
{
	unsigned long pfn = cpu >> HH_CPU_PFN_SHIFT;
	u64 flags;

	if (cpu & HH_CPU_ERROR)
		return HMM_HARNESS_PAGE_ERROR;
	if (!(cpu & HH_CPU_VALID))
		return 0;
	if (!pfn_valid(pfn))
		return HMM_HARNESS_PAGE_ERROR;

	flags = hh_describe_page(device, pfn_to_page(pfn));
	if (cpu & HH_CPU_WRITE)
		flags |= HMM_HARNESS_PAGE_WRITE;
	if (cpu & HH_CPU_SHIFTED)
		flags |= HMM_HARNESS_PAGE_SHIFTED;
	return flags | ((u64)(cpu & HH_CPU_ORDER_MASK) >> HH_CPU_ORDER_SHIFT <<
			HMM_HARNESS_PAGE_ORDER_SHIFT);
}

static void hh_free_ghost(struct hh_mirror *mirror, struct hh_ghost *ghost)
{
	mirror->ghosts--;
	__free_page(ghost->data);
	kfree(ghost);
}

/* Takes care of what @index held before: the table's count, and its ghost. */
static void hh_dismiss(struct hh_mirror *mirror, void *old)
{
	if (!old)
		return;
	mirror->entries--;
	if (xa_pointer_tag(old) == HH_GHOST)
		hh_free_ghost(mirror, xa_untag_pointer(old));
}

/* All of it at once, for those who look with the lock of the table alone. */
static void *hh_put_locked(struct hh_mirror *mirror, unsigned long index,
			   void *new, bool own)
{
	void *old = __xa_store(&mirror->table, index, new,
			       GFP_ATOMIC | __GFP_NOWARN);

	if (xa_is_err(old))
		return old;
	if (own)
		__xa_set_mark(&mirror->table, index, HH_OWN);
	else if (xa_marked(&mirror->table, HH_OWN))
		__xa_clear_mark(&mirror->table, index, HH_OWN);
	WRITE_ONCE(mirror->commits, mirror->commits + 1);
	return old;
}

static int hh_put(struct hh_mirror *mirror, unsigned long index, void *new,
		  bool own)
{
	void *old;

	xa_lock(&mirror->table);
	old = hh_put_locked(mirror, index, new, own);
	xa_unlock(&mirror->table);
	if (xa_is_err(old)) {
		atomic64_inc(&mirror->device->refused);
		return xa_err(old);
	}
	mirror->entries++;
	hh_dismiss(mirror, old);
	return 0;
}

/* A ghost with the data of @page, or with zeros where there is none. */
static int hh_put_ghost(struct hh_mirror *mirror, unsigned long index,
			struct page *page, unsigned long pfn, u64 flags)
{
	gfp_t gfp = GFP_NOWAIT | __GFP_NOWARN | __GFP_ZERO;
	struct hh_ghost *ghost;
	int ret = -ENOMEM;

	if (mirror->ghosts >= HH_MAX_GHOSTS)
		return ret;
	ghost = kmalloc_obj(*ghost, gfp);
	if (!ghost)
		return ret;
	ghost->data = alloc_page(gfp);
	if (!ghost->data) {
		kfree(ghost);
		return ret;
	}
	ghost->pfn = pfn;
	ghost->flags = flags;
	if (page) {
		void *from = kmap_local_page(page);
		void *to = kmap_local_page(ghost->data);

		ret = copy_from_kernel_nofault(to, from, PAGE_SIZE);
		kunmap_local(to);
		kunmap_local(from);
		if (ret)
			goto free;
	}

	mirror->ghosts++;
	ret = hh_put(mirror, index, xa_tag_pointer(ghost, HH_GHOST), false);
	if (!ret)
		return 0;
	mirror->ghosts--;
free:
	__free_page(ghost->data);
	kfree(ghost);
	return ret;
}

/**
 * hh_table_load() - look an entry up
 * @mirror: the mirror, its lock held, or that of the table
 * @index: virtual page number
 * @entry: (out) the entry
 *
 * Return: whether there is one
 */
bool hh_table_load(struct hh_mirror *mirror, unsigned long index,
		   struct hh_entry *entry)
{
	void *slot = xa_load(&mirror->table, index);
	struct hh_ghost *ghost;

	if (!slot)
		return false;

	if (xa_pointer_tag(slot) == HH_GHOST) {
		ghost = xa_untag_pointer(slot);
		entry->data = ghost->data;
		entry->page = NULL;
		entry->pfn = ghost->pfn;
		entry->flags = ghost->flags;
		return true;
	}

	entry->page = xa_untag_pointer(slot);
	entry->pfn = page_to_pfn(entry->page);
	entry->flags = hh_describe_page(mirror->device, entry->page);
	if (xa_pointer_tag(slot) == HH_WRITE)
		entry->flags |= HMM_HARNESS_PAGE_WRITE;
	if (xa_get_mark(&mirror->table, index, HH_OWN))
		entry->flags |= HMM_HARNESS_PAGE_EXCLUSIVE;
	entry->data = entry->page;
	if (entry->flags & HMM_HARNESS_PAGE_LOCAL)
		entry->data = hh_devmem_backing(entry->page);
	return true;
}

/**
 * hh_table_store() - enter what HMM reported
 * @mirror: the mirror, its lock held since the report was found to be still
 *          true
 * @index: virtual page number
 * @cpu: what the CPU's page table says, HH_CPU_*
 * @flags: (out) what was entered, HMM_HARNESS_PAGE_*; without
 *         HMM_HARNESS_PAGE_VALID nothing was
 *
 * Return: 0, or -ENOMEM when there is no memory for the table
 */
int hh_table_store(struct hh_mirror *mirror, unsigned long index,
		   unsigned long cpu, u64 *flags)
{
	struct page *page;

	*flags = hh_describe(mirror->device, cpu);
	if (!(*flags & HMM_HARNESS_PAGE_VALID))
		return 0;

	page = pfn_to_page(cpu >> HH_CPU_PFN_SHIFT);
	if (hh_wrong(HH_FAULT_FORGETS_WRITE))
		*flags &= ~(u64)HMM_HARNESS_PAGE_WRITE;
	if (hh_wrong(HH_WRITE_ENTRY_ALWAYS) && hh_may_break(page))
		*flags |= HMM_HARNESS_PAGE_WRITE;

	return hh_put(mirror, index,
		      xa_tag_pointer(page, *flags & HMM_HARNESS_PAGE_WRITE ?
				     HH_WRITE : HH_READ), false);
}

/**
 * hh_table_store_exclusive() - enter a page that the device has to itself
 * @mirror: the mirror, its lock held since the page was known to be exclusive
 * @index: virtual page number
 * @page: the page
 * @flags: (out) what was entered, HMM_HARNESS_PAGE_*
 *
 * Return: 0, or -ENOMEM when there is no memory for the table
 */
int hh_table_store_exclusive(struct hh_mirror *mirror, unsigned long index,
			     struct page *page, u64 *flags)
{
	int ret = hh_put(mirror, index, xa_tag_pointer(page, HH_WRITE), true);

	if (ret)
		return ret;
	*flags = hh_describe_page(mirror->device, page) |
		 HMM_HARNESS_PAGE_WRITE | HMM_HARNESS_PAGE_EXCLUSIVE;
	return 0;
}

/**
 * hh_table_store_unchecked() - enter what may not be true any more
 * @mirror: the mirror, its lock held
 * @index: virtual page number
 * @cpu: what the CPU's page table said once, HH_CPU_*
 *
 * A deliberate mistake. The page may have a new owner by now, so that its data
 * are not touched.
 *
 * Return: 0 or -ENOMEM
 */
int hh_table_store_unchecked(struct hh_mirror *mirror, unsigned long index,
			     unsigned long cpu)
{
	u64 flags = hh_describe(mirror->device, cpu);

	if (!(flags & HMM_HARNESS_PAGE_VALID))
		return 0;
	flags &= ~(u64)HMM_HARNESS_PAGE_ORDER_MASK;
	return hh_put_ghost(mirror, index, NULL, cpu >> HH_CPU_PFN_SHIFT,
			    flags);
}

static void hh_table_erase(struct hh_mirror *mirror, unsigned long index)
{
	hh_dismiss(mirror, xa_erase(&mirror->table, index));
}

/* Turns the entry into a ghost. */
static bool hh_table_haunt(struct hh_mirror *mirror, unsigned long index)
{
	struct hh_entry entry;

	if (!hh_table_load(mirror, index, &entry))
		return false;
	if (!entry.page)
		return true;
	return !hh_put_ghost(mirror, index, entry.data, entry.pfn, entry.flags);
}

/* Whether a page that the device has to itself is left to it, on purpose */
static bool hh_table_keeps(struct hh_mirror *mirror, unsigned long index,
			   const struct hh_change *change)
{
	return hh_wrong(HH_KEEP_EXCLUSIVE) && !change->release &&
	       xa_get_mark(&mirror->table, index, HH_OWN);
}

/* Whether all that the CPU is about to change is left in the table, on purpose */
static bool hh_table_keeps_all(struct hh_mirror *mirror,
			       const struct hh_change *change)
{
	if (hh_wrong(HH_INVALIDATE_LATER)) {
		mirror->late = true;
		return true;
	}
	if (hh_wrong(HH_SKIP_PROTECT) &&
	    (change->reason == HMM_HARNESS_REASON_PROTECTION_VMA ||
	     change->reason == HMM_HARNESS_REASON_PROTECTION_PAGE))
		return true;
	return hh_wrong(HH_SKIP_INVALIDATE) || mirror->faults ||
	       (hh_wrong(HH_SKIP_NONBLOCKABLE) && !change->blockable) ||
	       (hh_wrong(HH_SKIP_OWN_MIGRATE) && change->own_migration);
}

/**
 * hh_table_invalidate() - remove what the CPU is about to change
 * @mirror: the mirror, its lock held
 * @change: what the CPU is about to change
 */
void hh_table_invalidate(struct hh_mirror *mirror,
			 const struct hh_change *change)
{
	unsigned long first = change->start >> PAGE_SHIFT;
	unsigned long last = (change->end - 1) >> PAGE_SHIFT;
	unsigned long haunted = ULONG_MAX;
	unsigned long index, seen = 0;
	void *slot;

	/* The first page that is left in the table, on purpose */
	if (hh_wrong(HH_INVALIDATE_SHORT))
		haunted = last;
	if (hh_table_keeps_all(mirror, change))
		haunted = first;
	if (change->release)
		haunted = ULONG_MAX;

	/* v4.20 finds what is right behind the last, too. */
	index = first;
	for (slot = xa_find(&mirror->table, &index, last, XA_PRESENT);
	     slot && index <= last;
	     slot = xa_find_after(&mirror->table, &index, last, XA_PRESENT)) {
		if ((index < haunted &&
		     !hh_table_keeps(mirror, index, change)) ||
		    !hh_table_haunt(mirror, index))
			hh_table_erase(mirror, index);
		if (!(++seen % HH_BREATH) && change->blockable)
			cond_resched();
	}
}

/**
 * hh_table_lay_ghosts() - remove what was kept on purpose, and only for a while
 * @mirror: the mirror, its lock held
 */
void hh_table_lay_ghosts(struct hh_mirror *mirror)
{
	unsigned long index = 0;
	void *slot;

	for (slot = xa_find(&mirror->table, &index, ULONG_MAX, XA_PRESENT);
	     slot; slot = xa_find_after(&mirror->table, &index, ULONG_MAX,
					XA_PRESENT))
		if (xa_pointer_tag(slot) == HH_GHOST)
			hh_table_erase(mirror, index);
}

/**
 * hh_table_clear() - remove all entries
 * @mirror: the mirror, its lock held
 */
void hh_table_clear(struct hh_mirror *mirror)
{
	unsigned long index = 0, seen = 0;
	void *slot;

	for (slot = xa_find(&mirror->table, &index, ULONG_MAX, XA_PRESENT);
	     slot; slot = xa_find_after(&mirror->table, &index, ULONG_MAX,
					XA_PRESENT)) {
		hh_table_erase(mirror, index);
		if (!(++seen % HH_BREATH))
			cond_resched();
	}
}
