# SPDX-License-Identifier: GPL-2.0-only
"""The vocabulary: what subjects and devices can be told to do.

Each operation is a frozen dataclass. Its `verb` and the order of its fields are its text form (see
`harness.program.text`); `Span` is a piece of a named region, in pages of 4096 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

PAGE_SIZE = 4096  # bytes; the only page size of the kernels that we run (x86-64)
MAX_STEPS = 65536  # of a program; wire.h WIRE_MAX_OPERATIONS
MAX_PAGES = 65536  # of a region; wire.h WIRE_MAX_PAGES
HUGETLB_PAGES = 512  # of a page of a hugetlb region; wire.h WIRE_HUGETLB_PAGES
MAX_TOKEN = 2**48 - 1  # what fits a page's pattern; executor.c
MAX_SUBJECTS = 16  # wire.h WIRE_MAX_SUBJECTS
MAX_REQUEST = 512  # pages of one request; HMM_HARNESS_REQUEST_MAX_PAGES
MAX_PATTERN = 16  # letters of a `Pattern`; wire.h WIRE_REQUEST_MAX_PATTERN
MAX_MOVE = 512  # pages of one move; HMM_HARNESS_MOVE_MAX_PAGES
MAX_CHOICES = 16  # letters of `Choices`; wire.h WIRE_MOVE_MAX_CHOICES
MAX_WATCHES = 16  # of a device; HMM_HARNESS_MAX_WATCHES
MAX_DMA = 512  # pages of one range that is mapped for DMA; HMM_HARNESS_DMA_MAX_PAGES
MAX_DRIVER_PAGES = 512  # of a pfnmap or mixedmap region; HMM_HARNESS_MMAP_MAX_PAGES
MAX_DMA_MAPS = 8  # of a device; HMM_HARNESS_MAX_DMA_MAPS
MAX_SWAPPED = 4096  # pages that one program may want swapped out, all told; harness/guest/kernel.py _SWAP_BYTES
DEVICES = ("d0", "d1", "c0", "c1")  # wire.h WIRE_MAX_DEVICES
COHERENT = ("c0", "c1")  # of these, those whose memory the CPU reaches: wire.h WIRE_FIRST_COHERENT
ANSWER_PAGES = 0x20000  # of which each comes with a token of its own; wire.h WIRE_ANSWER_PAGES
FIRST_SUBJECT = "a"  # runs from the start of every program


class Backing(StrEnum):
    """What a mapping is a view of."""

    ANON = "anon"  # private anonymous memory
    SHARED = "shared"  # shared anonymous memory
    FILE = "file"  # shared mapping of a new file (tmpfs), as long as the mapping
    PRIVATE_FILE = "private-file"  # private mapping of a new file
    PFNMAP = "pfnmap"  # pages of a driver that are for nobody else, mapped as the registers of a device are
    MIXEDMAP = "mixedmap"  # ... mapped among pages that others may have
    HUGETLB = "hugetlb"  # private anonymous memory out of the pool of 2 MiB pages (MAP_HUGETLB)
    VDSO = "vdso"  # the first page of the code that the kernel maps into each process
    VVAR = "vvar"  # ... and of the data that this code reads

    @property
    def of_driver(self) -> bool:
        """Whether it is memory of a driver's: VM_PFNMAP or VM_MIXEDMAP."""
        return self in (Backing.PFNMAP, Backing.MIXEDMAP)

    @property
    def of_kernel(self) -> bool:
        """Whether the kernel has mapped it before the program began: it is moved to where the program has it."""
        return self in (Backing.VDSO, Backing.VVAR)


class Prot(StrEnum):
    """Protections of a mapping, as `r`, `w`, `x` in this order.

    Execute-only is left out: whether it can be read depends on protection keys of the CPU.
    """

    NONE = "none"
    R = "r"
    W = "w"
    RW = "rw"
    RX = "rx"
    RWX = "rwx"

    @property
    def readable(self) -> bool:
        """VM_READ: what HMM asks for before it shows anything of the mapping."""
        return self in (Prot.R, Prot.RW, Prot.RX, Prot.RWX)

    @property
    def writable(self) -> bool:
        """VM_WRITE."""
        return self in (Prot.W, Prot.RW, Prot.RWX)

    @property
    def cpu_readable(self) -> bool:
        """Whether a load succeeds: x86 has no write-only page."""
        return self is not Prot.NONE


