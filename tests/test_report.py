# SPDX-License-Identifier: GPL-2.0-only
"""Results, the table and the explanation of a divergence."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest

from harness.compare import Verdict, compare
from harness.errors import ExitCode, HarnessError, UsageError
from harness.model.rules import RULES
from harness.program.observations import NO_MARKS, Entry, Mark, Observation, Status
from harness.program.text import parse
from harness.progress import Progress
from harness.report.explain import explain, inquest, page_tables
from harness.report.results import (
    End,
    PageTables,
    Report,
    Result,
    Run,
    Source,
    Store,
    Target,
    exit_code,
    read,
)
from harness.report.terminal import Table

RW = Entry(Mark.VALID | Mark.WRITE)
PROGRAM = parse(
    "# A promise.\na: map buf anon 4 rw\nd0: bind a\nd0: write buf 10\na: protect buf r\n"
    "d0: write buf 50\na: read buf",
    file="x.hmm",
    name="x",
)
DONE = Observation(Status.DONE)
BROKEN = [DONE, DONE, Observation(Status.DONE, 0, (0,) * 4), DONE, Observation(Status.DONE, 0, (0,) * 4), DONE]


def _run(programs: list[str], kernels: tuple[str, ...] = ("debian:6.1",)) -> Run:
    return Run(
        started="2026-01-01T00:00:00+00:00",
        command=("hmm-harness", "run"),
        version="0",
        programs={name: Source("A promise.", "a: map buf anon 1 rw\n") for name in programs},
        bindings=("interval", "test_hmm"),
        kernels=tuple((kernel, "plain") for kernel in kernels),
    )


def _result(status: Verdict, program: str = "x", binding: str = "interval") -> Result:
    return Result(program, "debian:6.1", "plain", binding, status, "why", 0.25, "hmm-harness run x", 1, ("line",))


def test_an_explanation_has_what_a_person_needs() -> None:
    comparison = compare(PROGRAM, RULES["interval"], BROKEN)
    assert comparison.verdict is Verdict.FAIL
    assert comparison.divergence is not None
    assert comparison.divergence.step == 4
    found = inquest(PROGRAM, comparison.divergence.step)
    observations = [
        *BROKEN[:5],
        Observation(Status.DONE, 0, (Entry(Mark.VALID),) * 4),
        Observation(Status.DONE, 0, (Entry(Mark.VALID | Mark.WRITE | Mark.STALE),) * 3 + (Entry(NO_MARKS),)),
    ]
    tables = page_tables(found, RULES["interval"], observations)
    text = "\n".join(
        explain(PROGRAM, comparison, title="FAIL x", log=["kernel: hello"], replay="hmm-harness run x", tables=tables)
    )
    assert ">   5  d0: write buf 50" in text
    assert "saw success, allowed is EPERM" in text
    assert "CPU: model" in text
    assert "d0: driver" in text
    assert "[0:3]" in text
    assert "STALE" in text
    assert "kernel: hello" in text
    assert text.endswith("replay: hmm-harness run x")


def test_page_by_page_differences_are_named() -> None:
    program = parse("a: map buf anon 2 rw\na: write buf 7\na: read buf[1]", file="x")
    observations = [DONE, Observation(Status.DONE, 0, (0, 0)), Observation(Status.DONE, 0, (7,))]
    comparison = compare(program, RULES["interval"], observations)
    assert comparison.reason == "step 3: buf[1]: saw 7, allowed is 8"


def test_what_the_store_wrote_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    run = _run(["x"])
    with Store(path) as store:
        store.begin(run)
        run.targets.append(Target("debian:6.1", "plain", release="6.1.192", features=("DEVMEM",)))
        store.target(run.targets[0])
        for status in Verdict:
            run.results.append(
                replace(
                    _result(status, f"x{status}"),
                    step=3,
                    tables=(PageTables("d0", "buf", ("buf", "CPU: model"), (("[0:2]", "rw"), ("[2]", "-"))),),
                    reports=(Report("KASAN", "use-after-free", ("a", "b")),),
                    identity=f"id {status}",
                )
            )
            store.add(run.results[-1])
            assert path.read_text().endswith("}\n")
        assert read(path) == run
        run.end = End("2026-01-01T00:00:01+00:00", 1.0, 5)
        store.end(run.end)
    assert read(path) == run
    with path.open("a") as file:
        file.write('{"type": "result", "progr')  # killed while it wrote
    assert read(path) == run
    again = replace(run.results[0], reason="done again")
    with Store(path, resume=True) as store:
        store.add(again)
    assert read(path).results == [again, *run.results[1:]]
    assert read(path).end is None  # it went on


@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_do_not_write_one_store(tmp_path: Path, resume: bool) -> None:
    path = tmp_path / "results.jsonl"
    run = _run(["x"])
    with Store(path) as store:
        store.begin(run)
        with pytest.raises(HarnessError, match="another run"), Store(path, resume=resume):
            raise AssertionError("both have it")
    assert read(path) == run
    with Store(path, resume=resume) as store:
        store.begin(run)


@pytest.mark.parametrize(
    "text", ["", "hello\n", "{}\n", '{"type": "result"}\n', '{"type": "run", "format": 0}\n', "[]\n"]
)
def test_what_is_no_store_is_not_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    with pytest.raises(UsageError):
        read(path)


def test_results_are_in_the_order_of_the_plan() -> None:
    run = _run(["x", "y"], ("debian:7.3", "debian:6.1"))
    made = [
        replace(_result(Verdict.PASS, program, binding), kernel=kernel)
        for kernel in ("debian:7.3", "debian:6.1")
        for program in ("x", "y")
        for binding in ("interval", "test_hmm")
    ]
    run.results += reversed(made)
    assert run.in_order() == made
    assert run.planned == len(made)


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot write results"), Store(tmp_path / "no" / "such"):
        pass
    with Store(Path("/dev/full")) as store, pytest.raises(HarnessError, match="No space left"):
        store.add(_result(Verdict.PASS))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(HarnessError, match="it is a pipe"), Store(pipe):
        pass
    os.close(reader)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ({Verdict.PASS, Verdict.SKIP, Verdict.DEVIATION}, ExitCode.PASS),
        ({Verdict.DEVIATION}, ExitCode.PASS),
        ({Verdict.SKIP}, ExitCode.SKIPPED),
        (set(), ExitCode.SKIPPED),
        ({Verdict.PASS, Verdict.FAIL, Verdict.ERROR}, ExitCode.FAIL),
        ({Verdict.PASS, Verdict.FAIL, Verdict.CRASHED}, ExitCode.CRASH),
        ({Verdict.PASS, Verdict.TIMEOUT, Verdict.ERROR}, ExitCode.TIMEOUT),
        ({Verdict.PASS, Verdict.ERROR}, ExitCode.INFRASTRUCTURE),
        ({Verdict.PASS, Verdict.INCONCLUSIVE}, ExitCode.INFRASTRUCTURE),
    ],
)
def test_exit_codes(statuses: set[Verdict], code: ExitCode) -> None:
    assert exit_code(statuses) is code


def test_the_table_ends_with_counts_and_shows_what_failed() -> None:
    stream = io.StringIO()
    run = _run(["x", "y"])
    table = Table(run, Progress(io.StringIO()), out=stream, colour=False)
    table.target(Target("debian:6.1", "plain", banner="banner"))
    for program in ("x", "y"):
        for binding in ("interval", "test_hmm"):
            status = Verdict.SKIP if binding == "test_hmm" else Verdict.FAIL if program == "y" else Verdict.PASS
            run.results.append(_result(status, program, binding))
            table.add(run.results[-1])
    run.results.pop()
    table.foot(1.0)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "banner"
    assert lines[2].split() == ["x", "PASS", "SKIP"]
    assert "line" in lines
    assert "SKIP: why" in lines
    assert lines[-1] == (
        "2 programs x 2 bindings on debian:6.1 (plain): 1 passed, 1 failed, 1 skipped, 1 NOT RUN [1.0 s]"
    )


def test_the_table_of_a_run_that_is_resumed_has_what_was_there() -> None:
    stream = io.StringIO()
    run = _run(["x", "y"], ("debian:6.1",))
    run.results = [_result(Verdict.PASS, "x", binding) for binding in ("interval", "test_hmm")]
    run.results.append(_result(Verdict.PASS, "y", "interval"))
    table = Table(run, Progress(io.StringIO()), out=stream, colour=False)
    table.target(Target("debian:6.1", "plain", banner="banner"))
    run.add(_result(Verdict.SKIP, "y", "test_hmm"))
    table.add(run.results[-1])
    assert stream.getvalue().splitlines()[2].split() == ["y", "PASS", "SKIP"]


def test_the_table_has_nothing_of_another_kernel_of_that_name() -> None:
    stream = io.StringIO()
    run = _run(["x"])
    before = Target("debian:6.1", "plain", key="before")
    run.targets = [before]
    run.results = [_result(Verdict.PASS, "x", binding) for binding in ("interval", "test_hmm")]
    table = Table(run, Progress(io.StringIO()), out=stream, colour=False)
    run.reach(replace(before, release="6.1.192"))
    assert len(run.results) == 2
    run.reach(replace(before, key="now", banner="banner"))
    table.target(run.targets[-1])
    for binding in ("interval", "test_hmm"):
        run.add(_result(Verdict.FAIL, "x", binding))
        table.add(run.results[-1])
    assert [line.split() for line in stream.getvalue().splitlines()[2:]] == [["x", "FAIL", "FAIL"]]


def test_a_result_that_is_replaced_is_counted_once() -> None:
    """The kernel's late words on a program, or one that is run again when a run is resumed."""
    stream = io.StringIO()
    run = _run(["x", "y"], ("debian:6.1", "debian:7.3"))
    for program in ("x", "y"):
        run.add(_result(Verdict.PASS, program, "interval"))
    table = Table(run, Progress(io.StringIO()), out=stream, colour=False)
    table.target(Target("debian:6.1", "plain", banner="banner"))
    run.add(_result(Verdict.CRASHED, "x", "interval"))
    table.add(run.results[-1])
    table.foot(1.0)
    assert stream.getvalue().splitlines()[1:3] == ["CRASHED x (interval): why", "  interval   1 passed, 1 crashed"]


