# SPDX-License-Identifier: GPL-2.0-only
"""What `run` prints and writes: reports outlive whatever else fails, and the exit code is the verdict's. No VM."""

from __future__ import annotations

import errno
import io
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
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
from harness.report import jsonlines, runs
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


@pytest.mark.parametrize("lines", range(4))
def test_whoever_closes_standard_output_ends_no_run(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE, lines))
    assert stage.run(html=tmp_path / "x.html", junit=tmp_path / "x.xml") == ExitCode.CRASH
    assert (tmp_path / "x.html").is_file()
    assert ET.parse(tmp_path / "x.xml").getroot().get("failures") == "1"
    stored = read(stage.store)
    assert [result.status for result in stored.results] == [Verdict.CRASHED]
    assert stored.end is not None
    assert stored.end.exit_code == ExitCode.CRASH
    assert stage.said.getvalue().splitlines() == [
        "hmm-harness: standard output was closed: the run goes on without it",
        f"reports: {tmp_path}/x.html {tmp_path}/x.xml",
    ]


@pytest.mark.parametrize("stage", [Verdict.PASS], indirect=True)
@pytest.mark.parametrize("lines", [0, 3])
def test_a_full_disk_below_standard_output_is_said_once_and_ends_no_run(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC, lines))
    assert stage.run(html=tmp_path / "x.html") == ExitCode.INFRASTRUCTURE
    assert len(read(stage.store).results) == 1
    said = stage.said.getvalue()
    assert said.count("No space left") == 1
    assert "hint: the results are stored" in said


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
    assert "where standard output leads to" in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize("command", ["list", "clauses", "config"])  # the last one is written at the end
@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_whoever_closes_standard_output_ends_what_only_prints(tmp_path: Path, command: str, debug: list[str]) -> None:
    ended = _main(*debug, command, directory=tmp_path, after="| true")
    assert (ended.returncode, ended.stderr) == (ExitCode.CLOSED, "")


@pytest.mark.parametrize("after", ["2> /dev/full", "2>&1 > /dev/null | true"])
def test_that_nobody_hears_what_is_wrong_is_no_divergence(tmp_path: Path, after: str) -> None:
    ended = _main("run", "nosuch", directory=tmp_path, after=after)
    assert ended.returncode == ExitCode.USAGE


