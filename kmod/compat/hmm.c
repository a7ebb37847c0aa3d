// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mirrors and ranges of v4.20 over an mmu_interval_notifier that covers all of a
 * process. See hmm.h.
 */
#include "hmm.h"

#ifndef HAVE_HMM_MIRROR

#include <linux/hugetlb.h>
#include <linux/mmu_notifier.h>
#include <linux/rwsem.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "walk.h"

/**
 * struct hmm - a process with mirrors
 * @mm: its memory
 * @notifier: covers all of it
 * @list: of all processes with mirrors
 * @users: mirrors that are registered, released ones too; under hmm_lock
 * @lock: protects @ranges
 * @ranges: looks that are under way
 * @mirrors_sem: protects @mirrors, held for reading while they are told
 * @mirrors: who is told of changes
 */
struct hmm {
	struct mm_struct *mm;
	struct mmu_interval_notifier notifier;
	struct list_head list;
	unsigned int users;
	spinlock_t lock; /* protects ranges */
	struct list_head ranges;
	struct rw_semaphore mirrors_sem; /* protects mirrors */
	struct list_head mirrors;
};

static LIST_HEAD(hmm_all);
/*
 * Protects hmm_all. Drivers end a look under a lock that invalidation takes, so
 * that nothing may be allocated while this is held.
 */
static DEFINE_SPINLOCK(hmm_lock);

static struct hmm *hmm_find(struct mm_struct *mm)
{
	struct hmm *hmm;

	lockdep_assert_held(&hmm_lock);
	list_for_each_entry(hmm, &hmm_all, list)
		if (hmm->mm == mm)
			return hmm;
	return NULL;
}

/* The process of a range, whose mirror keeps it there. */
static struct hmm *hmm_of(const struct hmm_range *range)
{
	struct hmm *hmm;

	spin_lock(&hmm_lock);
	hmm = hmm_find(range->vma->vm_mm);
	spin_unlock(&hmm_lock);
	return hmm;
}

static void hmm_release(struct hmm *hmm)
{
	struct hmm_mirror *mirror;

	down_write(&hmm->mirrors_sem);
	while (!list_empty(&hmm->mirrors)) {
		mirror = list_first_entry(&hmm->mirrors, struct hmm_mirror,
					  list);
		list_del_init(&mirror->list);
		if (!mirror->ops->release)
			continue;
		up_write(&hmm->mirrors_sem);
		mirror->ops->release(mirror);
		down_write(&hmm->mirrors_sem);
	}
	up_write(&hmm->mirrors_sem);
}

static bool hmm_invalidate(struct mmu_interval_notifier *notifier,
			   const struct mmu_notifier_range *change,
			   unsigned long sequence)
{
	struct hmm *hmm = container_of(notifier, struct hmm, notifier);
	struct hmm_update update = {
		.start = change->start,
		.end = change->end,
		.event = HMM_UPDATE_INVALIDATE,
		.blockable = mmu_notifier_range_blockable(change),
	};
	struct hmm_mirror *mirror;
	struct hmm_range *range;
	bool told = true;

	spin_lock(&hmm->lock);
	mmu_interval_set_seq(notifier, sequence);
	list_for_each_entry(range, &hmm->ranges, list)
		if (range->start < update.end && update.start < range->end)
			range->valid = false;
	spin_unlock(&hmm->lock);

	if (change->event == MMU_NOTIFY_RELEASE) {
		hmm_release(hmm);
		return true;
	}

	if (update.blockable)
		down_read(&hmm->mirrors_sem);
	else if (!down_read_trylock(&hmm->mirrors_sem))
		return false;
	list_for_each_entry(mirror, &hmm->mirrors, list) {
		if (mirror->ops->sync_cpu_device_pagetables(mirror, &update) ==
			    -EAGAIN && !update.blockable) {
			told = false;
			break;
		}
	}
	up_read(&hmm->mirrors_sem);
	return told;
}

static const struct mmu_interval_notifier_ops hmm_notifier_ops = {
	.invalidate = hmm_invalidate,
};

static struct hmm *hmm_create(struct mm_struct *mm)
{
	struct hmm *hmm;
	int ret;

	hmm = kzalloc_obj(*hmm, GFP_KERNEL);
	if (!hmm)
		return ERR_PTR(-ENOMEM);
	hmm->mm = mm;
	spin_lock_init(&hmm->lock);
	INIT_LIST_HEAD(&hmm->ranges);
	init_rwsem(&hmm->mirrors_sem);
	INIT_LIST_HEAD(&hmm->mirrors);
	ret = mmu_interval_notifier_insert_locked(&hmm->notifier, mm, 0,
						  ULONG_MAX & PAGE_MASK,
						  &hmm_notifier_ops);
	if (ret) {
		kfree(hmm);
		return ERR_PTR(ret);
	}
	hmm->users = 1;
	spin_lock(&hmm_lock);
	list_add(&hmm->list, &hmm_all);
	spin_unlock(&hmm_lock);
	return hmm;
}

