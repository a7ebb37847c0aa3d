// SPDX-License-Identifier: GPL-2.0-only
/* 5.8: mmap_sem is called mmap_lock, and has functions of its own. */
#include <linux/mm.h>

static int (*const probe)(struct mm_struct *) __maybe_unused =
	mmap_read_lock_killable;
