// SPDX-License-Identifier: GPL-2.0-only
/* 5.14: who invalidates; before, only migration told. */
#include <linux/mmu_notifier.h>

static void * __maybe_unused probe(const struct mmu_notifier_range *range)
{
	return range->owner;
}
