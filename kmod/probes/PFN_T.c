// SPDX-License-Identifier: GPL-2.0-only
/* Up to 6.16: vmf_insert_mixed() takes a pfn_t. */
#include <linux/mm.h>
#include <linux/pfn_t.h>

static vm_fault_t (*const probe)(struct vm_area_struct *, unsigned long, pfn_t)
	__maybe_unused = vmf_insert_mixed;
