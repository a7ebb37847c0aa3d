// SPDX-License-Identifier: GPL-2.0-only
/* Reads a request and refuses what the other files could not carry out safely. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "executor.h"
#include "hmm_harness.h"
#include "token.h"

#define ALL_PROTECTIONS (WIRE_PROT_READ | WIRE_PROT_WRITE | WIRE_PROT_EXEC)

const struct binding *request_binding(uint32_t number)
{
	switch (number) {
	case WIRE_INTERVAL:
		return &interval_binding;
	case WIRE_TEST_HMM:
		return &test_hmm_binding;
	case WIRE_MIRROR:
		return &mirror_binding;
	default:
		return NULL;
	}
}

bool request_is_device(uint16_t code)
{
	return (code >= WIRE_BIND && code <= WIRE_USAGE) || (code >= WIRE_REQUEST && code <= WIRE_REFUSE) ||
	       code == WIRE_EVENTS;
}

/* The most elements that the observation of @operation can have */
uint64_t request_elements(const struct wire_operation *operation)
{
	switch (operation->code) {
	case WIRE_READ:
	case WIRE_WRITE:
	case WIRE_SWAP_OUT:
	case WIRE_PAGEMAP:
	case WIRE_SOFT_DIRTY:
	case WIRE_MERGE:
	case WIRE_MOVE_PAGES:
	case WIRE_SNAPSHOT:
	case WIRE_FAULT:
	case WIRE_DEVICE_READ:
	case WIRE_DEVICE_WRITE:
	case WIRE_TO_DEVICE:
	case WIRE_TO_SYSTEM:
	case WIRE_TABLE:
	case WIRE_REQUEST:
	case WIRE_WATCHED:
	case WIRE_DMA:
	case WIRE_EXCLUSIVE:
	case WIRE_TO_DEVICE_SHORT:
	case WIRE_MOVE:
		return operation->npages;
	case WIRE_SEQUENCE:
	case WIRE_COUNTED:
		return 4;
	case WIRE_RETURNS:
	case WIRE_EVICT:
	case WIRE_EVICT_BY:
		return 2;
	case WIRE_USAGE:
		return 6;
	case WIRE_EVENTS:
		return 3;
	case WIRE_SEGMENT:
		return WIRE_SEGMENT_WORDS;
	case WIRE_ACTOR:
		return 2 * WIRE_MAX_ACTOR_STEPS + 2 + WIRE_TRACE;
	case WIRE_LOOK:
		return (WIRE_MAX_SEGMENTS + 1) * look_words(operation->npages);
	default:
		return 0;
	}
}

static bool has_range(uint16_t code)
{
	switch (code) {
	case WIRE_FORK:
	case WIRE_EXIT:
	case WIRE_REAP:
	case WIRE_UNPIN:
	case WIRE_CLEAR_SOFT_DIRTY:
	case WIRE_BIND:
	case WIRE_UNBIND:
	case WIRE_EVICT:
	case WIRE_EVICT_BY:
	case WIRE_RETURNS:
	case WIRE_USAGE:
	case WIRE_EVENTS:
		return false;
	default:
		return true;
	}
}

static bool range_is_valid(uint64_t address, uint64_t npages)
{
	return address % PAGE_BYTES == 0 && address >= WIRE_FIRST_ADDRESS && address < WIRE_LAST_ADDRESS &&
	       npages <= (WIRE_LAST_ADDRESS - address) / PAGE_BYTES;
}

/* What is wrong with a look by itself, or NULL */
static const char *find_fault_of_look(const struct wire_operation *look)
{
	if (look->actor >= WIRE_MAX_DEVICES)
		return "actor out of range";
	if (look->npages < 1 || look->npages > WIRE_MAX_LOOK_PAGES)
		return "npages out of range";
	if (!range_is_valid(look->address, look->npages))
		return "address out of range";
	return look->argument || look->other || look->value ? "a value where none is meant" : NULL;
}

