# SPDX-License-Identifier: GPL-2.0-only
"""Programs prove their clauses: each deliberate mistake that breaks a clause turns one of them red."""

from __future__ import annotations

import pytest

from harness.compare import Verdict
from harness.conformance import catalogue, clauses
from harness.conformance.clauses import Clause
from harness.defaults import DEFAULT_TIMEOUT
from harness.run import Plan, run
from harness.target.lab import Lab
from tests.test_vm_wrong import FATAL, PATIENCE, QUIET

pytestmark = pytest.mark.vm

BROKEN = [
    (clause, mistake) for clause in clauses.load().clauses.values() for mistake in clause.wrong if clause.programs
]


@pytest.mark.parametrize(("clause", "mistake"), BROKEN, ids=[f"{clause.id}-{mistake}" for clause, mistake in BROKEN])
def test_a_mistake_that_breaks_a_clause_is_seen_by_its_programs(lab: Lab, clause: Clause, mistake: str) -> None:
    seen = []
    red = FATAL[mistake][1] if mistake in FATAL else {Verdict.FAIL}
    timeout = PATIENCE if mistake in FATAL else DEFAULT_TIMEOUT
    for name in clause.programs:
        (wrong,) = run(Plan(catalogue.select([name]), ["interval"], wrong=[mistake], timeout=timeout), lab)
        if wrong.status in red:
            return
        seen.append(wrong.status)
    if set(seen) == {Verdict.SKIP}:
        pytest.skip("this kernel runs none of its programs")
    if mistake in QUIET and set(seen) == {Verdict.PASS}:
        pytest.skip("this kernel leaves it alone")
    pytest.fail(f"--wrong {mistake} does not turn red any of {', '.join(clause.programs)}: {seen}")
