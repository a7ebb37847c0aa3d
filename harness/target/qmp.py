# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's machine protocol: a command at a time over an inherited socket."""

from __future__ import annotations

import array
import json
import socket
import time
from collections.abc import Callable
from typing import Any

from harness.errors import GuestError

_SECONDS = 10.0  # QEMU answers within milliseconds unless the machine is in trouble

Message = dict[str, Any]


class QmpError(GuestError):
    """QEMU refused a command."""


class QmpTimeoutError(GuestError):
    """QEMU did not answer in time: it is stopped, stuck, or starved."""


class QmpGoneError(GuestError):
    """QEMU closed the connection: it ended."""


class Qmp:
    """A client on the connected socket `connection`, which it owns. Not for more than one thread at once."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._received = bytearray()
        self._events: list[Message] = []
        self.version = ""

    def negotiate(self, *, timeout: float = _SECONDS) -> None:
        """Takes the greeting and enters command mode. Afterwards `version` is QEMU's, "7.2.22"."""
        deadline = time.monotonic() + timeout
        number = self._receive(deadline, "greet")["QMP"]["version"]["qemu"]
        self.version = f"{number['major']}.{number['minor']}.{number['micro']}"
        self.execute("qmp_capabilities", timeout=timeout)

    def execute(self, command: str, *, timeout: float = _SECONDS, fd: int | None = None, **arguments: object) -> Any:
        """What QEMU returns for `command`; `fd` travels with it (for `getfd`).

        Raises `QmpError`, `QmpTimeoutError` or `QmpGoneError`.
        """
        deadline = time.monotonic() + timeout
        # QMP's names have dashes where Python's have underscores; its command names have both
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        data = json.dumps({"execute": command, "arguments": named}).encode() + b"\n"
        ancillary = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        try:
            self._socket.settimeout(timeout)
            self._socket.sendmsg([data], ancillary)
        except TimeoutError as error:
            raise QmpTimeoutError(f"QEMU took no command {command!r} for {timeout:g} s") from error
        except OSError as error:
            raise QmpGoneError(f"QEMU is gone: {command!r} could not be sent") from error
        while True:
            message = self._receive(deadline, command)
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise QmpError(f"QEMU refused {command!r}: {message['error'].get('desc', message['error'])}")

    def monitor(self, line: str) -> str:
        """What QEMU's human monitor prints for `line`."""
        return str(self.execute("human-monitor-command", command_line=line))

    def wait_event(self, wanted: Callable[[Message], bool], *, timeout: float) -> Message:
        """The next event that is `wanted`, one that came during earlier commands included; drops those before it."""
        deadline = time.monotonic() + timeout
        while True:
            while self._events:
                event = self._events.pop(0)
                if wanted(event):
                    return event
            self._receive(deadline, "an event")

    def close(self) -> None:
        """Closes the connection; QEMU goes on."""
        self._socket.close()

    def _receive(self, deadline: float, what: str) -> Message:
        """The next message; an event is kept besides being returned."""
        while (end := self._received.find(b"\n")) < 0:
            remaining = deadline - time.monotonic()
            try:
                if remaining <= 0:
                    raise TimeoutError
                self._socket.settimeout(remaining)
                data = self._socket.recv(65536)
            except TimeoutError as error:
                raise QmpTimeoutError(f"QEMU did not answer in time ({what})") from error
            except OSError as error:
                raise QmpGoneError(f"QEMU is gone ({what}): {error.strerror}") from error
            if not data:
                raise QmpGoneError(f"QEMU is gone ({what})")
            self._received += data
        message: Message = json.loads(self._received[:end])
        del self._received[: end + 1]
        if "event" in message:
            self._events.append(message)
        return message
