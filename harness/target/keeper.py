# SPDX-License-Identifier: GPL-2.0-only
"""The process that holds a VM after the command that started it.

QEMU stays the child of the process that started it. That process, the *keeper*, is forked off at the start of the
command; when the command is done it tells the process that the user waits for, lets go of the terminal and holds
the VM. However the keeper ends, the VM ends with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO

from harness.errors import GuestError
from harness.target.artifacts import Image
from harness.target.kept import Kept, is_there, new_note
from harness.target.transport import Transport
from harness.target.vm import VM

HOURS = 12  # a VM that was forgotten ends by itself
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Keeper:
    """The process that may stay behind; made by `stay_behind`."""

    def __init__(self, parent: IO[bytes]) -> None:
        self._parent = parent

    def keep(self, vm: VM, reason: str, status: int, *, command: Sequence[str], say: Callable[[str], None]) -> None:
        """Ends the user's command with `status` and holds `vm` until it ends, is stopped, or gets too old.

        What has to be told to the user first goes through `say`; `command` is how they start this program. Raises
        `KeyboardInterrupt` when it is stopped.
        """
        vm.disconnect()
        with _noted(vm, reason) as kept:
            vms = shlex.join([*command, "vm"])
            say(
                f"the VM is kept as {kept.name}, for {HOURS} hours at most:\n"
                f"  {vms} shell {kept.name}\n  {vms} stop {kept.name}"
            )
            self._let_go(status)
            vm.await_end(HOURS * 3600.0)

    def _let_go(self, status: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        _end_with_parent(0)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        os.close(nothing)
        os.chdir("/")
        with self._parent:
            self._parent.write(bytes([status]))


def stay_behind() -> Keeper:
    """Forks: returns in the child, which does the work; the parent waits for it and ends with its exit status.

    To be called before there are threads. A child that keeps nothing ends with its command, and whatever ends the
    parent ends the child.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _end_with_parent(signal.SIGTERM)
        if os.getppid() != parent:
            raise KeyboardInterrupt
        return Keeper(os.fdopen(writer, "wb"))
    os.close(writer)
    raise SystemExit(_await(child, reader))


def _await(child: int, reader: int) -> int:
    """The status that the child ends with, or that it says when it goes on."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the child as well
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    said = os.read(reader, 1)
    if said:
        return said[0]
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _end_with_parent(number: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


@contextmanager
def _noted(vm: VM, reason: str) -> Iterator[Kept]:
    """Notes a VM under the first name that is free, as long as the body runs."""
    port, machine = vm.ssh_port, vm.machine
    with new_note() as (name, file):
        kept = Kept(
            name=name,
            keeper=os.getpid(),
            qemu=vm.pid,
            port=port,
            kernel=machine.kernel.name,
            flavour=machine.kernel.flavour,
            release=machine.kernel.release,
            image=str(machine.image.root),
            client_key=str(machine.image.client_key),
            host_key=machine.image.host_key,
            since=datetime.now(UTC).replace(microsecond=0).isoformat(),
            reason=reason,
        )
        file.write(json.dumps(asdict(kept)).encode())
        file.flush()
        yield kept


@contextmanager
def connection(kept: Kept) -> Iterator[Transport]:
    """A connection to a VM; whoever waits for it hears when the VM ends. Raises `TransportError`, `GuestError`."""
    image = Image(key="", root=Path(kept.image), client_key=Path(kept.client_key), host_key=kept.host_key)
    transport = Transport(kept.port, image, check=lambda: insist(kept))
    try:
        yield transport
    finally:
        transport.close()


def insist(kept: Kept) -> None:
    """Raises `GuestError` if the VM is gone."""
    if not is_there(kept):
        raise GuestError(f"{kept.name} has ended", hint="it was stopped, its QEMU died, or its kernel panicked")
