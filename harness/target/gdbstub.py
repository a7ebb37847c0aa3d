# SPDX-License-Identifier: GPL-2.0-only
"""Runs a machine that waits for a debugger up to a point, and leaves it there for a person's gdb.

The little of gdb's remote protocol that this takes (Debugging with GDB, appendix E). Breakpoints are QEMU's own, and
change no instruction; but a machine that was stopped does not go on bit for bit as one that was not (QEMU 7.2).
"""

from __future__ import annotations

import socket
import time
from types import TracebackType
from typing import Self

from harness.errors import GuestError

_SECONDS = 10.0  # for QEMU to listen, and to answer what is no run
_AGAIN = 0.05


class Stub:
    """A connection to QEMU's stub on a loopback port. Raises `GuestError` if there is none, or it does not do it."""

    def __init__(self, port: int) -> None:
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port), timeout=_SECONDS)
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise GuestError(f"QEMU listens to no debugger on port {port}") from None
                time.sleep(_AGAIN)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def run_to(self, address: int, *, seconds: float) -> None:
        """Lets the machine run until a CPU comes to `address`, where all stop; at most for `seconds`."""
        self._insist(f"Z1,{address:x},1")
        self._socket.settimeout(seconds)
        reply = self._ask("c")
        self._socket.settimeout(_SECONDS)
        if not reply.startswith(("T05", "S05")):
            raise GuestError(f"the machine did not come to {address:#x}: QEMU says {reply!r}")
        self._insist(f"z1,{address:x},1")

    def _insist(self, command: str) -> None:
        reply = self._ask(command)
        if reply != "OK":
            raise GuestError(f"QEMU does not take a debugger's {command!r}: {reply!r}")

    def _ask(self, command: str) -> str:
        data = command.encode()
        try:
            self._socket.sendall(b"$%b#%02x" % (data, sum(data) & 0xFF))
            reply = self._packet()
            self._socket.sendall(b"+")
        except TimeoutError:
            raise GuestError(f"QEMU did not answer a debugger's {command!r}") from None
        except OSError as error:
            raise GuestError(f"QEMU let its debugger go: {error.strerror}") from error
        return reply

    def _packet(self) -> str:
        """The next packet; acknowledgements are skipped."""
        while b"#" not in self._rest or len(self._rest) < self._rest.index(b"#") + 3:
            part = self._socket.recv(4096)
            if not part:
                raise GuestError("QEMU ended under its debugger")
            self._rest += part
        packet, _, rest = self._rest.partition(b"#")
        self._rest = rest[2:]
        return packet.partition(b"$")[2].decode(errors="replace")


def run_to_round(port: int, marks: tuple[int, int], number: int, *, seconds: float) -> None:
    """Stops the machine behind `port` where round `number` begins, from 1.

    `marks`: what the guest comes by at the beginning of each round, and what it comes by between two of these. To
    stop at one place again and again would take single steps, which are not as the guest goes by itself.
    """
    begins, between = marks
    with Stub(port) as stub:
        stub.run_to(begins, seconds=seconds)
        for _ in range(1, number):
            stub.run_to(between, seconds=seconds)
            stub.run_to(begins, seconds=seconds)


def free_port() -> int:
    """A loopback port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
