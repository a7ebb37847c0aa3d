# SPDX-License-Identifier: GPL-2.0-only
"""How a `HarnessError` that ended a test, or its set-up, is told."""

from __future__ import annotations

import pytest

from harness.compare import Verdict
from harness.errors import HarnessError
from harness.printable import plain
from harness.run import verdict_of
from harness.target.watchdog import VMFailure


def retell(error: HarnessError, report: pytest.TestReport) -> None:
    """Changes `report`: a kernel that crashed or hung is a failure, all else an error; message and hint are enough.

    pytest calls an error what fails outside the phase "call", whichever report comes with it; so does JUnit.
    """
    report.outcome = "failed"
    vars(report).pop("wasxfail", None)  # what is unknown was not expected
    if verdict_of(error) is Verdict.ERROR and report.when == "call":
        report.when = "setup"
    lines = [error.message]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    report.longrepr = plain("\n".join(lines))
    if isinstance(error, VMFailure) and error.console:
        report.sections.append(("kernel log", plain(error.console)))
