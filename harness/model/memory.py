# SPDX-License-Identifier: GPL-2.0-only
"""Address spaces, pages and page tables, as far as HMM lets a device see them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from harness.program.observations import Token
from harness.program.operations import ANSWER_PAGES, COHERENT, Backing, Prot, Userfault

HUGE_PAGES = 512  # base pages of a transparent huge page (x86-64)
FAULT_AROUND = 16  # pages; mm/memory.c fault_around_bytes
# In place of a deviation's name: it may have gone with another page of the same huge page, as it may.
WITH_HUGE = "with-huge"


class Known(Enum):
    """What the model knows of a bit that the kernel may set as it likes."""

    NO = 0
    YES = 1
    MAYBE = 2


class Trap(Enum):
    """What a page table may have in place of a page: no access succeeds."""

    POISON = "poison"  # a hwpoison entry: the memory has failed
    GUARD = "guard"  # MADV_GUARD_INSTALL


@dataclass(eq=False)
class Large:
    """A huge page of a device's memory: as long as any part is in use, all of it may be."""


@dataclass(eq=False)
class Page:
    """A page of memory. `tokens`: what it may hold, several after MADV_FREE or a failed device write."""

    tokens: frozenset[Token]
    anonymous: bool
    home: str | None = None  # the device in whose memory it lives
    strayed: str | None = None  # why it may have left that device, if it may: a deviation's name, or `WITH_HUGE`
    large: Large | None = None  # what it may be a part of in device memory
    zero: bool = False  # the one shared zero page
    lazy: bool = False  # MADV_FREE: may be dropped at any time until it is written
    unbacked: bool = False  # it was that once, and is dropped if nothing says that it was written since
    forgotten: bool = False  # that was lost on the way: `DIRTY_LOST`
    cached: bool = False  # may be in the swap cache, from where few kernels let it migrate to a device
    paged: Known = Known.NO  # of a file: it is in swap space, which no page table says; any access brings it
    merged: bool = False  # KSM has it in place of several that were equal
    pinned: bool = False  # somebody holds it, for long: it stays where it is
    mappings: set[tuple[AddressSpace, int]] = field(default_factory=set)

    @property
    def swapped(self) -> bool:
        """Whether some process has it in swap space for sure, be it in memory for another one or not."""
        return any(space.ptes[number].swapped is Known.YES for space, number in self.mappings)

    @property
    def private_home(self) -> str | None:
        """The device in whose memory it lives, if that is private: no CPU reaches it there.

        In coherent memory a page is as present as in system memory (include/linux/memremap.h MEMORY_DEVICE_COHERENT).
        """
        return None if self.home in COHERENT else self.home

    def fill(self, token: int) -> None:
        """Somebody wrote it, and left a mark: it holds `token` and nothing else."""
        self.tokens = frozenset({token})
        self.lazy = False
        self.forgotten = False


@dataclass(eq=False)
class Pte:
    """An entry of a CPU page table. `present` is YES or MAYBE; an absent entry is not in the table."""

    page: Page
    write: Known
    present: Known = Known.YES
    huge: bool = False  # may be mapped by a PMD
    or_zero: bool = False  # a read may have found nothing here, and mapped the zero page
    exclusive: Known = Known.NO  # a device has the page to itself: no CPU can access it by this
    uffd_wp: bool = False  # a userfaultfd has write-protected it: _PAGE_UFFD_WP, by whatever name
    uffd_kept: bool = False  # it was, where mremap() took it from, and the kernel left it so: `WP_MOVED`
    along: bool = False  # MAYBE only because it was given with others of its huge page, against the rules
    swapped: Known = Known.NO  # it says where in swap space the page is; then `write` says nothing
    soft: Known = Known.MAYBE  # it is marked as soft-dirty
    blind: bool = False  # no write marks it as long as nobody takes the write permission: `SOFT_DIRTY_MISSED`
    missed: bool = False  # and it was written so: `soft` is what should be

    @property
    def mapped(self) -> bool:
        """Whether it points to memory for sure."""
        return self.present is Known.YES and self.swapped is Known.NO


@dataclass(eq=False)
class File:
    """What a shared or a file mapping is a view of; a page that is not there reads as zeros.

    `size`: how many pages it has. Behind them nothing can be accessed.
    """

    size: int
    pages: dict[int, Page] = field(default_factory=dict)


