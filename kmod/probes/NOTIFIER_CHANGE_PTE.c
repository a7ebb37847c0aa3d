// SPDX-License-Identifier: GPL-2.0-only
/* Until 6.10: notifiers are told of a page table entry's new value. */
#include <linux/mmu_notifier.h>

static void __maybe_unused probe(struct mmu_notifier_ops *ops)
{
	ops->change_pte = NULL;
}
