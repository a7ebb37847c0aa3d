# SPDX-License-Identifier: GPL-2.0-only
"""The reference model: runs a program step by step and says what each step may show.

Where the kernel may choose, the model is told what was observed and follows it, but only within what it
allows (`World.step`). Sources are named at the rules; clause numbers are those of the HMM contract.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from harness.model.allowed import (
    FAULTED_ALONG,
    GUARD_FAULTABLE,
    NOTHING,
    OWN_FAULTED_ALONG,
    OWN_READONLY_WRITE,
    POISON_FAULTABLE,
    REMOTE_HUGE_ERROR,
    REMOTE_REFUSED,
    SNAPSHOT_CUT,
    Count,
    Entries,
    Expectation,
    Shape,
    Tokens,
)
from harness.model.hearing import Hearing
from harness.model.memory import HUGE_PAGES, WITH_HUGE, AddressSpace, Area, File, Known, Page, Pte, Trap
from harness.model.rules import POPULATE, Rules
from harness.program.observations import NO_MARKS, Element, Entry, Happening, Mark, Observation, Signal
from harness.program.observations import Owner as Migrator
from harness.program.operations import (
    DEVICES,
    FIRST_SUBJECT,
    MAX_PAGES,
    MAX_SUBJECTS,
    Access,
    Advice,
    Advise,
    Asked,
    Backing,
    Bind,
    DeviceOperation,
    DeviceRead,
    DeviceWrite,
    Events,
    Evict,
    Exit,
    Fault,
    Fork,
    Manner,
    Map,
    Operation,
    Owner,
    Poison,
    Protect,
    Read,
    Remap,
    Request,
    Snapshot,
    Span,
    Table,
    ToDevice,
    ToSystem,
    Unbind,
    Unmap,
    Usage,
    Watch,
    Watched,
    Write,
    span_of,
)
from harness.program.program import Program
from harness.program.text import render_step

_ERROR = Entries((Shape(Mark.ERROR),))
_HEARD = Shape(Mark.HEARD)
_OK = Expectation()
_TRAPPED = {
    Trap.POISON: Entries(_ERROR.shapes, ((POISON_FAULTABLE, NOTHING),)),
    Trap.GUARD: Entries(_ERROR.shapes, ((GUARD_FAULTABLE, NOTHING),)),
}
_SIGNALS = {Trap.POISON: Signal.BUS, Trap.GUARD: Signal.SEGV}  # mm/memory.c do_swap_page(), handle_pte_marker()
_EHWPOISON = 133  # mm/madvise.c madvise_populate()
_REFUSED = ((errno.EFAULT, REMOTE_REFUSED),)
# Advice that only marks the VMA
_AREA_FLAGS = {
    Advice.HUGEPAGE: {"hugepage": True},
    Advice.NOHUGEPAGE: {"hugepage": False},
    Advice.DONTFORK: {"dontfork": True},
    Advice.DOFORK: {"dontfork": False},
    Advice.WIPEONFORK: {"wipeonfork": True},
    Advice.KEEPONFORK: {"wipeonfork": False},
}


@dataclass(eq=False)
class Ear:
    """A watch. `told`: the pages that it must have been told of since the last look; it may be told of any."""

    pages: frozenset[int]
    told: set[int] = field(default_factory=set)


@dataclass(eq=False)
class Mirror:
    """A device's view of one process. `entries`: what its page table may hold; any may be missing."""

    space: AddressSpace
    hearing: Hearing
    entries: dict[int, tuple[Page, Known]] = field(default_factory=dict)
    watches: dict[Span, Ear] = field(default_factory=dict)


@dataclass
class _Walk:
    """One call of hmm_range_fault() by `device`, which is shown the device-private memory of `owner`.

    `faulted`: the VMA and 2 MiB in which it needed a fault. `along`: all of these, and whether for writing, where
    pages differ in what is asked of them.
    """

    mirror: Mirror
    device: str
    owner: str | None
    faulted: tuple[Area, int] | None = None
    along: dict[tuple[Area, int], bool] = field(default_factory=dict)


