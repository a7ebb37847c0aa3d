# SPDX-License-Identifier: GPL-2.0-only
"""What is shown while something takes long."""

from __future__ import annotations

import io
import os
import re
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

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


class Screen:
    """What a terminal of `rows` lines shows of what is written to it, as far as Progress writes."""

    def __init__(self, rows: int = 24) -> None:
        self._rows = rows
        self.lines = [""]
        self._row = self._column = 0

    def take(self, text: str) -> None:
        """Obeys it."""
        for part in re.findall(r"\x1b\[A|\x1b\[2K|\x1b\[\d*m|\r|\n|[^\x1b\r\n]+|\x1b", text):
            if part == "\x1b[A":
                assert self._row > max(0, len(self.lines) - self._rows), "above the screen"
                self._row -= 1
            elif part == "\x1b[2K":
                self.lines[self._row] = ""
            elif part == "\r":
                self._column = 0
            elif part == "\n":
                self._row, self._column = self._row + 1, 0
                self.lines += [""] * (self._row == len(self.lines))
            else:
                assert not part.startswith("\x1b"), "not understood"
                old = self.lines[self._row].ljust(self._column)
                end = self._column + len(part)
                self.lines[self._row] = old[: self._column] + part + old[end:]
                self._column = end

    @property
    def text(self) -> list[str]:
        """Its lines, but for empty ones at the end."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n").split("\n")


@contextmanager
def _terminal(rows: int, columns: int) -> Iterator[tuple[io.TextIOWrapper, Callable[[], str]]]:
    """A terminal to write to, and what was written so far."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (rows, columns))
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST  # a line feed is one
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    os.set_blocking(ours, False)
    read = bytearray()

    def written() -> str:
        with suppress(BlockingIOError):
            read.extend(os.read(ours, 1 << 20))
        return read.decode()

    with os.fdopen(theirs, "w") as stream:
        yield stream, written
    os.close(ours)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_overview_is_renewed_in_place_and_what_is_said_stays_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_FIRST_AFTER", 0.01)
    monkeypatch.setattr(progress, "_REPEAT_TERMINAL", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    lines = ["all 1", "  interval 1", "  mirror \x1b[2J" + "x" * 80]
    with _terminal(24, 40) as (stream, written):
        monkeypatch.setattr(sys, "stdout", stream)
        shown = Progress(stream)

        def shows(*lines: str) -> bool:
            end = Screen()
            end.take(written())
            return end.text == [*lines]

        def shows_a_step_below(*lines: str) -> bool:
            end = Screen()
            end.take(written())
            return end.text[:-1] == [*lines] and end.text[-1].startswith("running x [")

        # what is written arrives at the other end of a pseudo terminal a moment later, and in parts
        with shown.overview(lambda: lines):
            mirror = ("  mirror \\x1b[2J" + "x" * 80)[:39]
            _until(lambda: shows("all 1", "  interval 1", mirror))
            with shown.step("running x"):
                _until(lambda: shows_a_step_below("all 1", "  interval 1", mirror))
                shown.say("FAIL x\n  why")
                _until(lambda: shows_a_step_below("FAIL x", "  why", "all 1", "  interval 1", mirror))
            # the end of a step leaves the rest there
            _until(lambda: shows("FAIL x", "  why", "all 1", "  interval 1", mirror))
            lines[:] = ["all 2"]
            _until(lambda: shows("FAIL x", "  why", "all 2"))
            shown.say("PASS y")
        _until(lambda: shows("FAIL x", "  why", "PASS y"))


def test_an_overview_is_no_higher_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_FIRST_AFTER", 0.01)
    monkeypatch.setattr(progress, "_REPEAT_TERMINAL", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    with _terminal(4, 40) as (stream, written):
        monkeypatch.setattr(sys, "stdout", stream)
        with Progress(stream).overview(lambda: list("abcdef")):
            _until(lambda: written().count("a") > 2)

        def nothing_is_left() -> bool:
            end = Screen(4)
            end.take(written())
            return end.text == [""]

        _until(nothing_is_left)


@pytest.mark.parametrize("reason", ["dumb", "tee"])
def test_an_overview_is_one_line_where_several_cannot_be_overwritten(
    monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """What tee prints is between our lines: to go up would overwrite it."""
    monkeypatch.setattr(progress, "_FIRST_AFTER", 0.01)
    monkeypatch.setenv("TERM", "dumb" if reason == "dumb" else "xterm")
    with _terminal(24, 40) as (stream, written):
        monkeypatch.setattr(sys, "stdout", stream if reason == "dumb" else io.StringIO())
        shown = Progress(stream)
        with shown.overview(lambda: ["all 1", "  interval 1"]):
            _until(lambda: "all 1" in written())
        assert "interval" not in written()
        assert "\x1b" not in written()


def test_in_a_log_an_overview_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_FIRST_AFTER", 0.01)
    monkeypatch.setattr(progress, "_REPEAT_LOG", 0.01)
    stream = io.StringIO()
    shown = Progress(stream)
    with shown.step("running x"), shown.overview(lambda: ["all 1", "  interval 1"]):
        _until(lambda: stream.getvalue().count("all 1") >= 3)
    lines = stream.getvalue().splitlines()
    assert all(line.startswith("all 1; running x [") for line in lines if line.startswith("all"))
    assert sum(line.startswith("all") for line in lines) >= 2
