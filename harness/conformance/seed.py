# SPDX-License-Identifier: GPL-2.0-only
"""The seed table: what v4.20's include/linux/hmm.h declares and promises, and the programs that exercise it.

seed.toml beside this file is the table. The binding `mirror` speaks this API, *native* on a kernel that has it and
over kmod/compat/ (*compat*) on later ones; where both do not show the same of a program, a `Difference` says why.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from harness.compare import Verdict
from harness.program.observations import USAGE, Observation
from harness.program.operations import Usage
from harness.program.program import Program

TABLE = Path(__file__).with_name("seed.toml")
_GROWING = tuple(USAGE.index(name) for name in ("allocated", "freed", "CPU faults"))  # since the module was loaded
_OFTEN = USAGE.index("invalidations")


class Kind(StrEnum):
    """What a row is about."""

    FUNCTION = "function"
    INLINE = "inline"
    STRUCT = "struct"
    ENUM = "enum"
    VALUE = "value"  # of an enum
    FIELD = "field"
    CALLBACK = "callback"
    RULE = "rule"  # what a comment says


class Only(StrEnum):
    """Who alone can show it."""

    NATIVE = "native"
    COMPAT = "compat"


@dataclass(frozen=True)
class Row:
    """A declaration or a rule. `lines`: first and last, of the header.

    `name`: of a field `STRUCT.FIELD`; of a rule what it is about. `says`: a rule's words. Exercised by `programs`; by
    `tests`, FILE::FUNCTION under tests/, where no program can; or `unreachable` says why by nothing. `inside`: why
    the driver does not name it, and how programs reach it all the same. `lacks`: what of it no program shows, and
    why. `only`: with `why`. `deviations`: those of deviations.toml that break it.
    """

    id: str
    kind: Kind
    name: str
    lines: tuple[int, int]
    says: str = ""
    programs: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    unreachable: str = ""
    inside: str = ""
    lacks: str = ""
    only: Only | None = None
    why: str = ""
    deviations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """What native and compat do not show alike of each of `programs`: their verdicts, and the steps, from 1.

    `feature`: only beside a compat kernel that has it, see harness/model/rules.py.
    """

    programs: tuple[str, ...]
    native: Verdict
    compat: Verdict
    summary: str
    source: str
    steps: tuple[int, ...] = ()
    feature: str = ""


@dataclass(frozen=True)
class Table:
    """All of seed.toml. `header`: SHA-256 of the header. `features`: what the model asks for and v4.20.1 has."""

    header: str
    features: tuple[str, ...]
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]


def load(path: Path = TABLE) -> Table:
    """The table. Raises `ValueError`, `KeyError` or `TypeError` if it is not in the form described here."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    return Table(
        header=data["header"],
        features=tuple(data["features"]),
        rows=tuple(_row(each) for each in data["row"]),
        differences=tuple(_difference(each) for each in data["difference"]),
    )


def _row(data: dict[str, Any]) -> Row:
    values = _tuples(data)
    first, last = values["lines"]
    values |= {"kind": Kind(data["kind"]), "lines": (int(first), int(last))}
    if "only" in data:
        values["only"] = Only(data["only"])
    return Row(**values)


def _difference(data: dict[str, Any]) -> Difference:
    return Difference(**_tuples(data) | {"native": Verdict(data["native"]), "compat": Verdict(data["compat"])})


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}


@dataclass(frozen=True)
class Shown:
    """What came of one program on one kernel. `observations`: empty unless it ran to its end."""

    verdict: Verdict
    observations: tuple[Observation, ...] = ()


def differing_steps(program: Program, native: Shown, compat: Shown) -> tuple[int, ...]:
    """The steps, from 1, of which both do not show the same; none where one of them did not get to show anything.

    Not compared is how often something was invalidated: for how many pieces of memory the kernel calls is its own
    matter, and not the same on two later kernels either. What is counted since the module was loaded is counted from
    the program's first look on.
    """
    if not native.observations or not compat.observations:
        return ()
    pairs = zip(_settled(program, native.observations), _settled(program, compat.observations), strict=True)
    return tuple(number for number, (one, other) in enumerate(pairs, 1) if one != other)


def _settled(program: Program, observations: Sequence[Observation]) -> Iterator[Observation]:
    before: dict[str, tuple[Any, ...]] = {}
    for step, observation in zip(program.steps, observations, strict=True):
        if isinstance(step, Usage) and len(observation.elements) == len(USAGE):
            first = before.setdefault(step.actor, observation.elements)
            counts = list[Any](observation.elements)
            for index in _GROWING:
                counts[index] -= first[index]
            counts[_OFTEN] = 0
            yield replace(observation, elements=tuple(counts))
        else:
            yield observation


def disagreements(
    programs: Sequence[Program],
    native: Mapping[str, Shown],
    compat: Mapping[str, Shown],
    table: Table,
    features: Sequence[str],
) -> list[str]:
    """A line for each program of which both kernels differ in another way than the table says, or no longer differ.

    `native`, `compat`: by the program's name. `features`: of the compat kernel.
    """
    listed = {
        name: difference
        for difference in table.differences
        if not difference.feature or difference.feature in features
        for name in difference.programs
    }
    lines = []
    for program in programs:
        one, other = native[program.name], compat[program.name]
        steps = differing_steps(program, one, other)
        known = listed.get(program.name)
        found = f"native {one.verdict}, compat {other.verdict}" + (f", steps {_words(steps)}" if steps else "")
        if known is None:
            if one.verdict is not other.verdict or steps:
                lines.append(f"{program.name}: {found}: not listed")
        elif (known.native, known.compat, known.steps) != (one.verdict, other.verdict, steps):
            wanted = f"native {known.native}, compat {known.compat}"
            wanted += f", steps {_words(known.steps)}" if known.steps else ""
            lines.append(f"{program.name}: {found}: listed as {wanted} ({known.summary})")
    return lines


def _words(steps: Sequence[int]) -> str:
    return ", ".join(map(str, steps))


def repeated(table: Table) -> list[str]:
    """Names of programs that two differences speak of at once."""
    counts = Counter((name, difference.feature) for difference in table.differences for name in difference.programs)
    return sorted({name for (name, _), count in counts.items() if count > 1})
