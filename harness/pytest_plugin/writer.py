# SPDX-License-Identifier: GPL-2.0-only
"""A program written step by step by calls, as a test does: each is checked where it is written."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TypeVar

from harness.program.observations import Element, Observation
from harness.program.operations import (
    FIRST_SUBJECT,
    Access,
    Advice,
    Advise,
    Answer,
    Asked,
    Backing,
    Bind,
    Bring,
    BringZeros,
    Call,
    Choices,
    ClearSoftDirty,
    Counted,
    DeviceRead,
    DeviceReadUnlocked,
    DeviceWrite,
    DmaMap,
    DmaTable,
    DmaUnmap,
    Events,
    Evict,
    EvictBy,
    Exclusive,
    Exit,
    Fault,
    Fork,
    Held,
    Length,
    Lock,
    Lookup,
    Manner,
    Map,
    Merge,
    Miswatch,
    Move,
    MovePages,
    Operation,
    Owner,
    Pagemap,
    Passes,
    Pattern,
    Pin,
    Poison,
    Prot,
    Protect,
    Read,
    Reap,
    Refuse,
    Register,
    Remap,
    Request,
    Returns,
    SequenceNumber,
    Shift,
    Snapshot,
    SoftDirty,
    Sources,
    SwapOut,
    Table,
    Target,
    ToDevice,
    ToDeviceShort,
    ToSystem,
    Truncate,
    Unbind,
    Unlock,
    Unmap,
    Unpin,
    Usage,
    Userfault,
    Watch,
    Watched,
    Write,
    WriteProtect,
    WriteUnprotect,
)
from harness.program.operations import Span as Pages
from harness.program.program import Checker, Program, ProgramError

_OURS = str(Path(__file__).parent)
_REGION = "buf"
Word = TypeVar("Word", bound=StrEnum)


class Step:
    """A step that was written; after the run, what it showed."""

    def __init__(self, operation: Operation, where: str) -> None:
        self.operation = operation
        self.where = where  # "test_cow.py:9"
        self.observation: Observation | None = None

    @property
    def error(self) -> int:
        """0, or the errno that the step ended with."""
        return self._seen().error

    @property
    def elements(self) -> tuple[Element, ...]:
        """What it showed: numbers, or per page a token, `Signal`, `Entry` or a word, as `Told`."""
        return self._seen().elements

    def _seen(self) -> Observation:
        if self.observation is None:
            raise RuntimeError("this step has not been run yet: call lockstep.run() first")
        return self.observation


@dataclass(frozen=True)
class Span:
    """Pages of a region."""

    region: Region
    start: int
    stop: int


class Region:
    """A named region; `buf[3]` and `buf[0:4]` are pieces of it, `buf` is all of it. Negative numbers count back."""

    def __init__(self, name: str, pages: int) -> None:
        self.name = name
        self.pages = pages

    def __len__(self) -> int:
        return self.pages

    def __getitem__(self, pages: int | slice) -> Span:
        if isinstance(pages, int):
            number = pages if pages >= 0 else self.pages + pages
            return Span(self, number, number + 1)
        if pages.step not in (None, 1):
            raise ValueError("a range of pages has no gaps: give each piece a step of its own")
        start, stop = (
            default if number is None else number if number >= 0 else self.pages + number
            for number, default in ((pages.start, 0), (pages.stop, self.pages))
        )
        return Span(self, start, stop)

    def __iter__(self) -> Iterator[Span]:
        return (self[number] for number in range(self.pages))


Where = Region | Span


class Writer:
    """A program in the making. `close` ends that; what was handed out by it is of no use then."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.closed = False
        self._checker = Checker()
        self._subjects: dict[str, Subject] = {}

    def subject(self, name: str) -> Subject:
        """A subject that is there: the first one, or one that was forked."""
        if name == FIRST_SUBJECT and not self._subjects:
            self._subjects[name] = Subject(self, name)
        if name not in self._subjects:
            known = ", ".join(self._subjects) or FIRST_SUBJECT
            raise _mistake(f"no subject {name!r} yet", f"subjects so far: {known}; {name} = a.fork() makes one")
        return self._subjects[name]

    def device(self, name: str) -> Device:
        """A device."""
        return Device(self, name)

    def add(self, operation: Operation) -> Step:
        """Writes a step. Raises `ProgramError` if it makes no sense after those before it."""
        __tracebackhide__ = True
        if self.closed:
            raise _mistake(
                "this program has run already", "lockstep.subject() and lockstep.device() begin another one"
            )
        try:
            self._checker.check(len(self.steps), operation)
        except ProgramError as error:
            raise _mistake(error.message, error.hint) from None
        self.steps.append(Step(operation, place()))
        return self.steps[-1]

    def fork(self, parent: Subject, name: str | None) -> Subject:
        """A new subject; the next letter if it is to have no name of its own."""
        __tracebackhide__ = True
        taken = {FIRST_SUBJECT, *self._subjects}
        name = name or next(letter for letter in map(chr, range(ord("a"), ord("z"))) if letter not in taken)
        self.add(Fork(parent.name, name))
        self._subjects[name] = Subject(self, name)
        return self._subjects[name]

    def region(self, name: str | None) -> str:
        """A name for a new region."""
        if name is not None:
            return name
        taken = self._checker.regions
        return next(each for each in _names() if each not in taken)

    def program(self, name: str, title: str) -> Program:
        """The whole program."""
        return Program(name, tuple(step.operation for step in self.steps), title)


