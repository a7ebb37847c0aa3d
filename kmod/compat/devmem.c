// SPDX-License-Identifier: GPL-2.0-only
/*
 * Device memory and migrate_vma() of v4.20 over memremap_pages() and
 * migrate_vma_setup() and its like. See hmm.h.
 */
#include "hmm.h"

#if !defined(HAVE_HMM_MIRROR) && defined(HH_PRIVATE)

#include <linux/idr.h>
#include <linux/ioport.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "walk.h"

/**
 * struct hmm_touch - a CPU's fault on a device page, under way
 * @list: of all of these
 * @task: who faults
 * @page: on what
 */
struct hmm_touch {
	struct list_head list;
	struct task_struct *task;
	struct page *page;
};

static LIST_HEAD(hmm_touches);
static DEFINE_SPINLOCK(hmm_touches_lock); /* protects hmm_touches */

/*
 * migrate_vma() has no argument for the page that a CPU touched, which later
 * kernels want to know since they hold on to it.
 */
static struct page *hmm_touched(void)
{
	struct hmm_touch *touch;
	struct page *page = NULL;

	spin_lock(&hmm_touches_lock);
	list_for_each_entry(touch, &hmm_touches, list)
		if (touch->task == current)
			page = touch->page;
	spin_unlock(&hmm_touches_lock);
	return page;
}

static struct hmm_devmem *hmm_devmem_of(struct page *page)
{
	return container_of(hh_page_pgmap(page), struct hmm_devmem, pagemap);
}

static void hmm_devmem_free(struct hh_freed *freed)
{
	struct page *page = hh_freed_page(freed);
	struct hmm_devmem *devmem = hmm_devmem_of(page);

	devmem->ops->free(devmem, page);
}

static vm_fault_t hmm_devmem_fault(struct vm_fault *vmf)
{
	struct hmm_devmem *devmem = hmm_devmem_of(vmf->page);
	struct hmm_touch touch = {
		.task = current,
		.page = vmf->page,
	};
	int ret;

	spin_lock(&hmm_touches_lock);
	list_add(&touch.list, &hmm_touches);
	spin_unlock(&hmm_touches_lock);
	ret = devmem->ops->fault(devmem, vmf->vma, vmf->address, vmf->page,
				 vmf->flags, vmf->pmd);
	spin_lock(&hmm_touches_lock);
	list_del(&touch.list);
	spin_unlock(&hmm_touches_lock);
	return (__force vm_fault_t)ret;
}

static const struct dev_pagemap_ops hmm_pagemap_ops = {
	.hh_free_op = hmm_devmem_free,
	.migrate_to_ram = hmm_devmem_fault,
};

/**
 * hmm_devmem_add() - struct pages for a device's memory
 * @ops: what the driver hears
 * @device: whose memory it is
 * @size: how many bytes
 *
 * Return: the memory, or an error
 */
struct hmm_devmem *hmm_devmem_add(const struct hmm_devmem_ops *ops,
				  struct device *device, unsigned long size)
{
	struct hmm_devmem *devmem;
	struct dev_pagemap *pagemap;
	void *ret;

	devmem = kzalloc_obj(*devmem, GFP_KERNEL);
	if (!devmem)
		return ERR_PTR(-ENOMEM);
	devmem->ops = ops;
	devmem->device = device;
	devmem->resource = request_free_mem_region(&iomem_resource, size,
						   dev_name(device));
	if (IS_ERR(devmem->resource)) {
		ret = devmem->resource;
		goto free;
	}
	devmem->pfn_first = PHYS_PFN(devmem->resource->start);
	devmem->pfn_last = devmem->pfn_first +
			   PHYS_PFN(resource_size(devmem->resource));

	pagemap = &devmem->pagemap;
	pagemap->type = MEMORY_DEVICE_PRIVATE;
	pagemap->range.start = devmem->resource->start;
	pagemap->range.end = devmem->resource->end;
	pagemap->nr_range = 1;
	pagemap->ops = &hmm_pagemap_ops;
	pagemap->owner = &hmm_walk_owner;
	ret = memremap_pages(pagemap, numa_node_id());
	if (!IS_ERR(ret))
		return devmem;

	release_mem_region(devmem->resource->start,
			   resource_size(devmem->resource));
free:
	kfree(devmem);
	return ERR_CAST(ret);
}

