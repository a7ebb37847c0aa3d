# SPDX-License-Identifier: GPL-2.0-only
"""A run of many programs on a terminal and in a log: the good is counted, the rest is told, all on a screen."""

from __future__ import annotations

import io
import math
import os
import termios
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from harness.compare import Verdict
from harness.defaults import PEER
from harness.model.allowed import RECORDED
from harness.progress import Progress
from harness.report.brief import brief
from harness.report.live import Live
from harness.report.results import Result, Run, Source, Target
from harness.report.terminal import FEW, Table
from tests.sample_runs import sample_run
from tests.test_report_peer import peer_run

KERNELS = (("debian:6.1", "plain"), ("debian:7.3", "plain"))
MANY = FEW + 1
REASONS = 30


def _reason(status: Verdict, number: int) -> str:
    if status is Verdict.SKIP:
        return f"mirror cannot `request` in step {number}: reason {number % REASONS} " + "of many words " * 20
    names = list(RECORDED)
    name = names[number % len(names)]
    return f"{name}: {RECORDED[name].summary} ({RECORDED[name].source})" if status is Verdict.DEVIATION else ""


def _run(statuses: Sequence[Verdict], kernels: Sequence[tuple[str, str]] = KERNELS[:1]) -> Run:
    """A run of a program for each of `statuses` on each kernel."""
    programs = [f"room/program-{number}" for number in range(len(statuses))]
    run = Run(
        started="2026-01-01T00:00:00+00:00",
        command=("hmm-harness", "run"),
        version="0",
        programs={program: Source("", "a: exit\n") for program in programs},
        bindings=("interval",),
        kernels=tuple(kernels),
        targets=[Target(*kernel, banner=f"{kernel[0]} runs") for kernel in kernels],
    )
    for kernel in kernels:
        for number, (program, status) in enumerate(zip(programs, statuses, strict=True)):
            why = _reason(status, number)
            told = (f"{status} {program}", "    all of it") if status is Verdict.FAIL else ()
            run.add(Result(program, *kernel, "interval", status, why, 0.1, "replay", explanation=told))
    return run


GREEN = [Verdict.SKIP] * 200 + [Verdict.DEVIATION] * (2 * len(RECORDED)) + [Verdict.PASS] * 200


def _told(run: Run, out: io.TextIOBase) -> None:
    """Prints `run` on `out` as it goes."""
    results, run.results = run.results, []
    table = Table(run, Progress(io.StringIO()), out=out, colour=False)  # type: ignore[arg-type]
    for target in run.targets:
        table.target(target)
        for result in results:
            if result.kernel == target.kernel:
                run.add(result)
                table.add(result)
    table.foot(1.0)


def _lines(run: Run) -> list[str]:
    out = io.StringIO()
    _told(run, out)
    return out.getvalue().splitlines()


