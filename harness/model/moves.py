# SPDX-License-Identifier: GPL-2.0-only
"""Moves: migrate_vma_*() with every choice that it leaves to a driver; and returns that are refused."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from harness.model.allowed import (
    FAULT_NOT_HELD,
    FAULT_NOT_LOCKED,
    LOCKED_HUGE_KEPT,
    NOTHING,
    WP_ZERO_LOST,
    Count,
    Entries,
    Expectation,
    Shape,
)
from harness.model.memory import HUGE_PAGES, WITH_HUGE, Known, Large, Page, Pte
from harness.model.migration import evict
from harness.model.state import Handlers, State
from harness.model.views import counted
from harness.program.observations import NO_MARKS, Element, Entry, Happening, Mark, Observation
from harness.program.operations import (
    MAX_PAGES,
    MAX_SUBJECTS,
    Answer,
    Call,
    EvictBy,
    Lookup,
    Move,
    Returns,
    Target,
    other_device,
)

_WITHOUT = {Answer.HELD: FAULT_NOT_HELD, Answer.LOCKED: FAULT_NOT_LOCKED}  # what the kernel comes with


@dataclass(frozen=True)
class _Case:
    """What a page may turn out to be: how that is shown, what comes of it, and which deviation that is, if any."""

    shape: Shape
    effect: Callable[[], None] | None = None
    deviation: str | None = None


@dataclass
class _Block:
    """2 MiB that may be taken as one, from page `index` of the span on.

    `compound`: that is what was seen. `fits`: there is memory for all of it, in one piece or in many.
    `sure`: it is taken as one; `one`: there is memory for all of it in one piece.
    """

    index: int
    compound: bool
    fits: bool
    sure: bool
    one: bool
    large: Large = field(default_factory=Large)


class _Migration:
    """One call of migrate_vma_setup(), _pages() and _finalize()."""

    def __init__(self, state: State, step: Move) -> None:
        self.space = state.mirrors[step.actor].space
        self._state = state
        self._step = step
        self._block: _Block | None = None
        self._other = other_device(step.actor)
        # Whom devices hear of: migrate_vma.pgmap_owner
        self._by = self._other if step.sources.other else step.actor
        self._home = step.actor if step.target is Target.DEVICE else None
        self._happening = Happening.TO_DEVICE if self._home else Happening.TO_SYSTEM
        capacity = state.rules.room(step.actor)
        self._room = MAX_PAGES * MAX_SUBJECTS  # pages
        if self._home is not None and capacity is not None:
            self._room = capacity - len(state.residents(step.actor))

    def hear(self) -> None:
        """What devices may hear whatever moves."""
        numbers = tuple(self._state.pages(self._step.span))
        self._state.may_migrate(self.space, numbers, self._step.actor, self._happening)
        self._state.may_hear(self.space, numbers, Happening.MIGRATE, by=self._by)

    def has_no_first(self, number: int) -> Known:
        """Whether the device is shown no anonymous page of system memory to be locked: kmod/move.c hh_act_hold()."""
        area = self.space.areas.get(number)
        if area is None or not area.prot.readable or area.special:
            return Known.YES
        if area.hugetlb and self._state.rules.hugetlb_error:
            return Known.YES  # a look at such a mapping shows nothing: kmod/seed.c hh_over_pieces()
        pte = self.space.ptes.get(number)
        if pte is None or Known.YES in (pte.exclusive, pte.swapped) or number in self.space.traps:
            return Known.YES
        if not pte.page.anonymous or pte.page.zero:
            return Known.YES
        if pte.page.home is not None:
            return Known.MAYBE if pte.page.strayed else Known.YES
        return Known.MAYBE if Known.MAYBE in (pte.present, pte.exclusive, pte.swapped) or pte.or_zero else Known.NO

    def page(self, index: int, number: int, seen: Element | None) -> Entries:
        """What is shown of page `number`, which is `index` of the span. Follows what was `seen`."""
        self._state.doubt(self.space, (number,))  # all devices are told of the whole range
        pte = self.space.ptes.get(number)
        if pte is not None and pte.exclusive is Known.MAYBE:
            collected = isinstance(seen, Entry) and Mark.COLLECTED in seen.marks
            pte.exclusive = Known.NO if collected else Known.YES
        if number % HUGE_PAGES == 0 or index == 0:
            self._begin_block(index, number, seen)
        cases = tuple(self._cases(index, number))
        if self._block is not None:
            compound = tuple(self._compound(self._block, number))
            if not compound:
                self._block = None
            elif self._block.sure:
                cases = compound
            elif index == self._block.index:
                cases += compound
            elif self._block.compound:
                cases = compound
        locked = self._step.call is Call.LOCKED and self._is_locked(index, number)
        if locked:
            cases = (_Case(NOTHING), *(cases if index else ()))
        fitting = (case for case in cases if isinstance(seen, Entry) and case.shape.admits(seen))
        effect = next(fitting, cases[0]).effect
        if effect is not None:
            effect()
        deviating = tuple((case.deviation, case.shape) for case in cases if case.deviation)
        if locked and not index and pte and pte.huge:
            deviating += ((LOCKED_HUGE_KEPT, Shape(Mark.KEPT)),)
        return Entries(tuple(case.shape for case in cases if not case.deviation), deviating)

    def _is_locked(self, index: int, number: int) -> bool:
        """Whether the page is the first, which somebody else has locked, or is passed over with it.

        That may be what is mapped by the same table as a huge page: migrate_device.c migrate_vma_collect_pmd()
        skips all of it where that page cannot be split.
        """
        first = self.space.ptes.get(number - index)
        same = number // HUGE_PAGES == (number - index) // HUGE_PAGES
        return not index or (first is not None and first.huge and same)

    def _begin_block(self, index: int, number: int, seen: Element | None) -> None:
        """A new 2 MiB begins, of which all may be taken as one: what its first page shows is true of all of it."""
        self._block = None
        fits = number % HUGE_PAGES == 0 and index + HUGE_PAGES <= self._step.span.count
        if self._step.call is Call.COMPOUND and fits:
            sure = self._is_one(number)
            compound = sure or (isinstance(seen, Entry) and Mark.COMPOUND in seen.marks)
            self._block = _Block(index, compound, self._room >= HUGE_PAGES, sure, self._has_one())

    def _is_one(self, first: int) -> bool:
        """Whether the 2 MiB from this page on are collected as one for sure, if they are at all."""
        if (self.space, first // HUGE_PAGES) not in self._state.whole:
            return False
        ptes = [self.space.ptes.get(number) for number in range(first, first + HUGE_PAGES)]
        # Who else has it, or may take it away, may have a reference that makes the kernel split it.
        return all(
            pte is not None
            and pte.huge
            and (pte.page.zero or len(pte.page.mappings) == 1)
            and not (pte.page.pinned or pte.page.lazy or pte.page.strayed or pte.page.cached)
            and pte.exclusive is Known.NO
            for pte in ptes
        )

    def _has_one(self) -> bool:
        """Whether the device has 2 MiB in one piece for sure: each page in use spoils one such piece at most.

        A page that is given back may be in use for a moment longer, so half of them do not count.
        """
        if self._home is None:
            return False  # the system need not have any
        residents = self._state.residents(self._home)
        spoiled = len({page.large for page in residents} - {None}) + sum(page.large is None for page in residents)
        capacity = self._state.rules.room(self._home)
        return capacity is not None and spoiled < capacity // HUGE_PAGES // 2

    def _cases(self, index: int, number: int) -> Iterator[_Case]:
        moves = self._step.choices.moves(index)
        pte = self.space.ptes.get(number)
        if number in self.space.traps:
            yield _Case(NOTHING)
            return
        if pte is not None and pte.page.zero:
            yield from self._zero(number, moves=moves)
        elif pte is not None:
            yield from self._mapped(number, pte, moves=moves)
        if pte is None or pte.present is Known.MAYBE:
            yield from self._hole(number, moves=moves)
        if pte is not None and pte.or_zero:
            yield from self._zero(number, moves=moves)

    def _compound(self, block: _Block, number: int) -> Iterator[_Case]:
        """What may be shown of a page that is taken as a part of a huge one, or of a hole: clauses 85 to 88."""
        choice = self._step.choices.of(block.index) if block.fits else "."
        large = block.large if choice == "m" else None
        pte = self.space.ptes.get(number)
        if number in self.space.traps:
            return
        cases: Iterator[_Case]
        if pte is None or pte.page.zero:
            zero = pte is not None
            if not self.space.areas[number].anonymous or (zero and not self._step.sources.system):
                return
            parts = self._parts(block, large)
            cases = iter([self._filled(number, moves=choice != ".", large=part) for part in parts])
        elif not pte.huge or pte.swapped is Known.YES:
            return
        else:
            homes = {pte.page.home, None} if pte.page.strayed else {pte.page.home}
            found = [
                case
                for home in homes
                if self._is_source(home)
                for part in self._parts(block, large)
                for case in self._collected(number, pte, home, moves=choice != ".", large=part)
            ]
            cases = iter(found)
        for case in cases:
            yield replace(case, shape=replace(case.shape, marks=case.shape.marks | Mark.COMPOUND))

    def _parts(self, block: _Block, large: Large | None) -> tuple[Large | None, ...]:
        """What a page may become a part of, if it moves."""
        if large is None:
            return (None,)
        return (large,) if block.one else (large, None)

    def _hole(self, number: int, *, moves: bool) -> Iterator[_Case]:
        """Clauses 65 and 66: holes are collected whatever sources there are, where a new page can fill them."""
        if self.space.areas[number].anonymous:
            yield self._filled(number, moves=moves)
            return
        yield _Case(NOTHING)
        if not self._state.rules.selects:
            yield _Case(Shape(Mark.COLLECTED))  # v4.20 collects those of files as well, and then fills none

    def _zero(self, number: int, *, moves: bool) -> Iterator[_Case]:
        if not self.space.areas[number].anonymous:
            # migrate_vma_insert_page() fills nothing there.
            yield _Case(Shape(NO_MARKS, Mark.COLLECTED))
        elif self._step.sources.system or not self._state.rules.selects:
            filled = self._filled(number, moves=moves)
            pte = self.space.ptes.get(number)
            if pte is not None and pte.uffd_wp and filled.effect is not None:
                yield _Case(Shape(Mark.COLLECTED))
                filled = replace(filled, deviation=WP_ZERO_LOST)
            yield filled
        else:
            yield _Case(NOTHING)

    def _filled(self, number: int, *, moves: bool, large: Large | None = None) -> _Case:
        """A place without a page, or with the zero page, which may get one: a part of `large`, if that is given."""
        # What there is no memory for stays as it is, and nothing is made in a process that was reaped, nor where a
        # userfaultfd says what comes (clause 77).
        if not (moves and self._room > 0) or self.space.unstable or self.space.areas[number].minded:
            return _Case(Shape(Mark.COLLECTED))

        def fill() -> None:
            self._room -= 1
            self._must_move(number)
            self._state.invalidate(self.space, (number,))
            # migrate_vma_insert_page(): writable as the VMA is.
            write = Known.YES if self.space.areas[number].prot.writable else Known.NO
            page = Page(frozenset({0}), anonymous=True, home=self._home, large=large if self._home else None)
            self.space.set(number, Pte(page, write, huge=large is not None, blind=True))

        return _Case(Shape(Mark.COLLECTED | Mark.MOVED | (Mark.WHOLE if large else NO_MARKS)), fill)

    def _mapped(self, number: int, pte: Pte, *, moves: bool) -> Iterator[_Case]:
        """A page of memory: clauses 67 to 76."""
        page = pte.page
        if pte.exclusive is Known.YES or page.pinned or pte.swapped is Known.YES:
            yield _Case(NOTHING)  # migrate_vma_collect_pmd(); clauses 70 and 72
            return
        if page.swapped and self._home is not None:  # for another process: it cannot leave the swap cache
            yield from self._collected(number, pte, page.home, moves=False)
            yield _Case(NOTHING)
            return
        if page.strayed is not None:  # it may be where it was, or in system memory
            yield from self._collected(number, pte, page.home, moves=moves)
            yield from self._collected(number, pte, None, moves=moves)
        else:
            yield from self._collected(number, pte, page.home, moves=moves)
        if page.cached:  # migrate_device.c __migrate_device_pages()
            yield from self._collected(number, pte, None, moves=False)
        if pte.swapped is Known.MAYBE:
            yield _Case(NOTHING)

    def _is_source(self, home: str | None) -> bool:
        sources = self._step.sources
        if home is None:
            return sources.system
        if home == self._step.actor:
            return sources.own
        return sources.other and home == self._other  # of all others, the one whose owner is named

    def _collected(
        self, number: int, pte: Pte, home: str | None, *, moves: bool, large: Large | None = None
    ) -> Iterator[_Case]:
        source = self._is_source(home)
        if not source and self._state.rules.selects:
            yield _Case(NOTHING)
            return
        marks = Mark.COLLECTED | Mark.VALID
        if pte.write is Known.YES:
            marks |= Mark.WRITE
        optional = Mark.WRITE if pte.write is Known.MAYBE else NO_MARKS
        if not pte.page.anonymous:
            # It never moves: to a device only anonymous pages may (clause 76), and to system memory the driver
            # takes no others. Page caches may hold on to pages, so that it need not be collected either.
            yield _Case(NOTHING)
            yield _Case(Shape(marks, optional))
            return
        # kmod/move.c hh_is_source(): what KSM has merged goes to a device, if it moves at all
        kept = pte.page.merged and home is None and (self._home is None or not self._state.rules.moves_merged)
        if kept or not (moves and source and self._room > 0):

            def stay() -> None:
                self._must_hear(number)
                self._state.collected(pte.page)

            yield _Case(Shape(marks, optional), stay)
            return

        def move() -> None:
            self._room -= 1
            self._move(number, pte.page, home, large)

        yield _Case(Shape(marks | Mark.MOVED | (Mark.WHOLE if large else NO_MARKS), optional), move)

    def _must_hear(self, number: int) -> None:
        """Clause 69: what is collected is unmapped, for which devices have to be told."""
        self._state.must_hear(self.space, number, Happening.MIGRATE, by=self._by)

    def _must_move(self, number: int) -> None:
        self._must_hear(number)
        if self._state.listening:
            hearing = self._state.mirrors[self._step.actor].hearing
            hearing.must(self._state.cause, [(self._happening, None)], number)

    def _move(self, number: int, page: Page, home: str | None, large: Large | None) -> None:
        """The page goes from `home` to where it is wanted, with all of its mappings; to be a part of `large`."""
        self._must_move(number)
        self._state.collected(page)
        if self._home is not None:
            self._state.moved(page)
        if home in self._state.mirrors and self._state.listening and page.strayed is None:
            self._state.mirrors[home].hearing.freed += 1
        page.home = self._home
        page.strayed = None
        page.large = large if self._home else None
        for space, at in page.mappings:
            self._state.must_hear(space, at, Happening.MIGRATE, Happening.CLEAR, by=self._by)
            self._state.invalidate(space, (at,))
            pte = space.ptes[at]
            pte.present = Known.MAYBE if page.lazy and self._home is None else Known.YES
            pte.huge = pte.huge and large is not None  # else it was split
            pte.or_zero = False


class Moves:
    """Migrations as a device puts them together, and by the numbers of pages."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {Move: self._move, Returns: self._returns, EvictBy: self._evict_by}

    def _move(self, step: Move, observed: Observation) -> Expectation:
        migration = _Migration(self._state, step)
        numbers = tuple(self._state.pages(step.span))
        space = migration.space
        areas = {space.areas.get(number) for number in numbers}
        errors = frozenset({0})
        if step.call is Call.LOCKED:  # before the kernel is asked for anything else
            missing = migration.has_no_first(numbers[0])
            if missing is Known.YES or (missing is Known.MAYBE and observed.error == errno.ENOENT):
                return Expectation(frozenset({errno.ENOENT}))
        special = any(area is not None and (area.hugetlb or area.special) for area in areas)
        if step.call.refused or None in areas or len(areas) > 1 or special:
            return Expectation(frozenset({errno.EINVAL}))  # clause 64
        if len(numbers) > 1 and not space.pieces.isdisjoint(numbers):
            errors |= {errno.EINVAL}  # equal, but it may be two VMAs
        if observed.error in errors and observed.error:
            return Expectation(errors)
        migration.hear()
        seen = dict(enumerate(observed.elements))
        allowed = tuple(migration.page(index, number, seen.get(index)) for index, number in enumerate(numbers))
        self._state.restored(space, numbers)
        self._state.whole -= {(space, number // HUGE_PAGES) for number in numbers}
        return Expectation(errors, allowed)

    def _returns(self, step: Returns, _: Observation) -> Expectation:
        refused = self._state.refused.pop(step.actor, 0)
        if step.answer is Answer.REFUSED:
            self._state.refused[step.actor] = 0
        without = _WITHOUT.get(step.answer)
        asked = () if without is None else (Count(0, 0, beyond=without),)
        return Expectation(elements=(Count(refused), *asked))

    def _evict_by(self, step: EvictBy, _: Observation) -> Expectation:
        if step.lookup is Lookup.REMOVAL:  # kmod/removal.c: the driver moves them, as if it was evicted
            return Expectation(elements=evict(self._state, step.actor))
        residents = self._state.residents(step.actor)
        # Since v6.15 what a device has to itself is mapped, and found: mm/rmap.c try_to_migrate_one().
        kept = set[Page]().union(*self._state.kept(residents))
        moved = counted(residents, unsure=len(kept))
        for page in kept:
            self._state.stray(page, WITH_HUGE)
            for space, number in page.mappings:
                self._state.may_take_back(space, number)
                self._state.doubt(space, (number,))
                space.ptes[number].write = Known.MAYBE
        for page in residents - kept:
            self._state.bring_home(page, by_driver=False)
        return Expectation(elements=(moved, Count(0, len(kept))))
