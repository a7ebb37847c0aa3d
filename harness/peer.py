# SPDX-License-Identifier: GPL-2.0-only
"""The kernels' own hmm-tests in a matrix: each kernel has its own, of which some cases are those of others."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.compare import Verdict
from harness.defaults import PEER
from harness.errors import BuildError, HarnessError, MissingError, UsageError
from harness.labels import short
from harness.progress import Progress
from harness.report.explain import explain_trouble
from harness.report.results import Planned, Result, Source
from harness.run import Plan, replay_command, verdict_of
from harness.target import upstream
from harness.target.upstream import Case
from harness.target.vm import Machine

Kernel = tuple[str, str]  # spec, flavour
# benchmark_thp_migration, since v6.19: 256 MiB that a case writes, as much that its device reads, and device memory
_MEMORY_MIB = 1536


class Peers:
    """Knows which kernel has which cases, of those that `plan` asks for."""

    def __init__(self, plan: Plan, kernels: Sequence[Kernel]) -> None:
        self._plan = plan
        self._cases: dict[Kernel, list[Case]] = {kernel: [] for kernel in kernels}
        self._troubles: dict[Kernel, HarnessError] = {}

    @property
    def _known(self) -> dict[str, Case]:
        """Every case by its name, in the order in which they were met."""
        return {case.name: case for found in self._cases.values() for case in found}

    def plan(self, machine: Machine, *, progress: Progress) -> tuple[Plan, Planned]:
        """What is to be run on `machine`, and which of its cases no kernel had before.

        No cases if its suite cannot be had or built, which `missing` tells. Raises `UsageError` if there is no such
        case and no other kernel that may have one.
        """
        kernel = (machine.kernel.name, machine.kernel.flavour)
        before = self._known
        try:
            with progress.step(f"building the hmm-tests of {short(machine.kernel.name)}"):
                found = upstream.cases(machine.kernel)
        except (MissingError, BuildError) as error:
            self.failed(kernel, error)
            found = []
        else:
            if len(self._cases) == 1:
                self._insist(found)
        self._cases[kernel] = upstream.choose(found, self._plan.cases)
        fresh = [case for case in self._cases[kernel] if case.name not in before]
        return (
            replace(self._plan, programs=self._cases[kernel], bindings=(PEER,)),
            Planned({case.name: Source(case.title, case.text) for case in fresh}),
        )

    def room(self, machine: Machine) -> Machine:
        """`machine` with as much memory as the suites want."""
        return replace(machine, memory_mib=max(machine.memory_mib, _MEMORY_MIB))

    def failed(self, kernel: Kernel, error: HarnessError) -> None:
        """Why `kernel` has no cases."""
        self._troubles[kernel] = error

    def _insist(self, found: Sequence[Case]) -> None:
        for pattern in self._plan.cases:
            if upstream.choose(found, [pattern]):
                continue
            names = {case.test for case in found} | {case.test.rpartition(".")[2] for case in found}
            close = difflib.get_close_matches(pattern, sorted(names), n=3) or sorted(names)[:3]
            raise UsageError(f"hmm-tests have no case {pattern!r}", hint=f"such as: {', '.join(close)}")

    def missing(self) -> Iterator[Result]:
        """A result for each case that another kernel has; if none has any, for hmm-tests as such."""
        if not self._plan.cases:
            return
        known = self._known
        for kernel, found in self._cases.items():
            own = {case.name for case in found}
            for name, case in known.items():
                if name not in own:
                    yield self._missing(kernel, name, case)
            if not known:
                yield self._missing(kernel, PEER, None)

    def _missing(self, kernel: Kernel, name: str, case: Case | None) -> Result:
        error = self._troubles.get(kernel)
        if error is None:
            verdict, reason = Verdict.SKIP, "the hmm-tests of this kernel have no such case"
        elif isinstance(error, MissingError):
            verdict, reason = Verdict.SKIP, error.message
        else:
            verdict, reason = verdict_of(error), error.message
        return Result(
            program=name,
            kernel=kernel[0],
            flavour=kernel[1],
            binding=PEER,
            status=verdict,
            reason=reason,
            seconds=0.0,
            replay=replay_command(case, PEER, self._plan, kernel) if case is not None else "",
            explanation=explain_trouble(f"{verdict} {PEER} on {kernel[0]} ({kernel[1]})", error)
            if error is not None and verdict is not Verdict.SKIP
            else (),
        )
