/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Failures on demand: the kernel's CONFIG_FAULT_INJECTION, and its
 * /proc/thread-self/fail-nth, by which the N-th thing that can fail in this
 * thread does. See Documentation/fault-injection/fault-injection.rst.
 */
#ifndef HMM_HARNESS_FAULT_INJECTION_H
#define HMM_HARNESS_FAULT_INJECTION_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAIL_NTH "/proc/thread-self/fail-nth"

/* Writes @text to the file @path. Returns whether it was taken. */
static inline bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done;

	if (fd < 0)
		return false;
	done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return done;
}

/* All that can fail may, also what could wait for memory. Which does is up to fail-nth. */
static inline bool failures_prepare(void)
{
	/* A kernel has those that it was configured for. */
	put("/sys/kernel/debug/failslab/ignore-gfp-wait", "0");
	put("/sys/kernel/debug/failslab/verbose", "0");
	put("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "0");
	put("/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem", "0");
	put("/sys/kernel/debug/fail_page_alloc/min-order", "0");
	put("/sys/kernel/debug/fail_page_alloc/verbose", "0");
	put("/sys/kernel/debug/fail_usercopy/verbose", "0");
	return !access(FAIL_NTH, W_OK);
}

/* The file of this thread, for the two below; -1 without it */
static inline int failures_open(void)
{
	return open(FAIL_NTH, O_RDWR | O_CLOEXEC);
}

/* The @nth thing that can fail from now on does. */
static inline bool failure_arm(int file, unsigned int nth)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", nth);
	return pwrite(file, text, strlen(text), 0) == (ssize_t)strlen(text);
}

/*
 * Nothing fails any more. Returns whether something did since failure_arm():
 * the count is 0 then. To ask is to copy, which may itself be what fails.
 */
static inline bool failure_disarm(int file)
{
	char text[16] = "";
	ssize_t length = pread(file, text, sizeof(text) - 1, 0);
	bool failed = length > 0 && strtoul(text, NULL, 10) == 0;

	/* Once more is enough: after what failed in the first try nothing does. */
	if (pwrite(file, "0", 1, 0) != 1 && pwrite(file, "0", 1, 0) != 1)
		perror(FAIL_NTH);
	return failed;
}

#endif /* HMM_HARNESS_FAULT_INJECTION_H */
