// SPDX-License-Identifier: GPL-2.0-only
/* 5.4 */
#include <linux/uaccess.h>

static int (*const probe)(void *, size_t, const void __user *, size_t)
	__maybe_unused = copy_struct_from_user;
