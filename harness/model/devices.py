# SPDX-License-Identifier: GPL-2.0-only
"""Devices: what they are bound to, what they keep, and what they hear."""

from __future__ import annotations

import errno

from harness.model.allowed import NOTHING, OK, Count, Entries, Expectation, Shape
from harness.model.exclusive import also_exclusive, shown_exclusive
from harness.model.memory import Known, Pte
from harness.model.state import Ear, Handlers, Mirror, State
from harness.model.views import counted, entries_of
from harness.program.observations import Mark, Observation
from harness.program.operations import COHERENT, Bind, Events, Passes, Table, Unbind, Usage, Watch, Watched

_HEARD = Shape(Mark.HEARD)


class Devices:
    """Devices come and go, watch, and are asked what they know."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {
            Bind: self._bind, Unbind: self._unbind, Table: self._table, Usage: self._usage,
            Watch: self._watch, Watched: self._watched, Events: self._events,
        }  # fmt: skip

    def _bind(self, step: Bind, _: Observation) -> Expectation:
        self._state.mirrors[step.actor] = Mirror(self._state.spaces[step.subject], self._state.new_hearing())
        return OK

    def _unbind(self, step: Unbind, _: Observation) -> Expectation:
        mirror = self._state.mirrors.pop(step.actor)
        if mirror.held_coherent:  # kmod/claim.c hh_claims_return()
            for number, pte in mirror.space.ptes.items():
                if pte.page.home in COHERENT and pte.exclusive is not Known.NO:
                    self._state.take_back(mirror.space, number, pte)
        self._state.refused.pop(step.actor, None)
        return OK

    def _table(self, step: Table, _: Observation) -> Expectation:
        mirror = self._state.mirrors[step.actor]
        space = mirror.space
        allowed: list[Entries] = []
        for number in self._state.pages(step.span):
            if number in mirror.entries:
                page, write = mirror.entries[number]
                pte = space.ptes.get(number)
                entered = Pte(page, write, or_zero=pte is not None and pte.or_zero)
                # An entry may always be missing; the order that it was entered with is not told.
                entry = entries_of(entered, step.actor, huge=True, missing=True)
                if number in mirror.held:
                    exclusive = shown_exclusive(self._state.rules, page, step.actor)
                    entry = also_exclusive(entry, exclusive, sure=mirror.held[number])
                allowed.append(entry)
            else:
                allowed.append(Entries((NOTHING,)))
        return Expectation(elements=tuple(allowed))

    def _usage(self, step: Usage, observed: Observation) -> Expectation:
        entries = len(self._state.mirrors[step.actor].entries)
        in_use, allocated = observed.elements[:2] if len(observed.elements) > 1 else (0, 0)
        freed = allocated - in_use if isinstance(allocated, int) and isinstance(in_use, int) else 0
        # Clause 91: no CPU has to ask for a page of coherent memory.
        faults = Count(0, 0) if step.actor in COHERENT else Count(self._state.returns.get(step.actor, 0))
        if len(observed.elements) > 3 and isinstance(observed.elements[3], int):
            self._state.returns[step.actor] = observed.elements[3]  # only grows
        elements = (
            counted(self._state.residents(step.actor)), Count(0), Count(freed, freed),
            faults, Count(0), Count(0, entries),
        )  # fmt: skip
        return Expectation(elements=elements)

    def _watch(self, step: Watch, _: Observation) -> Expectation:
        pages = frozenset(self._state.pages(step.span))
        self._state.mirrors[step.actor].watches[step.span] = Ear(pages, flushes=step.passes is Passes.TLB)
        return OK

    def _watched(self, step: Watched, _: Observation) -> Expectation:
        ear = self._state.mirrors[step.actor].watches.get(step.span)
        if ear is None:  # the process had exited before the watch could begin
            return Expectation(frozenset({errno.ENOENT}))
        told, ear.told = ear.told, set()
        # Reclaim, compaction and others clear entries when they like: it may always be told of more.
        must, may = Entries((_HEARD,)), Entries((_HEARD, NOTHING))
        return Expectation(elements=tuple(must if number in told else may for number in self._state.pages(step.span)))

    def _events(self, step: Events, _: Observation) -> Expectation:
        mirror = self._state.mirrors[step.actor]
        heard, mirror.hearing = mirror.hearing, self._state.new_hearing()
        return Expectation(hearing=heard)
