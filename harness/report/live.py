# SPDX-License-Identifier: GPL-2.0-only
"""How far a run is, for whoever watches it: a line of all, and one for each binding of the kernel at hand."""

from __future__ import annotations

import time
from collections import Counter

from harness.labels import label
from harness.report.brief import counted
from harness.report.results import Run, belongs


class Live:
    """Called for the lines, by another thread than the one that adds results to `run`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._started = time.monotonic()

    def __call__(self) -> list[str]:
        """The first line says it all in short. There are no lines for bindings before there is a kernel."""
        results = list(self._run.results)
        targets = self._run.targets[-1:]
        words = f"{len(results)} of {self._run.planned} results"
        counts = counted(Counter(result.status for result in results))
        seconds = f"[{self._run.spent + time.monotonic() - self._started:.0f} s]"
        where = "".join(f"{label(target.kernel, target.flavour)}, " for target in targets)
        lines = [f"{where}{words}{': ' if counts else ''}{counts} {seconds}"]
        for target in targets:
            mine = [each for each in results if (each.kernel, each.flavour) == (target.kernel, target.flavour)]
            for binding in self._run.bindings:
                planned = sum(belongs(program, binding) for program in self._run.programs)
                statuses = Counter(each.status for each in mine if each.binding == binding)
                told = counted(statuses)
                count = f"{statuses.total()} of {planned}{': ' if told else ''}{told}"
                lines.append(f"  {binding.ljust(10)} {count}")
        return lines
