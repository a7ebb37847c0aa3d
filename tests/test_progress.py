# SPDX-License-Identifier: GPL-2.0-only
"""What is shown while something takes long."""

from __future__ import annotations

import os
import termios
import threading

import pytest

from harness import progress
from harness.progress import Progress


def test_a_line_fits_into_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is broken into two could not be overwritten."""
    monkeypatch.setattr(progress, "_FIRST_AFTER", 0.01)
    ours, theirs = os.openpty()
    try:
        termios.tcsetwinsize(theirs, (24, 40))
        shown = threading.Event()
        read = bytearray()

        def listen() -> None:
            read.extend(os.read(ours, 4096))
            shown.set()

        threading.Thread(target=listen, daemon=True).start()
        with os.fdopen(os.dup(theirs), "w") as stream, Progress(stream).step("x" * 100):
            assert shown.wait(60.0)
    finally:
        os.close(theirs)
        os.close(ours)
    assert read == b"x" * 39
