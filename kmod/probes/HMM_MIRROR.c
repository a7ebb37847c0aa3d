// SPDX-License-Identifier: GPL-2.0-only
/* v4.14 to 5.4: the API of v4.20's hmm.h; later it is kmod/compat/. */
#include <linux/mm.h>
#include <linux/hmm.h>

static int (*const probe)(struct hmm_mirror *, struct mm_struct *)
	__maybe_unused = hmm_mirror_register;
