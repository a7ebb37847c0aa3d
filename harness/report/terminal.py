# SPDX-License-Identifier: GPL-2.0-only
"""A run on the terminal or in a log: what ends, what went wrong, and a summary that fits on a screen."""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import TextIO

from harness.compare import Verdict
from harness.conformance import clauses
from harness.defaults import PEER
from harness.labels import heading, label
from harness.printable import one_line
from harness.progress import Progress
from harness.report.brief import bare, brief, called, counted, cut, plural
from harness.report.conformance import conformance
from harness.report.results import Result, Run, Target, belongs
from harness.report.standings import summary

_COLOURS = {Verdict.PASS: "32", Verdict.SKIP: "2", Verdict.DEVIATION: "36"}
_BAD = "31"
_FINE = frozenset(_COLOURS)
FEW = 20  # programs, of which each has a row, and is named below a reason
_MOST_PROGRAMS = 12  # named below a reason that many share
_LEAST_ROWS = 24  # of a terminal, that the end of a run is made for
_LOG_COLUMNS = 118
_BESIDE = 4  # lines behind the last one, where the reports are, and the prompt


class Table:
    """Prints results as they come: a row for each of a few programs on one kernel, else a line for what is not good.

    `whole`: the rows and the names of any number, on any number of kernels.
    """

    def __init__(self, run: Run, progress: Progress, *, out: TextIO, colour: bool, whole: bool = False) -> None:
        self._run = run
        self._progress = progress
        self._out = out
        self._colour = colour
        self._whole = whole
        self._heads: set[bool] = set()  # of programs, and of the kernel's own tests, that were printed
        self._rows: dict[tuple[str, str, str], dict[str, Result]] = {}
        self._target: Target | None = None

    @property
    def _one(self) -> bool:
        return len(self._run.kernels) == 1

    @property
    def _named(self) -> bool:
        """Whether each program is named at the end, whatever became of it."""
        return self._whole or (len(self._run.programs) <= FEW and not self._run.is_waiting_for_cases)

    @property
    def _in_rows(self) -> bool:
        return self._whole or (self._one and self._named)

    def target(self, target: Target) -> None:
        """A kernel's turn: its banner, and, if each program has a row, the column titles."""
        self._finish_target()
        self._target = target
        self._heads.clear()
        self._rows = {}
        for result in self._run.results:  # of a run that is resumed
            self._row(result)[result.binding] = result
        if target.error:
            self._say(f"{label(target.kernel, target.flavour)}: {target.error.splitlines()[0]}")
        elif target.banner:
            self._say(target.banner)
            if self._in_rows and any(not belongs(program, PEER) for program in self._run.programs):
                self._head("program")

    def add(self, result: Result) -> None:
        """Takes a result, which is in the run already; prints what there is to print of it."""
        if self._target is None or self._target.error:
            return
        row = self._row(result)
        row[result.binding] = result
        if self._in_rows:
            self._print(row, result.program)
        elif result.status not in _FINE:
            self._remark(result)

    def all(self) -> None:
        """Prints the table of a run that is over."""
        for target in self._run.targets:
            self.target(target)
            for program in self._run.programs:
                row = self._rows.get((target.kernel, target.flavour, program))
                if row and not target.error:
                    self._print(row, program, partly=True)

    def _row(self, result: Result) -> dict[str, Result]:
        return self._rows.setdefault((result.kernel, result.flavour, result.program), {})

    def _print(self, row: dict[str, Result], program: str, *, partly: bool = False) -> None:
        """Prints the row of a program when it is whole, or what there is of it."""
        bindings = self._bindings(program)
        if len(row) < len(bindings) and not partly:
            return
        if belongs(program, PEER) not in self._heads:
            self._head(program)
        cells = [self._cell(row[binding].status if binding in row else "") for binding in bindings]
        line = "  ".join([one_line(program).ljust(self._width(program)), *cells]).rstrip()
        self._progress.say(line, to=self._out, ours=True)  # with colours

    def _remark(self, result: Result) -> None:
        """A line of a result that is not good; all of it is said at the end."""
        words = one_line(f" {result.program} ({result.binding}): {result.reason}")
        words = cut(words, self._size()[1] - len(result.status))
        self._progress.say(f"{self._in_colour(result.status, result.status)}{words}", to=self._out, ours=True)

    def _size(self) -> tuple[int | None, int]:
        """Lines and columns of the terminal; a log has any number of lines."""
        try:
            size = os.get_terminal_size(self._out.fileno())
        except (OSError, ValueError):  # no descriptor, or none of a terminal
            return None, _LOG_COLUMNS
        return max(size.lines, _LEAST_ROWS), max(size.columns, 1)

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
                self._say(f"  {binding.ljust(10)} {counted(statuses)}")

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
        left_out = sum(result.left_out for result in results)
        if left_out:
            self._say("")
            self._say(f"{left_out} queries were left out, where the binding does not have them")
        if self._run.clauses:
            self._say("")
            for line in summary(conformance(self._run, clauses.load())):
                self._say(line)
        words = counted(Counter(result.status for result in results))
        if len(results) < self._run.planned:
            words += f"{', ' if words else ''}{self._run.planned - len(results)} NOT RUN"
        last = f"{self._what()}: {words} [{seconds:.1f} s]"
        if self._named:
            for status in (Verdict.SKIP, Verdict.DEVIATION):
                self._reasons(results, status)
        else:
            self._brief(results, 2 * bool(left_out), last)
        self._say("")
        self._say(last)

    def _brief(self, results: list[Result], above: int, last: str) -> None:
        """What many results have in common, with as many lines as the screen has for it, and where the rest is."""
        rows, width = self._size()
        more = "each program with its reasons: `hmm-harness report --table`, or --html FILE"
        room = None if rows is None else rows - above - 3 - math.ceil(len(last) / width) - _BESIDE
        lines = list(brief(self._run, results, width=width, room=room))
        for line in [*lines, "", more] if lines else []:
            self._say(line)

    def _what(self) -> str:
        """What was run, in a few words."""
        kernels = [heading(*kernel) for kernel in self._run.kernels]
        where = kernels[0] if self._one else f"{len(kernels)} kernels"
        cases = sum(belongs(program, PEER) for program in self._run.programs)
        bindings = len(self._run.bindings) - (PEER in self._run.bindings)
        programs = ""
        if bindings:
            programs = f"{plural(len(self._run.programs) - cases, 'program')} x {plural(bindings, 'binding')}"
        peer = f"{plural(cases, 'case')} of hmm-tests" if PEER in self._run.bindings else ""
        return f"{' and '.join(filter(None, [programs, peer]))} on {where}"

    def _say(self, line: str) -> None:
        self._progress.say(line, to=self._out)

    def _reasons(self, results: list[Result], status: Verdict) -> None:
        reasons: dict[str, dict[tuple[str, str], list[tuple[str, str]]]] = {}
        for result in results:
            if result.status is status:
                programs = reasons.setdefault(bare(result.reason), {})
                programs.setdefault((result.program, result.binding), []).append((result.kernel, result.flavour))
        for reason, programs in reasons.items():
            self._say("")
            self._say(f"{status}: {reason}")
            for (program, binding), kernels in list(programs.items())[:_MOST_PROGRAMS]:
                everywhere = len(kernels) == len(self._run.kernels)
                where = "" if everywhere else f" on {', '.join(called(self._run, kernel) for kernel in kernels)}"
                self._say(f"    {program} ({binding}){where}")
            if len(programs) > _MOST_PROGRAMS:
                self._say(f"    ... and {len(programs) - _MOST_PROGRAMS} more")

    def _cell(self, status: Verdict | str) -> str:
        return self._in_colour(status, status.ljust(12)) if status else " " * 12

    def _in_colour(self, status: Verdict | str, text: str) -> str:
        return f"\033[{_COLOURS.get(Verdict(status), _BAD)}m{text}\033[0m" if self._colour else text
