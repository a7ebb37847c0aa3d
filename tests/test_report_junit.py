# SPDX-License-Identifier: GPL-2.0-only
"""JUnit, read by junitparser and, with anything in it, by an XML parser."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml, Skipped

from harness.compare import Verdict
from harness.report import junit
from harness.report.results import Report, Run
from tests.sample_runs import interrupted_run, sample_run


def _parsed(run: Run) -> JUnitXml:
    return JUnitXml.fromstring(junit.render(run).encode())


def test_a_suite_for_each_binding_of_each_kernel() -> None:
    run = sample_run(flavours=("plain", "debug"))
    suites = list(_parsed(run))
    assert [suite.name for suite in suites] == [
        f"{kernel} {flavour} {binding}" for kernel, flavour in run.kernels for binding in run.bindings
    ]
    assert all([case.name for case in suite] == list(run.programs) for suite in suites)


def test_what_a_status_becomes() -> None:
    run = sample_run()
    expected = {
        Verdict.PASS: None,
        Verdict.DEVIATION: None,
        Verdict.SKIP: Skipped,
        Verdict.FAIL: Failure,
        Verdict.CRASHED: Failure,
        Verdict.TIMEOUT: Error,
        Verdict.ERROR: Error,
        Verdict.INCONCLUSIVE: Error,
    }
    statuses = {(f"{each.kernel} {each.flavour} {each.binding}", each.program): each.status for each in run.results}
    assert set(statuses.values()) == set(Verdict)
    for suite in _parsed(run):
        for case in suite:
            status = statuses[suite.name, case.name]
            assert [type(outcome) for outcome in case.result] == ([expected[status]] if expected[status] else [])
            if status is Verdict.DEVIATION:
                assert case.system_out.startswith("DEVIATION: own-readonly-write")
            if expected[status] in (Failure, Error):
                assert case.result[0].type == status
                assert "replay: hmm-harness run --kernel" in case.system_out


def test_counts_agree_with_the_cases() -> None:
    report = _parsed(sample_run())
    declared = [(suite.tests, suite.failures, suite.errors, suite.skipped) for suite in report]
    total = (report.tests, report.failures, report.errors, report.skipped)
    assert tuple(map(sum, zip(*declared, strict=True))) == total
    report.update_statistics()  # type: ignore[no-untyped-call]
    assert declared == [(suite.tests, suite.failures, suite.errors, suite.skipped) for suite in report]
    assert total == (report.tests, report.failures, report.errors, report.skipped)


def test_what_has_not_run_is_an_error() -> None:
    run = interrupted_run()
    report = _parsed(run)
    assert report.tests == run.planned
    lost = [case for suite in report for case in suite if case.result and case.result[0].type == "NOT RUN"]
    assert len(lost) == run.planned - len(run.results)
    assert all(isinstance(case.result[0], Error) for case in lost)
    messages = {case.result[0].message for case in lost}
    assert "not run: the run was interrupted" in messages
    assert any("it did not build: drivers/base/node.c:12" in message for message in messages)


def test_provenance_is_in_the_properties() -> None:
    run = sample_run()
    properties = {each.name: each.value for each in next(iter(_parsed(run))).properties()}  # type: ignore[no-untyped-call]
    assert properties["release"] == "6.1.94"
    assert properties["key"] == run.targets[0].key
    assert properties["qemu"] == "7.2.22"
    assert properties["accelerator"].startswith("TCG")
    assert properties["command"].startswith("hmm-harness run --kernel")
    assert properties["started"] == run.started
    assert properties["harness"] == run.version
    assert "interrupted" not in properties
    assert "migrate_vma" in properties["features"].split()


def test_a_dot_of_a_version_is_no_package() -> None:
    assert {case.classname for suite in _parsed(sample_run()) for case in suite} >= {"debian:6_1 plain.interval"}


def test_hostile_texts_leave_the_structure_alone() -> None:
    plain = _parsed(sample_run())
    hostile = _parsed(sample_run(hostile=True))
    for one, other in zip(plain, hostile, strict=True):
        assert (one.tests, one.failures, one.errors, one.skipped) == (
            other.tests,
            other.failures,
            other.errors,
            other.skipped,
        )
        assert [case.name for case in one] == [case.name for case in other]


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(), max_size=200), status=st.sampled_from(sorted(Verdict)))
def test_any_text_is_well_formed_and_survives_but_for_what_xml_forbids(text: str, status: Verdict) -> None:
    run = sample_run(kernels=("debian:6.1",), programs=1, bindings=("interval",))
    run.results = [
        replace(
            run.results[0],
            status=status,
            reason=text,
            explanation=(text,),
            log=(text,),
            replay=text,
            reports=(Report(text, text, (text,)),),
        )
    ]
    run.command = (text,)
    root = ET.fromstring(junit.render(run).encode())
    case = root.find("testsuite/testcase")
    assert case is not None
    error = case.find("system-err")
    if error is not None:
        assert (error.text or "") == junit.xml_text(text)


@pytest.mark.parametrize(("lines", "cut"), [(10, False), (100_000, True)])
def test_a_long_log_is_cut_and_says_so(lines: int, cut: bool) -> None:
    run = sample_run(kernels=("debian:6.1",), programs=1, bindings=("interval",))
    log = tuple(f"line {number}" for number in range(lines))
    run.results = [replace(run.results[0], status=Verdict.CRASHED, log=log)]
    text = next(iter(next(iter(_parsed(run))))).system_err
    assert text.endswith(log[-1])
    assert ("characters before this were cut" in text) == cut
    assert len(text) < 20_000


def test_a_report_of_thousands_of_crashes_stays_of_a_size_that_ci_systems_read() -> None:
    run = sample_run(kernels=("debian:6.1",), programs=2000, bindings=("interval",))
    log = ("x" * 30_000,)
    run.results = [replace(each, status=Verdict.CRASHED, log=log, explanation=log) for each in run.results]
    report = junit.render(run)
    assert len(report) < 30_000_000
    assert len(list(ET.fromstring(report).iter("testcase"))) == 2000


def test_what_counts_is_the_size_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """With messages and escapes, which make six bytes of a quotation mark."""
    monkeypatch.setattr(junit, "_MOST_TEXTS", 100_000)
    monkeypatch.setattr(junit, "_MOST_MESSAGES", 50_000)
    run = sample_run(kernels=("debian:6.1",), programs=300, bindings=("interval",))
    text = '\U0001f4a5&<">\n' * 200
    run.results = [
        replace(each, status=Verdict.CRASHED, reason=text, log=(text,), explanation=(text,), replay=text)
        for each in run.results
    ]
    report = junit.render(run).encode()
    assert 150_000 < len(report) < 150_000 + 300 * 400
    cases = list(ET.fromstring(report).iter("testcase"))
    assert len(cases) == 300
    first, last = (case.find("failure") for case in (cases[0], cases[-1]))
    assert first is not None
    assert last is not None
    assert first.attrib["message"] == f"{text[:1000]}... (cut)"
    assert last.attrib["message"] == "... (cut)"
    assert "characters before this were cut" in (last.text or "")
    assert (cases[0].findtext("system-err") or "").endswith(text[-100:])
