// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lets everything fail, one after the other, that can fail in an ioctl of
 * hmm_harness: an allocation, a copy from or to user space. Each ioctl is called
 * in each of several states of the memory and the device with its first such
 * thing failing, then with its second, until nothing is left that could.
 *
 *   fail_nth [-v] [NAME...]
 *
 *   -v    tell of each call and state
 *   NAME  only these calls
 *
 * Each call is made by a process of its own, in a state that it made itself. What
 * must hold, whatever fails:
 *
 *  - the call does what it does without a failure, or its error is -ENOMEM,
 *    -EFAULT, or one that is documented for it;
 *  - called again, it does what it would have done; or, after it succeeded, what
 *    it does when it is called twice;
 *  - the device's page table does not contradict the CPU's;
 *  - the memory holds what was written to it;
 *  - when the process is gone, no page of any device is in use.
 *
 * Exit status: 0 if all of that held and each call that a device is capable of
 * succeeded and had something that failed; 1 otherwise, with the reason; 2 for a
 * wrong command line, a missing device, or a kernel that cannot do it. Whether
 * the kernel had something to say is for the caller to look up in its log.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "devices.h"
#include "family.h"
#include "fault_injection.h"
#include "hmm_harness.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define PAGE 4096UL
#define WORDS (PAGE / sizeof(uint64_t))
#define PAGES 8UL
#define REGION ((char *)0x100000000000UL)
#define UNREAD 0x756e72656164UL
/* Where a sweep that does not end is given up */
#define MAX_NTH 5000
/* What a process that is gone had in use is free after so many milliseconds. */
#define PATIENCE_MS 5000

/**
 * struct try - a call under test, and what came of it; seen by both processes
 * @failed: something was made to fail
 * @first: 0, or the error of the call
 * @again: the same of the one after it
 * @trouble: what must not be, or ""
 */
struct try {
	bool failed;
	int first;
	int again;
	char trouble[160];
};

/* The struct of any ioctl */
union args {
	struct {
		uint32_t size;
		uint32_t flags;
		/* of those on a range */
		uint64_t addr;
		uint64_t npages;
	} head;
	struct hmm_harness_request request;
	struct hmm_harness_move move;
	struct hmm_harness_gate gate;
	unsigned char bytes[512];
};

/**
 * struct call - a row of the table
 * @name: as a user says it
 * @nr: number of the ioctl
 * @size: of its struct
 * @flags: to set
 * @range: whether it takes the region: addr and npages follow the flags
 * @pages: where the pointer for what is told of each page is; 0 for none
 * @data: where the pointer to pages of data is; 0 for none
 * @stores: whether that data goes to the region; else it comes from there
 * @capability: what the device has to be capable of
 * @error: what it returns under a failure besides ENOMEM and EFAULT; or 0
 * @fill: fills in what else there is; or NULL
 * @run: what to do in place of an ioctl: 0, or an error; or NULL
 */
struct call {
	const char *name;
	unsigned long nr;
	uint32_t size;
	uint32_t flags;
	bool range;
	size_t pages;
	size_t data;
	bool stores;
	uint64_t capability;
	int error;
	void (*fill)(union args *args);
	int (*run)(int fd);
};

static void fill_request(union args *args);
static void fill_move_in(union args *args);
static void fill_move_out(union args *args);
static void fill_arm(union args *args);
static void fill_wait(union args *args);
static void fill_thread(union args *args);
static int run_open(int fd);
static int run_touch(int fd);

#define RANGE .size = sizeof(struct hmm_harness_range), .range = true, .pages = offsetof(struct hmm_harness_range, pages)
#define DATA RANGE, .data = offsetof(struct hmm_harness_range, data)
#define MOVE .size = sizeof(struct hmm_harness_move), .range = true, .capability = HMM_HARNESS_CAP_DEVMEM, \
	.pages = offsetof(struct hmm_harness_move, pages)
#define WATCH .size = sizeof(struct hmm_harness_watch), .range = true, .capability = HMM_HARNESS_CAP_WATCH
#define DMA .size = sizeof(struct hmm_harness_dma), .range = true, .capability = HMM_HARNESS_CAP_DMA, .error = EIO

