# SPDX-License-Identifier: GPL-2.0-only
"""Subjects: what processes do with their memory, but for advice."""

from __future__ import annotations

import errno
from dataclasses import replace

from harness.model import hugetlb
from harness.model.allowed import OK, Expectation, Tokens
from harness.model.memory import AddressSpace, Area, File, Known, Page, Pte, Trap
from harness.model.state import Handlers, State
from harness.model.views import content
from harness.program.observations import Happening, Observation, Signal
from harness.program.operations import (
    Backing,
    Exit,
    Fork,
    Map,
    Poison,
    Prot,
    Protect,
    Read,
    Remap,
    Unmap,
    Userfault,
    Write,
)

_SIGNALS = {Trap.POISON: Signal.BUS, Trap.GUARD: Signal.SEGV}  # mm/memory.c do_swap_page(), handle_pte_marker()


class Subjects:
    """Mappings, accesses by the CPU, and the lives of processes."""

    def __init__(self, state: State) -> None:
        self._state = state

    def handlers(self) -> Handlers:
        """The operations that this is about."""
        return {
            Map: self._map, Unmap: self._unmap, Protect: self._protect, Remap: self._remap,
            Read: self._read, Write: self._write, Poison: self._poison, Fork: self._fork, Exit: self._exit,
        }  # fmt: skip

    def _map(self, step: Map, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        first = self._state.program.regions[step.region].address // 4096
        file = None if step.backing in (Backing.ANON, Backing.HUGETLB) else File(step.pages)
        area = Area(step.backing, step.prot, first, file)
        for number in range(first, first + step.pages):
            space.areas[number] = area
            if step.backing is Backing.VDSO:  # who started the process may have looked at it
                space.set(number, Pte(space.file_page(number), Known.NO, Known.MAYBE))
        return OK

    def _unmap(self, step: Unmap, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        if not hugetlb.split(space, self._state.pages(step.span)):
            return Expectation(frozenset({errno.EINVAL}))
        self._state.may_hear(space, self._state.pages(step.span), Happening.UNMAP)
        for number in self._state.pages(step.span):
            pte = self._state.clear(space, number, Happening.UNMAP)
            if pte is not None:
                self._state.drop(pte.page)
            space.traps.pop(number, None)
            space.areas.pop(number, None)
            space.mergeable.discard(number)
        return OK

    def _protect(self, step: Protect, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        for vma, area in space.vmas(self._state.pages(step.span)):
            if area is None:
                return Expectation(frozenset({errno.ENOMEM}))  # what is before the hole was changed
            if area.prot is step.prot:
                continue  # mm/mprotect.c mprotect_fixup(): nothing to do
            if not hugetlb.split(space, vma):
                return Expectation(frozenset({errno.EINVAL}))
            for number in vma:
                self._protect_page(space, number, step.prot)
            if area.locked and not area.shared and step.prot.writable and not area.prot.writable:
                for number in vma:  # mm/mprotect.c mprotect_fixup(): copies are made at once
                    if not self._state.populate(space, number):
                        break
        return OK

    def _protect_page(self, space: AddressSpace, number: int, prot: Prot) -> None:
        pte = space.ptes.get(number)
        loses_write = pte is not None and pte.write is Known.YES and not prot.writable
        if loses_write or not prot.cpu_readable:
            self._state.must_hear(space, number, Happening.PROTECTION_VMA, flushed=loses_write)
        if space.has_tables_near(number) or space.areas[number].hugetlb:  # mm/hugetlb.c hugetlb_change_protection()
            self._state.may_hear(space, (number,), Happening.PROTECTION_VMA)
        space.change_area(number, prot=prot)
        self._state.invalidate(space, (number,), only_writable=prot.readable)
        if pte is not None:
            _lose_mark(pte)
            pte.write = write_after_protect(pte, space.areas[number])

    def _remap(self, step: Remap, observed: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        numbers = self._state.pages(step.span)
        first = space.areas.get(numbers.start)
        if first is not None and first.hugetlb:
            numbers, error = hugetlb.moved(self._state.rules, numbers)
            if error:
                return Expectation(frozenset({error}))
        areas = [space.areas.get(number) for number in numbers]
        vmas = len(space.vmas(numbers))
        errors = frozenset({0})
        minded = first is not None and first.userfault is not None  # 7.3 mm/mremap.c vma_multi_allowed()
        if self._state.rules.has("REMAP_SEVERAL") and not minded:
            if areas[0] is None:
                return Expectation(frozenset({errno.EFAULT}))  # mm/mremap.c remap_move(): no gap at the start
        elif first is None or vmas > 1:
            return Expectation(frozenset({errno.EFAULT}))  # mm/mremap.c vma_to_resize(): one VMA only
        elif not first.hugetlb and not space.pieces.isdisjoint(numbers):
            errors |= {errno.EFAULT}  # equal, but it may be two VMAs
        if observed.error in errors and observed.error:
            return Expectation(errors)
        shift = self._state.program.regions[step.region].address // 4096 - numbers.start
        space.edges |= {edge + shift for edge in space.edges if edge in numbers}
        for number, area in zip(numbers, areas, strict=True):
            if area is None:
                continue
            self._state.may_hear(space, (number,), Happening.UNMAP)
            if area.hugetlb:  # mm/hugetlb.c move_hugetlb_page_tables()
                self._state.must_hear(space, number, Happening.CLEAR, Happening.UNMAP)
                pte = self._state.clear(space, number)
            else:
                pte = self._state.clear(space, number, Happening.UNMAP)
            del space.areas[number]
            # fs/userfaultfd.c mremap_userfaultfd_prep(): no userfaultfd is asked there (clause 270)
            space.areas[number + shift] = replace(area, origin=area.origin + shift, userfault=None)
            if number in space.tracked:
                space.tracked.add(number + shift)
            if number in space.mergeable:
                space.mergeable.add(number + shift)
            if pte is not None:
                pte.uffd_kept = pte.uffd_wp and self._state.rules.has("USERFAULT_WP_MOVES")
                pte.uffd_wp = False
                if pte.soft is Known.NO:  # mm/mremap.c move_soft_dirty_pte(), but for whole page tables
                    pte.soft = Known.MAYBE
                space.set(number + shift, pte)
            if number in space.traps:
                space.trap(number + shift, space.traps.pop(number))
            if number in space.pieces:
                space.pieces.add(number + shift)
        return Expectation(errors)

    def _read(self, step: Read, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        allowed: list[Tokens] = []
        for number in self._state.pages(step.span):
            area = space.areas.get(number)
            if area is None or not area.prot.cpu_readable:
                allowed.append(Tokens(frozenset({Signal.SEGV})))
            elif number in space.traps:
                allowed.append(Tokens(frozenset({_SIGNALS[space.traps[number]]})))
            elif self._state.fail(space, number, write=False, waits=True) or self._state.refuses(space, number):
                allowed.append(Tokens(frozenset({Signal.BUS})))
            else:
                allowed.append(content(self._state.touch(space, number, write=False).page))
        return Expectation(elements=tuple(allowed))

    def _write(self, step: Write, _: Observation) -> Expectation:
        space = self._state.spaces[step.actor]
        allowed: list[Tokens] = []
        for offset, number in enumerate(self._state.pages(step.span)):
            area = space.areas.get(number)
            if area is None or not area.prot.writable:
                allowed.append(Tokens(frozenset({Signal.SEGV})))
                continue
            if number in space.traps:
                allowed.append(Tokens(frozenset({_SIGNALS[space.traps[number]]})))
                continue
            if self._state.fail(space, number, write=True, waits=True) or self._state.refuses(space, number):
                allowed.append(Tokens(frozenset({Signal.BUS})))
                continue
            pte = self._state.touch(space, number, write=True)
            pte.page.fill(step.token + offset)
            allowed.append(Tokens(frozenset({0})))
        return Expectation(elements=tuple(allowed))

    def _poison(self, step: Poison, observed: Observation) -> Expectation:
        """mm/memory-failure.c memory_failure() of pages that are written and nobody else's."""
        space = self._state.spaces[step.actor]
        for number in self._state.pages(step.span):
            area = space.areas.get(number)
            if area is None or not area.prot.writable or number in space.traps:
                return Expectation(frozenset({errno.EFAULT}))
            if self._state.refuses(space, number):
                return Expectation(frozenset({errno.EFAULT}))
            pte = self._state.touch(space, number, write=True)
            if not area.prot.readable and observed.error == errno.EFAULT:
                return Expectation(frozenset({errno.EFAULT}))  # unless it is quick: gup_fast() does not look at VMAs
            if pte.huge and observed.error == errno.EBUSY:
                return Expectation(frozenset({errno.EBUSY}))  # it could not be split
            if pte.page.home is not None:
                # That is for its driver to handle: kmod/interval_devmem.c hh_memory_failure().
                pte.page.fill(0)
                return Expectation(frozenset({errno.ENXIO}))
            for near in space.unit(number):
                self._state.clear(space, near, Happening.CLEAR)
                space.trap(near, Trap.POISON)
        return OK

    def _fork(self, step: Fork, _: Observation) -> Expectation:
        parent = self._state.spaces[step.actor]
        child = AddressSpace(self._state.zero)
        for number, area in parent.areas.items():
            if not area.dontfork:
                # fs/userfaultfd.c dup_userfaultfd(): the child has none, nor what it protected; kernel/fork.c
                # dup_mmap(): nor is anything locked
                own = area.userfault is None and not area.locked
                child.areas[number] = area if own else replace(area, userfault=None, locked=False)
        child.pieces = set(parent.pieces)
        child.tracked = set(parent.tracked)
        child.mergeable = set(parent.mergeable)
        child.edges = set(parent.edges)
        for number, area in parent.areas.items():
            if area.shared or area.dontfork or area.wipeonfork:
                continue
            if not area.hugetlb:
                self._state.may_hear(parent, (number,), Happening.PROTECTION_PAGE)  # mm/memory.c copy_page_range()
            elif parent.has_tables_near(number):
                child.add_table(number)  # mm/hugetlb.c copy_hugetlb_page_range(), also where there is no page
        for number, pte in list(parent.ptes.items()):
            area = parent.areas[number]
            if area.dontfork or area.wipeonfork:
                continue
            # mm/memory.c vma_needs_copy(): page tables that a fault can make again may be left out, zero pages, too
            present = pte.present if pte.page.anonymous and not pte.page.zero else Known.MAYBE
            if pte.page.pinned and not area.shared:
                # mm/memory.c copy_present_page(): the child gets a copy at once, the parent's stays as it is.
                write = Known.YES if area.prot.writable else Known.NO
                child.set(number, Pte(Page(pte.page.tokens, anonymous=True), write))
                continue
            if not area.shared:
                if pte.write is Known.YES:
                    kinds = (Happening.CLEAR,) if area.hugetlb else (Happening.PROTECTION_PAGE,)
                    self._state.must_hear(parent, number, *kinds, flushed=True)
                pte.write = Known.NO
                _lose_mark(pte)
                pte.exclusive = Known.NO  # mm/memory.c copy_nonpresent_pte() gives it back first
                self._state.invalidate(parent, (number,), only_writable=True)
            child.set(number, Pte(pte.page, pte.write, present, pte.huge, pte.or_zero, swapped=pte.swapped))
        for number, trap in parent.traps.items():
            if not (parent.areas[number].dontfork or parent.areas[number].wipeonfork):
                child.trap(number, trap)
        self._state.spaces[step.child] = child
        return OK

    def _exit(self, step: Exit, _: Observation) -> Expectation:
        space = self._state.spaces.pop(step.actor)
        self._state.unpin(step.actor)
        for mirror in self._state.mirrors.values():
            if mirror.space is space:
                mirror.hearing.released = True
                for ear in mirror.watches.values():
                    ear.hear(ear.pages)  # clause 18
        for number in list(space.ptes):
            pte = self._state.clear(space, number)
            if pte is not None:
                self._state.drop(pte.page)
        return OK


def _lose_mark(pte: Pte) -> None:
    """Of a device entry, "we do not preserve soft-dirty information": mm/memory.c copy_nonpresent_pte()."""
    if pte.page.private_home is not None and pte.soft is Known.YES:
        pte.soft = Known.MAYBE


def write_after_protect(pte: Pte, area: Area) -> Known:
    """mm/mprotect.c change_pte_range(), after a change of the VMA's protection to that of `area`."""
    if pte.uffd_wp and area.userfault is Userfault.WP:
        return Known.NO  # userfaultfd_pte_wp()
    if (pte.page.private_home is not None and not pte.page.strayed) or pte.page.zero or not area.prot.writable:
        return Known.NO  # clause 96: a device entry loses write, whatever is asked for
    exclusive = pte.page.anonymous and len(pte.page.mappings) == 1
    if pte.write is not Known.NO or exclusive or area.shared:
        return Known.MAYBE  # can_change_pte_writable()
    return Known.NO
