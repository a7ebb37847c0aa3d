// SPDX-License-Identifier: GPL-2.0-only
/* 6.3: flags of a VMA are no longer set by hand. */
#include <linux/mm.h>

static void probe(struct vm_area_struct *vma) __maybe_unused;
static void probe(struct vm_area_struct *vma)
{
	vm_flags_set(vma, VM_IO);
}
