# SPDX-License-Identifier: GPL-2.0-only
"""Would the programs notice? Each patch puts a bug into the kernel; a program that turns red kills the mutant."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.compare import Verdict
from harness.errors import BuildError, ExitCode, HarnessError, UsageError
from harness.matrix import Resources, run_machine
from harness.report.results import Result, Target
from harness.run import Plan
from harness.target import upstream
from harness.target.lab import prepare
from harness.target.mutant import Patch, workshop
from harness.target.upstream import Totals
from harness.target.vm import Machine
from harness.target.watchdog import VMFailure

_RED = (Verdict.FAIL, Verdict.CRASHED, Verdict.TIMEOUT)
_PEER_SECONDS = 300.0


class Fate(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"  # a program turned red
    TRIVIAL = "trivial"  # it does not even boot: anybody would notice
    SURVIVED = "survived"  # all programs are as they are without the patch
    UNKNOWN = "unknown"  # it does not build, or something broke that is not the kernel


@dataclass(frozen=True)
class Autopsy:
    """What became of a mutant by one suite, and by what: `program` on `binding`, and what it saw."""

    fate: Fate
    program: str = ""
    binding: str = ""
    reason: str = ""

    def __str__(self) -> str:
        where = (
            f" by {self.program} ({self.binding})" if self.binding else f" by {self.program}" if self.program else ""
        )
        return f"{self.fate.value}{where}{f': {self.reason}' if self.reason else ''}"


def main(kernel: tuple[str, str], patches: Sequence[Patch], plan: Plan, resources: Resources, *, peer: bool) -> int:
    """Prints the fate of each mutant, with `peer` also by the kernel's own hmm-tests; an exit code.

    `ExitCode.FAIL` if one survived our programs, `INFRASTRUCTURE` if the fate of one is unknown. Raises
    `HarnessError` if the programs do not pass without any patch, or the kernel cannot be mutated.
    """
    machine = prepare(*kernel, cache=resources.cache, progress=resources.progress)
    resources = replace(resources, restore=False)  # a mutant is booted once or twice: not worth saving
    ours: list[Fate] = []
    theirs: list[Fate] = []
    with workshop(machine.kernel, cache=resources.cache, progress=resources.progress) as shop:
        _require_green(plan, machine, resources)
        healthy = _peer(machine, resources) if peer else None
        for number, patch in enumerate(patches, 1):
            name = f"{number:3}/{len(patches)} {patch.title}"
            try:
                with shop.mutated(patch) as mutant:
                    sick = replace(machine, kernel=mutant)
                    found = autopsy(run_machine(plan, sick, resources))
                    ours.append(found.fate)
                    _tell(resources, name, "programs", found)
                    if healthy is not None:
                        found = _peer_autopsy(sick, resources, healthy, trivial=found.fate is Fate.TRIVIAL)
                        theirs.append(found.fate)
                        _tell(resources, name, "hmm-tests", found)
            except (UsageError, BuildError) as error:
                ours.append(Fate.UNKNOWN)
                _tell(resources, name, "build", Autopsy(Fate.UNKNOWN, reason=error.message))
    print(f"programs: {summary(ours)}")
    if peer:
        print(f"hmm-tests: {summary(theirs)}")
    if Fate.UNKNOWN in ours:
        return ExitCode.INFRASTRUCTURE
    return ExitCode.FAIL if Fate.SURVIVED in ours else ExitCode.PASS


def _tell(resources: Resources, name: str, suite: str, found: Autopsy) -> None:
    resources.progress.say(f"{name}: {suite}: {found}", to=sys.stdout)


def summary(fates: Sequence[Fate]) -> str:
    """How many of what."""
    return ", ".join(f"{count} {fate.value}" for fate in Fate if (count := fates.count(fate))) or "no mutants"


def _require_green(plan: Plan, machine: Machine, resources: Resources) -> None:
    with closing(run_machine(plan, machine, replace(resources, restore=True))) as told:
        for each in told:
            if isinstance(each, Result) and each.status in (*_RED, Verdict.ERROR, Verdict.INCONCLUSIVE):
                raise HarnessError(
                    f"{each.program} on {each.binding} is {each.status} without any patch: {each.reason}",
                    hint="leave it out by naming programs, or mend it: mutants are told by what passes otherwise",
                )


def autopsy(told: Generator[Target | Result, None, None]) -> Autopsy:
    """The fate of a mutant by what its run tells; ends the run as soon as it is known."""
    unknown: Autopsy | None = None
    try:
        for each in told:
            if not isinstance(each, Result):
                continue
            if each.status in _RED:
                return Autopsy(Fate.KILLED, each.program, each.binding, each.reason)
            if each.status in (Verdict.ERROR, Verdict.INCONCLUSIVE):
                unknown = unknown or Autopsy(Fate.UNKNOWN, each.program, each.binding, each.reason)
    except VMFailure as failure:
        return Autopsy(Fate.TRIVIAL, reason=failure.message)
    except HarnessError as error:
        return Autopsy(Fate.UNKNOWN, reason=error.message)
    finally:
        told.close()
    return unknown or Autopsy(Fate.SURVIVED)


def _peer(machine: Machine, resources: Resources) -> Totals:
    program = upstream.build(machine.kernel)
    with resources.progress.step("running hmm-tests"), resources.lab(machine) as lab:
        return upstream.run(lab.vm(), program, timeout=_PEER_SECONDS)


def _peer_autopsy(machine: Machine, resources: Resources, healthy: Totals, *, trivial: bool) -> Autopsy:
    if trivial:
        return Autopsy(Fate.TRIVIAL, reason="it does not boot")
    try:
        totals = _peer(machine, resources)
    except VMFailure as failure:
        return Autopsy(Fate.KILLED, "hmm-tests", reason=failure.message)
    except HarnessError as error:
        return Autopsy(Fate.UNKNOWN, "hmm-tests", reason=error.message)
    if totals.failed > healthy.failed:
        return Autopsy(Fate.KILLED, "hmm-tests", reason=f"{totals.failed} cases fail instead of {healthy.failed}")
    return Autopsy(Fate.SURVIVED)
