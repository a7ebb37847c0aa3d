// SPDX-License-Identifier: GPL-2.0-only
/*
 * A suite in which each case ends in another way. The texts beside it are what it prints with the
 * kselftest_harness.h of a kernel, after which they are called, and the witness:
 *
 *   gcc -w -static -O2 -D_GNU_SOURCE -DLEAVE=return -I$LINUX/tools/testing/selftests toy-tests.c \
 *       harness/guest/peer/witness.c -Wl,--wrap=fork,--wrap=ioctl,--wrap=mmap -o toy; ./toy > 7.3.txt 2>&1
 *
 * LEAVE is what the hmm-tests of that kernel do when they skip in a fixture's set-up: exit(0) in v6.1.
 */
#include "kselftest_harness.h"
#include <sys/mman.h>
#include <sys/ioctl.h>
#include <fcntl.h>
FIXTURE(toy) { int fd; };
FIXTURE_VARIANT(toy) { int device; };
FIXTURE_VARIANT_ADD(toy, one) { .device = 1, };
FIXTURE_VARIANT_ADD(toy, none) { .device = 0, };
FIXTURE_SETUP(toy)
{
	self->fd = open("/dev/null", O_RDWR);
	if (!variant->device)
		SKIP(LEAVE, "no such device");
}
FIXTURE_TEARDOWN(toy)
{
	close(self->fd);
}
TEST_F(toy, good)
{
	ASSERT_EQ(ioctl(self->fd, _IOWR('H', 0, int), self), -1);
}
/* An assertion fails. */
TEST_F(toy, bad)
{
	ASSERT_EQ(self->fd, -1);
}
TEST_F(toy, child)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		EXPECT_EQ(1, 2);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	ASSERT_EQ(WIFEXITED(status), 1);
}
TEST_F(toy, skips)
{
	SKIP(return, "not today");
}
TEST_F(toy, shrugs)
{
	SKIP(return, "%s", "");
}
TEST_F(toy, returns)
{
	if (mmap(NULL, 1ul << 60, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
		return;
	ASSERT_EQ(ioctl(self->fd, _IOWR('H', 0, int), self), -1);
}
TEST_F(toy, dies)
{
	kill(getpid(), SIGSEGV);
}
TEST_F(toy, late_skip)
{
	EXPECT_EQ(1, 2);
	SKIP(return, "after all");
}
TEST_F_TIMEOUT(toy, sleeps, 1)
{
	sleep(4);
}
TEST_HARNESS_MAIN
