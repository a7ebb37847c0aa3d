// SPDX-License-Identifier: GPL-2.0-only
/*
 * Throws good, bad and random ioctls at all devices of hmm_harness, and good
 * and random messages at its netlink family, while the memory, the files, the
 * listeners and the processes concerned come and go.
 *
 *   ioctl_fuzz [-t seconds] [-s seed] [-p processes] [-w] [-f]
 *
 *   -w  switch deliberate mistakes of the module on and off meanwhile
 *   -f  let allocations and copies fail (a kernel with FAULT_INJECTION)
 *
 * The seed decides what each thread of each process does, not how the kernel
 * schedules them. A worker is a process with a thread that changes its memory
 * and threads that call; it exits or is killed after a while, and another one
 * takes its place. Devices opened by the parent are shared by all workers, so
 * that most of them act on the memory of somebody else.
 *
 * Exit status: 0 when every command that the devices of a binding are capable of
 * succeeded there at least once, somebody listened and heard something, there
 * was hugetlb memory where the kernel has that, nobody is stuck, and no device
 * page is left when all are gone; 1 otherwise, with the reason; 2 for a wrong
 * command line or a missing device.
 * Whether the kernel had something to say is for the caller to look up in its
 * log.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "family.h"
#include "fault_injection.h"
#include "hmm_harness.h"
#include "hmm_harness_netlink.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_process_mrelease
#define SYS_process_mrelease 448
#endif

#define PAGE 4096UL
/* All workers map memory at the same place: addresses of one suit the others. */
#define POOL ((char *)0x100000000000UL)
#define POOL_PAGES 2048UL
/* What of it hugetlb memory takes the place of: a page of that, and its kind */
#define HUGE_PAGES 512UL
#define MAP_HUGE_2MB_PAGES (MAP_HUGETLB | 21 << 26)
#define PARAMETERS "/sys/module/hmm_harness/parameters/"
#define NR_HUGEPAGES "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
#define MAX_WORKERS 64
#define CALLERS 2
#define SHARED_FILES 6	/* one of each device that there can be */
#define MAX_ERRNO 134
/* What does not end within so many seconds of being killed is stuck. */
#define PATIENCE 60

struct command {
	const char *name;
	unsigned long nr;
	uint32_t size;
	/* Rare are those that leave the others nothing to work on. */
	unsigned int weight;
	bool range;
	bool data;
	uint32_t flags;
	/* What the device must be capable of for it to succeed. */
	uint64_t capability;
};

static const struct command commands[] = {
	{ "INFO", HMM_HARNESS_INFO, sizeof(struct hmm_harness_info), 2 },
	{ "BIND", HMM_HARNESS_BIND, sizeof(struct hmm_harness_bind), 12 },
	{ "UNBIND", HMM_HARNESS_UNBIND, sizeof(struct hmm_harness_bind), 2 },
	{ "SNAPSHOT", HMM_HARNESS_SNAPSHOT, sizeof(struct hmm_harness_range),
	  12, true, false, HMM_HARNESS_NOWAIT },
	{ "FAULT", HMM_HARNESS_FAULT, sizeof(struct hmm_harness_range),
	  16, true, false, HMM_HARNESS_FAULT_WRITE },
	{ "READ", HMM_HARNESS_READ, sizeof(struct hmm_harness_range),
	  16, true, true, HMM_HARNESS_READ_UNLOCKED },
	{ "WRITE", HMM_HARNESS_WRITE, sizeof(struct hmm_harness_range),
	  16, true, true },
	{ "MIGRATE", HMM_HARNESS_MIGRATE, sizeof(struct hmm_harness_range),
	  20, true, false,
	  HMM_HARNESS_MIGRATE_TO_DEVICE | HMM_HARNESS_MIGRATE_TO_SYSTEM,
	  HMM_HARNESS_CAP_DEVMEM },
	{ "MIGRATE_SHORT", HMM_HARNESS_MIGRATE_SHORT,
	  sizeof(struct hmm_harness_range), 2, true,
	  .capability = HMM_HARNESS_CAP_DEVMEM },
	{ "EXCLUSIVE", HMM_HARNESS_EXCLUSIVE, sizeof(struct hmm_harness_range),
	  12, true, .capability = HMM_HARNESS_CAP_EXCLUSIVE },
	{ "EVICT", HMM_HARNESS_EVICT, sizeof(struct hmm_harness_evict),
	  1, .flags = HMM_HARNESS_EVICT_RANGE | HMM_HARNESS_EVICT_NUMBERS |
		      HMM_HARNESS_EVICT_REMOVE,
	  .capability = HMM_HARNESS_CAP_EVICT },
	{ "MOVE", HMM_HARNESS_MOVE, sizeof(struct hmm_harness_move),
	  16, .flags = HMM_HARNESS_MOVE_TO_DEVICE | HMM_HARNESS_MOVE_TO_SYSTEM,
	  .capability = HMM_HARNESS_CAP_DEVMEM },
	{ "RETURNS", HMM_HARNESS_RETURNS,
	  sizeof(struct hmm_harness_returns), 1,
	  .capability = HMM_HARNESS_CAP_RETURNS },
	{ "TABLE", HMM_HARNESS_TABLE, sizeof(struct hmm_harness_range),
	  12, true, false, HMM_HARNESS_NOWAIT },
	{ "REQUEST", HMM_HARNESS_REQUEST, sizeof(struct hmm_harness_request),
	  12, .capability = HMM_HARNESS_CAP_REQUEST },
	{ "WATCH", HMM_HARNESS_WATCH, sizeof(struct hmm_harness_watch),
	  4, .flags = HMM_HARNESS_WATCH_TWO_PASS,
	  .capability = HMM_HARNESS_CAP_WATCH },
	{ "WATCHED", HMM_HARNESS_WATCHED, sizeof(struct hmm_harness_watch),
	  8, .capability = HMM_HARNESS_CAP_WATCH },
	{ "SEQUENCE", HMM_HARNESS_SEQUENCE, sizeof(struct hmm_harness_sequence),
	  8, .capability = HMM_HARNESS_CAP_WATCH },
	{ "DMA", HMM_HARNESS_DMA, sizeof(struct hmm_harness_dma),
	  12, .flags = HMM_HARNESS_DMA_MAP | HMM_HARNESS_DMA_MAP_WRITE |
		       HMM_HARNESS_DMA_SHOW | HMM_HARNESS_DMA_UNMAP,
	  .capability = HMM_HARNESS_CAP_DMA },
	{ "REFUSE", HMM_HARNESS_REFUSE, sizeof(struct hmm_harness_refuse), 1 },
	{ "USAGE", HMM_HARNESS_USAGE, sizeof(struct hmm_harness_usage), 2 },
	{ "EVENTS", HMM_HARNESS_EVENTS, sizeof(struct hmm_harness_events), 2 },
	{ "GATE_ARM", HMM_HARNESS_GATE_ARM, sizeof(struct hmm_harness_gate),
	  4, .flags = HMM_HARNESS_GATE_ANY_DEVICE,
	  .capability = HMM_HARNESS_CAP_GATES },
	{ "GATE_WAIT", HMM_HARNESS_GATE_WAIT, sizeof(struct hmm_harness_gate),
	  4, .capability = HMM_HARNESS_CAP_GATES },
	{ "GATE_RELEASE", HMM_HARNESS_GATE_RELEASE,
	  sizeof(struct hmm_harness_gate), 6,
	  .capability = HMM_HARNESS_CAP_GATES },
};

