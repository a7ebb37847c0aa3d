# SPDX-License-Identifier: GPL-2.0-only
"""A kernel as it is shipped: fetched, booted from its own modules, and put through a program of each kind."""

from __future__ import annotations

import pytest

from harness.cli.options import BINDINGS
from harness.compare import Verdict
from harness.conformance import catalogue
from harness.progress import Progress
from harness.run import Plan, run
from harness.target.cache import Cache
from harness.target.lab import Lab, prepare

pytestmark = pytest.mark.vm

EVERYWHERE = ("access/read", "migrate/to-device")  # what every driver of a kernel with device memory can do


def test_the_newest_shipped_kernel(cache: Cache, progress: Progress) -> None:
    machine = prepare("stock:newest", "plain", cache=cache, progress=progress)
    assert machine.kernel.release.endswith("-cloud-amd64")
    one_of_each = {name.partition("/")[0]: name for name in reversed(catalogue.names())}
    names = list(dict.fromkeys((*EVERYWHERE, *one_of_each.values())))
    shown: dict[str, set[str]] = {binding: set() for binding in BINDINGS}
    with Lab(machine, cache=cache, progress=progress) as lab:
        assert {binding: lab.missing(binding) for binding in BINDINGS} == dict.fromkeys(BINDINGS)
        for result in run(Plan(catalogue.select(names), BINDINGS), lab):
            assert result.status in (Verdict.PASS, Verdict.SKIP, Verdict.DEVIATION), "\n".join(result.explanation)
            if result.status is not Verdict.SKIP:
                shown[result.binding].add(result.program)
        _, release = lab.vm().exec("uname -r", timeout=30.0)
    assert release.strip() == machine.kernel.release
    assert shown["interval"] == set(names)
    for binding in BINDINGS:
        assert shown[binding] >= set(EVERYWHERE), binding
