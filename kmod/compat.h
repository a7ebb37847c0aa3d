/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between kernels, so that no other file of the module asks.
 * HAVE_* come from probes/, by compiling them; each says since when it is
 * there.
 */
#ifndef HMM_HARNESS_COMPAT_H
#define HMM_HARNESS_COMPAT_H

#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/page-flags.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/uaccess.h>

#include "probed.h"

#if !defined(HAVE_HMM_MIRROR) && !defined(HAVE_MMU_INTERVAL)
#error "The kernel has neither the HMM of v4.20 nor that of 5.10 and later."
#endif

#ifdef HAVE_HMM_MIRROR
#include <linux/hmm.h>
#endif
#ifdef HAVE_PFN_T
#include <linux/pfn_t.h>
#endif

/* What speaks of the bindings that there can be */
#ifdef HAVE_MMU_INTERVAL
#define HH_INTERVAL 1
#endif

/*
 * Device memory needs pages of a kind, and a way to tell those in use from free
 * ones. From 5.18 to 6.0 all have one reference. Private memory is what the CPU
 * cannot reach, coherent memory what it can.
 */
#if IS_ENABLED(CONFIG_DEVICE_PRIVATE) && \
	(defined(HAVE_HMM_MIRROR) || \
	 defined(HAVE_DEVICE_PAGE_EXTRA_REF) || \
	 defined(HAVE_ZONE_DEVICE_PAGE_INIT) || \
	 defined(HAVE_ZONE_DEVICE_PAGE_INIT_ORDER))
#define HH_PRIVATE 1
#endif

#if IS_ENABLED(CONFIG_DEVICE_MIGRATION) && defined(HH_INTERVAL) && \
	defined(HAVE_DEVICE_COHERENT) && \
	(defined(HAVE_ZONE_DEVICE_PAGE_INIT) || \
	 defined(HAVE_ZONE_DEVICE_PAGE_INIT_ORDER))
#define HH_COHERENT 1
#endif

#if defined(HH_PRIVATE) || defined(HH_COHERENT)
#define HH_DEVMEM 1
#endif

/* A device can have pages to itself: since 5.14, with CONFIG_DEVICE_PRIVATE. */
#if defined(HH_INTERVAL) && \
	(defined(HAVE_MAKE_DEVICE_EXCLUSIVE) || \
	 defined(HAVE_MAKE_DEVICE_EXCLUSIVE_RANGE))
#define HH_EXCLUSIVE 1
#include <linux/rmap.h>
#ifdef HAVE_SOFTLEAF
#include <linux/leafops.h>
#else
#include <linux/swapops.h>
#endif
#endif

/* Huge pages can migrate whole, and stay that in the memory of a device. */
#if defined(HAVE_MIGRATE_PFN_COMPOUND) && defined(HAVE_FOLIO_SPLIT) && \
	IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE)
#define HH_COMPOUND 1
#define HH_WHOLE_ORDER HPAGE_PMD_ORDER
#define HH_MIGRATE_COMPOUND MIGRATE_PFN_COMPOUND
#else
#define HH_WHOLE_ORDER 0
#define HH_MIGRATE_COMPOUND 0UL
#endif
#define HH_WHOLE BIT(HH_WHOLE_ORDER)

#ifndef kzalloc_obj
#define kmalloc_obj(object, gfp) kmalloc(sizeof(object), gfp)
#define kvmalloc_obj(object, gfp) kvmalloc(sizeof(object), gfp)
#define kzalloc_obj(object, gfp) kzalloc(sizeof(object), gfp)
#endif

#ifndef HAVE_KMAP_LOCAL
#ifdef CONFIG_HIGHMEM
#error "HMM is for 64-bit machines, where all memory is mapped."
#endif
static inline void *kmap_local_page(struct page *page)
{
	return page_address(page);
}

static inline void kunmap_local(const void *address)
{
}
#endif

#ifndef HAVE_MEMZERO_PAGE
static inline void memzero_page(struct page *page, size_t offset, size_t len)
{
	zero_user(page, offset, len);
}
#endif

#ifndef HAVE_VMA_LOOKUP
static inline struct vm_area_struct *vma_lookup(struct mm_struct *mm,
						unsigned long addr)
{
	struct vm_area_struct *vma = find_vma(mm, addr);

	return vma && addr >= vma->vm_start ? vma : NULL;
}
#endif

