# SPDX-License-Identifier: GPL-2.0-only
"""Coverage for real: the counters of a kernel of the flavour `coverage`."""

from __future__ import annotations

import pytest

from harness.compare import Verdict
from harness.conformance import catalogue
from harness.coverage import FLAVOUR, CountingLab
from harness.errors import MissingError
from harness.progress import Progress
from harness.run import Plan, run
from harness.target import coverage
from harness.target.cache import Cache
from harness.target.coverage import Coverage
from harness.target.lab import Lab, prepare
from harness.target.vm import Machine

pytestmark = [pytest.mark.vm]


def _measured(machine: Machine, pattern: str, cache: Cache, progress: Progress) -> Coverage:
    with CountingLab(machine, module="hmm_harness", cache=cache, progress=progress) as lab:
        results = list(run(Plan(catalogue.select([pattern]), ("interval",)), lab))
        lab.discard()
        assert {result.status for result in results} <= {Verdict.PASS, Verdict.DEVIATION}
        assert lab.lost == 0
        return lab.coverage


@pytest.mark.matrix
def test_programs_reach_what_they_are_about(machine: Machine, cache: Cache, progress: Progress) -> None:
    counting = prepare(machine.kernel.name, FLAVOUR, cache=cache, progress=progress)
    faults = _measured(counting, "fault/read-untouched", cache, progress)
    moves = _measured(counting, "migrate/to-system", cache, progress)
    assert {"mm/hmm.c", "mm/mmu_notifier.c", "mm/memremap.c"} <= faults.keys()
    migration = "mm/migrate_device.c" if "mm/migrate_device.c" in faults else "mm/migrate.c"
    assert 10 < faults["mm/hmm.c"].line_share.percent < 100
    assert faults[migration].line_share.covered < moves[migration].line_share.covered
    assert counting.kernel.source is not None
    assert (counting.kernel.source / "mm/hmm.c").exists()


def test_a_kernel_that_does_not_count_says_so(lab: Lab) -> None:
    with pytest.raises(MissingError, match="counts nothing"):
        coverage.reset(lab.vm())
