# SPDX-License-Identifier: GPL-2.0-only
"""Races that nothing forces: a seed says when each actor begins, and the machine does the same again for it.

A run of a seed is one boot of harness/target/clockwork.py with so many rounds of a race. In each round the actors
sleep, each until its moment; the timer's interrupt then comes in the middle of what another one does, wherever that
is. There is no gate: kernel and driver are as they are. What was seen is judged as of any race, by whether some order
of the actors' steps may show it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, islice, product
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.compare import Comparison, Verdict, obstacle
from harness.conformance.bugs import with_bug
from harness.defaults import DEFAULT_ROUNDS
from harness.errors import GuestError
from harness.guest.runner import OUTCOME, UNKNOWN
from harness.model.rules import rules_for
from harness.program.operations import (
    DEVICES,
    DeviceRead,
    DeviceWrite,
    Evict,
    EvictBy,
    Operation,
    Read,
    Write,
)
from harness.program.program import ProgramError
from harness.program.race import Course, Race, loose
from harness.run import judge, verdict_of
from harness.target.clockwork import Answer, Round, Run, Setup, job, play, read_answer
from harness.target.crashes import crashes
from harness.target.events import read_stream
from harness.target.lab import Execution
from harness.target.watchdog import complaints, trouble_on_console
from harness.target.wire import course_of, decode, encode

# Verdicts of a round with which the next one is looked at; of all rounds the highest counts
_RANKS = {Verdict.SKIP: 0, Verdict.PASS: 1, Verdict.DEVIATION: 2}
_SHIFTS = (2, 3, 4, 5)  # of which a seed takes one
_LEAD = 1 << 18  # instructions from when all actors are ready to the first one's moment: all sleep by then
_SCALES = range(11, 18)  # moments lie at most 2^scale instructions apart; a step of a few pages takes some 2^15
_SECONDS = 300.0  # of this computer's time for a boot with its rounds, and for each round besides
_SECONDS_EACH = 3.0


@dataclass(frozen=True)
class Game:
    """Races without a schedule, on a binding of a kernel, which seeds are tried with: each round is one of the next.

    `initrd`: the part that all runs share. `shift` None: the seed says which. `timeout`: seconds of the guest's time
    for a round. `marks`: of harness/target/gdbstub.py.
    """

    races: tuple[Race, ...]
    binding: str
    kernel: Path
    initrd: Path
    append: str
    wrong: tuple[str, ...] = ()
    rounds: int = DEFAULT_ROUNDS
    shift: int | None = None
    cpus: int = 2
    timeout: float = 30.0
    marks: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Of the race, or how many there are."""
        return self.races[0].name if len(self.races) == 1 else f"{len(self.races)} races"

    def race_of(self, number: int) -> Race:
        """What is run in a round, from 1 on."""
        return self.races[(number - 1) % len(self.races)]

    def shift_of(self, seed: int) -> int:
        """How long an instruction takes: 2^shift ns."""
        return _SHIFTS[seed % len(_SHIFTS)] if self.shift is None else self.shift


@dataclass(frozen=True)
class Played:
    """What came of a seed. `number`: the round that decides, from 1; 0: none. `execution`: what that round showed.

    `answer`: None if it makes no sense.
    """

    seed: int
    shift: int
    run: Run
    answer: Answer | None
    comparison: Comparison
    number: int = 0
    execution: Execution | None = None

    @property
    def good(self) -> bool:
        """Whether all that was seen is allowed, or nothing could be."""
        return self.comparison.verdict.good or self.comparison.verdict is Verdict.SKIP


def unfit(race: Race) -> str | None:
    """Why `race` is none without its schedule; None if it is one."""
    if any(promise for actor in race.actors for promise in actor.promises):
        return "it promises what a query sees in the middle of another step, where its schedule puts it"
    if any(isinstance(step, Evict | EvictBy) for actor in race.actors for step in actor.steps):
        return "an eviction leaves what somebody holds at that moment, and no order says who does"
    for one, other in combinations(race.actors, 2):
        for step, its in product(one.steps, other.steps):
            region = _torn(step, its) or _torn(its, step)
            if region is not None:
                return f"{one.name} and {other.name} touch {region} at once, and a page is not written at once"
    try:
        loose(race)
    except ProgramError as error:
        return f"page by page, it is too long: {error.message}"
    return None


def _torn(one: Operation, other: Operation) -> str | None:
    """The region of which `one` writes what `other` reads or writes, word by word; None if there is none."""
    if not isinstance(one, Write | DeviceWrite) or not isinstance(other, Read | Write | DeviceRead | DeviceWrite):
        return None
    ours, its = one.span, other.span
    same = ours.region == its.region and ours.start < its.stop and its.start < ours.stop
    return ours.region if same else None


def moments(race: Race, seed: int, number: int, shift: int) -> tuple[int, ...]:
    """When each actor begins in round `number`: nanoseconds from when all are ready."""
    scale = _SCALES[_draw(seed, number, "scale") % len(_SCALES)]
    return tuple((_LEAD + _draw(seed, number, actor.name) % (1 << scale)) << shift for actor in race.actors)


