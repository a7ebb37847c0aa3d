// SPDX-License-Identifier: GPL-2.0-only
/* 6.0: memory of a device that the CPU can reach. */
#include <linux/memremap.h>
#include <linux/mm.h>

static bool __maybe_unused probe(struct page *page)
{
	return is_device_coherent_page(page);
}
