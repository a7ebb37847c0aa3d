// SPDX-License-Identifier: GPL-2.0-only
/* The bindings `interval` and `mirror`: our own module, one ioctl per operation. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "executor.h"
#include "hmm_harness.h"
#include "token.h"

#define INTERVAL_NODE "/dev/hmm_harness%d"
#define MIRROR_NODE "/dev/hmm_mirror%d"
/* Of the nodes of our module, one that is there on every kernel */
#define MAPPED_NODE "/dev/hmm_mirror0"

/* No flags look like this: a page that the module counts as done but says nothing of */
#define NOT_FILLED UINT64_MAX

/* Small pages of a huge one */
#define HUGE_PAGES 512

static int call(int fd, unsigned long command, void *argument)
{
	return ioctl(fd, command, argument) ? errno : 0;
}

/* The node that memory without pages for others is mapped from: a file, or -errno */
int interval_open_mapped(void)
{
	int fd = open(MAPPED_NODE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int interval_bind(int fd)
{
	struct hmm_harness_bind bind = { .size = sizeof(bind) };

	return call(fd, HMM_HARNESS_BIND, &bind);
}

static bool can(int fd, uint64_t capability)
{
	struct hmm_harness_info info = { .size = sizeof(info) };

	return !call(fd, HMM_HARNESS_INFO, &info) && info.capabilities & capability;
}

/* An operation that reports HMM_HARNESS_PAGE_* */
static void on_pages(int fd, unsigned long command, uint32_t flags, const struct wire_operation *operation,
		     struct wire_observation *seen, uint64_t *elements)
{
	struct hmm_harness_range range = {
		.size = sizeof(range),
		.flags = flags,
		.addr = operation->address,
		.npages = operation->npages,
		.pages = (uintptr_t)elements,
	};

	memset(elements, 0xff, operation->npages * sizeof(*elements));
	seen->error = call(fd, command, &range);
	while (seen->count < range.done && seen->count < operation->npages && elements[seen->count] != NOT_FILLED)
		seen->count++;
	if (seen->count != range.done)
		seen->error = EPROTO;
}

/* The kernel's own form says the same as what the module makes of it. */
static bool agree(const struct hmm_harness_request *request, uint64_t raw, uint64_t page)
{
	uint64_t known = request->raw_valid | request->raw_write | request->raw_error | request->raw_order |
			 request->raw_pfn;
	uint64_t order = page & HMM_HARNESS_PAGE_ORDER_MASK;

	if (page & HMM_HARNESS_PAGE_RESIDUE)
		return raw && !(raw & (request->raw_valid | request->raw_error));
	if (!(page & (HMM_HARNESS_PAGE_VALID | HMM_HARNESS_PAGE_ERROR)))
		return raw == 0;
	/* The module calls an error what has no struct page, too. */
	if (page & HMM_HARNESS_PAGE_ERROR)
		return raw & (request->raw_valid | request->raw_error);
	return !(raw & ~known) && raw & request->raw_valid &&
	       !(raw & request->raw_write) == !(page & HMM_HARNESS_PAGE_WRITE) &&
	       (raw & request->raw_order) / (request->raw_order & -request->raw_order) ==
		       order >> HMM_HARNESS_PAGE_ORDER_SHIFT;
}

/* Each mapping of a device page has a reference; of private memory, nobody has one besides. */
static bool counts_agree(uint64_t page, uint64_t count, bool private)
{
	uint32_t mapped = count >> HMM_HARNESS_COUNT_MAPPED_SHIFT;
	uint32_t references = count;

	if (!(page & (HMM_HARNESS_PAGE_LOCAL | HMM_HARNESS_PAGE_REMOTE)))
		return !count;
	if (!mapped)
		return false;
	return private && page & HMM_HARNESS_PAGE_LOCAL ? references == mapped : references >= mapped;
}

static void put_request(int fd, const struct wire_operation *operation, struct wire_observation *seen,
			uint64_t *elements, uint64_t *raw)
{
	uint8_t asked[HMM_HARNESS_REQUEST_MAX_PAGES];
	uint64_t *counts = raw + HMM_HARNESS_REQUEST_MAX_PAGES;
	uint64_t length = operation->value >> WIRE_REQUEST_LENGTH_SHIFT;
	struct hmm_harness_request request = {
		.size = sizeof(request),
		.flags = operation->argument >> WIRE_REQUEST_FLAGS_SHIFT,
		.addr = operation->address,
		.npages = operation->npages,
		.default_flags = operation->argument >> WIRE_REQUEST_DEFAULT_SHIFT & 3,
		.mask = operation->argument >> WIRE_REQUEST_MASK_SHIFT & 3,
		.owner = operation->argument >> WIRE_REQUEST_OWNER_SHIFT & 3,
		.asked = (uintptr_t)asked,
		.pages = (uintptr_t)elements,
		.raw = (uintptr_t)raw,
		.counts = (uintptr_t)counts,
	};
	bool private;

	for (uint64_t i = 0; i < operation->npages; i++)
		asked[i] = operation->value >> 2 * (i % length) & 3;
	seen->error = call(fd, HMM_HARNESS_REQUEST, &request);
	if (seen->error == EOPNOTSUPP)
		seen->status = WIRE_UNSUPPORTED;
	/* It is HMM that has to refuse this, not our module. */
	if (request.flags == HMM_HARNESS_REQUEST_EMPTY && seen->error == EINVAL && !request.sequence)
		seen->error = EPROTO;
	if (seen->error)
		return;
	seen->count = operation->npages;
	private = !can(fd, HMM_HARNESS_CAP_COHERENT);
	for (uint64_t i = 0; i < operation->npages; i++) {
		if (!agree(&request, raw[i], elements[i]) || !counts_agree(elements[i], counts[i], private))
			seen->error = EPROTO;
	}
}

/*
 * What the kernel left of each page says the same as what the module makes of it. Of a huge page it has one word,
 * for all of it.
 */
static bool move_agrees(const struct hmm_harness_move *move, const uint64_t *pages, const uint64_t *before,
			const uint64_t *after, const uint64_t *places)
{
	uint64_t collected = 0, moved = 0, src = 0, dst = 0, now = 0, rest = 0, whole = 0;

	for (uint64_t i = 0; i < move->npages; i++) {
		bool has;

		if (!rest) {
			src = before[i];
			rest = src & move->raw_compound ? HUGE_PAGES : 1;
			whole = rest > 1 && places[i] & move->raw_compound;
			collected += !!(src & move->raw_migrate);
		}
		rest--;
		if (!whole || rest == HUGE_PAGES - 1) {
			now = after[i];
			dst = places[i];
		}
		has = now & move->raw_migrate;
		/* What did not migrate has no place, and what is not to migrate does not begin to. */
		if ((has && !dst) || (has && !(src & move->raw_migrate)) ||
		    !(pages[i] & HMM_HARNESS_PAGE_COLLECTED) != !(src & move->raw_migrate) ||
		    !(pages[i] & HMM_HARNESS_PAGE_VALID) != !(src & move->raw_valid) ||
		    !(pages[i] & HMM_HARNESS_PAGE_WRITE) != !(src & move->raw_write) ||
		    !(pages[i] & HMM_HARNESS_PAGE_COMPOUND) != !(src & move->raw_compound) ||
		    !(pages[i] & HMM_HARNESS_PAGE_MOVED) != !has ||
		    !(pages[i] & HMM_HARNESS_PAGE_WHOLE) != !(has && whole))
			return false;
		moved += has;
	}
	return collected == move->collected && moved == move->moved;
}

static void move_pages(int fd, const struct wire_operation *operation, struct wire_observation *seen,
		       uint64_t *elements, uint64_t *raw)
{
	uint8_t choices[HMM_HARNESS_MOVE_MAX_PAGES];
	uint64_t length = operation->value >> WIRE_MOVE_LENGTH_SHIFT;
	uint64_t *before = raw, *after = before + HMM_HARNESS_MOVE_MAX_PAGES;
	uint64_t *places = after + HMM_HARNESS_MOVE_MAX_PAGES;
	struct hmm_harness_move move = {
		.size = sizeof(move),
		.flags = operation->argument >> WIRE_MOVE_FLAGS_SHIFT,
		.addr = operation->address,
		.npages = operation->npages,
		.sources = operation->argument >> WIRE_MOVE_SOURCES_SHIFT & 7,
		.choices = (uintptr_t)choices,
		.pages = (uintptr_t)elements,
		.before = (uintptr_t)before,
		.after = (uintptr_t)after,
		.places = (uintptr_t)places,
	};

	for (uint64_t i = 0; i < operation->npages; i++)
		choices[i] = operation->value >> 2 * (i % length) & 3;
	seen->error = call(fd, HMM_HARNESS_MOVE, &move);
	if (seen->error == EOPNOTSUPP)
		seen->status = WIRE_UNSUPPORTED;
	if (seen->error)
		return;
	seen->count = operation->npages;
	if (move.uncleared || !move_agrees(&move, elements, before, after, places))
		seen->error = EPROTO;
}

static void evict_pages(int fd, uint32_t flags, struct wire_observation *seen, uint64_t *elements)
{
	struct hmm_harness_evict evict = { .size = sizeof(evict), .flags = flags };

	seen->error = call(fd, HMM_HARNESS_EVICT, &evict);
	if (seen->error == EOPNOTSUPP && flags)
		seen->status = WIRE_UNSUPPORTED;
	if (seen->error)
		return;
	elements[seen->count++] = evict.moved;
	elements[seen->count++] = evict.left;
}

static int watch(int fd, unsigned long command, uint32_t flags, const struct wire_operation *operation,
		 struct wire_observation *seen, uint64_t *elements)
{
	struct hmm_harness_watch watch = {
		.size = sizeof(watch),
		.flags = flags,
		.addr = operation->address,
		.npages = operation->npages,
		.pages = (uintptr_t)elements,
	};
	int error = call(fd, command, &watch);

	if (error == EOPNOTSUPP)
		seen->status = WIRE_UNSUPPORTED;
	if (error || !elements)
		return error;
	/* A call that is none of its business, or a second pass or an end too many */
	if (watch.strays || watch.finished > watch.calls)
		return EPROTO;
	seen->count = operation->npages;
	return 0;
}

static const uint32_t watch_flags[] = {
	[WIRE_WATCH_TWO_PASS] = HMM_HARNESS_WATCH_TWO_PASS,
	[WIRE_WATCH_EMPTY] = HMM_HARNESS_WATCH_EMPTY,
	[WIRE_WATCH_ENDLESS] = HMM_HARNESS_WATCH_ENDLESS,
	[WIRE_WATCH_PLAIN] = HMM_HARNESS_WATCH_PLAIN,
	[WIRE_WATCH_SHARED] = HMM_HARNESS_WATCH_SHARED,
	[WIRE_WATCH_TLB] = HMM_HARNESS_WATCH_TLB,
};

static void tell_sequence(int fd, const struct wire_operation *operation, struct wire_observation *seen,
			  uint64_t *elements)
{
	struct hmm_harness_sequence sequence = {
		.size = sizeof(sequence),
		.addr = operation->address,
		.npages = operation->npages,
	};

	seen->error = call(fd, HMM_HARNESS_SEQUENCE, &sequence);
	if (seen->error == EOPNOTSUPP)
		seen->status = WIRE_UNSUPPORTED;
	if (seen->error)
		return;
	elements[seen->count++] = sequence.sequence;
	elements[seen->count++] = sequence.retry;
	elements[seen->count++] = sequence.hint;
	elements[seen->count++] = sequence.calls;
}

static void do_dma(int fd, const struct wire_operation *operation, struct wire_observation *seen, uint64_t *elements)
{
	static const uint32_t flags[] = {
		[WIRE_DMA_MAP] = HMM_HARNESS_DMA_MAP,
		[WIRE_DMA_MAP_WRITE] = HMM_HARNESS_DMA_MAP_WRITE,
		[WIRE_DMA_SHOW] = HMM_HARNESS_DMA_SHOW,
		[WIRE_DMA_UNMAP] = HMM_HARNESS_DMA_UNMAP,
	};
	uint32_t what = operation->argument & ((1 << WIRE_DMA_OWNER_SHIFT) - 1);
	struct hmm_harness_dma dma = {
		.size = sizeof(dma),
		.flags = flags[what],
		.addr = operation->address,
		.npages = operation->npages,
		.owner = operation->argument >> WIRE_DMA_OWNER_SHIFT,
		.pages = what == WIRE_DMA_UNMAP ? 0 : (uintptr_t)elements,
	};
	uint64_t mapped = 0;

	seen->error = call(fd, HMM_HARNESS_DMA, &dma);
	if (seen->error == EOPNOTSUPP)
		seen->status = WIRE_UNSUPPORTED;
	if (seen->error || what == WIRE_DMA_UNMAP)
		return;
	seen->count = operation->npages;
	for (uint64_t i = 0; i < seen->count; i++)
		mapped += !!(elements[i] & HMM_HARNESS_PAGE_DMA);
	/* What it counts is what it tells. */
	if (mapped != dma.mapped || dma.kept > mapped)
		seen->error = EPROTO;
}

static int refuse(int fd, const struct wire_operation *operation)
{
	struct hmm_harness_refuse refuse = {
		.size = sizeof(refuse),
		.addr = operation->address,
		.npages = operation->npages,
	};

	return call(fd, HMM_HARNESS_REFUSE, &refuse);
}

static void move_data(int fd, const struct wire_operation *operation, struct wire_observation *seen,
		      uint64_t *elements, uint64_t *scratch)
{
	bool store = operation->code == WIRE_DEVICE_WRITE;

	while (seen->count < operation->npages && !seen->error) {
		uint64_t left = operation->npages - seen->count;
		struct hmm_harness_range range = {
			.size = sizeof(range),
			.flags = operation->argument ? HMM_HARNESS_READ_UNLOCKED : 0,
			.addr = operation->address + seen->count * PAGE_BYTES,
			.npages = left < CHUNK_PAGES ? left : CHUNK_PAGES,
			.data = (uintptr_t)scratch,
		};

		for (uint64_t i = 0; store && i < range.npages; i++)
			token_store(scratch + i * PAGE_WORDS, operation->value + seen->count + i);
		seen->error = call(fd, store ? HMM_HARNESS_WRITE : HMM_HARNESS_READ, &range);
		if (range.done > range.npages) {
			seen->error = EPROTO;
			return;
		}
		for (uint64_t i = 0; i < range.done; i++)
			*elements++ = store ? 0 : token_load(scratch + i * PAGE_WORDS);
		seen->count += range.done;
		/* Success is all of it: never ask for the same pages for ever. */
		if (!seen->error && range.done != range.npages)
			seen->error = EPROTO;
	}
}

static bool operate(int fd, const struct wire_operation *operation, struct wire_observation *seen, uint64_t *elements,
		    uint64_t *scratch)
{
	struct hmm_harness_bind bind = { .size = sizeof(bind) };
	struct hmm_harness_returns returns = { .size = sizeof(returns) };
	struct hmm_harness_usage usage = { .size = sizeof(usage) };
	struct hmm_harness_events events = { .size = sizeof(events) };

	seen->status = WIRE_DONE;
	switch (operation->code) {
	case WIRE_UNBIND:
		seen->error = call(fd, HMM_HARNESS_UNBIND, &bind);
		break;
	case WIRE_SNAPSHOT:
		on_pages(fd, HMM_HARNESS_SNAPSHOT, 0, operation, seen, elements);
		break;
	case WIRE_FAULT:
		on_pages(fd, HMM_HARNESS_FAULT, operation->argument ? HMM_HARNESS_FAULT_WRITE : 0, operation, seen,
			 elements);
		break;
	case WIRE_REQUEST:
		put_request(fd, operation, seen, elements, scratch);
		return seen->status == WIRE_DONE;
	case WIRE_WATCH:
		seen->error = watch(fd, HMM_HARNESS_WATCH, watch_flags[operation->argument], operation, seen, NULL);
		return seen->status == WIRE_DONE;
	case WIRE_WATCHED:
		seen->error = watch(fd, HMM_HARNESS_WATCHED, 0, operation, seen, elements);
		return seen->status == WIRE_DONE;
	case WIRE_SEQUENCE:
		tell_sequence(fd, operation, seen, elements);
		return seen->status == WIRE_DONE;
	case WIRE_DMA:
		do_dma(fd, operation, seen, elements);
		return seen->status == WIRE_DONE;
	case WIRE_REFUSE:
		seen->error = refuse(fd, operation);
		break;
	case WIRE_TO_DEVICE:
		on_pages(fd, HMM_HARNESS_MIGRATE, HMM_HARNESS_MIGRATE_TO_DEVICE, operation, seen, elements);
		break;
	case WIRE_TO_SYSTEM:
		on_pages(fd, HMM_HARNESS_MIGRATE, HMM_HARNESS_MIGRATE_TO_SYSTEM, operation, seen, elements);
		break;
	case WIRE_TO_DEVICE_SHORT:
		on_pages(fd, HMM_HARNESS_MIGRATE_SHORT, 0, operation, seen, elements);
		break;
	case WIRE_EXCLUSIVE:
		/* The kernel's own error can be EOPNOTSUPP as well. */
		if (!can(fd, HMM_HARNESS_CAP_EXCLUSIVE)) {
			seen->status = WIRE_UNSUPPORTED;
			return false;
		}
		on_pages(fd, HMM_HARNESS_EXCLUSIVE, 0, operation, seen, elements);
		break;
	case WIRE_TABLE:
		on_pages(fd, HMM_HARNESS_TABLE, 0, operation, seen, elements);
		for (uint64_t i = 0; operation->argument && i < seen->count; i++)
			if (!(elements[i] & HMM_HARNESS_PAGE_EXCLUSIVE))
				elements[i] = 0;
		break;
	case WIRE_DEVICE_READ:
		if (operation->argument && !can(fd, HMM_HARNESS_CAP_UNLOCKED)) {
			seen->status = WIRE_UNSUPPORTED;
			return false;
		}
		move_data(fd, operation, seen, elements, scratch);
		break;
	case WIRE_DEVICE_WRITE:
		move_data(fd, operation, seen, elements, scratch);
		break;
	case WIRE_EVICT:
	case WIRE_EVICT_BY:
		evict_pages(fd, operation->argument, seen, elements);
		return seen->status == WIRE_DONE;
	case WIRE_MOVE:
		move_pages(fd, operation, seen, elements, scratch);
		return seen->status == WIRE_DONE;
	case WIRE_RETURNS:
		returns.count = operation->argument == WIRE_RETURNS_REFUSED ? HMM_HARNESS_REFUSE_ALL : 0;
		seen->error = call(fd, HMM_HARNESS_RETURNS, &returns);
		if (seen->error)
			break;
		elements[seen->count++] = returns.refused;
		if (operation->argument == WIRE_RETURNS_HELD)
			elements[seen->count++] = returns.unheld;
		else if (operation->argument == WIRE_RETURNS_LOCKED)
			elements[seen->count++] = returns.unlocked;
		break;
	case WIRE_USAGE:
		seen->error = call(fd, HMM_HARNESS_USAGE, &usage);
		if (!seen->error) {
			elements[seen->count++] = usage.in_use;
			elements[seen->count++] = usage.allocated;
			elements[seen->count++] = usage.freed;
			elements[seen->count++] = usage.cpu_faults;
			elements[seen->count++] = usage.invalidations;
			elements[seen->count++] = usage.entries;
		}
		break;
	case WIRE_EVENTS:
		seen->error = call(fd, HMM_HARNESS_EVENTS, &events);
		if (!seen->error) {
			elements[seen->count++] = events.mirror;
			elements[seen->count++] = events.since;
			elements[seen->count++] = events.last;
		}
		break;
	}
	return true;
}

/* The accounts of a device. Returns whether it told them. */
static bool look(const struct binding *binding, int number, struct hmm_harness_usage *usage)
{
	char node[sizeof(INTERVAL_NODE) + 8];
	bool told;
	int fd;

	snprintf(node, sizeof(node), binding->node, number);
	fd = open(node, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return false;
	*usage = (struct hmm_harness_usage){ .size = sizeof(*usage) };
	told = !call(fd, HMM_HARNESS_USAGE, usage);
	close(fd);
	return told;
}

static uint64_t in_use(const struct binding *binding, int number)
{
	struct hmm_harness_usage usage;

	return look(binding, number, &usage) ? usage.in_use : WIRE_UNKNOWN;
}

static uint64_t refused(const struct binding *binding, int number)
{
	struct hmm_harness_usage usage;

	return look(binding, number, &usage) ? usage.refused : 0;
}

static int look_now(int fd, bool cpu, const struct wire_operation *look, uint64_t *elements)
{
	struct hmm_harness_range range = {
		.size = sizeof(range),
		.flags = HMM_HARNESS_NOWAIT,
		.addr = look->address,
		.npages = look->npages,
		.pages = (uintptr_t)elements,
	};

	return call(fd, cpu ? HMM_HARNESS_SNAPSHOT : HMM_HARNESS_TABLE, &range);
}

const struct binding interval_binding = {
	.node = INTERVAL_NODE,
	.unbound = true,
	.gates = true,
	.look = look_now,
	.operate = operate,
	.in_use = in_use,
	.refused = refused,
};

const struct binding mirror_binding = {
	.node = MIRROR_NODE,
	.unbound = true,
	.gates = true,
	.look = look_now,
	.operate = operate,
	.in_use = in_use,
	.refused = refused,
};
