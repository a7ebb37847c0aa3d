# SPDX-License-Identifier: GPL-2.0-only
"""The reference model of hugetlb mappings: 512 pages that come and go together, and VMAs that end between them."""

from __future__ import annotations

import errno
from collections.abc import Collection

import pytest

from harness.compare import Verdict, compare
from harness.model.allowed import Expectation
from harness.model.rules import rules_for
from harness.model.world import World
from harness.program.observations import NO_MARKS, Element, Entry, Mark, Observation, Signal, Status
from harness.program.text import parse

R = Entry(Mark.VALID, 9)
RW = Entry(Mark.VALID | Mark.WRITE, 9)
NOTHING = Entry(NO_MARKS)
RESIDUE = Entry(Mark.RESIDUE)
ERROR = Entry(Mark.ERROR)
NEW = ("DEVMEM", "HUGETLB", "HUGETLB_DONTNEED", "HUGETLB_REMAP", "MIGRATE_FAULT_PAGE", "POISON", "POPULATE")
OLD = ("DEVMEM", "HUGETLB", "POISON")
BUF = "a: map buf hugetlb 1024 rw\nd0: bind a\n"


def _last(text: str, *, binding: str = "interval", features: Collection[str] = NEW, error: int = 0) -> Expectation:
    """What the last step may show; all others succeed."""
    program = parse(text, file="x.hmm")
    world = World(program, rules_for(binding, features))
    expectation = Expectation()
    for number, step in enumerate(program.steps):
        last = number == len(program.steps) - 1
        expectation = world.step(step, Observation(Status.DONE, error if last else 0))
        assert last or 0 in expectation.errors, f"step {number + 1}: {expectation.errors}"
    return expectation


def _shows(text: str, *elements: Element, binding: str = "interval") -> None:
    expectation = _last(text, binding=binding)
    assert expectation.errors == {0}
    assert len(expectation.elements) == len(elements)
    for allowed, element in zip(expectation.elements, elements, strict=True):
        assert allowed.admits(element), f"{element} is not in {allowed}"


def _errors(text: str, *, features: Collection[str] = NEW, binding: str = "interval") -> frozenset[int]:
    return _last(text, features=features, binding=binding).errors


def test_all_of_a_page_comes_at_once_with_its_order() -> None:
    _shows(BUF + "a: read buf[700]\nd0: snapshot buf[510:514]", NOTHING, NOTHING, R, R)
    _shows(BUF + "d0: fault buf[700] write\nd0: snapshot buf[510:514]", NOTHING, NOTHING, RW, RW)
    entries = _last(BUF + "a: write buf[3] 1\nd0: snapshot buf[0]").elements[0]
    for wrong in (R, Entry(RW.marks), Entry(RW.marks | Mark.ZERO, 9), NOTHING, ERROR):
        assert not entries.admits(wrong)


def test_a_write_after_fork_copies_all_of_it() -> None:
    text = BUF + "a: write buf[0:3] 1\nd0: read buf[0:3]\na: fork b\na: write buf[1] 9\n"
    table = _last(text + "d0: table buf[0:3]")
    assert all(allowed.admits(NOTHING) and not allowed.admits(R) for allowed in table.elements)
    _shows(text + "a: read buf[0:3]", 1, 9, 3)
    _shows(text + "b: read buf[0:3]", 1, 2, 3)
    _shows(text + "d0: snapshot buf[0:2]", RW, RW)
    _shows(text + "d1: bind b\nd1: snapshot buf[0:2]", R, R)


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ("a: unmap buf[0:8]", errno.EINVAL),
        ("a: unmap buf[8:1024]", errno.EINVAL),
        ("a: unmap buf[512:1024]", 0),
        ("a: unmap buf[0:512]\na: unmap buf[100:1024]", 0),
        ("a: protect buf[8:512] r", errno.EINVAL),
        ("a: protect buf[8:512] rw", 0),  # nothing to do
        ("a: protect buf[0:512] r", 0),
        ("a: protect buf[0:512] r\na: protect buf[8:1024] r", 0),
        ("a: advise buf[8:512] dontneed", errno.EINVAL),
        ("a: advise buf[0:700] dontneed", 0),
        ("a: advise buf free", errno.EINVAL),
        ("a: advise buf remove", errno.EACCES),
        ("a: advise buf wipeonfork", errno.EINVAL),
        ("a: advise buf[0:8] dontfork", errno.EINVAL),
        ("a: advise buf[0:8] dofork", 0),
        ("a: advise buf[0:512] dontfork", 0),
        ("a: unmap buf[0:512]\na: advise buf dontneed", errno.ENOMEM),
        ("a: remap buf[8:512] new", errno.EINVAL),
        ("a: remap buf[0:700] new", 0),
        ("a: protect buf[0:512] r\na: protect buf[0:512] rw\na: remap buf new", errno.EFAULT),  # they do not merge
        ("d0: to-device buf", errno.EINVAL),
        ("d0: to-system buf", errno.EINVAL),
    ],
)
def test_none_is_divided_and_what_fits_none_is_refused(steps: str, error: int) -> None:
    assert _errors(BUF + steps) == {error}


