# SPDX-License-Identifier: GPL-2.0-only
"""What the watchdog makes of kernel logs: tests/console has those of kernels that were broken on purpose."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.compare import Verdict
from harness.errors import ExitCode
from harness.run import verdict_of
from harness.target.crashes import crashes
from harness.target.qemu import Qemu
from harness.target.qmp import QmpError, QmpTimeoutError
from harness.target.watchdog import (
    Trouble,
    VMFailure,
    complaints,
    excerpt,
    find_trouble,
    trouble_of_qemu,
    trouble_on_console,
)
from tests.make_corpus import corpus

LOGS = {(each.provocation.name, each.kernel): each.log for each in corpus()}
KERNELS = sorted({kernel for _, kernel in LOGS})

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


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("oops", Trouble.OOPS, "BUG: kernel NULL pointer dereference, address: 0000000000000000"),
        ("bug", Trouble.OOPS, "kernel BUG at crash.c:"),
        ("warning", Trouble.OOPS, "WARNING: "),
        ("bad-page", Trouble.OOPS, "BUG: Bad page state in process sh"),
        ("panic", Trouble.PANIC, "Kernel panic - not syncing: wanted by a test"),
        ("soft-lockup", Trouble.HANG, "watchdog: BUG: soft lockup - CPU#"),
        ("rcu-stall", Trouble.HANG, "self-detected stall on CPU"),
        ("hung-task", Trouble.HANG, "INFO: task sh:"),
    ],
)
def test_a_broken_kernel_is_told_by_its_console(kernel: str, name: str, kind: Trouble, text: str) -> None:
    if (name, kernel) not in LOGS:
        pytest.skip(f"{name} was not recorded on {kernel}")
    console = "\n".join(["[    0.1] before", *LOGS[name, kernel]])
    failure = trouble_on_console(console)
    assert failure is not None
    assert failure.kind is kind
    assert text in failure.message
    assert text in failure.console
    assert "crash_" in failure.console, "the excerpt has the trace"
    assert complaints(console.splitlines(), 0)[0] in failure.message


def test_a_healthy_console_is_no_trouble() -> None:
    assert trouble_on_console(HARMLESS) is None
    assert complaints(HARMLESS.splitlines(), 0) == []


def test_what_somebody_provokes_is_pardoned_and_nothing_else() -> None:
    log = LOGS["warning", "6.1"]
    (warning,) = crashes(log)
    assert trouble_on_console("\n".join(log), {warning.title}) is None
    assert complaints(log, 1 << 9, {warning.title}) == []  # the report explains the taint
    assert complaints(log, 1 << 9, {"WARNING in somewhere_else"}) == complaints(log, 1 << 9) != []
    both = [*log, *LOGS["panic", "6.1"]]
    failure = trouble_on_console("\n".join(both), {warning.title})
    assert failure is not None
    assert failure.kind is Trouble.PANIC


def test_a_panic_outranks_the_warning_before_it() -> None:
    failure = trouble_on_console("\n".join(LOGS["warning", "6.1"] + LOGS["panic", "6.1"]))
    assert failure is not None
    assert failure.kind is Trouble.PANIC
    assert "wanted by a test" in failure.message


def test_a_panic_that_follows_from_an_oops_is_told_by_the_oops() -> None:
    log = [*LOGS["oops", "6.1"], "[   99.9] Kernel panic - not syncing: Fatal exception"]
    failure = trouble_on_console("\n".join(log))
    assert failure is not None
    assert failure.kind is Trouble.PANIC
    assert "NULL pointer dereference" in failure.message
    assert failure.console == "\n".join(log)


def test_the_console_of_a_failure_has_long_reports_whole() -> None:
    log = [*["[    0.1] before"] * 50, *LOGS["lock-order", "6.1"], *["[   99.9] after"] * 50]
    failure = trouble_on_console("\n".join(log))
    assert failure is not None
    assert set(LOGS["lock-order", "6.1"]) <= set(failure.console.splitlines())
    assert failure.console.count("before") + failure.console.count("after") < 20


def test_of_two_reports_the_first_counts() -> None:
    found = find_trouble([*LOGS["hung-task", "6.1"], "[    9.0] WARNING: CPU: 0 PID: 1 at a.c:1"])
    assert found is not None
    assert found[0] is Trouble.HANG


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
        (Trouble.QEMU_STOPPED, ExitCode.INFRASTRUCTURE),
        (Trouble.LOST_CONNECTION, ExitCode.INFRASTRUCTURE),
    ],
)
def test_each_kind_has_its_exit_code_and_a_hint(kind: Trouble, code: ExitCode) -> None:
    failure = VMFailure(kind, "message")
    assert failure.exit_code is code
    assert failure.hint


@pytest.mark.parametrize(
    ("status", "hint"),
    [(-signal.SIGBUS, "disk is full"), (-signal.SIGKILL, "OOM killer"), (0, "a whole kernel"), (1, "QEMU said")],
)
def test_what_qemu_died_of_has_a_remedy(status: int, hint: str) -> None:
    qemu = cast(Qemu, SimpleNamespace(status=status, console="", stderr=""))
    failure = trouble_of_qemu(qemu)
    assert failure is not None
    assert failure.kind is Trouble.QEMU_DIED
    assert failure.hint is not None
    assert hint in failure.hint


def _running(state: str | Exception, console: str = "") -> Qemu:
    """A QEMU that answers, or not, when it is asked how it is."""

    def execute(command: str, *, timeout: float) -> dict[str, Any]:
        assert (command, timeout) == ("query-status", 5.0)
        if isinstance(state, Exception):
            raise state
        return {"status": state}

    return cast(Qemu, SimpleNamespace(status=None, console=console, stderr="", qmp=SimpleNamespace(execute=execute)))


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        ("internal-error", "accelerator"),
        ("io-error", "disk"),
        ("paused", "stopped it"),
        (QmpTimeoutError("no answer"), "no CPU"),
        (QmpError("QEMU refused"), "stopped it"),
    ],
)
def test_a_machine_that_the_host_stopped_says_nothing_of_the_kernel(state: str | Exception, hint: str) -> None:
    failure = trouble_of_qemu(_running(state))
    assert failure is not None
    assert failure.kind is Trouble.QEMU_STOPPED
    assert failure.hint is not None
    assert hint in failure.hint
    assert ("accelerator" in failure.hint) == (state == "internal-error")
    assert verdict_of(failure) is Verdict.ERROR


def test_a_machine_that_runs_is_no_trouble_and_one_that_panicked_has() -> None:
    assert trouble_of_qemu(_running("running")) is None
    failure = trouble_of_qemu(_running("internal-error", "[    1.0] Kernel panic - not syncing: wanted\n"))
    assert failure is not None
    assert failure.kind is Trouble.PANIC


def test_memory_that_was_lost_is_no_reason_to_give_a_vm_up() -> None:
    """It is on the console when somebody has it looked for, who is told what it is."""
    line = "kmemleak: 8 new suspected memory leaks (see /sys/kernel/debug/kmemleak)"
    assert trouble_on_console(f"[   61.0] {line}\n") is None
    assert complaints([line], 0) == [line]
    failure = trouble_on_console(f"[   61.0] {line}\n[   61.1] Kernel panic - not syncing: wanted by a test\n")
    assert failure is not None
    assert failure.kind is Trouble.PANIC
