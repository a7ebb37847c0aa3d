# SPDX-License-Identifier: GPL-2.0-only
"""Mutants: patches that come and go in a build tree, and what becomes of a mutant by the results of its run."""

from __future__ import annotations

import io
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import mutate
from harness.compare import Verdict
from harness.conformance import catalogue
from harness.errors import BuildError, ExitCode, GuestError, UsageError
from harness.fates import PEER, PROGRAMS, Autopsy, Fate, Fates, Row, summary, table
from harness.matrix import Resources
from harness.mutate import Books, autopsy, fates_that_hold, programs_digest, suspects_first
from harness.progress import Progress
from harness.report.results import Result, Target
from harness.run import Plan
from harness.target.artifacts import Kernel
from harness.target.cache import Cache
from harness.target.mutant import Patch, Workshop, read_patch, read_patches
from harness.target.upstream import Totals
from harness.target.vm import Machine
from harness.target.watchdog import Trouble, VMFailure

_MAKEFILE = """\
bzImage:
\t@mkdir -p $(O)/arch/x86/boot
\t@grep -q broken mm/hmm.c && exit 1 || cat mm/hmm.c mm/mmu_notifier.c > $(O)/arch/x86/boot/bzImage
"""
_HMM = "one\ntwo\nthree\n"
_PATCH = """\
From: somebody
Subject: [PATCH] mm/hmm: count wrong

--- a/mm/hmm.c
+++ b/mm/hmm.c
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A "kernel" whose image is its source."""
    place = tmp_path / "place"
    (place / "source/mm").mkdir(parents=True)
    (place / "source/build").mkdir()
    (place / "source/Makefile").write_text(_MAKEFILE)
    (place / "source/mm/hmm.c").write_text(_HMM)
    (place / "source/mm/mmu_notifier.c").write_text("four\n")
    return place


def _kernel(place: Path) -> Kernel:
    build = place / "source/build"
    return Kernel("debian:6.1", "plain", "6.1.0", "ab", build / "bzImage", build, None, {}, build / ".config")


def _workshop(place: Path, tmp_path: Path) -> Workshop:
    return Workshop(_kernel(place), place, [], cache=Cache(tmp_path / "cache"), progress=Progress(io.StringIO()))


def test_a_patch_comes_and_goes(place: Path, tmp_path: Path) -> None:
    shop = _workshop(place, tmp_path)
    with shop.mutated(Patch("wrong", _PATCH)) as kernel:
        assert kernel.image.read_text() == "one\nTWO\nthree\nfour\n"
        assert kernel.key != _kernel(place).key
    assert (place / "source/mm/hmm.c").read_text() == _HMM
    with shop.mutated(Patch("other", _PATCH.replace("TWO", "2"))) as other:
        assert other.image.read_text() == "one\n2\nthree\nfour\n"
        assert other.key != kernel.key


def test_whoever_was_killed_leaves_no_bug_behind(place: Path, tmp_path: Path) -> None:
    before = (place / "source/mm/hmm.c").stat().st_mtime_ns
    mutated = _workshop(place, tmp_path).mutated(Patch("wrong", _PATCH))
    mutated.__enter__()
    assert "TWO" in (place / "source/mm/hmm.c").read_text()
    killed = tmp_path / "killed"
    shutil.copytree(place, killed)  # as the disk is at that moment
    _workshop(killed, tmp_path)
    assert (killed / "source/mm/hmm.c").read_text() == _HMM
    assert (killed / "source/mm/hmm.c").stat().st_mtime_ns > before  # make compiles it again
    mutated.__exit__(None, None, None)


def test_a_patch_that_does_not_apply_changes_nothing(place: Path, tmp_path: Path) -> None:
    shop = _workshop(place, tmp_path)
    for text in (_PATCH.replace("three", "drei"), _PATCH.replace("hmm.c", "other.c")):
        with pytest.raises(UsageError), shop.mutated(Patch("stale", text)):
            pytest.fail("it was built all the same")
        assert (place / "source/mm/hmm.c").read_text() == _HMM


