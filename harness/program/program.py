# SPDX-License-Identifier: GPL-2.0-only
"""A program: a short list of operations, checked when it is made.

Where a region lies in the address space is a function of the program alone: regions are laid out in the
order in which they appear, each at a 2 MiB boundary (so that huge pages are possible) with a gap behind it
(so that neighbours never merge).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.program.operations import (
    COHERENT,
    DEVICES,
    FIRST_SUBJECT,
    HUGETLB_PAGES,
    MAX_DMA,
    MAX_DMA_MAPS,
    MAX_DRIVER_PAGES,
    MAX_MOVE,
    MAX_PAGES,
    MAX_REQUEST,
    MAX_STEPS,
    MAX_SUBJECTS,
    MAX_SWAPPED,
    MAX_TOKEN,
    MAX_WATCHES,
    PAGE_SIZE,
    Advice,
    Advise,
    Backing,
    Bind,
    Bring,
    BringZeros,
    Call,
    Counted,
    DeviceOperation,
    DeviceWrite,
    DmaMap,
    DmaTable,
    DmaUnmap,
    Events,
    Evict,
    Exit,
    Fault,
    Fork,
    Lock,
    Map,
    Merge,
    Miswatch,
    Move,
    Operation,
    Passes,
    Pin,
    Poison,
    Prot,
    Reap,
    Refuse,
    Register,
    Remap,
    Request,
    Returns,
    SequenceNumber,
    Shift,
    Snapshot,
    Span,
    SubjectOperation,
    SwapOut,
    Table,
    ToDevice,
    ToDeviceShort,
    ToSystem,
    Truncate,
    Unbind,
    Unpin,
    Usage,
    Userfault,
    Watch,
    Watched,
    Write,
    span_of,
)

# What can be done with the kernel's own pages: what they hold is its own matter, and what they are as well
OF_KERNEL = (
    Map, Snapshot, Fault, Request, Table, Watch, Watched, SequenceNumber, Miswatch, Refuse,
    ToDevice, ToDeviceShort, ToSystem, Move,
)  # fmt: skip
KERNEL_PROT = {Backing.VDSO: Prot.RX, Backing.VVAR: Prot.R}  # arch/x86/entry/vdso/vma.c
_FIRST_ADDRESS = 1 << 40
_STRIDE = 1 << 29  # MAX_PAGES pages and a gap as long
# What is left out beside a userfaultfd: pages that may be huge, be gone at any time, or be guarded
_NO_USERFAULT = (Advice.HUGEPAGE, Advice.FREE, Advice.GUARD_INSTALL)


class ProgramError(ValueError):
    """A step makes no sense; `step` is its index in the program."""

    def __init__(self, step: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.step = step
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Region:
    """A name for `pages` pages from `address` on. What is mapped there changes as the program runs."""

    name: str
    address: int
    pages: int


@dataclass(frozen=True)
class Program:
    """`steps` in the order in which they run; raises `ProgramError` if they do not fit each other."""

    name: str
    steps: tuple[Operation, ...]
    title: str = ""  # one sentence: the promise under test
    regions: dict[str, Region] = field(init=False, compare=False, repr=False)
    subjects: tuple[str, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        checker = Checker()
        for number, step in enumerate(self.steps):
            checker.check(number, step)
        object.__setattr__(self, "regions", checker.regions)
        object.__setattr__(self, "subjects", tuple(checker.subjects))

    @property
    def spoils(self) -> bool:
        """Whether it leaves something behind in the kernel that other programs may run into: memory that has failed.

        mm/sparse.c clear_hwpoisoned_pages() of v6.1, for one, looks for it in any memory that is taken away.
        """
        return any(isinstance(step, Poison) for step in self.steps)

    def address(self, span: Span) -> int:
        """First address of `span`, in bytes."""
        return self.regions[span.region].address + span.start * PAGE_SIZE

    def pages(self, span: Span) -> Iterator[int]:
        """The virtual page numbers of `span`."""
        first = self.address(span) // PAGE_SIZE
        return iter(range(first, first + span.count))

    def place(self, start: int, stop: int) -> str:
        """Virtual pages `start` up to but not including `stop` as the text form has them, or as addresses."""
        for region in self.regions.values():
            first = region.address // PAGE_SIZE
            if first <= start and stop <= first + region.pages:
                if stop - start == region.pages:
                    return region.name
                inner = f"{start - first}" if stop - start == 1 else f"{start - first}:{stop - first}"
                return f"{region.name}[{inner}]"
        return f"{start * PAGE_SIZE:#x}-{stop * PAGE_SIZE:#x}"


_LONG_AGO = -2  # no step comes right after it


class Checker:
    """Walks a program once and says what cannot be meant."""

    def __init__(self) -> None:
        self.regions: dict[str, Region] = {}
        self.subjects: dict[str, bool] = {FIRST_SUBJECT: True}  # name: whether it still runs
        self._bound: dict[str, str] = {}
        self._watches: dict[str, dict[Span, Passes]] = {}  # of each device that is bound
        self._dma: dict[str, list[Span]] = {}  # what each device that is bound has mapped
        self._dying: set[str] = set()
        self._backings: dict[str, Backing] = {}  # of each region
        self._huge: set[str] = set()  # regions that may have huge pages
        self._userfaults: dict[tuple[str, str], list[Span]] = {}  # by subject and region
        self._protected: dict[tuple[str, str], list[Span]] = {}  # what of these is asked about writes
        self._moved: dict[str, int] = {}  # regions to which such pages were moved, and in which step, once
        self._pinner: str | None = None  # the subject that has pinned something
        self._pinned: set[str] = set()  # regions of which something was ever pinned
        self._paged: dict[str, int] = {}  # pages of each region that were paged out, however often
        self._spoiled: str | None = None  # such a region of which memory failed later
        self._swaps = False  # there is swap space to page them out to
        self._kept: dict[str, type[Operation]] = {}  # what keeps pages of a region: they were once locked, or merged
        self._merged_went = False  # pages that were merged may have gone to a device
        self._spoilt: set[str] = set()  # ... or poisoned, guarded or freed lazily
        self._step = 0

    def check(self, number: int, step: Operation) -> None:
        self._step = number
        if number == MAX_STEPS:
            self._fail(f"more than {MAX_STEPS} steps in one program")
        if isinstance(step, SubjectOperation):
            self._check_subject(step.actor, dying=isinstance(step, Reap | Exit))
        elif isinstance(step, DeviceOperation):
            self._check_device(step)
        span = span_of(step)
        if span is not None:
            self._check_span(span)
            if self._backings[span.region].of_kernel and not isinstance(step, OF_KERNEL):
                self._fail(f"{span.region} is the kernel's own", f"`{step.verb}` another region")
        match step:
            case Map(backing=backing, pages=pages, prot=prot) if backing.of_kernel and (
                pages != 1 or prot is not KERNEL_PROT[backing] or backing in self._backings.values()
            ):
                self._fail(
                    f"the {backing} is one page here, {KERNEL_PROT[backing]}, and can be mapped once",
                    f"`map {step.region} {backing} 1 {KERNEL_PROT[backing]}`",
                )
            case Map(pages=pages, backing=Backing.HUGETLB) if pages % HUGETLB_PAGES:
                self._fail(
                    f"{pages} pages in a hugetlb region", f"a multiple of {HUGETLB_PAGES}: its pages have 2 MiB each"
                )
            case Map(pages=pages, backing=backing) if backing.of_driver and pages > MAX_DRIVER_PAGES:
                self._fail(f"{pages} pages of a driver", f"at most {MAX_DRIVER_PAGES}")
            case (
                Remap(span=held) | Pin(span=held) | Advise(span=held) | Register(span=held) | Truncate(span=held)
            ) if self._backings[held.region].of_driver:
                self._fail(f"{held.region} is a driver's memory", f"`{step.verb}` another region")
            case Map(region=name, pages=pages, backing=backing):
                self._add_region(name, pages)
                self._backings[name] = backing
            case Pin(span=held) | Poison(span=held) if self._has_userfault(held.region):
                self._fail(f"{held.region} has a userfaultfd", f"`{step.verb}` another region")
            case Remap(actor=subject, span=held) if self._has_userfault(held.region) and not any(
                whole.start <= held.start and held.stop <= whole.stop
                for whole in self._protected.get((subject, held.region), ())
            ):
                self._fail(f"{held.region} has a userfaultfd", "`remap` pages that one `userfault ... wp` is about")
            case Advise(span=held, advice=advice) if advice in _NO_USERFAULT and self._has_userfault(held.region):
                self._fail(f"{held.region} has a userfaultfd", f"`{advice}` is for other regions")
            case Bring(span=held) | BringZeros(span=held) if self._backings[held.region] is Backing.PRIVATE_FILE:
                self._fail(f"{held.region} is a private mapping of a file", "it may have pages of the file already")
            case Shift(span=to, source=source):
                self._check_shift(to, source)
            case Lock(span=held) | Merge(span=held) | Counted(span=held) if (
                self._backings[held.region].of_driver or self._backings[held.region] is Backing.HUGETLB
            ):
                self._fail(f"{held.region} is of huge pages or a driver's", f"`{step.verb}` another region")
            case Merge(span=held) if self._backings[held.region] is not Backing.ANON:
                self._fail(f"{held.region} is not anonymous", "only anonymous pages are merged")
            case Lock(span=held) | Merge(span=held):
                self._check_kept(step, held.region)
            case Counted(span=held) if held.count != self.regions[held.region].pages:
                self._fail(f"not all of {held.region}", "mappings are counted, not pages: take the whole region")
            case (
                Advise(span=held) | SwapOut(span=held) | Poison(span=held) | Pin(span=held) | Register(span=held)
            ) if held.region in self._kept:
                self._fail(f"{held.region} may be locked or merged", f"`{step.verb}` another region")
            case Reap(actor=subject) if self._kept:
                self._fail("some memory may be locked or merged", f"let {subject} exit")
            case Register(actor=subject, span=held, userfault=userfault):
                self._check_userfault(subject, held, userfault)
            case Remap(span=moved, region=name):
                self._add_region(name, moved.count)
                if self._has_userfault(moved.region):
                    self._moved[name] = self._step
                elif moved.region in self._moved:
                    self._moved[name] = _LONG_AGO
                if moved.region in self._paged:
                    self._paged.setdefault(name, 0)
                self._backings[name] = self._backings[moved.region]
                for regions in (self._huge, self._pinned, self._spoilt):
                    if moved.region in regions:
                        regions.add(name)
                if moved.region in self._kept:
                    self._kept[name] = self._kept[moved.region]
            case Advise(span=advised, advice=Advice.HUGEPAGE):
                self._huge.add(advised.region)
            case SwapOut(span=going) if self._backings[going.region].of_driver:
                self._fail(f"{going.region} is a driver's memory", "swap another region out")
            case Truncate(span=cut) if cut.region in self._paged and self._swaps:
                self._fail(f"{cut.region} may be swapped out", "truncate another region")
            case SwapOut(span=going) | Advise(span=going, advice=Advice.PAGEOUT):
                pages = 0 if self._backings[going.region] is Backing.HUGETLB else going.count  # which is refused
                self._paged[going.region] = self._paged.get(going.region, 0) + pages
                self._swaps = self._swaps or isinstance(step, SwapOut)
                self._check_swap_space()
            case Advise(span=advised, advice=advice) if advice in _NO_USERFAULT:
                self._spoilt.add(advised.region)
            case Pin(actor=subject, span=pinned):
                self._check_pin(subject, pinned.region)
            case Unpin(actor=subject):
                if self._pinner != subject:
                    self._fail(f"{subject} has not pinned anything", f"`{subject}: pin ...` first")
                self._pinner = None
            case Truncate(span=mapped) if self._backings[mapped.region] in (Backing.ANON, Backing.HUGETLB):
                self._fail(f"{mapped.region} has no file", "only shared, file and private-file regions have one")
            case Truncate(pages=pages) if not 0 <= pages <= MAX_PAGES:
                self._fail(f"{pages} pages in one file", f"a file has 0 to {MAX_PAGES} pages")
            case Poison(span=failing) if failing.region in self._pinned:
                self._fail(f"{failing.region} may be pinned", "poison another region")
            case Poison(span=failing) if self._backings[failing.region] not in (Backing.ANON, Backing.HUGETLB):
                self._fail(f"{failing.region} is not anonymous", "only what nobody else may need can be poisoned")
            case Poison(span=failing):
                self._spoilt.add(failing.region)
                if failing.region in self._paged:
                    self._spoiled = failing.region
                    self._check_swap_space()
            case (
                Write(span=written, token=token)
                | DeviceWrite(span=written, token=token)
                | Bring(span=written, token=token)
            ):
                if not 0 < token <= MAX_TOKEN - written.count:
                    self._fail(f"token {token} is out of range", f"use 1 to {MAX_TOKEN - written.count}")
            case ToDevice() | ToDeviceShort() if Merge in self._kept.values():
                self._merged_went = True
            case Request(span=asked) if asked.count > MAX_REQUEST:
                self._fail(f"{asked.count} pages in one request", f"at most {MAX_REQUEST}")
            case Move(span=moved):
                if moved.count > MAX_MOVE:
                    self._fail(f"{moved.count} pages in one move", f"at most {MAX_MOVE}")
                self._merged_went = self._merged_went or Merge in self._kept.values()
            case Fork(child=child):
                if child in self.subjects:
                    self._fail(f"subject {child!r} exists already", "give each child a new name")
                if child in DEVICES:
                    self._fail(f"{child!r} is the name of a device")
                if len(self.subjects) == MAX_SUBJECTS:
                    self._fail(f"more than {MAX_SUBJECTS} subjects")
                self.subjects[child] = True
            case Exit(actor=subject):
                self.subjects[subject] = False
                if self._pinner == subject:
                    self._pinner = None
            case Reap(actor=subject):
                self._dying.add(subject)

    def _check_swap_space(self) -> None:
        """What is not to happen in a program that has swap space."""
        if self._swaps and self._spoiled is not None:  # mm/memory-failure.c me_swapcache_dirty() leaves it there
            self._fail(f"{self._spoiled} may be in the swap cache and fail there", "poison another region")
        for region in self._paged if self._swaps else ():
            if self._has_userfault(region):
                self._fail(f"{region} has a userfaultfd", "swap another region out")
        if self._swaps and sum(self._paged.values()) > MAX_SWAPPED:
            self._fail(f"more than {MAX_SWAPPED} pages swapped out, all told", "swap fewer pages out")

    def _has_userfault(self, region: str) -> bool:
        return any(name == region for _, name in self._userfaults)

    def _check_userfault(self, subject: str, span: Span, userfault: Userfault) -> None:
        backing = self._backings[span.region]
        if span.region in self._huge or backing is Backing.HUGETLB:
            self._fail(f"{span.region} may have huge pages", "give another region a userfaultfd")
        if span.region in self._pinned | self._spoilt | self._paged.keys():
            self._fail(
                f"{span.region} may have pages that are pinned, poisoned, guarded, free or swapped out",
                "give another region a userfaultfd",
            )
        if userfault is Userfault.WP and backing is not Backing.ANON:
            self._fail(f"{span.region} is not anonymous", "only anonymous memory is write-protected on all kernels")
        if self._moved.get(span.region, self._step - 1) != self._step - 1:
            # Whoever writes to a page that has kept its protection makes it writable without ending that.
            self._fail(
                f"{span.region} has pages that were write-protected elsewhere",
                "give another region a userfaultfd; this one can have it right after the first `remap`",
            )
        spans = self._userfaults.setdefault((subject, span.region), [])
        if any(other.start < span.stop and span.start < other.stop for other in spans):
            self._fail(f"{subject} has given these pages a userfaultfd", "each page can have one")
        spans.append(span)
        if userfault is Userfault.WP:
            self._protected.setdefault((subject, span.region), []).append(span)

    def _check_shift(self, to: Span, source: Span) -> None:
        self._check_span(source)
        if (to.count, source.count) != (1, 1):
            self._fail("more than one page at once", "move page by page: it is known then which of them failed")
        if to == source:
            self._fail("no page can move to where it is")
        for span in (to, source):
            if self._backings[span.region] is not Backing.ANON:
                self._fail(f"{span.region} is not anonymous", "only anonymous pages can be moved")
            if span.region in self._huge | self._spoilt | self._paged.keys():
                self._fail(f"{span.region} may have pages that are huge, poisoned, guarded, free or swapped out")
            if span.region in self._kept:
                self._fail(f"{span.region} may be locked or merged", "move other pages")

    def _check_kept(self, step: Lock | Merge, region: str) -> None:
        spoilt = self._huge | self._pinned | self._spoilt | self._paged.keys()
        if region in spoilt or self._has_userfault(region):
            self._fail(
                f"{region} may have pages that are huge, pinned, poisoned, guarded, free, swapped out or missing",
                f"`{step.verb}` another region",
            )
        if self._kept.setdefault(region, type(step)) is not type(step):
            self._fail(f"{region} may be locked, or merged", f"`{step.verb}` another region")
        if isinstance(step, Merge) and self._merged_went:  # mm/ksm.c stable_tree_search()
            self._fail(
                "merged pages may be in the memory of a device, where KSM oopses over them",
                "merge before anything goes there",
            )
        if isinstance(step, Merge) and len(self.subjects) > 1:
            self._fail("there was a fork", "merge before that: what several processes have may be left alone")

    def _check_pin(self, subject: str, region: str) -> None:
        if self._pinner is not None:
            self._fail(f"{self._pinner} has pinned something", f"`{self._pinner}: unpin` first: one pin at a time")
        if region in self._huge or self._backings[region] is Backing.HUGETLB:
            self._fail(f"{region} may have huge pages", "pin another region")
        self._pinner = subject
        self._pinned.add(region)

    def _fail(self, message: str, hint: str | None = None) -> None:
        raise ProgramError(self._step, message, hint)

    def _check_subject(self, name: str, *, dying: bool = False) -> None:
        if name not in self.subjects:
            known = ", ".join(self.subjects)
            self._fail(f"no subject {name!r} yet", f"subjects so far: {known}; `a: fork {name}` makes one")
        if not self.subjects[name]:
            self._fail(f"subject {name!r} has exited")
        if name in self._dying and not dying:
            self._fail(f"subject {name!r} is being killed", f"all that it can still do is `{name}: exit`")

    def _check_device(self, step: DeviceOperation) -> None:
        if step.actor not in DEVICES:
            self._fail(f"no device {step.actor!r}", f"devices: {', '.join(DEVICES)}")
        match step:
            case Bind(subject=subject):
                self._check_subject(subject)
                if step.actor in self._bound:
                    self._fail(
                        f"{step.actor} is bound to {self._bound[step.actor]!r}",
                        f"`{step.actor}: unbind` first",
                    )
                self._bound[step.actor] = subject
            case _ if step.actor not in self._bound:
                self._fail(f"{step.actor} is not bound", f"`{step.actor}: bind a` first")
            case Unbind():
                del self._bound[step.actor]
                self._watches.pop(step.actor, None)
                self._dma.pop(step.actor, None)
            case Watch(span=span, passes=passes):
                watches = self._watches.setdefault(step.actor, {})
                if span in watches:
                    self._fail(f"{step.actor} watches exactly this already")
                if len(watches) == MAX_WATCHES:
                    self._fail(f"more than {MAX_WATCHES} watches of {step.actor}")
                watches[span] = passes
            case SequenceNumber(span=span) if not self._watches.get(step.actor, {}).get(span, Passes.ONE).interval:
                self._fail(f"{step.actor}'s watch of this is no interval notifier: it has no sequence number")
            case Watched(span=span) | SequenceNumber(span=span) if span not in self._watches.get(step.actor, {}):
                self._fail(f"{step.actor} does not watch exactly this", f"`{step.actor}: watch ...` first")
            case DmaMap(span=span):
                maps = self._dma.setdefault(step.actor, [])
                if span.count > MAX_DMA:
                    self._fail(f"{span.count} pages mapped at once", f"at most {MAX_DMA}")
                if span not in maps:
                    maps.append(span)
                if len(maps) > MAX_DMA_MAPS:
                    self._fail(f"more than {MAX_DMA_MAPS} mappings of {step.actor}")
            case DmaTable(span=span) | DmaUnmap(span=span) if span not in self._dma.get(step.actor, []):
                self._fail(f"{step.actor} does not map exactly this", f"`{step.actor}: dma-map ...` first")
            case DmaUnmap(span=span):
                self._dma[step.actor].remove(span)
            case Returns() | Move(call=Call.COMPOUND) if step.actor in COHERENT:
                self._fail(f"{step.actor} cannot do that", "what the CPU reaches need not return, and is not huge")
            case Evict() | Usage() | Events():
                pass

    def _check_span(self, span: Span) -> None:
        region = self.regions.get(span.region)
        if region is None:
            known = ", ".join(self.regions) or "none"
            self._fail(f"no region {span.region!r} yet", f"regions so far: {known}; `a: map` makes one")
        elif span.count < 1:
            self._fail(f"{span.region}[{span.start}:{span.stop}] is empty")
        elif span.stop > region.pages:
            self._fail(
                f"{span.region}[{span.start}:{span.stop}] reaches past the end of {span.region}, "
                f"which has {region.pages} pages",
                f"{span.region}[0:{region.pages}] is all of it",
            )

    def _add_region(self, name: str, pages: int) -> None:
        if name in self.regions:
            self._fail(f"region {name!r} exists already", "give each region a new name")
        if not 0 < pages <= MAX_PAGES:
            self._fail(f"{pages} pages in one region", f"a region has 1 to {MAX_PAGES} pages")
        self.regions[name] = Region(name, _FIRST_ADDRESS + len(self.regions) * _STRIDE, pages)


class Growing:
    """A program that grows: it takes only steps that make sense where they come."""

    def __init__(self) -> None:
        self.steps: list[Operation] = []
        self._checker = Checker()

    def take(self, step: Operation) -> bool:
        """Takes `step`, and says whether it did."""
        try:
            self._checker.check(len(self.steps), step)
        except ProgramError:
            self._checker = Checker()  # it may have taken note of a part of the step
            for number, taken in enumerate(self.steps):
                self._checker.check(number, taken)
            return False
        self.steps.append(step)
        return True
