# SPDX-License-Identifier: GPL-2.0-only
"""Events: the family's description against its header, the guest's stream, and what of it the model accepts."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from harness.compare import Verdict, compare
from harness.errors import GuestError
from harness.model.rules import RULES
from harness.program.observations import Event, Happening, Observation, Owner, Status
from harness.program.program import Program
from harness.program.text import parse
from harness.pytest_plugin.model import Model
from harness.target.events import HEADER, Heard, Stream, numbers, read_stream, shown
from harness.target.places import CHECKOUT, KMOD

SPEC: dict[str, Any] = YAML(typ="safe", pure=True).load(KMOD / "netlink" / "hmm-harness.yaml")
NAME = {"type": "string", "pattern": "^[0-9a-z-]+$"}
ATTRIBUTES = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"attributes": {"type": "array", "items": NAME}},
}
# What of Documentation/netlink/genetlink.yaml of Linux 7.3 a family of this size needs
SCHEMA = {
    "type": "object",
    "required": ["name", "doc", "attribute-sets", "operations"],
    "additionalProperties": False,
    "properties": {
        "name": NAME,
        "doc": {"type": "string"},
        "protocol": {"enum": ["genetlink"]},
        "uapi-header": {"type": "string"},
        "definitions": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "name"],
                "additionalProperties": False,
                "properties": {
                    "name": NAME,
                    "doc": {"type": "string"},
                    "type": {"enum": ["const", "enum", "flags"]},
                    "entries": {
                        "type": "array",
                        "items": {
                            "oneOf": [
                                {"type": "string"},
                                {
                                    "type": "object",
                                    "required": ["name"],
                                    "additionalProperties": False,
                                    "properties": {"name": NAME, "doc": {"type": "string"}},
                                },
                            ]
                        },
                    },
                },
            },
        },
        "attribute-sets": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "attributes"],
                "additionalProperties": False,
                "properties": {
                    "name": NAME,
                    "attributes": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["name", "type"],
                            "additionalProperties": False,
                            "properties": {
                                "name": NAME,
                                "type": {"enum": ["flag", "u32", "u64", "string"]},
                                "doc": {"type": "string"},
                                "enum": NAME,
                            },
                        },
                    },
                },
            },
        },
        "operations": {
            "type": "object",
            "required": ["list"],
            "additionalProperties": False,
            "properties": {
                "list": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name", "doc"],
                        "additionalProperties": False,
                        "properties": {
                            "name": NAME,
                            "doc": {"type": "string"},
                            "attribute-set": NAME,
                            "flags": {"type": "array", "items": {"enum": ["admin-perm", "uns-admin-perm"]}},
                            "do": {
                                "type": "object",
                                "additionalProperties": False,
                                "properties": {"request": ATTRIBUTES, "reply": ATTRIBUTES},
                            },
                            "event": ATTRIBUTES,
                        },
                    },
                }
            },
        },
    },
}


def _upper(*words: str) -> str:
    return "_".join(words).upper().replace("-", "_")


def test_the_description_has_the_form_of_the_kernel() -> None:
    jsonschema.validate(SPEC, SCHEMA)
    (attributes,) = SPEC["attribute-sets"]
    known = {attribute["name"] for attribute in attributes["attributes"]}
    enums = {definition["name"] for definition in SPEC["definitions"]}
    assert {attribute["enum"] for attribute in attributes["attributes"] if "enum" in attribute} <= enums
    for operation in SPEC["operations"]["list"]:
        assert operation["attribute-set"] == attributes["name"]
        used = operation["event"]["attributes"] if "event" in operation else operation["do"]["reply"]["attributes"]
        assert set(used) <= known, operation["name"]
        assert "number" in used, "whoever hears it can tell whether something is missing"


def test_the_header_says_what_the_description_says() -> None:
    """As the kernel's ynl-gen-c counts: enums from 0, attributes and operations from 1."""
    expected = {}
    for definition in SPEC["definitions"]:
        for value, entry in enumerate(definition["entries"]):
            name = entry if isinstance(entry, str) else entry["name"]
            expected[_upper(SPEC["name"], definition["name"], name)] = value
    for attributes in SPEC["attribute-sets"]:
        for value, attribute in enumerate(attributes["attributes"], 1):
            expected[_upper(SPEC["name"], "a", attributes["name"], attribute["name"])] = value
    for value, operation in enumerate(SPEC["operations"]["list"], 1):
        expected[_upper(SPEC["name"], "cmd", operation["name"])] = value
    assert {name: value for name, value in numbers().items() if not name.endswith("_MAX")} == expected
    assert f'#define HMM_HARNESS_FAMILY_NAME\t\t"{SPEC["name"]}"' in HEADER.read_text()