static const struct call calls[] = {
	{ "open", .run = run_open },
	{ "touch", .run = run_touch },
	{ "INFO", HMM_HARNESS_INFO, .size = sizeof(struct hmm_harness_info) },
	{ "BIND", HMM_HARNESS_BIND, .size = sizeof(struct hmm_harness_bind) },
	{ "UNBIND", HMM_HARNESS_UNBIND, .size = sizeof(struct hmm_harness_bind) },
	{ "SNAPSHOT", HMM_HARNESS_SNAPSHOT, RANGE },
	{ "FAULT", HMM_HARNESS_FAULT, RANGE },
	{ "FAULT-write", HMM_HARNESS_FAULT, RANGE, .flags = HMM_HARNESS_FAULT_WRITE },
	{ "READ", HMM_HARNESS_READ, DATA },
	{ "WRITE", HMM_HARNESS_WRITE, DATA, .stores = true },
	{ "MIGRATE-in", HMM_HARNESS_MIGRATE, RANGE, .flags = HMM_HARNESS_MIGRATE_TO_DEVICE,
	  .capability = HMM_HARNESS_CAP_DEVMEM },
	{ "MIGRATE-out", HMM_HARNESS_MIGRATE, RANGE, .flags = HMM_HARNESS_MIGRATE_TO_SYSTEM,
	  .capability = HMM_HARNESS_CAP_DEVMEM },
	{ "MIGRATE_SHORT", HMM_HARNESS_MIGRATE_SHORT, RANGE, .capability = HMM_HARNESS_CAP_DEVMEM },
	{ "EXCLUSIVE", HMM_HARNESS_EXCLUSIVE, RANGE, .capability = HMM_HARNESS_CAP_EXCLUSIVE, .error = EBUSY },
	{ "EVICT", HMM_HARNESS_EVICT, .size = sizeof(struct hmm_harness_evict), .capability = HMM_HARNESS_CAP_EVICT },
	{ "EVICT-range", HMM_HARNESS_EVICT, .size = sizeof(struct hmm_harness_evict), .flags = HMM_HARNESS_EVICT_RANGE,
	  .capability = HMM_HARNESS_CAP_EVICT_RANGE },
	{ "MOVE-in", HMM_HARNESS_MOVE, MOVE, .flags = HMM_HARNESS_MOVE_TO_DEVICE, .fill = fill_move_in },
	{ "MOVE-out", HMM_HARNESS_MOVE, MOVE, .flags = HMM_HARNESS_MOVE_TO_SYSTEM, .fill = fill_move_out },
	{ "RETURNS", HMM_HARNESS_RETURNS, .size = sizeof(struct hmm_harness_returns),
	  .capability = HMM_HARNESS_CAP_RETURNS },
	{ "TABLE", HMM_HARNESS_TABLE, RANGE },
	{ "SNAPSHOT-now", HMM_HARNESS_SNAPSHOT, RANGE, .flags = HMM_HARNESS_NOWAIT },
	{ "TABLE-now", HMM_HARNESS_TABLE, RANGE, .flags = HMM_HARNESS_NOWAIT },
	{ "REQUEST", HMM_HARNESS_REQUEST, .size = sizeof(struct hmm_harness_request), .range = true,
	  .pages = offsetof(struct hmm_harness_request, pages), .capability = HMM_HARNESS_CAP_REQUEST,
	  .fill = fill_request },
	{ "REQUEST-unlocked", HMM_HARNESS_REQUEST, .size = sizeof(struct hmm_harness_request), .range = true,
	  .flags = HMM_HARNESS_REQUEST_UNLOCKED, .pages = offsetof(struct hmm_harness_request, pages),
	  .capability = HMM_HARNESS_CAP_UNLOCKED, .fill = fill_request },
	{ "WATCH", HMM_HARNESS_WATCH, WATCH },
	{ "WATCHED", HMM_HARNESS_WATCHED, WATCH, .pages = offsetof(struct hmm_harness_watch, pages) },
	{ "SEQUENCE", HMM_HARNESS_SEQUENCE, .size = sizeof(struct hmm_harness_sequence), .range = true,
	  .capability = HMM_HARNESS_CAP_WATCH },
	{ "DMA-map", HMM_HARNESS_DMA, DMA, .flags = HMM_HARNESS_DMA_MAP,
	  .pages = offsetof(struct hmm_harness_dma, pages) },
	{ "DMA-map-write", HMM_HARNESS_DMA, DMA, .flags = HMM_HARNESS_DMA_MAP_WRITE,
	  .pages = offsetof(struct hmm_harness_dma, pages) },
	{ "DMA-show", HMM_HARNESS_DMA, DMA, .flags = HMM_HARNESS_DMA_SHOW,
	  .pages = offsetof(struct hmm_harness_dma, pages) },
	{ "DMA-unmap", HMM_HARNESS_DMA, DMA, .flags = HMM_HARNESS_DMA_UNMAP },
	{ "REFUSE", HMM_HARNESS_REFUSE, .size = sizeof(struct hmm_harness_refuse), .range = true },
	{ "USAGE", HMM_HARNESS_USAGE, .size = sizeof(struct hmm_harness_usage) },
	{ "EVENTS", HMM_HARNESS_EVENTS, .size = sizeof(struct hmm_harness_events) },
	{ "GATE_ARM", HMM_HARNESS_GATE_ARM, .size = sizeof(struct hmm_harness_gate), .fill = fill_arm },
	{ "GATE_WAIT", HMM_HARNESS_GATE_WAIT, .size = sizeof(struct hmm_harness_gate), .fill = fill_wait },
	{ "GATE_RELEASE", HMM_HARNESS_GATE_RELEASE, .size = sizeof(struct hmm_harness_gate), .fill = fill_thread },
};

