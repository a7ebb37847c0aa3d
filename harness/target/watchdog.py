# SPDX-License-Identifier: GPL-2.0-only
"""Tells what became of a VM: a panic, an oops, a hang, a lost connection, a dead QEMU and a late answer apart.

What a kernel's log says is read by harness/target/crashes.py.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum

from harness.errors import ExitCode, GuestError
from harness.target.crashes import STALLS, Crash, CrashClass, crashes, damage
from harness.target.qemu import Qemu
from harness.target.qmp import QmpError, QmpGoneError, QmpTimeoutError

_EXCERPT_BEFORE = 5  # lines of console shown before the telling one
_EXCERPT_AFTER = 60  # ... and after it
_EXCERPT_LINES = 500  # of reports, of which the end is known
_TAIL = 30  # lines shown where no line tells


class Trouble(StrEnum):
    """What became of a VM that did not do its part."""

    PANIC = "panic"  # the kernel gave up
    OOPS = "oops"  # the kernel went on after a report that is never fine: oops, BUG, WARNING, KASAN, lockdep
    HANG = "hang"  # QEMU runs the guest, which does nothing
    LOST_CONNECTION = "lost-connection"  # all is there but the way to the agent, or the agent
    QEMU_DIED = "qemu-died"
    QEMU_STOPPED = "qemu-stopped"  # QEMU is there and runs the guest no longer: that says nothing of the guest
    TIMEOUT = "timeout"  # the guest is well, but the answer did not come in time


_EXIT_CODES = {
    Trouble.PANIC: ExitCode.CRASH,
    Trouble.OOPS: ExitCode.CRASH,
    Trouble.HANG: ExitCode.TIMEOUT,
    Trouble.TIMEOUT: ExitCode.TIMEOUT,
    Trouble.LOST_CONNECTION: ExitCode.INFRASTRUCTURE,
    Trouble.QEMU_DIED: ExitCode.INFRASTRUCTURE,
    Trouble.QEMU_STOPPED: ExitCode.INFRASTRUCTURE,
}
_TROUBLES = {CrashClass.PANIC: Trouble.PANIC, **dict.fromkeys(STALLS, Trouble.HANG)}  # the others are an OOPS
_HINTS = {
    Trouble.PANIC: "the kernel's own words are in the console excerpt",
    Trouble.OOPS: "the kernel's own words are in the console excerpt",
    Trouble.HANG: "the console excerpt ends where it stopped; an overloaded machine can look like this",
    Trouble.TIMEOUT: "the guest still answers: the program waits for something, or needs more time",
    Trouble.LOST_CONNECTION: "the console excerpt shows whether the agent or the SSH server ended",
    Trouble.QEMU_DIED: "see what QEMU said; `kill -9` and the kernel's OOM killer leave no word",
    Trouble.QEMU_STOPPED: "somebody or something on this machine stopped it, or left it no CPU: look there, or try "
    "--vms 1",
}
_HINTS_BY_STATE = {  # of a machine that QEMU stopped by itself: qapi/run-state.json, RunState
    "internal-error": "the accelerator cannot run this guest; `hmm-harness doctor` says which it is, and why",
    "io-error": "a file of the cache, from which the guest has its disks, cannot be read: is that disk well?",
}
_HINTS_BY_STATUS = {  # of QEMU's death
    -signal.SIGBUS: "the guest's memory is a file of the cache, and that disk is full or broken: free some with "
    "`hmm-harness clean`, or set XDG_CACHE_HOME to a directory on a larger disk",
    0: "the guest switched itself off or reset itself: is that a whole kernel, and one for this machine?",
}


class VMFailure(GuestError):  # noqa: N818 - it says how a VM failed
    """A VM failed: `kind` says how, `console` is the part of its console that tells."""

    def __init__(self, kind: Trouble, message: str, *, console: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=_HINTS[kind] if hint is None else hint)
        self.kind = kind
        self.console = console
        self.exit_code = _EXIT_CODES[kind]


_AGENT_GONE = re.compile(r"hmm-init: (?:(?:agent|dropbear) (?:ended|was killed)|fatal:|cannot start).*")


def find_trouble(log: Sequence[str], pardoned: Collection[str] = ()) -> tuple[Trouble, Crash] | None:
    """What became of a kernel by its log, and the crash that says so; None if none does.

    Of several the first; but a panic outranks all, and so does the crash that a panic followed from. Crashes with a
    title in `pardoned` are none.
    """
    found = list(_besides(pardoned, damage(log)))
    for crash in found:
        if CrashClass.PANIC in (crash.kind, *(each.kind for each in crash.consequences)):
            return Trouble.PANIC, crash
    return (_TROUBLES.get(found[0].kind, Trouble.OOPS), found[0]) if found else None


def complaints(log: Sequence[str], taint: int, pardoned: Collection[str] = ()) -> list[str]:
    """What is never fine: the telling lines of reports, and the bits that were added to the taint unexplained.

    Without the reports whose title is in `pardoned`.
    """
    found = _besides(pardoned, crashes(log, taint))
    return [crash.text for each in found for crash in (each, *each.consequences)]


def _besides(pardoned: Collection[str], found: Sequence[Crash]) -> Iterator[Crash]:
    for crash in found:
        if crash.title in pardoned:
            yield from _besides(pardoned, crash.consequences)
        else:
            yield crash


def excerpt(log: Sequence[str], first: int | None = None, last: int | None = None) -> str:
    """The part of a log around the line `first`, or the lines `first` to `last`, or its end."""
    if first is None:
        return "\n".join(log[-_TAIL:])
    end = first + _EXCERPT_AFTER if last is None else min(last + _EXCERPT_BEFORE, first + _EXCERPT_LINES)
    return "\n".join(log[max(0, first - _EXCERPT_BEFORE) : end])


def trouble_on_console(console: str, pardoned: Collection[str] = ()) -> VMFailure | None:
    """What the console says went wrong, as a failure of the VM; but for crashes with a title in `pardoned`."""
    log = console.splitlines()
    found = find_trouble(log, pardoned)
    if found is not None:
        kind, crash = found
        word = {Trouble.PANIC: "panicked", Trouble.HANG: "hangs"}.get(kind, "reported a bug")
        last = max(each.last for each in (crash, *crash.consequences))
        return VMFailure(kind, f"the kernel {word}: {crash.text}", console=excerpt(log, crash.first, last))
    for index, line in enumerate(log):
        match = _AGENT_GONE.search(line)
        if match is not None:
            return VMFailure(Trouble.LOST_CONNECTION, f"the guest failed: {match[0]}", console=excerpt(log, index))
    return None


def trouble_of_qemu(qemu: Qemu) -> VMFailure | None:
    """Whether QEMU and its machine are there and run; asks QEMU, so it takes seconds if QEMU does not answer."""
    status = qemu.status
    if status is None:
        try:
            state = str(qemu.qmp.execute("query-status", timeout=5.0)["status"])
        except QmpGoneError:
            _await_end(qemu)
            status = qemu.status
        except QmpTimeoutError:
            message = "QEMU itself does not answer: stopped, or starved"
            return VMFailure(Trouble.QEMU_STOPPED, message, console=_tail(qemu))
        except QmpError as error:
            return VMFailure(Trouble.QEMU_STOPPED, error.message, console=_tail(qemu))
        else:
            if state == "running":
                return None
            message, hint = f"QEMU stopped the machine: {state}", _HINTS_BY_STATE.get(state)
            return _panic(qemu) or VMFailure(Trouble.QEMU_STOPPED, message, console=_tail(qemu), hint=hint)
    panic = _panic(qemu)
    if panic is not None:
        return panic
    said = f": {qemu.stderr.splitlines()[-1]}" if qemu.stderr else ""
    hint = None if status is None else _HINTS_BY_STATUS.get(status)
    return VMFailure(Trouble.QEMU_DIED, f"QEMU {_ending(status)}{said}", console=_tail(qemu), hint=hint)


def _panic(qemu: Qemu) -> VMFailure | None:
    """The panic on the console, which is why all that came later came."""
    on_console = trouble_on_console(qemu.console)
    return on_console if on_console is not None and on_console.kind is Trouble.PANIC else None


def _await_end(qemu: Qemu) -> None:
    """A process whose sockets are closed is about to be collected."""
    for _ in range(50):
        if qemu.status is not None:
            return
        qemu.wait_change(0.1)


def _ending(status: int | None) -> str:
    if status is None:
        return "closed its sockets but did not end"
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


def _tail(qemu: Qemu) -> str:
    return excerpt(qemu.console.splitlines())
