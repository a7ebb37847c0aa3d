# SPDX-License-Identifier: GPL-2.0-only
"""The reference model of memory that is swapped out."""

from __future__ import annotations

import errno

import pytest

from harness.compare import Verdict, compare, obstacle
from harness.model.allowed import Count
from harness.model.rules import FEATURES, Rules, rules_for
from harness.model.world import World
from harness.program.observations import NO_MARKS, Element, Entry, Mark, Observation, Residence, Status, Told
from harness.program.program import Program
from harness.program.text import parse

IN, OUT = Residence.IN, Residence.OUT
R = Mark.VALID
RW = Mark.VALID | Mark.WRITE
NOTHING = Entry(NO_MARKS)
COLLECTED = Entry(RW | Mark.COLLECTED)
MOVED = Entry(Mark.MOVED | Mark.LOCAL)
NEW = set(FEATURES) - {"MIGRATE_PFN_COMPOUND", "MAKE_DEVICE_EXCLUSIVE_RANGE"}
RULES = rules_for("interval", NEW)
OLD = rules_for("interval", NEW - {"MIGRATE_FAULT_PAGE"})
TEST_HMM = rules_for("test_hmm", NEW)
TEST_HMM_OLD = rules_for("test_hmm", {*NEW, "MAKE_DEVICE_EXCLUSIVE_RANGE"} - {"MAKE_DEVICE_EXCLUSIVE"})
BUF = "a: map buf anon 2 rw\na: write buf 5\nd0: bind a\n"


def _program(text: str) -> Program:
    return parse(text, file="x.hmm")


def _last(text: str, rules: Rules = RULES, **told: tuple[Element, ...]) -> tuple[list[object], frozenset[int]]:
    """What is allowed of the last step. `told`: what was observed of steps, `s3` of the third."""
    program = _program(text)
    world = World(program, rules)
    for number, step in enumerate(program.steps, 1):
        observed = Observation(Status.DONE, 0, told.get(f"s{number}", ()))
        expectation = world.step(step, observed)
        world.learn(step, observed)
    return list(expectation.elements), expectation.errors


def _allows(text: str, *sets: set[Element], rules: Rules = RULES, **told: tuple[Element, ...]) -> None:
    """The last step shows one of each of `sets` and nothing else out of what is known here."""
    allowed, errors = _last(text, rules, **told)
    assert 0 in errors
    assert len(allowed) == len(sets)
    known = {IN, OUT, NOTHING, Entry(R), Entry(RW), MOVED, Entry(R | Mark.ZERO), *range(5, 9), 0, 50, 51, *Told}
    for each, elements in zip(allowed, sets, strict=True):
        assert {element for element in known | elements if each.admits(element)} == elements  # type: ignore[attr-defined]


def test_what_one_process_has_goes_out_and_comes_back() -> None:
    _allows(f"{BUF}a: swap-out buf", {OUT}, {OUT})
    _allows(f"{BUF}d0: write buf 7\na: swap-out buf\nd0: table buf", {NOTHING}, {NOTHING})
    _allows(f"{BUF}a: swap-out buf[1]\nd0: snapshot buf", {Entry(RW)}, {NOTHING})
    _allows(f"{BUF}a: swap-out buf\na: read buf[0]\nd0: snapshot buf", {Entry(R), Entry(RW)}, {NOTHING})
    _allows(f"{BUF}a: swap-out buf\nd0: fault buf write", {Entry(RW)}, {Entry(RW)})
    _allows(f"{BUF}a: swap-out buf\nd0: read buf", {5}, {6})
    _allows(f"{BUF}a: protect buf r\na: swap-out buf\nd0: fault buf read", {Entry(R)}, {Entry(R)})
    assert _last(f"{BUF}a: protect buf r\na: swap-out buf\nd0: fault buf write")[1] == {errno.EPERM}


