# SPDX-License-Identifier: GPL-2.0-only
"""The watchdog's reading of kernel logs: tests/console has consoles of Linux 6.1 that was broken on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import ExitCode
from harness.target.watchdog import Trouble, VMFailure, complaints, excerpt, find_trouble, trouble_on_console

CONSOLES = Path(__file__).parent / "console"

# The lines of a healthy boot and of a run that look like trouble, and are none.
HARMLESS = """\
[    0.044000] tsc: Unable to calibrate against PIT
[    0.160660] APIC calibration not consistent with PM-Timer: 221ms instead of 100ms
[    0.444436] mtrr: your CPUs had inconsistent fixed MTRR settings
[    6.965969] hmm_harness: loading out-of-tree module taints kernel.
[    7.091794] HMM test module loaded. This is only for testing HMM.
[   12.000000] Memory failure: 0x3f2a: recovery action for dirty LRU page: Recovered
[   12.000001] Injecting memory failure for pfn 0x3f2a at process virtual address 0x10000000
[   12.000002] debugfs: Directory 'x' with parent 'y' already present!
[   12.000003] python3[52]: segfault at 0 ip 0000000000000000 sp 00007ffd1ef1a2c8 error 14
"""

# One line each, as the kernel's source prints them.
LINES = {
    "[    1.0] BUG: KASAN: use-after-free in dmirror_fault+0x1f/0x40 [test_hmm]": Trouble.OOPS,
    "[    1.0] BUG: KCSAN: data-race in a / b": Trouble.OOPS,
    "[    1.0] BUG: Bad page state in process executor  pfn:03f2a": Trouble.OOPS,
    "[    1.0] BUG: Bad rss-counter state mm:00000000a type:MM_ANONPAGES val:1": Trouble.OOPS,
    "[    1.0] BUG: sleeping function called from invalid context at mm/memory.c:1": Trouble.OOPS,
    "[    1.0] WARNING: possible circular locking dependency detected": Trouble.OOPS,
    "[    1.0] WARNING: suspicious RCU usage": Trouble.OOPS,
    "[    1.0] UBSAN: array-index-out-of-bounds in mm/hmm.c:1:2": Trouble.OOPS,
    "[    1.0] general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP": Trouble.OOPS,
    "[    1.0] refcount_t: underflow; use-after-free.": Trouble.OOPS,
    "[    1.0] list_del corruption. prev->next should be ffff, but was dead": Trouble.OOPS,
    "[    1.0] INFO: possible recursive locking detected": Trouble.OOPS,
    "[    1.0] rcu: INFO: rcu_sched self-detected stall on CPU": Trouble.HANG,
    "[    1.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:": Trouble.HANG,
    "[    1.0] rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-... }": Trouble.HANG,
    "[    1.0] BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!": Trouble.HANG,
    "[    1.0][   T52] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100": Trouble.PANIC,
}


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("oops", Trouble.OOPS, "BUG: kernel NULL pointer dereference, address: 0000000000000000"),
        ("bug", Trouble.OOPS, "kernel BUG at /src/crash.c:31!"),
        ("warning", Trouble.OOPS, "WARNING: CPU: 0 PID: 53 at /src/crash.c:33 break_kernel+0x61/0x1000 [crash]"),
        ("panic", Trouble.PANIC, "Kernel panic - not syncing: wanted by a test"),
        ("spin", Trouble.HANG, "watchdog: BUG: soft lockup - CPU#0 stuck for 5s! [insmod:53]"),
        ("sleep", Trouble.HANG, "INFO: task insmod:53 blocked for more than 2 seconds."),
    ],
)
def test_a_broken_kernel_is_told_by_its_console(name: str, kind: Trouble, text: str) -> None:
    console = (CONSOLES / f"{name}.log").read_text()
    failure = trouble_on_console(console)
    assert failure is not None
    assert failure.kind is kind
    assert text in failure.message
    assert text in failure.console
    assert "break_kernel+" in failure.console, "the excerpt has the trace"


@pytest.mark.parametrize(("line", "kind"), LINES.items())
def test_reports_of_the_kernel(line: str, kind: Trouble) -> None:
    found = find_trouble(["[    0.9] before", line])
    assert found is not None
    assert (found.kind, found.line) == (kind, 1)
    assert not found.text.startswith("[")
    assert complaints([line], 0) == [found.text]


def test_a_healthy_console_is_no_trouble() -> None:
    assert trouble_on_console(HARMLESS) is None
    assert complaints(HARMLESS.splitlines(), 0) == []


def test_a_panic_outranks_the_warning_before_it() -> None:
    warning = (CONSOLES / "warning.log").read_text()
    panic = (CONSOLES / "panic.log").read_text()
    failure = trouble_on_console(warning + panic)
    assert failure is not None
    assert failure.kind is Trouble.PANIC


def test_of_two_reports_the_first_counts() -> None:
    log = (CONSOLES / "sleep.log").read_text().splitlines()
    found = find_trouble([*log, "[    9.0] WARNING: CPU: 0 PID: 1 at a.c:1"])
    assert found is not None
    assert found.kind is Trouble.HANG


@pytest.mark.parametrize(
    "line",
    ["agent ended with status 1", "dropbear was killed by signal 9", "fatal: /payload: No such device"],
)
def test_services_that_end_are_a_lost_connection(line: str) -> None:
    failure = trouble_on_console(f"[    1.0] something\nhmm-init: {line}\n")
    assert failure is not None
    assert failure.kind is Trouble.LOST_CONNECTION
    assert line in failure.message


def test_taint_bits_are_named() -> None:
    assert complaints([], 1 << 9 | 1 << 5 | 1 << 30) == [
        "the kernel is tainted now: bad page",
        "the kernel is tainted now: warning",
        "the kernel is tainted now: bit 30",
    ]


def test_the_excerpt_is_around_the_line_or_the_end() -> None:
    log = [f"line {number}" for number in range(200)]
    assert excerpt(log, 100).splitlines()[0] == "line 95"
    assert excerpt(log).splitlines()[-1] == "line 199"
    assert len(excerpt(log, 100).splitlines()) < 100


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (Trouble.PANIC, ExitCode.CRASH),
        (Trouble.OOPS, ExitCode.CRASH),
        (Trouble.HANG, ExitCode.TIMEOUT),
        (Trouble.TIMEOUT, ExitCode.TIMEOUT),
        (Trouble.QEMU_DIED, ExitCode.INFRASTRUCTURE),
        (Trouble.LOST_CONNECTION, ExitCode.INFRASTRUCTURE),
    ],
)
def test_each_kind_has_its_exit_code_and_a_hint(kind: Trouble, code: ExitCode) -> None:
    failure = VMFailure(kind, "message")
    assert failure.exit_code is code
    assert failure.hint
