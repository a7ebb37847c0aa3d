// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lets one actor of a race run at a time, by the gates of our driver, and finds
 * out how far it came. That it waits for another one is seen, not concluded from
 * how long it takes: it sleeps, nothing woke it between several looks, and it
 * does not sleep in what ends by itself.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "executor.h"
#include "futex.h"
#include "hmm_harness.h"

#define LOOK_MS 2		/* between two looks */
#define ASLEEP_LOOKS 10		/* so many looks in a row without having run: it waits */
#define PATIENT_LOOKS 1000	/* ... in what ends by itself, as a rule */
#define SPIN_MS 400		/* CPU time in one segment after which it gets nowhere */

/* Parts of names of functions of the kernel's that wait for work of its own, and never for an actor */
static const char *const own_work[] = { "flush_work", "flush_workqueue", "rcu", "msleep", "lru_add_drain" };

/* A look at a thread */
struct look {
	bool gone;
	bool sleeps;
	unsigned long long switches;
	unsigned long long ticks;
	char where[64];
};

static int files[WIRE_MAX_DEVICES]; /* through which gates are armed, by device; or -1 */
static int armed_by[WIRE_MAX_ACTORS]; /* the last one that armed a gate for the actor, or -1 */
static bool traces; /* there is a device, and its driver notes what actors come by */

_Noreturn static void give_up(const char *what)
{
	fprintf(stderr, "executor: race: %s: %s\n", what, strerror(errno));
	_exit(EXIT_SYSTEM);
}

static int gate(int fd, unsigned long command, struct hmm_harness_gate *args)
{
	args->size = sizeof(*args);
	return ioctl(fd, command, args) ? errno : 0;
}

void race_prepare(const struct wire_operation *race)
{
	const struct binding *binding = request_binding(exchange->request.program.binding);
	char node[32];

	snprintf(node, sizeof(node), binding->node, 0);
	traces = binding->gates && !access(node, R_OK | W_OK);
	for (unsigned int i = 0; i < WIRE_MAX_DEVICES; i++)
		files[i] = -1;
	for (uint64_t i = 0; i < race->value; i++) {
		struct actor *actor = &control->actors[i];

		armed_by[i] = -1;
		memset(actor, 0, offsetof(struct actor, steps));
		memset(actor->stamps, 0, sizeof(actor->stamps));
		memset(actor->seen, 0, sizeof(actor->seen));
	}
	atomic_store(&control->clock, 0);
}

static int file_of(unsigned int device)
{
	const struct binding *binding = request_binding(exchange->request.program.binding);
	char node[32];

	if (files[device] < 0) {
		snprintf(node, sizeof(node), binding->node, device);
		files[device] = open(node, O_RDWR | O_CLOEXEC);
		if (files[device] < 0)
			give_up(node);
	}
	return files[device];
}

/* From now on actor @number parks at the gate that the segment says, and nowhere else. */
static void arm(unsigned int number, const struct wire_operation *segment)
{
	uint64_t device = segment->value >> WIRE_SEGMENT_DEVICE_SHIFT;
	struct hmm_harness_gate args = {
		.thread = atomic_load(&control->actors[number].thread),
		.time = WIRE_GATE_MS,
	};

	if (armed_by[number] >= 0 && gate(armed_by[number], HMM_HARNESS_GATE_ARM, &args) && errno != ESRCH)
		give_up("cannot disarm a gate");
	args.gate = segment->argument;
	args.skip = segment->value;
	args.flags = device ? 0 : HMM_HARNESS_GATE_ANY_DEVICE;
	armed_by[number] = file_of(device ? device - 1 : 0);
	if (gate(armed_by[number], HMM_HARNESS_GATE_ARM, &args) && errno != ESRCH)
		give_up("cannot arm a gate");
}

