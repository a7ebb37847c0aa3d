# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness power`: how soon exploring finds bugs that are put in."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import candidates
from harness.cli.options import (
    CONFIGURED,
    add_kernel,
    add_timeout,
    completed,
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

_SECONDS = 600.0
_SEED = 1


def add(commands: Commands) -> None:
    """Adds the command to the parser."""
    command = manual(
        commands,
        "power",
        help="put bugs in, and see how soon exploring finds them",
        description="""\
            Explores with each mutant for a while, from nothing: a kernel with a patch, as `mutate` takes it, or our
            driver with one of its mistakes. It ends with the first finding that is none of the kernel's own: made as
            small as it can be, shown in clean VMs, and by a program that passes where the mutant is not. The exit
            status is 1 if one was not found.""",
        examples=(
            ("power --kernel debian:7.3 lost-dirty.patch", "is that bug found within ten minutes?"),
            ("power invalidate-short skip-dirty --time 2m", "mistakes of our driver"),
            (
                "power --kernel debian:7.3 --json trials --resume tests/mutants/explore-debian-7.3",
                "a suite, and on again after an interruption (also `make power`)",
            ),
        ),
        environment=CONFIGURED,
        files=(
            ("DIR/wrong.txt", "in a directory of patches: names of mistakes, a line each"),
            (
                "$XDG_STATE_HOME/hmm-harness/power/KERNEL-FLAVOUR/MUTANT",
                "the exploration, as `explore` keeps it (default: ~/.local/state/...)",
            ),
            ("$XDG_CACHE_HOME/hmm-harness/work/mutant.*", "the compiled trees, 2 GB each; `kernel clean` removes"),
        ),
    )
    command.set_defaults(run_command=_power)
    mutants = command.add_argument(
        "mutant", nargs="+", help="a patch, a directory of patches, or the name of a mistake of our driver"
    )
    completed(mutants, candidates.mistakes)
    add_kernel(command, "timeout")
    command.add_argument(
        "--binding",
        action="append",
        choices=DRIVERS,
        help="the driver to run on; may be repeated (default: both for a patch, interval for a mistake)",
    )
    command.add_argument("--seed", type=count, default=_SEED, help=f"of what is drawn (default: {_SEED})")
    command.add_argument(
        "--time", type=duration, default=_SECONDS, metavar="TIME", help="for each: 90s, 10m (default: 10m)"
    )
    command.add_argument("--vms", type=number, metavar="N", help="VMs at once (default: as many as fit)")
    add_timeout(command)
    command.add_argument("--json", type=Path, metavar="FILE", help="keep what becomes of each, an object a line")
    command.add_argument(
        "--table", type=Path, metavar="FILE", help="write a page of them, Markdown, and the programs beside it"
    )
    command.add_argument("--resume", action="store_true", help="keep what the file of --json has of the same")


def _power(options: argparse.Namespace, progress: Progress) -> int:
    from harness.errors import UsageError
    from harness.explore import power
    from harness.explore.campaign import Terms
    from harness.matrix import Resources
    from harness.mutate import Books

    if options.resume and not options.json:
        raise UsageError("--resume has nothing to go on from", hint="--json FILE says where it is kept")
    return power.main(
        (options.kernel, options.flavour),
        power.read_mutants(options.mutant),
        Terms(
            seed=options.seed,
            bindings=tuple(dict.fromkeys(options.binding or ())),
            timeout=options.timeout,
            seconds=options.time,
            command=own_command(),
        ),
        Resources(open_cache(), progress, options.vms),
        books=Books(store=options.json, table=options.table, resume=options.resume),
    )
