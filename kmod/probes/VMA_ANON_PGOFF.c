// SPDX-License-Identifier: GPL-2.0-only
/* 7.3: anonymous pages of a private file mapping have an index of their own. */
#include <linux/mm.h>

static pgoff_t (*const probe)(const struct vm_area_struct *) __maybe_unused =
	vma_start_anon_pgoff;
