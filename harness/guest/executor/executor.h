/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The executor carries out programs (wire.h) in the guest. Three kinds of
 * processes:
 *
 *   the front    reads requests, writes responses, and keeps the time. It never
 *                does what a program asks for, so nothing a program does can
 *                keep it from answering.
 *   the worker   runs a program: tells subjects what to do, operates devices.
 *                In a race, each actor is a thread: of the subject whose steps
 *                it does, or of the worker for those of devices.
 *   subjects     the processes under test, children of the worker. Each has one
 *                slot in memory that all of them share, and sleeps there
 *                between its steps.
 *
 * When a program's time is over the front kills the worker and the subjects,
 * answers from what the worker had finished, and starts another worker.
 */
#ifndef EXECUTOR_H
#define EXECUTOR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "token.h"
#include "wire.h"

/* Exit codes: see <sysexits.h>, and 0 at the end of the input. */
#define EXIT_MALFORMED 65	/* a request that the front refuses */
#define EXIT_NO_DEVICE 69	/* a device node of the binding is missing */
#define EXIT_SYSTEM 71		/* the system refused what the executor itself needs */

/* Size of the pieces in which a device's data is moved */
#define CHUNK_PAGES 512
/* A piece of data, and room for a driver that insists on returning another one */
#define SCRATCH_PAGES (2 * CHUNK_PAGES)

/* struct slot, state */
#define SLOT_EMPTY 0	/* no process, or not ready yet */
#define SLOT_WAITING 1	/* sleeps until the next step */
#define SLOT_GO 2	/* has a step to do */

/**
 * struct slot - what the worker and one subject share
 * @state: SLOT_EMPTY ... SLOT_GO; the subject sleeps on it
 * @pid: of the subject, 0 when there is none to kill
 * @step: what to do
 * @error: what came of it: 0 or an errno
 * @binding: WIRE_BIND: whose device it is
 * @passed: WIRE_BIND: the file to bind comes through the channel; else it is
 *          opened and goes through the channel
 */
struct slot {
	_Atomic uint32_t state;
	_Atomic pid_t pid;
	struct wire_operation step;
	int32_t error;
	uint32_t binding;
	bool passed;
};

/* struct actor, state */
#define ACTOR_NONE 0	/* no thread, or not ready yet */
#define ACTOR_WAITING 1	/* sleeps until its first segment */
#define ACTOR_GO 2	/* goes through its steps, as far as gates let it */
#define ACTOR_ENDED 3	/* has done them all; ACTOR_NONE ends the thread */

/**
 * struct actor - a thread of a race, seen by all processes
 * @state: ACTOR_NONE ... ACTOR_ENDED; the thread sleeps on it at first
 * @thread: its number
 * @done: steps that it has done
 * @count: how many it has
 * @loose: no schedule says when it runs
 * @cpu: ... it has this one then
 * @moment: ... and runs so many nanoseconds after @begin of struct control
 * @steps: these
 * @stamps: of each, when it began and ended
 * @seen: what came of each
 * @elements: of each
 */
struct actor {
	_Atomic uint32_t state;
	_Atomic pid_t thread;
	_Atomic uint32_t done;
	uint32_t count;
	bool loose;
	int cpu;
	uint64_t moment;
	struct wire_operation steps[WIRE_MAX_ACTOR_STEPS];
	uint64_t stamps[WIRE_MAX_ACTOR_STEPS][2];
	struct wire_observation seen[WIRE_MAX_ACTOR_STEPS];
	uint64_t elements[WIRE_MAX_ACTOR_STEPS][WIRE_MAX_ACTOR_PAGES];
};

/**
 * struct control - memory shared by all processes of the executor
 * @bell: counts what the worker has to look at; it sleeps on it
 * @current: the step that the worker is at; what the response has of those
 *           before it is final
 * @slots: one per subject
 * @elements: what the subject under way observed, one per page of the step
 * @clock: of a race: what actor_tick() said last
 * @begin: of a race without a schedule: when all actors were ready, as actor_tick() has it
 * @actors: of the race under way
 */
struct control {
	_Atomic uint32_t bell;
	_Atomic uint32_t current;
	struct slot slots[WIRE_MAX_SUBJECTS];
	uint64_t elements[WIRE_MAX_PAGES];
	_Atomic uint64_t clock;
	_Atomic uint64_t begin;
	struct actor actors[WIRE_MAX_ACTORS];
};

/**
 * struct request - a request, as it was read
 * @program: its head
 * @operations: as many as the head says
 */
struct request {
	struct wire_program program;
	struct wire_operation operations[WIRE_MAX_OPERATIONS];
};

/**
 * struct exchange - memory shared by the front and the worker only
 * @scratch: pages of data on their way to or from a device
 * @response: what came of it, as it is sent
 * @request: what to run
 */
struct exchange {
	uint64_t scratch[SCRATCH_PAGES * PAGE_WORDS];
	uint8_t response[WIRE_MAX_RESPONSE];
	struct request request;
};

