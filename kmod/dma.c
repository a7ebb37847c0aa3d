// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory mapped for DMA, as drivers of RDMA do it (drivers/infiniband/core/
 * umem_odp.c): a struct hmm_dma_map, and an interval notifier that unmaps what
 * is invalidated.
 */
#include "compat.h"

#if defined(HH_INTERVAL) && defined(HAVE_HMM_DMA)

#include <linux/dma-direct.h>
#include <linux/hmm-dma.h>
#include <linux/hmm.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/pci-p2pdma.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "interval.h"

/**
 * struct hh_dma - memory that is mapped for DMA
 * @refs: one of the mirror, one of every operation under way
 * @device: whose DMA it is
 * @mm: the memory; the mirror has it grabbed, and whoever has a reference to
 *      this has one to the mirror
 * @notifier: covers its range
 * @first: number of its first page
 * @npages: how many
 * @lock: protects all that follows, and is what readers of the notifier hold
 * @map: of each page what HMM said and whether it is mapped
 * @commits: how often something was mapped
 * @owner: whose device-private memory was shown then
 * @dead: nothing may be mapped any more
 * @addresses: DMA address of each page that is mapped
 */
struct hh_dma {
	struct kref refs;
	struct hh_device *device;
	struct mm_struct *mm;
	struct mmu_interval_notifier notifier;
	unsigned long first;
	unsigned long npages;
	spinlock_t lock; /* protects all that follows */
	struct hmm_dma_map map;
	u64 commits;
	struct hh_device *owner;
	bool dead;
	dma_addr_t addresses[];
};

/**
 * struct hh_dma_look - what the CPU's page table has of a range that is mapped
 * @ask: HMM_PFN_REQ_* of every page
 * @owner: whose device-private memory is shown
 * @retries: how often it was started over
 * @pfns: what HMM says, with the flags that it is to keep; then what to tell
 */
struct hh_dma_look {
	unsigned long ask;
	struct hh_device *owner;
	u64 retries;
	unsigned long pfns[HMM_HARNESS_DMA_MAX_PAGES];
};

static struct device *hh_dma_device(struct hh_dma *dma)
{
	return dma->device->node;
}

static void hh_dma_free(struct kref *refs)
{
	struct hh_dma *dma = container_of(refs, struct hh_dma, refs);

	hmm_dma_map_free(hh_dma_device(dma), &dma->map);
	kvfree(dma);
}

/* Called with the lock held. */
static void hh_dma_unmap(struct hh_dma *dma, unsigned long from,
			 unsigned long to)
{
	unsigned long i;

	for (i = from; i < to; i++) {
		hmm_dma_unmap_pfn(hh_dma_device(dma), &dma->map, i);
		dma->map.pfn_list[i] = 0;
	}
}

/* Never sleeps, so it never has to refuse. */
static bool hh_dma_invalidate(struct mmu_interval_notifier *notifier,
			      const struct mmu_notifier_range *range,
			      unsigned long sequence)
{
	struct hh_dma *dma = container_of(notifier, struct hh_dma, notifier);
	unsigned long from = range->start >> PAGE_SHIFT;
	/* What ends in the middle of a page, or at the end of all, has it. */
	unsigned long to = ((range->end - 1) >> PAGE_SHIFT) + 1;
	unsigned long end = dma->first + dma->npages;
	bool release = range->event == MMU_NOTIFY_RELEASE;

	spin_lock(&dma->lock);
	mmu_interval_set_seq(notifier, sequence);
	if (from < end && to > dma->first &&
	    (release || !hh_wrong(HH_DMA_SKIP_UNMAP)))
		hh_dma_unmap(dma, max(from, dma->first) - dma->first,
			     min(to, end) - dma->first);
	spin_unlock(&dma->lock);
	return true;
}

static const struct mmu_interval_notifier_ops hh_dma_ops = {
	.invalidate = hh_dma_invalidate,
};

static struct hh_dma *hh_dma_find(struct hh_dmas *dmas,
				  const struct hmm_harness_dma *args)
{
	unsigned int i;

	for (i = 0; i < dmas->count; i++)
		if (dmas->all[i]->first == args->addr >> PAGE_SHIFT &&
		    dmas->all[i]->npages == args->npages)
			return dmas->all[i];
	return NULL;
}

