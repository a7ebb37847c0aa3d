// SPDX-License-Identifier: GPL-2.0-only
/* The worker: runs one program after the other, step by step. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "executor.h"
#include "futex.h"
#include "token.h"

/* What only the worker knows of a subject */
struct subject {
	pid_t pid;
	bool runs;
	bool dying; /* runs no more steps: it has stopped on its way out */
	int wait_status; /* when it does not run any more */
	pid_t answerer; /* of its userfaultfd, or 0 */
};

static struct subject subjects[WIRE_MAX_SUBJECTS];
/*
 * A child that ended before it was known as a subject: one that a subject forked
 * and has not told of yet. There is one step at a time, so there is one at most.
 */
static struct {
	pid_t pid; /* 0: none */
	int wait_status;
} unknown;
static int devices[WIRE_MAX_DEVICES]; /* open files, or -1 */
static const struct binding *binding;
static cpu_set_t cpus; /* that there are for actors */
static int channel[2]; /* [0] the worker's, [1] every subject's */

static volatile sig_atomic_t child_ended;

static void on_child(int number)
{
	(void)number;
	child_ended = 1;
	/* If the worker is about to sleep, it will not. */
	atomic_fetch_add(&control->bell, 1);
}

_Noreturn static void give_up(const char *what)
{
	fprintf(stderr, "executor: worker: %s: %s\n", what, strerror(errno));
	_exit(EXIT_SYSTEM);
}

/* Notes which subjects have ended. Returns one that was not supposed to, or NULL */
static struct subject *reap(const struct subject *supposed)
{
	struct subject *unexpected = NULL;
	pid_t pid;
	int status;

	if (!child_ended)
		return NULL;
	child_ended = 0;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		bool known = false;

		for (struct subject *subject = subjects; subject < subjects + WIRE_MAX_SUBJECTS; subject++) {
			if (!subject->runs || subject->pid != pid)
				continue;
			known = true;
			subject->runs = false;
			subject->wait_status = status;
			atomic_store(&control->slots[subject - subjects].pid, 0);
			if (subject != supposed || status != (subject->dying ? SIGKILL : 0))
				unexpected = subject;
		}
		if (!known) {
			unknown.pid = pid;
			unknown.wait_status = status;
		}
	}
	return unexpected;
}

/*
 * Sleeps until @number waits for its next step or has ended. Returns a subject
 * that died though nobody told it to, or NULL.
 */
static struct subject *await(unsigned int number, bool exits)
{
	for (;;) {
		uint32_t bell = atomic_load(&control->bell);
		struct subject *dead = reap(exits ? &subjects[number] : NULL);

		if (dead)
			return dead;
		if (exits ? !subjects[number].runs : atomic_load(&control->slots[number].state) == SLOT_WAITING)
			return NULL;
		futex_wait(&control->bell, bell);
	}
}

/* Nobody answers the userfaultfd of @subject any more, which has ended. */
static void stop_answerer(struct subject *subject)
{
	if (!subject->answerer)
		return;
	kill(subject->answerer, SIGKILL);
	while (waitpid(subject->answerer, NULL, 0) < 0 && errno == EINTR)
		;
	subject->answerer = 0;
}

/* Returns the subject if it has ended already, or NULL. */
static struct subject *started(unsigned int number, pid_t pid)
{
	struct subject *subject = &subjects[number];

	stop_answerer(subject);
	subject->pid = pid;
	subject->dying = false;
	subject->runs = unknown.pid != pid;
	atomic_store(&control->slots[number].pid, subject->runs ? pid : 0);
	if (subject->runs)
		return NULL;
	subject->wait_status = unknown.wait_status;
	unknown.pid = 0;
	return subject;
}

static void start_first_subject(void)
{
	pid_t worker = getpid();
	pid_t pid;

	atomic_store(&control->slots[0].state, SLOT_EMPTY);
	pid = fork();
	if (pid < 0)
		give_up("cannot fork the first subject");
	if (pid == 0) {
		signal(SIGCHLD, SIG_DFL);
		/* It must keep nothing alive: no device, no pipe of ours. */
		if (dup2(channel[1], STDIN_FILENO) < 0)
			_exit(EXIT_SYSTEM);
		closefrom(STDERR_FILENO + 1); /* close_range(2) is too new for some kernels */
		close(STDOUT_FILENO);
		subject_run(0, worker, STDIN_FILENO);
	}
	if (started(0, pid) || await(0, false)) {
		errno = ECHILD;
		give_up("the first subject died at once");
	}
}

