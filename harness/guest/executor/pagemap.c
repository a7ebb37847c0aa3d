// SPDX-License-Identifier: GPL-2.0-only
/* What user space is told of its pages: /proc/self/pagemap and mincore(2); and soft-dirty marks. */
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
#define SOFT_DIRTY_BIT 55
#define NUMBER_MASK 0x7fffffffffffff

/* The entry of each page: 0 or an errno. */
static int read_entries(uint64_t address, uint64_t npages, uint64_t *entries)
{
	off_t start = address / PAGE_BYTES * sizeof(*entries);
	size_t size = npages * sizeof(*entries);
	size_t done = 0;
	int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (file < 0)
		return errno;
	while (done < size) {
		ssize_t count = pread(file, (char *)entries + done, size - done, start + done);

		if (count <= 0)
			break;
		done += count;
	}
	close(file);
	return done < size ? EIO : 0;
}

/* WIRE_IS_* of each page; ENOMEM where not all are mapped. */
int pagemap_read(uint64_t address, uint64_t npages, uint64_t *elements)
{
	static unsigned char in_core[WIRE_MAX_PAGES];
	int error;

	if (mincore((void *)(uintptr_t)address, npages * PAGE_BYTES, in_core))
		return errno;
	error = read_entries(address, npages, elements);
	for (uint64_t i = 0; i < npages && !error; i++) {
		uint64_t entry = elements[i];

		elements[i] = (entry >> PRESENT_BIT & 1 ? WIRE_IS_PRESENT : 0) |
			      (entry >> SWAP_BIT & 1 ? WIRE_IS_SWAP : 0) |
			      (in_core[i] & 1 ? WIRE_IS_IN_CORE : 0);
	}
	return error;
}

/* Of each page, whether it is marked: 0 or an errno. */
int pagemap_soft_dirty(uint64_t address, uint64_t npages, uint64_t *elements)
{
	int error = read_entries(address, npages, elements);

	for (uint64_t i = 0; i < npages && !error; i++)
		elements[i] = elements[i] >> SOFT_DIRTY_BIT & 1;
	return error;
}

/* Of each page, whether /proc/kpageflags has the bit @flag of it: 0 or an errno. */
int pagemap_flagged(uint64_t address, uint64_t npages, int flag, uint64_t *elements)
{
	int error = read_entries(address, npages, elements);
	int file = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);

	if (file < 0)
		return errno;
	for (uint64_t i = 0; i < npages && !error; i++) {
		uint64_t number = elements[i] & NUMBER_MASK;
		uint64_t flags = 0;

		if (!(elements[i] >> PRESENT_BIT & 1))
			elements[i] = 0;
		else if (pread(file, &flags, sizeof(flags), number * sizeof(flags)) != sizeof(flags))
			error = EIO;
		else
			elements[i] = flags >> flag & 1;
	}
	close(file);
	return error;
}

/* Clears the marks of this process: 0 or an errno. */
int pagemap_clear_soft_dirty(void)
{
	int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	int error;

	if (file < 0)
		return errno;
	error = write(file, "4", 1) == 1 ? 0 : errno;
	close(file);
	return error;
}

/* Whether a write marks a page, and nothing else does. */
bool pagemap_marks(void)
{
	volatile char *pages = mmap(NULL, 2 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t marked[2] = { 0 };

	if (pages == MAP_FAILED)
		return false;
	pages[0] = 1;
	pages[PAGE_BYTES] = 1;
	if (pagemap_clear_soft_dirty())
		return false;
	pages[0] = 2;
	return !pagemap_soft_dirty((uintptr_t)pages, 2, marked) && marked[0] && !marked[1];
}
