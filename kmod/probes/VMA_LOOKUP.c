// SPDX-License-Identifier: GPL-2.0-only
/* 5.14 */
#include <linux/mm.h>

static struct vm_area_struct * __maybe_unused probe(struct mm_struct *mm)
{
	return vma_lookup(mm, 0);
}
