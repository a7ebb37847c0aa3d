# SPDX-License-Identifier: GPL-2.0-only
"""Which schedules a race has: all that interrupt its actors at most so many times.

An actor that runs to its end, or until it has to wait, is not interrupted; one that is parked at a gate, for another
one to run, is. Where that can be depends on which gates an actor comes by, which a run of the race tells. Left out is
what comes to the same as another schedule: to park where nothing has happened yet, or where nothing more will, and to
interrupt an actor for one that shares nothing with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.program.operations import DeviceOperation, Operation, span_of
from harness.program.race import Actor, Gate, Race, Schedule, Segment

Traces = Mapping[str, Sequence[Gate]]  # which gates each actor comes by, in order

# Nothing was looked at or taken before the first of these that an actor comes by, or after the last of those
_AT_FIRST = (Gate.WALK_BEGIN, Gate.ACCESS_BEGIN, Gate.EXCLUSIVE_BEGIN, Gate.UNBIND_BEGIN)
_AT_LAST = (Gate.WALK_END, Gate.EXCLUSIVE_END, Gate.UNBIND_END)


def serial(race: Race) -> Iterator[Schedule]:
    """Those that interrupt nobody, one for each order of the actors."""
    yield from schedules(race, {actor.name: () for actor in race.actors}, 0)


def schedules(race: Race, traces: Traces, preemptions: int) -> Iterator[Schedule]:
    """Those that interrupt actors exactly `preemptions` times."""
    partners = {actor.name: [each.name for each in race.actors if share(actor, each)] for actor in race.actors}
    yield from _from(
        dict.fromkeys(partners, 0), frozenset(), None, preemptions, traces=traces, partners=partners, done=()
    )


def _from(
    at: Mapping[str, int],
    ended: frozenset[str],
    parked: str | None,
    left: int,
    *,
    traces: Traces,
    partners: Mapping[str, Sequence[str]],
    done: tuple[Segment, ...],
) -> Iterator[Schedule]:
    """`at`: how many gates each actor has come by; `parked`: who was interrupted just now, for another one."""
    if len(ended) == len(at):
        if not left:
            yield Schedule(done)
        return
    for actor in at:
        if actor in ended or actor == parked:
            continue
        if parked is not None and actor not in partners[parked]:
            continue
        yield from _from(
            at, ended | {actor}, None, left, traces=traces, partners=partners, done=(*done, Segment(actor))
        )
        if not left or not any(other not in ended for other in partners[actor]):
            continue
        for place in range(at[actor], len(traces[actor])):
            if not _matters(traces[actor], place):
                continue
            gate = traces[actor][place]
            times = traces[actor][at[actor] : place + 1].count(gate)
            yield from _from(
                {**at, actor: place + 1},
                ended,
                actor,
                left - 1,
                traces=traces,
                partners=partners,
                done=(*done, Segment(actor, gate, times)),
            )


def _matters(trace: Sequence[Gate], place: int) -> bool:
    if place == 0 and trace[place] in _AT_FIRST:
        return False
    return not (place == len(trace) - 1 and trace[place] in _AT_LAST)


def share(one: Actor, other: Actor) -> bool:
    """Whether something of what one actor does can make a difference to what another one does."""
    return one is not other and any(_share(first, second) for first in one.steps for second in other.steps)


def _share(one: Operation, other: Operation) -> bool:
    """Two steps share pages, or one of them is about no pages in particular."""
    first, second = span_of(one), span_of(other)
    if first is None or second is None:
        return True
    if isinstance(one, DeviceOperation) and isinstance(other, DeviceOperation) and one.actor == other.actor:
        return True  # the device's table is one, with one lock
    return first.region == second.region and first.start < second.stop and second.start < first.stop
