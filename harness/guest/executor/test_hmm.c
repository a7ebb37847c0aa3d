// SPDX-License-Identifier: GPL-2.0-only
/*
 * The `test_hmm` binding: the kernel's own lib/test_hmm.c, with the numbers of
 * the kernel that the executor was compiled for.
 *
 * What it has nothing for is WIRE_UNSUPPORTED. So is what would bring the kernel
 * down: its mirror keeps the page that holds the data, but where a device page
 * of its own has lost its entry (any invalidation does that), a device access
 * enters the ZONE_DEVICE page itself, which has no memory, and touches it. An
 * access to a range where one page lacks an entry enters all that follow anew,
 * and does the same to them. Therefore device-private pages are accessed on their
 * own, and only where they have entries. Coherent ones do have memory.
 *
 * Of coherent memory it has one piece, and warns when it adds that once more: when
 * it is full, or, since huge pages migrate, when it is asked for one. So a
 * migration there never covers 2 MiB at once.
 *
 * Since huge pages migrate (v6.19), the entry of a page that came to the device
 * from nothing, or from the zero page, cannot be written, though the CPU's can:
 * a write would lead to the same. And v5.10 looks for ever for the pages of a
 * process that has exited.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "executor.h"
#include "token.h"

#if __has_include("test_hmm_uapi.h")

#include "hmm_harness.h"
#include "test_hmm_uapi.h"

/* v5.10 has one direction only, under this name. */
#ifndef HMM_DMIRROR_MIGRATE_TO_DEV
#define HMM_DMIRROR_MIGRATE_TO_DEV HMM_DMIRROR_MIGRATE
#endif

/* READ, by faults that take the mmap lock themselves: v7.3 */
#define NO_COMMAND 0
#ifdef HMM_DMIRROR_READ_UNLOCKED
#define READ_UNLOCKED HMM_DMIRROR_READ_UNLOCKED
#else
#define READ_UNLOCKED NO_COMMAND
#endif

/* Whether an access to a process that has exited fails, as it should */
#ifdef HMM_DMIRROR_MIGRATE_TO_SYS
#define NOTICES_EXIT true
#else
#define NOTICES_EXIT false
#endif

/* Whether an entry made by migration can be written where the CPU's can */
#ifdef HMM_DMIRROR_FLAGS
#define ENTRY_LIKE_CPU false
#else
#define ENTRY_LIKE_CPU true
#endif

#define PROT_KIND 0x70		/* HMM_DMIRROR_PROT_ZERO, _DEV_* */
#define PROT_COHERENT_LOCAL 0x40	/* v5.10 has no such memory */
#define PROT_COHERENT_REMOTE 0x50
#define PMD_ORDER 9
#define PUD_ORDER 18

/* In place of an errno: what the driver would do is not what was asked for, or a crash. */
#define NOT_POSSIBLE (-1)

/* @data: one page per page of the range, or one byte for a snapshot */
static int call(int fd, unsigned long command, uint64_t address, uint64_t npages, void *data)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = address,
		.ptr = (uintptr_t)data,
		.npages = npages,
	};

	return ioctl(fd, command, &cmd) ? errno : 0;
}

/* Of the device's own memory, where that is private */
static bool is_local(uint8_t protection)
{
	return protection != HMM_DMIRROR_PROT_ERROR && (protection & PROT_KIND) == HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL;
}

static uint64_t translate(uint8_t protection)
{
	uint64_t flags = 0;

	if (protection == HMM_DMIRROR_PROT_ERROR)
		return HMM_HARNESS_PAGE_ERROR;
	if (protection & (HMM_DMIRROR_PROT_READ | HMM_DMIRROR_PROT_WRITE))
		flags |= HMM_HARNESS_PAGE_VALID;
	if (protection & HMM_DMIRROR_PROT_WRITE)
		flags |= HMM_HARNESS_PAGE_WRITE;
	if (protection & HMM_DMIRROR_PROT_PMD)
		flags |= PMD_ORDER << HMM_HARNESS_PAGE_ORDER_SHIFT;
	if (protection & HMM_DMIRROR_PROT_PUD)
		flags |= PUD_ORDER << HMM_HARNESS_PAGE_ORDER_SHIFT;
	switch (protection & PROT_KIND) {
	case HMM_DMIRROR_PROT_ZERO:
		return flags | HMM_HARNESS_PAGE_ZERO;
	case HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL:
	case PROT_COHERENT_LOCAL:
		return flags | HMM_HARNESS_PAGE_LOCAL;
	case HMM_DMIRROR_PROT_DEV_PRIVATE_REMOTE:
	case PROT_COHERENT_REMOTE:
		return flags | HMM_HARNESS_PAGE_REMOTE;
	default:
		return flags;
	}
}

