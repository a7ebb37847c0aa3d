// SPDX-License-Identifier: GPL-2.0-only
/*
 * The binding `interval`: today's API. An mmu_interval_notifier covers all
 * addresses of a process, hmm_range_fault() looks and faults.
 */
#include "compat.h"

#ifdef HH_INTERVAL

#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/hmm.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>

#include "interval.h"

/**
 * struct hh_interval_mirror - a mirror that listens
 * @mirror: what all mirrors are
 * @notifier: covers all addresses of the process
 * @watches: cover parts of these besides
 * @dmas: parts of these that are mapped for DMA
 * @claims: exclusive access that is being asked for; under the mirror's lock
 */
struct hh_interval_mirror {
	struct hh_mirror mirror;
	struct mmu_interval_notifier notifier;
	struct hh_watches watches;
#ifdef HAVE_HMM_DMA
	struct hh_dmas dmas;
#endif
	struct list_head claims;
};

/**
 * struct hh_interval_work - an operation with the sequence number of its look
 * @work: what all operations are
 * @sequence: mmu_interval_read_begin() before the look
 * @first: the same before a first part of it, on purpose
 */
struct hh_interval_work {
	struct hh_work work;
	unsigned long sequence;
	unsigned long first;
};

static struct hh_interval_mirror *hh_of_mirror(struct hh_mirror *mirror)
{
	return container_of(mirror, struct hh_interval_mirror, mirror);
}

static struct hh_interval_work *hh_of_work(struct hh_work *work)
{
	return container_of(work, struct hh_interval_work, work);
}

static enum hmm_harness_reason
hh_reason(const struct mmu_notifier_range *range)
{
	switch (range->event) {
	case MMU_NOTIFY_UNMAP:
		return HMM_HARNESS_REASON_UNMAP;
	case MMU_NOTIFY_CLEAR:
		return HMM_HARNESS_REASON_CLEAR;
	case MMU_NOTIFY_PROTECTION_VMA:
		return HMM_HARNESS_REASON_PROTECTION_VMA;
	case MMU_NOTIFY_PROTECTION_PAGE:
		return HMM_HARNESS_REASON_PROTECTION_PAGE;
	case MMU_NOTIFY_SOFT_DIRTY:
		return HMM_HARNESS_REASON_SOFT_DIRTY;
	case MMU_NOTIFY_RELEASE:
		return HMM_HARNESS_REASON_RELEASE;
	case MMU_NOTIFY_MIGRATE:
		return HMM_HARNESS_REASON_MIGRATE;
#ifdef HAVE_NOTIFIER_EXCLUSIVE
	case MMU_NOTIFY_EXCLUSIVE:
		return HMM_HARNESS_REASON_EXCLUSIVE;
#endif
	default:
		return HMM_HARNESS_REASON_UNKNOWN;
	}
}

/* The kernel says who of these two reasons only, and else leaves it open. */
static enum hmm_harness_owner hh_owner(const struct mmu_notifier_range *range,
				       struct hh_device *device)
{
	enum hmm_harness_reason reason = hh_reason(range);
	void *owner;

	if (reason != HMM_HARNESS_REASON_MIGRATE &&
	    reason != HMM_HARNESS_REASON_EXCLUSIVE)
		return HMM_HARNESS_OWNER_NONE;
	owner = hh_notifier_owner(range);
	if (!owner)
		return HMM_HARNESS_OWNER_NONE;
	return owner == device ? HMM_HARNESS_OWNER_OWN :
				 HMM_HARNESS_OWNER_OTHER;
}

static bool hh_invalidate(struct mmu_interval_notifier *notifier,
			  const struct mmu_notifier_range *range,
			  unsigned long sequence)
{
	struct hh_mirror *mirror = &container_of(notifier,
						 struct hh_interval_mirror,
						 notifier)->mirror;
	struct hh_change change = {
		.start = range->start,
		.end = range->end,
		.blockable = mmu_notifier_range_blockable(range),
		.own_migration = range->event == MMU_NOTIFY_MIGRATE &&
				 hh_notifier_owner(range) == mirror->device,
		.release = range->event == MMU_NOTIFY_RELEASE,
		.reason = hh_reason(range),
		.owner = hh_owner(range, mirror->device),
		.sequence = sequence,
	};

	hh_change_gate(HMM_HARNESS_GATE_INVALIDATE_BEGIN, mirror, &change);
	if (!hh_mirror_lock(mirror, &change))
		return false;
	hh_change_gate(HMM_HARNESS_GATE_INVALIDATE_LOCKED, mirror, &change);
	mmu_interval_set_seq(notifier, sequence);
	hh_change_gate(HMM_HARNESS_GATE_INVALIDATE_SEQUENCE, mirror, &change);
	hh_claims_void(&hh_of_mirror(mirror)->claims, &change);
	hh_table_invalidate(mirror, &change);
	hh_change_gate(HMM_HARNESS_GATE_INVALIDATE_REMOVED, mirror, &change);
	hh_event_change(mirror, &change, false);
	mutex_unlock(&mirror->lock);
	hh_change_gate(HMM_HARNESS_GATE_INVALIDATE_END, mirror, &change);
	return true;
}

