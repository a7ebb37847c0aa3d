# SPDX-License-Identifier: GPL-2.0-only
"""Every class of the crash taxonomy, provoked in a VM by the module in tests/crash."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BuildError
from harness.target.artifacts import Kernel
from harness.target.crashes import CrashClass
from harness.target.kernel import make_environment
from harness.target.kernels.chroot import make_module
from harness.target.vm import VM
from harness.target.watchdog import VMFailure

SOURCE = Path(__file__).parent / "crash"
SECONDS = 60.0
_MODULE = "/tmp/crash.ko"
TRIGGER = "/sys/kernel/debug/crash"
_IMPATIENT = (
    # Detectors of what takes too long: patient by default, for the sake of busy hosts
    "echo 2 > /proc/sys/kernel/hung_task_timeout_secs",
    "echo {thresh} > /proc/sys/kernel/watchdog_thresh",
    "echo {stall} > /sys/module/rcupdate/parameters/rcu_cpu_stall_timeout",
)


@dataclass(frozen=True)
class Provocation:
    """A way to make a kernel report. `trigger`: what is written to the module's file."""

    name: str
    trigger: str
    kind: CrashClass
    title: str  # a regular expression
    flavour: str = "plain"  # the one that notices
    thresh: int = 30  # watchdog_thresh; a soft lockup is reported after twice as many seconds
    stall: int = 60  # rcu_cpu_stall_timeout
    before: str = ":"  # a shell command
    after: str = ":"  # a shell command, for what is reported only when something else is done
    deadly: bool = False  # the VM is lost

    @property
    def command(self) -> str:
        """The shell command that provokes, with the module loaded. The process that writes may be killed."""
        patience = [line.format(thresh=self.thresh, stall=self.stall) for line in _IMPATIENT]
        return "; ".join([*patience, self.before, f"sh -c 'echo {self.trigger} > {TRIGGER}'", self.after])


PROVOCATIONS = (
    Provocation(
        "oops", "oops", CrashClass.OOPS, "BUG: unable to handle kernel NULL pointer dereference in crash_oops"
    ),
    Provocation("bug", "bug", CrashClass.BUG, "kernel BUG in crash_bug"),
    Provocation("warning", "warning", CrashClass.WARNING, "WARNING in crash_warning"),
    Provocation("panic", "panic", CrashClass.PANIC, "kernel panic: wanted by a test", deadly=True),
    Provocation("taint", "taint", CrashClass.TAINT, "the kernel is tainted now: auxiliary taint"),
    Provocation(
        "schedule-in-atomic",
        "schedule-in-atomic",
        CrashClass.SLEEP_IN_ATOMIC,
        "BUG: scheduling while atomic in crash_schedule_in_atomic",
    ),
    Provocation("hung-task", "hang 5", CrashClass.HUNG_TASK, "INFO: task hung in crash_hang"),
    Provocation("soft-lockup", "spin 5", CrashClass.SOFT_LOCKUP, "BUG: soft lockup in crash_spin", thresh=1),
    Provocation("rcu-stall", "spin 6", CrashClass.RCU_STALL, "INFO: rcu detected stall in crash_spin", stall=3),
    Provocation("bad-page", "bad-page", CrashClass.BAD_PAGE, "BUG: Bad page state in crash_bad_page"),
    Provocation(
        "bad-rss",
        "bad-rss",
        CrashClass.BAD_RSS,
        "BUG: Bad rss-counter state type:MM_ANONPAGES",
        # A CPU that is idle keeps the memory of the process that it ran last, until it runs another.
        after="for each in 1 2 3 4; do (n=0; while [ $n -lt 3000 ]; do n=$((n+1)); done) & done; wait; sleep 1",
    ),
    Provocation(
        "use-after-free",
        "use-after-free",
        CrashClass.KASAN,
        "KASAN: (slab-)?use-after-free Write in crash_use_after_free",
        flavour="debug",
    ),
    Provocation(
        "out-of-bounds",
        "out-of-bounds",
        CrashClass.KASAN,
        "KASAN: slab-out-of-bounds Read in crash_out_of_bounds",
        flavour="debug",
    ),
    Provocation(
        "lock-order", "lock-order", CrashClass.LOCKDEP, "possible deadlock in crash_lock_order", flavour="debug"
    ),
    Provocation(
        "lock-twice",
        "lock-twice",
        CrashClass.LOCKDEP,
        "possible recursive locking in crash_lock_twice",
        flavour="debug",
    ),
    Provocation(
        "sleep-in-atomic",
        "sleep-in-atomic",
        CrashClass.SLEEP_IN_ATOMIC,
        "BUG: sleeping function called from invalid context in crash_sleep_in_atomic",
        flavour="debug",
    ),
    Provocation(
        "data-race",
        "data-race 3",
        CrashClass.KCSAN,
        "KCSAN: data-race in race_read / race_write",
        flavour="kcsan",
        # Off otherwise, since kernels have races of their own; of those nothing is to be heard here.
        before="for each in '!race_read' '!race_write' whitelist on; do echo $each > /sys/kernel/debug/kcsan; done",
        after="echo off > /sys/kernel/debug/kcsan",
    ),
)

# Not a line of the log: what is found when somebody looks for it
LEAK = Provocation("leak", "leak", CrashClass.LEAK, "memory leak in crash_leak", flavour="debug")


def build_crash(kernel: Kernel) -> bytes:
    """The module for `kernel`. Raises `BuildError` if it does not build."""
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        for source in SOURCE.iterdir():
            shutil.copy(source, work)
        argv = make_module(kernel, work, "modules")
        made = subprocess.run(argv, env=make_environment(), capture_output=True, text=True, check=False)
        if made.returncode:
            raise BuildError(f"the test's module does not build:\n{made.stdout}{made.stderr}")
        return (work / "crash.ko").read_bytes()


def load_crash(vm: VM, crash: bytes) -> None:
    """Loads the module."""
    vm.put(_MODULE, crash)
    status, output = vm.exec(f"insmod {_MODULE}", timeout=SECONDS)
    assert status == 0, output


def provoke(vm: VM, provocation: Provocation) -> tuple[list[str], int]:
    """The kernel's log and its added taint, from the trigger on; of a VM that is lost, what its console shows."""
    mark = f"provoking: {provocation.name}"
    vm.exec(f"echo '{mark}' > /dev/kmsg", timeout=SECONDS)
    before = _taint(vm)
    try:
        vm.exec(f"({provocation.command}) > /dev/null 2>&1", timeout=SECONDS)
    except VMFailure:
        if not provocation.deadly:
            raise
        return vm.console.splitlines(), 0
    _, output = vm.exec("dmesg", timeout=SECONDS)
    log = output.splitlines()
    start = next(index for index, line in enumerate(log) if mark in line)
    return log[start + 1 :], before ^ _taint(vm)


def _taint(vm: VM) -> int:
    return int(vm.exec("cat /proc/sys/kernel/tainted", timeout=SECONDS)[1])
