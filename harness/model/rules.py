# SPDX-License-Identifier: GPL-2.0-only
"""What differs between the drivers, as data, each with its source."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """How a binding answers where HMM leaves it to the driver."""

    binding: str
    dead_errors: frozenset[int]  # operations on the memory of a process that has exited
    shows_moves: bool  # migration says of each page whether it moved
    fault_shows_entries: bool  # a fault shows the resulting entries
    device_pages: int | None  # memory of a device, in pages of 4096 bytes; None if it grows
    cannot: Mapping[str, str]  # verb of a device: why the driver cannot do it, always or at times


RULES = {
    rules.binding: rules
    for rules in (
        Rules(
            "interval",
            dead_errors=frozenset({errno.ESRCH}),  # uapi/hmm_harness.h
            shows_moves=True,
            fault_shows_entries=True,
            device_pages=16384,  # kmod/main.c devmem_mb
            cannot={},
        ),
        Rules(
            "test_hmm",
            # lib/test_hmm.c: dmirror_fault() -EFAULT, dmirror_snapshot() and dmirror_migrate_*() -EINVAL
            dead_errors=frozenset({errno.EFAULT, errno.EINVAL}),
            shows_moves=False,
            fault_shows_entries=False,
            device_pages=None,  # lib/test_hmm.c dmirror_allocate_chunk()
            # lib/test_hmm.c. What its table has lost it finds again as the page of the device itself, not as the
            # one behind it that holds the data: dmirror_do_fault(), dmirror_do_read().
            cannot={
                "evict": "it evicts only when its file is closed",
                "unbind": "it is bound to the process as long as its file is open",
                "bind": "its file is bound for good to the process that opened it",
                "fault": "it faults only by reading or writing, and oopses on own pages that its table has lost",
                "read": "it oopses on own pages that its table has lost",
                "write": "it oopses on own pages that its table has lost, and warns on read-only ones",
            },
        ),
    )
}
