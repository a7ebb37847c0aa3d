# SPDX-License-Identifier: GPL-2.0-only
"""Every class of crash for real, in programs of one run: recognised, told apart, survived by the pool."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

import pytest

from harness.compare import Verdict
from harness.conformance import catalogue
from harness.pool import spread
from harness.program.program import Program
from harness.progress import Progress
from harness.report.results import Result, Target
from harness.run import Plan, Task, run
from harness.target.cache import Cache
from harness.target.crashes import STALLS
from harness.target.lab import Execution, Job, Lab, prepare
from harness.target.vm import VM, Machine
from harness.target.watchdog import VMFailure
from tests.provoking import LEAK, PROVOCATIONS, Provocation, build_crash, load_crash

pytestmark = pytest.mark.vm

KERNEL = "debian:6.1"
VMS = 2


class ProvokingLab(Lab):
    """A lab in which some programs, by their names, do what makes a kernel report."""

    crash: bytes
    wanted: Mapping[str, Provocation]

    def vm(self) -> VM:
        """With the module that provokes."""
        there = self._vm
        vm = super().vm()
        if vm is not there:
            load_crash(vm, self.crash)
            self.asides = {name: f"({each.command}) > /dev/null 2>&1" for name, each in self.wanted.items()}
        return vm


def run_with_crashes(machine: Machine, cache: Cache, progress: Progress) -> None:
    """One run: a program that crashes after each that does not, until all provocations of the flavour are done."""
    provocations = [each for each in PROVOCATIONS if each.flavour == machine.kernel.flavour]
    runnable = catalogue.select(["access", "snapshot", "fault", "invalidate"])
    runnable = [program for program in runnable if program.name != "access/unlocked"]  # not every kernel can
    programs = runnable[: 2 * len(provocations) + 1]
    assert len(programs) > 2 * len(provocations)
    wanted = dict(zip((program.name for program in programs[1::2]), provocations, strict=False))
    crash = build_crash(machine.kernel)
    with ExitStack() as stack:
        labs = []
        for _ in range(VMS):
            lab = stack.enter_context(ProvokingLab(machine, cache=cache, progress=progress))
            lab.crash, lab.wanted = crash, wanted
            labs.append(lab)
        plan = Plan(programs, ("interval",))
        tasks = [Task(program, ("interval",)) for program in programs]
        told = list(
            spread(plan, tasks, labs, lambda lab: Target(lab.kernel.name, lab.kernel.flavour), say=progress.say)
        )
        results = [each for each in told if isinstance(each, Result)]

    assert sorted(result.program for result in results) == sorted(program.name for program in programs)
    titles = {}
    for result in results:
        provocation = wanted.get(result.program)
        if provocation is None:
            assert (result.status, result.reports) == (Verdict.PASS, ()), result.reason
        else:
            titles[provocation.name] = check(result, provocation)
    assert len(set(titles.values())) == len(provocations) == len(titles)


def check(result: Result, provocation: Provocation) -> str:
    """The result of the program that crashed tells of that crash and of no other; its title."""
    # A CPU that is stuck may be given up before the answer comes.
    verdicts = {Verdict.CRASHED, Verdict.TIMEOUT} if provocation.kind in STALLS else {Verdict.CRASHED}
    assert result.status in verdicts, (provocation.name, result.reason)
    assert [report.kind for report in result.reports] == [provocation.kind], (provocation.name, result.reports)
    (report,) = result.reports
    assert re.fullmatch(provocation.title, report.title)
    assert set(report.lines) <= set(result.log)
    assert report.lines or provocation.name == "taint"
    return report.title


def test_the_pool_survives_all_that_a_plain_kernel_notices(
    machine: Machine, cache: Cache, progress: Progress
) -> None:
    run_with_crashes(machine, cache, progress)


@pytest.mark.matrix
@pytest.mark.parametrize("flavour", sorted({each.flavour for each in PROVOCATIONS} - {"plain"}))
def test_the_pool_survives_all_that_other_flavours_notice(flavour: str, cache: Cache, progress: Progress) -> None:
    run_with_crashes(prepare(KERNEL, flavour, cache=cache, progress=progress), cache, progress)


@pytest.mark.matrix
def test_memory_that_the_kernel_lost_is_found_before_the_vm_ends(cache: Cache, progress: Progress) -> None:
    """In a kernel with kmemleak, which the flavour switches on; it is told with the program that lost it."""
    machine = prepare(KERNEL, "debug", cache=cache, progress=progress)
    programs = catalogue.select(["snapshot"])[:3]
    with ProvokingLab(machine, cache=cache, progress=progress) as lab:
        lab.crash, lab.wanted = build_crash(machine.kernel), {programs[1].name: LEAK}
        *passed, lost = run(Plan(programs, ("interval",)), lab)
    assert [(result.program, result.status) for result in passed] == [(each.name, Verdict.PASS) for each in programs]
    assert (lost.program, lost.status) == (programs[1].name, Verdict.CRASHED)
    assert [(report.kind, report.title) for report in lost.reports] == [("leak", LEAK.title)]
    assert any("crash_leak+0x" in line for line in lost.log)


class LateLab(ProvokingLab):
    """A lab whose kernel reports when the program has ended."""

    def expect(self, jobs: Sequence[Job]) -> None:
        """Nothing is executed ahead: what comes late would come later still."""

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        self.vm()
        self.asides = {}
        execution = super().execute(program, binding, wrong=wrong, timeout=timeout)
        provocation = self.wanted.get(program.name)
        if provocation is not None:
            with suppress(VMFailure):
                self.vm().exec(f"({provocation.command}) > /dev/null 2>&1", timeout=timeout)
        return execution


@pytest.mark.parametrize("name", ["warning", "panic"])
def test_a_report_that_comes_late_is_that_of_the_program_before(
    machine: Machine, cache: Cache, progress: Progress, name: str
) -> None:
    first, second = catalogue.select(["snapshot/written", "snapshot/zero-page"])
    (provocation,) = (each for each in PROVOCATIONS if each.name == name)
    with LateLab(machine, cache=cache, progress=progress) as lab:
        lab.crash, lab.wanted = build_crash(machine.kernel), {first.name: provocation, second.name: provocation}
        results = list(run(Plan([first, second], ("interval",)), lab))
    told = [(result.program, result.status) for result in results]
    assert told == [
        (first.name, Verdict.PASS),
        (first.name, Verdict.CRASHED),
        (second.name, Verdict.PASS),
        (second.name, Verdict.CRASHED),
    ]
    for result in (results[1], results[3]):
        assert re.fullmatch(provocation.title, result.reports[0].title)