static void release(unsigned int number)
{
	struct actor *actor = &control->actors[number];
	uint32_t waiting = ACTOR_WAITING;

	if (atomic_compare_exchange_strong(&actor->state, &waiting, ACTOR_GO)) {
		futex_wake(&actor->state);
		return;
	}
	for (unsigned int i = 0; i < WIRE_MAX_DEVICES; i++) {
		struct hmm_harness_gate args = { .thread = atomic_load(&actor->thread) };

		/* ENOENT: nothing was armed through that one. */
		if (files[i] >= 0)
			gate(files[i], HMM_HARNESS_GATE_RELEASE, &args);
	}
}

static bool is_parked(unsigned int number)
{
	struct hmm_harness_gate args = { .thread = atomic_load(&control->actors[number].thread) };

	return armed_by[number] >= 0 && !gate(armed_by[number], HMM_HARNESS_GATE_WAIT, &args) && args.parked;
}

/* Reads a file of a thread in /proc; an empty text where that is not possible. */
static void load(pid_t process, pid_t thread, const char *name, char *text, size_t size)
{
	char path[64];
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/%s", process, thread, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	length = fd < 0 ? -1 : read(fd, text, size - 1);
	if (fd >= 0)
		close(fd);
	text[length < 0 ? 0 : length] = '\0';
}