def test_what_has_a_reason_to_stay_stays() -> None:
    _allows(f"{BUF}d0: to-device buf[0]\na: swap-out buf", {IN}, {OUT})
    _allows(f"{BUF}c0: bind a\nc0: to-device buf[0]\na: swap-out buf", {IN}, {OUT})
    _allows(f"{BUF}d0: exclusive buf[0]\na: swap-out buf", {IN}, {OUT})
    _allows(f"{BUF}a: pin buf[0]\na: swap-out buf", {IN}, {OUT})
    _allows(f"{BUF}a: pin buf[0]\na: unpin\na: swap-out buf", {OUT}, {OUT})
    _allows(f"{BUF}a: fork b\nb: write buf[0] 9\na: swap-out buf", {OUT}, {IN})
    _allows(f"{BUF}a: fork b\nb: exit\na: swap-out buf", {OUT}, {OUT})
    _allows(f"{BUF}a: advise buf[0] free\na: swap-out buf", {IN, OUT}, {OUT})
    _allows("a: map buf anon 3 rw\na: read buf[0]\na: write buf[1] 5\na: swap-out buf", {IN}, {OUT}, {OUT})
    assert _last(f"{BUF}a: unmap buf[0]\na: swap-out buf")[1] == {errno.ENOMEM}
    assert _last("a: map buf hugetlb 512 rw\na: swap-out buf")[1] == {errno.EINVAL}


def test_advice_that_shows_nothing_may_have_been_followed() -> None:
    text = f"{BUF}a: map other anon 1 rw\na: swap-out other\na: advise buf pageout\n"
    _allows(f"{text}d0: snapshot buf[0]", {NOTHING, Entry(RW)})
    _allows(f"{text}d0: read buf", {5}, {6})
    _allows(f"{text}d0: to-device buf[0]", {MOVED, NOTHING}, s7=(NOTHING,))
    _allows(f"{text}d0: to-device buf[0]", {MOVED}, s7=(MOVED,))
    # Without swap space, which the program does not ask for, nothing can go
    _allows(f"{BUF}a: advise buf pageout\nd0: snapshot buf[0]", {Entry(RW)})


def test_shared_memory_goes_from_all_tables() -> None:
    text = "a: map shm shared 2 rw\na: write shm 5\nd0: bind a\na: swap-out shm\n"
    _allows("a: map shm shared 2 rw\na: write shm[0] 5\na: swap-out shm", {OUT}, {OUT})
    _allows(f"{text}d0: snapshot shm", {NOTHING}, {NOTHING})
    _allows(f"{text}d0: read shm", {5}, {6})
    _allows(f"{text}a: swap-out shm", {IN, OUT}, {IN, OUT})


def _counts(text: str, rules: Rules = RULES) -> tuple[tuple[int, int | None], ...]:
    """At least and at most so many pages are resident, anonymous and swapped out."""
    allowed, _ = _last(text, rules)
    return tuple((count.low, count.high) for count in allowed[:3] if isinstance(count, Count))


def test_what_is_swapped_out_counts_as_that() -> None:
    assert _counts(f"{BUF}a: swap-out buf[0]\na: counted buf") == ((1, 1), (1, 1), (1, 1))
    for backing in ("shared", "file"):
        text = f"a: map shm {backing} 4 rw\na: write shm[0:3] 5\nd0: bind a\na: swap-out shm\n"
        assert _counts(f"{text}a: counted shm") == ((0, 0), (0, 0), (3, 3))
        assert _counts(f"{text}d0: to-device shm\na: counted shm") == ((0, 0), (0, 0), (3, 3))
        assert _counts(f"{text}a: fork b\nb: counted shm") == ((0, 0), (0, 0), (3, 3))
        assert _counts(f"{text}a: read shm[0]\na: counted shm") == ((1, 1), (0, 0), (2, 2)), "nothing comes along"
        assert _counts(f"{text}a: fork b\nb: read shm[0]\na: counted shm") == ((0, 0), (0, 0), (2, 2))
        assert _counts(f"{text}d0: write shm[0] 7\na: swap-out shm[0]\na: counted shm") == ((0, 0), (0, 0), (3, 3))
        assert _counts(f"{text}a: unmap shm[0]\na: map end anon 1 r\na: read end\na: counted end") == ((0, 0),) * 3


def test_what_was_never_written_is_dropped_or_swapped_out() -> None:
    assert _counts("a: map shm shared 2 rw\na: read shm\na: swap-out shm\na: counted shm") == ((0, 0), (0, 0), (0, 2))


def test_what_may_have_been_swapped_out_may_count_as_that() -> None:
    """By advice that shows nothing, or where it may have been brought back since."""
    text = "a: map shm shared 2 rw\na: map out anon 1 r\na: write shm 5\nd0: bind a\na: swap-out out\n"
    assert _counts(f"{text}a: advise shm pageout\na: counted shm") == ((0, 2), (0, 0), (0, 2))
    assert _counts("a: map shm shared 2 rw\na: write shm 5\na: advise shm pageout\na: counted shm")[2] == (0, 0)
    # test_hmm, of a page that it cannot have to itself, and of those behind it
    text = "a: map shm shared 3 rw\na: write shm 5\nd0: bind a\na: swap-out shm\nd0: exclusive shm\na: counted shm"
    assert _counts(text, TEST_HMM_OLD) == ((1, 3), (0, 0), (0, 2))