static struct hh_dma *hh_dma_make(struct hh_mirror *mirror,
				  const struct hmm_harness_dma *args)
{
	struct hh_dma *dma;
	int ret;

	dma = kvzalloc(struct_size(dma, addresses, args->npages),
		       GFP_KERNEL_ACCOUNT);
	if (!dma)
		return ERR_PTR(-ENOMEM);
	kref_init(&dma->refs);
	spin_lock_init(&dma->lock);
	dma->device = mirror->device;
	dma->mm = mirror->mm;
	dma->first = args->addr >> PAGE_SHIFT;
	dma->npages = args->npages;
	ret = hmm_dma_map_alloc(hh_dma_device(dma), &dma->map, args->npages,
				PAGE_SIZE);
	if (ret)
		goto free;
	ret = mmu_interval_notifier_insert(&dma->notifier, dma->mm, args->addr,
					   args->npages << PAGE_SHIFT,
					   &hh_dma_ops);
	if (!ret)
		return dma;

	hmm_dma_map_free(hh_dma_device(dma), &dma->map);
free:
	kvfree(dma);
	return ERR_PTR(ret);
}

/*
 * The map of exactly this range, with a reference. It is made if there is none
 * and the memory, which has a user then, is given.
 */
static struct hh_dma *hh_dma_get(struct hh_dmas *dmas,
				 const struct hmm_harness_dma *args,
				 struct hh_mirror *mirror)
{
	struct hh_dma *dma;

	if (mutex_lock_killable(&dmas->lock))
		return ERR_PTR(-EINTR);
	dma = hh_dma_find(dmas, args);
	if (!dma && !mirror) {
		dma = ERR_PTR(-ENOENT);
	} else if (!dma && READ_ONCE(mirror->dead)) {
		dma = ERR_PTR(-ENXIO); /* nobody would end it any more */
	} else if (!dma && dmas->count == HMM_HARNESS_MAX_DMA_MAPS) {
		dma = ERR_PTR(-ENOSPC);
	} else if (!dma) {
		dma = hh_dma_make(mirror, args);
		if (!IS_ERR(dma))
			dmas->all[dmas->count++] = dma;
	}
	if (!IS_ERR(dma))
		kref_get(&dma->refs);
	mutex_unlock(&dmas->lock);
	return dma;
}

/* Unmaps all, and drops the mirror's reference. */
static void hh_dma_end(struct hh_dma *dma)
{
	spin_lock(&dma->lock);
	dma->dead = true;
	spin_unlock(&dma->lock);
	mmu_interval_notifier_remove(&dma->notifier);
	spin_lock(&dma->lock);
	hh_dma_unmap(dma, 0, dma->npages);
	spin_unlock(&dma->lock);
	kref_put(&dma->refs, hh_dma_free);
}

/**
 * hh_dma_end_all() - nothing is mapped any more after it returned
 * @dmas: of the mirror, which is dead
 */
void hh_dma_end_all(struct hh_dmas *dmas)
{
	mutex_lock(&dmas->lock);
	while (dmas->count)
		hh_dma_end(dmas->all[--dmas->count]);
	mutex_unlock(&dmas->lock);
}

static int hh_dma_unmap_all(struct hh_dmas *dmas,
			    const struct hmm_harness_dma *args)
{
	struct hh_dma *dma;
	unsigned int i;

	if (mutex_lock_killable(&dmas->lock))
		return -EINTR;
	dma = hh_dma_find(dmas, args);
	for (i = 0; dma && i < dmas->count; i++) {
		if (dmas->all[i] != dma)
			continue;
		dmas->all[i] = dmas->all[--dmas->count];
		hh_dma_end(dma);
		break;
	}
	mutex_unlock(&dmas->lock);
	return dma ? 0 : -ENOENT;
}

