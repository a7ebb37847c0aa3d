# SPDX-License-Identifier: GPL-2.0-only
"""Several VMs at once, for real: the same results whatever their number, and what happens when they are disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.compare import Verdict
from harness.conformance import catalogue
from harness.errors import ExitCode
from harness.matrix import Resources, run_matrix
from harness.progress import Progress
from harness.report.results import Result, read
from harness.run import Plan
from harness.target.cache import Cache
from harness.target.vm import Machine
from tests.processes import marked_processes
from tests.stores import await_result

pytestmark = pytest.mark.vm

COMMAND = [sys.executable, "-m", "harness", "run"]


def _results(plan: Plan, machine: Machine, vms: int, cache: Cache, progress: Progress) -> list[Result]:
    kernel = (machine.kernel.name, machine.kernel.flavour)
    told = run_matrix(plan, [kernel], Resources(cache, progress, vms))
    return [each for each in told if isinstance(each, Result)]


def _bare(results: list[Result]) -> dict[tuple[str, str], Result]:
    """By program and binding, without what differs from run to run."""
    return {
        (result.program, result.binding): replace(result, seconds=0.0, log=(), explanation=()) for result in results
    }


def test_the_same_results_whatever_the_order_and_the_number_of_vms(
    machine: Machine, cache: Cache, progress: Progress
) -> None:
    programs = catalogue.select([])
    wanted = None
    for vms in (1, 2, 3):
        random.Random(vms).shuffle(programs)
        results = _bare(_results(Plan(programs, ("interval", "mirror", "test_hmm")), machine, vms, cache, progress))
        assert len(results) == 3 * len(programs)
        wanted = wanted or results
        assert results == wanted
    assert wanted is not None
    assert {result.status for result in wanted.values()} <= {Verdict.PASS, Verdict.SKIP, Verdict.DEVIATION}


def test_a_program_that_fails_hurts_no_other(machine: Machine, cache: Cache, progress: Progress) -> None:
    """Each failure costs its VM: the others have clean ones, in every worker."""
    programs = catalogue.select(["migrate", "devmem"])
    plan = Plan(programs, ("interval",), wrong=("leak-device-page",))
    one, two = (_bare(_results(plan, machine, vms, cache, progress)) for vms in (1, 2))
    assert {key: result.status for key, result in one.items()} == {key: result.status for key, result in two.items()}
    assert Verdict.FAIL in {result.status for result in one.values()}


def _start(arguments: list[str], tmp_path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=os.environ | {"MARKED_BY_TEST": str(tmp_path)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_a_killed_run_is_resumed(machine: Machine, tmp_path: Path) -> None:
    """SIGKILL in the middle; --resume does the rest, once, and the two together are a whole run."""
    assert machine.kernel.image.exists()
    path = tmp_path / "results.jsonl"
    child = _start(["--vms", "2", "--json", str(path)], tmp_path)
    await_result(path, "devmem/exit", child)
    child.kill()
    child.wait()
    before = read(path)
    assert 0 < len(before.results) < before.planned
    assert before.end is None

    child = _start(["--vms", "2", "--resume", str(path)], tmp_path)
    said, _ = child.communicate(timeout=300)
    assert child.returncode == ExitCode.PASS, said
    run = read(path)
    marks = [(result.program, result.binding) for result in run.results]
    assert len(marks) == len(set(marks)) == run.planned
    assert run.results[: len(before.results)] == before.results  # none was done again
    assert run.end is not None
    assert run.end.exit_code == ExitCode.PASS
    assert " passed" in said.splitlines()[-1]
    assert "NOT RUN" not in said


def test_one_of_two_vms_is_killed(machine: Machine, tmp_path: Path) -> None:
    """One program is an ERROR, its worker goes on with a clean VM."""
    assert machine.kernel.image.exists()
    path = tmp_path / "results.jsonl"
    child = _start(["--vms", "2", "--json", str(path)], tmp_path)
    assert child.stdout is not None
    await_result(path, "devmem/", child)
    os.kill(_a_qemu(tmp_path), signal.SIGKILL)
    said = child.stdout.read()
    assert child.wait(timeout=300) == ExitCode.INFRASTRUCTURE, said
    run = read(path)
    assert len(run.results) == run.planned
    errors = [result for result in run.results if result.status is Verdict.ERROR]
    assert len(errors) == 1, said
    assert "QEMU" in errors[0].reason

    # What was no verdict on the kernel is done again, and nothing else.
    child = _start(["--resume", str(path)], tmp_path)
    said, _ = child.communicate(timeout=300)
    assert child.returncode == ExitCode.PASS, said
    assert len(path.read_text().splitlines()) == len(run.results) + 6
    assert json.loads(path.read_text().splitlines()[-2])["program"] == errors[0].program


def _a_qemu(tmp_path: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for pid, program in marked_processes(str(tmp_path)).items():
            if program.startswith("qemu-system"):
                return pid
        time.sleep(0.05)
    raise AssertionError("no QEMU was started")
