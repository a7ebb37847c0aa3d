# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness list`, `deviations`, `bugs`, `fuzz`, `coverage`, `mutate`, `bench`, `doctor`, `clean`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from harness.cli import candidates
from harness.cli.options import (
    BINDINGS,
    CONFIGURED,
    add_kernel,
    completed,
    manual,
    number,
    open_cache,
    own_command,
    seconds,
)
from harness.defaults import DEFAULT_KERNEL
from harness.errors import ExitCode
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.cli.options import Commands


def add(commands: Commands) -> None:
    """Adds the commands to the parser."""
    command = manual(
        commands,
        "list",
        help="list the programs that come with the product",
        description="Lists programs, each with the promise of the kernel that it is about.",
        examples=(("list", "all"), ("list migrate 'fault/*-write'", "some")),
    )
    command.set_defaults(run_command=_list)
    programs = command.add_argument("program", nargs="*", help="names or patterns (default: all)")
    completed(programs, candidates.programs)

    command = manual(
        commands,
        "deviations",
        help="list what the kernel is known to do against its documentation",
        description="""\
            Lists the deviations of the kernel that are recorded, with their sources, the programs that show them, and
            on which bindings and kernels. Such a program ends as DEVIATION, which is no failure.""",
        examples=(
            ("deviations", "all"),
            ("run trap/poison-snapshot", "whether the kernel still does that"),
        ),
    )
    command.set_defaults(run_command=_deviations)

    command = manual(
        commands,
        "bugs",
        help="list real bugs of kernels, and whether programs tell such a kernel from a mended one",
        description="""\
            Lists bugs of kernels with what mended them, the kernels that have them, and the programs that show them.
            With --check, runs each program on the kernels of its row: it must be red where the bug is, for the reason
            that the row says, and pass where it is mended. A recorded deviation is red, and so is a report in the
            kernel's log. Kernels that are built already come first; others are built, which takes minutes each. It
            ends with 1 if kernels are not told apart, with 3 if a program has no verdict on one of them.""",
        examples=(
            ("bugs", "all"),
            ("bugs H08 H04", "two"),
            ("bugs --check", "whether each is told apart (also `make bugs`)"),
            ("bugs --check H08", "whether that one is"),
        ),
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_bugs)
    ids = command.add_argument("id", nargs="*", help="which (default: all)")
    completed(ids, candidates.bugs)
    command.add_argument("--check", action="store_true", help="run their programs")
    command.add_argument("--vms", type=number, metavar="N", help="VMs at once (default: as many as fit)")

    command = manual(
        commands,
        "fuzz",
        help="do the worst to the module and read the kernel log",
        description="""\
            Throws random ioctls at our module in a VM for a while; or lets everything fail in them that can; or kills
            who uses it and unloads it. The exit status is 5 if the kernel complained or crashed: the module must
            survive whatever user space does.""",
        examples=(
            ("fuzz", "a minute, and a seed that it prints"),
            ("fuzz --flavour debug --seconds 600", "longer, with KASAN, lockdep and kmemleak"),
            ("fuzz --seed 7", "the same again"),
            ("fuzz --flavour debug --fail-nth", "each allocation and copy in each ioctl fails once; minutes"),
            ("fuzz --reload 200", "kills subjects, executors and listeners, unloads, loads, 200 times"),
        ),
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_fuzz)
    add_kernel(command)
    command.add_argument("--seconds", type=seconds, help="how long to throw random ioctls (default: 60)")
    command.add_argument("--seed", type=int, help="repeat the run with this seed (default: a new one)")
    way = command.add_mutually_exclusive_group()
    way.add_argument("--wrong", action="store_true", help="switch deliberate mistakes on and off meanwhile")
    way.add_argument(
        "--fail-nth",
        nargs="*",
        metavar="CALL",
        help="let each thing fail that can, one at a time, in these calls (default: all); needs the flavour debug",
    )
    way.add_argument(
        "--reload", type=number, metavar="N", help="kill who uses the module, unload and load it, N times"
    )

    command = manual(
        commands,
        "coverage",
        help="measure which lines of the kernel's HMM the programs reach",
        description="""\
            Runs programs on a kernel of the flavour `coverage`, which counts in mm/hmm.c, mm/migrate_device.c,
            mm/mmu_notifier.c and mm/memremap.c what is executed, and prints the share of lines and branches: of all,
            and of what programs can reach. What they cannot, and why, is listed by the text of the code in
            harness/conformance/unreached.toml; what that list has wrong of a kernel is said.""",
        examples=(
            ("coverage", "all programs"),
            ("coverage --peer", "and the kernel's own hmm-tests beside them"),
            ("coverage --missed 'fault/*'", "some programs, and all that they do not reach"),
        ),
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_coverage, one_kernel=("kernel",))
    programs = command.add_argument("program", nargs="*", help="names, patterns or files (default: all)")
    completed(programs, candidates.programs)
    kernel = command.add_argument("--kernel", help=f"the kernel under test (default: {DEFAULT_KERNEL})")
    completed(kernel, candidates.kernels)
    command.add_argument("--peer", action="store_true", help="run the kernel's own hmm-tests, too")
    command.add_argument("--missed", action="store_true", help="print what was not reached, and why")
    command.add_argument("--json", metavar="FILE", help="write all figures and lines to FILE, too")

    command = manual(
        commands,
        "mutate",
        help="put bugs into the kernel and see whether a program notices",
        description="""\
            Applies each patch to the kernel's source, builds what changed, boots it, and runs programs until one
            turns red: that one has killed the mutant. The first time all of the kernel is compiled, from then on a
            mutant takes seconds. Patches change .c files only. A patch may say before its first line what it is:
            `Subject:`, `Function:`, `Breaks:` with ids of clauses, whose programs run first, and `Equivalent:` with
            the reason if nobody can tell the mutant from the kernel; that it survives is no failure then.""",
        examples=(
            ("mutate forget-write.patch", "is that bug found?"),
            ("mutate mutants/*.patch --program 'migrate/*' --peer", "many, by some programs, and by hmm-tests"),
            (
                "mutate --kernel debian:6.12 --peer --json fates --resume tests/mutants/debian-6.12",
                "a suite, and on again after an interruption",
            ),
        ),
        environment=CONFIGURED,
        files=(
            ("$XDG_CACHE_HOME/hmm-harness/work/mutant.*", "the compiled trees, 2 GB each; `kernel clean` removes"),
        ),
    )
    command.set_defaults(run_command=_mutate)
    command.add_argument("patch", nargs="+", help="a file that `git diff` or `git format-patch` wrote; a directory")
    add_kernel(command)
    programs = command.add_argument(
        "--program", action="append", default=[], metavar="PROGRAM", help="names or patterns (default: all)"
    )
    completed(programs, candidates.programs)
    command.add_argument("--peer", action="store_true", help="ask the kernel's own hmm-tests, too")
    command.add_argument("--vms", type=number, metavar="N", help="VMs at once (default: as many as fit)")
    command.add_argument("--json", metavar="FILE", help="keep the fates as they come, an object a line")
    command.add_argument("--table", metavar="FILE", help="write a page of them, Markdown")
    command.add_argument("--resume", action="store_true", help="keep what the file of --json has of the same mutants")

    command = manual(
        commands,
        "bench",
        help="measure boot, restore, round trip, operations per second, and exploration",
        description="""\
            Measures on this machine and prints a table. Absolute times are good to a third; ratios hold better.
            Exploring is compared with a C program that does the same operations in a plain loop in the same VM.""",
        examples=(("bench", "the default kernel"), ("bench --kernel debian:7.3", "another")),
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_bench)
    add_kernel(command)

    command = manual(
        commands,
        "doctor",
        help="say what is missing on this machine, and what mends it",
        description="Says what is missing on this machine, and the command that mends it.",
        examples=(
            ("doctor", "exit status 0 if nothing is missing"),
            ("doctor --read-cache", "minutes where many VMs are saved"),
        ),
    )
    command.set_defaults(run_command=_doctor)
    command.add_argument(
        "--read-cache",
        action="store_true",
        help="read all that is cached, against what was put there, not only its sizes and times",
    )

    command = manual(
        commands,
        "clean",
        help="remove built kernels, images and saved VMs from the cache",
        description="""\
            Removes all that is cached, except what other runs and VMs use or build at this moment. The next run
            builds anew what it needs.""",
        examples=(("clean", "prints what it freed"),),
        files=(("$XDG_CACHE_HOME/hmm-harness", "what is removed (default: ~/.cache/...)"),),
    )
    command.set_defaults(run_command=_clean)


