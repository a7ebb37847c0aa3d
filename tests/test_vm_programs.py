# SPDX-License-Identifier: GPL-2.0-only
"""Every program of the product on every binding of a real kernel."""

from __future__ import annotations

import pytest

from harness.compare import Verdict, obstacle
from harness.conformance import catalogue, deviations
from harness.model.allowed import RECORDED
from harness.model.rules import RULES, rules_for
from harness.program.operations import DeviceOperation
from harness.run import Plan, run
from harness.target.lab import Lab

pytestmark = pytest.mark.vm

DEVIATIONS = deviations.load()


@pytest.mark.parametrize("binding", RULES)
@pytest.mark.parametrize("name", catalogue.names())
def test_kernel_and_model_agree(lab: Lab, name: str, binding: str) -> None:
    (program,) = catalogue.select([name])
    (result,) = run(Plan([program], [binding]), lab)
    rules = rules_for(binding, lab.features())
    # No more and no fewer: one that is gone from this kernel is noticed as well.
    deviating = DEVIATIONS.expected(lab.features()).get((name, binding), set())
    if result.status is Verdict.SKIP:
        assert not deviating or lab.missing(binding), f"this kernel should show {deviating}"
        cannot = any(isinstance(step, DeviceOperation) and step.verb in rules.cannot for step in program.steps)
        assert binding == "test_hmm" or cannot or obstacle(program, rules), "our own driver has every operation"
        pytest.skip(result.reason)
    assert result.status is (Verdict.DEVIATION if deviating else Verdict.PASS), "\n".join(result.explanation)
    assert {each for each in RECORDED if f"{each}: {RECORDED[each].summary}" in result.reason} == deviating
