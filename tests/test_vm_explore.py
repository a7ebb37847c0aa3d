# SPDX-License-Identifier: GPL-2.0-only
"""An exploration as a user runs it, killed in the middle of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from harness.errors import ExitCode
from harness.explore.campaign import target_hash
from harness.explore.findings import Store
from harness.target.vm import Machine
from tests.processes import marked_processes

pytestmark = pytest.mark.vm

_WRONG = "skip-invalidate"
_KILLS = 3


def _known(place: Path) -> tuple[list[int], set[str], set[str]]:
    """Numbers of the units that are done, situations that were met, and what was found."""
    with Store(place) as store:
        numbers = [unit.number for unit in store.units()]
        return numbers, store.corpus()[1], {finding.symptom.id for finding in store.findings()}


def test_an_exploration_that_is_killed_goes_on_with_all_that_it_knew(machine: Machine, tmp_path: Path) -> None:
    """Its process group gets SIGKILL while VMs start, programs run, and a finding is made small."""
    place = tmp_path / "kept"
    environment = os.environ | {"MARKED_BY_TEST": str(tmp_path)}
    words = ["explore", "--kernel", machine.kernel.name, "--dir", str(place), "--seed", "3", "--vms", "1"]
    command = [sys.executable, "-m", "harness", *words, "--wrong", _WRONG]
    random = Random(7)
    before: tuple[list[int], set[str], set[str]] = ([], set(), set())
    for _ in range(_KILLS):
        process = subprocess.Popen([*command, "--time", "5m"], env=environment, start_new_session=True)
        time.sleep(random.uniform(3.0, 20.0))
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 20
        while (left := marked_processes(str(tmp_path))) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert left == {}
        now = _known(place)
        assert now[0][: len(before[0])] == before[0]
        assert now[1] >= before[1]
        assert now[2] >= before[2]
        before = now
    ended = subprocess.run([*command, "--programs", "1"], env=environment, check=False)
    assert ended.returncode in (ExitCode.PASS, ExitCode.FAIL)
    numbers, met, found = _known(place)
    assert numbers == list(range(len(numbers)))
    assert numbers
    assert met >= before[1]
    assert found >= before[2]
    assert found, f"{_WRONG} shows in the first unit"
    with Store(place) as store:
        assert {unit.target for unit in store.units()} == {target_hash(machine, (_WRONG,))}
        assert all(finding.runs for finding in store.findings())
