// SPDX-License-Identifier: GPL-2.0-only
/*
 * 5.5: a part of a process's memory can be listened to. With what is relied upon
 * beside it: the requests of 5.8's hmm_range, and 5.10's ranges of a pagemap.
 */
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/hmm.h>
#include <linux/memremap.h>

static void (*const probe)(struct mmu_interval_notifier *) __maybe_unused =
	mmu_interval_notifier_remove;
static const size_t size __maybe_unused =
	sizeof(*((struct hmm_range *)0)->hmm_pfns) + HMM_PFN_REQ_WRITE +
	sizeof(((struct dev_pagemap *)0)->nr_range);
