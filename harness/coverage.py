# SPDX-License-Identifier: GPL-2.0-only
"""How much of the kernel's HMM our programs reach, and its own hmm-tests beside them on the same kernel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.compare import Verdict
from harness.conformance import unreached
from harness.conformance.unreached import Account, Reason
from harness.errors import GuestError
from harness.labels import short
from harness.progress import Progress
from harness.report.results import Result, exit_code
from harness.run import Plan, run
from harness.target import coverage, upstream
from harness.target.cache import Cache
from harness.target.coverage import Coverage, FileCoverage, Share
from harness.target.lab import Lab, prepare
from harness.target.vm import VM

FLAVOUR = "coverage"
OURS = "programs"
THEIRS = "hmm-tests"
_UPSTREAM_SECONDS = 900.0
_RELOAD_SECONDS = 120.0
_DRIVERS = {OURS: "hmm_harness", THEIRS: "test_hmm"}


class CountingLab(Lab):
    """Adds what ran in each of its VMs to `coverage`, when it is done with it."""

    def __init__(self, *arguments: Any, module: str, **options: Any) -> None:
        """`module`: the driver of the suite that runs here."""
        super().__init__(*arguments, **options)
        self._module = module
        self.coverage: Coverage = {}
        self.lost = 0  # VMs that crashed with their counters

    def vm(self) -> VM:
        """See `Lab`. What ran before it was ready does not count; that the driver comes and goes does."""
        fresh = self._vm is None
        vm = super().vm()
        if fresh:
            coverage.reset(vm)
            for verb in ("unload", "load"):
                answer, _ = vm.call({"do": verb, "module": self._module}, timeout=_RELOAD_SECONDS)
                if "error" in answer:
                    raise GuestError(f"{self._module} does not {verb}: {answer['error']}")
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
    with CountingLab(machine, module=_DRIVERS[OURS], cache=cache, progress=progress) as lab:
        results = list(run(plan, lab))
        lab.discard()
        found[OURS] = lab.coverage
        if lab.lost:
            progress.say(f"{lab.lost} VMs crashed, and what they had counted is lost")
    if peer:
        program = upstream.build(machine.kernel)
        counting = CountingLab(machine, module=_DRIVERS[THEIRS], cache=cache, progress=progress)
        with counting as lab, progress.step("running hmm-tests"):
            totals = upstream.run(lab.vm(), program, timeout=_UPSTREAM_SECONDS)
            lab.discard()
            found[THEIRS] = lab.coverage
    release = f"{short(machine.kernel.name)}, Linux {machine.kernel.release}"
    print(f"{release}: {_summary(results)}")
    if peer:
        print(f"hmm-tests: {totals.passed} passed, {totals.failed} failed, {totals.skipped} skipped")
    print("\n".join(table(found)))
    accounts = account(found[OURS], machine.kernel.source, machine.kernel.release)
    print("\n".join((*reachable(accounts), *complaints(accounts))))
    if missed:
        print("\n".join(not_reached(accounts, machine.kernel.source)))
    if json_path is not None:
        data = {"kernel": release, "suites": as_data(found), "unreached": accounts_as_data(accounts)}
        json_path.write_text(json.dumps(data, indent=1) + "\n")
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
    return _shares(each.line_share, each.branch_share)


def _shares(lines: Share, branches: Share) -> str:
    return f"{lines.percent:9.1f}% {branches.percent:7.1f}%"


def account(found: Coverage, source: Path | None, release: str) -> dict[str, Account]:
    """What no program reached, with the reasons that are listed for a kernel of that release; by file."""
    series = ".".join(release.split(".")[:2])
    reasons = unreached.load()
    return {
        path: unreached.account(path, each, _text(source, path), series, reasons)
        for path, each in sorted(found.items())
    }


def _text(source: Path | None, path: str) -> list[str]:
    """The lines of a file of the kernel's source; none if it is not there."""
    file = source / path if source is not None else None
    return file.read_text(errors="replace").splitlines() if file is not None and file.exists() else []


def reachable(accounts: dict[str, Account]) -> list[str]:
    """Lines and branches of what programs can reach, in percent; and how much is not reached for no listed reason."""
    said = [f"what programs can reach, which leaves out what {unreached.TABLE.name} has a reason for:"]
    for path, each in accounts.items():
        branches = sum(each.bare_branches.values())
        bare = f"; without a reason: {len(each.bare_lines)} lines, {branches} branches"
        said.append(
            f"{path:24}{_shares(each.line_share, each.branch_share)}   {len(each.reasons)} reasons"
            + (bare if each.bare_lines or branches else "")
        )
    return said


def not_reached(accounts: dict[str, Account], source: Path | None) -> list[str]:
    """Each line that no program reached, and each with branches that none took, as the source has them, and why."""
    said: list[str] = []
    for path, each in accounts.items():
        text = _text(source, path)
        last: Reason | None = None
        for line in sorted(each.lines | each.branches):
            shown = text[line - 1].strip() if line <= len(text) else ""
            if line in each.lines:
                reason = each.lines[line]
                said.append(f"{path}:{line}: {shown}")
            else:
                untaken = each.branches[line]
                reason = next((why for why in untaken if why is None), untaken[0])
                said.append(f"{path}:{line}: {len(untaken)} branches never taken: {shown}")
            if reason is None or reason != last:
                said.append(f"    {reason.kind}: {reason.why}" if reason else "    no reason is listed")
            last = reason
    return said


def complaints(accounts: dict[str, Account]) -> list[str]:
    """What the list has wrong of this kernel."""
    said: list[str] = []
    for each in accounts.values():
        said += [
            f"{unreached.TABLE.name}: {reason}: is reached, or has fewer such branches" for reason in each.outdated
        ]
        said += [f"{unreached.TABLE.name}: {reason}: this kernel has no such code, or twice" for reason in each.lost]
    return said


def accounts_as_data(accounts: dict[str, Account]) -> dict[str, Any]:
    """For programs: per file, what was not reached, each with its reason or null, and the shares of the rest."""
    return {
        path: {
            "lines": [each.line_share.covered, each.line_share.total],
            "branches": [each.branch_share.covered, each.branch_share.total],
            "reasons": len(each.reasons),
            "missed_lines": [[line, _as_data(reason)] for line, reason in sorted(each.lines.items())],
            "missed_branches": [[line, [_as_data(why) for why in whys]] for line, whys in each.branches.items()],
            "outdated": [str(reason) for reason in each.outdated],
            "lost": [str(reason) for reason in each.lost],
        }
        for path, each in accounts.items()
    }


def _as_data(reason: Reason | None) -> str | None:
    return f"{reason.kind}: {reason.why}" if reason else None


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