def test_the_guest_says_what_the_header_says() -> None:
    """It is read, not imported: pyroute2 is in the guest only."""
    said = dict(re.findall(r"^([A-Z]+) = (.*)$", (CHECKOUT / "harness/guest/events.py").read_text(), re.MULTILINE))
    header = HEADER.read_text()
    assert f"#define HMM_HARNESS_FAMILY_NAME\t\t{said['FAMILY']}\n" in header
    assert f"#define HMM_HARNESS_FAMILY_VERSION\t{said['VERSION']}\n" in header
    for name in ("SUBSCRIBE", "UNSUBSCRIBE"):
        assert int(said[name]) == numbers()[f"HMM_HARNESS_CMD_{name}"]


PROGRAM = parse("a: map buf anon 4 rw\na: write buf 1\nd0: bind a\na: unmap buf[1]\nd0: events", file="x")
FIRST = PROGRAM.regions["buf"].address // 4096


def _message(command: str, **attributes: int | str | bool) -> bytes:
    body = b""
    for name, value in attributes.items():
        kind = numbers()[_upper("hmm-harness-a-event", name)]
        if isinstance(value, bool):
            data = b""
        elif isinstance(value, str):
            data = value.encode() + b"\0"
        else:
            wide = name in ("number", "start", "end", "mirror", "sequence", "asked", "moved", "lost", "missed")
            data = struct.pack("=Q" if wide else "=I", value)
        body += struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
    number = numbers()[_upper("hmm-harness-cmd", command)]
    return struct.pack("=IHHIIBBH", 20 + len(body), 30, 0, 0, 0, number, 1, 0) + body


def _unmap(number: int, page: int, *, device: str = "hmm_harness0", mirror: int = 7) -> bytes:
    start = (FIRST + page) * 4096
    return _message("invalidation", number=number, device=device, mirror=mirror, process=99, start=start,
                    end=start + 4096, reason=numbers()["HMM_HARNESS_REASON_UNMAP"], owner=0, sequence=5,
                    blockable=True)  # fmt: skip


BEGIN, END = _message("subscribe", number=10, lost=0, missed=0), _message("unsubscribe", number=13, lost=0, missed=0)
MOVED = _message("migration", number=12, device="hmm_harness0", start=FIRST * 4096, end=(FIRST + 4) * 4096,
                 direction=1, asked=3, moved=2)  # fmt: skip
FREE = _message("page-free", number=13, device="hmm_harness1")


def test_reads_what_a_guest_heard() -> None:
    stream = read_stream(BEGIN + _unmap(11, 1) + MOVED + FREE + END, PROGRAM)
    unmapped = Event(Happening.UNMAP, FIRST + 1, FIRST + 2, sequence=5, place="buf[1]")
    moved = Event(Happening.TO_SYSTEM, FIRST, FIRST + 4, asked=3, moved=2, place="buf")
    assert stream.lost == 0
    assert stream.heard[0] == Heard(11, "hmm_harness0", 7, 99, unmapped)
    assert stream.of("hmm_harness0", 7, 10, 13) == (unmapped, moved)
    assert stream.of("hmm_harness0", 7, 11, 13) == (moved,), "what was seen before is not shown again"
    assert stream.of("hmm_harness0", 8, 10, 13) == (moved,), "another mirror's is not shown"
    assert [event.what for event in stream.of("hmm_harness1", 0, 0, 99)] == [Happening.PAGE_FREE]


