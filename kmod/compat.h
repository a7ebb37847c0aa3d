/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between kernels, so that no other file of the module asks.
 * HAVE_* come from probes/, by compiling them.
 */
#ifndef HMM_HARNESS_COMPAT_H
#define HMM_HARNESS_COMPAT_H

#include <linux/migrate.h>
#include <linux/mm.h>

#include "probed.h"

/*
 * Device memory needs pages that the CPU cannot reach, and a way to get them
 * all back, or the module could not be unloaded. Most are found through the
 * processes that have them; those that KSM merged belong to no process in
 * particular, and only migrate_device_range() gets them back.
 */
#if IS_ENABLED(CONFIG_DEVICE_PRIVATE) && defined(HAVE_MIGRATE_DEVICE_RANGE) && \
	defined(HAVE_MIGRATE_FAULT_PAGE)
#define HH_DEVMEM 1
#endif

#endif /* HMM_HARNESS_COMPAT_H */
