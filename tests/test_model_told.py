# SPDX-License-Identifier: GPL-2.0-only
"""The model of what is told and counted of pages: soft-dirty marks, KSM, mlock(), move_pages(), smaps, the vdso."""

from __future__ import annotations

import errno
from functools import partial

from harness.compare import Verdict
from harness.program.observations import (
    NO_MARKS,
    Element,
    Entry,
    Event,
    Happening,
    Mark,
    Merged,
    Placed,
    Soft,
)
from tests.last_step import compare_last

R = Mark.VALID
RW = Mark.VALID | Mark.WRITE
NOTHING = Entry(NO_MARKS)
ERROR = Entry(Mark.ERROR)
DIRTY, CLEAN = Soft.DIRTY, Soft.CLEAN
MERGED, ALONE = Merged.MERGED, Merged.ALONE
HERE, ABSENT, REFUSED = Placed.HERE, Placed.ABSENT, Placed.REFUSED
FEATURES = frozenset((
    "DEVMEM", "KERNEL_PAGES", "KSM", "MIGRATE_DEVICE_RANGE", "MIGRATE_FAULT_PAGE", "MOVE_PAGES", "RSS_EXACT",
    "SMAPS", "SOFT_DIRTY", "SWAP",
))  # fmt: skip
BUF = "a: map buf anon 4 rw\nd0: bind a\n"


_run = partial(compare_last, features=FEATURES)


def _verdict(text: str, *last: Element, error: int = 0, binding: str = "interval") -> Verdict:
    return _run(text, *last, error=error, binding=binding).verdict


def _passes(text: str, *last: Element, error: int = 0, binding: str = "interval") -> bool:
    verdict = _verdict(text, *last, error=error, binding=binding)
    assert verdict in (Verdict.PASS, Verdict.FAIL), verdict
    return verdict is Verdict.PASS


def test_a_write_marks_and_nothing_is_marked_that_nobody_touched() -> None:
    text = BUF + "a: write buf[0:2] 5\n"
    assert _passes(text + "a: soft-dirty buf", DIRTY, DIRTY, DIRTY, DIRTY)  # a new mapping
    text += "a: clear-soft-dirty\n"
    assert _passes(text + "a: soft-dirty buf", CLEAN, CLEAN, CLEAN, CLEAN)
    assert not _passes(text + "a: soft-dirty buf", CLEAN, CLEAN, CLEAN, DIRTY)
    assert not _passes(text + "a: soft-dirty buf", DIRTY, CLEAN, CLEAN, CLEAN)
    assert _passes(text + "a: write buf[1:3] 7\na: soft-dirty buf", CLEAN, DIRTY, DIRTY, CLEAN)
    assert not _passes(text + "a: write buf[1:3] 7\na: soft-dirty buf", CLEAN, DIRTY, CLEAN, CLEAN)
    assert not _passes(text + "d0: write buf[0] 7\na: soft-dirty buf[0]", CLEAN)
    assert _passes(text + "a: read buf\na: soft-dirty buf[0:2]", CLEAN, CLEAN)
    assert _passes(text + "a: map new shared 2 rw\na: soft-dirty new", DIRTY, DIRTY)
    for soft in (CLEAN, DIRTY):
        assert _passes(text + "a: remap buf far\na: soft-dirty far[0]", soft)


def test_cleared_marks_take_write_permissions_and_are_told_of_all_addresses() -> None:
    text = BUF + "a: write buf 5\nd0: write buf[0:2] 7\nd0: events\na: clear-soft-dirty\n"
    assert not _passes(text + "d0: table buf[0]", Entry(RW))
    assert _passes(text + "d0: snapshot buf[0]", Entry(R))
    everything = Event(Happening.SOFT_DIRTY, 0, 2**52)
    assert _passes(text + "d0: events", everything)
    assert not _passes(text + "d0: events")
    assert not _passes(text + "d0: events", Event(Happening.SOFT_DIRTY, 2**28, 2**28 + 4))
    assert not _passes(BUF + "a: write buf 5\nd0: events", everything)
    assert _passes(text + "d0: events\nd0: events")
    watched = BUF + "d0: watch buf[2:4] one-pass\na: clear-soft-dirty\nd0: watched buf[2:4]"
    heard = Entry(Mark.HEARD)
    assert _passes(watched, heard, heard)
    assert not _passes(watched, NOTHING, heard)