/* What is wrong with a part of a race by itself, or NULL */
static const char *find_fault_of_race(const struct wire_operation *part)
{
	if (part->code == WIRE_LOOK)
		return find_fault_of_look(part);
	if (part->actor || part->address || part->npages)
		return "a race has no actor and no range";
	if (part->code == WIRE_ACTOR) {
		if (part->argument < 1 || part->argument > WIRE_MAX_ACTOR_STEPS)
			return "steps of an actor out of range";
		if (part->value > WIRE_MAX_MOMENT)
			return "moment out of range";
		return part->other ? "a value where none is meant" : NULL;
	}
	if (part->code == WIRE_SEGMENT) {
		if (part->argument > HMM_HARNESS_GATE_LAST)
			return "unknown gate";
		return part->value >> WIRE_SEGMENT_DEVICE_SHIFT > WIRE_MAX_DEVICES ? "device out of range" : NULL;
	}
	if (part->argument > WIRE_MAX_SEGMENTS)
		return "segments out of range";
	if (part->value < 1 || part->value > WIRE_MAX_ACTORS)
		return "actors out of range";
	return part->other > WIRE_MAX_LOOKS ? "looks out of range" : NULL;
}

/* What an actor cannot do: what the worker has a hand in */
static bool is_for_actors(uint16_t code)
{
	switch (code) {
	case WIRE_RACE:
	case WIRE_SEGMENT:
	case WIRE_ACTOR:
	case WIRE_LOOK:
	case WIRE_BIND:
	case WIRE_REAP:
	case WIRE_POISON:
	case WIRE_USERFAULT:
		return false;
	default:
		return true;
	}
}

/* What is wrong with the actor at @actor, of which there are @left operations in the request; or NULL */
static const char *find_fault_of_actor(const struct wire_operation *actor, uint32_t left)
{
	const struct wire_operation *step = actor + 1;

	if (left < 1 || actor->code != WIRE_ACTOR || actor->argument >= left)
		return "an actor is missing, or its steps are";
	for (uint32_t i = 0; i < actor->argument; i++) {
		if (!is_for_actors(step[i].code))
			return "not for actors";
		if (step[i].npages > WIRE_MAX_ACTOR_PAGES)
			return "npages out of range for an actor";
		if (request_is_device(step[i].code) != request_is_device(step->code) ||
		    (!request_is_device(step->code) && step[i].actor != step->actor))
			return "an actor is of one subject, or of devices";
	}
	return NULL;
}

/* How many operations follow @race that belong to it; it is known to be whole */
uint32_t request_race_length(const struct wire_operation *race)
{
	uint32_t length = race->argument;

	for (uint64_t i = 0; i < race->value; i++)
		length += 1 + race[1 + length].argument;
	return length + race->other;
}

/* What is wrong with the race at @race, of which there are @left operations in the request; or NULL */
static const char *find_fault_of_whole(const struct wire_operation *race, uint32_t left)
{
	uint32_t at = 1;

	for (uint32_t i = 0; i < race->argument; i++, at++) {
		if (at >= left || race[at].code != WIRE_SEGMENT)
			return "a segment is missing";
		if (race[at].other >= race->value)
			return "actor out of range";
	}
	for (uint64_t i = 0; i < race->value; i++) {
		const char *fault = find_fault_of_actor(race + at, left - at);

		if (fault)
			return fault;
		if (race->argument && race[at].value)
			return "a moment, where a schedule says who runs when";
		at += 1 + race[at].argument;
	}
	for (uint8_t i = 0; i < race->other; i++, at++)
		if (at >= left || race[at].code != WIRE_LOOK)
			return "a look is missing";
	return NULL;
}

/* What is wrong with the order of operations, or NULL; @at: where */
static const char *find_fault_of_order(const struct request *request, uint32_t *at)
{
	const struct wire_operation *operations = request->operations;
	uint32_t count = request->program.operations;

	for (*at = 0; *at < count; ++*at) {
		const char *fault;

		if (operations[*at].code == WIRE_SEGMENT || operations[*at].code == WIRE_ACTOR ||
		    operations[*at].code == WIRE_LOOK)
			return "no race that it belongs to";
		if (operations[*at].code != WIRE_RACE)
			continue;
		fault = find_fault_of_whole(operations + *at, count - *at);
		if (fault)
			return fault;
		*at += request_race_length(operations + *at);
	}
	return NULL;
}