/**
 * hmm_devmem_add_resource() - struct pages for memory that the CPU reaches
 * @ops: what the driver hears
 * @device: whose memory it is
 * @res: where it is
 *
 * Return: -EINVAL: no memory is of that kind any more
 */
struct hmm_devmem *hmm_devmem_add_resource(const struct hmm_devmem_ops *ops,
					   struct device *device,
					   struct resource *res)
{
	return ERR_PTR(-EINVAL);
}

/**
 * hmm_devmem_remove() - remove struct pages, when none is in use
 * @devmem: of what; or NULL
 */
void hmm_devmem_remove(struct hmm_devmem *devmem)
{
	if (!devmem)
		return;
	memunmap_pages(&devmem->pagemap);
	release_mem_region(devmem->resource->start,
			   resource_size(devmem->resource));
	kfree(devmem);
}

/**
 * hmm_vma_alloc_locked_page() - a page of system memory for a migration
 * @vma: where it will be mapped
 * @addr: the address there
 *
 * Return: the page, locked; or NULL
 */
struct page *hmm_vma_alloc_locked_page(struct vm_area_struct *vma,
				       unsigned long addr)
{
	struct page *page = alloc_page_vma(GFP_HIGHUSER, vma, addr);

	if (page)
		lock_page(page);
	return page;
}

static DEFINE_IDA(hmm_device_minors);

static void hmm_device_release(struct device *device)
{
	struct hmm_device *hmm_device =
		container_of(device, struct hmm_device, device);

	ida_free(&hmm_device_minors, hmm_device->minor);
	kfree(hmm_device);
}

/**
 * hmm_device_new() - a device to hang memory onto
 * @drvdata: what dev_get_drvdata() shall return
 *
 * Return: the device, to be put with hmm_device_put(); -EBUSY when there are 256;
 * or -ENOMEM
 */
struct hmm_device *hmm_device_new(void *drvdata)
{
	struct hmm_device *hmm_device;
	int minor, ret;

	hmm_device = kzalloc_obj(*hmm_device, GFP_KERNEL);
	if (!hmm_device)
		return ERR_PTR(-ENOMEM);
	minor = ida_alloc_max(&hmm_device_minors, 255, GFP_KERNEL);
	if (minor < 0) {
		kfree(hmm_device);
		return ERR_PTR(minor == -ENOSPC ? -EBUSY : minor);
	}
	hmm_device->minor = minor;
	device_initialize(&hmm_device->device);
	hmm_device->device.release = hmm_device_release;
	dev_set_drvdata(&hmm_device->device, drvdata);
	ret = dev_set_name(&hmm_device->device, "hmm_device%d", minor);
	if (ret) {
		put_device(&hmm_device->device);
		return ERR_PTR(ret);
	}
	return hmm_device;
}

/**
 * hmm_device_put() - drop it
 * @hmm_device: what hmm_device_new() returned
 */
void hmm_device_put(struct hmm_device *hmm_device)
{
	put_device(&hmm_device->device);
}

/**
 * migrate_vma() - migrate a part of a mapping
 * @ops: what the driver does meanwhile
 * @vma: the mapping, mmap_lock held
 * @start: first address
 * @end: address behind the last
 * @src: room for an entry per page
 * @dst: the same
 * @private: for @ops
 *
 * Return: 0, also when nothing moved; -EINVAL
 */
int migrate_vma(const struct migrate_vma_ops *ops, struct vm_area_struct *vma,
		unsigned long start, unsigned long end, unsigned long *src,
		unsigned long *dst, void *private)
{
	struct migrate_vma args = {
		.vma = vma,
		.start = start & PAGE_MASK,
		.end = end & PAGE_MASK,
		.src = src,
		.dst = dst,
		.pgmap_owner = &hmm_walk_owner,
		.flags = MIGRATE_VMA_SELECT_SYSTEM |
			 MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
	};
	int ret;

	if (!ops || !src || !dst)
		return -EINVAL;
	hh_set_fault_page(&args, hmm_touched());
	ret = migrate_vma_setup(&args);
	if (ret)
		return ret;
	if (args.cpages)
		ops->alloc_and_copy(vma, src, dst, args.start, args.end,
				    private);
	migrate_vma_pages(&args);
	if (args.cpages)
		ops->finalize_and_map(vma, src, dst, args.start, args.end,
				      private);
	migrate_vma_finalize(&args);
	return 0;
}

#endif
