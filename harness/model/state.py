# SPDX-License-Identifier: GPL-2.0-only
"""What all steps work on: the memory of subjects, the mirrors of devices, and how a change of the one is heard."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from harness.model.allowed import Expectation
from harness.model.hearing import Hearing
from harness.model.memory import HUGE_PAGES, WITH_HUGE, AddressSpace, Known, Page, Pte
from harness.model.rules import Rules
from harness.program.observations import Happening
from harness.program.observations import Owner as Migrator
from harness.program.operations import (
    COHERENT,
    FIRST_SUBJECT,
    PAGE_SIZE,
    Events,
    Move,
    Operation,
    Snapshot,
    Span,
    SwapOut,
    Table,
    Usage,
    Userfault,
    Watch,
)
from harness.program.program import Program
from harness.program.text import render_step

# What carries a step out: takes the operation and what was observed of it.
Handlers = dict[type[Operation], Callable[..., Expectation]]


@dataclass(eq=False)
class Ear:
    """A watch. `told`: the pages that it must have been told of since the last look; it may be told of any.

    `called`: whether it must have been since the last look at its `sequence` number, which is None until then.
    `flushes`: it is told when TLBs are flushed, nothing else.
    """

    pages: frozenset[int]
    flushes: bool = False
    told: set[int] = field(default_factory=set)
    called: bool = False
    sequence: int | None = None

    def hear(self, pages: Iterable[int]) -> None:
        """It is told of a change of `pages`, as far as they concern it."""
        told = self.pages.intersection(pages)
        self.told |= told
        self.called = self.called or bool(told)

    def hear_of(self, number: int, pte: Pte, *, flushed: bool) -> None:
        """It is told of a change of `pte`. `flushed`: which goes or allows less. What no CPU can use is in no TLB."""
        if not self.flushes or (flushed and pte.page.home is None and pte.exclusive is Known.NO):
            self.hear((number,))


@dataclass(eq=False)
class DmaView:
    """What is mapped for DMA: of `entries` any may be missing. `owner`: as which device they were seen."""

    owner: str | None = None
    entries: dict[int, tuple[Page, Known]] = field(default_factory=dict)


@dataclass(eq=False)
class Mirror:
    """A device's view of one process. `entries`: what its page table may hold; any may be missing.

    `refuses`: pages of which it hears nothing that must not sleep.
    `held`: which of these are of pages that it has to itself; False where it may have lost that.
    `held_coherent`: whether some were in coherent memory.
    """

    space: AddressSpace
    hearing: Hearing
    entries: dict[int, tuple[Page, Known]] = field(default_factory=dict)
    watches: dict[Span, Ear] = field(default_factory=dict)
    dma: dict[Span, DmaView] = field(default_factory=dict)
    refuses: frozenset[int] = frozenset()
    held: dict[int, bool] = field(default_factory=dict)
    held_coherent: bool = False

    def forget(self, number: int, *, only_writable: bool) -> None:
        """No entry of the page may be left, or none that is writable."""
        for entries in (self.entries, *(view.entries for view in self.dma.values())):
            entry = entries.get(number)
            if entry is not None and not (only_writable and entry[1] is Known.NO):
                del entries[number]
                self.held.pop(number, None)


class State:
    """The subjects and devices of one run of `program`, and what any step may do to them.

    `spaces`: by subject, of those that are alive. `mirrors`: by device. `listening`: whether the program looks at
    what devices hear; if so, `cause` is the step at hand, as text.
    """

    def __init__(self, program: Program, rules: Rules) -> None:
        self.program = program
        self.rules = rules
        self.zero = Page(frozenset({0}), anonymous=True, zero=True)
        self.spaces: dict[str, AddressSpace] = {FIRST_SUBJECT: AddressSpace(self.zero)}
        self.mirrors: dict[str, Mirror] = {}
        self.pins: dict[str, set[Page]] = {}  # by subject, what it holds
        self.returns: dict[str, int] = {}  # device: least number of migrate_to_ram() calls, once that is known
        self.refused: dict[str, int] = {}  # device that refuses returns: how many it did for sure
        # The 2 MiB of memory that a device has just seen mapped as one, by number: nothing can have split them yet
        self.whole: set[tuple[AddressSpace, int]] = set()
        self.listening = any(isinstance(step, Events | Watch) for step in program.steps)
        self.cause = ""
        # There is swap space: harness/guest/executor/swap.c
        self.swaps = any(isinstance(step, SwapOut) for step in program.steps)
        self._number = 0

    def begin(self, operation: Operation) -> None:
        """`operation` is the next step at hand."""
        if not isinstance(operation, Snapshot | Move | Table | Usage | Events):
            self.whole.clear()
        if self.listening:
            self._number += 1
            self.cause = f"{self._number}  {render_step(operation, self.program)}"

    def pages(self, span: Span) -> range:
        """The virtual page numbers of `span`."""
        first = self.program.address(span) // PAGE_SIZE
        return range(first, first + span.count)

    def residents(self, device: str) -> set[Page]:
        """The pages in the memory of `device`."""
        return {pte.page for space in self.spaces.values() for pte in space.ptes.values() if pte.page.home == device}

    def kept(self, pages: Iterable[Page]) -> tuple[set[Page], set[Page]]:
        """Which of these device pages a device has to itself, and which it may have: they are not collected.

        mm/migrate_device.c migrate_vma_collect_pmd(). Only pages in coherent memory can be such.
        """
        found: dict[Known, set[Page]] = {known: set() for known in Known}
        for page in pages:
            for space, number in page.mappings:
                found[space.ptes[number].exclusive].add(page)
        return found[Known.YES], found[Known.MAYBE]

    def new_hearing(self) -> Hearing:
        """Of a device that has heard nothing yet."""
        return Hearing(self.program.place, self.rules.reasons)

    # What the CPU's side does to the devices

    def invalidate(self, space: AddressSpace, numbers: Iterable[int], *, only_writable: bool = False) -> None:
        """The devices' entries must be gone (clauses 1 to 3): they would point elsewhere or allow more."""
        mirrors = [mirror for mirror in self.mirrors.values() if mirror.space is space]
        for mirror in mirrors:
            for number in numbers:
                mirror.forget(number, only_writable=only_writable)

    def doubt(self, space: AddressSpace, numbers: Iterable[int]) -> None:
        """The devices may have been told of these pages, and have them to themselves no longer, though the CPU's
        table need not have changed."""
        for mirror in self.mirrors.values():
            if mirror.space is space:
                mirror.held.update((number, False) for number in numbers if number in mirror.held)

    # What of that the devices hear: facts of mm/, by its calls of mmu_notifier_range_init*()

    def must_hear(
        self,
        space: AddressSpace,
        number: int,
        *happenings: Happening,
        by: str | None = None,
        flushed: bool = False,
    ) -> None:
        """The devices must hear one of `happenings` of the page if its entry is there for sure. `by`: who does it.

        `flushed`: the entry goes, or can be written no more, for sure.
        """
        pte = space.ptes.get(number)
        if not self.listening or pte is None or not pte.mapped:
            return
        for device, mirror in self.mirrors.items():
            if mirror.space is space:
                mirror.hearing.must(self.cause, [(what, _owner(what, device, by)) for what in happenings], number)
                for ear in mirror.watches.values():
                    ear.hear_of(number, pte, flushed=flushed)

    def may_hear(
        self, space: AddressSpace, numbers: Iterable[int], happening: Happening, *, by: str | None = None
    ) -> None:
        """The devices may hear `happening` of these pages."""
        if not self.listening:
            return
        numbers = tuple(numbers)
        for device, mirror in self.mirrors.items():
            if mirror.space is space:
                mirror.hearing.may((happening, _owner(happening, device, by)), numbers)

    def may_migrate(self, space: AddressSpace, numbers: Iterable[int], device: str, happening: Happening) -> None:
        """`device` may migrate these pages in the direction that `happening` says, and be asked to by a CPU."""
        if not self.listening:
            return
        numbers = tuple(numbers)
        self.may_hear(space, numbers, Happening.MIGRATE, by=device)
        if device in self.mirrors:
            self.mirrors[device].hearing.may((happening, None), numbers)
            self.mirrors[device].hearing.may((Happening.CPU_FAULT, None), numbers)

    def _may_leave(self, page: Page) -> None:
        """The page may leave the memory of the device in which it lives, without further notice."""
        if self.listening and page.home is not None:
            for space, number in page.mappings:
                self.may_migrate(space, (number,), page.home, Happening.TO_SYSTEM)

    def stray(self, page: Page, why: str) -> None:
        """The page may have left device memory. `why`: a deviation's name, or `WITH_HUGE`."""
        page.strayed = page.strayed or why
        self._may_leave(page)

    def _hear_return(self, page: Page, *, by_driver: bool) -> None:
        """The page leaves device memory, now."""
        device = page.home
        if not self.listening or device is None:
            return
        self._may_leave(page)
        if page.strayed:
            return
        for space, number in page.mappings:
            self.must_hear(space, number, Happening.MIGRATE, Happening.CLEAR, by=device)
        if device in self.mirrors:
            hearing = self.mirrors[device].hearing
            hearing.freed += 1
            if len(page.mappings) == 1 and by_driver:
                for _, number in page.mappings:
                    hearing.must(self.cause, [(Happening.TO_SYSTEM, None)], number)

    def _hear_of_touch(self, space: AddressSpace, number: int, page: Page) -> None:
        """A CPU touches the page, which lives in private device memory: clause 89."""
        device = page.private_home
        if not self.listening or device is None or page.strayed:
            return
        self.must_hear(space, number, Happening.MIGRATE, by=device)
        if device in self.mirrors:
            self.mirrors[device].hearing.must(self.cause, [(Happening.CPU_FAULT, None)], number)

    def drop(self, page: Page) -> None:
        """One mapping less: the last one frees the page (clauses 94 and 97)."""
        if page.home in self.mirrors and not page.mappings and not page.strayed and page.large is None:
            self.mirrors[page.home].hearing.freed += 1

    def clear(self, space: AddressSpace, number: int, happening: Happening | None = None) -> Pte | None:
        """The entry goes, which is heard of as `happening`."""
        if happening is not None:
            self.must_hear(space, number, happening, flushed=True)
        self.invalidate(space, (number,))
        return space.clear(number)

    def collected(self, page: Page) -> None:
        """The page may have been unmapped for a migration, whatever came of it: see `DIRTY_LOST`.

        The other fix is the younger one, of v6.1: who has that has this.
        """
        if page.unbacked and not page.lazy and page.home is None and not self.rules.has("MIGRATE_FAULT_PAGE"):
            page.forgotten = True

    def may_mark(self, page: Page) -> None:
        """Its mappings may be soft-dirty now, though nobody wrote by way of them."""
        for space, number in page.mappings:
            pte = space.ptes[number]
            if pte.soft is Known.NO:
                pte.soft = Known.MAYBE

    def restored(self, space: AddressSpace, numbers: Iterable[int]) -> None:
        """A migration may have put entries of these pages back into place.

        Until 6.12, mm/migrate.c remove_migration_pte() of a dirty page made the entry soft-dirty as well.
        """
        for number in numbers:
            pte = space.ptes.get(number)
            if pte is not None and pte.page.private_home is None:
                self.may_mark(pte.page)

    def moved(self, page: Page) -> None:
        """The page went to a device: it is out of the swap cache."""
        page.cached = False
        for space, number in page.mappings:
            space.ptes[number].swapped = Known.NO

    def fill_from_device(self, page: Page, token: int) -> None:
        """A device wrote the page. Its driver has to mark it dirty: clause 226."""
        self.may_mark(page)
        if self.rules.marks_dirty:
            page.fill(token)
            return
        # What reclaim may leave in its place
        dropped = {0} if page.lazy or (not page.anonymous and 0 in page.tokens) else set()
        kept = page.tokens if page.cached else frozenset()
        page.tokens = frozenset({token}) | dropped | kept
        page.lazy = page.lazy or len(page.tokens) > 1

    def bring_home(self, page: Page, *, now: bool = True, by_driver: bool = True) -> None:
        """The page leaves device memory; every mapping of it changes (clauses 2 and 89).

        `now`: it had not before. `by_driver`: the driver migrates it, else the kernel does by itself.
        """
        if now:
            self._hear_return(page, by_driver=by_driver)
        if page.home in COHERENT:
            self.may_mark(page)
        page.home = None
        page.strayed = None
        page.large = None
        for space, number in page.mappings:
            self.invalidate(space, (number,))

    def unpin(self, subject: str) -> None:
        """`subject` lets go of what it has pinned."""
        for page in self.pins.pop(subject, ()):
            page.pinned = False

    def _let_go(self, space: AddressSpace, number: int, device: str) -> None:
        """The rest of a huge page may leave device memory with the page that is touched."""
        first = number - number % HUGE_PAGES
        for near in range(first, first + HUGE_PAGES):
            pte = space.ptes.get(near)
            if pte is not None and pte.huge and pte.page.home == device and near != number:
                self.stray(pte.page, WITH_HUGE)

    def fails(self, space: AddressSpace, number: int, *, write: bool, waits: bool = False) -> bool:
        """Whether what the mapping permits cannot be had: a CPU gets SIGBUS, who asks for it as a CPU EFAULT.

        `waits`: who asks may wait for a userfaultfd without the mmap lock (FAULT_FLAG_ALLOW_RETRY), as a CPU does.
        """
        if space.behind_end(number):  # mm/shmem.c shmem_get_folio_gfp()
            return True
        area = space.areas.get(number)
        if area is None or area.userfault is None:
            return False
        if area.userfault is Userfault.WP:
            return write and number in space.ptes and space.ptes[number].uffd_wp  # mm/memory.c do_wp_page()
        return space.is_missing(number) and not (waits and area.userfault is Userfault.ANSWERED)

    def fail(self, space: AddressSpace, number: int, *, write: bool, waits: bool = False) -> bool:
        """The same of an access that happens now: a page that is write-protected comes home before that is seen."""
        if not self.fails(space, number, write=write, waits=waits):
            return False
        if number in space.ptes and not self.refuses(space, number):
            self.touch(space, number, write=False)
        return True

    def refuser(self, space: AddressSpace, number: int) -> str | None:
        """The device that would refuse to give this page back if a CPU touched it; None if none does: clause 93."""
        pte = space.ptes.get(number)
        device = pte.page.private_home if pte is not None else None
        if device not in self.refused or device not in self.mirrors or self.mirrors[device].space is not space:
            return None
        return device

    def refuses(self, space: AddressSpace, number: int) -> bool:
        """Whether a touch of this page by a CPU, which happens now, is refused."""
        device = self.refuser(space, number)
        if device is None:
            return False
        self.refused[device] += 1
        if device in self.returns:
            self.returns[device] += 1
        if self.listening:
            self.mirrors[device].hearing.must(self.cause, [(Happening.CPU_FAULT, None)], number)
        return True

    def touch(self, space: AddressSpace, number: int, *, write: bool) -> Pte:
        """A permitted access by the CPU, or by a device that asks the CPU's fault handler for it."""
        pte = space.ptes.get(number)
        if pte is not None and pte.exclusive is not Known.NO:
            self.take_back(space, number, pte)
        home = None if pte is None else pte.page.private_home
        if pte is not None and home is not None:
            if home in self.returns and not pte.page.strayed:
                self.returns[home] += 1  # clause 89
            if pte.huge:
                self._let_go(space, number, home)
            self._hear_of_touch(space, number, pte.page)
            self.bring_home(pte.page)
        mapped = pte is None or pte.swapped is Known.NO
        if not mapped:
            self._swap_in(space, number)
        blind = pte is not None and pte.blind and pte.write is not Known.NO
        uncertain = pte is not None and pte.present is Known.MAYBE
        unit = space.unit(number)
        done = pte is not None and pte.present is Known.YES and (not write or pte.write is Known.YES)
        if len(unit) > 1 and done:
            return space.ptes[number]  # and so it is with all of the hugetlb page
        for near in unit:
            pte = space.ptes.get(near)
            present = mapped and pte is not None and pte.present is Known.YES
            replaced = space.fault_in(near, write=write)
            if replaced is not None and present:
                # mm/memory.c wp_page_copy(), mm/hugetlb.c hugetlb_wp()
                self.must_hear(space, near, Happening.CLEAR, flushed=True)
            if replaced is not None:
                self.invalidate(space, (near,))
        pte = space.ptes[number]
        if write:
            pte.soft, pte.missed = Known.YES, pte.missed or blind
        elif uncertain:
            pte.soft = Known.MAYBE
        return pte

    def populate(self, space: AddressSpace, number: int) -> bool:
        """mm/gup.c populate_vma_page_range(): the page is there afterwards, a process's own if it can be.

        Returns whether that could be done.
        """
        area = space.areas[number]
        write = area.prot.writable and not area.shared
        if not area.prot.cpu_readable or number in space.traps:  # FOLL_FORCE
            return False
        if self.fail(space, number, write=write, waits=True) or self.refuses(space, number):
            return False
        self.touch(space, number, write=write)
        return True

    def _swap_in(self, space: AddressSpace, number: int) -> None:
        """mm/memory.c do_swap_page(): the page is there, and may be writable at once if it is nobody else's."""
        pte = space.ptes[number]
        alone = len(pte.page.mappings) == 1 and space.areas[number].prot.writable
        pte.write = Known.MAYBE if alone else Known.NO
        pte.swapped = Known.NO

    def may_swap_in(self, space: AddressSpace, number: int) -> None:
        """A permitted access may have been made: if the page was swapped out, it may be there."""
        pte = space.ptes[number]
        if pte.swapped is not Known.NO:
            self._swap_in(space, number)
            pte.swapped = Known.MAYBE

    def swap_out(self, space: AddressSpace, number: int, *, known: Known) -> None:
        """Anonymous memory leaves memory, or may do so: mm/rmap.c try_to_unmap_one(). It is heard as CLEAR."""
        pte = space.ptes[number]
        pte.page.cached = True
        if known is Known.YES:
            self.must_hear(space, number, Happening.CLEAR)
            self.invalidate(space, (number,))
            pte.or_zero = False
            pte.exclusive = Known.NO  # else it would have been left alone
            pte.swapped = Known.YES
        elif pte.swapped is Known.NO:
            self.doubt(space, (number,))
            pte.swapped = Known.MAYBE

    def take_back(self, space: AddressSpace, number: int, pte: Pte) -> None:
        """mm/memory.c remove_device_exclusive_entry(): a CPU gets a page back that a device has to itself."""
        happening = Happening.CLEAR if self.rules.has("MAKE_DEVICE_EXCLUSIVE") else Happening.EXCLUSIVE
        if pte.exclusive is Known.YES:
            self.must_hear(space, number, happening)
            self.invalidate(space, (number,))
        else:
            self.may_take_back(space, number)
            for mirror in self.mirrors.values():
                if mirror.space is space:
                    mirror.held.pop(number, None)
        pte.exclusive = Known.NO

    def may_take_back(self, space: AddressSpace, number: int) -> None:
        """A CPU may have got the page back, if a device had it to itself."""
        pte = space.ptes[number]
        if pte.exclusive is not Known.NO:
            pte.exclusive = Known.MAYBE
            self.may_hear(space, (number,), Happening.EXCLUSIVE)


def _owner(happening: Happening, device: str, by: str | None) -> Migrator | None:
    """What `device` is told of who does this; nothing but of migrations and of exclusive access."""
    if happening is Happening.EXCLUSIVE and by is None:
        return Migrator.NONE  # that ends
    if happening not in (Happening.MIGRATE, Happening.EXCLUSIVE) or by is None:
        return None
    return Migrator.OWN if by == device else Migrator.OTHER
