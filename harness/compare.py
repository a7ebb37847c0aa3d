# SPDX-License-Identifier: GPL-2.0-only
"""Expectations against observations: whether what a target showed of a program is allowed."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.model.allowed import RECORDED, Expectation, show_element
from harness.model.rules import FEATURES, Rules
from harness.model.state import State
from harness.model.world import World
from harness.program.observations import COUNTED, EVICTED, REFUSED, SEQUENCE, USAGE, Observation, Status
from harness.program.operations import (
    QUERIES,
    Counted,
    DeviceRead,
    Evict,
    EvictBy,
    Exclusive,
    Move,
    Operation,
    Poison,
    Read,
    Returns,
    SequenceNumber,
    ToDevice,
    span_of,
)
from harness.program.program import Program
from harness.program.race import Race

Notice = Callable[[State, Operation], None]


class Verdict(StrEnum):
    """The status of a result. What is not proven to be something else is CRASHED."""

    PASS = "PASS"
    FAIL = "FAIL"  # an observation outside what the model allows
    SKIP = "SKIP"
    DEVIATION = "DEVIATION"  # a divergence of the kernel that is recorded
    INCONCLUSIVE = "INCONCLUSIVE"
    ERROR = "ERROR"  # the harness or its surroundings
    CRASHED = "CRASHED"
    TIMEOUT = "TIMEOUT"

    @property
    def good(self) -> bool:
        """The program was judged, and all that it showed is allowed or known."""
        return self in (Verdict.PASS, Verdict.DEVIATION)


@dataclass(frozen=True)
class Divergence:
    """Step `step` showed something that is not allowed; `details` are lines that say what, page by page."""

    step: int
    expectation: Expectation
    observation: Observation
    details: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What the comparison of one run says. `left_out`: steps that the binding cannot show.

    `program`: the one whose steps are counted, if it is not the one that was run but an order of a race's steps.
    """

    verdict: Verdict
    reason: str = ""
    divergence: Divergence | None = None
    left_out: tuple[int, ...] = ()
    program: Program | None = None


def obstacle(program: Program, rules: Rules) -> str | None:
    """Why `program` cannot run on this kernel, with the step that it is about; None if it can."""
    asked: Counter[str] = Counter()
    exclusive = False
    why = _obstacle_to_race(program, rules) if isinstance(program, Race) else None
    if why is not None:
        return why
    for number, step in enumerate(program.steps):
        why = rules.obstacle(step)
        if why is None and isinstance(step, ToDevice):
            asked[step.actor] += step.span.count
            why = rules.overrun(step.actor, asked[step.actor])
        if why is None and isinstance(step, Poison):
            why = rules.spoils(asked)
        exclusive = exclusive or isinstance(step, Exclusive)
        if why is None and exclusive and isinstance(step, Evict) and asked[step.actor]:
            why = rules.strands(step.actor)
        if why is not None:
            return f"step {number + 1}: {why}"
    return None


def _obstacle_to_race(race: Race, rules: Rules) -> str | None:
    """Why there is no such race on this kernel, whatever its steps are."""
    if not rules.gates:
        return f"a race takes gates, which {rules.binding} has not: it is the kernel's own"
    for need in race.needs:
        if not rules.has(need):
            return f"needs {FEATURES[need]}, which this kernel does not have"
    for segment in race.schedule.segments:
        if segment.gate is not None and segment.gate.of_interval and rules.binding != "interval":
            return f"the gate {segment.gate} is one of interval's: {rules.binding} has nothing of that kind"
    return None


