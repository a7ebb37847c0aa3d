# SPDX-License-Identifier: GPL-2.0-only
"""What `run` prints and writes: reports outlive whatever else fails, and the exit code is the verdict's. No VM."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree as ET

import pytest

import harness.matrix
from harness.cli import _parser
from harness.cli import run as command
from harness.compare import Verdict
from harness.defaults import PEER
from harness.errors import ExitCode, UsageError
from harness.matrix import Resources
from harness.progress import Progress
from harness.report.results import Planned, Result, Run, Source, Store, Target, read
from harness.run import Plan
from harness.target.places import CHECKOUT

KERNEL = ("debian:6.1", "plain")


class Stage:
    """A run of one program. `said`: what went to standard error."""

    def __init__(self, directory: Path) -> None:
        self.said = io.StringIO()
        self.store = directory / "results.jsonl"

    def run(self, **reports: Path) -> int:
        """Runs it, and returns the exit code."""
        run = Run("2026-01-01T00:00:00+00:00", ("x",), "0", {"x": Source("", "a: exit")}, ("interval",), (KERNEL,))
        resources = Resources(cast(Any, None), Progress(self.said))
        with Store(self.store) as store:
            plan = cast(Plan, None)
            return command._execute(run, plan, resources, store, resume=False, reports=reports)


@pytest.fixture(params=[Verdict.CRASHED])
def stage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    def told(*_: object, **__: object) -> Iterator[Target | Result]:
        yield Target(*KERNEL, banner="debian:6.1 plain, Linux 6.1")
        yield Result("x", *KERNEL, "interval", request.param, "boom", 0.1, "replay", explanation=("why",))

    monkeypatch.setattr(harness.matrix, "run_matrix", told)
    return Stage(tmp_path)


class Failing(io.StringIO):
    """Standard output that takes the first `lines`."""

    def __init__(self, number: int, lines: int = 0) -> None:
        super().__init__()
        self._number = number
        self._left = lines

    def write(self, text: str) -> int:
        if self._left == 0:
            raise OSError(self._number, os.strerror(self._number))  # a BrokenPipeError, for EPIPE
        self._left -= text.count("\n")
        return super().write(text)


@pytest.mark.parametrize("lines", [0, 1, 2])
def test_reports_outlive_a_standard_output_that_is_closed(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE, lines))
    with pytest.raises(BrokenPipeError):
        stage.run(html=tmp_path / "x.html", junit=tmp_path / "x.xml")
    assert (tmp_path / "x.html").is_file()
    assert (tmp_path / "x.xml").is_file()


def test_a_reader_that_goes_before_the_summary_takes_no_verdict_along(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE, 3))
    assert stage.run(html=tmp_path / "x.html") == ExitCode.CRASH
    assert (tmp_path / "x.html").is_file()
    end = read(stage.store).end
    assert end is not None
    assert end.exit_code == ExitCode.CRASH
    assert stage.said.getvalue() == ""


@pytest.mark.parametrize(
    ("stage", "code"),
    [(Verdict.CRASHED, 5), (Verdict.FAIL, 1), (Verdict.PASS, 3), (Verdict.SKIP, 3)],
    indirect=["stage"],
)
@pytest.mark.parametrize("fault", ["a report", "standard output"])
def test_what_cannot_be_written_is_said_and_changes_no_verdict(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, code: int
) -> None:
    reports = {"junit": tmp_path / "junit", "html": tmp_path / "x.html"}
    if fault == "a report":
        reports["junit"].mkdir()
    else:
        monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC, 3))
    assert stage.run(**reports) == code
    assert reports["html"].is_file()
    assert reports["junit"].is_file() == (fault != "a report")
    said = stage.said.getvalue()
    assert f"cannot write the report {tmp_path}/junit" in said if fault == "a report" else "No space left" in said


def _main(*arguments: str, directory: Path, after: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """hmm-harness run by a shell, with `after` behind its arguments, without anything that it could build from."""
    places = {
        "PYTHONPATH": str(CHECKOUT),
        "XDG_CACHE_HOME": str(directory / "cache"),
        "XDG_STATE_HOME": str(directory),
    }
    return subprocess.run(
        ["bash", "-c", f'"$@" {after}; exit ${{PIPESTATUS[0]}}', "bash", sys.executable, "-m", "harness", *arguments],
        env=os.environ | places | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("form", ["ktap", "junit", "html"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_built(tmp_path: Path, form: str) -> None:
    (tmp_path / "file").touch()
    ended = _main("run", "snapshot/hole", f"--{form}", str(tmp_path / "file" / "x"), directory=tmp_path)
    assert ended.returncode == ExitCode.INFRASTRUCTURE
    assert "cannot write the report" in ended.stderr
    assert not (tmp_path / "cache").exists()


def test_a_name_in_no_encoding_can_be_shown(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.hmm"
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123  a name in bytes
        file.write("a: map buf anon 1 rw\n")
    ended = _main("list", os.fsdecode(path), directory=tmp_path, PYTHONIOENCODING="utf-8:strict")
    assert ended.returncode == ExitCode.PASS, ended.stderr
    assert r"caf\udce9.hmm" in ended.stdout


def test_output_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    ended = _main("list", directory=tmp_path, after="> /dev/full")
    assert ended.returncode == ExitCode.INFRASTRUCTURE
    assert "No space left on device" in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert _main("list", directory=tmp_path, after="| head -n 1").returncode in (ExitCode.PASS, ExitCode.INTERRUPTED)


def test_a_report_on_standard_output_is_alone_there(stage: Stage, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert stage.run(junit=Path("-")) == ExitCode.CRASH
    out, err = capfdbinary.readouterr()
    assert ET.fromstring(out).tag == "testsuites"
    assert b"1 programs x 1 bindings on debian:6.1 (plain): 1 crashed" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json", "-"], "--json FILE; afterwards `hmm-harness report FILE --json -` prints it"),
        (["--ktap", "-", "--junit", "-"], "two reports on standard output would be mixed"),
        (["--reports", "-"], "--reports is for a directory"),
    ],
)
def test_standard_output_is_for_one_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = _main("run", "snapshot/hole", *arguments, directory=tmp_path)
    assert ended.returncode == ExitCode.USAGE
    assert words in ended.stderr
    assert not {"cache", "-"} & {path.name for path in tmp_path.iterdir()}


def _told_cases(*_: object, **__: object) -> Iterator[Target | Result | Planned]:
    name = f"{PEER}/hmm.migrate"
    yield Planned({name: Source("Migrate.", "TEST_F(hmm, migrate)")})
    yield Target(*KERNEL, banner="debian:6.1 plain, Linux 6.1")
    yield Result(name, *KERNEL, PEER, Verdict.PASS, "", 0.1, "replay", identity="1")


def test_cases_of_hmm_tests_are_planned_when_they_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness.matrix, "run_matrix", _told_cases)
    options = _parser().parse_args(["upstream", "migrate", "--json", str(tmp_path / "store")])
    assert command._run(options, Progress(io.StringIO())) is ExitCode.PASS
    stored = read(tmp_path / "store")
    assert (stored.bindings, stored.cases, stored.planned, list(stored.programs)) == (
        (PEER,),
        ("migrate",),
        1,
        [f"{PEER}/hmm.migrate"],
    )
    assert "1 cases of hmm-tests on debian:6.1 (plain): 1 passed" in capsys.readouterr().out


def test_programs_and_hmm_tests_are_one_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Plan] = []

    def told(plan: Plan, *_: object, **__: object) -> Iterator[Target | Result | Planned]:
        plans.append(plan)
        yield from _told_cases()
        yield Result("access/read", *KERNEL, "interval", Verdict.PASS, "", 0.1, "replay", identity="2")

    monkeypatch.setattr(harness.matrix, "run_matrix", told)
    words = ["run", "--upstream", "--binding", "interval", "access/read", "--json", str(tmp_path / "store")]
    assert command._run(_parser().parse_args(words), Progress(io.StringIO())) is ExitCode.PASS
    words = ["run", "--resume", str(tmp_path / "store")]
    assert command._run(_parser().parse_args(words), Progress(io.StringIO())) is ExitCode.PASS
    assert [[program.name for program in plan.programs] for plan in plans] == [["access/read"]] * 2
    assert [(plan.bindings, plan.cases) for plan in plans] == [(("interval",), ("*",))] * 2
    assert read(tmp_path / "store").bindings == ("interval", PEER)
    with pytest.raises(UsageError, match="--resume does not go with case"):
        command._run(_parser().parse_args(["upstream", "migrate", "--resume"]), Progress(io.StringIO()))
