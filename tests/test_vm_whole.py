# SPDX-License-Identifier: GPL-2.0-only
"""Huge pages that are to move whole do so: where the model demands it only if it was seen that there is one.

A kernel, or a driver, that never has huge pages, or splits them all before, would else pass every program.
"""

from __future__ import annotations

import pytest

from harness.compare import Verdict, compare
from harness.conformance import catalogue
from harness.model.rules import rules_for
from harness.program.observations import Entry, Mark
from harness.program.operations import Call, Move, Snapshot
from harness.target.lab import Lab

pytestmark = pytest.mark.vm

WHOLE = Mark.COLLECTED | Mark.COMPOUND | Mark.MOVED | Mark.WHOLE
TAKEN = Mark.COLLECTED | Mark.COMPOUND
# Of each program, what each of its compound moves has to show of all pages. What goes to system memory is taken
# whole, but need not stay that: the system need not have 2 MiB in one piece.
DEMANDED = {
    "move/whole": [WHOLE],
    "move/whole-for-sure": [WHOLE, WHOLE, TAKEN | Mark.MOVED],
    "move/whole-zero-for-sure": [WHOLE],
    "move/whole-hole": [WHOLE],
    "move/whole-between-devices": [WHOLE, WHOLE],
    "move/whole-back": [WHOLE, WHOLE, TAKEN | Mark.MOVED, TAKEN | Mark.MOVED],
    "move/whole-in-pieces": [TAKEN | Mark.MOVED],
    "move/whole-stays": [TAKEN],
    "move/whole-full": [TAKEN],
    "move/whole-part": [WHOLE],
}


@pytest.mark.parametrize("name", DEMANDED)
def test_what_is_to_move_whole_does(lab: Lab, name: str) -> None:
    if "FOLIO_SPLIT" not in lab.features():
        pytest.skip("needs MIGRATE_VMA_SELECT_COMPOUND")
    (program,) = catalogue.select([name])
    execution = lab.execute(program, "interval", wrong=(), timeout=120)
    rules = rules_for("interval", lab.features())
    judged = compare(program, rules, execution.observations)
    assert judged.verdict in (Verdict.PASS, Verdict.DEVIATION), judged
    moves = [
        execution.observations[number].elements
        for number, step in enumerate(program.steps)
        if isinstance(step, Move) and step.call is Call.COMPOUND
    ]
    assert len(moves) == len(DEMANDED[name])
    for move, demanded in zip(moves, DEMANDED[name], strict=True):
        assert len(move) == 512
        for element in move:
            assert isinstance(element, Entry) and element.marks & demanded == demanded, f"{element}, not {demanded}"


def test_it_is_seen_that_there_are_huge_pages(lab: Lab) -> None:
    """Else the model would not demand anything of the programs that are for sure."""
    if "FOLIO_SPLIT" not in lab.features():
        pytest.skip("needs MIGRATE_VMA_SELECT_COMPOUND")
    for program in catalogue.select(["move/whole-for-sure", "move/whole-zero-for-sure"]):
        execution = lab.execute(program, "interval", wrong=(), timeout=120)
        number = next(number for number, step in enumerate(program.steps) if isinstance(step, Snapshot))
        orders = {element.order for element in execution.observations[number].elements if isinstance(element, Entry)}
        assert orders == {9}, program.name