class Advice(StrEnum):
    """madvise(2); the name is the kernel's in lower case, with `-` for `_`."""

    DONTNEED = "dontneed"
    FREE = "free"
    COLD = "cold"
    PAGEOUT = "pageout"
    REMOVE = "remove"
    WILLNEED = "willneed"
    POPULATE_READ = "populate-read"
    POPULATE_WRITE = "populate-write"
    HUGEPAGE = "hugepage"
    NOHUGEPAGE = "nohugepage"
    DONTFORK = "dontfork"
    DOFORK = "dofork"
    WIPEONFORK = "wipeonfork"
    KEEPONFORK = "keeponfork"
    GUARD_INSTALL = "guard-install"
    GUARD_REMOVE = "guard-remove"


class Access(StrEnum):
    """What a device fault asks for."""

    READ = "read"
    WRITE = "write"


class Asked(StrEnum):
    """What hmm_range_fault() is asked of a page: HMM_PFN_REQ_*."""

    NONE = "none"
    FAULT = "fault"  # it shall be there
    WRITE = "write"  # nothing by itself: clause 30
    BOTH = "both"  # it shall be there and be writable

    @property
    def letter(self) -> str:
        """How a `Pattern` writes it."""
        return "." if self is Asked.NONE else self.value[0]

    def __or__(self, other: Asked) -> Asked:
        return _ASKED[self._bits | other._bits]

    def __and__(self, other: Asked) -> Asked:
        return _ASKED[self._bits & other._bits]

    @property
    def _bits(self) -> int:
        return _ASKED.index(self)


_ASKED = (Asked.NONE, Asked.FAULT, Asked.WRITE, Asked.BOTH)  # HMM_HARNESS_ASK_*


class Pattern(str):
    """What is asked of each page of a span, a letter of `Asked` each; it begins again when it ends."""

    __slots__ = ()

    @property
    def asked(self) -> tuple[Asked, ...]:
        """One for each letter."""
        return tuple(asked for letter in self for asked in Asked if asked.letter == letter)


class Owner(StrEnum):
    """Whose device-private memory hmm_range_fault() shows: `hmm_range.dev_private_owner`."""

    OWN = "own"
    NOBODY = "nobody"
    OTHER = "other"  # that of the other device of its kind


class Manner(StrEnum):
    """How hmm_range_fault() is called."""

    FRESH = "fresh"  # with the notifier's sequence number of now
    STALE = "stale"  # with an older one
    UNLOCKED = "unlocked"  # hmm_range_fault_unlocked_timeout(), without the mmap lock
    EMPTY = "empty"  # of a range that ends where the span starts


@dataclass(frozen=True)
class Span:
    """Pages `start` (counted from 0) up to but not including `stop` of a region."""

    region: str
    start: int
    stop: int

    @property
    def count(self) -> int:
        """Length in pages."""
        return self.stop - self.start


@dataclass(frozen=True)
class Operation:
    """One step; `actor` is the name of the subject or device that does it."""

    verb: ClassVar[str]
    actor: str


@dataclass(frozen=True)
class SubjectOperation(Operation):
    """Done by a process."""


@dataclass(frozen=True)
class DeviceOperation(Operation):
    """Done by a device, on the memory of the subject that it is bound to."""


@dataclass(frozen=True)
class Map(SubjectOperation):
    """mmap(2) of a new region of `pages` pages."""

    verb = "map"
    region: str
    backing: Backing
    pages: int
    prot: Prot


@dataclass(frozen=True)
class Unmap(SubjectOperation):
    """munmap(2)."""

    verb = "unmap"
    span: Span


@dataclass(frozen=True)
class Protect(SubjectOperation):
    """mprotect(2)."""

    verb = "protect"
    span: Span
    prot: Prot


@dataclass(frozen=True)
class Remap(SubjectOperation):
    """mremap(2), moving the span to a new region of the same length."""

    verb = "remap"
    span: Span
    region: str


@dataclass(frozen=True)
class Advise(SubjectOperation):
    """madvise(2)."""

    verb = "advise"
    span: Span
    advice: Advice


