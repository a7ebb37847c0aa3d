# SPDX-License-Identifier: GPL-2.0-only
"""Says on standard error what takes long: whatever lasts more than two seconds is seen to move."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from harness.printable import one_line, plain

_FIRST_AFTER = 2.0  # seconds; shorter steps stay silent
_REPEAT_TERMINAL = 0.5
_COLUMNS = 118  # of a line, at most
_REPEAT_LOG = 15.0  # where lines cannot be overwritten, a CI log for instance


def let_go(stream: TextIO) -> None:
    """Writes what `stream` holds; if that fails, all that is written from now on goes nowhere.

    Else Python tries again when it ends, and puts its own exit status in place of ours.
    """
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):  # of a stream that is no file's
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Step:
    """A piece of work under way; `update` says what it is at."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.detail = ""
        self.started = time.monotonic()

    def update(self, detail: str) -> None:
        """Replaces the detail that is shown after the title."""
        self.detail = detail

    def line(self) -> str:
        """One line without its end: title, detail, seconds so far."""
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.title}{detail} [{time.monotonic() - self.started:.0f} s]"


class Progress:
    """Shows the innermost step under way. One is made by the front door and handed down."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._terminal = self._stream.isatty()
        self._steps: list[Step] = []
        self._shown = 0  # characters of the line on the terminal that has no end yet
        self._lock = threading.Lock()

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Shows `title` while the body runs, if that takes long enough to matter."""
        step = Step(title)
        done = threading.Event()
        painter = threading.Thread(target=self._paint, args=(step, done), daemon=True)
        with self._lock:
            self._steps.append(step)
        painter.start()
        try:
            yield step
        finally:
            done.set()
            painter.join()
            with self._lock:
                self._steps.remove(step)
                self._erase()

    def say(self, text: str, *, to: TextIO | None = None, ours: bool = False) -> None:
        """Prints a line, or some, now, whatever else is shown; `to` another stream if it is a result and no remark.

        What a guest, a tool or the name of a file says must not act on the terminal: control characters are shown
        instead, unless all of `text` is `ours`.
        """
        with self._lock:
            self._erase()
            print(text if ours else plain(text), file=self._stream if to is None else to, flush=True)

    def _paint(self, step: Step, done: threading.Event) -> None:
        wait = _FIRST_AFTER
        while not done.wait(wait):
            wait = _REPEAT_TERMINAL if self._terminal else _REPEAT_LOG
            with self._lock:
                if self._quiet or self._steps[-1] is not step:
                    continue
                self._erase()
                if self._terminal:
                    line = one_line(step.line())[: self._columns()]
                    self._stream.write(line)
                    self._shown = len(line)
                else:
                    self._stream.write(one_line(step.line()) + "\n")
                self._stream.flush()

    def _columns(self) -> int:
        """Most characters of a line that can be overwritten: one that is broken cannot."""
        try:
            return max(1, min(_COLUMNS, os.get_terminal_size(self._stream.fileno()).columns - 1))
        except (OSError, ValueError):  # no descriptor, or none of a terminal
            return _COLUMNS

    def _erase(self) -> None:
        if self._shown:
            self._stream.write("\r" + " " * self._shown + "\r")
            self._stream.flush()
            self._shown = 0
