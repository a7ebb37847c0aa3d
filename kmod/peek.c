// SPDX-License-Identifier: GPL-2.0-only
/*
 * Looks that wait for nobody: at the CPU's page table and at the device's, in
 * the middle of what others do, who may be stopped at gates with any lock.
 *
 * So neither the mirror's lock is taken, nor is an invalidation waited for that
 * is under way. Each page is as it was at some moment of the look.
 */
#include <linux/bitmap.h>
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "internal.h"

#if defined(HH_INTERVAL) && !defined(HAVE_HMM_MIRROR)
#include <linux/hmm.h>
#include "compat/walk.h"
#include "interval.h"
#define HH_PEEK_CPU 1
#endif

/**
 * struct hh_peek - a look at a chunk
 * @cpu: what the CPU's page table says, HH_CPU_*
 * @own: what of it is some device's alone
 * @holes: where nothing is mapped
 * @pages: what is told of each page, HMM_HARNESS_PAGE_*
 */
struct hh_peek {
	unsigned long cpu[HH_CHUNK];
	unsigned long own[HH_CHUNK];
	DECLARE_BITMAP(holes, HH_CHUNK);
	u64 pages[HH_CHUNK];
};

#ifdef HH_PEEK_CPU
/* Whether to look there may take waiting: hugetlb has locks of its own. */
static bool hh_has_hugetlb(struct mm_struct *mm, unsigned long start,
			   unsigned long end)
{
	struct vm_area_struct *vma = find_vma(mm, start);

	for (; vma && vma->vm_start < end; vma = find_vma(mm, vma->vm_end))
		if (is_vm_hugetlb_page(vma))
			return true;
	return false;
}

/* Looks, with mmap_lock held. */
static int hh_peek_locked(struct hh_mirror *mirror, struct hh_peek *peek,
			  unsigned long start, unsigned long npages)
{
	/*
	 * That of nobody: hmm_range_fault() takes from it whose memory it is,
	 * and whether something was invalidated, which does not matter here.
	 */
	struct mmu_interval_notifier notifier = { .mm = mirror->mm };
	struct hmm_range range = {
		.notifier = &notifier,
		.start = start,
		.end = start + (npages << PAGE_SHIFT),
		.hmm_pfns = peek->cpu,
		.dev_private_owner = mirror->device->binding == &hh_interval ?
					     (void *)mirror->device :
					     (void *)&hmm_walk_owner,
	};
	unsigned long i;
	int ret;

	if (hh_has_hugetlb(mirror->mm, range.start, range.end))
		return -EOPNOTSUPP;
	memset(peek->cpu, 0, sizeof(peek->cpu));
	bitmap_zero(peek->holes, HH_CHUNK);
	ret = hmm_range_fault(&range);
	if (ret)
		return ret;
	hh_find_exclusive(mirror->mm, start, npages, peek->own);
	for (i = 0; i < npages; i++) {
		unsigned long addr = start + (i << PAGE_SHIFT);

		/* Two looks, and of the same page only if nothing came between */
		peek->cpu[i] = peek->own[i] ?: hh_from_hmm(peek->cpu[i], addr);
		if (peek->cpu[i] & HH_CPU_ERROR &&
		    !vma_lookup(mirror->mm, addr))
			__set_bit(i, peek->holes);
	}
	return 0;
}

static int hh_peek_at_cpu(struct hh_mirror *mirror, struct hh_peek *peek,
			  unsigned long start, unsigned long npages)
{
	int ret = -EAGAIN;

	if (!mmget_not_zero(mirror->mm))
		return -ESRCH;
	if (mmap_read_trylock(mirror->mm)) {
		ret = hh_peek_locked(mirror, peek, start, npages);
		mmap_read_unlock(mirror->mm);
	}
	mmput(mirror->mm);
	return ret;
}
#else
static int hh_peek_at_cpu(struct hh_mirror *mirror, struct hh_peek *peek,
			  unsigned long start, unsigned long npages)
{
	return -EOPNOTSUPP;
}
#endif

/*
 * A page that is told of may be somebody else's by now, but it has a struct page:
 * of all that can be removed only what is the device's own is found.
 */