@dataclass(frozen=True)
class Read(SubjectOperation):
    """Loads every word of the span; shows each page's token."""

    verb = "read"
    span: Span


@dataclass(frozen=True)
class Write(SubjectOperation):
    """Fills the first page with `token`, the next with `token + 1` and so on."""

    verb = "write"
    span: Span
    token: int


@dataclass(frozen=True)
class Poison(SubjectOperation):
    """The memory behind the pages fails: each is written, and then MADV_HWPOISON.

    Anonymous and hugetlb regions only; a hugetlb page fails as a whole.
    """

    verb = "poison"
    span: Span


@dataclass(frozen=True)
class SwapOut(SubjectOperation):
    """MADV_PAGEOUT until nothing more goes; shows of each page whether it is in memory still: mincore(2).

    A program that has such a step has swap space, so that its other MADV_PAGEOUT may swap pages out, too.
    """

    verb = "swap-out"
    span: Span


@dataclass(frozen=True)
class Pagemap(SubjectOperation):
    """Shows what user space is told of each page: /proc/self/pagemap and mincore(2)."""

    verb = "pagemap"
    span: Span


@dataclass(frozen=True)
class SoftDirty(SubjectOperation):
    """Shows which pages are soft-dirty: /proc/self/pagemap, bit 55."""

    verb = "soft-dirty"
    span: Span


@dataclass(frozen=True)
class ClearSoftDirty(SubjectOperation):
    """Clears the soft-dirty marks of all that the process has: 4 to /proc/self/clear_refs."""

    verb = "clear-soft-dirty"


@dataclass(frozen=True)
class Lock(SubjectOperation):
    """mlock(2)."""

    verb = "lock"
    span: Span


@dataclass(frozen=True)
class Unlock(SubjectOperation):
    """munlock(2)."""

    verb = "unlock"
    span: Span


@dataclass(frozen=True)
class Merge(SubjectOperation):
    """MADV_MERGEABLE, and then KSM looks for equal pages; shows which pages are merged: /proc/kpageflags.

    It looks at all that is mergeable, of every process, several times, and not again until the next such step.
    """

    verb = "merge"
    span: Span


@dataclass(frozen=True)
class MovePages(SubjectOperation):
    """move_pages(2) to the node where all memory is, so that nothing moves; shows what is said of each page."""

    verb = "move-pages"
    span: Span


@dataclass(frozen=True)
class Counted(SubjectOperation):
    """Shows how many pages of a whole region are counted: /proc/self/smaps; and how well the sums agree with that."""

    verb = "counted"
    span: Span


@dataclass(frozen=True)
class Pin(SubjectOperation):
    """pin_user_pages() for writing, FOLL_LONGTERM: as for RDMA. All pages of the span or none; until `Unpin`."""

    verb = "pin"
    span: Span


@dataclass(frozen=True)
class Unpin(SubjectOperation):
    """Lets go of what the subject has pinned."""

    verb = "unpin"


@dataclass(frozen=True)
class Truncate(SubjectOperation):
    """ftruncate(2) of the file that is mapped at the first page of the span: from now on it has `pages` pages."""

    verb = "truncate"
    span: Span
    pages: int


class Userfault(StrEnum):
    """What a userfaultfd is asked about, and whether anybody answers."""

    MISSING = "missing"  # pages that are not there; nobody answers, so that touching them raises SIGBUS
    WP = "wp"  # writes to pages that are write-protected by it; nobody answers
    ANSWERED = "answered"  # pages that are not there: another process brings them


@dataclass(frozen=True)
class Register(SubjectOperation):
    """UFFDIO_REGISTER: from now on, a userfaultfd is asked about what happens in the span.

    Where it is `answered`, page 0 of a region comes with the token 1, page 1 with 2 and so on.
    """

    verb = "userfault"
    span: Span
    userfault: Userfault


@dataclass(frozen=True)
class Bring(SubjectOperation):
    """UFFDIO_COPY, page by page: the first one has `token`, the next one `token + 1` and so on."""

    verb = "userfault-copy"
    span: Span
    token: int


@dataclass(frozen=True)
class BringZeros(SubjectOperation):
    """UFFDIO_ZEROPAGE, page by page."""

    verb = "userfault-zero"
    span: Span