@pytest.mark.parametrize(
    ("data", "lost"),
    [(BEGIN + _unmap(11, 1) + FREE + END, 1), (BEGIN + END, 3), (BEGIN + _unmap(11, 1) + MOVED + FREE, 1)],
    ids=["a gap", "nothing", "no end"],
)
def test_a_gap_in_the_numbers_is_a_loss(data: bytes, lost: int) -> None:
    assert read_stream(data, PROGRAM).lost == lost


@pytest.mark.parametrize("data", [b"", _unmap(11, 1), BEGIN[:-2], BEGIN + b"x" * 32, BEGIN + _unmap(11, 1)[:30]])
def test_refuses_what_is_no_stream(data: bytes) -> None:
    with pytest.raises(GuestError):
        read_stream(data, PROGRAM)


def test_memory_of_the_subject_itself_is_left_out() -> None:
    stack = _message("invalidation", number=11, device="hmm_harness0", mirror=7, process=9, start=0x1000, end=0x9000,
                     reason=2, owner=0)  # fmt: skip
    assert read_stream(BEGIN + stack + END, PROGRAM).of("hmm_harness0", 7, 0, 99) == ()


def test_each_look_shows_what_came_since_the_one_before() -> None:
    events = [Event(Happening.CLEAR, page, page + 1) for page in range(1 << 28, (1 << 28) + 4)]
    stream = Stream(tuple(Heard(n, "d", 7 if n < 4 else 8, 1, event) for n, event in enumerate(events, 1)), 0)
    looks = [("d", (7, 1, 2)), ("d", (7, 1, 3)), ("d", (8, 3, 4))]
    assert shown(looks, stream) == [(events[1],), (events[2],), (events[3],)]


def _judge(text: str, *heard: Event) -> list[str]:
    """What is wrong with hearing `heard` in the last step of `text`, whose other steps go as they should."""
    program = parse(text, file="x")
    observations = (*Model().obedient(program)[:-1], Observation(Status.DONE, 0, heard))
    comparison = compare(program, RULES["interval"], observations)
    assert (comparison.verdict is Verdict.PASS) == (comparison.divergence is None)
    return list(comparison.divergence.details) if comparison.divergence else []


MAPPED = "a: map buf anon 4 rw\na: write buf 1\nd0: bind a\n"


def _event(what: Happening, start: int = 0, stop: int = 4, **more: Any) -> Event:
    return Event(what, FIRST + start, FIRST + stop, **more)


def test_what_is_unmapped_must_be_heard_however_it_is_cut() -> None:
    text = MAPPED + "a: unmap buf[0:3]\nd0: events"
    assert _judge(text, _event(Happening.UNMAP, 0, 3)) == []
    assert _judge(text, _event(Happening.UNMAP, 0, 1), _event(Happening.UNMAP, 1, 3)) == []
    assert _judge(text, _event(Happening.UNMAP, 0, 3), _event(Happening.CLEAR)) == [], "a spurious one"
    (missing, heard) = _judge(text, _event(Happening.UNMAP, 0, 2))
    assert missing == "`4  a: unmap buf[0:3]`: heard no unmap of buf[2]"
    assert heard.startswith("heard: unmap ")
    assert "heard no unmap of buf[0:3]" in _judge(text, _event(Happening.CLEAR, 0, 3))[0]
    assert "heard: nothing" in _judge(text)


def test_what_stays_must_not_be_heard_as_unmapped() -> None:
    text = MAPPED + "a: unmap buf[0:3]\nd0: events"
    assert "nothing that the program did raises this" in _judge(text, _event(Happening.UNMAP, 0, 4))[0]
    for what in (Happening.PROTECTION_VMA, Happening.PROTECTION_PAGE, Happening.SOFT_DIRTY, Happening.MIGRATE):
        assert _judge(MAPPED + "d0: events", _event(what, 0, 1)), what


