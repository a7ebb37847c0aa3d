// SPDX-License-Identifier: GPL-2.0-only
/*
 * Userfaultfds of a subject: one that nobody answers, so that faults raise SIGBUS
 * instead of waiting, and one that another process answers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "executor.h"
#include "token.h"

#ifndef UFFDIO_MOVE /* v6.8 */
struct uffdio_move {
	uint64_t dst;
	uint64_t src;
	uint64_t len;
	uint64_t mode;
	int64_t move;
};
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif
#define MOVE_ATTEMPTS 100

/* What pages are copied from */
static uint64_t source[PAGE_WORDS] __attribute__((aligned(PAGE_BYTES)));

static int unanswered = -1;
static int answered = -1;

/* Not only for faults from user space: what a device asks for is a fault of the kernel. Returns whether it is open. */
static bool open_userfault(int *fd, uint64_t features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int error;

	if (*fd >= 0)
		return true;
	*fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (*fd < 0)
		return false;
	if (!ioctl(*fd, UFFDIO_API, &api))
		return true;
	error = errno;
	close(*fd);
	*fd = -1;
	errno = error;
	return false;
}

static int register_range(int fd, uint64_t address, uint64_t npages, uint64_t mode)
{
	struct uffdio_register range = {
		.range = { .start = address, .len = npages * PAGE_BYTES },
		.mode = mode,
	};

	return ioctl(fd, UFFDIO_REGISTER, &range) ? errno : 0;
}

int userfault_register(const struct wire_operation *step)
{
	bool waits = step->argument == WIRE_USERFAULT_ANSWERED;
	bool protects = step->argument == WIRE_USERFAULT_WP;
	int *fd = waits ? &answered : &unanswered;

	if (!open_userfault(fd, waits ? 0 : UFFD_FEATURE_SIGBUS))
		return errno;
	return register_range(*fd, step->address, step->npages,
			      protects ? UFFDIO_REGISTER_MODE_WP : UFFDIO_REGISTER_MODE_MISSING);
}

/* The userfaultfd for who answers */
int userfault_answered(void)
{
	return answered;
}

/* In a child that has just been forked: these are about its parent's memory. */
void userfault_forget(void)
{
	if (unanswered >= 0)
		close(unanswered);
	if (answered >= 0)
		close(answered);
	unanswered = -1;
	answered = -1;
}

static int bring(int fd, uint64_t address, uint64_t token)
{
	struct uffdio_copy copy = { .dst = address, .src = (uintptr_t)source, .len = PAGE_BYTES };

	token_store(source, token);
	return ioctl(fd, UFFDIO_COPY, &copy) ? errno : 0;
}

static int bring_zeros(int fd, uint64_t address)
{
	struct uffdio_zeropage zeros = { .range = { .start = address, .len = PAGE_BYTES } };

	return ioctl(fd, UFFDIO_ZEROPAGE, &zeros) ? errno : 0;
}

static int move_page(int fd, uint64_t address, uint64_t from)
{
	struct uffdio_move page = { .dst = address, .src = from, .len = PAGE_BYTES };
	int error = EAGAIN;

	/* Somebody else may have held on to the page for a moment. */
	for (int i = 0; i < MOVE_ATTEMPTS && error == EAGAIN; i++)
		error = ioctl(fd, UFFDIO_MOVE, &page) ? errno : 0;
	return error;
}

