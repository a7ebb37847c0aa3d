# SPDX-License-Identifier: GPL-2.0-only
"""DMA: pages that devices map with hmm_dma_map_pfn(), until they are invalidated."""

from __future__ import annotations

import errno
from dataclasses import replace

from harness.model.allowed import NOTHING, OK, Entries, Expectation, Shape
from harness.model.along import refused_along
from harness.model.memory import Pte
from harness.model.state import DmaView, Handlers, State
from harness.model.views import entries_of
from harness.model.walk import REFUSED, Walk
from harness.program.observations import Mark, Observation
from harness.program.operations import COHERENT, Access, Asked, DmaMap, DmaTable, DmaUnmap, Owner, other_device


class Dma:
    """What devices map for DMA, each range for itself."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {DmaMap: self._map, DmaTable: self._table, DmaUnmap: self._unmap}

    def _map(self, step: DmaMap, observed: Observation) -> Expectation:
        """All pages or none: a fault of one that fails leaves the others as they were."""
        owner = {Owner.OWN: step.actor, Owner.NOBODY: None, Owner.OTHER: other_device(step.actor)}[step.owner]
        dma = self._state.mirrors[step.actor].dma.setdefault(step.span, DmaView())
        walk = Walk(self._state, step.actor, owner)
        write = step.access is Access.WRITE
        allowed: list[Entries] = []
        numbers = tuple(self._state.pages(step.span))
        asked = Asked.BOTH if write else Asked.FAULT
        refused = refused_along(self._state, walk, [(number, asked) for number in numbers], observed)
        if refused is not None:
            return refused
        for index, number in enumerate(numbers):
            seen = observed.elements[index] if index < len(observed.elements) else None
            if write and walk.is_own_readonly(number):
                entry = walk.fault_own_readonly(number, seen)
                if entry is None:
                    return Expectation(frozenset({walk.forbidden(number, write=True)}))
                allowed.append(_mapped(entry))
                continue
            if walk.refused(number, observed, write=write, shown=None):
                return Expectation(frozenset({0}), (), REFUSED)
            if walk.withheld(number, observed, write=write, shown=None):
                return Expectation(frozenset({errno.EFAULT}))
            error = walk.grant(number, write=write)
            if error:
                return Expectation(frozenset({error}))
            allowed.append(_mapped(walk.view(number, granted=True)))
        dma.owner = owner
        dma.entries = {number: (walk.space.ptes[number].page, walk.space.ptes[number].write) for number in numbers}
        return Expectation(elements=tuple(allowed))

    def _table(self, step: DmaTable, _: Observation) -> Expectation:
        mirror = self._state.mirrors[step.actor]
        dma = mirror.dma[step.span]
        allowed: list[Entries] = []
        for number in self._state.pages(step.span):
            if number not in dma.entries:
                allowed.append(Entries((NOTHING,)))
                continue
            page, write = dma.entries[number]
            pte = mirror.space.ptes.get(number)
            # Of a huge page in a device's memory, what was mapped may be `OWN_HUGE_SHIFTED`.
            huge = pte is not None and pte.page is page and pte.huge
            entered = Pte(page, write, huge=huge, or_zero=pte is not None and pte.or_zero)
            looks = step.actor if page.home in COHERENT else dma.owner or ""
            entries = entries_of(entered, looks, huge=True, missing=True)
            if page.home not in (None, step.actor):
                entries = _of_other(entries)
            allowed.append(_mapped(entries))
        return Expectation(elements=tuple(allowed))

    def _unmap(self, step: DmaUnmap, _: Observation) -> Expectation:
        dma = self._state.mirrors[step.actor].dma.pop(step.span, None)
        if dma is None:  # the process had exited before anything could be mapped
            return Expectation(frozenset({errno.ENOENT}))
        return OK


def _of_other(entries: Entries) -> Entries:
    """`entries` of a page in the memory of another device, as which the driver looked."""
    return Entries(
        tuple(
            replace(shape, marks=shape.marks & ~Mark.LOCAL | Mark.REMOTE) if Mark.LOCAL in shape.marks else shape
            for shape in entries.shapes
        ),
        entries.deviating,
    )


def _mapped(entries: Entries) -> Entries:
    """`entries` of a page that is mapped for DMA, where there is one: each page for itself, whatever the CPU has."""
    return Entries(
        tuple(map(_with_address, entries.shapes)),
        tuple((name, _with_address(shape)) for name, shape in entries.deviating),
    )


def _with_address(shape: Shape) -> Shape:
    return replace(shape, marks=shape.marks | Mark.DMA, whole=False) if Mark.VALID in shape.marks else shape
