# SPDX-License-Identifier: GPL-2.0-only
"""What the workers of a test's cluster are asked to call: slots whose kernel is the model itself, with one bug.

In the directory that $FAKE_SLOTS_PLACE names, a file lethal-N makes unit N wait for whoever kills the worker,
by the process id in the name of the file at-N-ID that it leaves there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from harness.explore import campaign, generate
from harness.explore.shards import Task
from harness.explore.slots import Order, Slots
from harness.program.operations import Table, ToSystem
from harness.program.program import Program
from harness.target.lab import Execution, Lab
from harness.target.vm import Machine
from tests.test_explore import STALE, FakeMachine, ModelLab

PLACE = "FAKE_SLOTS_PLACE"
BATCHES, BATCH, LONG = 2, 4, 8
_PATIENCE = 300.0


class _StaleLab(ModelLab):
    """The device keeps all its entries once something came back from it."""

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        execution = super().execute(program, binding, wrong=wrong, timeout=timeout)
        observations = list(execution.observations)
        migrated = False
        for number, step in enumerate(program.steps):
            if isinstance(step, Table) and migrated:
                stale = tuple(STALE for _ in observations[number].elements)
                observations[number] = replace(observations[number], elements=stale)
            migrated = migrated or isinstance(step, ToSystem)
        return replace(execution, observations=tuple(observations))


def lab() -> Lab:
    """One that finds something in few programs."""
    return cast(Lab, _StaleLab(defect=False, ran=[]))


def slots() -> Slots:
    """Those of a process that is not there yet."""
    return Slots(lambda _kernel, _flavour: cast(Machine, FakeMachine()), lambda _machine, _ending: lab())


_MINE = slots()


def do(text: str) -> str:
    """As `harness.explore.slots.do`."""
    campaign._BATCHES, campaign._BATCH, generate._LONG = BATCHES, BATCH, LONG
    shard = Order.load(text).shard
    if shard is not None and shard.task is Task.EXPLORE:
        place = Path(os.environ[PLACE])
        if (place / f"lethal-{shard.number}").exists():
            (place / f"at-{shard.number}-{os.getpid()}").touch()
            time.sleep(_PATIENCE)
    return _MINE.do(text)
