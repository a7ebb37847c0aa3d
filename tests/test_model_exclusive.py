# SPDX-License-Identifier: GPL-2.0-only
"""Exclusive access and what came with it, in the reference model: what is allowed, and what is not."""

from __future__ import annotations

import errno

import pytest

from harness.compare import Comparison, Verdict, compare, obstacle
from harness.model.rules import Rules, rules_for
from harness.program.observations import (
    NO_MARKS,
    Element,
    Entry,
    Event,
    Happening,
    Mark,
    Observation,
    Owner,
    Status,
)
from harness.program.text import parse

NEW = ("DEVMEM", "MIGRATE_FAULT_PAGE", "MAKE_DEVICE_EXCLUSIVE")
OLD = ("DEVMEM", "MIGRATE_FAULT_PAGE", "MAKE_DEVICE_EXCLUSIVE_RANGE")
R = Entry(Mark.VALID)
RW = Entry(Mark.VALID | Mark.WRITE)
OWN = Entry(Mark.VALID | Mark.WRITE | Mark.EXCLUSIVE)
STALE = Entry(OWN.marks | Mark.STALE)
NOTHING = Entry(NO_MARKS)
BOUND = "a: map buf {} 4 rw\na: write buf 10\nd0: bind a\n"
START = BOUND.format("anon") + "d0: exclusive buf\n"
Shown = list[Element]


def _judge(
    text: str, *last: tuple[Shown, int], features: tuple[str, ...] = NEW, binding: str = "interval"
) -> Comparison:
    """The verdict when the last steps show that, and those before go as they must."""
    program = parse(text, file="x.hmm")
    rules: Rules = rules_for(binding, features)
    start: list[Observation] = [_smooth(str(step.verb)) for step in program.steps[: -len(last)]]
    return compare(
        program, rules, [*start, *(Observation(Status.DONE, error, tuple(shown)) for shown, error in last)]
    )


def _smooth(verb: str) -> Observation:
    shown: dict[str, tuple[Element, ...]] = {"write": (0,) * 4, "exclusive": (OWN,) * 4}
    return Observation(Status.DONE, 0, shown.get(verb, ()))


def _passes(text: str, *last: tuple[Shown, int], features: tuple[str, ...] = NEW, binding: str = "interval") -> bool:
    comparison = _judge(text, *last, features=features, binding=binding)
    assert comparison.verdict in (Verdict.PASS, Verdict.FAIL), comparison
    return comparison.verdict is Verdict.PASS


@pytest.mark.parametrize("features", [NEW, OLD])
def test_the_device_has_it_and_the_cpu_nothing(features: tuple[str, ...]) -> None:
    assert _passes(START + "d0: snapshot buf", ([NOTHING] * 4, 0), features=features)
    assert not _passes(START + "d0: snapshot buf", ([NOTHING, RW, NOTHING, NOTHING], 0), features=features)
    assert _passes(START + "d0: held buf", ([OWN] * 4, 0), features=features)
    assert not _passes(START + "d0: held buf", ([OWN, NOTHING, OWN, OWN], 0), features=features)
    assert _passes(START + "d0: table buf", ([OWN, NOTHING, OWN, OWN], 0), features=features)
    assert not _passes(START + "d0: table buf", ([OWN, STALE, OWN, OWN], 0), features=features)
    assert not _passes(START + "d0: table buf", ([OWN, RW, OWN, OWN], 0), features=features)
    assert not _passes(BOUND.format("anon") + "d0: exclusive buf", ([OWN, NOTHING, OWN, OWN], 0), features=features)


def test_a_cpu_gets_back_what_it_touches_and_no_more() -> None:
    touched = START + "a: read buf[1]\n"
    for query in ("held", "table"):
        shown: Shown = [OWN, NOTHING, OWN, OWN]
        assert _passes(touched + f"d0: {query} buf", ([11], 0), (shown, 0))
        assert not _passes(touched + f"d0: {query} buf", ([11], 0), ([OWN] * 4, 0))
    assert _passes(touched + "d0: snapshot buf", ([11], 0), ([NOTHING, RW, NOTHING, NOTHING], 0))
    assert not _passes(touched + "d0: snapshot buf", ([11], 0), ([NOTHING] * 4, 0))