def test_marks_go_to_a_device_and_come_back() -> None:
    text = BUF + "a: write buf 5\na: clear-soft-dirty\na: write buf[0] 6\nd0: to-device buf\n"
    assert _passes(text + "a: soft-dirty buf[0:2]", DIRTY, CLEAN)
    assert not _passes(text + "a: soft-dirty buf[0]", CLEAN)
    assert _passes(text + "d0: to-system buf\na: soft-dirty buf[0:2]", DIRTY, CLEAN)
    assert not _passes(text + "d0: to-system buf\na: soft-dirty buf[0]", CLEAN)
    for soft in (CLEAN, DIRTY):  # "We do not preserve soft-dirty information"
        assert _passes(text + "a: fork b\na: soft-dirty buf[0]", soft)
        assert _passes(text + "a: protect buf r\na: soft-dirty buf[0]", soft)


def test_a_write_after_marks_were_cleared_in_device_memory_is_missed() -> None:
    text = BUF + "a: write buf[0:2] 5\nd0: to-device buf[0:2]\na: clear-soft-dirty\n"
    assert _passes(text + "a: soft-dirty buf[0]", CLEAN)
    written = text + "a: write buf[0] 6\na: soft-dirty buf[0]"
    assert _passes(written, DIRTY)
    missed = _run(written, CLEAN)
    assert missed.verdict is Verdict.DEVIATION
    assert "soft-dirty-missed" in missed.reason
    assert not _passes(text + "a: protect buf r\na: protect buf rw\na: write buf[0] 6\na: soft-dirty buf[0]", CLEAN)
    again = text + "a: write buf[0] 6\na: clear-soft-dirty\na: write buf[0] 7\na: soft-dirty buf[0]"
    assert not _passes(again, CLEAN)
    hole = text + "d0: to-device buf[2]\na: write buf[2] 6\na: soft-dirty buf[2]"
    assert _verdict(hole, CLEAN) is Verdict.DEVIATION


def test_what_is_locked_is_there_and_migrates() -> None:
    text = BUF + "a: write buf[0] 5\na: lock buf\n"
    assert _passes(text + "d0: snapshot buf", *[Entry(RW)] * 4)
    assert not _passes(text + "d0: snapshot buf", *[Entry(RW)] * 3, NOTHING)
    local = Entry(RW | Mark.LOCAL)
    assert _passes(text + "d0: to-device buf\nd0: snapshot buf[0]", local)
    assert _passes(BUF + "a: unmap buf[2]\na: lock buf", error=errno.ENOMEM)
    assert not _passes(BUF + "a: lock buf", error=errno.ENOMEM)
    assert _passes("a: map buf anon 1 none\na: lock buf", error=errno.ENOMEM)
    readable = "a: map buf anon 1 r\nd0: bind a\na: lock buf\na: protect buf rw\n"
    assert _passes(readable + "d0: snapshot buf", Entry(RW))  # copies are made at once
    assert not _passes(readable + "d0: snapshot buf", Entry(R | Mark.ZERO))
    for protection in ("a: unlock buf\n", "a: fork b\nd1: bind b\n"):
        device, actor = ("d1", "b") if "fork" in protection else ("d0", "a")
        loose = "a: map buf anon 1 r\nd0: bind a\na: lock buf\n" + protection + f"{actor}: protect buf rw\n"
        assert _passes(loose + f"{device}: snapshot buf", Entry(R | Mark.ZERO))


def test_equal_pages_become_one() -> None:
    text = BUF + "a: write buf[0] 5\na: write buf[1] 5\na: write buf[2] 6\nd0: write buf[0] 5\n"
    assert _passes(text + "a: merge buf", MERGED, MERGED, ALONE, ALONE)
    assert not _passes(text + "a: merge buf", ALONE, ALONE, ALONE, ALONE)
    assert not _passes(text + "a: merge buf", MERGED, MERGED, MERGED, ALONE)
    assert _passes(text + "a: unmap buf[3]\na: merge buf", error=errno.ENOMEM)
    assert not _passes(text + "a: merge buf", error=errno.EIO)
    coherent = partial(_run, error=errno.EIO, features=FEATURES | {"COHERENT", "INTERVAL_COHERENT"})
    assert coherent(text + "c0: bind a\nc0: to-device buf[3]\na: merge buf").verdict is Verdict.PASS
    assert coherent(text + "c0: bind a\nc0: to-device buf[3]\na: merge buf[0:3]").verdict is Verdict.FAIL
    text += "a: merge buf\n"
    assert not _passes(text + "d0: table buf[0]", Entry(RW))
    assert _passes(text + "d0: snapshot buf[0:3]", Entry(R), Entry(R), Entry(RW))
    both = Entry(R | Mark.LOCAL)
    assert _passes(text + "d0: to-device buf[0]\nd0: snapshot buf[0:2]", both, both)
    assert not _passes(text + "d0: to-device buf[0]\nd0: snapshot buf[0:2]", both, Entry(R))
    moved = text + "d0: to-device buf[0:3]"
    three = (Entry(Mark.MOVED | Mark.LOCAL), Entry(Mark.LOCAL), Entry(Mark.MOVED | Mark.LOCAL))
    assert _passes(moved, *three)
    # Not to where the driver could not evict it from
    assert not _passes(moved, *three, binding="mirror")
    left = (NOTHING, NOTHING, Entry(Mark.MOVED | Mark.LOCAL))
    assert _passes(moved, *left, binding="mirror")
    assert _run(moved, *left, features=FEATURES - {"MIGRATE_DEVICE_RANGE"}).verdict is Verdict.PASS
    assert _passes(text + "a: write buf[0] 9\na: read buf[0:2]", 9, 5)
    told = Event(Happening.CLEAR, 2**28, 2**28 + 2)
    heard = text.replace("a: merge", "d0: events\na: merge") + "d0: events"
    assert _passes(heard, told)
    assert not _passes(heard)


