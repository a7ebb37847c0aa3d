# SPDX-License-Identifier: GPL-2.0-only
"""Known bugs on real kernels: those that have them and those that are mended are told apart."""

from __future__ import annotations

import re

import pytest

from harness.bugs import main
from harness.conformance.bugs import load
from harness.errors import ExitCode
from harness.matrix import Resources
from harness.progress import Progress
from harness.target.cache import Cache

pytestmark = [pytest.mark.vm, pytest.mark.matrix]

SERIES = re.compile(r"debian:\d+\.\d+")  # the newest of each is built anyway; other versions are for `make bugs`


def test_kernels_of_which_one_has_a_bug_are_told_apart(
    cache: Cache, progress: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    bugs = [
        bug for bug in load()
        if bug.programs and all(SERIES.fullmatch(kernel) and flavour == "plain" for kernel, flavour in bug.kernels)
    ]  # fmt: skip
    assert len(bugs) >= 6
    code = main(bugs, Resources(cache, progress), ["hmm-harness", "run"])
    said = capsys.readouterr().out
    assert code is ExitCode.PASS, said
    for bug in bugs:
        assert f"{bug.id} told apart: {bug.symptom}\n" in said
    assert re.search(r"Linux \d+\.\d+\.\d+, which has it: \S+ is red, by a recorded deviation: ", said)
    assert re.search(r"Linux \d+\.\d+\.\d+, mended: \S+ is green\n", said)
