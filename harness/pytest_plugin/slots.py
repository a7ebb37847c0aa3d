# SPDX-License-Identifier: GPL-2.0-only
"""How many VMs run at once, of all pytest processes of a user together: pytest-xdist starts as many as it is told.

Each VM holds a slot, a lock on a file: whatever ends the process frees it. Who waits shows it by another lock, and
who has a VM between two tests gives it up then: no process waits for another to end.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from harness.progress import Progress

_POLL_SECONDS = 0.1
_LET_OTHERS = 3 * _POLL_SECONDS


class Slot:
    """One of `count` slots whose lock files are in `directory`; not for more than one thread."""

    def __init__(self, directory: Path, count: int, progress: Progress) -> None:
        self._directory = directory
        self._count = count
        self._progress = progress
        self._held: IO[bytes] | None = None

    def take(self) -> None:
        """Returns when a slot is held; it may be already."""
        if self._held is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        if not self.wanted() and self._try():
            return
        with (
            self._progress.step(f"waiting for another process to end one of {self._count} VMs"),
            self._open("waiting") as waiting,
        ):
            fcntl.flock(waiting, fcntl.LOCK_SH)
            time.sleep(_LET_OTHERS)  # whoever waits already goes first
            while not self._try():
                time.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Gives the slot back, if one is held."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def wanted(self) -> bool:
        """Whether another process waits for a slot."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with self._open("waiting") as waiting:
            return not _lock(waiting)

    def _try(self) -> bool:
        for number in range(self._count):
            file = self._open(str(number))
            if _lock(file):
                self._held = file
                return True
            file.close()
        return False

    def _open(self, name: str) -> IO[bytes]:
        return (self._directory / f"vm-slot.{name}").open("ab")


def agreed(directory: Path, count: Callable[[], int]) -> int:
    """How many slots there are: `count()`, and as long as one of those is held, the same for whoever asks.

    What `count` finds free is less once VMs have taken their part of it, and they are counted by the slots.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "vm-slot.count").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # for no longer than this takes
        file.seek(0)
        before = file.read()
        if before.isdigit() and any(_held(directory, number) for number in range(int(before))):
            return int(before)
        now = count()
        file.truncate(0)
        file.write(str(now))
        return now


def _held(directory: Path, number: int) -> bool:
    with (directory / f"vm-slot.{number}").open("ab") as file:
        return not _lock(file)


def _lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