def test_one_event_is_not_heard_for_two_steps() -> None:
    text = MAPPED + "a: advise buf dontneed\na: write buf 5\na: advise buf dontneed\nd0: events"
    assert _judge(text, _event(Happening.CLEAR), _event(Happening.CLEAR)) == []
    assert _judge(text, _event(Happening.CLEAR))[0] == "`6  a: advise buf dontneed`: heard no clear of buf"


def test_the_owner_of_a_migration_counts() -> None:
    text = MAPPED + "d1: bind a\nd1: to-device buf\n"
    own, other = (_event(Happening.MIGRATE, owner=owner) for owner in (Owner.OWN, Owner.OTHER))
    moved = _event(Happening.TO_DEVICE, asked=4, moved=4)
    assert _judge(text + "d0: events", other) == []
    assert _judge(text + "d1: events", own, moved) == []
    assert _judge(text + "d0: events", own)
    assert _judge(text + "d1: events", other, moved)
    assert _judge(text + "d1: events", own)[0].endswith("heard no to-device of buf")


def test_the_end_is_heard_once_and_of_everything() -> None:
    text = MAPPED + "a: fork b\nd1: bind b\nb: exit\nd1: events"
    release = Event(Happening.RELEASE, 0, 1 << 52)
    assert _judge(text, release, Event(Happening.UNMAP, 0, 1 << 52)) == []
    assert _judge(text)[0] == "heard of the end of the process 0 times, not 1 times"
    assert _judge(text, release, release)
    assert _judge(text, replace(release, stop=1 << 40))
    assert _judge(MAPPED + "d0: events", release)


def test_a_refusal_takes_a_reason_and_a_sequence_goes_on() -> None:
    text = MAPPED + "d0: refuse buf[2]\na: reap\nd0: events"
    refusal = _event(Happening.CLEAR, blockable=False, refused=True)
    assert _judge(text, refusal, refusal) == [], "the reaper may try again"
    assert _judge(text)[0] == "`5  a: reap`: heard no refusal of buf[2]"
    assert _judge(text, _event(Happening.CLEAR, 0, 2, blockable=False, refused=True))
    assert "given time for" in _judge(text, refusal, replace(refusal, blockable=True))[0]
    text = MAPPED + "a: unmap buf\nd0: events"
    assert "given time for" in _judge(text, _event(Happening.UNMAP), _event(Happening.UNMAP, refused=True))[0]
    again = [_event(Happening.UNMAP, sequence=sequence) for sequence in (5, 3)]
    assert "comes after 5" in _judge(text, *again)[0]


def test_the_reaper_must_not_sleep_and_nobody_else_is_in_a_hurry() -> None:
    text = MAPPED + "a: reap\nd0: events"
    for what in (Happening.CLEAR, Happening.UNMAP):
        assert _judge(text, _event(what, blockable=False)) == [], what
        missing = "`4  a: reap`: heard no invalidation that must not sleep of buf"
        assert _judge(text, _event(what))[0] == missing
        assert _judge(text, _event(what, blockable=False, refused=True))[0] == missing
    assert _judge(text, _event(Happening.MIGRATE, blockable=False))
    text = MAPPED + "a: unmap buf\nd0: events"
    assert "in such a hurry" in _judge(text, _event(Happening.UNMAP, blockable=False))[0]
    assert "heard no unmap" in _judge(text, _event(Happening.UNMAP, blockable=False, refused=True))[0]


def test_device_pages_are_freed() -> None:
    text = MAPPED + "d0: to-device buf\nd0: events\na: unmap buf\nd0: events"
    free = Event(Happening.PAGE_FREE, 0, 0)
    assert _judge(text, _event(Happening.UNMAP), *[free] * 4) == []
    assert "3 device pages are free, not 4" in _judge(text, _event(Happening.UNMAP), *[free] * 3)[0]


def test_a_program_reads_and_writes_as_text() -> None:
    program: Program = PROGRAM
    assert program.steps[-1].verb == "events"
    assert program.place(FIRST, FIRST + 4) == "buf"
    assert program.place(FIRST + 1, FIRST + 3) == "buf[1:3]"
    assert program.place(1, 3) == "0x1000-0x3000"