static const struct mmu_interval_notifier_ops hh_notifier_ops = {
	.invalidate = hh_invalidate,
};

static int hh_interval_attach(struct hh_mirror *mirror)
{
	int ret;

	mutex_init(&hh_of_mirror(mirror)->watches.lock);
#ifdef HAVE_HMM_DMA
	mutex_init(&hh_of_mirror(mirror)->dmas.lock);
#endif
	INIT_LIST_HEAD(&hh_of_mirror(mirror)->claims);
	/* mmu_interval_notifier_insert() waits for the lock as if never killed. */
	if (mmap_write_lock_killable(mirror->mm))
		return -EINTR;
	ret = mmu_interval_notifier_insert_locked(&hh_of_mirror(mirror)->notifier,
						  mirror->mm, 0,
						  ULONG_MAX & PAGE_MASK,
						  &hh_notifier_ops);
	mmap_write_unlock(mirror->mm);
	return ret;
}

static void hh_interval_detach(struct hh_mirror *mirror)
{
	struct hh_interval_mirror *mine = hh_of_mirror(mirror);

	hh_claims_unlock(mirror);
	mutex_lock(&mine->watches.lock);
	hh_watch_end_all(&mine->watches);
	mutex_unlock(&mine->watches.lock);
#ifdef HAVE_HMM_DMA
	hh_dma_end_all(&mine->dmas);
#endif
	mmu_interval_notifier_remove(&mine->notifier);
	hh_claims_return(mirror);
}

static int hh_interval_watch(struct hh_mirror *mirror,
			     const struct hmm_harness_watch *args)
{
	struct hh_watches *watches = &hh_of_mirror(mirror)->watches;
	bool used = mmget_not_zero(mirror->mm);
	int ret = -ENXIO;

	/* On purpose: the kernel refuses what has no user by itself. */
	if (!used && !hh_wrong(HH_WATCH_NOBODY))
		return -ESRCH;
	if (mutex_lock_killable(&watches->lock)) {
		ret = -EINTR;
		goto put;
	}
	/* Else nobody would end it any more. */
	if (!READ_ONCE(mirror->dead))
		ret = hh_watch_begin(watches, mirror->mm, args);
	mutex_unlock(&watches->lock);
put:
	if (used)
		mmput(mirror->mm);
	return ret;
}

/* With no lock held: user memory may take as long as user space likes. */
static int hh_put_heard(u64 __user *to, const unsigned long *heard,
			unsigned long npages)
{
	unsigned long i;

	for (i = 0; i < npages; i++)
		if (put_user(test_bit(i, heard) ? HMM_HARNESS_PAGE_HEARD : 0ULL,
			     to + i))
			return -EFAULT;
	return 0;
}

static int hh_interval_watched(struct hh_mirror *mirror,
			       struct hmm_harness_watch *args)
{
	struct hh_watches *watches = &hh_of_mirror(mirror)->watches;
	unsigned long *heard = NULL;
	int ret = -EINTR;

	if (args->pages) {
		heard = bitmap_alloc(args->npages, GFP_KERNEL);
		if (!heard)
			return -ENOMEM;
	}
	if (mutex_lock_killable(&watches->lock))
		goto free;
	ret = hh_watch_tell(watches, args, heard);
	mutex_unlock(&watches->lock);
	if (!ret && heard)
		ret = hh_put_heard(u64_to_user_ptr(args->pages), heard,
				   args->npages);
free:
	bitmap_free(heard);
	return ret;
}

static int hh_interval_sequence(struct hh_mirror *mirror,
				struct hmm_harness_sequence *args)
{
	struct hh_watches *watches = &hh_of_mirror(mirror)->watches;
	int ret;

	if (mutex_lock_killable(&watches->lock))
		return -EINTR;
	ret = hh_watch_sequence(watches, args);
	mutex_unlock(&watches->lock);
	return ret;
}

#ifdef HAVE_HMM_DMA
static int hh_interval_dma(struct hh_mirror *mirror,
			   struct hmm_harness_dma *args)
{
	return hh_dma(&hh_of_mirror(mirror)->dmas, mirror, args);
}
#endif

#ifdef HH_EXCLUSIVE
static int hh_interval_exclude(struct hh_work *work, unsigned long start,
			       unsigned long npages, unsigned long *done)
{
	struct hh_interval_mirror *mine = hh_of_mirror(work->mirror);

	return hh_claim(work, &mine->notifier, &mine->claims, start, npages,
			done);
}
#endif

