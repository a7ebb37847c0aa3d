# SPDX-License-Identifier: GPL-2.0-only
"""Tells what became of a VM: a panic, an oops, a hang, a lost connection, a dead QEMU and a late answer apart.

Kernel logs are read here only; what counts as a complaint is one table.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.errors import ExitCode, GuestError
from harness.target.qemu import Qemu
from harness.target.qmp import QmpError, QmpGoneError, QmpTimeoutError

_EXCERPT_BEFORE = 5  # lines of console shown before the telling one
_EXCERPT_AFTER = 60  # ... and after it: a trace is rarely longer
_TAIL = 30  # lines shown where no line tells


class Trouble(StrEnum):
    """What became of a VM that did not do its part."""

    PANIC = "panic"  # the kernel gave up
    OOPS = "oops"  # the kernel went on after a report that is never fine: oops, BUG, WARNING, KASAN, lockdep
    HANG = "hang"  # QEMU is there, but the guest, or QEMU itself, does nothing
    LOST_CONNECTION = "lost-connection"  # all is there but the way to the agent, or the agent
    QEMU_DIED = "qemu-died"
    TIMEOUT = "timeout"  # the guest is well, but the answer did not come in time


_EXIT_CODES = {
    Trouble.PANIC: ExitCode.CRASH,
    Trouble.OOPS: ExitCode.CRASH,
    Trouble.HANG: ExitCode.TIMEOUT,
    Trouble.TIMEOUT: ExitCode.TIMEOUT,
    Trouble.LOST_CONNECTION: ExitCode.INFRASTRUCTURE,
    Trouble.QEMU_DIED: ExitCode.INFRASTRUCTURE,
}
_HINTS = {
    Trouble.PANIC: "the kernel's own words are in the console excerpt",
    Trouble.OOPS: "the kernel's own words are in the console excerpt",
    Trouble.HANG: "the console excerpt ends where it stopped; an overloaded machine can look like this",
    Trouble.TIMEOUT: "the guest still answers: the program waits for something, or needs more time",
    Trouble.LOST_CONNECTION: "the console excerpt shows whether the agent or the SSH server ended",
    Trouble.QEMU_DIED: "see what QEMU said; `kill -9` and the kernel's OOM killer leave no word",
}


class VMFailure(GuestError):  # noqa: N818 - it says how a VM failed
    """A VM failed: `kind` says how, `console` is the part of its console that tells."""

    def __init__(self, kind: Trouble, message: str, *, console: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=_HINTS[kind] if hint is None else hint)
        self.kind = kind
        self.console = console
        self.exit_code = _EXIT_CODES[kind]


@dataclass(frozen=True)
class Finding:
    """A telling line of a kernel's log: its index and its text without the time stamp."""

    kind: Trouble
    line: int
    text: str


# Each with where it is printed (6.1). The order does not matter: a panic outranks all, else the first line counts.
_PATTERNS: tuple[tuple[Trouble, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (Trouble.PANIC, r"Kernel panic - not syncing"),  # kernel/panic.c
        (Trouble.HANG, r"INFO: task \S+ blocked for more than \d+ seconds"),  # kernel/hung_task.c
        (Trouble.HANG, r"BUG: soft lockup - CPU#\d+ stuck"),  # kernel/watchdog.c
        (Trouble.HANG, r"Watchdog detected hard LOCKUP"),  # kernel/watchdog_hld.c
        (Trouble.HANG, r"INFO: \S+ (?:self-)?detected (?:expedited )?stalls?\b"),  # kernel/rcu/tree_stall.h
        (Trouble.HANG, r"BUG: workqueue lockup"),  # kernel/workqueue.c
        (Trouble.OOPS, r"\bBUG: (?!soft lockup|workqueue lockup)"),  # oopses, KASAN, KFENCE, KCSAN, bad pages, slub
        (Trouble.OOPS, r"\bOops: [0-9a-f]{4}\b"),  # arch/x86/kernel/dumpstack.c
        (Trouble.OOPS, r"kernel BUG at "),  # arch/x86/kernel/traps.c, lib/bug.c
        (Trouble.OOPS, r"WARNING: "),  # lib/bug.c; lockdep's "possible circular locking dependency", and its kin
        (Trouble.OOPS, r"general protection fault"),  # arch/x86/kernel/traps.c
        (Trouble.OOPS, r"(?:divide error|invalid opcode|stack segment|double fault): [0-9a-f]{4}"),
        (Trouble.OOPS, r"INFO: (?:possible recursive|inconsistent lock|suspicious RCU|trying to register)"),
        (Trouble.OOPS, r"UBSAN: "),  # lib/ubsan.c
        (Trouble.OOPS, r"DEBUG_LOCKS_WARN_ON"),  # kernel/locking
        (Trouble.OOPS, r"refcount_t: "),  # lib/refcount.c
        (Trouble.OOPS, r"list_(?:add|del) corruption"),  # lib/list_debug.c
        (Trouble.OOPS, r"Bad page state|bad pte|Bad rss-counter|bad p[gum4]?[md]d "),  # mm/page_alloc.c, mm/memory.c
        (Trouble.OOPS, r"unreferenced object 0x"),  # mm/kmemleak.c
    )
)
_STAMP = re.compile(r"^\s*(?:<\d+>)?\s*\[\s*\d+\.\d+\](?:\[[^]]*\])?\s*")
_AGENT_GONE = re.compile(r"hmm-init: (?:(?:agent|dropbear) (?:ended|was killed)|fatal:|cannot start).*")

