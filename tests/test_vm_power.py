# SPDX-License-Identifier: GPL-2.0-only
"""What exploring has found, as C programs: they show the symptom where the bug is, and none where it is not."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from harness.compare import Verdict
from harness.explore.power import read_mutants
from harness.explore.reproducer import Witness, c_program, look
from harness.matrix import Resources
from harness.program.program import Program
from harness.program.text import parse
from harness.progress import Progress
from harness.run import Plan
from harness.target.cache import Cache
from harness.target.crashes import damage
from harness.target.lab import Lab, prepare
from harness.target.mutant import Patch, Workshop, workshop
from harness.target.vm import Machine, forget
from tests.guest_executor import ROOT
from tests.reproducing import run_c

pytestmark = [pytest.mark.vm, pytest.mark.matrix]

SUITE = ROOT / "tests/mutants/explore-debian-7.3"
FOUND = sorted(SUITE.glob("*.hmm"))
MUTANTS = {each.name: each for each in read_mutants([str(SUITE)])}
_LATE_SECONDS = 10.0  # for what the kernel says when the memory of a process goes


@pytest.fixture(scope="module")
def resources(cache: Cache, progress: Progress) -> Resources:
    return Resources(cache, progress)


@pytest.fixture(scope="module")
def healthy(resources: Resources) -> Machine:
    """The kernel of the suite, without a bug."""
    return prepare("debian:7.3", "plain", cache=resources.cache, progress=resources.progress)


@pytest.fixture(scope="module")
def shop(healthy: Machine, resources: Resources) -> Iterator[Workshop]:
    with workshop(healthy.kernel, cache=resources.cache, progress=resources.progress) as shop:
        yield shop


def _read(path: Path) -> tuple[Program, str]:
    """The program, and the binding that it was found on, which is in the remark below it."""
    text = path.read_text(encoding="utf-8")
    (binding,) = re.findall(r"^# \w+ on (\w+): ", text, re.MULTILINE)
    return parse(text, file=str(path), name=path.stem), binding


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_a_reproducer_shows_the_symptom_where_the_bug_is_and_nowhere_else(
    path: Path, healthy: Machine, resources: Resources, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    mutant = MUTANTS[path.stem]
    program, binding = _read(path)
    wrong = () if isinstance(mutant, Patch) else (mutant.name,)
    with ExitStack() as stack:
        sick = healthy
        if isinstance(mutant, Patch):
            shop: Workshop = request.getfixturevalue("shop")
            sick = replace(healthy, kernel=stack.enter_context(shop.mutated(mutant)))
            stack.callback(forget, sick, cache=resources.cache)
        with resources.lab(sick) as lab:
            witness = look(program, Plan([program], [binding], wrong=wrong), lab)
            assert witness.verdict in (Verdict.FAIL, Verdict.CRASHED), witness.reason
            text = c_program(program, binding, witness)
            assert _shows(lab, text, witness, tmp_path, wrong), text
    with resources.lab(healthy) as lab:
        assert not _shows(lab, text, witness, tmp_path)
        assert not damage(lab.vm().console.splitlines())


def _shows(lab: Lab, text: str, witness: Witness, directory: Path, wrong: tuple[str, ...] = ()) -> bool:
    """Whether the C program shows in a clean VM what the witness saw: by its status, or in the kernel's log."""
    lab.discard()
    vm = lab.vm()
    vm.pardoned = frozenset(witness.titles)
    status, output = run_c(vm, text, directory, ",".join(wrong))
    if witness.verdict is not Verdict.CRASHED:
        assert status in (0, 1), f"{output}\n{text}"
        return status == 1
    deadline = time.monotonic() + _LATE_SECONDS
    while time.monotonic() < deadline:
        if any(crash.title in witness.titles for crash in damage(vm.console.splitlines())):
            return True
        time.sleep(0.5)
    return False
