// SPDX-License-Identifier: GPL-2.0-only
/* The worker: runs one program after the other, step by step. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
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
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(sched_getcpu(), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
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
