# SPDX-License-Identifier: GPL-2.0-only
"""The table of a run on the terminal: a row per program as it ends, what went wrong, and a summary."""

from __future__ import annotations

from collections import Counter
from typing import TextIO

from harness.compare import Verdict
from harness.progress import Progress
from harness.report.results import Result

_COLOURS = {Verdict.PASS: "32", Verdict.SKIP: "2", Verdict.DEVIATION: "36"}
_BAD = "31"


class Table:
    """Prints results as they come. `add` wants all of a program's bindings one after the other."""

    def __init__(
        self, programs: list[str], bindings: list[str], progress: Progress, *, out: TextIO, colour: bool
    ) -> None:
        self._bindings = bindings
        self._progress = progress
        self._out = out
        self._colour = colour
        self._width = max([len("program"), *map(len, programs)])
        self._row: list[Result] = []
        self._results: list[Result] = []

    def head(self, banner: str) -> None:
        """The banner and the column titles."""
        self._say(banner)
        self._say("  ".join(["program".ljust(self._width), *(name.ljust(12) for name in self._bindings)]))

    def add(self, result: Result) -> None:
        """Takes a result; prints the row when it is whole."""
        self._results.append(result)
        self._row.append(result)
        if len(self._row) == len(self._bindings):
            cells = [self._cell(cell.status) for cell in self._row]
            self._say("  ".join([result.program.ljust(self._width), *cells]).rstrip())
            self._row = []

    def foot(self, what: str, planned: int, seconds: float) -> None:
        """Everything that was not a PASS, and the last line: counts. `planned`: how many results there should be."""
        for result in self._results:
            if result.status not in (Verdict.PASS, Verdict.SKIP, Verdict.DEVIATION):
                self._say("")
                for line in result.explanation:
                    self._say(line)
        for status in (Verdict.SKIP, Verdict.DEVIATION):
            self._reasons(status)
        left_out = sum(result.left_out for result in self._results)
        if left_out:
            self._say("")
            self._say(f"{left_out} queries were left out, where the binding does not have them")
        counts = Counter(result.status for result in self._results)
        words = [f"{counts[status]} {_WORDS[status]}" for status in Verdict if counts[status]]
        if len(self._results) < planned:
            words.append(f"{planned - len(self._results)} NOT RUN")
        self._say("")
        self._say(f"{what}: {', '.join(words)} [{seconds:.1f} s]")

    def _say(self, line: str) -> None:
        self._progress.say(line, to=self._out)

    def _reasons(self, status: Verdict) -> None:
        reasons: dict[str, list[str]] = {}
        for result in self._results:
            if result.status is status:
                reasons.setdefault(result.reason, []).append(f"{result.program} ({result.binding})")
        for reason, programs in reasons.items():
            self._say("")
            self._say(f"{status}: {reason}")
            for program in programs:
                self._say(f"    {program}")

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
