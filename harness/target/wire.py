# SPDX-License-Identifier: GPL-2.0-only
"""Programs and observations as the bytes of harness/guest/wire.h."""

from __future__ import annotations

import errno
import mmap
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from struct import Struct
from typing import Any

from harness.abi import CONSTANTS, ffi
from harness.errors import GuestError
from harness.program.observations import (
    TORN,
    Element,
    Entry,
    Mark,
    Merged,
    Observation,
    Placed,
    Residence,
    Signal,
    Soft,
    Status,
    Told,
)
from harness.program.operations import (
    DEVICES,
    Access,
    Advice,
    Advise,
    Asked,
    Backing,
    Bind,
    Bring,
    BringZeros,
    Call,
    ClearSoftDirty,
    Counted,
    DeviceOperation,
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
    span_of,
)
from harness.program.program import Program
from harness.program.race import Course, Ending, Gate, Happened, Look, Passing, Race, Segment, Sight, Stop
from harness.target.events import SILENCE, Stream, shown

_CODES: dict[type[Operation], str] = {
    Map: "MAP", Unmap: "UNMAP", Protect: "PROTECT", Remap: "REMAP", Advise: "ADVISE", Read: "READ",
    Write: "WRITE", Fork: "FORK", Exit: "EXIT", Bind: "BIND", Unbind: "UNBIND", Snapshot: "SNAPSHOT",
    Fault: "FAULT", DeviceRead: "DEVICE_READ", DeviceWrite: "DEVICE_WRITE", ToDevice: "TO_DEVICE",
    ToSystem: "TO_SYSTEM", Evict: "EVICT", Table: "TABLE", Usage: "USAGE",
    Events: "EVENTS", Request: "REQUEST", Poison: "POISON", Watch: "WATCH", Watched: "WATCHED",
    Miswatch: "WATCH", SequenceNumber: "SEQUENCE", Reap: "REAP", Refuse: "REFUSE",
    DmaMap: "DMA", DmaTable: "DMA", DmaUnmap: "DMA",
    Exclusive: "EXCLUSIVE", Held: "TABLE", DeviceReadUnlocked: "DEVICE_READ", ToDeviceShort: "TO_DEVICE_SHORT",
    Pin: "PIN", Unpin: "UNPIN", SwapOut: "SWAP_OUT", Pagemap: "PAGEMAP",
    Truncate: "TRUNCATE",
    SoftDirty: "SOFT_DIRTY", ClearSoftDirty: "CLEAR_SOFT_DIRTY",
    Lock: "LOCK", Unlock: "LOCK", Merge: "MERGE", MovePages: "MOVE_PAGES", Counted: "COUNTED",
    Register: "USERFAULT", Bring: "RESOLVE", BringZeros: "RESOLVE",
    WriteProtect: "RESOLVE", WriteUnprotect: "RESOLVE", Shift: "RESOLVE",
    Move: "MOVE", Returns: "RETURNS", EvictBy: "EVICT_BY",
}  # fmt: skip
_NODES = {"interval": "hmm_harness", "mirror": "hmm_mirror"}  # of our module, which alone tells events
_BINDINGS = {name: CONSTANTS[f"WIRE_{name.upper()}"] for name in ("interval", "mirror", "test_hmm")}
_BACKINGS = {
    Backing.ANON: CONSTANTS["WIRE_ANON"],
    Backing.SHARED: CONSTANTS["WIRE_SHARED"],
    Backing.FILE: CONSTANTS["WIRE_FILE"],
    Backing.PRIVATE_FILE: CONSTANTS["WIRE_PRIVATE_FILE"],
    Backing.HUGETLB: CONSTANTS["WIRE_HUGETLB"],
    Backing.PFNMAP: CONSTANTS["WIRE_PFNMAP"],
    Backing.MIXEDMAP: CONSTANTS["WIRE_MIXEDMAP"],
    Backing.VDSO: CONSTANTS["WIRE_VDSO"],
    Backing.VVAR: CONSTANTS["WIRE_VVAR"],
}
# include/uapi/asm-generic/mman-common.h; Python's mmap module does not know the newer ones
_ADVICE = {
    Advice.DONTNEED: mmap.MADV_DONTNEED,
    Advice.FREE: mmap.MADV_FREE,
    Advice.COLD: 20,
    Advice.PAGEOUT: 21,
    Advice.REMOVE: mmap.MADV_REMOVE,
    Advice.WILLNEED: mmap.MADV_WILLNEED,
    Advice.POPULATE_READ: 22,
    Advice.POPULATE_WRITE: 23,
    Advice.HUGEPAGE: mmap.MADV_HUGEPAGE,
    Advice.NOHUGEPAGE: mmap.MADV_NOHUGEPAGE,
    Advice.DONTFORK: mmap.MADV_DONTFORK,
    Advice.DOFORK: mmap.MADV_DOFORK,
    Advice.WIPEONFORK: 18,
    Advice.KEEPONFORK: 19,
    Advice.GUARD_INSTALL: 102,
    Advice.GUARD_REMOVE: 103,
}
_ASKED = {
    Asked.NONE: 0,
    Asked.FAULT: CONSTANTS["HMM_HARNESS_ASK_FAULT"],
    Asked.WRITE: CONSTANTS["HMM_HARNESS_ASK_WRITE"],
    Asked.BOTH: CONSTANTS["HMM_HARNESS_ASK_FAULT"] | CONSTANTS["HMM_HARNESS_ASK_WRITE"],
}
_OWNERS = {owner: CONSTANTS[f"HMM_HARNESS_AS_{owner.name}"] for owner in Owner}
_MANNERS = {
    Manner.FRESH: 0,
    Manner.STALE: CONSTANTS["HMM_HARNESS_REQUEST_STALE"],
    Manner.UNLOCKED: CONSTANTS["HMM_HARNESS_REQUEST_UNLOCKED"],
    Manner.EMPTY: CONSTANTS["HMM_HARNESS_REQUEST_EMPTY"],
}
_WATCHES: dict[Passes | Length, int] = {
    Passes.ONE: CONSTANTS["WIRE_WATCH_ONE_PASS"],
    Passes.TWO: CONSTANTS["WIRE_WATCH_TWO_PASS"],
    Passes.PLAIN: CONSTANTS["WIRE_WATCH_PLAIN"],
    Passes.SHARED: CONSTANTS["WIRE_WATCH_SHARED"],
    Passes.TLB: CONSTANTS["WIRE_WATCH_TLB"],
    Length.EMPTY: CONSTANTS["WIRE_WATCH_EMPTY"],
    Length.ENDLESS: CONSTANTS["WIRE_WATCH_ENDLESS"],
}
_USERFAULTS = {userfault: CONSTANTS[f"WIRE_USERFAULT_{userfault.name}"] for userfault in Userfault}
_RESOLVES: dict[type[Operation], int] = {
    Bring: CONSTANTS["WIRE_RESOLVE_COPY"],
    BringZeros: CONSTANTS["WIRE_RESOLVE_ZERO"],
    WriteProtect: CONSTANTS["WIRE_RESOLVE_PROTECT"],
    WriteUnprotect: CONSTANTS["WIRE_RESOLVE_UNPROTECT"],
    Shift: CONSTANTS["WIRE_RESOLVE_MOVE"],
}
_DMA_MAPS = {Access.READ: CONSTANTS["WIRE_DMA_MAP"], Access.WRITE: CONSTANTS["WIRE_DMA_MAP_WRITE"]}
_TARGETS = {target: CONSTANTS[f"HMM_HARNESS_MOVE_TO_{target.name}"] for target in Target}
_CALLS = {call: 0 if call is Call.PLAIN else CONSTANTS[f"HMM_HARNESS_MOVE_{call.name}"] for call in Call}
_CHOICES = {
    "m": CONSTANTS["HMM_HARNESS_CHOOSE_MOVE"],
    ".": CONSTANTS["HMM_HARNESS_CHOOSE_STAY"],
    "p": CONSTANTS["HMM_HARNESS_CHOOSE_PIECES"],
}
_LOOKUPS = {
    Lookup.RANGE: CONSTANTS["HMM_HARNESS_EVICT_RANGE"],
    Lookup.PFNS: CONSTANTS["HMM_HARNESS_EVICT_NUMBERS"],
    Lookup.REMOVAL: CONSTANTS["HMM_HARNESS_EVICT_REMOVE"],
}
_STATUSES = {
    CONSTANTS["WIRE_NOT_RUN"]: Status.NOT_RUN,
    CONSTANTS["WIRE_DONE"]: Status.DONE,
    CONSTANTS["WIRE_UNSUPPORTED"]: Status.UNSUPPORTED,
    CONSTANTS["WIRE_SUBJECT_DIED"]: Status.SUBJECT_DIED,
    CONSTANTS["WIRE_STUCK"]: Status.STUCK,
}
_SPECIAL: dict[int, Element] = {
    CONSTANTS["WIRE_TORN"]: TORN,
    CONSTANTS["WIRE_SEGV"]: Signal.SEGV,
    CONSTANTS["WIRE_BUS"]: Signal.BUS,
}
_TOLD: dict[int, Element] = {
    0: Told.NOTHING,
    CONSTANTS["WIRE_IS_IN_CORE"]: Told.CACHED,
    CONSTANTS["WIRE_IS_PRESENT"] | CONSTANTS["WIRE_IS_IN_CORE"]: Told.PRESENT,
    CONSTANTS["WIRE_IS_SWAP"]: Told.SWAP,
    CONSTANTS["WIRE_IS_SWAP"] | CONSTANTS["WIRE_IS_IN_CORE"]: Told.SWAP_IN_CORE,
}
_PLACED: dict[int, Element] = {0: Placed.HERE, errno.ENOENT: Placed.ABSENT, errno.EFAULT: Placed.REFUSED}
_GATES = {gate: CONSTANTS[f"HMM_HARNESS_GATE_{gate.name}"] for gate in Gate}
_GATES_BY_NUMBER = {number: gate for gate, number in _GATES.items()}
_ENDINGS = {CONSTANTS[f"WIRE_{ending.name}"]: ending for ending in Ending}
_TOKENS = (Read, Write, DeviceRead, DeviceWrite)
# struct wire_outcome and struct wire_observation: through cffi each of them takes as long as a page does in the guest
_OUTCOME, _OBSERVATION = Struct("<II Q 4Q"), Struct("<Ii Q")
_NUMBER_BYTES = 8
_LOOK_HEAD = CONSTANTS["WIRE_LOOK_HEAD"]
_ORDER_SHIFT = CONSTANTS["HMM_HARNESS_PAGE_ORDER_SHIFT"]
_ORDER_MASK = CONSTANTS["HMM_HARNESS_PAGE_ORDER_MASK"]


