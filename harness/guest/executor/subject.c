// SPDX-License-Identifier: GPL-2.0-only
/*
 * A subject: does one step at a time, with its own memory and nothing else. What
 * it needs for itself lies far from the addresses that programs use.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "executor.h"
#include "futex.h"
#include "hmm_harness.h"
#include "token.h"

#define NODE_LENGTH 32
#define STACK_BYTES (256 << 10) /* of an actor */

/* The access to the page under way, where a signal that it raises comes back; of each thread */
static _Thread_local struct {
	sigjmp_buf back;
	volatile uintptr_t page; /* 0: no access under way */
} access_under_way;

/* Memory is made to fail, which newer kernels tell at once who has it mapped */
static volatile sig_atomic_t poisoning;

static void on_fault(int number, siginfo_t *info, void *context)
{
	uintptr_t page = access_under_way.page;
	uintptr_t address = (uintptr_t)info->si_addr;

	(void)context;
	if (page && address >= page && address < page + PAGE_BYTES)
		siglongjmp(access_under_way.back, number);
	if (number == SIGBUS && poisoning)
		return;
	/* Not the program's doing: die of it, so that it is reported. */
	signal(number, SIG_DFL);
}

static void catch_faults(void)
{
	struct sigaction action = {
		.sa_sigaction = on_fault,
		/* Not blocked in the handler, so the jump need not restore a mask. */
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

static uint64_t touch(uint64_t address, bool store, uint64_t token)
{
	volatile uint64_t *page;
	uint64_t element = 0;
	int number;

	access_under_way.page = address;
	number = sigsetjmp(access_under_way.back, 0);
	if (number) {
		access_under_way.page = 0;
		return number == SIGBUS ? WIRE_BUS : WIRE_SEGV;
	}
	page = (volatile uint64_t *)access_under_way.page;
	if (store)
		token_store(page, token);
	else
		element = token_load(page);
	access_under_way.page = 0;
	return element;
}

static int do_map(const struct wire_operation *step)
{
	size_t length = step->npages * PAGE_BYTES;
	int flags = MAP_FIXED_NOREPLACE;
	off_t offset = 0;
	int file = -1;
	void *mapped;
	int error;

	switch (step->value) {
	case WIRE_ANON:
		flags |= MAP_PRIVATE | MAP_ANONYMOUS;
		break;
	case WIRE_SHARED:
		flags |= MAP_SHARED | MAP_ANONYMOUS;
		break;
	case WIRE_FILE:
		flags |= MAP_SHARED;
		break;
	case WIRE_PRIVATE_FILE:
		flags |= MAP_PRIVATE;
		break;
	case WIRE_HUGETLB:
		flags |= MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB;
		break;
	case WIRE_VDSO:
		return kernelpages_move("[vdso]", step->address);
	case WIRE_VVAR:
		return kernelpages_move("[vvar]", step->address);
	case WIRE_MIXEDMAP:
		offset = HMM_HARNESS_MMAP_MIXED;
		/* fall through */
	case WIRE_PFNMAP:
		flags |= MAP_SHARED;
		file = interval_open_mapped();
		if (file < 0)
			return -file;
		break;
	}
	if (!(flags & MAP_ANONYMOUS) && file < 0) {
		file = memfd_create("program", MFD_CLOEXEC);
		if (file < 0)
			return errno;
		if (ftruncate(file, length)) {
			error = errno;
			close(file);
			return error;
		}
	}
	/* WIRE_PROT_* are the kernel's PROT_*. */
	mapped = mmap((void *)(uintptr_t)step->address, length, step->argument, flags, file, offset);
	error = mapped == MAP_FAILED ? errno : 0;
	if (file >= 0)
		close(file);
	return error;
}

static int do_remap(const struct wire_operation *step)
{
	size_t length = step->npages * PAGE_BYTES;
	void *moved = mremap((void *)(uintptr_t)step->address, length, length, MREMAP_MAYMOVE | MREMAP_FIXED,
			     (void *)(uintptr_t)step->value);

	return moved == MAP_FAILED ? errno : 0;
}

static int do_bind(const struct slot *slot, int channel)
{
	char node[NODE_LENGTH];
	int error;
	int fd;

	if (slot->passed) {
		fd = channel_receive(channel);
	} else {
		snprintf(node, sizeof(node), request_binding(slot->binding)->node, slot->step.actor);
		fd = open(node, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			fd = -errno;
	}
	if (fd < 0)
		return -fd;
	/* Opening a test_hmm device binds it. */
	error = request_binding(slot->binding)->unbound ? interval_bind(fd) : 0;
	if (!error && !slot->passed)
		error = -channel_send(channel, fd);
	close(fd);
	return error;
}

/* Each page is written first: what fails is its own, never the zero page or one that others map. */
static int poison(const struct wire_operation *step)
{
	int error = 0;

	for (uint64_t i = 0; i < step->npages && !error; i++) {
		uint64_t address = step->address + i * PAGE_BYTES;

		if (touch(address, true, 0))
			return EFAULT;
		poisoning = 1;
		error = madvise((void *)(uintptr_t)address, PAGE_BYTES, MADV_HWPOISON) ? errno : 0;
		poisoning = 0;
	}
	return error;
}

/* Asks to be killed when the worker ends. Lasts until the next fork. */
static void die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1); /* it ended before we asked */
}

/*
 * A sibling rather than a child: the worker waits for every subject, whichever
 * of them still run. Returns in both processes, as fork() does.
 */
static pid_t fork_sibling(pid_t parent)
{
	pid_t pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, NULL);

	if (pid == 0)
		die_with(parent);
	return pid;
}

