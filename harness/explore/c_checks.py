# SPDX-License-Identifier: GPL-2.0-only
"""What the model allows of one step, as conditions in C: each says, when it does not hold, what was seen instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from harness.compare import place, show_error
from harness.explore.c_steps import CCall, number
from harness.explore.witness import Witness
from harness.model.allowed import Allowed, Count, Entries, Expectation, Odd, Shape, Tokens, Whereabouts
from harness.program.observations import TORN, Element, Entry, Mark, Observation, Signal, Token
from harness.program.operations import (
    DeviceRead,
    Evict,
    EvictBy,
    Exclusive,
    Held,
    Move,
    Operation,
    Read,
    SequenceNumber,
    Snapshot,
    ToDevice,
    ToDeviceShort,
    ToSystem,
    Usage,
    span_of,
)

# What the model follows where several things are allowed
_FOLLOWED = (
    ToDevice, ToDeviceShort, ToSystem, Move, Exclusive, Evict, EvictBy, Snapshot, Read, DeviceRead,
)  # fmt: skip
_FREED, _FAULTS = 2, 3  # of what a `Usage` shows
_ORDER = "ORDER9"  # of a huge page
_SHORT = {_ORDER: "9 << HMM_HARNESS_PAGE_ORDER_SHIFT"} | {
    mark.name: f"HMM_HARNESS_PAGE_{mark.name}" for mark in Mark if mark.name
}


@dataclass(frozen=True)
class Check:
    """Lines of code, and the pieces that they need."""

    lines: list[str]
    needs: frozenset[str]


def check(step: Operation, call: CCall, witness: Witness, *, earlier: Sequence[Operation], found: str) -> Check:
    """Carries out `step` by `call` after `earlier` ones, and sets `found` if it shows what it must not."""
    return _Checker(step, call, witness, earlier, found).check()


def settled(step: Operation, expectation: Expectation, observation: Observation) -> list[str]:
    """What `step`, which is not the one in question, was free to do, and did: what is allowed later hangs on it."""
    if not isinstance(step, _FOLLOWED):
        return []
    lines = []
    start = 0
    pairs = list(zip(expectation.elements, observation.elements, strict=False))
    while start < len(pairs):
        stop = start + 1
        if _is_free(pairs[start][0], step):
            while stop < len(pairs) and pairs[stop][1] == pairs[start][1] and _is_free(pairs[stop][0], step):
                stop += 1
            lines.append(f"expect_seen({start}, {stop}, {_value(pairs[start][1])});")
        start = stop
    return lines


def _is_free(allowed: Allowed, step: Operation) -> bool:
    """Whether there is more than one thing to see."""
    match allowed:
        case Entries(shapes=shapes):
            huge = any(shape.huge and not shape.whole for shape in shapes)
            return huge or (len(shapes) > 1 and not isinstance(step, Snapshot))
        case Tokens(values=values):
            return len(values) > 1
        case Count(low=low, high=high):
            return low != high
    return False


def _value(element: Element) -> str:
    if isinstance(element, Entry):
        return " | ".join(filter(None, [_marks(element.marks), _ORDER if element.order else ""])) or "0"
    if isinstance(element, Signal):
        return "SEGV" if element is Signal.SEGV else "BUS"
    assert isinstance(element, int)
    return "TORN" if element == TORN else number(element)


def short_names(lines: Sequence[str]) -> list[str]:
    """The declaration of the short names that `lines` use for what hmm_harness.h calls longer."""
    used = set(re.findall(r"\b[A-Z0-9]+\b", "\n".join(lines)))
    names = [f"{short} = {name}," for short, name in _SHORT.items() if short in used]
    return ["enum {", *_deeper(names), "};"] if names else []


@dataclass(frozen=True)
class _Run:
    """Pages `start` up to but not including `stop` of which the same is allowed.

    `grows`: of each page, what is allowed of the one before and one more.
    """

    start: int
    stop: int
    allowed: Allowed
    grows: bool


class _Checker:
    def __init__(
        self, step: Operation, call: CCall, witness: Witness, earlier: Sequence[Operation], found: str
    ) -> None:
        assert witness.expectation is not None
        self._step = step
        self._call = call
        self._witness = witness
        self._earlier = earlier
        self._expectation = witness.expectation
        self._found = found
        self._needs: set[str] = set()

    def check(self) -> Check:
        errors = sorted(self._expectation.errors)
        if not self._witness.strict:
            errors += [error for error, _ in self._expectation.deviating_errors]
        if not self._call.fails:
            lines = [f"{self._call.text};", *self._elements("")]
            return Check(lines, frozenset(self._needs))
        self._needs |= {"errno", "stdio", "string"}
        lines = [f"error = {self._call.text} ? errno : 0;"]
        seen = self._witness.observation
        if self._call.may_lack and show_error(0 if seen is None else seen.error) != "EOPNOTSUPP":
            lines += ["if (error == EOPNOTSUPP)", "\tquit(77);"]
        allowed = " or ".join(show_error(error) for error in errors)
        told = "strerror(error)" if 0 in errors else 'error ? strerror(error) : "success"'
        wrong = [
            f'printf("    saw %s, allowed is {allowed}\\n", {told});',
            f"{self._found} = 1;",
        ]
        condition = " && ".join(f"error != {show_error(error)}" if error else "error" for error in reversed(errors))
        if not self._expectation.elements or 0 not in errors:
            return Check([*lines, *_block(f"if ({condition})", wrong)], frozenset(self._needs))
        counted = "range" in self._call.needs or {"device-read", "device-write"} & set(self._call.needs)
        rest = self._elements(" && i < shown" if errors != [0] and counted else "")
        if counted and seen is not None and not seen.error and len(seen.elements) != len(self._expectation.elements):
            rest = [*self._whole(), *rest]
        if errors == [0] or not counted:
            lines += [f"if ({condition}) {{", *_deeper(wrong)]
            lines += [f"}} else {'if (!error) ' if errors != [0] else ''}{{", *_deeper(rest), "}"]
        else:
            lines += [*_block(f"if ({condition})", wrong), *rest]
        return Check(lines, frozenset(self._needs))

    def _whole(self) -> list[str]:
        """It shows as much as it should."""
        count = len(self._expectation.elements)
        return _block(
            f"if (shown != {count})",
            [f'printf("    saw %llu elements, not {count}\\n", shown);', f"{self._found} = 1;"],
        )

    def _elements(self, bound: str) -> list[str]:
        lines: list[str] = []
        if isinstance(self._step, Held):
            count = len(self._expectation.elements)
            lines += [
                f"for (i = 0; i < {count}; i++)",
                "\tif (!(seen[i] & HMM_HARNESS_PAGE_EXCLUSIVE))",
                "\t\tseen[i] = 0;",
            ]
        for run in _runs(self._expectation.elements, pages=_shows_pages(self._step)):
            condition, words, values = self._condition(run)
            if condition is None:  # whatever it is
                continue
            lines += self._one(run, condition, words, values, bound)
        return lines

    def _one(self, run: _Run, condition: str, words: str, values: Sequence[str], bound: str) -> list[str]:
        """The check of a run."""
        seen, form = self._shown(run)
        where, arguments = self._place(run)
        told = ", ".join([f'"    {where}: saw {form}, allowed is {words}\\n"', *arguments, seen, *values])
        wrong = [f"printf({told});", f"{self._found} = 1;"]
        if run.stop - run.start == 1:
            guard = f"shown > {run.start} && " if bound else ""
            return _block(f"if ({guard}{condition})", wrong)
        inner = _block(f"if ({condition})", wrong)
        head = f"for (i = {run.start}; i < {run.stop}{bound}; i++)"
        return [f"{head} {{", *_deeper(inner), "}"]

    def _index(self, run: _Run) -> str:
        return str(run.start) if run.stop - run.start == 1 else "i"

    def _place(self, run: _Run) -> tuple[str, list[str]]:
        """How a page is called, with what printf() needs for that."""
        if run.stop - run.start == 1:
            return place(self._step, run.start), []
        span = span_of(self._step)
        assert span is not None
        return f"{span.region}[%llu]", [f"{span.start} + i" if span.start else "i"]

    def _shown(self, run: _Run) -> tuple[str, str]:
        """How what was seen is printed."""
        seen = f"seen[{self._index(run)}]"
        match run.allowed:
            case Tokens():
                self._needs.add("token")
                return f"token({seen})", "%s"
            case Entries():
                self._needs.add("show")
                return f"show({seen})", "%s"
        return seen, "%llu"

    def _condition(self, run: _Run) -> tuple[str | None, str, list[str]]:
        """When it is not allowed; what is, in words; and what printf() needs for these."""
        seen = f"seen[{self._index(run)}]"
        match run.allowed:
            case Tokens(values=values):
                return self._tokens(run, values, seen)
            case Entries(shapes=shapes, deviating=deviating):
                known = () if self._witness.strict else tuple(shape for _, shape in deviating)
                differs = dict.fromkeys(text for shape in (*shapes, *known) for text in _differs(shape, seen))
                return " && ".join(differs), str(run.allowed), []
            case Count() if isinstance(self._step, Usage) and run.start == _FREED:
                return f"{seen} != seen[1] - seen[0]", "%llu", ["seen[1] - seen[0]"]
            case Count(low=low) if isinstance(self._step, Usage) and run.start == _FAULTS:
                before = self._faults_before()
                if not before:
                    return f"{seen} < {number(low)}" if low else None, f"{low} or more", []
                least = f"seen[6] + {low - before}"
                return f"{seen} < {least}", "%llu or more", [least]
            case Count(low=low, high=high, deviating=down):
                low = low if down is None or self._witness.strict else down[0]
                if low == high:
                    return f"{seen} != {low}", str(run.allowed), []
                below = [f"{seen} < {low}"] if low else []
                above = [] if high is None else [f"{seen} > {high}"]
                return " || ".join(below + above) or None, str(run.allowed), []
            case Odd(before=before, grown=grown):
                even = f"{seen} % 2 == 0"
                if before is None:
                    return even, str(run.allowed), []
                words = "an odd number after %llu" if grown else "%llu"
                return (f"{even} || {seen} <= seen[4]" if grown else f"{seen} != seen[4]"), words, ["seen[4]"]
            case Whereabouts():  # of steps that are left out
                return None, str(run.allowed), []

    def _faults_before(self) -> int:
        """How many CPU faults the device had told of at its last look; the number grows from boot on."""
        seen_before = self._witness.observations[: len(self._earlier)]
        for step, seen in reversed(list(zip(self._earlier, seen_before, strict=True))):
            if isinstance(step, Usage) and step.actor == self._step.actor and seen.elements:
                faults = seen.elements[_FAULTS]
                assert isinstance(faults, int)
                return faults
        return 0

    def _tokens(self, run: _Run, values: frozenset[Token], seen: str) -> tuple[str, str, list[str]]:
        conditions, words, arguments = [], [], []
        for value in sorted(values, key=str):
            if isinstance(value, Signal):
                conditions.append(f"{seen} != {'SEGV' if value is Signal.SEGV else 'BUS'}")
                words.append(value.value)
            elif value == TORN:
                conditions.append(f"{seen} != TORN")
                words.append("torn")
            elif value and run.grows:
                base = value - run.start
                text = f"{number(base)} + i" if base > 0 else "i" if not base else f"i - {-base}"
                conditions.append(f"{seen} != {text}")
                words.append("%llu")
                arguments.append(text)
            else:
                conditions.append(f"{seen} != {number(value)}" if value else seen)
                words.append(str(value))
        return " && ".join(conditions), " or ".join(words), arguments


def _shows_pages(step: Operation) -> bool:
    """Whether what it shows is of pages; else it shows numbers."""
    return span_of(step) is not None and not isinstance(step, SequenceNumber)


def _runs(elements: Sequence[Allowed], *, pages: bool) -> Iterator[_Run]:
    """Pages one after the other of which the same is allowed, or one more each. Numbers one by one."""
    start = 0
    while start < len(elements):
        if not pages:
            yield _Run(start, start + 1, elements[start], grows=False)
            start += 1
            continue
        same = _while(elements, start, lambda _index: elements[start])  # noqa: B023
        grown = _while(elements, start, lambda index: _grown(elements[start], index - start))  # noqa: B023
        stop = max(same, grown)
        yield _Run(start, stop, elements[start], grows=grown > same)
        start = stop


def _while(elements: Sequence[Allowed], start: int, expected: Callable[[int], Allowed | None]) -> int:
    """The first page after `start` of which something else is allowed than `expected`."""
    return next(
        (index for index in range(start + 1, len(elements)) if elements[index] != expected(index)), len(elements)
    )


def _grown(allowed: Allowed, by: int) -> Allowed | None:
    """`allowed` of a page that is that many pages further on, if it is content; None if not."""
    if not isinstance(allowed, Tokens):
        return None
    return Tokens(
        frozenset(value + by if isinstance(value, int) and value > 0 else value for value in allowed.values)
    )


def _differs(shape: Shape, seen: str) -> list[str]:
    """That an entry is not of this kind, all of it together."""
    value = _marks(shape.marks & ~shape.optional)
    masked = f"({seen} & ~({_marks(shape.optional)}))" if shape.optional else seen
    orders = (_ORDER,) if shape.whole else ("", _ORDER) if shape.huge else ("",)
    differs = []
    for order in orders:
        words = [word for word in (value, order) if word]
        text = " | ".join(words)
        differs.append(f"{masked} != {f'({text})' if '|' in text else text or '0'}")
    return differs


def _marks(marks: Mark) -> str:
    return " | ".join(mark.name for mark in Mark if mark in marks and mark.name)


def _block(head: str, lines: Sequence[str]) -> list[str]:
    return [f"{head} {{", *_deeper(lines), "}"]


def _deeper(lines: Sequence[str]) -> list[str]:
    return [f"\t{line}" for line in lines]
