# SPDX-License-Identifier: GPL-2.0-only
"""An exploration on a dask cluster of two workers, which are killed; the kernel is the model itself."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.errors import ExitCode
from harness.explore import campaign, generate
from harness.explore.campaign import Terms
from harness.explore.cluster import connected, explore_on
from harness.explore.findings import Store
from harness.progress import Progress
from tests import fake_slots
from tests.local_cluster import LocalCluster, local_cluster
from tests.needs import need_package

_UNIT = fake_slots.BATCHES * fake_slots.BATCH
_PATIENCE = 120.0


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "_BATCHES", fake_slots.BATCHES)
    monkeypatch.setattr(campaign, "_BATCH", fake_slots.BATCH)
    monkeypatch.setattr(generate, "_LONG", fake_slots.LONG)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with local_cluster(tmp_path / "cluster", {fake_slots.PLACE: str(tmp_path)}) as made:
        yield made


def _explore(place: Path, cluster: LocalCluster, units: int) -> ExitCode:
    terms = Terms(seed=3, bindings=("interval",), programs=units * _UNIT)
    with connected(cluster.scheduler) as client, Store(place) as store:
        return explore_on(
            client,
            ("debian:6.1", "plain"),
            terms,
            store,
            Progress(quiet=True),
            scheduler=cluster.scheduler,
            do=fake_slots.do,
        )


class _Killer(threading.Thread):
    """Kills the worker that is at a lethal unit; the first `times` are, then it is as any other."""

    def __init__(self, place: Path, number: int, times: int) -> None:
        super().__init__(daemon=True)
        self.killed: list[int] = []
        self._place = place
        self._number = number
        self._times = times
        (place / f"lethal-{number}").touch()

    def run(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while len(self.killed) < self._times and time.monotonic() < deadline:
            for file in self._place.glob(f"at-{self._number}-*"):
                process = int(file.name.rpartition("-")[2])
                if process not in self.killed:
                    self.killed.append(process)
                    if len(self.killed) == self._times:
                        (self._place / f"lethal-{self._number}").unlink()
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.05)


def _counts(place: Path) -> dict[int, tuple[int, int, Any]]:
    """What came of each unit; each was done once."""
    units = list(Store(place).units())
    assert len({unit.number for unit in units}) == len(units)
    return {unit.number: (unit.programs, unit.operations, unit.verdicts) for unit in units}


def test_a_worker_that_is_killed_costs_no_result_and_nothing_counts_twice(
    cluster: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it comes to is what it comes to with no worker killed: units, situations, findings."""
    killer = _Killer(tmp_path, 2, times=1)
    killer.start()
    code = _explore(tmp_path / "killed", cluster, 6)
    assert len(killer.killed) == 1
    assert killer.killed[0] in [worker.pid for worker in cluster.workers if worker.poll() == -signal.SIGKILL]
    assert code is ExitCode.FAIL
    whole = _counts(tmp_path / "killed")
    assert sorted(whole) == list(range(6))
    assert f"{6 * _UNIT} programs" in capsys.readouterr().out
    store = Store(tmp_path / "killed")
    assert not list(store.errors())
    found = list(store.findings())
    assert found
    assert all((finding.shown, finding.runs) == (5, 5) for finding in found)
    assert {each for unit in store.units() for each in unit.findings} == {finding.symptom.id for finding in found}
    assert _explore(tmp_path / "left", cluster, 6) is ExitCode.FAIL, "by the worker that is left"
    assert _counts(tmp_path / "left") == whole
    assert Store(tmp_path / "left").corpus()[1] == store.corpus()[1]


def test_what_costs_two_workers_is_an_error_and_the_rest_goes_on(cluster: LocalCluster, tmp_path: Path) -> None:
    cluster.start()
    killer = _Killer(tmp_path, 1, times=2)
    killer.start()
    code = _explore(tmp_path / "kept", cluster, 4)
    assert len(killer.killed) == 2
    assert code in (ExitCode.FAIL, ExitCode.INFRASTRUCTURE)
    assert sorted(_counts(tmp_path / "kept")) == [0, 2, 3, 4]
    (error,) = Store(tmp_path / "kept").errors()
    assert (error.what, error.number) == ("unit 3/1", 1)
    assert error.reason.count("was lost") == 2
    # The next exploration does it, and then it is no error any more.
    _explore(tmp_path / "kept", cluster, 5)
    assert sorted(_counts(tmp_path / "kept")) == list(range(5))


def test_without_dask_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    kept = tmp_path / "kept"
    assert cli.main(["explore", "--scheduler", "tcp://127.0.0.1:8786", "--dir", str(kept)]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert "needs dask.distributed" in told
    assert "pip install" in told
    assert not kept.exists()


def test_where_there_is_no_scheduler_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    need_package("distributed")
    monkeypatch.setattr("harness.explore.cluster._CONNECT_SECONDS", 1.0)
    assert cli.main(["explore", "--scheduler", "tcp://127.0.0.1:9"]) == ExitCode.INFRASTRUCTURE
    told = capsys.readouterr().err
    assert "there is no dask scheduler at tcp://127.0.0.1:9" in told
    assert "hint: `dask scheduler` starts one" in told


def test_vms_are_counted_where_the_workers_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explore", "--scheduler", "tcp://127.0.0.1:9", "--vms", "2"]) == ExitCode.USAGE
    assert "--nthreads" in capsys.readouterr().err
