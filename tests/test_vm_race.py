# SPDX-License-Identifier: GPL-2.0-only
"""Forced races on a real kernel: gates, exploration, and the mistakes that it takes a race to see."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.compare import Verdict, obstacle
from harness.conformance import catalogue
from harness.explore.races import explore
from harness.model.rules import rules_for
from harness.program.observations import Mark
from harness.program.race import Ending, Gate, Race, parse_schedule, recorded
from harness.program.text import parse
from harness.report import timeline_text
from harness.report.timeline import Kind, draw
from harness.run import Plan, judge, run
from harness.target.lab import Lab
from tests.test_vm_wrong import FORCED

pytestmark = pytest.mark.vm

BINDINGS = ("interval", "mirror")


def _race(name: str) -> Race:
    (race,) = catalogue.select([name])
    assert isinstance(race, Race)
    return race


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("mistake", FORCED)
def test_a_schedule_shows_a_mistake_and_passes_without_it(lab: Lab, mistake: str, binding: str) -> None:
    race = _race(FORCED[mistake])
    (right,) = run(Plan([race], [binding]), lab)
    if right.status is Verdict.SKIP:
        pytest.skip(right.reason)
    assert right.status is Verdict.PASS, "\n".join(right.explanation)
    for _ in range(3):
        (wrong,) = run(Plan([race], [binding], wrong=[mistake]), lab)
        assert wrong.status is Verdict.FAIL, "\n".join(wrong.explanation)
        assert "STALE" in wrong.reason
        assert "race replay" in wrong.replay
        assert f"'{race.schedule}'" in wrong.replay


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("mistake", [None, *FORCED])
def test_exploration_finds_what_is_wrong_and_nothing_else(lab: Lab, mistake: str | None, binding: str) -> None:
    race = _race("race/lock")
    rules = rules_for(binding, lab.features())
    why = lab.missing(binding) or obstacle(race, rules)
    if why is not None:
        pytest.skip(why)
    found = None
    tried = 0
    for each in explore(race, rules, lab, preemptions=1, wrong=[] if mistake is None else [mistake]):
        tried += 1
        if not each.good:
            found = each
            break
    if mistake is None:
        assert tried > 5
        assert found is None, f"{found.race.schedule}: {found.comparison.reason}"
    else:
        assert found is not None
        assert found.comparison.verdict is Verdict.FAIL


def test_an_actor_is_parked_where_it_is_meant_to_and_others_are_seen_to_wait(lab: Lab) -> None:
    race = replace(_race("race/lock"), schedule=parse_schedule("x@walk.valid y! x y"))
    execution = lab.execute(race, "mirror", wrong=[], timeout=60)
    course = execution.course
    assert course is not None
    assert [stop.ending for stop in course.stops] == [Ending.PARKED, Ending.BLOCKED, Ending.ENDED, Ending.ENDED]
    assert course.stops[1].where, "it is said where"
    assert course.expired == 0
    gates = [[passing.gate for passing in passings] for passings in course.passings]
    assert Gate.WALK_VALID in gates[0]
    assert gates[1][0] is Gate.INVALIDATE_BEGIN
    assert Gate.INVALIDATE_LOCKED in gates[1]
    comparison = judge(race, rules_for("mirror", lab.features()), execution)
    assert comparison.verdict is Verdict.PASS, comparison.reason


@pytest.mark.parametrize("binding", BINDINGS)
def test_the_timeline_of_a_found_mistake(lab: Lab, binding: str) -> None:
    race = recorded(_race("race/lock"))
    rules = rules_for(binding, lab.features())
    why = lab.missing(binding) or obstacle(race, rules)
    if why is not None:
        pytest.skip(why)
    found = next(each for each in explore(race, rules, lab, preemptions=1, wrong=["skip-retry"]) if not each.good)
    assert found.execution is not None
    course = found.execution.course
    assert course is not None
    timeline = draw(found.race, found.comparison, found.execution.observations, course)
    times = [row.time for row in timeline.rows if row.time is not None]
    assert times == sorted(times)
    (parked,) = [row for row in timeline.rows if row.kind is Kind.PARKED]
    assert timeline.actors[parked.actor or 0] == "x"
    heard = next(row for row in timeline.rows if row.kind is Kind.EVENT and "buf[0:2]" in row.text)
    assert timeline.actors[heard.actor or 0] == "y"
    assert parked.time is not None
    assert heard.time is not None
    assert parked.time < heard.time
    looks = [row for row in timeline.rows if row.kind is Kind.TABLES]
    if any(strip.note for row in looks for strip in row.strips if strip.who == "CPU a"):
        pytest.skip("needs hmm_range_fault(), which this kernel does not have, to look at the CPU's page table")
    cpu = [next(strip.runs for strip in row.strips if strip.who == "CPU a") for row in looks]
    device = [next(strip.runs for strip in row.strips if strip.who == "d0") for row in looks]
    assert [run.entry for run in cpu[0]] == ["rw"]
    assert [run.entry for run in cpu[-1]] == ["-", "rw"]
    assert [run.entry for run in device[0]] == ["-"]
    assert any(run.stale for run in device[-1])
    first = next(row for row in timeline.rows if row.broken)
    assert "from here on d0's buf[1] contradicts the CPU's page table" in first.broken
    assert any("saw rw STALE" in line for line in timeline.rows[-1].broken)
    assert any("rw STALE" in line for line in timeline_text.render(timeline))


@pytest.mark.parametrize("binding", BINDINGS)
def test_a_look_waits_for_nobody_and_changes_nothing(lab: Lab, binding: str) -> None:
    """Whoever is parked with the lock, or in an invalidation, is not waited for."""
    race = _race("race/valid")
    for schedule in ("x@walk.valid y! x y", "y@invalidate.begin x y", "y@invalidate.removed x! y x"):
        looked = recorded(replace(race, schedule=parse_schedule(schedule)))
        execution = lab.execute(looked, binding, wrong=[], timeout=60)
        course = execution.course
        assert course is not None
        assert course.expired == 0
        comparison = judge(looked, rules_for(binding, lab.features()), execution)
        assert comparison.verdict is Verdict.PASS, comparison.reason
        assert len(course.sights[0]) == len(course.stops) + 1
        for sight in course.sights[0]:
            assert not isinstance(sight.table, int)
            assert not any(Mark.STALE in entry.marks for entry in sight.table)


def test_the_same_gate_of_another_device_lets_an_actor_pass(lab: Lab) -> None:
    race = parse(
        "a: map buf anon 2 rw\na: write buf 10\nd0: bind a\nd1: bind a\n"
        "actor x: a: advise buf dontneed\nactor y: d1: fault buf read\n"
        "schedule x@invalidate.end:d1 x y",
        file="x",
    )
    assert isinstance(race, Race)
    course = lab.execute(race, "mirror", wrong=[], timeout=60).course
    assert course is not None
    assert course.stops[0].ending is Ending.PARKED
    ends = [passing for passing in course.passings[0] if passing.gate is Gate.INVALIDATE_END]
    assert {passing.device for passing in ends} == {0, 1}
    never = replace(race, schedule=parse_schedule("x@unbind.end x y"))
    course = lab.execute(never, "mirror", wrong=[], timeout=60).course
    assert course is not None
    assert course.stops[0].ending is Ending.ENDED
