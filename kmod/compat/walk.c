// SPDX-License-Identifier: GPL-2.0-only
/* Looks and faults by the kernel's own hmm_range_fault(). */
#include "../compat.h"

#ifndef HAVE_HMM_MIRROR

#include <linux/hmm.h>
#include <linux/sched/signal.h>

#include "walk.h"

char hmm_walk_owner;

static unsigned long hmm_walk_request(unsigned long entry)
{
	return (entry & HMM_WALK_VALID ? HMM_PFN_REQ_FAULT : 0) |
	       (entry & HMM_WALK_WRITE ? HMM_PFN_REQ_WRITE : 0);
}

static unsigned long hmm_walk_result(unsigned long hmm_pfn)
{
	if (hmm_pfn & HMM_PFN_ERROR)
		return HMM_WALK_ERROR;
	if (!(hmm_pfn & HMM_PFN_VALID))
		return 0;
	return HMM_WALK_VALID | (hmm_pfn & HMM_PFN_WRITE ? HMM_WALK_WRITE : 0) |
	       (hmm_pfn & ~HMM_PFN_FLAGS) << HMM_WALK_PFN_SHIFT;
}

/**
 * hmm_walk() - look at a range, and fault where entries ask for it
 * @notifier: of the process, whose mmap_lock is held for reading
 * @start: first address
 * @end: address behind the last
 * @entries: HMM_WALK_*, in and out
 *
 * Return: 0, -EINTR when the caller is being killed, -EBUSY when something
 * changed meanwhile, or others of hmm_range_fault(); the entries are of no use
 * then
 */
int hmm_walk(struct mmu_interval_notifier *notifier, unsigned long start,
	     unsigned long end, unsigned long *entries)
{
	unsigned long i, npages = (end - start) >> PAGE_SHIFT;
	struct hmm_range range = {
		.notifier = notifier,
		.start = start,
		.end = end,
		.hmm_pfns = entries,
		.pfn_flags_mask = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
		.dev_private_owner = &hmm_walk_owner,
	};
	int ret;

	if (fatal_signal_pending(current))
		return -EINTR;
	for (i = 0; i < npages; i++)
		entries[i] = hmm_walk_request(entries[i]);
	range.notifier_seq = mmu_interval_read_begin(notifier);
	ret = hmm_range_fault(&range);
	for (i = 0; i < npages && !ret; i++)
		entries[i] = hmm_walk_result(entries[i]);
	return ret;
}

#endif /* !HAVE_HMM_MIRROR */
