# SPDX-License-Identifier: GPL-2.0-only
"""Migration: pages move into and out of the memory of devices."""

from __future__ import annotations

import errno

from harness.model.allowed import NOTHING, SNAPSHOT_CUT, WP_ZERO_LOST, Count, Entries, Expectation, Shape
from harness.model.memory import HUGE_PAGES, WITH_HUGE, AddressSpace, Known, Page, Pte
from harness.model.state import Handlers, State
from harness.model.views import counted
from harness.program.observations import NO_MARKS, Element, Entry, Happening, Mark, Observation
from harness.program.operations import COHERENT, MAX_PAGES, MAX_SUBJECTS, Evict, ToDevice, ToDeviceShort, ToSystem


class Migration:
    """Migrations that a device asks for."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {
            ToDevice: self._to_device, ToDeviceShort: self._to_device, ToSystem: self._to_system,
            Evict: self._evict,
        }  # fmt: skip

    def _to_device(self, step: ToDevice | ToDeviceShort, observed: Observation) -> Expectation:
        expectation = self._move_to_device(step, observed)
        self._state.restored(self._state.mirrors[step.actor].space, self._state.pages(step.span))
        return expectation

    def _move_to_device(self, step: ToDevice | ToDeviceShort, observed: Observation) -> Expectation:
        mirror = self._state.mirrors[step.actor]
        space = mirror.space
        capacity = self._state.rules.room(step.actor)
        cut = False
        # What there is no memory for stays where it is.
        room = MAX_PAGES * MAX_SUBJECTS if capacity is None else capacity - len(self._state.residents(step.actor))
        allowed: list[Entries] = []
        short = Known.YES if isinstance(step, ToDeviceShort) else Known.NO
        split = -1  # number of the 2 MiB that move as small pages only
        for index, number in enumerate(self._state.pages(step.span)):
            area = space.areas.get(number)
            if area is None or area.hugetlb or area.special or not area.prot.readable:  # clause 64
                return Expectation(frozenset({errno.EINVAL}), self._if_moves_shown(allowed))
            seen = observed.elements[index : index + 1]
            unsure = self._settle_exclusive(space, number, seen)
            moves = room > 0 and self._migratable(space, number)
            if number in space.ptes:
                self._state.collected(space.ptes[number].page)
            self._state.may_migrate(space, (number,), step.actor, Happening.TO_DEVICE)
            if moves and self._is_gone(space, number, () if short is Known.YES else seen):
                if short is Known.YES:  # it is not there, or it is the one that there is no memory for
                    short = Known.MAYBE
                    allowed.append(Entries((NOTHING,)))
                else:
                    allowed.append(Entries((Shape(Mark.MOVED | Mark.LOCAL), NOTHING)))
                continue
            loses = moves and self._loses_protection(space, number)
            whole = self._is_whole(space, number, step) and number // HUGE_PAGES != split
            if moves and self._may_stay_cached(space, number):
                if self._state.rules.shows_moves and seen and not _moved(seen):
                    short = Known.MAYBE if short is Known.YES else short
                    allowed.append(Entries((Shape(Mark.MOVED | Mark.LOCAL), NOTHING)))
                    continue
                unsure = unsure or not self._state.rules.shows_moves
            if moves and not whole and short is Known.NO and self._stays_huge(space, number, seen):
                allowed.append(Entries((Shape(Mark.MOVED | Mark.LOCAL), NOTHING)))
                continue
            if short is Known.YES and room > 0 and (taken := self._taken_in_vain(space, number)) is not Known.NO:
                short = Known.NO if taken is Known.YES else Known.MAYBE
            if moves and short is Known.MAYBE:
                short = Known.NO
                unsure = True
            if unsure:
                self._move_in_maybe(space, number, step.actor)
            elif moves and short is Known.YES:
                short = Known.NO
                moves = whole and self._may_be_huge(space, number)
                if moves:
                    split = number // HUGE_PAGES
                    unsure = True
                    self._move_in_maybe(space, number, step.actor)
            elif loses and self._is_said_to_stay(seen):
                moves = False
            elif moves:
                room -= 1
                self._move_in(space, number, step.actor, huge=whole)
            pte = space.ptes.get(number)
            here = pte is not None and pte.page.home == step.actor
            marks = (Mark.MOVED if moves else NO_MARKS) | (Mark.LOCAL if here else NO_MARKS)
            shapes: tuple[Shape, ...] = (Shape(marks),)
            deviating: tuple[tuple[str, Shape], ...] = ()
            if here and cut:
                deviating = ((SNAPSHOT_CUT, Shape(marks & ~Mark.LOCAL)),)
            cut = cut or (number in space.traps and self._state.rules.traps_cut_snapshots)
            gone = pte is not None and pte.swapped is Known.YES
            if pte is not None and not gone and (pte.page.home in (None, step.actor) or pte.page.strayed):
                mirror.entries[number] = (pte.page, pte.write)
                if pte.page.strayed == WITH_HUGE:
                    shapes += (Shape(Mark.MOVED | Mark.LOCAL),)
                elif pte.page.strayed and not unsure:
                    deviating = ((pte.page.strayed, Shape(Mark.MOVED | Mark.LOCAL)),)
                if here and not unsure:
                    pte.page.strayed = None
            if loses and not unsure:
                shapes, deviating = (NOTHING,), ((WP_ZERO_LOST, Shape(Mark.MOVED | Mark.LOCAL)),)
            allowed.append(Entries((*shapes, NOTHING) if unsure else shapes, deviating))
        return Expectation(elements=self._if_moves_shown(allowed))

    def _migratable(self, space: AddressSpace, number: int) -> bool:
        """mm/migrate_device.c: holes and the zero page of anonymous VMAs, and anonymous pages (clauses 65 to 76)."""
        pte = space.ptes.get(number)
        if number in space.traps:
            return False
        if pte is not None and pte.page.swapped:
            return False  # clause 72: here, or in swap space for another process
        if pte is None or pte.page.zero:  # what migrate_vma_insert_page() fills
            return space.areas[number].anonymous and not space.unstable and not self._is_minded(space, number)
        if pte.page.merged and not self._state.rules.moves_merged:
            return False
        return pte.page.anonymous and pte.page.home is None and pte.exclusive is Known.NO and not pte.page.pinned

    def _taken_in_vain(self, space: AddressSpace, number: int) -> Known:
        """Whether the driver finds memory for the page though it cannot move: clauses 76 and 77.

        mm/migrate_device.c migrate_vma_collect_pmd() takes pages of files as well, __migrate_device_pages() does not.
        """
        pte = space.ptes.get(number)
        if self._is_minded(space, number):
            return Known.YES if space.areas[number].anonymous else Known.NO
        if pte is None or pte.page.pinned or pte.swapped is Known.YES:
            return Known.NO
        if pte.page.anonymous:  # in the swap cache, which it cannot leave: clause 239
            return Known.MAYBE if pte.page.swapped else Known.NO
        return pte.present

    def _is_minded(self, space: AddressSpace, number: int) -> bool:
        """Whether a userfaultfd says what comes to a place without a page, or with the zero page (clause 77).

        mm/migrate_device.c migrate_vma_insert_page() backs off, after all else was done.
        """
        pte = space.ptes.get(number)
        return space.areas[number].minded and number not in space.traps and (pte is None or pte.page.zero)

    def _loses_protection(self, space: AddressSpace, number: int) -> bool:
        """Whether a zero page is to be write-protected by a userfaultfd, for which no page of a device makes up."""
        pte = space.ptes.get(number)
        return pte is not None and pte.page.zero and pte.uffd_wp

    def _is_said_to_stay(self, shown: tuple[Element, ...]) -> bool:
        """Whether a driver that shows what moved shows that this does not."""
        return self._state.rules.shows_moves and not _moved(shown)

    def _stays_huge(self, space: AddressSpace, number: int, shown: tuple[Element, ...]) -> bool:
        """Whether a driver says that a part of a huge page did not move.

        Such a page is split first, which fails while anybody else has a reference to it: mm/migrate_device.c
        migrate_vma_collect_pmd().
        """
        pte = space.ptes.get(number)
        if pte is None or not pte.huge or pte.page.zero or not self._state.rules.shows_moves or not shown:
            return False
        return not _moved(shown)

    def _may_stay_cached(self, space: AddressSpace, number: int) -> bool:
        """Whether the page may be swapped out, or in the swap cache, where it may have to stay.

        mm/migrate_device.c __migrate_device_pages(); newer kernels, 6.12 among them, try folio_free_swap() first.
        """
        pte = space.ptes.get(number)
        return pte is not None and (pte.page.cached or pte.swapped is not Known.NO)

    def _settle_exclusive(self, space: AddressSpace, number: int, shown: tuple[Element, ...]) -> bool:
        """A page that a device has to itself does not move: migrate_vma_collect_pmd(). Was it such a page?

        And all devices are told of the whole range. Returns whether nobody knows.
        """
        self._state.doubt(space, (number,))
        pte = space.ptes.get(number)
        if pte is None or pte.exclusive is not Known.MAYBE:
            return False
        if self._state.rules.shows_moves:
            pte.exclusive = Known.NO if _moved(shown) else Known.YES
            return False
        return True

    def _may_be_huge(self, space: AddressSpace, number: int) -> bool:
        """Whether 2 MiB that begin here may be one page, or one hole."""
        pte = space.ptes.get(number)
        return number % HUGE_PAGES == 0 and (pte is None or pte.huge)

    def _move_in_maybe(self, space: AddressSpace, number: int, device: str) -> None:
        """It moves, or it does not, which nobody says."""
        before = space.ptes.get(number)
        shown = before is not None and before.exclusive is Known.NO
        swapped = before is not None and self._may_stay_cached(space, number)
        self._move_in(space, number, device, huge=False)
        pte = space.ptes[number]
        self._state.stray(pte.page, WITH_HUGE)
        pte.exclusive = Known.NO
        if swapped:  # it may be where it was
            pte.page.cached = True
            pte.swapped = Known.MAYBE
        if not shown:
            pte.present = Known.MAYBE

    def _is_gone(self, space: AddressSpace, number: int, seen: tuple[Element, ...]) -> bool:
        """Whether what is not there for sure was not there, in a process where nothing can take its place."""
        pte = space.ptes.get(number)
        if not space.unstable or pte is None or pte.present is Known.YES:
            return False
        return not _moved(seen)

    def _is_whole(self, space: AddressSpace, number: int, step: ToDevice | ToDeviceShort) -> bool:
        """Whether the 2 MiB around this page may migrate as one: the step's span and a VMA have all of it."""
        span = step.span
        if not self._state.rules.moves_huge or step.actor in COHERENT:  # executor/test_hmm.c migrated_at_once()
            return False
        first = number - number % HUGE_PAGES
        block = range(first, first + HUGE_PAGES)
        start = self._state.program.address(span) // 4096
        if first < start or first + HUGE_PAGES > start + span.count:
            return False
        return all(space.areas.get(near) == space.areas[number] for near in block)

    def _move_in(self, space: AddressSpace, number: int, device: str, *, huge: bool) -> None:
        """`huge`: it may become a part of a page of 2 MiB there."""
        if self._state.listening:
            self._state.must_hear(space, number, Happening.MIGRATE, by=device)
            self._state.mirrors[device].hearing.must(self._state.cause, [(Happening.TO_DEVICE, None)], number)
        pte = space.ptes.get(number)
        self._state.invalidate(space, (number,))
        if pte is None or pte.page.zero:
            # migrate_vma_insert_page(): writable as the VMA is.
            write = Known.YES if space.areas[number].prot.writable else Known.NO
            page = Page(frozenset({0}), anonymous=True, home=device)
            space.set(number, Pte(page, write, huge=huge, blind=True))
            return
        pte.page.home = device
        self._state.moved(pte.page)
        for other, at in pte.page.mappings:
            self._state.must_hear(other, at, Happening.MIGRATE, Happening.CLEAR, by=device)
            self._state.invalidate(other, (at,))
            other.ptes[at].present = Known.YES
            other.ptes[at].huge = other.ptes[at].huge and huge
            other.ptes[at].or_zero = False

    def _to_system(self, step: ToSystem, observed: Observation) -> Expectation:
        space = self._state.mirrors[step.actor].space
        allowed: list[Entries] = []
        if not self._state.rules.selects:  # what is in system memory is collected as well
            self._state.restored(space, self._state.pages(step.span))
        for index, number in enumerate(self._state.pages(step.span)):
            area = space.areas.get(number)
            if area is None or area.hugetlb or area.special or not area.prot.readable:  # clause 64
                return Expectation(frozenset({errno.EINVAL}), self._if_moves_shown(allowed))
            self._state.may_migrate(space, (number,), step.actor, Happening.TO_SYSTEM)
            unsure = self._settle_exclusive(space, number, observed.elements[index : index + 1])
            pte = space.ptes.get(number)
            if pte is None or pte.page.home != step.actor or pte.exclusive is Known.YES:
                allowed.append(Entries((Shape(NO_MARKS),)))
                continue
            if unsure:
                self._state.stray(pte.page, WITH_HUGE)
                allowed.append(Entries((Shape(NO_MARKS),)))
                continue
            moved, stayed = Shape(Mark.MOVED), Shape(NO_MARKS)
            if pte.page.strayed == WITH_HUGE:
                allowed.append(Entries((moved, stayed)))
            else:
                allowed.append(Entries((moved,), ((pte.page.strayed, stayed),) if pte.page.strayed else ()))
            self._state.bring_home(pte.page)
        return Expectation(elements=self._if_moves_shown(allowed))

    def _evict(self, step: Evict, _: Observation) -> Expectation:
        shown = evict(self._state, step.actor)
        return Expectation(elements=shown if self._state.rules.shows_moves else ())

    def _if_moves_shown(self, allowed: list[Entries]) -> tuple[Entries, ...]:
        return tuple(allowed) if self._state.rules.shows_moves else ()


def evict(state: State, actor: str) -> tuple[Count, Count]:
    """All in the memory of the device `actor` goes home, process by process: how many pages moved, and are left."""
    residents = state.residents(actor)
    kept, maybe = state.kept(residents)
    residents -= kept
    moved = counted(residents, unsure=len(maybe))
    for page in maybe:
        state.stray(page, WITH_HUGE)
    for space in {space for page in residents for space, _ in page.mappings}:
        # from a page to the end of its VMA
        state.may_migrate(space, space.areas, actor, Happening.TO_SYSTEM)
        state.doubt(space, space.areas)
    for page in residents - maybe:
        state.bring_home(page)
    return moved, Count(len(kept), len(kept) + len(maybe))


def _moved(shown: tuple[Element, ...]) -> bool:
    """Whether a page is shown to have moved."""
    return any(isinstance(seen, Entry) and Mark.MOVED in seen.marks for seen in shown)