/**
 * hh_from_hmm() - from hmm_range_fault()'s form, which differs between kernels
 * @hmm_pfn: what it says of a page
 * @addr: the address of that page
 *
 * A huge page is as aligned in memory as it is where it is mapped. 7.3's
 * hmm_vma_handle_absent_pmd() numbers pages of device-private ones from the
 * start, wherever the look begins.
 *
 * Return: HH_CPU_*
 */
unsigned long hh_from_hmm(unsigned long hmm_pfn, unsigned long addr)
{
	unsigned long pfn = hmm_pfn & ~HMM_PFN_FLAGS;
	unsigned long cpu = 0;
	unsigned long inside;

	if (hmm_pfn & HMM_PFN_ERROR)
		return HH_CPU_ERROR;
	if (!(hmm_pfn & HMM_PFN_VALID))
		return 0;
	if (hmm_pfn & HMM_PFN_WRITE)
		cpu = HH_CPU_WRITE;
	cpu |= (unsigned long)hmm_pfn_to_map_order(hmm_pfn)
	       << HH_CPU_ORDER_SHIFT;
	inside = (1UL << hmm_pfn_to_map_order(hmm_pfn)) - 1;
	if ((pfn ^ addr >> PAGE_SHIFT) & inside) {
		cpu |= HH_CPU_SHIFTED;
		pfn = (pfn & ~inside) | (addr >> PAGE_SHIFT & inside);
	}
	return cpu | HH_CPU_VALID | pfn << HH_CPU_PFN_SHIFT;
}

static unsigned long hh_hmm_flags(u32 ask)
{
	return (ask & HMM_HARNESS_ASK_FAULT ? HMM_PFN_REQ_FAULT : 0) |
	       (ask & HMM_HARNESS_ASK_WRITE ? HMM_PFN_REQ_WRITE : 0);
}

static void hh_put_request(struct hmm_range *range, unsigned long npages,
			   const struct hh_request *request)
{
	struct hmm_harness_request *args = request->args;
	unsigned long i;

	range->default_flags = hh_hmm_flags(args->default_flags);
	range->pfn_flags_mask = hh_hmm_flags(args->mask);
	range->dev_private_owner = request->owner;
	for (i = 0; request->asked && i < npages; i++)
		range->hmm_pfns[i] = hh_hmm_flags(request->asked[i]);

	args->sequence = range->notifier_seq;
	if (args->flags & HMM_HARNESS_REQUEST_STALE)
		range->notifier_seq -= 2; /* the one before */
	if (args->flags & HMM_HARNESS_REQUEST_EMPTY)
		range->end = range->start;
	args->raw_valid = HMM_PFN_VALID;
	args->raw_write = HMM_PFN_WRITE;
	args->raw_error = HMM_PFN_ERROR;
	args->raw_order = 0x1fUL << HMM_PFN_ORDER_SHIFT;
	args->raw_pfn = ~HMM_PFN_FLAGS;
}

#ifdef HAVE_RANGE_UNLOCKED
static bool hh_unlocked(const struct hh_pass *pass)
{
	return pass->unlocked ||
	       (pass->request && pass->request->args->flags &
					 HMM_HARNESS_REQUEST_UNLOCKED);
}
#endif

static int hh_range_fault(struct hh_work *work, struct hmm_range *range,
			  const struct hh_pass *pass)
{
	int ret;

#ifdef HAVE_RANGE_UNLOCKED
	if (hh_unlocked(pass)) {
		ret = hmm_range_fault_unlocked_timeout(range, HH_PATIENCE);
		hh_of_work(work)->sequence = range->notifier_seq;
		return ret;
	}
#endif
	if (mmap_read_lock_killable(work->mm))
		return -EINTR;
	hh_work_gate(HMM_HARNESS_GATE_WALK_LOCKED, work);
	ret = hmm_range_fault(range);
	if (!ret && pass->exclusive)
		hh_find_exclusive(work->mm, range->start,
				  (range->end - range->start) >> PAGE_SHIFT,
				  work->dst);
	mmap_read_unlock(work->mm);
	return ret;
}

/* Asks for what nobody wants, as what is not initialised does, on purpose. */
static void hh_ask_garbage(struct hmm_range *range, unsigned long npages)
{
	unsigned long i;

	range->pfn_flags_mask = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE;
	for (i = 1; i < npages; i += 2)
		range->hmm_pfns[i] = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE;
}

static int hh_look_once(struct hh_work *work, struct hmm_range *range,
			const struct hh_pass *pass)
{
	int ret = hh_range_fault(work, range, pass);

	hh_of_work(work)->first = hh_of_work(work)->sequence;
	return ret;
}