def test_a_patch_that_does_not_build_goes_too(place: Path, tmp_path: Path) -> None:
    shop = _workshop(place, tmp_path)
    with pytest.raises(BuildError), shop.mutated(Patch("bad", _PATCH.replace("TWO", "broken"))):
        pytest.fail("it was built all the same")
    assert (place / "source/mm/hmm.c").read_text() == _HMM


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("no patch at all\n", "names no file"),
        (_PATCH.replace("mm/hmm.c", "include/linux/hmm.h"), r"only \.c files"),
        (_PATCH.replace("b/mm/hmm.c", "b/../../hmm.c"), "not in the kernel's source"),
    ],
)
def test_what_cannot_be_a_mutant_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "some.patch"
    path.write_text(text)
    with pytest.raises(UsageError, match=complaint):
        read_patch(path)


def test_a_patch_has_a_title_and_files(tmp_path: Path) -> None:
    path = tmp_path / "0001-some.patch"
    path.write_text(_PATCH)
    patch = read_patch(path)
    assert (patch.title, patch.files) == ("mm/hmm: count wrong", ["mm/hmm.c"])
    assert Patch("bare", _PATCH.partition("\n\n")[2]).title == "bare"


def test_what_a_patch_says_of_itself() -> None:
    head = "Breaks: RANGE-29 RANGE-30\nFunction: hmm_range_fault()\nEquivalent: it cannot be seen\n"
    patch = Patch("told", _PATCH.replace("\n\n", f"\n{head}\n", 1))
    assert (patch.title, patch.function) == ("mm/hmm: count wrong", "hmm_range_fault()")
    assert patch.breaks == ["RANGE-29", "RANGE-30"]
    assert patch.equivalent
    bare = Patch("bare", _PATCH.replace("+TWO", "+Breaks: RANGE-29"))
    assert (bare.breaks, bare.function, bare.equivalent) == ([], "", False)


