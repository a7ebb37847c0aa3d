# SPDX-License-Identifier: GPL-2.0-only
"""What a step may show. The model never says what was seen, only what is allowed."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.hearing import Hearing
from harness.program.observations import (
    NO_MARKS,
    TORN,
    Element,
    Entry,
    Mark,
    Merged,
    Placed,
    Residence,
    Signal,
    Soft,
    Token,
    Told,
)


@dataclass(frozen=True)
class Tokens:
    """A page's content, or what an access to it raises: one of `values`. `deviating`: as of `Entries`."""

    values: frozenset[Token]
    deviating: tuple[tuple[str, Token], ...] = ()

    def admits(self, element: Element) -> bool:
        """Whether `element` is allowed."""
        return element in self.values

    def deviation(self, element: Element) -> str | None:
        """The name of the known deviation that `element` is, if it is one."""
        return next((name for name, value in self.deviating if element == value), None)

    def __str__(self) -> str:
        return " or ".join(sorted(show_element(value) for value in self.values))


@dataclass(frozen=True)
class Whereabouts:
    """Where a page is, or what else is told of it: one of `values`. `deviating`: as of `Entries`."""

    values: frozenset[Residence | Told | Soft | Merged | Placed]
    deviating: tuple[tuple[str, Soft], ...] = ()

    def admits(self, element: Element) -> bool:
        """Whether `element` is allowed."""
        return element in self.values

    def deviation(self, element: Element) -> str | None:
        """The name of the known deviation that `element` is, if it is one."""
        return next((name for name, value in self.deviating if element == value), None)

    def __str__(self) -> str:
        return " or ".join(sorted(self.values))


@dataclass(frozen=True)
class Shape:
    """A kind of page table entry: `marks` must be there, `optional` ones may be.

    `huge`: order 9 is possible; `whole`: it is certain.
    """

    marks: Mark
    optional: Mark = NO_MARKS
    huge: bool = False
    whole: bool = False

    def admits(self, entry: Entry) -> bool:
        """Whether `entry` is of this kind."""
        # Of plain numbers: a page of many is compared in a tenth of the time that flags take.
        differs = entry.marks._value_ ^ self.marks._value_
        if differs and differs & ~self.optional._value_:
            return False
        return entry.order == 9 if self.whole else not entry.order or (self.huge and entry.order == 9)

    def __str__(self) -> str:
        return str(Entry(self.marks, 9 if self.whole else 0))


NOTHING = Shape(NO_MARKS)


@dataclass(frozen=True)
class Entries:
    """A page table entry: one of `shapes`. `deviating` are known kernel deviations by their name in `RECORDED`."""

    shapes: tuple[Shape, ...]
    deviating: tuple[tuple[str, Shape], ...] = ()

    def admits(self, element: Element) -> bool:
        """Whether `element` is allowed."""
        return isinstance(element, Entry) and any(shape.admits(element) for shape in self.shapes)

    def deviation(self, element: Element) -> str | None:
        """The name of the known deviation that `element` is, if it is one."""
        if isinstance(element, Entry):
            for name, shape in self.deviating:
                if shape.admits(element):
                    return name
        return None

    def __str__(self) -> str:
        return " or ".join(dict.fromkeys(str(shape) for shape in self.shapes))


@dataclass(frozen=True)
class Count:
    """A number from `low` to `high`; no upper bound if that is None.

    `deviating`: down to which number a known kernel deviation goes, and the deviation's name. `beyond`: the name of
    one that any greater number is.
    """

    low: int
    high: int | None = None
    deviating: tuple[int, str] | None = None
    beyond: str | None = None

    def admits(self, element: Element) -> bool:
        """Whether `element` is allowed."""
        return isinstance(element, int) and self.low <= element and (self.high is None or element <= self.high)

    def deviation(self, element: Element) -> str | None:
        """The name of the known deviation that `element` is, if it is one."""
        if self.deviating is not None and isinstance(element, int) and self.deviating[0] <= element < self.low:
            return self.deviating[1]
        if self.high is not None and isinstance(element, int) and element > self.high:
            return self.beyond
        return None

    def __str__(self) -> str:
        if self.high is None:
            return f"{self.low} or more"
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


@dataclass(frozen=True)
class Odd:
    """An odd number: `before`, or a greater one if it has `grown`. Any if `before` is None."""

    before: int | None
    grown: bool

    def admits(self, element: Element) -> bool:
        """Whether `element` is allowed."""
        if not isinstance(element, int) or element < 0 or element % 2 == 0:
            return False
        if self.before is None:
            return True
        return element > self.before if self.grown else element == self.before

    def deviation(self, _element: Element) -> str | None:
        """No deviation of a kernel is known."""
        return None

    @property
    def least(self) -> int:
        """The least that is allowed."""
        return 1 if self.before is None else self.before + 2 * self.grown

    def __str__(self) -> str:
        if self.before is None:
            return "an odd number"
        return f"an odd number after {self.before}" if self.grown else str(self.before)