def test_move_pages_knows_no_page_of_a_device() -> None:
    text = BUF + "a: write buf[0:2] 5\nd0: to-device buf[1]\n"
    assert _passes(text + "a: move-pages buf", HERE, ABSENT, ABSENT, REFUSED)
    assert not _passes(text + "a: move-pages buf[0]", ABSENT)
    assert not _passes(text + "a: move-pages buf[1]", HERE)
    assert not _passes(text + "a: move-pages buf[1]", REFUSED)
    assert not _passes(text + "a: move-pages buf[0]", errno.EBUSY)
    assert _passes(text + "a: move-pages buf[1]\nd0: snapshot buf[1]", Entry(RW | Mark.LOCAL))
    assert _passes(text + "a: unmap buf[0]\na: move-pages buf[0]", REFUSED)


def test_a_page_of_a_device_counts_as_the_one_that_it_was() -> None:
    text = BUF + "a: write buf[0:3] 5\n"
    moved = text + "d0: to-device buf[1:3]\n"
    for each in (text, moved):
        assert _passes(each + "a: counted buf", 3, 3, 0, 0)
        assert not _passes(each + "a: counted buf", 1, 1, 0, 0)
        assert not _passes(each + "a: counted buf", 3, 3, 2, 0)
        assert not _passes(each + "a: counted buf", 3, 3, 0, 2)
    assert _passes(moved + "a: advise buf[0:2] dontneed\na: counted buf", 1, 1, 0, 0)
    shared = "a: map buf shared 4 rw\na: write buf[0:2] 5\na: counted buf"
    assert _passes(shared, 2, 0, 0, 0)
    old = FEATURES - {"RSS_EXACT"}
    assert _run(text + "a: counted buf", 3, 3, 0, 100, features=old).verdict is Verdict.PASS
    assert _run(text + "a: counted buf", 3, 3, 0, 600, features=old).verdict is Verdict.FAIL
    swapped = text + "a: swap-out buf[0]\na: counted buf"
    assert _passes(swapped, 2, 2, 1, 0)


def test_the_kernels_code_can_be_read_and_its_data_not() -> None:
    text = "a: map code vdso 1 rx\na: map data vvar 1 r\nd0: bind a\n"
    assert _passes(text + "d0: fault code read", Entry(R))
    assert not _passes(text + "d0: fault code read", Entry(RW))
    assert _passes(text + "d0: fault code write", error=errno.EPERM)
    assert _passes(text + "d0: fault data read", error=errno.EFAULT)
    assert _passes(text + "d0: snapshot data", NOTHING)
    assert not _passes(text + "d0: snapshot data", Entry(R))
    registers = FEATURES | {"VVAR_PFNMAP"}
    assert _run(text + "d0: snapshot data", ERROR, features=registers).verdict is Verdict.PASS
    assert _run(text + "d0: snapshot data", NOTHING, features=registers).verdict is Verdict.FAIL
    for region in ("code", "data"):
        assert _passes(text + f"d0: to-device {region}", error=errno.EINVAL)
        assert _passes(text + f"d0: snapshot {region}", ERROR, binding="mirror")
        assert _passes(text + f"d0: fault {region} read", error=errno.EINVAL, binding="mirror")


def test_an_empty_range_is_refused_before_anything_is_looked_at() -> None:
    text = BUF + "d0: request buf both none . own empty"
    assert _passes(text, error=errno.EINVAL)
    assert not _passes(text)
    assert _passes(text + "\nd0: snapshot buf", *[NOTHING] * 4)
