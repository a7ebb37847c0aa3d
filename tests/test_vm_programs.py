# SPDX-License-Identifier: GPL-2.0-only
"""Every program of the product on every binding of a real kernel."""

from __future__ import annotations

import pytest

from harness.compare import Verdict
from harness.conformance import catalogue
from harness.run import Plan, run
from harness.target.lab import Lab

pytestmark = pytest.mark.vm

# Known deviations of this kernel, and the programs that show them: no more and no fewer.
DEVIATIONS = {
    ("devmem/own-readonly-write", "interval"),
    ("devmem/own-readonly-mapping", "interval"),
    ("devmem/own-faulted-along", "interval"),
    ("devmem/fork-device-writes", "interval"),
}


@pytest.mark.parametrize("binding", ["interval", "test_hmm"])
@pytest.mark.parametrize("name", catalogue.names())
def test_kernel_and_model_agree(lab: Lab, name: str, binding: str) -> None:
    (result,) = run(Plan(catalogue.select([name]), [binding]), lab)
    if result.status is Verdict.SKIP:
        assert binding == "test_hmm", "our own driver has every operation"
        pytest.skip(result.reason)
    expected = Verdict.DEVIATION if (name, binding) in DEVIATIONS else Verdict.PASS
    assert result.status is expected, "\n".join(result.explanation)
