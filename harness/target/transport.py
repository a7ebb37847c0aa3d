# SPDX-License-Identifier: GPL-2.0-only
"""SSH to the guest: shell commands, and a channel to the agent's port.

Nothing here waits for a guest to come up: the guest announces itself (READY) before anybody connects.
"""

from __future__ import annotations

import json
import logging
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.errors import GuestError
from harness.target.artifacts import Image

if TYPE_CHECKING:
    import paramiko

AGENT_PORT = 7700  # harness/guest/agent.py
_HEAD = struct.Struct("!II")  # length of the JSON object, length of the body
_TICK = 0.25  # seconds between looks at the VM while waiting
_CONNECT_SECONDS = 30.0


class TransportError(GuestError):
    """The connection to the guest failed or broke. The VM decides what that means."""


class LateError(GuestError):
    """Nothing came in time, on a connection that is open."""


Check = Callable[[], None]  # raises if there is no point in waiting on


class _Deadline:
    """`seconds` of `clock` from now, or from when `sign` last returned something else than before."""

    def __init__(self, seconds: float, clock: Callable[[], float], sign: Callable[[], object] = lambda: None) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sign = sign
        self._seen = sign()
        self._end = clock() + seconds

    def passed(self) -> bool:
        """Whether it is later than that. To be called often: it takes what it sees as of now."""
        seen = self._sign()
        if seen != self._seen:
            self._seen = seen
            self._end = self._clock() + self._seconds
        return self._clock() > self._end


