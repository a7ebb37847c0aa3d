# SPDX-License-Identifier: GPL-2.0-only
"""An exploration on a dask cluster of two workers with a VM each: one worker is killed, and the other one's VM."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import ExitCode
from harness.explore import campaign, slots
from harness.explore.campaign import Terms, target_hash
from harness.explore.cluster import connected, explore_on
from harness.explore.findings import Store
from harness.progress import Progress
from harness.target.vm import Machine
from tests.local_cluster import LocalCluster, local_cluster
from tests.processes import marked_processes

pytestmark = pytest.mark.vm

_BATCHES = 1  # of a unit: an eighth of what there are else
_UNITS = 5
_SHARD = (1, 16)  # none of these has programs after which another one needs a clean VM
_PATIENCE = 300.0


def do(text: str) -> str:
    """As `harness.explore.slots.do`, with smaller units."""
    campaign._BATCHES = _BATCHES
    return slots.do(text)


class _Killer(threading.Thread):
    """When a unit is done, it kills the VM of the first worker; when that has another one, the second worker."""

    def __init__(self, cluster: LocalCluster, marker: str, place: Path) -> None:
        super().__init__(daemon=True)
        self.killed: list[str] = []
        self._workers = cluster.workers
        self._marker = marker
        self._place = place

    def vms(self) -> dict[int, int]:
        """The process id of the VM of each worker's, which is its parent."""
        found = {}
        for process, name in marked_processes(self._marker).items():
            if name.startswith("qemu"):
                try:
                    stat = Path(f"/proc/{process}/stat").read_text()
                except OSError:
                    continue
                found[int(stat.rpartition(")")[2].split()[1])] = process
        return found

    def run(self) -> None:
        one, other = self._workers
        self._until(lambda: list(Store(self._place).units()) and one.pid in self.vms())
        vm = self.vms()[one.pid]
        os.kill(vm, signal.SIGKILL)
        self.killed.append("VM")
        self._until(lambda: self.vms().get(one.pid, vm) != vm)
        other.kill()
        self.killed.append("worker")

    def _until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_campaign_survives_a_worker_and_a_vm_that_are_killed(
    machine: Machine, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each unit is done once, and each of its programs has a result, if only that its VM died."""
    monkeypatch.setattr(campaign, "_BATCHES", _BATCHES)
    unit = _BATCHES * campaign._BATCH
    marker, place = str(tmp_path), tmp_path / "kept"
    terms = Terms(seed=11, bindings=("interval",), programs=_UNITS * unit, shard=_SHARD)
    with local_cluster(tmp_path / "cluster", {"MARKED_BY_TEST": marker}) as cluster:
        killer = _Killer(cluster, marker, place)
        kernel = (machine.kernel.name, machine.kernel.flavour)
        with connected(cluster.scheduler) as client, Store(place) as store:
            killer.start()
            code = explore_on(client, kernel, terms, store, progress, scheduler=cluster.scheduler, do=do)
        assert killer.killed == ["VM", "worker"]
        one, other = cluster.workers
        assert (one.poll(), other.wait()) == (None, -signal.SIGKILL)
        deadline = time.monotonic() + _PATIENCE
        while left := killer.vms():
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
    assert code in (ExitCode.PASS, ExitCode.FAIL)
    store = Store(place)
    assert not list(store.errors())
    units = list(store.units())
    assert sorted(each.number for each in units) == [1 + 16 * number for number in range(_UNITS)]
    assert {each.target for each in units} == {target_hash(machine, ())}
    assert [each.programs for each in units] == [unit] * _UNITS
    assert [sum(each.verdicts.values()) for each in units] == [unit] * _UNITS
    assert sum(each.verdicts.get("ERROR", 0) for each in units) <= 1, "of the program that the killed VM ran"
    assert {name for each in units for name in each.findings} == {each.symptom.id for each in store.findings()}
    assert all(finding.runs for finding in store.findings()), "somebody has looked into each"
