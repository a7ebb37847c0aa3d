# SPDX-License-Identifier: GPL-2.0-only
"""Each operation as a call in C, with the pieces of reproducer.c.in that it needs.

What it does and in which order is what harness/guest/executor/ does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.program.operations import (
    HUGETLB_PAGES,
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
    Lock,
    Lookup,
    Manner,
    Map,
    Merge,
    Miswatch,
    Move,
    MovePages,
    Operation,
    Pagemap,
    Passes,
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
    Span,
    SubjectOperation,
    SwapOut,
    Table,
    ToDevice,
    ToDeviceShort,
    ToSystem,
    Truncate,
    Unbind,
    Unlock,
    Unmap,
    Unpin,
    Usage,
    Watch,
    Watched,
    Write,
    WriteProtect,
    WriteUnprotect,
    span_of,
)
from harness.program.program import Program

_MOST_POISONED = 2  # huge pages that a `Poison` can take away; executor/pool.c

# Names that a region must not have in C: keywords, what gcc predefines, and what main() calls and declares
_TAKEN = """
auto break case char const continue default do double else enum extern float for goto if inline int long
register restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
asm typeof linux unix i386 errno stdin stdout stderr main
error found i who seen shown turn baton me mine data holder printf puts strerror signal alarm pipe pause close
setbuf ioctl munmap mprotect madvise expect note step quit leave map remap load store poison pin unpin reap
release mirror request move watch sequence dma refuse evict returns usage show token late
d0 d1 c0 c1
""".split()  # noqa: SIM905
_PLAIN_REGION = re.compile(r"[a-z][a-z0-9]*")
_PLAIN_PROCESS = re.compile(r"[A-Z][0-9]*")

LEFT_OUT: dict[type[Operation], str] = {
    Events: "the device heard is not looked at: it is told over netlink (hmm_harness_netlink.h)",
    Pagemap: "pagemap and mincore() tell is not looked at",
}

# Nobody has said yet how these are done in C: who asks for it is told.
NOT_YET: tuple[type[Operation], ...] = (
    SwapOut, Truncate, Register, Bring, BringZeros, WriteProtect, WriteUnprotect, Shift,
    SoftDirty, ClearSoftDirty, Lock, Unlock, Merge, MovePages, Counted,
)  # fmt: skip


def is_said(step: Operation) -> bool:
    """Whether there is C for `step`, and for what is chosen of it."""
    match step:
        case Map(backing=backing) if backing.of_driver or backing.of_kernel:
            return False
        case Returns(answer=Answer.HELD | Answer.LOCKED):
            return False
    return type(step) in TRANSLATIONS


@dataclass(frozen=True)
class CCall:
    """An operation in C.

    `text`: an expression, 0 or -1 and errno; or a statement if it never `fails`. `needs`: pieces. `capabilities`: of
    the device. `before`: calls that have to succeed first. `after`: statements of all processes. `may_lack`: that it
    is not supported is not known before.
    """

    text: str
    needs: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    fails: bool = True
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    may_lack: bool = False


class Names:
    """What the regions and processes of a program are called in C."""

    def __init__(self, program: Program, steps: Sequence[Operation]) -> None:
        self._steps = steps
        self.regions = {
            name: name if _PLAIN_REGION.fullmatch(name) and name not in _TAKEN else f"region_{name}"
            for name in program.regions
        }
        born = {step.child for step in steps if isinstance(step, Fork)}
        subjects = [name for name in program.subjects if name == program.subjects[0] or name in born]
        upper = [name.upper() for name in subjects]
        self.processes = {
            name: big if _PLAIN_PROCESS.fullmatch(big) and upper.count(big) == 1 else f"SUBJECT_{name}"
            for name, big in zip(subjects, upper, strict=True)
        }

    def at(self, span: Span) -> str:
        """The address of a span."""
        region = self.regions[span.region]
        return f"{region} + {_bytes(span.start)}" if span.start else region

    def dying(self, number: int) -> set[str]:
        """The subjects that have stopped on their way out before that step."""
        return {step.actor for step in self._steps[:number] if isinstance(step, Reap)}

    def pins(self, number: int) -> bool:
        """Whether something may be pinned before that step."""
        return any(isinstance(step, Pin) for step in self._steps[:number])


def performer(step: Operation) -> str | None:
    """The subject that carries `step` out; None if the driver does."""
    if isinstance(step, Bind):
        return step.subject
    if isinstance(step, SubjectOperation) and not isinstance(step, Exit | Reap):
        return step.actor
    return None


def sizes(steps: Sequence[Operation]) -> tuple[int, int]:
    """How many pages or numbers a step shows at most, and how many pages of data go to or from a device."""
    spans = [(step, span) for step in steps if (span := span_of(step)) is not None]
    seen = max((span.count for _, span in spans), default=1)
    data = max((span.count for step, span in spans if isinstance(step, DeviceRead | DeviceWrite)), default=1)
    for kind, numbers in ((Evict | EvictBy, 2), (SequenceNumber, 5), (Usage, 7)):
        if any(isinstance(step, kind) for step in steps):
            seen = max(seen, numbers)
    return seen, data


def huge_pages(steps: Sequence[Operation]) -> int:
    """How many huge pages the pool has to have for hugetlb mappings; executor/pool.c wanted()."""
    mapped = sum(
        step.pages // HUGETLB_PAGES for step in steps if isinstance(step, Map) and step.backing is Backing.HUGETLB
    )
    processes = 1 + sum(isinstance(step, Fork) for step in steps)
    poisoned = _MOST_POISONED * sum(isinstance(step, Poison) for step in steps)
    return mapped * (processes + 1) + poisoned + 1 if mapped else 0


def _map(step: Map, names: Names, _number: int) -> CCall:
    call, piece = ("map_file", "map-file") if step.backing in _OF_FILES else ("map", "map")
    text = f"{call}({names.regions[step.region]}, {step.pages}, {_prot(step.prot)}, {_MAPPINGS[step.backing]})"
    return CCall(text, (piece, "linux-mman") if step.backing is Backing.HUGETLB else (piece,))


def _unmap(step: Unmap, names: Names, _number: int) -> CCall:
    return CCall(f"munmap({names.at(step.span)}, {_bytes(step.span.count)})", ("mman",))


def _protect(step: Protect, names: Names, _number: int) -> CCall:
    return CCall(f"mprotect({names.at(step.span)}, {_bytes(step.span.count)}, {_prot(step.prot)})", ("mman",))


def _remap(step: Remap, names: Names, _number: int) -> CCall:
    return CCall(f"remap({names.at(step.span)}, {step.span.count}, {names.regions[step.region]})", ("remap",))


def _advise(step: Advise, names: Names, _number: int) -> CCall:
    needs = ("mman", f"advice-{step.advice}") if step.advice in _NEWER else ("mman",)
    return CCall(f"madvise({names.at(step.span)}, {_bytes(step.span.count)}, MADV_{step.advice.name})", needs)


def _read(step: Read, names: Names, _number: int) -> CCall:
    return CCall(f"load({names.at(step.span)}, {step.span.count})", ("load",), fails=False)


def _write(step: Write, names: Names, _number: int) -> CCall:
    return CCall(f"store({names.at(step.span)}, {step.span.count}, {number(step.token)})", ("store",), fails=False)


def _poison(step: Poison, names: Names, _number: int) -> CCall:
    return CCall(f"poison({names.at(step.span)}, {step.span.count})", ("poison",))


def _pin(step: Pin, names: Names, _number: int) -> CCall:
    return CCall(f"pin({names.at(step.span)}, {step.span.count})", ("pin",))


def _unpin(_step: Unpin, _names: Names, _number: int) -> CCall:
    return CCall("unpin()", ("unpin",), fails=False)


def _fork(step: Fork, names: Names, number: int) -> CCall:
    child = names.processes[step.child]
    # Else the child would hold what its parent has pinned.
    after = (f"if (me == {child})", "\tclose(holder);") if names.pins(number) else ()
    return CCall(f"fork_as({child})", ("fork",), after=after)


def _exit(step: Exit, names: Names, _number: int) -> CCall:
    return CCall(f"release({names.processes[step.actor]})", ("release",), fails=False)


def _reap(step: Reap, names: Names, number: int) -> CCall:
    who = names.processes[step.actor]
    if step.actor in names.dying(number):
        return CCall(f"reap({who})", ("reap",))
    return CCall(f"reap({who})", ("reap", "kill", "expect"), before=(f"expect(kill_halfway({who}), 0)",))


def _bind(step: Bind, _names: Names, _number: int) -> CCall:
    return CCall(f"mirror({step.actor}, HMM_HARNESS_BIND)", ("mirror",))


def _unbind(step: Unbind, _names: Names, _number: int) -> CCall:
    return CCall(f"mirror({step.actor}, HMM_HARNESS_UNBIND)", ("mirror",))


def _on_range(command: str, flags: str = "0", *capabilities: str) -> Callable[[Any, Names, int], CCall]:
    def translate(step: Any, names: Names, _number: int) -> CCall:
        text = f"on_range({step.actor}, HMM_HARNESS_{command}, {flags}, {names.at(step.span)}, {step.span.count})"
        return CCall(text, ("range",), capabilities)

    return translate


def _fault(step: Fault, names: Names, number: int) -> CCall:
    flags = "HMM_HARNESS_FAULT_WRITE" if step.access is Access.WRITE else "0"
    return _on_range("FAULT", flags)(step, names, number)


def _device_read(step: DeviceRead, names: Names, _number: int) -> CCall:
    unlocked = isinstance(step, DeviceReadUnlocked)
    flags = "HMM_HARNESS_READ_UNLOCKED" if unlocked else "0"
    text = f"device_read({step.actor}, {flags}, {names.at(step.span)}, {step.span.count})"
    return CCall(text, ("device-read",), ("UNLOCKED",) if unlocked else ())


def _device_write(step: DeviceWrite, names: Names, _number: int) -> CCall:
    text = f"device_write({step.actor}, {names.at(step.span)}, {step.span.count}, {number(step.token)})"
    return CCall(text, ("device-write",))


def _request(step: Request, names: Names, _number: int) -> CCall:
    unlocked = step.manner is Manner.UNLOCKED
    choices = f'{_ASKED[step.default]}, {_ASKED[step.mask]}, "{step.pattern}", HMM_HARNESS_AS_{step.owner.name}'
    text = f"request({step.actor}, {_MANNERS[step.manner]}, {names.at(step.span)}, {step.span.count}, {choices})"
    return CCall(text, ("request",), ("REQUEST", "UNLOCKED") if unlocked else ("REQUEST",))


def _watch(step: Watch, names: Names, _number: int) -> CCall:
    two = step.passes is Passes.TWO
    flags = "0" if step.passes is Passes.ONE else f"HMM_HARNESS_WATCH_{'TWO_PASS' if two else step.passes.name}"
    text = f"watch({step.actor}, HMM_HARNESS_WATCH, {flags}, {names.at(step.span)}, {step.span.count})"
    return CCall(text, ("watch",), ("WATCH", "TWO_PASS") if two else ("WATCH",))


def _watched(step: Watched, names: Names, _number: int) -> CCall:
    text = f"watch({step.actor}, HMM_HARNESS_WATCHED, 0, {names.at(step.span)}, {step.span.count})"
    return CCall(text, ("watch",), ("WATCH",))


def _miswatch(step: Miswatch, names: Names, _number: int) -> CCall:
    flags = f"HMM_HARNESS_WATCH_{step.length.name}"
    text = f"watch({step.actor}, HMM_HARNESS_WATCH, {flags}, {names.at(step.span)}, {step.span.count})"
    return CCall(text, ("watch",), ("WATCH",))


def _sequence(step: SequenceNumber, names: Names, _number: int) -> CCall:
    return CCall(f"sequence({step.actor}, {names.at(step.span)}, {step.span.count})", ("sequence",), ("WATCH",))


def _refuse(step: Refuse, names: Names, _number: int) -> CCall:
    return CCall(f"refuse({step.actor}, {names.at(step.span)}, {step.span.count})", ("refuse",))


def _dma(step: DmaMap | DmaTable | DmaUnmap, names: Names, _number: int) -> CCall:
    flags, owner = "SHOW", "0"
    if isinstance(step, DmaMap):
        flags = "MAP_WRITE" if step.access is Access.WRITE else "MAP"
        owner = f"HMM_HARNESS_AS_{step.owner.name}"
    elif isinstance(step, DmaUnmap):
        flags = "UNMAP"
    text = f"dma({step.actor}, HMM_HARNESS_DMA_{flags}, {names.at(step.span)}, {step.span.count}, {owner})"
    return CCall(text, ("dma",), ("DMA",))


def _move(step: Move, names: Names, _number: int) -> CCall:
    flags = f"HMM_HARNESS_MOVE_TO_{step.target.name}{_CALLS[step.call]}"
    sources = " | ".join(
        f"HMM_HARNESS_FROM_{name}"
        for name, taken in (("SYSTEM", step.sources.system), ("OWN", step.sources.own), ("OTHER", step.sources.other))
        if taken
    )
    span = f"{names.at(step.span)}, {step.span.count}"
    text = f'move({step.actor}, {flags}, {span}, {sources or "0"}, "{step.choices}")'
    return CCall(text, ("move",), ("DEVMEM",), may_lack=step.call is not Call.PLAIN)


def _returns(step: Returns, _names: Names, _number: int) -> CCall:
    count = "HMM_HARNESS_REFUSE_ALL" if step.answer is Answer.REFUSED else "0"
    return CCall(f"returns({step.actor}, {count})", ("returns",), ("RETURNS",))


def _evict(step: Evict, _names: Names, _number: int) -> CCall:
    return CCall(f"evict({step.actor}, 0)", ("evict",), ("EVICT",))


def _evict_by(step: EvictBy, _names: Names, _number: int) -> CCall:
    flags = {
        Lookup.RANGE: "HMM_HARNESS_EVICT_RANGE",
        Lookup.PFNS: "HMM_HARNESS_EVICT_NUMBERS",
        Lookup.REMOVAL: "HMM_HARNESS_EVICT_REMOVE",
    }[step.lookup]
    return CCall(f"evict({step.actor}, {flags})", ("evict",), ("EVICT",), may_lack=True)


def _usage(step: Usage, _names: Names, _number: int) -> CCall:
    return CCall(f"usage({step.actor})", ("usage",))


TRANSLATIONS: dict[type[Operation], Callable[[Any, Names, int], CCall]] = {
    Map: _map, Unmap: _unmap, Protect: _protect, Remap: _remap, Advise: _advise, Read: _read, Write: _write,
    Poison: _poison, Pin: _pin, Unpin: _unpin, Fork: _fork, Exit: _exit, Reap: _reap,
    Bind: _bind, Unbind: _unbind, Snapshot: _on_range("SNAPSHOT"), Fault: _fault,
    DeviceRead: _device_read, DeviceReadUnlocked: _device_read, DeviceWrite: _device_write,
    ToDevice: _on_range("MIGRATE", "HMM_HARNESS_MIGRATE_TO_DEVICE", "DEVMEM"),
    ToSystem: _on_range("MIGRATE", "HMM_HARNESS_MIGRATE_TO_SYSTEM", "DEVMEM"),
    ToDeviceShort: _on_range("MIGRATE_SHORT", "0", "DEVMEM"),
    Exclusive: _on_range("EXCLUSIVE", "0", "EXCLUSIVE"), Held: _on_range("TABLE"), Table: _on_range("TABLE"),
    Request: _request, Watch: _watch, Watched: _watched, Miswatch: _miswatch, SequenceNumber: _sequence,
    Refuse: _refuse, DmaMap: _dma, DmaTable: _dma, DmaUnmap: _dma, Move: _move, Returns: _returns,
    Evict: _evict, EvictBy: _evict_by, Usage: _usage,
}  # fmt: skip

_PROTS = {"r": "PROT_READ", "w": "PROT_WRITE", "x": "PROT_EXEC"}
_OF_FILES = (Backing.FILE, Backing.PRIVATE_FILE)
_MAPPINGS = {
    Backing.ANON: "MAP_PRIVATE | MAP_ANONYMOUS",
    Backing.SHARED: "MAP_SHARED | MAP_ANONYMOUS",
    Backing.FILE: "MAP_SHARED",
    Backing.PRIVATE_FILE: "MAP_PRIVATE",
    Backing.HUGETLB: "MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB",
}
_NEWER = (  # than what the C library may know
    Advice.COLD, Advice.PAGEOUT, Advice.POPULATE_READ, Advice.POPULATE_WRITE,
    Advice.GUARD_INSTALL, Advice.GUARD_REMOVE,
)  # fmt: skip
_ASKED = {
    Asked.NONE: "0",
    Asked.FAULT: "HMM_HARNESS_ASK_FAULT",
    Asked.WRITE: "HMM_HARNESS_ASK_WRITE",
    Asked.BOTH: "HMM_HARNESS_ASK_FAULT | HMM_HARNESS_ASK_WRITE",
}
_MANNERS = {
    Manner.FRESH: "0",
    Manner.STALE: "HMM_HARNESS_REQUEST_STALE",
    Manner.UNLOCKED: "HMM_HARNESS_REQUEST_UNLOCKED",
    Manner.EMPTY: "HMM_HARNESS_REQUEST_EMPTY",
}
_CALLS = {call: "" if call is Call.PLAIN else f" | HMM_HARNESS_MOVE_{call.name}" for call in Call}


def _prot(prot: Prot) -> str:
    return "PROT_NONE" if prot is Prot.NONE else " | ".join(_PROTS[letter] for letter in prot)


def _bytes(pages: int) -> str:
    return "PAGE" if pages == 1 else f"{pages} * PAGE"


def number(value: int) -> str:
    """A number in C that is not negative."""
    return str(value) if value < 1 << 31 else f"{value:#x}ULL"
