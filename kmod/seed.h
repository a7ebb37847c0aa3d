/* SPDX-License-Identifier: GPL-2.0-only */
/* Device memory of the binding `mirror`: seed_devmem.c */
#ifndef HMM_HARNESS_SEED_H
#define HMM_HARNESS_SEED_H

#include "internal.h"

int hh_seed_add_memory(struct hh_device *device, unsigned long size);
void hh_seed_remove_memory(struct hh_device *device);
void hh_seed_use_page(struct hh_device *device, struct page *page,
		      unsigned int order);
struct page *hh_seed_target_page(struct vm_area_struct *vma, unsigned long addr);
int hh_seed_migrate(struct hh_device *device, struct hh_migration *move);

#endif /* HMM_HARNESS_SEED_H */
