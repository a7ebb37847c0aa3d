# SPDX-License-Identifier: GPL-2.0-only
"""What is shown while something takes long."""

from __future__ import annotations

import io
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


def test_what_others_say_does_not_act_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_FIRST_AFTER", 0.0)
    monkeypatch.setattr(progress, "_REPEAT_LOG", 60.0)

    class Stream(io.StringIO):
        painted = threading.Event()

        def flush(self) -> None:
            self.painted.set()

    stream, other = Stream(), io.StringIO()
    shown = Progress(stream)
    with shown.step("CC \x1b[2J.o"):
        assert stream.painted.wait(60.0)
    assert stream.getvalue().startswith("CC \\x1b[2J.o [")
    shown.say("[  1.0] \x1b]0;owned\x07\r\n[  1.1]\x9b2J", to=other)
    shown.say("\x1b[31mFAIL\x1b[0m", to=other, ours=True)
    assert other.getvalue() == "[  1.0] \\x1b]0;owned\\x07\\x0d\n[  1.1]\\x9b2J\n\x1b[31mFAIL\x1b[0m\n"