@dataclass(frozen=True)
class Shift(SubjectOperation):
    """UFFDIO_MOVE of the one page `source` to the one page of the span."""

    verb = "userfault-move"
    span: Span
    source: Span


@dataclass(frozen=True)
class WriteProtect(SubjectOperation):
    """UFFDIO_WRITEPROTECT, page by page: from now on, a write is a fault for the userfaultfd."""

    verb = "userfault-protect"
    span: Span


@dataclass(frozen=True)
class WriteUnprotect(SubjectOperation):
    """UFFDIO_WRITEPROTECT without the mode WP, page by page: the end of that."""

    verb = "userfault-unprotect"
    span: Span


@dataclass(frozen=True)
class Fork(SubjectOperation):
    """fork(2): `child` is the new subject."""

    verb = "fork"
    child: str


@dataclass(frozen=True)
class Exit(SubjectOperation):
    """_exit(2), and the parent's wait for it."""

    verb = "exit"


@dataclass(frozen=True)
class Reap(SubjectOperation):
    """SIGKILL, and process_mrelease(2) while the process has stopped on its way out: what the OOM reaper does.

    After that there is nothing for it to do but `Exit`, or another `Reap`.
    """

    verb = "reap"


@dataclass(frozen=True)
class Bind(DeviceOperation):
    """The device starts to mirror the memory of `subject`."""

    verb = "bind"
    subject: str


@dataclass(frozen=True)
class Unbind(DeviceOperation):
    """The device stops mirroring. What lives in its memory stays there."""

    verb = "unbind"


@dataclass(frozen=True)
class Snapshot(DeviceOperation):
    """hmm_range_fault() without any request: shows the CPU's page table, changes nothing."""

    verb = "snapshot"
    span: Span


@dataclass(frozen=True)
class Fault(DeviceOperation):
    """hmm_range_fault() with a request; the result is entered into the device's page table."""

    verb = "fault"
    span: Span
    access: Access


@dataclass(frozen=True)
class Request(DeviceOperation):
    """One hmm_range_fault() with every choice that it leaves to a driver; nothing enters the device's page table.

    `default`: hmm_range.default_flags; `mask`: pfn_flags_mask; `pattern`: what hmm_pfns ask of each page.
    """

    verb = "request"
    span: Span
    default: Asked
    mask: Asked
    pattern: Pattern
    owner: Owner
    manner: Manner

    def asked(self, index: int) -> Asked:
        """What is asked of page `index` of the span, all told: clause 31."""
        asked = self.pattern.asked
        return (asked[index % len(asked)] & self.mask) | self.default


class Passes(StrEnum):
    """How a notifier is told, and how it came to be."""

    ONE = "one-pass"  # invalidate()
    TWO = "two-pass"  # invalidate_start(), invalidate_finish()
    PLAIN = "plain"  # invalidate_range_start(), invalidate_range_end(), by __mmu_notifier_register()
    SHARED = "shared"  # the same, by mmu_notifier_get_locked(): one for all of the process's watches of this kind
    TLB = "tlb"  # arch_invalidate_secondary_tlbs(), up to v6.5 invalidate_range()

    @property
    def interval(self) -> bool:
        """It is an mmu_interval_notifier; else a plain mmu_notifier, of which the driver picks what it wants."""
        return self in (Passes.ONE, Passes.TWO)


@dataclass(frozen=True)
class Watch(DeviceOperation):
    """Another notifier, over this span, until the device is unbound."""

    verb = "watch"
    span: Span
    passes: Passes


@dataclass(frozen=True)
class Watched(DeviceOperation):
    """Shows of which pages the watch of exactly this span was told since the last look, or since it began."""

    verb = "watched"
    span: Span


class Length(StrEnum):
    """Of an interval notifier that there cannot be."""

    EMPTY = "empty"
    ENDLESS = "endless"  # it goes beyond all addresses


@dataclass(frozen=True)
class Miswatch(DeviceOperation):
    """What the kernel says to an mmu_interval_notifier that starts with this span, but has that length."""

    verb = "miswatch"
    span: Span
    length: Length


@dataclass(frozen=True)
class SequenceNumber(DeviceOperation):
    """Shows the sequence number of the watch of exactly this span, and what the kernel says of the one before.

    That is the one of the last look, or of when the watch began.
    """

    verb = "sequence"
    span: Span


