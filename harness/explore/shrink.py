# SPDX-License-Identifier: GPL-2.0-only
"""Makes a program smaller as long as it shows the same: fewer steps, fewer pages, plainer choices.

Whoever asks decides what "the same" is, and runs the candidates, several at once: what does not show it costs little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from harness.program.operations import (
    FIRST_SUBJECT,
    HUGETLB_PAGES,
    Backing,
    Choices,
    Fork,
    Manner,
    Map,
    Operation,
    Owner,
    Pattern,
    Prot,
    Remap,
    Span,
    span_of,
)
from harness.program.program import Growing, Program

FirstFailing = Callable[[Sequence[Program]], int | None]
"""The index of the first of some programs that shows what is looked for; None if none does."""

_AT_ONCE = 24  # candidates

# The plainest of its kind, which says that it does not matter
_PLAIN: dict[type, object] = {Backing: Backing.ANON, Owner: Owner.OWN, Manner: Manner.FRESH}


def shrink(program: Program, first_failing: FirstFailing) -> Program:
    """The smallest program that is found by leaving out and simplifying, none of which can be done once more."""
    while True:
        smaller = _plainer(_shorter(program, first_failing), first_failing)
        if smaller.steps == program.steps:
            return smaller
        program = smaller


def sensible(name: str, steps: Sequence[Operation], title: str) -> Program:
    """The program of those of `steps` that make sense after what is left of those before them."""
    growing = Growing()
    for step in steps:
        growing.take(step)
    return Program(name, tuple(growing.steps), title)


def _shorter(program: Program, first_failing: FirstFailing) -> Program:
    """By leaving out pieces: half of it, quarters, ..., single steps."""
    size = max(1, len(program.steps) // 2)
    while True:
        at = 0
        while at < len(program.steps):
            starts = list(range(at, len(program.steps), size))[:_AT_ONCE]
            candidates = [_without(program, start, start + size) for start in starts]
            index = _first(program, candidates, first_failing)
            if index is None:
                at = starts[-1] + size
            else:
                program, at = candidates[index], starts[index]
        if size == 1:
            return program
        size //= 2


def _plainer(program: Program, first_failing: FirstFailing) -> Program:
    """By simplifying one thing at a time."""
    done = 0  # candidates that are known not to show it
    while True:
        candidates = list(_simpler(program))
        index = None
        while index is None and done < len(candidates):
            some = candidates[done : done + _AT_ONCE]
            index = _first(program, some, first_failing)
            if index is None:
                done += len(some)
        if index is None:
            return program
        program = candidates[done + index]
        done = 0


def _first(program: Program, candidates: Sequence[Program], first_failing: FirstFailing) -> int | None:
    """As `first_failing`, which is asked only of those that are a program, and another one."""
    asked = [number for number, each in enumerate(candidates) if each.steps and each.steps != program.steps]
    found = first_failing([candidates[number] for number in asked]) if asked else None
    return None if found is None else asked[found]


def _without(program: Program, start: int, stop: int) -> Program:
    return sensible(program.name, program.steps[:start] + program.steps[stop:], program.title)


def _simpler(program: Program) -> Iterator[Program]:
    for region in program.regions:
        yield from _fewer_pages(program, region)
    for child in program.subjects:
        if child != FIRST_SUBJECT:
            yield _without_child(program, child)
    for number, step in enumerate(program.steps):
        for changed in _simpler_steps(step):
            steps = (*program.steps[:number], changed, *program.steps[number + 1 :])
            yield sensible(program.name, steps, program.title)


def _fewer_pages(program: Program, region: str) -> Iterator[Program]:
    """With nothing in front of, or behind, what is used of a region that is mapped."""
    spans = [span for step in program.steps if (span := span_of(step)) is not None and span.region == region]
    mapped = next((step for step in program.steps if isinstance(step, Map) and step.region == region), None)
    if mapped is None or not spans:
        return
    whole = [span for span in spans if span.count == mapped.pages]
    parts = [span for span in spans if span.count < mapped.pages]
    for first, last in (
        (min((span.start for span in parts), default=0), max((span.stop for span in parts), default=1)),
        (0, mapped.pages // 2),
        (0, 1),
    ):
        pages = last - first
        if mapped.backing is Backing.HUGETLB:
            pages = -(-pages // HUGETLB_PAGES) * HUGETLB_PAGES
        if not 0 < pages < mapped.pages:
            continue
        steps: list[Operation] = []
        for step in program.steps:
            span = span_of(step)
            if step is mapped:
                steps.append(replace(mapped, pages=pages))
            elif span is None or span.region != region:
                steps.append(step)
            elif span in whole:
                steps.append(_with_span(step, Span(region, 0, pages)))
            else:
                start, stop = max(0, span.start - first), min(pages, span.stop - first)
                if start < stop:
                    steps.append(_with_span(step, Span(region, start, stop)))
        yield sensible(program.name, steps, program.title)


def _without_child(program: Program, child: str) -> Program:
    """What a child does, its parent does."""
    parent = next(step.actor for step in program.steps if isinstance(step, Fork) and step.child == child)
    steps = []
    for step in program.steps:
        if isinstance(step, Fork) and step.child == child:
            continue
        names = {field.name: parent for field in fields(step) if getattr(step, field.name) == child}
        steps.append(_with(step, **names))
    return sensible(program.name, steps, program.title)


def _simpler_steps(step: Operation) -> Iterator[Operation]:
    span = span_of(step)
    if span is not None and span.count > 1 and not isinstance(step, Remap):
        half = span.start + span.count // 2
        for start, stop in ((span.start, half), (half, span.stop)):
            yield _with_span(step, Span(span.region, start, stop))
    for field in fields(step):
        value = getattr(step, field.name)
        if isinstance(step, Map) and isinstance(value, Prot):
            plain: object = Prot.RW
        elif isinstance(value, Pattern | Choices):
            plain = type(value)(value[:1])
        elif field.name == "token":
            plain = 1
        else:
            plain = _PLAIN.get(type(value), value)
        if plain != value:
            yield _with(step, **{field.name: plain})


def _with_span(step: Operation, span: Span) -> Operation:
    return _with(step, span=span)


def _with(step: Operation, **values: Any) -> Operation:
    return replace(step, **values)