static int hh_peek_cpu(struct hh_mirror *mirror, struct hh_peek *peek,
		       unsigned long start, unsigned long npages)
{
	struct rw_semaphore *there = &mirror->device->devmem.there;
	unsigned long i;
	int ret;

	if (!down_read_trylock(there))
		return -EAGAIN;
	ret = hh_peek_at_cpu(mirror, peek, start, npages);
	for (i = 0; i < npages && !ret; i++)
		peek->pages[i] = hh_describe(mirror->device, peek->cpu[i]);
	up_read(there);
	return ret;
}

/*
 * The lock of the table itself is enough: what is in it then is not freed, since
 * who takes an entry out frees it after that. Returns how often something had
 * been entered.
 */
static u64 hh_peek_at_table(struct hh_mirror *mirror, struct hh_peek *peek,
			    unsigned long first, unsigned long npages)
{
	struct hh_entry entry;
	unsigned long i;
	u64 commits;

	xa_lock(&mirror->table);
	commits = READ_ONCE(mirror->commits);
	for (i = 0; i < npages; i++) {
		peek->pages[i] = 0;
		if (!hh_table_load(mirror, first + i, &entry))
			continue;
		peek->pages[i] = entry.flags;
		/* munmap() takes the mapping away before it tells. */
		if (!test_bit(i, peek->holes) &&
		    hh_is_stale(&entry, peek->cpu[i]))
			peek->pages[i] |= HMM_HARNESS_PAGE_STALE;
	}
	xa_unlock(&mirror->table);
	return commits;
}

/* What contradicts the CPU's table is told if all of that is of one time. */
static int hh_peek_table(struct hh_mirror *mirror, struct hh_peek *peek,
			 unsigned long start, unsigned long npages)
{
	u64 invalidations = READ_ONCE(mirror->invalidations);
	u64 commits = READ_ONCE(mirror->commits);
	bool known = !hh_peek_at_cpu(mirror, peek, start, npages);
	unsigned long i;

	known &= hh_peek_at_table(mirror, peek, start >> PAGE_SHIFT, npages) ==
		 commits;
	if (!known || READ_ONCE(mirror->invalidations) != invalidations)
		for (i = 0; i < npages; i++)
			peek->pages[i] &= ~(u64)HMM_HARNESS_PAGE_STALE;
	return 0;
}

static int hh_peek(struct hh_mirror *mirror, struct hmm_harness_range *args,
		   int (*look)(struct hh_mirror *mirror, struct hh_peek *peek,
			       unsigned long start, unsigned long npages))
{
	struct hh_peek *peek = kvzalloc(sizeof(*peek), GFP_KERNEL);
	u64 __user *to = u64_to_user_ptr(args->pages);
	unsigned long n;
	int ret = 0;

	if (!peek)
		return -ENOMEM;
	while (!ret && args->done < args->npages) {
		n = min_t(u64, args->npages - args->done, HH_CHUNK);
		ret = look(mirror, peek, args->addr + (args->done << PAGE_SHIFT),
			   n);
		if (!ret && to && copy_to_user(to + args->done, peek->pages,
					       n * sizeof(peek->pages[0])))
			ret = -EFAULT;
		if (!ret)
			args->done += n;
		if (fatal_signal_pending(current))
			ret = -EINTR;
	}
	kvfree(peek);
	return ret;
}

/**
 * hh_snapshot_now() - HMM_HARNESS_SNAPSHOT with HMM_HARNESS_NOWAIT
 * @mirror: whose memory
 * @args: what the caller asked for
 *
 * Return: 0, -EAGAIN when it would take waiting, -ESRCH when the process exits,
 * -EOPNOTSUPP for memory, or on a kernel, where it cannot be done, -ENOMEM,
 * -EFAULT, -EINTR
 */
int hh_snapshot_now(struct hh_mirror *mirror, struct hmm_harness_range *args)
{
	return hh_peek(mirror, args, hh_peek_cpu);
}

/**
 * hh_table_now() - HMM_HARNESS_TABLE with HMM_HARNESS_NOWAIT
 * @mirror: whose table
 * @args: what the caller asked for
 *
 * Return: 0, -ENOMEM, -EFAULT or -EINTR
 */
int hh_table_now(struct hh_mirror *mirror, struct hmm_harness_range *args)
{
	return hh_peek(mirror, args, hh_peek_table);
}
