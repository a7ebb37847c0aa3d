# SPDX-License-Identifier: GPL-2.0-only
"""A timeline as plain text for a terminal or a mail: ASCII, at most `WIDTH` columns, no colours.

  us  x                             y
   0  + d0: fault buf[1] write
  12  | walk.begin
 830  # walk.lock, parked
2000  :                             + a: advise buf[0:2] dontneed
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from harness.printable import one_line
from harness.report.timeline import Kind, Row, State, Strip, Timeline

WIDTH = 96
_TIME = 9  # columns
_MARKS = {
    Kind.BEGINS: "+",
    Kind.ENDS: "=",
    Kind.GATE: "|",
    Kind.PARKED: "#",
    Kind.GOES_ON: ">",
    Kind.WAITS: "~",
    Kind.EVENT: "*",
    Kind.AGAIN: ".",
    Kind.CHECK: "?",
}
_STATES = {State.IDLE: " ", State.RUNS: "|", State.PARKED: ":", State.WAITS: "~", State.DONE: " "}
LEGEND = "+ begins  | gate  # parked there  > goes on  ~ waits  * a device hears or does  = ends"


def render(timeline: Timeline) -> tuple[str, ...]:
    """The lines."""
    lines = [*_head(timeline), "", f"{'us':>{_TIME}}  {_lanes(timeline, timeline.actors)}".rstrip()]
    for row in timeline.rows:
        lines += _row(timeline, row)
    lines += ["", *_wrapped("", LEGEND)]
    if timeline.remark:
        lines += _wrapped("note: ", timeline.remark)
    if timeline.replay:
        lines.append(f"replay: {one_line(timeline.replay)}")  # a command stays whole
    return tuple(lines)


def _head(timeline: Timeline) -> Iterator[str]:
    yield from _wrapped("", f"{timeline.verdict} {timeline.name} {timeline.where}".rstrip())
    yield from _wrapped("    ", timeline.reason)
    yield from _wrapped("promise:  ", timeline.promise)
    for rule in timeline.rules:
        yield from _wrapped(f"{'clause:' if timeline.good else 'broken:':9} ", f"{rule.id}: {rule.says}")
    yield from _wrapped("schedule: ", timeline.schedule)
    for number, step in enumerate(timeline.before):
        yield from _wrapped("before:   " if number == 0 else " " * 10, step)


def _wrapped(head: str, text: str) -> list[str]:
    return wrap(
        one_line(text), WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    ) or ([head.rstrip()] if head.strip() else [])


def _width(timeline: Timeline) -> int:
    return (WIDTH - _TIME - 2) // max(1, len(timeline.actors))


def _lanes(timeline: Timeline, cells: tuple[str, ...]) -> str:
    width = _width(timeline)
    return "".join(cell.ljust(width) for cell in cells)


def _row(timeline: Timeline, row: Row) -> Iterator[str]:
    time = "" if row.time is None else f"{row.time / 1000:.0f}"
    if row.kind is Kind.TABLES:
        yield from _tables(time, row)
    elif row.actor is None:
        mark = _MARKS[row.kind]
        yield from _wrapped(f"{time:>{_TIME}}  {mark} ", row.text)
    else:
        yield from _lane(timeline, row, time)
    for line in row.broken:
        yield from _wrapped(f"{'>>>':>{_TIME}}  ", line)


def _lane(timeline: Timeline, row: Row, time: str) -> Iterator[str]:
    width = _width(timeline)
    text = f"{row.text}, parked" if row.kind is Kind.PARKED else row.text
    parts = wrap(one_line(text), width - 3, break_on_hyphens=False)
    for number, part in enumerate(parts):
        cells = []
        for actor, state in enumerate(row.states):
            if actor != row.actor:
                cells.append(_STATES[state])
            elif number == 0:
                cells.append(f"{_MARKS[row.kind]} {part}")
            else:
                cells.append(f"{_STATES[state]} {part}")
        yield f"{time if number == 0 else '':>{_TIME}}  {_lanes(timeline, tuple(cells))}".rstrip()


def _tables(time: str, row: Row) -> Iterator[str]:
    title = f"-- page tables {row.text}{', as before' if row.same else ''} "
    yield f"{time:>{_TIME}}  {title.ljust(WIDTH - _TIME - 2, '-')}"[:WIDTH].rstrip()
    if row.same:
        return
    names = max(len(strip.region) for strip in row.strips)
    who = max(len(strip.who) for strip in row.strips)
    region = ""
    for strip in row.strips:
        shown = "" if strip.region == region else strip.region
        region = strip.region
        head = f"{'':{_TIME}}    {shown:{names}}  {strip.who:{who}}  "
        yield from _wrapped(one_line(head), _strip(strip))


def _strip(strip: Strip) -> str:
    return strip.note or "  ".join(f"{run.pages} {run.entry}" for run in strip.runs)
