# SPDX-License-Identifier: GPL-2.0-only
"""Reads what a test suite prints that is built on tools/testing/selftests/kselftest_harness.h, of Linux 5.10 to 7.3.

Pure text to pure data. The suite prints, and its tests and their children print in between:

    TAP version 13
    1..2
    # Starting 2 tests from 1 test cases.
    #  RUN           hmm.hmm_device_private.open_close ...
    #            OK  hmm.hmm_device_private.open_close
    ok 1 hmm.hmm_device_private.open_close
    #  RUN           hmm.hmm_device_private.anon_read ...
    # hmm-tests.c:335:anon_read:Expected ret (-14) == 0 (0)
    # anon_read: Test terminated by assertion
    #          FAIL  hmm.hmm_device_private.anon_read
    not ok 2 hmm.hmm_device_private.anon_read
    # FAILED: 1 / 2 tests passed.
    # Totals: pass:1 fail:1 xfail:0 xpass:0 skip:0 error:0

A result that is a SKIP has no name before v6.9: `ok 2 # SKIP reason`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_PLAN = re.compile(r"^1\.\.(\d+)$")
_RUN = re.compile(r"^#\s+RUN\s+(\S+) \.\.\.$")
_VERDICT = re.compile(r"^#\s+(?:OK|FAIL)\s+\S+$")
_RESULT = re.compile(r"^(?P<good>ok|not ok) (?P<number>\d+)(?: (?P<name>[^\s#]+))?(?:\s+#\s*(?P<remark>.*))?\s*$")
_DIRECTIVE = re.compile(r"^(SKIP|XFAIL|XPASS|error|TIMEOUT)\b\s*(.*)$", re.IGNORECASE)
_TOTALS = re.compile(r"^# Totals: pass:(\d+) fail:(\d+) xfail:(\d+) xpass:(\d+) skip:(\d+) error:(\d+)$")
_COUNTED = ("pass", "fail", "xfail", "xpass", "skip", "error")
_ASSERTION = re.compile(r"^# (?:\S*/)?(?P<place>[^\s/:]+:\d+):\w+:(?P<what>Expected .*)$")
_SKIP = re.compile(r"^#\s+SKIP\s+(.*?)\s*$")
_NO_REASON = "unknown"  # kselftest_harness.h, __run_test()


@dataclass(frozen=True)
class Test:
    """A test that was begun. `word`: "pass", "skip", ... as the totals count it; empty if no result was printed.

    `reason`: of a SKIP, empty if the suite gives none. `lines`: all that was printed from its begin to its result.
    """

    name: str
    word: str
    reason: str
    lines: tuple[str, ...]

    @property
    def assertions(self) -> list[str]:
        """The assertions that failed, whatever became of the test: "hmm-tests.c:335: Expected ret (-14) == 0 (0)"."""
        found = map(_ASSERTION.match, self.lines)
        return [f"{match['place']}: {match['what']}" for match in found if match]

    @property
    def skips(self) -> list[str]:
        """The reasons that were printed when it skipped itself, whatever became of it."""
        return [match[1] for match in map(_SKIP.match, self.lines) if match]

    @property
    def verdict(self) -> str:
        """The harness's own word on how it ended: "Test terminated by assertion"; empty without one."""
        start = f"# {self.name.rpartition('.')[2]}: "
        return next((line.removeprefix(start) for line in self.lines if line.startswith(start)), "")


@dataclass(frozen=True)
class Document:
    """All that a suite printed. `oddities`: sentences on what does not add up."""

    tests: tuple[Test, ...]
    oddities: tuple[str, ...]

    def find(self, name: str) -> Test | None:
        """The test of that name."""
        return next((test for test in self.tests if test.name == name), None)


def read(output: str, status: int) -> Document:
    """What a suite printed that ended with `status`: 0 if no test failed, another if one did."""
    planned: int | None = None
    totals: tuple[int, ...] | None = None
    tests: list[Test] = []
    numbers: list[int] = []
    oddities: list[str] = []
    running = ""  # the test that was begun, and what it printed
    lines: list[str] = []

    def end(word: str = "", reason: str = "") -> None:
        tests.append(Test(running, word, reason, tuple(lines)))

    for line in output.splitlines():
        if match := _RUN.match(line):
            if running:
                end()
            running, lines = match[1], []
        elif (match := _RESULT.match(line)) and running:
            numbers.append(int(match["number"]))
            if match["name"] and match["name"] != running:
                oddities.append(f"the result of {match['name']} came when {running} had begun")
            end(*_word(match))
            running = ""
        elif match := _PLAN.match(line):
            planned = int(match[1])
        elif match := _TOTALS.match(line):
            totals = tuple(map(int, match.groups()))
        elif running and not _VERDICT.match(line):
            lines.append(line)
    if running:
        end()
    oddities += _sums(planned, numbers, totals, tests, status)
    return Document(tuple(tests), tuple(oddities))


def _word(match: re.Match[str]) -> tuple[str, str]:
    """How a test ended by its result line, and the reason."""
    remark = match["remark"] or ""
    directive = _DIRECTIVE.match(remark)
    if directive is None:
        return "pass" if match["good"] == "ok" else "fail", remark
    reason = directive[2].strip()
    return directive[1].lower(), "" if reason == _NO_REASON else reason


def _sums(
    planned: int | None, numbers: list[int], totals: tuple[int, ...] | None, tests: list[Test], status: int
) -> Iterator[str]:
    if planned is None:
        yield "it printed no plan"
    elif planned != len(numbers):
        yield f"it planned {planned} tests and printed {len(numbers)} results"
    if numbers != list(range(1, len(numbers) + 1)):
        yield "its results are not numbered one after the other"
    counts = Counter(test.word for test in tests if test.word)
    if totals is None:
        yield "it printed no totals"
    elif totals != tuple(counts[word] for word in _COUNTED):
        said = ", ".join(f"{number} {word}" for word, number in zip(_COUNTED, totals, strict=True) if number)
        found = ", ".join(f"{number} {word}" for word, number in counts.items())
        yield f"its totals do not add up: they say {said or 'nothing'}, its results are {found or 'none'}"
    failed = any(counts[word] for word in counts if word in ("fail", "error"))
    if totals is not None and failed != bool(status):
        yield f"it ended with status {status}, though {'a' if failed else 'no'} test failed"
