# SPDX-License-Identifier: GPL-2.0-only
"""Results, the table and the explanation of a divergence."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from harness.compare import Verdict, compare
from harness.errors import ExitCode, HarnessError
from harness.model.rules import RULES
from harness.program.observations import NO_MARKS, Entry, Mark, Observation, Status
from harness.program.text import parse
from harness.progress import Progress
from harness.report.explain import explain, inquest, page_tables
from harness.report.results import Result, Store, exit_code
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


def test_the_store_writes_a_line_for_each_result(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Store(path) as store:
        for status in Verdict:
            store.add(_result(status))
            assert path.read_text().endswith("}\n")
    results = [json.loads(line) for line in path.read_text().splitlines()]
    assert [result["status"] for result in results] == [status.value for status in Verdict]
    wanted = {"program", "kernel", "flavour", "binding", "status", "reason", "seconds", "replay"}
    assert wanted <= results[0].keys()


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
    table = Table(["x", "y"], ["interval", "test_hmm"], Progress(io.StringIO()), out=stream, colour=False)
    table.head("banner")
    for program in ("x", "y"):
        table.add(_result(Verdict.FAIL if program == "y" else Verdict.PASS, program))
        table.add(_result(Verdict.SKIP, program, "test_hmm"))
    table.foot("2 programs", 5, 1.0)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "banner"
    assert lines[2].split() == ["x", "PASS", "SKIP"]
    assert "line" in lines
    assert "SKIP: why" in lines
    assert lines[-1] == "2 programs: 1 passed, 1 failed, 2 skipped, 1 NOT RUN [1.0 s]"
