/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the harness and the executor in the guest say to each other: a program as
 * an array of operations, and what was observed of each. Both sides are x86-64
 * little endian; cffi reads this file on the host, so keep to constants with
 * literal values and structs of fixed-width members.
 *
 * Request:  struct wire_program, then @operations x struct wire_operation.
 * Response: struct wire_outcome, then per operation struct wire_observation
 *           followed by its @count x uint64_t.
 */
#ifndef HMM_HARNESS_WIRE_H
#define HMM_HARNESS_WIRE_H

#include <stdint.h>

#define WIRE_MAGIC 0x484d4d31
#define WIRE_MAX_OPERATIONS 65536
#define WIRE_MAX_PAGES 65536
#define WIRE_MAX_SUBJECTS 16
#define WIRE_MAX_DEVICES 4
#define WIRE_FIRST_COHERENT 2 /* from this one on, their memory is such that the CPU reaches it */

/* wire_program.binding */
#define WIRE_INTERVAL 1
#define WIRE_TEST_HMM 2
#define WIRE_MIRROR 3

/* wire_operation.code: subjects */
#define WIRE_MAP 1
#define WIRE_UNMAP 2
#define WIRE_PROTECT 3
#define WIRE_REMAP 4
#define WIRE_ADVISE 5
#define WIRE_READ 6
#define WIRE_WRITE 7
#define WIRE_FORK 8
#define WIRE_EXIT 9
#define WIRE_POISON 10
#define WIRE_REAP 11
#define WIRE_PIN 12
#define WIRE_UNPIN 13
#define WIRE_SWAP_OUT 14
#define WIRE_PAGEMAP 15
#define WIRE_TRUNCATE 16
#define WIRE_USERFAULT 17
#define WIRE_RESOLVE 18
#define WIRE_SOFT_DIRTY 19
#define WIRE_CLEAR_SOFT_DIRTY 20
#define WIRE_LOCK 21
#define WIRE_MERGE 22
#define WIRE_MOVE_PAGES 23
#define WIRE_COUNTED 30
/* wire_operation.code: devices */
#define WIRE_BIND 32
#define WIRE_UNBIND 33
#define WIRE_SNAPSHOT 34
#define WIRE_FAULT 35
#define WIRE_DEVICE_READ 36
#define WIRE_DEVICE_WRITE 37
#define WIRE_TO_DEVICE 38
#define WIRE_TO_SYSTEM 39
#define WIRE_EVICT 40
#define WIRE_TABLE 41
#define WIRE_USAGE 42
/* A race, which is no operation of its own */
#define WIRE_RACE 43
#define WIRE_SEGMENT 44
#define WIRE_ACTOR 45
#define WIRE_LOOK 46
#define WIRE_REQUEST 48
#define WIRE_WATCH 49
#define WIRE_WATCHED 50
#define WIRE_EXCLUSIVE 51
#define WIRE_TO_DEVICE_SHORT 52
#define WIRE_MOVE 53
#define WIRE_RETURNS 54
#define WIRE_EVICT_BY 55
#define WIRE_DMA 56
#define WIRE_SEQUENCE 57
#define WIRE_REFUSE 58
#define WIRE_EVENTS 80

/*
 * WIRE_REQUEST, argument: HMM_HARNESS_ASK_* of every page, those that count of
 * what is asked of each, HMM_HARNESS_AS_*, HMM_HARNESS_REQUEST_*. Value: what is
 * asked of each page, two bits each, lowest first, and how many these are
 * before they begin again.
 */
#define WIRE_REQUEST_DEFAULT_SHIFT 0
#define WIRE_REQUEST_MASK_SHIFT 2
#define WIRE_REQUEST_OWNER_SHIFT 4
#define WIRE_REQUEST_FLAGS_SHIFT 6
#define WIRE_REQUEST_ARGUMENT_BITS 9
#define WIRE_REQUEST_LENGTH_SHIFT 32
#define WIRE_REQUEST_MAX_PATTERN 16

