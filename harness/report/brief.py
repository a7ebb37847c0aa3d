# SPDX-License-Identifier: GPL-2.0-only
"""A run in few lines: counts in words, and what many results have in common, a line for each reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.compare import Verdict
from harness.labels import label, short
from harness.model.allowed import RECORDED
from harness.printable import one_line
from harness.report.results import Result, Run

_STEP = re.compile(r"^step \d+: | in step \d+(?=:)")  # one reason, wherever in a program it is met
_MOST_KERNELS = 3  # that are named where it is not all of them
_LEAST = 2  # lines of a list: one, and how many more there are
_SINGULAR = {"known deviations": "known deviation", "errors": "error"}
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


def counted(statuses: Mapping[Verdict, int]) -> str:
    """How many of each, in words."""
    found = [(statuses[status], _WORDS[status]) for status in Verdict if statuses.get(status)]
    return ", ".join(f"{count} {_SINGULAR.get(words, words) if count == 1 else words}" for count, words in found)


def plural(count: int, word: str) -> str:
    """The count with its word, which takes an s."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def cut(line: str, width: int) -> str:
    """At most `width` characters of the line, the last of which say that there are more."""
    return line if len(line) <= width else f"{line[: max(0, width - 3)]}..."


def bare(reason: str) -> str:
    """The reason without the step in which it was met."""
    return _STEP.sub("", reason)


def called(run: Run, kernel: tuple[str, str]) -> str:
    """A kernel of `run`, with its flavour if there are several."""
    return short(kernel[0]) if len({flavour for _, flavour in run.kernels}) == 1 else label(*kernel)


def brief(run: Run, results: Sequence[Result], *, width: int, room: int | None) -> Iterator[str]:
    """A line for each reason for which `results` of `run` are SKIP, and for each known deviation, in order of number.

    `width`: most characters of a line. `room`: most lines, as far as there can be so few; the rest is counted then.
    """
    skips = _skips(results)
    deviations = _deviations(run, results)
    heads = 2 * bool(skips) + 2 * bool(deviations)
    many, few = _shares(None if room is None else room - heads, len(skips), len(deviations))
    if skips:
        count = sum(result.status is Verdict.SKIP for result in results)
        yield from ("", f"SKIP: {plural(count, 'result')}, {plural(len(skips), 'reason')}")
        yield from _list(skips, many, "for {} more reason{}", width)
    if deviations:
        count = sum(result.status is Verdict.DEVIATION for result in results)
        yield from ("", f"DEVIATION: {plural(count, 'result')}; `hmm-harness deviations` has their sources")
        yield from _list(deviations, few, "of {0} more: {2}", width)


def _skips(results: Iterable[Result]) -> list[tuple[int, str]]:
    counts: dict[str, int] = {}
    for result in results:
        if result.status is Verdict.SKIP:
            reason = bare(result.reason)
            counts[reason] = counts.get(reason, 0) + 1
    return _most_first((count, reason) for reason, count in counts.items())


def _deviations(run: Run, results: Iterable[Result]) -> list[tuple[int, str]]:
    """By name; a result that shows two counts for both. Those of another version stand with all of their words."""
    found: dict[str, list[Result]] = {}
    for result in results:
        if result.status is Verdict.DEVIATION:
            names = [name for name, each in RECORDED.items() if f"{name}: {each.summary}" in result.reason]
            for name in names or [result.reason]:
                found.setdefault(name, []).append(result)
    lines = []
    for name, mine in found.items():
        kernels = list(dict.fromkeys((each.kernel, each.flavour) for each in mine))
        where = "" if len(kernels) == len(run.kernels) else f" ({_named(run, kernels)})"
        words = f"{name}{where}: {RECORDED[name].summary}" if name in RECORDED else f"{name}{where}"
        lines.append((len(mine), words))
    return _most_first(lines)


def _named(run: Run, kernels: Sequence[tuple[str, str]]) -> str:
    if len(kernels) > _MOST_KERNELS:
        return f"{len(kernels)} of {len(run.kernels)} kernels"
    return ", ".join(called(run, kernel) for kernel in kernels)


def _most_first(lines: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    return sorted(lines, key=lambda line: -line[0])


def _shares(room: int | None, skips: int, deviations: int) -> tuple[int, int]:
    """How many lines each list may have: deviations two thirds, if skips need the other one."""
    if room is None or skips + deviations <= room:
        return skips, deviations
    few = min(deviations, max(_LEAST, room - min(skips, room // 3)))
    return min(skips, max(_LEAST, room - few)), few


def _list(lines: Sequence[tuple[int, str]], most: int, rest: str, width: int) -> Iterator[str]:
    """`rest`: how the others are counted; with how many, whether that is several, and the first word of each."""
    shown = lines if len(lines) <= most else lines[: most - 1]
    for count, words in shown:
        yield cut(f"{count:6}  {one_line(words)}", width)
    left = lines[len(shown) :]
    if left:
        first = ", ".join(re.split("[ :]", one_line(words))[0] for _, words in left)
        words = rest.format(len(left), "" if len(left) == 1 else "s", first)
        yield cut(f"{sum(count for count, _ in left):6}  {words}", width)
