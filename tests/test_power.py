# SPDX-License-Identifier: GPL-2.0-only
"""Exploring mutants: what becomes of them, without a VM; and the suite of those that come with the product."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import BuildError, ExitCode, UsageError
from harness.explore import campaign, generate, power
from harness.explore.campaign import Terms
from harness.explore.power import MISTAKES, read_mutants
from harness.explore.trials import Mutant, Outcome, Trial, Trials, row_of, table
from harness.matrix import Resources
from harness.mutate import Books
from harness.program.program import Program
from harness.program.text import parse
from harness.progress import Progress
from harness.target.accel import Accelerator
from harness.target.artifacts import Kernel
from harness.target.lab import Execution
from harness.target.mistakes import Mistake
from harness.target.mutant import Patch, read_patches
from harness.target.vm import Machine
from tests.guest_executor import ROOT
from tests.needs import need, source_tree
from tests.test_explore import FakeMachine, ModelLab

SUITE = ROOT / "tests/mutants/explore-debian-7.3"
MUTANTS = read_mutants([str(SUITE)])
PATCHES = [each for each in MUTANTS if isinstance(each, Patch)]
FEW = 12  # lines that are taken away or put in


# The suite


def test_the_suite_has_bugs_of_the_kernel_and_of_our_driver() -> None:
    assert len(MUTANTS) >= 20
    assert len(PATCHES) >= 12
    assert len({each.name for each in MUTANTS}) == len(MUTANTS)
    assert len({patch.title for patch in PATCHES}) == len(PATCHES)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_each_says_what_it_is(patch: Patch) -> None:
    assert patch.header("SPDX-License-Identifier") == "GPL-2.0-only"
    assert patch.title != patch.name
    assert len(patch.files) == 1
    assert re.fullmatch(r"\w+\(\)", patch.function)
    assert 0 < len(_changed(patch)) <= FEW


def test_none_is_one_that_programs_were_written_for() -> None:
    others = {(*patch.files, *_changed(patch)) for patch in read_patches([SUITE.with_name("debian-6.12")])}
    assert not others & {(*patch.files, *_changed(patch)) for patch in PATCHES}


def _changed(patch: Patch) -> list[str]:
    return re.findall(r"^[-+](?![-+]{2} ).*$", patch.text, re.MULTILINE)


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)
def test_each_applies_where_there_is_a_tree(patch: Patch) -> None:
    need("patch")
    tree = source_tree("7.3")
    argv = ["patch", "-p1", "--dry-run", "--batch", "--forward", "--fuzz=0", f"--directory={tree}"]
    done = subprocess.run(argv, input=patch.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    source = (tree / patch.files[0]).read_text(encoding="utf-8")
    name = re.escape(patch.function.removesuffix("()"))
    assert re.search(rf"^(\S.*\b)?{name}\(", source, re.MULTILINE), "it is in another file"


def test_the_page_has_each_of_them_and_no_other() -> None:
    page = (SUITE / "README.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith(("| [", "| `--wrong"))]
    assert len(rows) == len(MUTANTS), "`make power ARGS=--resume` writes the page"
    for row, mutant in zip(rows, MUTANTS, strict=True):
        assert row.startswith(row_of(mutant)), f"{mutant.name}: `make power ARGS=--resume` writes the page"
    assert "`make power`" in page
    assert re.search(r"^# .* in debian:7\.3$", page, re.MULTILINE)


def test_programs_beside_the_page_are_those_that_it_names() -> None:
    page = (SUITE / "README.md").read_text(encoding="utf-8")
    named = {name: int(steps) for steps, name in re.findall(r"\[(\d+)\]\(([\w-]+)\.hmm\)", page)}
    assert {path.stem for path in SUITE.glob("*.hmm")} == set(named)
    for path in SUITE.glob("*.hmm"):
        program = parse(path.read_text(encoding="utf-8"), file=str(path), name=path.stem)
        assert len(program.steps) == named[path.stem]


# Which mutants


def test_mutants_are_patches_and_mistakes(tmp_path: Path) -> None:
    (tmp_path / "b.patch").write_text(_PATCH)
    (tmp_path / MISTAKES).write_text("# a remark\nskip-dirty  # another\n\n")
    read = read_mutants([str(tmp_path), "migrate-first", str(tmp_path / "b.patch")])
    assert [each.name for each in read] == ["b", "skip-dirty", "migrate-first", "b"]
    assert isinstance(read[1], Mistake)
    assert "dirty" in read[1].breaks
    (tmp_path / "b.patch").unlink()
    assert [each.name for each in read_mutants([str(tmp_path)])] == ["skip-dirty"]
    (tmp_path / MISTAKES).write_text("nosuch\n")
    for words in ([str(tmp_path)], ["nosuch"]):
        with pytest.raises(UsageError, match=r"nosuch: no patch, .* no mistake"):
            read_mutants(words)
    (tmp_path / MISTAKES).unlink()
    with pytest.raises(UsageError, match="has no patches"):
        read_mutants([str(tmp_path)])


# What becomes of them

_PATCH = """\
Subject: entries outlive madvise()
Function: f()

