// SPDX-License-Identifier: GPL-2.0-only
/* 7.3: hmm_range_fault() for who does not hold the mmap lock. */
#include <linux/hmm.h>

static int (*const probe)(struct hmm_range *, unsigned long)
	__maybe_unused = hmm_range_fault_unlocked_timeout;
