// SPDX-License-Identifier: GPL-2.0-only
/*
 * Watches: notifiers besides the one of the mirror, over parts of its memory
 * that may overlap. They keep no page table; they note of which pages they were
 * told. Here are those that the kernel keeps in its interval tree; see plain.c
 * for the others.
 */
#include "compat.h"

#ifdef HH_INTERVAL

#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "interval.h"

/* Lengths that no notifier may have */
#define HH_WATCH_NOTHING (HMM_HARNESS_WATCH_EMPTY | HMM_HARNESS_WATCH_ENDLESS)

static struct hh_watch *hh_of_notifier(struct mmu_interval_notifier *notifier)
{
	return container_of(notifier, struct hh_watch, notifier);
}

/**
 * hh_watch_hear() - note that a watch is told of addresses
 * @watch: the watch; its lock is held
 * @start: the first one
 * @stop: the first one behind them
 *
 * Return: whether they concern its range
 */
bool hh_watch_hear(struct hh_watch *watch, unsigned long start,
		   unsigned long stop)
{
	unsigned long from = start >> PAGE_SHIFT;
	/* What ends in the middle of a page, or at the end of all, has it. */
	unsigned long to = ((stop - 1) >> PAGE_SHIFT) + 1;
	unsigned long end = watch->first + watch->npages;

	if (from >= end || to <= watch->first)
		return false;
	from = max(from, watch->first);
	to = min(to, end);
	bitmap_set(watch->heard, from - watch->first, to - from);
	return true;
}

/* Never sleeps, so it never has to refuse. */
static bool hh_watch_told(struct mmu_interval_notifier *notifier,
			  const struct mmu_notifier_range *range,
			  unsigned long sequence)
{
	struct hh_watch *watch = hh_of_notifier(notifier);

	spin_lock(&watch->lock);
	if (!hh_wrong(HH_WATCH_SKIP_SEQUENCE))
		mmu_interval_set_seq(notifier, sequence);
	watch->calls++;
	if (!hh_watch_hear(watch, range->start, range->end))
		watch->strays++;
	spin_unlock(&watch->lock);
	/* On purpose: it waits until this very callback has returned. */
	if (hh_wrong(HH_WATCH_ENDS_ITSELF) &&
	    mmu_notifier_range_blockable(range))
		mmu_interval_notifier_remove(notifier);
	return true;
}

static const struct mmu_interval_notifier_ops hh_watch_ops = {
	.invalidate = hh_watch_told,
};

#ifdef HAVE_NOTIFIER_TWO_PASS
static bool hh_watch_start(struct mmu_interval_notifier *notifier,
			   const struct mmu_notifier_range *range,
			   unsigned long sequence,
			   struct mmu_interval_notifier_finish **finish)
{
	struct hh_watch *watch = hh_of_notifier(notifier);

	hh_watch_told(notifier, range, sequence);
	if (!test_and_set_bit(0, &watch->finishing))
		*finish = &watch->finish;
	return true;
}

static void hh_watch_finish(struct mmu_interval_notifier_finish *finish)
{
	struct hh_watch *watch = container_of(finish, struct hh_watch, finish);

	spin_lock(&watch->lock);
	watch->finished++;
	spin_unlock(&watch->lock);
	clear_bit(0, &watch->finishing);
}

static const struct mmu_interval_notifier_ops hh_watch_ops_two = {
	.invalidate_start = hh_watch_start,
	.invalidate_finish = hh_watch_finish,
};
#endif

static const struct mmu_interval_notifier_ops *hh_watch_ops_of(u32 flags)
{
#ifdef HAVE_NOTIFIER_TWO_PASS
	if (flags & HMM_HARNESS_WATCH_TWO_PASS)
		return &hh_watch_ops_two;
#endif
	return flags & HMM_HARNESS_WATCH_TWO_PASS ? NULL : &hh_watch_ops;
}

/*
 * Notes the notifier's number, at a moment when nothing is going on, and tells
 * what came of the one that was noted before. -EINTR when there is no such
 * moment until somebody kills the caller.
 */
static int hh_watch_note(struct hh_watch *watch,
			 struct hmm_harness_sequence *told)
{
	struct mmu_interval_notifier *notifier = &watch->notifier;
	bool quiet;

	do {
		if (fatal_signal_pending(current))
			return -EINTR;
		told->sequence = mmu_interval_read_begin(notifier);
		spin_lock(&watch->lock);
		quiet = !mmu_interval_read_retry(notifier, told->sequence);
		if (quiet) {
			told->retry = mmu_interval_read_retry(notifier,
							      watch->told);
			told->calls = watch->calls - watch->told_calls;
			watch->told = told->sequence;
			watch->told_calls = watch->calls;
		}
		spin_unlock(&watch->lock);
	} while (!quiet);
	return 0;
}

static struct hh_watch *hh_watch_new(const struct hmm_harness_watch *args)
{
	struct hh_watch *watch;