def compare(
    program: Program, rules: Rules, observations: Sequence[Observation], notice: Notice | None = None
) -> Comparison:
    """Replays `program` in the model beside `observations`, one for each step, up to the first divergence.

    `notice` is shown the model's state before each step.
    """
    if len(observations) != len(program.steps):
        return Comparison(
            Verdict.ERROR, f"{len(observations)} observations for {len(program.steps)} steps: answers were lost"
        )
    why = obstacle(program, rules)
    if why is not None:
        return Comparison(Verdict.SKIP, why)
    world = World(program, rules)
    left_out: list[int] = []
    deviations: list[str] = []
    for number, (step, observation) in enumerate(zip(program.steps, observations, strict=True)):
        if observation.status is not Status.DONE:
            if observation.status is Status.UNSUPPORTED and isinstance(step, QUERIES):
                left_out.append(number)
                continue
            return _not_done(number, step, observation, rules)
        if notice is not None:
            notice(world.state, step)
        expectation = world.step(step, observation)
        details, found = _judge(step, expectation, observation)
        if details:
            divergence = Divergence(number, expectation, observation, tuple(details))
            return Comparison(Verdict.FAIL, f"step {number + 1}: {details[0]}", divergence, tuple(left_out))
        deviations += found
        world.learn(step, observation)
    if left_out and not any(
        isinstance(step, (*QUERIES, Read, DeviceRead, EvictBy, Move))
        or (isinstance(step, Evict | Exclusive) and observations[number].elements)
        for number, step in enumerate(program.steps)
        if number not in left_out
    ):
        return Comparison(Verdict.SKIP, f"{rules.binding} cannot show anything that this program asks for")
    if deviations:
        names = dict.fromkeys(deviations)
        reason = "; ".join(f"{name}: {RECORDED[name].summary} ({RECORDED[name].source})" for name in names)
        return Comparison(Verdict.DEVIATION, reason, left_out=tuple(left_out))
    return Comparison(Verdict.PASS, left_out=tuple(left_out))


def _not_done(number: int, step: Operation, observation: Observation, rules: Rules) -> Comparison:
    where = f"step {number + 1}"
    match observation.status:
        case Status.UNSUPPORTED:
            why = rules.cannot.get(step.verb, "it has no such operation")
            return Comparison(Verdict.SKIP, f"{rules.binding} cannot `{step.verb}` in {where}: {why}")
        case Status.STUCK:
            return Comparison(Verdict.TIMEOUT, f"{where} did not end")
        case Status.SUBJECT_DIED:
            reason = f"{where}: subject {step.actor!r} was killed by signal {observation.error}"
            return Comparison(Verdict.FAIL, reason, Divergence(number, Expectation(), observation, (reason,)))
    return Comparison(Verdict.ERROR, f"{where} was not run")


def _judge(step: Operation, expectation: Expectation, observation: Observation) -> tuple[list[str], list[str]]:
    """What is not allowed, a line each, and the names of recorded deviations."""
    deviations = [name for error, name in expectation.deviating_errors if observation.error == error]
    if observation.error not in expectation.errors and not deviations:
        allowed = " or ".join(show_error(error) for error in sorted(expectation.errors))
        return [f"saw {show_error(observation.error)}, allowed is {allowed}"], []
    if expectation.hearing is not None:
        return expectation.hearing.complaints(observation.elements), deviations
    details: list[str] = []
    if not observation.error and len(observation.elements) != len(expectation.elements):
        return [f"saw {len(observation.elements)} elements, not {len(expectation.elements)}"], []
    if len(observation.elements) > len(expectation.elements):
        return [f"saw {len(observation.elements)} elements, at most {len(expectation.elements)} can be"], []
    for index, element in enumerate(observation.elements):
        allowed_here = expectation.elements[index]
        if allowed_here.admits(element):
            continue
        name = allowed_here.deviation(element)
        if name is not None:
            deviations.append(name)
            continue
        details.append(f"{place(step, index)}: saw {show_element(element)}, allowed is {allowed_here}")
    return details, deviations


def place(step: Operation, index: int) -> str:
    """What element `index` of what `step` shows is about: a page, or the name of a number."""
    if isinstance(step, SequenceNumber):
        return SEQUENCE[index]
    if isinstance(step, Counted):
        return COUNTED[index]
    span = span_of(step)
    if span is not None:
        return f"{span.region}[{span.start + index}]"
    if isinstance(step, Evict | EvictBy):
        return EVICTED[index]
    return (REFUSED if isinstance(step, Returns) else USAGE)[index]


def show_error(error: int) -> str:
    """`success`, or an errno by its name."""
    return "success" if error == 0 else errno.errorcode.get(error, f"errno {error}")
