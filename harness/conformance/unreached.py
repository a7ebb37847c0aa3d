# SPDX-License-Identifier: GPL-2.0-only
"""What programs cannot reach of the kernel's HMM, and why: unreached.toml beside this file is the list.

An entry names the code by its text and its function, so that it follows the code when that moves, and the series of
kernels that it was looked at on. On these it must be found. On a kernel of a series that nobody looked at, all those
count whose code its source has. Nothing here makes a figure of coverage better: it stands beside it.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.target.coverage import FileCoverage, Share

TABLE = Path(__file__).with_name("unreached.toml")

# What it would take
KINDS = {
    "race": "another CPU at the right moment",
    "failure": "an allocation or a call that fails",
    "machine": "hardware that the virtual machine does not have",
    "config": "an option that the kernel is built without",
    "driver": "a driver that does what none may do",
    "kernel": "a kernel that breaks its own rules: a check of itself",
    "compiler": "a branch that only the compiler sees",
    "program": "an operation that programs do not have",
}


@dataclass(frozen=True)
class Reason:
    """Why programs do not reach some code of `function` in `file`.

    `text`: its lines, stripped, one after the other in the source; none for all of the function. Of the lines among
    them that run, `branches` branches are never taken. `kernels`: the series that it was looked at on, as "6.1".
    """

    file: str
    function: str
    kind: str
    why: str
    kernels: tuple[str, ...]
    text: tuple[str, ...] = ()
    branches: int = 0

    def __str__(self) -> str:
        where = f"{self.file} {self.function}()"
        return f"{where}: {self.text[0]}" if self.text else where


@cache
def load(path: Path = TABLE) -> tuple[Reason, ...]:
    """The list. Raises `ValueError`, `KeyError` or `TypeError` if it is not in the form described here."""
    return tuple(_reason(each) for each in tomllib.loads(path.read_text(encoding="utf-8"))["unreached"])


def _reason(data: dict[str, Any]) -> Reason:
    values = dict(data)
    values["text"] = tuple(line.strip() for line in data.get("text", "").strip().splitlines())
    values["kernels"] = tuple(data["kernels"])
    values["why"] = " ".join(data["why"].split())
    reason = Reason(**values)
    if reason.kind not in KINDS:
        raise ValueError(f"{reason}: unknown kind {reason.kind!r}")
    if not reason.why or reason.branches < 0 or (reason.branches and not reason.text):
        raise ValueError(f"{reason}: neither a reason nor a number of branches of certain lines")
    return reason


def lines_of(reason: Reason, source: Sequence[str]) -> range | None:
    """The line numbers of what `reason` is about, from 1; None if `source` does not have that exactly once."""
    found = []
    for body in _bodies(reason.function, source):
        if not reason.text:
            found.append(body)
            continue
        stripped = [source[number - 1].strip() for number in body]
        size = len(reason.text)
        found += [
            body[at : at + size]
            for at in range(len(stripped) - size + 1)
            if tuple(stripped[at : at + size]) == reason.text
        ]
    return found[0] if len(found) == 1 else None


def _bodies(function: str, source: Sequence[str]) -> Iterator[range]:
    """The lines of each definition of `function`, in the kernel's style: with braces at the left margin."""
    name = re.compile(rf"\b{re.escape(function)}\(")
    for at, line in enumerate(source):
        if not line[:1].strip() or not name.search(line):
            continue
        for begin in range(at, len(source)):
            if source[begin].startswith("{"):
                end = next((i for i in range(begin, len(source)) if source[i].startswith("}")), len(source) - 1)
                yield range(at + 1, end + 2)
                break
            if source[begin].rstrip().endswith(";"):  # no more than a declaration
                break


@dataclass
class Account:
    """One file's coverage, and what is known of the rest.

    `lines` and `branches`: what was not reached, each with the reason, or None where none is listed. Branches are
    counted by the line that they are on; those of a line that never ran are as that line is. `outdated`: reasons for
    something that was reached, or that has fewer such branches. `lost`: reasons whose code a kernel of a series that
    was looked at does not have exactly once.
    """

    coverage: FileCoverage
    lines: dict[int, Reason | None] = field(default_factory=dict)
    branches: dict[int, list[Reason | None]] = field(default_factory=dict)
    outdated: list[Reason] = field(default_factory=list)
    lost: list[Reason] = field(default_factory=list)

    @property
    def reasons(self) -> list[Reason]:
        """Those that something was not reached for."""
        used = [*self.lines.values(), *(reason for each in self.branches.values() for reason in each)]
        return list(dict.fromkeys(reason for reason in used if reason is not None))

    @property
    def line_share(self) -> Share:
        """Lines that ran, of those that no reason is listed for."""
        share = self.coverage.line_share
        return Share(share.covered, share.total - sum(reason is not None for reason in self.lines.values()))

    @property
    def branch_share(self) -> Share:
        """Branches that were taken, of those that no reason is listed for."""
        share = self.coverage.branch_share
        listed = sum(reason is not None for each in self.branches.values() for reason in each)
        return Share(share.covered, share.total - listed)

    @property
    def bare_lines(self) -> list[int]:
        """What was not reached, and nobody says why."""
        return sorted(line for line, reason in self.lines.items() if reason is None)

    @property
    def bare_branches(self) -> dict[int, int]:
        """The same of branches: how many of each line."""
        counts = {line: sum(reason is None for reason in each) for line, each in self.branches.items()}
        return {line: count for line, count in sorted(counts.items()) if count}


def account(
    path: str, coverage: FileCoverage, source: Sequence[str], series: str, reasons: Sequence[Reason]
) -> Account:
    """What was not reached of the file `path`, whose lines are `source`, in a kernel of `series`, and why not."""
    result = Account(coverage, lines=dict.fromkeys(coverage.missed))
    left = Counter(branch[0] for branch in coverage.untaken)
    looked_at = any(series in reason.kernels for reason in reasons)
    for reason in reasons:
        if reason.file != path or (looked_at and series not in reason.kernels):
            continue
        place = lines_of(reason, source)
        if place is None:
            if looked_at:
                result.lost.append(reason)
            continue
        used = False
        wanted = reason.branches
        for line in place:
            if line in result.lines:
                used = True
                if result.lines[line] is None:
                    result.lines[line] = reason
                    result.branches.setdefault(line, []).extend([reason] * left.pop(line, 0))
                continue
            taken = min(wanted, left[line])
            result.branches.setdefault(line, []).extend([reason] * taken)
            wanted -= taken
            left[line] -= taken
        if wanted or not (used or reason.branches):
            result.outdated.append(reason)
    for line, count in left.items():
        result.branches.setdefault(line, []).extend([None] * count)
    result.branches = {line: each for line, each in sorted(result.branches.items()) if each}
    return result
