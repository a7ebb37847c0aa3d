// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lengths of files that are mapped. Nobody keeps a file open once it is mapped: a
 * program may have many, in many processes. The kernel gives it out again by the
 * addresses of its mapping.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "executor.h"
#include "token.h"

#define PATH_LENGTH 64

/* The file that is mapped at @address, open for writing; or -errno */
static int open_mapped(uint64_t address)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long start = 0, end = 0;
	char path[PATH_LENGTH];
	int fd;

	if (!maps)
		return -errno;
	/* Each line begins with the addresses; they ascend. */
	while (end <= address && fscanf(maps, "%lx-%lx%*[^\n]", &start, &end) == 2)
		;
	fclose(maps);
	if (address < start || address >= end)
		return -EFAULT;
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", start, end);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Makes the file that is mapped at @address @npages long: 0 or an errno. */
int truncate_mapped(uint64_t address, uint64_t npages)
{
	int fd = open_mapped(address);
	int error;

	if (fd < 0)
		return -fd;
	error = ftruncate(fd, npages * PAGE_BYTES) ? errno : 0;
	close(fd);
	return error;
}
