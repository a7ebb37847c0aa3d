# SPDX-License-Identifier: GPL-2.0-only
"""The clock that stands still while QEMU waits for a CPU."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.target.guestclock import GuestClock


def _waits(proc: Path, thread: int, seconds: float) -> None:
    directory = proc / "7" / "task" / str(thread)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "schedstat").write_text(f"1 {int(seconds * 1e9)} 3\n")


def test_what_the_thread_waited_that_waited_longest_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    _waits(tmp_path, 7, 5)
    _waits(tmp_path, 8, 10)
    clock = GuestClock(7, tmp_path)
    assert clock() == 990.0
    _waits(tmp_path, 7, 9)
    assert clock() == 990.0, "another thread had waited longer"
    _waits(tmp_path, 7, 40)
    assert clock() == 960.0


def test_it_never_jumps_ahead_when_threads_end_or_proc_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    assert GuestClock(7, tmp_path)() == 1000.0
    _waits(tmp_path, 7, 5)
    clock = GuestClock(7, tmp_path)
    assert clock() == 995.0
    (tmp_path / "7/task/7/schedstat").write_text("what?")
    assert clock() == 995.0
    (tmp_path / "7/task/7/schedstat").unlink()
    assert clock() == 995.0


def test_it_goes_on_while_nobody_has_to_wait() -> None:
    clock = GuestClock(os.getpid())
    begun = clock()
    time.sleep(0.05)  # a process that sleeps waits for no CPU
    assert clock() > begun
