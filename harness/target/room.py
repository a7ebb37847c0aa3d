# SPDX-License-Identifier: GPL-2.0-only
"""How much of this computer there is for us: CPUs, and VMs that fit into its memory."""

from __future__ import annotations

import os

from harness.target import cgroups, hostmemory
from harness.target.qemu import Machine

_QEMU_MIB = 256  # that QEMU needs besides the guest's memory, translated code above all


def cpus() -> int:
    """How many CPUs this process may keep busy, at least one: a container's share may be less than it can see."""
    seen = len(os.sched_getaffinity(0))
    share = cgroups.cpus()
    return seen if share is None else max(1, min(seen, int(share)))


def fitting(machine: Machine) -> int:
    """How many VMs of `machine` there are the CPUs and the free memory for; at least one."""
    free = hostmemory.available() or 0
    return max(1, min(cpus(), free // (machine.memory_mib + _QEMU_MIB << 20)))
