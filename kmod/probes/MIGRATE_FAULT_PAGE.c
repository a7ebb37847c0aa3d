// SPDX-License-Identifier: GPL-2.0-only
/* 6.1: the caller of migrate_to_ram() holds a reference to the page. */
#include <linux/mm.h>
#include <linux/migrate.h>

static struct page ** __maybe_unused probe(struct migrate_vma *args)
{
	return &args->fault_page;
}