def test_a_device_reads_its_own_without_a_fault_but_not_behind_one() -> None:
    assert not _passes(START + "d0: read buf\nd0: held buf", ([10, 11, 12, 13], 0), ([OWN, OWN, OWN, NOTHING], 0))
    lost = START + "a: read buf[1]\nd0: read buf\nd0: held buf"
    data: Shown = [10, 11, 12, 13]
    for behind in (OWN, NOTHING):
        assert _passes(lost, ([11], 0), (data, 0), ([OWN, NOTHING, behind, behind], 0))
    assert not _passes(lost, ([11], 0), (data, 0), ([NOTHING, NOTHING, OWN, OWN], 0))


@pytest.mark.parametrize("backing", ["shared", "file"])
def test_only_anonymous_memory_is_granted(backing: str) -> None:
    text = BOUND.format(backing) + "d0: exclusive buf"
    refused: tuple[Shown, int] = ([], errno.EOPNOTSUPP)
    assert _passes(text, refused)
    assert not _passes(text, ([OWN] * 4, 0))
    assert not _passes(text, refused, features=OLD)
    assert _passes(text, ([NOTHING] * 4, 0), features=OLD)
    assert _passes(text, ([], errno.EBUSY), features=OLD, binding="test_hmm")


@pytest.mark.parametrize("backing", ["shared", "file"])
def test_what_is_behind_a_refused_page_may_have_been_faulted_in(backing: str) -> None:
    """All are asked for at once by test_hmm, which then says that it got none."""
    text = f"a: map buf {backing} 3 rw\nd0: bind a\nd0: exclusive buf\nd0: snapshot buf"
    for behind in (NOTHING, RW):
        for last in (NOTHING, RW):
            shown: Shown = [RW, behind, last]
            assert _passes(text, ([], errno.EBUSY), (shown, 0), features=OLD, binding="test_hmm"), shown
    assert not _passes(text, ([], errno.EBUSY), ([NOTHING] * 3, 0), features=OLD, binding="test_hmm")
    refused: tuple[Shown, int] = ([], errno.EOPNOTSUPP)
    assert _passes(text, refused, ([RW, NOTHING, NOTHING], 0), features=NEW, binding="test_hmm")
    assert not _passes(text, refused, ([RW, RW, NOTHING], 0), features=NEW, binding="test_hmm")
    limited = text.replace("d0: exclusive", "a: truncate buf 2\nd0: exclusive")
    assert _passes(limited, ([], errno.EBUSY), ([RW, RW, NOTHING], 0), features=OLD, binding="test_hmm")
    assert not _passes(limited, ([], errno.EBUSY), ([RW, RW, RW], 0), features=OLD, binding="test_hmm")


def test_a_hugetlb_page_that_is_refused_may_have_been_faulted_in() -> None:
    """Up to 6.7 it was, since then nothing is looked at; test_hmm says the same of both."""
    text = "a: map buf hugetlb 1024 rw\nd0: bind a\nd0: exclusive buf[511:513]\nd0: snapshot buf[511:513]"
    huge, readonly = Entry(RW.marks, 9), Entry(R.marks, 9)
    features = (*OLD, "HUGETLB")
    for shown in ([NOTHING, NOTHING], [huge, NOTHING], [huge, huge]):
        assert _passes(text, ([], errno.EBUSY), (list(shown), 0), features=features, binding="test_hmm"), shown
    assert not _passes(text, ([], errno.EBUSY), ([RW, NOTHING], 0), features=features, binding="test_hmm")
    # Where that is said, nothing was looked at.
    refused: tuple[Shown, int] = ([], errno.EOPNOTSUPP)
    assert _passes(text, refused, ([NOTHING, NOTHING], 0), features=features)
    assert not _passes(text, refused, ([huge, NOTHING], 0), features=features)
    kept = text.replace("rw", "r")
    assert _passes(kept, ([], errno.EBUSY), ([NOTHING, NOTHING], 0), features=features, binding="test_hmm")
    assert not _passes(kept, ([], errno.EBUSY), ([readonly, NOTHING], 0), features=features, binding="test_hmm")