static void snapshot(int fd, const struct wire_operation *operation, struct wire_observation *seen, uint64_t *elements)
{
	uint8_t protections[WIRE_MAX_PAGES];

	seen->error = call(fd, HMM_DMIRROR_SNAPSHOT, operation->address, operation->npages, protections);
	/* It does not say how far it came. */
	if (seen->error)
		return;
	for (uint64_t i = 0; i < operation->npages; i++)
		elements[i] = translate(protections[i]);
	seen->count = operation->npages;
}

/*
 * Pages whose entries can be written if there are any: each in the slot that its
 * number and the file choose. One that another has pushed out counts as one that
 * cannot be written.
 */
static uint64_t writable[1 << 16];

static uint64_t *slot_of(int fd, uint64_t address, uint64_t *key)
{
	*key = address | (uint64_t)fd; /* of an address the low bits are free, and fewer files are open */
	return &writable[(address / PAGE_BYTES + (uint64_t)fd * 0x4321) % (sizeof(writable) / sizeof(*writable))];
}

static bool is_writable(int fd, uint64_t address)
{
	uint64_t key;

	return ENTRY_LIKE_CPU || *slot_of(fd, address, &key) == key;
}

/* Notes, before pages are migrated to the device, which of them will be writable there. */
static void note_writable(int fd, uint64_t address, const uint8_t *protections, uint64_t npages)
{
	for (uint64_t i = 0; i < npages; i++) {
		uint64_t key;
		uint64_t *slot = slot_of(fd, address + i * PAGE_BYTES, &key);

		if (is_local(protections[i]))
			continue; /* it does not move, and its entry stays */
		*slot = 0;
		if (protections[i] != HMM_DMIRROR_PROT_ERROR && protections[i] & HMM_DMIRROR_PROT_WRITE)
			*slot = key;
	}
}

/*
 * 0 if the mirror has an entry for each of these device pages of its own, which
 * is what MIGRATE_TO_DEV answers when there is nothing to migrate.
 */
static int probe(int fd, bool store, uint64_t address, const uint8_t *protections, uint64_t npages, uint64_t *scratch)
{
	int error;

	/* The driver warns, and fails for a reason that is not the kernel's (its do_fault()). */
	for (uint64_t i = 0; store && i < npages; i++)
		if (!(protections[i] & HMM_DMIRROR_PROT_WRITE) || !is_writable(fd, address + i * PAGE_BYTES))
			return NOT_POSSIBLE;
	error = call(fd, HMM_DMIRROR_MIGRATE_TO_DEV, address, npages, scratch);
	return error == ENOENT ? NOT_POSSIBLE : error;
}

/*
 * One run by @command; *@done pages of it. The driver tells nothing of what came
 * before a failure: then page by page.
 */
static int transfer_run(int fd, unsigned long command, uint64_t address, uint64_t npages, uint64_t *data,
			uint64_t *done)
{
	int error = call(fd, command, address, npages, data);

	if (!error) {
		*done = npages;
		return 0;
	}
	for (*done = 0; *done < npages; ++*done) {
		error = call(fd, command, address + *done * PAGE_BYTES, 1, data + *done * PAGE_WORDS);
		if (error)
			return error;
	}
	return 0;
}

/* The length of the run at the start of @protections that is local throughout, or not at all */
static uint64_t run_length(const uint8_t *protections, uint64_t npages)
{
	uint64_t length = 1;

	while (length < npages && is_local(protections[length]) == is_local(protections[0]))
		length++;
	return length;
}

