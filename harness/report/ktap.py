# SPDX-License-Identifier: GPL-2.0-only
"""KTAP version 1, for the kernel's own tools: kernels, below them bindings, below them programs.

    PASS          ok
    DEVIATION     ok # XFAIL    as kselftest prints an expected failure; readers that know only SKIP take it as passed
    SKIP          ok # SKIP
    FAIL          not ok
    CRASHED       not ok        what the kernel did, as FAIL is; the diagnostics say what
    TIMEOUT       not ok # TIMEOUT
    ERROR         not ok # ERROR
    INCONCLUSIVE  not ok # ERROR
    no result     not ok # ERROR

Diagnostics come before the result that they belong to; of very many results the last ones have none, and say so. The
plan is what was planned, not what was reached.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from itertools import groupby

from harness.compare import Verdict
from harness.defaults import PEER
from harness.printable import one_line, shortened
from harness.report.budget import Budget
from harness.report.planned import Case, Column, columns
from harness.report.results import Result, Run

_DIRECTIVES = {
    Verdict.SKIP: "SKIP",
    Verdict.DEVIATION: "XFAIL",
    Verdict.TIMEOUT: "TIMEOUT",
    Verdict.ERROR: "ERROR",
    Verdict.INCONCLUSIVE: "ERROR",
}
_MOST_LOG_LINES = 40
_MOST_DETAILS = 8
_MOST_CHARACTERS = 1000  # of a line
# Bytes as they are written, of all lines. Reasons have room of their own: they say what it is that failed.
_MOST_DIAGNOSTICS = 16 << 20
_MOST_REASONS = 8 << 20
_INDENT = "  "
# kunit.py ends its input at any line that has one of these anywhere in it, a diagnostic, too: see KTAP_END.
_END = re.compile("(List of all partitions|Kernel panic - not syncing(?=: VFS)|reboot(?=: System halted)):")


def render(run: Run) -> str:
    """The whole document."""
    document = _Document()
    kernels = [list(group) for _, group in groupby(columns(run), lambda column: (column.kernel, column.flavour))]
    lines = ["KTAP version 1", f"1..{len(kernels)}"]
    lines += _diagnostics("run", [f"hmm-harness {run.version}, started {run.started}", shlex.join(run.command)])
    names = _distinct((f"{group[0].kernel} {group[0].flavour}" for group in kernels), parent="")
    for number, (name, group) in enumerate(zip(names, kernels, strict=True), 1):
        good, skipped, below = document.bindings(name, group)
        lines += _indented(below)
        lines.append(_result_line(good, number, name, _all_skipped(skipped)))
    return "\n".join(lines) + "\n"


class _Document:
    """Knows how much there is already."""

    def __init__(self) -> None:
        self._diagnostics = Budget(_MOST_DIAGNOSTICS)
        self._reasons = Budget(_MOST_REASONS)

    def bindings(self, name: str, group: list[Column]) -> tuple[bool, bool, list[str]]:
        """Whether all below is good, whether all is a SKIP, and the lines of a kernel."""
        lines = _head(name, len(group))
        target = group[0].target
        if target is not None:
            for fact in ("banner", "release", "origin", "key", "accelerator", "qemu", "error"):
                lines += _diagnostics(fact, filter(None, [getattr(target, fact)]))
        bindings = _distinct((column.binding for column in group), parent=name)
        all_good = all_skipped = True
        for number, (binding, column) in enumerate(zip(bindings, group, strict=True), 1):
            good, skipped, below = self._programs(binding, column)
            lines += _indented(below)
            lines.append(_result_line(good, number, binding, _all_skipped(skipped)))
            all_good &= good
            all_skipped &= skipped
        return all_good, all_skipped, lines

    def _programs(self, binding: str, column: Column) -> tuple[bool, bool, list[str]]:
        """The same for a binding."""
        lines = _head(binding, len(column.cases))
        names = _distinct((case.program for case in column.cases), parent=binding)
        for number, (name, case) in enumerate(zip(names, column.cases, strict=True), 1):
            lines += self._case(number, name, case)
        good = all(case.good for case in column.cases)
        skipped = all(case.result is not None and case.result.status is Verdict.SKIP for case in column.cases)
        return good, skipped, lines

    def _case(self, number: int, name: str, case: Case) -> Iterator[str]:
        result = case.result
        reason = case.why if result is None else result.reason
        if result is not None and not case.good:
            yield from self._kept(_diagnostics(result.status, [reason]), self._reasons)
            yield from self._kept(_look(result), self._diagnostics)
        directive = "ERROR" if result is None else _DIRECTIVES.get(result.status)
        line = _result_line(case.good, number, name, f"{directive} {reason}" if directive else "")
        if directive and not self._reasons.take(_size(line)):
            line = _result_line(case.good, number, name, directive)
        yield line

    def _kept(self, lines: Iterable[str], budget: Budget) -> Iterator[str]:
        for line in lines:
            if not budget.take(_size(line)):
                yield "# (cut: the JSON and HTML reports have the rest)"
                return
            yield line


def _size(line: str) -> int:
    """Bytes of a line below a binding of a kernel."""
    return len(f"{_INDENT * 2}{line}\n".encode(errors="backslashreplace"))


def _look(result: Result) -> Iterator[str]:
    """What a person needs of a result that is not good, besides its reason."""
    if result.step is not None:
        details = [detail for detail in result.details if detail not in result.reason]
        yield from _diagnostics(f"step {result.step + 1}", details[:_MOST_DETAILS])
        if len(details) > _MOST_DETAILS:
            yield from _diagnostics(f"step {result.step + 1}", [f"... and {len(details) - _MOST_DETAILS} more pages"])
    elif result.binding == PEER:
        yield from _diagnostics("printed", result.details[:_MOST_LOG_LINES])
    for report in result.reports:
        yield from _diagnostics(f"kernel report {report.kind}", [report.title])
    if len(result.log) > _MOST_LOG_LINES:
        yield from _diagnostics("kernel log", [f"({len(result.log) - _MOST_LOG_LINES} lines before these)"])
    yield from _diagnostics("kernel log", result.log[-_MOST_LOG_LINES:])
    yield from _diagnostics("replay", [result.replay])


def _head(name: str, tests: int) -> list[str]:
    return ["KTAP version 1", f"# Subtest: {name}", f"1..{tests}"]


def _result_line(good: bool, number: int, name: str, directive: str) -> str:
    text = f"{'ok' if good else 'not ok'} {number} {name}"
    # A second "#" would begin another directive: "# ERROR ... # SKIP" is a SKIP to kunit.py.
    return f"{text} # {_defused(directive).replace('#', chr(92) + '#')}".rstrip() if directive else text


def _all_skipped(skipped: bool) -> str:
    return "SKIP every test of it was skipped" if skipped else ""


def _diagnostics(label: str, texts: Iterable[str]) -> Iterator[str]:
    """Lines `# label: text`; with the label no text of others reads as a line of KTAP, "# Subtest: x" for one."""
    for text in texts:
        for line in text.split("\n"):
            yield f"# {_defused(label)}: {_defused(line)}".rstrip()


def _defused(text: str) -> str:
    return _END.sub(r"\1 :", shortened(one_line(text), _MOST_CHARACTERS))


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"{_INDENT}{line}" for line in lines]


def _distinct(names: Iterable[str], *, parent: str) -> list[str]:
    """Names without "#", no two alike and none like `parent`: kunit.py ends a test at a line with its name."""
    taken = {parent}
    chosen = []
    for name in names:
        plain = " ".join(_defused(name).replace("#", " ").split()).lstrip(":- ") or "?"
        number = 1
        other = plain
        while other in taken:
            number += 1
            other = f"{plain} ({number})"
        taken.add(other)
        chosen.append(other)
    return chosen
