# SPDX-License-Identifier: GPL-2.0-only
"""How pages are shown to a device."""

from __future__ import annotations

from dataclasses import replace

from harness.model import hugetlb
from harness.model.allowed import (
    DIRTY_LOST,
    EXCLUSIVE_WHOLE,
    GUARD_FAULTABLE,
    NOTHING,
    OWN_HUGE_SHIFTED,
    POISON_FAULTABLE,
    REMOTE_HUGE_ERROR,
    Count,
    Entries,
    Shape,
    Tokens,
)
from harness.model.memory import HUGE_PAGES, WITH_HUGE, AddressSpace, Area, Known, Page, Pte, Trap
from harness.model.rules import Rules
from harness.program.observations import NO_MARKS, Mark
from harness.program.operations import COHERENT, Backing

_ERROR = Entries((Shape(Mark.ERROR),))
_TRAPPED = {
    Trap.POISON: Entries(_ERROR.shapes, ((POISON_FAULTABLE, NOTHING),)),
    Trap.GUARD: Entries(_ERROR.shapes, ((GUARD_FAULTABLE, NOTHING),)),
}


def view(
    rules: Rules, space: AddressSpace, number: int, *, device: str, owner: str | None, granted: bool = False
) -> Entries:
    """What hmm_range_fault() shows `device` of a page, if it is shown the device-private memory of `owner`.

    `granted`: the page was asked for, so that there is an entry (clause 28).
    """
    area = space.areas.get(number)
    pte = space.ptes.get(number)
    if area is not None and area.hugetlb:
        absent = hugetlb.view(rules, space, number)
        if absent is not None or pte is None:
            return absent or _ERROR
        missing = not granted and pte.present is Known.MAYBE
        entries = hugetlb.whole(entries_of(pte, owner or "", huge=True, missing=missing))
        return hugetlb.or_missing(entries) if missing else entries
    if area is not None and area.special and (is_pfnmap(rules, area) or rules.hugetlb_error):
        return _ERROR  # clauses 56 and 57: mm/hmm.c hmm_vma_walk_test(), v4.20 hmm_pfns_special()
    if area is None or (not area.prot.readable and rules.unreadable_shown):
        return _ERROR  # clauses 33 and 35
    if area.prot.readable and number in space.traps:
        return _TRAPPED[space.traps[number]]  # clauses 45 and 46
    if pte is None or not area.prot.readable:
        return Entries((NOTHING,))  # clause 32
    if area.pageless:  # clause 56: mm/hmm.c hmm_vma_handle_pte() of what vm_normal_page() has none for
        return _ERROR if pte.present is Known.YES else Entries((NOTHING, *_ERROR.shapes))
    if pte.exclusive is Known.YES or pte.swapped is Known.YES:
        return Entries((NOTHING,))  # clauses 51 and 42
    home = pte.page.home
    if home in COHERENT:
        # Present, whoever asks: mm/hmm.c hmm_vma_handle_pte() looks at owners of private memory only.
        missing = not granted and Known.MAYBE in (pte.present, pte.exclusive, pte.swapped)
        return entries_of(pte, device, huge=pte.huge, missing=missing)
    if home not in (None, device) and (home == owner or rules.remote_shown):
        return _remote_entry(pte)
    if home not in (None, owner) and not pte.page.strayed:
        return Entries((NOTHING,), _remote(pte))  # clause 49
    doubts = (pte.present, pte.swapped) if pte.along else (pte.present, pte.exclusive, pte.swapped)
    entry = entries_of(pte, owner or "", huge=pte.huge, missing=not granted and Known.MAYBE in doubts)
    if granted or not pte.along or pte.exclusive is not Known.MAYBE:
        return entry
    return replace(entry, deviating=(*entry.deviating, (EXCLUSIVE_WHOLE, NOTHING)))


def is_pfnmap(rules: Rules, area: Area) -> bool:
    """VM_PFNMAP or VM_IO: no page of it is looked at."""
    return area.backing is Backing.PFNMAP or (area.backing is Backing.VVAR and rules.has("VVAR_PFNMAP"))


def content(page: Page) -> Tokens:
    """What is read of a page."""
    return Tokens(page.tokens, ((DIRTY_LOST, 0),) if page.forgotten else ())


