// SPDX-License-Identifier: GPL-2.0-only
/*
 * Exclusive access in the binding `interval`. In the CPU's page table a special
 * entry stands for a page that a device has to itself. The kernel hands such a
 * page over locked. A CPU that touches it waits for the lock before it takes
 * the page back, but whoever unmaps it does not. So a page is entered into the
 * device's table only if nothing was invalidated there since it was asked for,
 * as after any look at the CPU's table.
 *
 * But asking invalidates by itself, and the sequence number of the notifier does
 * not tell that from what others do at the same time: what overlaps shares one
 * number. So each request is a claim, which the callback voids. It runs in the
 * context of whoever invalidates: what the claimant does leaves the claim alone.
 */
#include "compat.h"

#ifdef HH_EXCLUSIVE

#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "interval.h"

/* How often to ask again for a page that the kernel did not grant */
#define HH_ASK_AGAIN 3

/**
 * struct hh_claim - exclusive access that is being asked for
 * @link: in the claims of the mirror; its lock protects all that follows
 * @task: who asks
 * @start: first address
 * @end: address behind the last
 * @lost: somebody else invalidated a part of it
 */
struct hh_claim {
	struct list_head link;
	struct task_struct *task;
	unsigned long start;
	unsigned long end;
	bool lost;
};

/**
 * hh_claims_void() - void the claims that an invalidation concerns
 * @claims: of the mirror, its lock held
 * @change: what is invalidated, by the current task
 */
void hh_claims_void(struct list_head *claims, const struct hh_change *change)
{
	struct hh_claim *claim;

	list_for_each_entry(claim, claims, link)
		if (claim->task != current && claim->start < change->end &&
		    change->start < claim->end)
			claim->lost = true;
}

/* Begins a claim when nothing is being invalidated: 0, -EAGAIN or -EINTR. */
static int hh_claim_begin(struct hh_mirror *mirror,
			  struct mmu_interval_notifier *notifier,
			  struct list_head *claims, struct hh_claim *claim)
{
	unsigned long sequence = mmu_interval_read_begin(notifier);
	int ret = 0;

	if (mutex_lock_killable(&mirror->lock))
		return -EINTR;
	if (mmu_interval_read_retry(notifier, sequence))
		ret = -EAGAIN;
	else
		list_add(&claim->link, claims);
	mutex_unlock(&mirror->lock);
	return ret;
}

/* Leaves a page that was granted locked, on purpose. */
static bool hh_claim_keeps(struct hh_mirror *mirror, struct page *page)
{
	if (!hh_wrong(HH_KEEP_LOCKED) || mirror->nr_kept == HH_MAX_KEPT)
		return false;
	mirror->kept[mirror->nr_kept++] = page;
	return true;
}

/**
 * hh_claims_unlock() - let go of what stayed locked
 * @mirror: a mirror that is dead
 */
void hh_claims_unlock(struct hh_mirror *mirror)
{
	while (mirror->nr_kept) {
		struct page *page = mirror->kept[--mirror->nr_kept];

		unlock_page(page);
		put_page(page);
	}
}

/* Ends a claim and enters what came of it: 0, -EAGAIN, -ENXIO or -ENOMEM. */
static int hh_claim_end(struct hh_mirror *mirror, struct hh_claim *claim,
			struct page **granted, long count, u64 *pages)
{
	unsigned long index = claim->start >> PAGE_SHIFT;
	int ret = 0;
	long i;

	mutex_lock(&mirror->lock);
	list_del(&claim->link);
	for (i = 0; i < count; i++)
		if (granted[i] && is_device_coherent_page(granted[i]))
			mirror->holds_coherent = true;
	if (mirror->dead)
		ret = -ENXIO;
	else if (claim->lost)
		ret = -EAGAIN;
	for (i = 0; i < count && !ret; i++) {
		pages[i] = 0;
		if (!granted[i])
			continue;
		ret = hh_table_store_exclusive(mirror, index + i, granted[i],
					       &pages[i]);
		if (!ret && hh_claim_keeps(mirror, granted[i]))
			granted[i] = NULL;
	}
	mutex_unlock(&mirror->lock);
	return ret;
}

/*
 * Asks once for at most @npages. Returns how many were dealt with, -EAGAIN to
 * ask again, or the error of the first.
 */
