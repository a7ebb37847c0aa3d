# SPDX-License-Identifier: GPL-2.0-only
"""The lab of a pytest process: its VM is one of those that the machine has room for, and what it shows is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.program.program import Program
from harness.progress import Progress
from harness.pytest_plugin.outcomes import KernelCrashed
from harness.pytest_plugin.slots import Slot, agreed
from harness.report.results import Result
from harness.run import leaks
from harness.target.cache import Cache
from harness.target.lab import Execution, Lab
from harness.target.room import fitting
from harness.target.vm import VM, Machine


class SharedLab(Lab):
    """A `Lab` whose VM waits for one of `vms` slots.

    `first`: what ran first since it was None. `belated`: the last words on programs whose test is over.
    """

    def __init__(
        self, machine: Machine, *, cache: Cache, progress: Progress, restore: bool = True, vms: int | None = None
    ) -> None:
        super().__init__(machine, cache=cache, progress=progress, restore=restore)
        self.first: tuple[Program, Execution] | None = None
        self.belated: list[Result] = []
        self.banner = ""  # of the first VM
        slots = slots_of(cache)
        self._slot = Slot(slots, vms or agreed(slots, lambda: fitting(machine)), progress)

    def vm(self) -> VM:
        """The VM at hand; a clean one is started if there is none, as soon as there is room."""
        self._slot.take()
        vm = super().vm()
        self.banner = self.banner or vm.banner
        return vm

    def look(self) -> None:
        """Notes what the programs of the VM at hand lost of the kernel's memory, where it looks for that."""
        self.belated += leaks(self)

    def discard(self) -> None:
        """Ends the VM, so that the next program gets a clean one."""
        self.look()
        super().discard()
        self._slot.release()

    def rest(self) -> None:
        """To be called between two tests: the VM goes if another process waits for its room."""
        if self._slot.wanted():
            self.discard()

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        """As `Lab.execute`; what was seen first since `first` was None is kept there."""
        execution = super().execute(program, binding, wrong=wrong, timeout=timeout)
        if self.first is None:
            self.first = (program, execution)
        return execution


def settle(belated: Sequence[Result]) -> None:
    """Raises `KernelCrashed` if there is something to be said of tests that are over."""
    if belated:
        lines = [line for result in belated for line in (result.program, *result.explanation, "")]
        raise KernelCrashed("\n".join(["the kernel did not pass in tests that are over:", *lines]))


def slots_of(cache: Cache) -> Path:
    """Where the slots' lock files are."""
    return cache.root / "locks"
