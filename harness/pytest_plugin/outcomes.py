# SPDX-License-Identifier: GPL-2.0-only
"""What a verdict means in pytest's words.

PASS          passed
DEVIATION     passed, with a `DeviationWarning` (-W error::harness.pytest_plugin.DeviationWarning fails it)
SKIP          skipped
FAIL          failed: `Diverged`
CRASHED       failed: `KernelCrashed`, the kernel log is a section of the report
TIMEOUT       failed: `TimedOut`
ERROR         error: `NoVerdict`, as every other `HarnessError`
INCONCLUSIVE  error: `NoVerdict`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.errors import HarnessError
from harness.printable import plain

if TYPE_CHECKING:
    from _pytest.outcomes import Failed, Skipped
else:
    Failed, Skipped = pytest.fail.Exception, pytest.skip.Exception


class DeviationWarning(UserWarning):
    """The kernel diverged in a way that is known and recorded with its source."""


class Diverged(Failed):
    """The kernel showed what the model does not allow."""

    def __init__(self, text: str) -> None:
        super().__init__(plain(text), pytrace=False)


class KernelCrashed(Diverged):
    """The kernel crashed, or printed what is never fine."""


class TimedOut(Diverged):
    """A program or the guest did not come to its end."""


class NothingShown(Diverged):
    """A test asked for a comparison and showed nothing: that is no pass."""


class NotHere(Skipped):
    """A kernel or a binding cannot do what the test needs."""


class NoVerdict(HarnessError):  # noqa: N818  it says what became of the test
    """Something of ours or of the machine broke: nothing is known of the kernel."""


for _outcome in (Diverged, KernelCrashed, TimedOut, NothingShown):
    _outcome.__module__ = "builtins"  # pytest shows the name of an exception with its module, but for these