/* What is wrong with @operation, or NULL */
static const char *find_fault(const struct wire_operation *operation)
{
	uint16_t code = operation->code;
	bool device = request_is_device(code);

	if (code == WIRE_RACE || code == WIRE_SEGMENT || code == WIRE_ACTOR || code == WIRE_LOOK)
		return find_fault_of_race(operation);
	if (!device && (code < WIRE_MAP || code > WIRE_MOVE_PAGES) && code != WIRE_COUNTED)
		return "unknown code";
	if (operation->actor >= (device ? WIRE_MAX_DEVICES : WIRE_MAX_SUBJECTS))
		return "actor out of range";
	if ((code == WIRE_FORK || code == WIRE_BIND) ? operation->other >= WIRE_MAX_SUBJECTS : operation->other != 0)
		return "other out of range";
	if (has_range(code)) {
		if (operation->npages == 0 || operation->npages > WIRE_MAX_PAGES)
			return "npages out of range";
		if (!range_is_valid(operation->address, operation->npages))
			return "address out of range";
	} else if (operation->address || operation->npages) {
		return "a range where none is meant";
	}
	switch (code) {
	case WIRE_MAP:
		if (operation->value < WIRE_ANON || operation->value > WIRE_VVAR)
			return "unknown backing";
		if (operation->value >= WIRE_PFNMAP && operation->npages > HMM_HARNESS_MMAP_MAX_PAGES)
			return "npages out of range";
		if (operation->value >= WIRE_VDSO && operation->npages != 1)
			return "npages out of range";
		if (operation->value == WIRE_HUGETLB &&
		    (operation->npages % WIRE_HUGETLB_PAGES ||
		     operation->address / PAGE_BYTES % WIRE_HUGETLB_PAGES))
			return "no whole huge pages";
		return operation->argument & ~ALL_PROTECTIONS ? "unknown protection" : NULL;
	case WIRE_PROTECT:
		if (operation->argument & ~ALL_PROTECTIONS)
			return "unknown protection";
		break;
	case WIRE_ADVISE:
		break;
	case WIRE_LOCK:
	case WIRE_FAULT:
	case WIRE_DEVICE_READ:
	case WIRE_TABLE:
		if (operation->argument > 1)
			return "unknown access";
		break;
	case WIRE_RETURNS:
		if (operation->argument > WIRE_RETURNS_LOCKED)
			return "unknown answer";
		break;
	case WIRE_WATCH:
		if (operation->argument > WIRE_WATCH_TLB)
			return "unknown watch";
		break;
	case WIRE_DMA:
		if (operation->npages > HMM_HARNESS_DMA_MAX_PAGES)
			return "npages out of range";
		if (operation->argument >> WIRE_DMA_ARGUMENT_BITS)
			return "unknown mapping";
		break;
	case WIRE_REQUEST: {
		uint64_t length = operation->value >> WIRE_REQUEST_LENGTH_SHIFT;

		if (operation->npages > HMM_HARNESS_REQUEST_MAX_PAGES)
			return "npages out of range";
		if (operation->argument >> WIRE_REQUEST_ARGUMENT_BITS)
			return "unknown request";
		return length < 1 || length > WIRE_REQUEST_MAX_PATTERN ? "pattern out of range" : NULL;
	}
	case WIRE_MOVE: {
		uint64_t length = operation->value >> WIRE_MOVE_LENGTH_SHIFT;

		if (operation->npages > HMM_HARNESS_MOVE_MAX_PAGES)
			return "npages out of range";
		if (operation->argument >> WIRE_MOVE_ARGUMENT_BITS)
			return "unknown move";
		return length < 1 || length > WIRE_MOVE_MAX_CHOICES ? "choices out of range" : NULL;
	}
	case WIRE_EVICT_BY:
		if (operation->argument != HMM_HARNESS_EVICT_RANGE && operation->argument != HMM_HARNESS_EVICT_NUMBERS &&
		    operation->argument != HMM_HARNESS_EVICT_REMOVE)
			return "unknown look-up";
		break;
	case WIRE_REMAP:
		if (!range_is_valid(operation->value, operation->npages))
			return "new address out of range";
		return operation->argument ? "an argument where none is meant" : NULL;
	case WIRE_USERFAULT:
		if (operation->argument > WIRE_USERFAULT_ANSWERED)
			return "unknown userfault";
		break;
	case WIRE_RESOLVE:
		if (operation->argument > WIRE_RESOLVE_MOVE)
			return "unknown resolution";
		if (operation->argument == WIRE_RESOLVE_MOVE)
			return range_is_valid(operation->value, operation->npages) ? NULL : "source out of range";
		if (operation->argument != WIRE_RESOLVE_COPY)
			break;
		return operation->value > WIRE_MAX_TOKEN - (operation->npages - 1) ? "token out of range" : NULL;
	case WIRE_TRUNCATE:
		if (operation->value > WIRE_MAX_PAGES)
			return "length out of range";
		return operation->argument ? "an argument where none is meant" : NULL;
	case WIRE_WRITE:
	case WIRE_DEVICE_WRITE:
		if (operation->value > WIRE_MAX_TOKEN - (operation->npages - 1))
			return "token out of range";
		return operation->argument ? "an argument where none is meant" : NULL;
	default:
		if (operation->argument)
			return "an argument where none is meant";
	}
	return operation->value ? "a value where none is meant" : NULL;
}