static void fail(struct wire_observation *seen, const struct subject *dead)
{
	seen->status = WIRE_SUBJECT_DIED;
	seen->error = WIFSIGNALED(dead->wait_status) ? WTERMSIG(dead->wait_status) : 0;
	seen->count = 0;
}

static bool not_run(struct wire_observation *seen, int error)
{
	seen->status = WIRE_NOT_RUN;
	seen->error = error;
	return true;
}

/* Takes the memory of subject @number while it ends. Returns whether the program can go on. */
static bool run_reap(unsigned int number, struct wire_observation *seen)
{
	struct subject *subject = &subjects[number];

	if (!subject->runs)
		return not_run(seen, ESRCH);
	if (!subject->dying) {
		errno = reaper_kill(subject->pid);
		if (errno)
			give_up("a subject does not stop on its way out");
		subject->dying = true;
	}
	seen->error = reaper_reap(subject->pid);
	seen->status = seen->error == ENOSYS ? WIRE_UNSUPPORTED : WIRE_DONE;
	return seen->status == WIRE_DONE;
}

/* Lets subject @number end, which has stopped on its way out. Returns whether the program can go on. */
static bool run_last(unsigned int number, const struct wire_operation *step, struct wire_observation *seen)
{
	struct subject *dead;

	if (step->code != WIRE_EXIT)
		return not_run(seen, ESRCH);
	reaper_release(subjects[number].pid);
	dead = await(number, true);
	if (dead) {
		fail(seen, dead);
		return false;
	}
	seen->status = WIRE_DONE;
	return true;
}

/* Has subject @number do @step. Returns whether the program can go on. */
static bool run_subject(unsigned int number, const struct wire_operation *step, struct wire_observation *seen,
			uint64_t *elements)
{
	struct slot *slot = &control->slots[number];
	bool exits = step->code == WIRE_EXIT;
	struct subject *dead;

	if (!subjects[number].runs)
		return not_run(seen, ESRCH);
	if (subjects[number].dying)
		return run_last(number, step, seen);
	if (step->code == WIRE_FORK) {
		if (subjects[step->other].runs)
			return not_run(seen, EEXIST);
		atomic_store(&control->slots[step->other].state, SLOT_EMPTY);
		atomic_store(&control->slots[step->other].pid, 0);
	}
	slot->step = *step;
	atomic_store(&slot->state, SLOT_GO);
	futex_wake(&slot->state);
	dead = await(number, exits);
	if (!dead && !exits && step->code == WIRE_FORK && !slot->error) {
		dead = started(step->other, atomic_load(&control->slots[step->other].pid));
		if (!dead)
			dead = await(step->other, false);
	}
	if (dead) {
		fail(seen, dead);
		return false;
	}
	seen->status = WIRE_DONE;
	if (exits)
		return true;
	seen->error = slot->error;
	if (!seen->error) {
		seen->count = request_elements(step);
		memcpy(elements, control->elements, seen->count * sizeof(*elements));
	}
	return true;
}

/* Has a subject register memory with a userfaultfd, which somebody may have to answer. */
static bool run_userfault(const struct wire_operation *step, struct wire_observation *seen)
{
	struct subject *subject = &subjects[step->actor];
	int fd;

	if (!run_subject(step->actor, step, seen, NULL))
		return false;
	if (seen->status != WIRE_DONE || seen->error || step->argument != WIRE_USERFAULT_ANSWERED)
		return true;
	fd = channel_receive(channel[0]);
	if (fd < 0) {
		errno = -fd;
		give_up("cannot receive a userfaultfd from a subject");
	}
	if (!subject->answerer)
		subject->answerer = userfault_answer(fd);
	if (subject->answerer < 0)
		give_up("cannot fork who answers a userfaultfd");
	close(fd);
	return true;
}

static bool run_bind(const struct wire_operation *step, struct wire_observation *seen)
{
	struct slot *slot = &control->slots[step->other];
	int *device = &devices[step->actor];
	int fd;

	if (!subjects[step->other].runs || subjects[step->other].dying)
		return not_run(seen, ESRCH);
	slot->binding = exchange->request.program.binding;
	slot->passed = *device >= 0;
	if (slot->passed) {
		if (!binding->unbound) {
			/* Open is bound: nothing is like binding it once more. */
			seen->status = WIRE_UNSUPPORTED;
			return false;
		}
		if (channel_send(channel[0], *device))
			give_up("cannot hand a device to a subject");
	}
	if (!run_subject(step->other, step, seen, NULL))
		return false;
	if (seen->error || slot->passed)
		return true;
	fd = channel_receive(channel[0]);
	if (fd < 0) {
		errno = -fd;
		give_up("cannot receive a device from a subject");
	}
	*device = fd;
	return true;
}