def encode(program: Program, binding: str, timeout: float, *, moments: Sequence[int] = ()) -> bytes:
    """The request that runs `program` on `binding` for at most `timeout` seconds.

    `moments`: of a race without a schedule, for each actor when it begins, in nanoseconds from when all are ready.
    """
    head: Any = ffi.new("struct wire_program *")
    head.magic = CONSTANTS["WIRE_MAGIC"]
    head.binding = _BINDINGS[binding]
    parts = _encode_race(program, moments) if isinstance(program, Race) else [_encode_steps(program, program.steps)]
    head.operations = sum(map(len, parts)) // ffi.sizeof("struct wire_operation")
    head.timeout_ms = int(timeout * 1000)
    return b"".join([bytes(ffi.buffer(head)), *parts])


def _encode_steps(program: Program, steps: Sequence[Operation]) -> bytes:
    if not steps:
        return b""
    encoded: Any = ffi.new("struct wire_operation[]", len(steps))
    for step, wire in zip(steps, encoded, strict=True):
        _encode_step(program, step, wire)
    return bytes(ffi.buffer(encoded))


def _encode_race(race: Race, moments: Sequence[int]) -> list[bytes]:
    names = [actor.name for actor in race.actors]
    moments = moments or [0] * len(names)
    parts = [_encode_steps(race, race.steps[: race.first])]
    parts.append(_part("RACE", argument=len(race.schedule.segments), value=len(names), other=len(race.looks)))
    for segment in race.schedule.segments:
        parts.append(
            _part(
                "SEGMENT",
                other=names.index(segment.actor),
                argument=0 if segment.gate is None else _GATES[segment.gate],
                value=_place_of(segment),
            )
        )
    for actor, moment in zip(race.actors, moments, strict=True):
        parts.append(_part("ACTOR", argument=len(actor.steps), value=moment))
        parts.append(_encode_steps(race, actor.steps))
    for look in race.looks:
        place = {"address": race.address(look.span), "npages": look.span.count}
        parts.append(_part("LOOK", actor=DEVICES.index(look.device), **place))
    return [*parts, _encode_steps(race, race.steps[race.last :])]