/*
 * READ, READ_UNLOCKED or WRITE of at most CHUNK_PAGES, of which *@done are
 * completed; @data has SCRATCH_PAGES. 0, an errno or NOT_POSSIBLE
 */
static int transfer(int fd, unsigned long command, uint64_t address, uint64_t npages, uint64_t *data, uint64_t *done)
{
	uint8_t protections[CHUNK_PAGES];
	bool store = command == HMM_DMIRROR_WRITE;
	uint64_t run;
	int error;

	*done = 0;
	if (command == NO_COMMAND)
		return NOT_POSSIBLE;
	error = call(fd, HMM_DMIRROR_SNAPSHOT, address, npages, protections);
	if (error == EINVAL && !NOTICES_EXIT)
		return NOT_POSSIBLE;
	if (error == EINVAL) /* the process has exited: let the driver say so */
		memset(protections, HMM_DMIRROR_PROT_NONE, npages);
	else if (error)
		return error;
	for (uint64_t i = 0; i < npages; i += run) {
		uint64_t part;

		run = run_length(protections + i, npages - i);
		/*
		 * Not before the run's turn has come: a fault in an earlier one may
		 * cost this one its first entry, since the driver's invalidation
		 * goes one page too far.
		 */
		error = is_local(protections[i]) ? probe(fd, store, address + i * PAGE_BYTES, protections + i, run,
							 data + CHUNK_PAGES * PAGE_WORDS) :
						   0;
		if (error)
			return error;
		error = transfer_run(fd, command, address + i * PAGE_BYTES, run, data + i * PAGE_WORDS, &part);
		*done += part;
		if (error)
			return error;
	}
	return 0;
}

/*
 * A fault for writing. The driver can only write, so it is made to store what it
 * has loaded, which nobody else can change meanwhile. But a load must not do more
 * than that: where there is no entry yet it would bring one in.
 */
static int fault_for_writing(int fd, uint64_t address, uint64_t npages, uint64_t *scratch, uint64_t *done)
{
	uint8_t protections[CHUNK_PAGES];
	int store_error;
	int error;

	*done = 0;
	error = call(fd, HMM_DMIRROR_SNAPSHOT, address, npages, protections);
	for (uint64_t i = 0; !error && i < npages; i++)
		if (protections[i] == HMM_DMIRROR_PROT_NONE)
			return NOT_POSSIBLE;
	error = transfer(fd, HMM_DMIRROR_READ, address, npages, scratch, done);
	if (error == NOT_POSSIBLE || *done == 0)
		return error;
	store_error = transfer(fd, HMM_DMIRROR_WRITE, address, *done, scratch, done);
	return store_error ? store_error : error;
}

/* Whether the mirror has any of these pages to itself: it reads them without a fault. */
static bool has_exclusive(int fd, uint64_t address, uint64_t npages)
{
#ifdef HMM_DMIRROR_CHECK_EXCLUSIVE
	return call(fd, HMM_DMIRROR_CHECK_EXCLUSIVE, address, npages, NULL) == EPERM;
#else
	(void)fd;
	(void)address;
	(void)npages;
	return false;
#endif
}

static int move_chunk(int fd, const struct wire_operation *operation, uint64_t first, uint64_t npages,
		      uint64_t *scratch, uint64_t *done)
{
	uint64_t address = operation->address + first * PAGE_BYTES;

	*done = 0;
	switch (operation->code) {
	case WIRE_DEVICE_WRITE:
		for (uint64_t i = 0; i < npages; i++)
			token_store(scratch + i * PAGE_WORDS, operation->value + first + i);
		return transfer(fd, HMM_DMIRROR_WRITE, address, npages, scratch, done);
	case WIRE_DEVICE_READ:
		return transfer(fd, operation->argument ? READ_UNLOCKED : HMM_DMIRROR_READ, address, npages, scratch,
				done);
	default:
		if (has_exclusive(fd, address, npages))
			return NOT_POSSIBLE;
		if (operation->argument)
			return fault_for_writing(fd, address, npages, scratch, done);
		return transfer(fd, HMM_DMIRROR_READ, address, npages, scratch, done);
	}
}

