# SPDX-License-Identifier: GPL-2.0-only
"""The reference model: runs a program step by step and says what each step may show.

Where the kernel may choose, the model is told what was observed and follows it, but only within what it
allows (`World.step`). Sources are named at the rules; clause numbers are those of the HMM contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from harness.model.advice import Advising
from harness.model.allowed import Expectation
from harness.model.counting import Counting
from harness.model.devices import Devices
from harness.model.dma import Dma
from harness.model.exclusive import Exclusives
from harness.model.locking import Locking
from harness.model.memory import HUGE_PAGES
from harness.model.merging import Merging
from harness.model.migration import Migration
from harness.model.moves import Moves
from harness.model.pagemaps import Pagemaps
from harness.model.pins import Pins
from harness.model.ranges import Ranges
from harness.model.reaping import Reaping
from harness.model.requests import Requests
from harness.model.rules import Rules
from harness.model.sequences import Sequences
from harness.model.softdirty import SoftDirtyMarks
from harness.model.state import Handlers, Mirror, State
from harness.model.subjects import Subjects
from harness.model.swapping import Swapping
from harness.model.truncation import Truncation
from harness.model.userfaults import Userfaults
from harness.program.observations import Element, Entry, Mark, Observation
from harness.program.operations import (
    Bind,
    DeviceOperation,
    DeviceRead,
    DmaUnmap,
    Events,
    Evict,
    EvictBy,
    Fault,
    Operation,
    Read,
    Refuse,
    Returns,
    SequenceNumber,
    Snapshot,
    Table,
    Unbind,
    Usage,
    Watched,
    span_of,
)
from harness.program.program import Program


class _Part(Protocol):
    def handlers(self) -> Handlers: ...


# Each knows of some operations what they do to the state, and no other part.
_PARTS: tuple[Callable[[State], _Part], ...] = (
    Subjects, Advising, Pins, Devices, Ranges, Requests, Migration, Moves, Exclusives, Reaping, Dma, Sequences,
    Swapping, Pagemaps,
    Truncation, Userfaults,
    SoftDirtyMarks, Locking, Merging, Counting,
)  # fmt: skip

# What a device does without the memory of its process
_NEEDS_NO_MEMORY = (Bind, Unbind, Evict, EvictBy, Returns, Usage, Events, Watched, SequenceNumber, Refuse, DmaUnmap)


class World:
    """The state of all subjects and devices of one run of `program`."""

    def __init__(self, program: Program, rules: Rules) -> None:
        self._state = State(program, rules)
        self._handlers: Handlers = {}
        for part in _PARTS:
            self._handlers |= part(self._state).handlers()

    @property
    def state(self) -> State:
        """To look at."""
        return self._state

    def step(self, operation: Operation, observed: Observation) -> Expectation:
        """What `operation` may show. `observed` chooses where several outcomes are allowed, and only there."""
        state = self._state
        if (
            isinstance(operation, DeviceOperation)
            and not isinstance(operation, _NEEDS_NO_MEMORY)
            and state.mirrors[operation.actor].space not in state.spaces.values()
        ):
            return Expectation(state.rules.dead_errors)
        state.begin(operation)
        return self._handlers[type(operation)](operation, observed)

    def learn(self, operation: Operation, observed: Observation) -> None:
        """Narrows what is uncertain to what was seen. Only for observations that are allowed."""
        span = span_of(operation)
        if span is None:
            return
        state = self._state
        shown = zip(state.pages(span), observed.elements, strict=False)
        if isinstance(operation, Read | DeviceRead):
            space = (
                state.mirrors[operation.actor].space
                if isinstance(operation, DeviceRead)
                else state.spaces[operation.actor]
            )
            for number, element in shown:
                pte = space.ptes.get(number)
                if pte is not None and pte.page.forgotten and element == 0:
                    pte.page.fill(0)  # `DIRTY_LOST`
                if pte is None or len(pte.page.tokens) == 1 or not isinstance(element, int):
                    continue
                if element == 0:
                    pte.page.fill(0)
                elif not pte.page.lazy:  # else it may still be dropped
                    pte.page.fill(element)
        elif isinstance(operation, Snapshot | Fault | Table):
            mirror = state.mirrors[operation.actor]
            if isinstance(operation, Snapshot):
                self._learn_whole(mirror, dict(zip(state.pages(span), observed.elements, strict=False)))
            for number, element in shown:
                if isinstance(element, Entry) and Mark.VALID in element.marks:
                    self._learn_home(mirror, number, there=bool(element.marks & (Mark.LOCAL | Mark.REMOTE)))

    def _learn_whole(self, mirror: Mirror, shown: Mapping[int, Element]) -> None:
        """A huge page that is mapped as one is one: mm/hmm.c map_order."""
        for first in shown:
            block = range(first, first + HUGE_PAGES)
            if first % HUGE_PAGES == 0 and all(_is_huge(shown.get(number)) for number in block):
                self._state.whole.add((mirror.space, first // HUGE_PAGES))

    def _learn_home(self, mirror: Mirror, number: int, *, there: bool) -> None:
        pte = mirror.space.ptes.get(number)
        if pte is None or not pte.page.strayed:
            return
        pte.page.strayed = None
        if there:
            self._state.moved(pte.page)
        else:
            held = mirror.entries.get(number)
            self._state.bring_home(pte.page, now=False)
            if held is not None:
                mirror.entries[number] = held


def _is_huge(element: Element | None) -> bool:
    return isinstance(element, Entry) and Mark.VALID in element.marks and element.order > 0
