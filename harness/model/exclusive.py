# SPDX-License-Identifier: GPL-2.0-only
"""Exclusive access: pages that a device has to itself, until a CPU touches them.

The page stays where it is in memory, be that coherent memory of a device. What the CPU's page table has in its place
lets no CPU access it, and is shown to devices as nothing: clauses 51 and 108, mm/rmap.c make_device_exclusive() and,
before v6.15, make_device_exclusive_range().
"""

from __future__ import annotations

import errno

from harness.model import hugetlb
from harness.model.allowed import NOTHING, Entries, Expectation, Shape
from harness.model.along import touch_maybe
from harness.model.memory import HUGE_PAGES, AddressSpace, Known, Page, Pte
from harness.model.rules import Rules
from harness.model.state import Handlers, State
from harness.program.observations import Element, Entry, Happening, Mark, Observation
from harness.program.operations import COHERENT, Backing, Exclusive, Held


def shown_exclusive(rules: Rules, page: Page, device: str) -> tuple[Shape, ...]:
    """What `device` shows of a page that it has to itself: kmod/table.c hh_table_store_exclusive().

    It stays in coherent memory if it is there, of whichever device: mm/rmap.c make_device_exclusive() does not ask.
    """
    marks = Mark.VALID | Mark.WRITE | Mark.EXCLUSIVE
    here = Mark.LOCAL if page.home == device else Mark.REMOTE
    if page.home not in COHERENT or not rules.exclusive_home:
        return (Shape(marks),)
    return (Shape(marks | here), Shape(marks)) if page.strayed else (Shape(marks | here),)


def also_exclusive(entry: Entries, exclusive: tuple[Shape, ...], *, sure: bool) -> Entries:
    """What the device's table may show of a page that it has to itself. Unless that is `sure`, `entry` as well."""
    return Entries((NOTHING, *exclusive) if sure else (*entry.shapes, *exclusive), entry.deviating)


class Own:
    """One access by `device` to a span of pages, some of which it may have to itself: these need no fault."""

    def __init__(self, state: State, device: str) -> None:
        self._state = state
        self._mirror = state.mirrors[device]
        self._faulted = False  # it may have faulted, and then to the end of the span: kmod/access.c, lib/test_hmm.c

    def has(self, number: int, observed: Observation, *, shown: int) -> bool:
        """Whether the device has the page, so that it accesses what is there without more ado.

        To be asked page by page. `shown`: how many pages before this one the step shows.
        """
        sure = self._mirror.held.get(number)
        if sure is None:
            self._faulted = True
            return False
        if sure and not self._faulted:
            return True
        self._faulted = True
        space = self._mirror.space
        if not space.areas[number].prot.readable and observed.error and len(observed.elements) == shown:
            return False  # it was lost, and cannot be got
        self._state.doubt(space, (number,))
        self._state.may_take_back(space, number)
        return True


