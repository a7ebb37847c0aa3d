# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness race machine`: races that nothing forces, on a machine that does the same again for the same seed."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli import candidates, timelines
from harness.cli.options import (
    CONFIGURED,
    add_gdb,
    add_kernel,
    add_timeout,
    add_wrong,
    check_mistakes,
    completed,
    count,
    manual,
    number,
    open_cache,
    own_command,
)
from harness.defaults import DEFAULT_ROUNDS, DEFAULT_TIMEOUT, DRIVERS
from harness.errors import ExitCode, HarnessError, UsageError
from harness.progress import Progress

if TYPE_CHECKING:
    from harness.cli.options import Commands
    from harness.compare import Verdict
    from harness.explore.bundle import Bundle
    from harness.explore.seeds import Game, Played
    from harness.program.race import Race
    from harness.target.artifacts import Kernel
    from harness.target.clockwork import Setup

_SEEDS = 10
_POLL_SECONDS = 0.2


def add(actions: Commands) -> None:
    """Adds the command to those of `race`."""
    command = manual(
        actions,
        "machine",
        help="race without any gate, on a machine that does the same again for the same seed",
        description="""\
            Runs a race on a deterministic machine: QEMU counts instructions, which are the only clock there is, and
            nobody says a word to the guest. No gate is used, and the race's schedule does not count. A seed says in
            each round when each actor begins, and how many ns an instruction takes (2^shift); kernel and driver are
            as they are. Of several races, each round is one of the next. It goes through seeds, and stops at the
            first one of which a round shows what no order of the actors' steps may show. The same seed shows the same
            again: kernel log, events and times, to the last bit, which the SHA-256 of all of it tells. That takes the
            same QEMU, kernel, module, races and number of rounds.

            Each seed is a boot of some seconds with its rounds, and takes one CPU. Kernels that do not start their
            second CPU on such a machine (6.1 waits for it for ever) get one, which is said. They take --flavour
            preempt: with one CPU, a kernel that is not preempted changes actors only where they sleep.

            The exit status is that of `run`; 3, too, if a seed did not do the same again.""",
        examples=(
            ("race machine race/lock --wrong skip-retry", "seeds, until one shows the mistake"),
            ("race machine race/lock --seeds 50 --kernel debian:7.3", "fifty, on the driver as it is"),
            ("race machine race/lock --seed 3 --times 20 --wrong skip-retry", "one seed: is it the same 20 times?"),
            ("race machine race/lock --seed 3 --wrong skip-retry --gdb", "gdb, before the round that fails"),
            ("race machine race/lock --wrong skip-retry --timeline", "how it went: who did what when, to the ns"),
            ("race machine race/lock --wrong skip-retry --bundle lost", "what is found, to be sent to others"),
            ("race machine --replay lost", "such a directory, once more; so does its replay.sh"),
            ("race machine --kernel debian:6.1 --flavour preempt", "every race, on one CPU"),
        ),
        environment=CONFIGURED,
    )
    command.set_defaults(run_command=_machine)
    races = command.add_argument("race", nargs="*", help="names, patterns or files (default: all that can)")
    completed(races, candidates.programs)
    seeds = command.add_argument_group("seeds")
    seeds.add_argument("--seeds", type=number, metavar="N", help=f"try so many (default: {_SEEDS})")
    seeds.add_argument("--seed", type=count, metavar="S", help="the first one, and without --seeds the only one")
    seeds.add_argument(
        "--shift", type=_shift, metavar="K", help="2^K ns an instruction, 0 to 10 (default: the seed's)"
    )
    seeds.add_argument(
        "--rounds", type=number, default=DEFAULT_ROUNDS, metavar="N", help="of a seed (default: %(default)s)"
    )
    seeds.add_argument("--cpus", type=_cpus, metavar="N", help="of the machine (default: 2, if it starts them)")
    seeds.add_argument("--all", action="store_true", help="go on after the first one that is found")
    seeds.add_argument("--vms", type=number, metavar="N", help="machines at once (default: one for each CPU here)")
    again = command.add_argument_group("the same again")
    again.add_argument(
        "--times", type=number, default=1, metavar="N", help="run what is found, or the only seed, so often"
    )
    again.add_argument("--bundle", type=Path, metavar="DIR", help="write what is found, or the only seed, to DIR")
    again.add_argument("--replay", type=Path, metavar="DIR", help="run what --bundle wrote")
    add_gdb(command)
    timelines.add(command)
    add_kernel(command, "timeout")
    command.add_argument(
        "--binding", action="append", choices=DRIVERS, help="the driver to run on; may be repeated (default: both)"
    )
    add_wrong(command)
    add_timeout(command)


