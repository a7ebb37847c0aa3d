# SPDX-License-Identifier: GPL-2.0-only
"""Races: their text form, their schedules, and the verdict on what was seen of one."""

from __future__ import annotations

from dataclasses import replace
from math import factorial, prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare import Verdict, obstacle
from harness.conformance import catalogue
from harness.explore.schedules import schedules, serial, share
from harness.model.rules import FEATURES, RULES, rules_for
from harness.program.observations import NO_MARKS, Element, Entry, Mark, Observation, Status
from harness.program.operations import DEVICES, Span, Table, Usage, Write
from harness.program.race import (
    MAX_SEGMENTS,
    Course,
    Ending,
    Gate,
    Race,
    Schedule,
    ScheduleError,
    Segment,
    Stop,
    merges,
    parse_schedule,
)
from harness.program.text import ProgramSyntaxError, parse, render
from harness.pytest_plugin.model import Model
from harness.serial import judge_race, possible_orders

TEXT = """\
# A promise.
a: map buf anon 2 rw
a: write buf 10
d0: bind a
actor x: d0: fault buf write
actor y: a: advise buf dontneed
schedule x@walk.lock y x
"""
RULE = rules_for("interval", set(FEATURES))
DONE = Observation(Status.DONE)


def _race(text: str = TEXT) -> Race:
    race = parse(text, file="x.hmm", name="x")
    assert isinstance(race, Race)
    return race


def _error(text: str) -> ProgramSyntaxError:
    with pytest.raises(ProgramSyntaxError) as caught:
        parse(text, file="x.hmm")
    return caught.value


def test_a_race_reads_back() -> None:
    race = _race()
    assert render(race) == TEXT
    assert [actor.name for actor in race.actors] == ["x", "y"]
    assert (race.first, race.last, race.after) == (3, 5, 0)
    assert race.title == "A promise."


def test_what_came_of_it_is_checked_without_being_asked_for() -> None:
    race = _race(TEXT + "a: read buf[0]\n")
    assert race.after == 1
    checks = race.steps[race.last + race.after :]
    assert Table("d0", Span("buf", 0, 2)) in checks
    assert checks[-1] == Usage("d0")
    assert "table" not in render(race)


def test_steps_and_lines_of_actors_can_be_mixed() -> None:
    text = TEXT.replace(
        "actor y: a: advise buf dontneed\n", "actor y: a: advise buf dontneed\nactor x: d0: table buf\n"
    )
    race = _race(text)
    assert [len(actor.steps) for actor in race.actors] == [2, 1]
    assert _race(render(race)) == race


segments = st.builds(
    Segment,
    st.sampled_from(["x", "y", "z1"]),
    st.sampled_from(list(Gate)),
    st.integers(1, 999),
    st.sampled_from([None, *DEVICES]),
    st.booleans(),
) | st.builds(Segment, st.sampled_from(["x", "y"]), waits=st.booleans())