#ifndef HAVE_VM_FLAGS_SET
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}
#endif

/* An entry for a page frame in a mapping that may have pages as well */
static inline vm_fault_t hh_insert_mixed(struct vm_area_struct *vma,
					 unsigned long addr, unsigned long pfn)
{
#ifdef HAVE_PFN_T
	return vmf_insert_mixed(vma, addr, pfn_to_pfn_t(pfn));
#else
	return vmf_insert_mixed(vma, addr, pfn);
#endif
}

#ifndef HAVE_DEVICE_COHERENT
static inline bool is_device_coherent_page(const struct page *page)
{
	return false;
}
#endif

#ifndef HAVE_MMAP_LOCK
static inline void mmap_read_lock(struct mm_struct *mm)
{
	down_read(&mm->mmap_sem);
}

static inline int mmap_read_lock_killable(struct mm_struct *mm)
{
	return down_read_killable(&mm->mmap_sem);
}

static inline bool mmap_read_trylock(struct mm_struct *mm)
{
	return down_read_trylock(&mm->mmap_sem);
}

static inline void mmap_read_unlock(struct mm_struct *mm)
{
	up_read(&mm->mmap_sem);
}

static inline void mmap_write_lock(struct mm_struct *mm)
{
	down_write(&mm->mmap_sem);
}

static inline int mmap_write_lock_killable(struct mm_struct *mm)
{
	return down_write_killable(&mm->mmap_sem);
}

static inline void mmap_write_unlock(struct mm_struct *mm)
{
	up_write(&mm->mmap_sem);
}
#endif

#ifndef HAVE_COPY_FROM_KERNEL_NOFAULT
static inline long copy_from_kernel_nofault(void *dst, const void *src,
					    size_t size)
{
	return probe_kernel_read(dst, src, size);
}
#endif

#ifndef HAVE_COPY_STRUCT_FROM_USER
/* As lib/usercopy.c has it, for structs of which little may be unknown */
static inline int copy_struct_from_user(void *dst, size_t ksize,
					const void __user *src, size_t usize)
{
	size_t size = min(ksize, usize);
	u8 byte;

	for (; usize > ksize; usize--) {
		if (get_user(byte, (u8 __user *)src + usize - 1))
			return -EFAULT;
		if (byte)
			return -E2BIG;
	}
	memset(dst + size, 0, ksize - size);
	return copy_from_user(dst, src, size) ? -EFAULT : 0;
}
#endif

#ifndef HAVE_COMPAT_PTR_IOCTL
#ifdef CONFIG_COMPAT
#include <linux/compat.h>

static inline long compat_ptr_ioctl(struct file *file, unsigned int cmd,
				    unsigned long arg)
{
	return file->f_op->unlocked_ioctl(file, cmd,
					  (unsigned long)compat_ptr(arg));
}
#else
#define compat_ptr_ioctl NULL
#endif
#endif

#ifndef HAVE_SYSFS_EMIT
#define sysfs_emit_at(buffer, at, ...) ({				\
	int __at = (at);						\
	scnprintf((buffer) + __at, PAGE_SIZE - __at, __VA_ARGS__);	\
})
#define sysfs_emit(buffer, ...) sysfs_emit_at(buffer, 0, __VA_ARGS__)
#endif

#ifdef HAVE_CLASS_CREATE_NAME
#define hh_class_create(name) class_create(name)
#else
#define hh_class_create(name) class_create(THIS_MODULE, name)
#endif

#ifndef XA_FLAGS_ACCOUNT
#define XA_FLAGS_ACCOUNT 0	/* since 5.3 it is charged to a memcg */
#endif

#ifdef HH_INTERVAL
/* Who migrates, of an MMU_NOTIFY_MIGRATE */
static inline void *
hh_notifier_owner(const struct mmu_notifier_range *range)
{
#ifdef HAVE_NOTIFIER_OWNER
	return range->owner;
#else
	return range->migrate_pgmap_owner;
#endif
}

/* How a notifier hears that the CPUs' TLBs are flushed */
#ifdef HAVE_NOTIFIER_SECONDARY_TLBS
#define hh_flush_op arch_invalidate_secondary_tlbs
#else
#define hh_flush_op invalidate_range
#endif
#endif /* HH_INTERVAL */