/*
 * Which bindings there are depends on the kernel, and whether there is coherent
 * memory, on the guest: it counts as a binding of its own here.
 */
#define BINDINGS 3
static const char *const nodes[BINDINGS * HMM_HARNESS_NR_DEVICES] = {
	"/dev/hmm_harness0", "/dev/hmm_harness1",
	"/dev/hmm_mirror0", "/dev/hmm_mirror1",
	"/dev/hmm_harness2", "/dev/hmm_harness3",
};
static const char *const bindings[BINDINGS] = {
	"interval", "mirror", "interval, coherent",
};

/* The last row is for commands that do not exist. */
#define ROWS (ARRAY_SIZE(commands) + 1)

/* Seen by all processes. outcome[row][0] counts successes. */
struct board {
	bool stop;
	uint64_t outcome[ROWS][MAX_ERRNO];
	uint64_t done[BINDINGS][ROWS];	/* successes */
	uint64_t stale;
	uint64_t retries;
	uint64_t said;		/* netlink messages that were taken */
	uint64_t subscribed;
	uint64_t heard;		/* ... and that came */
	uint64_t huge;		/* hugetlb mappings that there were */
	uint64_t mapped;	/* ... and those of nodes */
};

static struct board *board;
static bool use_faults;
static bool has_huge;
static uint16_t family;	/* of netlink */
static const char *devices[ARRAY_SIZE(nodes)];
static unsigned int binding_of[ARRAY_SIZE(nodes)];	/* of devices */
static bool present[BINDINGS];
static uint64_t capabilities[BINDINGS];
static unsigned int device_count;
static bool use_mistakes;
static int shared_files[SHARED_FILES];

/* What a worker has of its own. */
static int files[SHARED_FILES + 4];
static char *scratch;		/* where results go: 1 page, then a hole */
static char *bulk;		/* where the data of READ and WRITE are */
#define BULK_PAGES 64UL
static int memory_file = -1;
static bool alone;		/* it has one thread, which keeps its files */

static __thread uint64_t random_state;
static __thread int fail_nth_file = -1;
static __thread sigjmp_buf recovery;
static __thread volatile sig_atomic_t recovering;

/* splitmix64 */
static uint64_t rnd(void)
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static uint64_t below(uint64_t n)
{
	return rnd() % n;
}

