# SPDX-License-Identifier: GPL-2.0-only
"""What the results of a run say of each clause of the contract, per kernel and binding."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.compare import Verdict
from harness.conformance.clauses import Clause, Contract, alternatives
from harness.conformance.describe import spelt_out
from harness.defaults import PEER
from harness.model.allowed import RECORDED
from harness.report.planned import Case, Column, columns
from harness.report.results import Run

_STEP = re.compile(r"^step \d+: | in step \d+(?=:)")  # one reason, wherever in a program it is met
_BAD = frozenset({Verdict.FAIL, Verdict.CRASHED})
_NO_VERDICT = frozenset({Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.TIMEOUT})


class Standing(StrEnum):
    """What became of a clause; the first that is true of it, but that it may be proven by its other programs."""

    BROKEN = "broken"  # one of its programs failed or crashed
    DEVIATING = "deviating"  # one of them showed a recorded deviation that breaks it
    OPEN = "no verdict"  # one of them ended without a verdict
    NOT_RUN = "not run"  # one of them is not among the results
    PROVEN = "proven"  # all that could be run are as the model allows, and that was at least one
    NOT_APPLICABLE = "not applicable"  # it does not hold for the binding, or the kernel lacks what it takes
    UNPROVEN = "no program"


@dataclass(frozen=True)
class Finding:
    """A clause on a binding of a kernel: `reason` of its standing, empty if proven; `cases` of its programs."""

    clause: Clause
    standing: Standing
    reason: str
    cases: tuple[Case, ...] = ()


@dataclass(frozen=True)
class Conformance:
    """All that was looked for on a binding of a kernel, by the id of the clause."""

    kernel: str
    flavour: str
    binding: str
    findings: Mapping[str, Finding]

    @property
    def counts(self) -> Counter[Standing]:
        """How many clauses are what."""
        return Counter(finding.standing for finding in self.findings.values())


def conformance(run: Run, contract: Contract) -> list[Conformance]:
    """Each binding of each kernel, in the order of the plan: the clauses that the run was for, or all of them.

    The kernel's own tests are about none.
    """
    chosen = [contract.clauses[name] for name in run.clauses if name in contract.clauses]
    looked_for = chosen or list(contract.clauses.values())
    return [
        Conformance(
            column.kernel,
            column.flavour,
            column.binding,
            {clause.id: _find(clause, column) for clause in looked_for if column.binding != PEER},
        )
        for column in columns(run)
    ]


def _find(clause: Clause, column: Column) -> Finding:
    if column.binding not in clause.bindings:
        return Finding(clause, Standing.NOT_APPLICABLE, f"it is about {' and '.join(clause.bindings)}")
    if column.target is not None and column.target.features:
        for need in clause.needs:
            if not set(alternatives(need)) & set(column.target.features):
                return Finding(clause, Standing.NOT_APPLICABLE, f"it needs: {spelt_out(need)}")
    if not clause.programs:
        return Finding(clause, Standing.UNPROVEN, clause.no_program)
    there = {case.program: case for case in column.cases}
    cases = tuple(there.get(name) or Case(name, None, "it was not chosen") for name in clause.programs)
    standing, reason = _judge(clause, cases)
    return Finding(clause, standing, reason, cases)


def _judge(clause: Clause, cases: Collection[Case]) -> tuple[Standing, str]:
    for case in cases:
        if case.result is not None and case.result.status in _BAD:
            return Standing.BROKEN, f"{case.program}: {case.result.status}: {case.result.reason}"
    for case in cases:
        for name in _deviations(case):
            if name in clause.deviations:
                return Standing.DEVIATING, f"{case.program}: {name}: {RECORDED[name].summary}"
    for case in cases:
        if case.result is not None and case.result.status in _NO_VERDICT:
            return Standing.OPEN, f"{case.program}: {case.result.status}: {case.result.reason}"
    missing = [case for case in cases if case.result is None]
    if missing:
        return Standing.NOT_RUN, f"{missing[0].program}: {missing[0].why}"
    for case in cases:
        if case.result is not None and case.result.status is not Verdict.SKIP:
            return Standing.PROVEN, ""
    reasons = dict.fromkeys(_STEP.sub("", case.result.reason) for case in cases if case.result is not None)
    return Standing.NOT_APPLICABLE, next(iter(reasons))


def _deviations(case: Case) -> list[str]:
    """The recorded deviations that a program showed."""
    if case.result is None or case.result.status is not Verdict.DEVIATION:
        return []
    return [name for name, each in RECORDED.items() if f"{name}: {each.summary}" in case.result.reason]


@dataclass(frozen=True)
class Change:
    """A clause that is not on two kernels alike."""

    flavour: str
    binding: str
    before: Finding
    after: Finding


def changes(found: Collection[Conformance], before: str, after: str) -> list[Change]:
    """What is another on the kernel `after` than on `before`: in each flavour and on each binding that both have."""
    there = {(each.kernel, each.flavour, each.binding): each for each in found}
    changed = []
    for old in found:
        new = there.get((after, old.flavour, old.binding))
        if old.kernel == before and new is not None:
            changed += [
                Change(old.flavour, old.binding, finding, new.findings[name])
                for name, finding in old.findings.items()
                if finding.standing is not new.findings[name].standing
            ]
    return changed
