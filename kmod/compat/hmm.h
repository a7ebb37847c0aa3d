/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * HMM as v4.20 has it: the contract of its include/linux/hmm.h, and of
 * migrate_vma() in its include/linux/migrate.h. A kernel that has them brings
 * its own; on a later one hmm.c and devmem.c beside this file provide the same
 * over what came in their place. Nobody includes this and a later kernel's
 * <linux/hmm.h>: other things have the same names there.
 *
 * What is not the same, since a later kernel does not let it be:
 *
 *  - hmm_vma_fault() never drops mmap_sem, and so never returns -EAGAIN or
 *    -EBUSY. A caller that is being killed gets -EINTR. (mm/hmm.c
 *    hmm_range_fault(), 5.10 to 7.3)
 *  - A look that another change of the process came between, or that asked for
 *    device memory to go back which has not yet, is void from the start: all
 *    entries are none, and hmm_vma_range_done() says so. v4.20 looks again.
 *    (mm/hmm.c hmm_vma_fault())
 *  - hmm_vma_fault() of a page that must be written in a mapping that must not
 *    be is -EPERM; v4.20 faults for ever. (mm/hmm.c hmm_vma_walk_test())
 *  - Only device memory that was added here is reported as such, v4.20 reports
 *    anybody's. (mm/hmm.c hmm_vma_handle_pte(), dev_private_owner)
 *  - A free device page has no reference, where v4.20 leaves it one: it is taken
 *    into use by hmm_devmem_page_use(), not by get_page() and lock_page().
 *    (mm/memremap.c zone_device_page_init(), since 5.18)
 *  - When hmm_vma_fault() fails, all entries are none; v4.20 leaves those before
 *    the page that failed.
 *  - MIGRATE_PFN_ERROR is gone; a page that does not migrate stays. (5.5)
 *  - The pfns of a range are not overwritten when it becomes invalid.
 *  - hmm_vma_get_pfns() goes on behind an entry that can never be used, where
 *    v4.20 stops, succeeds, and leaves what is behind. (mm/hmm.c
 *    hmm_vma_get_pfns(), hmm_vma_handle_pte())
 *  - A page of which NUMA balancing wants to know who touches it is none; v4.20
 *    says so of a huge one only, and of a small one that it is valid. (mm/hmm.c
 *    pte_to_hmm_pfn_flags(), pmd_to_hmm_pfn_flags())
 *  - A look stays valid when an update merely touches it, and when one ends that
 *    it waited for; v4.20 voids it then, too. (mm/hmm.c hmm_invalidate_range(),
 *    hmm_invalidate_range_end())
 *  - hmm_mirror_register() says -EINTR if a signal came between; v4.20 says
 *    -ENOMEM, as of all that fails. (mm/hmm.c hmm_register())
 *  - migrate_vma() collects device memory only if it was added here, v4.20
 *    anybody's. (mm/migrate.c migrate_vma_collect_pmd())
 *  - The device of hmm_device_new() has no class and no number, and so nothing
 *    that shows it. (mm/hmm.c hmm_device_new(), hmm_init())
 *  - There is no MEMORY_DEVICE_PUBLIC, so that hmm_devmem_add_resource() only
 *    has its refusal left. (removed in 5.3)
 */
#ifndef HMM_HARNESS_COMPAT_HMM_H
#define HMM_HARNESS_COMPAT_HMM_H

#include "../compat.h"

#ifdef HAVE_HMM_MIRROR

#include <linux/pagemap.h>

static inline void hmm_mirror_settled(struct rcu_head *head)
{
}

/*
 * Not of v4.20: waits until HMM does not use any more what release() was called
 * for. It still does after that returned: mm/hmm.c hmm_release(), which
 * mmu_notifier_release() calls.
 */
static inline void hmm_mirror_settle(void)
{
	struct rcu_head head;

	init_rcu_head_on_stack(&head);
	mmu_notifier_call_srcu(&head, hmm_mirror_settled);
	mmu_notifier_synchronize();
	destroy_rcu_head_on_stack(&head);
}

#ifdef HH_PRIVATE
static inline void hmm_devmem_page_use(struct hmm_devmem *devmem,
				       struct page *page)
{
	get_page(page);
	lock_page(page);
}
#endif

