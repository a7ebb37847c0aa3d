# SPDX-License-Identifier: GPL-2.0-only
"""Says on standard error what takes long: whatever lasts more than two seconds is seen to move."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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
        self._overview: Callable[[], Sequence[str]] | None = None
        self._shown: list[int] = []  # characters of each line on the terminal that is to be overwritten
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
                if self._overview is None:  # else what is shown stays until it is renewed
                    self._erase()

    @contextmanager
    def overview(self, lines: Callable[[], Sequence[str]]) -> Iterator[None]:
        """Shows `lines()` above the innermost step while the body runs, if that takes long enough to matter.

        On a terminal all of them, updated in place; the first alone where lines are not overwritten, as in a log, or
        where standard output is none: what another process prints of it, such as tee, would be overwritten.
        """
        done = threading.Event()
        painter = threading.Thread(target=self._keep_showing, args=(done,), daemon=True)
        with self._lock:
            self._overview = lines
        painter.start()
        try:
            yield
        finally:
            done.set()
            painter.join()
            with self._lock:
                self._overview = None
                self._erase()

    def say(self, text: str, *, to: TextIO | None = None, ours: bool = False) -> None:
        """Prints a line, or some, now, whatever else is shown; `to` another stream if it is a result and no remark.

        What a guest, a tool or the name of a file says must not act on the terminal: control characters are shown
        instead, unless all of `text` is `ours`.
        """
        with self._lock:
            shown = bool(self._shown)
            self._erase()
            print(text if ours else plain(text), file=self._stream if to is None else to, flush=True)
            if shown and self._overview is not None:
                self._show()

    def _paint(self, step: Step, done: threading.Event) -> None:
        wait = _FIRST_AFTER
        while not done.wait(wait):
            wait = _REPEAT_TERMINAL if self._terminal else _REPEAT_LOG
            with self._lock:
                if self._overview is None and self._steps[-1] is step:
                    self._show()

    def _keep_showing(self, done: threading.Event) -> None:
        wait = _FIRST_AFTER
        while not done.wait(wait):
            wait = _REPEAT_TERMINAL if self._terminal else _REPEAT_LOG
            with self._lock:
                self._show()

    def _show(self) -> None:
        """Shows what there is to show, in place of what is shown. The lock is held."""
        lines = [step.line() for step in self._steps[-1:]]
        if self._overview is not None:
            whole = list(self._overview())
            lines = [*whole, *lines] if self._moves() else ["; ".join([*whole[:1], *lines])]
        if self._quiet or not lines:
            return
        lines = list(map(one_line, lines))
        if self._terminal:
            rows, columns = self._size()
            lines = [line[:columns] for line in lines[:rows]]
            self._stream.write(self._erasing() + "\n".join(lines))  # at once: it would flicker
            self._shown = list(map(len, lines))
        else:
            self._stream.write("\n".join(lines) + "\n")
        self._stream.flush()

    def _moves(self) -> bool:
        """Whether more than the last line can be overwritten."""
        return self._terminal and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def _size(self) -> tuple[int, int]:
        """Most lines, and most characters of a line, that can be overwritten: one that is broken cannot."""
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):  # no descriptor, or none of a terminal
            return 1, _COLUMNS
        return max(1, size.lines - 1), max(1, min(_COLUMNS, size.columns - 1))

    def _erasing(self) -> str:
        """What takes away the lines that are shown."""
        if not self._shown:
            return ""
        *above, last = self._shown
        return "\r" + " " * last + "\r" + "\x1b[A\x1b[2K" * len(above)

    def _erase(self) -> None:
        if self._shown:
            self._stream.write(self._erasing())
            self._stream.flush()
            self._shown = []
