# SPDX-License-Identifier: GPL-2.0-only
"""The table of a run on the terminal: a row per program as it ends, what went wrong, and a summary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import TextIO

from harness.compare import Verdict
from harness.conformance import clauses
from harness.defaults import PEER
from harness.printable import one_line
from harness.progress import Progress
from harness.report.conformance import conformance
from harness.report.results import Result, Run, Target, belongs
from harness.report.standings import summary

_COLOURS = {Verdict.PASS: "32", Verdict.SKIP: "2", Verdict.DEVIATION: "36"}
_BAD = "31"
_FINE = frozenset(_COLOURS)
_MOST_PROGRAMS = 12  # named below a reason that many share
_STEP = re.compile(r"^step \d+: | in step \d+(?=:)")  # one reason, wherever in a program it is met


class Table:
    """Prints results as they come: for one kernel a row per program, for several a line per kernel and binding."""

    def __init__(self, run: Run, progress: Progress, *, out: TextIO, colour: bool) -> None:
        self._run = run
        self._progress = progress
        self._out = out
        self._colour = colour
        self._heads: set[bool] = set()  # of programs, and of the kernel's own tests, that were printed
        self._rows: dict[str, dict[str, Result]] = {}
        self._target: Target | None = None

    @property
    def _one(self) -> bool:
        return len(self._run.kernels) == 1

    def target(self, target: Target) -> None:
        """A kernel's turn: its banner, and, if it is the only one, the column titles."""
        self._finish_target()
        self._target = target
        self._rows = {}
        for result in self._run.results:  # of a run that is resumed
            self._rows.setdefault(result.program, {})[result.binding] = result
        if target.error:
            self._say(f"{target.kernel} {target.flavour}: {target.error.splitlines()[0]}")
        elif target.banner:
            self._say(target.banner)
            if self._one and any(not belongs(program, PEER) for program in self._run.programs):
                self._head("program")

    def add(self, result: Result) -> None:
        """Takes a result, which is in the run already; prints the row when it is whole."""
        if not self._one or self._target is None or self._target.error:
            return
        row = self._rows.setdefault(result.program, {})
        row[result.binding] = result
        bindings = self._bindings(result.program)
        if len(row) == len(bindings):
            if belongs(result.program, PEER) not in self._heads:
                self._head(result.program)
            cells = [self._cell(row[binding].status) for binding in bindings]
            line = "  ".join([one_line(result.program).ljust(self._width(result.program)), *cells]).rstrip()
            self._progress.say(line, to=self._out, ours=True)  # with colours

    def _bindings(self, program: str) -> list[str]:
        return [binding for binding in self._run.bindings if belongs(program, binding)]

    def _width(self, program: str) -> int:
        """Of the first column, where `program` stands."""
        peer = belongs(program, PEER)
        return max(len("program"), *(len(each) for each in self._run.programs if belongs(each, PEER) is peer), 0)

    def _head(self, program: str) -> None:
        """The titles of the columns where `program` stands."""
        self._heads.add(belongs(program, PEER))
        titles = [name.ljust(12) for name in self._bindings(program)]
        self._say("  ".join(["program".ljust(self._width(program)), *titles]).rstrip())

    def _finish_target(self) -> None:
        """With several kernels: a line for each binding of the one that had its turn."""
        if self._one or self._target is None:
            return
        kernel = (self._target.kernel, self._target.flavour)
        mine = [result for result in self._run.results if (result.kernel, result.flavour) == kernel]
        for binding in self._run.bindings:
            statuses = Counter(result.status for result in mine if result.binding == binding)
            if statuses:
                self._say(f"  {binding.ljust(10)} {self._count(statuses)}")

    def foot(self, seconds: float) -> None:
        """Everything that was not a PASS, and the last line: counts."""
        self._finish_target()
        results = self._run.in_order()
        shown: set[tuple[str, ...]] = set()
        for result in results:
            if result.status in _FINE or result.explanation in shown:
                continue
            shown.add(result.explanation)
            self._say("")
            for line in result.explanation:
                self._say(line)
        for status in (Verdict.SKIP, Verdict.DEVIATION):
            self._reasons(results, status)
        left_out = sum(result.left_out for result in results)
        if left_out:
            self._say("")
            self._say(f"{left_out} queries were left out, where the binding does not have them")
        if self._run.clauses:
            self._say("")
            for line in summary(conformance(self._run, clauses.load())):
                self._say(line)
        words = self._count(Counter(result.status for result in results))
        if len(results) < self._run.planned:
            words += f"{', ' if words else ''}{self._run.planned - len(results)} NOT RUN"
        self._say("")
        self._say(f"{self._what()}: {words} [{seconds:.1f} s]")

    def _what(self) -> str:
        """What was run, in a few words."""
        kernels = [f"{kernel} ({flavour})" for kernel, flavour in self._run.kernels]
        where = kernels[0] if self._one else f"{len(kernels)} kernels"
        cases = sum(belongs(program, PEER) for program in self._run.programs)
        bindings = len(self._run.bindings) - (PEER in self._run.bindings)
        programs = f"{len(self._run.programs) - cases} programs x {bindings} bindings" if bindings else ""
        peer = f"{cases} cases of hmm-tests" if PEER in self._run.bindings else ""
        return f"{' and '.join(filter(None, [programs, peer]))} on {where}"

    def _count(self, statuses: Mapping[Verdict, int]) -> str:
        return ", ".join(f"{statuses[status]} {_WORDS[status]}" for status in Verdict if statuses.get(status))

    def _say(self, line: str) -> None:
        self._progress.say(line, to=self._out)

    def _reasons(self, results: list[Result], status: Verdict) -> None:
        reasons: dict[str, dict[tuple[str, str], list[tuple[str, str]]]] = {}
        for result in results:
            if result.status is status:
                programs = reasons.setdefault(_STEP.sub("", result.reason), {})
                programs.setdefault((result.program, result.binding), []).append((result.kernel, result.flavour))
        for reason, programs in reasons.items():
            self._say("")
            self._say(f"{status}: {reason}")
            for (program, binding), kernels in list(programs.items())[:_MOST_PROGRAMS]:
                everywhere = len(kernels) == len(self._run.kernels)
                where = "" if everywhere else f" on {', '.join(map(self._called, kernels))}"
                self._say(f"    {program} ({binding}){where}")
            if len(programs) > _MOST_PROGRAMS:
                self._say(f"    ... and {len(programs) - _MOST_PROGRAMS} more")

    def _called(self, kernel: tuple[str, str]) -> str:
        """A kernel, with its flavour if there are several."""
        return kernel[0] if len({flavour for _, flavour in self._run.kernels}) == 1 else f"{kernel[0]} {kernel[1]}"

    def _cell(self, status: Verdict) -> str:
        text = status.ljust(12)
        return f"\033[{_COLOURS.get(status, _BAD)}m{text}\033[0m" if self._colour else text


_WORDS = {
    Verdict.PASS: "passed",
    Verdict.FAIL: "failed",
    Verdict.SKIP: "skipped",
    Verdict.DEVIATION: "known deviations",
    Verdict.INCONCLUSIVE: "inconclusive",
    Verdict.ERROR: "errors",
    Verdict.CRASHED: "crashed",
    Verdict.TIMEOUT: "timed out",
}
