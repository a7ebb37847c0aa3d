/* SPDX-License-Identifier: GPL-2.0-only */
/* Device memory of the binding `interval`: interval_devmem.c */
#ifndef HMM_HARNESS_INTERVAL_H
#define HMM_HARNESS_INTERVAL_H

#include "internal.h"

int hh_interval_add_memory(struct hh_device *device, unsigned long size);
void hh_interval_remove_memory(struct hh_device *device);
void hh_interval_use_page(struct hh_device *device, struct page *page);
struct page *hh_interval_target_page(struct vm_area_struct *vma,
				     unsigned long addr);
int hh_interval_migrate(struct hh_device *device, struct hh_migration *move);
unsigned long hh_interval_evict_merged(struct hh_device *device,
				       struct page *page);

#endif /* HMM_HARNESS_INTERVAL_H */