static long hh_claim_once(struct hh_work *work,
			  struct mmu_interval_notifier *notifier,
			  struct list_head *claims, unsigned long start,
			  unsigned long npages, u64 *pages)
{
	struct hh_mirror *mirror = work->mirror;
	struct page **granted = (struct page **)work->src;
	struct hh_claim claim = { .task = current, .start = start };
	long count, i;
	int ret;

	BUILD_BUG_ON(sizeof(*granted) != sizeof(work->src[0]));
	/* What happens to others is no reason to ask again. */
	npages = min(npages, HH_EXCLUSIVE_PAGES);
	claim.end = start + (npages << PAGE_SHIFT);
	hh_work_gate(HMM_HARNESS_GATE_EXCLUSIVE_BEGIN, work);
	if (mmap_read_lock_killable(work->mm))
		return -EINTR;
	ret = hh_claim_begin(mirror, notifier, claims, &claim);
	if (ret) {
		mmap_read_unlock(work->mm);
		return ret;
	}
	hh_work_gate(HMM_HARNESS_GATE_EXCLUSIVE_CLAIMED, work);
	count = hh_make_exclusive(work->mm, start, npages, granted,
				  mirror->device);
	hh_work_gate(HMM_HARNESS_GATE_EXCLUSIVE_GRANTED, work);
	ret = hh_claim_end(mirror, &claim, granted, max(count, 0L), pages);
	hh_work_gate(HMM_HARNESS_GATE_EXCLUSIVE_ENTERED, work);
	/* From here on it can be taken back. */
	for (i = 0; i < count; i++) {
		if (!granted[i])
			continue;
		unlock_page(granted[i]);
		put_page(granted[i]);
	}
	mmap_read_unlock(work->mm);
	hh_work_gate(HMM_HARNESS_GATE_EXCLUSIVE_END, work);
	if (ret)
		return ret;
	return count ? count : -EAGAIN;
}

/* Asks until there is an answer: how many were dealt with, or an error. */
static long hh_claim_some(struct hh_work *work,
			  struct mmu_interval_notifier *notifier,
			  struct list_head *claims, unsigned long start,
			  unsigned long npages, u64 *pages)
{
	unsigned long deadline = jiffies + HH_PATIENCE;
	long count;

	for (;; work->retries++) {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (time_after(jiffies, deadline + work->parked))
			return -EBUSY;
		count = hh_claim_once(work, notifier, claims, start, npages,
				      pages);
		if (count != -EAGAIN && count != -EBUSY)
			return count;
		cond_resched();
	}
}

/* The CPU's entry for @addr, or NULL where there can be none. */
static pte_t *hh_find_entry(struct mm_struct *mm, unsigned long addr,
			    pmd_t *table)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;

	if (pgd_none(*pgd) || pgd_bad(*pgd))
		return NULL;
	p4d = p4d_offset(pgd, addr);
	if (p4d_none(*p4d) || p4d_bad(*p4d))
		return NULL;
	pud = pud_offset(p4d, addr);
	if (pud_none(*pud) || pud_bad(*pud))
		return NULL;
	*table = READ_ONCE(*pmd_offset(pud, addr));
	if (pmd_none(*table) || pmd_bad(*table))
		return NULL;
	return pte_offset_kernel(table, addr);
}

/**
 * hh_find_exclusive() - find the pages that devices have to themselves
 * @mm: the memory, mmap_lock held
 * @start: first address
 * @npages: how many
 * @found: (out) HH_CPU_EXCLUSIVE and the page's number, or 0
 *
 * hmm_range_fault() shows them as nothing, and so no driver can tell them from
 * nothing. Only a look at the entry can. Nothing is relied on but that tables
 * are not freed, which the locks are for, and that there is a mapping: munmap()
 * frees the tables of what was one with mmap_lock held for reading.
 */
void hh_find_exclusive(struct mm_struct *mm, unsigned long start,
		       unsigned long npages, unsigned long *found)
{
	struct vm_area_struct *vma = find_vma(mm, start);
	unsigned long i, addr = start;
	struct page *page;
	pmd_t table;
	pte_t *entry;

	for (i = 0; i < npages; i++, addr += PAGE_SIZE) {
		found[i] = 0;
		if (vma && addr >= vma->vm_end)
			vma = find_vma(mm, addr);
		if (!vma || addr < vma->vm_start)
			continue;
		rcu_read_lock();
		entry = hh_find_entry(mm, addr, &table);
		page = entry ? hh_exclusive_page(READ_ONCE(*entry)) : NULL;
		rcu_read_unlock();
		if (page)
			found[i] = HH_CPU_EXCLUSIVE |
				   page_to_pfn(page) << HH_CPU_PFN_SHIFT;
	}
}