static u64 hh_dma_describe(struct hh_dma *dma, unsigned long i)
{
	unsigned long pfn = dma->map.pfn_list[i];

	if (!(pfn & HMM_PFN_DMA_MAPPED))
		return 0;
	return HMM_HARNESS_PAGE_DMA |
	       (hh_describe(dma->device,
			    hh_from_hmm(pfn, (dma->first + i) << PAGE_SHIFT)) &
		~(u64)HMM_HARNESS_PAGE_ORDER_MASK);
}

/*
 * Maps page @i, of which HMM says @pfn now, with the lock held. Returns what is
 * to be told of it, or 0 when it cannot be mapped.
 */
static u64 hh_dma_map_page(struct hh_dma *dma, unsigned long i,
			   unsigned long pfn, struct hmm_harness_dma *args)
{
	bool kept = dma->map.pfn_list[i] & HMM_PFN_DMA_MAPPED;
	struct pci_p2pdma_map_state p2pdma_state = {};
	struct device *device = hh_dma_device(dma);
	dma_addr_t address;
	bool stray;

	dma->map.pfn_list[i] = pfn;
	address = hmm_dma_map_pfn(device, &dma->map, i, &p2pdma_state);
	if (dma_mapping_error(device, address)) {
		hh_dma_unmap(dma, i, i + 1);
		return 0;
	}
	stray = kept && (!(pfn & HMM_PFN_DMA_MAPPED) ||
			 address != dma->addresses[i]);
	/* Behind an IOMMU nobody but the IOMMU can tell. */
	if (!dma_use_iova(&dma->map.state) &&
	    dma_to_phys(device, address) != hmm_pfn_to_phys(pfn))
		stray = true;
	dma->addresses[i] = address;
	args->mapped++;
	args->kept += kept;
	return hh_dma_describe(dma, i) | (stray ? HMM_HARNESS_PAGE_STALE : 0);
}

/* The lock is held, and @look still true. What is to be told replaces it. */
static int hh_dma_map(struct hh_dma *dma, struct hh_dma_look *look,
		      struct hmm_harness_dma *args)
{
	unsigned long i;

	dma->commits++;
	dma->owner = look->owner;
	for (i = 0; i < dma->npages; i++) {
		look->pfns[i] = hh_dma_map_page(dma, i, look->pfns[i], args);
		if (!look->pfns[i])
			return -EIO;
	}
	return 0;
}

/* Likewise. What is mapped must be what the CPU's page table has. */
static int hh_dma_show(struct hh_dma *dma, struct hh_dma_look *look,
		       struct hmm_harness_dma *args)
{
	unsigned long i, pfn, cpu;

	for (i = 0; i < dma->npages; i++) {
		pfn = dma->map.pfn_list[i];
		cpu = look->pfns[i];
		look->pfns[i] = hh_dma_describe(dma, i);
		if (!look->pfns[i])
			continue;
		args->mapped++;
		if (!(cpu & HMM_PFN_VALID) ||
		    (pfn & ~HMM_PFN_FLAGS) != (cpu & ~HMM_PFN_FLAGS) ||
		    (pfn & HMM_PFN_WRITE && !(cpu & HMM_PFN_WRITE)))
			look->pfns[i] |= HMM_HARNESS_PAGE_STALE;
	}
	return 0;
}

/*
 * Looks at the CPU's page table, or faults, as @look says, and acts on it with
 * the lock held, when what was seen is still true and the map as it was before.
 *
 * HMM gets a copy of the map's entries: those of the map itself change under the
 * lock only, which cannot be held meanwhile.
 */
static int hh_dma_walk(struct hh_dma *dma, struct hh_dma_look *look,
		       struct hmm_harness_dma *args)
{
	int (*act)(struct hh_dma *dma, struct hh_dma_look *look,
		   struct hmm_harness_dma *args) =
		look->ask ? hh_dma_map : hh_dma_show;
	unsigned long deadline = jiffies + HH_PATIENCE;
	struct hmm_range range = {
		.notifier = &dma->notifier,
		.start = dma->first << PAGE_SHIFT,
		.end = (dma->first + dma->npages) << PAGE_SHIFT,
		.hmm_pfns = look->pfns,
		.default_flags = look->ask,
	};
	u64 commits;
	int ret;