def _part(code: str, **values: int) -> bytes:
    part: Any = ffi.new("struct wire_operation *", {"code": CONSTANTS[f"WIRE_{code}"], **values})
    return bytes(ffi.buffer(part))


def _place_of(segment: Segment) -> int:
    device = 0 if segment.device is None else DEVICES.index(segment.device) + 1
    return segment.times - 1 | device << CONSTANTS["WIRE_SEGMENT_DEVICE_SHIFT"]


def _encode_step(program: Program, step: Operation, wire: Any) -> None:
    subjects = program.subjects
    wire.code = CONSTANTS[f"WIRE_{_CODES[type(step)]}"]
    wire.actor = (DEVICES if isinstance(step, DeviceOperation) else subjects).index(step.actor)
    span = span_of(step)
    if span is not None:
        wire.address = program.address(span)
        wire.npages = span.count
    match step:
        case Map(region=region, backing=backing, pages=pages, prot=prot):
            wire.address = program.regions[region].address
            wire.npages = pages
            wire.argument = _prot(prot)
            wire.value = _BACKINGS[backing]
        case Protect(prot=prot):
            wire.argument = _prot(prot)
        case Remap(region=region):
            wire.value = program.regions[region].address
        case Advise(advice=advice):
            wire.argument = _ADVICE[advice]
        case Write(token=token) | DeviceWrite(token=token):
            wire.value = token
        case Register(userfault=userfault):
            wire.argument = _USERFAULTS[userfault]
        case Bring(token=token):
            wire.argument = _RESOLVES[Bring]
            wire.value = token
        case Shift(source=source):
            wire.argument = _RESOLVES[Shift]
            wire.value = program.address(source)
        case BringZeros() | WriteProtect() | WriteUnprotect():
            wire.argument = _RESOLVES[type(step)]
        case Unlock():
            wire.argument = 1
        case Truncate(pages=pages):
            wire.value = pages
        case Fork(child=child):
            wire.other = subjects.index(child)
        case Bind(subject=subject):
            wire.other = subjects.index(subject)
        case Fault(access=access):
            wire.argument = int(access is Access.WRITE)
        case Watch(passes=passes):
            wire.argument = _WATCHES[passes]
        case Miswatch(length=length):
            wire.argument = _WATCHES[length]
        case DmaMap(access=access, owner=owner):
            wire.argument = _DMA_MAPS[access] | _OWNERS[owner] << CONSTANTS["WIRE_DMA_OWNER_SHIFT"]
        case DmaTable():
            wire.argument = CONSTANTS["WIRE_DMA_SHOW"]
        case DmaUnmap():
            wire.argument = CONSTANTS["WIRE_DMA_UNMAP"]
        case Held() | DeviceReadUnlocked():
            wire.argument = 1
        case Request():
            wire.argument = (
                _ASKED[step.default] << CONSTANTS["WIRE_REQUEST_DEFAULT_SHIFT"]
                | _ASKED[step.mask] << CONSTANTS["WIRE_REQUEST_MASK_SHIFT"]
                | _OWNERS[step.owner] << CONSTANTS["WIRE_REQUEST_OWNER_SHIFT"]
                | _MANNERS[step.manner] << CONSTANTS["WIRE_REQUEST_FLAGS_SHIFT"]
            )
            bits = sum(_ASKED[asked] << 2 * index for index, asked in enumerate(step.pattern.asked))
            wire.value = len(step.pattern) << CONSTANTS["WIRE_REQUEST_LENGTH_SHIFT"] | bits
        case Move(sources=sources, target=target, choices=choices, call=call):
            wire.argument = (
                _sources(sources) << CONSTANTS["WIRE_MOVE_SOURCES_SHIFT"]
                | (_TARGETS[target] | _CALLS[call]) << CONSTANTS["WIRE_MOVE_FLAGS_SHIFT"]
            )
            bits = sum(_CHOICES[letter] << 2 * index for index, letter in enumerate(choices))
            wire.value = len(choices) << CONSTANTS["WIRE_MOVE_LENGTH_SHIFT"] | bits
        case Returns(answer=answer):
            wire.argument = CONSTANTS[f"WIRE_RETURNS_{answer.name}"]
        case EvictBy(lookup=lookup):
            wire.argument = _LOOKUPS[lookup]