# Documentation/admin-guide/tainted-kernels.rst
_TAINTS = {
    0: "proprietary module",
    1: "module force-loaded",
    2: "kernel out of specification",
    3: "module force-unloaded",
    4: "machine check",
    5: "bad page",
    6: "tainted by user space",
    7: "oops or BUG",
    8: "ACPI table overridden",
    9: "warning",
    10: "staging driver",
    11: "firmware workaround",
    12: "out-of-tree module",
    13: "unsigned module",
    14: "soft lockup",
    15: "live-patched",
    16: "auxiliary taint",
    17: "randstruct plugin",
    18: "in-kernel test",
}


def _kind(line: str) -> Trouble | None:
    return next((kind for kind, pattern in _PATTERNS if pattern.search(line)), None)


def find_trouble(log: Sequence[str]) -> Finding | None:
    """The line of a kernel's log that says what went wrong; None if none does."""
    first: Finding | None = None
    for index, line in enumerate(log):
        kind = _kind(line)
        if kind is None or (first is not None and kind is not Trouble.PANIC):
            continue
        first = Finding(kind, index, _STAMP.sub("", line).strip())
        if kind is Trouble.PANIC:
            break
    return first


def complaints(log: Sequence[str], taint: int) -> list[str]:
    """What is never fine: lines of the kernel's log, and the bits that were added to its taint."""
    lines = [_STAMP.sub("", line).strip() for line in log if _kind(line) is not None]
    bits = [bit for bit in range(taint.bit_length()) if taint >> bit & 1]
    return lines + [f"the kernel is tainted now: {_TAINTS.get(bit, f'bit {bit}')}" for bit in bits]


def excerpt(log: Sequence[str], line: int | None = None) -> str:
    """The part of a log around `line`, or its end."""
    if line is None:
        return "\n".join(log[-_TAIL:])
    return "\n".join(log[max(0, line - _EXCERPT_BEFORE) : line + _EXCERPT_AFTER])


def trouble_on_console(console: str) -> VMFailure | None:
    """What the console says went wrong, as a failure of the VM."""
    log = console.splitlines()
    found = find_trouble(log)
    if found is not None:
        word = {Trouble.PANIC: "panicked", Trouble.HANG: "hangs"}.get(found.kind, "reported a bug")
        return VMFailure(found.kind, f"the kernel {word}: {found.text}", console=excerpt(log, found.line))
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
            return VMFailure(Trouble.HANG, "QEMU itself does not answer: stopped, or starved", console=_tail(qemu))
        except QmpError as error:
            return VMFailure(Trouble.HANG, error.message, console=_tail(qemu))
        else:
            if state == "running":
                return None
            return VMFailure(
                Trouble.HANG,
                f"QEMU stopped the machine: {state}",
                console=_tail(qemu),
                hint="`internal-error` is an accelerator that cannot run this guest; see `hmm-harness doctor`",
            )
    on_console = trouble_on_console(qemu.console)
    if on_console is not None and on_console.kind is Trouble.PANIC:
        return on_console
    said = f": {qemu.stderr.splitlines()[-1]}" if qemu.stderr else ""
    return VMFailure(Trouble.QEMU_DIED, f"QEMU {_ending(status)}{said}", console=_tail(qemu))


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
