# SPDX-License-Identifier: GPL-2.0-only
"""What was planned against what came of it, and what every form makes of other people's texts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.compare import Verdict
from harness.printable import one_line, shortened
from harness.report import html
from harness.report.planned import columns
from harness.report.results import Run
from tests.sample_runs import sample_run


def _small() -> Run:
    return sample_run(kernels=("debian:6.1",), programs=2, bindings=("interval",))


def test_columns_are_in_the_order_of_the_plan_whatever_came_first() -> None:
    run = sample_run(flavours=("plain", "debug"))
    run.results.reverse()
    found = columns(run)
    assert [(each.kernel, each.flavour, each.binding) for each in found] == [
        (kernel, flavour, binding) for kernel, flavour in run.kernels for binding in run.bindings
    ]
    for column in found:
        assert [case.program for case in column.cases] == list(run.programs)
        assert all(case.result is not None and case.result.program == case.program for case in column.cases)
        assert column.target is not None
        assert column.target.kernel == column.kernel


def test_the_later_of_two_results_counts() -> None:
    run = _small()
    run.results.append(replace(run.results[0], status=Verdict.FAIL))
    (column,) = columns(run)
    assert [case.good for case in column.cases] == [False, True]


def test_a_result_that_was_not_planned_is_there() -> None:
    run = _small()
    run.results.append(replace(run.results[0], kernel="tree:/other", program="other"))
    first, second = columns(run)
    assert second.kernel == "tree:/other"
    assert [case.program for case in first.cases] == [*run.programs, "other"]
    assert [case.result is None for case in first.cases] == [False, False, True]
    assert [case.result is None for case in second.cases] == [True, True, False]


@pytest.mark.parametrize("ended", [True, False])
def test_what_did_not_come_says_why(ended: bool) -> None:
    run = _small()
    run.results = []
    run.end = run.end if ended else None
    (column,) = columns(run)
    assert {case.why for case in column.cases} == {
        "not run: the run ended without a result for it" if ended else "not run: the run was interrupted"
    }
    assert not any(case.good for case in column.cases)


def test_one_line_is_one_line_of_characters() -> None:
    text = "".join(map(chr, range(0x20))) + "\x7f\x85\u2028\u2029\ud800 é\U0001f4a5"
    line = one_line(text)
    assert line.splitlines() == [line]
    assert line.encode().decode() == line
    assert line.endswith("\\x7f\\x85\\u2028\\u2029\\ud800 é\U0001f4a5")
    assert "\\x0a" in line


def test_a_text_that_is_cut_says_how_much() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "abc... (1 more characters)"


def _page_data(run: Run) -> dict[str, object]:
    text = html.render(run).partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    data = json.loads(text)
    assert isinstance(data, dict)
    return data


def test_the_page_has_the_end_of_a_long_log_and_says_what_is_missing() -> None:
    run = _small()
    log = tuple(f"line {number}" for number in range(1500))
    run.results[0] = replace(run.results[0], status=Verdict.CRASHED, log=log)
    result = _page_data(run)["results"][0][0]  # type: ignore[index]
    assert result["log"] == list(log[-1000:])
    assert result["cut"] == 500


def test_a_page_that_is_full_takes_no_more_logs_and_says_so() -> None:
    run = sample_run(kernels=("debian:6.1",), programs=60, bindings=("interval",))
    log = ("x" * 1000,) * 1000
    run.results = [replace(each, status=Verdict.CRASHED, log=log, explanation=()) for each in run.results]
    logs = [row[0]["log"] for row in _page_data(run)["results"]]  # type: ignore[attr-defined]
    assert len(logs[0]) == 1000
    assert logs[-1] == ["... (the page is full: 1000 more lines are in the JSON report)"]


@pytest.mark.parametrize(
    ("statuses", "heading"),
    [
        ((Verdict.PASS, Verdict.SKIP), "All 2 results are good"),
        ((Verdict.SKIP, Verdict.SKIP), "Nothing was tested"),
        ((Verdict.FAIL, Verdict.PASS), "1 of 2 results needs attention"),
        ((Verdict.ERROR, Verdict.CRASHED), "2 of 2 results need attention"),
    ],
)
def test_the_heading_is_the_verdict(statuses: tuple[Verdict, ...], heading: str) -> None:
    run = _small()
    run.results = [replace(each, status=status) for each, status in zip(run.results, statuses, strict=True)]
    assert _page_data(run)["heading"] == heading
    assert f"<title>{heading} - hmm-harness</title>" in html.render(run)