def _list(options: argparse.Namespace, _progress: Progress) -> int:
    from harness.conformance import catalogue

    for program in catalogue.select(options.program):
        print(f"{program.name:36}  {program.title}")
    return ExitCode.PASS


def _bugs(options: argparse.Namespace, progress: Progress) -> int:
    from harness.conformance import bugs

    chosen = bugs.select(options.id)
    if not options.check:
        print("\n".join(bugs.describe(chosen)))
        return ExitCode.PASS
    from harness.bugs import main
    from harness.matrix import Resources

    return main(chosen, Resources(open_cache(), progress, options.vms), own_command())


def _deviations(_options: argparse.Namespace, _progress: Progress) -> int:
    from harness.conformance import deviations

    print("\n".join(deviations.describe(deviations.load())))
    return ExitCode.PASS


def _fuzz(options: argparse.Namespace, progress: Progress) -> int:
    import secrets
    from functools import partial

    from harness.errors import UsageError
    from harness.explore import assault
    from harness.explore.fail_nth import fail_nth
    from harness.explore.ioctl_fuzz import fuzz
    from harness.explore.reload import reload

    seed = secrets.randbits(32) if options.seed is None else options.seed
    duration = 60.0 if options.seconds is None else options.seconds
    if options.seconds is not None and (options.fail_nth is not None or options.reload):
        raise UsageError("--seconds is for random ioctls: --fail-nth ends by itself, --reload has a number of rounds")
    run: assault.Assault
    if options.fail_nth is not None:
        run, doing, again = partial(fail_nth, calls=options.fail_nth), "letting things fail", "--fail-nth"
        again = " ".join([again, *options.fail_nth])
    elif options.reload:
        run, doing = partial(reload, rounds=options.reload, seed=seed), "killing, unloading, loading"
        again = f"--reload {options.reload} --seed {seed}"
    else:
        run, doing = partial(fuzz, seconds=duration, seed=seed, wrong=options.wrong), "fuzzing"
        again = f"--seconds {duration:g} --seed {seed}{' --wrong' if options.wrong else ''}"
    return assault.main(
        options.kernel, options.flavour, run, doing=doing, again=again, cache=open_cache(), progress=progress
    )