@dataclass(frozen=True)
class Refuse(DeviceOperation):
    """From now on the driver refuses invalidations of this span that must not sleep, and no other ones."""

    verb = "refuse"
    span: Span


@dataclass(frozen=True)
class DmaMap(DeviceOperation):
    """hmm_range_fault(), and hmm_dma_map_pfn() of each page; shows what is mapped.

    Until `DmaUnmap` of exactly this span, or until the device is unbound. `owner`: as of a `Request`.
    """

    verb = "dma-map"
    span: Span
    access: Access
    owner: Owner


@dataclass(frozen=True)
class DmaTable(DeviceOperation):
    """Shows which pages of exactly this span are mapped for DMA, and what of that contradicts the CPU's table."""

    verb = "dma-table"
    span: Span


@dataclass(frozen=True)
class DmaUnmap(DeviceOperation):
    """hmm_dma_unmap_pfn() of each page, and the end of the mapping of exactly this span."""

    verb = "dma-unmap"
    span: Span


@dataclass(frozen=True)
class Exclusive(DeviceOperation):
    """make_device_exclusive(): takes the pages from all CPUs, for this device alone, until a CPU touches them."""

    verb = "exclusive"
    span: Span


@dataclass(frozen=True)
class Held(DeviceOperation):
    """Shows which pages the device has to itself."""

    verb = "held"
    span: Span


@dataclass(frozen=True)
class DeviceRead(DeviceOperation):
    """The device loads the pages through its own page table; shows each page's token."""

    verb = "read"
    span: Span


@dataclass(frozen=True)
class DeviceReadUnlocked(DeviceRead):
    """As `DeviceRead`, but it faults by hmm_range_fault_unlocked_timeout(), which takes the mmap lock itself."""

    verb = "read-unlocked"


@dataclass(frozen=True)
class DeviceWrite(DeviceOperation):
    """The device stores tokens, as `Write` does, through its own page table."""

    verb = "write"
    span: Span
    token: int


@dataclass(frozen=True)
class ToDevice(DeviceOperation):
    """migrate_vma_*(): moves system pages of the span into the device's memory."""

    verb = "to-device"
    span: Span


@dataclass(frozen=True)
class ToDeviceShort(DeviceOperation):
    """As `ToDevice`, but there is no device memory for the first page that it needs, huge or not.

    A huge page moves as small ones then, a small one stays.
    """

    verb = "to-device-short"
    span: Span


@dataclass(frozen=True)
class ToSystem(DeviceOperation):
    """migrate_vma_*(): moves the device's own pages of the span back to system memory."""

    verb = "to-system"
    span: Span


class Sources(StrEnum):
    """Which pages a migration takes, besides holes: `migrate_vma.flags` and `pgmap_owner`, of which there is one."""

    NOTHING = "nothing"
    SYSTEM = "system"
    OWN = "own"  # device-private memory of the device itself
    OTHER = "other"  # that of the other device
    SYSTEM_OWN = "system+own"
    SYSTEM_OTHER = "system+other"

    @property
    def system(self) -> bool:
        """Whether pages in system memory are taken."""
        return self.startswith("system")

    @property
    def own(self) -> bool:
        """Whether pages of the device itself are taken."""
        return self.endswith("own")

    @property
    def other(self) -> bool:
        """Whether pages of the other device are taken."""
        return self.endswith("other")


class Target(StrEnum):
    """Where a migration takes pages."""

    DEVICE = "device"
    SYSTEM = "system"


class Choices(str):
    """What becomes of each page of a span; it begins again when it ends.

    `m`: it moves, `.`: it stays, `p`: it moves, and a huge page becomes small ones. For a huge page its first page
    decides.
    """

    __slots__ = ()

    def of(self, index: int) -> str:
        """The letter for the page `index` of the span."""
        return self[index % len(self)]

    def moves(self, index: int) -> bool:
        """Whether that page is to move."""
        return self.of(index) != "."


