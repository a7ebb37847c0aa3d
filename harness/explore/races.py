# SPDX-License-Identifier: GPL-2.0-only
"""Runs a race under every schedule up to a bound, and says which of them show what the model does not allow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.compare import Comparison
from harness.defaults import DEFAULT_TIMEOUT
from harness.errors import GuestError
from harness.explore.schedules import schedules, serial
from harness.model.rules import Rules
from harness.program.race import Course, Gate, Race, Schedule
from harness.run import judge, verdict_of
from harness.target.lab import Execution, Lab


@dataclass(frozen=True)
class Tried:
    """What came of one schedule of `race`. `execution`: None where the VM did not live to tell."""

    race: Race
    comparison: Comparison
    execution: Execution | None
    seconds: float

    @property
    def good(self) -> bool:
        """Whether all that was seen is allowed."""
        return self.comparison.verdict.good


def explore(
    race: Race,
    rules: Rules,
    lab: Lab,
    *,
    preemptions: int,
    wrong: Sequence[str] = (),
    timeout: float = DEFAULT_TIMEOUT,
) -> Iterator[Tried]:
    """Every schedule of `race` that interrupts actors at most `preemptions` times, those with the fewest first.

    Where an actor can be interrupted is learnt on the way: one that has to start over comes by more gates.
    """
    traces: dict[str, Sequence[Gate]] = {actor.name: () for actor in race.actors}
    tried: set[Schedule] = set()
    for bound in range(preemptions + 1):
        more = True
        while more:
            known = serial(race) if bound == 0 else schedules(race, traces, bound)
            batch = [schedule for schedule in known if schedule not in tried]
            more = bool(batch) and bound > 0
            tried.update(batch)
            for each in _run([replace(race, schedule=schedule) for schedule in batch], rules, lab, wrong, timeout):
                if each.execution is not None and each.execution.course is not None:
                    _learn(traces, race, each.execution.course)
                yield each


def _learn(traces: dict[str, Sequence[Gate]], race: Race, course: Course) -> None:
    for actor, passings in zip(race.actors, course.passings, strict=False):
        if len(passings) > len(traces[actor.name]):
            traces[actor.name] = tuple(passing.gate for passing in passings)


def _run(races: Sequence[Race], rules: Rules, lab: Lab, wrong: Sequence[str], timeout: float) -> Iterator[Tried]:
    lab.expect([(race, rules.binding) for race in races])
    for race in races:
        begun = time.monotonic()
        execution: Execution | None = None
        try:
            execution = lab.execute(race, rules.binding, wrong=wrong, timeout=timeout)
            comparison = judge(race, rules, execution, strict=False)
        except GuestError as error:
            comparison = Comparison(verdict_of(error), error.message)
        yield Tried(race, comparison, execution, time.monotonic() - begun)
        if not comparison.verdict.good:
            lab.discard()  # what comes next is to be judged by what it does, not by what this left behind
