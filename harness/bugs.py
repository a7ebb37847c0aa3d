# SPDX-License-Identifier: GPL-2.0-only
"""Runs the programs of known bugs on kernels that have them and on kernels that do not: are both told apart?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from enum import StrEnum

from harness.compare import Verdict
from harness.conformance import catalogue
from harness.conformance.bugs import Bug, named
from harness.errors import ExitCode, UsageError
from harness.matrix import Resources, run_matrix
from harness.model.allowed import RECORDED
from harness.report.results import Result, Target
from harness.run import Plan
from harness.target.kernel import built

Kernel = tuple[str, str]  # spec, flavour
_HOW = {
    Verdict.CRASHED: "red, by what the kernel says",
    Verdict.DEVIATION: "red, by a recorded deviation",
    Verdict.FAIL: "red",
    Verdict.PASS: "green",
}
_NONE = frozenset({Verdict.ERROR, Verdict.INCONCLUSIVE})  # of these, nobody can say what the program shows


class Told(StrEnum):
    """Whether the kernels of a row are told apart."""

    APART = "told apart"
    NOT = "NOT TOLD APART"
    UNKNOWN = "NO VERDICT"  # nothing is wrong, but a program has no verdict on some kernel, or was not run


def main(bugs: Sequence[Bug], resources: Resources, command: Sequence[str]) -> ExitCode:
    """Prints what each program showed, and which bugs are told apart: a row as soon as its last kernel was run.

    Kernels that are built already come first. `ExitCode.FAIL` if a bug is not told apart, `INFRASTRUCTURE` if a
    program has no verdict, `SKIPPED` if no bug has a program.
    """
    shown = [bug for bug in bugs if bug.programs]
    kernels = list(dict.fromkeys(kernel for bug in shown for kernel in bug.kernels))
    here = built(kernels, cache=resources.cache, progress=resources.progress) if kernels else frozenset()
    kernels.sort(key=lambda kernel: kernel not in here)
    results: list[Result] = []
    targets: list[Target] = []
    for number, kernel in enumerate(kernels, 1):
        for each in _run(kernel, [bug for bug in shown if kernel in bug.kernels], resources, command):
            if isinstance(each, Target):
                targets.append(each)
            else:
                results.append(each)
        for bug in shown:
            if kernel in bug.kernels and set(bug.kernels) <= set(kernels[:number]):
                for line in report(bug, results, targets):
                    resources.progress.say(line, to=sys.stdout)
    verdicts = [told(bug, results) for bug in shown]
    _conclude(bugs, shown, verdicts, lambda line: resources.progress.say(line, to=sys.stdout))
    if not shown:
        return ExitCode.SKIPPED
    if Told.NOT in verdicts:
        return ExitCode.FAIL
    return ExitCode.INFRASTRUCTURE if Told.UNKNOWN in verdicts else ExitCode.PASS


def _run(kernel: Kernel, bugs: Sequence[Bug], resources: Resources, command: Sequence[str]) -> list[Target | Result]:
    """The kernel, and the results of what these bugs want to see on it."""
    found: list[Target | Result] = []
    for binding in dict.fromkeys(bug.binding for bug in bugs):
        names = dict.fromkeys(name for bug in bugs if bug.binding == binding for name in bug.programs)
        plan = Plan(catalogue.select(list(names)), (binding,), command=command)
        try:
            with closing(run_matrix(plan, [kernel], resources)) as told_now:
                found += [each for each in told_now if isinstance(each, Target | Result)]
        except UsageError as error:  # an archive does not keep old versions for ever
            found.append(Target(*kernel, error=error.message))
    return found


def of(bug: Bug, results: Sequence[Result]) -> list[Result]:
    """The last result of each program of `bug` on each kernel that it is looked for on."""
    last = {result.place: result for result in results}
    places = [(*kernel, name, bug.binding) for kernel in bug.kernels for name in bug.programs]
    return [last[place] for place in places if place in last]


def told(bug: Bug, results: Sequence[Result]) -> Told:
    """Whether each program is red on each kernel that has `bug`, for that reason, and passes on the others."""
    found = of(bug, results)
    if any(result.status not in _NONE and not bug.is_told(result) for result in found):
        return Told.NOT
    complete = len(found) == len(bug.kernels) * len(bug.programs)
    return Told.APART if complete and all(map(bug.is_told, found)) else Told.UNKNOWN


def report(bug: Bug, results: Sequence[Result], targets: Sequence[Target] = ()) -> list[str]:
    """What was seen of `bug`, line by line. `targets` say which version a kernel is."""
    releases = {(target.kernel, target.flavour): target.release for target in targets if target.release}
    missing = {(target.kernel, target.flavour): target.error for target in targets if target.error}
    lines = [f"{bug.id} {told(bug, results)}: {bug.symptom}"]
    for result in of(bug, results):
        kernel = (result.kernel, result.flavour)
        has = kernel in bug.has
        release = f", Linux {releases[kernel]}" if kernel in releases else ""
        where = f"{named(kernel)}{release}, {'which has it' if has else 'mended'}"
        said = _said(bug, result)
        reason = f": {said}" if said else ""
        lines.append(f"    on {where}: {result.program} is {_HOW.get(result.status, result.status)}{reason}")
        missing.pop(kernel, None)  # its results say why
        if result.status not in _NONE and not bug.is_told(result):
            lines.append(f"        it should be {f'red for: {bug.shows}' if has else 'green'}; {result.replay}")
    lines += [f"    {named(kernel)} was not run: {why}" for kernel, why in missing.items() if kernel in bug.kernels]
    return lines


def _said(bug: Bug, result: Result) -> str:
    """What was said of a program, if it is of `bug` that."""
    if result.status is Verdict.DEVIATION and bug.shows in RECORDED and bug.evidence(result):
        return f"{bug.shows}: {RECORDED[bug.shows].summary}"
    return bug.evidence(result) or result.reason


def _conclude(
    bugs: Sequence[Bug], shown: Sequence[Bug], verdicts: Sequence[Told], say: Callable[[str], None]
) -> None:
    for bug in bugs:
        if not bug.programs:
            say(f"{bug.id} has no program: {bug.why}")
    for verdict in (Told.NOT, Told.UNKNOWN):
        ids = [bug.id for bug, each in zip(shown, verdicts, strict=True) if each is verdict]
        if ids:
            say(f"{verdict}: {', '.join(ids)}")
    say(f"{verdicts.count(Told.APART)} of {len(shown)} bugs are told apart")