def test_what_cannot_be_written_is_refused_where_it_begins() -> None:
    text = BOUND.format("anon") + "a: protect buf[2:4] r\nd0: exclusive buf"
    assert _passes(text, ([OWN, OWN], errno.EFAULT))
    assert not _passes(text, ([OWN, OWN], errno.EPERM))
    assert not _passes(text, ([OWN] * 4, 0))


def test_the_end_of_it_is_told_by_another_name_since_6_15() -> None:
    ends = {NEW: (Happening.CLEAR, Happening.EXCLUSIVE), OLD: (Happening.EXCLUSIVE, Happening.CLEAR)}
    text = START + "d0: events\na: read buf[1]\nd0: events"
    page = parse(text, file="x.hmm").regions["buf"].address // 4096
    made: Shown = [Event(Happening.EXCLUSIVE, page, page + 4, Owner.OWN)]
    for features, (right, wrong) in ends.items():
        for what in (right, wrong):
            ended: Shown = [Event(what, page + 1, page + 2)]
            passed = _passes(text, (made, 0), ([11], 0), (ended, 0), features=features)
            assert passed is (what is right)
    others: Shown = [Event(Happening.EXCLUSIVE, page, page + 4, Owner.OTHER)]
    assert not _passes(text, (others, 0), ([11], 0), ([Event(Happening.CLEAR, page + 1, page + 2)], 0))


def test_a_huge_page_is_granted_by_its_first_page_only_before_6_15() -> None:
    text = "a: map buf anon 512 rw\na: advise buf hugepage\na: write buf 10\nd0: bind a\nd0: exclusive buf[0:4]"
    program = parse(text, file="x.hmm")
    start = [
        Observation(Status.DONE),
        Observation(Status.DONE),
        Observation(Status.DONE, 0, (0,) * 512),
        Observation(Status.DONE),
    ]
    first = Observation(Status.DONE, 0, (OWN, NOTHING, NOTHING, NOTHING))
    every = Observation(Status.DONE, 0, (OWN,) * 4)
    for features, observation, verdict in (
        (OLD, first, Verdict.PASS),
        (OLD, every, Verdict.PASS),
        (NEW, every, Verdict.PASS),
        (NEW, first, Verdict.FAIL),
    ):
        assert compare(program, rules_for("interval", features), [*start, observation]).verdict is verdict


@pytest.mark.parametrize(
    ("features", "second", "verdict"),
    [
        (OLD, RW, Verdict.PASS),
        (OLD, NOTHING, Verdict.DEVIATION),
        (OLD, OWN, Verdict.FAIL),
        (NEW, RW, Verdict.PASS),
        (NEW, NOTHING, Verdict.FAIL),
    ],
)
def test_other_pages_of_a_huge_page_stay_with_the_cpu(
    features: tuple[str, ...], second: Entry, verdict: Verdict
) -> None:
    text = "a: map buf anon 512 rw\na: advise buf hugepage\na: write buf 10\nd0: bind a\nd0: exclusive buf[0]\n"
    program = parse(text + "d0: snapshot buf[0:2]", file="x.hmm")
    done = Observation(Status.DONE)
    shown = [done, done, Observation(Status.DONE, 0, (0,) * 512), done, Observation(Status.DONE, 0, (OWN,))]
    snapshot = Observation(Status.DONE, 0, (NOTHING, second))
    comparison = compare(program, rules_for("interval", features), [*shown, snapshot])
    assert comparison.verdict is verdict
    assert ("exclusive-whole" in comparison.reason) is (verdict is Verdict.DEVIATION)


