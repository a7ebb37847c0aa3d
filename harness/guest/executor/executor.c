// SPDX-License-Identifier: GPL-2.0-only
/* The front: takes requests on standard input, answers on standard output in time. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "executor.h"

/* How long killed processes may take to end before they are left behind */
#define REAP_MS 3000
#define REAP_STEP_MS 10

struct control *control;
struct exchange *exchange;

static struct {
	pid_t pid;
	int commands;
	int completions;
} worker;

_Noreturn static void give_up(const char *what)
{
	fprintf(stderr, "executor: %s: %s\n", what, strerror(errno));
	exit(EXIT_SYSTEM);
}

static void *shared_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		give_up("cannot map shared memory");
	return memory;
}

static void start_worker(void)
{
	int commands[2], completions[2];

	if (pipe(commands) || pipe(completions))
		give_up("cannot make a pipe");
	worker.pid = fork();
	if (worker.pid < 0)
		give_up("cannot fork the worker");
	if (worker.pid == 0) {
		close(commands[1]);
		close(completions[0]);
		close(STDIN_FILENO);
		close(STDOUT_FILENO);
		worker_run(commands[0], completions[1]);
	}
	close(commands[0]);
	close(completions[1]);
	worker.commands = commands[1];
	worker.completions = completions[0];
}

/* Waits for all processes that there are, but not for ever. Returns whether all have ended. */
static bool reap_all(void)
{
	const struct timespec step = { .tv_nsec = REAP_STEP_MS * 1000000 };

	for (int waited = 0; waited < REAP_MS; waited += REAP_STEP_MS) {
		pid_t pid;

		do
			pid = waitpid(-1, NULL, WNOHANG);
		while (pid > 0);
		if (pid < 0 && errno == ECHILD)
			return true;
		nanosleep(&step, NULL);
	}
	return false;
}

static void stop_worker(void)
{
	kill(worker.pid, SIGKILL);
	for (unsigned int i = 0; i < WIRE_MAX_SUBJECTS; i++) {
		pid_t pid = atomic_exchange(&control->slots[i].pid, 0);

		if (pid > 0)
			kill(pid, SIGKILL);
	}
	if (!reap_all())
		fputs("executor: a process does not die of SIGKILL; left behind\n", stderr);
	close(worker.commands);
	close(worker.completions);
}

/*
 * The worker did not end in time: completes the response in its place. What it
 * wrote for the steps before the current one is final.
 */
static void report_stuck(void)
{
	struct wire_outcome *outcome = (struct wire_outcome *)exchange->response;
	uint32_t count = exchange->request.program.operations;
	uint32_t current = atomic_load(&control->current);
	uint64_t length = sizeof(*outcome);

	for (uint32_t i = 0; i < current; i++) {
		const struct wire_observation *seen = (void *)(exchange->response + length);

		length += sizeof(*seen) + seen->count * sizeof(uint64_t);
	}
	for (uint32_t i = current; i < count; i++) {
		struct wire_observation seen = { .status = i == current ? WIRE_STUCK : WIRE_NOT_RUN };

		memcpy(exchange->response + length, &seen, sizeof(seen));
		length += sizeof(seen);
	}
	outcome->magic = WIRE_MAGIC;
	outcome->observations = count;
	outcome->length = length;
	for (int i = 0; i < WIRE_MAX_DEVICES; i++)
		outcome->in_use[i] = WIRE_UNKNOWN;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Whether the worker completed the program in time; ends the executor if the worker died. */
static bool completed(void)
{
	int64_t deadline = now_ms() + exchange->request.program.timeout_ms;
	struct pollfd watched = { .fd = worker.completions, .events = POLLIN };
	char byte;

	for (;;) {
		int64_t left = deadline - now_ms();
		int count = poll(&watched, 1, left > 0 ? left : 0);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			give_up("cannot wait for the worker");
		if (count == 0)
			return false;
		if (read(worker.completions, &byte, 1) == 1)
			return true;
		fprintf(stderr, "executor: the worker died at operation %u\n", atomic_load(&control->current));
		stop_worker();
		exit(EXIT_SYSTEM);
	}
}

static void send_response(void)
{
	uint64_t length = ((struct wire_outcome *)exchange->response)->length;
	uint64_t done = 0;

	while (done < length) {
		ssize_t count = write(STDOUT_FILENO, exchange->response + done, length - done);

		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0)
			give_up("cannot write the response");
		done += count;
	}
	/* A large response is rare, and the guest has better use for the memory. */
	if (length > WIRE_MAX_RESPONSE / 64)
		madvise(exchange->response, sizeof(exchange->response), MADV_REMOVE);
}

/* A program that needs a device must not look as if the kernel had refused it. */
static void check_devices(void)
{
	const struct request *request = &exchange->request;
	const struct binding *binding = request_binding(request->program.binding);
	char node[32];

	for (uint32_t i = 0; i < request->program.operations; i++) {
		const struct wire_operation *operation = &request->operations[i];

		if (!request_is_device(operation->code))
			continue;
		snprintf(node, sizeof(node), binding->node, operation->actor);
		if (access(node, R_OK | W_OK)) {
			fprintf(stderr, "executor: operation %u needs %s: %s\n", i, node, strerror(errno));
			exit(EXIT_NO_DEVICE);
		}
	}
}

int main(int argc, char **argv)
{
	const struct rlimit no_core = { 0 };
	char byte = 0;

	if (argc == 2 && !strcmp(argv[1], "features")) {
		features_print();
		return 0;
	}
	if (argc != 1) {
		fprintf(stderr, "usage: %s features | %s < REQUESTS > RESPONSES (see wire.h)\n", argv[0], argv[0]);
		return 64;
	}
	signal(SIGPIPE, SIG_IGN);
	setrlimit(RLIMIT_CORE, &no_core);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	control = shared_memory(sizeof(*control));
	exchange = shared_memory(sizeof(*exchange));
	start_worker();
	for (;;) {
		switch (request_read(STDIN_FILENO, &exchange->request)) {
		case REQUEST_COMPLETE:
			break;
		case REQUEST_END:
			stop_worker();
			return 0;
		case REQUEST_REFUSED:
			stop_worker();
			return EXIT_MALFORMED;
		}
		check_devices();
		atomic_store(&control->current, 0);
		if (write(worker.commands, &byte, 1) != 1)
			give_up("the worker is gone");
		if (!completed()) {
			race_tell_stuck();
			stop_worker();
			if (atomic_load(&control->current) == exchange->request.program.operations) {
				fputs("executor: the program ended, but not its processes and devices\n", stderr);
				return EXIT_SYSTEM;
			}
			report_stuck();
			start_worker();
		}
		send_response();
	}
}
