// SPDX-License-Identifier: GPL-2.0-only
/*
 * KSM: it looks at memory only while a step waits for it, so that nothing is
 * merged at any other time. A program that is stopped in the middle leaves it
 * looking; its VM is thrown away.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "executor.h"
#include "token.h"

#define KSM "/sys/kernel/mm/ksm/"
#define KPF_KSM 21 /* include/uapi/linux/kernel-page-flags.h */

/*
 * How often it looks at everything: the first time, which may have begun in the
 * middle, it sees what a page holds, the second time that it still does, and the
 * third time it has found all that are equal. Once more, for luck of ours.
 */
#define SCANS 4
#define BETWEEN_NS 2000000
#define MOST_WAITS 2500

#define WORD_LENGTH 32

/* 0 or an errno */
static int put(const char *path, const char *value)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	int error;

	if (file < 0)
		return errno;
	error = write(file, value, strlen(value)) < 0 ? errno : 0;
	close(file);
	return error;
}

/* What a file holds, as one word; empty if that cannot be read */
static void get(const char *path, char *value, size_t size)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = file < 0 ? 0 : read(file, value, size - 1);

	value[length < 0 ? 0 : length] = 0;
	if (file >= 0)
		close(file);
}

static long scans(void)
{
	char text[WORD_LENGTH];

	get(KSM "full_scans", text, sizeof(text));
	return atol(text);
}

/*
 * How it looks while it does; what was there before is put back. In the order of
 * putting, and of putting back. A kernel has no smart_scan before v6.7; with it,
 * a page that was not merged is passed over in up to eight scans: skip_age().
 */
static const struct {
	const char *path;
	const char *value;
	bool optional;
} settings[] = {
	{ .path = KSM "smart_scan", .value = "0", .optional = true },
	{ .path = KSM "sleep_millisecs", .value = "1" },
	{ .path = KSM "pages_to_scan", .value = "2000" },
	{ .path = KSM "run", .value = "1" },
};
#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

/* Has it look at everything that is mergeable until it has found what is equal: 0 or an errno. */
static int look(void)
{
	const struct timespec between = { .tv_nsec = BETWEEN_NS };
	char before[SETTINGS][WORD_LENGTH];
	long enough = scans() + SCANS;
	int waits = 0;
	int error = 0;

	for (size_t i = 0; i < SETTINGS; i++)
		get(settings[i].path, before[i], sizeof(before[i]));
	for (size_t i = 0; i < SETTINGS && !error; i++)
		if (*before[i] || !settings[i].optional)
			error = put(settings[i].path, settings[i].value);
	while (!error && scans() < enough) {
		if (++waits > MOST_WAITS)
			error = ETIME;
		nanosleep(&between, NULL);
	}
	/* When "run" is 0 again, it does not look any more; what is merged stays so. */
	for (size_t i = 0; i < SETTINGS; i++)
		if (*before[i])
			put(settings[i].path, before[i]);
	return error;
}

/* Of each page, whether it is merged with others: 0 or an errno. */
int ksm_merge(uint64_t address, uint64_t npages, uint64_t *elements)
{
	int error;

	if (madvise((void *)(uintptr_t)address, npages * PAGE_BYTES, MADV_MERGEABLE))
		return errno;
	error = look();
	return error ?: pagemap_flagged(address, npages, KPF_KSM, elements);
}

/* Whether two pages that are equal are merged, and another one is not. */
bool ksm_works(void)
{
	char *pages = mmap(NULL, 3 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t merged[3] = { 0 };
	bool works;

	if (pages == MAP_FAILED)
		return false;
	memset(pages, 1, 2 * PAGE_BYTES);
	memset(pages + 2 * PAGE_BYTES, 2, PAGE_BYTES);
	works = !ksm_merge((uintptr_t)pages, 3, merged) && merged[0] && merged[1] && !merged[2];
	munmap(pages, 3 * PAGE_BYTES);
	return works;
}
