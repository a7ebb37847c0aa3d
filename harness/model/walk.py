# SPDX-License-Identifier: GPL-2.0-only
"""What hmm_range_fault() does, page by page."""

from __future__ import annotations

import errno
from dataclasses import replace

from harness.model.allowed import OWN_FAULTED_ALONG, OWN_READONLY_WRITE, REMOTE_REFUSED, Entries, Shape
from harness.model.memory import HUGE_PAGES, WITH_HUGE, Area, Known
from harness.model.state import State
from harness.model.views import is_pfnmap, shapes_of, view
from harness.program.observations import Element, Entry, Mark, Observation
from harness.program.operations import Backing

REFUSED = ((errno.EFAULT, REMOTE_REFUSED),)  # of a step of which a page was `Walk.refused`


class Walk:
    """One call of hmm_range_fault() by `device`, which is shown the device-private memory of `owner`.

    `waits`: it may drop the mmap lock.
    """

    def __init__(self, state: State, device: str, owner: str | None, *, waits: bool = False) -> None:
        self.space = state.mirrors[device].space
        self._state = state
        self._device = device
        self._owner = owner
        self.waits = waits
        self._entries = state.mirrors[device].entries
        self._faulted: tuple[Area, int] | None = None  # the VMA and 2 MiB in which it needed a fault

    def view(self, number: int, *, granted: bool = False) -> Entries:
        """What is shown of a page. `granted`: it was asked for, so that there is an entry."""
        return view(self._state.rules, self.space, number, device=self._device, owner=self._owner, granted=granted)

    def forbidden(self, number: int, *, write: bool) -> int:
        """Why hmm_range_fault() cannot grant a page that is requested, whatever is there; an errno or 0."""
        area = self.space.areas.get(number)
        if area is None:
            return errno.EFAULT  # clause 34
        if (area.hugetlb or area.special) and self._state.rules.hugetlb_error:
            # kmod/seed.c hh_fault_piece() says first whether the access is permitted.
            refused = write and area.prot.readable and not area.prot.writable
            return errno.EPERM if refused else self._state.rules.hugetlb_error
        if is_pfnmap(self._state.rules, area):
            return errno.EFAULT  # clauses 56 and 57
        if not area.prot.readable:
            return self._state.rules.unreadable_error  # clauses 35 and 36
        if write and not area.prot.writable:
            return errno.EPERM  # clause 36
        if number in self.space.traps or area.pageless:
            return errno.EFAULT  # clauses 45, 46, 56 and 57
        # Clauses 47 and 58
        return errno.EFAULT if self._state.fails(self.space, number, write=write, waits=self.waits) else 0

    def is_own(self, number: int) -> bool:
        """Whether the page is in the owner's private memory for all that is known: never faulted, clause 48."""
        pte = self.space.ptes.get(number)
        return pte is not None and pte.page.private_home is not None and pte.page.home == self._owner

    def needs_fault(self, number: int, *, write: bool) -> bool:
        """Whether a page that is requested, and can be granted, may have to be faulted for it."""
        pte = self.space.ptes.get(number)
        if self.is_own(number):
            return False
        return (
            pte is None
            or not pte.mapped
            or pte.exclusive is not Known.NO
            or pte.page.private_home is not None
            or (write and pte.write is not Known.YES)
        )

    def grant(self, number: int, *, write: bool) -> int:
        """What hmm_range_fault() does for one page that is requested; returns an errno or 0."""
        error = self.forbidden(number, write=write)
        if error:
            area = self.space.areas.get(number)
            if error == errno.EFAULT and area is not None and area.prot.readable and not self.is_own(number):
                pte = self.space.ptes.get(number)
                if pte is not None and pte.page.private_home and not self._state.rules.has("MIGRATE_FAULT_PAGE"):
                    self._state.stray(pte.page, WITH_HUGE)  # or it was `REMOTE_REFUSED`, which comes to the same
                else:
                    self._state.fail(self.space, number, write=write, waits=self.waits)
                if area.backing is Backing.MIXEDMAP:
                    self._touch_special(number, area, write=write)
            return error
        segment = (self.space.areas[number], number // HUGE_PAGES)
        if self.is_own(number):
            page = self.space.ptes[number].page
            if self._faulted == segment and not page.strayed:
                self._state.stray(page, OWN_FAULTED_ALONG)
            return 0
        if self.needs_fault(number, write=write):
            self._faulted = segment
        if self._state.refuses(self.space, number):
            return errno.EFAULT
        self._state.touch(self.space, number, write=write)
        return 0

    def _touch_special(self, number: int, area: Area, *, write: bool) -> None:
        """A fault brings the entry of a page before it is seen that nobody may have it, and of those behind it."""
        self._state.touch(self.space, number, write=write)
        for near in range(number + 1, number - number % HUGE_PAGES + HUGE_PAGES):
            if self.space.areas.get(near) == area and near not in self.space.ptes:
                self._state.touch(self.space, near, write=write).present = Known.MAYBE

    def enter(self, number: int, *, write: bool) -> int:
        """What hmm_range_fault() does for one page that is requested, and then entered; returns an errno or 0."""
        error = self.grant(number, write=write)
        if not error:
            self.keep(number)
        return error

    def keep(self, number: int) -> None:
        """The page that is there goes into the device's page table."""
        pte = self.space.ptes[number]
        self._entries[number] = (pte.page, pte.write)

    def refused(self, number: int, observed: Observation, *, write: bool, shown: int | None) -> bool:
        """Whether a kernel that leaves another device's page where it is stopped here: `REMOTE_REFUSED`.

        `shown`: how many pages before this one the step shows, None if it shows none whatever comes of it.
        """
        pte = self.space.ptes.get(number)
        if (
            self._state.rules.has("MIGRATE_FAULT_PAGE")
            or observed.error != errno.EFAULT
            or pte is None
            or pte.page.private_home in (None, self._owner)
            or not self.space.areas[number].prot.readable
            or self.forbidden(number, write=write) == errno.EFAULT  # which it is anyway
        ):
            return False
        if shown is not None:
            return len(observed.elements) == shown
        # A fault before it would have brought it along.
        if self._faulted == (self.space.areas[number], number // HUGE_PAGES):
            return False
        self._state.stray(pte.page, REMOTE_REFUSED)  # or was it one of those that follow?
        return True

    def withheld(self, number: int, observed: Observation, *, write: bool, shown: int | None) -> bool:
        """Whether the page cannot come back to a process that was reaped: mm/memory.c check_stable_address_space().

        `shown`: as of `refused`.
        """
        area = self.space.areas.get(number)
        pte = self.space.ptes.get(number)
        if not self.space.unstable or area is None or area.shared or number in self.space.traps:
            return False
        if area.hugetlb:  # mm/hugetlb.c hugetlb_no_page() does not look
            return False
        if not area.prot.readable or (write and not area.prot.writable):
            return False
        if pte is None and (write or area.anonymous):
            return True
        if pte is not None and pte.present is Known.YES:
            return False
        # Of a file, what its cache has may be mapped along: filemap_map_pages() does not look.
        return observed.error == errno.EFAULT and (shown is None or len(observed.elements) == shown)

    def is_own_readonly(self, number: int) -> bool:
        """Whether the page is in the owner's private memory, and read-only for all that is known."""
        pte = self.space.ptes.get(number)
        area = self.space.areas.get(number)
        if pte is None or area is None or pte.page.private_home is None or pte.page.home != self._owner:
            return False
        if not area.prot.readable:
            return False
        return pte.write is not Known.YES or not area.prot.writable

    def fault_own_readonly(self, number: int, seen: Element | None) -> Entries | None:
        """A write fault on the owner's own read-only page: write permission, or what `forbidden` says (None).

        Clauses 29 and 36.
        """
        here = tuple(replace(shape, marks=shape.marks & ~Mark.WRITE) for shape in self.view(number).shapes)
        readonly: tuple[tuple[str, Shape], ...] = ((OWN_READONLY_WRITE, here[0]),)
        if self.space.ptes[number].huge:  # and then it may be `OWN_HUGE_SHIFTED` as well
            readonly += ((OWN_READONLY_WRITE, replace(here[0], marks=here[0].marks | Mark.SHIFTED)),)
        error = self.forbidden(number, write=True)
        if error and seen is None:
            if error == errno.EFAULT:  # a driver that asks as a CPU would brings it home before that is seen
                self._state.stray(self.space.ptes[number].page, WITH_HUGE)
            return None
        if error:
            return Entries((), readonly)
        writable = [replace(here[0], marks=here[0].marks | Mark.WRITE)]
        writable += shapes_of(self.space.ptes[number].page, Known.YES, local=False, huge=False)
        if isinstance(seen, Entry) and Mark.WRITE in seen.marks:
            if seen.marks & (Mark.LOCAL | Mark.REMOTE):
                self.space.ptes[number].write = Known.YES
            else:
                self._state.touch(self.space, number, write=True)
        return Entries(tuple(writable), readonly)
