# SPDX-License-Identifier: GPL-2.0-only
"""Advice: madvise()."""

from __future__ import annotations

import errno

from harness.model import hugetlb
from harness.model.allowed import OK, Expectation
from harness.model.memory import AddressSpace, Area, Known, Trap
from harness.model.rules import POPULATE
from harness.model.state import Handlers, State
from harness.model.swapping import page_out
from harness.program.observations import Happening, Observation
from harness.program.operations import Advice, Advise

_EHWPOISON = 133  # mm/madvise.c madvise_populate()
# Advice that only marks the VMA
_AREA_FLAGS = {
    Advice.HUGEPAGE: {"hugepage": True},
    Advice.NOHUGEPAGE: {"hugepage": False},
    Advice.DONTFORK: {"dontfork": True},
    Advice.DOFORK: {"dontfork": False},
    Advice.WIPEONFORK: {"wipeonfork": True},
    Advice.KEEPONFORK: {"wipeonfork": False},
}


class Advising:
    """Advice that subjects give of their memory."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {Advise: self._advise}

    def _advise(self, step: Advise, observed: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        hole = False
        for vma, area in space.vmas(self._state.pages(step.span)):
            if area is None:
                if step.advice in POPULATE and self._state.rules.has("POPULATE_STOPS_AT_HOLE"):
                    return Expectation(frozenset({errno.ENOMEM}))
                hole = True  # mm/madvise.c madvise_walk_vmas() goes on, and says so at the end
                continue
            numbers = vma
            if area.hugetlb:
                numbers, error = hugetlb.advised(self._state.rules, vma, step.advice)
                if step.advice is Advice.DOFORK and observed.error == errno.EINVAL:
                    error = errno.EINVAL  # newer kernels refuse it to all VM_SPECIAL mappings
                elif not hugetlb.marked(space, vma, _AREA_FLAGS.get(step.advice, {})):
                    error = errno.EINVAL
                if error:
                    return Expectation(frozenset({error}))
                if step.advice is Advice.DONTNEED:
                    # What mm/hugetlb.c __unmap_hugepage_range() of 6.1 calls it, besides.
                    self._state.may_hear(space, numbers, Happening.UNMAP)
            for number in numbers:
                if step.advice in POPULATE and number in space.traps:
                    return Expectation(frozenset({errno.EFAULT, _EHWPOISON}))
                error = _refusal(step.advice, area)
                # Since 6.7 and in stable kernels, it is enough that the mapping could be made writable: VM_MAYWRITE.
                granted = error == errno.EACCES and area.shared and observed.error != errno.EACCES
                if error and not granted:
                    return Expectation(frozenset({error}))
                if step.advice in POPULATE and (
                    self._state.fail(space, number, write=step.advice is Advice.POPULATE_WRITE, waits=True)
                    or self._state.refuses(space, number)
                ):
                    return Expectation(frozenset({errno.EFAULT}))
                self._advise_page(space, number, area, step.advice)
        return Expectation(frozenset({errno.ENOMEM})) if hole else OK

    def _advise_page(self, space: AddressSpace, number: int, area: Area, advice: Advice) -> None:
        match advice:
            case Advice.DONTNEED:
                pte = self._state.clear(space, number, Happening.CLEAR)
                if pte is not None:
                    self._state.drop(pte.page)
                if space.traps.get(number) is Trap.POISON:
                    del space.traps[number]
            case Advice.GUARD_INSTALL:
                pte = self._state.clear(space, number, Happening.CLEAR)
                if pte is not None:
                    self._state.drop(pte.page)
                space.trap(number, Trap.GUARD)
            case Advice.GUARD_REMOVE:
                if space.traps.get(number) is Trap.GUARD:
                    del space.traps[number]
            case Advice.FREE:
                self._free_lazily(space, number)
            case Advice.PAGEOUT:
                page_out(self._state, space, number)
            case Advice.REMOVE:
                self._punch(area, number - area.origin)
            case Advice.POPULATE_READ:
                self._state.touch(space, number, write=False)
            case Advice.POPULATE_WRITE:
                self._state.touch(space, number, write=True)
            case _ if advice in _AREA_FLAGS:
                space.change_area(number, **_AREA_FLAGS[advice])
            case Advice.COLD | Advice.WILLNEED:
                pass

    def _free_lazily(self, space: AddressSpace, number: int) -> None:
        """mm/madvise.c madvise_free_pte_range(): a page of our own may be dropped at any later time."""
        if space.traps.get(number) is Trap.POISON and self._state.rules.has("FREE_UNPOISONS"):
            del space.traps[number]
        pte = space.ptes.get(number)
        if pte is None or pte.page.zero or (pte.page.home is not None and not pte.page.strayed):
            return  # clause 98: device pages are left alone
        if pte.swapped is Known.YES:
            self._state.clear(space, number)  # it is dropped at once
            return
        self._state.doubt(space, (number,))
        if pte.exclusive is Known.YES:
            return  # and so is what a device has to itself
        self._state.must_hear(space, number, Happening.CLEAR)
        pte.page.lazy = pte.page.unbacked = True
        pte.page.tokens |= {0}
        for other, at in pte.page.mappings:
            other.ptes[at].present = Known.MAYBE
        self._state.invalidate(space, (number,))

    def _punch(self, area: Area, index: int) -> None:
        """MADV_REMOVE: the page goes from the file and from every page table."""
        assert area.file is not None
        page = area.file.pages.pop(index, None)
        if page is not None:
            for space, number in list(page.mappings):
                self._state.clear(space, number, Happening.CLEAR)


def _refusal(advice: Advice, area: Area) -> int:
    """The errno of mm/madvise.c for a VMA that the advice does not fit, or 0."""
    match advice:
        case Advice.FREE if not area.anonymous:
            return errno.EINVAL
        case Advice.WIPEONFORK if not area.anonymous:
            return errno.EINVAL
        case Advice.REMOVE if area.file is None:
            return errno.EINVAL
        case Advice.REMOVE if not (area.shared and area.prot.writable):
            return errno.EACCES
        case Advice.POPULATE_READ if not area.prot.readable:
            return errno.EINVAL
        case Advice.POPULATE_WRITE if not area.prot.writable:
            return errno.EINVAL
    return 0