def _on_terminal(rows: int, columns: int, show: Callable[[io.TextIOBase], None]) -> list[str]:
    """The lines that `show` wrote to a terminal."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (rows, columns))

    class Terminal(io.StringIO):
        def fileno(self) -> int:
            return theirs

    out = Terminal()
    show(out)
    os.close(ours)
    os.close(theirs)
    return out.getvalue().splitlines()


@pytest.mark.parametrize("columns", [80, 160])
@pytest.mark.parametrize("rows", [24, 40, 60])
def test_the_end_of_a_green_run_is_on_one_screen(rows: int, columns: int) -> None:
    lines = _on_terminal(rows, columns, lambda out: _told(_run(GREEN), out))
    assert lines[0] == "debian:6.1 runs"
    assert lines[1:2] == [""]  # no row of any program
    height = sum(max(1, math.ceil(len(line) / columns)) for line in lines[1:])
    assert rows - 8 <= height <= rows - 3  # the reports' line and the prompt
    text = "\n".join(lines)
    assert "room/" not in text
    assert "SKIP: 200 results, 30 reasons" in text
    assert f"DEVIATION: {2 * len(RECORDED)} results" in text
    assert "`hmm-harness report --table`" in text
    assert lines[-1].startswith(f"{len(GREEN)} programs x 1 binding on debian:6.1 (plain): 200 passed, 200 skipped")


def test_what_has_no_room_is_counted() -> None:
    run = _run(GREEN)
    lines = list(brief(run, run.results, width=400, room=12))
    assert len(lines) == 12
    counts = [int(line[:6]) for line in lines if line[:6].strip().isdigit()]
    assert sum(counts) == 200 + 2 * len(RECORDED)
    assert lines[3][:6].strip() == str(200 - 7)
    assert "for 29 more reasons" in lines[3]
    assert f"of {len(RECORDED) - 5} more: " in lines[-1]
    told = [line[8:].partition(":")[0] for line in lines[6:11]] + lines[-1].partition("more: ")[2].split(", ")
    assert sorted(told) == sorted(RECORDED)
    assert len(list(brief(run, run.results, width=80, room=0))) == 8  # not less than that there is something


def test_a_log_has_all_reasons_and_no_program_that_is_good() -> None:
    lines = _lines(_run(GREEN))
    text = "\n".join(lines)
    assert "room/" not in text
    assert all(f": reason {number} " in text for number in range(REASONS))
    assert all(f"  {name}: " in text for name in RECORDED)
    assert all(len(line) <= 118 for line in lines)


def test_what_is_not_good_has_a_line_when_it_comes_and_all_its_words_at_the_end() -> None:
    run = _run([Verdict.PASS] * MANY + [Verdict.FAIL])
    run.results[-1] = replace(run.results[-1], reason="step 6: \x1b[2J" + "x" * 200)
    lines = _lines(run)
    assert lines[1].startswith(f"FAIL room/program-{MANY} (interval): step 6: \\x1b[2Jx")
    assert lines[1].endswith("x...")
    assert len(lines[1]) == 118
    assert lines[2:5] == ["", f"FAIL room/program-{MANY}", "    all of it"]
    assert lines[-1].endswith(f"{MANY} passed, 1 failed [1.0 s]")
    assert "SKIP" not in "\n".join(lines)


def test_a_few_programs_have_rows_and_names() -> None:
    for count in (FEW, FEW + 1):
        lines = _lines(_run([Verdict.PASS] * (count - 1) + [Verdict.SKIP]))
        assert (lines[1].split() == ["program", "interval"]) == (count == FEW)
        assert ("    room/program-19 (interval)" in lines) == (count == FEW)


def test_cases_that_are_not_known_yet_are_not_few() -> None:
    run = replace(peer_run(alone=True), programs={}, results=[])
    out = io.StringIO()
    table = Table(run, Progress(io.StringIO()), out=out, colour=False)
    table.target(run.targets[0])
    table.add(Result(f"{PEER}/x", *run.kernels[0], PEER, Verdict.PASS, "", 0.1, ""))
    assert out.getvalue().splitlines() == [run.targets[0].banner]


def test_a_deviation_of_some_kernels_names_them() -> None:
    run = _run([Verdict.DEVIATION] * (2 * len(RECORDED)), KERNELS)
    name, other = list(RECORDED)[:2]
    run.results = [each for each in run.results if each.kernel == "debian:7.3" or other not in each.reason]
    words = [line.strip() for line in brief(run, run.results, width=400, room=None)]
    assert f"4  {name}: {RECORDED[name].summary}" in words
    assert f"2  {other} (debian:7.3): {RECORDED[other].summary}" in words


def test_a_result_with_two_deviations_counts_for_both_and_one_of_another_version_stands_as_it_is() -> None:
    run = _run([Verdict.DEVIATION] * 2)
    both = "; ".join(_reason(Verdict.DEVIATION, number) for number in range(2))
    first, second = run.results
    run.results = [replace(first, reason=both), replace(second, reason="gone: it was so (mm/hmm.c)")]
    lines = list(brief(run, run.results, width=400, room=None))
    assert lines[1].startswith("DEVIATION: 2 results;")
    assert [line.split()[:2] for line in lines[2:]] == [["1", f"{name}:"] for name in [*list(RECORDED)[:2], "gone"]]


@pytest.mark.parametrize(
    "run", [_run(GREEN, KERNELS), sample_run(), peer_run()], ids=["green", "sample", "hmm-tests"]
)
def test_the_whole_table_has_a_row_for_each_program_of_each_kernel(run: Run) -> None:
    out = io.StringIO()
    table = Table(run, Progress(io.StringIO()), out=out, colour=False, whole=True)
    table.all()
    lines = out.getvalue().splitlines()
    for program in run.programs:
        rows = [line for line in lines if line.split()[:1] == [program]]
        assert [word for row in rows for word in row.split()[1:]] == [
            str(each.status)
            for kernel in run.kernels
            for binding in run.bindings
            for each in run.results
            if (each.kernel, each.flavour, each.program, each.binding) == (*kernel, program, binding)
        ]


def test_the_overview_says_how_far_each_binding_is() -> None:
    run = sample_run(programs=10)
    results, targets = run.results, run.targets
    run.results, run.targets = [], []
    live = Live(run)
    assert live() == ["0 of 60 results [0 s]"]
    run.targets = targets[:1]
    run.results = results[:5]
    first, *others = live()
    assert first.startswith("debian:6.1 plain, 5 of 60 results: 5 passed [")
    assert others == ["  interval   3 of 10: 3 passed", "  test_hmm   2 of 10: 2 passed"]
    run.targets = targets[:2]
    first, *others = live()
    assert first.startswith("debian:6.12 plain, 5 of 60 results: 5 passed [")
    assert others == ["  interval   0 of 10", "  test_hmm   0 of 10"]
