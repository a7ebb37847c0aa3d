# SPDX-License-Identifier: GPL-2.0-only
"""Requests: hmm_range_fault() with a wish for each page."""

from __future__ import annotations

import errno

from harness.model import hugetlb
from harness.model.allowed import FAULTED_ALONG, HUGETLB_FIRST_PAGE, Entries, Expectation
from harness.model.along import refused_along, touch_maybe
from harness.model.memory import HUGE_PAGES, AddressSpace, Area, Known
from harness.model.state import Handlers, State
from harness.model.walk import REFUSED, Walk
from harness.program.observations import Element, Entry, Mark, Observation
from harness.program.operations import Asked, Manner, Owner, Request, other_device

# The VMAs and 2 MiB of them in which a page needs a fault, and whether for writing.
_Along = dict[tuple[Area, int], bool]


class Requests:
    """Requests by devices."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {Request: self._request}

    def _request(self, step: Request, observed: Observation) -> Expectation:
        if step.manner is Manner.STALE:
            return Expectation(frozenset({errno.EBUSY}))  # clause 52
        if step.manner is Manner.EMPTY:
            return Expectation(frozenset({errno.EINVAL}))  # clause 55
        owner = {Owner.OWN: step.actor, Owner.NOBODY: None, Owner.OTHER: other_device(step.actor)}[step.owner]
        walk = Walk(self._state, step.actor, owner, waits=step.manner is Manner.UNLOCKED)
        along = self._along(step, walk.space, owner)
        if self._fails_along(walk, step, along, observed):
            return Expectation(frozenset({0}), (), ((errno.EFAULT, FAULTED_ALONG),))
        pages = self._state.pages(step.span)
        wanted = [(number, step.asked(index)) for index, number in enumerate(pages)]
        refused = refused_along(self._state, walk, wanted, observed)
        if refused is not None:
            return refused
        failed = bool(observed.error)
        asks = [step.asked(index) for index in range(len(pages))]
        wishes = hugetlb.wishes(walk.space, pages, asks, observed.elements, failed=failed)
        overlooked = 0  # the error that there should have been before
        allowed: list[Entries] = []
        for index, (number, wish) in enumerate(zip(pages, wishes, strict=True)):
            if wish.unknown:
                overlooked = overlooked or self._overlook(walk, number, wish)
            asked = wish.heeded
            seen = observed.elements[index] if index < len(observed.elements) else None
            write = asked is Asked.BOTH
            if write and walk.is_own_readonly(number):
                entry = walk.fault_own_readonly(number, seen)
                if entry is None:
                    return Expectation(frozenset({walk.forbidden(number, write=True)}))
                allowed.append(entry)
                continue
            granted = asked in (Asked.FAULT, Asked.BOTH)
            fresh = number not in walk.space.ptes
            if granted and walk.refused(number, observed, write=write, shown=None):
                return Expectation(frozenset({0}), (), REFUSED)
            if granted and walk.withheld(number, observed, write=write, shown=None):
                return Expectation(frozenset({errno.EFAULT}))
            error = walk.grant(number, write=write) if granted else 0
            if error and overlooked:
                return Expectation(frozenset({overlooked}), (), ((error, HUGETLB_FIRST_PAGE),))
            if error:
                return Expectation(frozenset({error}))
            entry = walk.view(number, granted=granted)
            if wish.deviates:
                entry = hugetlb.deviating(entry)
            elif not write:
                entry = self._or_along(walk, along, number, entry, seen, fresh=fresh, failed=failed)
            allowed.append(entry)
        return Expectation(frozenset({overlooked}), () if overlooked else tuple(allowed))

    def _overlook(self, walk: Walk, number: int, wish: hugetlb.Wish) -> int:
        """A request that failed may have faulted the page as it was asked to, or not; the errno if it had to."""
        area = walk.space.areas[number]
        if number in walk.space.traps:
            return errno.EFAULT
        if wish.asked is Asked.BOTH and not area.prot.writable:
            return errno.EPERM
        hugetlb.touch_maybe(walk.space, number, write=wish.asked is Asked.BOTH)
        return 0

    def _along(self, step: Request, space: AddressSpace, owner: str | None) -> _Along:
        """Where a page needs a fault, and whether for writing: it is a fault of more pages, see `FAULTED_ALONG`."""
        found: _Along = {}
        pages = [(number, step.asked(index)) for index, number in enumerate(self._state.pages(step.span))]
        if len({asked for _, asked in pages}) == 1:
            return found
        for number, asked in pages:
            area = space.areas.get(number)
            if area is None or area.hugetlb or asked in (Asked.NONE, Asked.WRITE):
                continue
            pte = space.ptes.get(number)
            write = asked is Asked.BOTH
            there = (
                pte is not None
                and pte.mapped
                and pte.exclusive is Known.NO
                and pte.page.private_home in (None, owner)
            )
            segment = (area, number // HUGE_PAGES)
            if not there or segment in found or (write and pte is not None and pte.write is not Known.YES):
                found[segment] = found.get(segment, False) or write
        return found

    def _fails_along(self, walk: Walk, step: Request, along: _Along, observed: Observation) -> bool:
        """Whether a fault failed that was one of other pages, of which nothing comes back after they were reaped."""
        if not walk.space.unstable or not along or observed.error != errno.EFAULT:
            return False
        for index, number in enumerate(self._state.pages(step.span)):
            asked, area = step.asked(index), walk.space.areas.get(number)
            if asked in (Asked.FAULT, Asked.BOTH) and (
                area is None
                or not area.prot.readable
                or number in walk.space.traps
                or walk.withheld(number, observed, write=asked is Asked.BOTH, shown=None)
            ):
                return False
        for number in self._state.pages(step.span):
            if number in walk.space.ptes:
                touch_maybe(self._state, walk.space, number, write=walk.space.areas[number].prot.writable)
        return True

    def _or_along(
        self,
        walk: Walk,
        along: _Along,
        number: int,
        expected: Entries,
        seen: Element | None,
        *,
        fresh: bool,
        failed: bool,
    ) -> Entries:
        """What is shown of a page, of which less was asked than of another one. `fresh`: it was not there before."""
        space = walk.space
        area = space.areas.get(number)
        if area is None or (area, number // HUGE_PAGES) not in along or not area.prot.readable:
            return expected
        if number in space.traps:
            return expected
        write = along[area, number // HUGE_PAGES] and area.prot.writable
        if self._state.fails(space, number, write=write, waits=walk.waits):
            return expected
        if failed:
            touch_maybe(self._state, space, number, write=write)
        elif isinstance(seen, Entry) and Mark.VALID in seen.marks and not expected.admits(seen):
            write = write and Mark.WRITE in seen.marks
            if fresh:
                space.fault_in(number, write=write)  # with nothing that anybody had heard of before
            else:
                self._state.touch(space, number, write=write)
            faulted = walk.view(number, granted=True)
            return Entries(expected.shapes, tuple((FAULTED_ALONG, shape) for shape in faulted.shapes))
        return expected
