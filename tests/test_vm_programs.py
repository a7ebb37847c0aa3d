# SPDX-License-Identifier: GPL-2.0-only
"""Every program of the product on every binding of a real kernel."""

from __future__ import annotations

import pytest

from harness.compare import Verdict, obstacle
from harness.conformance import catalogue
from harness.model.rules import RULES, rules_for
from harness.program.operations import DeviceOperation
from harness.run import Plan, run
from harness.target.lab import Lab

pytestmark = pytest.mark.vm

# Known deviations of this kernel, and the programs that show them: no more and no fewer.
DEVIATIONS = {
    ("devmem/own-readonly-write", "interval"),
    ("devmem/own-readonly-mapping", "interval"),
    ("devmem/own-faulted-along", "interval"),
    ("devmem/own-faulted-along", "mirror"),
    ("devmem/fork-device-writes", "interval"),
    ("request/each-page", "interval"),
    ("request/faulted-along", "interval"),
    ("request/masked-in", "interval"),
    *((f"trap/{name}", binding) for name in ("guard-snapshot", "poison-snapshot") for binding in RULES),
    *(("trap/poison-from-anywhere", binding) for binding in RULES),
}
# ... and of kernels that leave a page in the memory of another device where it is, up to 5.18.
REMOTE_REFUSED = {
    (name, binding)
    for name in (
        "devmem/two-devices", "migrate/child-mirrored", "migrate/mirrored-by-both", "migrate/other-device",
        "request/owner-nobody", "request/owner-other",
    )
    for binding in ("interval", "test_hmm")  # `mirror` asks for them as a CPU would: kmod/compat/hmm.c
}  # fmt: skip


@pytest.mark.parametrize("binding", RULES)
@pytest.mark.parametrize("name", catalogue.names())
def test_kernel_and_model_agree(lab: Lab, name: str, binding: str) -> None:
    (program,) = catalogue.select([name])
    (result,) = run(Plan([program], [binding]), lab)
    rules = rules_for(binding, lab.features())
    if result.status is Verdict.SKIP:
        cannot = any(isinstance(step, DeviceOperation) and step.verb in rules.cannot for step in program.steps)
        assert binding == "test_hmm" or cannot or obstacle(program, rules), "our own driver has every operation"
        pytest.skip(result.reason)
    deviations = DEVIATIONS if rules.has("MIGRATE_FAULT_PAGE") else DEVIATIONS | REMOTE_REFUSED
    expected = Verdict.DEVIATION if (name, binding) in deviations else Verdict.PASS
    assert result.status is expected, "\n".join(result.explanation)
