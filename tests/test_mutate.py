# SPDX-License-Identifier: GPL-2.0-only
"""Mutants: patches that come and go in a build tree, and what becomes of a mutant by the results of its run."""

from __future__ import annotations

import io
import shutil
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.compare import Verdict
from harness.errors import BuildError, GuestError, UsageError
from harness.mutate import Autopsy, Fate, autopsy, summary
from harness.progress import Progress
from harness.report.results import Result, Target
from harness.target.artifacts import Kernel
from harness.target.cache import Cache
from harness.target.mutant import Patch, Workshop, read_patch
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