/* READ, WRITE and, in terms of these, FAULT: which shows no elements. */
static bool move_data(int fd, const struct wire_operation *operation, struct wire_observation *seen,
		      uint64_t *elements, uint64_t *scratch)
{
	uint64_t done = 0;
	int error = 0;

	while (done < operation->npages && !error) {
		uint64_t left = operation->npages - done;
		uint64_t part;

		error = move_chunk(fd, operation, done, left < CHUNK_PAGES ? left : CHUNK_PAGES, scratch, &part);
		for (uint64_t i = 0; i < part && operation->code != WIRE_FAULT; i++)
			elements[seen->count++] =
				operation->code == WIRE_DEVICE_WRITE ? 0 : token_load(scratch + i * PAGE_WORDS);
		done += part;
	}
	if (error == NOT_POSSIBLE) {
		seen->status = WIRE_UNSUPPORTED;
		seen->count = 0;
		return false;
	}
	seen->error = error;
	return true;
}

/* How many pages of a device migrate at once */
static uint64_t migrated_at_once(int fd)
{
	struct stat status;

	if (fstat(fd, &status) || minor(status.st_rdev) >= WIRE_FIRST_COHERENT)
		return CHUNK_PAGES / 2;
	return CHUNK_PAGES;
}

/*
 * MIGRATE_TO_DEV tells what its mirror holds afterwards instead of what moved:
 * -ENOENT is one page without an entry, whatever became of the others.
 */
static int to_device(int fd, const struct wire_operation *operation, uint64_t *scratch)
{
	uint64_t most = migrated_at_once(fd);
	uint64_t done = 0;

	while (done < operation->npages) {
		uint64_t left = operation->npages - done;
		uint64_t npages = left < most ? left : most;
		uint64_t address = operation->address + done * PAGE_BYTES;
		uint8_t protections[CHUNK_PAGES];
		int error = call(fd, HMM_DMIRROR_SNAPSHOT, address, npages, protections);

		if (!error) {
			note_writable(fd, address, protections, npages);
			error = call(fd, HMM_DMIRROR_MIGRATE_TO_DEV, address, npages, scratch);
		}
		if (error && error != ENOENT)
			return error;
		done += npages;
	}
	return 0;
}

#ifdef HMM_DMIRROR_EXCLUSIVE

/* Which pages its mirror has to itself: CHECK_EXCLUSIVE fails if it has any of them. */
static void tell_exclusive(int fd, uint64_t address, uint64_t npages, struct wire_observation *seen,
			   uint64_t *elements)
{
	for (uint64_t i = 0; i < npages; i++) {
		int error = call(fd, HMM_DMIRROR_CHECK_EXCLUSIVE, address + i * PAGE_BYTES, 1, NULL);

		if (error && error != EPERM) {
			seen->error = error;
			return;
		}
		elements[seen->count++] = error ? HMM_HARNESS_PAGE_VALID | HMM_HARNESS_PAGE_WRITE |
							  HMM_HARNESS_PAGE_EXCLUSIVE :
						  0;
	}
}

/*
 * Before v6.15 EBUSY is what comes of every failure, also of a page that somebody
 * else had locked at that moment.
 */
static int one_exclusive(int fd, uint64_t address, uint64_t *scratch)
{
	const struct timespec moment = { .tv_nsec = 1000000 };
	int error = EBUSY;

	for (int tries = 0; error == EBUSY && tries < 4; tries++) {
		if (tries)
			nanosleep(&moment, NULL);
		error = call(fd, HMM_DMIRROR_EXCLUSIVE, address, 1, scratch);
	}
	return error;
}