def entries_of(pte: Pte, device: str, *, huge: bool, missing: bool) -> Entries:
    """An entry that shows `pte` to `device`, or none where one may be `missing`."""
    page, write = pte.page, pte.write
    local = page.home == device
    shapes = shapes_of(page, write, local=local, huge=huge)
    if pte.or_zero:
        shapes += (Shape(Mark.VALID, Mark.ZERO, huge),)
    shifted = _shifted(shapes) if pte.huge else ()
    if missing:
        shapes = (NOTHING, *shapes)
    if not page.strayed:
        return Entries(shapes, shifted)
    if page.home in COHERENT:
        gone = tuple(replace(shape, marks=shape.marks & ~(Mark.LOCAL | Mark.REMOTE)) for shape in shapes)
        if page.strayed == WITH_HUGE:
            return Entries((*shapes, *gone))
        return Entries(shapes, tuple((page.strayed, shape) for shape in gone))
    if not local and page.strayed == WITH_HUGE:
        return Entries((NOTHING, *shapes), _remote(pte))
    if not local:
        return Entries((NOTHING,), tuple((page.strayed, shape) for shape in shapes))
    gone = shapes_of(page, write, local=False, huge=huge)
    if page.strayed == WITH_HUGE:
        return Entries((*shapes, *gone), shifted)
    return Entries(shapes, tuple((page.strayed, shape) for shape in gone))


def shapes_of(page: Page, write: Known, *, local: bool, huge: bool) -> tuple[Shape, ...]:
    """What an entry that points to `page` may look like. `local`: the page is in the memory of who looks.

    That a page is in the memory of another device, a driver sees by itself (kmod/table.c hh_describe_page()).
    """
    marks = Mark.VALID
    optional = NO_MARKS
    if local:
        marks |= Mark.LOCAL
    elif page.home in COHERENT:
        marks |= Mark.REMOTE
    if page.zero:
        marks |= Mark.ZERO
        if huge:
            optional |= Mark.ZERO  # the huge zero page is another page
    readable = Shape(marks, optional, huge)
    writable = Shape(marks | Mark.WRITE, optional, huge)
    return {Known.NO: (readable,), Known.YES: (writable,), Known.MAYBE: (readable, writable)}[write]


def _shifted(shapes: tuple[Shape, ...]) -> tuple[tuple[str, Shape], ...]:
    """What may be shown against the rules in place of `shapes` of a page in a device's memory."""
    return tuple(
        (OWN_HUGE_SHIFTED, replace(shape, marks=shape.marks | Mark.SHIFTED))
        for shape in shapes
        if shape.marks & (Mark.LOCAL | Mark.REMOTE)
    )


def counted(residents: set[Page], *, unsure: int = 0) -> Count:
    """How many pages a device shows that has these `residents`, unless they strayed, or so many of them less.

    Those that may have gone with others of a huge page need not be there, and of one of which a part is there, the
    rest may be in use.
    """
    larges = {page.large for page in residents if page.large is not None}
    parts = sum(page.large is not None for page in residents)
    high = len(residents) + len(larges) * HUGE_PAGES - parts
    low = max(sum(page.strayed != WITH_HUGE for page in residents) - unsure, 0)
    strayed = [page.strayed for page in residents if page.strayed not in (None, WITH_HUGE)]
    deviating = (low - len(strayed), strayed[0]) if strayed and strayed[0] else None
    return Count(low, high, deviating)


def _remote_entry(pte: Pte) -> Entries:
    """What is shown of a page in the memory of another device, by a driver that is shown such pages."""
    remote = tuple(
        replace(shape, marks=shape.marks | Mark.REMOTE)
        for shape in shapes_of(pte.page, pte.write, local=False, huge=pte.huge)
    )
    shifted = _shifted(remote) if pte.huge else ()
    if not pte.page.strayed:
        return Entries(remote, shifted)
    home = shapes_of(pte.page, pte.write, local=False, huge=pte.huge)
    if pte.page.strayed == WITH_HUGE:
        return Entries((*remote, *home), shifted)
    return Entries(remote, tuple((pte.page.strayed, shape) for shape in home))


def _remote(pte: Pte) -> tuple[tuple[str, Shape], ...]:
    """What a snapshot by another device may show against the rules."""
    return ((REMOTE_HUGE_ERROR, _ERROR.shapes[0]),) if pte.huge else ()