/*
 * Looks at all but the last page, and then begins anew for that one, on purpose:
 * the sequence number that is checked in the end tells nothing of the others.
 */
static int hh_look_twice(struct hh_work *work, struct hmm_range *range,
			 const struct hh_pass *pass)
{
	const unsigned long end = range->end;
	int ret;

	range->end -= PAGE_SIZE;
	ret = hh_look_once(work, range, pass);
	if (ret)
		return ret;
	usleep_range(500, 1000);
	range->hmm_pfns += (range->end - range->start) >> PAGE_SHIFT;
	range->start = range->end;
	range->end = end;
	range->notifier_seq = mmu_interval_read_begin(range->notifier);
	hh_of_work(work)->sequence = range->notifier_seq;
	return hh_range_fault(work, range, pass);
}

static int hh_interval_look(struct hh_work *work, unsigned long start,
			    unsigned long npages, const struct hh_pass *pass)
{
	struct hh_mirror *mirror = work->mirror;
	const struct hh_request *request = pass->request;
	bool anonymous = !pass->steady && hh_wrong(HH_OWNER_UNSET);
	struct hmm_range range = {
		.notifier = &hh_of_mirror(mirror)->notifier,
		.start = start,
		.end = start + (npages << PAGE_SHIFT),
		.hmm_pfns = work->cpu,
		.default_flags = (pass->fault ? HMM_PFN_REQ_FAULT : 0) |
				 (pass->write ? HMM_PFN_REQ_WRITE : 0),
		.dev_private_owner = anonymous ? NULL : mirror->device,
	};
	unsigned long i;
	int ret;

	range.notifier_seq = mmu_interval_read_begin(range.notifier);
	hh_of_work(work)->sequence = range.notifier_seq;
	hh_work_gate(HMM_HARNESS_GATE_WALK_SEQUENCE, work);
	memset(work->cpu, 0, npages * sizeof(work->cpu[0]));
	if (request)
		hh_put_request(&range, npages, request);
	else if (!pass->steady && hh_wrong(HH_ASK_GARBAGE))
		hh_ask_garbage(&range, npages);
	if (npages > 1 && !pass->steady && !request &&
	    hh_wrong(HH_LAST_SEQUENCE))
		ret = hh_look_twice(work, &range, pass);
	else
		ret = hh_look_once(work, &range, pass);
	if (ret == -EBUSY && range.notifier_seq == hh_of_work(work)->sequence)
		return -EAGAIN;
	if (ret)
		return ret;

	if (request)
		memcpy(request->raw, work->cpu, npages * sizeof(work->cpu[0]));
	for (i = 0; i < npages; i++)
		work->cpu[i] = hh_from_hmm(work->cpu[i],
					   start + (i << PAGE_SHIFT)) |
			       (pass->exclusive ? work->dst[i] : 0);
	return 0;
}

static bool hh_interval_changed(struct hh_work *work)
{
	return mmu_interval_check_retry(&hh_of_mirror(work->mirror)->notifier,
					hh_of_work(work)->sequence);
}

static bool hh_interval_done(struct hh_work *work)
{
	struct mmu_interval_notifier *notifier =
		&hh_of_mirror(work->mirror)->notifier;

	work->outdated = mmu_interval_read_retry(notifier,
						 hh_of_work(work)->first);
	return mmu_interval_read_retry(notifier, hh_of_work(work)->sequence);
}

const struct hh_binding hh_interval = {
	.name = "interval",
	.requests = true,
	.node = "hmm_harness%u",
	.mirror_size = sizeof(struct hh_interval_mirror),
	.work_size = sizeof(struct hh_interval_work),
	.attach = hh_interval_attach,
	.detach = hh_interval_detach,
	.look = hh_interval_look,
	.watch = hh_interval_watch,
	.watched = hh_interval_watched,
	.sequence = hh_interval_sequence,
#ifdef HAVE_HMM_DMA
	.dma = hh_interval_dma,
#endif
#ifdef HH_EXCLUSIVE
	.exclude = hh_interval_exclude,
#endif
	.changed = hh_interval_changed,
	.done = hh_interval_done,
#ifdef HH_DEVMEM
	.add_memory = hh_interval_add_memory,
	.remove_memory = hh_interval_remove_memory,
	.use_page = hh_interval_use_page,
	.target_page = hh_interval_target_page,
	.migrate = hh_interval_migrate,
	.waits_for_pages = true,
	.faults_strangely = HH_FAULT_PAGE_HELD,
	.errs = true,
	.moves_whole = HH_WHOLE_ORDER > 0,
#endif
#if defined(HH_DEVMEM) && defined(HAVE_MIGRATE_DEVICE_RANGE)
	.evict_merged = hh_interval_evict_merged,
	.finds_numbers = true,
#endif
};

#endif /* HH_INTERVAL */
