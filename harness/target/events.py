# SPDX-License-Identifier: GPL-2.0-only
"""Reads the netlink messages that a guest collected: which events, and whether all of them arrived.

The numbers come from the header that the kernel's ynl-gen-c made of kmod/netlink/hmm-harness.yaml.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from harness.abi import CONSTANTS
from harness.errors import GuestError
from harness.program.observations import Element, Event, Happening, Owner
from harness.program.operations import PAGE_SIZE
from harness.program.program import Program
from harness.target.places import CHECKOUT

HEADER = CHECKOUT / "kmod" / "include" / "uapi" / "hmm_harness_netlink.h"

# Pages that programs use
_FIRST = CONSTANTS["WIRE_FIRST_ADDRESS"] // PAGE_SIZE
_LAST = CONSTANTS["WIRE_LAST_ADDRESS"] // PAGE_SIZE
_MESSAGE = struct.Struct("=IHHIIBBH")  # struct nlmsghdr, struct genlmsghdr
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_TYPE_MASK = 0x3FFF  # NLA_TYPE_MASK
_ENUM = re.compile(r"enum\s*\w*\s*\{([^}]*)\}")
_NUMBERS = {4: "=I", 8: "=Q"}


@dataclass(frozen=True)
class Heard:
    """An event with who heard it. `mirror` is 0 where the device itself tells.

    `time`: nanoseconds of CLOCK_MONOTONIC. `thread`: who ran then.
    """

    number: int
    device: str  # name of its node
    mirror: int
    process: int
    event: Event
    time: int = 0
    thread: int = 0

    @property
    def concerns_programs(self) -> bool:
        """Whether it is not about the memory only that the subjects need for themselves, as their stacks."""
        event = self.event
        return event.what is Happening.PAGE_FREE or (event.start < _LAST and event.stop > _FIRST)


@dataclass(frozen=True)
class Stream:
    """All that a guest heard during a program, in order. `lost`: how many events are missing, at least."""

    heard: tuple[Heard, ...]
    lost: int

    def of(self, device: str, mirror: int, after: int, last: int) -> tuple[Event, ...]:
        """What the mirror `mirror` of `device` heard and what the device did, in events `after` + 1 to `last`.

        What concerns only the memory that the subjects need for themselves, as their stacks, is left out.
        """
        return tuple(
            each.event
            for each in self.heard
            if after < each.number <= last
            and each.device == device
            and each.mirror in (0, mirror)
            and each.concerns_programs
        )


SILENCE = Stream((), 0)


@cache
def numbers() -> Mapping[str, int]:
    """The enumerators of the header by name."""
    found: dict[str, int] = {}
    for body in _ENUM.findall(HEADER.read_text()):
        following = 0
        for line in body.split(","):
            name, _, value = (part.strip() for part in line.partition("="))
            if not name:
                continue
            found[name] = int(value) if value.isdecimal() else following
            following = found[name] + 1
    return found


@cache
def _names(prefix: str) -> dict[int, str]:
    """What follows `prefix` in the names of enumerators, in lower case with `-`, by number."""
    return {
        number: name.removeprefix(prefix).lower().replace("_", "-")
        for name, number in numbers().items()
        if name.startswith(prefix) and name != f"{prefix}MAX"
    }


def read_stream(data: bytes, program: Program) -> Stream:
    """The events in `data`: the answer to subscribing, events, the answer to unsubscribing.

    Raises `GuestError` if that is no netlink messages. Without the second answer at least one event is lost.
    """
    heard: list[Heard] = []
    ends: list[int] = []
    for command, attributes in messages(data):
        if command in ("subscribe", "unsubscribe"):
            ends.append(_number(attributes, "number"))
        else:
            heard.append(_heard(command, attributes, program))
    if not ends:
        raise GuestError("the guest did not listen to the module's events")
    first = ends[0]
    if len(ends) == 1:
        return Stream(tuple(heard), 1)
    missing = set(range(first + 1, ends[-1] + 1)).difference(each.number for each in heard)
    return Stream(tuple(heard), len(missing))


def messages(data: bytes) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The command and the attributes of each message in `data`, by their names. Raises `GuestError` if it is none."""
    commands = _names("HMM_HARNESS_CMD_")
    kinds = _names("HMM_HARNESS_A_EVENT_")
    at = 0
    while at < len(data):
        if at + _MESSAGE.size > len(data):
            raise GuestError("the module's events end in the middle of a message")
        length, _, _, _, _, command, _, _ = _MESSAGE.unpack_from(data, at)
        end = at + length
        if length < _MESSAGE.size or end > len(data) or command not in commands:
            raise GuestError("what the guest heard of the module are no messages of its family")
        attributes: dict[str, bytes] = {}
        here = at + _MESSAGE.size
        while here + _ATTRIBUTE.size <= end:
            size, kind = _ATTRIBUTE.unpack_from(data, here)
            name = kinds.get(kind & _TYPE_MASK)
            if name is None or size < _ATTRIBUTE.size or here + size > end:
                raise GuestError("an event of the module has an attribute that is none")
            attributes[name] = data[here + _ATTRIBUTE.size : here + size]
            here += (size + 3) & ~3
        yield commands[command], attributes
        at += (length + 3) & ~3


def _number(attributes: Mapping[str, bytes], name: str) -> int:
    value = attributes.get(name)
    if value is None:
        return 0
    if len(value) not in _NUMBERS:
        raise GuestError(f"the attribute {name} of an event has {len(value)} bytes")
    number: int = struct.unpack(_NUMBERS[len(value)], value)[0]
    return number


def _heard(command: str, attributes: Mapping[str, bytes], program: Program) -> Heard:
    start = _number(attributes, "start") // PAGE_SIZE
    stop = -(-_number(attributes, "end") // PAGE_SIZE)
    owner = Owner.NONE
    match command:
        case "invalidation" | "release":
            what = Happening(_names("HMM_HARNESS_REASON_")[_number(attributes, "reason")])
            names = _names("HMM_HARNESS_OWNER_")
            owner = {"own": Owner.OWN, "other": Owner.OTHER}.get(names[_number(attributes, "owner")], Owner.NONE)
        case "migration":
            what = Happening(_names("HMM_HARNESS_DIRECTION_")[_number(attributes, "direction")])
        case _:
            what = Happening(command)
    event = Event(
        what,
        start,
        stop,
        owner,
        sequence=_number(attributes, "sequence"),
        blockable="blockable" in attributes or command not in ("invalidation", "release"),
        refused="refused" in attributes,
        asked=_number(attributes, "asked"),
        moved=_number(attributes, "moved"),
        place=program.place(start, stop),
    )
    device = attributes.get("device", b"").rstrip(b"\0").decode(errors="replace")
    number, mirror, process, time, thread = (
        _number(attributes, name) for name in ("number", "mirror", "process", "time", "thread")
    )
    return Heard(number, device, mirror, process, event, time, thread)


def shown(observations: Sequence[tuple[str, Sequence[Element]]], stream: Stream) -> list[tuple[Event, ...]]:
    """The events of each look: `observations` are the device's node and the numbers of wire.h, WIRE_EVENTS."""
    looked: dict[tuple[str, int], int] = {}
    looks = []
    for device, elements in observations:
        mirror, since, last = (element for element in elements if isinstance(element, int))
        after = max(since, looked.get((device, mirror), 0))
        looked[device, mirror] = last
        looks.append(stream.of(device, mirror, after, last))
    return looks