def test_private_views_of_a_file_count_what_is_behind_where_they_have_nothing() -> None:
    """And those that cannot be written count what is behind in any case: fs/proc/task_mmu.c smap_gather_stats()."""
    text = "a: map f private-file 2 rw\na: read f\na: write f[0] 5\na: swap-out f\n"
    assert _counts(f"{text}a: counted f") == ((0, 0), (0, 0), (1, 2))
    assert _counts(f"{text}a: read f[0]\na: counted f") == ((1, 1), (1, 1), (0, 1))
    text = "a: map f private-file 1 rw\na: read f\na: fork b\na: write f 5\nb: read f\nb: swap-out f\n"
    assert _counts(f"{text}a: counted f") == ((1, 1), (1, 1), (0, 0))
    assert _counts(f"{text}a: protect f r\na: counted f") == ((1, 1), (1, 1), (0, 1))


def test_a_migration_passes_over_it() -> None:
    text = f"{BUF}a: swap-out buf[0]\n"
    _allows(f"{text}d0: to-device buf", {NOTHING}, {MOVED})
    _allows(f"{text}d0: move buf system device m plain", {NOTHING}, {Entry(RW | Mark.COLLECTED | Mark.MOVED)})
    _allows(f"{text}d0: move buf system system m plain", {NOTHING}, {Entry(RW | Mark.COLLECTED | Mark.MOVED)})


def test_what_may_be_in_the_swap_cache_may_stay_there() -> None:
    text = f"{BUF}a: swap-out buf\na: write buf[0] 5\n"
    _allows(f"{text}d0: to-device buf[0]", {MOVED, NOTHING}, s6=(NOTHING,))
    _allows(f"{text}d0: to-device buf[0]\nd0: snapshot buf[0]", {Entry(RW | Mark.LOCAL)}, s6=(MOVED,))
    _allows(f"{text}d0: to-device buf[0]\nd0: snapshot buf[0]", {Entry(RW)}, s6=(NOTHING,))
    moved = Entry(RW | Mark.COLLECTED | Mark.MOVED)
    _allows(f"{text}d0: move buf[0] system device m plain", {COLLECTED, moved})
    # For a child that has not touched it, it is in swap space: it cannot go
    text = f"{BUF}a: swap-out buf\na: fork b\na: read buf[0]\n"
    _allows(f"{text}d0: to-device buf", {NOTHING}, {NOTHING})
    _allows(f"{text}d0: move buf[0] system device m plain", {NOTHING, Entry(R | Mark.COLLECTED)})
    _allows(f"{text}b: exit\nd0: to-device buf[0]", {MOVED, NOTHING}, s8=(NOTHING,))


def test_a_child_has_it_as_well() -> None:
    text = f"{BUF}d1: bind a\na: swap-out buf\na: fork b\nd1: unbind\nd1: bind b\n"
    _allows(f"{text}d0: read buf\nd1: snapshot buf", {NOTHING}, {NOTHING})
    _allows(f"{text}d1: write buf[0] 50\nd0: snapshot buf", {NOTHING}, {NOTHING})
    _allows(f"{text}d1: write buf[0] 50\na: read buf", {5}, {6})
    _allows(f"{text}a: read buf\nd0: snapshot buf[0]", {Entry(R)})
    _allows(f"{text}a: write buf[0] 50\nb: exit\nd0: snapshot buf", {Entry(RW)}, {NOTHING})


def test_what_is_let_go_reads_as_new() -> None:
    _allows(f"{BUF}a: swap-out buf\na: advise buf dontneed\nd0: read buf", {0}, {0})
    _allows(f"{BUF}a: swap-out buf\na: advise buf free\nd0: read buf", {0}, {0})
    _allows(f"{BUF}a: swap-out buf\na: remap buf new\nd0: read new", {5}, {6})


