# SPDX-License-Identifier: GPL-2.0-only
"""What user space is told of its pages: fs/proc/task_mmu.c pte_to_pagemap_entry(), mm/mincore.c do_mincore()."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from harness.model.allowed import Expectation, Whereabouts
from harness.model.memory import AddressSpace, Known, Pte
from harness.model.state import Handlers, State
from harness.program.observations import Observation, Told
from harness.program.operations import Backing, Pagemap


class Pagemaps:
    """Subjects ask what is told of their pages."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {Pagemap: self._pagemap}

    def _pagemap(self, step: Pagemap, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        numbers = self._state.pages(step.span)
        if any(number not in space.areas for number in numbers):
            return Expectation(frozenset({errno.ENOMEM}))  # mm/mincore.c do_mincore()
        return Expectation(elements=tuple(Whereabouts(frozenset(_told(space, number))) for number in numbers))


def _told(space: AddressSpace, number: int) -> Iterator[Told]:
    """What may be told of a page."""
    pte = space.ptes.get(number)
    if space.areas[number].backing is Backing.PFNMAP:
        yield Told.NOTHING  # mm/pagewalk.c walk_page_test(): its entries are not looked at
        if pte is not None:
            yield Told.CACHED  # but since 7.3 by mm/mincore.c do_mincore(), walk_page_range_vma()
        return
    if number in space.traps:
        # Poison is an entry of something, a guard a marker of nothing, or a page of a file: kernels differ in them.
        yield from set(Told) - {Told.PRESENT}
        return
    if pte is None or pte.present is Known.MAYBE:
        area = space.areas[number]
        yield Told.NOTHING
        if area.file is not None and number - area.origin in area.file.pages:
            yield Told.CACHED
    if pte is not None:
        yield from _told_of_entry(pte)


def _told_of_entry(pte: Pte) -> Iterator[Told]:
    if pte.swapped is not Known.NO:
        yield Told.SWAP
        yield Told.SWAP_IN_CORE  # the swap cache has it
    if pte.swapped is Known.YES:
        return
    if pte.exclusive is not Known.NO or pte.page.private_home is not None:
        yield Told.SWAP_IN_CORE  # clause 100
    if pte.exclusive is Known.YES:
        return
    if pte.page.private_home is None or pte.page.strayed is not None or pte.or_zero:
        yield Told.PRESENT