class Exclusives:
    """Devices ask for pages of their own."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {Exclusive: self._exclusive, Held: self._held}

    def _held(self, step: Held, _: Observation) -> Expectation:
        mirror = self._state.mirrors[step.actor]
        allowed: list[Entries] = []
        for number in self._state.pages(step.span):
            held = mirror.held.get(number)
            shapes = () if held is None else shown_exclusive(self._state.rules, mirror.entries[number][0], step.actor)
            allowed.append(Entries(shapes if held else (NOTHING, *shapes)))
        return Expectation(elements=tuple(allowed))

    def _exclusive(self, step: Exclusive, observed: Observation) -> Expectation:
        space = self._state.mirrors[step.actor].space
        allowed: list[Entries] = []
        for index, number in enumerate(self._state.pages(step.span)):
            seen = observed.elements[index] if index < len(observed.elements) else None
            error = self._ask(space, number, observed, shown=index)
            if error:
                if error == self._state.rules.exclusive_refusal:
                    self._touch_behind(step, number)
                return Expectation(frozenset({error}), tuple(allowed))
            pte = space.ptes[number]
            if not self._grantable(space, number):  # the older function does not say why
                allowed.append(Entries((NOTHING,)))
                continue
            if pte.huge:
                failed = self._split(step.actor, space, number, observed.error)
                if failed and len(observed.elements) == index:
                    self._take_behind(step, number, observed)
                    return Expectation(frozenset({0, failed}), tuple(allowed))
            shapes = shown_exclusive(self._state.rules, pte.page, step.actor)
            if self._is_tail(pte, seen):
                pte.exclusive, pte.along = Known.MAYBE, True
                allowed.append(Entries((NOTHING, *shapes)))
                continue
            self._take(step.actor, space, number)
            allowed.append(Entries((*shapes, NOTHING) if self._tails(pte) else shapes))
        return Expectation(elements=tuple(allowed))

    def _ask(self, space: AddressSpace, number: int, observed: Observation, *, shown: int) -> int:
        """The kernel gets the page as for a write by the CPU; an errno or 0."""
        rules = self._state.rules
        one = rules.has("MAKE_DEVICE_EXCLUSIVE")
        refusal = None if one else rules.exclusive_refusal
        area = space.areas.get(number)
        if area is not None and area.hugetlb and (one or observed.error == errno.EOPNOTSUPP):
            return errno.EOPNOTSUPP  # mm/gup.c check_vma_flags() since 6.8, before anything else is looked at
        if area is None or not area.prot.writable or number in space.traps or area.backing is Backing.PFNMAP:
            return refusal or errno.EFAULT  # mm/gup.c check_vma_flags(), faultin_page()
        if area.hugetlb and refusal:
            return refusal  # of what before it is not said
        pte = space.ptes.get(number)
        if space.unstable and not area.shared and not area.hugetlb:  # mm/memory.c check_stable_address_space()
            failed = observed.error == (refusal or errno.EFAULT) and len(observed.elements) == shown
            if pte is None or (pte.present is Known.MAYBE and failed):
                return refusal or errno.EFAULT
        if self._state.fail(space, number, write=True) or self._state.refuses(space, number):
            return refusal or errno.EFAULT
        self._state.touch(space, number, write=True)
        if area.special:  # mm/gup.c follow_pfn_pte(): EFAULT until 5.17
            return refusal or (errno.EFAULT if observed.error == errno.EFAULT else errno.EEXIST)
        if self._grantable(space, number):
            return 0
        return errno.EOPNOTSUPP if one else refusal or 0

    def _touch_behind(self, step: Exclusive, number: int) -> None:
        """All pages are asked for at once: those behind one that is not granted may have been faulted in as well.

        lib/test_hmm.c dmirror_exclusive() before v6.15. Of a hugetlb page none was since 6.8: mm/gup.c
        check_vma_flags().
        """
        space = self._state.mirrors[step.actor].space
        for near in self._state.pages(step.span):
            if near < number:
                continue
            area = space.areas.get(near)
            if area is None or area.special or not area.prot.writable or near in space.traps:
                return
            if self._state.fails(space, near, write=True) or self._state.refuser(space, near):
                return
            if area.hugetlb:
                hugetlb.touch_maybe(space, near, write=True)
            elif near != number:
                touch_maybe(self._state, space, near, write=True)

    def _grantable(self, space: AddressSpace, number: int) -> bool:
        """Anonymous memory but for hugetlb pages: clause 108."""
        return space.ptes[number].page.anonymous and not space.areas[number].hugetlb

    def _take(self, device: str, space: AddressSpace, number: int) -> None:
        """The page becomes the device's."""
        mirror = self._state.mirrors[device]
        pte = space.ptes[number]
        self._state.must_hear(space, number, Happening.EXCLUSIVE, by=device)
        self._state.invalidate(space, (number,))
        pte.exclusive = Known.YES
        mirror.entries[number] = (pte.page, Known.YES)
        mirror.held[number] = self._state.rules.exclusive_kept
        mirror.held_coherent = mirror.held_coherent or pte.page.home in COHERENT

    def _take_behind(self, step: Exclusive, failed: int, observed: Observation) -> None:
        """It may have got any page behind the one that failed: all are asked for at once before each is by itself.

        lib/test_hmm.c dmirror_exclusive(), harness/guest/executor/test_hmm.c exclusive()
        """
        mirror = self._state.mirrors[step.actor]
        space = mirror.space
        for number in self._state.pages(step.span):
            if number <= failed:
                continue
            if self._ask(space, number, observed, shown=len(observed.elements)):
                return
            if not self._grantable(space, number):
                continue
            pte = space.ptes[number]
            if pte.huge:
                self._split(step.actor, space, number, 0)
            pte.exclusive, pte.along = Known.MAYBE, False
            self._state.may_hear(space, (number,), Happening.EXCLUSIVE, by=step.actor)
            self._state.may_hear(space, (number,), Happening.EXCLUSIVE)
            mirror.entries[number] = (pte.page, Known.YES)
            mirror.held[number] = False

    # Huge pages are mapped as small ones first. The older function takes all of such a page from the CPU when it is
    # asked for the first of it, and grants no other: EXCLUSIVE_WHOLE.

    def _tails(self, pte: Pte) -> bool:
        return pte.huge and not self._state.rules.has("MAKE_DEVICE_EXCLUSIVE")

    def _is_tail(self, pte: Pte, seen: Element | None) -> bool:
        return self._tails(pte) and not (isinstance(seen, Entry) and Mark.EXCLUSIVE in seen.marks)

    def _split(self, device: str, space: AddressSpace, number: int, error: int) -> int:
        """What becomes of the rest of a huge page. Returns the errno by which a driver may say that it got none."""
        first = number - number % HUGE_PAGES
        self._state.doubt(space, [near for near in range(first, first + HUGE_PAGES) if near != number])
        if self._state.rules.has("MAKE_DEVICE_EXCLUSIVE"):
            return 0
        self._state.may_hear(space, range(number, number + HUGE_PAGES), Happening.EXCLUSIVE, by=device)
        self._state.may_hear(space, range(first, first + HUGE_PAGES), Happening.EXCLUSIVE)
        for near in range(first, first + HUGE_PAGES):
            pte = space.ptes.get(near)
            if near != number and pte is not None and pte.huge:
                pte.exclusive, pte.along = Known.MAYBE, True
        refusal = self._state.rules.exclusive_refusal or 0
        return refusal if error == refusal else 0