@given(st.lists(segments, min_size=1, max_size=MAX_SEGMENTS))
def test_every_schedule_reads_back(words: list[Segment]) -> None:
    schedule = Schedule(tuple(words))
    assert parse_schedule(str(schedule)) == schedule


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "empty"),
        ("x@", "no segment"),
        ("x@walk", "no gate 'walk'"),
        ("x#2", "no segment"),
        ("x@walk.lock#0", "no segment"),
        ("x@walk.lock:d7", "no device 'd7'"),
        ("x " * (MAX_SEGMENTS + 1), "more than"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_refused(text: str, what: str) -> None:
    with pytest.raises(ScheduleError, match=what) as caught:
        parse_schedule(text)
    assert caught.value.hint or what == "more than"


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("schedule x@walk.lock y x\n", "", 6, "actors and a schedule"),
        ("schedule x@walk.lock y x", "schedule z", 7, "no actor 'z'"),
        ("schedule x@walk.lock y x", "schedule x@nowhere", 7, "no gate 'nowhere'"),
        ("actor y: a: advise buf dontneed", "actor y: d0: unbind", 5, "in another order"),
        ("actor y: a: advise buf dontneed", "actor y: d1: bind a", 6, "nothing for an actor"),
        ("actor y: a: advise buf dontneed", "actor x: a: advise buf dontneed", 6, "make two actors"),
        ("actor y: a: advise buf dontneed", "actor y: a: write buf 5 => nothing", 6, "changes something"),
        ("actor y: a: advise buf dontneed", "actor y: d0: snapshot buf => in-use 1", 6, "cannot promise"),
        ("actor y: a: advise buf dontneed", "actor y: d0: usage => nothing", 6, "cannot promise"),
        ("actor y: a: advise buf dontneed", "actor y: d0: snapshot buf =>", 6, "nothing behind =>"),
        ("actor y: a: advise buf dontneed", "a: read buf\nactor y: a: read buf", 7, "an actor behind the race"),
        (
            "actor y: a: advise buf dontneed",
            "actor y: a: map more anon 9999 rw\nactor y: a: read more",
            7,
            "at most 512",
        ),
        ("actor y: a: advise buf dontneed", "actor y: a: exit\nactor z: a: read buf", 7, "has exited"),
        ("actor y: a: advise buf dontneed", "actor z: a: read buf\nactor y: a: exit", 5, "goes on"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_line(old: str, new: str, line: int, what: str) -> None:
    assert old in TEXT
    error = _error(TEXT.replace(old, new))
    assert what in f"{error}; {error.hint}"
    assert error.line == line


def test_two_actors_cannot_both_make_regions() -> None:
    race = TEXT + "actor z"
    text = race.replace("actor z", "").replace(
        "schedule", "actor y: a: map m anon 1 rw\nactor z: a: map n anon 1 rw\nschedule"
    )
    assert "two actors make regions" in str(_error(text))


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), max_size=3))
def test_merges_are_all_orders_and_each_once(lengths: list[int]) -> None:
    queues = [tuple((queue, at) for at in range(length)) for queue, length in enumerate(lengths)]
    numbers = {item: number for number, item in enumerate(item for queue in queues for item in queue)}
    found = list(merges([tuple(numbers[item] for item in queue) for queue in queues]))
    assert len(found) == len(set(found)) == factorial(sum(lengths)) // prod(map(factorial, lengths))
    for order in found:
        assert sorted(order) == sorted(numbers.values())


# The verdict


def _course(race: Race, *times: tuple[int, int], stops: tuple[Stop, ...] = (), expired: int = 0) -> Course:
    parked = (Stop(Ending.PARKED), Stop(Ending.ENDED), Stop(Ending.ENDED))
    return Course(stops or parked, times or ((1, 4), (2, 3)), expired, ((),) * len(race.actors))


def _in_order(race: Race, *names: str) -> list[Observation]:
    """What the model shows if the actors with these names run one after the other, in the order of `race.steps`."""
    numbers = {actor.name: number for number, actor in enumerate(race.actors, race.first)}
    order = [numbers[name] for name in names]
    seen = list(Model(RULE).obedient(race.in_order(order)))
    placed = dict(zip(order, seen[race.first : race.last], strict=True))
    return [*seen[: race.first], *(placed[number] for number in sorted(placed)), *seen[race.last :]]


@pytest.mark.parametrize("names", ["xy", "yx"])
def test_what_some_order_shows_is_allowed_of_steps_that_overlap(names: str) -> None:
    race = _race()
    assert judge_race(race, RULE, _in_order(race, *names), _course(race)).verdict is Verdict.PASS


def _with(seen: list[Observation], number: int, *elements: Element) -> list[Observation]:
    return [*seen[:number], replace(seen[number], elements=elements), *seen[number + 1 :]]


