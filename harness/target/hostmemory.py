# SPDX-License-Identifier: GPL-2.0-only
"""How much memory this computer has left for VMs and compilers."""

from __future__ import annotations

import re
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")


def available() -> int | None:
    """MemAvailable in bytes; None where the system does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