class _Actor:
    def __init__(self, writer: Writer, name: str) -> None:
        self.name = name
        self._writer = writer

    def _add(self, operation: Operation) -> Step:
        __tracebackhide__ = True
        return self._writer.add(operation)


class Subject(_Actor):
    """A process whose memory is under test. Each method is a step; see README.md for what they do."""

    def map(self, backing: str = Backing.ANON, *, pages: int, prot: str = Prot.RW, name: str | None = None) -> Region:
        """mmap(2): a new region, called `name` in reports."""
        __tracebackhide__ = True
        region = Region(self._writer.region(name), pages)
        self._add(Map(self.name, region.name, _word(Backing, backing), pages, _word(Prot, prot)))
        return region

    def unmap(self, where: Where) -> Step:
        """munmap(2)."""
        __tracebackhide__ = True
        return self._add(Unmap(self.name, _pages(where)))

    def protect(self, where: Where, prot: str) -> Step:
        """mprotect(2)."""
        __tracebackhide__ = True
        return self._add(Protect(self.name, _pages(where), _word(Prot, prot)))

    def remap(self, where: Where, *, name: str | None = None) -> Region:
        """mremap(2), moving the pages to a new region."""
        __tracebackhide__ = True
        pages = _pages(where)
        region = Region(self._writer.region(name), pages.count)
        self._add(Remap(self.name, pages, region.name))
        return region

    def advise(self, where: Where, advice: str) -> Step:
        """madvise(2)."""
        __tracebackhide__ = True
        return self._add(Advise(self.name, _pages(where), _word(Advice, advice)))

    def read(self, where: Where) -> Step:
        """Loads every word; shows each page's token, or the signal that it raised."""
        __tracebackhide__ = True
        return self._add(Read(self.name, _pages(where)))

    def write(self, where: Where, token: int) -> Step:
        """Fills the first page with `token`, the next with `token + 1` and so on."""
        __tracebackhide__ = True
        return self._add(Write(self.name, _pages(where), token))

    def swap_out(self, where: Where) -> Step:
        """Swaps out what can be; shows of each page whether it is in memory still."""
        __tracebackhide__ = True
        return self._add(SwapOut(self.name, _pages(where)))

    def pagemap(self, where: Where) -> Step:
        """Shows what user space is told of each page: /proc/self/pagemap and mincore(2)."""
        __tracebackhide__ = True
        return self._add(Pagemap(self.name, _pages(where)))

    def soft_dirty(self, where: Where) -> Step:
        """Shows which pages are soft-dirty: written since the marks were cleared."""
        __tracebackhide__ = True
        return self._add(SoftDirty(self.name, _pages(where)))

    def clear_soft_dirty(self) -> Step:
        """Clears the soft-dirty marks of the whole process."""
        __tracebackhide__ = True
        return self._add(ClearSoftDirty(self.name))

    def lock(self, where: Where) -> Step:
        """mlock(2)."""
        __tracebackhide__ = True
        return self._add(Lock(self.name, _pages(where)))

    def unlock(self, where: Where) -> Step:
        """munlock(2)."""
        __tracebackhide__ = True
        return self._add(Unlock(self.name, _pages(where)))

    def merge(self, where: Where) -> Step:
        """Has KSM look for equal pages; shows which ones are merged."""
        __tracebackhide__ = True
        return self._add(Merge(self.name, _pages(where)))

    def move_pages(self, where: Where) -> Step:
        """move_pages(2) to where all memory is; shows what is said of each page."""
        __tracebackhide__ = True
        return self._add(MovePages(self.name, _pages(where)))

    def counted(self, where: Where) -> Step:
        """Shows how many pages of the region are resident, anonymous and swapped out; and how far counters err."""
        __tracebackhide__ = True
        return self._add(Counted(self.name, _pages(where)))

    def poison(self, where: Where) -> Step:
        """The memory behind the pages fails; they are written first."""
        __tracebackhide__ = True
        return self._add(Poison(self.name, _pages(where)))

    def pin(self, where: Where) -> Step:
        """Pins the pages for writing, for long, as for RDMA."""
        __tracebackhide__ = True
        return self._add(Pin(self.name, _pages(where)))

    def unpin(self) -> Step:
        """Lets go of what it has pinned."""
        __tracebackhide__ = True
        return self._add(Unpin(self.name))

    def truncate(self, where: Where, pages: int) -> Step:
        """ftruncate(2) of the file that is mapped at the first page: from now on it has so many."""
        __tracebackhide__ = True
        return self._add(Truncate(self.name, _pages(where), pages))

    def userfault(self, where: Where, userfault: str) -> Step:
        """From now on a userfaultfd is asked about the pages: `missing`, `wp` (nobody answers), or `answered`."""
        __tracebackhide__ = True
        return self._add(Register(self.name, _pages(where), _word(Userfault, userfault)))

    def userfault_copy(self, where: Where, token: int) -> Step:
        """Brings pages that are missing: the first one has `token`, the next one `token + 1` and so on."""
        __tracebackhide__ = True
        return self._add(Bring(self.name, _pages(where), token))

    def userfault_zero(self, where: Where) -> Step:
        """Brings pages of zeros."""
        __tracebackhide__ = True
        return self._add(BringZeros(self.name, _pages(where)))

    def userfault_move(self, where: Where, source: Where) -> Step:
        """Moves the one page `source` to the one page `where`."""
        __tracebackhide__ = True
        return self._add(Shift(self.name, _pages(where), _pages(source)))

    def userfault_protect(self, where: Where) -> Step:
        """From now on, a write to these pages is a fault for the userfaultfd."""
        __tracebackhide__ = True
        return self._add(WriteProtect(self.name, _pages(where)))

    def userfault_unprotect(self, where: Where) -> Step:
        """The end of that."""
        __tracebackhide__ = True
        return self._add(WriteUnprotect(self.name, _pages(where)))

    def fork(self, name: str | None = None) -> Subject:
        """fork(2): the child, which is called by the next free letter if it has no `name`."""
        __tracebackhide__ = True
        return self._writer.fork(self, name)

    def exit(self) -> Step:
        """_exit(2), and the parent's wait for it."""
        __tracebackhide__ = True
        return self._add(Exit(self.name))

    def reap(self) -> Step:
        """SIGKILL, and the memory is taken as the OOM reaper does; then nothing but `exit`, or another `reap`."""
        __tracebackhide__ = True
        return self._add(Reap(self.name))


