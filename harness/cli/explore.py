# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness explore`: programs that nobody wrote."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.options import (
    CONFIGURED,
    add_kernel,
    add_timeout,
    add_wrong,
    check_mistakes,
    count,
    duration,
    manual,
    number,
    open_cache,
    own_command,
)
from harness.defaults import DRIVERS
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.cli.options import Commands


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    command = manual(
        commands,
        "explore",
        help="run programs that nobody wrote, and shrink what they find",
        description="""\
            Draws programs at random, runs them on the kernel and in the model, many at once, and varies those that
            meet something new. What diverges, crashes or hangs is run again in clean VMs; what is seen there is made
            as small as it can be. All of it is kept: the next exploration looks at the findings first, and goes on
            where this one ended or was killed. The exit status is that of `run`, but that single programs without a
            verdict, ERROR or INCONCLUSIVE in the totals, do not matter: it is 3 where none comes to one.""",
        examples=(
            ("explore", "ten minutes on the default kernel, and ten more the next time"),
            ("explore --time 8h --flavour debug", "overnight, with KASAN, lockdep and kmemleak"),
            ("explore --seed 7 --operations 1000000", "that many operations, in all"),
            ("explore --seed 7 --shard 2/4", "the second of four machines' share; `campaign merge` joins them"),
            ("explore --scheduler tcp://HOST:8786 --time 8h", "on the workers of a dask cluster"),
            ("explore --html explored.html", "with a page that shows how it goes, and what was found"),
            ("explore --wrong skip-invalidate --time 60s", "does it find a driver that is wrong on purpose?"),
        ),
        files=(
            (
                "$XDG_STATE_HOME/hmm-harness/explore/KERNEL-FLAVOUR",
                "what is kept (default: ~/.local/state/...): campaign.jsonl, errors.jsonl, corpus.jsonl, "
                "findings/ID/program.hmm",
            ),
        ),
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_explore)
    add_kernel(command, "timeout")
    command.add_argument(
        "--binding", action="append", choices=DRIVERS, help="the driver to run on; may be repeated (default: both)"
    )
    command.add_argument(
        "--seed",
        type=count,
        help="of the numbers that programs are drawn with (default: as the last time, or a new one)",
    )
    limits = command.add_argument_group("how long, whichever ends first")
    limits.add_argument(
        "--time", type=duration, metavar="TIME", help="90s, 10m, 8h (default: 10m, if nothing else is said)"
    )
    limits.add_argument("--programs", type=count, metavar="N", help="that many programs, in all")
    limits.add_argument("--operations", type=count, metavar="N", help="that many operations, in all")
    command.add_argument("--shard", type=_shard, default=(0, 1), metavar="I/N", help="the I-th part of N of the work")
    add_wrong(command)
    command.add_argument("--vms", type=number, metavar="N", help="VMs at once (default: as many as fit)")
    add_timeout(command)
    command.add_argument("--dir", type=Path, metavar="DIR", help="keep findings and the corpus there")
    command.add_argument("--html", type=Path, metavar="FILE", help="write a page of it, now and then and in the end")
    command.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="explore on the workers of a dask cluster, a VM for each of their threads: its scheduler's address, or "
        "the file that it wrote with --scheduler-file; needs the extra hmm-harness[dask]",
    )


def _shard(text: str) -> tuple[int, int]:
    """Of I/N, from 1 on: the number of the first unit, and the step from one to the next."""
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts) <= 10000):
        raise argparse.ArgumentTypeError(f"{text!r} is no part like 2/4")
    return int(part) - 1, int(parts)


def _explore(options: argparse.Namespace, progress: Progress) -> int:
    import random

    from harness.errors import UsageError
    from harness.explore.campaign import Terms, explore
    from harness.explore.findings import Store
    from harness.explore.page import publisher
    from harness.matrix import Resources
    from harness.target.lab import prepare

    wrong = tuple(options.wrong or ())
    check_mistakes(wrong)
    unlimited = options.time is None and options.programs is None and options.operations is None
    if options.scheduler is not None and options.vms is not None:
        raise UsageError("--vms is of this machine", hint="`dask worker --nthreads N` has N VMs at once")
    place = options.dir or explored_at(options.kernel, options.flavour, wrong)
    publish = None if options.html is None else publisher(options.html, place, progress.say)
    with ExitStack() as stack:
        if options.scheduler is None:
            cache = open_cache()
            machine = prepare(options.kernel, options.flavour, cache=cache, progress=progress)
        else:
            from harness.explore.cluster import connected, explore_on

            client = stack.enter_context(connected(options.scheduler))
        store = stack.enter_context(Store(place))
        seed = options.seed
        if seed is None:
            seed = next(
                (unit.seed for unit in reversed(list(store.units()))), random.SystemRandom().randrange(1 << 32)
            )
        terms = Terms(
            seed=seed,
            bindings=tuple(dict.fromkeys(options.binding or (("interval",) if wrong else DRIVERS))),
            wrong=wrong,
            timeout=options.timeout,
            seconds=600.0 if unlimited else options.time,
            programs=options.programs,
            operations=options.operations,
            shard=options.shard,
            command=own_command(),
        )
        if options.scheduler is None:
            return explore(terms, machine, Resources(cache, progress, options.vms), store, publish)
        kernel = (options.kernel, options.flavour)
        return explore_on(client, kernel, terms, store, progress, scheduler=options.scheduler, publish=publish)


def explored_at(kernel: str, flavour: str, wrong: Sequence[str] = ()) -> Path:
    """Where an exploration is kept if nobody says."""
    from harness.report.runs import kept_for

    return kept_for("explore", kernel, flavour, *wrong)