/* It does not tell how far it came: then page by page. */
static void exclusive(int fd, const struct wire_operation *operation, struct wire_observation *seen,
		      uint64_t *elements, uint64_t *scratch)
{
	int error = 0;

	while (!error && !seen->error && seen->count < operation->npages) {
		uint64_t address = operation->address + seen->count * PAGE_BYTES;
		uint64_t left = operation->npages - seen->count;
		uint64_t npages = left < CHUNK_PAGES ? left : CHUNK_PAGES;
		uint64_t done = npages;

		if (call(fd, HMM_DMIRROR_EXCLUSIVE, address, npages, scratch))
			for (done = 0; !error && done < npages; done += !error)
				error = one_exclusive(fd, address + done * PAGE_BYTES, scratch);
		tell_exclusive(fd, address, done, seen, elements);
	}
	if (!seen->error)
		seen->error = error;
}

#endif

#ifdef HMM_DMIRROR_FLAGS

/* The first allocation fails, and no other one, whether it was needed or not. */
static int to_device_short(int fd, const struct wire_operation *operation, uint64_t *scratch)
{
	const uint64_t none = HMM_DMIRROR_FLAG_FAIL_ALLOC << 1; /* 0 is no length, and what it does not know it ignores */
	int error = call(fd, HMM_DMIRROR_FLAGS, operation->address, HMM_DMIRROR_FLAG_FAIL_ALLOC, NULL);
	int restored;

	if (error)
		return error;
	error = to_device(fd, operation, scratch);
	restored = call(fd, HMM_DMIRROR_FLAGS, operation->address, none, NULL);
	return error ? error : restored;
}

#endif

static bool operate(int fd, const struct wire_operation *operation, struct wire_observation *seen, uint64_t *elements,
		    uint64_t *scratch)
{
	seen->status = WIRE_DONE;
	switch (operation->code) {
	case WIRE_SNAPSHOT:
		snapshot(fd, operation, seen, elements);
		return true;
	case WIRE_FAULT:
	case WIRE_DEVICE_READ:
	case WIRE_DEVICE_WRITE:
		return move_data(fd, operation, seen, elements, scratch);
	case WIRE_TO_DEVICE:
		seen->error = to_device(fd, operation, scratch);
		return true;
#ifdef HMM_DMIRROR_MIGRATE_TO_SYS
	case WIRE_TO_SYSTEM:
		seen->error = call(fd, HMM_DMIRROR_MIGRATE_TO_SYS, operation->address, operation->npages, NULL);
		return true;
#endif
#ifdef HMM_DMIRROR_RELEASE
	case WIRE_EVICT: /* it does not say how many */
		seen->error = call(fd, HMM_DMIRROR_RELEASE, WIRE_FIRST_ADDRESS, 1, NULL);
		return true;
#endif
#ifdef HMM_DMIRROR_EXCLUSIVE
	case WIRE_EXCLUSIVE:
		exclusive(fd, operation, seen, elements, scratch);
		return true;
	case WIRE_TABLE:
		/* Of its mirror it tells nothing else. */
		if (operation->argument)
			tell_exclusive(fd, operation->address, operation->npages, seen, elements);
		else
			seen->status = WIRE_UNSUPPORTED;
		return true;
#endif
#ifdef HMM_DMIRROR_FLAGS
	case WIRE_TO_DEVICE_SHORT:
		seen->error = to_device_short(fd, operation, scratch);
		return true;
#endif
	default:
		seen->status = WIRE_UNSUPPORTED;
		/* A question left unanswered changes nothing for what follows. */
		return operation->code == WIRE_TABLE || operation->code == WIRE_USAGE ||
		       operation->code == WIRE_EVENTS;
	}
}

#else /* no test_hmm_uapi.h */

static bool operate(int fd, const struct wire_operation *operation, struct wire_observation *seen, uint64_t *elements,
		    uint64_t *scratch)
{
	(void)fd;
	(void)operation;
	(void)elements;
	(void)scratch;
	seen->status = WIRE_UNSUPPORTED;
	return false;
}

#endif

static uint64_t in_use(const struct binding *binding, int number)
{
	(void)binding;
	(void)number;
	return WIRE_UNKNOWN;
}

static uint64_t refused(const struct binding *binding, int number)
{
	(void)binding;
	(void)number;
	return 0;
}

const struct binding test_hmm_binding = {
	.node = "/dev/hmm_dmirror%d",
	.unbound = false,
	.operate = operate,
	.in_use = in_use,
	.refused = refused,
};
