# SPDX-License-Identifier: GPL-2.0-only
"""The table of recorded deviations against the model: what a kernel does, tests/test_vm_programs.py knows."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from harness.conformance import catalogue, deviations
from harness.model.allowed import RECORDED
from harness.model.rules import FEATURES, RULES
from tests.guest_executor import ROOT

TABLE = deviations.load()
SHOWN = [(row.name, shown) for row in TABLE.rows for shown in row.shown]


def test_each_recorded_deviation_has_one_row_and_a_program() -> None:
    assert sorted(row.name for row in TABLE.rows) == sorted(RECORDED)
    assert all(row.shown for row in TABLE.rows)
    assert all(shown.programs and shown.bindings for _, shown in SHOWN)


def test_programs_bindings_and_features_are_there() -> None:
    assert (ROOT / "kmod/probes/HMM_MIRROR.c").exists()
    features = {*FEATURES, "HMM_MIRROR"}
    known = set(catalogue.names())
    for _, shown in SHOWN:
        assert set(shown.programs) <= known
        assert set(shown.bindings) <= RULES.keys()
        assert {*shown.needs, *shown.lacks} <= features


def test_nothing_is_said_twice() -> None:
    for (name, one), (other, two) in combinations(SHOWN, 2):
        if name == other and not (set(one.needs) & set(two.lacks) or set(two.needs) & set(one.lacks)):
            same = {(program, binding) for program in one.programs for binding in one.bindings} & {
                (program, binding) for program in two.programs for binding in two.bindings
            }
            assert not same, f"{name}: {same}"


def test_where_a_deviation_shows_depends_on_the_kernel() -> None:
    old, new = {"DEVMEM"}, {"DEVMEM", "MIGRATE_FAULT_PAGE"}
    assert TABLE.expected(old)["migrate/other-device", "interval"] == {"remote-refused"}
    assert ("migrate/other-device", "interval") not in TABLE.expected(new)
    assert ("migrate/other-device", "mirror") not in TABLE.expected(old)
    assert ("devmem/own-faulted-along", "mirror") not in TABLE.expected(set())


def test_the_table_can_be_read_by_people() -> None:
    text = "\n".join(deviations.describe(TABLE))
    for name, deviation in RECORDED.items():
        assert name in text
        assert deviation.source in text
    for each in TABLE.unshown:
        assert each.why in text


def test_a_table_in_another_form_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.toml"
    table.write_text('unshown = []\n[[deviation]]\nname = "x"\n[[deviation.shown]]\nprogrammes = []\n')
    with pytest.raises(TypeError, match="programmes"):
        deviations.load(table)