#else /* HAVE_HMM_MIRROR */

#include <linux/device.h>
#include <linux/list.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>

struct hmm;

/**
 * enum hmm_pfn_flag_e - indices of hmm_range.flags
 * @HMM_PFN_VALID: the entry has a page, which can at least be read
 * @HMM_PFN_WRITE: the CPU's page table lets it be written
 * @HMM_PFN_DEVICE_PRIVATE: it is memory of a device
 * @HMM_PFN_FLAG_MAX: how many there are
 */
enum hmm_pfn_flag_e {
	HMM_PFN_VALID = 0,
	HMM_PFN_WRITE,
	HMM_PFN_DEVICE_PRIVATE,
	HMM_PFN_FLAG_MAX
};

/**
 * enum hmm_pfn_value_e - indices of hmm_range.values
 * @HMM_PFN_ERROR: the CPU's entry can never be used
 * @HMM_PFN_NONE: the CPU has no entry
 * @HMM_PFN_SPECIAL: the CPU's entry is not for devices
 * @HMM_PFN_VALUE_MAX: how many there are
 *
 * A driver may use one value for error and special, but none must be its own.
 */
enum hmm_pfn_value_e {
	HMM_PFN_ERROR,
	HMM_PFN_NONE,
	HMM_PFN_SPECIAL,
	HMM_PFN_VALUE_MAX
};

/**
 * struct hmm_range - a look at a part of a mapping
 * @vma: the mapping
 * @list: of all looks at a process that are under way
 * @start: first address
 * @end: address behind the last
 * @pfns: an entry per page, in the driver's own form
 * @flags: what says valid, write and device private in an entry
 * @values: what entries without a page are
 * @pfn_shift: where the page's number begins
 * @valid: nothing changed since @pfns was filled
 */
struct hmm_range {
	struct vm_area_struct	*vma;
	struct list_head	list;
	unsigned long		start;
	unsigned long		end;
	u64		*pfns;
	const u64		*flags;
	const u64		*values;
	u8			pfn_shift;
	bool			valid;
};

static inline bool hmm_pfn_has_page(const struct hmm_range *range,
				    u64 pfn)
{
	return pfn != range->values[HMM_PFN_NONE] &&
	       pfn != range->values[HMM_PFN_ERROR] &&
	       pfn != range->values[HMM_PFN_SPECIAL] &&
	       (pfn & range->flags[HMM_PFN_VALID]);
}

/* The page of an entry, or NULL */
static inline struct page *hmm_pfn_to_page(const struct hmm_range *range,
					   u64 pfn)
{
	if (!hmm_pfn_has_page(range, pfn))
		return NULL;
	return pfn_to_page(pfn >> range->pfn_shift);
}

/* The number of an entry's page, or -1UL */
static inline unsigned long hmm_pfn_to_pfn(const struct hmm_range *range,
					   u64 pfn)
{
	if (!hmm_pfn_has_page(range, pfn))
		return -1UL;
	return pfn >> range->pfn_shift;
}

/* A valid entry for the page of a number */
static inline u64 hmm_pfn_from_pfn(const struct hmm_range *range,
				   unsigned long pfn)
{
	return ((u64)pfn << range->pfn_shift) |
	       range->flags[HMM_PFN_VALID];
}

/* A valid entry for a page */
static inline u64 hmm_pfn_from_page(const struct hmm_range *range,
				    struct page *page)
{
	return hmm_pfn_from_pfn(range, page_to_pfn(page));
}

struct hmm_mirror;

enum hmm_update_event {
	HMM_UPDATE_INVALIDATE,
};

/**
 * struct hmm_update - what the CPU is about to change
 * @start: first address
 * @end: address behind the last
 * @event: HMM_UPDATE_INVALIDATE
 * @blockable: whether the callback may sleep
 */
struct hmm_update {
	unsigned long start;
	unsigned long end;
	enum hmm_update_event event;
	bool blockable;
};

/**
 * struct hmm_mirror_ops - what a driver hears
 * @release: the process exits; nothing refers to the mirror after this returned
 * @sync_cpu_device_pagetables: take what is about to change out of the device's
 *      page table before returning; -EAGAIN when that would take sleeping, and
 *      the update is not blockable
 */
