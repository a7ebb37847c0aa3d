// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that a process maps from a node: pages that are for nobody else, as a
 * driver maps its device's registers. HMM has to refuse them.
 */
#include <linux/atomic.h>
#include <linux/mm.h>
#include <linux/refcount.h>
#include <linux/slab.h>

#include "internal.h"

/**
 * struct hh_mapping - what one mmap() gave out
 * @refs: the VMAs that there are of it: it can be divided, and inherited
 * @npages: how many pages
 * @pages: these, to which nobody else has references
 */
struct hh_mapping {
	refcount_t refs;
	unsigned long npages;
	struct page *pages[];
};

/*
 * Pages of all mappings together: no process counts them as its own, so that
 * nobody would be killed for them when memory is short.
 */
static atomic_long_t hh_mapped_pages = ATOMIC_LONG_INIT(0);

static void hh_mapping_put(struct hh_mapping *mapping)
{
	if (!refcount_dec_and_test(&mapping->refs))
		return;
	atomic_long_sub(mapping->npages, &hh_mapped_pages);
	while (mapping->npages--)
		__free_page(mapping->pages[mapping->npages]);
	kfree(mapping);
}

static struct hh_mapping *hh_mapping_new(unsigned long npages)
{
	struct hh_mapping *mapping;
	struct page *page;

	mapping = kzalloc(struct_size(mapping, pages, npages),
			  GFP_KERNEL_ACCOUNT);
	if (!mapping)
		return NULL;
	refcount_set(&mapping->refs, 1);
	while (mapping->npages < npages) {
		page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
		if (!page) {
			hh_mapping_put(mapping);
			return NULL;
		}
		mapping->pages[mapping->npages++] = page;
		if (atomic_long_inc_return(&hh_mapped_pages) >
		    HMM_HARNESS_MMAP_ALL_PAGES) {
			hh_mapping_put(mapping);
			return NULL;
		}
	}
	return mapping;
}

static bool hh_mapping_is_mixed(const struct vm_area_struct *vma)
{
	return vma->vm_pgoff >= HMM_HARNESS_MMAP_MIXED >> PAGE_SHIFT;
}

static void hh_mapping_open(struct vm_area_struct *vma)
{
	struct hh_mapping *mapping = vma->vm_private_data;

	refcount_inc(&mapping->refs);
}

/* Called when no page table has the pages any more. */
static void hh_mapping_close(struct vm_area_struct *vma)
{
	hh_mapping_put(vma->vm_private_data);
}

/* An entry without a reference to the page, and without one by which to get it. */
static vm_fault_t hh_mapping_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct hh_mapping *mapping = vma->vm_private_data;
	bool mixed = hh_mapping_is_mixed(vma);
	unsigned long index = vmf->pgoff;
	unsigned long pfn;

	if (mixed)
		index -= HMM_HARNESS_MMAP_MIXED >> PAGE_SHIFT;
	if (index >= mapping->npages)
		return VM_FAULT_SIGBUS;
	pfn = page_to_pfn(mapping->pages[index]);
	return mixed ? hh_insert_mixed(vma, vmf->address, pfn) :
		       vmf_insert_pfn(vma, vmf->address, pfn);
}

static const struct vm_operations_struct hh_mapping_ops = {
	.open = hh_mapping_open,
	.close = hh_mapping_close,
	.fault = hh_mapping_fault,
};

/**
 * hh_mmap() - mmap() of a node, see HMM_HARNESS_MMAP_*
 * @filp: the open file, which need not be bound
 * @vma: what is to be mapped
 *
 * Return: 0, -EINVAL, -E2BIG or -ENOMEM
 */
int hh_mmap(struct file *filp, struct vm_area_struct *vma)
{
	bool mixed = hh_mapping_is_mixed(vma);
	unsigned long npages = vma_pages(vma);
	struct hh_mapping *mapping;

	if (vma->vm_pgoff != (mixed ? HMM_HARNESS_MMAP_MIXED >> PAGE_SHIFT : 0))
		return -EINVAL;
	/* A private mapping would copy them into memory of the process's own. */
	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (npages > HMM_HARNESS_MMAP_MAX_PAGES)
		return -E2BIG;
	mapping = hh_mapping_new(npages);
	if (!mapping)
		return -ENOMEM;
	vm_flags_set(vma, (mixed ? VM_MIXEDMAP : VM_PFNMAP | VM_IO) |
			  VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_ops = &hh_mapping_ops;
	vma->vm_private_data = mapping;
	return 0;
}
