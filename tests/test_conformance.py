# SPDX-License-Identifier: GPL-2.0-only
"""What results say of clauses: one program that failed is enough, and nothing is proven by what did not run."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.compare import Verdict
from harness.conformance import clauses
from harness.conformance.clauses import Area, Clause, Contract
from harness.errors import ExitCode
from harness.model.allowed import RECORDED
from harness.model.rules import FEATURES
from harness.progress import Progress
from harness.report import forms, standings
from harness.report.conformance import Conformance, Standing, changes, conformance
from harness.report.results import End, Result, Run, Source, Target, read
from harness.report.terminal import Table
from tests.sample_runs import HOSTILE, interrupted_run, sample_run

OLD, NEW = ("debian:6.12", "plain"), ("debian:7.3", "plain")
_OWN, _OTHER = "own-readonly-write", "faulted-along"


def _clause(programs: tuple[str, ...] = ("x/one", "x/two"), *, bindings: tuple[str, ...] = ("interval",)) -> Clause:
    unproven = "" if programs else "there is no way"
    return Clause("RANGE-1", "It works.", (), bindings, programs, deviations=(_OWN,), unproven=unproven)


def _contract(*found: Clause) -> Contract:
    return Contract((Area("RANGE", "ranges", found),))


def _run(told: Mapping[str, tuple[Verdict, str]], kernels: tuple[tuple[str, str], ...] = (NEW,)) -> Run:
    """A run of the two programs and another, of which some have a verdict, the same on each kernel."""
    names = ("x/one", "x/two", "x/three")
    run = Run("2026-11-22T20:15:30+00:00", ("hmm-harness", "run"), "0", {name: Source("", "") for name in names},
              ("interval",), kernels)  # fmt: skip
    run.end = End("2026-11-22T20:18:12+00:00", 1.0, 0)
    for kernel, flavour in kernels:
        run.targets.append(Target(kernel, flavour))
        for name, (verdict, reason) in told.items():
            run.add(Result(name, kernel, flavour, "interval", verdict, reason, 0.1, f"replay {name}"))
    return run


PASS = (Verdict.PASS, "")
SKIP = (Verdict.SKIP, "test_hmm cannot `move` in step 6: its migrations are its own")
DEVIATION = (Verdict.DEVIATION, f"step 7: {_OWN}: {RECORDED[_OWN].summary}")
ANOTHER = (Verdict.DEVIATION, f"{_OTHER}: {RECORDED[_OTHER].summary}")


@pytest.mark.parametrize(
    ("told", "standing", "words"),
    [
        ({"x/one": PASS, "x/two": PASS}, Standing.PROVEN, ""),
        ({"x/one": PASS, "x/two": SKIP}, Standing.PROVEN, ""),
        ({"x/one": ANOTHER, "x/two": SKIP}, Standing.PROVEN, ""),
        (
            {"x/one": SKIP, "x/two": SKIP},
            Standing.NOT_APPLICABLE,
            "test_hmm cannot `move`: its migrations are its own",
        ),
        ({"x/one": PASS}, Standing.NOT_RUN, "x/two: not run"),
        ({}, Standing.NOT_RUN, "x/one: not run"),
        ({"x/one": PASS, "x/two": DEVIATION}, Standing.DEVIATING, f"x/two: {_OWN}: {RECORDED[_OWN].summary}"),
        ({"x/one": DEVIATION, "x/two": (Verdict.FAIL, "f")}, Standing.BROKEN, "x/two: FAIL: f"),
        ({"x/one": PASS, "x/two": (Verdict.CRASHED, "oops")}, Standing.BROKEN, "x/two: CRASHED: oops"),
        ({"x/one": (Verdict.FAIL, "f")}, Standing.BROKEN, "x/one: FAIL: f"),
        ({"x/one": PASS, "x/two": (Verdict.TIMEOUT, "late")}, Standing.OPEN, "x/two: TIMEOUT: late"),
        ({"x/one": (Verdict.ERROR, "e"), "x/two": SKIP}, Standing.OPEN, "x/one: ERROR: e"),
        ({"x/one": (Verdict.INCONCLUSIVE, "i")}, Standing.OPEN, "x/one: INCONCLUSIVE: i"),
        ({"x/one": PASS, "x/two": PASS, "x/three": (Verdict.FAIL, "f")}, Standing.PROVEN, ""),
    ],
)
def test_how_a_clause_stands(told: dict[str, tuple[Verdict, str]], standing: Standing, words: str) -> None:
    (column,) = conformance(_run(told), _contract(_clause()))
    finding = column.findings["RANGE-1"]
    assert finding.standing is standing
    assert finding.reason.startswith(words)
    assert bool(finding.reason) == bool(words)
    assert [case.program for case in finding.cases] == ["x/one", "x/two"]


def test_a_program_that_was_not_chosen_proves_nothing() -> None:
    (column,) = conformance(_run({"x/one": PASS}), _contract(_clause(("x/one", "x/four"))))
    assert column.findings["RANGE-1"].standing is Standing.NOT_RUN
    assert column.findings["RANGE-1"].reason == "x/four: it was not chosen"


def test_what_is_about_another_binding_or_has_no_program() -> None:
    run = _run({"x/one": PASS, "x/two": PASS})
    (column,) = conformance(run, _contract(_clause(bindings=("mirror", "test_hmm"))))
    assert column.findings["RANGE-1"].standing is Standing.NOT_APPLICABLE
    assert column.findings["RANGE-1"].reason == "it is about mirror and test_hmm"
    (column,) = conformance(run, _contract(_clause(())))
    assert column.findings["RANGE-1"].standing is Standing.UNPROVEN
    assert column.findings["RANGE-1"].reason == "there is no way"


def test_a_clause_does_not_hold_on_a_kernel_without_what_it_needs() -> None:
    clause = replace(_clause(), needs=("DEVMEM", "PIN or POISON"))
    run = _run({"x/one": PASS, "x/two": (Verdict.FAIL, "of another clause")})
    for features, standing, words in (
        (("DEVMEM", "PIN"), Standing.BROKEN, ""),
        (("DEVMEM", "POISON"), Standing.BROKEN, ""),
        (("PIN",), Standing.NOT_APPLICABLE, FEATURES["DEVMEM"]),
        (("DEVMEM",), Standing.NOT_APPLICABLE, FEATURES["POISON"]),
        ((), Standing.BROKEN, ""),  # nothing is known of the kernel
    ):
        run.targets = [Target(*NEW, features=features)]
        (column,) = conformance(run, _contract(clause))
        assert column.findings["RANGE-1"].standing is standing
        assert words in column.findings["RANGE-1"].reason


def test_a_run_for_some_clauses_is_about_these() -> None:
    run = sample_run()
    contract = clauses.load()
    assert conformance(run, contract)[0].findings.keys() == contract.clauses.keys()
    run.clauses = ("RANGE-29", "gone-since")
    assert conformance(run, contract)[0].findings.keys() == {"RANGE-29"}


def _two_kernels() -> list[Conformance]:
    run = _run({"x/one": PASS, "x/two": PASS}, (OLD, NEW))
    run.add(Result("x/two", *OLD, "interval", Verdict.FAIL, "step 3: stale", 0.1, "replay x/two"))
    return conformance(run, _contract(_clause()))


def test_what_changed_between_two_kernels() -> None:
    found = _two_kernels()
    (change,) = changes(found, OLD[0], NEW[0])
    assert (change.before.standing, change.after.standing) == (Standing.BROKEN, Standing.PROVEN)
    assert not changes(found, OLD[0], "debian:5.10")
    lines = list(standings.changed([change], OLD[0], NEW[0]))
    assert lines == [
        "from debian:6.12 to debian:7.3: 1 clause stands differently",
        "",
        "broken -> proven",
        "    debian:6.12: FAIL: step 3: stale",
        "    RANGE-1       It works. (interval)",
    ]
    assert len(list(standings.changed([], OLD[0], NEW[0]))) == 1


def test_few_clauses_have_a_line_each_and_many_are_counted() -> None:
    text = "\n".join(standings.summary(_two_kernels()))
    assert "debian:6.12 plain, interval: broken: x/two: FAIL: step 3: stale" in text
    assert "debian:7.3 plain, interval: proven by 2 programs" in text
    run = sample_run()
    found = conformance(run, clauses.load())
    text = "\n".join(standings.summary(found))
    heads = text.splitlines()[0].split("  ")
    assert heads[0].strip() == "clauses"
    assert "not run" in heads
    for each in found:
        assert sum(each.counts.values()) == len(each.findings)
    assert not list(standings.summary([]))


def test_a_run_for_clauses_ends_with_how_they_stand() -> None:
    run = _run({"request/write-alone": PASS})
    for names, wanted in (((), False), (("RANGE-30",), True)):
        run.clauses = names
        out = io.StringIO()
        Table(run, Progress(io.StringIO()), out=out, colour=False).foot(1.0)
        assert ("debian:7.3 plain, interval: proven by request/write-alone" in out.getvalue()) == wanted


def test_the_page_has_every_clause_and_what_is_not_well(tmp_path: Path) -> None:
    run = _run({"x/one": PASS})
    run.add(Result("request/write-alone", *NEW, "interval", Verdict.FAIL, HOSTILE[2], 0.1, "replay it"))
    forms.write(run, "conformance", tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert "## BROKEN RANGE-30" in page
    assert "replay it" in page
    assert "<b>" not in page.replace("\\<b\\>", "")
    for name in clauses.load().clauses:
        assert f"| {name} |" in page
    rows = [line for line in page.splitlines() if line.startswith("| RANGE-30 |")]
    assert rows[0].endswith("| broken |")


@pytest.mark.parametrize("run", [sample_run(hostile=True), interrupted_run()], ids=["hostile", "interrupted"])
def test_any_run_has_a_page(run: Run) -> None:
    page = standings.render(run)
    assert all(ord(letter) >= 32 for letter in page.replace("\n", ""))


def _report(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", "report", *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_tells_of_clauses_and_of_changes(tmp_path: Path) -> None:
    run = _run({"request/write-alone": PASS}, (OLD, NEW))
    run.clauses = ("RANGE-30",)
    run.add(Result("request/write-alone", *OLD, "interval", Verdict.FAIL, "stale", 0.1, "replay"))
    path = tmp_path / "results.jsonl"
    forms.write(run, "json", path)
    assert read(path).clauses == ("RANGE-30",)
    ended = _report(str(path), "--clauses")
    assert "debian:7.3 plain, interval: proven by request/write-alone" in ended.stdout
    ended = _report(str(path), "--changed", OLD[0], NEW[0])
    assert "broken -> proven\n    debian:6.12: FAIL: stale\n    RANGE-30 " in ended.stdout
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    for kernel, other in ((OLD, one), (NEW, two)):
        alone = _run({"request/write-alone": PASS if kernel is NEW else (Verdict.FAIL, "stale")}, (kernel,))
        alone.clauses = ("RANGE-30",)
        forms.write(alone, "json", other)
    assert _report(str(one), str(two), "--changed", OLD[0], NEW[0]).stdout == ended.stdout
    for arguments, words in (
        ([str(path), "--changed", OLD[0], "debian:4.4"], "no kernel 'debian:4.4'"),
        ([str(path), "--clauses", "--ktap", "-"], "two reports on standard output"),
        ([str(one), str(two), "--ktap", str(tmp_path / "x")], "of one run"),
        ([str(path)], "no report is asked for"),
    ):
        refused = _report(*arguments)
        assert refused.returncode == ExitCode.USAGE, arguments
        assert words in refused.stderr
