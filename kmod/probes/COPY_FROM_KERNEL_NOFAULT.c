// SPDX-License-Identifier: GPL-2.0-only
/* 5.8: was probe_kernel_read() */
#include <linux/uaccess.h>

static long (*const probe)(void *, const void *, size_t) __maybe_unused =
	copy_from_kernel_nofault;