struct hmm_mirror_ops {
	void (*release)(struct hmm_mirror *mirror);
	int (*sync_cpu_device_pagetables)(struct hmm_mirror *mirror,
					  const struct hmm_update *update);
};

/**
 * struct hmm_mirror - a device's interest in a process
 * @hmm: the process
 * @ops: what the device hears
 * @list: of all mirrors of the process
 */
struct hmm_mirror {
	struct hmm			*hmm;
	const struct hmm_mirror_ops	*ops;
	struct list_head		list;
};

int hmm_mirror_register(struct hmm_mirror *mirror, struct mm_struct *mm);
void hmm_mirror_unregister(struct hmm_mirror *mirror);

/* Not of v4.20: hmm_mirror_unregister() waits by itself. */
static inline void hmm_mirror_settle(void)
{
}

int hmm_vma_get_pfns(struct hmm_range *range);
bool hmm_vma_range_done(struct hmm_range *range);
int hmm_vma_fault(struct hmm_range *range, bool block);

#ifdef HH_PRIVATE
struct page *hmm_vma_alloc_locked_page(struct vm_area_struct *vma,
				       unsigned long addr);

struct hmm_devmem;

/**
 * struct hmm_devmem_ops - what happens to a device's memory
 * @free: a page has no user any more; the callback owns it
 * @fault: a CPU touched a page: it has to migrate back
 */
struct hmm_devmem_ops {
	void (*free)(struct hmm_devmem *devmem, struct page *page);
	int (*fault)(struct hmm_devmem *devmem, struct vm_area_struct *vma,
		     unsigned long addr, const struct page *page,
		     unsigned int flags, pmd_t *pmdp);
};

/**
 * struct hmm_devmem - memory of a device
 * @pfn_first: number of its first page
 * @pfn_last: number behind its last page
 * @resource: the addresses that it pretends to have
 * @device: whose it is
 * @pagemap: its struct pages
 * @ops: what the driver hears
 */
struct hmm_devmem {
	unsigned long			pfn_first;
	unsigned long			pfn_last;
	struct resource			*resource;
	struct device			*device;
	struct dev_pagemap		pagemap;
	const struct hmm_devmem_ops	*ops;
};

struct hmm_devmem *hmm_devmem_add(const struct hmm_devmem_ops *ops,
				  struct device *device, unsigned long size);
struct hmm_devmem *hmm_devmem_add_resource(const struct hmm_devmem_ops *ops,
					   struct device *device,
					   struct resource *res);
void hmm_devmem_remove(struct hmm_devmem *devmem);

/* hmm_devmem_page_set_drvdata() and its counterpart: ../compat.h */

/* Not of v4.20: takes a free page into use, locked and with a reference. */
static inline void hmm_devmem_page_use(struct hmm_devmem *devmem,
				       struct page *page)
{
	hh_page_init(page, &devmem->pagemap, 0);
}

/**
 * struct hmm_device - a device to hang memory onto
 * @device: the device
 * @minor: its number among these
 */
struct hmm_device {
	struct device		device;
	unsigned int		minor;
};

struct hmm_device *hmm_device_new(void *drvdata);
void hmm_device_put(struct hmm_device *hmm_device);

/**
 * struct migrate_vma_ops - what a driver does in the middle of a migration
 * @alloc_and_copy: fill dst for those entries of src that have
 *                  MIGRATE_PFN_MIGRATE and shall move; all pages are locked
 * @finalize_and_map: look which of them moved, and map them
 */
struct migrate_vma_ops {
	void (*alloc_and_copy)(struct vm_area_struct *vma,
			       const unsigned long *src, unsigned long *dst,
			       unsigned long start, unsigned long end,
			       void *private);
	void (*finalize_and_map)(struct vm_area_struct *vma,
				 const unsigned long *src,
				 const unsigned long *dst,
				 unsigned long start, unsigned long end,
				 void *private);
};

int migrate_vma(const struct migrate_vma_ops *ops, struct vm_area_struct *vma,
		unsigned long start, unsigned long end, unsigned long *src,
		unsigned long *dst, void *private);
#endif /* HH_PRIVATE */

#endif /* HAVE_HMM_MIRROR */
#endif /* HMM_HARNESS_COMPAT_HMM_H */