Allowed = Tokens | Entries | Count | Odd | Whereabouts


@dataclass(frozen=True)
class Expectation:
    """What is allowed of one step.

    `errors`: errnos, 0 for success. `elements`: one for each that a successful step shows; a step that fails
    shows at most the first of them. `deviating_errors`: errnos that are known deviations, with their names.
    `hearing`: in place of elements, of a step that shows events.
    """

    errors: frozenset[int] = frozenset({0})
    elements: tuple[Allowed, ...] = ()
    deviating_errors: tuple[tuple[int, str], ...] = ()
    hearing: Hearing | None = None


OK = Expectation()  # it succeeds, and shows nothing


@dataclass(frozen=True)
class Deviation:
    """A divergence of the kernel from its documentation that is understood."""

    name: str
    summary: str
    source: str


OWN_READONLY_WRITE = "own-readonly-write"
OWN_FAULTED_ALONG = "own-faulted-along"
POISON_FAULTABLE = "poison-faultable"
GUARD_FAULTABLE = "guard-faultable"
FAULTED_ALONG = "faulted-along"
SNAPSHOT_CUT = "snapshot-cut"
REMOTE_REFUSED = "remote-refused"
REMOTE_HUGE_ERROR = "remote-huge-error"
HUGETLB_FIRST_PAGE = "hugetlb-first-page"
HUGETLB_RESIDUE = "hugetlb-residue"
OWN_HUGE_SHIFTED = "own-huge-shifted"
DIRTY_LOST = "dirty-lost"
EXCLUSIVE_WHOLE = "exclusive-whole"
LOCKED_HUGE_KEPT = "locked-huge-kept"
FAULT_NOT_HELD = "fault-not-held"
FAULT_NOT_LOCKED = "fault-not-locked"
WP_ZERO_LOST = "wp-zero-lost"
WP_MOVED = "wp-moved"
SOFT_DIRTY_MISSED = "soft-dirty-missed"
RECORDED = {
    deviation.name: deviation
    for deviation in (
        Deviation(
            OWN_READONLY_WRITE,
            "a write fault on the owner's read-only device-private page succeeds without HMM_PFN_WRITE",
            "include/linux/hmm.h (HMM_PFN_REQ_WRITE) against mm/hmm.c hmm_vma_handle_pte(), 5.10 to 7.3",
        ),
        Deviation(
            OWN_FAULTED_ALONG,
            "a fault that the owner needs on one page brings its own device pages behind it back to system memory",
            "include/linux/hmm.h (dev_private_owner) against mm/hmm.c hmm_vma_fault(), which faults to the end of "
            "the walked range",
        ),
        Deviation(
            FAULTED_ALONG,
            "a fault that one page needs faults others as well, of which less was asked, or nothing",
            "Documentation/mm/hmm.rst (index_of_write) against mm/hmm.c hmm_vma_fault(), which faults to the end of "
            "the walked range, and hmm_vma_walk_hole(), which faults all of a hole",
        ),
        Deviation(
            POISON_FAULTABLE,
            "poisoned memory snapshots as nothing, as if a fault could help, but every fault fails",
            "include/linux/hmm.h (HMM_PFN_ERROR: poisoned pages) against mm/hmm.c hmm_vma_handle_pte()",
        ),
        Deviation(
            GUARD_FAULTABLE,
            "a guard page snapshots as nothing, as if a fault could help, but every fault fails",
            "include/linux/hmm.h (0: a fault could succeed) against mm/hmm.c hmm_vma_handle_pte(), since 6.13",
        ),
        Deviation(
            SNAPSHOT_CUT,
            "a snapshot ends at poisoned memory: it succeeds, and what is behind is shown as nothing",
            "v4.20 mm/hmm.c hmm_vma_get_pfns(), which does not look at what walk_page_range() returns",
        ),
        Deviation(
            REMOTE_REFUSED,
            "a fault on a page in the memory of another device fails with EFAULT instead of bringing it back",
            'mm/hmm.c hmm_vma_handle_pte() up to 5.18: "Report error for everything else"; mended in 5.19 by '
            '"mm/hmm: fault non-owner device private entries"',
        ),
        Deviation(
            OWN_HUGE_SHIFTED,
            "a look at a part of the owner's huge device-private page numbers its pages from the start of the huge "
            "page, not from where the look begins",
            "mm/hmm.c hmm_vma_handle_absent_pmd() against hmm_vma_handle_pmd(), which adds the offset; 7.2, 7.3",
        ),
        Deviation(
            LOCKED_HUGE_KEPT,
            "a migration that passes over a huge page because somebody else has locked it leaves a reference to it "
            "behind: the page can be neither split nor freed any more",
            "mm/migrate_device.c migrate_vma_collect_pmd() (mm/migrate.c in 5.10), which returns without put_page() "
            "when trylock_page() of a huge page fails, up to 6.18; gone in 6.19 with "
            '"mm/migrate_device: implement THP migration of zone device pages"',
        ),
        Deviation(
            FAULT_NOT_HELD,
            "migrate_to_ram() is called without a reference to the page, which may be gone, and be another one, by "
            "then",
            'mm/memory.c do_swap_page() up to 6.0; mended in 6.1 by "mm/memory.c: fix race when faulting a device '
            'private page"',
        ),
        Deviation(
            FAULT_NOT_LOCKED,
            "migrate_to_ram() is called without the page's lock: CPUs that touch the page at once, each with a "
            "reference to it, keep each other from bringing it back",
            "mm/memory.c do_swap_page() up to 6.14; mended in 6.15 by "
            '"mm/migrate: Trylock device page in do_swap_page"',
        ),
        Deviation(
            EXCLUSIVE_WHOLE,
            "exclusive access to the first page of a huge page takes all of it from the CPU, though no other page is "
            "granted",
            'mm/rmap.c make_device_exclusive_range(), kernel-doc ("only if the page pointer is non-NULL") against '
            "page_make_device_exclusive_one(), which walks all of the folio, up to 6.14; mended in 6.15 by "
            '"mm/rmap: implement make_device_exclusive() using folio_walk instead of rmap walk"',
        ),
        Deviation(
            WP_ZERO_LOST,
            "a zero page that a userfaultfd has write-protected becomes a page of a device's memory that can be "
            "written: the protection is lost",
            "include/uapi/linux/userfaultfd.h (UFFDIO_WRITEPROTECT_MODE_WP) against mm/migrate_device.c "
            "migrate_vma_insert_page(), which looks for VM_UFFD_MISSING only, 5.10 to 7.3",
        ),
        Deviation(
            WP_MOVED,
            "a page that a userfaultfd has write-protected is so after mremap(), too, though no userfaultfd is asked "
            "about it there: one that is asked later finds it protected",
            "Documentation/admin-guide/mm/userfaultfd.rst (UFFD_FEATURE_EVENT_REMAP, write protect) against "
            "mm/mremap.c move_ptes() up to 6.12, which moves the bit; mended in 6.13 by "
            '"mm: clear uffd-wp PTE/PMD state on mremap()"',
        ),
        Deviation(
            SOFT_DIRTY_MISSED,
            "a write is not marked as soft-dirty if the page was in the memory of a device when the marks were "
            "cleared, or was made there since: it comes back writable and not marked",
            "Documentation/admin-guide/mm/soft-dirty.rst (the kernel sets the bit) against fs/proc/task_mmu.c "
            "clear_soft_dirty(), which takes the write permission of present entries only, 4.20 to 7.3",
        ),
        Deviation(
            REMOTE_HUGE_ERROR,
            "a huge page in the memory of another device snapshots as one that can never be accessed, though a fault "
            "brings it back; a small one snapshots as nothing",
            "include/linux/hmm.h (HMM_PFN_ERROR) against mm/hmm.c hmm_vma_handle_absent_pmd(), 7.2 and 7.3",
        ),
        Deviation(
            HUGETLB_FIRST_PAGE,
            "of a hugetlb page, only what is asked of the first page of it counts: others that were asked for are "
            "not there",
            "include/linux/hmm.h (HMM_PFN_REQ_FAULT) against mm/hmm.c hmm_vma_walk_hugetlb_entry(), 5.10 to 7.3",
        ),
        Deviation(
            DIRTY_LOST,
            "a migration forgets that a page was written after MADV_FREE: reclaim drops it, and it reads as zeros",
            "include/uapi/asm-generic/mman-common.h (MADV_FREE) against mm/migrate.c migrate_vma_collect_pmd() up to "
            "5.19, which loses the dirty bit of the page table; mended in 6.0 by "
            '"mm/migrate_device.c: copy pte dirty bit to page"',
        ),
        Deviation(
            HUGETLB_RESIDUE,
            "of a hugetlb page that is not there, the entries are not 0, though neither valid nor an error: they "
            "have an order and a page number",
            "include/linux/hmm.h (0: not present but faultable) against mm/hmm.c hmm_vma_walk_hugetlb_entry(), 5.10 "
            "to 7.3",
        ),
    )
}


def show_element(element: Element) -> str:
    """A few characters for a person."""
    if element == TORN and not isinstance(element, Entry):
        return "torn"
    if isinstance(element, Signal):
        return element.value
    return str(element)
