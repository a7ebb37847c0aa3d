# SPDX-License-Identifier: GPL-2.0-only
"""Races: programs of which a part is done by several actors at once, and the schedule that says who runs when.

An actor is a thread. It runs alone, from one gate of our driver to the next, as its schedule says:

    x@walk.lock y x      x runs until it is about to take the driver's lock, y to its end, then x to its end
    x@migrate.setup y!   y has to wait for x
    x@walk.lock#2 y      x passes there once, and stops the second time
    y@invalidate.end:d1  at that gate of d1; without a device, at that of any

An actor that comes to no such gate runs to its end, or until it has to wait for another one. After the last segment
all go on to their end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.program.observations import USAGE, Entry, Event
from harness.program.operations import (
    DEVICES,
    QUERIES,
    Bind,
    DeviceOperation,
    DeviceRead,
    DeviceWrite,
    Exit,
    Fork,
    Map,
    Operation,
    Poison,
    Read,
    Reap,
    Register,
    Remap,
    Snapshot,
    Span,
    Table,
    Unbind,
    Usage,
    Write,
    span_of,
)
from harness.program.program import Program, ProgramError

MAX_ACTORS = 4  # wire.h WIRE_MAX_ACTORS
MAX_ACTOR_STEPS = 8  # wire.h WIRE_MAX_ACTOR_STEPS
MAX_ACTOR_PAGES = 512  # of a step of an actor; wire.h WIRE_MAX_ACTOR_PAGES
MAX_SEGMENTS = 64  # wire.h WIRE_MAX_SEGMENTS
MAX_PASSINGS = 128  # that are known of an actor; wire.h WIRE_TRACE
MAX_LOOKS = 8  # wire.h WIRE_MAX_LOOKS
MAX_LOOK_PAGES = 64  # wire.h WIRE_MAX_LOOK_PAGES
MAX_ORDERS = 2520  # in which the actors' steps could have been done one by one; all of them are tried

_COUNT = re.compile(rf"(?:{'|'.join(name.replace(' ', '-').lower() for name in USAGE)}) \d+")
_NOT_FOR_ACTORS = (Bind, Reap, Poison, Register)  # executor/request.c is_for_actors()


class Gate(StrEnum):
    """A point of our driver where an actor can be parked; uapi/hmm_harness.h says of HMM_HARNESS_GATE_* where."""

    WALK_BEGIN = "walk.begin"
    WALK_SEQUENCE = "walk.sequence"
    WALK_LOCKED = "walk.locked"
    WALK_SEEN = "walk.seen"
    WALK_LOCK = "walk.lock"
    WALK_VALID = "walk.valid"
    WALK_ENTERED = "walk.entered"
    WALK_END = "walk.end"
    ACCESS_BEGIN = "access.begin"
    ACCESS_FOUND = "access.found"
    INVALIDATE_BEGIN = "invalidate.begin"
    INVALIDATE_LOCKED = "invalidate.locked"
    INVALIDATE_SEQUENCE = "invalidate.sequence"
    INVALIDATE_REMOVED = "invalidate.removed"
    INVALIDATE_END = "invalidate.end"
    MIGRATE_BEGIN = "migrate.begin"
    MIGRATE_SETUP = "migrate.setup"
    MIGRATE_COPIED = "migrate.copied"
    MIGRATE_PAGES = "migrate.pages"
    MIGRATE_END = "migrate.end"
    RETURN_BEGIN = "return.begin"
    RETURN_END = "return.end"
    EXCLUSIVE_BEGIN = "exclusive.begin"
    EXCLUSIVE_CLAIMED = "exclusive.claimed"
    EXCLUSIVE_GRANTED = "exclusive.granted"
    EXCLUSIVE_ENTERED = "exclusive.entered"
    EXCLUSIVE_END = "exclusive.end"
    UNBIND_BEGIN = "unbind.begin"
    UNBIND_DEAD = "unbind.dead"
    UNBIND_END = "unbind.end"

    @property
    def of_interval(self) -> bool:
        """Whether only the binding `interval` has it."""
        return self in (Gate.WALK_SEQUENCE, Gate.INVALIDATE_SEQUENCE) or self.startswith("exclusive.")


class ScheduleError(ValueError):
    """A schedule cannot be read or does not fit its race; `hint` says what to write instead."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Segment:
    """One actor runs, until it comes to `gate` for the `times`-th time from now on, of `device` or of any.

    `waits`: it has to be made to wait by another actor.
    """

    actor: str
    gate: Gate | None = None
    times: int = 1
    device: str | None = None
    waits: bool = False

    def __str__(self) -> str:
        text = self.actor
        if self.gate is not None:
            text += f"@{self.gate}"
        if self.times > 1:
            text += f"#{self.times}"
        if self.device is not None:
            text += f":{self.device}"
        return text + "!" * self.waits