/* The first address from @addr on of which there can be an entry, or @end. */
static unsigned long hh_next_entry(struct mm_struct *mm, unsigned long addr,
				   unsigned long end)
{
	pgd_t *pgd;
	p4d_t *p4d;
	pud_t *pud;
	pmd_t table;

	while (addr < end) {
		pgd = pgd_offset(mm, addr);
		if (pgd_none(*pgd) || pgd_bad(*pgd)) {
			addr = pgd_addr_end(addr, end);
			continue;
		}
		p4d = p4d_offset(pgd, addr);
		if (p4d_none(*p4d) || p4d_bad(*p4d)) {
			addr = p4d_addr_end(addr, end);
			continue;
		}
		pud = pud_offset(p4d, addr);
		if (pud_none(*pud) || pud_bad(*pud)) {
			addr = pud_addr_end(addr, end);
			continue;
		}
		table = READ_ONCE(*pmd_offset(pud, addr));
		if (!pmd_none(table) && !pmd_bad(table))
			break;
		addr = pmd_addr_end(addr, end);
	}
	return addr;
}

/**
 * hh_claims_return() - give back what devices have of coherent memory to
 *                      themselves
 * @mirror: a mirror that is dead; all devices of its process are meant
 *
 * Nothing of that migrates before a CPU touches it, not even when the memory of
 * its device has to go. So it must not be forgotten.
 */
void hh_claims_return(struct hh_mirror *mirror)
{
	struct mm_struct *mm = mirror->mm;
	struct vm_area_struct *vma;
	unsigned long addr = 0, pfn;

	if (!READ_ONCE(mirror->holds_coherent) || !mmget_not_zero(mm))
		return;
	mmap_read_lock(mm);
	while ((vma = find_vma(mm, addr))) {
		addr = max(addr, vma->vm_start);
		if (!vma->anon_vma)
			addr = vma->vm_end;
		while ((addr = hh_next_entry(mm, addr, vma->vm_end)) <
		       vma->vm_end) {
			hh_find_exclusive(mm, addr, 1, &pfn);
			pfn >>= HH_CPU_PFN_SHIFT;
			if (pfn && is_device_coherent_page(pfn_to_page(pfn)))
				handle_mm_fault(vma, addr, FAULT_FLAG_REMOTE,
						NULL);
			addr += PAGE_SIZE;
			cond_resched();
		}
	}
	mmap_read_unlock(mm);
	mmput(mm);
}

/**
 * hh_claim() - see hh_binding.exclude
 * @work: the operation
 * @notifier: of the mirror
 * @claims: of the mirror
 * @start: first address
 * @npages: how many
 * @done: (out) how many were done
 *
 * A page that the kernel does not grant, and says no more of, may be one that
 * somebody had locked at that moment. So it is asked for again, a little later.
 */
int hh_claim(struct hh_work *work, struct mmu_interval_notifier *notifier,
	     struct list_head *claims, unsigned long start,
	     unsigned long npages, unsigned long *done)
{
	unsigned long i, missing = npages;
	unsigned int round;
	long count = 0;

	for (*done = 0; *done < npages; *done += count) {
		count = hh_claim_some(work, notifier, claims,
				      start + (*done << PAGE_SHIFT),
				      npages - *done, work->pages + *done);
		if (count < 0)
			break;
	}

	for (round = 0; missing && round < HH_ASK_AGAIN; round++) {
		missing = 0;
		for (i = 0; i < *done; i++) {
			if (work->pages[i])
				continue;
			if (!missing++)
				usleep_range(500, 1000);
			if (hh_claim_some(work, notifier, claims,
					  start + (i << PAGE_SHIFT), 1,
					  work->pages + i) != -EINTR)
				continue;
			count = -EINTR;
			goto out;
		}
	}
out:
	/* Whoever unbinds gave back what was there. */
	if (READ_ONCE(work->mirror->dead))
		hh_claims_return(work->mirror);
	return min(count, 0L);
}

#endif /* HH_EXCLUSIVE */