/* Of the process, for all of its threads */
static struct {
	pid_t parent;
	int channel;
} process;

static int start_actor(unsigned int number);

/* Does the step in *@slot. Returns the slot of the process that returns: FORK returns twice. */
static struct slot *perform(struct slot *slot, uint64_t *elements)
{
	pid_t parent = process.parent;
	int channel = process.channel;
	const struct wire_operation *step = &slot->step;
	void *address = (void *)(uintptr_t)step->address;
	size_t length = step->npages * PAGE_BYTES;
	pid_t child;

	switch (step->code) {
	case WIRE_MAP:
		slot->error = do_map(step);
		break;
	case WIRE_UNMAP:
		slot->error = munmap(address, length) ? errno : 0;
		break;
	case WIRE_PROTECT:
		slot->error = mprotect(address, length, step->argument) ? errno : 0;
		break;
	case WIRE_REMAP:
		slot->error = do_remap(step);
		break;
	case WIRE_ADVISE:
		slot->error = madvise(address, length, step->argument) ? errno : 0;
		break;
	case WIRE_READ:
		for (uint64_t i = 0; i < step->npages; i++)
			elements[i] = touch(step->address + i * PAGE_BYTES, false, 0);
		break;
	case WIRE_WRITE:
		for (uint64_t i = 0; i < step->npages; i++)
			elements[i] = touch(step->address + i * PAGE_BYTES, true, step->value + i);
		break;
	case WIRE_POISON:
		slot->error = poison(step);
		break;
	case WIRE_SWAP_OUT:
		slot->error = swap_out(step->address, step->npages, elements);
		break;
	case WIRE_PAGEMAP:
		slot->error = pagemap_read(step->address, step->npages, elements);
		break;
	case WIRE_SOFT_DIRTY:
		slot->error = pagemap_soft_dirty(step->address, step->npages, control->elements);
		break;
	case WIRE_CLEAR_SOFT_DIRTY:
		slot->error = pagemap_clear_soft_dirty();
		break;
	case WIRE_LOCK:
		slot->error = (step->argument ? munlock : mlock)(address, length) ? errno : 0;
		break;
	case WIRE_MERGE:
		slot->error = ksm_merge(step->address, step->npages, control->elements);
		break;
	case WIRE_MOVE_PAGES:
		slot->error = counters_move_pages(step->address, step->npages, control->elements);
		break;
	case WIRE_COUNTED:
		slot->error = counters_read(step->address, step->npages, control->elements);
		break;
	case WIRE_PIN:
		slot->error = pin_pages(step->address, step->npages);
		break;
	case WIRE_UNPIN:
		pin_release();
		break;
	case WIRE_USERFAULT:
		slot->error = userfault_register(step);
		if (!slot->error && step->argument == WIRE_USERFAULT_ANSWERED)
			slot->error = -channel_send(channel, userfault_answered());
		break;
	case WIRE_RESOLVE:
		slot->error = userfault_resolve(step);
		break;
	case WIRE_TRUNCATE:
		slot->error = truncate_mapped(step->address, step->value);
		break;
	case WIRE_FORK:
		child = fork_sibling(parent);
		if (child == 0) {
			pin_forget();
			userfault_forget();
			return &control->slots[step->other];
		}
		if (child < 0)
			slot->error = errno;
		else
			atomic_store(&control->slots[step->other].pid, child);
		break;
	case WIRE_EXIT:
		_exit(0);
	case WIRE_BIND:
		slot->error = do_bind(slot, channel);
		break;
	case WIRE_ACTOR:
		slot->error = start_actor(step->argument);
		break;
	}
	return slot;
}

_Noreturn static void serve(struct slot *slot)
{
	for (;;) {
		atomic_store(&slot->state, SLOT_WAITING);
		atomic_fetch_add(&control->bell, 1);
		futex_wake(&control->bell);
		while (atomic_load(&slot->state) != SLOT_GO)
			futex_wait(&slot->state, SLOT_WAITING);
		slot->error = 0;
		slot = perform(slot, control->elements);
	}
}

/* A step of an actor. Returns whether this is the process that began it. */
static bool act(void *context, const struct wire_operation *step, struct wire_observation *seen, uint64_t *elements)
{
	struct slot slot = { .step = *step };
	struct slot *returned = perform(&slot, elements);

	if (returned != &slot) {
		*(struct slot **)context = returned;
		return false;
	}
	seen->status = WIRE_DONE;
	seen->error = slot.error;
	seen->count = slot.error ? 0 : request_elements(step);
	return true;
}

static void *run_actor(void *argument)
{
	struct slot *other;

	/* A child that the thread forked: it is all that there is of that process. */
	if (!actor_run((uintptr_t)argument, act, &other))
		serve(other);
	return NULL;
}

static int start_actor(unsigned int number)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK_BYTES);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &attributes, run_actor, (void *)(uintptr_t)number);
	pthread_attr_destroy(&attributes);
	return error;
}

_Noreturn void subject_run(unsigned int number, pid_t parent, int channel)
{
	process.parent = parent;
	process.channel = channel;
	catch_faults();
	die_with(parent);
	serve(&control->slots[number]);
}