#ifdef HH_EXCLUSIVE
/* So many pages are made exclusive at a time. */
#ifdef HAVE_MAKE_DEVICE_EXCLUSIVE
#define HH_EXCLUSIVE_PAGES 1UL
#else
#define HH_EXCLUSIVE_PAGES HH_CHUNK
#endif

/*
 * Makes pages exclusive to a device. Returns how many of @pages are filled in,
 * with NULL for one that was not granted: the others are locked, and have a
 * reference. That may be less than asked for. Or an error of the first one.
 */
static inline long hh_make_exclusive(struct mm_struct *mm, unsigned long start,
				     unsigned long npages, struct page **pages,
				     void *owner)
{
#ifdef HAVE_MAKE_DEVICE_EXCLUSIVE
	struct folio *folio;

	pages[0] = make_device_exclusive(mm, start, owner, &folio);
	return IS_ERR(pages[0]) ? PTR_ERR(pages[0]) : 1;
#else
	return make_device_exclusive_range(mm, start,
					   start + (npages << PAGE_SHIFT),
					   pages, owner);
#endif
}

/* The page that an entry of the CPU's table says a device has to itself */
static inline struct page *hh_exclusive_page(pte_t pte)
{
#ifdef HAVE_SOFTLEAF
	softleaf_t entry;

	if (pte_none(pte) || pte_present(pte))
		return NULL;
	entry = softleaf_from_pte(pte);
	return softleaf_is_device_exclusive(entry) ? softleaf_to_page(entry) :
						     NULL;
#else
	swp_entry_t entry;

	if (pte_none(pte) || pte_present(pte))
		return NULL;
	entry = pte_to_swp_entry(pte);
	return is_device_exclusive_entry(entry) ?
		       pfn_swap_entry_to_page(entry) : NULL;
#endif
}
#endif

/* What a page is mapped by: the page's own matter until there were folios */
#ifdef HAVE_FOLIO
#define hh_mapped folio
#define hh_mapped_of(page) page_folio(page)
#define hh_is_mapped(page) folio_mapped(page_folio(page))
#define hh_is_merged(page) folio_test_ksm(page_folio(page))
#define hh_is_written(page) folio_test_writeback(page_folio(page))
#else
#define hh_mapped page
#define hh_mapped_of(page) (page)
#define hh_is_mapped(page) page_mapped(page)
#define hh_is_merged(page) PageKsm(page)
#define hh_is_written(page) PageWriteback(page)
#endif

/* The bits of a page's mapping that say what it points to */
#ifdef FOLIO_MAPPING_FLAGS
#define HH_MAPPING_ANON FOLIO_MAPPING_ANON
#define HH_MAPPING_FLAGS FOLIO_MAPPING_FLAGS
#else
#define HH_MAPPING_ANON PAGE_MAPPING_ANON
#define HH_MAPPING_FLAGS PAGE_MAPPING_FLAGS
#endif

/* The index that an anonymous page has at the start of @vma */
static inline pgoff_t hh_vma_anon_pgoff(const struct vm_area_struct *vma)
{
#ifdef HAVE_VMA_ANON_PGOFF
	return vma_start_anon_pgoff(vma);
#else
	return vma->vm_pgoff;
#endif
}

/* Waits for the lock of a page, or of the large one that it is a part of. */
static inline int hh_page_lock_killable(struct page *page)
{
#ifdef HAVE_FOLIO
	return folio_lock_killable(page_folio(page));
#else
	return lock_page_killable(page);
#endif
}

#ifdef HH_DEVMEM

static inline struct dev_pagemap *hh_page_pgmap(struct page *page)
{
#ifdef HAVE_PAGE_PGMAP
	return page_pgmap(page);
#else
	return page->pgmap;
#endif
}

/* The field of a device page that is its driver's, as v4.20's hmm.h has it */
#ifndef HAVE_HMM_MIRROR
static inline void hmm_devmem_page_set_drvdata(struct page *page,
					       unsigned long data)
{
	page->zone_device_data = (void *)data;
}

static inline unsigned long hmm_devmem_page_get_drvdata(const struct page *page)
{
	return (unsigned long)page->zone_device_data;
}
#endif