/**
 * struct state - what a process and its device are in when a call comes
 * @name: for people
 * @capability: what it takes
 * @make: makes it; the region is mapped already
 */
struct state {
	const char *name;
	uint64_t capability;
	void (*make)(int fd);
};

static void make_unbound(int fd);
static void make_empty(int fd);
static void make_written(int fd);
static void make_entered(int fd);
static void make_exclusive(int fd);
static void make_moved(int fd);
static void make_foreign(int fd);
static void make_shared(int fd);
static void make_mixed(int fd);

static const struct state states[] = {
	/* nobody bound the file */
	{ "unbound", 0, make_unbound },
	/* bound, and nobody touched the memory */
	{ "empty", 0, make_empty },
	/* the CPU wrote all of it */
	{ "written", 0, make_written },
	/* ... and the device has entries of it; it is watched, and mapped for DMA; the process is under control */
	{ "entered", 0, make_entered },
	/* ... or the device has it to itself */
	{ "exclusive", HMM_HARNESS_CAP_EXCLUSIVE, make_exclusive },
	/* ... or it is in the device's memory */
	{ "moved", HMM_HARNESS_CAP_DEVMEM, make_moved },
	/* ... or in the other device's */
	{ "foreign", HMM_HARNESS_CAP_DEVMEM, make_foreign },
	/* ... or in the device's, and another process has it, too */
	{ "shared", HMM_HARNESS_CAP_DEVMEM, make_shared },
	/* some of all of these, and what cannot be written */
	{ "mixed", HMM_HARNESS_CAP_DEVMEM, make_mixed },
};

extern const char __executable_start, etext; /* of the linker */

static struct try *try;
static const struct device *device;	/* the one under test */
static bool verbose;

/* What a process has of its own. */
static uint64_t told[PAGES];
static uint64_t raw[PAGES];
static uint64_t trace[HMM_HARNESS_GATE_TRACE];
static uint8_t asked[PAGES];
static uint64_t data[PAGES * WORDS];
/* /proc/self/mem of the child */
static int memory;
static bool written[PAGES];

_Noreturn static void fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(try->trouble, sizeof(try->trouble), format, arguments);
	va_end(arguments);
	_exit(1);
}

static uint64_t token(unsigned long page, unsigned long word)
{
	return 0x6d6d680000000000 | page << 16 | (word + 1);
}

static void fill_request(union args *args)
{
	args->request.default_flags = HMM_HARNESS_ASK_FAULT;
	args->request.mask = HMM_HARNESS_ASK_FAULT | HMM_HARNESS_ASK_WRITE;
	args->request.asked = (uintptr_t)asked;
	args->request.raw = (uintptr_t)raw;
}

