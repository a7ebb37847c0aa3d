# SPDX-License-Identifier: GPL-2.0-only
"""KTAP, read by the kernel's own kunit.py."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.compare import Verdict
from harness.report import ktap
from harness.report.results import Report, Run, Source
from tests import kunit
from tests.sample_runs import HOSTILE, interrupted_run, sample_run

_AS_KUNIT_SAYS = {Verdict.PASS: "PASS", Verdict.DEVIATION: "PASS", Verdict.SKIP: "SKIP"}  # the others: FAIL


@pytest.fixture(scope="session")
def reader(pytestconfig: pytest.Config) -> Path:
    assert pytestconfig.cache is not None
    return kunit.find(pytestconfig.cache)


def _leaves(tree: dict[str, Any], *above: str) -> dict[tuple[str, ...], str]:
    found = {(*above, case["name"]): case["status"] for case in tree["test_cases"]}
    for group in tree["sub_groups"]:
        found |= _leaves(group, *above, group["name"])
    return found


def _expected(run: Run) -> dict[tuple[str, ...], str]:
    return {
        (f"{each.kernel} {each.flavour}", each.binding, each.program): _AS_KUNIT_SAYS.get(each.status, "FAIL")
        for each in run.results
    }


@pytest.mark.parametrize("hostile", [False, True])
def test_kunit_sees_every_program_with_its_status(reader: Path, tmp_path: Path, hostile: bool) -> None:
    run = sample_run(flavours=("plain", "debug"), hostile=hostile)
    said, tree = kunit.parse(reader, ktap.render(run), tmp_path)
    assert _leaves(tree) == _expected(run)
    counts = Counter(_expected(run).values())
    assert (
        f"Ran {run.planned} tests: passed: {counts['PASS']}, failed: {counts['FAIL']}, skipped: {counts['SKIP']}"
        in said
    )
    assert "[ERROR]" not in said


def test_any_hostile_text_anywhere_is_read_as_what_it_is(reader: Path, tmp_path: Path) -> None:
    run = sample_run(kernels=("debian:6.1",), programs=len(HOSTILE) * len(Verdict), bindings=("interval",))
    texts = [(text, status) for text in HOSTILE for status in Verdict]
    run.results = [
        replace(each, status=status, reason=text, log=(text,), details=(text,), step=0, reports=(Report(text, text),))
        for each, (text, status) in zip(run.results, texts, strict=True)
    ]
    said, tree = kunit.parse(reader, ktap.render(run), tmp_path)
    assert _leaves(tree) == _expected(run)
    assert "[ERROR]" not in said


def test_names_that_mean_something_to_the_format(reader: Path, tmp_path: Path) -> None:
    names = ["interval", "a # SKIP b", "- dash", "line\nbreak", "x", "x#", "debian:6.1 plain", "ok 1 x", "  ", "1..3"]
    run = sample_run(kernels=("debian:6.1",), bindings=("interval",), programs=len(names))
    run.results = [replace(each, program=name) for each, name in zip(run.results, names, strict=True)]
    run.programs = dict.fromkeys(names, Source("", ""))
    said, tree = kunit.parse(reader, ktap.render(run), tmp_path)
    assert [name for *_, name in _leaves(tree)] == [
        *("interval (2)", "a SKIP b", "dash", "line\\x0abreak", "x", "x (2)", "debian:6.1 plain", "ok 1 x", "?"),
        "1..3",
    ]
    assert "[ERROR]" not in said


def test_what_has_not_run_is_a_failure_and_not_absent(reader: Path, tmp_path: Path) -> None:
    run = interrupted_run()
    said, tree = kunit.parse(reader, ktap.render(run), tmp_path)
    found = _leaves(tree)
    assert len(found) == run.planned
    done = _expected(run)
    assert {name: found[name] for name in done} == done
    assert {status for name, status in found.items() if name not in done} == {"FAIL"}
    assert "[ERROR]" not in said
    report = ktap.render(run)
    assert report.count("# ERROR there was no kernel to run it on: it did not build") == 20
    assert report.count("# ERROR not run: the run was interrupted") == 7


def test_nesting_plans_and_results() -> None:
    report = ktap.render(sample_run(kernels=("debian:6.1",), programs=3))
    lines = [line for line in report.splitlines() if not line.lstrip().startswith("# ") or "# Subtest" in line]
    assert lines == [
        "KTAP version 1",
        "1..1",
        "  KTAP version 1",
        "  # Subtest: debian:6.1 plain",
        "  1..2",
        "    KTAP version 1",
        "    # Subtest: interval",
        "    1..3",
        "    ok 1 access/dontneed",
        "    ok 2 access/fork",
        "    ok 3 access/protect",
        "  ok 1 interval",
        "    KTAP version 1",
        "    # Subtest: test_hmm",
        "    1..3",
        "    ok 1 access/dontneed",
        "    ok 2 access/fork",
        "    ok 3 access/protect",
        "  ok 2 test_hmm",
        "ok 1 debian:6.1 plain",
    ]


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (Verdict.PASS, "ok 1 access/dontneed"),
        (Verdict.DEVIATION, "ok 1 access/dontneed # XFAIL why"),
        (Verdict.SKIP, "ok 1 access/dontneed # SKIP why"),
        (Verdict.FAIL, "not ok 1 access/dontneed"),
        (Verdict.CRASHED, "not ok 1 access/dontneed"),
        (Verdict.TIMEOUT, "not ok 1 access/dontneed # TIMEOUT why"),
        (Verdict.ERROR, "not ok 1 access/dontneed # ERROR why"),
        (Verdict.INCONCLUSIVE, "not ok 1 access/dontneed # ERROR why"),
    ],
)
def test_what_a_status_becomes(status: Verdict, line: str) -> None:
    run = sample_run(kernels=("debian:6.1",), programs=1, bindings=("interval",))
    run.results = [replace(run.results[0], status=status, reason="why")]
    lines = ktap.render(run).splitlines()
    assert f"    {line}" in lines
    parent = {Verdict.SKIP: "ok 1 interval # SKIP every test of it was skipped"}.get(
        status, f"{line.partition(' 1')[0]} 1 interval"
    )
    assert f"  {parent}" in lines


def test_diagnostics_come_before_the_result_line() -> None:
    run = sample_run()
    lines = [line.strip() for line in ktap.render(run).splitlines()]
    end = lines.index(next(line for line in lines if line.startswith("not ok")))
    start = max(index for index in range(end) if re.match(r"(not )?ok ", lines[index]))
    text = "\n".join(lines[start + 1 : end])
    assert "# FAIL: step 7: buf[1]: saw rw STALE, allowed is -" in text
    assert "# step 7: buf[2]: saw rw STALE, allowed is -" in text
    assert "# kernel log: [   20.500000] hmm_harness: line 5 of the log" in text
    assert text.splitlines()[-1].startswith("# replay: hmm-harness run --kernel debian:6.1")


def test_of_very_many_the_last_have_no_diagnostics(
    reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ktap, "_MOST_DIAGNOSTICS", 100_000)
    monkeypatch.setattr(ktap, "_MOST_REASONS", 50_000)
    run = sample_run(kernels=("debian:6.1",), programs=400, bindings=("interval",))
    text = "\U0001f4a5\x1b" * 150
    statuses = [Verdict.CRASHED, Verdict.ERROR]
    run.results = [
        replace(each, status=statuses[number % 2], reason=text, log=(text,) * 30)
        for number, each in enumerate(run.results)
    ]
    report = ktap.render(run)
    assert 150_000 < len(report.encode()) < 150_000 + 400 * 150
    assert report.count("# (cut: the JSON and HTML reports have the rest)") > 300
    assert report.count("kernel log: ") > 50
    assert "# ERROR \U0001f4a5" in report
    assert report.count("# ERROR\n") > 100
    _, tree = kunit.parse(reader, report, tmp_path)
    assert _leaves(tree) == _expected(run)
