# SPDX-License-Identifier: GPL-2.0-only
"""The pool of huge pages in a guest: there for the programs that need it, and no longer."""

from __future__ import annotations

import pytest

from harness.compare import Verdict
from harness.program.text import parse
from harness.run import Plan, run
from harness.target.lab import Lab

pytestmark = pytest.mark.vm

POOL = "cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"


def test_the_pool_is_there_for_a_program_and_empty_behind_it(lab: Lab) -> None:
    if "HUGETLB" not in lab.features():
        pytest.skip("this kernel has no MAP_HUGETLB with pages of 2 MiB")
    text = "a: map buf hugetlb 512 rw\na: write buf 1\na: fork b\na: write buf 2\nb: read buf\n"
    (result,) = run(Plan([parse(text, file="pool")], ["interval"]), lab)
    assert result.status is Verdict.PASS, result.reason
    status, said = lab.vm().exec(POOL, timeout=60)
    assert (status, said.strip()) == (0, "0")


def test_a_pool_that_cannot_be_had_proves_nothing(lab: Lab) -> None:
    if "HUGETLB" not in lab.features():
        pytest.skip("this kernel has no MAP_HUGETLB with pages of 2 MiB")
    text = "a: map buf hugetlb 65536 rw\na: map more hugetlb 65536 rw\na: map most hugetlb 65536 rw\na: read buf[0]\n"
    (result,) = run(Plan([parse(text, file="pool")], ["interval"]), lab)
    assert result.status is Verdict.INCONCLUSIVE
    assert "2 MiB" in result.reason