_SEGMENT = re.compile(
    r"(?P<actor>[A-Za-z]\w*)(?:@(?P<gate>[a-z.]+)(?:#(?P<times>[1-9]\d{0,2}))?(?::(?P<device>\w+))?)?(?P<waits>!)?"
)


@dataclass(frozen=True)
class Schedule:
    """Who runs when; `str()` and `parse_schedule` are each other's inverse."""

    segments: tuple[Segment, ...]

    def __str__(self) -> str:
        return " ".join(map(str, self.segments))


def parse_schedule(text: str) -> Schedule:
    """The schedule that `text` spells. Raises `ScheduleError`."""
    words = text.split()
    if not words:
        raise ScheduleError("an empty schedule", "write which actor runs first, as in `x@walk.lock y x`")
    if len(words) > MAX_SEGMENTS:
        raise ScheduleError(f"more than {MAX_SEGMENTS} segments in one schedule")
    return Schedule(tuple(map(_segment, words)))


def _segment(word: str) -> Segment:
    match = _SEGMENT.fullmatch(word)
    if match is None:
        raise ScheduleError(
            f"{word!r} is no segment of a schedule",
            "write `x`, `x!`, `x@walk.lock`, `x@walk.lock#2` or `x@walk.lock:d1`",
        )
    name, device = match["gate"], match["device"]
    if name is not None and name not in set(Gate):
        raise ScheduleError(f"there is no gate {name!r}", f"one of: {', '.join(Gate)}")
    if device is not None and device not in DEVICES:
        raise ScheduleError(f"no device {device!r}", f"devices: {', '.join(DEVICES)}")
    gate = None if name is None else Gate(name)
    return Segment(match["actor"], gate, int(match["times"] or 1), device, match["waits"] is not None)


@dataclass(frozen=True)
class Actor:
    """A thread with its steps: all of them of one subject, or all of devices.

    `promises`, one for each step: what a query has to show in the middle of what another actor does, in place of what
    some order of whole steps would have it show; "" where there is nothing special about it. `nothing`: no page has
    an entry; else the name of a number of a `Usage`, with `-` for spaces, and what it is.
    """

    name: str
    steps: tuple[Operation, ...]
    promises: tuple[str, ...]


@dataclass(frozen=True)
class Look:
    """What is looked at each time that an actor stops: pages, in a device's page table and in the CPU's."""

    device: str
    span: Span


