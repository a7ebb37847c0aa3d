# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on a race: what was seen has to be what some order of the actors' steps, one by one, may show.

Steps that overlapped may have been done in either order; one that had ended before another began comes first. This is
linearizability, of the reference model. What a query saw in the middle of a step of another actor, where the contract
has something to say of that, is a promise of the race (`harness.program.race.Actor`) and judged by itself.

A step of several pages counts as one, though a CPU, and a device that reads or writes, goes page by page: a race in
which it may be overtaken in the middle has to be such that this makes no difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from harness.compare import Comparison, Divergence, Notice, Verdict, compare
from harness.model.allowed import Expectation, show_element
from harness.model.rules import Rules
from harness.program.observations import NO_MARKS, USAGE, Entry, Observation, Status
from harness.program.operations import Operation
from harness.program.race import Course, Ending, Race


def judge_race(
    race: Race,
    rules: Rules,
    observations: Sequence[Observation],
    course: Course | None,
    notice: Notice | None = None,
    *,
    strict: bool = True,
) -> Comparison:
    """What is to be said of one run of `race`. `course`: how it went, None if it did not come to an end.

    `strict`: a race that did not go as its schedule says proves nothing, even if all that was seen is allowed.
    """
    if course is None:
        if any(seen.status is Status.DONE for seen in observations[race.first :]):
            return Comparison(Verdict.ERROR, "the executor did not tell how the race went")
        return _not_begun(race, rules, observations)
    if course.expired:
        return Comparison(
            Verdict.INCONCLUSIVE,
            f"an actor was parked for too long ({course.show(race.schedule)}): is the machine busy?",
        )
    found = _best(race, rules, observations, course, notice)
    undone = any(seen.status is not Status.DONE for seen in observations)
    if undone and not found.verdict.good:  # whoever is skipped, or died, is not waited for
        return found
    for judge in (_waits, _promises):
        broke = judge(race, observations, course)
        if broke is not None:
            return broke
    if found.verdict.good and strict:
        return _followed(race, course) or found
    return found


def _not_begun(race: Race, rules: Rules, observations: Sequence[Observation]) -> Comparison:
    """A step before the race went wrong, or it did not end."""
    reached = next((at for at, seen in enumerate(observations) if seen.status is not Status.DONE), race.first)
    if reached < race.first:
        return compare(race, rules, observations)
    if observations[reached].status is Status.STUCK:
        return Comparison(Verdict.TIMEOUT, "the race did not end: an actor runs or waits for ever")
    if observations[reached].status is Status.UNSUPPORTED:
        return Comparison(Verdict.SKIP, f"{rules.binding} has no gates")
    return Comparison(Verdict.ERROR, "the race was not run")


def _waits(race: Race, _observations: Sequence[Observation], course: Course) -> Comparison | None:
    """Who was to be made to wait, and was not."""
    for number, (segment, stop) in enumerate(zip(race.schedule.segments, course.stops, strict=True), 1):
        if segment.waits and stop.ending is not Ending.BLOCKED:
            what = f"{segment.actor} was to be made to wait, and {_did(stop.ending)}"
            return Comparison(Verdict.FAIL, f"segment {number} of `{race.schedule}`: {what}")
    return None


def _did(ending: Ending) -> str:
    return {Ending.ENDED: "went on to its end", Ending.PARKED: "came to its gate"}.get(ending, f"{ending}")


def _promises(race: Race, observations: Sequence[Observation], _course: Course) -> Comparison | None:
    """What a query was to see in the middle of another step, and did not."""
    for number, step, promise in _promised(race):
        details = list(broken(promise, observations[number]))
        if details:
            divergence = Divergence(number, Expectation(), observations[number], tuple(details))
            return Comparison(
                Verdict.FAIL, f"step {number + 1}, `{step.verb}` of {step.actor}: {details[0]}", divergence
            )
    return None


def _promised(race: Race) -> Iterator[tuple[int, Operation, str]]:
    """The steps that have promises: their numbers in `Race.steps`, and these."""
    promises = [promise for actor in race.actors for promise in actor.promises]
    for number, promise in enumerate(promises, race.first):
        if promise:
            yield number, race.steps[number], promise


def broken(promise: str, seen: Observation) -> Iterator[str]:
    """What of `seen` is not as `promise` says (`harness.program.race.Actor`), a line each."""
    if seen.status is not Status.DONE or seen.error:
        yield f"{seen.status}, error {seen.error}"
    elif promise == "nothing":
        for index, element in enumerate(seen.elements):
            if element != Entry(NO_MARKS):
                yield f"page {index}: saw {show_element(element)}, promised is nothing"
    else:
        name, number = promise.split()
        element = seen.elements[[each.replace(" ", "-").lower() for each in USAGE].index(name)]
        if element != int(number):
            yield f"{name}: saw {show_element(element)}, promised is {number}"


def _best(
    race: Race, rules: Rules, observations: Sequence[Observation], course: Course, notice: Notice | None
) -> Comparison:
    """The comparison with the order that explains most of what was seen."""
    best: Comparison | None = None
    reached = -1
    tried = 0
    for order in possible_orders(race, course):
        tried += 1
        program = race.in_order(order)
        seen = [*observations[: race.first], *(observations[number] for number in order), *observations[race.last :]]
        found = replace(compare(program, rules, seen, notice), program=program)
        if found.verdict is Verdict.PASS:
            return replace(found, program=None)
        came = len(program.steps) if found.divergence is None else found.divergence.step
        if best is None or (found.verdict.good, came) > (best.verdict.good, reached):
            best, reached = found, came
    if best is None:
        return Comparison(Verdict.ERROR, "no order of the actors' steps agrees with the times that the executor told")
    if best.verdict is Verdict.FAIL and tried > 1:
        return replace(best, reason=f"in none of {tried} orders; in the one that explains most, {best.reason}")
    return best


def possible_orders(race: Race, course: Course) -> Iterator[tuple[int, ...]]:
    """The orders of the actors' steps, but for those with promises, in which what ended first comes first."""
    promised = {number for number, _, _ in _promised(race)}
    times = dict(enumerate(course.times, race.first))
    seen = set()
    for full in race.orders():
        order = tuple(number for number in full if number not in promised)
        if order not in seen and _agrees(order, times.__getitem__):
            yield order
        seen.add(order)


def _agrees(order: Sequence[int], time_of: Callable[[int], tuple[int, int]]) -> bool:
    for at, first in enumerate(order):
        begun, _ = time_of(first)
        for second in order[at + 1 :]:
            _, ended = time_of(second)
            if ended and begun and ended < begun:
                return False
    return True


def _followed(race: Race, course: Course) -> Comparison | None:
    """Why a race that was not run as its schedule says proves nothing."""
    for segment, stop in zip(race.schedule.segments, course.stops, strict=True):
        if segment.gate is not None and not segment.waits and stop.ending is not Ending.PARKED:
            return Comparison(
                Verdict.INCONCLUSIVE, f"{segment.actor} did not come to {segment.gate}: {course.show(race.schedule)}"
            )
    return None