def _coverage(options: argparse.Namespace, progress: Progress) -> int:
    from pathlib import Path

    from harness import coverage
    from harness.conformance import catalogue
    from harness.run import Plan

    return coverage.main(
        options.kernel,
        Plan(catalogue.select(options.program), BINDINGS, command=own_command()),
        peer=options.peer,
        missed=options.missed,
        json_path=Path(options.json) if options.json else None,
        cache=open_cache(),
        progress=progress,
    )


def _mutate(options: argparse.Namespace, progress: Progress) -> int:
    from pathlib import Path

    from harness import mutate
    from harness.conformance import catalogue
    from harness.errors import UsageError
    from harness.matrix import Resources
    from harness.run import Plan
    from harness.target.mutant import read_patches

    if options.resume and not options.json:
        raise UsageError("--resume has nothing to go on from", hint="--json FILE says where the fates are")
    return mutate.main(
        (options.kernel, options.flavour),
        read_patches([Path(name) for name in options.patch]),
        Plan(catalogue.select(options.program), BINDINGS, command=own_command()),
        Resources(open_cache(), progress, options.vms),
        peer=options.peer,
        books=mutate.Books(
            store=Path(options.json) if options.json else None,
            table=Path(options.table) if options.table else None,
            resume=options.resume,
        ),
    )


def _bench(options: argparse.Namespace, progress: Progress) -> int:
    from harness import bench

    bench.main(options.kernel, options.flavour, cache=open_cache(), progress=progress)
    return ExitCode.PASS


def _doctor(options: argparse.Namespace, progress: Progress) -> int:
    from harness.target import doctor

    return doctor.main(progress, thorough=options.read_cache)


def _clean(_options: argparse.Namespace, progress: Progress) -> int:
    freed = open_cache().clean(progress=progress)
    print(f"removed {freed / 2**20:.0f} MiB from the cache")
    return ExitCode.PASS
