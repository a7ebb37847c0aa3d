# SPDX-License-Identifier: GPL-2.0-only
"""How many VMs there is room for: what the control groups of a container leave counts, not what can be seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness import pool
from harness.progress import Progress
from harness.pytest_plugin.lab import SharedLab
from harness.pytest_plugin.slots import Slot, agreed
from harness.target import cgroups, hostmemory, room
from harness.target.cache import Cache
from harness.target.vm import Machine

MIB = 1 << 20
MACHINE = cast(Machine, SimpleNamespace(memory_mib=512))
ONE = 512 + 256  # MiB that a VM takes

Put = Callable[..., None]


@pytest.fixture
def put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    """Writes the files of a control group: put("v2/a", memory_max="max"). This computer has 64 CPUs and 100 GiB."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: {200 << 20} kB\nMemAvailable:   {100 << 20} kB\n")
    monkeypatch.setattr(hostmemory, "_MEMINFO", meminfo)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(64)))

    def write(group: str, **files: object) -> None:
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (tmp_path / group / name.replace("__", "-").replace("_", ".", 1)).write_text(f"{content}\n")

    return write


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """What /proc says: our groups, and where they are mounted; DIR stands for the place of the test's files."""

    def write(own: str, mounts: str) -> None:
        for name, text in (("_OWN", own), ("_MOUNTS", mounts)):
            path = tmp_path / name
            path.write_text(text.replace("DIR", str(tmp_path)))
            monkeypatch.setattr(cgroups, name, path)

    return write


V2 = "30 23 0:26 / DIR/v2 rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / DIR rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 /docker/1 DIR/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 /docker/1 DIR/memory rw - cgroup cgroup rw,memory\n"
    "34 31 0:31 / DIR/v2 rw - cgroup2 cgroup2 rw\n"
)


def test_without_limits_the_computer_counts(put: Put, system: Callable[[str, str], None]) -> None:
    system("0::/a\n", V2)
    put("v2/a", memory_max="max", memory_current=5, cpu_max="max 100000")
    assert (cgroups.memory_left(), cgroups.cpus(), room.cpus()) == (None, None, 64)
    assert pool.fitting(MACHINE) == 64
    system("", "")
    assert hostmemory.available() == 100 << 30


def test_the_memory_of_a_container(put: Put, system: Callable[[str, str], None]) -> None:
    """As Docker and podman make it, with a name space: the container's group is at the top."""
    system("0::/\n", V2)
    stat = f"anon 1\ninactive_file {60 * MIB}\nactive_file {40 * MIB}\nslab 7"
    put("v2", memory_max=2 * ONE * MIB, memory_current=100 * MIB, memory_stat=stat, cpu_max="max 100000")
    assert cgroups.memory_left() == 2 * ONE * MIB, "caches make room"
    assert hostmemory.available() == 2 * ONE * MIB
    assert pool.fitting(MACHINE) == 2
    put("v2", memory_current=101 * MIB)
    assert pool.fitting(MACHINE) == 1
    put("v2", memory_max="max", memory_high=3 * ONE * MIB)
    assert pool.fitting(MACHINE) == 2
    put("v2", memory_max=0)
    assert pool.fitting(MACHINE) == 1, "at least one"


@pytest.mark.parametrize(("quota", "count"), [("200000 100000", 2), ("350000 100000", 3), ("50000 100000", 1)])
def test_the_cpus_of_a_container(put: Put, system: Callable[[str, str], None], quota: str, count: int) -> None:
    system("0::/\n", V2)
    put("v2", cpu_max=quota)
    assert room.cpus() == pool.fitting(MACHINE) == count


def test_what_limits_a_group_above_limits_this_one(put: Put, system: Callable[[str, str], None]) -> None:
    """As systemd does it: a slice, and a service in it."""
    system("0::/ci.slice/job.service\n", V2)
    put("v2/ci.slice/job.service", memory_max=8 * ONE * MIB, memory_current=0, cpu_max="max 100000")
    put("v2/ci.slice", memory_max=9 * ONE * MIB, memory_current=4 * ONE * MIB, cpu_max="600000 100000")
    assert pool.fitting(MACHINE) == 5
    put("v2/ci.slice", cpu_max="400000 100000")
    assert pool.fitting(MACHINE) == 4


def test_version_1_of_the_interface(put: Put, system: Callable[[str, str], None]) -> None:
    """Without a name space: the path is the one outside, the mount begins with the container's group."""
    system("5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/\n0::/docker/1\n", V1)
    stat = f"cache 1\ninactive_file 1\ntotal_inactive_file {5 * MIB}\ntotal_active_file {6 * MIB}"
    put("memory", memory_limit_in_bytes=3 * ONE * MIB, memory_usage_in_bytes=11 * MIB, memory_stat=stat)
    put("cpu", cpu_cfs_quota_us=-1, cpu_cfs_period_us=100000)
    assert (pool.fitting(MACHINE), cgroups.cpus()) == (3, None)
    put("cpu", cpu_cfs_quota_us=200000)
    assert pool.fitting(MACHINE) == 2
    put("memory", memory_limit_in_bytes=9223372036854771712)  # none
    put("cpu", cpu_cfs_quota_us=-1)
    assert pool.fitting(MACHINE) == 64


def test_the_pytest_plugin_has_as_much_room(
    put: Put, system: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system("0::/\n", V2)
    put("v2", memory_max=2 * ONE * MIB, memory_current=0)
    counts: list[int] = []
    monkeypatch.setattr("harness.pytest_plugin.lab.Slot", lambda _directory, count, _progress: counts.append(count))
    quiet = Progress(quiet=True)
    for vms in (None, 7):
        SharedLab(MACHINE, cache=Cache(tmp_path / "cache"), progress=quiet, vms=vms)
    assert counts == [2, 7]


def test_vms_that_run_do_not_make_the_room_smaller(tmp_path: Path) -> None:
    """A process that comes later finds less memory free; that is in use by VMs that are counted."""
    slot = Slot(tmp_path, 3, Progress(quiet=True))
    assert agreed(tmp_path, lambda: 3) == 3
    slot.take()
    assert agreed(tmp_path, lambda: 2) == 3
    slot.release()
    assert agreed(tmp_path, lambda: 2) == 2
