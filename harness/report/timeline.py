# SPDX-License-Identifier: GPL-2.0-only
"""How a race went, row by row, as it is drawn: timeline_text.py makes text of it, timeline_svg.py a picture."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby, islice

from harness.compare import Comparison, show_error
from harness.model.allowed import show_element
from harness.program.observations import NO_MARKS, Element, Entry, Event, Happening, Observation, Status
from harness.program.operations import DEVICES, Bind, Operation, Snapshot, Span, Table
from harness.program.race import MAX_PASSINGS, Course, Ending, Happened, Race, Sight
from harness.program.text import render_step

_MOST_ELEMENTS = 8  # of what a step showed
_NO_SCHEDULE = "none: nothing stops the actors"
_MOST_DETAILS = 8  # of what is not allowed
_LONGEST_ROUND = 16  # rows that are looked for again
_FEWEST_ROUNDS = 3  # that become one
_OWN_DOING = (Happening.TO_DEVICE, Happening.TO_SYSTEM, Happening.PAGE_FREE, Happening.CPU_FAULT)
_NOT_SEEN = {
    errno.EAGAIN: "not seen: the mmap lock is held for writing",
    errno.ESRCH: "none: the process has exited",
    errno.ENXIO: "none: not bound any more",
    errno.EOPNOTSUPP: "not seen: that would take waiting",
}


class Kind(StrEnum):
    """What a row is about."""

    BEGINS = "begins"  # a step of an actor
    ENDS = "ends"
    GATE = "gate"  # an actor comes by
    PARKED = "parked"  # an actor is stopped at a gate
    GOES_ON = "goes on"  # an actor that was
    WAITS = "waits"  # an actor was made to wait by another one
    EVENT = "event"  # a device heard or did something
    AGAIN = "again"  # the rows before it, so many times
    TABLES = "tables"  # what was looked at
    CHECK = "check"  # a step that is no actor's, and that showed what is not allowed


class State(StrEnum):
    """What an actor does after a row."""

    IDLE = "idle"  # not begun
    RUNS = "runs"
    PARKED = "parked"
    WAITS = "waits"
    DONE = "done"


@dataclass(frozen=True)
class Run:
    """Pages one after the other with the same entry: `start` up to but not including `stop`."""

    start: int
    stop: int
    entry: str

    @property
    def pages(self) -> str:
        """`[1]`, `[2:5]`."""
        return f"[{self.start}]" if self.stop == self.start + 1 else f"[{self.start}:{self.stop}]"

    @property
    def stale(self) -> bool:
        """Whether it contradicts the CPU's page table."""
        return "STALE" in self.entry.split()