static bool run_device(const struct wire_operation *step, struct wire_observation *seen, uint64_t *elements)
{
	int *device = &devices[step->actor];
	struct subject *dead;
	char node[32];
	bool go_on;

	if (*device < 0 && !binding->unbound) {
		seen->status = WIRE_UNSUPPORTED;
		return false;
	}
	if (*device < 0) {
		snprintf(node, sizeof(node), binding->node, step->actor);
		*device = open(node, O_RDWR | O_CLOEXEC);
		if (*device < 0)
			give_up(node);
	}
	go_on = binding->operate(*device, step, seen, elements, exchange->scratch);
	if (seen->count > request_elements(step)) {
		seen->error = EPROTO;
		seen->count = 0;
	}
	dead = reap(NULL);
	if (dead) {
		fail(seen, dead);
		return false;
	}
	return go_on;
}

/* Notes the process of a subject that an actor forked, and waits until it can be told what to do. */
static struct subject *adopt(const struct wire_operation *fork)
{
	struct subject *dead = started(fork->other, atomic_load(&control->slots[fork->other].pid));

	return dead ? dead : await(fork->other, false);
}

/* A step of an actor for devices, in a thread of the worker */
static bool act(void *context, const struct wire_operation *step, struct wire_observation *seen, uint64_t *elements)
{
	binding->operate(devices[step->actor], step, seen, elements, context);
	if (seen->count > request_elements(step)) {
		seen->error = EPROTO;
		seen->count = 0;
	}
	return true;
}

static void *run_actor(void *argument)
{
	size_t size = SCRATCH_PAGES * PAGE_BYTES;
	void *scratch = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (scratch == MAP_FAILED)
		give_up("no memory for an actor");
	actor_run((uintptr_t)argument, act, scratch);
	munmap(scratch, size);
	return NULL;
}

/* Starts a thread of the worker, which signals leave alone. */
static void start_device_actor(unsigned int number, pthread_t *thread)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	errno = pthread_create(thread, NULL, run_actor, (void *)(uintptr_t)number);
	if (errno)
		give_up("cannot start an actor");
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Starts a thread of a subject. Returns a subject that died, or NULL. */
static struct subject *start_subject_actor(unsigned int number, unsigned int subject)
{
	struct slot *slot = &control->slots[subject];
	struct subject *dead;

	slot->step = (struct wire_operation){ .code = WIRE_ACTOR, .argument = number };
	atomic_store(&slot->state, SLOT_GO);
	futex_wake(&slot->state);
	dead = await(subject, false);
	if (!dead && slot->error) {
		errno = slot->error;
		give_up("cannot start an actor in a subject");
	}
	return dead;
}

/* What the worker knows of an actor */
struct part {
	bool device;
	unsigned int subject; /* unless it is for devices */
	bool exits; /* its last step ends the subject */
	pthread_t thread; /* if it is for devices */
	struct race_place place;
};

/* The CPU of the actor @number of a race without a schedule */
static int cpu_of(unsigned int number)
{
	int cpu = 0;

	for (unsigned int left = number % CPU_COUNT(&cpus) + 1; !CPU_ISSET(cpu, &cpus) || --left; cpu++)
		;
	return cpu;
}

/* Prepares the actors of a race, of which @at is the first. Returns whether all that they need is there. */
static bool prepare_actors(struct part *parts, const struct wire_operation *at, uint64_t count, bool loose,
			   struct wire_observation *seen)
{
	for (uint64_t i = 0; i < count; i++) {
		struct actor *actor = &control->actors[i];
		struct part *part = &parts[i];

		actor->count = at->argument;
		actor->loose = loose;
		actor->cpu = cpu_of(i);
		actor->moment = at->value;
		memcpy(actor->steps, at + 1, actor->count * sizeof(*at));
		part->device = request_is_device(at[1].code);
		part->subject = at[1].actor;
		part->exits = at[actor->count].code == WIRE_EXIT;
		at += 1 + actor->count;
		part->place.process = part->device ? getpid() : subjects[part->subject].pid;
		if (!part->device && (!subjects[part->subject].runs || subjects[part->subject].dying))
			return !not_run(seen, ESRCH);
		for (uint32_t j = 0; j < actor->count; j++) {
			const struct wire_operation *step = &actor->steps[j];

			if (part->device && devices[step->actor] < 0)
				return !not_run(seen, ENODEV);
			if (step->code != WIRE_FORK)
				continue;
			if (subjects[step->other].runs)
				return !not_run(seen, EEXIST);
			atomic_store(&control->slots[step->other].state, SLOT_EMPTY);
			atomic_store(&control->slots[step->other].pid, 0);
		}
	}
	return true;
}

