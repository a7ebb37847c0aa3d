# SPDX-License-Identifier: GPL-2.0-only
"""How much of the kernel's HMM our programs reach, and its own hmm-tests beside them on the same kernel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.compare import Verdict
from harness.progress import Progress
from harness.report.results import Result, exit_code
from harness.run import Plan, run
from harness.target import coverage, upstream
from harness.target.cache import Cache
from harness.target.coverage import Coverage, FileCoverage
from harness.target.lab import Lab, prepare
from harness.target.vm import VM

FLAVOUR = "coverage"
OURS = "programs"
THEIRS = "hmm-tests"
_UPSTREAM_SECONDS = 900.0


class CountingLab(Lab):
    """Adds what ran in each of its VMs to `coverage`, when it is done with it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.coverage: Coverage = {}
        self.lost = 0  # VMs that crashed with their counters

    def vm(self) -> VM:
        """See `Lab`. What ran before it was ready does not count."""
        fresh = self._vm is None
        vm = super().vm()
        if fresh:
            coverage.reset(vm)
        return vm

    def discard(self) -> None:
        """See `Lab`."""
        if self._vm is not None:
            if self._vm.alive():
                self.coverage = coverage.merge([self.coverage, coverage.collect(self._vm)])
            else:
                self.lost += 1
        super().discard()


def main(
    spec: str, plan: Plan, *, peer: bool, missed: bool, json_path: Path | None, cache: Cache, progress: Progress
) -> int:
    """Measures and prints; with `peer`, the kernel's own hmm-tests, too. Returns the exit code of our programs."""
    machine = prepare(spec, FLAVOUR, cache=cache, progress=progress)
    found: dict[str, Coverage] = {}
    with CountingLab(machine, cache=cache, progress=progress) as lab:
        results = list(run(plan, lab))
        lab.discard()
        found[OURS] = lab.coverage
        if lab.lost:
            progress.say(f"{lab.lost} VMs crashed, and what they had counted is lost")
    if peer:
        program = upstream.build(machine.kernel)
        with CountingLab(machine, cache=cache, progress=progress) as lab, progress.step("running hmm-tests"):
            totals = upstream.run(lab.vm(), program, timeout=_UPSTREAM_SECONDS)
            lab.discard()
            found[THEIRS] = lab.coverage
    release = f"{machine.kernel.name}, Linux {machine.kernel.release}"
    print(f"{release}: {_summary(results)}")
    if peer:
        print(f"hmm-tests: {totals.passed} passed, {totals.failed} failed, {totals.skipped} skipped")
    print("\n".join(table(found)))
    if missed and machine.kernel.source is not None:
        print("\n".join(missed_lines(found[OURS], machine.kernel.source)))
    if json_path is not None:
        json_path.write_text(json.dumps({"kernel": release, "suites": as_data(found)}, indent=1) + "\n")
    return exit_code(result.status for result in results)


def _summary(results: Sequence[Result]) -> str:
    counts = {status: sum(result.status is status for result in results) for status in Verdict}
    return ", ".join(f"{count} {status.value}" for status, count in counts.items() if count)


def table(suites: dict[str, Coverage]) -> list[str]:
    """Lines and branches, in percent, of each file by each suite, and of all suites together."""
    columns = dict(suites)
    if len(suites) > 1:
        columns["together"] = coverage.merge(suites.values())
    lines = [
        f"{'':24}" + "".join(f"{name:>19}" for name in columns),
        f"{'':24}" + f"{'lines':>10} {'branches':>8}" * len(columns),
    ]
    for path in sorted({path for each in suites.values() for path in each}):
        lines.append(f"{path:24}" + "".join(_cells(each.get(path)) for each in columns.values()))
    return lines


def _cells(each: FileCoverage | None) -> str:
    if each is None:  # the suite ended before it was asked
        return f"{'-':>10} {'-':>8}"
    return f"{each.line_share.percent:9.1f}% {each.branch_share.percent:7.1f}%"


def missed_lines(found: Coverage, source: Path) -> list[str]:
    """The lines that no program reached, as the source has them."""
    said: list[str] = []
    for path, each in sorted(found.items()):
        file = source / path
        text = file.read_text(errors="replace").splitlines() if file.exists() else []
        said += [f"{path}:{line}: {text[line - 1] if line <= len(text) else ''}" for line in each.missed]
    return said


def as_data(suites: dict[str, Coverage]) -> dict[str, Any]:
    """For programs: per suite and file, covered and total of lines and branches, and the lines that were missed."""
    return {
        name: {
            path: {
                "lines": [each.line_share.covered, each.line_share.total],
                "branches": [each.branch_share.covered, each.branch_share.total],
                "missed_lines": each.missed,
            }
            for path, each in sorted(found.items())
        }
        for name, found in suites.items()
    }
