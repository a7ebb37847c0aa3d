// SPDX-License-Identifier: GPL-2.0-only
/*
 * Long-term pins, FOLL_LONGTERM | FOLL_WRITE, as an RDMA driver takes them. Two
 * parts of the kernel take them for a program: mm/gup_test.c (CONFIG_GUP_TEST,
 * since v6.2), one file at a time, and io_uring for its buffers.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "executor.h"
#include "token.h"

/* mm/gup_test.h, which is not for user space */
struct pin_longterm_test {
	uint64_t addr;
	uint64_t size;
	uint32_t flags;
};
#define PIN_LONGTERM_TEST_START _IOW('g', 7, struct pin_longterm_test)
#define PIN_LONGTERM_TEST_STOP _IO('g', 8)
#define PIN_LONGTERM_TEST_FLAG_USE_WRITE 1

/* What holds the pins of this process, or -1; and whether that is a ring */
static int holder = -1;
static bool ring;

static int pin_for_test(uint64_t address, uint64_t npages)
{
	struct pin_longterm_test pin = {
		.addr = address,
		.size = npages * PAGE_BYTES,
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE,
	};

	return ioctl(holder, PIN_LONGTERM_TEST_START, &pin) ? errno : 0;
}

static int pin_for_ring(uint64_t address, uint64_t npages)
{
	struct iovec buffer = { .iov_base = (void *)(uintptr_t)address, .iov_len = npages * PAGE_BYTES };

	return syscall(SYS_io_uring_register, holder, IORING_REGISTER_BUFFERS, &buffer, 1) ? errno : 0;
}

static bool open_holder(void)
{
	struct io_uring_params parameters = { 0 };

	ring = false;
	holder = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);
	/* An older one answers everything that it does not know in this way. */
	if (holder >= 0 && (!ioctl(holder, PIN_LONGTERM_TEST_STOP) || errno != EINVAL))
		return true;
	pin_forget();
	ring = true;
	holder = syscall(SYS_io_uring_setup, 1, &parameters);
	return holder >= 0;
}

/* Pins pages for writing, all of them or none: 0 or an errno. */
int pin_pages(uint64_t address, uint64_t npages)
{
	int error;

	if (holder >= 0)
		return EBUSY;
	if (!open_holder())
		return errno;
	error = ring ? pin_for_ring(address, npages) : pin_for_test(address, npages);
	if (error)
		pin_forget();
	return error;
}

/* Lets go of what is pinned: that has happened when it returns. */
void pin_release(void)
{
	if (holder >= 0 && ring)
		syscall(SYS_io_uring_register, holder, IORING_UNREGISTER_BUFFERS, NULL, 0);
	pin_forget();
}

/* In a child that has just been forked: its parent goes on to hold what is pinned. */
void pin_forget(void)
{
	if (holder >= 0)
		close(holder);
	holder = -1;
}
