# SPDX-License-Identifier: GPL-2.0-only
"""Runs one case of the kernel's own hmm-tests in the guest, and leaves nothing of it behind."""

# pathlib is too slow to import: see agent.py.
# ruff: noqa: PTH123, PTH208

from __future__ import annotations

import os
import select
import signal
import time

from harness.guest.kernel import AgentError

_CHOICE = "HMM_HARNESS_CASE"  # harness/guest/peer/witness.c
_MOST_OUTPUT = 1 << 19  # bytes from its begin, and as many from its end
_GONE_SECONDS = 5.0  # for processes that were killed


class Ended:
    """How it ended: `status` is its exit status, or the negative of a signal; `late` if it was killed for its time.

    `left`: names of processes that it left behind.
    """

    def __init__(self, output: bytes, status: int, late: bool, left: list[str]) -> None:
        self.output = output
        self.status = status
        self.late = late
        self.left = left


def run_case(path: str, number: int, seconds: float) -> Ended:
    """Runs case `number` of the suite `path`, for at most `seconds`. Raises `AgentError` if it cannot be started."""
    output = os.memfd_create("hmm-tests")  # not a pipe: whatever it prints, it waits for nobody
    try:
        pid = _start(path, number, output)
        late = not _await(pid, seconds)
        if late:
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        left = _sweep(pid)
        return Ended(_read(output), os.waitstatus_to_exitcode(status), late, [] if late else left)
    finally:
        os.close(output)


def _start(path: str, number: int, output: int) -> int:
    try:
        return os.posix_spawn(
            path,
            [path],
            {**os.environ, _CHOICE: str(number)},
            file_actions=[(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)],
            setsid=True,  # each case has a process group of its own in it
        )
    except OSError as error:
        raise AgentError(f"cannot start {path}: {error.strerror}") from error


def _await(pid: int, seconds: float) -> bool:
    """Whether it ended in time."""
    fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(fd)


def _sweep(session: int) -> list[str]:
    """Kills what is left of a session; the names of these processes."""
    left: dict[int, str] = {}
    deadline = time.monotonic() + _GONE_SECONDS
    while found := _members(session):
        left.update(found)
        for pid in found:
            try:  # noqa: SIM105  contextlib would have to be imported
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return list(left.values())


def _members(session: int) -> dict[int, str]:
    """Names of the processes of a session that are not dead, by their ids."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat") as file:
                head, _, rest = file.read().rpartition(")")
        except OSError:  # it has just ended
            continue
        state, _, _, its_session = rest.split()[:4]
        if int(its_session) == session and state not in "ZX":
            found[int(name)] = head.partition("(")[2]
    return found


def _read(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    if size <= 2 * _MOST_OUTPUT:
        return os.pread(fd, size, 0)
    cut = f"\n[hmm-harness: {size - 2 * _MOST_OUTPUT} bytes are left out]\n".encode()
    return os.pread(fd, _MOST_OUTPUT, 0) + cut + os.pread(fd, _MOST_OUTPUT, size - _MOST_OUTPUT)
