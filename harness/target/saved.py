# SPDX-License-Identifier: GPL-2.0-only
"""Saves a machine to two files and brings it back.

The guest's memory is a file already while it runs (shared), so that saving writes the devices only. A restored
machine maps the same file privately: what it writes is its own and is gone with it, pages are read when they are
touched, and any number of machines share one copy in the host's memory. QEMU's `x-ignore-shared` leaves the memory
out of the state that is written; both sides must set it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from harness.errors import GuestError
from harness.target.qemu import Memory, Qemu
from harness.target.qmp import Message

_SECONDS = 60.0
_SETTLE_SECONDS = 5.0
_CAPABILITIES = [
    {"capability": "x-ignore-shared", "state": True},
    {"capability": "events", "state": True},  # to be told of the end instead of asking for it
]


class SavedStateError(GuestError):
    """QEMU could not write a state, or could not take one."""


def memory_for_saving(directory: Path) -> Memory:
    """The memory of a machine that is to be saved in `directory`."""
    return Memory(directory / "ram", shared=True)


def memory_for_restoring(directory: Path) -> Memory:
    """The memory of a machine that is brought back from `directory`."""
    return Memory(directory / "ram", shared=False)


def save(qemu: Qemu, directory: Path) -> None:
    """Stops the machine and writes its state. No connection to the guest may be open any more."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    # Connections end some time after they are closed, and half of one would be part of the state.
    while "ESTABLISHED" in (table := qemu.qmp.monitor("info usernet")):
        if time.monotonic() > deadline:
            raise SavedStateError(f"a connection to the guest does not end:\n{table}")
        time.sleep(0.02)
    qemu.qmp.execute("stop")
    qemu.qmp.execute("migrate-set-capabilities", capabilities=_CAPABILITIES)
    _transfer(qemu, directory / "state", os.O_WRONLY | os.O_CREAT, "migrate")


def load(qemu: Qemu, directory: Path) -> None:
    """Gives a QEMU that waits for it the state in `directory`; the guest runs afterwards."""
    qemu.qmp.execute("migrate-set-capabilities", capabilities=_CAPABILITIES)
    _transfer(qemu, directory / "state", os.O_RDONLY, "migrate-incoming")
    qemu.qmp.execute("cont")  # it was saved stopped


def _transfer(qemu: Qemu, path: Path, flags: int, command: str) -> None:
    try:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SavedStateError(f"cannot open {path}: {error.strerror}") from error
    try:
        qemu.qmp.execute("getfd", fd=fd, fdname="state")
    finally:
        os.close(fd)
    qemu.qmp.execute(command, uri="fd:state")
    status = qemu.qmp.wait_event(_is_over, timeout=_SECONDS)["data"]["status"]
    if status != "completed":
        raise SavedStateError(f"QEMU's {command} ended as {status!r}: {qemu.stderr or 'without a word'}")


def _is_over(event: Message) -> bool:
    return event["event"] == "MIGRATION" and event["data"]["status"] in ("completed", "failed", "cancelled")
