// SPDX-License-Identifier: GPL-2.0-only
/*
 * Linked into the kernel's own hmm-tests by the linker's --wrap: lets one case run
 * alone, which kselftest_harness.h can do since v6.2 only, and is a witness of what the
 * case does.
 *
 *   HMM_HARNESS_CASE=N	only the Nth case runs, from 1; the others end at once
 *
 * It says on stderr, a line each, with the errno or 0:
 *
 *   # hmm-harness: ioctl 2 0	a request to the device, by its number
 *   # hmm-harness: mmap 12	a mapping that was refused
 */
#include <errno.h>
#include <linux/ioctl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#define HMM_DMIRROR	'H'	/* lib/test_hmm_uapi.h */

pid_t __real_fork(void);
int __real_ioctl(int fd, unsigned long request, ...);
void *__real_mmap(void *start, size_t length, int prot, int flags, int fd, off_t offset);

static pid_t suite;
static unsigned long only;

static void __attribute__((constructor)) begin(void)
{
	const char *number = getenv("HMM_HARNESS_CASE");

	suite = getpid();
	only = number ? strtoul(number, NULL, 10) : 0;
}

/* Without malloc(): `snapshot` has its device write a page into an allocation of 7 bytes. */
static void tell(const char *what, int error)
{
	char line[64];
	int length = snprintf(line, sizeof(line), "# hmm-harness: %s %d\n", what, error);

	if (write(STDERR_FILENO, line, length) != length)
		_exit(1);
	errno = error;
}

/* kselftest_harness.h forks once for each case; cases fork in processes of their own. */
pid_t __wrap_fork(void)
{
	static unsigned long number;
	bool chosen = getpid() != suite || ++number == only || !only;
	pid_t pid = __real_fork();

	if (!pid && !chosen)
		_exit(0);
	return pid;
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	int before = errno;
	void *argument;
	char what[32];
	va_list rest;
	int ret;

	va_start(rest, request);
	argument = va_arg(rest, void *);
	va_end(rest);
	ret = __real_ioctl(fd, request, argument);
	if (_IOC_TYPE(request) == HMM_DMIRROR) {
		snprintf(what, sizeof(what), "ioctl %u", (unsigned int)_IOC_NR(request));
		tell(what, ret ? errno : 0);
		if (!ret)
			errno = before;
	}
	return ret;
}

void *__wrap_mmap(void *start, size_t length, int prot, int flags, int fd, off_t offset)
{
	void *ptr = __real_mmap(start, length, prot, flags, fd, offset);

	if (ptr == MAP_FAILED)
		tell("mmap", errno);
	return ptr;
}