class Call(StrEnum):
    """How migrate_vma_setup() is called."""

    PLAIN = "plain"
    COMPOUND = "compound"  # huge pages, and holes of that size, are taken as such
    STRANGE_FAULT = "strange-fault"  # because of a fault on a page that is no device's
    LOCKED = "locked"  # while somebody else has the first page locked
    EMPTY = "empty"  # of no page
    BEFORE = "before"  # of a range that begins before the mapping
    BEHIND = "behind"  # ... that begins behind it
    BEYOND = "beyond"  # ... that ends behind it
    NO_SOURCES = "no-sources"  # without room for what is found
    NO_PLACES = "no-places"  # ... for where it goes
    NO_MAPPING = "no-mapping"  # of none

    @property
    def refused(self) -> bool:
        """It is none that a driver may make."""
        return self not in (Call.PLAIN, Call.COMPOUND, Call.LOCKED)


@dataclass(frozen=True)
class Move(DeviceOperation):
    """One migrate_vma_*() with every choice that it leaves to a driver; nothing enters the device's page table.

    Shows what migrate_vma_setup() said of each page, and whether it moved.
    """

    verb = "move"
    span: Span
    sources: Sources
    target: Target
    choices: Choices
    call: Call


class Answer(StrEnum):
    """What migrate_to_ram() does, and what is asked about its calls."""

    ALLOWED = "allowed"
    REFUSED = "refused"  # VM_FAULT_SIGBUS
    HELD = "held"  # allowed: how many came without a reference to the page?
    LOCKED = "locked"  # allowed: how many came without its lock?


@dataclass(frozen=True)
class Returns(DeviceOperation):
    """From now on, each CPU touch of the device's memory by its process is answered so; what is refused stays there.

    Shows how many were refused since the last such step, and how many came without what the answer asks for.
    """

    verb = "returns"
    answer: Answer


@dataclass(frozen=True)
class Evict(DeviceOperation):
    """Everything in the device's memory goes back, of every process, process by process."""

    verb = "evict"


class Lookup(StrEnum):
    """How the kernel finds device pages by their numbers, or why they have to go."""

    RANGE = "range"  # migrate_device_range()
    PFNS = "pfns"  # migrate_device_pfns()
    REMOVAL = "removal"  # memunmap_pages(): the memory itself goes, and the device gets new memory


@dataclass(frozen=True)
class EvictBy(DeviceOperation):
    """As `Evict`; the kernel finds the pages' processes by itself, or has to wait for the last page."""

    verb = "evict-by"
    lookup: Lookup


@dataclass(frozen=True)
class Table(DeviceOperation):
    """Shows the device's own page table, and which entries contradict the CPU's."""

    verb = "table"
    span: Span


@dataclass(frozen=True)
class Usage(DeviceOperation):
    """Shows how much of the device's memory is in use."""

    verb = "usage"


@dataclass(frozen=True)
class Events(DeviceOperation):
    """Shows what the device heard and did since its last look, or since it was bound."""

    verb = "events"


SUBJECT_OPERATIONS: tuple[type[SubjectOperation], ...] = (
    Map, Unmap, Protect, Remap, Advise, Read, Write, Poison, Fork, Exit,
    Reap, Pin, Unpin, SwapOut, Pagemap,
    Truncate, Register, Bring, BringZeros, WriteProtect, WriteUnprotect, Shift,
    SoftDirty, ClearSoftDirty, Lock, Unlock, Merge, MovePages, Counted,
)  # fmt: skip
DEVICE_OPERATIONS: tuple[type[DeviceOperation], ...] = (
    Bind, Unbind, Snapshot, Fault, DeviceRead, DeviceWrite, ToDevice, ToSystem, Evict, Table, Usage,
    Events, Request, Watch, Watched, Miswatch, SequenceNumber, Refuse, DmaMap, DmaTable, DmaUnmap,
    Exclusive, Held, DeviceReadUnlocked, ToDeviceShort,
    Move, Returns, EvictBy,
)  # fmt: skip
# These change nothing
QUERIES: tuple[type[Operation], ...] = (
    Snapshot, Table, Held, Usage, Events, Pagemap, SoftDirty, MovePages, Counted,
)  # fmt: skip


def other_device(device: str) -> str:
    """The one besides `device` whose memory is of the same kind."""
    return DEVICES[DEVICES.index(device) ^ 1]


def span_of(operation: Operation) -> Span | None:
    """The span that `operation` is about, if it has one."""
    span = getattr(operation, "span", None)
    return span if isinstance(span, Span) else None
