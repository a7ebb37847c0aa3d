# SPDX-License-Identifier: GPL-2.0-only
"""Swap space in a guest: there for the programs that swap pages out, and no longer."""

from __future__ import annotations

import pytest

from harness.compare import Verdict
from harness.program.text import parse
from harness.run import Plan, run
from harness.target.lab import Lab

pytestmark = pytest.mark.vm

IN_USE = "tail -n +2 /proc/swaps; grep -E '^pswp(in|out)' /proc/vmstat"
# A page goes out and comes back; in the second program, which has no swap space, nothing does.
OUT = "a: map buf anon 8 rw\na: write buf 1\na: swap-out buf\nd0: bind a\nd0: read buf\na: read buf\n"
STAYS = "a: map buf anon 8 rw\na: write buf 1\nd0: bind a\na: advise buf pageout\nd0: snapshot buf\na: pagemap buf\n"


def _counted(lab: Lab) -> dict[str, int]:
    status, said = lab.vm().exec(IN_USE, timeout=60)
    assert status == 0
    assert all(line.startswith("pswp") for line in said.splitlines()), f"swap space is in use: {said}"
    return {name: int(number) for name, number in map(str.split, said.splitlines())}


def test_a_kernel_that_has_zram_has_swap_space(lab: Lab) -> None:
    assert ("SWAP" in lab.features()) == ("zram" in lab.kernel.modules)


def test_swap_space_is_there_for_a_program_that_swaps_and_for_no_other(lab: Lab) -> None:
    if "SWAP" not in lab.features():
        pytest.skip("this kernel has no swap space")
    before = _counted(lab)
    (result,) = run(Plan([parse(OUT, file="out")], ["interval"]), lab)
    assert result.status is Verdict.PASS, result.reason
    between = _counted(lab)
    assert between["pswpout"] - before["pswpout"] >= 8
    assert between["pswpin"] - before["pswpin"] >= 8
    (result,) = run(Plan([parse(STAYS, file="stays")], ["interval"]), lab)
    assert result.status is Verdict.PASS, result.reason
    assert _counted(lab) == between