static bool one_in(uint64_t n)
{
	return below(n) == 0;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void on_fault(int signal)
{
	if (recovering)
		siglongjmp(recovery, 1);
	_exit(128 + signal);
}

/* Reads or writes a page of the pool, whatever is there. */
static void touch(char *at, bool write)
{
	if (sigsetjmp(recovery, 1) == 0) {
		recovering = 1;
		if (write)
			*(volatile uint64_t *)at = rnd();
		else
			(void)*(volatile uint64_t *)at;
	}
	recovering = 0;
}

static char *pool_page(void)
{
	/* Mostly few pages, so that many meet there. */
	return POOL + below(one_in(4) ? POOL_PAGES : 64) * PAGE;
}

static uint64_t some_length(void)
{
	switch (below(32)) {
	case 0:
		return 513 + below(600);
	case 1:
		return below(POOL_PAGES);
	default:
		return 1 + below(16);
	}
}

static uint64_t some_address(const struct command *command)
{
	static int data_of_ours;
	/* What ruins a worker's own stack, text and data is not called there. */
	bool harmless = command->nr != HMM_HARNESS_WRITE &&
			!(use_mistakes &&
			  (command->nr == HMM_HARNESS_MIGRATE ||
			   command->nr == HMM_HARNESS_MOVE ||
			   command->nr == HMM_HARNESS_MIGRATE_SHORT));

	switch (below(48)) {
	case 0:
		return rnd();
	case 1:
		return rnd() & (PAGE - 1);
	case 2:
		return (uint64_t)pool_page() + below(PAGE);
	case 3:
		return 0x7ffffffff000 - below(20) * PAGE;
	case 4:
		return 0xffff800000000000 + (rnd() & 0x7fffffff000);
	case 5:
		return 0xfffffffffffff000 - below(3) * PAGE;
	case 6:
		if (!harmless)
			break;
		return (uint64_t)&command & ~(PAGE - 1);
	case 7:
		if (!harmless)
			break;
		return (uint64_t)some_address & ~(PAGE - 1);
	case 8:
		if (!harmless)
			break;
		return (uint64_t)&data_of_ours & ~(PAGE - 1);
	case 9:
		return (uint64_t)POOL + (POOL_PAGES - 4) * PAGE;
	default:
		break;
	}
	return (uint64_t)pool_page();
}

static unsigned int some_row(void)
{
	unsigned int row, sum = 0;
	uint64_t at;

	for (row = 0; row < ARRAY_SIZE(commands); row++)
		sum += commands[row].weight;
	at = below(sum);
	for (row = 0; at >= commands[row].weight; row++)
		at -= commands[row].weight;
	return row;
}

/* A user pointer for results or data: good, bad, or changing under our feet. */
static uint64_t some_pointer(bool data)
{
	switch (below(32)) {
	case 0:
		return 0;
	case 1:
		return rnd();
	case 2:
		return 1 + 2 * below(2000);
	case 3:
		return 0xffff888000000000 + (rnd() & 0xfffff000);
	case 4:
		return (uint64_t)scratch + PAGE - 8 * below(20);
	case 5:
		return (uint64_t)pool_page() + (one_in(2) ? below(PAGE) : 0);
	case 6:
		return (uint64_t)bulk + below(PAGE);
	default:
		break;
	}
	if (data)
		return (uint64_t)bulk;
	return one_in(3) ? 0 : (uint64_t)bulk;
}

static uint32_t some_size(uint32_t right)
{
	static const uint32_t sizes[] = {
		0, 1, 4, 8, 4095, 4096, 4097, 0x7fffffff, 0xffffffff,
	};

	switch (below(16)) {
	case 0:
		return sizes[below(ARRAY_SIZE(sizes))];
	case 1:
		return right + 8 * below(10);
	case 2:
		return right - 1 - below(8);
	default:
		return right;
	}
}

static void fill_range(struct hmm_harness_range *args,
		       const struct command *command)
{
	static const uint64_t lengths[] = {
		0, HMM_HARNESS_MAX_PAGES, HMM_HARNESS_MAX_PAGES + 1,
		1UL << 52, (1UL << 52) - 1, 1UL << 60, ~0UL,
	};

	args->addr = some_address(command);
	args->npages = one_in(20) ? lengths[below(ARRAY_SIZE(lengths))] :
				    some_length();
	if (command->data && args->npages > BULK_PAGES && !one_in(4))
		args->npages = 1 + below(BULK_PAGES);
	args->pages = some_pointer(false);
	args->data = command->data ? some_pointer(true) : 0;
	args->flags = command->flags;
	if (command->flags)
		args->flags &= 1u << below(2);
	if (one_in(30))
		args->flags = rnd() >> below(64);
	if (one_in(30) && !command->data)
		args->data = rnd();
}

static void fill_request(struct hmm_harness_request *args,
			 const struct command *command)
{
	args->addr = some_address(command);
	args->npages = one_in(20) ? rnd() >> below(64) : some_length();
	args->default_flags = below(4);
	args->mask = below(4);
	args->owner = below(one_in(20) ? 8 : 3);
	args->flags = one_in(8) ? below(8) : 0;
	args->asked = some_pointer(false);
	args->pages = some_pointer(false);
	args->raw = some_pointer(false);
	args->counts = some_pointer(false);
	if (one_in(40))
		args->reserved = rnd();
}

/* Mostly without choices: garbage is refused. */
static void fill_move(struct hmm_harness_move *args,
		      const struct command *command)
{
	args->addr = some_address(command);
	args->npages = one_in(20) ? rnd() >> below(64) : some_length();
	args->flags = 1u << below(2);
	if (one_in(2)) /* where there are huge pages */
		args->flags |= HMM_HARNESS_MOVE_COMPOUND;
	if (one_in(3)) {
		args->addr = (uint64_t)POOL + below(POOL_PAGES / 512) * 512 * PAGE;
		args->npages = 512;
	}
	args->sources = below(one_in(20) ? 16 : 6);
	args->choices = one_in(4) ? some_pointer(false) : 0;
	args->pages = some_pointer(false);
	args->before = some_pointer(false);
	args->after = some_pointer(false);
	args->places = some_pointer(false);
	if (one_in(20))
		args->flags = below(64);
	else if (one_in(8))
		args->flags |= HMM_HARNESS_MOVE_LOCKED;
	else if (one_in(16))
		args->flags |= HMM_HARNESS_MOVE_EMPTY << below(8);
	if (one_in(40))
		args->reserved = rnd();
}

/* One of a few, and one of them most often: what was watched or mapped is to be met again. */
static void some_range(__u64 *addr, __u64 *npages)
{
	*addr = (uint64_t)POOL + (one_in(2) ? 0 : below(4) * 4 * PAGE);
	*npages = one_in(2) ? 1 : 1 + below(3) * 6;
}

static void fill_watch(struct hmm_harness_watch *args,
		       const struct command *command)
{
	some_range(&args->addr, &args->npages);
	args->flags = command->flags & one_in(2);
	if (command->flags && one_in(2))
		args->flags = HMM_HARNESS_WATCH_TWO_PASS << below(6);
	if (command->flags && one_in(40))
		args->flags |= HMM_HARNESS_WATCH_PLAIN;
	if (command->nr == HMM_HARNESS_WATCHED)
		args->pages = some_pointer(false);
	if (one_in(20))
		args->addr = some_address(command);
	if (one_in(20))
		args->npages = rnd() >> below(64);
	if (one_in(40))
		args->pages = rnd();
}

static void fill_sequence(struct hmm_harness_sequence *args,
			  const struct command *command)
{
	some_range(&args->addr, &args->npages);
	if (one_in(20))
		args->addr = some_address(command);
	if (one_in(20))
		args->npages = rnd() >> below(64);
}

static void fill_dma(struct hmm_harness_dma *args,
		     const struct command *command)
{
	some_range(&args->addr, &args->npages);
	args->flags = 1u << below(4);
	if (args->flags < HMM_HARNESS_DMA_SHOW)
		args->owner = below(one_in(20) ? 8 : 3);
	if (args->flags != HMM_HARNESS_DMA_UNMAP)
		args->pages = some_pointer(false);
	if (one_in(20))
		args->addr = some_address(command);
	if (one_in(20))
		args->npages = one_in(2) ? some_length() : rnd() >> below(64);
	if (one_in(40))
		args->flags = rnd();
	if (one_in(40))
		args->reserved = rnd();
}

static void fill_refuse(struct hmm_harness_refuse *args,
			const struct command *command)
{
	if (one_in(4))
		return;
	args->addr = some_address(command);
	args->npages = one_in(20) ? rnd() >> below(64) : some_length();
}

/* Few threads, so that some are under control, and mostly for a moment: parked, they call nobody. */
static void fill_gate(struct hmm_harness_gate *args,
		      const struct command *command)
{
	args->thread = one_in(2) ? getpid() : gettid();
	if (one_in(20))
		args->thread = one_in(2) ? (uint64_t)getppid() : rnd() >> below(64);
	if (command->nr == HMM_HARNESS_GATE_ARM) {
		args->gate = below(HMM_HARNESS_GATE_LAST + 1);
		args->skip = one_in(2) ? below(4) : 0;
		args->time = 1 + below(one_in(20) ? 300 : 10);
		args->flags = command->flags & one_in(2);
	} else if (command->nr == HMM_HARNESS_GATE_WAIT) {
		args->time = below(20);
		args->trace = some_pointer(false);
	}
	if (one_in(40))
		args->gate = rnd() >> below(64);
	if (one_in(80))
		args->time = rnd() >> below(64);
	if (one_in(40))
		args->trace = rnd();
}

static void count(uint64_t *what)
{
	__atomic_fetch_add(what, 1, __ATOMIC_RELAXED);
}

/* @slot: of the file in files */
static void note(unsigned int row, unsigned int slot, int result, int error)
{
	unsigned int at = result < 0 ? error : 0;

	if (at >= MAX_ERRNO)
		at = MAX_ERRNO - 1;
	count(&board->outcome[row][at]);
	/*
	 * Only of these is it known which device they are. Those that all share
	 * are soon full of threads that ended, under control of nobody.
	 */
	if (!at && (slot < SHARED_FILES || alone))
		count(&board->done[binding_of[slot % device_count]][row]);
}

/* Contradictions between the tables may only be seen under mistakes. */
static void look_for_stale(const struct hmm_harness_range *args)
{
	const uint64_t *pages = (const uint64_t *)args->pages;
	uint64_t i;

	if (args->pages != (uint64_t)bulk ||
	    args->done > BULK_PAGES * PAGE / sizeof(*pages))
		return;
	for (i = 0; i < args->done; i++)
		if (pages[i] & HMM_HARNESS_PAGE_STALE)
			count(&board->stale);
}

static void arm_failure(void)
{
	if (fail_nth_file < 0 || !one_in(4))
		return;
	if (!failure_arm(fail_nth_file, 1 + below(24)))
		fail_nth_file = -1;
}

static void disarm_failure(void)
{
	if (fail_nth_file >= 0)
		failure_disarm(fail_nth_file);
}

/* @lonely: nobody else writes to bulk, so that results can be believed. */
static void call(bool lonely)
{
	union {
		uint32_t head[2];
		struct hmm_harness_range range;
		struct hmm_harness_request request;
		struct hmm_harness_watch watch;
		struct hmm_harness_sequence sequence;
		struct hmm_harness_dma dma;
		struct hmm_harness_refuse refuse;
		struct hmm_harness_move move;
		struct hmm_harness_returns returns;
		struct hmm_harness_gate gate;
		unsigned char raw[8192];
	} *args;
	static __thread char own[8192];
	unsigned int row = some_row();
	const struct command *command = &commands[row];
	unsigned long nr = command->nr;
	unsigned int slot = below(ARRAY_SIZE(files));
	int fd = files[slot];
	uint64_t style = below(20);
	int result, error;
	size_t i;

	args = (void *)own;
	memset(args, 0, 256);
	args->head[0] = some_size(command->size);
	if (command->range)
		fill_range(&args->range, command);
	else if (nr == HMM_HARNESS_REQUEST)
		fill_request(&args->request, command);
	else if (nr == HMM_HARNESS_SEQUENCE)
		fill_sequence(&args->sequence, command);
	else if (nr == HMM_HARNESS_DMA)
		fill_dma(&args->dma, command);
	else if (nr == HMM_HARNESS_REFUSE)
		fill_refuse(&args->refuse, command);
	else if (nr == HMM_HARNESS_MOVE)
		fill_move(&args->move, command);
	else if (nr == HMM_HARNESS_RETURNS)
		/* Few, else nobody lives long. */
		args->returns.count = below(one_in(8) ? 40 : 3);
	else if (nr == HMM_HARNESS_EVICT && one_in(2))
		args->head[1] = 1u << (one_in(8) ? 2 : below(2));
	else if (nr == HMM_HARNESS_GATE_ARM || nr == HMM_HARNESS_GATE_WAIT ||
		 nr == HMM_HARNESS_GATE_RELEASE)
		fill_gate(&args->gate, command);
	else if (nr == HMM_HARNESS_WATCH || nr == HMM_HARNESS_WATCHED)
		fill_watch(&args->watch, command);
	else if (one_in(30))
		args->head[1] = rnd() >> below(64);

	if (style == 0) {
		/* Raw: anything anywhere, the right number more often. */
		for (i = 0; i < 256; i++)
			args->raw[i] = rnd();
		if (one_in(2))
			args->head[0] = some_size(command->size);
	} else if (style == 1) {
		/* A command that does not exist, or almost does. */
		nr = one_in(2) ? rnd() : nr ^ (1UL << below(32));
		for (i = 0; i < ARRAY_SIZE(commands); i++)
			if (commands[i].nr == (uint32_t)nr)
				return;
		row = ROWS - 1;
	} else if (style == 2) {
		/* The struct ends where the memory ends, or is nowhere. */
		char *end = scratch + PAGE - (one_in(2) ? command->size :
							  below(128));

		if (one_in(2)) {
			args = (void *)some_pointer(false);
		} else {
			memcpy(end, own, scratch + PAGE - end);
			args = (void *)end;
		}
	} else if (style == 3 && args->head[0] > command->size) {
		args->raw[command->size + below(64)] = rnd();
	}

	arm_failure();
	result = ioctl(fd, nr, args);
	error = errno;
	disarm_failure();

	note(row, slot, result, error);
	if ((void *)args != (void *)own || !command->range || row == ROWS - 1 ||
	    style == 0)
		return;
	__atomic_fetch_add(&board->retries, args->range.retries,
			   __ATOMIC_RELAXED);
	if (lonely && command->nr == HMM_HARNESS_TABLE)
		look_for_stale(&args->range);
}

/* Asks to be killed when the process that forked us ends, which may be over. */
static void die_with(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(0);
}

/* A child that shares the memory, looks at it, and goes in one way or another. */
static void spawn_child(void)
{
	uint64_t seed = rnd();
	pid_t parent = getpid();
	pid_t child = fork();
	int i;

	if (child) {
		if (child > 0 && one_in(2))
			kill(child, SIGKILL);
		return;
	}
	die_with(parent);
	random_state = seed;
	if (use_faults)
		fail_nth_file = failures_open();	/* ours, not the parent's */
	for (i = below(40); i > 0 && !board->stop; i--) {
		if (one_in(3))
			touch(pool_page(), one_in(2));
		else
			call(false);
	}
	_exit(0);
}

static char *huge_of(char *at)
{
	return POOL + (at - POOL) / (HUGE_PAGES * PAGE) * HUGE_PAGES * PAGE;
}

/*
 * Memory out of the kernel's pool of huge pages, which has fewer than are
 * asked for, with or without a claim to one.
 */
static void map_huge(char *at)
{
	int protection = one_in(4) ? (int)below(8) : PROT_READ | PROT_WRITE;
	int flags = MAP_FIXED | MAP_ANONYMOUS | MAP_HUGE_2MB_PAGES |
		    (one_in(4) ? MAP_SHARED : MAP_PRIVATE) |
		    (one_in(2) ? MAP_NORESERVE : 0);

	if (mmap(at, HUGE_PAGES * PAGE, protection, flags, -1, 0) == MAP_FAILED)
		return;
	count(&board->huge);
	touch(at + below(HUGE_PAGES) * PAGE, one_in(2));
}

/* Memory of the module's own, which no device may have: of any open file, or of what is none. */
static void map_node(char *at, uint64_t npages)
{
	static const off_t offsets[] = {
		HMM_HARNESS_MMAP_PFNS, HMM_HARNESS_MMAP_MIXED,
		HMM_HARNESS_MMAP_MIXED + PAGE, PAGE,
	};
	off_t offset = offsets[below(one_in(4) ? ARRAY_SIZE(offsets) : 2)];
	int protection = one_in(4) ? (int)below(8) : PROT_READ | PROT_WRITE;
	int flags = MAP_FIXED | (one_in(8) ? MAP_PRIVATE : MAP_SHARED);

	if (mmap(at, npages * PAGE, protection, flags,
		 files[below(ARRAY_SIZE(files))], offset) == MAP_FAILED)
		return;
	count(&board->mapped);
	touch(at + below(npages) * PAGE, one_in(2));
}

static void map_something(char *at, uint64_t npages)
{
	int protection = one_in(4) ? (int)below(8) : PROT_READ | PROT_WRITE;
	int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
	int fd = -1;

	switch (below(8)) {
	case 0:
		flags = MAP_FIXED | MAP_SHARED | MAP_ANONYMOUS;
		break;
	case 1:
		flags = MAP_FIXED | MAP_SHARED;
		fd = memory_file;
		break;
	case 2:
		flags = MAP_FIXED | MAP_PRIVATE;
		fd = memory_file;
		break;
	case 3:
		flags |= MAP_POPULATE;
		break;
	default:
		break;
	}
	/* Hugetlb memory goes as a whole, or not at all. */
	if (one_in(8)) {
		at = huge_of(at);
		npages = HUGE_PAGES;
	}
	mmap(at, npages * PAGE, protection, flags, fd, 0);
}

static void change_memory(void)
{
	static const int advices[] = {
		MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT,
		MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_MERGEABLE,
		MADV_UNMERGEABLE, MADV_WILLNEED, MADV_REMOVE, MADV_DONTFORK,
		MADV_DOFORK, 102 /* MADV_GUARD_INSTALL */, 103 /* _REMOVE */,
	};
	char *at = pool_page();
	uint64_t n = some_length();

	if (n > (uint64_t)(POOL + POOL_PAGES * PAGE - at) / PAGE)
		n = (POOL + POOL_PAGES * PAGE - at) / PAGE;
	if (!n)
		n = 1;

	switch (below(16)) {
	case 0:
		munmap(at, n * PAGE);
		break;
	case 1:
	case 2:
	case 3:
		map_something(at, n);
		break;
	case 4:
		mprotect(at, n * PAGE, below(8));
		break;
	case 5:
		mprotect(at, n * PAGE, PROT_READ | PROT_WRITE);
		break;
	case 6:
	case 7:
		madvise(at, n * PAGE, advices[below(ARRAY_SIZE(advices))]);
		break;
	case 8:
		mremap(at, n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		       pool_page());
		break;
	case 9:
		if (one_in(8))
			spawn_child();
		else if (has_huge && one_in(8))
			map_huge(huge_of(at));
		else if (one_in(4))
			map_node(at, n);
		break;
	case 10:
		/* May fail for lack of memory, which is as good. */
		(void)!ftruncate(memory_file, below(POOL_PAGES) * PAGE);
		break;
	case 11:
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		break;
	default:
		touch(at, one_in(2));
		break;
	}
}

/* Closes and opens a file of the worker, under the eyes of its other threads. */
static void change_file(void)
{
	int *file = &files[SHARED_FILES +
			   below(ARRAY_SIZE(files) - SHARED_FILES)];

	close(*file);
	*file = open(devices[below(device_count)], O_RDWR);
}

/* Subscribes and listens for a while, or says what nobody should say. */
static void use_netlink(void)
{
	static const uint8_t good[] = {
		HMM_HARNESS_CMD_SUBSCRIBE, HMM_HARNESS_CMD_STATE,
		HMM_HARNESS_CMD_UNSUBSCRIBE,
	};
	struct timeval patience = { .tv_usec = one_in(8) ? 50000 : 2000 };
	bool sane = one_in(2);
	unsigned char message[4096] __attribute__((aligned(4)));
	struct nlmsghdr *head = (void *)message;
	struct genlmsghdr *genl = NLMSG_DATA(head);
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	size_t length, say;
	int i;

	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	/* A listener that is closed without a word has to be forgotten. */
	for (say = 0; say < ARRAY_SIZE(good) && !(sane && one_in(4)); say++) {
		for (length = 0; !sane && length < 128; length++)
			message[length] = rnd();
		length = NLMSG_LENGTH(GENL_HDRLEN + (sane ? 0 : below(64)));
		head->nlmsg_len = sane || one_in(8) ? length : below(128);
		head->nlmsg_type = family;
		head->nlmsg_flags = NLM_F_REQUEST |
				    (sane ? 0 : one_in(2) ? NLM_F_DUMP : rnd());
		genl->cmd = sane ? good[say] : below(16);
		genl->version = HMM_HARNESS_FAMILY_VERSION;
		if (send(fd, message, length, 0) < 0)
			break;
		count(&board->said);
		for (i = below(50); i > 0; i--) {
			if (recv(fd, message, sizeof(message), 0) < 0)
				break;
			if (!sane || head->nlmsg_type != family)
				continue;
			if (genl->cmd == HMM_HARNESS_CMD_SUBSCRIBE)
				count(&board->subscribed);
			else if (genl->cmd >= HMM_HARNESS_CMD_INVALIDATION)
				count(&board->heard);
		}
	}
	close(fd);
}

struct thread {
	uint64_t seed;
	uint64_t steps;
	bool calls;
};

static void *run_thread(void *argument)
{
	struct thread *thread = argument;
	uint64_t step;

	random_state = thread->seed;
	if (use_faults)
		fail_nth_file = failures_open();
	for (step = 0; step < thread->steps && !board->stop; step++) {
		if (!thread->calls)
			change_memory();
		else if (one_in(200))
			change_file();
		else if (one_in(100))
			use_netlink();
		else
			call(false);
	}
	return NULL;
}

static void worker(uint64_t seed, pid_t parent)
{
	struct thread threads[CALLERS + 1];
	pthread_t ids[CALLERS + 1];
	unsigned int i;

	die_with(parent);
	signal(SIGSEGV, on_fault);
	signal(SIGBUS, on_fault);
	random_state = seed;

	memory_file = memfd_create("pool", 0);
	scratch = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bulk = mmap(NULL, (BULK_PAGES + 1) * PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory_file < 0 || scratch == MAP_FAILED || bulk == MAP_FAILED)
		_exit(3);
	munmap(scratch + PAGE, PAGE);
	mmap(POOL, POOL_PAGES / 2 * PAGE, PROT_READ | PROT_WRITE,
	     MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memcpy(files, shared_files, sizeof(shared_files));
	for (i = SHARED_FILES; i < ARRAY_SIZE(files); i++)
		files[i] = open(devices[i % device_count], O_RDWR);

	alone = one_in(4);
	if (alone) { /* so that what the table says can be believed */
		uint64_t step, steps = 200 + below(2000);

		for (step = 0; step < steps && !board->stop; step++) {
			if (one_in(3))
				change_memory();
			else
				call(true);
		}
		_exit(0);
	}

	for (i = 0; i < ARRAY_SIZE(threads); i++) {
		threads[i].seed = rnd();
		threads[i].steps = 200 + below(4000);
		threads[i].calls = i > 0;
		if (pthread_create(&ids[i], NULL, run_thread, &threads[i]))
			_exit(3);
	}
	for (i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(ids[i], NULL);
	_exit(0);
}

static pid_t start_worker(uint64_t seed)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid == 0)
		worker(seed, parent);
	if (pid < 0) {
		perror("ioctl_fuzz: fork");
		exit(1);
	}
	return pid;
}

/*
 * Ends the workers and waits for their children as well, which come to us when
 * a worker ends: until they are gone, they have memory. Returns whether some are
 * left.
 */
static bool kill_all(const pid_t *workers, int count)
{
	double deadline = now() + PATIENCE;
	pid_t dead;
	int i;

	board->stop = true;
	usleep(500000);
	/* None was waited for since the last start: the numbers are theirs. */
	for (i = 0; i < count; i++)
		kill(workers[i], SIGKILL);
	do {
		dead = waitpid(-1, NULL, WNOHANG);
		if (dead < 0 && errno == ECHILD)
			return false;
		if (dead == 0)
			usleep(10000);
	} while (now() < deadline);
	printf("ioctl_fuzz: a process does not end\n");
	return true;
}

/* One in two loses its memory as to the OOM reaper, which does not sleep. */
static void kill_one(pid_t worker)
{
	int pidfd = one_in(2) ? syscall(SYS_pidfd_open, worker, 0) : -1;

	kill(worker, SIGKILL);
	if (pidfd < 0)
		return;
	/* It may be too late, too early, or refused: all the same here. */
	syscall(SYS_process_mrelease, pidfd, 0);
	close(pidfd);
}

/* Fills in what the file says. */
static bool get(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	return true;
}

/* Whether @list, of names with commas between, has @name. */
static bool lists(const char *list, const char *name)
{
	size_t n = strlen(name), length;

	for (; *list; list += length + !!list[length]) {
		length = strcspn(list, ",\n");
		if (length == n && !strncmp(list, name, n))
			return true;
	}
	return false;
}

/* Of @names, but for the @fatal ones: after these nothing is to be relied on. */
static void switch_mistakes(char *names, const char *fatal)
{
	char text[2048] = "\n";
	char *copy, *name, *rest;

	if (one_in(2)) {
		copy = rest = strdup(names);
		while ((name = strsep(&rest, ",\n"))) {
			if (!*name || !one_in(4) || lists(fatal, name))
				continue;
			if (text[0] == '\n')
				text[0] = '\0';
			else
				strcat(text, ",");
			strcat(text, name);
		}
		free(copy);
	}
	if (!put(PARAMETERS "wrong", text))
		perror("ioctl_fuzz: wrong");
}

/* Everything that a binding is capable of has to have worked there. */
static int check_reach(void)
{
	unsigned int binding, row, failures = 0;

	for (binding = 0; binding < BINDINGS; binding++) {
		for (row = 0; row < ROWS - 1 && present[binding]; row++) {
			if (board->done[binding][row] ||
			    commands[row].capability & ~capabilities[binding])
				continue;
			printf("ioctl_fuzz: %s: %s never succeeded\n",
			       bindings[binding], commands[row].name);
			failures++;
		}
	}
	printf("netlink   %9lu messages, %lu subscriptions, %lu times events\n",
	       board->said, board->subscribed, board->heard);
	if (!board->subscribed || !board->heard) {
		printf("ioctl_fuzz: nobody heard anything\n");
		failures++;
	}
	printf("hugetlb   %9lu mappings\n", board->huge);
	printf("nodes     %9lu mappings\n", board->mapped);
	if (!board->mapped) {
		printf("ioctl_fuzz: there was never any memory of a node\n");
		failures++;
	}
	if (has_huge && !board->huge) {
		printf("ioctl_fuzz: there was never any hugetlb memory\n");
		failures++;
	}
	return failures;
}

static int report(void)
{
	unsigned int row, at, failures = 0;
	uint64_t calls, total = 0;

	for (row = 0; row < ROWS; row++) {
		calls = 0;
		for (at = 0; at < MAX_ERRNO; at++)
			calls += board->outcome[row][at];
		total += calls;
		printf("%-9s %9lu calls, %9lu ok",
		       row < ROWS - 1 ? commands[row].name : "(none)", calls,
		       board->outcome[row][0]);
		for (at = 1; at < MAX_ERRNO; at++)
			if (board->outcome[row][at])
				printf(", %lu %s", board->outcome[row][at],
				       strerrorname_np(at) ? : "?");
		printf("\n");
	}
	if (board->outcome[ROWS - 1][0]) {
		printf("ioctl_fuzz: a command that does not exist succeeded\n");
		failures++;
	}
	printf("%lu calls, %lu retries, %lu stale entries seen\n", total,
	       board->retries, board->stale);
	if (!use_mistakes && board->stale) {
		printf("ioctl_fuzz: the device's table contradicted the CPU's\n");
		failures++;
	}
	return failures;
}

/*
 * A worker's stack and data are ours as well, page by page, until one of us writes
 * there. What of that was moved to a device is there for us, too: it would count
 * as in use by nobody. This brings it back, and nothing that anybody else has.
 */
static void come_home(int fd)
{
	struct hmm_harness_bind bind = { .size = sizeof(bind) };
	struct hmm_harness_range range;
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end;
	char line[512];

	if (!maps || ioctl(fd, HMM_HARNESS_BIND, &bind)) {
		perror("ioctl_fuzz: cannot look after our own memory");
		exit(1);
	}
	while (fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx", &start, &end) != 2)
			continue;
		range = (struct hmm_harness_range){
			.size = sizeof(range),
			.flags = HMM_HARNESS_MIGRATE_TO_SYSTEM,
			.addr = start,
			.npages = (end - start) / PAGE,
		};
		/* Of some memory no device can have anything, and it fails. */
		ioctl(fd, HMM_HARNESS_MIGRATE, &range);
	}
	fclose(maps);
	ioctl(fd, HMM_HARNESS_UNBIND, &bind);
}

/* What the module knows of a device: whether a page that is left was moved to it, or is on its way. */
static void show_device(const char *path)
{
	char line[256];
	FILE *file;

	snprintf(line, sizeof(line), "/sys/kernel/debug/hmm_harness/%s", strrchr(path, '/') + 1);
	file = fopen(line, "r");
	while (file && fgets(line, sizeof(line), file))
		printf("  %s", line);
	if (file)
		fclose(file);
}

/* What processes that are gone had in use is free after so long. */
#define RESIDUE_MS 5000

/* All are gone: the devices must be as if nobody had ever been there. */
static int check_residue(void)
{
	struct hmm_harness_usage usage;
	const char *path;
	int fd, failures = 0;
	unsigned int i, waited;

	for (i = 0; i < device_count; i++) {
		path = devices[i];
		fd = open(path, O_RDWR);
		/* The kernel may have the last page in hand for a moment. */
		for (waited = 0; waited <= RESIDUE_MS; waited += 100) {
			usage = (struct hmm_harness_usage){ .size = sizeof(usage) };
			if (fd < 0 || ioctl(fd, HMM_HARNESS_USAGE, &usage)) {
				printf("ioctl_fuzz: %s: %s\n", path, strerror(errno));
				return 1;
			}
			if (!usage.in_use)
				break;
			come_home(fd);
			usleep(100000);
		}
		close(fd);
		if (waited && !usage.in_use)
			printf("ioctl_fuzz: %s: the last page was free after %u ms\n", path, waited);
		printf("%s: %llu pages allocated, %llu freed, %llu CPU faults\n",
		       path, usage.allocated, usage.freed, usage.cpu_faults);
		if (usage.in_use) {
			printf("ioctl_fuzz: %s: %llu pages in use by nobody\n",
			       path, usage.in_use);
			show_device(path);
			failures++;
		}
	}
	return failures;
}

int main(int argc, char **argv)
{
	unsigned long seconds = 10, seed = time(NULL), count = 4;
	pid_t workers[MAX_WORKERS] = { 0 };
	struct hmm_harness_info info = { .size = sizeof(info) };
	char names[2048] = "", fatal[2048] = "";
	double end;
	pid_t dead;
	int option, failures;
	unsigned long i;

	while ((option = getopt(argc, argv, "t:s:p:wf")) != -1) {
		switch (option) {
		case 't':
			seconds = strtoul(optarg, NULL, 0);
			break;
		case 's':
			seed = strtoul(optarg, NULL, 0);
			break;
		case 'p':
			count = strtoul(optarg, NULL, 0);
			break;
		case 'w':
			use_mistakes = true;
			break;
		case 'f':
			use_faults = true;
			break;
		default:
			goto usage;
		}
	}
	if (optind != argc || !count || count > MAX_WORKERS)
		goto usage;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ioctl_fuzz: %lu seconds, %lu processes, seed %lu\n", seconds,
	       count, seed);

	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED) {
		perror("ioctl_fuzz: mmap");
		return 1;
	}
	for (i = 0; i < ARRAY_SIZE(nodes); i++) {
		if (access(nodes[i], F_OK))
			continue;
		binding_of[device_count] = i / HMM_HARNESS_NR_DEVICES;
		present[i / HMM_HARNESS_NR_DEVICES] = true;
		devices[device_count++] = nodes[i];
	}
	for (i = 0; i < SHARED_FILES; i++) {
		shared_files[i] = -1;
		if (device_count)
			shared_files[i] = open(devices[i % device_count],
					       O_RDWR);
		if (shared_files[i] < 0) {
			perror("ioctl_fuzz: no device");
			return 2;
		}
		if (ioctl(shared_files[i], HMM_HARNESS_INFO, &info)) {
			perror("ioctl_fuzz: INFO");
			return 2;
		}
		capabilities[binding_of[i % device_count]] = info.capabilities;
	}
	family = find_family();
	if (!family) {
		fprintf(stderr, "ioctl_fuzz: no netlink family %s\n",
			HMM_HARNESS_FAMILY_NAME);
		return 2;
	}
	if (use_faults && !failures_prepare()) {
		fprintf(stderr, "ioctl_fuzz: -f needs CONFIG_FAULT_INJECTION\n");
		return 2;
	}
	if (use_mistakes &&
	    (!get(PARAMETERS "wrong_names", names, sizeof(names)) ||
	     !get(PARAMETERS "wrong_fatal", fatal, sizeof(fatal)))) {
		perror("ioctl_fuzz: wrong_names, wrong_fatal");
		return 2;
	}

	has_huge = put(NR_HUGEPAGES, "8\n");
	if (prctl(PR_SET_CHILD_SUBREAPER, 1)) {
		perror("ioctl_fuzz: PR_SET_CHILD_SUBREAPER");
		return 1;
	}
	random_state = seed;
	for (i = 0; i < count; i++)
		workers[i] = start_worker(rnd());
	end = now() + seconds;
	while (now() < end) {
		usleep(5000);
		if (one_in(200))
			kill_one(workers[below(count)]);
		if (use_mistakes && one_in(40))
			switch_mistakes(names, fatal);
		while ((dead = waitpid(-1, NULL, WNOHANG)) > 0)
			for (i = 0; i < count; i++)
				if (workers[i] == dead)
					workers[i] = start_worker(rnd());
	}

	failures = kill_all(workers, count);
	if (use_mistakes && !put(PARAMETERS "wrong", "\n"))
		failures++;
	for (i = 0; i < SHARED_FILES; i++)
		close(shared_files[i]);
	if (has_huge && !put(NR_HUGEPAGES, "0\n"))
		failures++;
	failures += report();
	failures += check_reach();
	failures += check_residue();
	printf("ioctl_fuzz: %s\n", failures ? "failed" : "passed");
	return failures != 0;

usage:
	fprintf(stderr,
		"usage: ioctl_fuzz [-t seconds] [-s seed] [-p processes (1-%d)] [-w] [-f]\n",
		MAX_WORKERS);
	return 2;
}
