# SPDX-License-Identifier: GPL-2.0-only
"""The reference model of coherent memory, and what becomes of programs where there is none."""

from __future__ import annotations

import errno

import pytest

from harness.compare import Verdict, compare, obstacle
from harness.model.rules import FEATURES, rules_for
from harness.model.world import World
from harness.program.observations import NO_MARKS, Element, Entry, Mark, Observation, Status
from harness.program.program import Program
from harness.program.text import parse

R = Mark.VALID
RW = Mark.VALID | Mark.WRITE
NOTHING = Entry(NO_MARKS)
HERE, THERE = Entry(RW | Mark.LOCAL), Entry(RW | Mark.REMOTE)
RULES = rules_for("interval", set(FEATURES) - {"MIGRATE_PFN_COMPOUND"})
MOVED = "a: map buf anon 4 rw\na: write buf 5\nc0: bind a\nd0: bind a\nc0: to-device buf\n"


def _program(text: str) -> Program:
    return parse(text, file="x.hmm")


def _last(text: str) -> tuple[tuple[object, ...], frozenset[int]]:
    program = _program(text)
    world = World(program, RULES)
    for step in program.steps:
        expectation = world.step(step, Observation(Status.DONE))
    return expectation.elements, expectation.errors


def _shows(text: str, *elements: Element) -> None:
    allowed, errors = _last(text)
    assert 0 in errors
    assert len(allowed) == len(elements)
    for each, element in zip(allowed, elements, strict=True):
        assert each.admits(element), f"{element} is not in {each}"  # type: ignore[attr-defined]
        for other in (HERE, THERE, NOTHING, Entry(RW), Entry(R)):
            assert other == element or not each.admits(other), f"{other} is in {each}"  # type: ignore[attr-defined]


def test_a_coherent_page_stays_when_the_cpu_touches_it() -> None:
    for touch in ("a: read buf", "a: write buf 9", "a: advise buf populate-write", "d0: read buf", "d0: write buf 9"):
        _shows(f"{MOVED}{touch}\nc0: snapshot buf", *[HERE] * 4)
        _shows(f"{MOVED}{touch}\nd0: snapshot buf", *[THERE] * 4)


def test_no_other_device_takes_a_coherent_page_nor_any_owner_hides_it() -> None:
    _shows(f"{MOVED}d0: to-device buf\nd0: snapshot buf", *[THERE] * 4)
    for owner in ("own", "nobody", "other"):
        _shows(f"{MOVED}d0: request buf none none . {owner} fresh", *[THERE] * 4)
        _shows(f"{MOVED}c0: request buf none none . {owner} fresh", *[HERE] * 4)


def test_a_writer_that_shares_a_coherent_page_gets_a_copy_in_system_memory() -> None:
    shared = f"{MOVED}a: fork b\nc1: bind b\n"
    readable = Entry(R | Mark.LOCAL)
    _shows(f"{shared}c0: snapshot buf", *[readable] * 4)
    _shows(f"{shared}a: write buf[0] 9\nc0: snapshot buf", Entry(RW), *[readable] * 3)
    _shows(f"{shared}a: write buf[0] 9\nc1: snapshot buf", *[Entry(R | Mark.REMOTE)] * 4)
    _shows(f"{shared}b: exit\na: write buf[0] 9\nc0: snapshot buf", HERE, *[readable] * 3)
    _shows(f"{shared}c0: write buf[0] 9\nc0: snapshot buf[0]", Entry(RW))


def test_a_device_writes_its_own_read_only_page_where_it_is() -> None:
    text = f"{MOVED}a: protect buf r\na: protect buf rw\nc0: fault buf write"
    _shows(text, *[HERE] * 4)


def test_no_page_of_coherent_memory_is_asked_for_by_a_cpu() -> None:
    program = _program("a: map buf anon 1 rw\nc0: bind a\nc0: usage")
    for faults, verdict in ((0, Verdict.PASS), (1, Verdict.FAIL)):
        seen = [Observation(Status.DONE)] * 2 + [Observation(Status.DONE, 0, (0, 0, 0, faults, 0, 0))]
        assert compare(program, RULES, seen).verdict is verdict


def test_a_coherent_page_cannot_be_poisoned() -> None:
    assert _last(f"{MOVED}a: poison buf[1]")[1] == {errno.ENXIO}


@pytest.mark.parametrize(
    ("binding", "features", "reason"),
    [
        ("mirror", FEATURES, "mirror has no c0 and c1: v4.20's MEMORY_DEVICE_PUBLIC was never usable"),
        ("interval", {"DEVMEM"}, "need MEMORY_DEVICE_COHERENT"),
        ("interval", {"COHERENT", "TEST_HMM_COHERENT"}, "need memory that is kept from the kernel"),
        ("test_hmm", {"COHERENT", "INTERVAL_COHERENT"}, "need memory that is kept from the kernel"),
    ],
)
def test_where_there_is_no_coherent_memory_it_is_said_why(binding: str, features: set[str], reason: str) -> None:
    why = obstacle(_program("a: map buf anon 1 rw\nc0: bind a\nc0: snapshot buf"), rules_for(binding, features))
    assert why is not None
    assert reason in why


def test_coherent_memory_needs_no_private_one() -> None:
    program = _program("a: map buf anon 1 rw\nc0: bind a\nc0: to-device buf")
    assert obstacle(program, rules_for("interval", {"COHERENT", "INTERVAL_COHERENT"})) is None
    private = _program("a: map buf anon 1 rw\nd0: bind a\nd0: to-device buf")
    assert obstacle(private, rules_for("interval", {"COHERENT", "INTERVAL_COHERENT"})) is not None


def test_test_hmm_is_not_driven_beyond_its_coherent_memory() -> None:
    text = "a: map big anon 65536 rw\na: map more anon 1 rw\nc0: bind a\nc1: bind a\n"
    text += "c0: to-device big\nc1: to-device more"
    rules = rules_for("test_hmm", FEATURES)
    assert obstacle(_program(text), rules) is None
    assert "warns when its coherent memory" in (obstacle(_program(f"{text}\nc0: to-device more"), rules) or "")
    assert obstacle(_program(f"{text}\nc0: to-device more"), RULES) is None


def test_test_hmm_does_not_survive_that_coherent_memory_fails() -> None:
    text = "a: map buf anon 2 rw\nc0: bind a\n{}a: poison buf[0]"
    rules = rules_for("test_hmm", FEATURES)
    assert obstacle(_program(text.format("")), rules) is None
    assert "oopses" in (obstacle(_program(text.format("c0: to-device buf\n")), rules) or "")
    assert obstacle(_program(text.format("c0: to-device buf\n")), RULES) is None
