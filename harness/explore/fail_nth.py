# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness fuzz --fail-nth`: everything that can fail in an ioctl of the module fails, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from harness.explore.assault import Hear, run_in_guest
from harness.target.vm import VM

_SECONDS = 7200.0  # for all of them, 0.3 s each on a debug kernel, emulated; more on a busy machine


def fail_nth(vm: VM, calls: Sequence[str] = (), *, hear: Hear = lambda _: None) -> tuple[int, str, list[str]]:
    """Sweeps `calls`, or all. The sweep's exit status and output, and what in the kernel's log is never fine."""
    return run_in_guest(vm, "fail_nth.c", calls, seconds=_SECONDS, hear=hear)
