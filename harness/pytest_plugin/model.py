# SPDX-License-Identifier: GPL-2.0-only
"""The fixture `hmm_model`: the reference model alone, without a VM."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

from harness.compare import Comparison, compare
from harness.model.allowed import Allowed, Count, Entries, Expectation, Odd, Tokens, Whereabouts
from harness.model.rules import RULES, Rules
from harness.model.world import World
from harness.program.observations import Element, Entry, Observation, Status
from harness.program.operations import Operation, Usage
from harness.program.program import Program
from harness.program.text import parse


class Model:
    """What is allowed of programs, which are given as `Program` or as text."""

    def __init__(self, rules: Rules = RULES["interval"]) -> None:
        self._rules = rules

    def allowed(self, program: Program | str) -> list[Expectation]:
        """What each step may show, if the kernel always did the first thing that is allowed."""
        return [expectation for expectation, _ in self._obey(_program(program))]

    def obedient(self, program: Program | str) -> tuple[Observation, ...]:
        """What a kernel shows that always does the first thing that is allowed."""
        return tuple(observation for _, observation in self._obey(_program(program)))

    def judge(self, program: Program | str, observations: Sequence[Observation]) -> Comparison:
        """Whether `observations`, one for each step, are allowed."""
        return compare(_program(program), self._rules, observations)

    def _obey(self, program: Program) -> list[tuple[Expectation, Observation]]:
        world = World(program, self._rules)
        told = []
        for step in program.steps:
            # What comes later may depend on what was shown of a step, so that is found out in a copy.
            expected = deepcopy(world).step(step, Observation(Status.DONE))
            error = min(expected.errors)
            observation = Observation(Status.DONE, error, () if error else _first(step, expected))
            expectation = world.step(step, observation)
            world.learn(step, observation)
            told.append((expectation, observation))
        return told


def _program(program: Program | str) -> Program:
    return parse(program, file="<program>") if isinstance(program, str) else program


def _first(step: Operation, expectation: Expectation) -> tuple[Element, ...]:
    if expectation.hearing is not None:
        return expectation.hearing.sample()
    elements = tuple(map(_one_of, expectation.elements))
    if isinstance(step, Usage):  # what was allocated is what is in use and what was freed
        in_use, faults = elements[0], elements[3]
        return (in_use, in_use, 0, faults, 0, 0)
    return elements


def _one_of(allowed: Allowed) -> Element:
    match allowed:
        case Tokens(values=values):
            return max(values, key=str)
        case Entries(shapes=shapes):
            return Entry(shapes[0].marks, 9 if shapes[0].whole else 0)
        case Count(low=low):
            return low
        case Odd():
            return allowed.least
        case Whereabouts(values=values):
            return max(values, key=str)
