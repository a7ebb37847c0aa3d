# SPDX-License-Identifier: GPL-2.0-only
"""Notes of the VMs that go on after the command that started them: XDG_STATE_HOME/hmm-harness/vms.

A note is a file that the VM's keeper (harness/target/keeper.py) has locked. One that nobody has locked is a leftover,
of a machine that lost power for instance, and is removed by whoever sees it.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.errors import GuestError, HarnessError, UsageError

_STOP_SECONDS = 15.0


@dataclass(frozen=True)
class Kept:
    """A VM that goes on, and how to reach it."""

    name: str  # "vm1"
    keeper: int  # process id
    qemu: int  # process id
    port: int  # loopback, leads to the guest's SSH server
    kernel: str
    flavour: str
    release: str
    image: str  # what the guest's root file system is, for its keys
    client_key: str
    host_key: str
    since: str  # ISO 8601, UTC
    reason: str  # "vm shell", "snapshot/hole on interval: FAIL"

    def ssh(self) -> list[str]:
        """The words of a command that reaches it with OpenSSH."""
        return ssh_command(self.port, Path(self.client_key), self.host_key)


def ssh_command(port: int, client_key: Path, host_key: str) -> list[str]:
    """OpenSSH's command to reach a guest: with its key, and no other host key accepted. No file is written."""
    # fmt: off
    return [
        "ssh", "-F", "none",
        "-p", str(port),
        "-i", str(client_key), "-o", "IdentitiesOnly=yes",
        "-o", "HostKeyAlias=hmm-guest",
        "-o", f"KnownHostsCommand=/bin/echo hmm-guest {host_key}",
        "-o", "UserKnownHostsFile=none", "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes",
        "root@127.0.0.1",
    ]
    # fmt: on


@contextmanager
def new_note() -> Iterator[tuple[str, IO[bytes]]]:
    """A locked file that is removed afterwards, and the name of the VM that it stands for."""
    directory = _directory()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HarnessError(
            f"cannot note a VM in {directory}: {error.strerror}", hint="set XDG_STATE_HOME to another directory"
        ) from None
    number = 1
    while True:
        path = directory / f"vm{number}"
        with path.open("ab") as file:
            if _lock(file, fcntl.LOCK_EX) and _is(file, path):
                try:
                    file.truncate(0)
                    yield path.name, file
                finally:
                    path.unlink(missing_ok=True)
                return
        number += 1


def kept_vms() -> list[Kept]:
    """All that go on, the oldest first. Removes what ended without a word left behind."""
    found = []
    for path in _files():
        with suppress(FileNotFoundError), path.open("rb") as file:
            if _lock(file):
                if _is(file, path):
                    path.unlink()
            else:
                with suppress(ValueError, TypeError):  # it is being written at this moment
                    found.append(Kept(**json.loads(file.read())))
    return sorted(found, key=lambda kept: (kept.since, kept.name))


def find(name: str) -> Kept:
    """The VM of this name. Raises `UsageError` if there is none."""
    known = kept_vms()
    for kept in known:
        if kept.name == name:
            return kept
    names = ", ".join(kept.name for kept in known) or "none"
    raise UsageError(f"there is no VM {name!r}", hint=f"`hmm-harness vm list` shows those that are kept: {names}")


def stop(kept: Kept) -> None:
    """Ends a VM and its keeper. Raises `GuestError` if they do not end."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            if is_there(kept):
                os.kill(kept.keeper, number)
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            if not is_there(kept):
                kept_vms()  # removes the note of a keeper that was killed
                return
            time.sleep(0.05)
    raise GuestError(f"{kept.name} does not end: process {kept.keeper} is stuck")


def is_there(kept: Kept) -> bool:
    """Whether a VM and its keeper go on."""
    path = _directory() / kept.name
    try:
        with path.open("rb") as file:
            return not _lock(file) and json.loads(file.read())["keeper"] == kept.keeper
    except (FileNotFoundError, ValueError):
        return False


def _directory() -> Path:
    configured = os.environ.get("XDG_STATE_HOME", "")
    return (Path(configured) if configured else Path.home() / ".local/state") / "hmm-harness" / "vms"


def _files() -> list[Path]:
    directory = _directory()
    return sorted(directory.glob("vm*")) if directory.is_dir() else []


def _lock(file: IO[bytes], kind: int = fcntl.LOCK_SH) -> bool:
    """Whether the lock was had: no keeper holds it. Those who only look do not disturb each other."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is(file: IO[bytes], path: Path) -> bool:
    """Whether the file that is open is still the one of this name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False
