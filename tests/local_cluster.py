# SPDX-License-Identifier: GPL-2.0-only
"""A dask cluster of this machine, whose workers a test may kill."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.target.children import end, spawn
from harness.target.places import CHECKOUT
from tests.needs import need_package

_PATIENCE = 90.0


@dataclass(frozen=True)
class LocalCluster:
    """`scheduler`: the file that says where it is; `start`: one more worker, with one slot."""

    scheduler: str
    workers: list[subprocess.Popen[bytes]]
    start: Callable[[], subprocess.Popen[bytes]]


@contextmanager
def local_cluster(place: Path, environment: dict[str, str], workers: int = 2) -> Iterator[LocalCluster]:
    """A scheduler and its workers, each a process that nobody starts again; all are gone in the end."""
    need_package("distributed")
    place.mkdir(parents=True, exist_ok=True)
    file = place / "scheduler.json"
    paths = [str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])]
    everywhere = os.environ | environment | {"PYTHONPATH": os.pathsep.join(paths)}
    started: list[subprocess.Popen[bytes]] = []

    def start(log: str, *words: str) -> subprocess.Popen[bytes]:
        with (place / log).open("wb") as output:
            argv = [sys.executable, "-m", "dask", *words, "--scheduler-file", str(file), "--no-dashboard"]
            process = spawn(argv, stdout=output, stderr=output, env=everywhere)
        started.append(process)
        return process

    def worker() -> subprocess.Popen[bytes]:
        words = ["--no-nanny", "--nthreads", "1", "--death-timeout", "120", "--local-directory", str(place)]
        return start(f"worker-{len(started)}.log", "worker", *words)

    try:
        start("scheduler.log", "scheduler", "--host", "127.0.0.1", "--port", "0")
        deadline = time.monotonic() + _PATIENCE
        while not file.exists():
            assert time.monotonic() < deadline, (place / "scheduler.log").read_text()
            time.sleep(0.1)
        yield LocalCluster(str(file), [worker() for _ in range(workers)], worker)
    finally:
        for process in started:
            end(process)