def test_a_stale_entry_is_allowed_in_no_order() -> None:
    race = _race()
    table = race.steps.index(Table("d0", Span("buf", 0, 2)))
    stale = Entry(Mark.VALID | Mark.WRITE | Mark.STALE)
    found = judge_race(race, RULE, _with(_in_order(race, "x", "y"), table, stale, stale), _course(race))
    assert found.verdict is Verdict.FAIL
    assert "in none of 2 orders" in found.reason
    assert "STALE" in found.reason
    assert found.divergence is not None
    assert found.program is not None
    assert found.divergence.step == table


WRITES = """\
a: map buf anon 1 rw
a: write buf 10
actor x: a: write buf 20
actor y: a: write buf 30
a: read buf
schedule x y
"""


@pytest.mark.parametrize(("last", "allowed"), [(30, True), (20, False), (10, False)])
def test_what_ended_first_comes_first(last: int, allowed: bool) -> None:
    race = _race(WRITES)
    read = race.last
    seen = _with(_in_order(race, "x", "y"), read, last)
    seen = _with(seen, len(seen) - 1, last)
    course = _course(race, (1, 2), (3, 4), stops=(Stop(Ending.ENDED), Stop(Ending.ENDED)))
    assert list(possible_orders(race, course)) == [(2, 3)]
    assert (judge_race(race, RULE, seen, course).verdict is Verdict.PASS) == allowed
    overlapping = _course(race, (1, 4), (2, 3), stops=course.stops)
    assert len(list(possible_orders(race, overlapping))) == 2
    assert (judge_race(race, RULE, seen, overlapping).verdict is Verdict.PASS) == (last != 10)


def test_an_actor_that_was_parked_for_too_long_proves_nothing() -> None:
    race = _race()
    found = judge_race(race, RULE, _in_order(race, "x", "y"), _course(race, expired=1))
    assert found.verdict is Verdict.INCONCLUSIVE


def test_a_schedule_that_was_not_followed_proves_nothing() -> None:
    race = _race()
    ended = (Stop(Ending.ENDED),) * 3
    seen = _in_order(race, "x", "y")
    assert judge_race(race, RULE, seen, _course(race, stops=ended)).verdict is Verdict.INCONCLUSIVE
    assert judge_race(race, RULE, seen, _course(race, stops=ended), strict=False).verdict is Verdict.PASS


def test_who_is_not_made_to_wait_is_told() -> None:
    race = replace(_race(), schedule=parse_schedule("x@walk.valid y! x"))
    seen = _in_order(race, "x", "y")
    waits = (Stop(Ending.PARKED), Stop(Ending.BLOCKED, where="hh_mirror_lock"), Stop(Ending.ENDED))
    assert judge_race(race, RULE, seen, _course(race, stops=waits)).verdict is Verdict.PASS
    found = judge_race(race, RULE, seen, _course(race))
    assert found.verdict is Verdict.FAIL
    assert "y was to be made to wait, and went on to its end" in found.reason


PROMISED = TEXT.replace("schedule", "actor z: d0: snapshot buf => nothing\nactor z: d0: usage => in-use 3\nschedule")


def test_a_promise_is_judged_by_itself() -> None:
    race = _race(PROMISED)
    assert _race(render(race)) == race
    seen = list(Model(RULE).obedient(race))
    at = race.first + 2
    nothing = Entry(NO_MARKS)
    seen = _with(_with(seen, at, nothing, nothing), at + 1, 3, 3, 0, 0, 0, 0)
    course = _course(race, (1, 8), (2, 3), (4, 5), (6, 7))
    assert judge_race(race, RULE, seen, course).verdict is Verdict.PASS
    shown = judge_race(race, RULE, _with(seen, at, Entry(Mark.VALID), nothing), course)
    assert shown.verdict is Verdict.FAIL
    assert "page 0: saw r, promised is nothing" in shown.reason
    counted = judge_race(race, RULE, _with(seen, at + 1, 4, 4, 0, 0, 0, 0), course)
    assert "in-use: saw 4, promised is 3" in counted.reason


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (Status.STUCK, Verdict.TIMEOUT),
        (Status.UNSUPPORTED, Verdict.SKIP),
        (Status.NOT_RUN, Verdict.ERROR),
    ],
)
def test_a_race_that_did_not_come_to_an_end(status: Status, verdict: Verdict) -> None:
    race = _race()
    seen = _in_order(race, "x", "y")
    rest = [Observation(Status.NOT_RUN)] * (len(seen) - race.first - 1)
    found = judge_race(race, RULE, [*seen[: race.first], Observation(status), *rest], None)
    assert found.verdict is verdict


