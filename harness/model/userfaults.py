# SPDX-License-Identifier: GPL-2.0-only
"""Userfaultfds: memory of which user space says what is there, and what may be written.

hmm_range_fault() keeps the mmap lock, so that nobody can be waited for: where a userfaultfd would be asked, it fails
(clause 47). What such an access comes to is in `State.fails`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from harness.model.allowed import OK, WP_MOVED, Expectation
from harness.model.memory import AddressSpace, Known, Pte
from harness.model.state import Handlers, State
from harness.model.subjects import write_after_protect
from harness.program.observations import Happening, Observation
from harness.program.operations import (
    Bring,
    BringZeros,
    Register,
    Shift,
    Span,
    Userfault,
    WriteProtect,
    WriteUnprotect,
)


class Userfaults:
    """What userfaultfds are asked about, and what is done for who waits for them: fs/userfaultfd.c."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {
            Register: self._register, Bring: self._bring, BringZeros: self._bring_zeros,
            WriteProtect: self._protect, WriteUnprotect: self._unprotect, Shift: self._shift,
        }  # fmt: skip

    def _register(self, step: Register, _: Observation) -> Expectation:
        """userfaultfd_register(): holes are left out, but there has to be something."""
        space = self._state.spaces[step.actor]
        mapped = [number for number in self._state.pages(step.span) if number in space.areas]
        for number in mapped:
            space.change_area(number, userfault=step.userfault)
        if not mapped:
            return Expectation(frozenset({errno.EINVAL}))
        entries = [space.ptes[number] for number in mapped if number in space.ptes]
        kept = [pte for pte in entries if pte.uffd_kept] if step.userfault is Userfault.WP else []
        for pte in kept:
            pte.uffd_wp = True
        return Expectation(deviating_errors=((0, WP_MOVED),)) if kept else OK

    def _bring(self, step: Bring, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        first = self._state.pages(step.span).start
        return self._fill(space, step.span, lambda number: space.bring(number, step.token + number - first))

    def _bring_zeros(self, step: BringZeros, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]

        def fill(number: int) -> None:
            if space.areas[number].shared:
                space.bring(number, 0)
            else:
                space.set(number, Pte(space.zero, Known.NO))

        return self._fill(space, step.span, fill)

    def _fill(self, space: AddressSpace, span: Span, fill: Callable[[int], None]) -> Expectation:
        """mm/userfaultfd.c mfill_atomic(), for any mapping that some userfaultfd is asked about, whatever about."""
        for number in self._state.pages(span):
            area = space.areas.get(number)
            if area is None or area.userfault is None:
                return Expectation(frozenset({errno.ENOENT}))
            if space.behind_end(number):
                return Expectation(frozenset({errno.EFAULT}))
            cached = area.file is not None and number - area.origin in area.file.pages
            if number in space.ptes or cached:
                return Expectation(frozenset({errno.EEXIST}))
            fill(number)
        return OK

    def _shift(self, step: Shift, observed: Observation) -> Expectation:
        """mm/userfaultfd.c move_pages(), of one page."""
        space = self._state.spaces[step.actor]
        (to,), (source,) = self._state.pages(step.span), self._state.pages(step.source)
        errors = _shift_errors(space, to, source)
        if 0 in errors and observed.error not in errors - {0}:
            pte = self._state.clear(space, source, Happening.CLEAR)
            assert pte is not None
            write = Known.NO if pte.page.zero else Known.MAYBE if pte.or_zero else Known.YES
            space.set(to, Pte(pte.page, write, or_zero=pte.or_zero))
        return Expectation(errors)

    def _protect(self, step: WriteProtect, _: Observation) -> Expectation:
        def protect(space: AddressSpace, number: int) -> None:
            pte = space.ptes.get(number)
            if pte is None:
                return  # mm/userfaultfd.c: only what is there, in anonymous memory
            if pte.write is Known.YES:
                self._state.must_hear(space, number, Happening.PROTECTION_VMA)
            self._state.invalidate(space, (number,), only_writable=True)
            pte.uffd_wp = True
            pte.write = Known.NO

        return self._change(step, protect)

    def _unprotect(self, step: WriteUnprotect, _: Observation) -> Expectation:
        def unprotect(space: AddressSpace, number: int) -> None:
            pte = space.ptes.get(number)
            if pte is not None:
                pte.uffd_wp = False
                pte.write = write_after_protect(pte, space.areas[number])

        return self._change(step, unprotect)

    def _change(
        self, step: WriteProtect | WriteUnprotect, change: Callable[[AddressSpace, int], None]
    ) -> Expectation:
        """mm/userfaultfd.c mwriteprotect_range(), which is a change of protection: mm/mprotect.c."""
        space = self._state.spaces[step.actor]
        for number in self._state.pages(step.span):
            area = space.areas.get(number)
            if area is None or area.userfault is not Userfault.WP:
                return Expectation(frozenset({errno.ENOENT}))
            if space.has_tables_near(number):
                self._state.may_hear(space, (number,), Happening.PROTECTION_VMA)
            change(space, number)
        return OK


def _shift_errors(space: AddressSpace, to: int, source: int) -> frozenset[int]:
    """How a move of page `source` to `to` may end; 0: it moves."""
    target, area, pte = space.areas.get(to), space.areas.get(source), space.ptes.get(source)
    if target is None or area is None:
        return frozenset({errno.EINVAL, errno.ENOENT})  # as soon as one of them is found to be missing
    unanswered = target.userfault in (Userfault.MISSING, Userfault.WP)  # by the userfaultfd that is asked
    if area.prot is not target.prot or not area.prot.writable or not unanswered:
        return frozenset({errno.EINVAL})  # validate_move_areas()
    if to in space.ptes:
        return frozenset({errno.EEXIST, errno.ENOENT}) if pte is None else frozenset({errno.EEXIST})
    if pte is None:
        return frozenset({errno.ENOENT})
    errors = {0}
    if pte.page.private_home is not None or pte.exclusive is not Known.NO:  # clause 104: no entry of a swapped page
        known = pte.page.strayed is None and pte.exclusive is not Known.MAYBE
        errors = {errno.EFAULT} if known else {0, errno.EFAULT}
    elif pte.page.pinned or len(pte.page.mappings) > 1:
        errors = {errno.EBUSY}
    elif pte.write is not Known.YES and not pte.page.zero:
        errors = {0, errno.EBUSY}  # PageAnonExclusive(): it may have been shared before
    return frozenset(errors | ({errno.ENOENT} if pte.present is Known.MAYBE else set()))
