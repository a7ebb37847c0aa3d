# SPDX-License-Identifier: GPL-2.0-only
"""Programs in the guest at a person's terminal, or between pipes: what goes in and what comes out, as it comes.

With a terminal the guest gets every key, Ctrl-C and Ctrl-Z included, except one: Ctrl-] leaves, whatever the guest
does. The terminal is given back as it was, however this ends.
"""

from __future__ import annotations

import os
import select
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import paramiko

_LEAVE = b"\x1d"  # Ctrl-]
_CHUNK = 32768
_TICK = 0.25  # seconds between looks at the VM
_FULL_TICK = 0.02  # ... while the guest takes no more input: paramiko cannot be waited for


@dataclass(frozen=True)
class Streams:
    """The descriptors that a command reads and writes: ours, unless said otherwise."""

    stdin: int = 0
    stdout: int = 1
    stderr: int = 2


class LeftError(Exception):
    """The person left with Ctrl-]; what ran in the guest has no exit status."""


def drive(
    channel: paramiko.Channel,
    command: str,
    check: Callable[[], None],
    *,
    terminal: bool,
    streams: Streams | None = None,
) -> int:
    """Runs a shell command on a fresh session and returns its exit status; negative if the connection broke first.

    With `terminal` the command gets one, as large as ours is; standard input must be ours. Raises what `check`, which
    is called several times a second, raises, and `LeftError`.
    """
    streams = streams or Streams()
    if terminal:
        size = os.get_terminal_size(streams.stdin)
        channel.get_pty(os.environ.get("TERM", "vt100"), size.columns, size.lines)
        with _raw(streams.stdin), _resizes() as resized:
            channel.exec_command(command)
            return _pump(channel, check, streams, resized)
    channel.exec_command(command)
    return _pump(channel, check, streams, None)


def _pump(channel: paramiko.Channel, check: Callable[[], None], streams: Streams, resized: int | None) -> int:
    stdin = streams.stdin
    waiting = b""  # read from `stdin`, not yet taken by the guest
    reading = True
    while True:
        poll = select.poll()  # takes files and closed descriptors, too
        poll.register(channel.fileno(), select.POLLIN)
        if resized is not None:
            poll.register(resized, select.POLLIN)
        if reading and not waiting:
            poll.register(stdin, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(1000 * (_FULL_TICK if waiting else _TICK))}
        check()
        if resized in ready:
            os.read(resized, _CHUNK)
            size = os.get_terminal_size(stdin)
            channel.resize_pty(size.columns, size.lines)
        if stdin in ready:
            waiting, reading = _input(stdin, resized is not None)
            if not reading:
                channel.shutdown_write()
        if waiting and channel.send_ready():
            try:
                waiting = waiting[channel.send(waiting) :]
            except OSError:  # the command has ended, or does not read any more
                waiting, reading = b"", False
        if _output(channel, streams):
            return _status(channel, check)


def _input(stdin: int, terminal: bool) -> tuple[bytes, bool]:
    """What was typed or piped in, and whether more may come."""
    try:
        data = os.read(stdin, _CHUNK)
    except OSError:  # closed, or a terminal that went away
        data = b""
    if terminal and _LEAVE in data:
        raise LeftError
    return data, bool(data)


def _output(channel: paramiko.Channel, streams: Streams) -> bool:
    """Passes on what there is. Returns whether there will never be more."""
    while channel.recv_ready():
        _write(streams.stdout, channel.recv(_CHUNK))
    while channel.recv_stderr_ready():
        _write(streams.stderr, channel.recv_stderr(_CHUNK))
    ended = bool(channel.closed or channel.eof_received)
    return ended and not channel.recv_ready() and not channel.recv_stderr_ready()


def _write(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # a terminal that another program made non-blocking
            select.select([], [fd], [])


def _status(channel: paramiko.Channel, check: Callable[[], None]) -> int:
    while not channel.exit_status_ready():
        check()
        channel.status_event.wait(_TICK)
    return channel.recv_exit_status()


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSADRAIN)
        yield
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def _resizes() -> Iterator[int]:
    """A descriptor that can be read after each change of the size of our terminal."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def note(_number: int, _frame: object) -> None:
        with suppress(BlockingIOError):  # full: it is known already
            os.write(writer, b"w")

    before = signal.signal(signal.SIGWINCH, note)
    try:
        os.write(writer, b"w")  # it may have changed while there was no handler
        yield reader
    finally:
        signal.signal(signal.SIGWINCH, before)
        os.close(reader)
        os.close(writer)