def _sources(sources: Sources) -> int:
    return (
        sources.system * CONSTANTS["HMM_HARNESS_FROM_SYSTEM"]
        | sources.own * CONSTANTS["HMM_HARNESS_FROM_OWN"]
        | sources.other * CONSTANTS["HMM_HARNESS_FROM_OTHER"]
    )


def _prot(prot: Prot) -> int:
    bits = {"r": CONSTANTS["WIRE_PROT_READ"], "w": CONSTANTS["WIRE_PROT_WRITE"], "x": CONSTANTS["WIRE_PROT_EXEC"]}
    return 0 if prot is Prot.NONE else sum(bits[letter] for letter in prot)


def decode(
    program: Program, response: bytes, stream: Stream = SILENCE, *, binding: str = "interval"
) -> tuple[Observation, ...]:
    """What a response, and the events heard meanwhile, show of each step of `program`, which was run on `binding`.

    Raises `GuestError` if the response is not whole.
    """
    observations, _ = _read(program, response)
    looks = [number for number, step in enumerate(program.steps) if isinstance(step, Events)]
    told = [
        (f"{_NODES[binding]}{DEVICES.index(program.steps[number].actor)}", observations[number].elements)
        for number in looks
        if observations[number].elements
    ]
    heard = iter(shown(told, stream))
    for number in looks:
        if observations[number].elements:
            observations[number] = replace(observations[number], elements=next(heard))
    return tuple(observations)


