# SPDX-License-Identifier: GPL-2.0-only
"""A number that grows over time, as SVG to put into a page."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

Mark = tuple[float, int, str, str]  # seconds, number, a text, an address

_WIDTH, _HEIGHT = 480, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 26  # room for the axes
_MOST_POINTS = 400  # of a line: more than there are pixels is of no use
_ROUND_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


def growth(name: str, curve: Sequence[tuple[float, int]], seconds: float, marks: Sequence[Mark] = ()) -> str:
    """The chart of `curve`, pairs of seconds and numbers, from 0 to `seconds`, with the `name` for who cannot see it.

    `marks`: what leads from there to another place of the page.
    """
    seconds = max(seconds, 1.0)
    step, top = _scale(max((number for _, number in curve), default=0))

    def x(at: float) -> float:
        return round(_LEFT + min(at / seconds, 1.0) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(number: float) -> float:
        return round(_HEIGHT - _BOTTOM - number / top * (_HEIGHT - _TOP - _BOTTOM), 1)

    last = curve[-1][1] if curve else 0
    label = html.escape(f"{name}: {last:,} after {lasting(seconds)}")
    parts = [f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">']
    for number in range(0, top + 1, step):
        parts.append(f'<path class="grid" d="M{_LEFT} {y(number)}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="y" x="{_LEFT - 6}" y="{y(number) + 4}">{_short(number)}</text>')
    for at in _times(seconds):
        anchor = ' class="last"' if x(at) > _WIDTH - 40 else ""
        parts.append(f'<text{anchor} x="{x(at)}" y="{_HEIGHT - 8}">{lasting(at) if at else "0"}</text>')
    line = f"M{x(0)} {y(0)}" + "".join(f"H{x(at)}V{y(number)}" for at, number in _thinned(curve, seconds))
    line += f"H{x(seconds)}"
    parts.append(f'<path class="area" d="{line}V{y(0)}Z"/><path class="line" d="{line}"/>')
    for at, number, text, address in marks:
        told = html.escape(text)
        parts.append(
            f'<a href="{html.escape(address)}" aria-label="{told}"><circle cx="{x(at)}" cy="{y(number)}" r="5">'
            f"<title>{told}</title></circle></a>"
        )
    return "".join([*parts, "</svg>"])


def lasting(seconds: float) -> str:
    """A time in at most two units."""
    whole = round(seconds)
    for size, name, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def _scale(most: int) -> tuple[int, int]:
    """The step from one line of the grid to the next, and the number at the topmost: at most five."""
    magnitude = 10 ** max(0, math.floor(math.log10(max(most, 1) / 4)) if most > 4 else 0)
    step = next(each * magnitude for each in (1, 2, 5, 10) if each * magnitude * 4 >= most)
    return step, step * max(1, math.ceil(most / step))


def _times(seconds: float) -> list[float]:
    step = next((each for each in _ROUND_SECONDS if each * 4 >= seconds), math.ceil(seconds / 4 / 86400) * 86400)
    return [float(at) for at in range(0, int(seconds) + 1, int(step))]


def _thinned(curve: Sequence[tuple[float, int]], seconds: float) -> list[tuple[float, int]]:
    """The last point of each part of the time."""
    if len(curve) <= _MOST_POINTS:
        return list(curve)
    return list({int(at / seconds * _MOST_POINTS): (at, number) for at, number in curve}.values())


def _short(number: int) -> str:
    for size, name in ((1_000_000, "M"), (1000, "k")):
        if number >= size:
            return f"{number / size:g}{name}"
    return str(number)