class Transport:
    """An SSH connection to root in the guest, and a channel to the agent through it."""

    def __init__(
        self,
        port: int,
        image: Image,
        *,
        check: Check,
        patience: float = _CONNECT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connects to the loopback `port`, for which each step may take `patience` seconds.

        What is awaited afterwards is late by `clock`. Raises `TransportError`, or what `check` raises meanwhile.
        """
        # imported here: a tenth of a second that other commands need not pay
        import paramiko  # noqa: PLC0415

        self._check = check
        self._clock = clock
        self._paramiko = paramiko
        self._agent: paramiko.Channel | None = None
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=patience)
        except OSError as error:
            raise TransportError(f"QEMU takes no connection on port {port}: {error}") from error
        logging.getLogger("paramiko").addHandler(logging.NullHandler())  # what goes wrong is raised, not printed too
        self._ssh = paramiko.Transport(connection)
        self._patience = patience
        self._ssh.banner_timeout = self._ssh.handshake_timeout = self._ssh.auth_timeout = patience
        try:
            self._prefer()
            self._ssh.connect(
                hostkey=_host_key(paramiko, image),
                username="root",
                pkey=paramiko.Ed25519Key.from_private_key_file(str(image.client_key)),
            )
        except (paramiko.SSHException, OSError, EOFError) as error:
            self._ssh.close()
            raise TransportError(f"no SSH connection to the guest: {error}") from error
        except BaseException:
            self._ssh.close()
            raise

    def call(
        self, request: dict[str, Any], body: bytes, *, timeout: float, sign: Callable[[], object] = lambda: None
    ) -> tuple[dict[str, Any], bytes]:
        """The agent's answer. Raises `LateError`, `TransportError`, or what the check raises.

        It is late when for `timeout` seconds there was neither an answer nor another `sign` of what it does.
        """
        deadline = _Deadline(timeout, self._clock, sign)
        data = json.dumps(request).encode()
        channel = self._agent_channel()
        try:
            channel.settimeout(timeout)
            channel.sendall(_HEAD.pack(len(data), len(body)) + data + body)
            json_length, body_length = _HEAD.unpack(self._receive(channel, _HEAD.size, deadline))
            answer = json.loads(self._receive(channel, json_length, deadline))
            return answer, self._receive(channel, body_length, deadline)
        except TimeoutError as error:
            raise LateError(f"the agent did not answer within {timeout:g} s") from error
        except (OSError, EOFError, self._paramiko.SSHException) as error:
            raise TransportError(f"the connection to the agent broke: {error}") from error

    def execute(
        self, command: str, *, timeout: float, stdin: bytes = b"", hear: Callable[[str], None] | None = None
    ) -> tuple[int, bytes]:
        """Runs a shell command in the guest: its exit status (128 + the signal that ended it), and all its output.

        `hear` is told each whole line as it comes. Raises `LateError`, `TransportError`, or what the check raises.
        """
        deadline = _Deadline(timeout, self._clock)
        try:
            with self._ssh.open_session(timeout=timeout) as channel:
                channel.set_combine_stderr(True)
                # The shell must not replace itself by the command: it reports a command that a signal ended.
                channel.exec_command(f"{command}\nexit $?")
                channel.settimeout(timeout)
                channel.sendall(stdin)
                channel.shutdown_write()
                output = bytearray()
                heard = 0
                while data := self._wait(channel, 65536, deadline):
                    output += data
                    while hear is not None and (end := output.find(b"\n", heard)) >= 0:
                        hear(output[heard:end].decode(errors="replace"))
                        heard = end + 1
                while not channel.exit_status_ready():
                    self._look(deadline)
                    channel.status_event.wait(_TICK)
                status = channel.recv_exit_status()
                if status < 0:
                    raise EOFError("it was closed before the command's exit status came")
                return status, bytes(output)
        except TimeoutError as error:
            raise LateError(f"`{command}` did not end within {timeout:g} s") from error
        except (OSError, EOFError, self._paramiko.SSHException) as error:
            raise TransportError(f"the connection to the guest broke: {error}") from error

    def session(self, use: Callable[[paramiko.Channel], int]) -> int:
        """Hands a new SSH session to `use`, which returns the exit status of what it ran there.

        Raises `TransportError` if the connection breaks meanwhile, and what `use` raises.
        """
        try:
            with self._ssh.open_session(timeout=self._patience) as channel:
                status = use(channel)
            if status < 0:
                raise EOFError("it was closed before the exit status came")
            return status
        except (OSError, EOFError, self._paramiko.SSHException) as error:
            raise TransportError(f"the connection to the guest broke: {error}") from error

    def close(self) -> None:
        """Ends the connection."""
        self._ssh.close()

    def _prefer(self) -> None:
        """The cheapest of what both sides know; a short list also makes a short first packet."""
        options = self._ssh.get_security_options()
        for name, wanted in (
            ("kex", "curve25519-sha256"),
            ("key_types", "ssh-ed25519"),
            ("ciphers", "aes128-ctr"),
            ("digests", "hmac-sha2-256"),
        ):
            if wanted in getattr(options, name):
                setattr(options, name, (wanted,))

    def _agent_channel(self) -> paramiko.Channel:
        if self._agent is None or self._agent.closed:
            try:
                self._agent = self._ssh.open_channel(
                    "direct-tcpip", ("127.0.0.1", AGENT_PORT), ("127.0.0.1", 0), timeout=self._patience
                )
            except (self._paramiko.SSHException, OSError, EOFError) as error:
                raise TransportError(f"the agent takes no connection: {error}") from error
        return self._agent

    def _receive(self, channel: paramiko.Channel, length: int, deadline: _Deadline) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = self._wait(channel, length - len(data), deadline)
            if not part:
                raise EOFError("it was closed")
            data += part
        return bytes(data)

    def _wait(self, channel: paramiko.Channel, length: int, deadline: _Deadline) -> bytes:
        """Some bytes, or none at the end of the stream."""
        while True:
            channel.settimeout(_TICK)
            try:
                return channel.recv(length)
            except TimeoutError:
                self._look(deadline)

    def _look(self, deadline: _Deadline) -> None:
        self._check()
        if deadline.passed():
            raise TimeoutError


def _host_key(paramiko: Any, image: Image) -> Any:
    import base64  # noqa: PLC0415

    return paramiko.Ed25519Key(data=base64.b64decode(image.host_key.split()[1]))
