// SPDX-License-Identifier: GPL-2.0-only
/* 6.16: DMA addresses of what hmm_range_fault() reports. */
#include <linux/hmm-dma.h>
#include <linux/hmm.h>

static bool (*const probe)(struct device *, struct hmm_dma_map *, size_t)
	__maybe_unused = hmm_dma_unmap_pfn;
