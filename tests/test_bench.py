# SPDX-License-Identifier: GPL-2.0-only
"""What `bench` prints. Times are measured, and never asserted: they are of a machine at a time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness import bench
from harness.errors import HarnessError


def test_a_ratio_is_printed_of_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench.Figures()
    for seconds in (0.3, 0.1, 0.2):
        figures.add("restore to first operation", seconds)
    figures.print()
    assert "ratio restore" not in capsys.readouterr().out
    figures.add("cold boot to first operation", 0.8)
    figures.print()
    table, _, ratio = capsys.readouterr().out.strip().rpartition("\n")
    assert table.splitlines()[1].split()[-4:] == ["0.200", "0.100", "0.300", "3"]
    assert ratio.startswith("ratio restore to first operation / cold boot to first operation: 0.25 (aim: ")


def test_help_is_measured_beside_a_python_that_does_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_HELPS", 2)
    figures = bench.Figures()
    bench.measure_help(figures)
    figures.print()
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(maxsplit=4)[0] for line in lines[1:3]] == ["python that does nothing", "hmm-harness --help"]
    (ratio,) = lines[3:]
    name, _, figure = ratio.partition(": ")
    assert name == "ratio hmm-harness --help / python that does nothing"
    assert float(figure.split()[0]) > 0


def test_a_help_that_fails_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -c ] || { echo no >&2; exit 3; }\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(HarnessError, match=r"--help failed \(3\)"):
        bench.measure_help(bench.Figures())


def test_what_a_second_cpu_is_worth_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_BUSILY", "pass")
    figures = bench.Figures()
    bench.measure_cpus(figures)
    figures.print()
    name, _, figure = capsys.readouterr().out.splitlines()[-1].partition(": ")
    assert name == "ratio two busy processes, one after the other / two busy processes, at once"
    assert float(figure.split()[0]) > 0
    monkeypatch.setattr(bench, "_BUSILY", "raise SystemExit(3)")
    with pytest.raises(HarnessError, match=r"failed \(3\)"):
        bench.measure_cpus(figures)