	watch = kzalloc(struct_size(watch, heard, BITS_TO_LONGS(args->npages)),
			GFP_KERNEL_ACCOUNT);
	if (!watch)
		return NULL;
	spin_lock_init(&watch->lock);
	watch->first = args->addr >> PAGE_SHIFT;
	watch->npages = args->npages;
	INIT_LIST_HEAD(&watch->sharing);
	init_waitqueue_head(&watch->ended);
	return watch;
}

/* What the kernel says to a notifier of no length, or of too great a one. */
static int hh_watch_nothing(struct mm_struct *mm,
			    const struct hmm_harness_watch *args)
{
	bool empty = args->flags & HMM_HARNESS_WATCH_EMPTY;
	struct hh_watch *watch = hh_watch_new(args);
	int ret;

	if (!watch)
		return -ENOMEM;
	ret = mmu_interval_notifier_insert(&watch->notifier, mm, args->addr,
					   empty ? 0 : ULONG_MAX & PAGE_MASK,
					   &hh_watch_ops);
	if (!ret)
		mmu_interval_notifier_remove(&watch->notifier);
	kfree(watch);
	return ret;
}

static struct hh_watch *hh_find_watch(struct hh_watches *watches, u64 addr,
				      u64 npages)
{
	unsigned int i;

	for (i = 0; i < watches->count; i++)
		if (watches->all[i]->first == addr >> PAGE_SHIFT &&
		    watches->all[i]->npages == npages)
			return watches->all[i];
	return NULL;
}

/**
 * hh_watch_begin() - HMM_HARNESS_WATCH
 * @watches: of the mirror; its lock is held
 * @mm: its memory, which has a user
 * @args: what the caller asked for
 *
 * Return: 0, -EEXIST, -ENOSPC, -EOPNOTSUPP, -EINVAL for two kinds at once,
 * -EINTR, -EBUSY, -ENOMEM, or those of the kernel to a notifier of no length
 */
int hh_watch_begin(struct hh_watches *watches, struct mm_struct *mm,
		   const struct hmm_harness_watch *args)
{
	const struct mmu_interval_notifier_ops *ops;
	struct hmm_harness_sequence told;
	struct hh_watch *watch;
	int ret;

	if (hweight32(args->flags) > 1)
		return -EINVAL;
	ops = hh_watch_ops_of(args->flags);
	if (!ops)
		return -EOPNOTSUPP;
	if (args->flags & HH_WATCH_NOTHING)
		return hh_watch_nothing(mm, args);
	if (hh_find_watch(watches, args->addr, args->npages))
		return -EEXIST;
	if (watches->count == HMM_HARNESS_MAX_WATCHES)
		return -ENOSPC;
	watch = hh_watch_new(args);
	if (!watch)
		return -ENOMEM;
	if (args->flags & HH_WATCH_PLAIN)
		ret = hh_plain_begin(watch, mm, args->flags);
	else
		ret = mmu_interval_notifier_insert(&watch->notifier, mm,
						   args->addr,
						   args->npages << PAGE_SHIFT,
						   ops);
	if (ret) {
		kfree(watch);
		return ret;
	}
	watches->all[watches->count++] = watch;
	return watch->plain ? 0 : hh_watch_note(watch, &told);
}

/**
 * hh_watch_tell() - what a watch was told
 * @watches: of the mirror; its lock is held
 * @args: what the caller asked for
 * @heard: room for a bit for each page, those that were told of since it was
 *         last asked; or NULL
 *
 * Return: 0, -ENOENT
 */
int hh_watch_tell(struct hh_watches *watches, struct hmm_harness_watch *args,
		  unsigned long *heard)
{
	struct hh_watch *watch = hh_find_watch(watches, args->addr,
					       args->npages);
	u64 strays = 0;

	if (!watch)
		return -ENOENT;
	if (watch->plain && !hh_plain_settled(watch))
		strays = 1;
	spin_lock(&watch->lock);
	args->calls = watch->calls;
	args->finished = watch->finished;
	args->strays = watch->strays + strays;
	if (heard) {
		bitmap_copy(heard, watch->heard, watch->npages);
		bitmap_zero(watch->heard, watch->npages);
	}
	spin_unlock(&watch->lock);
	return 0;
}

/**
 * hh_watch_sequence() - HMM_HARNESS_SEQUENCE
 * @watches: of the mirror; its lock is held
 * @args: what the caller asked for
 *
 * Return: 0, -ENOENT, -EINTR
 */
int hh_watch_sequence(struct hh_watches *watches,
		      struct hmm_harness_sequence *args)
{
	struct hh_watch *watch = hh_find_watch(watches, args->addr,
					       args->npages);

	if (!watch || watch->plain)
		return -ENOENT;
	args->before = watch->told;
	args->hint = mmu_interval_check_retry(&watch->notifier, watch->told);
	return hh_watch_note(watch, args);
}

/**
 * hh_watch_end_all() - no callback runs after it returned
 * @watches: of the mirror; its lock is held
 */
void hh_watch_end_all(struct hh_watches *watches)
{
	while (watches->count) {
		struct hh_watch *watch = watches->all[--watches->count];

		if (watch->plain)
			hh_plain_end(watch);
		else
			mmu_interval_notifier_remove(&watch->notifier);
		kfree(watch);
	}
}

#endif /* HH_INTERVAL */
