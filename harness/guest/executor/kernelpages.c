// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's own pages in a process, the code of the vdso and the data that it
 * reads. They are moved to where a program has them, each as a whole, which the
 * kernel is made for. Nothing in a subject may call the vdso from then on, which
 * clock_gettime(), time() and getcpu() do: its code would look for its data where
 * it was.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "executor.h"
#include "token.h"

#define LINE_LENGTH 512

/* The mapping that /proc/self/maps calls @name: its length, or 0 */
static size_t find(const char *name, unsigned long *start)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[LINE_LENGTH];
	unsigned long end = 0;
	size_t length = 0;

	while (maps && !length && fgets(line, sizeof(line), maps)) {
		if (strstr(line, name) && sscanf(line, "%lx-%lx", start, &end) == 2)
			length = end - *start;
	}
	if (maps)
		fclose(maps);
	return length;
}

/* Moves the mapping @name to @address, where it has no entry of its data: 0 or an errno. */
int kernelpages_move(const char *name, uint64_t address)
{
	unsigned long start;
	size_t length = find(name, &start);
	void *to = (void *)(uintptr_t)address;

	if (!length)
		return ENOENT;
	if (mremap((void *)start, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		return errno;
	/* Data of registers has no pages to begin with, and is refused. */
	if (!strcmp(name, "[vvar]"))
		madvise(to, length, MADV_DONTNEED);
	return 0;
}

/* Of another process: this one needs them. */
bool kernelpages_can_move(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(kernelpages_move("[vdso]", WIRE_FIRST_ADDRESS) ||
		      kernelpages_move("[vvar]", 2 * WIRE_FIRST_ADDRESS));
	return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

/* Whether /proc/self/smaps says @flag of the mapping @name */
bool kernelpages_has_flag(const char *name, const char *flag)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	char line[LINE_LENGTH];
	bool inside = false;
	bool has = false;

	while (smaps && !has && fgets(line, sizeof(line), smaps)) {
		inside = inside || strstr(line, name);
		if (!inside || strncmp(line, "VmFlags:", strlen("VmFlags:")))
			continue;
		for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n"))
			has = has || !strcmp(word, flag);
		break;
	}
	if (smaps)
		fclose(smaps);
	return has;
}
