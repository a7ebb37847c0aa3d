/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of the binding `interval` have of each other */
#ifndef HMM_HARNESS_INTERVAL_H
#define HMM_HARNESS_INTERVAL_H

#include <linux/mmu_notifier.h>
#include <linux/wait.h>

#include "internal.h"

/* Watches that are no interval notifiers, see plain.c */
#define HH_WATCH_PLAIN                                                         \
	(HMM_HARNESS_WATCH_PLAIN | HMM_HARNESS_WATCH_SHARED |                  \
	 HMM_HARNESS_WATCH_TLB)

/**
 * struct hh_watch - a watch
 * @notifier: covers its range, unless it is a plain one
 * @finish: for the second pass of one call at a time
 * @finishing: whether @finish is in use
 * @plain: what it is told by instead of @notifier, or NULL
 * @own: that, of a watch that shares it with nobody
 * @sharing: among those that have one together
 * @ended: woken when something that was begun has ended
 * @first: number of its first page
 * @npages: how many
 * @lock: protects all that follows, and is what readers of the notifier hold
 * @calls: of the callback
 * @finished: of its second pass, or of the end of what was begun
 * @strays: calls that did not concern its range, or came at no time for them
 * @told: the notifier's sequence number when it was last told of
 * @told_calls: @calls at that time
 * @heard: a bit for each page
 */
struct hh_watch {
	struct mmu_interval_notifier notifier;
#ifdef HAVE_NOTIFIER_TWO_PASS
	struct mmu_interval_notifier_finish finish;
	unsigned long finishing;
#endif
	struct mmu_notifier *plain;
	struct mmu_notifier own;
	struct list_head sharing;
	wait_queue_head_t ended;
	unsigned long first;
	unsigned long npages;
	spinlock_t lock; /* protects all that follows */
	u64 calls;
	u64 finished;
	u64 strays;
	unsigned long told;
	u64 told_calls;
	unsigned long heard[];
};

/**
 * struct hh_watches - the watches of a mirror
 * @lock: protects all that follows; taken before mmap_lock
 * @count: how many there are
 * @all: these
 */
struct hh_watches {
	struct mutex lock; /* protects all that follows */
	unsigned int count;
	struct hh_watch *all[HMM_HARNESS_MAX_WATCHES];
};

/**
 * struct hh_dmas - what of a mirror's memory is mapped for DMA
 * @lock: protects all that follows; taken before mmap_lock
 * @count: how many maps there are
 * @all: these
 */
struct hh_dmas {
	struct mutex lock; /* protects all that follows */
	unsigned int count;
	struct hh_dma *all[HMM_HARNESS_MAX_DMA_MAPS];
};

/* interval.c */
unsigned long hh_from_hmm(unsigned long hmm_pfn, unsigned long addr);

/* dma.c */
#ifdef HAVE_HMM_DMA
void hh_dma_end_all(struct hh_dmas *dmas);
int hh_dma(struct hh_dmas *dmas, struct hh_mirror *mirror,
	   struct hmm_harness_dma *args);
#endif

/* watch.c */
int hh_watch_begin(struct hh_watches *watches, struct mm_struct *mm,
		   const struct hmm_harness_watch *args);
int hh_watch_tell(struct hh_watches *watches, struct hmm_harness_watch *args,
		  unsigned long *heard);
int hh_watch_sequence(struct hh_watches *watches,
		      struct hmm_harness_sequence *args);
void hh_watch_end_all(struct hh_watches *watches);
bool hh_watch_hear(struct hh_watch *watch, unsigned long start,
		   unsigned long stop);

/* plain.c */
int hh_plain_begin(struct hh_watch *watch, struct mm_struct *mm, u32 flags);
bool hh_plain_settled(struct hh_watch *watch);
void hh_plain_end(struct hh_watch *watch);

/* claim.c */
#ifdef HH_EXCLUSIVE
int hh_claim(struct hh_work *work, struct mmu_interval_notifier *notifier,
	     struct list_head *claims, unsigned long start,
	     unsigned long npages, unsigned long *done);
void hh_claims_void(struct list_head *claims, const struct hh_change *change);
void hh_claims_return(struct hh_mirror *mirror);
void hh_claims_unlock(struct hh_mirror *mirror);
void hh_find_exclusive(struct mm_struct *mm, unsigned long start,
		       unsigned long npages, unsigned long *found);
#else
static inline void hh_claims_void(struct list_head *claims,
				  const struct hh_change *change)
{
}

static inline void hh_claims_return(struct hh_mirror *mirror)
{
}

static inline void hh_claims_unlock(struct hh_mirror *mirror)
{
}

static inline void hh_find_exclusive(struct mm_struct *mm, unsigned long start,
				     unsigned long npages, unsigned long *found)
{
	memset(found, 0, npages * sizeof(*found));
}
#endif

/* interval_devmem.c */
int hh_interval_add_memory(struct hh_device *device, unsigned long size);
void hh_interval_remove_memory(struct hh_device *device);
void hh_interval_use_page(struct hh_device *device, struct page *page,
			  unsigned int order);
struct page *hh_interval_target_page(struct vm_area_struct *vma,
				     unsigned long addr);
int hh_interval_migrate(struct hh_device *device, struct hh_migration *move);
unsigned long hh_interval_evict_merged(struct hh_device *device,
				       struct page *page);

#endif /* HMM_HARNESS_INTERVAL_H */
