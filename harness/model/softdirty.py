# SPDX-License-Identifier: GPL-2.0-only
"""Soft-dirty marks: which pages a process has written since it cleared them.

Documentation/admin-guide/mm/soft-dirty.rst; fs/proc/task_mmu.c clear_refs_write() and pte_to_pagemap_entry(). A page
that was written is marked. One that was not need not be clean: the kernel marks pages for reasons of its own. But
what nobody has touched since the marks were cleared is clean, or they were not cleared.
"""

from __future__ import annotations

from harness.model.allowed import OK, SOFT_DIRTY_MISSED, Expectation, Whereabouts
from harness.model.memory import AddressSpace, Area, Known, Pte
from harness.model.state import Handlers, State
from harness.program.observations import Happening, Observation, Soft
from harness.program.operations import ClearSoftDirty, SoftDirty

_EITHER = frozenset(Soft)
_SOFT = {Known.YES: frozenset({Soft.DIRTY}), Known.NO: frozenset({Soft.CLEAN}), Known.MAYBE: _EITHER}


class SoftDirtyMarks:
    """Subjects look at the marks of their pages, and clear them."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {SoftDirty: self._look, ClearSoftDirty: self._clear}

    def _look(self, step: SoftDirty, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        return Expectation(elements=tuple(_shown(space, number) for number in self._state.pages(step.span)))

    def _clear(self, step: ClearSoftDirty, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        for mirror in self._state.mirrors.values():
            if mirror.space is space:
                mirror.hearing.cleared = True
                for ear in mirror.watches.values():
                    if not ear.flushes:
                        ear.hear(ear.pages)
        self._state.doubt(space, space.areas)
        for number, area in space.areas.items():
            space.tracked.add(number)
            self._state.must_hear(space, number, Happening.SOFT_DIRTY)  # clause 225
            pte = space.ptes.get(number)
            if pte is not None:
                _clear_entry(area, pte)
                if pte.page.private_home is None:
                    self._state.invalidate(space, (number,), only_writable=True)
        return OK


def _clear_entry(area: Area, pte: Pte) -> None:
    """fs/proc/task_mmu.c clear_soft_dirty()."""
    pte.missed = False
    pte.blind = pte.page.private_home is not None and pte.write is not Known.NO
    if area.hugetlb or area.special:  # clear_refs_test_walk(), clear_refs_walk_ops: it goes over some of them only
        pte.soft = Known.MAYBE
        pte.write = Known.MAYBE if pte.write is Known.YES and not area.hugetlb else pte.write
        return
    pte.soft = Known.MAYBE if pte.page.pinned or pte.huge or pte.page.strayed else Known.NO
    if pte.page.private_home is not None and not pte.page.strayed:
        return  # the permission of an entry that is not present stays
    certain = Known.MAYBE not in (pte.exclusive, pte.swapped) and not pte.page.pinned and not pte.page.strayed
    if pte.exclusive is not Known.YES:
        pte.write = Known.NO if certain or pte.write is Known.NO else Known.MAYBE


def _shown(space: AddressSpace, number: int) -> Whereabouts:
    area = space.areas.get(number)
    if area is None:
        return Whereabouts(_SOFT[Known.NO])
    if number not in space.tracked:
        return Whereabouts(_SOFT[Known.YES])  # VM_SOFTDIRTY
    pte = space.ptes.get(number)
    if number in space.traps:
        return Whereabouts(_EITHER)
    if pte is None:
        return Whereabouts(_SOFT[Known.NO])
    if pte.missed:
        return Whereabouts(_SOFT[Known.YES], ((SOFT_DIRTY_MISSED, Soft.CLEAN),))
    allowed = _EITHER if pte.huge and pte.soft is not Known.YES else _SOFT[pte.soft]
    if pte.present is Known.MAYBE:
        allowed |= _SOFT[Known.NO]
    return Whereabouts(allowed)