def test_a_directory_is_its_patches(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.patch").write_text(_PATCH)
    (tmp_path / "README.md").write_text("none\n")
    assert [patch.name for patch in read_patches([tmp_path, tmp_path / "b.patch"])] == ["a", "b", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="has no patches"):
        read_patches([tmp_path / "empty"])


def test_what_a_patch_says_is_no_part_of_the_mutant(place: Path, tmp_path: Path) -> None:
    shop = _workshop(place, tmp_path)
    key = shop.key(Patch("one", _PATCH))
    assert shop.key(Patch("two", f"Needs: more\n{_PATCH}")) == key
    assert shop.key(Patch("one", _PATCH.replace("TWO", "2"))) != key


def test_programs_of_what_is_broken_come_first() -> None:
    plan = Plan(catalogue.select([]), ["interval"])
    patch = Patch("stale", f"Breaks: RANGE-52\n{_PATCH}")
    names = [program.name for program in suspects_first(patch, plan)]
    assert names[0] == "request/stale"
    assert names.index("snapshot/hole") < names.index("access/file")
    assert sorted(names) == sorted(program.name for program in plan.programs)
    assert [each.name for each in suspects_first(Patch("bare", _PATCH), plan)] == [
        each.name for each in plan.programs
    ]


def _row(mutant: str, suite: str, fate: Fate, **more: str) -> Row:
    values = {"program": "", "binding": "", "reason": "", "by": "all", "key": f"key of {mutant}"} | more
    return Row(mutant=mutant, suite=suite, fate=fate, seconds=1.5, **values)


def test_fates_are_kept_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "new/fates"
    fates = Fates(path)
    one, two = _row("a", PROGRAMS, Fate.KILLED, program="x", binding="interval"), _row("a", PEER, Fate.SURVIVED)
    for row in (one, two):
        fates.add(row)
        assert path.read_text().count("\n") == 1 + (row is two)
    with path.open("a") as file:
        file.write('{"mutant": "b", "ke')  # killed in the middle of a line
    again = Fates(path, resume=True)
    assert again.get(one.key, PROGRAMS) == one
    assert again.get(two.key, PEER) == two
    assert again.get("key of b", PROGRAMS) is None
    third = _row("b", PROGRAMS, Fate.SURVIVED)
    again.add(third)
    assert Fates(path, resume=True).get(third.key, PROGRAMS) == third
    Fates(path)
    assert path.read_text() == ""


def test_a_fate_holds_as_long_as_the_programs_that_told_it(tmp_path: Path) -> None:
    """Who was killed stays so whatever programs come; who survived is shown to all when there are others."""
    few, more = (Plan(catalogue.select(names), ["interval"]) for names in (["request/*"], ["request/*", "access/*"]))
    fates = Fates(tmp_path / "fates")
    killed, survived = Autopsy(Fate.KILLED, "request/stale", "interval"), Autopsy(Fate.SURVIVED)
    for mutant, found in (("a", killed), ("b", survived)):
        by = programs_digest(few, found)
        fates.add(_row(mutant, PROGRAMS, found.fate, program=found.program, by=by, key=mutant))
        fates.add(_row(mutant, PEER, Fate.SURVIVED, key=mutant))
    assert set(fates_that_hold(fates, "a", more)) == {PROGRAMS, PEER}
    assert set(fates_that_hold(fates, "b", few)) == {PROGRAMS, PEER}
    assert set(fates_that_hold(fates, "b", more)) == {PEER}
    assert set(fates_that_hold(fates, "a", Plan(catalogue.select(["access/*"]), ["interval"]))) == {PEER}
    assert fates_that_hold(fates, "another", few) == {}


@pytest.fixture
def shown(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `main` runs, in order: a kernel whose image says TWO makes a/b red, and one that says 2 hmm-tests."""
    seen: list[str] = []

    def run_machine(_plan: Plan, machine: Machine, _resources: Resources) -> Generator[Any, None, None]:
        said = machine.kernel.image.read_text() if machine.kernel.image.exists() else ""
        seen.append(f"programs {machine.kernel.origin.removeprefix(', ') or 'healthy'}")
        yield _result("a/b", Verdict.FAIL if "TWO" in said else Verdict.PASS, "stale")

    def peer(machine: Machine, _resources: Resources, _timeout: float) -> Any:
        said = machine.kernel.image.read_text() if machine.kernel.image.exists() else ""
        seen.append(f"hmm-tests {machine.kernel.origin.removeprefix(', ') or 'healthy'}")
        return mutate._Health(Totals(9, int("\n2\n" in said), 0), frozenset(), 1.0)

    @contextmanager
    def workshop(*_args: Any, **_more: Any) -> Iterator[Workshop]:
        yield _workshop(place, tmp_path)

    machine = Machine(_kernel(place), None, None)  # type: ignore[arg-type]
    for name, value in (("run_machine", run_machine), ("_peer", peer), ("workshop", workshop)):
        monkeypatch.setattr(mutate, name, value)
    monkeypatch.setattr(mutate, "prepare", lambda *_args, **_more: machine)
    return seen


def test_a_suite_goes_on_where_it_ended(shown: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = Patch("one", _PATCH), Patch("two", _PATCH.replace("TWO", "2"))
    plan = Plan(catalogue.select(["request/stale"]), ["interval"])
    books = Books(tmp_path / "fates", tmp_path / "table.md", resume=True)
    resources = Resources(Cache(tmp_path / "cache"), Progress(io.StringIO()))

    def run(patches: list[Patch], *, peer: bool) -> int:
        shown.clear()
        return mutate.main(("debian:6.1", "plain"), patches, plan, resources, peer=peer, books=books)

    assert run([one], peer=False) == ExitCode.PASS
    assert shown == ["programs healthy", "programs one"]
    assert run([one, two], peer=True) == ExitCode.FAIL
    assert shown == [
        "programs healthy", "hmm-tests healthy", "hmm-tests one", "programs two",
        "hmm-tests two",
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert "killed by a/b (interval): stale" in out
    assert "programs: 1 killed, 1 survived\nhmm-tests: 1 killed, 1 survived\n" in out
    page = (tmp_path / "table.md").read_text()
    assert run([one, two], peer=True) == ExitCode.FAIL
    assert shown == [], "everything is known"
    assert (tmp_path / "table.md").read_text() == page
    assert "| killed by a/b (interval) | survived |" in page
    assert "| survived | killed |" in page


def test_fates_are_a_table() -> None:
    def patch(name: str, more: str = "") -> Patch:
        return Patch(name, f"Breaks: RANGE-29\nFunction: f()\n{more}{_PATCH}")

    rows = [
        (patch("hmm-1"), {
            PROGRAMS: Autopsy(Fate.KILLED, "a/b", "interval", "stale"), PEER: Autopsy(Fate.KILLED, PEER),
        }),
        (patch("hmm-2", "Needs: nothing\n"), {
            PROGRAMS: Autopsy(Fate.KILLED, "a/c", "mirror"), PEER: Autopsy(Fate.SURVIVED),
        }),
        (patch("hmm-3", "Needs: a race\n"), {PROGRAMS: Autopsy(Fate.SURVIVED), PEER: Autopsy(Fate.SURVIVED)}),
        (patch("hmm-4", "Equivalent: slower only\n"), {PROGRAMS: Autopsy(Fate.SURVIVED)}),
        (patch("hmm-5"), {}),
    ]  # fmt: skip
    page = table("debian:6.12", rows, command="make mutants")
    assert (
        "| [hmm-1](hmm-1.patch) | `f()` | mm/hmm: count wrong | RANGE-29 | killed by a/b (interval) | killed |"
        in page
    )
    assert "| 5 mutants | programs | hmm-tests |" in page
    assert "| killed | 2 | 1 |" in page
    assert "| survived | 1 | 2 |" in page
    assert "| equivalent | 1 | 1 |" in page
    assert "| 66 % | 33 % |" in page
    assert "| RANGE-29 | equivalent |  |" in page
    assert "- hmm-4: slower only" in page
    assert "- hmm-3: a race" in page
    assert "- hmm-2" not in page
    assert page.count("## mm/hmm.c") == 1


def _result(program: str, status: Verdict, reason: str = "") -> Result:
    return Result(program, "debian:6.1", "plain", "interval", status, reason, 0.1, "replay")


def _told(*each: Any) -> Generator[Any, None, None]:
    yield Target("debian:6.1", "plain")
    for one in each:
        if isinstance(one, Exception):
            raise one
        yield one


_GREEN = (_result("a", Verdict.PASS), _result("b", Verdict.SKIP), _result("c", Verdict.DEVIATION))


@pytest.mark.parametrize(
    ("told", "fate"),
    [
        (_GREEN, Autopsy(Fate.SURVIVED)),
        ((*_GREEN, _result("d", Verdict.FAIL, "stale")), Autopsy(Fate.KILLED, "d", "interval", "stale")),
        ((_result("d", Verdict.CRASHED, "oops"),), Autopsy(Fate.KILLED, "d", "interval", "oops")),
        ((_result("d", Verdict.TIMEOUT, "late"),), Autopsy(Fate.KILLED, "d", "interval", "late")),
        ((_result("d", Verdict.ERROR, "ssh"), *_GREEN), Autopsy(Fate.UNKNOWN, "d", "interval", "ssh")),
        # An error of ours does not hide what another program saw.
        (
            (_result("d", Verdict.ERROR, "ssh"), _result("e", Verdict.FAIL, "stale")),
            Autopsy(Fate.KILLED, "e", "interval", "stale"),
        ),
        ((VMFailure(Trouble.PANIC, "it panics"),), Autopsy(Fate.TRIVIAL, reason="it panics")),
        ((GuestError("no port"),), Autopsy(Fate.UNKNOWN, reason="no port")),
    ],
)
def test_the_fate_of_a_mutant(told: tuple[Any, ...], fate: Autopsy) -> None:
    assert autopsy(_told(*told)) == fate


def test_the_run_ends_with_the_first_that_turns_red() -> None:
    ended = SimpleNamespace(early=False)

    def told() -> Generator[Any, None, None]:
        try:
            yield _result("d", Verdict.FAIL)
            pytest.fail("the run went on")
        finally:
            ended.early = True

    autopsy(told())
    assert ended.early


def test_fates_are_counted() -> None:
    assert summary([Fate.KILLED, Fate.SURVIVED, Fate.KILLED]) == "2 killed, 1 survived"
    assert summary([]) == "no mutants"
