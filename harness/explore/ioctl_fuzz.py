# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness fuzz`: good, bad and random ioctls at the module."""

from __future__ import annotations

import math

from harness.explore.assault import Hear, run_in_guest
from harness.target.vm import VM

_GRACE = 180.0  # seconds for the fuzzer to wind down, and to find out who is stuck


def fuzz(
    vm: VM, *, seconds: float, seed: int, wrong: bool = False, hear: Hear = lambda _: None
) -> tuple[int, str, list[str]]:
    """Fuzzes for `seconds`. The fuzzer's exit status and output, and what in the kernel's log is never fine.

    `wrong`: with deliberate mistakes on and off.
    """
    arguments = ["-t", f"{math.ceil(seconds)}", "-s", f"{seed}", *(["-w"] if wrong else [])]
    return run_in_guest(vm, "ioctl_fuzz.c", arguments, seconds=seconds + _GRACE, hear=hear)