static inline void *hh_page_data(const struct page *page)
{
	return (void *)hmm_devmem_page_get_drvdata(page);
}

static inline void hh_set_page_data(struct page *page, void *data)
{
	hmm_devmem_page_set_drvdata(page, (unsigned long)data);
}

/* How a driver gets a device page back: struct hh_freed of .hh_free_op */
#ifdef HAVE_FOLIO_FREE
#define hh_freed folio
#define hh_free_op folio_free
#define hh_freed_page(freed) (&(freed)->page)
#else
#define hh_freed page
#define hh_free_op page_free
#define hh_freed_page(freed) (freed)
#endif

/* The first of the pages that have all they have in common, and how many. */
static inline struct page *hh_page_head(struct page *page)
{
#ifdef HH_COMPOUND
	return &page_folio(page)->page;
#else
	return page;
#endif
}

static inline unsigned long hh_page_count(struct page *head)
{
#ifdef HH_COMPOUND
	return folio_nr_pages(page_folio(head));
#else
	return 1;
#endif
}

/*
 * Takes free device pages into use: locked, and with a reference. @order: of
 * HH_WHOLE_ORDER or 0.
 */
static inline void hh_page_init(struct page *page, struct dev_pagemap *pgmap,
				unsigned int order)
{
#if defined(HAVE_ZONE_DEVICE_PAGE_INIT_ORDER)
	zone_device_page_init(page, pgmap, order);
#elif defined(HAVE_ZONE_DEVICE_PAGE_INIT)
	zone_device_page_init(page);
#else
	get_page(page);
	lock_page(page);
#endif
}

/* The same field as a word of bits, of a page that has no data elsewhere */
static inline unsigned long *hh_page_word(struct page *page)
{
#ifdef HAVE_HMM_MIRROR
	return &page->hmm_data;
#else
	return (unsigned long *)&page->zone_device_data;
#endif
}

/* Whether anybody waits for that lock. */
static inline bool hh_page_is_awaited(struct page *page)
{
#ifdef HAVE_FOLIO
	return folio_test_waiters(page_folio(page));
#else
	return PageWaiters(compound_head(page));
#endif
}

/* Takes a reference to a device page unless it is free. */
static inline bool hh_page_get_unless_free(struct page *page)
{
#if defined(HAVE_HMM_MIRROR) || defined(HAVE_DEVICE_PAGE_EXTRA_REF)
	return page_ref_add_unless(page, 1, 1);
#else
	return get_page_unless_zero(page);
#endif
}

/*
 * References to a device page in use, or to the large page that it is a part of,
 * without the one that a free page has on some kernels; and how often that is
 * mapped.
 */
static inline unsigned int hh_page_refs(struct page *page)
{
#if defined(HAVE_HMM_MIRROR) || defined(HAVE_DEVICE_PAGE_EXTRA_REF)
	return page_ref_count(page) - 1;
#else
	return page_ref_count(hh_page_head(page));
#endif
}

static inline unsigned int hh_page_mapped(struct page *page)
{
#ifdef HH_COMPOUND
	return folio_mapcount(page_folio(page));
#else
	return atomic_read(&page->_mapcount) + 1;
#endif
}

/* Where a page shall migrate to: @page is locked. */
static inline unsigned long hh_migrate_dst(struct page *page)
{
	unsigned long dst = migrate_pfn(page_to_pfn(page));

#ifdef HAVE_MIGRATE_PFN_LOCKED
	dst |= MIGRATE_PFN_LOCKED;
#endif
	return dst;
}

/*
 * Whether the caller of migrate_to_ram() has a reference to the page. Without
 * it the page may be free by then, or another one, and nothing but its pagemap
 * may be looked at.
 */
#ifdef HAVE_MIGRATE_FAULT_PAGE
#define HH_FAULT_PAGE_HELD true
#else
#define HH_FAULT_PAGE_HELD false
#endif

#ifndef HAVE_HMM_MIRROR
static inline void hh_set_fault_page(struct migrate_vma *args,
				     struct page *page)
{
#ifdef HAVE_MIGRATE_FAULT_PAGE
	args->fault_page = page;
#endif
}
#endif

#endif /* HH_DEVMEM */
#endif /* HMM_HARNESS_COMPAT_H */