/* Starts the threads of all actors, and waits until they are there. */
static void start_actors(struct part *parts, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		if (parts[i].device) {
			start_device_actor(i, &parts[i].thread);
		} else if (start_subject_actor(i, parts[i].subject)) {
			errno = ESRCH;
			give_up("a subject died when its actor was to start");
		}
		for (;;) {
			uint32_t bell = atomic_load(&control->bell);

			if (atomic_load(&control->actors[i].state) == ACTOR_WAITING)
				break;
			futex_wait(&control->bell, bell);
		}
	}
}

/* Notes which subjects have ended. Returns one that was not to, or NULL. */
static struct subject *reap_actors(struct part *parts, uint64_t count)
{
	const struct subject *supposed = NULL;
	struct subject *dead;

	for (uint64_t i = 0; i < count; i++)
		if (!parts[i].device && parts[i].exits)
			supposed = &subjects[parts[i].subject];
	dead = reap(supposed);
	for (uint64_t i = 0; i < count; i++)
		if (!parts[i].device)
			parts[i].place.gone = !subjects[parts[i].subject].runs;
	return dead;
}

/* Waits until all actors have done their steps, or their processes have ended. Returns one that was not to, or NULL. */
static struct subject *await_actors(struct part *parts, uint64_t count)
{
	struct subject *dead = NULL;

	for (uint64_t i = 0; i < count;) {
		uint32_t bell = atomic_load(&control->bell);
		struct subject *found = reap_actors(parts, count);

		if (found)
			dead = found;
		if (parts[i].place.gone || atomic_load(&control->actors[i].state) == ACTOR_ENDED)
			i++;
		else
			futex_wait(&control->bell, bell);
	}
	return dead;
}

/* An actor whose subject died is not there to tell in which step. */
static void note_death(const struct subject *dead, struct part *parts, uint64_t count)
{
	for (uint64_t i = 0; i < count; i++) {
		struct actor *actor = &control->actors[i];
		uint32_t done = atomic_load(&actor->done);

		if (!parts[i].device && &subjects[parts[i].subject] == dead && done < actor->count)
			fail(&actor->seen[done], dead);
	}
}

/* An actor that ends its subject is not there to tell that it did. */
static void note_exit(unsigned int number)
{
	struct actor *actor = &control->actors[number];
	uint32_t last = actor->count - 1;

	actor->seen[last].status = WIRE_DONE;
	actor->stamps[last][1] = actor_tick();
	atomic_store(&actor->done, actor->count);
}

static const uint64_t no_elements[1];

static uint64_t put(uint64_t length, const struct wire_observation *seen, const uint64_t *elements)
{
	memcpy(exchange->response + length + sizeof(*seen), elements, seen->count * sizeof(*elements));
	memcpy(exchange->response + length, seen, sizeof(*seen));
	return length + sizeof(*seen) + seen->count * sizeof(*elements);
}

/* Ends the threads, and writes what they saw. Returns the length of the response then. */
static uint64_t tell_actors(struct part *parts, uint64_t count, uint64_t length)
{
	for (uint64_t i = 0; i < count; i++) {
		static uint64_t elements[2 * WIRE_MAX_ACTOR_STEPS + 2 + WIRE_TRACE];
		struct wire_observation told = { .status = WIRE_DONE };
		struct actor *actor = &control->actors[i];

		told.count = race_tell(i, elements);
		length = put(length, &told, elements);
		for (uint32_t j = 0; j < actor->count; j++)
			length = put(length, &actor->seen[j], actor->elements[j]);
		atomic_store(&actor->state, ACTOR_NONE);
		futex_wake(&actor->state);
		if (parts[i].device)
			pthread_join(parts[i].thread, NULL);
	}
	race_over();
	return length;
}

/* What all looks saw, one after the other, each time with all that it sees */
static uint64_t looked[WIRE_MAX_LOOKS][(WIRE_MAX_SEGMENTS + 1) * (WIRE_LOOK_HEAD + 2 * WIRE_MAX_LOOK_PAGES)];