def test_it_is_heard() -> None:
    text = f"{BUF}d0: read buf\na: swap-out buf[0]\nd0: events"
    program = _program(text)
    world = World(program, RULES)
    for step in program.steps:
        expectation = world.step(step, Observation(Status.DONE))
    assert expectation.hearing is not None
    (complaint, _) = expectation.hearing.complaints(())
    assert complaint == "`5  a: swap-out buf[0]`: heard no clear of buf[0]"


def test_a_driver_that_marks_nothing_dirty_may_lose_what_it_wrote() -> None:
    text = f"{BUF}a: advise buf free\nd0: write buf 50\n"
    _allows(f"{text}a: read buf", {50}, {51})
    _allows(f"{text}a: swap-out buf", {OUT}, {OUT})
    _allows(f"{text}a: read buf", {50, 0}, {51, 0}, rules=TEST_HMM)
    _allows(f"{text}a: read buf\na: read buf", {50, 0}, {51, 0}, rules=TEST_HMM, s6=(50, 51))
    _allows(f"{text}a: write buf 7\na: read buf", {7}, {8}, rules=TEST_HMM)
    _allows(f"{BUF}a: swap-out buf\na: read buf\nd0: write buf 50\na: read buf", {5, 50}, {6, 51}, rules=TEST_HMM)
    shared = "a: map shm shared 1 rw\nd0: bind a\na: read shm\nd0: write shm 50\na: read shm"
    _allows(shared, {0, 50}, rules=TEST_HMM)
    _allows(shared, {50})


@pytest.mark.parametrize("back", ["a: read buf", "d0: to-system buf\na: read buf"])
def test_a_migration_that_loses_the_dirty_bit_deviates_where_kernels_do_that(back: str) -> None:
    text = (
        f"{BUF}a: advise buf free\na: write buf 50\nd0: to-device buf\n{back}\na: advise buf pageout\na: read buf\n"
    )
    program = _program(text)
    zeros = [Observation(Status.DONE, 0, (0, 0))]
    first = [Observation(Status.DONE)] * 4 + [
        Observation(Status.DONE, 0, (0, 0)),
        Observation(Status.DONE, 0, (MOVED,) * 2),
    ]
    first[1] = Observation(Status.DONE, 0, (0, 0))
    if "to-system" in back:
        first.append(Observation(Status.DONE, 0, (Entry(Mark.MOVED),) * 2))
    observed = [*first, Observation(Status.DONE, 0, (50, 51)), Observation(Status.DONE), *zeros]
    old, new = compare(program, OLD, observed), compare(program, RULES, observed)
    assert (old.verdict, new.verdict) == (Verdict.DEVIATION, Verdict.FAIL)
    assert old.reason.startswith("dirty-lost: ")
    # and then it is zeros for good
    again = _program(f"{text}a: read buf")
    assert compare(again, OLD, [*observed, *zeros]).verdict is Verdict.DEVIATION
    assert compare(again, OLD, [*observed, Observation(Status.DONE, 0, (50, 51))]).verdict is Verdict.FAIL
    # What was never given up has swap space, or stays
    kept = _program(text.replace("a: advise buf free\n", ""))
    assert compare(kept, OLD, [*observed[:3], *observed[4:]]).verdict is Verdict.FAIL


def test_user_space_is_told_where_pages_are() -> None:
    here: set[Element] = {Told.PRESENT}
    device: set[Element] = {Told.SWAP_IN_CORE}
    _allows(f"{BUF}d0: to-device buf[0]\na: pagemap buf", device, here)
    _allows(f"{BUF}c0: bind a\nc0: to-device buf[0]\na: pagemap buf", here, here)
    _allows(f"{BUF}d0: exclusive buf[0]\na: pagemap buf", device, here)
    _allows(f"{BUF}a: swap-out buf[0]\na: pagemap buf", {Told.SWAP, Told.SWAP_IN_CORE}, here)
    _allows("a: map buf anon 2 rw\na: read buf[0]\na: pagemap buf", here, {Told.NOTHING})
    _allows(
        "a: map f file 2 rw\na: read f[0]\na: advise f dontneed\na: pagemap f",
        {Told.NOTHING, Told.CACHED},
        {Told.NOTHING},
    )
    assert _last(f"{BUF}a: unmap buf[0]\na: pagemap buf")[1] == {errno.ENOMEM}


def test_a_kernel_without_swap_space_is_told_what_it_needs() -> None:
    why = obstacle(_program(f"{BUF}a: swap-out buf"), rules_for("interval", NEW - {"SWAP"}))
    assert why is not None
    assert "needs swap space (CONFIG_SWAP" in why
