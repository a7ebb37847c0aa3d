# SPDX-License-Identifier: GPL-2.0-only
"""The log of a VM that a test used as it liked: a kernel that complained did not pass."""

from __future__ import annotations

from collections.abc import Callable

from harness.printable import plain
from harness.pytest_plugin.outcomes import KernelCrashed
from harness.target.vm import VM
from harness.target.watchdog import complaints

_SECONDS = 30.0


def inspect_log(vm: VM, show: Callable[[str], None]) -> None:
    """Raises `KernelCrashed` if the kernel complained; `show` takes its log.

    Of a VM that is gone, which is what a panic leaves, there is the console. A test may end QEMU: that alone is no
    complaint.
    """
    status, log = vm.exec("dmesg", timeout=_SECONDS) if vm.alive() else (-1, "")
    lines = log.splitlines() if status == 0 else vm.console.splitlines()
    show(plain("\n".join(lines)))
    found = complaints(lines, 0)
    if found:
        raise KernelCrashed("\n".join(["the kernel complained during the test", *(f"    {each}" for each in found)]))
