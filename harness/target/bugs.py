# SPDX-License-Identifier: GPL-2.0-only
"""Bugs of kernels that programs run into, each with its source: a crash that is one of them says so.

It stays a crash. To know why is not to have an answer from that kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.target.crashes import Crash


@dataclass(frozen=True)
class Bug:
    """`functions`: in the report of such a crash, each as the kernel prints it."""

    summary: str
    source: str
    functions: tuple[str, ...]


KNOWN = (
    Bug(
        "the rmap of a device-private page that two processes map is torn down at a bad address",
        'mm/rmap.c try_to_unmap_one() up to v5.2; mended in v5.3 by 1de13ee59225 "mm/hmm: fix bad subpage pointer '
        'in try_to_unmap_one"',
        ("page_remove_rmap", "migrate_vma"),
    ),
    Bug(
        "a hugetlb VMA is split before the lock is taken that keeps others out of its page tables",
        "mm/mmap.c __vma_adjust() of v6.1.y calls hugetlb_split(), which wants the file's i_mmap_rwsem for writing, "
        "before i_mmap_lock_write(): seen by lockdep on 6.1.192",
        ("hugetlb_split", "__vma_adjust"),
    ),
)


def known_bug(crash: Crash) -> Bug | None:
    """The known bug that `crash` is; None if it is none."""
    return next((bug for bug in KNOWN if _is(bug, crash.lines)), None)


def _is(bug: Bug, lines: Sequence[str]) -> bool:
    return all(
        any(f"{function}+0x" in line or f"{function}()" in line for line in lines) for function in bug.functions
    )


def with_bug(reason: str, found: Sequence[Crash]) -> str:
    """`reason`, and what is known of the first of the crashes that it is about."""
    bug = known_bug(found[0]) if found else None
    return reason if bug is None else f"{reason}; a known bug: {bug.summary} ({bug.source})"