def test_what_a_kernel_says_does_not_act_on_the_terminal() -> None:
    stream = io.StringIO()
    run = _run(["x"])
    table = Table(run, Progress(io.StringIO()), out=stream, colour=True)
    table.target(Target("debian:6.1", "plain", banner="Linux \x1b[2J6.1"))
    for binding in ("interval", "test_hmm"):
        result = _result(Verdict.CRASHED if binding == "interval" else Verdict.SKIP, "x", binding)
        run.results.append(replace(result, reason="\x1b]0;why\x07", explanation=("CRASHED x", "    \x1b[2Jcleared")))
        table.add(run.results[-1])
    table.foot(1.0)
    said = stream.getvalue()
    assert said.splitlines()[0] == "Linux \\x1b[2J6.1"
    assert "\n    \\x1b[2Jcleared\n" in said
    assert "\nSKIP: \\x1b]0;why\\x07\n" in said
    for ours in ("\x1b[31mCRASHED     \x1b[0m", "\x1b[2mSKIP        \x1b[0m"):
        assert ours in said
        said = said.replace(ours, "")
    assert "\x1b" not in said


def test_several_kernels_have_a_line_per_binding() -> None:
    stream = io.StringIO()
    run = _run(["x"], ("debian:6.1", "debian:7.3"))
    table = Table(run, Progress(io.StringIO()), out=stream, colour=False)
    for kernel, status in (("debian:6.1", Verdict.PASS), ("debian:7.3", Verdict.ERROR)):
        table.target(Target(kernel, "plain", banner=f"{kernel} runs"))
        for binding in ("interval", "test_hmm"):
            run.results.append(replace(_result(status, "x", binding), kernel=kernel))
            table.add(run.results[-1])
    table.foot(1.0)
    lines = stream.getvalue().splitlines()
    assert lines[:8] == [
        "debian:6.1 runs",
        "  interval   1 passed",
        "  test_hmm   1 passed",
        "debian:7.3 runs",
        "ERROR x (interval): why",
        "ERROR x (test_hmm): why",
        "  interval   1 error",
        "  test_hmm   1 error",
    ]
    assert lines.count("line") == 1  # what all of them say is said once
    assert lines[-1] == "1 program x 2 bindings on 2 kernels: 2 passed, 2 errors [1.0 s]"


def test_a_reason_is_said_once_with_the_programs_and_the_kernels_that_are_not_all() -> None:
    stream = io.StringIO()
    run = _run(["x", "y"], ("debian:6.1", "debian:7.3"))
    for kernel, program, step in (("debian:6.1", "x", 3), ("debian:7.3", "x", 3), ("debian:6.1", "y", 4)):
        skip = _result(Verdict.SKIP, program, "mirror")
        run.results.append(replace(skip, kernel=kernel, reason=f"mirror cannot `request` in step {step}: too old"))
    Table(run, Progress(io.StringIO()), out=stream, colour=False).foot(1.0)
    assert stream.getvalue().splitlines()[3:6] == [
        "SKIP: mirror cannot `request`: too old",
        "    x (mirror)",
        "    y (mirror) on debian:6.1",
    ]
