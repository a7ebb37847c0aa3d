# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness fuzz --fail-nth`: everything that can fail in an ioctl of the module fails, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from harness.explore.assault import run_in_guest
from harness.target.vm import VM

_SECONDS = 3000.0  # for all of them, on a debug kernel, emulated, on a busy machine


def fail_nth(vm: VM, calls: Sequence[str] = ()) -> tuple[int, str, list[str]]:
    """Sweeps `calls`, or all. The sweep's exit status and output, and what in the kernel's log is never fine."""
    return run_in_guest(vm, "fail_nth.c", calls, seconds=_SECONDS)
