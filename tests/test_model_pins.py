# SPDX-License-Identifier: GPL-2.0-only
"""The reference model of long-term pins, and the programs that make no sense of them."""

from __future__ import annotations

import errno

import pytest

from harness.compare import obstacle
from harness.model.rules import FEATURES, rules_for
from harness.model.world import World
from harness.program.observations import NO_MARKS, Element, Entry, Mark, Observation, Status
from harness.program.program import Program
from harness.program.text import ProgramSyntaxError, parse

R = Mark.VALID
RW = Mark.VALID | Mark.WRITE
NOTHING = Entry(NO_MARKS)
HERE = Entry(RW | Mark.LOCAL)
RULES = rules_for("interval", set(FEATURES) - {"MIGRATE_PFN_COMPOUND"})


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
        for other in (HERE, NOTHING, Entry(RW), Entry(R)):
            assert other == element or not each.admits(other), f"{other} is in {each}"  # type: ignore[attr-defined]


def test_a_pin_takes_pages_out_of_memory_of_either_kind_and_keeps_them() -> None:
    for device in ("c0", "d0"):
        text = f"a: map buf anon 2 rw\na: write buf 5\n{device}: bind a\n{device}: to-device buf\na: pin buf[0]\n"
        _shows(f"{text}{device}: snapshot buf", Entry(RW), HERE)
        _shows(f"{text}{device}: to-device buf", NOTHING, Entry(Mark.LOCAL))
        _shows(f"{text}a: unpin\n{device}: to-device buf", Entry(Mark.MOVED | Mark.LOCAL), Entry(Mark.LOCAL))


def test_a_child_gets_a_copy_of_what_is_pinned() -> None:
    text = "a: map buf anon 2 rw\na: write buf 5\na: pin buf[0]\na: fork b\nd0: bind a\nd1: bind b\n"
    for device in ("d0", "d1"):
        _shows(f"{text}{device}: snapshot buf", Entry(RW), Entry(R))
    _shows(f"{text}a: write buf[0] 9\nb: read buf[0]", 5)


def test_what_cannot_be_written_is_not_pinned() -> None:
    text = "a: map buf anon 3 rw\na: write buf 5\nd0: bind a\na: protect buf[2] r\n"
    assert _last(f"{text}a: pin buf")[1] == {errno.EFAULT}
    assert _last(f"{text}a: unmap buf[1]\na: pin buf[0:2]")[1] == {errno.EFAULT}
    # Nothing is held then.
    moved = Entry(Mark.MOVED | Mark.LOCAL)
    _shows(f"{text}a: pin buf\nd0: to-device buf", moved, moved, moved)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: map buf anon 2 rw\na: pin buf\na: pin buf", "a has pinned something"),
        ("a: map buf anon 2 rw\na: unpin", "a has not pinned anything"),
        ("a: map buf anon 2 rw\na: pin buf\na: fork b\nb: unpin", "b has not pinned anything"),
        ("a: map buf anon 2 rw\na: advise buf hugepage\na: pin buf", "buf may have huge pages"),
        ("a: map buf anon 2 rw\na: advise buf hugepage\na: remap buf other\na: pin other", "other may have huge"),
        ("a: map buf hugetlb 512 rw\na: pin buf", "buf may have huge pages"),
        ("a: map buf anon 2 rw\na: pin buf[0]\na: unpin\na: poison buf[1]", "buf may be pinned"),
    ],
)
def test_pins_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(ProgramSyntaxError, match=message):
        _program(text)


def test_a_pin_ends_with_its_process() -> None:
    _program("a: map buf anon 2 rw\na: fork b\na: pin buf\na: exit\nb: pin buf\nb: unpin")


def test_a_kernel_without_pins_skips() -> None:
    why = obstacle(_program("a: map buf anon 1 rw\na: pin buf"), rules_for("interval", ()))
    assert why is not None
    assert "needs long-term pins" in why
