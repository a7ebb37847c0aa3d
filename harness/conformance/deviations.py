# SPDX-License-Identifier: GPL-2.0-only
"""The table of the kernel's recorded deviations: which programs show them, and where.

deviations.toml beside this file is the table. A kernel on which a program of it does not show its deviation has
changed, and so has one on which another program does: both are noticed by who compares with `expected`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.model.allowed import RECORDED
from harness.model.rules import FEATURES

TABLE = Path(__file__).with_name("deviations.toml")
# HMM_MIRROR is one of kmod/probes/ that the model does not ask for.
_FEATURES = FEATURES | {"HMM_MIRROR": "the API of v4.20 itself"}


@dataclass(frozen=True)
class Shown:
    """Each of `programs` shows the deviation on each of `bindings`, where the kernel has `needs` and none of `lacks`.

    These are features: of `FEATURES`, or of kmod/probes/. `kernels`: where that is so, in words.
    """

    programs: tuple[str, ...]
    bindings: tuple[str, ...]
    kernels: str
    needs: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    def here(self, features: Collection[str]) -> bool:
        """Whether it shows on a kernel with `features`."""
        return set(self.needs) <= set(features) and set(self.lacks).isdisjoint(features)


@dataclass(frozen=True)
class Row:
    """A deviation by its name in `RECORDED`."""

    name: str
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class Unshown:
    """A deviation that no program shows, and `why` not."""

    summary: str
    source: str
    why: str


@dataclass(frozen=True)
class Table:
    """All of deviations.toml."""

    rows: tuple[Row, ...]
    unshown: tuple[Unshown, ...]

    def expected(self, features: Collection[str]) -> dict[tuple[str, str], set[str]]:
        """The names of all deviations that a program shows on a binding, by both, on a kernel with `features`."""
        found: dict[tuple[str, str], set[str]] = {}
        for row in self.rows:
            for shown in row.shown:
                if shown.here(features):
                    for program in shown.programs:
                        for binding in shown.bindings:
                            found.setdefault((program, binding), set()).add(row.name)
        return found


def load(path: Path = TABLE) -> Table:
    """The table. Raises `ValueError`, `KeyError` or `TypeError` if it is not in the form described here."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    rows = tuple(
        Row(each["name"], tuple(Shown(**_tuples(shown)) for shown in each["shown"])) for each in data["deviation"]
    )
    return Table(rows, tuple(Unshown(**each) for each in data["unshown"]))


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


def describe(table: Table) -> Iterator[str]:
    """The table for people, a line each."""
    for row in table.rows:
        deviation = RECORDED[row.name]
        yield row.name
        yield f"    {deviation.summary}"
        yield f"    source: {deviation.source}"
        for shown in row.shown:
            yield f"    on {_list(shown.bindings)} by {_list(shown.programs)}"
            yield f"        Linux {shown.kernels}"
            yield from (f"        with: {_FEATURES[name]}" for name in shown.needs)
            yield from (f"        without: {_FEATURES[name]}" for name in shown.lacks)
        yield ""
    yield "No program shows these:"
    for each in table.unshown:
        yield f"    {each.summary}"
        yield f"        source: {each.source}"
        yield f"        why not: {each.why}"


def _list(words: Sequence[str]) -> str:
    return ", ".join(words)