def test_a_terminal_that_is_closed_ends_nothing_below_nohup() -> None:
    code = (
        "import signal, harness.cli as cli\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "cli.main(['config'])\n"
        "assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, timeout=60)


def test_a_report_on_standard_output_is_alone_there(stage: Stage, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert stage.run(junit=Path("-")) == ExitCode.CRASH
    out, err = capfdbinary.readouterr()
    assert ET.fromstring(out).tag == "testsuites"
    assert b"1 program x 1 binding on debian:6.1 (plain): 1 crashed" in err


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
    assert "1 case of hmm-tests on debian:6.1 (plain): 1 passed" in capsys.readouterr().out


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


def _program(path: Path, title: str, more: str = "") -> Path:
    path.write_text(f"# {title}\na: map buf anon 1 rw\n{more}")
    return path


def _command(words: list[str]) -> str:
    """Runs a command as far as it comes; what it said on standard error."""
    said = io.StringIO()
    with suppress(KeyboardInterrupt):
        command._run(_parser().parse_args(words), Progress(said))
    return said.getvalue()


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """Every program passes, and has to be run again if it has changed. The plans of the runs."""
    plans: list[Plan] = []

    def told(plan: Plan, *_: object, done: Any, **__: object) -> Iterator[Target | Result]:
        plans.append(plan)
        yield Target(*KERNEL, key="key", banner="debian:6.1 plain, Linux 6.1")
        for program in plan.programs:
            name = program.name
            identity = program.title
            if done.get((*KERNEL, name, "interval")) != identity:
                yield Result(name, *KERNEL, "interval", Verdict.PASS, "", 0.1, "replay", identity=identity)

    monkeypatch.setattr(harness.matrix, "run_matrix", told)
    return plans


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a run end before anything is known of a kernel: by Ctrl-C, or as if by SIGKILL."""

    def arrange(*, looked_at: Path | None = None) -> dict[str, bytes]:
        found: dict[str, bytes] = {}

        def told(*_: object, **__: object) -> Iterator[Target]:
            if looked_at is not None:
                found.update((path.name, path.read_bytes()) for path in looked_at.iterdir())
            raise KeyboardInterrupt
            yield

        monkeypatch.setattr(harness.matrix, "run_matrix", told)
        return found

    return arrange


_NEW = ["run", "--kernel", "debian:6.1", "--binding", "interval"]


@pytest.mark.usefixtures("passing")
def test_a_program_that_changed_is_planned_anew_when_its_run_is_resumed(tmp_path: Path, stopped: Any) -> None:
    """Before it has run again, too: its old result is none of it."""
    store = tmp_path / "store"
    paths = [_program(tmp_path / f"p{number}.hmm", f"Promise {number}.") for number in (1, 3)]
    _command([*_NEW, *map(str, paths), "--json", str(store)])
    assert len(read(store).results) == 2
    _program(paths[1], "Another one.", "a: write buf 10\n")
    stopped()
    said = _command(
        ["run", "--resume", str(store), "--html", str(tmp_path / "html"), "--junit", str(tmp_path / "xml")]
    )
    assert f"changed since: {paths[1]}\n" in said
    assert "1 of 2 results are there" in said
    stored = read(store)
    assert [result.program for result in stored.results] == [str(paths[0])]
    assert stored.programs[str(paths[1])].title == "Another one."
    assert "a: write buf 10" in stored.programs[str(paths[1])].text
    assert stored.end is None
    assert "Another one." in (tmp_path / "html").read_text()
    assert "Promise 3." not in (tmp_path / "html").read_text()
    assert ET.parse(tmp_path / "xml").getroot().get("errors") == "1"
    assert "changed since" not in _command(["run", "--resume", str(store)])


@pytest.mark.usefixtures("passing")
def test_results_of_another_kernel_of_that_name_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [_program(tmp_path / f"p{number}.hmm", f"Promise {number}.") for number in (1, 2)]
    store = tmp_path / "store"
    _command([*_NEW, *map(str, paths), "--json", str(store)])

    def told(*_: object, **__: object) -> Iterator[Target | Result]:
        yield Target(*KERNEL, key="another", banner="debian:6.1 plain, Linux 6.1")
        yield Result(str(paths[0]), *KERNEL, "interval", Verdict.FAIL, "", 0.1, "replay", identity="2")
        raise KeyboardInterrupt

    monkeypatch.setattr(harness.matrix, "run_matrix", told)
    said = _command(["run", "--resume", str(store), "--junit", str(tmp_path / "xml")])
    assert "debian:6.1 plain is another kernel by now: 2 results of it are not kept" in said
    assert "1 of the results that were there were of another kernel, driver or guest, and were made anew" in said
    assert [result.status for result in read(store).results] == [Verdict.FAIL]
    root = ET.parse(tmp_path / "xml").getroot()
    assert (root.get("failures"), root.get("errors")) == ("1", "1")


def test_what_is_resumed_elsewhere_finds_its_programs(
    tmp_path: Path, passing: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    _program(Path("p1.hmm"), "Promise 1.")
    _command([*_NEW, "p1.hmm", "access/read", "--json", str(tmp_path / "store")])
    monkeypatch.chdir(tmp_path / "here")
    _program(Path("p1.hmm"), "Another one of this name.")
    resume = ["run", "--resume", str(tmp_path / "store")]
    said = _command(resume)
    assert "changed since" not in said
    assert "2 of 2 results are there" in said
    (tmp_path / "there/p1.hmm").unlink()
    said = _command(resume)
    assert "not there any more, and run as it was: p1.hmm" in said
    assert "2 of 2 results are there" in said
    names = [[(program.name, program.title) for program in plan.programs] for plan in passing]
    assert names == [names[0]] * 3
    assert names[0][0] == ("p1.hmm", "Promise 1.")


@pytest.mark.usefixtures("passing")
def test_no_report_of_the_run_before_is_left_beside_a_store_that_is_new(
    tmp_path: Path, stopped: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by who is interrupted at once, nor, which is looked at from within, by who is killed."""
    seconds = itertools.count()  # what tells conformance.md of one run from that of another in the same second
    monkeypatch.setattr(runs, "now", lambda: f"2026-01-01T00:00:{next(seconds):02}+00:00")
    directory = tmp_path / "out"
    new = [*_NEW, str(_program(tmp_path / "p1.hmm", "Promise 1.")), "--reports", str(directory)]
    _command(new)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert len(before) == 5
    assert ET.fromstring(before["junit.xml"]).get("errors") == "0"
    during = stopped(looked_at=directory)
    _command(new)
    after = {path.name: path.read_bytes() for path in directory.iterdir()}
    for found in (during, after):
        assert found.keys() == before.keys()
        assert ET.fromstring(found["junit.xml"]).get("errors") == "1"
        assert b"\nnot ok 1 " in found["results.ktap"]
        assert b"1 of 1 results needs attention" in found["report.html"]
        assert found["conformance.md"] != before["conformance.md"]


def test_who_is_interrupted_at_once_gets_every_report(
    tmp_path: Path, stopped: Any, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    stopped()
    program = _program(tmp_path / "p1.hmm", "Promise 1.")
    _command([*_NEW, str(program), "--json", str(tmp_path / "s"), "--html", str(tmp_path / "h"), "--junit", "-"])
    assert ET.fromstring(capfdbinary.readouterr().out).get("errors") == "1"
    assert "needs attention" in (tmp_path / "h").read_text()


@pytest.mark.parametrize(
    "options",
    [
        ["--html", "store", "--json", "store"],
        ["--json", "store", "--ktap", "here/../store"],
        ["--html", "link", "--json", "store"],
        ["--html", "same", "--junit", "same"],
        ["--reports", "here", "--html", "here/junit.xml"],
        ["--reports", "here", "--json", "here/report.html"],
        ["--html", "p1.hmm"],
        ["--json", "p1.hmm"],
        ["--resume", "store", "--html", "store"],
    ],
)
def test_two_reports_are_no_one_file(
    tmp_path: Path, passing: list[Plan], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _program(Path("p1.hmm"), "Promise 1.")
    _command([*_NEW, "p1.hmm", "--json", "store"])
    Path("link").symlink_to("store")
    Path("here").mkdir()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    new = ["run"] if "--resume" in options else [*_NEW, "p1.hmm"]
    with pytest.raises(UsageError, match="are one file"):
        _command([*new, *options])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert list(Path("here").iterdir()) == []
    assert len(passing) == 1
    _command([*_NEW, "p1.hmm", "--json", "store", "--html", os.devnull, "--junit", os.devnull])
    assert len(passing) == 2


@pytest.mark.parametrize("options", [["--html", "store"], ["--json", "./store"], ["--html", "x", "--ktap", "x"]])
@pytest.mark.usefixtures("passing")
def test_a_report_is_not_written_over_what_it_is_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _program(Path("p1.hmm"), "Promise 1.")
    _command([*_NEW, "p1.hmm", "--json", "store"])
    before = Path("store").read_bytes()
    with pytest.raises(UsageError, match="are one file"):
        command._report(_parser().parse_args(["report", "store", *options]), Progress(io.StringIO()))
    assert Path("store").read_bytes() == before


def test_a_dry_run_looks_at_the_programs(tmp_path: Path) -> None:
    program = tmp_path / "bad.hmm"
    program.write_text("a: map buf anon 1 rw\na: read other\n")
    ended = _main("run", "--dry-run", str(program), directory=tmp_path)
    assert ended.returncode == ExitCode.USAGE
    assert f"{program}:2: " in ended.stderr
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("passing")
def test_a_report_whose_reader_goes_is_that_of_the_run(tmp_path: Path) -> None:
    _command([*_NEW, str(_program(tmp_path / "p1.hmm", "Promise 1.")), "--json", str(tmp_path / "store")])
    ended = _main("report", str(tmp_path / "store"), "--html", "-", directory=tmp_path, after="| true")
    assert ended.returncode == ExitCode.PASS
    assert "Broken pipe" not in ended.stderr


def test_a_directory_of_reports_is_no_store_but_has_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Is a directory") as caught:
        read(tmp_path)
    assert caught.value.hint == "name a file that `hmm-harness run --json FILE` wrote"
    (tmp_path / "results.jsonl").touch()
    with pytest.raises(UsageError, match="Is a directory") as caught:
        read(tmp_path)
    assert caught.value.hint == f"name the file in it: {tmp_path}/results.jsonl"


def _interrupted(*_: object, **__: object) -> Iterator[Target | Result]:
    yield Target(*KERNEL, banner="debian:6.1 plain, Linux 6.1")
    raise KeyboardInterrupt


def _passed(*_: object, **__: object) -> Iterator[Target | Result]:
    yield Target(*KERNEL, banner="debian:6.1 plain, Linux 6.1")
    yield Result("access/read", *KERNEL, "interval", Verdict.PASS, "", 0.1, "replay", identity="2")


def _resume(store: Path, *options: str) -> str:
    """Goes on with the run of `store`; what went to standard error."""
    said = io.StringIO()
    words = ["run", "--resume", str(store), *options]
    assert command._run(_parser().parse_args(words), Progress(said)) is ExitCode.PASS
    return said.getvalue()


def test_a_run_that_is_resumed_renews_the_reports_that_it_was_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(harness.matrix, "run_matrix", _interrupted)
    words = [
        "run",
        "--binding",
        "interval",
        "access/read",
        "--reports",
        "out",
        "--html",
        "x.html",
        "--ktap",
        "/dev/null",
    ]
    with pytest.raises(KeyboardInterrupt):
        command._run(_parser().parse_args(words), Progress(io.StringIO()))
    assert "NOT RUN" in (tmp_path / "out/junit.xml").read_text()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(harness.matrix, "run_matrix", _passed)
    said = _resume(tmp_path / "out/results.jsonl")
    assert "NOT RUN" not in (tmp_path / "out/junit.xml").read_text()
    assert "The result is good" in (tmp_path / "x.html").read_text()
    assert not (tmp_path / "out/report.html").exists()
    assert said.splitlines()[-1].split()[:2] == ["reports:", f"{tmp_path}/x.html"]
    # Another place for one of them is where it goes from then on.
    _resume(tmp_path / "out/results.jsonl", "--junit", "mine.xml")
    (tmp_path / "elsewhere/mine.xml").unlink()
    (tmp_path / "out/junit.xml").unlink()
    _resume(tmp_path / "out/results.jsonl")
    assert (tmp_path / "elsewhere/mine.xml").is_file()
    assert not (tmp_path / "out/junit.xml").exists()
    assert list((tmp_path / "elsewhere").iterdir()) == [tmp_path / "elsewhere/mine.xml"]


def test_a_report_on_standard_output_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness.matrix, "run_matrix", _passed)
    words = ["run", "--binding", "interval", "access/read", "--json", str(tmp_path / "store"), "--conformance", "-"]
    assert command._run(_parser().parse_args(words), Progress(io.StringIO())) is ExitCode.PASS
    assert "reports:" not in capsys.readouterr().err
    _resume(tmp_path / "store")
    assert "# What the kernels keep" not in capsys.readouterr().out


def test_the_seconds_of_a_run_are_those_of_all_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 10000, 10))
    monkeypatch.setattr(command.time, "monotonic", lambda: float(next(clock)))  # type: ignore[attr-defined]
    monkeypatch.setattr(harness.matrix, "run_matrix", _interrupted)
    store = tmp_path / "store"
    words = ["run", "--binding", "interval", "access/read", "--json", str(store)]
    with pytest.raises(KeyboardInterrupt):
        command._run(_parser().parse_args(words), Progress(io.StringIO()))
    first = read(store)
    assert first.end is None
    assert first.spent > 0
    monkeypatch.setattr(harness.matrix, "run_matrix", _passed)
    for _ in range(2):
        before = read(store).spent
        capsys.readouterr()
        _resume(store, "--html", str(tmp_path / "x.html"))
        run = read(store)
        assert run.end is not None
        assert run.end.seconds == run.spent > before
        assert capsys.readouterr().out.endswith(f" [{run.spent:.1f} s]\n")
        assert f'"seconds":{run.spent}' in (tmp_path / "x.html").read_text()
    assert jsonlines.render(run).count('"end"') == 1
    (tmp_path / "copy").write_text(jsonlines.render(run))
    assert read(tmp_path / "copy").spent == run.spent
    (tmp_path / "copy").write_text(jsonlines.render(first))
    assert read(tmp_path / "copy").spent == first.spent


def test_a_report_that_was_not_written_is_not_among_those_that_were(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "junit").mkdir()
    stage.run(junit=tmp_path / "junit", html=tmp_path / "x.html", ktap=tmp_path / "x.ktap")
    assert stage.said.getvalue().splitlines()[-1] == f"reports: {tmp_path}/x.html {tmp_path}/x.ktap"
