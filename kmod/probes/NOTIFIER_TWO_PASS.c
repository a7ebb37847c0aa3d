// SPDX-License-Identifier: GPL-2.0-only
/* 7.2: interval notifiers are told in two passes. */
#include <linux/mmu_notifier.h>

static void __maybe_unused probe(struct mmu_interval_notifier_ops *ops)
{
	ops->invalidate_finish = NULL;
}