/**
 * hmm_mirror_register() - begin to be told of changes
 * @mirror: who; its ops are set
 * @mm: of what, its mmap_lock held for writing
 *
 * Return: 0, -EINVAL, -EINTR, or -ENOMEM
 */
int hmm_mirror_register(struct hmm_mirror *mirror, struct mm_struct *mm)
{
	struct hmm *hmm;

	if (!mm || !mirror || !mirror->ops)
		return -EINVAL;

	/* Whoever makes one has mmap_lock, so that there is one at most. */
	spin_lock(&hmm_lock);
	hmm = hmm_find(mm);
	if (hmm)
		hmm->users++;
	spin_unlock(&hmm_lock);
	if (!hmm)
		hmm = hmm_create(mm);
	if (IS_ERR(hmm))
		return PTR_ERR(hmm);

	mirror->hmm = hmm;
	down_write(&hmm->mirrors_sem);
	list_add(&mirror->list, &hmm->mirrors);
	up_write(&hmm->mirrors_sem);
	return 0;
}

/**
 * hmm_mirror_unregister() - stop being told
 * @mirror: who; no callback runs after this returned
 */
void hmm_mirror_unregister(struct hmm_mirror *mirror)
{
	struct hmm *hmm = mirror->hmm;
	bool last;

	if (!hmm)
		return;

	down_write(&hmm->mirrors_sem);
	list_del_init(&mirror->list);
	up_write(&hmm->mirrors_sem);
	mirror->hmm = NULL;

	spin_lock(&hmm_lock);
	last = !--hmm->users;
	if (last)
		list_del(&hmm->list);
	spin_unlock(&hmm_lock);
	if (!last)
		return;

	mmu_interval_notifier_remove(&hmm->notifier);
	kfree(hmm);
}

static void hmm_fill(struct hmm_range *range, enum hmm_pfn_value_e value)
{
	unsigned long i, npages = (range->end - range->start) >> PAGE_SHIFT;

	for (i = 0; i < npages; i++)
		range->pfns[i] = range->values[value];
}

/* Whether a page may be looked at; what all of them are is filled in if not. */
static int hmm_check(struct hmm_range *range)
{
	struct vm_area_struct *vma = range->vma;

	if (range->start < vma->vm_start || range->start >= vma->vm_end)
		return -EINVAL;
	if (range->end < vma->vm_start || range->end > vma->vm_end)
		return -EINVAL;
	if (is_vm_hugetlb_page(vma) || (vma->vm_flags & VM_SPECIAL) ||
	    vma_is_dax(vma)) {
		hmm_fill(range, HMM_PFN_SPECIAL);
		return -EINVAL;
	}
	if (!(vma->vm_flags & VM_READ)) {
		hmm_fill(range, HMM_PFN_NONE);
		return -EPERM;
	}
	return 0;
}

static bool hmm_end(struct hmm *hmm, struct hmm_range *range)
{
	bool valid;

	spin_lock(&hmm->lock);
	valid = range->valid;
	list_del_init(&range->list);
	spin_unlock(&hmm->lock);
	return valid;
}

/*
 * Nothing is known of the range, which its driver finds out when it ends the look.
 * To try again here would keep mmap_lock for as long as anything changes anywhere.
 */
static void hmm_void(struct hmm *hmm, struct hmm_range *range)
{
	spin_lock(&hmm->lock);
	range->valid = false;
	spin_unlock(&hmm->lock);
}

/* From what the driver asks of a page to what hmm_walk() is asked. */
static unsigned long hmm_request(const struct hmm_range *range, u64 pfn)
{
	if (!(pfn & range->flags[HMM_PFN_VALID]))
		return 0;
	return HMM_WALK_VALID |
	       (pfn & range->flags[HMM_PFN_WRITE] ? HMM_WALK_WRITE : 0);
}

/* Whether hmm_walk() says that a page is memory of a device. */
static bool hmm_is_private(unsigned long entry)
{
	unsigned long pfn = entry >> HMM_WALK_PFN_SHIFT;

	return entry & HMM_WALK_VALID && pfn_valid(pfn) &&
	       is_device_private_page(pfn_to_page(pfn));
}