@dataclass(frozen=True)
class Area:
    """What the VMA around a page says of it. Equal areas of neighbouring pages are one VMA."""

    backing: Backing
    prot: Prot
    origin: int  # virtual page number that page 0 of `file` is or would be mapped at
    file: File | None = None
    hugepage: bool | None = None  # MADV_HUGEPAGE, MADV_NOHUGEPAGE, or neither
    dontfork: bool = False
    locked: bool = False  # VM_LOCKED
    wipeonfork: bool = False
    userfault: Userfault | None = None  # what a userfaultfd is asked about: VM_UFFD_MISSING, VM_UFFD_WP

    @property
    def minded(self) -> bool:
        """userfaultfd_missing(): a userfaultfd says what comes where there is nothing."""
        return self.userfault in (Userfault.MISSING, Userfault.ANSWERED)

    @property
    def shared(self) -> bool:
        """VM_SHARED."""
        return self.backing in (Backing.SHARED, Backing.FILE) or self.backing.of_driver

    @property
    def anonymous(self) -> bool:
        """vma_is_anonymous()."""
        return self.backing is Backing.ANON

    @property
    def special(self) -> bool:
        """VM_SPECIAL: no page of it moves, nor can anybody have it that asks for pages."""
        return self.backing.of_driver or self.backing.of_kernel

    @property
    def pageless(self) -> bool:
        """Whether no entry of it has a page that anybody else may have."""
        return self.backing.of_driver or self.backing is Backing.VVAR

    @property
    def hugetlb(self) -> bool:
        """is_vm_hugetlb_page()."""
        return self.backing is Backing.HUGETLB