def test_a_kernel_without_it_skips() -> None:
    comparison = _judge(BOUND.format("anon") + "d0: exclusive buf", ([OWN] * 4, 0), features=("DEVMEM",))
    assert comparison.verdict is Verdict.SKIP
    assert "needs make_device_exclusive()" in comparison.reason
    comparison = _judge(BOUND.format("anon") + "d0: read-unlocked buf", ([10, 11, 12, 13], 0))
    assert comparison.verdict is Verdict.SKIP
    assert "needs hmm_range_fault_unlocked_timeout()" in comparison.reason


def test_what_there_is_no_memory_for_stays() -> None:
    text = BOUND.format("anon") + "d0: to-device-short buf[1:4]"
    moved = Entry(Mark.MOVED | Mark.LOCAL)
    assert _passes(text, ([NOTHING, moved, moved], 0))
    assert not _passes(text, ([moved] * 3, 0))
    assert not _passes(text, ([NOTHING, NOTHING, moved], 0))


def test_a_huge_page_that_there_is_no_memory_for_moves_as_small_ones() -> None:
    """And if it was no huge page, as nobody says, then the first small one stays."""
    start = "a: map buf anon 512 rw\na: advise buf hugepage\na: write buf 10\nd0: bind a\nd0: to-device-short buf\n"
    program = parse(start + "d0: snapshot buf[0:2]", file="x.hmm")
    write = Observation(Status.DONE, 0, (0,) * 512)
    rules = rules_for("test_hmm", (*NEW, "MIGRATE_PFN_COMPOUND"))
    here, there = Entry(RW.marks | Mark.LOCAL), RW
    for shown, verdict in (
        ((here, here), Verdict.PASS),
        ((there, here), Verdict.PASS),
        ((there, there), Verdict.FAIL),
        ((Entry(here.marks, 9), here), Verdict.FAIL),
    ):
        done = Observation(Status.DONE)
        observations = [done, done, write, done, done, Observation(Status.DONE, 0, shown)]
        assert compare(program, rules, observations).verdict is verdict, shown


def test_an_eviction_that_does_not_say_what_went_is_no_evidence() -> None:
    text = BOUND.format("anon") + "d0: to-device buf\nd0: evict\nd0: usage"
    program = parse(text, file="x.hmm")
    shown = [_smooth(step.verb) for step in program.steps[:-1]]
    observations = [*shown, Observation(Status.UNSUPPORTED)]
    assert compare(program, rules_for("test_hmm", OLD), observations).verdict is Verdict.SKIP
    program = parse(text + "\na: read buf", file="x.hmm")
    observations.append(Observation(Status.DONE, 0, (10, 11, 12, 13)))
    assert compare(program, rules_for("test_hmm", OLD), observations).verdict is Verdict.PASS


COHERENT = (*NEW, "COHERENT", "INTERVAL_COHERENT", "TEST_HMM_COHERENT")
OWN_LOCAL, OWN_REMOTE = Entry(OWN.marks | Mark.LOCAL), Entry(OWN.marks | Mark.REMOTE)
LOCAL = Entry(RW.marks | Mark.LOCAL)
IN_COHERENT = "a: map buf anon 2 rw\na: write buf 10\nc0: bind a\nd0: bind a\nc0: to-device buf\n"
MOVED_IN = Entry(Mark.MOVED | Mark.LOCAL)


def _coherent(steps: str, *shown: Shown, binding: str = "interval") -> bool:
    """Whether `steps`, after two pages went to c0, may show all that."""
    program = parse(IN_COHERENT + steps, file="x.hmm")
    told: list[Shown] = [[], [0, 0], [], [], [MOVED_IN] * 2 if binding == "interval" else []]
    seen = [Observation(Status.DONE, 0, tuple(each)) for each in (*told, *shown)]
    return compare(program, rules_for(binding, COHERENT), seen).verdict is Verdict.PASS


