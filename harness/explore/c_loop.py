# SPDX-License-Identifier: GPL-2.0-only
"""Many programs as one C program that does nothing but their operations: what running them costs without a harness.

Each program is a function, and runs in a child of its own, as its memory and its devices have to be gone before the
next. The operations are the pieces of reproducer.c.in. Nothing is looked at, compared, or told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from harness.explore.c_program import Composer, used_pieces
from harness.explore.c_steps import LEFT_OUT, is_said, sizes
from harness.explore.shrink import sensible
from harness.explore.witness import Witness
from harness.program.operations import Backing, Exit, Fork, Map, Operation, Pin, Poison, Reap, Unpin
from harness.program.program import Program

# What takes more than a call in a process of its own: other processes, a pool that is filled before, a VM that is of
# no use afterwards, another way to the same end.
_MORE = (Fork, Exit, Reap, Poison, Pin, Unpin)

_INSTEAD = {
    "note": "static void note(int result)\n{\n\t(void)result;\n}",
    "device": """\
static int open_device(const char *node, __u64 wanted)
{
	int device = open(node, O_RDWR);

	(void)wanted;
	if (device < 0)
		exit(77);
	return device;
}""",
}

_MAIN = """\
static void (*const programs[])(void) = {
@PROGRAMS@
};

/* Does all programs, argv[1] times; tells the nanoseconds that this took, and how many did not come to their end. */
int main(int argc, char **argv)
{
	long rounds = argc > 1 ? atol(argv[1]) : 1;
	struct timespec begin, end;
	unsigned long failed = 0;
	int status;

@SIGNALS@	stay_on_one_cpu();
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (long round = 0; round < rounds; round++) {
		for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
			pid_t pid = fork();

			if (pid == 0) {
				programs[i]();
				_exit(0);
			}
			if (pid < 0 || waitpid(pid, &status, 0) != pid || status)
				failed++;
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%lld %lu\\n", (end.tv_sec - begin.tv_sec) * 1000000000LL + end.tv_nsec - begin.tv_nsec, failed);
	return 0;
}"""
_HEADERS = ("<stdio.h>", "<stdlib.h>", "<sys/wait.h>", "<time.h>", "<unistd.h>")


def plain(program: Program) -> Program:
    """What is left of `program` without the steps that are more than calls of one process."""
    return sensible(program.name, [step for step in program.steps if _is_plain(step)], program.title)


def _is_plain(step: Operation) -> bool:
    if isinstance(step, Map) and step.backing is Backing.HUGETLB:
        return False
    return is_said(step) and type(step) not in LEFT_OUT and not isinstance(step, _MORE)


def c_loop(programs: Sequence[Program], binding: str) -> str:
    """The text, for `programs` of which `plain` leaves nothing out. Raises `UsageError` as `c_program` does."""
    composers = [Composer(program, binding, Witness(), apart=False, silent=True) for program in programs]
    functions = ["\n".join(each.function(f"program_{number}")) for number, each in enumerate(composers)]
    used = used_pieces({"one-cpu"}.union(*(each.needs for each in composers)))
    catches = any(piece.name == "touch" for piece in used)
    signals = "\tsignal(SIGSEGV, on_fault);\n\tsignal(SIGBUS, on_fault);\n" if catches else ""
    names = "\n".join(f"\tprogram_{number}," for number in range(len(programs)))
    seen, data = (max(most) for most in zip(*(sizes(program.steps) for program in programs), strict=True))
    words = {"SEEN": str(seen), "DATA": str(data), "PRIVATE": "0", "PROGRAMS": names, "SIGNALS": signals}
    text = "\n\n".join(
        [
            "#define _GNU_SOURCE\n"
            + "\n".join(f"#include {each}" for each in sorted({*_HEADERS, *(h for p in used for h in p.headers)})),
            '#include "hmm_harness.h"',
            "#define PAGE 4096UL",
            *(_INSTEAD.get(piece.name, piece.text) for piece in used if piece.text),
            *functions,
            _MAIN,
        ]
    )
    text = re.sub("@([A-Z]+)@", lambda found: words[found[1]], text)
    return re.sub(r"\bquit\(", "exit(", text) + "\n"
