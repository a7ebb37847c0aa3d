# SPDX-License-Identifier: GPL-2.0-only
"""What a run shows of each step. A target and the model speak of the same things in these words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, StrEnum

TORN = -1  # in place of a token: the page holds no one token


class Signal(StrEnum):
    """In place of a token: what the access raised."""

    SEGV = "SIGSEGV"
    BUS = "SIGBUS"


class Status(StrEnum):
    """Whether a step was carried out at all."""

    DONE = "done"
    NOT_RUN = "not run"
    UNSUPPORTED = "unsupported"  # the binding has no such operation
    SUBJECT_DIED = "subject died"
    STUCK = "stuck"  # no end within the time allowed


class Mark(Flag):
    """What an `Entry` says besides its order."""

    VALID = 0x1  # there is an entry, it can be read
    WRITE = 0x2  # and written
    ERROR = 0x4  # it can never be accessed
    ZERO = 0x8  # the shared zero page
    LOCAL = 0x10  # in the memory of the device asked
    REMOTE = 0x20  # in the memory of another device
    STALE = 0x40  # a device entry that contradicts the CPU's
    MOVED = 0x80  # moved by this step
    HEARD = 0x4000  # a watch was told of it
    DMA = 0x100000  # mapped for DMA
    COLLECTED = 0x10000  # it may be migrated
    COMPOUND = 0x20000  # as a part of a huge page
    SHIFTED = 0x80000  # HMM named another page of the same huge page
    KEPT = 0x200000  # a reference to it was left behind
    WHOLE = 0x40000  # moved as a part of a huge page
    RESIDUE = 0x2000  # neither valid nor an error, but other bits are set
    EXCLUSIVE = 0x8000  # the device has it to itself


NO_MARKS = Mark(0)


@dataclass(frozen=True)
class Entry:
    """One page of a page table. `order` is that of the CPU's mapping that covers it."""

    marks: Mark
    order: int = 0

    def __str__(self) -> str:
        if Mark.ERROR in self.marks:
            text = "error"
        elif Mark.VALID in self.marks:
            text = "rw" if Mark.WRITE in self.marks else "r"
        else:
            text = ""
        words = [text, *(word for mark, word in _WORDS if mark in self.marks)]
        if self.order:
            words.append(f"order{self.order}")
        return " ".join(filter(None, words)) or "-"


_WORDS = (
    (Mark.ZERO, "zero"),
    (Mark.LOCAL, "device"),
    (Mark.REMOTE, "other-device"),
    (Mark.STALE, "STALE"),
    (Mark.COLLECTED, "collected"),
    (Mark.COMPOUND, "compound"),
    (Mark.MOVED, "moved"),
    (Mark.WHOLE, "whole"),
    (Mark.SHIFTED, "SHIFTED"),
    (Mark.KEPT, "KEPT"),
    (Mark.RESIDUE, "residue"),
    (Mark.HEARD, "heard"),
    (Mark.DMA, "dma"),
    (Mark.EXCLUSIVE, "exclusive"),
)

Token = int | Signal


class Happening(StrEnum):
    """What an event tells: why memory was invalidated (the first nine, enum mmu_notifier_event), or what was done."""

    UNKNOWN = "unknown"
    UNMAP = "unmap"
    CLEAR = "clear"
    PROTECTION_VMA = "protection-vma"
    PROTECTION_PAGE = "protection-page"
    SOFT_DIRTY = "soft-dirty"
    RELEASE = "release"
    MIGRATE = "migrate"
    EXCLUSIVE = "exclusive"
    TO_DEVICE = "to-device"  # the device moved pages
    TO_SYSTEM = "to-system"
    PAGE_FREE = "page-free"
    CPU_FAULT = "cpu-fault"  # a CPU touched its memory


class Owner(StrEnum):
    """Who migrates, as the device sees it that hears of that."""

    NONE = "nobody"
    OWN = "own"
    OTHER = "other"


@dataclass(frozen=True)
class Event:
    """What a device heard or did, once: pages `start` up to but not including `stop`, by virtual page number.

    `place` says the same for people. `asked` and `moved` count pages of a migration.
    """

    what: Happening
    start: int
    stop: int
    owner: Owner = Owner.NONE
    sequence: int = 0
    blockable: bool = True
    refused: bool = False
    asked: int = 0
    moved: int = 0
    place: str = ""

    def __str__(self) -> str:
        words: list[str] = [self.what]
        if self.owner is not Owner.NONE:
            words.append(f"({self.owner})")
        if self.what is not Happening.PAGE_FREE:
            words.append(self.place or f"{self.start:#x}:{self.stop:#x}")
        if self.what in (Happening.TO_DEVICE, Happening.TO_SYSTEM):
            words.append(f"moved {self.moved} of {self.asked}")
        if not self.blockable:
            words.append("must not sleep")
        if self.refused:
            words.append("refused")
        return " ".join(words)


class Residence(StrEnum):
    """Whether a page is in memory, mapped or in a cache; of a `SwapOut`."""

    IN = "in memory"
    OUT = "not in memory"


class Told(StrEnum):
    """What user space is told of a page; of a `Pagemap`."""

    NOTHING = "nothing"
    CACHED = "nothing, in core"  # a cache has it
    PRESENT = "present, in core"
    SWAP = "swap"
    SWAP_IN_CORE = "swap, in core"  # it is in memory, or in that of a device, but no CPU may access it by this entry


class Soft(StrEnum):
    """Whether a page is marked as written; of a `SoftDirty`."""

    DIRTY = "soft-dirty"
    CLEAN = "clean"


class Merged(StrEnum):
    """Whether KSM has merged a page; of a `Merge`."""

    MERGED = "merged"
    ALONE = "not merged"


class Placed(StrEnum):
    """What move_pages(2) says of a page; of a `MovePages`."""

    HERE = "on the node"
    ABSENT = "ENOENT"  # there is no page, or it is one of a device
    REFUSED = "EFAULT"  # there is no mapping, or nothing but zeros


Element = Token | Entry | Event | Residence | Told | Soft | Merged | Placed


# The elements of a `Usage`, of an `Evict` or `EvictBy` and of a `Sequence`, in the order of wire.h
USAGE = ("in use", "allocated", "freed", "CPU faults", "invalidations", "entries")
EVICTED = ("moved", "left")
SEQUENCE = ("sequence", "read_retry", "check_retry", "calls")
COUNTED = ("resident", "anonymous", "swapped", "counters off")  # of a `Counted`, in pages
REFUSED = ("refused", "calls without it")  # of a `Returns`


@dataclass(frozen=True)
class Observation:
    """What came of one step: `error` is 0 or an errno, `elements` one per page where the step shows pages."""

    status: Status
    error: int = 0
    elements: tuple[Element, ...] = ()
