# SPDX-License-Identifier: GPL-2.0-only
"""Where runs are kept, and what a run that is resumed starts from."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from harness.compare import Verdict
from harness.errors import ExitCode, HarnessError, UsageError
from harness.report import junit, runs
from harness.report.results import End, Result, Run, Source, Store, Target

RUN = Run(
    started="2026-01-01T00:00:00+00:00",
    command=("hmm-harness", "run"),
    version="0",
    programs={"snapshot/hole": Source("A promise.", "a: map buf anon 1 rw\n")},
    bindings=("interval", "test_hmm"),
    kernels=(("debian:6.1", "plain"), ("debian:7.3", "plain")),
    timeout=30.0,
)


def _result(status: Verdict, kernel: str, binding: str) -> Result:
    return Result(
        "snapshot/hole", kernel, "plain", binding, status, "why", 0.1, "replay", identity=f"{kernel} {binding}"
    )


def _write(path: Path) -> list[Result]:
    results = [
        _result(Verdict.PASS, "debian:6.1", "interval"),
        _result(Verdict.CRASHED, "debian:6.1", "test_hmm"),
        _result(Verdict.ERROR, "debian:7.3", "interval"),
        replace(_result(Verdict.FAIL, "debian:7.3", "test_hmm"), identity=""),
    ]
    with Store(path) as store:
        store.begin(RUN)
        store.target(Target("debian:6.1", "plain", release="6.1.192"))
        store.target(Target("debian:7.3", "plain", error="it does not build"))
        for result in results:
            store.add(result)
        store.end(End("2026-01-01T00:01:00+00:00", 60.0, 5))
    return results


def test_verdicts_on_a_kernel_are_kept_and_the_rest_is_done_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results = _write(path)
    run = runs.resumed(path)
    assert run.results == results[:2]
    assert [target.kernel for target in run.targets] == ["debian:6.1"]
    assert run.end is None
    assert run.kernels == RUN.kernels


@pytest.mark.parametrize("status", Verdict)
def test_what_is_done_again_is_what_junit_calls_an_error(tmp_path: Path, status: Verdict) -> None:
    path = tmp_path / "results.jsonl"
    with Store(path) as store:
        store.begin(RUN)
        store.add(_result(status, "debian:6.1", "interval"))
    again = not runs.resumed(path).results
    run = replace(RUN, results=[_result(status, "debian:6.1", "interval")])
    case = next(ET.fromstring(junit.render(run)).iter("testcase"))
    assert again == (case.find("error") is not None)
    assert again == (status in (Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.TIMEOUT))


def test_runs_are_kept_and_the_last_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="no run yet"):
        runs.last()
    first = runs.place(None, None)
    assert first.is_relative_to(tmp_path)
    for number in range(30):
        path = first.with_name(f"{number:02}.jsonl")
        path.touch()
        os.utime(path, (number, number))
    assert runs.last().name == "29.jsonl"
    runs.place(None, None)
    assert len(list(first.parent.iterdir())) == 20
    assert runs.last().name == "29.jsonl"


def test_results_have_their_place(tmp_path: Path) -> None:
    assert runs.place(tmp_path / "x", tmp_path / "all") == tmp_path / "x"
    assert runs.place(None, tmp_path / "all") == tmp_path / "all/results.jsonl"


def _command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_report_of_a_run_that_is_over(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    _write(path)
    ended = _command("report", str(path), "--reports", str(tmp_path / "all"))
    assert ended.returncode == ExitCode.CRASH, ended.stderr  # as the run itself
    assert {each.suffix for each in (tmp_path / "all").iterdir()} == {".html", ".xml", ".ktap", ".jsonl", ".md"}
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"reports: {tmp_path}/all/report.html ")
    assert {Path(each) for each in last.split()[1:]} == set((tmp_path / "all").iterdir())
    again = tmp_path / "all/results.jsonl"
    before = again.read_bytes()
    assert _command("report", str(again), "--reports", str(tmp_path / "all")).returncode == ExitCode.CRASH
    assert again.read_bytes() == before
    ended = _command("report", str(path), "--ktap", "-")
    assert ended.stdout.startswith("KTAP version 1\n")
    assert _command("report", str(path)).returncode == ExitCode.USAGE
    assert _command("report", str(path), "--table", "--ktap", "-").returncode == ExitCode.USAGE
    ended = _command("report", str(path), "--table")
    assert ended.returncode == ExitCode.CRASH, ended.stderr
    assert "snapshot/hole  PASS          CRASHED" in ended.stdout
    assert ended.stdout.splitlines()[-1].endswith("1 passed, 1 failed, 1 error, 1 crashed [60.0 s]")
    assert _command("report", str(tmp_path / "none"), "--ktap", "-").returncode == ExitCode.USAGE


@pytest.mark.parametrize("arguments", [["--kernel", "debian:7.3"], ["--binding", "interval"], ["snapshot/hole"]])
def test_a_resumed_run_keeps_its_plan(tmp_path: Path, arguments: list[str]) -> None:
    path = tmp_path / "results.jsonl"
    _write(path)
    before = path.read_bytes()
    ended = _command("run", *arguments, "--resume", str(path))
    assert ended.returncode == ExitCode.USAGE
    assert "keeps its plan" in ended.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize("option", ["json", "reports"])
def test_a_run_that_is_stored_elsewhere_is_the_last_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    _write(runs.place(None, None))
    path = runs.place(Path("mine") if option == "json" else None, Path() if option == "reports" else None)
    assert not path.is_absolute()
    _write(path)
    monkeypatch.chdir("/")
    assert runs.last() == tmp_path / path
    (tmp_path / path).unlink()
    assert runs.last().parent == tmp_path / "state/hmm-harness/runs"


def test_a_run_whose_place_can_have_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but `--resume` without a name is lost."""
    (tmp_path / "state").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert runs.place(tmp_path / "x", None) == tmp_path / "x"
    with pytest.raises(HarnessError, match="cannot keep results"):
        runs.place(None, None)


def test_a_report_of_an_interrupted_run_is_no_pass(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Store(path) as store:
        store.begin(RUN)
        store.add(_result(Verdict.PASS, "debian:6.1", "interval"))
    ended = _command("report", str(path), "--ktap", str(tmp_path / "ktap"))
    assert ended.returncode == ExitCode.INFRASTRUCTURE
    assert "3 were not run" in ended.stderr


def test_resume_does_not_go_with_dry_run(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    _write(path)
    ended = _command("run", "--resume", str(path), "--dry-run")
    assert ended.returncode == ExitCode.USAGE
    assert "--dry-run does not go with --resume" in ended.stderr


def test_what_makes_no_sense_is_refused_before_a_store_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    _write(path)
    before = path.read_bytes()
    for wrong in (["--kernel", "stock:newest", "--flavour", "plain,debug"], ["--kernel", "tree:/nonexistent"]):
        ended = _command("run", "--kernel", "debian:6.1", *wrong, "--json", str(path))
        assert ended.returncode == ExitCode.USAGE, ended.stderr
    assert path.read_bytes() == before
