// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's pool of huge pages, out of which hugetlb mappings take theirs. It
 * is filled for a program that has such mappings and then as it was before. A
 * program that is stopped in the middle leaves it filled; its VM is thrown away.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "executor.h"

#define POOL "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define COMPACT "/proc/sys/vm/compact_memory"

/* Huge pages that a WIRE_POISON can take away: it stops at the second page of one. */
#define MOST_POISONED 2

/* What is left to all others: who takes every page for the pool has the agent killed for want of memory. */
#define LEFT_KIB (64 << 10)
#define PAGE_KIB 4

static uint64_t before; /* size of the pool */
static bool filled;

static uint64_t load(const char *path)
{
	char text[32];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	if (length < 0)
		return 0;
	text[length] = '\0';
	return strtoull(text, NULL, 10);
}

/* Whether the kernel takes it; whether it then does what it was asked is seen in the pool. */
static bool store(const char *path, uint64_t number)
{
	char text[32];
	int length = snprintf(text, sizeof(text), "%" PRIu64 "\n", number);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, length) == length;

	if (fd >= 0)
		close(fd);
	return done;
}

/* Pages of 2 MiB that the pool may grow by: MemAvailable, as Linux has it since v3.14, but for LEFT_KIB. */
static uint64_t affordable(void)
{
	FILE *meminfo = fopen("/proc/meminfo", "re");
	uint64_t available = 0;
	char line[128];

	while (meminfo && fgets(line, sizeof(line), meminfo))
		if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &available) == 1)
			break;
	if (meminfo)
		fclose(meminfo);
	return available < LEFT_KIB ? 0 : (available - LEFT_KIB) / (WIRE_HUGETLB_PAGES * PAGE_KIB);
}

static uint64_t unused(void)
{
	uint64_t unreserved = load(POOL "free_hugepages") - load(POOL "resv_hugepages");

	return (int64_t)unreserved < 0 ? 0 : unreserved;
}

/*
 * The most that @request can need. Each process can come to have a page of its
 * own of each, and what a mapping has reserved need not be what is copied into.
 * A copy is there before the page that it replaces is gone.
 */
static uint64_t wanted(const struct request *request)
{
	uint64_t mapped = 0;
	uint64_t processes = 1;
	uint64_t poisoned = 0;

	for (uint32_t i = 0; i < request->program.operations; i++) {
		const struct wire_operation *operation = &request->operations[i];

		if (operation->code == WIRE_MAP && operation->value == WIRE_HUGETLB)
			mapped += operation->npages / WIRE_HUGETLB_PAGES;
		if (operation->code == WIRE_FORK)
			processes++;
		if (operation->code == WIRE_POISON)
			poisoned += MOST_POISONED;
	}
	return mapped ? mapped * (processes + 1) + poisoned + 1 : 0;
}

void pool_empty(void)
{
	if (filled)
		store(POOL "nr_hugepages", before);
	filled = false;
}

void pool_fill(const struct request *request)
{
	uint64_t pages = wanted(request);

	if (!pages)
		return;
	before = load(POOL "nr_hugepages");
	if (pages <= affordable()) {
		filled = store(POOL "nr_hugepages", before + pages);
		if (unused() < pages && store(COMPACT, 1))
			store(POOL "nr_hugepages", before + pages);
	}
	/* Then nobody can say what was to be seen. */
	if (unused() < pages) {
		fprintf(stderr, "executor: of %" PRIu64 " huge pages there are %" PRIu64 "\n", pages, unused());
		pool_empty();
	}
}
