# SPDX-License-Identifier: GPL-2.0-only
"""Exploration without a VM: the kernel is the model itself, but for one bug that programs have to run into."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.compare import Verdict, compare
from harness.errors import ExitCode, GuestError, UsageError
from harness.explore import campaign, generate
from harness.explore.campaign import Terms, explore
from harness.explore.findings import Finding, Store, Symptom, UnitDone, symptom_of
from harness.explore.generate import Generator
from harness.explore.shrink import sensible, shrink
from harness.explore.situations import situations
from harness.matrix import Resources
from harness.model.rules import FEATURES, RULES, rules_for
from harness.program.observations import Entry, Mark
from harness.program.operations import (
    DEVICE_OPERATIONS,
    SUBJECT_OPERATIONS,
    Advise,
    Bind,
    Fork,
    Map,
    Operation,
    Table,
    Write,
)
from harness.program.program import Program
from harness.program.text import parse, render
from harness.progress import Progress
from harness.pytest_plugin.model import Model
from harness.report.results import Report, Result
from harness.target.lab import Execution, Job, Leak
from harness.target.vm import Machine

EVERYTHING = tuple(FEATURES)
STALE = Entry(Mark.VALID | Mark.WRITE | Mark.STALE)


def _program(text: str, name: str = "x") -> Program:
    return parse(text, file=name, name=name)


def _drawn(binding: str, seed: int, count: int, features: Sequence[str] = EVERYTHING) -> list[Program]:
    generator = Generator(rules_for(binding, features), random := Random(seed))
    programs: list[Program] = []
    for number in range(count):
        if number % 3 == 2:
            programs.append(generator.variation(f"p{number}", random.choice(programs), random.choice(programs)))
        else:
            programs.append(generator.fresh(f"p{number}"))
    return programs


@pytest.mark.parametrize("binding", ["interval", "mirror"])
def test_what_is_drawn_is_a_program_and_depends_on_the_seed_alone(binding: str) -> None:
    programs = _drawn(binding, 7, 150)
    assert programs == _drawn(binding, 7, 150)
    assert programs != _drawn(binding, 8, 150)
    for program in programs:
        assert parse(render(program), file=program.name, name=program.name) == program


def test_every_operation_is_drawn_sooner_or_later() -> None:
    """Those of a new kind, too: nobody has to name them."""
    drawn = Counter(type(step) for program in _drawn("interval", 1, 4000) for step in program.steps)
    assert not {*SUBJECT_OPERATIONS, *DEVICE_OPERATIONS} - drawn.keys()


def test_what_the_kernel_or_the_binding_lacks_is_not_drawn() -> None:
    plain = {step.verb for program in _drawn("interval", 3, 400, ["DEVMEM"]) for step in program.steps}
    assert not plain & {"pin", "reap", "exclusive", "dma-map", "read-unlocked", "poison"}
    assert not {step.verb for program in _drawn("mirror", 3, 400) for step in program.steps} & {"request", "watch"}


def test_situations_are_told_apart() -> None:
    """The same step on another state is another situation; the same state is the same, whatever the numbers are."""
    met: dict[str, set[str]] = {}
    for name, text in {
        "one": "a: map b anon 4 rw\na: write b 1\nd0: bind a\nd0: read b",
        "same": "a: map b anon 2 rw\na: write b 7\nd0: bind a\nd0: read b",
        "other": "a: map b anon 4 rw\nd0: bind a\nd0: read b",
    }.items():
        program = _program(text)
        seen = met[name] = set()
        compare(
            program,
            RULES["interval"],
            Model().obedient(program),
            lambda state, step, seen=seen: seen.update(situations(state, step)),  # type: ignore[misc]
        )
    assert met["one"] == met["same"]
    assert met["other"] - met["one"]


def _shrunk(text: str, shows: Callable[[Program], bool]) -> tuple[Program, int]:
    asked = 0

    def first_failing(candidates: Sequence[Program]) -> int | None:
        nonlocal asked
        asked += len(candidates)
        return next((number for number, each in enumerate(candidates) if shows(each)), None)

    return shrink(_program(text), first_failing), asked


def _kinds(program: Program) -> list[type[Operation]]:
    return [type(step) for step in program.steps]


def test_shrinking_keeps_what_matters_and_nothing_else() -> None:
    text = """\
