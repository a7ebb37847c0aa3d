# SPDX-License-Identifier: GPL-2.0-only
"""Runs of which only the last step is of interest: before it, the kernel shows what the model names first."""

from __future__ import annotations

from collections.abc import Collection

from harness.compare import Comparison, compare
from harness.model.rules import rules_for
from harness.model.world import World
from harness.program.observations import Element, Entry, Observation, Status
from harness.program.text import parse


def compare_last(
    text: str, *last: Element, error: int = 0, binding: str = "interval", features: Collection[str]
) -> Comparison:
    """The comparison of a run whose steps show what the model names first, but for the last one."""
    program = parse(text, file="x.hmm")
    rules = rules_for(binding, features)
    world = World(program, rules)
    seen: list[Observation] = []
    for step in program.steps[:-1]:
        expectation = world.step(step, Observation(Status.DONE))
        failed = min(expectation.errors)
        if expectation.hearing is not None:
            elements: tuple[Element, ...] = expectation.hearing.sample()
        else:
            elements = () if failed else tuple(_first(each) for each in expectation.elements)
        seen.append(Observation(Status.DONE, failed, elements))
    seen.append(Observation(Status.DONE, error, last))
    return compare(program, rules, seen)


def _first(allowed: object) -> Element:
    shapes = getattr(allowed, "shapes", None)
    if shapes:
        return Entry(shapes[0].marks)
    values: frozenset[Element] | None = getattr(allowed, "values", None)
    return min(values, key=str) if values is not None else allowed.low  # type: ignore[attr-defined]
