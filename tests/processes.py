# SPDX-License-Identifier: GPL-2.0-only
"""The processes that a test's command left, told by a variable in their environment."""

from __future__ import annotations

from pathlib import Path


def marked_processes(marker: str) -> dict[int, str]:
    """Process id and program of all whose environment has MARKED_BY_TEST=`marker`."""
    wanted = f"MARKED_BY_TEST={marker}".encode()
    found = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    found[int(process.name)] = (process / "comm").read_text().strip()
            except OSError:
                continue  # it ended meanwhile
    return found