def course_of(race: Race, response: bytes, stream: Stream = SILENCE, *, binding: str = "interval") -> Course | None:
    """How `race` went, by a response and the events heard meanwhile; None if it did not come to an end.

    Raises `GuestError` as `decode` does.
    """
    course = _read(race, response)[1]
    if course is None:
        return None
    devices = {f"{_NODES.get(binding)}{number}": device for number, device in enumerate(DEVICES)}
    happened = tuple(
        Happened(each.time, each.thread, devices[each.device], each.event)
        for each in stream.heard
        if each.device in devices and each.concerns_programs and course.begun <= each.time <= _end_of(course)
    )
    return replace(course, happened=happened, lost=stream.lost)


def _end_of(course: Course) -> int:
    return max([*(stop.ended for stop in course.stops), *(ended for _, ended in course.times)])


def _read(program: Program, response: bytes) -> tuple[list[Observation], Course | None]:
    reader = _Reader(response)
    magic, count, *_ = reader.take(_OUTCOME)
    race = program if isinstance(program, Race) else None
    more = 0 if race is None else 1 + len(race.schedule.segments) + len(race.actors) + len(race.looks)
    if magic != CONSTANTS["WIRE_MAGIC"] or count != len(program.steps) + more:
        raise GuestError("the executor's answer makes no sense: wrong magic, or not as many steps as were sent")
    observations = []
    course = None
    for number, step in enumerate(program.steps):
        if race is not None and number == race.first:
            raced, course = _read_race(race, reader)
            observations += raced
        if race is None or not race.first <= number < race.last:
            observations.append(_observation(step, *reader.observation()))
    reader.end()
    return observations, course


def _observation(step: Operation, status: int, error: int, numbers: Sequence[int]) -> Observation:
    return Observation(_STATUSES[status], error, tuple(map(_element_of(step), numbers)) if numbers else ())


def _read_race(race: Race, reader: _Reader) -> tuple[list[Observation], Course | None]:
    """What the actors' steps showed, and how the race went."""
    status = _STATUSES[reader.observation()[0]]
    stops = [stop for _ in race.schedule.segments if (stop := _stop(reader.observation()[2])) is not None]
    observations: list[Observation] = []
    times: list[tuple[int, int]] = []
    passings: list[tuple[Passing, ...]] = []
    threads: list[int] = []
    expired = 0
    for actor in race.actors:
        _, _, told = reader.observation()
        observations += [_observation(step, *reader.observation()) for step in actor.steps]
        if told:
            near = stops[0].begun if stops else told[0]
            count = 2 * len(actor.steps)
            times += zip(told[:count:2], told[1:count:2], strict=True)
            expired += told[count]
            threads.append(told[count + 1])
            passings.append(tuple(_passing(number, near) for number in told[count + 2 :]))
    sights = tuple(_sights(look, reader.observation()[2]) for look in race.looks)
    if status is not Status.DONE:
        observations[0] = Observation(status)  # of all that it stands for, the first is told of
        return observations, None
    return observations, Course(
        tuple(stops), tuple(times), expired, tuple(passings), threads=tuple(threads), sights=sights
    )


