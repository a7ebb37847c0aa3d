// SPDX-License-Identifier: GPL-2.0-only
/* What is said and counted of a process's pages: move_pages(2), /proc/self/smaps, /proc/self/status. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "executor.h"
#include "token.h"

#define MOVE_MINE 2 /* include/uapi/linux/mempolicy.h MPOL_MF_MOVE */
#define KIB_OF_PAGE (PAGE_BYTES / 1024)
#define MOST_TEXT (1 << 20)

/* What is read is here, and nowhere else: no page comes or goes because of it, but for the first time. */
static char text[MOST_TEXT];

/* Asks for each page to go to node 0, where it is; of each, what comes of that: 0 or an errno. */
int counters_move_pages(uint64_t address, uint64_t npages, uint64_t *elements)
{
	static void *pages[WIRE_MAX_PAGES];
	static int nodes[WIRE_MAX_PAGES];
	static int status[WIRE_MAX_PAGES];

	for (uint64_t i = 0; i < npages; i++)
		pages[i] = (void *)(uintptr_t)(address + i * PAGE_BYTES);
	if (syscall(SYS_move_pages, 0, npages, pages, nodes, status, MOVE_MINE) < 0)
		return errno;
	for (uint64_t i = 0; i < npages; i++)
		elements[i] = status[i] < 0 ? -status[i] : status[i];
	return 0;
}

/* Fills @text: 0 or an errno */
static int load(const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	ssize_t count = -1;

	if (file < 0)
		return errno;
	while (length < sizeof(text) - 1 && (count = read(file, text + length, sizeof(text) - 1 - length)) > 0)
		length += count;
	text[length] = 0;
	close(file);
	return count ? EIO : 0;
}

/* Pages that a line "@name: NUMBER kB" from @from on tells of; the first such line */
static long pages_of(const char *from, const char *name)
{
	size_t length = strlen(name);

	for (const char *line = from; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, name, length) && line[length] == ':')
			return atol(line + length + 1) / (long)KIB_OF_PAGE;
	}
	return 0;
}

/* How much the counter of anonymous pages differs from what there are, page table by page table; or -errno */
static long difference(void)
{
	int error = load("/proc/self/smaps_rollup");
	long there;

	if (error)
		return -error;
	there = pages_of(text, "Anonymous");
	error = load("/proc/self/status");
	return error ? -error : labs(pages_of(text, "RssAnon") - there);
}

/* All mappings between the two addresses: resident, anonymous and swapped pages. 0 or an errno */
static int count(uint64_t first, uint64_t last, uint64_t *elements)
{
	int error = load("/proc/self/smaps");

	memset(elements, 0, 3 * sizeof(*elements));
	for (const char *line = text; !error && line; line = strchr(line, '\n')) {
		unsigned long start, end;
		char dash;

		line += *line == '\n';
		if (sscanf(line, "%lx%c%lx ", &start, &dash, &end) != 3 || dash != '-')
			continue;
		if (start < first || end > last)
			continue;
		elements[0] += pages_of(line, "Rss");
		elements[1] += pages_of(line, "Anonymous");
		elements[2] += pages_of(line, "Swap");
	}
	return error;
}

int counters_read(uint64_t address, uint64_t npages, uint64_t *elements)
{
	int error = 0;
	long off = 0;

	/* Twice: what is needed for that has come the first time. */
	for (int i = 0; i < 2 && !error; i++) {
		error = count(address, address + npages * PAGE_BYTES, elements);
		off = difference();
	}
	if (off < 0)
		return -off;
	elements[3] = off;
	return error;
}

bool counters_can_move(void)
{
	volatile char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t status = 1;

	if (page == MAP_FAILED)
		return false;
	*page = 1;
	return !counters_move_pages((uintptr_t)page, 1, &status) && !status;
}

bool counters_can_read(void)
{
	volatile char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t elements[4];

	if (page == MAP_FAILED)
		return false;
	*page = 1;
	return !counters_read((uintptr_t)page, 1, elements);
}

/* Whether the counter of anonymous pages tells of each page at once */
bool counters_are_exact(void)
{
	const int pages = 8;
	volatile char *page = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	long before = -1;

	if (page == MAP_FAILED || load("/proc/self/status"))
		return false;
	for (int i = 0; i < pages; i++) {
		if (load("/proc/self/status"))
			return false;
		if (i && pages_of(text, "RssAnon") != before + 1)
			return false;
		before = pages_of(text, "RssAnon");
		page[i * PAGE_BYTES] = 1;
	}
	return true;
}
