# SPDX-License-Identifier: GPL-2.0-only
"""JSON lines: the store of a run, written anew, so that a run that was interrupted and resumed reads as one."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from harness.report.results import Pause, Run, Store


def render(run: Run) -> str:
    """What the store of `run` holds, results in the order of the plan."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "results")
        with Store(path) as store:
            store.begin(run)
            for target in run.targets:
                store.target(target)
            for result in run.in_order():
                store.add(result)
            if run.end is not None:
                store.end(run.end)
            elif run.spent:
                store.pause(Pause(run.spent))
        return path.read_text(encoding="utf-8")
