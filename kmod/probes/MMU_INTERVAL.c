// SPDX-License-Identifier: GPL-2.0-only
/* 5.5: a part of a process's memory can be listened to. */
#include <linux/mm.h>
#include <linux/mmu_notifier.h>

static void (*const probe)(struct mmu_interval_notifier *) __maybe_unused =
	mmu_interval_notifier_remove;
