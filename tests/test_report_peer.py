# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own hmm-tests in the reports, alone and beside our programs."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

from harness.compare import Verdict
from harness.conformance import clauses
from harness.defaults import PEER
from harness.errors import ExitCode
from harness.progress import Progress
from harness.report import html, junit, ktap
from harness.report.conformance import conformance
from harness.report.planned import columns
from harness.report.results import Planned, Result, Run, Source, Store, Target, belongs, read
from harness.report.terminal import Table
from tests.sample_runs import sample_run

CASES = ("hmm.hmm_device_private.migrate", "hmm.hmm_device_private.compound", "hmm2.snapshot")


def peer_run(*, alone: bool = False) -> Run:
    """A run with hmm-tests beside a few programs, or `alone`."""
    run = sample_run(programs=4)
    if alone:
        run = replace(run, programs={}, bindings=(), results=[])
    run.bindings = (*run.bindings, PEER)
    run.cases = ("*",)
    run.plan({f"{PEER}/{case}": Source(f"{case}.", f"TEST_F({case})\n{{\n}}\n") for case in CASES})
    statuses = (Verdict.PASS, Verdict.SKIP, Verdict.FAIL)
    for kernel, flavour in run.kernels:
        for case, status in zip(CASES, statuses, strict=True):
            run.add(
                Result(
                    f"{PEER}/{case}",
                    kernel,
                    flavour,
                    PEER,
                    status,
                    "" if status is Verdict.PASS else "hmm-tests.c:88: Expected 1 (1) == 2 (2)",
                    0.5,
                    f"hmm-harness upstream --kernel {kernel} {case}",
                    details=("READ failed with EFAULT, 2 times",),
                    identity=case,
                    explanation=() if status is not Verdict.FAIL else (f"FAIL {case}", "    why"),
                )
            )
    return run


def test_a_program_belongs_to_bindings_and_a_case_to_hmm_tests() -> None:
    assert belongs("migrate/simple", "interval")
    assert not belongs("migrate/simple", PEER)
    assert belongs(f"{PEER}/hmm.x.y", PEER)
    assert belongs(PEER, PEER)
    assert not belongs(f"{PEER}/hmm.x.y", "test_hmm")
    assert belongs(f"{PEER}/mine.hmm", "interval")  # a file of somebody's


def test_each_column_has_what_belongs_to_it() -> None:
    run = peer_run()
    assert run.planned == len(run.results)
    for column in columns(run):
        names = [case.program for case in column.cases]
        if column.binding == PEER:
            assert names == [f"{PEER}/{case}" for case in CASES]
        else:
            assert names == [name for name in run.programs if not name.startswith(PEER)]
        assert all(case.result is not None for case in column.cases)


def test_cases_that_are_not_known_yet_are_not_run() -> None:
    run = replace(peer_run(alone=True), programs={}, results=[], end=None)
    assert run.planned == len(run.kernels)
    assert run.exit_code is ExitCode.INFRASTRUCTURE
    assert [[case.program for case in column.cases] for column in columns(run)] == [[PEER]] * len(run.kernels)
    run.add(Result(PEER, *run.kernels[0], PEER, Verdict.SKIP, "no source", 0.0, ""))
    assert [[case.program for case in column.cases] for column in columns(run)] == [[PEER]] * len(run.kernels)


def test_what_turned_out_to_be_planned_is_stored(tmp_path: Path) -> None:
    run = peer_run()
    plan = {name: source for name, source in run.programs.items() if not name.startswith(PEER)}
    with Store(tmp_path / "store") as store:
        store.begin(replace(run, programs=plan))
        store.plan({name: source for name, source in run.programs.items() if name not in plan})
        for target in run.targets:
            store.target(target)
        for result in run.results:
            store.add(result)
    found = read(tmp_path / "store")
    assert (found.programs, found.cases, found.planned) == (run.programs, ("*",), run.planned)
    assert found.results == run.results