def _draw(seed: int, number: int, what: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {what}".encode()).digest()[:8], "little")


def assemble(game: Game, seed: int, directory: Path) -> Setup:
    """All that a run of `seed` takes; its initramfs is written to `directory`."""
    shift = game.shift_of(seed)
    requests = [
        encode(race, game.binding, game.timeout, moments=moments(race, seed, number, shift))
        for number in range(1, game.rounds + 1)
        for race in [game.race_of(number)]
    ]
    initrd = directory / "initrd"
    initrd.write_bytes(game.initrd.read_bytes() + job(requests, game.wrong))
    return Setup(game.kernel, initrd, game.append, shift, seed, game.cpus)


def patience(game: Game) -> float:
    """Seconds after which a run is given up."""
    return _SECONDS + _SECONDS_EACH * game.rounds


def try_seed(game: Game, seed: int) -> Played:
    """What `seed` comes to."""
    with TemporaryDirectory(prefix="hmm-harness.") as directory:
        run = play(assemble(game, seed, Path(directory)), seconds=patience(game))
    return judge_run(game, seed, run)


def try_seeds(game: Game, seeds: Sequence[int], *, vms: int) -> Iterator[Played]:
    """What each of `seeds` comes to, in their order; `vms` of them are tried at once."""
    with ThreadPoolExecutor(vms) as pool:
        for first in range(0, len(seeds), vms):  # not all at once: one of them may be the last that is wanted
            yield from pool.map(lambda seed: try_seed(game, seed), seeds[first : first + vms])


def judge_run(game: Game, seed: int, run: Run) -> Played:
    """The first round that is not allowed, or what became of the machine, or that all was well."""
    shift = game.shift_of(seed)
    try:
        answer = read_answer(run.answer)
    except GuestError as error:
        return Played(seed, shift, run, None, Comparison(Verdict.ERROR, error.message))

    def played(comparison: Comparison, number: int = 0, execution: Execution | None = None) -> Played:
        return Played(seed, shift, run, answer, comparison, number, execution)

    said = complaints(answer.boot, 0)
    if said:
        return played(Comparison(Verdict.CRASHED, f"the kernel complained before any round: {said[0]}"))
    rules = rules_for(game.binding, answer.features)
    best = Comparison(Verdict.ERROR, "there was no round")
    for number, each in enumerate(answer.rounds, 1):
        race = game.race_of(number)
        try:
            execution = _execution(race, game.binding, each)
        except GuestError as error:
            return played(Comparison(Verdict.ERROR, f"round {number}: {error.message}"), number)
        why = obstacle(race, rules)
        comparison = Comparison(Verdict.SKIP, why) if why else judge(race, rules, execution, strict=False)
        if comparison.verdict not in _RANKS:
            return played(comparison, number, execution)
        best = max(best, comparison, key=lambda each: _RANKS.get(each.verdict, -1))
    if answer.done and len(answer.rounds) == game.rounds:
        return played(best)
    return played(_unfinished(run, answer), len(answer.rounds) + 1 if answer.features else 0)


def _execution(race: Race, binding: str, each: Round) -> Execution:
    stream = read_stream(each.events, race)
    _, _, _, *in_use = OUTCOME.unpack_from(each.response)
    return Execution(
        observations=decode(race, each.response, stream, binding=binding),
        seconds=0.0,
        log=(*each.log, *each.remarks),
        earlier=(),
        crashes=tuple(crashes(each.log, each.taint)),
        residue={DEVICES[number]: pages for number, pages in enumerate(in_use) if pages != UNKNOWN},
        course=course_of(race, each.response, stream, binding=binding),
    )


def _unfinished(run: Run, answer: Answer) -> Comparison:
    """Why a machine did not come to its end."""
    console = run.console.decode(errors="replace").replace("\r\n", "\n")
    failure = trouble_on_console(console) or trouble_on_console("\n".join(answer.rest))
    if failure is not None:
        found = crashes(failure.console.splitlines())
        return Comparison(verdict_of(failure), with_bug(failure.message, found))
    if answer.failure is not None:
        return Comparison(Verdict.ERROR, answer.failure)
    if run.late and not run.answer:
        return Comparison(
            Verdict.ERROR,
            "the guest never said a word: does the kernel start all CPUs (--cpus)?",
        )
    if run.late:
        return Comparison(Verdict.TIMEOUT, f"the machine did not end within {run.seconds:.0f} s")
    said = run.stderr.splitlines()[-1:] or ["without a word"]
    return Comparison(Verdict.ERROR, f"QEMU ended with status {run.status}: {said[0]}")


def overlap(race: Race, course: Course) -> Iterator[str]:
    """A line for each actor: when each of its steps began and ended, in us from when the first one did."""
    times = iter(course.times)
    for actor in race.actors:
        spans = [
            f"{step.verb} {(start - course.begun) / 1000:.1f} to {(stop - course.begun) / 1000:.1f}"
            for step, (start, stop) in zip(actor.steps, islice(times, len(actor.steps)), strict=True)
        ]
        yield f"{actor.name}: {', '.join(spans)} us"