static int protect(int fd, uint64_t address, bool on)
{
	struct uffdio_writeprotect page = {
		.range = { .start = address, .len = PAGE_BYTES },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(fd, UFFDIO_WRITEPROTECT, &page) ? errno : 0;
}

/* Page by page, so that those before one that fails are done. The kernel takes any userfaultfd of the process. */
int userfault_resolve(const struct wire_operation *step)
{
	int error = 0;

	if (!open_userfault(&unanswered, UFFD_FEATURE_SIGBUS))
		return errno;
	for (uint64_t i = 0; i < step->npages && !error; i++) {
		uint64_t address = step->address + i * PAGE_BYTES;

		switch (step->argument) {
		case WIRE_RESOLVE_COPY:
			error = bring(unanswered, address, step->value + i);
			break;
		case WIRE_RESOLVE_ZERO:
			error = bring_zeros(unanswered, address);
			break;
		case WIRE_RESOLVE_MOVE:
			error = move_page(unanswered, address, step->value + i * PAGE_BYTES);
			break;
		default:
			error = protect(unanswered, address, step->argument == WIRE_RESOLVE_PROTECT);
		}
	}
	return error;
}

/* Answers each fault with a page of its own, until it is killed. */
_Noreturn static void answer(int fd)
{
	struct uffd_msg message;

	while (read(fd, &message, sizeof(message)) == sizeof(message)) {
		uint64_t number = message.arg.pagefault.address / PAGE_BYTES;
		struct uffdio_range page = { .start = number * PAGE_BYTES, .len = PAGE_BYTES };

		if (message.event != UFFD_EVENT_PAGEFAULT)
			break;
		/* It may have come in another way, or have been unmapped: who waits has to look again. */
		if (bring(fd, page.start, number % WIRE_ANSWER_PAGES + 1))
			ioctl(fd, UFFDIO_WAKE, &page);
	}
	_exit(EXIT_SYSTEM);
}

/* Starts a process that answers @fd, a child to be killed by the worker; -1 and errno if that cannot be. */
pid_t userfault_answer(int fd)
{
	pid_t worker = getpid();
	pid_t pid = fork();

	if (pid)
		return pid;
	signal(SIGCHLD, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* It must keep nothing alive: no device, no pipe of the worker's. */
	if (getppid() != worker || dup2(fd, STDIN_FILENO) < 0)
		_exit(EXIT_SYSTEM);
	closefrom(STDERR_FILENO + 1);
	close(STDOUT_FILENO);
	answer(STDIN_FILENO);
}

/* Whether this kernel can move pages: it says of what it does not know that it is no argument for it. */
bool userfault_moves(void)
{
	char *pages = mmap(NULL, 2 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED || !open_userfault(&unanswered, UFFD_FEATURE_SIGBUS) ||
	    register_range(unanswered, (uintptr_t)pages, 1, UFFDIO_REGISTER_MODE_MISSING))
		return false;
	pages[PAGE_BYTES] = 1;
	return !move_page(unanswered, (uintptr_t)pages, (uintptr_t)pages + PAGE_BYTES);
}

/* Whether this kernel can, and can write-protect as well */
bool userfault_works(bool protects)
{
	char *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t mode = protects ? UFFDIO_REGISTER_MODE_WP : UFFDIO_REGISTER_MODE_MISSING;

	return page != MAP_FAILED && open_userfault(&unanswered, UFFD_FEATURE_SIGBUS) &&
	       !register_range(unanswered, (uintptr_t)page, 1, mode);
}

/* Whether mremap() leaves pages write-protected, though no userfaultfd is asked about them then */
bool userfault_protection_moves(void)
{
	char *from = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *to = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool moves;
	int fd;

	if (from == MAP_FAILED || to == MAP_FAILED || !open_userfault(&unanswered, UFFD_FEATURE_SIGBUS))
		return false;
	*from = 1;
	if (register_range(unanswered, (uintptr_t)from, 1, UFFDIO_REGISTER_MODE_WP) ||
	    protect(unanswered, (uintptr_t)from, true) ||
	    mremap(from, PAGE_BYTES, PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to ||
	    register_range(unanswered, (uintptr_t)to, 1, UFFDIO_REGISTER_MODE_WP))
		return false;
	/* The kernel's own write fails where ours would raise SIGBUS. */
	fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	moves = fd >= 0 && read(fd, to, 1) < 0 && errno == EFAULT;
	close(fd);
	return moves;
}
