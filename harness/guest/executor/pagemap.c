// SPDX-License-Identifier: GPL-2.0-only
/* What user space is told of its pages: /proc/self/pagemap and mincore(2). */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "executor.h"
#include "token.h"

/* Documentation/admin-guide/mm/pagemap.rst */
#define PRESENT_BIT 63
#define SWAP_BIT 62

/* WIRE_IS_* of each page; ENOMEM where not all are mapped. */
int pagemap_read(uint64_t address, uint64_t npages, uint64_t *elements)
{
	static unsigned char in_core[WIRE_MAX_PAGES];
	off_t start = address / PAGE_BYTES * sizeof(*elements);
	size_t size = npages * sizeof(*elements);
	size_t done = 0;
	int file;

	if (mincore((void *)(uintptr_t)address, npages * PAGE_BYTES, in_core))
		return errno;
	file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return errno;
	while (done < size) {
		ssize_t count = pread(file, (char *)elements + done, size - done, start + done);

		if (count <= 0)
			break;
		done += count;
	}
	close(file);
	if (done < size)
		return EIO;
	for (uint64_t i = 0; i < npages; i++) {
		uint64_t entry = elements[i];

		elements[i] = (entry >> PRESENT_BIT & 1 ? WIRE_IS_PRESENT : 0) |
			      (entry >> SWAP_BIT & 1 ? WIRE_IS_SWAP : 0) |
			      (in_core[i] & 1 ? WIRE_IS_IN_CORE : 0);
	}
	return 0;
}
