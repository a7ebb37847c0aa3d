// SPDX-License-Identifier: GPL-2.0-only
/*
 * Watches that are told by a plain mmu_notifier, which hears of all addresses:
 * one of their own, one that all watches of a process have together, or one
 * that hears when the CPUs' TLBs are flushed, as IOMMUs that walk the CPU's page
 * table do.
 */
#include "compat.h"

#ifdef HH_INTERVAL

#include <linux/err.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/slab.h>

#include "interval.h"

/**
 * struct hh_shared - what all shared watches of a process are told by
 * @notifier: by mmu_notifier_get_locked()
 * @lock: protects all that follows; that of a watch is taken within
 * @watches: these
 * @under_way: invalidations that started and did not end
 * @ended: where those wait who want none to be under way
 */
struct hh_shared {
	struct mmu_notifier notifier;
	spinlock_t lock; /* protects all that follows */
	struct list_head watches;
	unsigned long under_way;
	wait_queue_head_t ended;
};

static struct hh_shared *hh_shared_of(struct mmu_notifier *plain)
{
	return container_of(plain, struct hh_shared, notifier);
}

static struct hh_watch *hh_watch_of(struct mmu_notifier *plain)
{
	return container_of(plain, struct hh_watch, own);
}

/* None of these sleeps, so none has to refuse. */
static void hh_plain_started(struct hh_watch *watch, unsigned long start,
			     unsigned long end)
{
	spin_lock(&watch->lock);
	if (hh_watch_hear(watch, start, end))
		watch->calls++;
	spin_unlock(&watch->lock);
}

static void hh_plain_ended(struct hh_watch *watch, unsigned long start,
			   unsigned long end)
{
	spin_lock(&watch->lock);
	if (hh_watch_hear(watch, start, end))
		watch->finished++;
	spin_unlock(&watch->lock);
	wake_up_all(&watch->ended);
}

/* The process ends: that concerns all its memory, and nothing comes after. */
static void hh_plain_released(struct hh_watch *watch)
{
	spin_lock(&watch->lock);
	hh_watch_hear(watch, 0, ULONG_MAX);
	spin_unlock(&watch->lock);
}

#ifdef HAVE_NOTIFIER_CHANGE_PTE
/* Only while the page is being invalidated, as KVM relies on. */
static void hh_plain_changed(struct hh_watch *watch, unsigned long addr)
{
	spin_lock(&watch->lock);
	if (hh_watch_hear(watch, addr, addr + PAGE_SIZE) &&
	    watch->calls == watch->finished)
		watch->strays++;
	spin_unlock(&watch->lock);
}

static void hh_own_change_pte(struct mmu_notifier *plain, struct mm_struct *mm,
			      unsigned long addr, pte_t pte)
{
	hh_plain_changed(hh_watch_of(plain), addr);
}
#endif

static int hh_own_start(struct mmu_notifier *plain,
			const struct mmu_notifier_range *range)
{
	hh_plain_started(hh_watch_of(plain), range->start, range->end);
	return 0;
}

static void hh_own_end(struct mmu_notifier *plain,
		       const struct mmu_notifier_range *range)
{
	hh_plain_ended(hh_watch_of(plain), range->start, range->end);
}

static void hh_own_release(struct mmu_notifier *plain, struct mm_struct *mm)
{
	hh_plain_released(hh_watch_of(plain));
}

static const struct mmu_notifier_ops hh_own_ops = {
	.release = hh_own_release,
#ifdef HAVE_NOTIFIER_CHANGE_PTE
	.change_pte = hh_own_change_pte,
#endif
	.invalidate_range_start = hh_own_start,
	.invalidate_range_end = hh_own_end,
};

static void hh_own_flush(struct mmu_notifier *plain, struct mm_struct *mm,
			 unsigned long start, unsigned long end)
{
	struct hh_watch *watch = hh_watch_of(plain);

	spin_lock(&watch->lock);
	if (hh_watch_hear(watch, start, end)) {
		watch->calls++;
		watch->finished++;
	}
	spin_unlock(&watch->lock);
}

static const struct mmu_notifier_ops hh_flush_ops = {
	.release = hh_own_release,
	.hh_flush_op = hh_own_flush,
};

static int hh_shared_start(struct mmu_notifier *plain,
			   const struct mmu_notifier_range *range)
{
	struct hh_shared *shared = hh_shared_of(plain);
	struct hh_watch *watch;

	spin_lock(&shared->lock);
	shared->under_way++;
	list_for_each_entry(watch, &shared->watches, sharing)
		hh_plain_started(watch, range->start, range->end);
	spin_unlock(&shared->lock);
	return 0;
}

static void hh_shared_end(struct mmu_notifier *plain,
			  const struct mmu_notifier_range *range)
{
	struct hh_shared *shared = hh_shared_of(plain);
	struct hh_watch *watch;

	spin_lock(&shared->lock);
	shared->under_way--;
	list_for_each_entry(watch, &shared->watches, sharing)
		hh_plain_ended(watch, range->start, range->end);
	spin_unlock(&shared->lock);
	wake_up_all(&shared->ended);
}

