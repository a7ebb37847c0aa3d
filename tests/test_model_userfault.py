# SPDX-License-Identifier: GPL-2.0-only
"""The model of userfaultfds: what is missing, what is write-protected, and what migrations make of it."""

from __future__ import annotations

import errno
from functools import partial

from harness.compare import Verdict, compare
from harness.model.rules import rules_for
from harness.program.observations import NO_MARKS, Element, Entry, Mark, Observation, Signal, Status
from harness.program.text import parse
from tests.last_step import compare_last

R = Mark.VALID
RW = Mark.VALID | Mark.WRITE
NOTHING = Entry(NO_MARKS)
ZERO = Entry(R | Mark.ZERO)
FEATURES = (
    "DEVMEM", "HMM_DMA", "MAKE_DEVICE_EXCLUSIVE", "MIGRATE_FAULT_PAGE", "POPULATE", "RANGE_UNLOCKED", "USERFAULT",
    "USERFAULT_MOVE", "USERFAULT_WP",
)  # fmt: skip
BUF = "a: map buf anon 4 rw\nd0: bind a\n"


_run = partial(compare_last, features=FEATURES)


def _passes(text: str, *last: Element, error: int = 0, binding: str = "interval") -> bool:
    comparison = _run(text, *last, error=error, binding=binding)
    assert comparison.verdict in (Verdict.PASS, Verdict.FAIL), comparison
    return comparison.verdict is Verdict.PASS


def test_what_is_missing_nobody_gets() -> None:
    text = BUF + "a: write buf[0] 5\na: userfault buf missing\n"
    assert _passes(text + "a: read buf[0:2]", 5, Signal.BUS)
    assert not _passes(text + "a: read buf[0:2]", 5, 0)
    assert _passes(text + "a: write buf[1] 7", Signal.BUS)
    assert _passes(text + "d0: snapshot buf[0:2]", Entry(RW), NOTHING)
    assert _passes(text + "d0: fault buf write", Entry(RW), error=errno.EFAULT)
    assert not _passes(text + "d0: fault buf[1] read", ZERO)
    assert _passes(text + "d0: read-unlocked buf[1]", error=errno.EFAULT)
    assert _passes(text + "a: advise buf populate-read", error=errno.EFAULT)
    assert _passes(text + "a: advise buf[0] dontneed\na: read buf[0]", Signal.BUS)
    assert _passes(text + "d0: exclusive buf[1]", error=errno.EFAULT)
    assert _passes("a: map buf anon 1 rw\na: unmap buf\na: userfault buf wp", error=errno.EINVAL)


def test_what_is_brought_is_there() -> None:
    text = BUF + "a: userfault buf missing\na: userfault-copy buf[0:2] 5\na: userfault-zero buf[2]\n"
    assert _passes(text + "a: read buf", 5, 6, 0, Signal.BUS)
    assert _passes(text + "d0: snapshot buf", Entry(RW), Entry(RW), ZERO, NOTHING)
    assert not _passes(text + "d0: snapshot buf", Entry(R), Entry(RW), ZERO, NOTHING)
    assert _passes(text + "a: userfault-copy buf[2:4] 9", error=errno.EEXIST)
    assert not _passes(text + "a: userfault-copy buf[3] 9", error=errno.EEXIST)
    assert _passes(BUF + "a: userfault-copy buf 9", error=errno.ENOENT)
    assert _passes(
        BUF + "a: userfault buf missing\na: protect buf r\na: userfault-copy buf 9\na: read buf", 9, 10, 11, 12
    )


def test_of_a_file_only_what_is_not_in_it_is_missing() -> None:
    text = "a: map buf shared 4 rw\na: fork b\nb: write buf[0:2] 5\na: userfault buf missing\nd0: bind a\n"
    assert _passes(text + "a: read buf[0:3]", 5, 6, Signal.BUS)
    assert _passes(text + "a: userfault-copy buf[1:3] 9", error=errno.EEXIST)
    assert _passes(text + "a: userfault-copy buf[2:4] 9\nb: read buf", 5, 6, 9, 10)
    assert _passes(text + "a: truncate buf 3\na: userfault-zero buf[3]", error=errno.EFAULT)
    assert _passes(text + "a: advise buf[0] remove\nd0: fault buf[0] read", error=errno.EFAULT)


def test_what_is_answered_comes_for_who_can_wait() -> None:
    text = BUF + "a: userfault buf answered\n"
    assert _passes(text + "a: read buf[1:3]", 2, 3)
    assert not _passes(text + "a: read buf[1:3]", 0, 0)
    assert _passes(text + "d0: read buf", error=errno.EFAULT)
    assert _passes(text + "d0: read-unlocked buf", 1, 2, 3, 4)
    assert _passes(text + "d0: request buf[0] both none . own fresh", error=errno.EFAULT)
    assert _passes(text + "d0: request buf[0] fault none . own unlocked", Entry(RW))
    assert _passes(text + "a: advise buf populate-read\nd0: read buf", 1, 2, 3, 4)
    assert _run(text + "d0: snapshot buf", binding="mirror").verdict is Verdict.SKIP