/*
 * A race: WIRE_RACE, its WIRE_SEGMENTs, then its actors, each a WIRE_ACTOR
 * followed by its steps, and then its WIRE_LOOKs. Each actor is a thread, of the subject whose steps it
 * does, or of the executor for steps of devices. In each segment, one actor runs
 * until it is parked at a gate of our driver, has ended, or waits for another
 * one. After the last one all go on to their end. Before the first segment and
 * after each, all looks are taken, which wait for nobody.
 *
 * Without a segment, all actors run at the same time, each from its own moment on, on a CPU of its own as far as there
 * are, and no gate is armed.
 *
 * WIRE_RACE: argument: how many segments; value: how many actors; other: how many looks
 * WIRE_SEGMENT: other: the actor; argument: the gate to park it at, 0 for none;
 *               value: how often it passes there first, and from the shift on
 *               the number of the device, from 1 on, or 0 for any
 * WIRE_ACTOR: argument: how many steps; value: without a segment, its moment: nanoseconds from when all are ready
 * WIRE_LOOK: actor: the device; address, npages: at what of its table, and of the CPU's
 */
#define WIRE_MAX_SEGMENTS 64
#define WIRE_MAX_ACTORS 4
#define WIRE_MAX_ACTOR_STEPS 8
#define WIRE_MAX_ACTOR_PAGES 512	/* of a step */
#define WIRE_MAX_LOOKS 8
#define WIRE_MAX_LOOK_PAGES 64
#define WIRE_MAX_MOMENT 60000000000
#define WIRE_SEGMENT_DEVICE_SHIFT 32
#define WIRE_GATE_MS 10000		/* how long an actor stays parked; after that nothing is known */

/*
 * Elements of WIRE_SEGMENT: how it ended, how many steps of the actor are done, when it began and ended, and where
 * the actor waits. All times of a race are nanoseconds of CLOCK_MONOTONIC, each later than the one before.
 */
#define WIRE_SEGMENT_WORDS 8
#define WIRE_PARKED 1	/* at the gate */
#define WIRE_ENDED 2	/* with all of its steps */
#define WIRE_BLOCKED 3	/* sleeps, and will not wake by itself */
#define WIRE_SPINS 4	/* runs, and gets nowhere */

/*
 * Elements of WIRE_ACTOR: when each step began and ended; then how often it was parked for too long; its thread; and
 * the gates that it came by, as hmm_harness_gate.trace has them
 */
#define WIRE_TRACE 128

/* Elements of WIRE_LOOK, each time: the errno of the look at the device's table, that of the look at the CPU's, then
 * HMM_HARNESS_PAGE_* per page of the one, and of the other; 0 where there was an error */
#define WIRE_LOOK_HEAD 2	/* words before the pages */

/* WIRE_DMA, argument: what to do, and HMM_HARNESS_AS_* for the first two */
#define WIRE_DMA_MAP 0
#define WIRE_DMA_MAP_WRITE 1
#define WIRE_DMA_SHOW 2
#define WIRE_DMA_UNMAP 3
#define WIRE_DMA_OWNER_SHIFT 2
#define WIRE_DMA_ARGUMENT_BITS 4

/* WIRE_RETURNS, argument: to allow them or to refuse them; allowed, what they came without */
#define WIRE_RETURNS_ALLOWED 0
#define WIRE_RETURNS_REFUSED 1
#define WIRE_RETURNS_HELD 2	/* a reference to the page */
#define WIRE_RETURNS_LOCKED 3	/* its lock */

/* WIRE_USERFAULT, argument: what a userfaultfd is asked about */
#define WIRE_USERFAULT_MISSING 0	/* pages that are not there; nobody answers: SIGBUS */
#define WIRE_USERFAULT_WP 1		/* writes to what it protects; nobody answers: SIGBUS */
#define WIRE_USERFAULT_ANSWERED 2	/* pages that are not there, which are brought */
/* ... the token of these is 1 more than the number of the page modulo this */
#define WIRE_ANSWER_PAGES 0x20000

/* WIRE_RESOLVE, argument: what is done for who waits for a userfaultfd, page by page */
#define WIRE_RESOLVE_COPY 0
#define WIRE_RESOLVE_ZERO 1
#define WIRE_RESOLVE_PROTECT 2
#define WIRE_RESOLVE_UNPROTECT 3
#define WIRE_RESOLVE_MOVE 4	/* value: the address of the pages to move there */