class Device(_Actor):
    """A device that mirrors a subject's memory. Each method is a step."""

    def bind(self, subject: Subject) -> Step:
        """Starts to mirror the memory of `subject`."""
        __tracebackhide__ = True
        return self._add(Bind(self.name, subject.name))

    def unbind(self) -> Step:
        """Stops mirroring."""
        __tracebackhide__ = True
        return self._add(Unbind(self.name))

    def snapshot(self, where: Where) -> Step:
        """Shows the CPU's page table through hmm_range_fault(), requesting nothing."""
        __tracebackhide__ = True
        return self._add(Snapshot(self.name, _pages(where)))

    def fault(self, where: Where, access: str = Access.READ) -> Step:
        """hmm_range_fault() with a request; the result is entered into the device's page table."""
        __tracebackhide__ = True
        return self._add(Fault(self.name, _pages(where), _word(Access, access)))

    def request(
        self,
        where: Where,
        *,
        default: str = Asked.NONE,
        mask: str = Asked.NONE,
        pattern: str = ".",
        owner: str = Owner.OWN,
        manner: str = Manner.FRESH,
    ) -> Step:
        """One hmm_range_fault() with every choice that it leaves to a driver; `pattern`: `.`, `f`, `w`, `b`."""
        __tracebackhide__ = True
        if not pattern or len(Pattern(pattern).asked) != len(pattern):
            hint = "`f` fault, `w` write, `b` both, `.` none"
            raise _mistake(f"{pattern!r} does not say what is asked of each page", hint)
        asked = (_word(Asked, default), _word(Asked, mask), Pattern(pattern))
        return self._add(Request(self.name, _pages(where), *asked, _word(Owner, owner), _word(Manner, manner)))

    def watch(self, where: Where, passes: str = Passes.ONE) -> Step:
        """One more notifier, over these pages, until the device is unbound."""
        __tracebackhide__ = True
        return self._add(Watch(self.name, _pages(where), _word(Passes, passes)))

    def watched(self, where: Where) -> Step:
        """Shows of which pages the watch of exactly these was told since the last look, or since it began."""
        __tracebackhide__ = True
        return self._add(Watched(self.name, _pages(where)))

    def miswatch(self, where: Where, length: str) -> Step:
        """What the kernel says to an interval notifier that starts there, but is `empty` or `endless`."""
        __tracebackhide__ = True
        return self._add(Miswatch(self.name, _pages(where), _word(Length, length)))

    def sequence(self, where: Where) -> Step:
        """Shows the sequence number of the watch of exactly these pages, and what is said of the one before."""
        __tracebackhide__ = True
        return self._add(SequenceNumber(self.name, _pages(where)))

    def read(self, where: Where) -> Step:
        """Loads the pages through the device's own page table; shows each page's token."""
        __tracebackhide__ = True
        return self._add(DeviceRead(self.name, _pages(where)))

    def read_unlocked(self, where: Where) -> Step:
        """As `read`, but it faults by hmm_range_fault_unlocked_timeout()."""
        __tracebackhide__ = True
        return self._add(DeviceReadUnlocked(self.name, _pages(where)))

    def write(self, where: Where, token: int) -> Step:
        """Stores tokens, as `Subject.write` does, through the device's own page table."""
        __tracebackhide__ = True
        return self._add(DeviceWrite(self.name, _pages(where), token))

    def to_device(self, where: Where) -> Step:
        """Moves system pages into the device's memory."""
        __tracebackhide__ = True
        return self._add(ToDevice(self.name, _pages(where)))

    def to_device_short(self, where: Where) -> Step:
        """As `to_device`, but there is no memory for the first page that it needs, huge or not."""
        __tracebackhide__ = True
        return self._add(ToDeviceShort(self.name, _pages(where)))

    def to_system(self, where: Where) -> Step:
        """Moves the device's own pages back to system memory."""
        __tracebackhide__ = True
        return self._add(ToSystem(self.name, _pages(where)))

    def move(self, where: Where, *, sources: str, to: str, choices: str = "m", call: str = Call.PLAIN) -> Step:
        """One migration with every choice that the kernel leaves to a driver; `choices`: `m`, `.`, `p`."""
        __tracebackhide__ = True
        if not choices or set(choices) - set("m.p"):
            hint = "`m` moves, `.` stays, `p` moves in pieces"
            raise _mistake(f"{choices!r} does not say what becomes of each page", hint)
        words = (_word(Sources, sources), _word(Target, to), Choices(choices), _word(Call, call))
        return self._add(Move(self.name, _pages(where), *words))

    def returns(self, answer: str) -> Step:
        """From now on, CPU touches of the device's memory are `refused` with SIGBUS, or `allowed`."""
        __tracebackhide__ = True
        return self._add(Returns(self.name, _word(Answer, answer)))

    def evict(self, by: str | None = None) -> Step:
        """Everything in the device's memory goes back, of every process. `by`: how the kernel finds it, or why."""
        __tracebackhide__ = True
        if by is not None:
            return self._add(EvictBy(self.name, _word(Lookup, by)))
        return self._add(Evict(self.name))

    def refuse(self, where: Where) -> Step:
        """From now on refuses invalidations of these pages that must not sleep."""
        __tracebackhide__ = True
        return self._add(Refuse(self.name, _pages(where)))

    def dma_map(self, where: Where, access: str = Access.READ, owner: str = Owner.OWN) -> Step:
        """Faults the pages and maps each for DMA; shows what is mapped."""
        __tracebackhide__ = True
        return self._add(DmaMap(self.name, _pages(where), _word(Access, access), _word(Owner, owner)))

    def dma_table(self, where: Where) -> Step:
        """Shows what of exactly these pages is mapped for DMA, and what of that contradicts the CPU's table."""
        __tracebackhide__ = True
        return self._add(DmaTable(self.name, _pages(where)))

    def dma_unmap(self, where: Where) -> Step:
        """Ends the mapping of exactly these pages."""
        __tracebackhide__ = True
        return self._add(DmaUnmap(self.name, _pages(where)))

    def exclusive(self, where: Where) -> Step:
        """Takes the pages from all CPUs, for this device alone."""
        __tracebackhide__ = True
        return self._add(Exclusive(self.name, _pages(where)))

    def held(self, where: Where) -> Step:
        """Shows which pages the device has to itself."""
        __tracebackhide__ = True
        return self._add(Held(self.name, _pages(where)))

    def table(self, where: Where) -> Step:
        """Shows the device's own page table, and which entries contradict the CPU's."""
        __tracebackhide__ = True
        return self._add(Table(self.name, _pages(where)))

    def usage(self) -> Step:
        """Shows how much of the device's memory is in use."""
        __tracebackhide__ = True
        return self._add(Usage(self.name))

    def events(self) -> Step:
        """Shows what the device heard and did since the last look, or since it was bound."""
        __tracebackhide__ = True
        return self._add(Events(self.name))


def _pages(where: Where) -> Pages:
    if isinstance(where, Region):
        return Pages(where.name, 0, where.pages)
    return Pages(where.region.name, where.start, where.stop)


def _word(kind: type[Word], word: str) -> Word:
    __tracebackhide__ = True
    try:
        return kind(word)
    except ValueError:
        raise _mistake(f"{word!r} is no {kind.__name__.lower()}", f"one of: {', '.join(kind)}") from None


def _names() -> Iterator[str]:
    yield _REGION
    number = 2
    while True:
        yield f"{_REGION}{number}"
        number += 1


def _mistake(message: str, hint: str | None) -> ValueError:
    """What is wrong with a step, as pytest shows it below the line that wrote it."""
    error = ValueError(message)
    if hint:
        error.add_note(f"hint: {hint}")
    return error


def place() -> str:
    """File and line of whoever called us from outside."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    if frame is None:
        return ""
    path = Path(frame.f_code.co_filename)
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{frame.f_lineno}"