def test_where_there_are_no_gates_a_race_is_skipped() -> None:
    race = _race()
    features = set(FEATURES)
    assert "gates" in (obstacle(race, rules_for("test_hmm", features)) or "")
    assert obstacle(race, rules_for("mirror", features)) is None
    sequence = replace(race, schedule=parse_schedule("x@walk.sequence y x"))
    assert "interval" in (obstacle(sequence, rules_for("mirror", features)) or "")
    needy = replace(race, needs=("MIGRATE_FAULT_PAGE",))
    assert obstacle(needy, rules_for("interval", features)) is None
    assert "holds on to it" in (obstacle(needy, rules_for("interval", features - {"MIGRATE_FAULT_PAGE"})) or "")


# All schedules

TRACE = {"x": (Gate.WALK_BEGIN, Gate.WALK_SEEN, Gate.WALK_LOCK, Gate.WALK_END), "y": (Gate.INVALIDATE_BEGIN,)}


def test_serial_schedules_interrupt_nobody() -> None:
    assert [str(each) for each in serial(_race())] == ["x y", "y x"]


def test_schedules_interrupt_where_something_happened() -> None:
    found = [str(each) for each in schedules(_race(), TRACE, 1)]
    assert found == ["x@walk.seen y x", "x@walk.lock y x", "y@invalidate.begin x y"]


def test_two_interruptions_also_come_back() -> None:
    found = [str(each) for each in schedules(_race(), TRACE, 2)]
    assert "x@walk.seen y@invalidate.begin x y" in found
    assert "y@invalidate.begin x@walk.lock y x" in found
    assert all(each.count("@") == 2 for each in found)
    assert len(found) == len(set(found))


def test_a_gate_that_comes_twice_is_told_apart() -> None:
    traces = {**TRACE, "x": (*TRACE["x"][:3], *TRACE["x"])}
    found = [str(each) for each in schedules(_race(), traces, 1)]
    assert "x@walk.lock#2 y x" in found
    assert "x@walk.begin y x" not in found
    assert "x@walk.begin#2 y x" in found


def test_an_actor_is_not_interrupted_for_one_that_shares_nothing() -> None:
    text = TEXT.replace("fault buf write", "fault buf[0] write").replace(
        "advise buf dontneed", "advise buf[1] dontneed"
    )
    race = _race(text)
    assert not share(*race.actors)
    assert not list(schedules(race, TRACE, 1))
    assert len(list(serial(race))) == 2


def test_every_schedule_runs_each_actor_to_its_end() -> None:
    race = _race(PROMISED)
    traces = {**TRACE, "z": (Gate.WALK_SEEN,)}
    found = list(schedules(race, traces, 2))
    assert found
    for schedule in found:
        last = {segment.actor: segment for segment in schedule.segments}
        assert set(last) == {"x", "y", "z"}
        assert all(segment.gate is None for segment in last.values())


RACES = [race for race in catalogue.select([f"{catalogue.RACES}*"]) if isinstance(race, Race)]


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.name)
def test_every_race_of_the_product_can_run_somewhere_and_is_interrupted(race: Race) -> None:
    assert any(obstacle(race, rules_for(binding, set(FEATURES))) is None for binding in RULES)
    assert any(segment.gate is not None for segment in race.schedule.segments)
    assert any(share(one, other) for one in race.actors for other in race.actors)
    assert not any(isinstance(step, Write) and not step.token for step in race.steps)
    assert set(race.needs) <= set(FEATURES)