static void fill_move_in(union args *args)
{
	args->move.sources = HMM_HARNESS_FROM_SYSTEM;
	args->move.before = (uintptr_t)raw;
}

static void fill_move_out(union args *args)
{
	args->move.sources = HMM_HARNESS_FROM_OWN;
	args->move.before = (uintptr_t)raw;
}

static void fill_thread(union args *args)
{
	args->gate.thread = getpid();
}

/* At a gate that no other call of the process comes to, unless it is unbound */
static void fill_arm(union args *args)
{
	fill_thread(args);
	args->gate.gate = HMM_HARNESS_GATE_UNBIND_END;
	args->gate.time = 1;
}

static void fill_wait(union args *args)
{
	fill_thread(args);
	args->gate.trace = (uintptr_t)trace;
}

/* What the device stores is what the CPU wrote, so that it is known without a look at what was done. */
static void fill_data(const struct call *call)
{
	unsigned long i;

	for (i = 0; i < PAGES * WORDS; i++)
		data[i] = call->stores ? token(i / WORDS, i % WORDS) : UNREAD;
}

static int run_ioctl(int fd, const struct call *call)
{
	union args args = { .head = { .size = call->size, .flags = call->flags } };

	if (call->range) {
		args.head.addr = (uintptr_t)REGION;
		args.head.npages = PAGES;
	}
	if (call->pages)
		*(uint64_t *)(args.bytes + call->pages) = (uintptr_t)told;
	if (call->data)
		*(uint64_t *)(args.bytes + call->data) = (uintptr_t)data;
	if (call->fill)
		call->fill(&args);
	return ioctl(fd, call->nr, &args) ? errno : 0;
}

static int run(int fd, const struct call *call)
{
	return call->run ? call->run(fd) : run_ioctl(fd, call);
}

/* A part of making a state, which has to work. */
static void must(int fd, const char *name)
{
	const struct call *call = calls;
	int error;

	while (strcmp(call->name, name))
		call++;
	error = run(fd, call);
	if (error)
		fail("%s failed in the making: %s", name, strerror(error));
}

static int run_open(int fd)
{
	int other = open(device->node, O_RDWR | O_CLOEXEC);

	(void)fd;
	if (other < 0)
		return errno;
	close(other);
	return 0;
}

/* A CPU touches each page of the region: not this process itself, which would be killed where that fails. */
static int run_touch(int fd)
{
	ssize_t length;
	int error;

	(void)fd;
	length = pread(memory, data, PAGES * PAGE, (uintptr_t)REGION);
	error = length < 0 ? errno : 0;
	if (length == (ssize_t)(PAGES * PAGE))
		return 0;
	/* What cannot be read is the end, or an I/O error there. */
	return error && error != EIO ? error : EFAULT;
}

static void write_pages(unsigned long first, unsigned long end)
{
	unsigned long i, word;

	for (i = first; i < end; i++) {
		uint64_t *page = (uint64_t *)(REGION + i * PAGE);

		for (word = 0; word < WORDS; word++)
			page[word] = token(i, word);
		written[i] = true;
	}
}

static void make_unbound(int fd)
{
	(void)fd;
	write_pages(0, PAGES);
}

static void make_empty(int fd)
{
	must(fd, "BIND");
}

static void make_written(int fd)
{
	write_pages(0, PAGES);
	must(fd, "BIND");
}

static void make_entered(int fd)
{
	make_written(fd);
	if (device->info.capabilities & HMM_HARNESS_CAP_WATCH)
		must(fd, "WATCH");
	if (device->info.capabilities & HMM_HARNESS_CAP_DMA)
		must(fd, "DMA-map");
	must(fd, "GATE_ARM");
	must(fd, "FAULT-write");
}

static void make_exclusive(int fd)
{
	make_written(fd);
	must(fd, "EXCLUSIVE");
}

static void make_moved(int fd)
{
	make_written(fd);
	must(fd, "MIGRATE-in");
}

static void make_foreign(int fd)
{
	char node[sizeof(device->node)];
	int other;

	memcpy(node, device->node, sizeof(node));
	node[strlen(node) - 1] ^= 1;
	other = open(node, O_RDWR | O_CLOEXEC);
	if (other < 0)
		fail("%s: %s", node, strerror(errno));
	make_moved(other);
	must(fd, "BIND");
}