/* From what hmm_walk() says to the driver's form. */
static u64 hmm_entry(const struct hmm_range *range, unsigned long entry)
{
	unsigned long pfn = entry >> HMM_WALK_PFN_SHIFT;
	u64 mine;

	if (entry & HMM_WALK_ERROR)
		return range->values[HMM_PFN_ERROR];
	if (!(entry & HMM_WALK_VALID))
		return range->values[HMM_PFN_NONE];
	mine = hmm_pfn_from_pfn(range, pfn);
	if (entry & HMM_WALK_WRITE)
		mine |= range->flags[HMM_PFN_WRITE];
	if (hmm_is_private(entry))
		mine |= range->flags[HMM_PFN_DEVICE_PRIVATE];
	return mine;
}

/*
 * Device memory goes back only where that is asked for: hmm_range_fault() never
 * sends that of its owner back, so a CPU's fault has to.
 */
static int hmm_fault_device(struct hmm_range *range)
{
	const u64 wanted = range->flags[HMM_PFN_VALID] |
				range->flags[HMM_PFN_DEVICE_PRIVATE];
	unsigned long i, npages = (range->end - range->start) >> PAGE_SHIFT;
	unsigned int flags;
	int ret;

	for (i = 0; i < npages; i++) {
		if ((range->pfns[i] & wanted) != wanted)
			continue;
		flags = FAULT_FLAG_REMOTE;
		if (range->pfns[i] & range->flags[HMM_PFN_WRITE])
			flags |= FAULT_FLAG_WRITE;
		ret = fixup_user_fault(range->vma->vm_mm,
				       range->start + (i << PAGE_SHIFT), flags,
				       NULL);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * Whether device memory that was to go back has not: hmm_fault_device() succeeds
 * also where another CPU is just at it, or has a reference for a moment.
 */
static bool hmm_is_left(const struct hmm_range *range,
			const unsigned long *entries)
{
	const u64 wanted = range->flags[HMM_PFN_VALID] |
			   range->flags[HMM_PFN_DEVICE_PRIVATE];
	unsigned long i, npages = (range->end - range->start) >> PAGE_SHIFT;

	for (i = 0; i < npages; i++)
		if ((range->pfns[i] & wanted) == wanted &&
		    hmm_is_private(entries[i]))
			return true;
	return false;
}

static int hmm_look(struct hmm_range *range, bool fault)
{
	unsigned long i, npages = (range->end - range->start) >> PAGE_SHIFT;
	unsigned long *entries;
	struct hmm *hmm;
	int ret;

	ret = hmm_check(range);
	if (ret)
		return ret;
	hmm = hmm_of(range);
	if (!hmm)
		return -EINVAL;
	entries = kvmalloc_array(npages, sizeof(*entries), GFP_KERNEL);
	if (!entries)
		return -ENOMEM;

	if (fault)
		ret = hmm_fault_device(range);
	for (i = 0; i < npages; i++)
		entries[i] = fault ? hmm_request(range, range->pfns[i]) : 0;
	spin_lock(&hmm->lock);
	range->valid = true;
	list_add(&range->list, &hmm->ranges);
	spin_unlock(&hmm->lock);
	if (!ret)
		ret = hmm_walk(&hmm->notifier, range->start, range->end,
			       entries);
	if (!ret && fault && hmm_is_left(range, entries))
		ret = -EBUSY;
	for (i = 0; i < npages && !ret; i++)
		range->pfns[i] = hmm_entry(range, entries[i]);
	kvfree(entries);
	if (!ret)
		return 0;

	hmm_fill(range, HMM_PFN_NONE);
	if (ret == -EBUSY) {
		hmm_void(hmm, range);
		return 0;
	}
	hmm_end(hmm, range);
	return ret;
}

/**
 * hmm_vma_get_pfns() - look at the CPU's page table
 * @range: what to look at, and in what form; mmap_lock is held for reading
 *
 * Return: 0, and then hmm_vma_range_done() has to be called once; -EINVAL for a
 * range that is not in its mapping, or a mapping that is not for devices;
 * -EPERM for one that cannot be read; -ENOMEM; -EINTR
 */
int hmm_vma_get_pfns(struct hmm_range *range)
{
	return hmm_look(range, false);
}

/**
 * hmm_vma_fault() - make pages present, and look
 * @range: as for hmm_vma_get_pfns(); its entries say what is asked of each page
 * @block: whether to wait
 *
 * Return: as hmm_vma_get_pfns(), and -EFAULT, -EPERM
 */
int hmm_vma_fault(struct hmm_range *range, bool block)
{
	return hmm_look(range, true);
}

/**
 * hmm_vma_range_done() - end a look, under the lock that the callback takes
 * @range: the range
 *
 * Return: whether what was seen is still true
 */
bool hmm_vma_range_done(struct hmm_range *range)
{
	return hmm_end(hmm_of(range), range);
}

#endif /* !HAVE_HMM_MIRROR */