class World:
    """The state of all subjects and devices of one run of `program`."""

    def __init__(self, program: Program, rules: Rules) -> None:
        self._program = program
        self._rules = rules
        self._zero = Page(frozenset({0}), anonymous=True, zero=True)
        self._spaces: dict[str, AddressSpace] = {FIRST_SUBJECT: AddressSpace(self._zero)}
        self._mirrors: dict[str, Mirror] = {}
        self._returns: dict[str, int] = {}  # device: least number of migrate_to_ram() calls, once that is known
        self._listening = any(isinstance(step, Events | Watch) for step in program.steps)
        self._number = 0
        self._cause = ""  # the step at hand
        self._handlers: dict[type[Operation], Callable[..., Expectation]] = {
            Map: self._map, Unmap: self._unmap, Protect: self._protect, Remap: self._remap, Advise: self._advise,
            Read: self._read, Write: self._write, Fork: self._fork, Exit: self._exit,
            Bind: self._bind, Unbind: self._unbind, Snapshot: self._snapshot, Fault: self._fault,
            DeviceRead: self._device_read, DeviceWrite: self._device_write, ToDevice: self._to_device,
            ToSystem: self._to_system, Evict: self._evict, Table: self._table, Usage: self._usage,
            Poison: self._poison, Events: self._events, Request: self._request,
            Watch: self._watch, Watched: self._watched,
        }  # fmt: skip

    def step(self, operation: Operation, observed: Observation) -> Expectation:
        """What `operation` may show. `observed` chooses where several outcomes are allowed, and only there."""
        if (
            isinstance(operation, DeviceOperation)
            and not isinstance(operation, Bind | Unbind | Evict | Usage | Events | Watched)
            and self._mirrors[operation.actor].space not in self._spaces.values()
        ):
            return Expectation(self._rules.dead_errors)
        if self._listening:
            self._number += 1
            self._cause = f"{self._number}  {render_step(operation, self._program)}"
        return self._handlers[type(operation)](operation, observed)

    def learn(self, operation: Operation, observed: Observation) -> None:
        """Narrows what is uncertain to what was seen. Only for observations that are allowed."""
        span = span_of(operation)
        if span is None:
            return
        shown = zip(self._program.pages(span), observed.elements, strict=False)
        if isinstance(operation, Read | DeviceRead):
            space = (
                self._mirrors[operation.actor].space
                if isinstance(operation, DeviceRead)
                else self._spaces[operation.actor]
            )
            for number, element in shown:
                pte = space.ptes.get(number)
                if pte is None or len(pte.page.tokens) == 1 or not isinstance(element, int):
                    continue
                if element == 0:
                    pte.page.fill(0)
                elif not pte.page.lazy:  # else it may still be dropped
                    pte.page.fill(element)
        elif isinstance(operation, Snapshot | Fault | Table):
            mirror = self._mirrors[operation.actor]
            for number, element in shown:
                if isinstance(element, Entry) and Mark.VALID in element.marks:
                    self._learn_home(mirror, number, local=Mark.LOCAL in element.marks)

    def _learn_home(self, mirror: Mirror, number: int, *, local: bool) -> None:
        pte = mirror.space.ptes.get(number)
        if pte is None or not pte.page.strayed:
            return
        pte.page.strayed = None
        if not local:
            held = mirror.entries.get(number)
            self._bring_home(pte.page, now=False)
            if held is not None:
                mirror.entries[number] = held

    # What the CPU's side does to the devices

    def _invalidate(self, space: AddressSpace, numbers: Iterable[int], *, only_writable: bool = False) -> None:
        """The devices' entries must be gone (clauses 1 to 3): they would point elsewhere or allow more."""
        mirrors = [mirror for mirror in self._mirrors.values() if mirror.space is space]
        for mirror in mirrors:
            for number in numbers:
                entry = mirror.entries.get(number)
                if entry is not None and not (only_writable and entry[1] is Known.NO):
                    del mirror.entries[number]

    # What of that the devices hear: facts of mm/, by its calls of mmu_notifier_range_init*()

    def _must_hear(self, space: AddressSpace, number: int, *happenings: Happening, by: str | None = None) -> None:
        """The devices must hear one of `happenings` of the page if its entry is there for sure. `by`: who does it."""
        pte = space.ptes.get(number)
        if not self._listening or pte is None or pte.present is not Known.YES:
            return
        for device, mirror in self._mirrors.items():
            if mirror.space is space:
                mirror.hearing.must(self._cause, [(what, _owner(what, device, by)) for what in happenings], number)
                for ear in mirror.watches.values():
                    ear.told |= {number} & ear.pages

    def _may_hear(
        self, space: AddressSpace, numbers: Iterable[int], happening: Happening, *, by: str | None = None
    ) -> None:
        if not self._listening:
            return
        numbers = tuple(numbers)
        for device, mirror in self._mirrors.items():
            if mirror.space is space:
                mirror.hearing.may((happening, _owner(happening, device, by)), numbers)

    def _may_migrate(self, space: AddressSpace, numbers: Iterable[int], device: str, happening: Happening) -> None:
        """`device` may migrate these pages in the direction that `happening` says, and be asked to by a CPU."""
        if not self._listening:
            return
        numbers = tuple(numbers)
        self._may_hear(space, numbers, Happening.MIGRATE, by=device)
        if device in self._mirrors:
            self._mirrors[device].hearing.may((happening, None), numbers)
            self._mirrors[device].hearing.may((Happening.CPU_FAULT, None), numbers)

    def _may_leave(self, page: Page) -> None:
        """The page may leave the memory of the device in which it lives, without further notice."""
        if self._listening and page.home is not None:
            for space, number in page.mappings:
                self._may_migrate(space, (number,), page.home, Happening.TO_SYSTEM)

    def _stray(self, page: Page, why: str) -> None:
        page.strayed = page.strayed or why
        self._may_leave(page)

    def _hear_return(self, page: Page) -> None:
        """The page leaves device memory, now."""
        device = page.home
        if not self._listening or device is None:
            return
        self._may_leave(page)
        if page.strayed:
            return
        for space, number in page.mappings:
            self._must_hear(space, number, Happening.MIGRATE, Happening.CLEAR, by=device)
        if device in self._mirrors:
            hearing = self._mirrors[device].hearing
            hearing.freed += 1
            if len(page.mappings) == 1:
                for _, number in page.mappings:
                    hearing.must(self._cause, [(Happening.TO_SYSTEM, None)], number)

    def _hear_of_touch(self, space: AddressSpace, number: int, page: Page) -> None:
        """A CPU touches the page, which lives in device memory: clause 89."""
        device = page.home
        if not self._listening or device is None or page.strayed:
            return
        self._must_hear(space, number, Happening.MIGRATE, by=device)
        if device in self._mirrors:
            self._mirrors[device].hearing.must(self._cause, [(Happening.CPU_FAULT, None)], number)

    def _drop(self, page: Page) -> None:
        """One mapping less: the last one frees the page (clauses 94 and 97)."""
        if page.home in self._mirrors and not page.mappings and not page.strayed:
            self._mirrors[page.home].hearing.freed += 1

    def _clear(self, space: AddressSpace, number: int, happening: Happening | None = None) -> Pte | None:
        """The entry goes, which is heard of as `happening`."""
        if happening is not None:
            self._must_hear(space, number, happening)
        self._invalidate(space, (number,))
        return space.clear(number)

    def _bring_home(self, page: Page, *, now: bool = True) -> None:
        """The page leaves device memory; every mapping of it changes (clauses 2 and 89). `now`: it had not before."""
        if now:
            self._hear_return(page)
        page.home = None
        page.strayed = None
        for space, number in page.mappings:
            self._invalidate(space, (number,))

    def _let_go(self, space: AddressSpace, number: int, device: str) -> None:
        """The rest of a huge page may leave device memory with the page that is touched."""
        first = number - number % HUGE_PAGES
        for near in range(first, first + HUGE_PAGES):
            pte = space.ptes.get(near)
            if pte is not None and pte.huge and pte.page.home == device and near != number:
                self._stray(pte.page, WITH_HUGE)

    def _touch(self, space: AddressSpace, number: int, *, write: bool) -> Pte:
        """A permitted access by the CPU, or by a device that asks the CPU's fault handler for it."""
        pte = space.ptes.get(number)
        if pte is not None and pte.page.home is not None:
            if pte.page.home in self._returns and not pte.page.strayed:
                self._returns[pte.page.home] += 1  # clause 89
            if pte.huge:
                self._let_go(space, number, pte.page.home)
            self._hear_of_touch(space, number, pte.page)
            self._bring_home(pte.page)
        present = pte is not None and pte.present is Known.YES
        replaced = space.fault_in(number, write=write)
        if replaced is not None and present:
            self._must_hear(space, number, Happening.CLEAR)  # mm/memory.c wp_page_copy()
        if replaced is not None:
            self._invalidate(space, (number,))
        return space.ptes[number]

    # Subjects

    def _map(self, step: Map, _: Observation) -> Expectation:
        space = self._spaces[step.actor]
        first = self._program.regions[step.region].address // 4096
        file = None if step.backing is Backing.ANON else File()
        area = Area(step.backing, step.prot, first, file)
        for number in range(first, first + step.pages):
            space.areas[number] = area
        return _OK

    def _unmap(self, step: Unmap, _: Observation) -> Expectation:
        space = self._spaces[step.actor]
        self._may_hear(space, self._program.pages(step.span), Happening.UNMAP)
        for number in self._program.pages(step.span):
            pte = self._clear(space, number, Happening.UNMAP)
            if pte is not None:
                self._drop(pte.page)
            space.traps.pop(number, None)
            space.areas.pop(number, None)
        return _OK

    def _protect(self, step: Protect, _: Observation) -> Expectation:
        space = self._spaces[step.actor]
        for number in self._program.pages(step.span):
            if number not in space.areas:
                return Expectation(frozenset({errno.ENOMEM}))  # what is before the hole was changed
            if space.areas[number].prot is step.prot:
                continue  # mm/mprotect.c mprotect_fixup(): nothing to do
            pte = space.ptes.get(number)
            loses_write = pte is not None and pte.write is Known.YES and not step.prot.writable
            if loses_write or not step.prot.cpu_readable:
                self._must_hear(space, number, Happening.PROTECTION_VMA)
            if space.has_tables_near(number):
                self._may_hear(space, (number,), Happening.PROTECTION_VMA)
            space.change_area(number, prot=step.prot)
            self._invalidate(space, (number,), only_writable=step.prot.readable)
            if pte is not None:
                pte.write = _write_after_protect(pte, space.areas[number])
        return _OK

    def _remap(self, step: Remap, observed: Observation) -> Expectation:
        space = self._spaces[step.actor]
        numbers = list(self._program.pages(step.span))
        areas = [space.areas.get(number) for number in numbers]
        origins = {area for area in areas if area is not None}
        errors = frozenset({0})
        if self._rules.has("REMAP_SEVERAL"):
            if areas[0] is None:
                return Expectation(frozenset({errno.EFAULT}))  # mm/mremap.c remap_move(): no gap at the start
        elif None in areas or len(origins) > 1:
            return Expectation(frozenset({errno.EFAULT}))  # mm/mremap.c vma_to_resize(): one VMA only
        elif not space.pieces.isdisjoint(numbers):
            errors |= {errno.EFAULT}  # equal, but it may be two VMAs
        if observed.error in errors and observed.error:
            return Expectation(errors)
        shift = self._program.regions[step.region].address // 4096 - numbers[0]
        for number, area in zip(numbers, areas, strict=True):
            if area is None:
                continue
            self._may_hear(space, (number,), Happening.UNMAP)
            pte = self._clear(space, number, Happening.UNMAP)
            del space.areas[number]
            space.areas[number + shift] = replace(area, origin=area.origin + shift)
            if pte is not None:
                space.set(number + shift, pte)
            if number in space.traps:
                space.trap(number + shift, space.traps.pop(number))
        return Expectation(errors)

    def _advise(self, step: Advise, observed: Observation) -> Expectation:
        space = self._spaces[step.actor]
        hole = False
        for number in self._program.pages(step.span):
            area = space.areas.get(number)
            if area is None:
                if step.advice in POPULATE and self._rules.has("POPULATE_STOPS_AT_HOLE"):
                    return Expectation(frozenset({errno.ENOMEM}))
                hole = True  # mm/madvise.c madvise_walk_vmas() goes on, and says so at the end
                continue
            if step.advice in POPULATE and number in space.traps:
                return Expectation(frozenset({errno.EFAULT, _EHWPOISON}))
            error = _refusal(step.advice, area)
            # Since 6.7 and in stable kernels, it is enough that the mapping could be made writable: VM_MAYWRITE.
            granted = error == errno.EACCES and area.shared and observed.error != errno.EACCES
            if error and not granted:
                return Expectation(frozenset({error}))
            self._advise_page(space, number, area, step.advice)
        return Expectation(frozenset({errno.ENOMEM})) if hole else _OK

    def _advise_page(self, space: AddressSpace, number: int, area: Area, advice: Advice) -> None:
        match advice:
            case Advice.DONTNEED:
                pte = self._clear(space, number, Happening.CLEAR)
                if pte is not None:
                    self._drop(pte.page)
                if space.traps.get(number) is Trap.POISON:
                    del space.traps[number]
            case Advice.GUARD_INSTALL:
                pte = self._clear(space, number, Happening.CLEAR)
                if pte is not None:
                    self._drop(pte.page)
                space.trap(number, Trap.GUARD)
            case Advice.GUARD_REMOVE:
                if space.traps.get(number) is Trap.GUARD:
                    del space.traps[number]
            case Advice.FREE:
                self._free_lazily(space, number)
            case Advice.PAGEOUT:
                # Without swap nothing of it is written out, but a page of a file may be unmapped.
                pte = space.ptes.get(number)
                if pte is not None and not pte.page.anonymous:
                    for other, at in pte.page.mappings:
                        other.ptes[at].present = Known.MAYBE
            case Advice.REMOVE:
                self._punch(area, number - area.origin)
            case Advice.POPULATE_READ:
                self._touch(space, number, write=False)
            case Advice.POPULATE_WRITE:
                self._touch(space, number, write=True)
            case _ if advice in _AREA_FLAGS:
                space.change_area(number, **_AREA_FLAGS[advice])
            case Advice.COLD | Advice.WILLNEED:
                pass

    def _free_lazily(self, space: AddressSpace, number: int) -> None:
        """mm/madvise.c madvise_free_pte_range(): a page of our own may be dropped at any later time."""
        if space.traps.get(number) is Trap.POISON and self._rules.has("FREE_UNPOISONS"):
            del space.traps[number]
        pte = space.ptes.get(number)
        if pte is None or pte.page.zero or (pte.page.home is not None and not pte.page.strayed):
            return  # clause 98: device pages are left alone
        self._must_hear(space, number, Happening.CLEAR)
        pte.page.lazy = True
        pte.page.tokens |= {0}
        for other, at in pte.page.mappings:
            other.ptes[at].present = Known.MAYBE
        self._invalidate(space, (number,))

    def _punch(self, area: Area, index: int) -> None:
        """MADV_REMOVE: the page goes from the file and from every page table."""
        assert area.file is not None
        page = area.file.pages.pop(index, None)
        if page is not None:
            for space, number in list(page.mappings):
                self._clear(space, number, Happening.CLEAR)

    def _read(self, step: Read, _: Observation) -> Expectation:
        space = self._spaces[step.actor]
        allowed: list[Tokens] = []
        for number in self._program.pages(step.span):
            area = space.areas.get(number)
            if area is None or not area.prot.cpu_readable:
                allowed.append(Tokens(frozenset({Signal.SEGV})))
            elif number in space.traps:
                allowed.append(Tokens(frozenset({_SIGNALS[space.traps[number]]})))
            else:
                allowed.append(Tokens(self._touch(space, number, write=False).page.tokens))
        return Expectation(elements=tuple(allowed))

    def _write(self, step: Write, _: Observation) -> Expectation:
        space = self._spaces[step.actor]
        allowed: list[Tokens] = []
        for offset, number in enumerate(self._program.pages(step.span)):
            area = space.areas.get(number)
            if area is None or not area.prot.writable:
                allowed.append(Tokens(frozenset({Signal.SEGV})))
                continue
            if number in space.traps:
                allowed.append(Tokens(frozenset({_SIGNALS[space.traps[number]]})))
                continue
            pte = self._touch(space, number, write=True)
            pte.page.fill(step.token + offset)
            allowed.append(Tokens(frozenset({0})))
        return Expectation(elements=tuple(allowed))

    def _poison(self, step: Poison, observed: Observation) -> Expectation:
        """mm/memory-failure.c memory_failure() of pages that are written and nobody else's."""
        space = self._spaces[step.actor]
        for number in self._program.pages(step.span):
            area = space.areas.get(number)
            if area is None or not area.prot.writable or number in space.traps:
                return Expectation(frozenset({errno.EFAULT}))
            pte = self._touch(space, number, write=True)
            if not area.prot.readable and observed.error == errno.EFAULT:
                return Expectation(frozenset({errno.EFAULT}))  # unless it is quick: gup_fast() does not look at VMAs
            if pte.huge and observed.error == errno.EBUSY:
                return Expectation(frozenset({errno.EBUSY}))  # it could not be split
            self._clear(space, number, Happening.CLEAR)
            space.trap(number, Trap.POISON)
        return _OK

    def _fork(self, step: Fork, _: Observation) -> Expectation:
        parent = self._spaces[step.actor]
        child = AddressSpace(self._zero)
        for number, area in parent.areas.items():
            if not area.dontfork:
                child.areas[number] = area
        child.pieces = set(parent.pieces)
        for number, area in parent.areas.items():
            if not (area.shared or area.dontfork or area.wipeonfork):  # mm/memory.c copy_page_range()
                self._may_hear(parent, (number,), Happening.PROTECTION_PAGE)
        for number, pte in list(parent.ptes.items()):
            area = parent.areas[number]
            if area.dontfork or area.wipeonfork:
                continue
            # mm/memory.c vma_needs_copy(): page tables that a fault can make again may be left out
            present = pte.present if pte.page.anonymous else Known.MAYBE
            if not area.shared:
                if pte.write is Known.YES:
                    self._must_hear(parent, number, Happening.PROTECTION_PAGE)
                pte.write = Known.NO
                self._invalidate(parent, (number,), only_writable=True)
            child.set(number, Pte(pte.page, pte.write, present, pte.huge, pte.or_zero))
        for number, trap in parent.traps.items():
            if not (parent.areas[number].dontfork or parent.areas[number].wipeonfork):
                child.trap(number, trap)
        self._spaces[step.child] = child
        return _OK

    def _exit(self, step: Exit, _: Observation) -> Expectation:
        space = self._spaces.pop(step.actor)
        for mirror in self._mirrors.values():
            if mirror.space is space:
                mirror.hearing.released = True
                for ear in mirror.watches.values():
                    ear.told = set(ear.pages)  # clause 18
        for number in list(space.ptes):
            pte = self._clear(space, number)
            if pte is not None:
                self._drop(pte.page)
        return _OK

    # Devices

    def _bind(self, step: Bind, _: Observation) -> Expectation:
        self._mirrors[step.actor] = Mirror(self._spaces[step.subject], self._new_hearing())
        return _OK

    def _new_hearing(self) -> Hearing:
        return Hearing(self._program.place, self._rules.reasons)

    def _unbind(self, step: Unbind, _: Observation) -> Expectation:
        del self._mirrors[step.actor]
        return _OK

    def _shapes(self, page: Page, write: Known, *, local: bool, huge: bool) -> tuple[Shape, ...]:
        marks = Mark.VALID
        optional = NO_MARKS
        if local:
            marks |= Mark.LOCAL
        if page.zero:
            marks |= Mark.ZERO
            if huge:
                optional |= Mark.ZERO  # the huge zero page is another page
        readable = Shape(marks, optional, huge)
        writable = Shape(marks | Mark.WRITE, optional, huge)
        return {Known.NO: (readable,), Known.YES: (writable,), Known.MAYBE: (readable, writable)}[write]

    def _entries(self, pte: Pte, device: str, *, huge: bool, missing: bool) -> Entries:
        """An entry that shows `pte` to `device`, or none where one may be `missing`."""
        page, write = pte.page, pte.write
        local = page.home == device
        shapes = self._shapes(page, write, local=local, huge=huge)
        if pte.or_zero:
            shapes += (Shape(Mark.VALID, Mark.ZERO, huge),)
        if missing:
            shapes = (NOTHING, *shapes)
        if not page.strayed:
            return Entries(shapes)
        if not local and page.strayed == WITH_HUGE:
            return Entries((NOTHING, *shapes), _remote(pte))
        if not local:
            return Entries((NOTHING,), tuple((page.strayed, shape) for shape in shapes))
        gone = self._shapes(page, write, local=False, huge=huge)
        if page.strayed == WITH_HUGE:
            return Entries((*shapes, *gone))
        return Entries(shapes, tuple((page.strayed, shape) for shape in gone))

    def _remote_entry(self, pte: Pte) -> Entries:
        """What is shown of a page in the memory of another device, by a driver that is shown such pages."""
        remote = tuple(
            replace(shape, marks=shape.marks | Mark.REMOTE)
            for shape in self._shapes(pte.page, pte.write, local=False, huge=pte.huge)
        )
        if not pte.page.strayed:
            return Entries(remote)
        home = self._shapes(pte.page, pte.write, local=False, huge=pte.huge)
        if pte.page.strayed == WITH_HUGE:
            return Entries((*remote, *home))
        return Entries(remote, tuple((pte.page.strayed, shape) for shape in home))

    def _view(self, walk: _Walk, number: int, *, granted: bool = False) -> Entries:
        """What is shown of a page. `granted`: it was asked for, so that there is an entry (clause 28)."""
        device, owner = walk.device, walk.owner
        area = walk.mirror.space.areas.get(number)
        pte = walk.mirror.space.ptes.get(number)
        if area is None or (not area.prot.readable and self._rules.unreadable_shown):
            return _ERROR  # clauses 33 and 35
        if area.prot.readable and number in walk.mirror.space.traps:
            return _TRAPPED[walk.mirror.space.traps[number]]  # clauses 45 and 46
        if pte is None or not area.prot.readable:
            return Entries((NOTHING,))  # clause 32
        home = pte.page.home
        if home not in (None, device) and (home == owner or self._rules.remote_shown):
            return self._remote_entry(pte)
        if home not in (None, owner) and not pte.page.strayed:
            return Entries((NOTHING,), _remote(pte))  # clause 49
        return self._entries(pte, owner or "", huge=pte.huge, missing=not granted and pte.present is Known.MAYBE)

    def _snapshot(self, step: Snapshot, observed: Observation) -> Expectation:
        walk = _Walk(self._mirrors[step.actor], step.actor, step.actor)
        allowed: list[Entries] = []
        cut = False
        for index, number in enumerate(self._program.pages(step.span)):
            entry = self._view(walk, number)
            allowed.append(replace(entry, deviating=(*entry.deviating, (SNAPSHOT_CUT, NOTHING))) if cut else entry)
            seen = observed.elements[index] if index < len(observed.elements) else None
            trapped = number in walk.mirror.space.traps and isinstance(seen, Entry) and Mark.ERROR in seen.marks
            cut = cut or (trapped and self._rules.traps_cut_snapshots)
        return Expectation(elements=tuple(allowed))

    def _grant(self, walk: _Walk, number: int, *, write: bool) -> int:
        """What hmm_range_fault() does for one page that is requested; returns an errno or 0."""
        space = walk.mirror.space
        area = space.areas.get(number)
        if area is None:
            return errno.EFAULT  # clause 34
        if not area.prot.readable:
            return self._rules.unreadable_error  # clauses 35 and 36
        if write and not area.prot.writable:
            return errno.EPERM  # clause 36
        if number in space.traps:
            return errno.EFAULT  # clauses 45 and 46
        pte = space.ptes.get(number)
        segment = (area, number // HUGE_PAGES)
        if pte is not None and pte.page.home is not None and pte.page.home == walk.owner:
            # Clause 48: the owner's own page is never faulted. But see `OWN_FAULTED_ALONG`.
            if walk.faulted == segment and not pte.page.strayed:
                self._stray(pte.page, OWN_FAULTED_ALONG)
        else:
            if pte is None or pte.present is Known.MAYBE or pte.page.home or (write and pte.write is not Known.YES):
                walk.faulted = segment
            self._touch(space, number, write=write)
        return 0

    def _enter(self, walk: _Walk, number: int, *, write: bool) -> int:
        """What hmm_range_fault() does for one page that is requested, and then entered; returns an errno or 0."""
        error = self._grant(walk, number, write=write)
        if not error:
            pte = walk.mirror.space.ptes[number]
            walk.mirror.entries[number] = (pte.page, pte.write)
        return error

    def _refused(self, walk: _Walk, number: int, observed: Observation, *, shown: int | None) -> bool:
        """Whether a kernel that leaves another device's page where it is stopped here: `REMOTE_REFUSED`.

        `shown`: how many pages before this one the step shows, None if it shows none whatever comes of it.
        """
        space = walk.mirror.space
        pte = space.ptes.get(number)
        if (
            self._rules.has("MIGRATE_FAULT_PAGE")
            or observed.error != errno.EFAULT
            or pte is None
            or pte.page.home in (None, walk.owner)
            or not space.areas[number].prot.readable
        ):
            return False
        if shown is not None:
            return len(observed.elements) == shown
        # A fault before it would have brought it along.
        if walk.faulted == (space.areas[number], number // HUGE_PAGES):
            return False
        self._stray(pte.page, REMOTE_REFUSED)  # or was it one of those that follow?
        return True

    def _is_own_readonly(self, walk: _Walk, number: int) -> bool:
        pte = walk.mirror.space.ptes.get(number)
        area = walk.mirror.space.areas.get(number)
        if pte is None or area is None or pte.page.home is None or pte.page.home != walk.owner:
            return False
        if not area.prot.readable:
            return False
        return pte.write is not Known.YES or not area.prot.writable

    def _fault(self, step: Fault, observed: Observation) -> Expectation:
        walk = _Walk(self._mirrors[step.actor], step.actor, step.actor)
        space = walk.mirror.space
        write = step.access is Access.WRITE
        allowed: list[Entries] = []
        for index, number in enumerate(self._program.pages(step.span)):
            seen = observed.elements[index] if index < len(observed.elements) else None
            if write and self._is_own_readonly(walk, number):
                entry = self._fault_own_readonly(walk, number, seen)
                if entry is None:
                    return Expectation(frozenset({errno.EPERM}), self._if_shown(allowed))
                if space.areas[number].prot.writable:
                    walk.mirror.entries[number] = (space.ptes[number].page, space.ptes[number].write)
                allowed.append(entry)
                continue
            if self._refused(walk, number, observed, shown=index if self._rules.fault_shows_entries else None):
                return Expectation(frozenset({0}), self._if_shown(allowed), _REFUSED)
            error = self._enter(walk, number, write=write)
            if error:
                return Expectation(frozenset({error}), self._if_shown(allowed))
            pte = space.ptes[number]
            allowed.append(self._entries(pte, step.actor, huge=pte.huge, missing=False))
        return Expectation(elements=self._if_shown(allowed))

    def _fault_own_readonly(self, walk: _Walk, number: int, seen: Element | None) -> Entries | None:
        """A write fault on the owner's own read-only page: write permission, or EPERM (None); clauses 29 and 36."""
        space = walk.mirror.space
        here = tuple(replace(shape, marks=shape.marks & ~Mark.WRITE) for shape in self._view(walk, number).shapes)
        readonly = ((OWN_READONLY_WRITE, here[0]),)
        if not space.areas[number].prot.writable:
            return None if seen is None else Entries((), readonly)
        writable = [replace(here[0], marks=here[0].marks | Mark.WRITE)]
        writable += self._shapes(space.ptes[number].page, Known.YES, local=False, huge=False)
        if isinstance(seen, Entry) and Mark.WRITE in seen.marks:
            if seen.marks & (Mark.LOCAL | Mark.REMOTE):
                space.ptes[number].write = Known.YES
            else:
                self._touch(space, number, write=True)
        return Entries(tuple(writable), readonly)

    def _request(self, step: Request, observed: Observation) -> Expectation:
        if step.manner is Manner.STALE:
            return Expectation(frozenset({errno.EBUSY}))  # clause 52
        mirror = self._mirrors[step.actor]
        others = [device for device in DEVICES if device != step.actor]
        owner = {Owner.OWN: step.actor, Owner.NOBODY: None, Owner.OTHER: others[0]}[step.owner]
        walk = _Walk(mirror, step.actor, owner, along=self._along(step, mirror.space, owner))
        allowed: list[Entries] = []
        for index, number in enumerate(self._program.pages(step.span)):
            asked = step.asked(index)
            seen = observed.elements[index] if index < len(observed.elements) else None
            write = asked is Asked.BOTH
            if write and self._is_own_readonly(walk, number):
                entry = self._fault_own_readonly(walk, number, seen)
                if entry is None:
                    return Expectation(frozenset({errno.EPERM}))
                allowed.append(entry)
                continue
            granted = asked in (Asked.FAULT, Asked.BOTH)
            fresh = number not in mirror.space.ptes
            if granted and self._refused(walk, number, observed, shown=None):
                return Expectation(frozenset({0}), (), _REFUSED)
            error = self._grant(walk, number, write=write) if granted else 0
            if error:
                return Expectation(frozenset({error}))
            entry = self._view(walk, number, granted=granted)
            if not write:
                entry = self._or_along(walk, number, entry, seen, fresh=fresh, failed=bool(observed.error))
            allowed.append(entry)
        return Expectation(elements=tuple(allowed))

    def _along(self, step: Request, space: AddressSpace, owner: str | None) -> dict[tuple[Area, int], bool]:
        """Where a page needs a fault, and whether for writing: it is a fault of more pages, see `FAULTED_ALONG`."""
        found: dict[tuple[Area, int], bool] = {}
        pages = [(number, step.asked(index)) for index, number in enumerate(self._program.pages(step.span))]
        if len({asked for _, asked in pages}) == 1:
            return found
        for number, asked in pages:
            area = space.areas.get(number)
            if area is None or asked in (Asked.NONE, Asked.WRITE):
                continue
            pte = space.ptes.get(number)
            write = asked is Asked.BOTH
            there = pte is not None and pte.present is Known.YES and pte.page.home in (None, owner)
            segment = (area, number // HUGE_PAGES)
            if not there or segment in found or (write and pte is not None and pte.write is not Known.YES):
                found[segment] = found.get(segment, False) or write
        return found

    def _or_along(
        self, walk: _Walk, number: int, expected: Entries, seen: Element | None, *, fresh: bool, failed: bool
    ) -> Entries:
        """What is shown of a page, of which less was asked than of another one. `fresh`: it was not there before."""
        space = walk.mirror.space
        area = space.areas.get(number)
        if area is None or (area, number // HUGE_PAGES) not in walk.along or not area.prot.readable:
            return expected
        if number in space.traps:
            return expected
        write = walk.along[area, number // HUGE_PAGES] and area.prot.writable
        if failed:
            self._touch_maybe(space, number, write=write)
        elif isinstance(seen, Entry) and Mark.VALID in seen.marks and not expected.admits(seen):
            write = write and Mark.WRITE in seen.marks
            if fresh:
                space.fault_in(number, write=write)  # with nothing that anybody had heard of before
            else:
                self._touch(space, number, write=write)
            along = self._view(walk, number, granted=True)
            return Entries(expected.shapes, tuple((FAULTED_ALONG, shape) for shape in along.shapes))
        return expected

    def _touch_maybe(self, space: AddressSpace, number: int, *, write: bool) -> None:
        """A permitted access that may have been made or not."""
        pte = space.ptes.get(number)
        if pte is None:
            self._touch(space, number, write=write)
            pte = space.ptes[number]
            pte.present = Known.MAYBE
        elif pte.page.home is not None:
            self._stray(pte.page, FAULTED_ALONG)
        if write and pte.page.zero:
            pte = Pte(Page(frozenset({0}), anonymous=True), Known.MAYBE, pte.present, huge=pte.huge)
            space.set(number, pte)
        if write and pte.write is Known.NO:
            pte.write = Known.MAYBE
        pte.or_zero = pte.page.anonymous and 0 in pte.page.tokens

    def _if_shown(self, allowed: list[Entries]) -> tuple[Entries, ...]:
        return tuple(allowed) if self._rules.fault_shows_entries else ()

    def _device_read(self, step: DeviceRead, observed: Observation) -> Expectation:
        walk = _Walk(self._mirrors[step.actor], step.actor, step.actor)
        allowed: list[Tokens] = []
        for number in self._program.pages(step.span):
            if self._refused(walk, number, observed, shown=len(allowed)):
                return Expectation(frozenset({0}), tuple(allowed), _REFUSED)
            error = self._enter(walk, number, write=False)
            if error:
                return Expectation(frozenset({error}), tuple(allowed))
            allowed.append(Tokens(walk.mirror.space.ptes[number].page.tokens))
        return Expectation(elements=tuple(allowed))

    def _device_write(self, step: DeviceWrite, observed: Observation) -> Expectation:
        walk = _Walk(self._mirrors[step.actor], step.actor, step.actor)
        space = walk.mirror.space
        errors = frozenset({0})
        deviating: tuple[tuple[int, str], ...] = ()
        numbers: list[int] = []
        for number in self._program.pages(step.span):
            if self._is_own_readonly(walk, number):
                if observed.error == errno.EACCES and len(numbers) == len(observed.elements):
                    # The driver got the page without the permission that it asked for: uapi/hmm_harness.h.
                    deviating = ((errno.EACCES, OWN_READONLY_WRITE),)
                    break
                if space.areas[number].prot.writable:
                    self._bring_home(space.ptes[number].page)
            if self._refused(walk, number, observed, shown=len(numbers)):
                deviating = _REFUSED
                break
            error = self._enter(walk, number, write=True)
            if error:
                errors = frozenset({error})
                break
            numbers.append(number)
        # Also a write that fails says how many pages it wrote.
        written = len(observed.elements) if observed.error else len(numbers)
        for offset, number in enumerate(numbers[:written]):
            space.ptes[number].page.fill(step.token + offset)
        return Expectation(errors, (Tokens(frozenset({0})),) * len(numbers), deviating)

    def _migratable(self, space: AddressSpace, number: int) -> bool:
        """mm/migrate_device.c: holes and the zero page of anonymous VMAs, and anonymous pages (clauses 65 to 76)."""
        pte = space.ptes.get(number)
        if number in space.traps:
            return False
        if pte is None or pte.page.zero:
            return space.areas[number].anonymous
        return pte.page.anonymous and pte.page.home is None

    def _to_device(self, step: ToDevice, _: Observation) -> Expectation:
        mirror = self._mirrors[step.actor]
        space = mirror.space
        capacity = self._rules.device_pages
        # What there is no memory for stays where it is.
        cut = False
        room = MAX_PAGES * MAX_SUBJECTS if capacity is None else capacity - len(self._residents(step.actor))
        allowed: list[Entries] = []
        for number in self._program.pages(step.span):
            area = space.areas.get(number)
            if area is None or not area.prot.readable:
                return Expectation(frozenset({errno.EINVAL}), self._if_moves_shown(allowed))
            moves = room > 0 and self._migratable(space, number)
            self._may_migrate(space, (number,), step.actor, Happening.TO_DEVICE)
            if moves:
                room -= 1
                self._move_in(space, number, step.actor, huge=self._is_whole(space, number, step.span))
            pte = space.ptes.get(number)
            here = pte is not None and pte.page.home == step.actor
            marks = (Mark.MOVED if moves else NO_MARKS) | (Mark.LOCAL if here else NO_MARKS)
            deviating: tuple[tuple[str, Shape], ...] = ()
            if here and cut:
                deviating = ((SNAPSHOT_CUT, Shape(marks & ~Mark.LOCAL)),)
            cut = cut or (number in space.traps and self._rules.traps_cut_snapshots)
            if pte is not None and (pte.page.home in (None, step.actor) or pte.page.strayed):
                mirror.entries[number] = (pte.page, pte.write)
                if pte.page.strayed:
                    deviating = ((pte.page.strayed, Shape(Mark.MOVED | Mark.LOCAL)),)
                    if here:
                        pte.page.strayed = None
            allowed.append(Entries((Shape(marks),), deviating))
        return Expectation(elements=self._if_moves_shown(allowed))

    def _is_whole(self, space: AddressSpace, number: int, span: Span) -> bool:
        """Whether the 2 MiB around this page may migrate as one: `span` and a VMA have all of it."""
        if not self._rules.moves_huge:
            return False
        first = number - number % HUGE_PAGES
        block = range(first, first + HUGE_PAGES)
        start = self._program.address(span) // 4096
        if first < start or first + HUGE_PAGES > start + span.count:
            return False
        return all(space.areas.get(near) == space.areas[number] for near in block)

    def _move_in(self, space: AddressSpace, number: int, device: str, *, huge: bool) -> None:
        """`huge`: it may become a part of a page of 2 MiB there."""
        if self._listening:
            self._must_hear(space, number, Happening.MIGRATE, by=device)
            self._mirrors[device].hearing.must(self._cause, [(Happening.TO_DEVICE, None)], number)
        pte = space.ptes.get(number)
        self._invalidate(space, (number,))
        if pte is None or pte.page.zero:
            # migrate_vma_insert_page(): writable as the VMA is.
            write = Known.YES if space.areas[number].prot.writable else Known.NO
            page = Page(frozenset({0}), anonymous=True, home=device)
            space.set(number, Pte(page, write, huge=huge))
            return
        pte.page.home = device
        for other, at in pte.page.mappings:
            self._must_hear(other, at, Happening.MIGRATE, Happening.CLEAR, by=device)
            self._invalidate(other, (at,))
            other.ptes[at].present = Known.YES
            other.ptes[at].huge = other.ptes[at].huge and huge
            other.ptes[at].or_zero = False

    def _if_moves_shown(self, allowed: list[Entries]) -> tuple[Entries, ...]:
        return tuple(allowed) if self._rules.shows_moves else ()

    def _to_system(self, step: ToSystem, _: Observation) -> Expectation:
        space = self._mirrors[step.actor].space
        allowed: list[Entries] = []
        for number in self._program.pages(step.span):
            area = space.areas.get(number)
            if area is None or not area.prot.readable:
                return Expectation(frozenset({errno.EINVAL}), self._if_moves_shown(allowed))
            self._may_migrate(space, (number,), step.actor, Happening.TO_SYSTEM)
            pte = space.ptes.get(number)
            if pte is None or pte.page.home != step.actor:
                allowed.append(Entries((Shape(NO_MARKS),)))
                continue
            deviating = ((pte.page.strayed, Shape(NO_MARKS)),) if pte.page.strayed else ()
            allowed.append(Entries((Shape(Mark.MOVED),), deviating))
            self._bring_home(pte.page)
        return Expectation(elements=self._if_moves_shown(allowed))

    def _residents(self, device: str) -> set[Page]:
        return {pte.page for space in self._spaces.values() for pte in space.ptes.values() if pte.page.home == device}

    def _evict(self, step: Evict, _: Observation) -> Expectation:
        residents = self._residents(step.actor)
        moved = _count(residents)
        for space in {space for page in residents for space, _ in page.mappings}:
            self._may_migrate(
                space, space.areas, step.actor, Happening.TO_SYSTEM
            )  # from a page to the end of its VMA
        for page in residents:
            self._bring_home(page)
        return Expectation(elements=(moved, Count(0, 0)))

    def _table(self, step: Table, _: Observation) -> Expectation:
        mirror = self._mirrors[step.actor]
        space = mirror.space
        allowed: list[Entries] = []
        for number in self._program.pages(step.span):
            if number in mirror.entries:
                page, write = mirror.entries[number]
                pte = space.ptes.get(number)
                entered = Pte(page, write, or_zero=pte is not None and pte.or_zero)
                # An entry may always be missing; the order that it was entered with is not told.
                allowed.append(self._entries(entered, step.actor, huge=True, missing=True))
            else:
                allowed.append(Entries((NOTHING,)))
        return Expectation(elements=tuple(allowed))

    def _usage(self, step: Usage, observed: Observation) -> Expectation:
        entries = len(self._mirrors[step.actor].entries)
        in_use, allocated = observed.elements[:2] if len(observed.elements) > 1 else (0, 0)
        freed = allocated - in_use if isinstance(allocated, int) and isinstance(in_use, int) else 0
        faults = Count(self._returns.get(step.actor, 0))
        if len(observed.elements) > 3 and isinstance(observed.elements[3], int):
            self._returns[step.actor] = observed.elements[3]  # only grows
        elements = (
            _count(self._residents(step.actor)), Count(0), Count(freed, freed), faults, Count(0), Count(0, entries),
        )  # fmt: skip
        return Expectation(elements=elements)

    def _watch(self, step: Watch, _: Observation) -> Expectation:
        self._mirrors[step.actor].watches[step.span] = Ear(frozenset(self._program.pages(step.span)))
        return _OK

    def _watched(self, step: Watched, _: Observation) -> Expectation:
        ear = self._mirrors[step.actor].watches.get(step.span)
        if ear is None:  # the process had exited before the watch could begin
            return Expectation(frozenset({errno.ENOENT}))
        told, ear.told = ear.told, set()
        # Reclaim, compaction and others clear entries when they like: it may always be told of more.
        must, may = Entries((_HEARD,)), Entries((_HEARD, NOTHING))
        return Expectation(
            elements=tuple(must if number in told else may for number in self._program.pages(step.span))
        )

    def _events(self, step: Events, _: Observation) -> Expectation:
        mirror = self._mirrors[step.actor]
        heard, mirror.hearing = mirror.hearing, self._new_hearing()
        return Expectation(hearing=heard)


def _owner(happening: Happening, device: str, by: str | None) -> Migrator | None:
    """What `device` is told of who does this; nothing but of migrations."""
    if happening is not Happening.MIGRATE or by is None:
        return None
    return Migrator.OWN if by == device else Migrator.OTHER


def _remote(pte: Pte) -> tuple[tuple[str, Shape], ...]:
    """What a snapshot by another device may show against the rules."""
    return ((REMOTE_HUGE_ERROR, _ERROR.shapes[0]),) if pte.huge else ()


def _count(residents: set[Page]) -> Count:
    strayed = [page.strayed for page in residents if page.strayed]
    deviating = (len(residents) - len(strayed), strayed[0]) if strayed else None
    return Count(len(residents), len(residents), deviating)


def _refusal(advice: Advice, area: Area) -> int:
    """The errno of mm/madvise.c for a VMA that the advice does not fit, or 0."""
    match advice:
        case Advice.FREE if not area.anonymous:
            return errno.EINVAL
        case Advice.WIPEONFORK if not area.anonymous:
            return errno.EINVAL
        case Advice.REMOVE if area.file is None:
            return errno.EINVAL
        case Advice.REMOVE if not (area.shared and area.prot.writable):
            return errno.EACCES
        case Advice.POPULATE_READ if not area.prot.readable:
            return errno.EINVAL
        case Advice.POPULATE_WRITE if not area.prot.writable:
            return errno.EINVAL
    return 0


def _write_after_protect(pte: Pte, area: Area) -> Known:
    """mm/mprotect.c change_pte_range(), after a change of the VMA's protection to that of `area`."""
    if (pte.page.home is not None and not pte.page.strayed) or pte.page.zero or not area.prot.writable:
        return Known.NO  # clause 96: a device entry loses write, whatever is asked for
    exclusive = pte.page.anonymous and len(pte.page.mappings) == 1
    if pte.write is not Known.NO or exclusive or area.shared:
        return Known.MAYBE  # can_change_pte_writable()
    return Known.NO
