# SPDX-License-Identifier: GPL-2.0-only
"""What an exploration came to, over the time that was spent on it: how the page of it and its totals are made."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from harness.explore.findings import Finding, GivenUp, Store, Totals, UnitDone

Curve = tuple[tuple[float, int], ...]  # seconds of exploring, and how many by then


@dataclass(frozen=True)
class Story:
    """An exploration. `seconds`: in which somebody explored, however many did at the same time. `shares`: by binding.

    `errors`: what was given up and has not been done since. `found`: when each finding, by its id, was first seen.
    """

    kernels: tuple[str, ...]
    wrong: tuple[str, ...]
    seeds: tuple[int, ...]
    targets: tuple[str, ...]
    began: float
    ended: float
    seconds: float
    shares: dict[str, Totals]
    situations: Curve
    operations: Curve
    seen: Curve
    found: dict[str, float]
    findings: tuple[Finding, ...]
    errors: tuple[GivenUp, ...]

    @property
    def total(self) -> Totals:
        """Of all bindings."""
        whole = Totals()
        for share in self.shares.values():
            whole.include(share)
        return whole


def tell(store: Store) -> Story:
    """What is in a store at this moment."""
    done = {unit.place: unit for unit in reversed(list(store.units()))}  # the first line of each counts
    units = sorted(_dated(list(reversed(done.values()))), key=lambda unit: unit.ended)
    clock = _Clock((unit.began, unit.ended) for unit in units)
    findings = tuple(store.findings())
    found: dict[str, float] = {}
    shares: dict[str, Totals] = {}
    for unit in units:
        shares.setdefault(unit.binding, Totals()).add(unit)
        for name in unit.findings:
            found.setdefault(name, clock.at(unit.ended))
    for finding in findings:
        found.setdefault(finding.symptom.id, clock.seconds)  # in a unit that nobody has done to its end
    listed = {finding.symptom.id: found[finding.symptom.id] for finding in findings}
    known: list[UnitDone | Finding] = [*units, *findings]
    kernels = [f"{each.kernel} {each.flavour}" for each in known if each.kernel]
    return Story(
        tuple(dict.fromkeys(kernels)),
        tuple(dict.fromkeys(name for finding in findings for name in finding.wrong)),
        tuple(dict.fromkeys(unit.seed for unit in units)),
        tuple(dict.fromkeys(unit.target for unit in units)),
        units[0].began if units else 0.0,
        units[-1].ended if units else 0.0,
        clock.seconds,
        dict(sorted(shares.items())),
        _summed((clock.at(line.at), len(line.situations)) for line in store.meetings()),
        _summed((clock.at(unit.ended), unit.operations) for unit in units),
        _summed((at, 1) for at in listed.values()),
        listed,
        tuple(sorted(findings, key=lambda each: listed[each.symptom.id])),
        tuple(error for error in store.errors() if (error.target, error.seed, error.number) not in done),
    )


def _dated(units: Sequence[UnitDone]) -> list[UnitDone]:
    """Units of which nobody wrote down when they were done are taken to have come one by one before the others."""
    first = min((unit.began for unit in units if unit.ended), default=0.0)
    undated = [unit for unit in units if not unit.ended]
    ends = accumulate((unit.seconds for unit in undated), initial=first - sum(unit.seconds for unit in undated))
    spans = list(ends)
    dated = [
        replace(unit, began=begun, ended=ended)
        for unit, begun, ended in zip(undated, spans[:-1], spans[1:], strict=True)
    ]
    return [*dated, *(unit for unit in units if unit.ended)]


class _Clock:
    """Runs while at least one of some spans lasts, and stands still between them: what was paused took no time."""

    def __init__(self, spans: Iterable[tuple[float, float]]) -> None:
        self._begins: list[float] = []
        self._ends: list[float] = []
        self._before: list[float] = []  # seconds until each begins
        self.seconds = 0.0
        for begin, end in sorted(spans):
            if self._ends and begin <= self._ends[-1]:
                self.seconds += max(0.0, end - self._ends[-1])
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._begins.append(begin)
                self._ends.append(end)
                self._before.append(self.seconds)
                self.seconds += end - begin

    def at(self, time: float) -> float:
        """How many seconds it has run at that time of the real clock."""
        place = bisect_right(self._begins, time) - 1
        return 0.0 if place < 0 else self._before[place] + min(time, self._ends[place]) - self._begins[place]


def _summed(steps: Iterable[tuple[float, int]]) -> Curve:
    total = 0
    curve: dict[float, int] = {}
    for at, more in sorted(steps):
        total += more
        curve[at] = total
    return tuple(curve.items())
