# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness reproduce`: what a program shows, in a form that can be mailed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import candidates
from harness.cli.options import (
    BINDINGS,
    CONFIGURED,
    add_kernel,
    add_timeout,
    add_wrong,
    check_mistakes,
    completed,
    manual,
    open_cache,
    own_command,
)
from harness.defaults import DEFAULT_TIMEOUT
from harness.errors import ExitCode, HarnessError, UsageError
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.cli.options import Commands
    from harness.explore.witness import Witness
    from harness.program.program import Program

_FORMATS = ("c", "pytest", "hmm")  # harness/explore/reproducer.py


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    command = manual(
        commands,
        "reproduce",
        help="write a C program, or a test, that shows what a program shows",
        description="""\
            Runs a program in a clean VM and in the reference model, and writes what it showed in a form that a kernel
            developer can use. `c`: a C program that needs libc and kmod/include/uapi/hmm_harness.h, to be run where
            our module is loaded. It does the same steps, and checks the one where the kernel diverged: status 1 with
            the symptom, 0 without. After a crash, it says what to look for in dmesg; of a program that passes, it
            checks the last step that shows something. `pytest`: a test for our plugin. `hmm`: the program itself.""",
        examples=(
            ("reproduce my.hmm", "a C program on standard output"),
            ("reproduce my.hmm --kernel debian:7.3 --output bug.c", "in a file"),
            ("reproduce invalidate/dontneed --wrong skip-invalidate", "what a driver that is wrong shows"),
            ("reproduce my.hmm --format pytest --output test_bug.py", "a test"),
            ("reproduce my.hmm --no-run", "the steps alone, without a look at any kernel"),
        ),
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_reproduce)
    program = command.add_argument("program", help="a file, or the name of a program")
    completed(program, candidates.programs)
    add_kernel(command, "timeout")
    command.add_argument(
        "--binding", choices=BINDINGS, default=BINDINGS[0], help=f"the driver (default: {BINDINGS[0]})"
    )
    command.add_argument("--format", choices=_FORMATS, default=_FORMATS[0], help=f"(default: {_FORMATS[0]})")
    command.add_argument("--output", type=Path, metavar="FILE", help="where to write it (default: standard output)")
    command.add_argument(
        "--apart",
        action="store_true",
        help="in C: a process of its own for the one subject, as the harness has it, where one would do for all",
    )
    command.add_argument("--no-run", action="store_true", help="do not run it: nothing is known of what it shows")
    add_wrong(command)
    add_timeout(command)


def _reproduce(options: argparse.Namespace, progress: Progress) -> int:
    from harness.conformance import catalogue
    from harness.explore.reproducer import FORMATS, Witness, c_program
    from harness.program.race import Race

    programs = catalogue.select([options.program])
    if len(programs) != 1:
        raise UsageError(f"{options.program!r} names {len(programs)} programs", hint="name one, or a file")
    program, binding = programs[0], options.binding
    if isinstance(program, Race):
        raise UsageError(
            f"{program.name} is a race, which takes our driver's gates",
            hint=f"hmm-harness race replay {program.name}",
        )
    check_mistakes(options.wrong or ())
    if options.apart and options.format != "c":
        raise UsageError("--apart is for C programs", hint="leave it away, or --format c")
    witness = Witness()
    if options.format == "c":  # what cannot be said is known before
        c_program(program, binding, apart=options.apart)
    if not options.no_run:
        witness = _look(program, options, progress)
    if options.format == "c":
        text = c_program(program, binding, witness, apart=options.apart)
    else:
        text = FORMATS[options.format](program, binding, witness)
    if options.output is None:
        print(text, end="")
        return ExitCode.PASS
    try:
        options.output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HarnessError(
            f"cannot write {options.output}: {error.strerror}", hint="name a file that can be written"
        ) from None
    progress.say(f"written: {options.output}")
    return ExitCode.PASS


def _look(program: Program, options: argparse.Namespace, progress: Progress) -> Witness:
    """What becomes of `program` in a clean VM."""
    from harness.explore.witness import look
    from harness.run import Plan
    from harness.target.lab import Lab, prepare

    wrong = tuple(options.wrong or ())
    plan = Plan([program], [options.binding], wrong, options.timeout or DEFAULT_TIMEOUT, own_command())
    cache = open_cache()
    machine = prepare(options.kernel, options.flavour, cache=cache, progress=progress)
    with Lab(machine, cache=cache, progress=progress) as lab:
        witness = look(program, plan, lab)
    said = f"{witness.verdict} {program.name} on {witness.scene}"
    progress.say(f"{said}: {witness.reason}" if witness.reason else said, to=sys.stderr)
    return witness