static enum request_result refuse(const char *format, ...)
{
	va_list arguments;

	fputs("executor: request refused: ", stderr);
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	return REQUEST_REFUSED;
}

/* Bytes read: less than @length at the end of the input, -1 when reading failed */
static ssize_t read_all(int fd, void *buffer, size_t length)
{
	size_t done = 0;

	while (done < length) {
		ssize_t count = read(fd, (char *)buffer + done, length - done);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			return -1;
		if (count == 0)
			break;
		done += count;
	}
	return done;
}

static enum request_result short_read(const char *what, ssize_t count, size_t expected)
{
	if (count < 0)
		return refuse("cannot read: %s", strerror(errno));
	return refuse("the input ends in the middle of %s: %zd of %zu bytes", what, count, expected);
}

enum request_result request_read(int fd, struct request *request)
{
	struct wire_program *program = &request->program;
	uint64_t length = sizeof(struct wire_outcome);
	ssize_t count = read_all(fd, program, sizeof(*program));
	const char *fault;
	uint32_t at;
	size_t size;

	if (count == 0)
		return REQUEST_END;
	if (count != sizeof(*program))
		return short_read("a head", count, sizeof(*program));
	if (program->magic != WIRE_MAGIC)
		return refuse("magic %#x, not %#x", program->magic, WIRE_MAGIC);
	if (!request_binding(program->binding))
		return refuse("unknown binding %u", program->binding);
	if (program->operations > WIRE_MAX_OPERATIONS)
		return refuse("%u operations, at most %u", program->operations, WIRE_MAX_OPERATIONS);
	if (program->timeout_ms == 0 || program->timeout_ms > INT32_MAX)
		return refuse("timeout of %u ms", program->timeout_ms);

	size = program->operations * sizeof(struct wire_operation);
	count = read_all(fd, request->operations, size);
	if (count < 0 || (size_t)count != size)
		return short_read("the operations", count, size);

	for (uint32_t i = 0; i < program->operations; i++) {
		const struct wire_operation *operation = &request->operations[i];
		const char *fault = find_fault(operation);

		if (fault)
			return refuse("operation %u (code %u): %s", i, operation->code, fault);
		length += sizeof(struct wire_observation) + request_elements(operation) * sizeof(uint64_t);
	}
	fault = find_fault_of_order(request, &at);
	if (fault)
		return refuse("operation %u (code %u): %s", at, request->operations[at].code, fault);
	if (length > WIRE_MAX_RESPONSE)
		return refuse("the response could have %llu bytes, at most %u", (unsigned long long)length,
			      WIRE_MAX_RESPONSE);
	return REQUEST_COMPLETE;
}
