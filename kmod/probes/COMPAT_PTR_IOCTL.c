// SPDX-License-Identifier: GPL-2.0-only
/* 5.5; NULL where there is no compat, and then not a function */
#include <linux/fs.h>

static const struct file_operations probe __maybe_unused = {
	.compat_ioctl = compat_ptr_ioctl,
};