static const struct wire_operation *looks_of(const struct wire_operation *race)
{
	return race + 1 + request_race_length(race) - race->other;
}

/* Takes all looks of a race, for the time @number. */
static void take_looks(const struct wire_operation *race, uint32_t number)
{
	for (uint8_t i = 0; i < race->other; i++) {
		const struct wire_operation *look = looks_of(race) + i;
		uint64_t *words = looked[i] + number * look_words(look->npages);
		uint64_t *pages = words + WIRE_LOOK_HEAD;

		memset(words, 0, look_words(look->npages) * sizeof(*words));
		for (unsigned int cpu = 0; cpu < 2; cpu++, pages += look->npages)
			words[cpu] = devices[look->actor] < 0 ? ENODEV :
				     binding->look(devices[look->actor], cpu, look, pages);
	}
}

/* Writes what they saw. Returns the length of the response then. */
static uint64_t tell_looks(const struct wire_operation *race, uint64_t length)
{
	for (uint8_t i = 0; i < race->other; i++) {
		struct wire_observation told = {
			.status = WIRE_DONE,
			.count = (race->argument + 1) * look_words(looks_of(race)[i].npages),
		};

		length = put(length, &told, looked[i]);
	}
	return length;
}

/* The parts of a race that nobody comes to, of which one says why: @seen */
static uint64_t skip_race(const struct wire_operation *race, const struct wire_observation *seen, uint64_t length)
{
	static const struct wire_observation nothing = { .status = WIRE_NOT_RUN };

	length = put(length, seen, no_elements);
	for (uint32_t i = request_race_length(race); i > 0; i--)
		length = put(length, &nothing, no_elements);
	return length;
}

/* Runs a race. @length: of the response, which grows by all that belongs to it. Returns whether the program can go on. */
static bool run_race(const struct wire_operation *race, uint64_t *length)
{
	struct part parts[WIRE_MAX_ACTORS] = { 0 };
	struct wire_observation seen = { .status = WIRE_DONE };
	uint64_t count = race->value;
	struct subject *dead;

	if (!binding->gates) {
		seen.status = WIRE_UNSUPPORTED;
		*length = skip_race(race, &seen, *length);
		return false;
	}
	race_prepare(race);
	if (!prepare_actors(parts, race + 1 + race->argument, count, !race->argument, &seen)) {
		*length = skip_race(race, &seen, *length);
		return true;
	}
	start_actors(parts, count);
	*length = put(*length, &seen, no_elements);
	take_looks(race, 0);
	for (uint32_t i = 0; i < race->argument; i++) {
		const struct wire_operation *segment = &race[1 + i];
		uint64_t elements[WIRE_SEGMENT_WORDS];
		struct wire_observation told = { 0 };

		race_segment(segment, &parts[segment->other].place, &told, elements);
		*length = put(*length, &told, elements);
		take_looks(race, i + 1);
	}
	atomic_store(&control->begin, actor_tick());
	for (uint64_t i = 0; i < count; i++)
		race_let_go(i);
	dead = await_actors(parts, count);
	if (dead)
		note_death(dead, parts, count);
	for (uint64_t i = 0; i < count; i++)
		if (parts[i].place.gone && parts[i].exits && &subjects[parts[i].subject] != dead)
			note_exit(i);
	*length = tell_actors(parts, count, *length);
	*length = tell_looks(race, *length);
	for (uint64_t i = 0; i < count && !dead; i++) {
		struct actor *actor = &control->actors[i];

		for (uint32_t j = 0; j < actor->count && !dead; j++)
			if (actor->steps[j].code == WIRE_FORK && !actor->seen[j].error)
				dead = adopt(&actor->steps[j]);
	}
	return !dead;
}

static bool run_step(const struct wire_operation *step, struct wire_observation *seen, uint64_t *elements)
{
	if (step->code == WIRE_BIND)
		return run_bind(step, seen);
	if (request_is_device(step->code))
		return run_device(step, seen, elements);
	if (step->code == WIRE_REAP)
		return run_reap(step->actor, seen);
	if (step->code == WIRE_USERFAULT)
		return run_userfault(step, seen);
	return run_subject(step->actor, step, seen, elements);
}

