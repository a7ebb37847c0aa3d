// SPDX-License-Identifier: GPL-2.0-only
/*
 * Swap space, for programs that swap pages out: there is some while such a
 * program runs and none for all others, so that no page of theirs leaves memory,
 * whatever the kernel is short of. A program that is stopped in the middle leaves
 * it in use; its VM is thrown away.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <time.h>
#include <unistd.h>

#include "executor.h"
#include "token.h"

/* A link that the agent makes in a guest, harness/guest/kernel.py make_swap_space(); on no other machine */
#define SPACE "/run/hmm-harness.swap"

/*
 * Some of what keeps a page in memory lasts for a moment only: it is tried as
 * long as pages go, and some times more.
 */
#define MOST_ATTEMPTS 100
#define VAIN_ATTEMPTS 8
#define BETWEEN_NS 1000000

static bool in_use;

static int begin(void)
{
	/* EBUSY: it is in use since a program was stopped in the middle */
	in_use = !swapon(SPACE, 0) || errno == EBUSY;
	return in_use ? 0 : errno;
}

void swap_empty(void)
{
	if (in_use && swapoff(SPACE))
		fprintf(stderr, "executor: the swap space stays in use: %s\n", strerror(errno));
	in_use = false;
}

static bool wanted(const struct request *request)
{
	for (uint32_t i = 0; i < request->program.operations; i++) {
		if (request->operations[i].code == WIRE_SWAP_OUT)
			return true;
	}
	return false;
}

void swap_fill(const struct request *request)
{
	int error = wanted(request) ? begin() : 0;

	if (error)
		fprintf(stderr, "executor: there is no swap space: %s\n", strerror(error));
}

/* How many of the @npages pages from @address on are in memory; each fills one of @resident. 0 or an errno. */
static int look(void *address, uint64_t npages, unsigned char *resident, uint64_t *count)
{
	if (mincore(address, npages * PAGE_BYTES, resident))
		return errno;
	*count = 0;
	for (uint64_t i = 0; i < npages; i++)
		*count += resident[i] & 1;
	return 0;
}

/* Swaps out what can be; of each page, @elements says whether it is not in memory any more: 0 or an errno. */
int swap_out(uint64_t address, uint64_t npages, uint64_t *elements)
{
	const struct timespec between = { .tv_nsec = BETWEEN_NS };
	static unsigned char resident[WIRE_MAX_PAGES];
	void *pages = (void *)(uintptr_t)address;
	uint64_t before = npages + 1;
	uint64_t left = npages;
	int vain = 0;

	for (int attempt = 0; attempt < MOST_ATTEMPTS && left && vain < VAIN_ATTEMPTS; attempt++) {
		int error;

		if (attempt)
			nanosleep(&between, NULL);
		if (madvise(pages, npages * PAGE_BYTES, MADV_PAGEOUT))
			return errno;
		error = look(pages, npages, resident, &left);
		if (error)
			return error;
		vain = left < before ? 0 : vain + 1;
		before = left;
	}
	for (uint64_t i = 0; i < npages; i++)
		elements[i] = !(resident[i] & 1);
	return 0;
}

/* Whether a page can be swapped out, and comes back. */
bool swap_works(void)
{
	volatile char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t gone = 0;
	bool works;

	if (page == MAP_FAILED || begin())
		return false;
	*page = 1;
	works = !swap_out((uintptr_t)page, 1, &gone) && gone && *page == 1;
	swap_empty();
	return works;
}
