/* SPDX-License-Identifier: GPL-2.0-only */
/* What hmm.c needs of a kernel whose hmm.h it cannot include: walk.c */
#ifndef HMM_HARNESS_COMPAT_WALK_H
#define HMM_HARNESS_COMPAT_WALK_H

#include <linux/mmu_notifier.h>
#include <linux/types.h>

/* Of an entry, going in: what is asked for, and coming out: what there is */
#define HMM_WALK_VALID 0x1UL
#define HMM_WALK_WRITE 0x2UL
#define HMM_WALK_ERROR 0x4UL
#define HMM_WALK_PFN_SHIFT 12

/* Whose device memory is reported: that which was added by devmem.c */
extern char hmm_walk_owner;

int hmm_walk(struct mmu_interval_notifier *notifier, unsigned long start,
	     unsigned long end, unsigned long *entries);

#endif /* HMM_HARNESS_COMPAT_WALK_H */
