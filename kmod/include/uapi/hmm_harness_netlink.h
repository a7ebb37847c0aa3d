/* SPDX-License-Identifier: ((GPL-2.0 WITH Linux-syscall-note) OR BSD-3-Clause) */
/* Do not edit directly, auto-generated from: */
/*	Documentation/netlink/specs/hmm-harness.yaml */
/* YNL-GEN uapi header */
/* To regenerate run: tools/net/ynl/ynl-regen.sh */

#ifndef _UAPI_LINUX_HMM_HARNESS_H
#define _UAPI_LINUX_HMM_HARNESS_H

#define HMM_HARNESS_FAMILY_NAME		"hmm-harness"
#define HMM_HARNESS_FAMILY_VERSION	1

/**
 * enum hmm_harness_reason - Why memory is invalidated, enum mmu_notifier_event
 *   of the kernel.
 * @HMM_HARNESS_REASON_UNKNOWN: the kernel does not say
 * @HMM_HARNESS_REASON_UNMAP: munmap(), the old range of mremap(), exit
 * @HMM_HARNESS_REASON_CLEAR: entries are cleared or replaced for any other
 *   reason
 * @HMM_HARNESS_REASON_PROTECTION_VMA: the protection of a mapping changes
 * @HMM_HARNESS_REASON_PROTECTION_PAGE: entries are write-protected, the
 *   mapping stays as it is
 * @HMM_HARNESS_REASON_SOFT_DIRTY: soft dirty bits are cleared
 * @HMM_HARNESS_REASON_RELEASE: the memory comes to its end
 * @HMM_HARNESS_REASON_MIGRATE: migrate_vma_setup() and migrate_vma_pages()
 * @HMM_HARNESS_REASON_EXCLUSIVE: a device gets exclusive access
 */
enum hmm_harness_reason {
	HMM_HARNESS_REASON_UNKNOWN,
	HMM_HARNESS_REASON_UNMAP,
	HMM_HARNESS_REASON_CLEAR,
	HMM_HARNESS_REASON_PROTECTION_VMA,
	HMM_HARNESS_REASON_PROTECTION_PAGE,
	HMM_HARNESS_REASON_SOFT_DIRTY,
	HMM_HARNESS_REASON_RELEASE,
	HMM_HARNESS_REASON_MIGRATE,
	HMM_HARNESS_REASON_EXCLUSIVE,
};

/**
 * enum hmm_harness_owner - Who migrates, or gets exclusive access.
 * @HMM_HARNESS_OWNER_NONE: it is not said, or nobody
 * @HMM_HARNESS_OWNER_OWN: the device that hears it
 * @HMM_HARNESS_OWNER_OTHER: another device
 */
enum hmm_harness_owner {
	HMM_HARNESS_OWNER_NONE,
	HMM_HARNESS_OWNER_OWN,
	HMM_HARNESS_OWNER_OTHER,
};

enum hmm_harness_direction {
	HMM_HARNESS_DIRECTION_TO_DEVICE,
	HMM_HARNESS_DIRECTION_TO_SYSTEM,
};

enum {
	HMM_HARNESS_A_EVENT_NUMBER = 1,
	HMM_HARNESS_A_EVENT_DEVICE,
	HMM_HARNESS_A_EVENT_MIRROR,
	HMM_HARNESS_A_EVENT_PROCESS,
	HMM_HARNESS_A_EVENT_START,
	HMM_HARNESS_A_EVENT_END,
	HMM_HARNESS_A_EVENT_REASON,
	HMM_HARNESS_A_EVENT_OWNER,
	HMM_HARNESS_A_EVENT_SEQUENCE,
	HMM_HARNESS_A_EVENT_BLOCKABLE,
	HMM_HARNESS_A_EVENT_REFUSED,
	HMM_HARNESS_A_EVENT_DIRECTION,
	HMM_HARNESS_A_EVENT_ASKED,
	HMM_HARNESS_A_EVENT_MOVED,
	HMM_HARNESS_A_EVENT_LOST,
	HMM_HARNESS_A_EVENT_MISSED,
	HMM_HARNESS_A_EVENT_TIME,
	HMM_HARNESS_A_EVENT_THREAD,

	__HMM_HARNESS_A_EVENT_MAX,
	HMM_HARNESS_A_EVENT_MAX = (__HMM_HARNESS_A_EVENT_MAX - 1)
};

enum {
	HMM_HARNESS_CMD_STATE = 1,
	HMM_HARNESS_CMD_SUBSCRIBE,
	HMM_HARNESS_CMD_UNSUBSCRIBE,
	HMM_HARNESS_CMD_INVALIDATION,
	HMM_HARNESS_CMD_RELEASE,
	HMM_HARNESS_CMD_MIGRATION,
	HMM_HARNESS_CMD_PAGE_FREE,
	HMM_HARNESS_CMD_CPU_FAULT,

	__HMM_HARNESS_CMD_MAX,
	HMM_HARNESS_CMD_MAX = (__HMM_HARNESS_CMD_MAX - 1)
};

#endif /* _UAPI_LINUX_HMM_HARNESS_H */
