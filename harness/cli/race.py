# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness race`: races that are forced, one schedule or all of them."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

from harness.cli import candidates, machine, timelines
from harness.cli.options import (
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
from harness.defaults import DEFAULT_TIMEOUT, DRIVERS
from harness.errors import ExitCode, UsageError
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.cli.options import Commands
    from harness.compare import Verdict
    from harness.explore.races import Tried
    from harness.program.race import Race
    from harness.target.lab import Lab

_MOST_TIMES = 1000


def add(commands: Commands) -> None:
    """Adds the commands to the parser."""
    group = manual(
        commands,
        "race",
        help="force races: replay one schedule, or go through all of them",
        description="""\
            A race is a program of which a part is done by several actors at once, each a thread. A schedule says who
            runs when: `x@walk.lock y x` lets x run until our driver is about to take its lock, then y to its end,
            then x. What was seen has to be what some order of the actors' steps may show.""",
        examples=(
            ("race list", "the races that come with the product"),
            ("race show race/lock", "one of them, and the gates that there are"),
            ("race replay race/lock 'x@walk.lock y x'", "one schedule"),
            ("race explore race/lock --wrong skip-retry", "every schedule, until one shows the mistake"),
            ("race machine race/lock --wrong skip-retry", "no schedule and no gate: seeds, until one shows it"),
            ("run race", "each race under its own schedule, with reports"),
        ),
    )
    actions = group.add_subparsers(title="actions", required=True, metavar="ACTION")

    command = manual(
        actions,
        "list",
        help="list the races that there are",
        description="Lists the races that come with the product, each with its promise and its own schedule.",
        examples=(("race list", "all"),),
    )
    command.set_defaults(run_command=_list)

    command = manual(
        actions,
        "show",
        help="show a race, and what its schedule can be made of",
        description="Shows a race as it is written, its actors, and the gates at which they can be made to stop.",
        examples=(("race show race/lock", "one"),),
    )
    command.set_defaults(run_command=_show)
    _add_race(command)

    command = manual(
        actions,
        "replay",
        help="run a race under one schedule",
        description="""\
            Runs a race under one schedule, on the kernel and in the model, in a clean VM. The exit status is that of
            `run`.""",
        examples=(
            ("race replay race/lock", "under the schedule that it is written with"),
            ("race replay race/lock 'x@walk.seen y x' --wrong skip-retry", "under another one, with a bad driver"),
            ("race replay race/lock --timeline --html lock.html", "how it went, as text and as a picture"),
            ("race replay mine.hmm 'x y!' --times 100 --clean", "a hundred times, each in a clean VM"),
        ),
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_replay)
    _add_race(command)
    command.add_argument("schedule", nargs="?", help="who runs when (default: as the race is written)")
    command.add_argument("--times", type=_times, default=1, metavar="N", help="so often (default: once)")
    command.add_argument("--clean", action="store_true", help="each time in a clean VM")
    timelines.add(command)
    _add_target(command)

    command = manual(
        actions,
        "explore",
        help="run a race under every schedule",
        description="""\
            Runs a race under every schedule that interrupts actors at most so often, those with the fewest
            interruptions first, and stops at the first one that shows what the model does not allow. The exit status
            is that of `run`.""",
        examples=(
            ("race explore", "every race"),
            ("race explore race/lock --preemptions 2", "two interruptions"),
            ("race explore race/lock --wrong retry-outside-lock", "does it find a driver that is wrong on purpose?"),
        ),
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_explore)
    races = command.add_argument("race", nargs="*", help="names, patterns or files (default: all)")
    completed(races, candidates.programs)
    command.add_argument(
        "--preemptions", type=int, choices=range(4), default=1, help="interruptions at most (default: %(default)s)"
    )
    command.add_argument("--all", action="store_true", help="go on after the first one that is found")
    timelines.add(command)
    _add_target(command)

    machine.add(actions)


def _add_race(command: argparse.ArgumentParser) -> None:
    race = command.add_argument("race", help="its name, or a file")
    completed(race, candidates.programs)


def _add_target(command: argparse.ArgumentParser) -> None:
    add_kernel(command, "timeout")
    command.add_argument(
        "--binding", action="append", choices=DRIVERS, help="the driver to run on; may be repeated (default: both)"
    )
    add_wrong(command)
    add_timeout(command)


def _times(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= _MOST_TIMES):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {_MOST_TIMES}")
    return int(text)


def _races(patterns: list[str]) -> list[Race]:
    """The races that `patterns` name; all that come with the product without any."""
    from harness.conformance import catalogue
    from harness.program.race import Race

    found = catalogue.select(patterns or [f"{catalogue.RACES}*"])
    races = [program for program in found if isinstance(program, Race)]
    if patterns and len(races) < len(found):
        other = next(program for program in found if not isinstance(program, Race))
        raise UsageError(f"{other.name} is no race", hint="`hmm-harness race list` shows those there are")
    return races


def _list(_options: argparse.Namespace, _progress: Progress) -> int:
    for race in _races([]):
        print(f"{race.name:24}  {race.title}")
        print(f"{'':24}  {race.schedule}")
    return ExitCode.PASS


def _show(options: argparse.Namespace, _progress: Progress) -> int:
    from harness.program.race import Gate
    from harness.program.text import render

    (race,) = _one(options.race)
    print(render(race))
    print(f"actors: {', '.join(actor.name for actor in race.actors)}")
    groups: dict[str, list[str]] = {}
    for gate in Gate:
        groups.setdefault(gate.partition(".")[0], []).append(gate)
    print("gates:")
    for gates in groups.values():
        print(f"  {' '.join(gates)}")
    return ExitCode.PASS


def _one(name: str) -> list[Race]:
    races = _races([name])
    if len(races) != 1:
        raise UsageError(f"{name!r} names {len(races)} races", hint="name one of them")
    return races


def _replay(options: argparse.Namespace, progress: Progress) -> int:
    from dataclasses import replace

    from harness.program.race import ScheduleError, check_schedule, parse_schedule
    from harness.run import Plan, run

    (race,) = _one(options.race)
    if options.schedule is not None:
        try:
            schedule = parse_schedule(options.schedule)
            check_schedule(race, schedule)
        except ScheduleError as error:
            raise UsageError(error.message, hint=error.hint) from None
        race = replace(race, schedule=schedule)
    wrong = tuple(options.wrong or ())
    check_mistakes(wrong)
    drawings = timelines.Drawings(options)
    race = drawings.prepared(race)
    bindings = options.binding or DRIVERS
    batches = [[race]] * options.times if options.clean else [[race] * options.times]  # a batch is sent at once
    counts: dict[tuple[str, Verdict], int] = {}
    shown: set[tuple[str, Verdict]] = set()
    with _lab(options, progress) as lab:
        for batch, binding in product(batches, bindings):
            plan = Plan(batch, (binding,), wrong, _timeout(options), own_command(), witness=drawings.see)
            for result in run(plan, lab):
                key = (result.binding, result.status)
                counts[key] = counts.get(key, 0) + 1
                if key not in shown:
                    shown.add(key)
                    print(*(result.explanation or [f"{result.status} {race.name}, {result.binding}"]), sep="\n")
                    drawings.draw(result.binding, result.replay)
            if options.clean:
                lab.discard()
    for (binding, status), count in counts.items():
        print(f"{race.name} `{race.schedule}` on {binding}: {status} {count} of {options.times}")
    drawings.write()
    return _code(list(dict.fromkeys(status for _, status in counts)))


def _explore(options: argparse.Namespace, progress: Progress) -> int:
    from harness.compare import Verdict, obstacle
    from harness.explore.races import explore
    from harness.model.rules import rules_for

    wrong = tuple(options.wrong or ())
    check_mistakes(wrong)
    drawings = timelines.Drawings(options)
    races = [drawings.prepared(race) for race in _races(options.race)]
    statuses: list[Verdict] = []
    with _lab(options, progress) as lab:
        for race in races:
            for binding in options.binding or DRIVERS:
                rules = rules_for(binding, lab.features())
                why = lab.missing(binding) or obstacle(race, rules)
                if why is not None:
                    print(f"{race.name} on {binding}: SKIP: {why}")
                    statuses.append(Verdict.SKIP)
                    continue
                begun = time.monotonic()
                found = explore(
                    race, rules, lab, preemptions=options.preemptions, wrong=wrong, timeout=_timeout(options)
                )
                statuses += _told(found, options, race, binding, begun=begun, drawings=drawings)
    drawings.write()
    return _code(statuses)


def _told(
    tried: Iterator[Tried],
    options: argparse.Namespace,
    race: Race,
    binding: str,
    *,
    begun: float,
    drawings: timelines.Drawings,
) -> list[Verdict]:
    """Prints what becomes of each schedule that counts, and a line about all of them."""
    statuses = []
    bad = 0
    guest = 0.0
    for each in tried:
        statuses.append(each.comparison.verdict)
        guest += each.execution.seconds if each.execution is not None else 0.0
        if each.good:
            continue
        bad += 1
        print(f"{each.comparison.verdict} {race.name} on {binding} under `{each.race.schedule}`")
        print(f"    {each.comparison.reason}")
        if each.execution is not None and each.execution.course is not None:
            print(f"    {each.execution.course.show(each.race.schedule)}")
        replay = _command(options, each.race, binding)
        print(f"    replay: {replay}", flush=True)
        if each.execution is not None:
            drawings.see(each.race, each.comparison, each.execution)
            drawings.draw(binding, replay)
        if not options.all:
            break
    spent = time.monotonic() - begun
    rate = f", {len(statuses) / spent:.1f} a second" if spent else ""
    print(f"{race.name} on {binding}: {len(statuses)} schedules, {bad} found, {spent:.1f} s{rate}", flush=True)
    return statuses


def _command(options: argparse.Namespace, race: Race, binding: str) -> str:
    words = [*own_command(), "race", "replay", "--kernel", options.kernel, "--flavour", options.flavour]
    words += ["--binding", binding]
    if options.wrong:
        words += ["--wrong", ",".join(options.wrong)]
    return shlex.join([*words, race.name, str(race.schedule)])


def _timeout(options: argparse.Namespace) -> float:
    return options.timeout or DEFAULT_TIMEOUT


def _lab(options: argparse.Namespace, progress: Progress) -> Lab:
    from harness.target.lab import Lab, prepare

    cache = open_cache()
    machine = prepare(options.kernel, options.flavour, cache=cache, progress=progress)
    return Lab(machine, cache=cache, progress=progress)


def _code(statuses: list[Verdict]) -> ExitCode:
    """The exit code for what became of all; the worst counts."""
    from harness.report.results import exit_code

    return exit_code(statuses)
