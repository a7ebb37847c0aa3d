// SPDX-License-Identifier: GPL-2.0-only
/* 5.14: exclusive access of a device, and its end, are told. */
#include <linux/mmu_notifier.h>

static int __maybe_unused probe(void)
{
	return MMU_NOTIFY_EXCLUSIVE;
}
