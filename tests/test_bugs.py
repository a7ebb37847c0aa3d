# SPDX-License-Identifier: GPL-2.0-only
"""Known bugs: crashes that are one say so, and the table of those that programs show is well-formed and checked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest

import harness.bugs
from harness.bugs import Told, main, report, told
from harness.compare import Verdict
from harness.conformance import bugs, catalogue
from harness.conformance.bugs import Bug, known_bug, with_bug
from harness.errors import ExitCode, UsageError
from harness.matrix import Resources
from harness.model.allowed import RECORDED
from harness.model.rules import RULES
from harness.progress import Progress
from harness.report.results import Report, Result, Target
from harness.run import Plan
from harness.target import kernel
from harness.target.crashes import crashes
from harness.target.kernels.provider import Offer
from tests.guest_executor import ROOT

# As Linux 4.20.11 said it when a page in device memory that two processes map was touched
SUBPAGE = """\
[    5.774000] BUG: unable to handle kernel paging request at ffffea007e7c0008
[    5.774100] Oops: 0000 [#1] SMP NOPTI
[    5.774200] CPU: 0 PID: 93 Comm: executor Tainted: G           O      4.20.11 #1
[    5.774300] RIP: 0010:page_remove_rmap+0x9/0x3d0
[    5.774400] Call Trace:
[    5.774500]  try_to_unmap_one+0x58f/0xa30
[    5.779966]  migrate_vma+0x4ad/0x1690
[    5.780729]  hh_seed_migrate+0x3e/0x40 [hmm_harness]
[    5.789897] ---[ end trace f8ea3235ac2a59ee ]---
"""


# As 6.1.192 with lockdep says it of any part of a hugetlb mapping that becomes a mapping of its own
SPLIT = """\
[  122.268359] ------------[ cut here ]------------
[  122.269440] WARNING: CPU: 0 PID: 260 at include/linux/fs.h:509 hugetlb_split+0x1d2/0x270
[  122.275819] RIP: 0010:hugetlb_split+0x1d2/0x270
[  122.284889] Call Trace:
[  122.287162]  __vma_adjust+0xf85/0x1af0
[  122.288746]  __split_vma+0x398/0x480
[  122.289066]  do_madvise.part.0+0x1409/0x4920
[  122.310000] ---[ end trace 0000000000000000 ]---
"""


def test_a_lock_that_is_taken_too_late_is_known() -> None:
    bug = known_bug(crashes(SPLIT.splitlines())[0])
    assert bug is not None
    assert "__vma_adjust()" in bug.source


def test_a_known_bug_is_named_with_its_source() -> None:
    found = crashes(SUBPAGE.splitlines())
    bug = known_bug(found[0])
    assert bug is not None
    assert "1de13ee59225" in bug.source
    said = with_bug("the kernel reported a bug", found)
    assert said.startswith("the kernel reported a bug; a known bug: ")
    assert bug.source in said


def test_another_crash_is_not() -> None:
    (crash, *_) = crashes(SUBPAGE.splitlines())
    other = replace(crash, lines=tuple(line for line in crash.lines if "migrate_vma" not in line))
    assert known_bug(other) is None
    assert with_bug("what it said", [other]) == "what it said"
    assert with_bug("what it said", []) == "what it said"


def test_each_bug_has_programs_or_says_why_not() -> None:
    assert len({bug.id for bug in bugs.load()}) == len(bugs.load())
    known = set(catalogue.names())
    for bug in bugs.load():
        assert bug.where and bug.symptom, bug.id
        assert bool(bug.title) or bug.why, bug.id
        assert re.fullmatch("[0-9a-f]{12}|", bug.commit), bug.id
        assert bool(bug.programs) is not bool(bug.why), bug.id
        assert set(bug.programs) <= known, bug.id
        assert bug.binding in RULES
        assert bool(bug.programs) is bool(bug.has) is bool(bug.mended) is bool(bug.shows), bug.id
        assert not set(bug.has) & set(bug.mended), bug.id
        flavours = {path.stem for path in Path("vm-images/kernel").glob("*.config")} | {"plain"}
        assert {flavour for _, flavour in bug.kernels} <= flavours


def test_the_table_can_be_read_by_people() -> None:
    text = "\n".join(bugs.describe(bugs.load()))
    for bug in bugs.load():
        assert bug.symptom in text
        assert bug.source in text
        assert bug.why in text
    assert bugs.select(["H08"])[0].id == "H08"
    with pytest.raises(UsageError, match="H99"):
        bugs.select(["H99"])


def test_the_readme_has_the_table() -> None:
    rows = dict(re.findall(r"(?m)^\| ([A-Za-z]\w+) \| (.* \|)$", (ROOT / "README.md").read_text(encoding="utf-8")))
    for bug in bugs.load():
        if bug.programs:
            _, programs, has, mended, _ = re.split(r" ?\| ?", rows[bug.id])
            assert programs == ", ".join(f"`{name}`" for name in bug.programs), bug.id
            assert has == ", ".join(bugs.named(kernel).removeprefix("debian:") for kernel in bug.has), bug.id
            assert mended == ", ".join(bugs.named(kernel).removeprefix("debian:") for kernel in bug.mended), bug.id


BUG = Bug(
    "X", "mm/hmm.c f()", "it fails", "a fix", has=(("old", "plain"),), mended=(("new", "debug"),), programs=("p",),
    shows="because",
)  # fmt: skip


def _result(kernel: str, flavour: str, status: Verdict, reason: str = "", program: str = "p") -> Result:
    return Result(program, kernel, flavour, "interval", status, reason, 0.0, "run")


@pytest.mark.parametrize("status", [Verdict.FAIL, Verdict.CRASHED, Verdict.DEVIATION])
def test_a_bug_is_told_apart_by_red_for_its_reason_and_green(status: Verdict) -> None:
    red, green = _result("old", "plain", status, "step 3: because of it"), _result("new", "debug", Verdict.PASS)
    assert told(BUG, [red, green]) is Told.APART
    assert report(BUG, [red, green])[0] == "X told apart: it fails"
    for wrong in (
        [replace(red, reason="another"), green],
        [replace(red, status=Verdict.PASS, reason=""), green],
        [replace(red, status=Verdict.TIMEOUT), green],
        [replace(red, status=Verdict.SKIP), green],
        [red, replace(green, status=Verdict.SKIP)],
        [red, replace(green, status=status, reason="because")],
        [replace(red, reason="another")],
    ):
        assert told(BUG, wrong) is Told.NOT, wrong
    for open_still in (
        [],
        [red],
        [red, replace(green, flavour="plain")],
        [red, replace(green, status=Verdict.ERROR)],
    ):
        assert told(BUG, open_still) is Told.UNKNOWN, open_still
    assert told(BUG, [replace(red, status=Verdict.ERROR), replace(green, status=Verdict.FAIL)]) is Told.NOT


def test_a_report_of_the_kernel_behind_another_one_counts() -> None:
    first, second = Report("warning", "WARNING in g()"), Report("warning", "WARNING in f(), because")
    red = replace(_result("old", "plain", Verdict.CRASHED, first.title), reports=(first, second))
    green = _result("new", "debug", Verdict.PASS)
    assert told(BUG, [red, green]) is Told.APART
    assert report(BUG, [red, green])[1].endswith(f": p is red, by what the kernel says: {second.title}")
    assert told(BUG, [replace(red, reports=(first,)), green]) is Told.NOT
    # Who complains without a word of this bug is not green either.
    assert told(BUG, [red, replace(green, status=Verdict.CRASHED, reports=(first,))]) is Told.NOT


def test_what_was_seen_is_said_of_both_sides() -> None:
    red = _result("old", "plain", Verdict.DEVIATION, "because: it does that")
    targets = [Target("old", "plain", release="5.10.262")]
    assert report(BUG, [red, _result("new", "debug", Verdict.PASS)], targets) == [
        "X told apart: it fails",
        "    on old, Linux 5.10.262, which has it: p is red, by a recorded deviation: because: it does that",
        "    on new (debug), mended: p is green",
    ]
    recorded = RECORDED["dirty-lost"]
    lost = replace(red, reason=f"other: of old; dirty-lost: {recorded.summary} ({recorded.source})")
    assert report(replace(BUG, shows="dirty-lost"), [lost])[1].endswith(f"deviation: dirty-lost: {recorded.summary}")
    wrong = replace(_result("new", "debug", Verdict.FAIL, "step 1: because"), replay="run it")
    assert report(BUG, [replace(red, status=Verdict.PASS, reason=""), wrong]) == [
        "X NOT TOLD APART: it fails",
        "    on old, which has it: p is green",
        "        it should be red for: because; run",
        "    on new (debug), mended: p is red: step 1: because",
        "        it should be green; run it",
    ]


def test_each_kernel_runs_once_what_its_bugs_want(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, list[str]]] = []
    here: set[tuple[str, str]] = set()

    def run(plan: Plan, kernels: list[tuple[str, str]], _resources: object) -> Iterator[Target | Result]:
        ((kernel, flavour),) = kernels
        if kernel == "unknown":
            raise UsageError("the archive has no source of it")
        ran.append((kernel, [program.name for program in plan.programs]))
        yield Target(kernel, flavour)
        for program in plan.programs:
            bad = kernel == "old" or program.name == "access/hole"
            status = Verdict.ERROR if kernel == "gone" else Verdict.FAIL if bad else Verdict.PASS
            yield _result(kernel, flavour, status, "because" if bad else "", program.name)

    monkeypatch.setattr(harness.bugs, "run_matrix", run)
    monkeypatch.setattr(harness.bugs, "built", lambda kernels, **_: here.intersection(kernels))
    resources = Resources(cast(Any, None), Progress(StringIO()))
    one = replace(BUG, programs=("access/read",))
    two = replace(BUG, id="Y", programs=("access/read", "access/write"), mended=(("newer", "plain"),))
    both = ["access/read", "access/write"]
    assert main([one, two], resources, ["x"]) is ExitCode.PASS
    assert ran == [("old", both), ("new", ["access/read"]), ("newer", both)]
    assert [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")] == [
        "X told apart: it fails", "Y told apart: it fails", "2 of 2 bugs are told apart",
    ]  # fmt: skip
    # What need not be built comes first, and a row is told as soon as nothing is missing.
    ran.clear()
    here.update({("old", "plain"), ("newer", "plain")})
    assert main([one, two], resources, ["x"]) is ExitCode.PASS
    assert [kernel for kernel, _ in ran] == ["old", "newer", "new"]
    assert capsys.readouterr().out.index("Y told apart") < 10
    bad = replace(BUG, id="Z", programs=("access/hole",))
    none = replace(BUG, id="N", programs=(), why="it cannot be")
    assert main([one, bad, none], resources, ["x"]) is ExitCode.FAIL
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "N has no program: it cannot be", "NOT TOLD APART: Z", "1 of 2 bugs are told apart",
    ]  # fmt: skip
    lost = replace(one, id="L", mended=(("gone", "plain"),))
    assert main([one, lost], resources, ["x"]) is ExitCode.INFRASTRUCTURE
    assert capsys.readouterr().out.splitlines()[-2:] == ["NO VERDICT: L", "1 of 2 bugs are told apart"]
    assert main([bad, lost], resources, ["x"]) is ExitCode.FAIL
    capsys.readouterr()
    # One that the archive had once keeps nobody from looking at the others.
    old = replace(one, id="O", mended=(("unknown", "plain"), *one.mended))
    assert main([old, two], resources, ["x"]) is ExitCode.INFRASTRUCTURE
    said = capsys.readouterr().out
    assert "    unknown was not run: the archive has no source of it\n" in said
    assert "Y told apart" in said
    assert said.splitlines()[-2:] == ["NO VERDICT: O", "1 of 2 bugs are told apart"]
    assert main([none], resources, ["x"]) is ExitCode.SKIPPED


def test_a_kernel_is_here_in_the_flavours_that_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = [Offer("debian:6.1", "", 0, (("debug", 1),)), Offer("debian:7.3", "", 0, (("plain", 1),))]
    monkeypatch.setattr(kernel, "offers", lambda **_: offers)
    wanted = [("debian:6.1", "plain"), ("debian:6.1", "debug"), ("tree:x", "plain"), ("debian:7.3", "plain")]
    found = kernel.built(wanted, cache=cast(Any, None), progress=Progress(StringIO()))
    assert found == {("debian:6.1", "debug"), ("debian:7.3", "plain")}