static unsigned long long number_behind(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

/* The innermost function of the kernel's that /proc/PID/stack names: of "[<0>] name+0x1/0x2" the name. */
static void name_place(const char *stack, char *name, size_t size)
{
	const char *from = strchr(stack, ' ');
	size_t length = 0;

	for (from = from ? from + 1 : stack; length + 1 < size && (isalnum(from[length]) || from[length] == '_');)
		length++;
	memcpy(name, from, length);
	name[length] = '\0';
}

/* How many looks in a row it takes to say that a thread that sleeps there waits for another one */
static unsigned int patience(const char *stack)
{
	for (size_t i = 0; i < sizeof(own_work) / sizeof(own_work[0]); i++)
		if (strstr(stack, own_work[i]))
			return PATIENT_LOOKS;
	return ASLEEP_LOOKS;
}

/* Whether there is nothing of a process any more but that it has not been waited for */
static bool has_ended(pid_t process)
{
	char text[512];
	const char *at;

	load(process, process, "stat", text, sizeof(text));
	at = strrchr(text, ')');
	return !at || at[2] == 'Z' || at[2] == 'X';
}

static unsigned int look_at(pid_t process, pid_t thread, struct look *look)
{
	unsigned long long user = 0, system = 0;
	char text[4096];
	char state = 'R';
	const char *at;

	memset(look, 0, sizeof(*look));
	load(process, thread, "stat", text, sizeof(text));
	at = strrchr(text, ')');
	/* A thread that ends its process is gone before that is. State, then parent and so on: user and system time are the 14th and 15th field of all. */
	if (at)
		sscanf(at, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &state, &user, &system);
	look->gone = !at && has_ended(process);
	look->sleeps = state == 'D' || state == 'S';
	look->ticks = user + system;
	load(process, thread, "status", text, sizeof(text));
	look->switches = number_behind(text, "\nvoluntary_ctxt_switches:") +
			 number_behind(text, "nonvoluntary_ctxt_switches:");
	load(process, thread, "stack", text, sizeof(text));
	name_place(text, look->where, sizeof(look->where));
	return patience(text);
}

static void pause_for_a_look(void)
{
	const struct timespec time = { .tv_nsec = LOOK_MS * 1000000 };

	nanosleep(&time, NULL);
}

/* Waits until it is known how the segment of actor @number ends. */
static uint64_t watch(unsigned int number, const struct race_place *place, struct look *now)
{
	struct actor *actor = &control->actors[number];
	pid_t thread = atomic_load(&actor->thread);
	unsigned long long spin = SPIN_MS * sysconf(_SC_CLK_TCK) / 1000;
	unsigned int same = 0, wanted;
	struct look first, before;

	look_at(place->process, thread, &first);
	before = first;
	for (;;) {
		pause_for_a_look();
		if (atomic_load(&actor->state) == ACTOR_ENDED)
			return WIRE_ENDED;
		if (is_parked(number))
			return WIRE_PARKED;
		wanted = look_at(place->process, thread, now);
		if (now->gone)
			return WIRE_ENDED;
		same = now->sleeps && before.sleeps && now->switches == before.switches ? same + 1 : 0;
		before = *now;
		/* It may have come to its gate, or to its end, since that was asked. */
		if (same >= wanted && !is_parked(number) && atomic_load(&actor->state) != ACTOR_ENDED)
			return WIRE_BLOCKED;
		if (now->ticks - first.ticks > spin)
			return WIRE_SPINS;
	}
}

void race_segment(const struct wire_operation *segment, const struct race_place *place, struct wire_observation *seen,
		  uint64_t *elements)
{
	unsigned int number = segment->other;
	struct look last = { 0 };
	uint64_t *where = elements + 4;

	elements[2] = actor_tick();
	if (atomic_load(&control->actors[number].state) == ACTOR_ENDED || place->gone) {
		elements[0] = WIRE_ENDED;
	} else {
		if (segment->argument || traces)
			arm(number, segment);
		release(number);
		elements[0] = watch(number, place, &last);
	}
	elements[1] = atomic_load(&control->actors[number].done);
	elements[3] = actor_tick();
	memset(where, 0, (WIRE_SEGMENT_WORDS - 4) * sizeof(*where));
	if (elements[0] == WIRE_BLOCKED)
		memcpy(where, last.where, strnlen(last.where, (WIRE_SEGMENT_WORDS - 4) * sizeof(*where)));
	seen->status = WIRE_DONE;
	seen->count = WIRE_SEGMENT_WORDS;
}

/* Lets an actor go on to its end. */
void race_let_go(unsigned int number)
{
	static const struct wire_operation nowhere = { .code = WIRE_SEGMENT };

	if (armed_by[number] >= 0)
		arm(number, &nowhere);
	release(number);
}

/* What an actor came by, and when; returns how many elements that is. To be asked while the thread is known. */
uint64_t race_tell(unsigned int number, uint64_t *elements)
{
	struct actor *actor = &control->actors[number];
	struct hmm_harness_gate args = { .thread = atomic_load(&actor->thread) };
	uint64_t *expired = elements + 2 * actor->count;
	uint64_t *trace = expired + 2;
	uint64_t passed = 0;

	memcpy(elements, actor->stamps, actor->count * sizeof(actor->stamps[0]));
	*expired = 0;
	expired[1] = args.thread;
	for (unsigned int i = 0; i < WIRE_MAX_DEVICES; i++) {
		args.trace = 0;
		if (files[i] < 0 || gate(files[i], HMM_HARNESS_GATE_WAIT, &args))
			continue;
		*expired += args.expired;
		if (args.passed <= passed)
			continue;
		args.trace = (uintptr_t)trace;
		if (gate(files[i], HMM_HARNESS_GATE_WAIT, &args))
			give_up("cannot ask for the gates that an actor came by");
		passed = args.passed;
	}
	return 2 * actor->count + 2 + (passed < WIRE_TRACE ? passed : WIRE_TRACE);
}

void race_over(void)
{
	for (unsigned int i = 0; i < WIRE_MAX_DEVICES; i++) {
		if (files[i] >= 0)
			close(files[i]);
		files[i] = -1;
	}
}

/* Of the front: says which actors of a race have not ended, and where they are. */
void race_tell_stuck(void)
{
	struct look look;

	for (unsigned int i = 0; i < WIRE_MAX_ACTORS; i++) {
		struct actor *actor = &control->actors[i];
		pid_t thread = atomic_load(&actor->thread);

		if (atomic_load(&actor->state) != ACTOR_GO)
			continue;
		look_at(thread, thread, &look);
		fprintf(stderr, "executor: actor %u of the race did not end: step %u, %s %s\n", i,
			atomic_load(&actor->done), look.sleeps ? "waits in" : "runs", look.where);
	}
}