/* WIRE_WATCH, argument */
#define WIRE_WATCH_ONE_PASS 0
#define WIRE_WATCH_TWO_PASS 1
#define WIRE_WATCH_EMPTY 2	/* of no length: no watch comes of it */
#define WIRE_WATCH_ENDLESS 3	/* beyond all addresses: no watch comes of it */
#define WIRE_WATCH_PLAIN 4
#define WIRE_WATCH_SHARED 5
#define WIRE_WATCH_TLB 6
/*
 * WIRE_MOVE, argument: HMM_HARNESS_FROM_*, HMM_HARNESS_MOVE_*. Value: what
 * becomes of each page, HMM_HARNESS_CHOOSE_*, two bits each, lowest first, and
 * how many these are before they begin again.
 */
#define WIRE_MOVE_SOURCES_SHIFT 0
#define WIRE_MOVE_FLAGS_SHIFT 3
#define WIRE_MOVE_ARGUMENT_BITS 15
#define WIRE_MOVE_LENGTH_SHIFT 32
#define WIRE_MOVE_MAX_CHOICES 16

/* WIRE_MAP, value: what backs the mapping */
#define WIRE_ANON 1		/* MAP_PRIVATE | MAP_ANONYMOUS */
#define WIRE_SHARED 2		/* MAP_SHARED | MAP_ANONYMOUS */
#define WIRE_FILE 3		/* MAP_SHARED of a new file as long as the mapping */
#define WIRE_PRIVATE_FILE 4	/* MAP_PRIVATE of a new file as long as the mapping */
#define WIRE_HUGETLB 5		/* MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, pages of 2 MiB */

#define WIRE_PFNMAP 6		/* MAP_SHARED of our module's node, HMM_HARNESS_MMAP_PFNS */
#define WIRE_MIXEDMAP 7		/* ... HMM_HARNESS_MMAP_MIXED */
#define WIRE_VDSO 8		/* the kernel's own mapping of its code, moved: its first page comes there */
#define WIRE_VVAR 9		/* ... of its data, of which no page is touched */

/* Of WIRE_HUGETLB: address and length are multiples of these */
#define WIRE_HUGETLB_PAGES 512

/* protections: WIRE_MAP and WIRE_PROTECT, argument */
#define WIRE_PROT_READ 1
#define WIRE_PROT_WRITE 2
#define WIRE_PROT_EXEC 4

/* Elements of WIRE_PAGEMAP */
#define WIRE_IS_PRESENT 1	/* /proc/self/pagemap, bit 63 */
#define WIRE_IS_SWAP 2		/* bit 62 */
#define WIRE_IS_IN_CORE 4	/* mincore(2) */

/* wire_observation.status */
#define WIRE_NOT_RUN 0		/* an earlier operation was the last (@error 0), or its subject does not run */
#define WIRE_DONE 1		/* carried out; @error says how it ended */
#define WIRE_UNSUPPORTED 2	/* the binding has no such operation */
#define WIRE_SUBJECT_DIED 3	/* the process died where it must not; @error is the signal */
#define WIRE_STUCK 4		/* no end within the time allowed */

/* Elements of WIRE_READ, WIRE_WRITE and WIRE_DEVICE_READ besides tokens */
#define WIRE_TORN 0xffffffffffffffff	/* the page holds no one token */
#define WIRE_SEGV 0xfffffffffffffffe	/* the access raised SIGSEGV */
#define WIRE_BUS 0xfffffffffffffffd	/* the access raised SIGBUS */

/* Largest token, and the room that a program may use */
#define WIRE_MAX_TOKEN 0xffffffffffff
#define WIRE_FIRST_ADDRESS 0x10000000000
#define WIRE_LAST_ADDRESS 0x200000000000	/* the first that is too high */
/* Bytes of a response; a program that could need more is refused */
#define WIRE_MAX_RESPONSE 0x4000000

/* wire_outcome.in_use: the binding cannot tell */
#define WIRE_UNKNOWN 0xffffffffffffffff

/**
 * struct wire_program - head of a request
 * @magic: WIRE_MAGIC
 * @binding: WIRE_INTERVAL, WIRE_TEST_HMM or WIRE_MIRROR
 * @operations: how many follow
 * @timeout_ms: time for the whole program; what runs then is WIRE_STUCK
 */
struct wire_program {
	uint32_t magic;
	uint32_t binding;
	uint32_t operations;
	uint32_t timeout_ms;
};