	for (;; look->retries++) {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (time_after(jiffies, deadline))
			return -EBUSY;

		range.notifier_seq = mmu_interval_read_begin(range.notifier);
		spin_lock(&dma->lock);
		memcpy(look->pfns, dma->map.pfn_list,
		       dma->npages * sizeof(look->pfns[0]));
		commits = dma->commits;
		range.dev_private_owner = look->ask ? look->owner : dma->owner;
		spin_unlock(&dma->lock);

		if (mmap_read_lock_killable(dma->mm))
			return -EINTR;
		ret = hmm_range_fault(&range);
		mmap_read_unlock(dma->mm);
		if (ret == -EBUSY)
			continue;
		if (ret)
			return ret;

		spin_lock(&dma->lock);
		ret = -EAGAIN;
		if (dma->dead)
			ret = -ENXIO;
		else if (!mmu_interval_read_retry(range.notifier,
						  range.notifier_seq) &&
			 dma->commits == commits)
			ret = act(dma, look, args);
		spin_unlock(&dma->lock);
		if (ret != -EAGAIN)
			return ret;
	}
}

static struct hh_device *hh_dma_owner(struct hh_device *device, u32 owner)
{
	if (owner == HMM_HARNESS_AS_OWN)
		return device;
	return owner == HMM_HARNESS_AS_OTHER ? hh_other_device(device) : NULL;
}

/* The memory has a user. */
static int hh_dma_run(struct hh_dmas *dmas, struct hh_mirror *mirror,
		      struct hmm_harness_dma *args)
{
	bool write = args->flags & HMM_HARNESS_DMA_MAP_WRITE;
	bool show = args->flags & HMM_HARNESS_DMA_SHOW;
	struct hh_dma_look *look;
	struct hh_dma *dma;
	int ret;

	BUILD_BUG_ON(sizeof(look->pfns[0]) != sizeof(u64));

	look = kvmalloc_obj(*look, GFP_KERNEL);
	if (!look)
		return -ENOMEM;
	look->retries = 0;
	look->ask = show ? 0 : HMM_PFN_REQ_FAULT |
			       (write ? HMM_PFN_REQ_WRITE : 0);
	look->owner = hh_dma_owner(mirror->device, args->owner);

	dma = hh_dma_get(dmas, args, show ? NULL : mirror);
	ret = PTR_ERR_OR_ZERO(dma);
	if (ret)
		goto free;
	ret = hh_dma_walk(dma, look, args);
	args->retries = look->retries;
	kref_put(&dma->refs, hh_dma_free);
	if (!ret && args->pages &&
	    copy_to_user(u64_to_user_ptr(args->pages), look->pfns,
			 args->npages * sizeof(u64)))
		ret = -EFAULT;
free:
	kvfree(look);
	return ret;
}

/**
 * hh_dma() - HMM_HARNESS_DMA
 * @dmas: what is mapped of the mirror's memory
 * @mirror: the mirror
 * @args: what the caller asked for
 *
 * Return: 0, -ENOENT, -ENOSPC, -ESRCH, -EINVAL, those of hmm_range_fault(),
 * -EIO, -EOPNOTSUPP when the device's DMA could not do without buffers between,
 * -EINTR, -EBUSY, -ENXIO, -ENOMEM, -EFAULT
 */
int hh_dma(struct hh_dmas *dmas, struct hh_mirror *mirror,
	   struct hmm_harness_dma *args)
{
	int ret;

	if (args->flags & HMM_HARNESS_DMA_UNMAP)
		return hh_dma_unmap_all(dmas, args);
	if (!mmget_not_zero(mirror->mm))
		return -ESRCH;
	ret = hh_dma_run(dmas, mirror, args);
	mmput(mirror->mm);
	return ret;
}

/**
 * hh_dma_init() - let a device do DMA
 * @device: the device, whose node is there
 *
 * Return: 0 or an error
 */
int hh_dma_init(struct hh_device *device)
{
	return dma_coerce_mask_and_coherent(device->node, DMA_BIT_MASK(64));
}

#endif
