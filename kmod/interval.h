/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of the binding `interval` have of each other */
#ifndef HMM_HARNESS_INTERVAL_H
#define HMM_HARNESS_INTERVAL_H

#include "internal.h"

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

/* claim.c */
#ifdef HH_EXCLUSIVE
int hh_claim(struct hh_work *work, struct mmu_interval_notifier *notifier,
	     struct list_head *claims, unsigned long start,
	     unsigned long npages, unsigned long *done);
void hh_claims_void(struct list_head *claims, const struct hh_change *change);
void hh_claims_return(struct hh_mirror *mirror);
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
