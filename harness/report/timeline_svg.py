# SPDX-License-Identifier: GPL-2.0-only
"""A timeline as a picture: time goes down, a column for each actor, the page tables beside them.

An SVG element for an HTML page, whose style (timeline.css) has the colours; shapes and words say all that colours do.
Each row is an item of a list that can have the focus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap

from harness.printable import one_line
from harness.report.timeline import Kind, Row, Run, State, Strip, Timeline

_TIME = 74  # pixels: the column of times
_LANES = {1: 300, 2: 268, 3: 226, 4: 208}  # each actor's, by how many there are
_GAP = 20  # between the last lane and the tables
_TABLES = 400
_HEAD = 46
_LINE = 16  # of text
_PAD = 5  # above and below what is in a row
_STRIP = 24
_CHARACTER = 7.3  # at most, of the font of 12 pixels
_INSIDE = 26  # of a lane, where its text begins
_WHO = 62  # of the tables, where the entries begin


@dataclass(frozen=True)
class _Place:
    """Where a row is, from the top, and what lines of text it has."""

    top: float
    height: float
    lines: tuple[str, ...]
    broken: tuple[str, ...]

    @property
    def middle(self) -> float:
        """Of its first line."""
        return self.top + _PAD + _LINE / 2


def render(timeline: Timeline, name: str = "timeline") -> str:
    """The element; `name` begins the ids in it, which have to be other ones than those of the page."""
    places = _places(timeline)
    width = _tables_at(timeline) + _TABLES
    height = places[-1].top + places[-1].height + 12 if places else _HEAD
    title = f"{timeline.name} under {timeline.schedule}: {timeline.verdict}"
    parts = [
        f'<svg class="timeline" viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}" '
        f'role="group" aria-labelledby="{name}-title {name}-desc" xmlns="http://www.w3.org/2000/svg">',
        f'<title id="{name}-title">{escaped(title)}</title>',
        f'<desc id="{name}-desc">{escaped(_described(timeline))}</desc>',
        *_heads(timeline, height),
        *_ways(timeline, places),
        f'<g role="list" aria-label="{escaped(f"What happened, {len(timeline.rows)} rows")}">',
        *(
            _row(timeline, row, place, number)
            for number, (row, place) in enumerate(zip(timeline.rows, places, strict=True))
        ),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts)


def _described(timeline: Timeline) -> str:
    """What is to be seen, in words."""
    broken = [f"{_spoken(timeline, row)}" for row in timeline.rows if row.broken]
    what = f"Where a rule is broken: {'; '.join(broken)}." if broken else "No rule is broken."
    return (
        f"A column for each of the actors {', '.join(timeline.actors)}, time from top to bottom, "
        f"and the page tables each time that an actor stops. {what}"
    )


def _lane(timeline: Timeline) -> int:
    return _LANES.get(len(timeline.actors), _LANES[4])


def _lane_at(timeline: Timeline, actor: int) -> int:
    return _TIME + actor * _lane(timeline)


def _tables_at(timeline: Timeline) -> int:
    return _lane_at(timeline, len(timeline.actors)) + _GAP


def _places(timeline: Timeline) -> list[_Place]:
    places = []
    top: float = _HEAD
    wide = _lane_at(timeline, len(timeline.actors)) - _TIME
    for row in timeline.rows:
        room = wide if row.actor is None else _lane(timeline)
        lines = () if row.kind is Kind.TABLES else tuple(_wrapped(_text(row), room - _INSIDE))
        broken = tuple(part for line in row.broken for part in _wrapped(line, wide - _INSIDE))
        height = _LINE * max(1, len(lines) + len(broken)) + 2 * _PAD
        if row.strips and not row.same:
            height = max(height, _LINE + _STRIP * sum(1 for _ in _cells(row.strips)) + 2 * _PAD)
        places.append(_Place(top, height, lines, broken))
        top += height
    return places


def _text(row: Row) -> str:
    if row.kind is Kind.PARKED:
        return f"{row.text}: parked"
    return row.text


def _wrapped(text: str, room: float) -> list[str]:
    return wrap(text, max(8, int(room / _CHARACTER)), break_on_hyphens=False) or [""]


def _spoken(timeline: Timeline, row: Row) -> str:
    """A row in words, for who does not see it."""
    words = [] if row.time is None else [f"{row.time / 1000:.0f} microseconds"]
    if row.actor is not None:
        words.append(f"actor {timeline.actors[row.actor]}")
    words.append(f"{row.kind} {row.text}" if row.kind not in (Kind.GOES_ON, Kind.WAITS) else row.text)
    if row.same:
        words.append("as before")
    else:
        words += [f"{strip.who} {strip.region}: {strip.note or _entries(strip)}" for strip in row.strips]
    return ", ".join([*words, *(f"rule broken: {line}" for line in row.broken)])


def _entries(strip: Strip) -> str:
    return " ".join(f"{run.pages} {run.entry if run.entry != '-' else 'nothing'}" for run in strip.runs)


def _heads(timeline: Timeline, height: float) -> Iterator[str]:
    yield f'<text class="head" x="{_TIME - 12}" y="28" text-anchor="end">\N{MICRO SIGN}s</text>'
    for actor, name in enumerate(timeline.actors):
        x = _lane_at(timeline, actor)
        yield f'<line class="guide" x1="{x + 10}" x2="{x + 10}" y1="{_HEAD - 8}" y2="{height:g}"/>'
        yield f'<text class="head" x="{x + 4}" y="28">{escaped(name)}</text>'
    x = _tables_at(timeline)
    regions = {strip.region for row in timeline.rows for strip in row.strips}
    yield _text_at("head", x, 28, " ".join(["page tables", *(["of", *regions] if len(regions) == 1 else [])]))


def _ways(timeline: Timeline, places: Sequence[_Place]) -> Iterator[str]:
    """What each actor does between rows: a line for as long as it runs, another one while it is stopped."""
    for actor in range(len(timeline.actors)):
        x = _lane_at(timeline, actor) + 10
        since, state = 0.0, State.IDLE
        for row, place in zip(timeline.rows, places, strict=True):
            now = row.states[actor]
            if now is state:
                continue
            if state not in (State.IDLE, State.DONE):
                yield f'<line class="way {state}" x1="{x}" x2="{x}" y1="{since:g}" y2="{place.middle:g}"/>'
            since, state = place.middle, now


def _row(timeline: Timeline, row: Row, place: _Place, number: int) -> str:
    kind = row.kind.name.lower().replace("_", "-")
    kind += " broken" * bool(row.broken) + " nobody" * (row.actor is None and row.kind is not Kind.TABLES)
    width = _tables_at(timeline) + _TABLES - 2
    parts = [
        f'<g class="row {kind}" role="listitem" tabindex="{0 if number == 0 else -1}" '
        f'aria-label="{escaped(_spoken(timeline, row))}">',
        f'<rect class="back" x="1" y="{place.top + 0.5:g}" width="{width}" height="{place.height - 1:g}" rx="4"/>',
    ]
    if row.time is not None:
        parts.append(_text_at("time", _TIME - 12, place.middle + 4, f"{row.time / 1000:.0f}", ' text-anchor="end"'))
    x = _TIME if row.actor is None else _lane_at(timeline, row.actor)
    if row.actor is not None:
        parts.append(_MARKS[row.kind].format(x=x + 10, y=f"{place.middle:g}"))
    for line, text in enumerate(place.lines):
        at = place.middle + 4 + line * _LINE
        parts.append(_text_at("what", x + _INSIDE, at, text))
    for line, text in enumerate(place.broken, len(place.lines)):
        at = place.middle + 4 + line * _LINE
        parts.append(_text_at("rule", _TIME + _INSIDE, at, text))
    if row.broken:
        at = place.middle + len(place.lines) * _LINE
        parts.append(_CROSS.format(x=_TIME + 10, y=f"{at:g}"))
    if row.kind is Kind.TABLES:
        text = f"{row.text}: as before" if row.same else row.text
        parts.append(_text_at("what", _tables_at(timeline), place.middle + 4, text))
    if row.strips and not row.same:
        parts += _strips(timeline, row.strips, place)
    return "".join([*parts, "</g>"])


def escaped(text: str) -> str:
    """A text of others, for HTML and XML."""
    return escape(one_line(text))


def _text_at(kind: str, x: float, y: float, text: str, more: str = "") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}"{more}>{escaped(text)}</text>'


_MARKS = {
    Kind.BEGINS: '<circle class="mark" cx="{x}" cy="{y}" r="5.5"/>',
    Kind.ENDS: '<circle class="mark open" cx="{x}" cy="{y}" r="5"/>',
    Kind.GATE: '<circle class="mark small" cx="{x}" cy="{y}" r="4"/>',
    Kind.PARKED: '<path class="mark stop" d="M-6-6h12v12h-12zM-3-3v6h2v-6zM1-3v6h2v-6z" fill-rule="evenodd" '
    'transform="translate({x} {y})"/>',
    Kind.GOES_ON: '<path class="mark" d="M-4-6 6 0-4 6z" transform="translate({x} {y})"/>',
    Kind.WAITS: '<path class="mark stop" d="M-5-6H5L0 0 5 6H-5L0 0z" transform="translate({x} {y})"/>',
    Kind.EVENT: '<path class="mark event" d="M0-6 6 0 0 6-6 0z" transform="translate({x} {y})"/>',
    Kind.AGAIN: '<path class="mark" d="M-2-7h4v4h-4zM-2-2h4v4h-4zM-2 3h4v4h-4z" transform="translate({x} {y})"/>',
    Kind.CHECK: '<circle class="mark open" cx="{x}" cy="{y}" r="5"/>',
}
_CROSS = '<path class="cross" d="M-5-5 5 5M5-5-5 5" transform="translate({x} {y})"/>'


@dataclass(frozen=True)
class _Cell:
    """A box of a table, of so many pixels."""

    run: Run
    width: float


def _cells(strips: Sequence[Strip]) -> Iterator[tuple[Strip, bool, tuple[_Cell, ...]]]:
    """What comes into one line each: of which table, whether it is its first, and the boxes."""
    room = _TABLES - _WHO - 4
    for strip in strips:
        line: list[_Cell] = []
        first = True
        for run in strip.runs:
            cell = _Cell(run, min(room, max(44.0, (len(run.pages) + len(run.entry) + 1) * _CHARACTER + 14)))
            if line and sum(each.width for each in line) + cell.width > room:
                yield strip, first, tuple(line)
                line, first = [], False
            line.append(cell)
        yield strip, first, tuple(line)


def _strips(timeline: Timeline, strips: Sequence[Strip], place: _Place) -> Iterator[str]:
    x = _tables_at(timeline)
    several = len({strip.region for strip in strips}) > 1
    for number, (strip, first, cells) in enumerate(_cells(strips)):
        y = place.top + _PAD + _LINE + number * _STRIP
        if first:
            who = f"{strip.who} {strip.region}" if several else strip.who
            yield _text_at("who", x, y + 15, who)
        if strip.note:
            yield _text_at("same", x + _WHO, y + 15, strip.note)
        at = float(x + _WHO)
        for cell in cells:
            yield _box(cell, at, y)
            at += cell.width


def _box(cell: _Cell, x: float, y: float) -> str:
    kind = "stale" if cell.run.stale else "empty" if cell.run.entry == "-" else "entry"
    text = f'<tspan class="pages">{escaped(cell.run.pages)}</tspan> {escaped(cell.run.entry)}'
    return (
        f'<rect class="box {kind}" x="{x + 1:g}" y="{y + 1:g}" width="{cell.width - 6:g}" height="{_STRIP - 4}" '
        'rx="3"/>'
        f'<text class="entry {kind}" x="{x + 6:g}" y="{y + 15:g}">{text}</text>'
    )
