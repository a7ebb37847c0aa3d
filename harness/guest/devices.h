/* SPDX-License-Identifier: GPL-2.0-only */
/* Which devices of the module there are, whatever their bindings, and what they have left. */
#ifndef HMM_HARNESS_DEVICES_H
#define HMM_HARNESS_DEVICES_H

#include <fcntl.h>
#include <glob.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "hmm_harness.h"

#define MAX_DEVICES 16

/**
 * struct device - a device of the module
 * @node: its path
 * @info: what it says of itself
 */
struct device {
	char node[64];
	struct hmm_harness_info info;
};

/* Finds all devices, at most MAX_DEVICES. Returns how many there are. */
static inline unsigned int find_devices(struct device *devices)
{
	unsigned int count = 0;
	glob_t found;
	size_t i;

	if (glob("/dev/hmm_*[0-9]", 0, NULL, &found))
		return 0;
	for (i = 0; i < found.gl_pathc && count < MAX_DEVICES; i++) {
		struct device *device = &devices[count];
		int fd = open(found.gl_pathv[i], O_RDWR | O_CLOEXEC);

		/* Those of lib/test_hmm.c do not know the question. */
		device->info = (struct hmm_harness_info){ .size = sizeof(device->info) };
		if (fd >= 0 && !ioctl(fd, HMM_HARNESS_INFO, &device->info)) {
			snprintf(device->node, sizeof(device->node), "%s", found.gl_pathv[i]);
			count++;
		}
		close(fd);
	}
	globfree(&found);
	return count;
}

/* Pages of the device that somebody has; UINT64_MAX if it does not say */
static inline uint64_t pages_in_use(const struct device *device)
{
	struct hmm_harness_usage usage = { .size = sizeof(usage) };
	int fd = open(device->node, O_RDWR | O_CLOEXEC);
	bool told = fd >= 0 && !ioctl(fd, HMM_HARNESS_USAGE, &usage);

	close(fd);
	return told ? usage.in_use : UINT64_MAX;
}

#endif /* HMM_HARNESS_DEVICES_H */
