# SPDX-License-Identifier: GPL-2.0-only
"""What differs between the drivers, as data, each with its source."""

from __future__ import annotations

import errno
from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """How a binding answers where HMM leaves it to the driver."""

    binding: str
    dead_errors: frozenset[int]  # operations on the memory of a process that has exited
    shows_moves: bool  # migration says of each page whether it moved
    fault_shows_entries: bool  # a fault shows the resulting entries


RULES = {
    rules.binding: rules
    for rules in (
        Rules(
            "interval",
            dead_errors=frozenset({errno.ESRCH}),  # uapi/hmm_harness.h
            shows_moves=True,
            fault_shows_entries=True,
        ),
        Rules(
            "test_hmm",
            # lib/test_hmm.c: dmirror_fault() -EFAULT, dmirror_snapshot() and dmirror_migrate_*() -EINVAL
            dead_errors=frozenset({errno.EFAULT, errno.EINVAL}),
            shows_moves=False,
            fault_shows_entries=False,
        ),
    )
}