def test_older_kernels_neither_drop_nor_move_them() -> None:
    assert _errors(BUF + "a: advise buf dontneed", features=OLD) == {errno.EINVAL}
    assert _errors(BUF + "a: remap buf new", features=OLD) == {errno.EINVAL}
    assert _errors(BUF + "a: unmap buf[0:512]\na: remap buf new", features=OLD) == {errno.EFAULT}
    program = parse(BUF + "d0: snapshot buf", file="x.hmm")
    why = compare(program, rules_for("interval", ()), [Observation(Status.DONE)] * 3)
    assert why.verdict is Verdict.SKIP
    assert "MAP_HUGETLB" in why.reason


def test_what_was_changed_before_a_page_would_be_divided_stays_changed() -> None:
    text = BUF + "a: write buf[0] 1\na: write buf[512] 2\na: protect buf[0:512] rwx\n"
    assert _errors(text + "a: protect buf[0:600] r") == {errno.EINVAL}
    program = parse(text + "a: protect buf[0:600] r\na: write buf[511:513] 5", file="x.hmm")
    world = World(program, rules_for("interval", NEW))
    for step in program.steps[:-1]:
        world.step(step, Observation(Status.DONE))
    allowed = world.step(program.steps[-1], Observation(Status.DONE)).elements
    assert [each.admits(Signal.SEGV) for each in allowed] == [True, False]


def test_dropping_rounds_down_to_whole_pages() -> None:
    text = BUF + "a: write buf[0] 1\na: write buf[512] 2\nd0: read buf[0]\na: advise buf[0:700] dontneed\n"
    _shows(text + "a: read buf[0]", 0)
    _shows(text + "a: read buf[512]", 2)


def test_moving_rounds_up_to_whole_pages() -> None:
    text = BUF + "a: write buf[0] 1\na: write buf[512] 2\na: remap buf[0:8] new\n"
    _shows(text + "a: read new[0:2]", 1, 0)
    _shows(text + "a: read buf[511:513]", Signal.SEGV, 2)


def test_a_failed_page_fails_as_a_whole() -> None:
    text = BUF + "a: write buf[512] 2\na: poison buf[3]\n"
    entries = _last(text + "d0: snapshot buf[500]").elements[0]
    assert entries.admits(ERROR)
    assert entries.deviation(NOTHING) == entries.deviation(RESIDUE) == "poison-faultable"
    assert _errors(text + "d0: fault buf[511] read") == {errno.EFAULT}
    _shows(text + "a: read buf[511:513]", Signal.BUS, 2)
    _shows(text + "a: advise buf[0:512] dontneed\na: read buf[511]", 0)
    assert _errors(BUF + "a: poison buf[0:2]") == {errno.EFAULT}


def test_v4_20_knows_no_such_mappings() -> None:
    text = BUF + "a: write buf[0] 1\n"
    _shows(text + "d0: snapshot buf[0:2]", ERROR, ERROR, binding="mirror")
    assert _errors(text + "d0: fault buf[0] read", binding="mirror") == {errno.EINVAL}
    assert _errors(text + "d0: read buf[0]", binding="mirror") == {errno.EINVAL}
    assert _errors(text + "a: protect buf r\nd0: fault buf[0] write", binding="mirror") == {errno.EPERM}
    assert _errors(text + "a: protect buf none\nd0: fault buf[0] write", binding="mirror") == {errno.EINVAL}


