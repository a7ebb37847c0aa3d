# SPDX-License-Identifier: GPL-2.0-only
"""Explorations of several machines become one; what they kept is made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import cli
from harness.compare import Verdict
from harness.errors import ExitCode, UsageError
from harness.explore.findings import Finding, GivenUp, Store, Symptom, UnitDone
from harness.explore.merge import Merged, merge
from harness.explore.story import tell
from tests.test_explore import FINDING, PROGRAM, UNIT, _program

LONGER = _program("a: map x anon 1 rw\na: read x\na: read x\n")
OTHER = Symptom("mirror", Verdict.CRASHED, "WARNING in do_swap_page")
ERROR = GivenUp("unit 7/9", "two workers were lost", "t", 7, 9, 50.0)


def _unit(number: int, began: float = 0.0, ended: float = 0.0) -> UnitDone:
    return replace(UNIT, number=number, began=began, ended=ended, kernel="debian:6.1", flavour="plain", findings=())


def _kept(place: Path, units: list[UnitDone], met: list[tuple[list[str], float]], findings: list[Finding]) -> Path:
    with Store(place) as store:
        for situations, at in met:
            store.add_program(PROGRAM, situations, at)
        for finding in findings:
            store.add_finding(finding)
        for unit in units:
            store.add_unit(unit)
    return place


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Of two machines that worked at the same time, and of which both did unit 2."""
    replay = "  replay: hmm-harness run '/the machine/findings/{0}/program.hmm' # x"
    told = (replay.format(FINDING.symptom.id),)
    one = _kept(
        tmp_path / "1",
        [_unit(0, 100, 110), _unit(2, 110, 120)],
        [(["a", "b"], 110.0), (["c"], 120.0)],
        [replace(FINDING, program=LONGER, explanation=told), replace(FINDING, symptom=OTHER, shown=0, runs=0)],
    )
    two = _kept(
        tmp_path / "2",
        [_unit(1, 100, 105), _unit(2, 105, 112)],
        [(["b", "d"], 105.0), (["c"], 112.0)],
        [replace(FINDING, explanation=told), replace(FINDING, symptom=OTHER, shown=3, wrong=())],
    )
    with Store(two) as store:
        store.add_error(ERROR)
    return [one, two]


def _everything(place: Path) -> object:
    store = Store(place)
    return list(store.units()), list(store.meetings()), list(store.findings()), list(store.errors())


def test_what_two_shards_did_is_there_once(shards: list[Path], tmp_path: Path) -> None:
    whole = tmp_path / "all"
    before = [_everything(shard) for shard in shards]
    assert merge(whole, shards) == Merged(
        units=3,
        programs=3 * UNIT.programs,
        operations=3 * UNIT.operations,
        again=1,
        situations=4,
        findings=2,
        errors=1,
    )
    assert [_everything(shard) for shard in shards] == before
    store = Store(whole)
    assert [unit.number for unit in store.units()] == [1, 0, 2]
    assert [(set(line.situations), line.at) for line in store.meetings()] == [
        ({"b", "d"}, 105.0), ({"a"}, 110.0), ({"c"}, 112.0)
    ]  # fmt: skip
    assert list(store.errors()) == [ERROR]
    story = tell(store)
    assert (story.total.units, story.total.operations, story.situations[-1][1]) == (3, 3 * UNIT.operations, 4)


def test_of_two_findings_the_one_that_says_more_is_kept(shards: list[Path], tmp_path: Path) -> None:
    whole = tmp_path / "all in one"
    for order in (shards, shards[::-1]):
        merge(whole, order)
        found = {finding.symptom: finding for finding in Store(whole).findings()}
        assert found[FINDING.symptom].program.steps == PROGRAM.steps, "the smaller one"
        assert found[OTHER].shown == 3, "the one that somebody has looked into"
        place = Store(whole).place(FINDING.symptom)
        assert found[FINDING.symptom].explanation == (f"  replay: hmm-harness run '{place}' # x",)


def test_it_can_be_done_again_and_bit_by_bit(shards: list[Path], tmp_path: Path) -> None:
    whole = tmp_path / "all"
    merge(whole, shards)
    known = _everything(whole)
    assert merge(whole, shards) == Merged(again=4)
    assert _everything(whole) == known
    step = tmp_path / "steps"
    for shard in shards:
        merge(step, [shard])
    assert tell(Store(step)).total == tell(Store(whole)).total
    assert Store(step).corpus()[1] == Store(whole).corpus()[1]


def test_one_that_was_killed_in_the_middle_is_done_by_the_next(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "all"
    real = Store.add_unit

    def killed(store: Store, unit: UnitDone) -> None:
        if unit.number == 0:
            raise KeyboardInterrupt
        real(store, unit)

    monkeypatch.setattr(Store, "add_unit", killed)
    with pytest.raises(KeyboardInterrupt):
        merge(whole, shards)
    monkeypatch.setattr(Store, "add_unit", real)
    merge(whole, shards)
    assert tell(Store(whole)).total.units == 3
    assert sorted(situation for line in Store(whole).meetings() for situation in line.situations) == list("abcd")


def test_what_is_not_of_the_same_kernel_is_not_merged(shards: list[Path], tmp_path: Path) -> None:
    whole = tmp_path / "all"
    other = _kept(tmp_path / "3", [replace(_unit(0), target="another", kernel="debian:7.3")], [], [])
    for sources in ([*shards, other], [other, *shards]):
        with pytest.raises(UsageError, match="not of the same kernel"):
            merge(whole, sources)
    assert not whole.exists()
    merge(whole, shards)
    with pytest.raises(UsageError, match="not of the same kernel"):
        merge(whole, [other])
    assert tell(Store(whole)).total.units == 3


def test_what_is_no_exploration_or_is_being_explored_is_told(shards: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no exploration"):
        merge(tmp_path / "all", [tmp_path])
    with pytest.raises(UsageError, match="merged into"):
        merge(shards[0], shards)
    with Store(shards[0]), pytest.raises(UsageError, match="another process explores"):
        merge(tmp_path / "all", shards)


def test_from_the_command_line(shards: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, page = tmp_path / "all", tmp_path / "page.html"
    assert cli.main(["campaign", "merge", str(whole), *map(str, shards)]) == ExitCode.PASS
    assert "3 units, 576 programs, 12000 operations, 4 situations, 2 findings are new" in capsys.readouterr().out
    assert cli.main(["campaign", "show", str(whole), "--html", str(page)]) == ExitCode.PASS
    told = capsys.readouterr().out
    assert "576 programs, 12000 operations in 12 s, 4 situations; 576 PASS; 2 findings" in told
    assert f"{FINDING.symptom}: shown in 5 of 5: {Store(whole).place(FINDING.symptom)}" in told
    assert "ERROR: unit 7/9: two workers were lost" in told
    assert "2 findings in 12,000 operations" in page.read_text()
    assert cli.main(["campaign", "show", str(tmp_path / "none")]) == ExitCode.USAGE