--- a/mm/madvise.c
+++ b/mm/madvise.c
@@ -1 +1 @@
-one
+two
"""
BUG = Patch("bug", _PATCH)
QUIET = Patch("quiet", _PATCH.replace("+two", "+three").replace("outlive", "survive"))
STALE = Patch("stale", _PATCH.replace("-one", "-none"))
MISTAKE = Mistake("skip-invalidate", "entries outlive their invalidation")


class SickLab(ModelLab):
    """The kernel keeps its promises, but for one in which there is a bug, or where the driver is wrong on purpose."""

    def __init__(self, machine: Any, ran: list[str], *, always: bool) -> None:
        super().__init__(defect=False, ran=[])
        self.machine = machine
        self.kernel = machine.kernel
        self._always = always
        self._names = ran

    def mistakes(self) -> tuple[str, ...]:
        return (MISTAKE.name,)

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        self._defect = self._always or bool(wrong) or self.kernel.origin.endswith(BUG.name)
        self._names.append(self.kernel.origin or "healthy")
        return super().execute(program, binding, wrong=(), timeout=timeout)


@dataclass
class Stage:
    """What `power.main` runs on. `ran`: for each program that ran, the kernel."""

    place: Path
    ran: list[str] = field(default_factory=list)
    always: bool = False
    forgotten: list[str] = field(default_factory=list)

    def explore(
        self, mutants: Sequence[Mutant], *, resume: bool = False, seconds: float = 600.0, programs: int | None = None
    ) -> int:
        """`programs` end it, where nothing is found: seconds would depend on the machine."""
        resources = SimpleNamespace(
            lab=lambda machine: SickLab(machine, self.ran, always=self.always),
            vms=1,
            progress=Progress(quiet=True),
            cache=None,
        )
        books = Books(self.place / "trials", self.place / "README.md", resume)
        terms = Terms(seed=3, bindings=(), seconds=seconds, programs=programs)
        return power.main(("debian:7.3", "plain"), mutants, terms, cast(Resources, resources), books=books)

    def trials(self) -> dict[str, Trial]:
        stored = Trials(self.place / "trials", resume=True)
        return {trial.mutant: trial for trial in stored._rows.values()}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(campaign, "_BATCHES", 2)
    monkeypatch.setattr(campaign, "_BATCH", 4)
    monkeypatch.setattr(campaign, "_RUNS", 2)
    monkeypatch.setattr(generate, "_LONG", 8)
    kernel = Kernel("debian:7.3", "plain", "7.3.4", "k", tmp_path, tmp_path, None, {}, tmp_path)
    stage = Stage(tmp_path)

    class Shop:
        @contextmanager
        def mutated(self, patch: Patch) -> Iterator[Kernel]:
            if patch is STALE:
                raise BuildError(f"{patch.name} does not build")
            yield Kernel(
                "debian:7.3", "plain", "7.3.4", patch.name, tmp_path, tmp_path, None, {}, tmp_path, origin=patch.name
            )

    @contextmanager
    def workshop(*_: Any, **__: Any) -> Iterator[Shop]:
        yield Shop()

    def forget(machine: Machine, **_: Any) -> None:
        stage.forgotten.append(machine.kernel.origin)

    for name, value in (
        ("prepare", lambda *_, **__: FakeMachine(kernel=kernel)),
        ("workshop", workshop),
        ("forget", forget),
        ("accelerator", lambda _: Accelerator("tcg")),
    ):
        monkeypatch.setattr(power, name, value)
    return stage


def test_a_mutant_is_explored_until_it_is_found(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert stage.explore([BUG, MISTAKE]) == ExitCode.PASS
    trials = stage.trials()
    assert list(trials) == ["bug", "skip-invalidate"]
    for trial in trials.values():
        assert trial.outcome is Outcome.FOUND
        assert 0 <= trial.seconds <= trial.whole
        assert (trial.shown, trial.runs) == (2, 2)
        assert trial.operations >= trial.programs >= 8, "a unit had run"
        assert "STALE" in trial.symptom
        program = parse(trial.program, file=trial.mutant, name=trial.mutant)
        assert len(program.steps) == trial.steps <= 5
        assert trial.program.endswith(f"\n# {trial.symptom}\n")
        assert (stage.place / f"{trial.mutant}.hmm").read_text() == trial.program
    assert trials["bug"].key != trials["skip-invalidate"].key
    assert stage.ran.count("healthy") > 4, "the kernel without the bug, and with the driver that is wrong"
    assert stage.forgotten == ["bug"]
    page = (stage.place / "README.md").read_text()
    assert f"[{trials['bug'].steps}](bug.hmm) | 2 of 2" in page
    assert "| found | 2 |" in page
    assert "found after" in capsys.readouterr().out


def test_one_that_shows_nothing_is_not_found(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    (stage.place / "quiet.hmm").write_text("of a time when it was found")
    assert stage.explore([QUIET], programs=32) == ExitCode.FAIL
    (trial,) = stage.trials().values()
    assert trial.outcome is Outcome.MISSED
    assert trial.programs == 32
    assert trial.operations >= 32
    assert not (stage.place / "quiet.hmm").exists()
    assert "1 not found" in capsys.readouterr().out


def test_what_the_kernel_shows_without_the_bug_is_no_find(stage: Stage) -> None:
    """Nor is it made small: one program in a VM tells."""
    stage.always = True
    assert stage.explore([BUG], programs=64) == ExitCode.FAIL
    (trial,) = stage.trials().values()
    assert trial.outcome is Outcome.MISSED
    assert 0 < stage.ran.count("healthy") < stage.ran.count("bug")
    assert stage.ran.count("bug") == trial.programs


def test_what_was_tried_is_not_tried_again(stage: Stage) -> None:
    assert stage.explore([BUG]) == ExitCode.PASS
    page = (stage.place / "README.md").read_text()
    stage.ran.clear()
    assert stage.explore([BUG], resume=True) == ExitCode.PASS
    assert stage.ran == []
    assert (stage.place / "README.md").read_text() == page
    stage.explore([BUG], resume=True, seconds=601.0)
    assert stage.ran, "with another limit it is another trial"


def test_one_that_does_not_build_is_tried_again(stage: Stage) -> None:
    assert stage.explore([STALE]) == ExitCode.INFRASTRUCTURE
    assert stage.trials() == {}
    assert "| unknown |" in (stage.place / "README.md").read_text()


def test_the_page_tells_what_is_known() -> None:
    def trial(mutant: Mutant, outcome: Outcome, **more: Any) -> Trial:
        return Trial(mutant.name, "k", 1, 600.0, 2, "TCG", outcome, **more)

    found = trial(
        BUG, Outcome.FOUND, seconds=12.4, operations=345, steps=9, shown=4, runs=5, symptom="FAIL on interval: a|b"
    )
    rows: list[tuple[Mutant, Trial | None]] = [
        (BUG, found), (QUIET, trial(QUIET, Outcome.MISSED, seconds=601.0, operations=9)), (MISTAKE, None),
    ]  # fmt: skip
    page = table("debian:7.3", rows, limit=600.0, command="make power")
    assert (
        "| [bug](bug.patch) | `f()` | entries outlive madvise() | 12 s | 345 | [9](bug.hmm) | 4 of 5 | "
        "FAIL on interval: a\\|b | 1 |" in page
    )
    assert "| entries survive madvise() | not found | 9 |  |  |  | 1 |" in page
    assert "| `--wrong skip-invalidate` |  | entries outlive their invalidation |  |  |  |  |  |  |" in page
    assert "| 3 mutants | |" in page
    assert "| not tried yet | 1 |" in page
    assert "| made as small as 8 steps | 0 |" in page
    assert "| the longest time | 12 s |" in page
    assert "| explored with | 2 VMs at once, TCG |" in page
    assert "at most 10 minutes" in page
    assert page.count("## mm/madvise.c") == page.count("## kmod/") == 1