@dataclass(frozen=True)
class Strip:
    """A page table of a region: `who` has it. `note` says why nothing is known of it."""

    who: str
    region: str
    runs: tuple[Run, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Row:
    """`time`: nanoseconds since the first actor ran, None after the race. `actor`: its place, None for nobody's.

    `states`: of each actor, after it. `same`: the tables are as they were when they were looked at last. `broken`:
    the rule that is broken here, a line each.
    """

    time: int | None
    kind: Kind
    text: str
    actor: int | None = None
    states: tuple[State, ...] = ()
    strips: tuple[Strip, ...] = ()
    same: bool = False
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A clause of the contract that the race is about."""

    id: str
    says: str


@dataclass(frozen=True)
class Timeline:
    """A race as it went. `where`: the kernel, the binding, what is wrong on purpose. `before`: steps, as text."""

    name: str
    where: str
    verdict: str
    good: bool
    reason: str
    promise: str
    schedule: str
    rules: tuple[Rule, ...]
    before: tuple[str, ...]
    actors: tuple[str, ...]
    rows: tuple[Row, ...]
    replay: str = ""
    remark: str = ""


def draw(
    race: Race,
    comparison: Comparison,
    observations: Sequence[Observation],
    course: Course,
    *,
    where: str = "",
    rules: Sequence[Rule] = (),
    replay: str = "",
) -> Timeline:
    """The timeline of one run of `race`, one that `recorded` makes; of another there are no tables and no events."""
    fault = _fault(race, comparison, course)
    rows = list(_with_states(race, sorted(_rows(race, observations, course, fault), key=lambda row: row[:2])))
    rows += _after(race, observations, fault)
    return Timeline(
        name=race.name or "race",
        where=where,
        verdict=str(comparison.verdict),
        good=comparison.verdict.good,
        reason=comparison.reason,
        promise=race.title,
        schedule=str(race.schedule) or _NO_SCHEDULE,
        rules=tuple(rules),
        before=tuple(render_step(step, race) for step in race.steps[: race.first]),
        actors=tuple(actor.name for actor in race.actors),
        rows=tuple(_first_contradiction(_compared(_folded(rows)))),
        replay=replay,
        remark="; ".join(_remarks(race, course)),
    )


def _remarks(race: Race, course: Course) -> Iterator[str]:
    """What is not known."""
    if course.lost:
        yield f"{course.lost} events were lost"
    for actor, passings in zip(race.actors, course.passings, strict=True):
        if len(passings) == MAX_PASSINGS:
            yield f"of {actor.name} the last {MAX_PASSINGS} gates are known"


@dataclass(frozen=True)
class _Fault:
    """Where what is not allowed was seen: in which step, or at the end of which segment; else in neither."""

    lines: tuple[str, ...] = ()
    step: int | None = None
    segment: int | None = None


def _fault(race: Race, comparison: Comparison, course: Course) -> _Fault:
    if comparison.verdict.good:
        return _Fault()
    divergence = comparison.divergence
    if divergence is not None:
        step = divergence.step
        if comparison.program is not None:
            step = _number_in(race, comparison.program.steps, step)
        return _Fault(_first(divergence.details) or (comparison.reason,), step=step)
    for number, (segment, stop) in enumerate(zip(race.schedule.segments, course.stops, strict=True)):
        if segment.waits and stop.ending is not Ending.BLOCKED:
            return _Fault((f"{segment.actor} was to be made to wait, and was not",), segment=number)
    return _Fault((comparison.reason,))


def _first(details: tuple[str, ...]) -> tuple[str, ...]:
    more = len(details) - _MOST_DETAILS
    return (*details[:_MOST_DETAILS], f"... and {more} more pages") if more > 0 else details


def _number_in(race: Race, steps: Sequence[Operation], at: int) -> int:
    """The number in `Race.steps` of the one that is number `at` of `steps`, some order of these."""
    behind = at - (len(steps) - (len(race.steps) - race.last))
    if at < race.first:
        return at
    if behind >= 0:
        return race.last + behind
    return next(number for number in range(race.first, race.last) if race.steps[number] is steps[at])


_Placed = tuple[int, int, Row]  # when, which comes first of what is at the same time


def _rows(race: Race, observations: Sequence[Observation], course: Course, fault: _Fault) -> Iterator[_Placed]:
    start = course.begun
    for actor in range(len(race.actors)):
        yield from _steps(race, actor, observations, course, fault)
        yield from _gates(race, actor, course)
    actors = [actor.name for actor in race.actors]
    for number, (segment, stop) in enumerate(zip(race.schedule.segments, course.stops, strict=True)):
        actor = actors.index(segment.actor)
        broken = fault.lines if fault.segment == number else ()
        yield stop.begun, 0, Row(stop.begun - start, Kind.GOES_ON, "goes on", actor)
        if stop.ending in (Ending.BLOCKED, Ending.SPINS):
            yield stop.ended, 5, Row(stop.ended - start, Kind.WAITS, str(stop), actor, broken=broken)
        elif broken:
            yield stop.ended, 5, Row(stop.ended - start, Kind.CHECK, f"{segment}: {stop}", actor, broken=broken)
    yield from _looks(race, course)
    for each in course.happened:
        running = course.threads.index(each.thread) if each.thread in course.threads else None
        yield each.time, 3, Row(each.time - start, Kind.EVENT, _heard(each), running)
    for actor in range(len(race.actors)) if course.stops else ():
        ended = course.stops[-1].ended
        yield ended, 9, Row(ended - start, Kind.GOES_ON, "goes on", actor)


def _heard(each: Happened) -> str:
    event: Event = replace(each.event, sequence=0)
    return f"{each.device}{':' if event.what in _OWN_DOING else ' hears'} {event}"


def _steps(
    race: Race, actor: int, observations: Sequence[Observation], course: Course, fault: _Fault
) -> Iterator[_Placed]:
    start = course.begun
    number = race.first + sum(len(each.steps) for each in race.actors[:actor])
    for step in race.actors[actor].steps:
        begun, ended = course.times[number - race.first]
        broken = fault.lines if fault.step == number else ()
        if begun:
            early = () if ended else broken
            yield begun, 1, Row(begun - start, Kind.BEGINS, render_step(step, race), actor, broken=early)
        if ended:
            text = f"{step.verb}: {_showed(observations[number])}"
            yield ended, 4, Row(ended - start, Kind.ENDS, text, actor, broken=broken)
        number += 1


def _showed(seen: Observation) -> str:
    if seen.status is not Status.DONE:
        return str(seen.status)
    if seen.error:
        return show_error(seen.error)
    shown = [show_element(element) for element in seen.elements]
    runs = [f"{text} x{count}" if count > 1 else text for text, count in _together(shown)]
    return ", ".join([*islice(runs, _MOST_ELEMENTS), *(["..."] if len(runs) > _MOST_ELEMENTS else [])]) or "done"


def _together(texts: Sequence[str]) -> list[tuple[str, int]]:
    return [(text, len(list(group))) for text, group in groupby(texts)]


def _gates(race: Race, actor: int, course: Course) -> Iterator[_Placed]:
    passings = course.passings[actor]
    start = course.begun
    parked = set()
    for segment, stop in zip(race.schedule.segments, course.stops, strict=True):
        if segment.actor == race.actors[actor].name and stop.ending is Ending.PARKED:
            parked.add(max((each.clock for each in passings if each.clock <= stop.ended), default=0))
    several = len({each.device for every in course.passings for each in every}) > 1
    for each in passings:
        text = f"{each.gate}:{DEVICES[each.device]}" if several else str(each.gate)
        kind = Kind.PARKED if each.clock in parked else Kind.GATE
        yield each.clock, 2, Row(each.clock - start, kind, text, actor)


def _looks(race: Race, course: Course) -> Iterator[_Placed]:
    if not course.sights:
        return
    start = course.begun
    subjects = {step.actor: step.subject for step in race.steps[: race.first] if isinstance(step, Bind)}
    times = [start, *(stop.ended for stop in course.stops)]
    titles = ["before", *(f"after {segment}" for segment in race.schedule.segments)]
    for number, (time, title) in enumerate(zip(times, titles, strict=True)):
        strips = _strips(race, subjects, [sights[number] for sights in course.sights])
        yield time, -1 if number == 0 else 8, Row(time - start, Kind.TABLES, title, strips=strips)


def _strips(race: Race, subjects: Mapping[str, str], sights: Sequence[Sight]) -> tuple[Strip, ...]:
    """What the looks saw, region by region: each process's table, and those of its devices."""
    cpus: dict[tuple[Span, str], Strip | list[Entry]] = {}
    tables: dict[tuple[Span, str], list[Strip]] = {}
    for look, sight in zip(race.looks, sights, strict=True):
        key = (look.span, subjects[look.device])
        tables.setdefault(key, []).append(_strip(look.device, look.span, sight.table))
        known = cpus.get(key)
        if isinstance(sight.cpu, int):
            cpus.setdefault(key, _strip(f"CPU {key[1]}", look.span, sight.cpu))
        elif isinstance(known, list):
            cpus[key] = [one if one.marks != NO_MARKS else other for one, other in zip(known, sight.cpu, strict=True)]
        else:
            cpus[key] = list(sight.cpu)
    strips: list[Strip] = []
    for key, cpu in cpus.items():
        strips.append(cpu if isinstance(cpu, Strip) else _strip(f"CPU {key[1]}", key[0], cpu))
        strips += tables[key]
    return tuple(strips)


def _strip(who: str, span: Span, seen: Sequence[Element] | int) -> Strip:
    if isinstance(seen, int):
        return Strip(who, span.region, note=_NOT_SEEN.get(seen, f"not seen: {show_error(seen)}"))
    runs = []
    start = span.start
    for text, count in _together([_plain(entry) for entry in seen]):
        runs.append(Run(start, start + count, text))
        start += count
    return Strip(who, span.region, tuple(runs))


def _plain(element: Element) -> str:
    """An entry; that the CPU maps it by a large one says nothing here."""
    return show_element(replace(element, order=0) if isinstance(element, Entry) else element)


def _with_states(race: Race, placed: Sequence[_Placed]) -> Iterator[Row]:
    """The rows with what each actor does after them, without those that say that it goes on and had not stopped."""
    states = [State.IDLE] * len(race.actors)
    left = [len(actor.steps) for actor in race.actors]
    for _, _, row in placed:
        at = row.actor
        if at is not None and row.kind is not Kind.EVENT:
            if row.kind is Kind.GOES_ON and states[at] is not State.PARKED:
                continue
            left[at] -= row.kind is Kind.ENDS
            if row.kind is Kind.ENDS and not left[at]:
                states[at] = State.DONE
            elif row.kind is Kind.PARKED:
                states[at] = State.PARKED
            elif row.kind is Kind.WAITS:
                states[at] = State.WAITS
            elif row.kind is not Kind.CHECK:
                states[at] = State.RUNS
        yield replace(row, states=tuple(states))


def _after(race: Race, observations: Sequence[Observation], fault: _Fault) -> Iterator[Row]:
    """What the checks behind the race saw of the tables, and what of that, or of anything else, is not allowed."""
    states = (State.DONE,) * len(race.actors)
    subjects = {step.actor: step.subject for step in race.steps if isinstance(step, Bind)}
    cpus: dict[tuple[Span, str], Strip] = {}
    tables: dict[tuple[Span, str], dict[str, Strip]] = {}
    for number in range(race.last + race.after, len(race.steps)):
        step, seen = race.steps[number], observations[number]
        if not isinstance(step, Table | Snapshot) or seen.status is not Status.DONE or seen.error:
            continue
        key = (step.span, subjects[step.actor])
        if isinstance(step, Snapshot):
            cpus.setdefault(key, _strip(f"CPU {key[1]}", step.span, seen.elements))
        else:
            tables.setdefault(key, {}).setdefault(step.actor, _strip(step.actor, step.span, seen.elements))
    strips: list[Strip] = []
    for key, each in tables.items():
        strips += [cpus[key]] if key in cpus else []
        strips += each.values()
    if strips:
        yield Row(None, Kind.TABLES, "at the end", states=states, strips=tuple(strips))
    if fault.step is not None and not race.first <= fault.step < race.last:
        text = f"checked after the race: {render_step(race.steps[fault.step], race)}"
        yield Row(None, Kind.CHECK, text, states=states, broken=fault.lines)
    elif fault.lines and fault.step is None and fault.segment is None:
        yield Row(None, Kind.CHECK, "the verdict", states=states, broken=fault.lines)


def _folded(rows: Sequence[Row]) -> Iterator[Row]:
    """The rows; what an actor does again and again, as one that has to start over, is shown once."""
    keys = [(row.actor, row.kind, row.text, row.states, row.strips, row.broken) for row in rows]
    at = 0
    while at < len(rows):
        length, rounds = max(
            ((length, _rounds(keys, at, length)) for length in range(1, _LONGEST_ROUND + 1)),
            key=lambda found: (found[1] >= _FEWEST_ROUNDS, found[0] * found[1], -found[0]),
        )
        plain = all(row.actor is not None and not row.strips for row in rows[at : at + length])
        if rounds < _FEWEST_ROUNDS or not plain:
            yield rows[at]
            at += 1
            continue
        yield from rows[at : at + length]
        at += length * rounds
        what = "this" if length == 1 else f"these {length}"
        yield replace(rows[at - 1], kind=Kind.AGAIN, text=f"{what}, {rounds - 1} more times")


def _rounds(keys: Sequence[object], at: int, length: int) -> int:
    """How often, one after the other, the keys at `at` come."""
    count = 1
    while keys[at : at + length] == keys[at + count * length : at + (count + 1) * length]:
        count += 1
    return count


def _compared(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows; tables that are as they were say so."""
    last: tuple[Strip, ...] = ()
    for row in rows:
        if row.kind is Kind.TABLES:
            yield replace(row, same=row.strips == last)
            last = row.strips
        else:
            yield row


def _first_contradiction(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows; the first tables of which one contradicts another say so."""
    found = False
    for row in rows:
        stale = [
            f"{strip.who}'s {strip.region}{run.pages}" for strip in row.strips for run in strip.runs if run.stale
        ]
        if stale and not found:
            found = True
            what = f"from here on {' and '.join(stale)} contradicts the CPU's page table"
            yield replace(row, broken=(*row.broken, what))
        else:
            yield row
