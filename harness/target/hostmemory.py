# SPDX-License-Identifier: GPL-2.0-only
"""How much memory this computer has left for VMs and compilers."""

from __future__ import annotations

import re
from pathlib import Path

from harness.target import cgroups

_MEMINFO = Path("/proc/meminfo")


def available() -> int | None:
    """MemAvailable in bytes, or what our control group leaves of it; None where the system does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        found = None
    known = [int(found[1]) * 1024 if found else None, cgroups.memory_left()]
    return min((each for each in known if each is not None), default=None)