def test_what_is_protected_can_be_read() -> None:
    text = BUF + "a: write buf 5\na: userfault buf wp\nd0: write buf 5\na: userfault-protect buf[1:3]\n"
    assert _passes(text + "d0: table buf", *[NOTHING] * 4)
    assert not _passes(text + "d0: table buf[1]", Entry(RW))
    assert _passes(text + "d0: snapshot buf", Entry(RW), Entry(R), Entry(R), Entry(RW))
    assert not _passes(text + "d0: snapshot buf[1]", Entry(RW))
    assert _passes(text + "d0: read buf", 5, 6, 7, 8)
    assert _passes(text + "a: write buf 9", 0, Signal.BUS, Signal.BUS, 0)
    assert _passes(text + "d0: write buf 9", 0, error=errno.EFAULT)
    assert _passes(text + "a: protect buf r\na: protect buf rw\na: write buf[1] 9", Signal.BUS)
    assert _passes(text + "a: userfault-unprotect buf\na: write buf 9", 0, 0, 0, 0)
    assert _passes(text + "a: fork b\nb: write buf 9", 0, 0, 0, 0)
    assert _passes(text + "a: advise buf[1] dontneed\na: write buf[1] 9", 0)
    assert _passes(BUF + "a: userfault buf missing\na: userfault-protect buf", error=errno.ENOENT)
    assert _passes(BUF + "a: userfault buf wp\na: userfault-protect buf\na: write buf 9", 0, 0, 0, 0)


def test_protection_moves_with_the_page() -> None:
    text = BUF + "a: write buf 5\na: userfault buf wp\na: userfault-protect buf[1]\nd0: to-device buf\n"
    local, readonly = Entry(RW | Mark.LOCAL), Entry(R | Mark.LOCAL)
    assert _passes(text + "d0: snapshot buf", local, readonly, local, local)
    assert _passes(text + "a: write buf[1] 9\nd0: snapshot buf", local, Entry(R), local, local)
    assert not _passes(text + "a: write buf[1] 9\nd0: snapshot buf[1]", readonly)
    assert _passes(text + "a: read buf[1]\na: write buf[1] 9", Signal.BUS)
    assert _passes(text + "d0: fault buf[1] write", error=errno.EFAULT)
    assert _run(text + "d0: fault buf[1] write", readonly).reason.startswith("own-readonly-write")
    assert _run(text + "d0: fault buf[1] write", local).verdict is Verdict.FAIL
    assert _passes(text + "d1: bind a\nd1: fault buf[1] write", error=errno.EFAULT)
    other = "d1: bind a\nd1: fault buf[1] write\nd0: snapshot buf"
    assert _passes(text + other, local, Entry(R), local, local)


def test_protection_ends_with_mremap() -> None:
    text = BUF + "a: write buf 5\na: userfault buf wp\na: userfault-protect buf[0:2]\na: remap buf moved\n"
    assert _passes(text + "a: write moved 9", 0, 0, 0, 0)
    assert not _passes(text + "a: write moved 9", Signal.BUS, 0, 0, 0)
    again = text + "a: userfault moved wp\n"
    assert _passes(again + "a: write moved 9", 0, 0, 0, 0)
    assert not _passes(again + "a: write moved 9", Signal.BUS, 0, 0, 0)
    assert _passes(again + "d0: write moved 9", 0, 0, 0, 0)
    assert _passes(again + "a: userfault-protect moved[2]\na: write moved 9", 0, 0, Signal.BUS, 0)


def test_a_protection_that_mremap_leaves_deviates_where_somebody_is_asked_again() -> None:
    keeps = (*FEATURES, "USERFAULT_WP_MOVES")
    text = BUF + "a: write buf 5\na: userfault buf wp\na: userfault-protect buf[0]\na: remap buf moved\n"
    assert _run(text + "a: write moved 9", 0, 0, 0, 0, features=keeps).verdict is Verdict.PASS
    again = text + "a: userfault moved wp\na: write moved 9"
    comparison = _run(again, Signal.BUS, 0, 0, 0, features=keeps)
    assert comparison.verdict is Verdict.DEVIATION
    assert comparison.reason.startswith("wp-moved")
    assert _run(again, 0, 0, 0, 0, features=keeps).verdict is Verdict.FAIL
    # Of what was not protected nothing is left.
    nothing = again.replace("a: userfault-protect buf[0]\n", "")
    assert _run(nothing, 0, 0, 0, 0, features=keeps).verdict is Verdict.PASS