static void end_program(void)
{
	for (unsigned int i = 0; i < WIRE_MAX_SUBJECTS; i++) {
		if (!subjects[i].runs) {
			stop_answerer(&subjects[i]);
			continue;
		}
		kill(subjects[i].pid, SIGKILL);
		if (subjects[i].dying)
			reaper_release(subjects[i].pid);
		while (waitpid(subjects[i].pid, NULL, 0) < 0 && errno == EINTR)
			;
		subjects[i].runs = false;
		stop_answerer(&subjects[i]);
		atomic_store(&control->slots[i].pid, 0);
	}
	unknown.pid = 0; /* the number may be given to another process */
	/* Only now: closing a test_hmm device moves the pages of whoever is left. */
	for (unsigned int i = 0; i < WIRE_MAX_DEVICES; i++) {
		if (devices[i] >= 0)
			close(devices[i]);
		devices[i] = -1;
	}
}

/* The driver may have done less than it was told to: then nobody can say what was to be seen. */
static void tell_refused(int device, uint64_t before)
{
	uint64_t times = binding->refused(binding, device) - before;

	if (times)
		fprintf(stderr, "executor: device %d was refused memory %llu times\n", device, (unsigned long long)times);
}

/* Whether the accounts of a device concern a program; to look at them takes time. */
static bool concerns(const struct request *request, int device)
{
	if (device < WIRE_FIRST_COHERENT)
		return true;
	for (uint32_t i = 0; i < request->program.operations; i++) {
		const struct wire_operation *operation = &request->operations[i];

		if (request_is_device(operation->code) && operation->actor == device)
			return true;
	}
	return false;
}

static void run_program(void)
{
	bool concerned[WIRE_MAX_DEVICES];
	uint64_t refused[WIRE_MAX_DEVICES];
	const struct request *request = &exchange->request;
	struct wire_outcome *outcome = (struct wire_outcome *)exchange->response;
	uint32_t count = request->program.operations;
	uint64_t length = sizeof(*outcome);
	bool go_on = true;

	binding = request_binding(request->program.binding);
	for (int i = 0; i < WIRE_MAX_DEVICES; i++) {
		concerned[i] = concerns(request, i);
		if (concerned[i])
			refused[i] = binding->refused(binding, i);
	}
	pool_fill(request);
	swap_fill(request);
	start_first_subject();
	for (uint32_t i = 0; i < count; i++) {
		struct wire_observation *seen = (struct wire_observation *)(exchange->response + length);

		if (go_on && request->operations[i].code == WIRE_RACE) {
			go_on = run_race(&request->operations[i], &length);
			i += request_race_length(&request->operations[i]);
			atomic_store(&control->current, i + 1);
			continue;
		}
		memset(seen, 0, sizeof(*seen));
		if (go_on)
			go_on = run_step(&request->operations[i], seen, (uint64_t *)(seen + 1));
		length += sizeof(*seen) + seen->count * sizeof(uint64_t);
		atomic_store(&control->current, i + 1);
	}
	end_program();
	pool_empty();
	swap_empty();
	outcome->magic = WIRE_MAGIC;
	outcome->observations = count;
	outcome->length = length;
	for (int i = 0; i < WIRE_MAX_DEVICES; i++) {
		outcome->in_use[i] = WIRE_UNKNOWN;
		if (!concerned[i])
			continue;
		outcome->in_use[i] = binding->in_use(binding, i);
		tell_refused(i, refused[i]);
	}
}

/*
 * The worker and its subjects take turns, so one CPU is enough: a step costs a
 * switch instead of a wake-up on another CPU, and pages do not wait in another
 * CPU's lists, where they cannot be migrated from.
 */
static void stay_on_one_cpu(void)
{
	cpu_set_t one;

	if (sched_getaffinity(0, sizeof(cpus), &cpus))
		give_up("cannot tell the CPUs");
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		give_up("cannot stay on one CPU");
}

_Noreturn void worker_run(int commands, int completions)
{
	struct sigaction action = { .sa_handler = on_child, .sa_flags = SA_RESTART | SA_NOCLDSTOP };
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGCHLD, &action, NULL);
	stay_on_one_cpu();
	/* Subjects are to have as little as possible besides what a program maps. */
	if (madvise(exchange, sizeof(*exchange), MADV_DONTFORK))
		give_up("cannot keep the exchange from subjects");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel))
		give_up("cannot make a channel");
	for (unsigned int i = 0; i < WIRE_MAX_DEVICES; i++)
		devices[i] = -1;
	while (read(commands, &byte, 1) == 1) {
		run_program();
		if (write(completions, &byte, 1) != 1)
			break;
	}
	_exit(0);
}