@dataclass(frozen=True)
class Race(Program):
    """A program with a part that `actors` do at once.

    `steps` are those before, then each actor's, then those after, then those that check what came of it; they have
    to make sense in this order, and whichever way the actors' are mixed. `first` is the number of the first actor's
    first step, `after` how many steps are written behind the race. `needs`: names of `harness.model.rules.FEATURES`.
    `looks`: what is recorded on the way, which changes nothing; see `recorded`.
    """

    actors: tuple[Actor, ...] = ()
    schedule: Schedule = Schedule(())
    first: int = 0
    after: int = 0
    needs: tuple[str, ...] = ()
    looks: tuple[Look, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        number = self.first
        for actor in self.actors:
            for step, promise in zip(actor.steps, actor.promises, strict=True):
                _check_step(number, actor, step, promise)
                number += 1
        _check_exits(self)
        self._check_orders()
        check_schedule(self, self.schedule)

    @property
    def last(self) -> int:
        """The number of the first step that is no actor's any more."""
        return self.first + sum(len(actor.steps) for actor in self.actors)

    def orders(self) -> Iterator[tuple[int, ...]]:
        """Every order of the numbers of the actors' steps in which each actor's are in theirs."""
        queues = []
        at = self.first
        for actor in self.actors:
            queues.append(tuple(range(at, at + len(actor.steps))))
            at += len(actor.steps)
        yield from merges(queues)

    def in_order(self, order: Sequence[int]) -> Program:
        """The program in which the steps with these numbers are done one by one in place of the race."""
        steps = (*self.steps[: self.first], *(self.steps[number] for number in order), *self.steps[self.last :])
        return Program(self.name, steps, self.title)

    def _check_orders(self) -> None:
        for count, order in enumerate(self.orders()):
            if count == MAX_ORDERS:
                raise ProgramError(
                    self.first, f"more than {MAX_ORDERS} orders of the actors' steps", "leave some away"
                )
            try:
                other = self.in_order(order)
            except ProgramError as error:
                number = order[error.step - self.first] if self.first <= error.step < self.last else self.first
                raise ProgramError(
                    number, f"in another order of the actors' steps: {error.message}", error.hint
                ) from None
            if other.regions != self.regions:
                raise ProgramError(self.first, "two actors make regions", "leave that to one of them")


def loose(race: Race) -> Race:
    """The same race without a schedule: its actors run at the same time, and nothing stops them on their way.

    What goes page by page is a step for each page then, since others may come in between. Raises `ProgramError` if
    that is too much of it.
    """
    actors = []
    for actor in race.actors:
        pairs = [
            (page, promise)
            for step, promise in zip(actor.steps, actor.promises, strict=True)
            for page in _page_by_page(step)
        ]
        actors.append(Actor(actor.name, *zip(*pairs, strict=True)))
    raced = (step for actor in actors for step in actor.steps)
    steps = (*race.steps[: race.first], *raced, *race.steps[race.last :])
    return replace(race, steps=steps, actors=tuple(actors), schedule=Schedule(()))


def _page_by_page(step: Operation) -> Iterator[Operation]:
    if not isinstance(step, Read | Write | DeviceRead | DeviceWrite):
        yield step
        return
    for page in range(step.span.count):
        at = step.span.start + page
        span = Span(step.span.region, at, at + 1)
        if isinstance(step, Write | DeviceWrite):
            yield replace(step, span=span, token=step.token + page)
        else:
            yield replace(step, span=span)


def merges(queues: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Every way to make one sequence of `queues` in which each of them is in its order."""
    if not any(queues):
        yield ()
    for index, queue in enumerate(queues):
        if queue:
            rest = [*queues[:index], queue[1:], *queues[index + 1 :]]
            yield from ((queue[0], *more) for more in merges(rest))


def make_race(
    name: str,
    title: str,
    *,
    before: Sequence[Operation],
    actors: Sequence[Actor],
    after: Sequence[Operation],
    schedule: Schedule,
    needs: Sequence[str] = (),
) -> Race:
    """The race, with the steps that check what came of it. Raises `ProgramError` and `ScheduleError`."""
    written = (*before, *(step for actor in actors for step in actor.steps), *after)
    steps = (*written, *_checks(written, [step for actor in actors for step in actor.steps]))
    return Race(name, steps, title, tuple(actors), schedule, len(before), len(after), tuple(needs))


def recorded(race: Race) -> Race:
    """The same race, of which is recorded what both page tables hold each time that an actor stops.

    Of each device that is bound before the race, the regions that actors do something with; of a long one, what lies
    between their first page and their last.
    """
    sizes = {step.region: step.pages for step in race.steps if isinstance(step, Map)}
    bound: dict[str, None] = {}
    for step in race.steps[: race.first]:
        if isinstance(step, Bind):
            bound[step.actor] = None
        elif isinstance(step, Unbind):
            bound.pop(step.actor, None)
    touched: dict[str, list[Span]] = {}
    for step in race.steps[race.first : race.last]:
        span = span_of(step)
        if span is not None:
            touched.setdefault(span.region, []).append(span)
    spans = [_seen_of(region, sizes.get(region, 0), spans) for region, spans in touched.items()]
    looks = [Look(device, span) for span in spans for device in bound]
    return replace(race, looks=tuple(looks[:MAX_LOOKS]))


def _seen_of(region: str, pages: int, spans: Sequence[Span]) -> Span:
    if 0 < pages <= MAX_LOOK_PAGES:
        return Span(region, 0, pages)
    start = min(span.start for span in spans)
    return Span(region, start, min(max(span.stop for span in spans), start + MAX_LOOK_PAGES))


def _checks(steps: Sequence[Operation], raced: Sequence[Operation]) -> list[Operation]:
    """No stale entry, no lost write, contents as some order would leave them, accounts that fit."""
    sizes: dict[str, int] = {}
    bound: dict[str, str] = {}
    running = dict.fromkeys(["a"])
    for step in steps:
        match step:
            case Map(region=region, pages=pages):
                sizes[region] = pages
            case Remap(region=region, span=span):
                sizes[region] = span.count
            case Fork(child=child):
                running[child] = None
            case Bind(actor=device, subject=subject):
                bound[device] = subject
            case Unbind(actor=device):
                bound.pop(device, None)
            case Exit(actor=subject):
                running.pop(subject, None)
    spans = [span_of(step) for step in raced]
    made = [step.region for step in raced if isinstance(step, Map | Remap)]
    regions = dict.fromkeys([*(span.region for span in spans if span is not None), *made])
    whole = [Span(region, 0, sizes[region]) for region in regions if region in sizes]
    devices = [device for device, subject in bound.items() if subject in running]
    checks: list[Operation] = []
    for span in whole:
        checks += [Table(device, span) for device in devices]
        checks += [Snapshot(device, span) for device in devices]
        checks += [Read(subject, span) for subject in running]
        checks += [DeviceRead(device, span) for device in devices]
        checks += [Table(device, span) for device in devices]
    return checks + [Usage(device) for device in bound]


def _check_step(number: int, actor: Actor, step: Operation, promise: str) -> None:
    head = actor.steps[0]
    span = span_of(step)
    if isinstance(step, _NOT_FOR_ACTORS):
        raise ProgramError(number, f"{step.verb!r} is nothing for an actor", "do it before the race")
    if isinstance(step, DeviceOperation) != isinstance(head, DeviceOperation) or (
        not isinstance(step, DeviceOperation) and step.actor != head.actor
    ):
        raise ProgramError(
            number, f"actor {actor.name} has steps of {head.actor} and of {step.actor}", "make two actors of it"
        )
    if len(actor.steps) > MAX_ACTOR_STEPS:
        raise ProgramError(number, f"actor {actor.name} has more than {MAX_ACTOR_STEPS} steps")
    if span is not None and span.count > MAX_ACTOR_PAGES:
        raise ProgramError(number, f"{span.count} pages in one step of an actor", f"at most {MAX_ACTOR_PAGES}")
    if isinstance(step, Exit) and step is not actor.steps[-1]:
        raise ProgramError(number, f"actor {actor.name} goes on behind its end")
    if promise and not isinstance(step, QUERIES):
        raise ProgramError(
            number, f"{step.verb!r} changes something", "`=>` is for what only looks: snapshot, table, held, usage"
        )
    if promise and not (_COUNT.fullmatch(promise) if isinstance(step, Usage) else promise == "nothing"):
        raise ProgramError(
            number, f"{step.verb!r} cannot promise {promise!r}", "`=> nothing` of pages, `=> in-use 1` of a usage"
        )


def _check_exits(race: Race) -> None:
    if len(race.actors) > MAX_ACTORS:
        raise ProgramError(race.first, f"more than {MAX_ACTORS} actors")
    for actor in race.actors:
        if not isinstance(actor.steps[-1], Exit):
            continue
        subject = actor.steps[-1].actor
        if any(other is not actor and other.steps[0].actor == subject for other in race.actors):
            raise ProgramError(race.first, f"subject {subject} exits, and another actor of it goes on")


def check_schedule(race: Race, schedule: Schedule) -> None:
    """Raises `ScheduleError` if `schedule` names an actor that `race` has not."""
    names = [actor.name for actor in race.actors]
    for segment in schedule.segments:
        if segment.actor not in names:
            raise ScheduleError(f"there is no actor {segment.actor!r}", f"actors: {', '.join(names)}")


class Ending(StrEnum):
    """How a segment ended."""

    PARKED = "parked"
    ENDED = "ended"
    BLOCKED = "waits"
    SPINS = "spins"  # it runs, and gets nowhere


@dataclass(frozen=True)
class Stop:
    """How a segment ended, how many steps its actor had done then, and in which function of the kernel it waits.

    `begun` and `ended`: when, as all times of a `Course`.
    """

    ending: Ending
    done: int = 0
    where: str = ""
    begun: int = 0
    ended: int = 0

    def __str__(self) -> str:
        return f"{self.ending} in {self.where}" if self.where else str(self.ending)


@dataclass(frozen=True)
class Passing:
    """An actor came by a gate of the device with this number; `clock` says when, as all times of a `Course`."""

    clock: int
    gate: Gate
    device: int


@dataclass(frozen=True)
class Sight:
    """What a `Look` saw once: of each page, the device's entry and the CPU's. An errno says why there is nothing."""

    table: tuple[Entry, ...] | int
    cpu: tuple[Entry, ...] | int


@dataclass(frozen=True)
class Happened:
    """What `device` heard or did in the thread with this number."""

    time: int
    thread: int
    device: str
    event: Event


@dataclass(frozen=True)
class Course:
    """How a race went.

    Times are nanoseconds of a clock that all share; what is later has a greater one, also if it is not much later.
    `stops`: one for each segment. `times`: of each step of the actors, in the order of `Race.steps`, when it began
    and ended; 0 for never. `expired`: how often an actor was parked for too long. `passings`: of each actor, the last
    gates that it came by. `threads`: of each actor, its number. `sights`: of each look of the race, what it saw
    before the first segment and after each. `happened`: what devices heard and did, in order, of which so many are
    `lost`.
    """

    stops: tuple[Stop, ...]
    times: tuple[tuple[int, int], ...]
    expired: int
    passings: tuple[tuple[Passing, ...], ...]
    threads: tuple[int, ...] = ()
    sights: tuple[tuple[Sight, ...], ...] = ()
    happened: tuple[Happened, ...] = ()
    lost: int = 0

    @property
    def begun(self) -> int:
        """When its first segment began, or without any, the first step; 0 for never."""
        if self.stops:
            return self.stops[0].begun
        return min((begun for begun, _ in self.times if begun), default=0)

    def show(self, schedule: Schedule) -> str:
        """The schedule as it went."""
        pairs = zip(schedule.segments, self.stops, strict=True)
        return ", ".join(f"{segment} {stop}" for segment, stop in pairs)
