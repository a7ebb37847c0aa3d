# SPDX-License-Identifier: GPL-2.0-only
"""The deterministic machine on a real kernel: the same seed shows the same bytes, and what is wrong is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.compare import Verdict
from harness.conformance import catalogue
from harness.explore.seeds import Game, Played, assemble, judge_run, patience, try_seeds
from harness.program.race import Race, loose
from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.clockwork import Player, command_line, cpus_of, provide_initrd
from harness.target.gdbstub import Stub, free_port, run_to_round
from harness.target.module import build_module
from harness.target.registers import read_symbols
from harness.target.vm import Machine

pytestmark = pytest.mark.vm

ROUNDS = 5


@pytest.fixture(scope="module")
def game(machine: Machine, cache: Cache, progress: Progress) -> Game:
    (race,) = catalogue.select(["race/lock"])
    assert isinstance(race, Race)
    kernel = machine.kernel
    module = build_module(kernel, cache=cache, progress=progress)
    initrd = provide_initrd(kernel, module, cache=cache, progress=progress)
    cpus = cpus_of(kernel, initrd, cache=cache, progress=progress)
    symbols = {name: address for address, name in read_symbols(kernel.build / "System.map")}
    marks = (symbols["devkmsg_write"], symbols["devkmsg_read"]) if "devkmsg_write" in symbols else None
    append = command_line(kernel)
    return Game(
        (loose(race),), "interval", kernel.image, initrd, append, rounds=ROUNDS, shift=3, cpus=cpus, marks=marks
    )


@pytest.fixture(scope="module")
def played(game: Game) -> Played:
    """Seed 1, on the driver as it is."""
    (played,) = try_seeds(game, [1], vms=1)
    return played


def test_the_same_seed_shows_the_same_and_another_does_not(game: Game, played: Played) -> None:
    assert played.comparison.verdict is Verdict.PASS, played.comparison.reason
    assert played.answer is not None
    assert played.answer.cpus == game.cpus
    assert any("hmm_harness" in line for line in played.answer.boot), "the log is there from the boot on"
    same, other = try_seeds(game, [1, 2], vms=2)
    assert same.run.console == played.run.console
    assert same.run.answer == played.run.answer
    assert other.run.fingerprint != played.run.fingerprint


def test_what_is_wrong_is_found_and_stays_found(game: Game) -> None:
    wrong = replace(game, wrong=("skip-invalidate",))
    one, same = try_seeds(wrong, [3, 3], vms=2)
    assert one.comparison.verdict is Verdict.FAIL
    assert "STALE" in one.comparison.reason
    assert (one.number, one.comparison, one.run.fingerprint) == (same.number, same.comparison, same.run.fingerprint)


def test_a_debugger_stops_it_before_a_round(game: Game, tmp_path: Path) -> None:
    if game.marks is None:
        pytest.skip("needs a System.map")
    port = free_port()
    with Player(assemble(game, 1, tmp_path), tmp_path, gdb=port) as player:
        run_to_round(port, game.marks, 3, seconds=patience(game))
        with Stub(port) as stub:
            assert stub._ask("?").startswith("T05")
            stub._socket.settimeout(patience(game))
            assert stub._ask("c").startswith("W00")
        run = player.finish(patience(game))
    judged = judge_run(game, 1, run)
    assert judged.comparison.verdict is Verdict.PASS, judged.comparison.reason