static void make_shared(int fd)
{
	pid_t parent = getpid();
	pid_t child;

	make_moved(fd);
	child = fork();
	if (child < 0)
		fail("fork: %s", strerror(errno));
	if (child)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (getppid() == parent)
		pause();
	_exit(0);
}

static void make_mixed(int fd)
{
	static const struct call half = {
		"MIGRATE-in", HMM_HARNESS_MIGRATE, RANGE, .flags = HMM_HARNESS_MIGRATE_TO_DEVICE,
	};
	union args args = { .head = { half.size, half.flags, (uintptr_t)REGION, PAGES / 2 } };

	write_pages(0, PAGES - 2);
	must(fd, "BIND");
	must(fd, "FAULT-write");
	if (ioctl(fd, half.nr, &args))
		fail("%s failed in the making: %s", half.name, strerror(errno));
	if (mprotect(REGION + 3 * PAGE, PAGE, PROT_READ) || mprotect(REGION + (PAGES - 3) * PAGE, PAGE, PROT_READ) ||
	    madvise(REGION + 2 * PAGE, PAGE, MADV_DONTNEED) ||
	    madvise(REGION + (PAGES - 2) * PAGE, PAGE, MADV_DONTNEED))
		fail("the mixed state: %s", strerror(errno));
	written[2] = false;
	/* The last page but one is the zero page now, the last one was touched by the device alone. */
	(void)*(volatile uint64_t *)(REGION + (PAGES - 2) * PAGE);
}

static void check_table(int fd)
{
	static const struct call table = { "TABLE", HMM_HARNESS_TABLE, RANGE };
	unsigned long i;
	int error;

	memset(told, 0, sizeof(told));
	error = run_ioctl(fd, &table);
	if (error == ENXIO)
		return;	/* not bound */
	if (error)
		fail("TABLE afterwards: %s", strerror(error));
	for (i = 0; i < PAGES; i++)
		if (told[i] & HMM_HARNESS_PAGE_STALE)
			fail("page %lu of the device's table contradicts the CPU's", i);
}

static void check_memory(void)
{
	unsigned long i, word;

	for (i = 0; i < PAGES; i++) {
		const volatile uint64_t *page = (const volatile uint64_t *)(REGION + i * PAGE);
		bool blank = !written[i] && !page[0];

		for (word = 0; word < WORDS; word++)
			if (page[word] != (blank ? 0 : token(i, word)))
				fail("page %lu holds %#lx at word %lu in place of %#lx", i, page[word], word,
				     blank ? 0 : token(i, word));
	}
}

/* What was read, by a call that reads: what it did not get to is as it was. */
static void check_data(const struct call *call, int error)
{
	bool all = !error && (call->data || call->run == run_touch);
	unsigned long i;

	for (i = 0; i < PAGES * WORDS; i++) {
		unsigned long page = i / WORDS;

		if (data[i] == token(page, i % WORDS) || (data[i] == UNREAD && !all) || (!data[i] && !written[page]))
			continue;
		fail("page %lu was read as %#lx at word %lu", page, data[i], i % WORDS);
	}
}

/*
 * From here to the call and back nothing but the call can fail: a fault of the
 * process itself would be told by a signal, or by the OOM killer.
 */
static void be_present(int fail_nth)
{
	const char *at;

	for (at = &__executable_start; at < &etext; at += PAGE)
		(void)*(const volatile char *)at;
	memset(told, 0, sizeof(told));
	memset(raw, 0, sizeof(raw));
	memset(trace, 0, sizeof(trace));
	memset(asked, HMM_HARNESS_ASK_WRITE, sizeof(asked));
	try->first = 0;
	errno = 0;
	failure_disarm(fail_nth);
}