static void hh_shared_release(struct mmu_notifier *plain, struct mm_struct *mm)
{
	struct hh_shared *shared = hh_shared_of(plain);
	struct hh_watch *watch;

	spin_lock(&shared->lock);
	list_for_each_entry(watch, &shared->watches, sharing)
		hh_plain_released(watch);
	spin_unlock(&shared->lock);
}

static struct mmu_notifier *hh_shared_alloc(struct mm_struct *mm)
{
	struct hh_shared *shared = kzalloc_obj(*shared, GFP_KERNEL_ACCOUNT);

	if (!shared)
		return ERR_PTR(-ENOMEM);
	spin_lock_init(&shared->lock);
	INIT_LIST_HEAD(&shared->watches);
	init_waitqueue_head(&shared->ended);
	return &shared->notifier;
}

static void hh_shared_free(struct mmu_notifier *plain)
{
	kfree(hh_shared_of(plain));
}

static const struct mmu_notifier_ops hh_shared_ops = {
	.release = hh_shared_release,
	.invalidate_range_start = hh_shared_start,
	.invalidate_range_end = hh_shared_end,
	.alloc_notifier = hh_shared_alloc,
	.free_notifier = hh_shared_free,
};

/* Joins, unless it would hear the end of what it did not hear the start of. */
static bool hh_shared_join(struct hh_shared *shared, struct hh_watch *watch)
{
	bool quiet;

	spin_lock(&shared->lock);
	quiet = !shared->under_way;
	if (quiet)
		list_add(&watch->sharing, &shared->watches);
	spin_unlock(&shared->lock);
	return quiet;
}

/* What is under way with mmap_lock held for writing does not need it to end. */
static int hh_plain_share(struct hh_watch *watch, struct mm_struct *mm)
{
	struct mmu_notifier *plain, *again;
	struct hh_shared *shared;
	long left;

	plain = mmu_notifier_get_locked(&hh_shared_ops, mm);
	if (IS_ERR(plain))
		return PTR_ERR(plain);
	/* There is one for each process. */
	again = mmu_notifier_get_locked(&hh_shared_ops, mm);
	if (again != plain)
		watch->strays++;
	if (!IS_ERR(again))
		mmu_notifier_put(again);
	shared = hh_shared_of(plain);
	left = wait_event_killable_timeout(shared->ended,
					   hh_shared_join(shared, watch),
					   HH_PATIENCE);
	if (left > 0) {
		watch->plain = plain;
		return 0;
	}
	mmu_notifier_put(plain);
	return left ? -EINTR : -EBUSY;
}

/**
 * hh_plain_begin() - have a watch told
 * @watch: the watch
 * @mm: the memory, which has a user
 * @flags: of HMM_HARNESS_WATCH, one of HH_WATCH_PLAIN
 *
 * Return: 0, -EINTR, -ENOMEM, -EBUSY when invalidations did not end
 */
int hh_plain_begin(struct hh_watch *watch, struct mm_struct *mm, u32 flags)
{
	int ret;

	watch->own.ops = flags & HMM_HARNESS_WATCH_TLB ? &hh_flush_ops :
							 &hh_own_ops;
	/* mmu_notifier_register() waits for the lock as if never killed. */
	if (mmap_write_lock_killable(mm))
		return -EINTR;
	if (flags & HMM_HARNESS_WATCH_SHARED) {
		ret = hh_plain_share(watch, mm);
	} else {
		ret = __mmu_notifier_register(&watch->own, mm);
		if (!ret)
			watch->plain = &watch->own;
	}
	mmap_write_unlock(mm);
	return ret;
}

static bool hh_plain_is_settled(struct hh_watch *watch)
{
	bool settled;

	spin_lock(&watch->lock);
	settled = watch->calls == watch->finished;
	spin_unlock(&watch->lock);
	return settled;
}

/**
 * hh_plain_settled() - wait until a watch has heard the end of all that began
 * @watch: the watch
 *
 * Return: whether it has, or somebody kills the caller
 */
bool hh_plain_settled(struct hh_watch *watch)
{
	return wait_event_killable_timeout(watch->ended,
					   hh_plain_is_settled(watch),
					   HH_PATIENCE);
}

/**
 * hh_plain_end() - a watch is not told any more after it returned
 * @watch: the watch
 */
void hh_plain_end(struct hh_watch *watch)
{
	struct mmu_notifier *plain = watch->plain;

	if (plain == &watch->own) {
		mmu_notifier_unregister(plain, plain->mm);
		return;
	}
	spin_lock(&hh_shared_of(plain)->lock);
	list_del(&watch->sharing);
	spin_unlock(&hh_shared_of(plain)->lock);
	mmu_notifier_put(plain);
}

/**
 * hh_plain_exit() - wait for the last of what was put to be freed
 */
void hh_plain_exit(void)
{
	mmu_notifier_synchronize();
}

#endif /* HH_INTERVAL */
