# SPDX-License-Identifier: GPL-2.0-only
"""The contract: every promise of HMM is a clause with an id, its source, and the programs that prove it.

contract/*.toml beside this file have them, an area each; what v4.20's hmm.h says are the rules of the seed table
(seed.py), area SEED. A number belongs to one clause only, SEED apart: comments
elsewhere say "clause 29".
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.conformance import seed
from harness.errors import UsageError

TABLES = Path(__file__).with_name("contract")
SEED = "SEED"
_SOURCE = re.compile(r"(?P<file>[\w./-]+) (?P<where>.+), (?P<kernels>\d+\.\d+(?: to \d+\.\d+)?)")
_ID = re.compile(r"[A-Z]+-[1-9]\d*")


@dataclass(frozen=True)
class Source:
    """Where the kernel says so, or does. `where`: a function, a name, quoted words, or lines. `kernels`: as read."""

    file: str
    where: str
    kernels: str

    def __str__(self) -> str:
        return f"{self.file} {self.where}, {self.kernels}"


@dataclass(frozen=True)
class Clause:
    """A promise of the kernel, or, if `duty`, of its driver.

    It holds for each of `bindings` on kernels that have all of `needs`, which are names of `FEATURES`
    (harness/model/rules.py), or several with " or " between them, of which one is enough; `since` which version, in
    words. Each of `programs` has to be as the model allows for
    it; at least one of them fails if the promise is broken. `deviations`: those of deviations.toml that break it.
    `wrong`: mistakes of our driver that do, on purpose. `lacks`: what of it no program shows, and why.
    `tests`: tests that show it as well, FILE::FUNCTION under tests/; or that are the proof where no program can be.
    `unproven`: why there is neither.
    """

    id: str
    says: str
    source: tuple[Source, ...]
    bindings: tuple[str, ...]
    programs: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    since: str = ""
    duty: bool = False
    deviations: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    lacks: str = ""
    unproven: str = ""
    tests: tuple[str, ...] = ()

    @property
    def area(self) -> str:
        """The first part of its id."""
        return self.id.partition("-")[0]

    @property
    def number(self) -> int:
        """The second one."""
        return int(self.id.partition("-")[2])

    @property
    def no_program(self) -> str:
        """Why no program proves it; empty if one does."""
        if self.programs or self.unproven:
            return self.unproven
        return f"no operation can show it; proven by tests: {', '.join(self.tests)}"

    def holds(self, features: Collection[str]) -> bool:
        """Whether it does on a kernel with `features`."""
        return all(set(alternatives(need)) & set(features) for need in self.needs)


def alternatives(need: str) -> list[str]:
    """The features of which `need`, one of `Clause.needs`, wants one."""
    return need.split(" or ")


@dataclass(frozen=True)
class Area:
    """What clauses of one file are about."""

    name: str
    title: str
    clauses: tuple[Clause, ...]


@dataclass(frozen=True)
class Contract:
    """All areas, those of today's API by the number of their first clause, then that of v4.20's header."""

    areas: tuple[Area, ...]

    @cached_property
    def clauses(self) -> Mapping[str, Clause]:
        """All of them by id, in order."""
        return {clause.id: clause for area in self.areas for clause in area.clauses}

    def is_id(self, name: str) -> bool:
        """Whether `find` takes it for an id, right or wrong."""
        return bool(_ID.fullmatch(name.upper())) or name.isdecimal()

    def find(self, name: str) -> Clause:
        """The clause with this id in any case, or, SEED apart, this number. Raises `UsageError` if there is none."""
        clause = self._find(name)
        if clause is None:
            raise UsageError(f"no clause {name!r}", hint=f"`hmm-harness clauses` lists them; areas: {self._areas()}")
        return clause

    def _find(self, name: str) -> Clause | None:
        if name.isdecimal():
            numbered = (each for each in self.clauses.values() if each.area != SEED and each.number == int(name))
            return next(numbered, None)
        return self.clauses.get(name.upper())

    def select(
        self,
        words: Sequence[str] = (),
        *,
        areas: Collection[str] = (),
        features: Collection[str] | None = None,
        bindings: Collection[str] = (),
    ) -> list[Clause]:
        """The clauses of `areas` that hold on kernels with `features` for one of `bindings` and have all `words`.

        What is left away does not restrict them. Words are looked for in everything that a clause says, whatever the
        case. Raises `UsageError` for an area that there is not.
        """
        wanted = {area.upper() for area in areas}
        unknown = wanted - {area.name for area in self.areas}
        if unknown:
            raise UsageError(f"no area {sorted(unknown)[0]!r}", hint=f"one of: {self._areas()}")
        return [
            clause
            for clause in self.clauses.values()
            if (not wanted or clause.area in wanted)
            and (features is None or clause.holds(features))
            and (not bindings or set(bindings) & set(clause.bindings))
            and all(word.lower() in _text(clause) for word in words)
        ]

    def _areas(self) -> str:
        return ", ".join(area.name for area in self.areas)


def _text(clause: Clause) -> str:
    words = [clause.id, clause.says, *map(str, clause.source), *clause.programs, *clause.deviations, *clause.wrong]
    return " ".join([*words, *clause.needs, clause.lacks, clause.no_program]).lower()


def programs_of(clauses: Iterable[Clause]) -> list[str]:
    """The names of the programs that prove `clauses`, each once."""
    return list(dict.fromkeys(name for clause in clauses for name in clause.programs))


def load(tables: Path = TABLES, seed_table: Path = seed.TABLE) -> Contract:
    """The contract. Raises `ValueError`, `KeyError` or `TypeError` if a table is not in the form described here."""
    areas = sorted(map(_area, tables.glob("*.toml")), key=lambda area: area.clauses[0].number)
    found = Contract((*areas, _of_seed(seed.load(seed_table))))
    numbers: dict[int, str] = {}
    for area in areas:
        for clause in area.clauses:
            if clause.number in numbers:
                raise ValueError(f"{clause.id} has the number of {numbers[clause.number]}")
            numbers[clause.number] = clause.id
    return found


def _area(path: Path) -> Area:
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    clauses = tuple(_clause(each) for each in data["clause"])
    for clause in clauses:
        if clause.area != data["area"] or not _ID.fullmatch(clause.id):
            raise ValueError(f"{path.name}: {clause.id!r} is no id of the area {data['area']}")
    return Area(data["area"], data["title"], clauses)


def _clause(data: dict[str, Any]) -> Clause:
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
    }
    values["source"] = tuple(map(_source, values["source"]))
    return Clause(**values)


def _source(text: str) -> Source:
    match = _SOURCE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no source: FILE WHERE, KERNELS")
    return Source(**match.groupdict())


def _of_seed(table: seed.Table) -> Area:
    """The rules of v4.20's header, which it says in the words of the clause."""
    clauses = tuple(
        Clause(
            id=row.id,
            says=f"{row.name}: {row.says}",
            source=(Source("include/linux/hmm.h", _lines(row.lines), "4.20"),),
            bindings=("mirror",),
            programs=row.programs,
            deviations=row.deviations,
            lacks=row.lacks,
            unproven="" if row.programs or row.tests else row.unreachable,
            tests=row.tests,
        )
        for row in table.rows
        if row.kind is seed.Kind.RULE
    )
    return Area(SEED, "What include/linux/hmm.h of v4.20 says, in its own words", clauses)


def _lines(lines: tuple[int, int]) -> str:
    first, last = lines
    return f"line {first}" if first == last else f"lines {first} to {last}"


def as_data(clause: Clause) -> dict[str, Any]:
    """A clause as JSON has it: everything, also what is empty."""
    return {
        "id": clause.id,
        "area": clause.area,
        "says": clause.says,
        "duty": clause.duty,
        "source": [{"file": each.file, "where": each.where, "kernels": each.kernels} for each in clause.source],
        "since": clause.since,
        "needs": list(clause.needs),
        "bindings": list(clause.bindings),
        "programs": list(clause.programs),
        "deviations": list(clause.deviations),
        "wrong": list(clause.wrong),
        "lacks": clause.lacks,
        "unproven": clause.unproven,
        "tests": list(clause.tests),
    }