def test_an_older_store_has_no_cases(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        store.begin(sample_run(programs=1))
    record = json.loads((tmp_path / "store").read_text())
    del record["cases"]
    (tmp_path / "store").write_text(json.dumps(record) + "\n")
    assert read(tmp_path / "store").cases == ()


def test_ktap_and_junit_have_the_cases_under_their_binding() -> None:
    run = peer_run()
    document = ktap.render(run)
    assert document.count(f"ok 1 {PEER}/{CASES[0]}") == len(run.kernels)
    assert document.count(f"not ok 3 {PEER}/{CASES[2]}") == len(run.kernels)
    assert document.count("# printed: READ failed with EFAULT, 2 times") == len(run.kernels)
    assert f"  not ok 3 {PEER}" in document
    suites = ET.fromstring(junit.render(run))
    found = [suite for suite in suites if suite.attrib["name"].endswith(PEER)]
    assert [suite.attrib["tests"] for suite in found] == ["3"] * len(run.kernels)
    assert [suite.attrib["failures"] for suite in found] == ["1"] * len(run.kernels)


def test_no_clause_is_about_them() -> None:
    found = conformance(peer_run(), clauses.load())
    assert [bool(each.findings) for each in found] == [each.binding != PEER for each in found]


def test_the_page_has_cells_only_where_there_are_results() -> None:
    run = peer_run()
    page = html.render(run)
    match = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    data = json.loads(match[1])
    bindings = [column["binding"] for column in data["columns"]]
    for program, results in zip(data["programs"], data["results"], strict=True):
        for binding, result in zip(bindings, results, strict=True):
            assert (result is not None) is belongs(program["name"], binding)
    assert sum(result is not None for results in data["results"] for result in results) == len(run.results)


def _table(run: Run) -> list[str]:
    out = io.StringIO()
    table = Table(run, Progress(io.StringIO()), out=out, colour=False)
    for target in run.targets:
        table.target(target)
        for result in run.results:
            if (result.kernel, result.flavour) == (target.kernel, target.flavour):
                table.add(result)
    table.foot(1.0)
    return out.getvalue().splitlines()


def _of_one_kernel(run: Run) -> Run:
    kernel = run.kernels[0]
    mine = [each for each in run.results if (each.kernel, each.flavour) == kernel]
    return replace(run, kernels=(kernel,), targets=run.targets[:1], results=mine)


def test_the_table_has_a_head_for_the_cases() -> None:
    lines = _table(_of_one_kernel(peer_run()))
    heads = [line for line in lines if line.startswith("program ")]
    assert [head.split() for head in heads] == [["program", "interval", "test_hmm"], ["program", PEER]]
    row = next(line for line in lines if line.startswith(f"{PEER}/{CASES[0]}"))
    assert row.split() == [f"{PEER}/{CASES[0]}", "PASS"]
    assert row.index("PASS") == heads[1].index(PEER)
    assert lines[-1].startswith("4 programs x 2 bindings and 3 cases of hmm-tests on debian:6.1 (plain): ")


def test_the_table_of_the_cases_alone() -> None:
    lines = _table(_of_one_kernel(peer_run(alone=True)))
    assert [line.split() for line in lines if line.startswith("program ")] == [["program", PEER]]
    assert lines[-1].startswith("3 cases of hmm-tests on debian:6.1 (plain): 1 passed, 1 failed, 1 skipped")
    assert any(line.startswith("SKIP: hmm-tests.c:88") for line in lines)


def test_several_kernels_have_a_line_for_the_cases() -> None:
    lines = _table(peer_run(alone=True))
    assert sum(line.startswith(f"  {PEER} ".ljust(12)) for line in lines) == 3


def test_planned_is_what_a_run_takes() -> None:
    run = peer_run(alone=True)
    planned = Planned({f"{PEER}/hmm.new": Source("", "")})
    run.plan(planned.programs)
    assert run.planned == len(run.results) + len(run.kernels)
    assert isinstance(run.targets[0], Target)
