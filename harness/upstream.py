# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on a case of the kernel's own hmm-tests: what they say of it, and what they swallow.

    CRASHED   the kernel complained meanwhile, whatever hmm-tests say; or the case ended without a result
    FAIL      hmm-tests say so; or an assertion failed, or a request to the device failed with an error that no case
              expects, and hmm-tests call it ok all the same
    SKIP      hmm-tests say so; or the case skipped itself, or it was refused a mapping and returned before it asked
              the device for anything, and hmm-tests call it ok
    TIMEOUT   hmm-tests, or we, gave it up
    ERROR     hmm-tests contradict themselves: their totals do not add up, or another case ran

Where they swallow what: in v6.1 a SKIP in a fixture's set-up is `exit(0)`, which is ok (FIXTURE_SETUP(hmm)); up to
v7.2 `compound` returns when there is no huge page; an assertion that fails in a child of a case, or before a SKIP, is
printed and may count for nothing; and `anon_teardown` takes whatever error its request ends with.
"""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from collections.abc import Sequence

from harness.compare import Verdict
from harness.conformance.bugs import with_bug
from harness.guest.kernel import LOST_LINES
from harness.target import kselftest
from harness.target.upstream import Case, Outcome

_WITNESS = re.compile(r"^# hmm-harness: (?:ioctl (?P<request>\d+)|mmap) (?P<error>\d+)$")  # guest/peer/witness.c
_MOST_SHOWN = 200  # lines that a case printed
_LATE = "Test terminated by timeout"  # kselftest_harness.h __wait_for_test()


def judge(case: Case, outcome: Outcome, shortage: str | None = None) -> tuple[Verdict, str, tuple[str, ...]]:
    """The verdict, its reason (empty for a PASS), and what else there is to know, line by line.

    `shortage`: what the guest was short of.
    """
    document = kselftest.read(outcome.output, outcome.status)
    test = document.find(case.test)
    asked = _Requests(case, test.lines if test else ())
    verdict, reason = _judge(case, outcome, document, asked, shortage)
    return verdict, reason, tuple(_remarks(outcome, test, asked, verdict))


def _judge(
    case: Case, outcome: Outcome, document: kselftest.Document, asked: _Requests, shortage: str | None
) -> tuple[Verdict, str]:
    test = document.find(case.test)
    word = test.word if test else ""
    if outcome.crashes:
        called = f", and hmm-tests call it {'ok' if word == 'pass' else word}" if word else ""
        return Verdict.CRASHED, with_bug(f"{outcome.crashes[0].title}{called}", outcome.crashes)
    if outcome.late:
        return Verdict.TIMEOUT, f"it did not end, nor did hmm-tests end it after {case.seconds:g} s"
    if shortage is not None:
        return Verdict.INCONCLUSIVE, shortage
    if test is None or not word:
        how = f"were killed by signal {-outcome.status}" if outcome.status < 0 else f"ended with {outcome.status}"
        which = "" if test else " before it began"
        return Verdict.CRASHED, f"it has no result: hmm-tests {how}{which}"
    if word in ("fail", "error", "xpass", "timeout"):
        if test.verdict.startswith(_LATE):
            return Verdict.TIMEOUT, f"hmm-tests gave it up after {case.seconds:g} s"
        said = [*test.assertions, test.verdict, test.reason, f"hmm-tests say {word}"]
        return Verdict.FAIL, next(filter(None, said))
    if test.assertions:
        return Verdict.FAIL, f"swallowed: {test.assertions[0]} failed, and hmm-tests call it {_called(word)}"
    if asked.unexpected:
        what = f"{asked.unexpected[0]}, which no case expects"
        return Verdict.FAIL, f"swallowed: {what}, and hmm-tests call it {_called(word)}"
    if document.oddities:
        return Verdict.ERROR, f"hmm-tests contradict themselves: {'; '.join(document.oddities)}"
    if word == "xfail":
        return Verdict.DEVIATION, f"hmm-tests expect it to fail{f': {test.reason}' if test.reason else ''}"
    if word == "skip":
        return Verdict.SKIP, test.reason or next(iter(test.skips), "") or "hmm-tests give no reason"
    if test.skips:
        return Verdict.SKIP, f"{test.skips[0] or 'hmm-tests give no reason'} (which hmm-tests call ok)"
    if asked.refusals and not asked.count:
        refused = f"it returned before it asked the device for anything: {asked.refusals[0]}"
        return Verdict.SKIP, f"{refused} (which hmm-tests call ok)"
    if LOST_LINES in outcome.log:
        return Verdict.INCONCLUSIVE, "lines of the kernel's log were lost, a complaint may be among them"
    return Verdict.PASS, ""


def _called(word: str) -> str:
    return "ok" if word == "pass" else f"a {word.upper()}"


class _Requests:
    """What the witness saw of a case."""

    def __init__(self, case: Case, lines: Sequence[str]) -> None:
        self.count = 0  # requests to the device
        self.refusals: list[str] = []  # mappings
        self.failed: Counter[tuple[str, str]] = Counter()  # requests, by name and error
        self._expected = case.suite.expected
        for match in filter(None, map(_WITNESS.match, lines)):
            error = errno.errorcode.get(int(match["error"]), match["error"]) if int(match["error"]) else ""
            if match["request"] is None:
                self.refusals.append(f"mmap() failed with {error} ({os.strerror(int(match['error']))})")
                continue
            self.count += 1
            number = int(match["request"])
            if error:
                self.failed[case.suite.requests.get(number, f"{number:#04x}"), error] += 1

    @property
    def unexpected(self) -> list[str]:
        """Requests that failed with an error that the suite does not mention."""
        known = {*self._expected, "EINTR"}  # after which hmm-tests ask again
        return [f"{name} failed with {error}" for name, error in self.failed if error not in known]


def _remarks(outcome: Outcome, test: kselftest.Test | None, asked: _Requests, verdict: Verdict) -> list[str]:
    """What a reader of the verdict may want to know; all that the case printed, unless it is a PASS."""
    remarks = [f"{name} failed with {error}, {times} times" for (name, error), times in asked.failed.items()]
    remarks += [f"it left a process behind: {name}" for name in outcome.left]
    if verdict is Verdict.PASS:
        return remarks
    printed = list(test.lines if test else outcome.output.splitlines())
    printed = [line for line in printed if not _WITNESS.match(line)]
    if len(printed) > _MOST_SHOWN:
        left_out = len(printed) - _MOST_SHOWN
        printed = [*printed[: _MOST_SHOWN // 2], f"... {left_out} lines more ...", *printed[-_MOST_SHOWN // 2 :]]
    return [*remarks, *printed]