@pytest.mark.parametrize(
    ("before", "request_", "pages", "verdict"),
    [
        ("", "none both ...f", (R,) * 4, Verdict.PASS),
        ("", "none both ...f", (RESIDUE,) * 4, Verdict.FAIL),  # mm/hmm.c hmm_vma_walk_hole()
        ("a: read buf[512]\n", "none both ...f", (R,) * 4, Verdict.PASS),
        ("a: read buf[512]\n", "none both ...f", (RESIDUE,) * 4, Verdict.DEVIATION),
        ("a: read buf[512]\n", "none both ...f", (NOTHING,) * 4, Verdict.DEVIATION),
        ("a: read buf[512]\n", "none both f...", (NOTHING,) * 4, Verdict.FAIL),
        ("a: read buf[512]\n", "none none ffff", (RESIDUE,) * 4, Verdict.DEVIATION),
        ("a: read buf[512]\n", "none none ffff", (R,) * 4, Verdict.FAIL),
        ("a: read buf[0]\n", "none both f..b", (RW,) * 4, Verdict.PASS),
        ("a: read buf[0]\n", "none both f..b", (R,) * 4, Verdict.DEVIATION),
        ("a: read buf[0]\n", "none both b..f", (R,) * 4, Verdict.FAIL),
        ("a: read buf[0]\n", "both none .", (R,) * 4, Verdict.FAIL),
        ("a: read buf[0]\n", "none both w...", (R,) * 4, Verdict.PASS),
    ],
)
def test_what_is_asked_of_any_page_counts(
    before: str, request_: str, pages: tuple[Entry, ...], verdict: Verdict
) -> None:
    program = parse(BUF + before + f"d0: request buf[0:4] {request_} own fresh", file="x.hmm")
    observations = [Observation(Status.DONE)] * 2
    observations += [Observation(Status.DONE, 0, (0,))] * (len(program.steps) - 3)
    observations += [Observation(Status.DONE, 0, pages)]
    assert compare(program, rules_for("interval", NEW), observations).verdict is verdict


def test_a_write_that_is_not_permitted_may_be_overlooked() -> None:
    program = parse(
        BUF + "a: read buf\na: protect buf r\nd0: request buf[0:4] none both f..b own fresh", file="x.hmm"
    )
    done = [Observation(Status.DONE)] * 2 + [Observation(Status.DONE, 0, (0,) * 1024), Observation(Status.DONE)]
    for last, verdict in (
        (Observation(Status.DONE, errno.EPERM), Verdict.PASS),
        (Observation(Status.DONE, errno.EFAULT), Verdict.FAIL),
        (Observation(Status.DONE, 0, (R,) * 4), Verdict.DEVIATION),
        (Observation(Status.DONE, 0, (RW,) * 4), Verdict.FAIL),
    ):
        assert compare(program, rules_for("interval", NEW), [*done, last]).verdict is verdict, last


def test_what_a_failed_request_overlooked_is_not_known() -> None:
    """It asks two pages: of the first, what may be overlooked; the second one is not mapped."""
    steps = "a: read buf\na: unmap buf[512:1024]\na: advise buf dontneed\n"
    program = parse(
        BUF + steps + "a: map near anon 1 rw\na: write near 1\n"
        "d0: request buf[508:516] none both ...fffff own fresh\nd0: snapshot buf[0]",
        file="x.hmm",
    )
    ok = Observation(Status.DONE)
    done = [ok, ok, Observation(Status.DONE, 0, (0,) * 1024), ok, Observation(Status.DONE, errno.ENOMEM), ok]
    done += [Observation(Status.DONE, 0, (0,)), Observation(Status.DONE, errno.EFAULT)]
    for shown in (R, NOTHING):
        seen = [*done, Observation(Status.DONE, 0, (shown,))]
        assert compare(program, rules_for("interval", NEW), seen).verdict is Verdict.PASS, shown
    assert (
        compare(program, rules_for("interval", NEW), [*done, Observation(Status.DONE, 0, (RW,))]).verdict
        is Verdict.FAIL
    )
