# SPDX-License-Identifier: GPL-2.0-only
"""Coverage: what gcov says of a small program, and how suites are added up and shown."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.coverage import OURS, THEIRS, as_data, table
from harness.errors import BuildError
from harness.target.artifacts import Kernel
from harness.target.coverage import FileCoverage, merge, read_counters

_SOURCE = """\
#include <stdlib.h>

static int half(int number)
{
\tif (number % 2)
\t\treturn -1;
\treturn number / 2;
}

int main(int argc, char **argv)
{
\treturn half(atoi(argv[1])) == half(atoi(argv[1]));
}
"""


@pytest.fixture
def counted(tmp_path: Path) -> Path:
    """A "kernel" with one file of counters: source/mm/half.c and build/mm/half.gcno."""
    (tmp_path / "mm").mkdir()
    (tmp_path / "mm/half.c").write_text(_SOURCE)
    argv = ["gcc", "--coverage", "-O0", "-c", "mm/half.c", "-o", "mm/half.o"]
    subprocess.run(argv, cwd=tmp_path, check=True)
    subprocess.run(["gcc", "--coverage", "mm/half.o", "-o", "half"], cwd=tmp_path, check=True)
    return tmp_path


def _kernel(tree: Path) -> Kernel:
    return cast(Kernel, SimpleNamespace(build=tree))


def _counters(tree: Path, number: int) -> bytes:
    subprocess.run(["./half", str(number)], cwd=tree, check=False)
    data = tree / "mm/half.gcda"
    try:
        return data.read_bytes()
    finally:
        data.unlink()


def test_what_ran_is_told_from_what_did_not(counted: Path) -> None:
    even = read_counters(_kernel(counted), "half", _counters(counted, 4))["mm/half.c"]
    assert even.missed == [6]
    assert even.lines[7] == 2
    assert (even.branch_share.covered, even.branch_share.total) == (1, 2)
    odd = read_counters(_kernel(counted), "half", _counters(counted, 3))["mm/half.c"]
    assert odd.missed == [7]
    both = merge([{"mm/half.c": even}, {"mm/half.c": odd}])["mm/half.c"]
    assert both.missed == []
    assert (both.branch_share.covered, both.branch_share.total) == (2, 2)
    assert even.missed == [6]  # merging changed nothing


def test_a_file_without_notes_is_left_out(counted: Path) -> None:
    assert read_counters(_kernel(counted), "other", b"") == {}


def test_damaged_counters_are_an_error(counted: Path) -> None:
    data = _counters(counted, 4)
    with pytest.raises(BuildError, match="does not read the counters"):
        read_counters(_kernel(counted), "half", data[:8] + bytes(len(data) - 8))


def _file(lines: dict[int, int], branches: dict[tuple[int, int, int], int]) -> FileCoverage:
    return FileCoverage(Counter(lines), Counter(branches))


def test_suites_stand_side_by_side() -> None:
    ours = {"mm/hmm.c": _file({1: 1, 2: 0, 3: 5, 4: 0}, {(1, 0, 0): 1, (1, 0, 1): 0})}
    theirs = {"mm/hmm.c": _file({1: 0, 2: 9, 3: 1, 4: 0}, {(1, 0, 0): 0, (1, 0, 1): 3}), "mm/x.c": _file({1: 0}, {})}
    lines = table({OURS: ours, THEIRS: theirs})
    assert [line.split() for line in lines[2:]] == [
        ["mm/hmm.c", "50.0%", "50.0%", "50.0%", "50.0%", "75.0%", "100.0%"],
        ["mm/x.c", "-", "-", "0.0%", "100.0%", "0.0%", "100.0%"],
    ]
    assert lines[0].split() == [OURS, THEIRS, "together"]
    assert as_data({OURS: ours})[OURS]["mm/hmm.c"] == {"lines": [2, 4], "branches": [1, 2], "missed_lines": [2, 4]}
