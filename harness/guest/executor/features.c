// SPDX-License-Identifier: GPL-2.0-only
/*
 * What this kernel's system calls can do, where the model of them depends on it:
 * found by trying, one name a line for each that is there.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mman.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "executor.h"
#include "hmm_harness.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

#define HUGE_BYTES ((size_t)WIRE_HUGETLB_PAGES * PAGE_BYTES)

/* Three pages with nothing around them that could become one mapping with them */
static char *three_pages(void)
{
	char *pages = mmap(NULL, 3 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return pages == MAP_FAILED ? NULL : pages;
}

static bool populates(void)
{
	char *pages = three_pages();

	return pages && !madvise(pages, PAGE_BYTES, MADV_POPULATE_WRITE);
}

/* MADV_POPULATE_*: whether what is behind a hole is left alone */
static bool populate_stops_at_hole(void)
{
	char *pages = three_pages();
	unsigned char resident;

	if (!pages || munmap(pages + PAGE_BYTES, PAGE_BYTES))
		return false;
	madvise(pages, 3 * PAGE_BYTES, MADV_POPULATE_WRITE);
	return !mincore(pages + 2 * PAGE_BYTES, PAGE_BYTES, &resident) && !(resident & 1);
}

/* mremap(): whether a range that is several mappings can be moved at once */
static bool moves_several_mappings(void)
{
	char *from = three_pages();
	char *to = three_pages();

	if (!from || !to || mprotect(from + PAGE_BYTES, PAGE_BYTES, PROT_READ))
		return false;
	return mremap(from, 3 * PAGE_BYTES, 3 * PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to;
}

static bool ages(void)
{
	char *pages = three_pages();

	return pages && !madvise(pages, PAGE_BYTES, MADV_COLD);
}

/* Pages that nobody may touch, without a mapping of their own */
static bool guards(void)
{
	char *pages = three_pages();

	return pages && !madvise(pages, PAGE_BYTES, MADV_GUARD_INSTALL);
}

/* A mapping of @count huge pages without any in the pool, so that it may not be touched; or NULL */
static char *huge_pages(int count)
{
	char *pages = mmap(NULL, count * HUGE_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB | MAP_NORESERVE, -1, 0);

	return pages == MAP_FAILED ? NULL : pages;
}

/* MADV_DONTNEED of hugetlb mappings */
static bool drops_huge_pages(void)
{
	char *pages = huge_pages(1);

	return pages && !madvise(pages, HUGE_BYTES, MADV_DONTNEED);
}

static bool moves_huge_pages(void)
{
	char *from = huge_pages(1);
	char *to = huge_pages(1);

	return from && to &&
	       mremap(from, HUGE_BYTES, HUGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to;
}

static void ignore(int number)
{
	(void)number;
}

/* The entry of a page in Documentation/admin-guide/mm/pagemap.rst's form */
static uint64_t pagemap_entry(const char *page)
{
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry;

	if (pread(pagemap, &entry, sizeof(entry), (uintptr_t)page / PAGE_BYTES * sizeof(entry)) != sizeof(entry))
		entry = 1ULL << 63;
	close(pagemap);
	return entry;
}

/* MADV_FREE: whether it clears what memory failure has left */
static bool free_unpoisons(char *page)
{
	return !madvise(page, PAGE_BYTES, MADV_FREE) &&
	       pagemap_entry(page) >> 62 == 0; /* neither present nor swapped */
}

/*
 * Makes a frame good that has failed and that nobody has any more. As long as one has, mm/sparse.c
 * clear_hwpoisoned_pages() of v6.1 reads the struct pages of device memory that goes, which are gone already.
 * Where hwpoison-inject is missing, it stays failed.
 */
static void unpoison(uint64_t frame)
{
	FILE *file = fopen("/sys/kernel/debug/hwpoison/unpoison-pfn", "w");

	if (!file)
		return;
	fprintf(file, "%llu\n", (unsigned long long)frame);
	fclose(file);
}

/* Memory failure */
static void try_poison(void)
{
	char *page = three_pages();
	uint64_t frame;

	/* Newer kernels tell at once who has it mapped. */
	signal(SIGBUS, ignore);
	if (!page)
		return;
	*(volatile char *)page = 1;
	frame = pagemap_entry(page) & ((1ULL << 55) - 1);
	if (madvise(page, PAGE_BYTES, MADV_HWPOISON))
		return;
	puts("POISON");
	if (free_unpoisons(page))
		puts("FREE_UNPOISONS");
	munmap(page, PAGE_BYTES);
	unpoison(frame);
}

/* Our module's nodes can be mapped. */
static bool maps_nodes(void)
{
	int fd = interval_open_mapped();

	return fd >= 0 && mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, fd, HMM_HARNESS_MMAP_PFNS) != MAP_FAILED;
}

/* FOLL_LONGTERM, by whichever way */
static bool pins(void)
{
	char *pages = three_pages();
	bool pinned = pages && !pin_pages((uintptr_t)pages, 1);

	pin_release();
	return pinned;
}

void features_print(void)
{
	try_poison();
	if (guards())
		puts("GUARD");
	if (ages())
		puts("COLD");
	if (populates()) {
		puts("POPULATE");
		if (populate_stops_at_hole())
			puts("POPULATE_STOPS_AT_HOLE");
	}
	if (reaper_works())
		puts("REAP");
	if (kernelpages_can_move())
		puts("KERNEL_PAGES");
	/* mm/hmm.c hmm_vma_walk_test() asks for either of VM_PFNMAP and VM_IO; 7.2 has the second alone. */
	if (kernelpages_has_flag("[vvar]", "pf") || kernelpages_has_flag("[vvar]", "io"))
		puts("VVAR_PFNMAP");
	if (maps_nodes())
		puts("MAPPED_NODE");
	if (pins())
		puts("PIN");
	if (pagemap_marks())
		puts("SOFT_DIRTY");
	if (ksm_works())
		puts("KSM");
	if (counters_can_move())
		puts("MOVE_PAGES");
	if (counters_can_read())
		puts("SMAPS");
	if (counters_are_exact())
		puts("RSS_EXACT");
	if (swap_works())
		puts("SWAP");
	if (userfault_works(false))
		puts("USERFAULT");
	if (userfault_works(true))
		puts("USERFAULT_WP");
	if (userfault_protection_moves())
		puts("USERFAULT_WP_MOVES");
	if (userfault_moves())
		puts("USERFAULT_MOVE");
	if (moves_several_mappings())
		puts("REMAP_SEVERAL");
	if (huge_pages(1)) {
		puts("HUGETLB");
		if (drops_huge_pages())
			puts("HUGETLB_DONTNEED");
		if (moves_huge_pages())
			puts("HUGETLB_REMAP");
	}
}