a: map left shared 8 r
a: map right anon 8 rw
a: write left[0:4] 77
d0: bind a
a: write right[3:7] 500
a: fork b
b: read right
d0: read right
a: advise right[4:6] dontneed
d0: snapshot right
d0: table right
b: exit
"""

    def shows(program: Program) -> bool:
        kinds = _kinds(program)
        return Advise in kinds and Table in kinds[kinds.index(Advise) :]

    smallest, _ = _shrunk(text, shows)
    assert render(replace(smallest, title="")) == (
        "a: map right anon 1 rw\nd0: bind a\na: advise right dontneed\nd0: table right\n"
    )


def test_shrinking_gives_a_child_s_work_to_its_parent_unless_the_child_matters() -> None:
    text = "a: map x anon 4 rw\na: fork b\nb: write x 9\nb: read x"
    smallest, _ = _shrunk(text, lambda program: Write in _kinds(program))
    assert _kinds(smallest) == [Map, Write]
    smallest, _ = _shrunk(text, lambda program: {Write, Fork} <= {*_kinds(program)})
    assert {*_kinds(smallest)} == {Map, Write, Fork}


def test_shrinking_asks_for_many_at_once_and_ends() -> None:
    """A program that shows it whatever is left out ends as one step; one that does not otherwise, as it is."""
    (program,) = _drawn("interval", 5, 1)
    smallest, _ = _shrunk(render(program), lambda program: bool(program.steps))
    assert len(smallest.steps) == 1
    whole = _program(render(program))
    kept, asked = _shrunk(render(program), lambda each: each.steps == whole.steps)
    assert kept == whole
    assert asked < 40 * len(program.steps)


def test_what_makes_no_sense_any_more_goes_with_what_it_needs() -> None:
    program = _program(
        "a: map x anon 4 rw\na: map y anon 2 rw\nd0: bind a\nd0: watch x one-pass\nd0: watched x\na: read y"
    )
    left = sensible("x", [step for step in program.steps if not (isinstance(step, Map) and step.region == "x")], "")
    assert [step.verb for step in left.steps] == ["map", "bind", "read"]


def _result(status: Verdict, **more: Any) -> Result:
    return Result("p", "k", "plain", "interval", status, more.pop("reason", ""), 0.0, "replay", **more)


def test_the_same_symptom_is_the_same_whatever_the_numbers_are() -> None:
    program = _program("a: map x anon 4 rw\nd0: bind a\nd0: table x")
    first = symptom_of(_result(Verdict.FAIL, step=2, details=("x[1]: saw rw STALE, allowed is -",)), program)
    other = symptom_of(_result(Verdict.FAIL, step=2, details=("x[3]: saw rw STALE, allowed is -",)), program)
    assert first == other
    assert first is not None
    assert str(first) == "FAIL on interval: table: saw rw STALE"
    another = symptom_of(_result(Verdict.FAIL, step=2, details=("x[3]: saw r, allowed is -",)), program)
    assert another not in (None, first)
    lost = symptom_of(_result(Verdict.FAIL, step=2, details=("x[3]: saw 0, allowed is 7",)), program)
    wrong = symptom_of(_result(Verdict.FAIL, step=2, details=("x[3]: saw 12, allowed is 7",)), program)
    assert lost != wrong
    report = Report("WARNING", "WARNING in do_swap_page", ())
    crash = symptom_of(_result(Verdict.CRASHED, reports=(report,), reason="..."), program)
    assert crash is not None
    assert crash.words == "WARNING in do_swap_page"
    for status in (Verdict.PASS, Verdict.DEVIATION, Verdict.SKIP, Verdict.ERROR, Verdict.INCONCLUSIVE):
        assert symptom_of(_result(status), program) is None


# What is kept

SYMPTOM = Symptom("interval", Verdict.FAIL, "table: saw rw STALE")
PROGRAM = _program("a: map x anon 1 rw\na: read x\n")
FINDING = Finding(SYMPTOM, "debian:6.1", "plain", "7/3", 5, 5, PROGRAM, PROGRAM, ("FAIL",), ("skip-invalidate",), 1.5)
UNIT = UnitDone(7, 3, "interval", "t", "c", 192, 4000, 3.5, {"PASS": 192}, 12, ("id",))


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add_unit(UNIT)
        store.add_program(PROGRAM, ["read: anon rw"])
        store.add_finding(replace(FINDING, shown=1))
        store.add_finding(FINDING)
    with Store(tmp_path) as store:
        assert list(store.units()) == [UNIT]
        programs, met = store.corpus()
        assert [each.steps for each in programs] == [PROGRAM.steps]
        assert met == {"read: anon rw"}
        (back,) = store.findings()
        assert (back.symptom, back.shown, back.wrong) == (SYMPTOM, 5, ("skip-invalidate",))
        assert back.program.steps == PROGRAM.steps
        assert parse(store.place(back.symptom).read_text(), file="x").steps == PROGRAM.steps


def test_a_process_that_is_killed_while_it_writes_loses_no_more_than_that(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add_unit(UNIT)
        with (tmp_path / "campaign.jsonl").open("a") as file:
            file.write(json.dumps({"seed": 7})[:-3])  # half a line
        (tmp_path / "findings/.half").mkdir()
        assert list(store.units()) == [UNIT]
    with Store(tmp_path) as store:
        assert not list((tmp_path / "findings").iterdir())
        store.add_unit(replace(UNIT, number=4))
        assert [unit.number for unit in store.units()] == [3, 4]


def test_one_process_at_a_time_explores_in_a_directory(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(UsageError, match="another process explores"), Store(tmp_path):
        pass


def test_a_corpus_of_another_vocabulary_is_no_trouble(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        (tmp_path / "corpus.jsonl").write_text(json.dumps({"program": "a: fly x\n", "situations": ["y"]}) + "\n")
        assert store.corpus() == ([], set())


# A whole exploration


@dataclass(frozen=True)
class FakeMachine:
    kernel: Any = field(
        default_factory=lambda: SimpleNamespace(name="debian:6.1", flavour="plain", key="k", append="")
    )
    image: Any = field(default_factory=lambda: SimpleNamespace(key="i"))
    payload: Any = field(default_factory=lambda: SimpleNamespace(key="p"))
    append: str = ""
    cpus: int = 2
    crowded: bool = False


class ModelLab:
    """The kernel does what the model allows.

    With a `defect`, the device keeps entries of what madvise() has just taken away. Every program but each
    `working`th ends in an ERROR; 0: all do.
    """

    is_ahead = False

    def __init__(self, *, defect: bool, ran: list[Program], working: int = 1) -> None:
        self.machine = FakeMachine()
        self.kernel = self.machine.kernel
        self.memo: object = None
        self._defect = defect
        self._ran = ran
        self._working = working
        self._vm: object = None

    def __enter__(self) -> ModelLab:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def vm(self) -> Any:
        self._vm = self._vm or SimpleNamespace(console="")
        return self._vm

    def discard(self) -> None:
        self.memo = self._vm = None

    def give_up(self) -> None:
        pass

    def expect(self, _jobs: Sequence[Job]) -> None:
        pass

    def leaks(self) -> tuple[Leak, ...]:
        return ()

    def broken(self) -> str | None:
        return None

    def missing(self, _binding: str) -> str | None:
        return None

    def features(self) -> tuple[str, ...]:
        return tuple(RULES["interval"].features)

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        assert not wrong
        assert timeout
        self._ran.append(program)
        if not self._working or len(self._ran) % self._working:
            raise GuestError("the agent does not answer")
        observations = list(Model(RULES[binding]).obedient(program))
        for number, (before, step) in enumerate(pairwise(program.steps), 1):
            if self._defect and isinstance(before, Advise) and isinstance(step, Table):
                told = observations[number]
                observations[number] = replace(told, elements=tuple(STALE for _ in told.elements))
        residue = dict.fromkeys(("d0", "d1", "c0", "c1"), 0)
        return Execution(tuple(observations), 0.001, (), (), (), residue)


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "_BATCHES", 2)
    monkeypatch.setattr(campaign, "_BATCH", 8)
    monkeypatch.setattr(generate, "_LONG", 8)


def _explore(
    place: Path,
    *,
    defect: bool = False,
    working: int = 1,
    vms: int = 1,
    publish: Callable[[bool], None] | None = None,
    **terms: Any,
) -> tuple[ExitCode, list[Program]]:
    ran: list[Program] = []
    resources = SimpleNamespace(
        lab=lambda _machine: ModelLab(defect=defect, ran=ran, working=working),
        vms=vms,
        progress=Progress(quiet=True),
    )
    with Store(place) as store:
        asked = replace(Terms(seed=3, bindings=("interval",)), **terms)
        code = explore(asked, cast(Machine, FakeMachine()), cast(Resources, resources), store, publish)
    return code, ran


def _units(place: Path) -> list[UnitDone]:
    return list(Store(place).units())


def test_a_kernel_that_keeps_its_promises_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, ran = _explore(tmp_path, programs=64, vms=2)
    assert code is ExitCode.PASS
    assert len({program.name for program in ran}) == 64
    assert sum(unit.programs for unit in _units(tmp_path)) == 64
    assert {status for unit in _units(tmp_path) for status in unit.verdicts} <= {"PASS", "DEVIATION", "SKIP"}
    assert "64 programs" in capsys.readouterr().out


def test_where_no_program_comes_to_a_verdict_nothing_is_explored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even slowly: it ends with the first programs of each VM, and the next exploration does their units."""
    with pytest.raises(GuestError, match=r"none of 8 programs of unit 3/\d came to a verdict.*the agent") as told:
        _explore(tmp_path, working=0, programs=640, vms=2)
    assert told.value.exit_code is ExitCode.INFRASTRUCTURE
    assert not _units(tmp_path)
    assert "nothing ran" in capsys.readouterr().out
    code, ran = _explore(tmp_path, programs=32)
    assert code is ExitCode.PASS
    assert [unit.number for unit in _units(tmp_path)] == [0, 1]
    assert len(ran) == 32


