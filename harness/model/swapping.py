# SPDX-License-Identifier: GPL-2.0-only
"""Pages that go out of memory: MADV_PAGEOUT, with swap space and without.

mm/madvise.c madvise_cold_or_pageout_pte_range() and mm/vmscan.c reclaim_pages(). There is swap space in programs that
have a `SwapOut` only. What the kernel wants to keep it keeps; but a page that one process has, and nobody holds, has
no reason to stay, be it mirrored by devices or not.
"""

from __future__ import annotations

import errno

from harness.model.allowed import Expectation, Whereabouts
from harness.model.memory import AddressSpace, Known, Page, Pte
from harness.model.state import Handlers, State
from harness.program.observations import Element, Happening, Observation, Residence
from harness.program.operations import SwapOut

_IN = frozenset({Residence.IN})
_OUT = frozenset({Residence.OUT})
_EITHER = _IN | _OUT


class Swapping:
    """Subjects swap their memory out."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {SwapOut: self._swap_out}

    def _swap_out(self, step: SwapOut, observed: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        numbers = self._state.pages(step.span)
        areas = [space.areas.get(number) for number in numbers]
        if any(area is not None and area.hugetlb for area in areas):
            return Expectation(frozenset({errno.EINVAL}))
        if None in areas:  # what is behind a hole goes as well
            for number, area in zip(numbers, areas, strict=True):
                if area is not None:
                    page_out(self._state, space, number)
            return Expectation(frozenset({errno.ENOMEM}))
        seen: list[Element | None] = [*observed.elements, *(None for _ in numbers)]
        return Expectation(
            elements=tuple(
                Whereabouts(page_out(self._state, space, number, element, firmly=True))
                for number, element in zip(numbers, seen, strict=False)
            )
        )


def page_out(
    state: State, space: AddressSpace, number: int, seen: Element | None = None, *, firmly: bool = False
) -> frozenset[Residence]:
    """What the advice does to one page, and where it may be then.

    `firmly`: it is given until it is followed, if it is at all; as far as that is not certain, it is what is `seen`.
    """
    pte = space.ptes.get(number)
    if number in space.traps:
        return _EITHER  # whatever mincore() calls them
    if pte is None:
        return _EITHER if space.behind(number) is not None else _OUT  # what is not mapped is left where it is
    page = pte.page
    if page.forgotten:  # for the kernel it may be one that was never written: `DIRTY_LOST`
        for other, at in page.mappings:
            other.ptes[at].present = Known.MAYBE
    allowed = _allowed(page, pte)
    if allowed is _IN or page.zero or pte.swapped is Known.YES:
        return allowed
    gone = firmly and (allowed is _OUT or seen is not Residence.IN)
    if not page.anonymous:
        _unmap(state, page, gone=gone)
        if state.swaps and not space.areas[number].special:
            # What was never written is dropped.
            page.paged = Known.YES if gone and 0 not in page.tokens else Known.MAYBE
    elif state.swaps:
        if page.home is not None and gone:
            state.bring_home(page, now=False)
        state.swap_out(space, number, known=Known.YES if gone else Known.MAYBE)
    return allowed


def _allowed(page: Page, pte: Pte) -> frozenset[Residence]:
    """Where a page that is mapped may be after the advice."""
    if page.strayed is not None or pte.or_zero or pte.exclusive is Known.MAYBE or pte.huge:
        return _EITHER
    if page.zero:
        return _IN if pte.mapped else _EITHER
    if page.home is not None or pte.exclusive is Known.YES:
        return _IN  # no LRU list has a page of a device, and what a device has to itself is not mapped
    if page.pinned and page.anonymous:
        return _IN  # mm/vmscan.c shrink_folio_list(), folio_maybe_dma_pinned()
    if page.lazy or page.pinned or not pte.mapped:
        return _EITHER
    others = [space.ptes[number] for space, number in page.mappings]
    others.remove(pte)
    if not others:
        return _OUT
    # "Do not interfere with other mappings of this page"
    return _IN if any(other.mapped and not other.huge for other in others) else _EITHER


def _unmap(state: State, page: Page, *, gone: bool) -> None:
    """A page of a file, or of shared memory, is `gone`, or may have been unmapped; it is found where it was then."""
    for space, number in list(page.mappings):
        if gone:
            state.clear(space, number, Happening.CLEAR)
        else:
            space.ptes[number].present = Known.MAYBE
