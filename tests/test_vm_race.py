# SPDX-License-Identifier: GPL-2.0-only
"""Forced races on a real kernel: gates, exploration, and the mistakes that it takes a race to see."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.compare import Verdict, obstacle
from harness.conformance import catalogue
from harness.explore.races import explore
from harness.model.rules import rules_for
from harness.program.race import Ending, Gate, Race, parse_schedule
from harness.program.text import parse
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