/**
 * struct binding - how to operate the devices of one driver
 * @node: path of a device, for printf() with its number
 * @unbound: whether a file can be open without being bound
 * @operate: carries @operation out through the file @fd; fills @seen and the
 *           @elements, which have room for what wire.h promises. @scratch has
 *           SCRATCH_PAGES pages. Returns whether the program can go on.
 * @in_use: allocated pages of the device @number of @binding, or WIRE_UNKNOWN
 * @gates: whether its driver can park threads
 * @look: what the driver knows of the pages of @look without waiting for anybody: of its own table, or of the CPU's;
 *        0 or an errno. For one with @gates
 * @refused: how often that device was refused memory since it was made; 0 if
 *           it cannot tell
 */
struct binding {
	const char *node;
	bool unbound;
	bool gates;
	bool (*operate)(int fd, const struct wire_operation *operation, struct wire_observation *seen,
			uint64_t *elements, uint64_t *scratch);
	int (*look)(int fd, bool cpu, const struct wire_operation *look, uint64_t *elements);
	uint64_t (*in_use)(const struct binding *binding, int number);
	uint64_t (*refused)(const struct binding *binding, int number);
};

extern const struct binding interval_binding;
extern const struct binding mirror_binding;
extern const struct binding test_hmm_binding;

extern struct control *control;
extern struct exchange *exchange;

/* request.c */
enum request_result { REQUEST_COMPLETE, REQUEST_END, REQUEST_REFUSED };
enum request_result request_read(int fd, struct request *request);
const struct binding *request_binding(uint32_t number);
uint64_t request_elements(const struct wire_operation *operation);
bool request_is_device(uint16_t code);
uint32_t request_race_length(const struct wire_operation *race);

/* worker.c: does not return */
_Noreturn void worker_run(int commands, int completions);

/* subject.c: does not return */
_Noreturn void subject_run(unsigned int number, pid_t parent, int channel);

/*
 * actor.c: the life of the thread that is actor @number. @perform does a step, fills what was seen and its
 * elements; it may return in another process, of which it says so.
 */
bool actor_run(unsigned int number,
	       bool (*perform)(void *context, const struct wire_operation *step, struct wire_observation *seen,
			       uint64_t *elements),
	       void *context);

/* Words of one time of a WIRE_LOOK */
static inline uint64_t look_words(uint64_t npages)
{
	return WIRE_LOOK_HEAD + 2 * npages;
}

/* Nanoseconds of CLOCK_MONOTONIC, as gates and events have them; later each time that any process of the race asks */
uint64_t actor_tick(void);

/* race.c: of the worker */
struct race_place {
	pid_t process;	/* that has the actor as a thread */
	bool gone;	/* it has ended */
};

void race_prepare(const struct wire_operation *race);
void race_segment(const struct wire_operation *segment, const struct race_place *place, struct wire_observation *seen,
		  uint64_t *elements);
void race_let_go(unsigned int number);
uint64_t race_tell(unsigned int number, uint64_t *elements);
void race_over(void);
void race_tell_stuck(void);

/* interval.c */
int interval_bind(int fd);
int interval_open_mapped(void);

/* reaper.c: of the worker, which is the subject's parent; 0 or an errno */
int reaper_kill(pid_t pid);
int reaper_reap(pid_t pid);
void reaper_release(pid_t pid);
bool reaper_works(void);
/* pool.c: huge pages for the hugetlb mappings of a program. Complains on stderr if there are not enough. */
void pool_fill(const struct request *request);
void pool_empty(void);

/* swap.c: space for a program that swaps pages out. Complains on stderr if there is none. */
void swap_fill(const struct request *request);
void swap_empty(void);
int swap_out(uint64_t address, uint64_t npages, uint64_t *elements); /* of this process; 0 or an errno */
bool swap_works(void);

/* pagemap.c: of this process; 0 or an errno */
int pagemap_read(uint64_t address, uint64_t npages, uint64_t *elements);
int pagemap_soft_dirty(uint64_t address, uint64_t npages, uint64_t *elements);
int pagemap_clear_soft_dirty(void);
bool pagemap_marks(void);
int pagemap_flagged(uint64_t address, uint64_t npages, int flag, uint64_t *elements);

/* pin.c: of this process */
int pin_pages(uint64_t address, uint64_t npages);
void pin_release(void);
void pin_forget(void);

/* userfault.c: of this process; 0 or an errno */
int userfault_register(const struct wire_operation *step);
int userfault_resolve(const struct wire_operation *step);
int userfault_answered(void);
void userfault_forget(void);
pid_t userfault_answer(int fd);
bool userfault_works(bool protects);
bool userfault_moves(void);
bool userfault_protection_moves(void);

/* truncate.c: of this process */
int truncate_mapped(uint64_t address, uint64_t npages);

/* kernelpages.c: what the kernel has mapped into this process */
int kernelpages_move(const char *name, uint64_t address);
bool kernelpages_can_move(void);
bool kernelpages_has_flag(const char *name, const char *flag);

/* ksm.c: of this process; 0 or an errno */
int ksm_merge(uint64_t address, uint64_t npages, uint64_t *elements);
bool ksm_works(void);

/* counters.c: of this process; 0 or an errno */
int counters_move_pages(uint64_t address, uint64_t npages, uint64_t *elements);
int counters_read(uint64_t address, uint64_t npages, uint64_t *elements);
bool counters_can_move(void);
bool counters_can_read(void);
bool counters_are_exact(void);

/* features.c */
void features_print(void);

/* channel.c: files between the worker and its subjects; 0 or a file, or -errno */
int channel_send(int channel, int fd);
int channel_receive(int channel);

#endif /* EXECUTOR_H */
