# SPDX-License-Identifier: GPL-2.0-only
"""What the control groups that this process is in leave to it: containers and CI runners are limited there.

Both versions of the interface are read: the kernel's Documentation/admin-guide/cgroup-v2.rst, and for version 1
cgroup-v1/memory.rst and scheduler/sched-bwc.rst. A group is limited by those above it, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_OWN = Path("/proc/self/cgroup")
_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class _Hierarchy:
    """A line of /proc/self/cgroup: `controllers` is empty for version 2, which has them all."""

    controllers: tuple[str, ...]
    group: PurePosixPath


def memory_left() -> int | None:
    """Bytes that may still be taken: of the limit that is nearest, caches that can be dropped not counted as used.

    None where nothing is limited.
    """
    left = []
    for directory, version in _groups("memory"):
        names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
        limits = [limit for name in names if (limit := _number(directory / name)) is not None]
        used = _number(directory / ("memory.current" if version == 2 else "memory.usage_in_bytes"))
        if limits and used is not None:
            left.append(max(0, min(limits) - used + _cached(directory)))
    return min(left, default=None)


def cpus() -> float | None:
    """How many CPUs' time may be used; None where that is not limited."""
    found = []
    for directory, version in _groups("cpu"):
        if version == 2:
            quota, _, period = _read(directory / "cpu.max").partition(" ")
        else:
            quota, period = (_read(directory / f"cpu.cfs_{each}_us") for each in ("quota", "period"))
        if quota.isdigit() and period.isdigit() and int(period):  # else "max", -1, or there is no such file
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _groups(controller: str) -> Iterator[tuple[Path, int]]:
    """The directories of our group and of those above it, as far as they can be seen, each with its version."""
    for line in _read(_OWN).splitlines():
        _, names, group = (*line.split(":", 2), "", "")[:3]
        hierarchy = _Hierarchy(tuple(filter(None, names.split(","))), PurePosixPath(group or "/"))
        if hierarchy.controllers and controller not in hierarchy.controllers:
            continue
        version = 1 if hierarchy.controllers else 2
        for mounted, top in _mounts(controller, version):
            # The mount may begin with a group below the root, a container's own for instance.
            below = hierarchy.group.relative_to(top) if hierarchy.group.is_relative_to(top) else PurePosixPath()
            for each in (below, *below.parents):
                yield mounted / each, version


def _mounts(controller: str, version: int) -> Iterator[tuple[Path, PurePosixPath]]:
    """Where the hierarchy with `controller` is mounted, and which of its groups is at the top there."""
    for line in _read(_MOUNTS).splitlines():
        head, _, tail = line.partition(" - ")
        fields, (kind, _, options) = head.split(), (*tail.split(" ", 2), "", "")[:3]
        of_it = kind == "cgroup2" if version == 2 else kind == "cgroup" and controller in options.split(",")
        if of_it and len(fields) > 4:
            yield Path(fields[4]), PurePosixPath(fields[3])


def _cached(directory: Path) -> int:
    """Bytes of files in memory, which make room when it is needed; those of groups below are counted."""
    numbers = dict(line.split(" ", 1) for line in _read(directory / "memory.stat").splitlines() if " " in line)
    total = 0
    for name in ("inactive_file", "active_file"):
        value = numbers.get(f"total_{name}", numbers.get(name, "0"))  # total_: of version 1
        total += int(value) if value.isdigit() else 0
    return total


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().strip()
    return ""
