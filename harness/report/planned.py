# SPDX-License-Identifier: GPL-2.0-only
"""The results of a run beside its plan: what was planned and has no result is not left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from harness.compare import Verdict
from harness.defaults import PEER
from harness.report.results import Result, Run, Target, belongs

_T = TypeVar("_T")
GOOD = frozenset({Verdict.PASS, Verdict.SKIP, Verdict.DEVIATION})


@dataclass(frozen=True)
class Case:
    """A program on a binding of a kernel. `result` is None if it has not run, and `why` says for what reason."""

    program: str
    result: Result | None
    why: str = ""

    @property
    def good(self) -> bool:
        """Whether there is nothing to look at."""
        return self.result is not None and self.result.status in GOOD


@dataclass(frozen=True)
class Column:
    """A binding of a kernel in a flavour, and every program on it."""

    kernel: str
    flavour: str
    binding: str
    target: Target | None
    cases: tuple[Case, ...]


def columns(run: Run) -> list[Column]:
    """Kernels in the order of the plan, below each the bindings, in each all programs that belong to it.

    A result that was not planned (a run that was resumed with another plan) is there, too, after the planned ones.
    Of two results for the same the later one counts.
    """
    results = {(each.kernel, each.flavour, each.binding, each.program): each for each in run.results}
    kernels = _also(run.kernels, ((kernel, flavour) for kernel, flavour, _, _ in results))
    bindings = _also(run.bindings, (binding for _, _, binding, _ in results))
    programs = _also(run.programs, (program for _, _, _, program in results))
    if run.is_waiting_for_cases and not any(belongs(program, PEER) for program in programs):
        programs.append(PEER)
    targets = {(each.kernel, each.flavour): each for each in run.targets}
    found = []
    for kernel, flavour in kernels:
        target = targets.get((kernel, flavour))
        why = _why(run, target)
        for binding in bindings:
            found.append(
                Column(
                    kernel,
                    flavour,
                    binding,
                    target,
                    tuple(
                        Case(program, result, "" if result else why)
                        for program in programs
                        if belongs(program, binding)
                        for result in (results.get((kernel, flavour, binding, program)),)
                    ),
                )
            )
    return found


def _also(planned: Iterable[_T], seen: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys([*planned, *seen]))


def _why(run: Run, target: Target | None) -> str:
    if target is not None and target.error:
        return f"there was no kernel to run it on: {target.error}"
    if run.end is None:
        return "not run: the run was interrupted"
    return "not run: the run ended without a result for it"
