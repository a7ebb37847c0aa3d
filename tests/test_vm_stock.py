# SPDX-License-Identifier: GPL-2.0-only
"""A kernel as it is shipped: fetched, booted from its own modules, and put through two programs."""

from __future__ import annotations

import pytest

from harness.compare import Verdict
from harness.conformance import catalogue
from harness.progress import Progress
from harness.run import Plan, run
from harness.target.cache import Cache
from harness.target.lab import Lab, prepare

pytestmark = pytest.mark.vm


def test_the_newest_shipped_kernel(cache: Cache, progress: Progress) -> None:
    machine = prepare("stock:newest", "plain", cache=cache, progress=progress)
    assert machine.kernel.release.endswith("-cloud-amd64")
    plan = Plan(catalogue.select(["access/read", "migrate/to-device"]), ["interval"])
    with Lab(machine, cache=cache, progress=progress) as lab:
        assert [result.status for result in run(plan, lab)] == [Verdict.PASS, Verdict.PASS]
        _, release = lab.vm().exec("uname -r", timeout=30.0)
    assert release.strip() == machine.kernel.release
