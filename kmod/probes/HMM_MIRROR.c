// SPDX-License-Identifier: GPL-2.0-only
/* v4.20: the API of its hmm.h, all of it; later it is kmod/compat/. */
#include <linux/mm.h>
#include <linux/hmm.h>

static int (*const probe)(struct hmm_mirror *, struct mm_struct *)
	__maybe_unused = hmm_mirror_register;
static int (*const look)(struct hmm_range *) __maybe_unused = hmm_vma_get_pfns;
#if IS_ENABLED(CONFIG_DEVICE_PRIVATE)
static void (*const remove)(struct hmm_devmem *) __maybe_unused =
	hmm_devmem_remove;
#endif
static const size_t size __maybe_unused =
	sizeof(((struct hmm_update *)0)->blockable);