def _shift(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 10):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 10")
    return int(text)


def _cpus(text: str) -> int:
    if text not in ("1", "2", "3", "4"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 4")
    return int(text)


def _machine(options: argparse.Namespace, progress: Progress) -> int:
    if options.replay is not None:
        return _replay(options, progress)
    wrong = tuple(options.wrong or ())
    check_mistakes(wrong)
    games = _games(options, wrong, progress)
    drawings = timelines.Drawings(options)
    statuses: list[Verdict] = []
    same = True
    for game in games:
        found, again = _search(game, options, drawings, progress)
        statuses += found
        same = same and again
    drawings.write()
    return _code(statuses) if same else ExitCode.INFRASTRUCTURE


def _games(options: argparse.Namespace, wrong: tuple[str, ...], progress: Progress) -> list[Game]:
    """What is to be played: the races, on each binding."""
    from harness.explore.seeds import Game
    from harness.labels import label
    from harness.program.race import loose
    from harness.target.clockwork import command_line, cpus_of, provide_initrd
    from harness.target.kernel import provide_kernel
    from harness.target.module import build_module

    races = _races(options.race, progress)
    cache = open_cache()
    kernel = provide_kernel(options.kernel, options.flavour, cache=cache, progress=progress)
    module = build_module(kernel, cache=cache, progress=progress)
    initrd = provide_initrd(kernel, module, cache=cache, progress=progress)
    cpus = options.cpus or cpus_of(kernel, initrd, cache=cache, progress=progress)
    print(
        f"{label(kernel.name, kernel.flavour)}, Linux {kernel.release}; QEMU {_qemu()}, -icount; "
        f"{cpus} {'CPU' if cpus == 1 else 'CPUs'}; {options.rounds} rounds a seed",
        flush=True,
    )
    _warn(kernel, cpus, progress)
    return [
        Game(
            races=tuple(map(loose, races)),
            binding=binding,
            kernel=kernel.image,
            initrd=initrd,
            append=command_line(kernel),
            wrong=wrong,
            rounds=options.rounds,
            shift=options.shift,
            cpus=cpus,
            timeout=options.timeout or DEFAULT_TIMEOUT,
            marks=_marks(kernel),
        )
        for binding in options.binding or DRIVERS
    ]


def _warn(kernel: Kernel, cpus: int, progress: Progress) -> None:
    if cpus == 1 and "CONFIG_PREEMPTION=y" not in kernel.config.read_text().splitlines():
        progress.say(
            "this kernel is not preempted: on one CPU, actors change only where they sleep (--flavour preempt)"
        )


def _races(patterns: Sequence[str], progress: Progress) -> list[Race]:
    """The races that `patterns` name. Raises `UsageError` if one of them takes its schedule."""
    from harness.conformance import catalogue
    from harness.explore.seeds import unfit
    from harness.program.race import Race

    races = []
    for program in catalogue.select(list(patterns) or [f"{catalogue.RACES}*"]):
        why = unfit(program) if isinstance(program, Race) else "it is no race"
        if why is None and isinstance(program, Race):
            races.append(program)
        elif len(patterns) == 1 and program.name == patterns[0]:
            raise UsageError(f"{program.name} is not for the deterministic machine: {why}")
        else:
            progress.say(f"left out: {program.name}: {why}")
    if not races:
        raise UsageError("there is no race among these", hint="`hmm-harness race list` shows those there are")
    return races


def _marks(kernel: Kernel) -> tuple[int, int] | None:
    """Where the kernel comes by at the beginning of each round, and after it; None if it does not say."""
    from harness.target.registers import read_symbols

    symbols = {name: address for address, name in read_symbols(kernel.build / "System.map")}
    if "devkmsg_write" not in symbols or "devkmsg_read" not in symbols:
        return None
    return symbols["devkmsg_write"], symbols["devkmsg_read"]


def _search(
    game: Game, options: argparse.Namespace, drawings: timelines.Drawings, progress: Progress
) -> tuple[list[Verdict], bool]:
    """Goes through the seeds: what came of each, and whether what was run again was the same."""
    from harness.explore.seeds import try_seeds
    from harness.target.room import cpus

    only = options.seed is not None and options.seeds is None
    first = options.seed or 0
    seeds = range(first, first + (1 if only else options.seeds or _SEEDS))
    begun = time.monotonic()
    statuses: list[Verdict] = []
    rounds = bad = 0
    same = True
    vms = options.vms or cpus()
    with progress.step(f"{game.name} on {game.binding}, seeds from {first} on") as step:
        for played in try_seeds(game, seeds, vms=vms):
            statuses.append(played.comparison.verdict)
            rounds += len(played.answer.rounds) if played.answer else 0
            step.update(f"{len(statuses)} of {len(seeds)}")
            if played.good and not only:
                continue
            bad += not played.good
            replay = _command(game, played, options)
            _tell(game, played, replay)
            if played.execution is not None:
                drawings.see(game.race_of(played.number or 1), played.comparison, played.execution)
                drawings.draw(game.binding, replay)
            if options.times > 1:
                same = _again(game, played, options.times, vms) and same
            if options.bundle is not None:
                _bundle(game, played, options)
            if options.gdb is not None:
                _debug(game, played, options, progress)
            if not options.all:
                break
    spent = time.monotonic() - begun
    print(
        f"{game.name} on {game.binding}: {len(statuses)} {'seed' if len(statuses) == 1 else 'seeds'}, "
        f"{rounds} rounds, {bad} found, {spent:.1f} s",
        flush=True,
    )
    return statuses, same


def _tell(game: Game, played: Played, replay: str) -> None:
    """Prints what a seed came to."""
    print(*_lines(game, played, replay), sep="\n", flush=True)


def _lines(game: Game, played: Played, replay: str) -> list[str]:
    from harness.explore.seeds import overlap
    from harness.report.explain import explain

    where = f"seed {played.seed}, shift {played.shift}" + (f", round {played.number}" if played.number else "")
    race = game.race_of(played.number or 1)
    name = race.name if played.number else game.name
    title = f"{played.comparison.verdict} {name} on {game.binding}, {where}"
    if played.good:
        lines = [title, *([f"    {played.comparison.reason}"] if played.comparison.reason else [])]
    else:
        course = played.execution.course if played.execution else None
        went = "\n  ".join(overlap(race, course)) if course else ""
        log = played.execution.log if played.execution else played.run.console.decode(errors="replace").splitlines()
        program = played.comparison.program or race
        lines = list(explain(program, played.comparison, title=title, log=log, replay=replay, remark=went))
    return [*lines, f"  SHA-256 of all that came out: {played.run.fingerprint}"]


def _again(game: Game, played: Played, times: int, vms: int) -> bool:
    """Runs a seed again, `times` with the first one, and says whether it was the same each time."""
    from harness.explore.seeds import try_seeds

    found = [played, *try_seeds(game, [played.seed] * (times - 1), vms=vms)]
    alike = sum(each.run.fingerprint == played.run.fingerprint for each in found)
    verdicts = sum(each.comparison == played.comparison and each.number == played.number for each in found)
    print(f"seed {played.seed}: the same bytes {alike} of {times}, the same verdict and round {verdicts} of {times}")
    return alike == times


def _bundle(game: Game, played: Played, options: argparse.Namespace) -> None:
    from harness.explore import bundle
    from harness.labels import label

    qemu = _qemu()
    wrong = [f"driver:   wrong on purpose: {', '.join(game.wrong)}"] if game.wrong else []
    says = [
        "A run of a deterministic machine, written by hmm-harness. `./replay.sh` runs it again, and says whether the",
        "same came out; so does `hmm-harness race machine --replay DIR`, which judges it, too.",
        "",
        f"QEMU:     {qemu}; with another version the interleaving is likely to be another one",
        f"kernel:   {label(options.kernel, options.flavour)}",
        *wrong,
        f"seed:     {played.seed}, {game.rounds} rounds, shift {played.shift}, {game.cpus} CPUs",
        "",
        *_lines(game, played, "./replay.sh"),
    ]
    bundle.write(options.bundle, game, played, qemu=qemu, says=says)
    print(f"written: {options.bundle}, which `{options.bundle}/replay.sh` runs again", flush=True)


def _replay(options: argparse.Namespace, progress: Progress) -> int:
    from harness.explore import bundle
    from harness.explore.seeds import judge_run, patience
    from harness.target.clockwork import play

    if options.race:
        raise UsageError("--replay has its race with it", hint="leave the names away")
    found: Bundle = bundle.read(options.replay)
    here = _qemu()
    if here != found.qemu:
        progress.say(f"it was written with QEMU {found.qemu}, here is {here}: another interleaving is likely")
    alike = 0
    statuses: list[Verdict] = []
    for turn in range(options.times):
        with progress.step(f"{found.game.name}, seed {found.seed}"):
            run = play(found.setup, seconds=patience(found.game))
        played = judge_run(found.game, found.seed, run)
        statuses.append(played.comparison.verdict)
        alike += run.fingerprint == found.fingerprint
        if turn == 0:
            _tell(found.game, played, f"{options.replay}/replay.sh")
    print(f"the same bytes as when it was written {alike} of {options.times}", flush=True)
    if options.gdb is not None:
        _stop(found.game, found.setup, found.number, port=options.gdb, progress=progress)
    return _code(statuses) if alike == options.times else ExitCode.INFRASTRUCTURE


def _debug(game: Game, played: Played, options: argparse.Namespace, progress: Progress) -> None:
    """Runs a seed again up to the round that decides, and leaves it to a person's gdb."""
    from tempfile import TemporaryDirectory

    from harness.explore.seeds import assemble
    from harness.target.gdb import add_symbol_file, without_symbols
    from harness.target.kernel import provide_kernel
    from harness.target.module import build_module

    cache = open_cache()
    kernel = provide_kernel(options.kernel, options.flavour, cache=cache, progress=progress)
    module = build_module(kernel, cache=cache, progress=progress)
    words = [] if without_symbols(kernel) else [str(kernel.build / "vmlinux")]
    if played.answer and ".text" in played.answer.sections:  # there is no KASLR: it is always there
        words += ["-ex", add_symbol_file(str(module.path), played.answer.sections)]
    with TemporaryDirectory(prefix="hmm-harness.") as directory:
        setup = assemble(game, played.seed, Path(directory))
        _stop(game, setup, played.number, port=options.gdb, progress=progress, words=words)


def _stop(game: Game, setup: Setup, number: int, *, port: int, progress: Progress, words: Sequence[str] = ()) -> None:
    """Stops the machine where round `number` begins, the first one if it is 0, and waits for its end."""
    from tempfile import TemporaryDirectory

    from harness.explore.seeds import patience
    from harness.target.clockwork import Player
    from harness.target.gdbstub import free_port, run_to_round

    if game.marks is None:
        raise HarnessError(
            "it cannot be stopped before a round: the kernel comes without System.map, which has devkmsg_write",
            hint="replay.sh -s -S, of --bundle, lets gdb in before the first instruction",
        )
    port = port or free_port()
    number = number or 1
    with TemporaryDirectory(prefix="hmm-harness.") as scratch, Player(setup, Path(scratch), gdb=port) as player:
        with progress.step(f"running to round {number}"):
            run_to_round(port, game.marks, number, seconds=patience(game))
        command = shlex.join(["gdb", "-ex", f"target remote 127.0.0.1:{port}", *words])
        print(f"stopped where round {number} begins; Ctrl-C ends it. gdb may connect:\n  {command}", flush=True)
        while player.running:
            time.sleep(_POLL_SECONDS)


def _command(game: Game, played: Played, options: argparse.Namespace) -> str:
    """The command that runs a seed again."""
    words = [*own_command(), "race", "machine", "--kernel", options.kernel, "--flavour", options.flavour]
    words += ["--binding", game.binding, "--seed", str(played.seed)]
    if game.shift is not None:
        words += ["--shift", str(game.shift)]
    if game.rounds != DEFAULT_ROUNDS:
        words += ["--rounds", str(game.rounds)]
    if options.cpus is not None:
        words += ["--cpus", str(options.cpus)]
    if game.wrong:
        words += ["--wrong", ",".join(game.wrong)]
    if game.timeout != DEFAULT_TIMEOUT:
        words += ["--timeout", f"{game.timeout:g}"]
    return shlex.join([*words, *options.race])


def _qemu() -> str:
    """The version of the QEMU that is used, as it says it: "7.2.22"."""
    from harness.target.accel import find_qemu, qemu_version

    return qemu_version(find_qemu())


def _code(statuses: list[Verdict]) -> ExitCode:
    from harness.report.results import exit_code

    return exit_code(statuses)
