# SPDX-License-Identifier: GPL-2.0-only
"""Runs the programs of known bugs on kernels that have them and on kernels that do not: are both told apart?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing

from harness.conformance import catalogue
from harness.conformance.bugs import Bug
from harness.errors import ExitCode
from harness.matrix import Resources, run_matrix
from harness.report.results import Result
from harness.run import Plan

Kernel = tuple[str, str]


def main(bugs: Sequence[Bug], resources: Resources, command: Sequence[str]) -> ExitCode:
    """Prints what each program showed, and which bugs are told apart.

    `ExitCode.FAIL` if a bug is not, `SKIPPED` if no bug has a program.
    """
    results: list[Result] = []
    shown = [bug for bug in bugs if bug.programs]
    for kernel in dict.fromkeys(kernel for bug in shown for kernel in bug.kernels):
        results += _run(kernel, [bug for bug in shown if kernel in bug.kernels], resources, command)
    missed = [bug for bug in shown if not is_told_apart(bug, results)]
    for bug in shown:
        for line in report(bug, results):
            resources.progress.say(line, to=sys.stdout)
    told = len(shown) - len(missed)
    resources.progress.say(f"{told} of {len(shown)} bugs are told apart", to=sys.stdout)
    if not shown:
        return ExitCode.SKIPPED
    return ExitCode.FAIL if missed else ExitCode.PASS


def _run(kernel: Kernel, bugs: Sequence[Bug], resources: Resources, command: Sequence[str]) -> list[Result]:
    """The results of what these bugs want to see on one kernel."""
    found: list[Result] = []
    for binding in dict.fromkeys(bug.binding for bug in bugs):
        names = dict.fromkeys(name for bug in bugs if bug.binding == binding for name in bug.programs)
        plan = Plan(catalogue.select(list(names)), (binding,), command=command)
        with closing(run_matrix(plan, [kernel], resources)) as told:
            found += [each for each in told if isinstance(each, Result)]
    return found


def of(bug: Bug, results: Sequence[Result]) -> list[Result]:
    """The last result of each program of `bug` on each kernel that it is looked for on."""
    last = {result.place: result for result in results}
    places = [(*kernel, name, bug.binding) for kernel in bug.kernels for name in bug.programs]
    return [last[place] for place in places if place in last]


def is_told_apart(bug: Bug, results: Sequence[Result]) -> bool:
    """Whether each program is red on each kernel that has `bug`, for that reason, and passes on the others."""
    found = of(bug, results)
    return len(found) == len(bug.kernels) * len(bug.programs) and all(map(bug.is_told, found))


def report(bug: Bug, results: Sequence[Result]) -> list[str]:
    """What was seen of `bug`, line by line."""
    lines = [f"{bug.id} {'told apart' if is_told_apart(bug, results) else 'NOT TOLD APART'}: {bug.symptom}"]
    for result in of(bug, results):
        which = "has it" if (result.kernel, result.flavour) in bug.has else "mended"
        remark = "" if bug.is_told(result) else "  <- not as it should be"
        reason = f": {result.reason}" if result.reason else ""
        where = f"{result.kernel} {result.flavour} ({which})"
        lines.append(f"    {where}: {result.program}: {result.status}{reason}{remark}")
    return lines
