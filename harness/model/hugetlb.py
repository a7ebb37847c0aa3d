# SPDX-License-Identifier: GPL-2.0-only
"""Mappings of hugetlb pages: what is theirs alone.

A page of 2 MiB is one entry of the page table, so that its 512 pages come and go together (`AddressSpace.unit`). No
VMA of them begins or ends inside one (mm/hugetlb.c hugetlb_vm_op_split()), and two that were once divided stay so:
mm/vma.c merges no VM_SPECIAL ones, and these have VM_DONTEXPAND. `AddressSpace.edges` has where they are divided.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.model.allowed import HUGETLB_FIRST_PAGE, HUGETLB_RESIDUE, NOTHING, POISON_FAULTABLE, Entries, Shape
from harness.model.memory import HUGE_PAGES, AddressSpace, Known, Page, Pte
from harness.model.rules import Rules
from harness.program.observations import NO_MARKS, Element, Entry, Mark
from harness.program.operations import Advice, Asked

_RESIDUE = Shape(Mark.RESIDUE)
_ERROR = Entries((Shape(Mark.ERROR),))
_POISONED = Entries(_ERROR.shapes, ((POISON_FAULTABLE, Shape(NO_MARKS, optional=Mark.RESIDUE)),))

# mm/madvise.c: can_madv_lru_vma(), madvise_dontneed_free_valid_vma(), is_valid_guard_vma(); they have a vm_file
_REFUSALS = {
    Advice.FREE: errno.EINVAL,
    Advice.COLD: errno.EINVAL,
    Advice.PAGEOUT: errno.EINVAL,
    Advice.WIPEONFORK: errno.EINVAL,
    Advice.GUARD_INSTALL: errno.EINVAL,
    Advice.GUARD_REMOVE: errno.EINVAL,
    Advice.REMOVE: errno.EACCES,  # madvise_remove(): not shared
}


def split(space: AddressSpace, pages: range) -> bool:
    """Makes `pages` begin and end with a VMA; False if that would go through a hugetlb page (EINVAL)."""
    for edge in (pages.start, pages.stop):
        area = space.areas.get(edge)
        if area is None or not area.hugetlb:
            continue
        if edge % HUGE_PAGES:
            return False
        space.edges.add(edge)
    return True


def advised(rules: Rules, vma: range, advice: Advice) -> tuple[range, int]:
    """Which pages of `vma` an advice reaches, or the errno of mm/madvise.c."""
    if advice is Advice.DONTNEED and rules.has("HUGETLB_DONTNEED") and vma.start % HUGE_PAGES == 0:
        return range(vma.start, vma.stop - vma.stop % HUGE_PAGES), 0  # 5.18 to 6.0 rounded up
    return vma, errno.EINVAL if advice is Advice.DONTNEED else _REFUSALS.get(advice, 0)


def marked(space: AddressSpace, vma: range, marks: Mapping[str, object]) -> bool:
    """Whether the attributes of a VMA can become `marks` in `vma`: if that changes any, it is divided."""
    area = space.areas[vma.start]
    return replace(area, **marks) == area or split(space, vma)  # type: ignore[arg-type]


def moved(rules: Rules, pages: range) -> tuple[range, int]:
    """What mremap() moves if it is asked to move `pages`, the first of which is mapped; or an errno."""
    if not rules.has("HUGETLB_REMAP") or pages.start % HUGE_PAGES:
        return pages, errno.EINVAL
    return range(pages.start, pages.stop + -pages.stop % HUGE_PAGES), 0


def view(rules: Rules, space: AddressSpace, number: int) -> Entries | None:
    """What hmm_range_fault() shows of a page of such a mapping; None: a page that is there."""
    if rules.hugetlb_error or not space.areas[number].prot.readable:
        return _ERROR  # v4.20 mm/hmm.c hmm_pfns_special(); clause 35
    if number in space.traps:
        return _POISONED  # clause 45
    if number not in space.ptes:
        # mm/hmm.c hmm_vma_walk_hugetlb_entry() is called for what has a page table, whatever is in there.
        return Entries((NOTHING,), ((HUGETLB_RESIDUE, _RESIDUE),) if space.has_tables_near(number) else ())
    return None


def whole(entries: Entries) -> Entries:
    """These, of a page that is mapped by 2 MiB for sure; clause 39."""
    shapes = (replace(shape, whole=Mark.VALID in shape.marks) for shape in entries.shapes)
    return replace(entries, shapes=tuple(shapes))


def or_missing(entries: Entries) -> Entries:
    """These, of a page that may not be there: then it is shown as `view` says."""
    return replace(entries, deviating=(*entries.deviating, (HUGETLB_RESIDUE, _RESIDUE)))


def wishes(
    space: AddressSpace, pages: Sequence[int], asked: Sequence[Asked], seen: Sequence[Element], *, failed: bool
) -> list[Wish]:
    """What a request comes to for each of `pages`, if `asked` is asked of them and `seen` was shown of them.

    A hugetlb page is there or not as a whole, so that it has to be what is asked of any of its pages. But the kernel
    may look at the first of them only: `HUGETLB_FIRST_PAGE`. Which it did is seen, unless the request `failed`.
    """
    wanted = [Wish(each) for each in asked]
    begin = 0
    while begin < len(pages):
        area = space.areas.get(pages[begin])
        end = begin + 1
        if area is not None and area.hugetlb and area.prot.readable:
            end = min(begin + HUGE_PAGES - pages[begin] % HUGE_PAGES, len(pages))
            wanted[begin:end] = _wishes_of_one(space, pages[begin], asked[begin:end], seen[begin:end], failed=failed)
        begin = end
    return wanted


class Wish:
    """What a request comes to for one page. `asked`: what was asked of it, or of the hugetlb page that it is in.

    `heeded`: what the kernel did, if that is less and is `HUGETLB_FIRST_PAGE`. `unknown`: it may be that or `asked`.
    """

    def __init__(self, asked: Asked, heeded: Asked | None = None, *, unknown: bool = False) -> None:
        self.asked = asked
        self.heeded = asked if heeded is None else heeded
        self.unknown = unknown

    @property
    def deviates(self) -> bool:
        """Whether the kernel did less than it was asked to."""
        return self.heeded is not self.asked and not self.unknown


def _wishes_of_one(
    space: AddressSpace, number: int, asked: Sequence[Asked], seen: Sequence[Element], *, failed: bool
) -> list[Wish]:
    most = _faults(asked[0])
    for each in asked[1:]:
        most |= _faults(each)
    first = _faults(asked[0])
    if most is first or not space.has_tables_near(number):
        return [Wish(most)] * len(asked)  # mm/hmm.c hmm_vma_walk_hole() looks at what is asked of each
    if failed:
        return [Wish(most, first, unknown=True)] * len(asked)
    wanted = Mark.VALID | Mark.WRITE if most is Asked.BOTH else Mark.VALID
    if all(isinstance(element, Entry) and wanted & element.marks == wanted for element in seen):
        return [Wish(most)] * len(asked)
    return [Wish(most, first)] * len(asked)


def _faults(asked: Asked) -> Asked:
    """What of it makes hmm_range_fault() fault: clause 30."""
    return asked if asked in (Asked.FAULT, Asked.BOTH) else Asked.NONE


def deviating(entries: Entries) -> Entries:
    """What is shown where less was done than was asked: none of it is allowed."""
    shapes = [*entries.shapes, *(shape for _, shape in entries.deviating)]
    return Entries((), tuple((HUGETLB_FIRST_PAGE, shape) for shape in shapes))


def touch_maybe(space: AddressSpace, number: int, *, write: bool) -> None:
    """All of a hugetlb page may have been faulted in, or not."""
    for near in space.unit(number):
        pte = space.ptes.get(near)
        if pte is None:
            write_known = Known.MAYBE if write else Known.NO
            space.set(near, Pte(Page(frozenset({0}), anonymous=True), write_known, Known.MAYBE))
        elif write and pte.write is Known.NO:
            pte.write = Known.MAYBE