def test_a_program_without_a_verdict_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of many, another one takes its place."""
    code, _ = _explore(tmp_path, working=4, programs=32)
    assert code is ExitCode.PASS
    assert {unit.verdicts["ERROR"] for unit in _units(tmp_path)} == {12}
    assert "24 ERROR" in capsys.readouterr().out


def test_who_had_no_time_to_test_anything_says_so(tmp_path: Path) -> None:
    code, ran = _explore(tmp_path, seconds=0.0)
    assert (code, ran) == (ExitCode.SKIPPED, [])


def test_who_shows_it_is_called_now_and_then_and_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "_PUBLISH_SECONDS", 0.0)
    done: list[tuple[bool, int]] = []
    _explore(tmp_path, programs=32, publish=lambda last: done.append((last, len(_units(tmp_path)))))
    assert [last for last, _ in done] == [False] * (len(done) - 1) + [True]
    assert (done[0][1], done[-1][1]) == (0, 2)


def test_each_unit_says_where_and_when_it_was_done(tmp_path: Path) -> None:
    before = time.time()
    _explore(tmp_path, programs=32)
    first, second = _units(tmp_path)
    assert (first.kernel, first.flavour) == ("debian:6.1", "plain")
    assert before - 1 <= first.began <= first.ended <= second.ended <= time.time() + 1
    assert second.began >= first.began + first.seconds - 1
    assert [line.at >= before - 1 for line in Store(tmp_path).meetings()] == [True] * len(
        (tmp_path / "corpus.jsonl").read_text().splitlines()
    )


def test_the_line_that_is_shown_meanwhile_says_how_fast_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done before this process began makes it no faster."""
    with Store(tmp_path) as store:
        store.add_unit(replace(UNIT, seed=3, number=0, programs=1000, operations=20000))
        begun = campaign.begin(Terms(seed=3, bindings=("interval",)), "t", store)
        told = campaign.Campaign(begun, store, Progress(quiet=True))
        told._take_in(campaign.Told(unit=replace(UNIT, seed=3, number=1, programs=50, operations=2000)))
        monkeypatch.setattr(time, "monotonic", lambda: told._begun + 10.0)
        assert told._line() == "1050 programs (5.0/s), 22000 operations (200/s), 0 situations, 0 findings"