_Noreturn static void child(const struct call *call, const struct state *state, unsigned int nth)
{
	int fail_nth = failures_open();
	int fd = open(device->node, O_RDWR | O_CLOEXEC);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	if (fail_nth < 0 || fd < 0 || memory < 0)
		fail("cannot begin: %s", strerror(errno));
	if (mmap(REGION, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS, -1,
		 0) == MAP_FAILED)
		fail("mmap: %s", strerror(errno));
	state->make(fd);
	fill_data(call);
	be_present(fail_nth);
	must(fd, "INFO");

	if (nth && !failure_arm(fail_nth, nth))
		fail("fail-nth: %s", strerror(errno));
	try->first = run(fd, call);
	if (nth)
		try->failed = failure_disarm(fail_nth);
	check_data(call, try->first);
	check_table(fd);
	fill_data(call);
	try->again = run(fd, call);
	check_data(call, try->again);
	check_table(fd);
	check_memory();
	_exit(0);
}

/* Nobody has any page of any device: else nothing that comes after could be judged. */
static void check_left(const struct call *call, const struct state *state, unsigned int nth,
		       const struct device *devices, unsigned int count)
{
	struct timespec step = { .tv_nsec = 1000000 };
	unsigned int i, waited;

	for (i = 0; i < count; i++) {
		for (waited = 0; pages_in_use(&devices[i]); waited++) {
			if (waited == PATIENCE_MS) {
				printf("fail_nth: %s: %s, %s, failure %u: %lu pages of %s in use by nobody\n",
				       device->node, call->name, state->name, nth, pages_in_use(&devices[i]),
				       devices[i].node);
				exit(1);
			}
			nanosleep(&step, NULL);
		}
	}
}

/* One try, by a process of its own. Returns whether it went as it should so far; else try->trouble says why. */
static bool go(const struct call *call, const struct state *state, unsigned int nth, const struct device *devices,
	       unsigned int count)
{
	pid_t pid;
	int status;

	memset(try, 0, sizeof(*try));
	pid = fork();
	if (pid < 0) {
		perror("fail_nth: fork");
		exit(1);
	}
	if (!pid)
		child(call, state, nth);
	if (waitpid(pid, &status, 0) != pid) {
		perror("fail_nth: waitpid");
		exit(1);
	}
	/* A child of the child, which is ours now */
	while (waitpid(-1, NULL, 0) > 0)
		;
	if (WIFSIGNALED(status))
		snprintf(try->trouble, sizeof(try->trouble), "the process died of %s", strsignal(WTERMSIG(status)));
	check_left(call, state, nth, devices, count);
	return !try->trouble[0];
}

/* What the call did under a failure must be what it does without, or a documented error. */
static bool is_documented(const struct call *call, const struct try *plain)
{
	if (try->first == plain->first)
		return true;
	return try->failed && (try->first == ENOMEM || try->first == EFAULT || try->first == call->error);
}

/* ... and it must be possible to go on from there. */
static bool goes_on(const struct try *plain)
{
	if (try->first == plain->first)
		return try->again == plain->again;
	/* Its result could not be handed over, or it could not begin. */
	return try->again == plain->first || (try->first == EFAULT && try->again == plain->again);
}

static const char *name_of(int error)
{
	return error ? strerrorname_np(error) : "ok";
}

/**
 * struct count - what came of a call on a device
 * @failures: how often something failed in it
 * @errors: how often it returned an error for that
 * @worked: states in which it succeeds as long as nothing fails
 */
struct count {
	unsigned int failures;
	unsigned int errors;
	unsigned int worked;
};

/* Failure 0 is none. Returns whether all was well. */
static bool sweep(const struct call *call, const struct state *state, const struct device *devices, unsigned int count,
		  struct count *sum)
{
	struct count before = *sum;
	struct try plain;
	unsigned int nth;
	bool well = true;