def test_a_protected_zero_page_that_moves_deviates() -> None:
    text = BUF + "a: read buf\na: userfault buf wp\na: userfault-protect buf[0]\n"
    moved = Entry(Mark.MOVED | Mark.LOCAL)
    comparison = _run(text + "d0: to-device buf", moved, moved, moved, moved)
    assert comparison.verdict is Verdict.DEVIATION
    assert comparison.reason.startswith("wp-zero-lost")
    assert _passes(text + "d0: to-device buf", NOTHING, moved, moved, moved)
    assert not _passes(text + "d0: to-device buf", NOTHING, NOTHING, moved, moved)
    collected = Entry(Mark.COLLECTED)
    filled = Entry(Mark.COLLECTED | Mark.MOVED)
    move = text + "d0: move buf system device m plain"
    assert _run(move, filled, filled, filled, filled).reason.startswith("wp-zero-lost")
    assert _passes(move, collected, filled, filled, filled)
    assert _run(move.replace("device m", "device ."), filled, *[collected] * 3).verdict is Verdict.FAIL


def test_no_migration_brings_what_is_missing() -> None:
    text = BUF + "a: write buf[0] 5\na: read buf[1]\na: userfault buf missing\n"
    moved = Entry(Mark.MOVED | Mark.LOCAL)
    assert _passes(text + "d0: to-device buf", moved, NOTHING, NOTHING, NOTHING)
    assert not _passes(text + "d0: to-device buf", moved, NOTHING, moved, NOTHING)
    assert _passes(text + "d0: to-device buf\na: read buf", 5, 0, Signal.BUS, Signal.BUS)
    stays = Entry(Mark.COLLECTED)
    valid = Entry(Mark.COLLECTED | Mark.MOVED | RW)
    assert _passes(text + "d0: move buf system device m plain", valid, stays, stays, stays)
    # The one page that there is no memory for is the first that is collected, though it would not have moved.
    swapped = BUF + "a: write buf[1:3] 5\na: userfault buf missing\nd0: to-device-short buf"
    assert _passes(swapped, NOTHING, moved, moved, NOTHING)


def test_a_request_that_fails_along_where_a_page_is_missing_deviates() -> None:
    request = "d0: request buf none both b... own fresh"
    text = BUF + "a: read buf[0]\na: userfault buf missing\n" + request
    assert _run(text, error=errno.EFAULT).reason.startswith("faulted-along")
    assert _passes(text, Entry(RW), NOTHING, NOTHING, NOTHING)
    apart = BUF + "a: read buf[0]\na: userfault buf[1:4] missing\n" + request
    assert not _passes(apart, error=errno.EFAULT), "that is another mapping"


def test_a_request_that_fails_along_where_a_page_is_protected_deviates() -> None:
    text = "a: map buf anon 2 rw\nd0: bind a\na: write buf[1] 5\na: userfault buf wp\na: userfault-protect buf\n"
    both = text + "d0: request buf none both bf own fresh"
    assert _run(both, error=errno.EFAULT).reason.startswith("faulted-along")
    assert _passes(both, Entry(RW), Entry(R))
    assert _passes(text + "d0: request buf none both ff own fresh", ZERO, Entry(R))


def test_a_page_moves_if_it_is_nobody_elses() -> None:
    text = BUF + "a: map to anon 4 rw\na: userfault to missing\na: write buf[0:2] 5\nd0: read buf[0:2]\n"
    move = "a: userfault-move to[1] buf[0]\n"
    assert _passes(text + move + "a: read to", Signal.BUS, 5, Signal.BUS, Signal.BUS)
    assert _passes(text + move + "a: read buf[0]", 0)
    assert _passes(text + move + "d0: snapshot to[0:2]", NOTHING, Entry(RW))
    assert not _passes(text + move + "d0: table buf[0]", Entry(RW))
    assert _passes(text + move + "a: userfault-move to[1] buf[1]", error=errno.EEXIST)
    assert _passes(text + "a: userfault-move to[1] buf[3]", error=errno.ENOENT)
    assert _passes(text + "a: userfault-move buf[3] buf[1]", error=errno.EINVAL)
    assert _passes(text + "a: protect to r\n" + move, error=errno.EINVAL)
    assert _passes(text + "a: fork b\n" + move, error=errno.EBUSY)
    assert _passes(text + "d0: to-device buf[0]\n" + move, error=errno.EFAULT)
    assert not _passes(text + "d0: to-device buf[0]\n" + move)
    assert _passes(text + "d0: exclusive buf[0]\n" + move, error=errno.EFAULT)
    assert _passes(text + "a: read buf[2]\na: userfault-move to[1] buf[2]\nd0: snapshot to[1]", ZERO)
    forked = text + "a: fork b\nb: exit\n" + move
    assert _passes(forked)
    assert _passes(forked, error=errno.EBUSY), "it was shared"


def test_what_needs_a_userfaultfd_is_skipped_without() -> None:
    program = parse("a: map buf anon 2 rw\na: userfault buf wp\nd0: bind a\nd0: snapshot buf", file="x.hmm")
    seen = [Observation(Status.DONE)] * 4
    for features, words in (((), "userfaultfd(2)"), (("USERFAULT",), "UFFDIO_WRITEPROTECT")):
        comparison = compare(program, rules_for("interval", features), seen)
        assert comparison.verdict is Verdict.SKIP
        assert words in comparison.reason
