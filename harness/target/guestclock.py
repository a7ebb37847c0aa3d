# SPDX-License-Identifier: GPL-2.0-only
"""Time as a guest has it: on a computer that has too much to do, what is late is not the guest."""

from __future__ import annotations

import time
from pathlib import Path

_PROC = Path("/proc")


class GuestClock:
    """A clock, in seconds, that stands still while QEMU waits for a CPU of this computer.

    Of its threads, that counts which has waited longest. Where the kernel does not tell (proc(5), schedstat), or QEMU
    has ended, it is a clock like others.
    """

    def __init__(self, pid: int, proc: Path = _PROC) -> None:
        """`pid`: QEMU's process."""
        self._tasks = proc / str(pid) / "task"
        self._waited = 0.0

    def __call__(self) -> float:
        """Seconds from some moment on; never less than before."""
        now = time.monotonic()
        self._waited = max(self._waited, self._longest())
        return now - self._waited

    def _longest(self) -> float:
        waited = [0.0]
        try:
            for task in self._tasks.iterdir():
                waited.append(int((task / "schedstat").read_text().split()[1]) / 1e9)
        except (OSError, ValueError, IndexError):  # a thread that has just ended, among others
            pass
        return max(waited)
