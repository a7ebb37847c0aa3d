# SPDX-License-Identifier: GPL-2.0-only
"""A lab without a VM, for tests of the pytest plugin: its kernel does the first thing that the model allows.

Programs say by names of regions what goes wrong instead: `stale`, `oops`, `dead` and so on; a test whose name has
`leaky` makes the kernel lose memory, which is found when the VM ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from harness.model.rules import RULES
from harness.program.observations import Element, Entry, Mark, Observation, Status
from harness.program.operations import Table
from harness.program.program import Program
from harness.pytest_plugin.lab import SharedLab
from harness.pytest_plugin.model import Model
from harness.pytest_plugin.slots import Slot
from harness.target.crashes import crashes
from harness.target.lab import Execution, Job, Leak
from harness.target.vm import Machine
from harness.target.watchdog import Trouble, VMFailure

LOST = (
    "unreferenced object 0xffff888004a1c000 (size 64):",
    '  comm "executor", pid 77, jiffies 4294902000',
    "  backtrace (crc 0):",
    "    hmm_range_fault+0x3/0x4",
)
MISTAKE = "skip-invalidate"


def fake_machine(kernel: str, flavour: str) -> Machine:
    """A machine that cannot be booted."""
    return cast(
        Machine,
        SimpleNamespace(
            kernel=SimpleNamespace(name=kernel, flavour=flavour, release="0", key="0", append=""),
            image=SimpleNamespace(key="0"),
            payload=SimpleNamespace(key="0"),
            append="",
        ),
    )


class FakeLab(SharedLab):
    """Takes the place of the fixture `hmm_lab`. `journal` gets a line for each VM and program."""

    def __init__(self, machine: Machine, journal: Path, *, slot: Slot | None = None) -> None:
        self.machine = machine
        self.first = None
        self.banner = "a fake kernel"
        self._journal = journal
        self._slot = slot  # type: ignore[assignment]
        self._clean = True
        self.belated = []
        self._lost: list[Leak] = []
        self._number = -1

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.look()

    def note(self, line: str) -> None:
        with self._journal.open("a") as journal:
            journal.write(f"{line}\n")

    def vm(self) -> Any:
        return SimpleNamespace(
            exec=lambda *_, **__: (0, "[    1.000000] all is well"), alive=lambda: True, console=""
        )

    def discard(self) -> None:
        self.note("discard")

    def rest(self) -> None:
        pass

    memo: object = None
    is_ahead = False

    def expect(self, _jobs: Sequence[Job]) -> None:
        """One after the other."""

    def leaks(self) -> tuple[Leak, ...]:
        found, self._lost = self._lost, []
        return tuple(found)

    def broken(self) -> str | None:
        return None

    def missing(self, binding: str) -> str | None:
        return None if binding == "interval" else f"{self.kernel.name} has no module {binding}"

    def features(self) -> tuple[str, ...]:
        return tuple(RULES["interval"].features)

    def mistakes(self) -> tuple[str, ...]:
        return (MISTAKE,)

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        self.note(f"{self.kernel.name} {binding} {timeout:g} {len(program.steps)}")
        observations = Model(RULES[binding]).obedient(program)
        log: tuple[str, ...] = ()
        if "dead" in program.regions:
            raise VMFailure(Trouble.QEMU_DIED, "QEMU was killed by SIGKILL", console="[    1.0] last words")
        if "panic" in program.regions:
            raise VMFailure(Trouble.PANIC, "the kernel panicked: oh no", console="[    1.0] Kernel panic: oh no")
        if "oops" in program.regions:
            log = ("[    1.0] WARNING: CPU: 0 at mm/hmm.c:1",)
        if "stuck" in program.regions:
            observations = (*observations[:-1], Observation(Status.STUCK))
        if "lost" in program.regions:
            observations = observations[:-1]
        if wrong or "stale" in program.regions:
            observations = tuple(map(_stale, program.steps, observations))
        self._number += 1
        if "leaky" in program.name:
            self._lost.append(Leak((self._number,), crashes(LOST)[0]))
        execution = Execution(
            observations=observations,
            seconds=0.001,
            log=log,
            earlier=(),
            crashes=tuple(crashes(log)),
            residue={"d0": 0, "d1": 0},
            number=self._number,
        )
        self.first = self.first or (program, execution)
        return execution


def _stale(step: object, observation: Observation) -> Observation:
    if not isinstance(step, Table):
        return observation
    elements: list[Element] = [Entry(Mark.VALID | Mark.WRITE | Mark.STALE) for _ in observation.elements]
    return replace(observation, elements=tuple(elements))
