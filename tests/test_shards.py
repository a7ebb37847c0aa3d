# SPDX-License-Identifier: GPL-2.0-only
"""The pieces that an exploration is cut into for other machines, and what becomes of them in a worker; no VM."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from harness.explore import campaign, generate, slots
from harness.explore.campaign import Started, Terms, begin, explore_unit, target_hash
from harness.explore.findings import Store
from harness.explore.shards import Shard, Task, code_hash, told_by
from harness.explore.slots import Order, Slots, StrangerError, failure, ready
from harness.program.text import parse, render
from harness.target.lab import Lab
from harness.target.vm import Machine
from tests import fake_slots
from tests.test_explore import FINDING, FakeMachine, ModelLab

TERMS = Terms(seed=3, bindings=("interval", "mirror"), programs=64, shard=(1, 3), command=("python", "-m", "harness"))
TARGET = target_hash(cast(Machine, FakeMachine()), ())
BLANK = Shard(Task.PREPARE, "debian:6.1", "plain", TERMS, code_hash(), target=TARGET)
LOOK = replace(BLANK, task=Task.LOOK, finding=replace(FINDING, before=(FINDING.program,)), place="/kept/program.hmm")


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "_BATCHES", fake_slots.BATCHES)
    monkeypatch.setattr(campaign, "_BATCH", fake_slots.BATCH)
    monkeypatch.setattr(generate, "_LONG", fake_slots.LONG)


@pytest.mark.parametrize(
    "shard",
    [BLANK, LOOK, replace(BLANK, task=Task.EXPLORE, number=7, corpus=(render(FINDING.program),), met=("a", "b"))],
)
def test_a_shard_goes_through_json_unchanged(shard: Shard) -> None:
    text = Order("campaign", "instance", shard, 3).dump()
    json.loads(text)
    assert Order.load(text) == Order("campaign", "instance", shard, 3)


def _asked(worker: Slots, shard: Shard | None, campaign: str = "c", instance: str = "") -> str:
    return worker.do(Order(campaign, instance, shard).dump())


def _unit(started: Started, number: int) -> Shard:
    return replace(
        BLANK,
        task=Task.EXPLORE,
        number=number,
        begun=started.begun,
        corpus_hash=started.corpus_hash,
        corpus=tuple(render(program) for program in started.corpus),
        met=tuple(started.met),
    )


def test_a_unit_comes_to_the_same_wherever_it_is_explored(tmp_path: Path) -> None:
    """Also the second one, of which the programs are variations of what the first one met."""
    with Store(tmp_path) as store:
        for number in (1, 4):
            started = begin(TERMS, TARGET, store)
            here = explore_unit(started, number, fake_slots.lab())
            there = list(told_by(_asked(fake_slots.slots(), _unit(started, number)), BLANK))
            told = there[-1]
            assert told.unit is not None
            timeless: dict[str, Any] = {"seconds": 0.0, "began": 0.0, "ended": 0.0}
            assert replace(told.unit, **timeless) == replace(here.done, **timeless)
            assert told.unit.kernel == "debian:6.1"
            assert [(each.steps, new) for each, new in told.corpus] == [(e.steps, new) for e, new in here.corpus]
            assert told.corpus
            suspicions = [each.suspicion for each in there[:-1] if each.suspicion is not None]
            assert [each.symptom for each in suspicions] == [each.symptom for each in here.suspicions]
            assert [each.found.steps for each in suspicions] == [each.found.steps for each in here.suspicions]
            for program, new in told.corpus:
                store.add_program(program, new)


def test_what_is_not_what_the_shard_was_made_for_is_not_begun() -> None:
    worker = fake_slots.slots()
    unit = replace(BLANK, task=Task.EXPLORE, number=1)
    for shard, why in (
        (replace(unit, code="another"), "another version of hmm-harness"),
        (replace(unit, target="another"), "another kernel, module or guest"),
    ):
        error = failure(_asked(worker, shard))
        assert error is not None
        assert why in error.message
    assert failure(_asked(worker, unit)) is None


def test_an_order_for_a_worker_that_is_gone_is_nobody_else_s() -> None:
    worker, other = fake_slots.slots(), fake_slots.slots()
    told = ready(_asked(worker, BLANK))
    assert told.target == TARGET
    unit = replace(BLANK, task=Task.EXPLORE, number=1)
    assert failure(_asked(worker, unit, instance=told.instance)) is None
    with pytest.raises(StrangerError):
        _asked(other, unit, instance=told.instance)


class _CountingLab(ModelLab):
    alive = 0

    def vm(self) -> Any:
        if self._vm is None:
            _CountingLab.alive += 1
        return super().vm()

    def discard(self) -> None:
        if self._vm is not None:
            _CountingLab.alive -= 1
        super().discard()


def _counting(monkeypatch: pytest.MonkeyPatch) -> tuple[Slots, list[Callable[[], None]]]:
    """Slots with VMs that are counted, and what they put off."""
    later: list[Callable[[], None]] = []
    monkeypatch.setattr(slots, "_later", lambda _seconds, work: later.append(work))
    monkeypatch.setattr(_CountingLab, "alive", 0)
    worker = Slots(
        lambda _kernel, _flavour: cast(Machine, FakeMachine()),
        lambda _machine, _ending: cast(Lab, _CountingLab(defect=False, ran=[])),
    )
    return worker, later


def test_a_vm_stays_until_the_exploration_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, later = _counting(monkeypatch)
    for number in (1, 4):
        assert failure(_asked(worker, replace(BLANK, task=Task.EXPLORE, number=number))) is None
        assert _CountingLab.alive == 1
    later.pop()()
    assert _CountingLab.alive == 1, "somebody has just asked for it"
    _asked(worker, None)
    later.pop()()
    assert _CountingLab.alive == 0
    error = failure(_asked(worker, replace(BLANK, task=Task.EXPLORE, number=7)))
    assert error is not None
    assert "has ended" in error.message
    assert failure(_asked(worker, replace(BLANK, task=Task.EXPLORE, number=7), campaign="another")) is None


def test_a_vm_that_nobody_asks_for_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who started it may have been killed."""
    worker, later = _counting(monkeypatch)
    _asked(worker, replace(BLANK, task=Task.EXPLORE, number=1))
    monkeypatch.setattr(slots, "_IDLE_SECONDS", 0.0)
    later.pop()()
    assert _CountingLab.alive == 0


def test_a_finding_is_looked_into_and_looked_at_again() -> None:
    text = "a: map x anon 1 rw\nd0: bind a\na: write x 1\nd0: to-system x\nd0: table x\n"
    program = parse(text, file="x", name="x")
    finding = replace(FINDING, program=program, found=program, shown=0, runs=0, wrong=())
    worker = fake_slots.slots()
    look = replace(LOOK, terms=replace(TERMS, wrong=()), finding=finding)
    (told,) = told_by(_asked(worker, look), look)
    assert told.finding is not None
    assert (told.finding.shown, told.finding.runs, told.finding.symptom) == (5, 5, FINDING.symptom)
    assert told.finding.explanation[-1].endswith("/kept/program.hmm")
    again = replace(look, task=Task.AGAIN, finding=told.finding)
    (told_again,) = told_by(_asked(worker, again), again)
    assert told_again.again == (told.finding, True)
