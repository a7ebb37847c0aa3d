// SPDX-License-Identifier: GPL-2.0-only
/* Device memory of the binding `mirror`: hmm_devmem, and migrate_vma(). */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include "compat/hmm.h"

#ifdef HH_PRIVATE

#include <linux/ioport.h>
#include <linux/mm.h>
#include <linux/pfn.h>
#include <linux/slab.h>

#include "seed.h"

/**
 * struct hh_seed_memory - memory of a device
 * @hmm_device: what it hangs on
 * @devmem: its struct pages
 */
struct hh_seed_memory {
	struct hmm_device *hmm_device;
	struct hmm_devmem *devmem;
};

static struct hh_device *hh_devmem_device(struct hmm_devmem *devmem)
{
	return dev_get_drvdata(devmem->device);
}

static void hh_seed_free(struct hmm_devmem *devmem, struct page *page)
{
	hh_devmem_free(hh_devmem_device(devmem), page);
}

static int hh_seed_fault(struct hmm_devmem *devmem, struct vm_area_struct *vma,
			 unsigned long addr, const struct page *page,
			 unsigned int flags, pmd_t *pmdp)
{
	/* Of v4.20's time, when this was not a type of its own */
	return (__force int)hh_devmem_fault(hh_devmem_device(devmem), vma,
					    addr, (struct page *)page, 0);
}

static const struct hmm_devmem_ops hh_devmem_ops = {
	.free = hh_seed_free,
	.fault = hh_seed_fault,
};

/*
 * hmm_devmem_add_resource() is for memory that the CPU reaches as well, and says
 * so of any other.
 */
static bool hh_refuses(struct device *device)
{
	struct resource unreachable = {
		.name = "not public",
		.start = PAGE_SIZE,
		.end = 2 * PAGE_SIZE - 1,
	};
	struct hmm_devmem *devmem;

	devmem = hmm_devmem_add_resource(&hh_devmem_ops, device, &unreachable);
	if (IS_ERR(devmem))
		return PTR_ERR(devmem) == -EINVAL;
	hmm_devmem_remove(devmem);
	return false;
}

/* Whether HMM reserved addresses that are large enough, and numbered the pages. */
static bool hh_fits(const struct hmm_devmem *devmem, unsigned long size)
{
	const struct resource *resource = devmem->resource;

	return resource_size(resource) >= size &&
	       devmem->pfn_first == PHYS_PFN(resource->start) &&
	       devmem->pfn_last - devmem->pfn_first ==
		       PHYS_PFN(resource_size(resource));
}

/**
 * hh_seed_add_memory() - see struct hh_binding
 * @device: the device
 * @size: how many bytes
 */
int hh_seed_add_memory(struct hh_device *device, unsigned long size)
{
	struct hh_devmem *mine = &device->devmem;
	struct hh_seed_memory *memory;
	int ret;

	memory = kzalloc_obj(*memory, GFP_KERNEL);
	if (!memory)
		return -ENOMEM;
	memory->hmm_device = hmm_device_new(device);
	if (IS_ERR(memory->hmm_device)) {
		ret = PTR_ERR(memory->hmm_device);
		goto free;
	}
	ret = -EPROTO;
	if (!hh_refuses(&memory->hmm_device->device))
		goto put;
	memory->devmem = hmm_devmem_add(&hh_devmem_ops,
					&memory->hmm_device->device, size);
	if (IS_ERR(memory->devmem)) {
		ret = PTR_ERR(memory->devmem);
		goto put;
	}
	if (!hh_fits(memory->devmem, size)) {
		ret = -EPROTO;
		goto remove;
	}
	pr_info("%s: memory of hmm_device%u\n", device->name,
		memory->hmm_device->minor);
	mine->pgmap = &memory->devmem->pagemap;
	mine->private = memory;
	mine->first = memory->devmem->pfn_first;
	/* There may be more: v4.20 adds whole sections. */
	mine->npages = size >> PAGE_SHIFT;
	return 0;

remove:
	hmm_devmem_remove(memory->devmem);
put:
	hmm_device_put(memory->hmm_device);
free:
	kfree(memory);
	return ret;
}

/**
 * hh_seed_remove_memory() - see struct hh_binding
 * @device: the device
 */
void hh_seed_remove_memory(struct hh_device *device)
{
	struct hh_seed_memory *memory = device->devmem.private;

	hmm_devmem_remove(memory->devmem);
	hmm_device_put(memory->hmm_device);
	kfree(memory);
}

/**
 * hh_seed_use_page() - see struct hh_binding
 * @device: the device
 * @page: a free page of it
 * @order: 0, there are no large ones
 */
void hh_seed_use_page(struct hh_device *device, struct page *page,
		      unsigned int order)
{
	struct hh_seed_memory *memory = device->devmem.private;

	hmm_devmem_page_use(memory->devmem, page);
}

/**
 * hh_seed_target_page() - see struct hh_binding
 * @vma: where it will be mapped
 * @addr: the address there
 */
struct page *hh_seed_target_page(struct vm_area_struct *vma, unsigned long addr)
{
	return hmm_vma_alloc_locked_page(vma, addr);
}

/**
 * struct hh_seed_move - a migration under way
 * @device: whose
 * @move: what
 */
struct hh_seed_move {
	struct hh_device *device;
	struct hh_migration *move;
};

static void hh_alloc_and_copy(struct vm_area_struct *vma,
			      const unsigned long *src, unsigned long *dst,
			      unsigned long start, unsigned long end,
			      void *private)
{
	struct hh_seed_move *mine = private;

	memset(dst, 0, ((end - start) >> PAGE_SHIFT) * sizeof(*dst));
	hh_gate(HMM_HARNESS_GATE_MIGRATE_SETUP, mine->device);
	hh_migration_copy(mine->device, mine->move);
	hh_gate(HMM_HARNESS_GATE_MIGRATE_COPIED, mine->device);
}

static void hh_finalize_and_map(struct vm_area_struct *vma,
				const unsigned long *src,
				const unsigned long *dst, unsigned long start,
				unsigned long end, void *private)
{
	struct hh_seed_move *mine = private;

	hh_migration_settle(mine->device, mine->move);
	hh_gate(HMM_HARNESS_GATE_MIGRATE_PAGES, mine->device);
}

static const struct migrate_vma_ops hh_migrate_ops = {
	.alloc_and_copy = hh_alloc_and_copy,
	.finalize_and_map = hh_finalize_and_map,
};

/**
 * hh_seed_migrate() - see struct hh_binding
 * @device: the device
 * @move: the migration
 */
int hh_seed_migrate(struct hh_device *device, struct hh_migration *move)
{
	struct hh_seed_move mine = { .device = device, .move = move };
	int ret;

	hh_gate(HMM_HARNESS_GATE_MIGRATE_BEGIN, device);
	ret = migrate_vma(&hh_migrate_ops, move->vma, move->start,
			  move->start + (move->npages << PAGE_SHIFT),
			  move->src, move->dst, &mine);
	hh_gate(HMM_HARNESS_GATE_MIGRATE_END, device);
	return ret;
}

#endif /* HH_PRIVATE */
