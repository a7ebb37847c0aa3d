# SPDX-License-Identifier: GPL-2.0-only
"""The QMP client against a scripted QEMU."""

from __future__ import annotations

import array
import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.target.qmp import Qmp, QmpError, QmpGoneError, QmpTimeoutError

GREETING = {"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}, "capabilities": []}}


class Peer:
    """QEMU's end of the socket: sends `script` piece by piece, one for each line that it receives."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.qmp = Qmp(self.ours)
        self.received: list[dict[str, Any]] = []
        self._thread: threading.Thread | None = None

    def play(self, script: Sequence[bytes]) -> None:
        def work() -> None:
            lines = self.theirs.makefile("rb")
            for piece in script:
                line = lines.readline()
                if not line:
                    return
                self.received.append(json.loads(line))
                self.theirs.sendall(piece)

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.ours.close()
        if self._thread is not None:
            self._thread.join()
        self.theirs.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


def line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


def test_negotiation_tells_the_version(peer: Peer) -> None:
    peer.theirs.sendall(line(GREETING))
    peer.play([line({"return": {}})])
    peer.qmp.negotiate()
    assert peer.qmp.version == "7.2.22"
    assert peer.received == [{"execute": "qmp_capabilities", "arguments": {}}]


def test_an_answer_may_come_in_pieces_and_after_events(peer: Peer) -> None:
    event = {"event": "STOP", "timestamp": {}}
    data = line(event) + line({"return": {"status": "running"}})
    peer.theirs.sendall(data[:7])
    peer.play([data[7:]])
    assert peer.qmp.execute("query-status") == {"status": "running"}
    assert peer.qmp.wait_event(lambda event: event["event"] == "STOP", timeout=1.0) == event


def test_underscores_of_arguments_become_dashes(peer: Peer) -> None:
    peer.play([line({"return": "no such thing\r\n"})])
    assert peer.qmp.monitor("info nothing") == "no such thing\r\n"
    assert peer.received[0]["arguments"] == {"command-line": "info nothing"}


def test_a_refusal_says_what_and_why(peer: Peer) -> None:
    peer.play([line({"error": {"class": "GenericError", "desc": "not now"}})])
    with pytest.raises(QmpError, match="'cont': not now"):
        peer.qmp.execute("cont")


def test_silence_and_an_end_are_told_apart(peer: Peer) -> None:
    with pytest.raises(QmpTimeoutError):
        peer.qmp.execute("query-status", timeout=0.05)
    peer.theirs.shutdown(socket.SHUT_RDWR)
    with pytest.raises(QmpGoneError):
        peer.qmp.execute("query-status")


def test_an_event_that_never_comes(peer: Peer) -> None:
    peer.theirs.sendall(line({"event": "STOP"}))
    with pytest.raises(QmpTimeoutError):
        peer.qmp.wait_event(lambda event: event["event"] == "RESUME", timeout=0.05)


def test_a_file_descriptor_travels_with_a_command(peer: Peer, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("saved")
    peer.theirs.sendall(line({"return": {}}))
    with path.open() as file:
        peer.qmp.execute("getfd", fd=file.fileno(), fdname="state")
    _, ancillary, _, _ = peer.theirs.recvmsg(4096, socket.CMSG_SPACE(4))
    received = array.array("i", ancillary[0][2])[0]
    try:
        assert os.read(received, 10) == b"saved"
    finally:
        os.close(received)
