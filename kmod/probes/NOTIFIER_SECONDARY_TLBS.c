// SPDX-License-Identifier: GPL-2.0-only
/* 6.6: what was invalidate_range() says what it is for. */
#include <linux/mmu_notifier.h>

static void __maybe_unused probe(struct mmu_notifier_ops *ops)
{
	ops->arch_invalidate_secondary_tlbs = NULL;
}