def test_a_unit_is_a_function_of_its_seed_and_number(tmp_path: Path) -> None:
    _, one = _explore(tmp_path / "1", programs=48)
    _, other = _explore(tmp_path / "2", programs=48)
    assert [(program.name, program.steps) for program in one] == [(program.name, program.steps) for program in other]
    _, part = _explore(tmp_path / "3", programs=16, shard=(1, 3))
    assert [program.steps for program in part] == [program.steps for program in one[16:32]]


def test_a_defect_is_found_and_made_small(tmp_path: Path) -> None:
    code, ran = _explore(tmp_path, defect=True, programs=96)
    assert code is ExitCode.FAIL
    found = list(Store(tmp_path).findings())
    stale = [finding for finding in found if "STALE" in finding.symptom.words]
    assert stale
    for finding in stale:
        assert (finding.shown, finding.runs) == (5, 5)
        kinds = _kinds(finding.program)
        assert len(kinds) <= 5, render(finding.program)  # a region for each of the two that matter, at most
        assert {*kinds} == {Map, Bind, Advise, Table}
        assert finding.explanation[0].startswith("FAIL ")
        assert finding.found.steps in [program.steps for program in ran]
        assert finding.explanation[-1].endswith(str(Store(tmp_path).place(finding.symptom)))