class AddressSpace:
    """One process's memory: `areas` and `ptes` by virtual page number."""

    def __init__(self, zero: Page) -> None:
        self.zero = zero
        self.areas: dict[int, Area] = {}
        self.ptes: dict[int, Pte] = {}
        self.traps: dict[int, Trap] = {}  # where there is a trap, there is no `Pte`
        self._tables: set[int] = set()  # where a page table was ever made: number of the 2 MiB
        self.unstable = False  # MMF_UNSTABLE: what is not there of private memory does not come back
        self.pieces: set[int] = set()  # where a VMA was changed in part: it may be two VMAs, though equal
        self.tracked: set[int] = set()  # where the marks count: the VMA is not soft-dirty as a whole, VM_SOFTDIRTY
        self.mergeable: set[int] = set()  # VM_MERGEABLE
        self.edges: set[int] = set()  # where hugetlb VMAs are divided; see harness/model/hugetlb.py

    def has_tables_near(self, page_number: int) -> bool:
        """Whether a page table was ever made in the 1 GiB around this page."""
        gigabyte = page_number // (HUGE_PAGES * HUGE_PAGES)
        return any(table // HUGE_PAGES == gigabyte for table in self._tables)

    def unit(self, page_number: int) -> range:
        """The pages that come and go with this one: all of a hugetlb page, else it alone."""
        area = self.areas.get(page_number)
        if area is None or not area.hugetlb:
            return range(page_number, page_number + 1)
        first = page_number - page_number % HUGE_PAGES
        return range(first, first + HUGE_PAGES)

    def vmas(self, pages: range) -> list[tuple[range, Area | None]]:
        """`pages` divided by the VMAs that they are in; None where there is none. Equal neighbours count as one."""
        found: list[tuple[range, Area | None]] = []
        for number in pages:
            area = self.areas.get(number)
            if found and found[-1][1] == area and number not in self.edges:
                found[-1] = (range(found[-1][0].start, number + 1), area)
            else:
                found.append((range(number, number + 1), area))
        return found

    def behind_end(self, page_number: int) -> bool:
        """Whether the file that is mapped here ends before this page, so that there is no page of it."""
        area = self.areas.get(page_number)
        return area is not None and area.file is not None and page_number - area.origin >= area.file.size

    def is_missing(self, page_number: int) -> bool:
        """Whether a userfaultfd is asked to bring this page, as nothing else may.

        mm/memory.c do_anonymous_page(); of files, mm/shmem.c shmem_get_folio_gfp() looks into the page cache first.
        """
        area = self.areas.get(page_number)
        if area is None or not area.minded or page_number in self.ptes:
            return False
        return area.file is None or page_number - area.origin not in area.file.pages

    def bring(self, page_number: int, token: Token) -> None:
        """Makes the missing page, which holds `token`: mm/userfaultfd.c mfill_atomic_install_pte()."""
        area = self.areas[page_number]
        page = Page(frozenset({token}), anonymous=not area.shared)
        if area.shared:
            assert area.file is not None
            area.file.pages[page_number - area.origin] = page
        self.set(page_number, Pte(page, Known.YES if area.prot.writable else Known.NO))

    def add_table(self, page_number: int) -> None:
        """There is a page table for this page now, with nothing in it."""
        self._tables.add(page_number // HUGE_PAGES)

    def set(self, page_number: int, pte: Pte) -> None:
        """Installs `pte`, in place of what was there."""
        self.clear(page_number)
        self.ptes[page_number] = pte
        if pte.present is Known.YES:
            pte.page.paged = Known.NO
        elif pte.page.paged is Known.YES:
            pte.page.paged = Known.MAYBE
        self._tables.add(page_number // HUGE_PAGES)
        if not pte.page.zero:
            pte.page.mappings.add((self, page_number))

    def trap(self, page_number: int, trap: Trap) -> None:
        """Puts a trap where there is no entry."""
        assert page_number not in self.ptes
        self.traps[page_number] = trap
        self._tables.add(page_number // HUGE_PAGES)

    def clear(self, page_number: int) -> Pte | None:
        """Takes the entry away and returns it."""
        pte = self.ptes.pop(page_number, None)
        if pte is not None:
            pte.page.mappings.discard((self, page_number))
        return pte

    def behind(self, page_number: int) -> Page | None:
        """The page of a file or of shared memory that this page is a view or a copy of, if there is one."""
        area = self.areas.get(page_number)
        return None if area is None or area.file is None else area.file.pages.get(page_number - area.origin)

    def file_page(self, page_number: int) -> Page:
        """The page cache's page behind a file or shared mapping, made if it is not there."""
        area = self.areas[page_number]
        assert area.file is not None
        return area.file.pages.setdefault(page_number - area.origin, Page(frozenset({0}), anonymous=False))

    def fault_in(self, page_number: int, *, write: bool) -> Page | None:
        """Makes the page accessible, as mm/memory.c handle_mm_fault() does where the VMA allows the access.

        The page must not be in private device memory. Returns the page that was mapped until then, if another one
        took its place.
        """
        area = self.areas[page_number]
        pte = self.ptes.get(page_number)
        if area.userfault is Userfault.ANSWERED and self.is_missing(page_number):
            self.bring(page_number, page_number % ANSWER_PAGES + 1)
            return None
        if pte is None:
            self._first_touch(page_number, area, write=write)
            return None
        if pte.present is Known.MAYBE:
            # A read that finds nothing where a huge page was possible, or a page was dropped, maps the zero page.
            pte.or_zero = not write and pte.page.anonymous and not pte.page.zero and not area.hugetlb
            pte.present = Known.MAYBE if pte.page.lazy and not write else Known.YES
            pte.page.paged = Known.NO
            if area.shared and area.prot.writable and pte.write is Known.NO:
                pte.write = Known.MAYBE
        pte.or_zero = pte.or_zero and not write
        if not write or pte.write is Known.YES:
            return None
        page = pte.page
        copied = page.zero or (not area.shared and (not page.anonymous or len(page.mappings) > 1))
        if copied:
            self.set(page_number, Pte(Page(page.tokens, anonymous=True), Known.YES, huge=pte.huge))
            return page
        pte.write = Known.YES
        page.merged = False
        return None

    def _first_touch(self, page_number: int, area: Area, *, write: bool) -> None:
        untouched = page_number // HUGE_PAGES not in self._tables
        if area.file is not None:
            self._touch_file(page_number, area, write=write)
        elif write or area.hugetlb:  # mm/hugetlb.c hugetlb_no_page() knows no zero page
            self.set(page_number, Pte(Page(frozenset({0}), anonymous=True), Known.YES if write else Known.NO))
        else:
            self.set(page_number, Pte(self.zero, Known.NO))
        if area.anonymous and area.hugepage and untouched:  # do_anonymous_page() is for what has a page table
            self._touch_huge(page_number, area, write=write)

    def _touch_file(self, page_number: int, area: Area, *, write: bool) -> None:
        page = self.file_page(page_number)
        page.paged = Known.NO
        if write:
            if not area.shared:
                page = Page(page.tokens, anonymous=True)
            self.set(page_number, Pte(page, Known.YES))
            return
        # A read may map a shared writable page writable at once: do_set_pte() takes vm_page_prot.
        may_write = Known.MAYBE if area.shared and area.prot.writable else Known.NO
        self.set(page_number, Pte(page, may_write))
        # do_fault_around(): what the page cache has nearby may be mapped as well.
        assert area.file is not None
        for near in range(page_number - FAULT_AROUND + 1, page_number + FAULT_AROUND):
            cached = area.file.pages.get(near - area.origin)
            if cached is None or cached.paged is Known.YES or near in self.ptes or near in self.traps:
                continue
            if self.areas.get(near) == area:
                self.set(near, Pte(cached, may_write, Known.MAYBE))

    def _touch_huge(self, page_number: int, area: Area, *, write: bool) -> None:
        """The rest of an aligned 2 MiB may come with the page that was touched."""
        first = page_number - page_number % HUGE_PAGES
        block = range(first, first + HUGE_PAGES)
        if any(self.areas.get(number) != area for number in block):
            return
        self.ptes[page_number].huge = True
        for number in block:
            if number in self.ptes or number in self.traps:
                continue
            if write:
                self.set(number, Pte(Page(frozenset({0}), anonymous=True), Known.MAYBE, Known.MAYBE, huge=True))
            else:
                self.set(number, Pte(self.zero, Known.NO, Known.MAYBE, huge=True))

    def change_area(self, page_number: int, **changes: object) -> None:
        """Replaces attributes of the VMA at this page."""
        area = self.areas[page_number]
        changed = replace(area, **changes)  # type: ignore[arg-type]
        if changed != area:
            self.areas[page_number] = changed
            self.pieces.add(page_number)