/**
 * struct wire_operation - one step of a program
 * @code: WIRE_MAP ... WIRE_EVENTS, or a part of a race, which has nothing but what is said there
 * @actor: number of the subject, or of the device for device operations
 * @other: WIRE_FORK: number of the new subject; WIRE_BIND: of the subject
 * @argument: WIRE_MAP, WIRE_PROTECT: WIRE_PROT_*; WIRE_ADVISE: the kernel's
 *            MADV_*; WIRE_FAULT: 1 for write; WIRE_REQUEST, WIRE_DMA,
 *            WIRE_WATCH, WIRE_MOVE, WIRE_USERFAULT, WIRE_RESOLVE: see there; WIRE_DEVICE_READ: 1 for faults that take the
 *            mmap lock themselves; WIRE_LOCK: 1 to unlock; WIRE_TABLE: 1 for nothing but what the device
 *            has to itself; WIRE_EVICT_BY: HMM_HARNESS_EVICT_*; WIRE_RETURNS: WIRE_RETURNS_*;
 *            else 0
 * @address: first address, a multiple of 4096
 * @npages: length in pages of 4096 bytes
 * @value: WIRE_MAP: what backs it; WIRE_WRITE, WIRE_DEVICE_WRITE, WIRE_RESOLVE_COPY: token of the
 *         first page, the next page has the next one; WIRE_REMAP: new address;
 *         WIRE_TRUNCATE: new length in pages of the file that is mapped there;
 *         WIRE_REQUEST, WIRE_MOVE: see there
 */
struct wire_operation {
	uint16_t code;
	uint8_t actor;
	uint8_t other;
	uint32_t argument;
	uint64_t address;
	uint64_t npages;
	uint64_t value;
};

/**
 * struct wire_outcome - head of a response
 * @magic: WIRE_MAGIC
 * @observations: as many as the request had operations
 * @length: bytes of the response, this head included
 * @in_use: pages of each device that are still allocated when all subjects are
 *          gone and all files closed; or WIRE_UNKNOWN. Of those with coherent
 *          memory, which a guest need not have, if the program uses them
 */
struct wire_outcome {
	uint32_t magic;
	uint32_t observations;
	uint64_t length;
	uint64_t in_use[WIRE_MAX_DEVICES];
};

/**
 * struct wire_observation - what came of one step
 * @status: WIRE_NOT_RUN ... WIRE_STUCK
 * @error: 0 or a positive errno
 * @count: elements that follow. WIRE_READ, WIRE_DEVICE_READ: a token per page (0
 *         for a page of zeros); WIRE_WRITE: 0, WIRE_SEGV or WIRE_BUS per page;
 *         WIRE_SOFT_DIRTY, WIRE_MERGE: 1 per page that is marked, or that is merged, else 0;
 *         WIRE_MOVE_PAGES: 0 or an errno per page, as a positive number;
 *         WIRE_COUNTED: pages that are resident, of these anonymous ones, and those that are swapped out, of all
 *         mappings in the range; by how many the process's counter of anonymous pages is off;
 *         WIRE_SWAP_OUT: 1 per page that is not in memory, else 0; WIRE_PAGEMAP: WIRE_IS_* per page;
 *         WIRE_DEVICE_WRITE: 0 per page written;
 *         WIRE_SNAPSHOT, WIRE_FAULT, WIRE_REQUEST, WIRE_TABLE, WIRE_WATCHED, WIRE_EXCLUSIVE, WIRE_MOVE, WIRE_DMA but
 *         for WIRE_DMA_UNMAP, and WIRE_TO_DEVICE, WIRE_TO_DEVICE_SHORT, WIRE_TO_SYSTEM where the binding tells:
 *         HMM_HARNESS_PAGE_* per page;
 *         WIRE_SEQUENCE: the number, what read_retry() and check_retry() say of the one before, calls in between;
 *         WIRE_EVICT, where the binding tells, and WIRE_EVICT_BY: moved, left;
 *         WIRE_RETURNS: how many were refused, and how many came without what is
 *         asked for, if anything is; WIRE_USAGE: in_use, allocated, freed,
 *         cpu_faults, invalidations, entries; WIRE_EVENTS: the mirror's number,
 *         the last event before it, the last event so far; WIRE_SEGMENT, WIRE_ACTOR, WIRE_LOOK: see there; else none. Pages past the point
 *         of failure of a device operation are left out.
 */
struct wire_observation {
	uint32_t status;
	int32_t error;
	uint64_t count;
};

#endif /* HMM_HARNESS_WIRE_H */