def _stop(numbers: Sequence[int]) -> Stop | None:
    if not numbers:
        return None
    ending, done, begun, ended, *letters = numbers
    where = b"".join(number.to_bytes(8, "little") for number in letters).rstrip(b"\0").decode(errors="replace")
    return Stop(_ENDINGS[ending], done, where, begun, ended)


def _passing(number: int, near: int) -> Passing:
    """Of the time there are the last bits; `near` is one of about then."""
    device_shift, shift = (CONSTANTS[f"HMM_HARNESS_GATE_{name}_SHIFT"] for name in ("DEVICE", "CLOCK"))
    gate = number & (1 << device_shift) - 1
    device = number >> device_shift & (1 << shift - device_shift) - 1
    whole = 1 << 64 - shift
    later = ((number >> shift) - near + whole // 2) % whole - whole // 2
    return Passing(near + later, _GATES_BY_NUMBER[gate], device)


def _sights(look: Look, numbers: Sequence[int]) -> tuple[Sight, ...]:
    """What a look saw each time."""
    pages = look.span.count
    sights = []
    for at in range(0, len(numbers), _LOOK_HEAD + 2 * pages):
        errors = numbers[at : at + _LOOK_HEAD]
        start = at + _LOOK_HEAD
        table, cpu = (
            error or tuple(map(_entry, numbers[first : first + pages]))
            for error, first in zip(errors, (start, start + pages), strict=True)
        )
        sights.append(Sight(table, cpu))
    return tuple(sights)


def _element_of(step: Operation) -> Callable[[int], Element]:
    """What the numbers say that are shown of `step`."""
    if isinstance(step, _TOKENS):
        return lambda number: _SPECIAL.get(number, number)
    if isinstance(step, SwapOut):
        return lambda number: Residence.OUT if number else Residence.IN
    if isinstance(step, SoftDirty):
        return lambda number: Soft.DIRTY if number else Soft.CLEAN
    if isinstance(step, Merge):
        return lambda number: Merged.MERGED if number else Merged.ALONE
    if isinstance(step, MovePages):
        return lambda number: _PLACED.get(number, number)  # which nobody expected
    if isinstance(step, Counted):
        return lambda number: number
    if isinstance(step, Pagemap):
        return lambda number: _TOLD.get(number, number)  # which contradicts itself: it is no less an observation
    if span_of(step) is None or isinstance(step, SequenceNumber):
        return lambda number: number
    return _entry


@lru_cache(maxsize=1024)
def _entry(number: int) -> Entry:
    """Of many pages there are few kinds."""
    return Entry(Mark(number & ~_ORDER_MASK), (number & _ORDER_MASK) >> _ORDER_SHIFT)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def take(self, kind: Struct) -> tuple[int, ...]:
        return kind.unpack(self._next(kind.size))

    def numbers(self, count: int) -> memoryview:
        return self._next(count * _NUMBER_BYTES).cast("Q")

    def _next(self, size: int) -> memoryview:
        if self._at + size > len(self._data):
            raise GuestError(f"the executor's answer ends after {len(self._data)} bytes, in the middle")
        self._at += size
        return self._data[self._at - size : self._at]

    def observation(self) -> tuple[int, int, Sequence[int]]:
        """Of the next part: its status, its error, its elements."""
        status, error, count = self.take(_OBSERVATION)
        return status, error, self.numbers(count) if count else ()

    def end(self) -> None:
        if self._at != len(self._data):
            raise GuestError(f"the executor's answer has {len(self._data) - self._at} bytes too many")


assert len(_GATES) == CONSTANTS["HMM_HARNESS_GATE_LAST"], "harness.program.race.Gate is not what hmm_harness.h says"
assert {mark.value for mark in Mark} == {CONSTANTS[f"HMM_HARNESS_PAGE_{mark.name}"] for mark in Mark}, (
    "harness.program.observations.Mark is not what hmm_harness.h says"
)
assert (_OUTCOME.size, _OBSERVATION.size) == tuple(
    ffi.sizeof(f"struct wire_{name}") for name in ("outcome", "observation")
), "wire.h says otherwise"