def test_what_was_found_is_looked_at_first_the_next_time(tmp_path: Path) -> None:
    _explore(tmp_path, defect=True, programs=96)
    known = list(Store(tmp_path).findings())
    code, ran = _explore(tmp_path, defect=True, programs=1)
    assert code is ExitCode.FAIL
    assert [program.steps for program in ran[: len(known)]] == [finding.program.steps for finding in known]
    code, _ = _explore(tmp_path, programs=1)
    assert code is ExitCode.PASS
    assert len(list(Store(tmp_path).findings())) == len(known)


def test_an_exploration_goes_on_where_it_ended(tmp_path: Path) -> None:
    """And counts nothing twice; what it has met before is known to it."""
    _explore(tmp_path, programs=48)
    _, met = Store(tmp_path).corpus()
    assert met
    _explore(tmp_path, programs=48)
    assert [unit.number for unit in _units(tmp_path)] == [0, 1, 2]
    _explore(tmp_path, programs=80)
    assert [unit.number for unit in _units(tmp_path)] == [0, 1, 2, 3, 4]
    lines = [json.loads(line)["situations"] for line in (tmp_path / "corpus.jsonl").read_text().splitlines()]
    told = [each for line in lines for each in line]
    assert len(told) == len(set(told))


def test_shards_share_the_work(tmp_path: Path) -> None:
    for part in range(3):
        _explore(tmp_path / str(part), programs=32, shard=(part, 3))
    numbers = [[unit.number for unit in _units(tmp_path / str(part))] for part in range(3)]
    assert numbers == [[0, 3], [1, 4], [2, 5]]


def test_bindings_take_turns(tmp_path: Path) -> None:
    _explore(tmp_path, programs=64, bindings=("interval", "mirror"))
    assert [unit.binding for unit in _units(tmp_path)] == ["interval", "mirror"] * 2


