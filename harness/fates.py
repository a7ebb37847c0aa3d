# SPDX-License-Identifier: GPL-2.0-only
"""What became of mutants: a store of JSON lines that is added to as fates come, and a table of all of them.

A line of the store is a `Row`, in one object. The table is Markdown, and the same for the same fates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.rows import Rows
from harness.target.mutant import Patch

PROGRAMS = "programs"  # the suites that mutants are shown to
PEER = "hmm-tests"


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"  # a program turned red
    TRIVIAL = "trivial"  # it does not even boot: anybody would notice
    SURVIVED = "survived"  # all programs are as they are without the patch
    UNKNOWN = "unknown"  # it does not build, or something broke that is not the kernel


@dataclass(frozen=True)
class Autopsy:
    """What became of a mutant by one suite, and by what: `program` on `binding`, and what it saw."""

    fate: Fate
    program: str = ""
    binding: str = ""
    reason: str = ""

    def __str__(self) -> str:
        where = (
            f" by {self.program} ({self.binding})" if self.binding else f" by {self.program}" if self.program else ""
        )
        return f"{self.fate.value}{where}{f': {self.reason}' if self.reason else ''}"


@dataclass(frozen=True)
class Row:
    """A line of the store.

    `mutant`: the name of the patch. `key`: of the kernel with the patch. `suite`: `PROGRAMS` or `PEER`. `by`: a
    digest of the programs that the fate is known by: all of them, or the one that killed. `seconds`: for all of it,
    the build not counted.
    """

    mutant: str
    key: str
    suite: str
    fate: Fate
    program: str
    binding: str
    reason: str
    by: str
    seconds: float

    @property
    def autopsy(self) -> Autopsy:
        """What it says."""
        return Autopsy(self.fate, self.program, self.binding, self.reason)


class Fates(Rows[Row]):
    """The store in `path`, None for none. With `resume`, what is there already is known."""

    def __init__(self, path: Path | None, *, resume: bool = False) -> None:
        super().__init__(path, read=_read, place=lambda row: (row.key, row.suite), resume=resume)

    def get(self, key: str, suite: str) -> Row | None:
        """What is known of the mutant with this key."""
        return self.find((key, suite))


def _read(data: Mapping[str, Any]) -> Row:
    return Row(**{**data, "fate": Fate(data["fate"])})


def summary(fates: Sequence[Fate]) -> str:
    """How many of what."""
    return ", ".join(f"{count} {fate.value}" for fate in Fate if (count := fates.count(fate))) or "no mutants"


Told = Mapping[str, Autopsy]  # by suite


def table(kernel: str, told: Iterable[tuple[Patch, Told]], *, command: str) -> str:
    """The fates of mutants of `kernel` as a page in Markdown; `command` is what makes it."""
    rows = list(told)
    lines = [
        "<!-- SPDX-License-Identifier: GPL-2.0-only -->",
        f"# Mutants of {kernel}",
        "",
        f"Each patch puts one bug into the kernel. `{command}` shows each to the programs, and to the kernel's own "
        "hmm-tests, and writes this page: a suite that turns red on a mutant has killed it.",
        "",
        *_counts(rows),
    ]
    for file, mine in groupby(rows, key=lambda row: row[0].files[0]):
        lines += [
            "",
            f"## {file}",
            "",
            f"| mutant | in | what is wrong | breaks | {PROGRAMS} | {PEER} |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for patch, fates in mine:
            cells = [
                f"[{patch.name}]({patch.name}.patch)", f"`{patch.function}`", patch.title, ", ".join(patch.breaks),
                _cell(patch, fates.get(PROGRAMS)), _cell(patch, fates.get(PEER)),
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    survived = [patch for patch, fates in rows if PROGRAMS in fates and fates[PROGRAMS].fate is Fate.SURVIVED]
    for title, word, some in (
        ("Equivalent", "equivalent", [patch for patch, _ in rows]),
        (f"What it would take for the {PROGRAMS} to kill more", "needs", survived),
    ):
        remarks = [(patch.name, said) for patch in some if (said := patch.header(word))]
        if remarks:
            lines += ["", f"## {title}", "", *(f"- {name}: {said}" for name, said in remarks)]
    return "\n".join(lines) + "\n"


def _counts(rows: Sequence[tuple[Patch, Told]]) -> Iterator[str]:
    counted = [(patch, fates) for patch, fates in rows if not patch.equivalent]
    yield f"| {len(rows)} mutants | {PROGRAMS} | {PEER} |"
    yield "| --- | --- | --- |"
    for fate in Fate:
        numbers = [
            sum(suite in fates and fates[suite].fate is fate for _, fates in counted) for suite in (PROGRAMS, PEER)
        ]
        if any(numbers):
            yield f"| {fate.value} | {numbers[0]} | {numbers[1]} |"
    if len(counted) < len(rows):
        yield f"| equivalent | {len(rows) - len(counted)} | {len(rows) - len(counted)} |"
    shares = [_share(counted, suite) for suite in (PROGRAMS, PEER)]
    yield f"| **killed of those that boot and are not equivalent** | {shares[0]} | {shares[1]} |"


def _share(counted: Sequence[tuple[Patch, Told]], suite: str) -> str:
    fates = [told[suite].fate for _, told in counted if suite in told and told[suite].fate is not Fate.TRIVIAL]
    return f"{100 * fates.count(Fate.KILLED) // len(fates)} %" if fates else ""


def _cell(patch: Patch, found: Autopsy | None) -> str:
    if found is None:
        return ""
    if found.fate is Fate.KILLED and found.binding:
        return f"killed by {found.program} ({found.binding})"
    return "equivalent" if found.fate is Fate.SURVIVED and patch.equivalent else found.fate.value