@pytest.mark.parametrize(("device", "own"), [("c0", OWN_LOCAL), ("d0", OWN_REMOTE)])
def test_coherent_memory_stays_where_it_is_while_a_device_has_it_to_itself(device: str, own: Entry) -> None:
    text = f"{device}: exclusive buf\n"
    assert _coherent(text + f"{device}: held buf", [own] * 2, [own] * 2)
    assert not _coherent(text + f"{device}: held buf", [OWN] * 2, [own] * 2), "it did not go to system memory"
    assert not _coherent(text + f"{device}: table buf", [own] * 2, [OWN] * 2)
    assert _coherent(text + "c0: snapshot buf", [own] * 2, [NOTHING] * 2)
    assert not _coherent(text + "c0: snapshot buf", [own] * 2, [LOCAL] * 2)
    assert _coherent(text + "a: read buf[0]\nc0: snapshot buf", [own] * 2, [10], [LOCAL, NOTHING])
    assert not _coherent(text + "a: read buf[0]\nc0: snapshot buf", [own] * 2, [10], [RW, NOTHING])


def test_coherent_memory_that_a_device_has_to_itself_cannot_leave() -> None:
    text = "d0: exclusive buf[0]\n"
    first: Shown = [OWN_REMOTE]
    moved = Entry(Mark.MOVED)
    assert _coherent(text + "c0: to-system buf", first, [NOTHING, moved])
    assert not _coherent(text + "c0: to-system buf", first, [moved, moved])
    assert _coherent(text + "c0: evict", first, [1, 1])
    assert not _coherent(text + "c0: evict", first, [2, 0])
    assert _coherent(text + "c0: evict\nd0: held buf[0]", first, [1, 1], first)
    assert _coherent(text + "a: read buf[0]\nc0: evict", first, [10], [2, 0])
    # By its number the kernel may find it: since v6.15.
    for left in (0, 1):
        shown = IN_COHERENT + text + "c0: evict-by range"
        program = parse(shown, file="x.hmm")
        told: list[Shown] = [[], [0, 0], [], [], [MOVED_IN] * 2, first, [2 - left, left]]
        seen = [Observation(Status.DONE, 0, tuple(each)) for each in told]
        rules = rules_for("interval", (*COHERENT, "MIGRATE_DEVICE_RANGE"))
        assert compare(program, rules, seen).verdict is Verdict.PASS


def test_who_unbinds_gives_back_coherent_memory_and_no_other() -> None:
    text = "d0: exclusive buf[0]\nd0: unbind\nc0: snapshot buf"
    assert _coherent(text, [OWN_REMOTE], [], [LOCAL, LOCAL])
    assert not _coherent(text, [OWN_REMOTE], [], [NOTHING, LOCAL])
    assert not _passes(START + "d0: unbind\nd0: bind a\nd0: snapshot buf", ([], 0), ([], 0), ([RW] * 4, 0))


def test_the_kernel_s_driver_does_not_say_where_it_is() -> None:
    assert _coherent("c0: exclusive buf", [OWN] * 2, binding="test_hmm")
    assert not _coherent("c0: exclusive buf", [OWN_LOCAL] * 2, binding="test_hmm")


def test_the_kernel_s_driver_is_not_asked_to_evict_what_it_would_wait_for() -> None:
    for text, skipped in (("c0: exclusive buf\nc0: evict", True), ("c0: evict\nc0: exclusive buf", False)):
        why = obstacle(parse(IN_COHERENT + text, file="x.hmm"), rules_for("test_hmm", COHERENT))
        assert ("waits for ever" in (why or "")) is skipped
        assert obstacle(parse(IN_COHERENT + text, file="x.hmm"), rules_for("interval", COHERENT)) is None
