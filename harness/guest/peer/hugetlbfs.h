/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What hmm-tests of v5.10 uses of libhugetlbfs, which need not be installed for it: huge
 * pages of the default size, and one region of them at a time.
 */
#ifndef HMM_HARNESS_HUGETLBFS_H
#define HMM_HARNESS_HUGETLBFS_H

#include <stdio.h>
#include <sys/mman.h>

#define GHR_STRICT	1	/* huge pages or nothing */

static size_t hugetlbfs_length;

static inline int gethugepagesizes(long sizes[], int most)
{
	FILE *file = fopen("/proc/meminfo", "r");
	char line[128];
	long size = 0;

	while (file && fgets(line, sizeof(line), file) &&
	       sscanf(line, "Hugepagesize: %ld kB", &size) != 1)
		;
	if (file)
		fclose(file);
	if (!size || most < 1)
		return 0;
	sizes[0] = size << 10;
	return 1;
}

static inline void *get_hugepage_region(size_t length, unsigned long flags)
{
	void *ptr = mmap(NULL, length, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	(void)flags;
	hugetlbfs_length = length;
	return ptr == MAP_FAILED ? NULL : ptr;
}

static inline void free_hugepage_region(void *ptr)
{
	munmap(ptr, hugetlbfs_length);
}

#endif /* HMM_HARNESS_HUGETLBFS_H */
