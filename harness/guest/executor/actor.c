// SPDX-License-Identifier: GPL-2.0-only
/* What every actor of a race does, whichever process it is a thread of: its steps, and a note of when. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "executor.h"
#include "futex.h"

static void ring(void)
{
	atomic_fetch_add(&control->bell, 1);
	futex_wake(&control->bell);
}

uint64_t actor_tick(void)
{
	uint64_t last = atomic_load(&control->clock), next;
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	do {
		next = time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
		if (next <= last)
			next = last + 1;
	} while (!atomic_compare_exchange_weak(&control->clock, &last, next));
	return next;
}

/* Its own CPU, and a timer that is as exact as it can be. Where that is refused, it runs where the others do. */
static void get_loose(const struct actor *actor)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(actor->cpu, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	prctl(PR_SET_TIMERSLACK, 1);
}

/* Asleep: the timer's interrupt is what comes in the middle of what another actor does. */
static void await_moment(const struct actor *actor)
{
	uint64_t moment = atomic_load(&control->begin) + actor->moment;
	const struct timespec time = {
		.tv_sec = moment / UINT64_C(1000000000),
		.tv_nsec = moment % UINT64_C(1000000000),
	};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR)
		;
}

bool actor_run(unsigned int number,
	       bool (*perform)(void *context, const struct wire_operation *step, struct wire_observation *seen,
			       uint64_t *elements),
	       void *context)
{
	struct actor *actor = &control->actors[number];

	if (actor->loose)
		get_loose(actor);
	atomic_store(&actor->thread, gettid());
	atomic_store(&actor->state, ACTOR_WAITING);
	ring();
	while (atomic_load(&actor->state) == ACTOR_WAITING)
		futex_wait(&actor->state, ACTOR_WAITING);
	if (actor->loose)
		await_moment(actor);
	for (uint32_t i = 0; i < actor->count; i++) {
		actor->stamps[i][0] = actor_tick();
		if (!perform(context, &actor->steps[i], &actor->seen[i], actor->elements[i]))
			return false;
		actor->stamps[i][1] = actor_tick();
		atomic_store(&actor->done, i + 1);
	}
	atomic_store(&actor->state, ACTOR_ENDED);
	ring();
	/* Its number is its own as long as somebody may ask what it came by. */
	while (atomic_load(&actor->state) == ACTOR_ENDED)
		futex_wait(&actor->state, ACTOR_ENDED);
	return true;
}