def test_another_kernel_s_units_are_not_these(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _explore(tmp_path, programs=32)
    monkeypatch.setattr(campaign, "_GENERATOR", "another")
    _explore(tmp_path, programs=32)
    assert [unit.number for unit in _units(tmp_path)] == [0, 1, 0, 1]
    assert len({unit.target for unit in _units(tmp_path)}) == 2


# kill -9

_KILLED = """\
import sys
from pathlib import Path
from tests import test_explore

test_explore.campaign._BATCHES, test_explore.campaign._BATCH, test_explore.generate._LONG = 2, 8, 8
print("begun", flush=True)
test_explore._explore(Path(sys.argv[1]), defect=True, vms=2, programs=int(sys.argv[2]))
"""


def _begin(place: Path, programs: int) -> subprocess.Popen[str]:
    """An exploration in a process group of its own, which has got as far as its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(place), str(programs)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_an_exploration_that_is_killed_at_any_moment_loses_nothing_that_was_told(tmp_path: Path) -> None:
    """Whatever was there before a kill is there afterwards; the last one counts each unit once, and finds all."""
    random = Random(5)
    known: tuple[list[UnitDone], set[str], set[str]] = ([], set(), set())
    kills = 0
    for _ in range(6):
        process = _begin(tmp_path, 64)
        try:
            process.wait(timeout=random.uniform(0.0, 2.5))
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        with Store(tmp_path) as store:
            now = (list(store.units()), store.corpus()[1], {finding.symptom.id for finding in store.findings()})
        assert now[0][: len(known[0])] == known[0]
        assert now[1] >= known[1]
        assert now[2] >= known[2]
        known = now
    assert kills
    process = _begin(tmp_path, 64)
    assert process.wait() == 0
    units = [unit.number for unit in _units(tmp_path)]
    assert sorted(units) == list(range(4))
    found = list(Store(tmp_path).findings())
    assert {finding.symptom.id for finding in found} >= known[2]
    assert {each for unit in _units(tmp_path) for each in unit.findings} <= {finding.symptom.id for finding in found}
    assert all(finding.runs for finding in found), "somebody has looked into each"


def test_a_finding_that_is_being_replaced_is_never_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between any two of the renames, and before the new one is whole."""
    rename = Path.rename
    for left in range(2):
        place = tmp_path / str(left)
        with Store(place) as store:
            store.add_finding(FINDING)
        remaining = left

        def killed(path: Path, target: Path) -> Path:
            nonlocal remaining
            if not remaining:
                raise KeyboardInterrupt
            remaining -= 1
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", killed)
        with Store(place) as store, pytest.raises(KeyboardInterrupt):
            store.add_finding(replace(FINDING, shown=3))
        monkeypatch.setattr(Path, "rename", rename)
        with Store(place) as store:
            assert [finding.symptom for finding in store.findings()] == [SYMPTOM]
            assert {each.name for each in (place / "findings").iterdir()} == {SYMPTOM.id}


def test_a_machine_that_loses_its_power_leaves_what_is_no_line(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.add_unit(UNIT)
        with (tmp_path / "campaign.jsonl").open("ab") as file:
            file.write(b"\0" * 20 + b"\xff\n" + b'{"seed": 7}\n')
        assert list(store.units()) == [UNIT]
        store.add_unit(replace(UNIT, number=4))
        assert [unit.number for unit in store.units()] == [3, 4]


@pytest.mark.parametrize(
    ("name", "value"), [("number", "3"), ("verdicts", ["PASS"]), ("findings", "id"), ("seconds", None), ("more", 1)]
)
def test_what_is_not_as_declared_is_left_out(tmp_path: Path, name: str, value: object) -> None:
    """As in the store of a run, whose lines are read alike; but nobody has to mend these."""
    with Store(tmp_path) as store:
        wrong = json.dumps(asdict(UNIT) | {name: value})
        (tmp_path / "campaign.jsonl").write_text(f"7\n{'[' * 100_000}\n{wrong}\n")
        store.add_unit(replace(UNIT, number=4))
        assert [unit.number for unit in store.units()] == [4]


@pytest.mark.parametrize(("name", "value"), [("shown", "5"), ("symptom", "STALE"), ("steps", None), ("more", 1)])
def test_a_finding_that_is_not_as_declared_is_left_out(tmp_path: Path, name: str, value: object) -> None:
    with Store(tmp_path) as store:
        told = store.add_finding(FINDING) / "finding.json"
        assert list(store.findings())
        told.write_text(json.dumps(json.loads(told.read_text()) | {name: value}))
        assert not list(store.findings())


def test_what_nobody_has_looked_into_is_looked_into_the_next_time(tmp_path: Path) -> None:
    program = _program("a: map x anon 1 rw\nd0: bind a\na: read x\na: advise x dontneed\nd0: table x\n")
    with Store(tmp_path) as store:
        store.add_finding(replace(FINDING, shown=0, runs=0, program=program, found=program))
    code, _ = _explore(tmp_path, defect=True, programs=1)
    assert code is ExitCode.FAIL
    (finding,) = [each for each in Store(tmp_path).findings() if each.symptom == SYMPTOM]
    assert (finding.shown, finding.runs) == (5, 5)