	if (!go(call, state, 0, devices, count)) {
		printf("fail_nth: %s: %s, %s, failure 0: %s\n", device->node, call->name, state->name, try->trouble);
		return false;
	}
	plain = *try;
	if (!plain.first)
		sum->worked++;
	for (nth = 1; well && nth < MAX_NTH; nth++) {
		well = go(call, state, nth, devices, count);
		if (well && !is_documented(call, &plain)) {
			snprintf(try->trouble, sizeof(try->trouble), "%s in place of %s", name_of(try->first),
				 name_of(plain.first));
			well = false;
		}
		if (well && !goes_on(&plain)) {
			snprintf(try->trouble, sizeof(try->trouble), "%s, and then %s; without a failure %s, and then %s",
				 name_of(try->first), name_of(try->again), name_of(plain.first), name_of(plain.again));
			well = false;
		}
		if (!well) {
			printf("fail_nth: %s: %s, %s, failure %u: %s\n", device->node, call->name, state->name, nth,
			       try->trouble);
			break;
		}
		if (!try->failed)
			break;
		sum->failures++;
		sum->errors += try->first != plain.first;
	}
	if (nth == MAX_NTH) {
		printf("fail_nth: %s: %s, %s: no end of failures\n", device->node, call->name, state->name);
		well = false;
	}
	if (verbose)
		printf("  %-16s %-8s %5u failures, %5u errors, else %s\n", call->name, state->name,
		       sum->failures - before.failures, sum->errors - before.errors, name_of(plain.first));
	return well;
}

static bool chosen(const struct call *call, char **names)
{
	char **name;

	for (name = names; *name; name++)
		if (!strcmp(*name, call->name))
			return true;
	return !*names;
}

/* Returns how many things were not well. */
static unsigned int sweep_device(char **names, const struct device *devices, unsigned int count, int listener)
{
	unsigned int failures = 0;
	const struct state *state;
	const struct call *call;

	printf("%s\n", device->node);
	for (call = calls; call < calls + ARRAY_SIZE(calls); call++) {
		struct count sum = { 0 };

		if (!chosen(call, names) || call->capability & ~device->info.capabilities)
			continue;
		for (state = states; state < states + ARRAY_SIZE(states); state++) {
			if (state->capability & ~device->info.capabilities)
				continue;
			failures += !sweep(call, state, devices, count, &sum);
			hear(listener);
		}
		printf("%-16s %6u failures, %6u errors\n", call->name, sum.failures, sum.errors);
		if (!sum.worked || !sum.failures) {
			printf("fail_nth: %s: %s %s\n", device->node, call->name,
			       sum.worked ? "has nothing that fails" : "never succeeds");
			failures++;
		}
	}
	return failures;
}

static bool known(char **names)
{
	const struct call *call;
	char **name;

	for (name = names; *name; name++) {
		for (call = calls; call < calls + ARRAY_SIZE(calls); call++)
			if (!strcmp(*name, call->name))
				break;
		if (call == calls + ARRAY_SIZE(calls)) {
			fprintf(stderr, "fail_nth: there is no call %s; there are", *name);
			for (call = calls; call < calls + ARRAY_SIZE(calls); call++)
				fprintf(stderr, " %s", call->name);
			fprintf(stderr, "\n");
			return false;
		}
	}
	return true;
}

int main(int argc, char **argv)
{
	struct device devices[MAX_DEVICES];
	unsigned int count, i, failures = 0;
	int listener, option;

	while ((option = getopt(argc, argv, "v")) != -1) {
		if (option != 'v') {
			fprintf(stderr, "usage: fail_nth [-v] [CALL...]\n");
			return 2;
		}
		verbose = true;
	}
	if (!known(argv + optind))
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!failures_prepare()) {
		fprintf(stderr, "fail_nth: needs CONFIG_FAULT_INJECTION and CONFIG_FAULT_INJECTION_DEBUG_FS: the flavour debug\n");
		return 2;
	}
	count = find_devices(devices);
	if (!count) {
		fprintf(stderr, "fail_nth: no device: is hmm_harness loaded?\n");
		return 2;
	}
	/* Without one nothing is told, and telling cannot fail. */
	listener = listen_to(find_family());
	if (listener < 0) {
		fprintf(stderr, "fail_nth: no events to be heard\n");
		return 2;
	}
	try = mmap(NULL, sizeof(*try), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (try == MAP_FAILED || prctl(PR_SET_CHILD_SUBREAPER, 1)) {
		perror("fail_nth");
		return 1;
	}
	for (i = 0; i < count; i++) {
		device = &devices[i];
		/* They come in pairs that are no different. */
		if (device->info.device % 2 == 0)
			failures += sweep_device(argv + optind, devices, count, listener);
	}
	printf("fail_nth: %s\n", failures ? "failed" : "passed");
	return failures != 0;
}
