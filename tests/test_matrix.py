# SPDX-License-Identifier: GPL-2.0-only
"""A plan over several VMs and several kernels, with VMs that are no VMs: who gets what, and what goes wrong."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness import matrix, pool
from harness.compare import Verdict
from harness.errors import BuildError, GuestError, HarnessError, UsageError
from harness.matrix import Done, Resources, run_matrix
from harness.program.text import parse
from harness.progress import Progress
from harness.report.results import Result, Target
from harness.run import Plan, Task
from harness.target import children, vm
from harness.target.accel import Accelerator
from harness.target.cache import Cache, digest_of
from harness.target.lab import Lab
from harness.target.vm import Machine
from harness.target.watchdog import Trouble, VMFailure

PROGRAMS = [parse("a: map x anon 1 rw", file=name, name=name) for name in ("one", "two", "three", "four")]
PLAN = Plan(PROGRAMS, ("interval", "test_hmm"))
KEY = digest_of("a saved boot")
WANTED = {(program.name, binding) for program in PROGRAMS for binding in PLAN.bindings}


def _result(program: str, kernel: str, binding: str, mark: str) -> Result:
    return Result(program, kernel, "plain", binding, Verdict.PASS, "", 0.1, "replay", identity=mark)


@dataclass(frozen=True)
class FakeMachine:
    """What is asked of a machine here."""

    name: str
    cpus: int = 2
    crowded: bool = False

    @property
    def kernel(self) -> Any:
        return SimpleNamespace(name=self.name, flavour="plain")


class FakeLab:
    """Takes the place of a VM; `trouble` is raised by the program of that name."""

    used: dict[int, list[str]]
    crowded: set[bool]
    trouble: Mapping[str, BaseException]
    made: int
    memo: object = None

    def __init__(self, machine: Any, **_: Any) -> None:
        self.machine = machine
        FakeLab.made += 1
        self.name = f"vm {FakeLab.made}"

    def vm(self) -> None:
        if self.name in FakeLab.trouble:
            raise FakeLab.trouble[self.name]
        FakeLab.crowded.add(self.machine.crowded)

    def give_up(self) -> None:
        pass

    def expect(self, _jobs: object) -> None:
        pass

    def features(self) -> tuple[str, ...]:
        self.vm()
        return ()

    def missing(self, _binding: str) -> str | None:
        self.vm()
        return None

    def broken(self) -> str | None:
        self.vm()
        return None

    def __enter__(self) -> FakeLab:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> type[FakeLab]:
    FakeLab.used = {}
    FakeLab.crowded = set()
    FakeLab.trouble = {}
    FakeLab.made = 0

    def run_task(task: Task, _plan: Plan, lab: Any, _missing: Mapping[str, str]) -> Iterator[Result]:
        FakeLab.used.setdefault(threading.get_ident(), []).append(task.program.name)
        for binding in task.bindings:
            yield _result(task.program.name, lab.machine.name, binding, f"{task.program.name} {binding}")
            if task.program.name in FakeLab.trouble:
                raise FakeLab.trouble[task.program.name]

    def prepare(kernel: str, _flavour: str, **_: Any) -> Any:
        if kernel in FakeLab.trouble:
            raise FakeLab.trouble[kernel]
        return FakeMachine(kernel)

    monkeypatch.setattr(pool, "run_task", run_task)
    monkeypatch.setattr(matrix, "Lab", FakeLab)
    monkeypatch.setattr(matrix, "prepare", prepare)
    monkeypatch.setattr(matrix, "identity", lambda program, binding, _plan, _machine: f"{program.name} {binding}")
    monkeypatch.setattr(pool, "last_words", lambda _lab: iter(()))

    def describe(lab: Any) -> Target:
        lab.vm()
        return Target(lab.machine.name, "plain", banner="up")

    monkeypatch.setattr(matrix, "_describe", describe)
    return FakeLab


def _run(
    kernels: list[str], *, vms: int = 2, done: Done | None = None, said: io.StringIO | None = None
) -> tuple[list[Target], list[Result]]:
    done = done or {}
    resources = Resources(Cache(Path("/nonexistent")), Progress(said or io.StringIO()), vms)
    told = list(run_matrix(PLAN, [(kernel, "plain") for kernel in kernels], resources, done=done))
    return [each for each in told if isinstance(each, Target)], [each for each in told if isinstance(each, Result)]


@pytest.mark.parametrize("vms", [1, 2, 3, 9])
def test_everything_is_run_once_whatever_the_number_of_vms(world: type[FakeLab], vms: int) -> None:
    targets, results = _run(["k1", "k2"], vms=vms)
    assert [target.kernel for target in targets] == ["k1", "k2"]
    for kernel in ("k1", "k2"):
        mine = [(result.program, result.binding) for result in results if result.kernel == kernel]
        assert len(mine) == len(WANTED)
        assert set(mine) == WANTED
    assert sorted(chain(*world.used.values())) == sorted(program.name for program in PROGRAMS * 2)


def test_vms_that_share_cpus_are_told_so(world: type[FakeLab], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1, 2, 3})
    _run(["k1"], vms=2)
    assert world.crowded == {False}
    _run(["k1"], vms=3)
    assert world.crowded == {False, True}


def test_heavy_programs_begin_first(world: type[FakeLab], monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = parse("a: map x anon 9999 rw", file="heavy", name="heavy")
    monkeypatch.setattr(sys.modules[__name__], "PLAN", Plan([*PROGRAMS, heavy], PLAN.bindings))
    _run(["k1"], vms=2)
    assert "heavy" in [used[0] for used in world.used.values() if used]
    world.used.clear()
    _run(["k1"], vms=1)
    assert list(chain(*world.used.values())) == ["one", "two", "three", "four", "heavy"], "one VM gains nothing by it"


@pytest.mark.parametrize("vms", [2, 3])
@pytest.mark.parametrize(
    "error", [GuestError("no memory"), VMFailure(Trouble.PANIC, "it panicked while booting", console="x")]
)
def test_a_vm_that_does_not_start_costs_no_result(world: type[FakeLab], vms: int, error: GuestError) -> None:
    """The programs are run by the other VMs, and it is said that there is one less."""
    world.trouble = {"vm 2": error}
    said = io.StringIO()
    _, results = _run(["k1"], vms=vms, said=said)
    assert {(result.program, result.binding): result.status for result in results} == dict.fromkeys(
        WANTED, Verdict.PASS
    )
    assert said.getvalue().count(f"one VM less: {error.message}") == 1


def test_no_vm_starts(world: type[FakeLab]) -> None:
    world.trouble = {f"vm {number}": GuestError("no memory") for number in (1, 2)}
    targets, results = _run(["k1"], vms=2)
    assert {(result.program, result.binding): result.status for result in results} == dict.fromkeys(
        WANTED, Verdict.ERROR
    )
    assert [target.error for target in targets] == ["no memory"]


DONE = {
    ("k1", "plain", program, binding): f"{program} {binding}"
    for program, binding in (("one", "interval"), ("two", "interval"), ("two", "test_hmm"))
}


def test_what_is_done_is_not_done_again(world: type[FakeLab]) -> None:
    _, results = _run(["k1"], done=DONE)
    assert {(result.program, result.binding) for result in results} == WANTED - {
        ("one", "interval"),
        ("two", "interval"),
        ("two", "test_hmm"),
    }
    assert "two" not in list(chain(*world.used.values()))


@pytest.mark.usefixtures("world")
def test_what_is_done_on_one_kernel_is_not_done_on_another() -> None:
    """Though it be the same kernel by another name."""
    _, results = _run(["k2"], done=DONE)
    assert {(result.program, result.binding) for result in results} == WANTED


@pytest.mark.usefixtures("world")
def test_what_has_changed_since_is_done_again() -> None:
    _, results = _run(["k1"], done=dict.fromkeys(DONE, "another"))
    assert {(result.program, result.binding) for result in results} == WANTED


def test_verdicts_stand_where_the_kernel_cannot_be_had_any_more(world: type[FakeLab]) -> None:
    world.trouble = {"k1": HarnessError("the disk is full")}
    _, results = _run(["k1"], done=DONE)
    assert {(result.program, result.binding) for result in results} == WANTED - {place[2:] for place in DONE}
    assert {result.status for result in results} == {Verdict.ERROR}


@pytest.mark.usefixtures("world")
def test_where_all_is_done_nothing_is_told() -> None:
    """What was told of the kernel then is what ran."""
    done = {("k1", "plain", program, binding): f"{program} {binding}" for program, binding in WANTED}
    targets, results = _run(["k1", "k2"], done=done)
    assert [target.kernel for target in targets] == ["k2"]
    assert {result.kernel for result in results} == {"k2"}


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (BuildError("it does not build", hint="see the log"), Verdict.ERROR),
        (VMFailure(Trouble.PANIC, "it panics", console="last words"), Verdict.CRASHED),
        (VMFailure(Trouble.HANG, "it hangs"), Verdict.TIMEOUT),
    ],
)
def test_a_kernel_that_cannot_be_had_is_told_and_the_others_go_on(
    world: type[FakeLab], error: HarnessError, verdict: Verdict
) -> None:
    world.trouble = {"k1": error}
    targets, results = _run(["k1", "k2"])
    assert [target.kernel for target in targets] == ["k1", "k2"]
    assert error.message in targets[0].error
    first = [result for result in results if result.kernel == "k1"]
    assert {(result.program, result.binding) for result in first} == WANTED
    assert {result.status for result in first} == {verdict}
    console = getattr(error, "console", "")
    assert {result.log for result in first} == {(console,) if console else ()}
    assert all(console in "\n".join(result.explanation) for result in first)
    assert {result.status for result in results if result.kernel == "k2"} == {Verdict.PASS}


def test_trouble_in_the_middle_leaves_no_result_out_and_tells_none_twice(world: type[FakeLab]) -> None:
    world.trouble = {"three": HarnessError("the disk is full")}
    _, results = _run(["k1", "k2"], vms=1)
    for kernel in ("k1", "k2"):
        mine = [(result.program, result.binding) for result in results if result.kernel == kernel]
        assert len(mine) == len(WANTED)
        assert set(mine) == WANTED
    errors = {(result.program, result.binding) for result in results if result.status is Verdict.ERROR}
    assert errors == {("three", "test_hmm"), ("four", "interval"), ("four", "test_hmm")}


def test_a_request_that_makes_no_sense_ends_the_run(world: type[FakeLab]) -> None:
    world.trouble = {"k1": UsageError("no such kernel")}
    with pytest.raises(UsageError):
        _run(["k1"])


def test_one_of_several_that_makes_no_sense_costs_the_others_nothing(world: type[FakeLab]) -> None:
    """What is wrong at first sight is refused before anything runs; this is a version that an archive dropped."""
    world.trouble = {"k2": UsageError("no such kernel", hint="k3")}
    targets, results = _run(["k1", "k2", "k3"])
    assert [target.error for target in targets] == ["", "no such kernel\nk3", ""]
    assert {result.status for result in results if result.kernel == "k2"} == {Verdict.ERROR}
    assert {result.status for result in results if result.kernel != "k2"} == {Verdict.PASS}
    assert len(results) == 3 * len(WANTED)


def test_an_error_of_ours_is_not_swallowed(world: type[FakeLab]) -> None:
    world.trouble = {"two": ZeroDivisionError()}
    with pytest.raises(ZeroDivisionError):
        _run(["k1"])


def test_workers_that_wait_for_their_vm_are_ended_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes no more results, after Ctrl-C for instance, does not wait for VMs that never answer.

    What others wait for, such as the kernel that comes next, goes on.
    """

    def run_task(task: Task, _plan: Plan, _lab: Any, _missing: Mapping[str, str]) -> Iterator[Result]:
        yield _result(task.program.name, "k", "interval", "")
        children.spawn(["sleep", "1000"]).wait()
        raise GuestError("QEMU was killed")

    monkeypatch.setattr(pool, "run_task", run_task)
    monkeypatch.setattr(pool, "survey", lambda _plan, _lab: {})
    monkeypatch.setattr(pool, "expect", lambda _tasks, _lab, _missing: None)
    with closing(_Child()) as other:
        before = threading.active_count()
        labs = [cast(Lab, SimpleNamespace(vm=lambda: None, memo=None, give_up=lambda: None)) for _ in range(2)]
        tasks = [Task(program, ("interval",)) for program in PROGRAMS]
        told = iter(pool.spread(PLAN, tasks, labs, lambda _lab: Target("k", "plain"), say=lambda _line: None))
        assert next(told) == Target("k", "plain")
        assert isinstance(next(told), Result)
        cast(Any, told).close()
        assert threading.active_count() == before
        assert other.process.poll() is None


class _Child:
    """A child that another thread of ours has started."""

    def __init__(self) -> None:
        thread = threading.Thread(target=self._start)
        thread.start()
        thread.join()

    def _start(self) -> None:
        self.process = children.spawn(["sleep", "1000"])

    def close(self) -> None:
        children.end(self.process)


def test_the_next_kernel_is_built_while_programs_run(world: type[FakeLab], monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is waited for before the other begins; a kernel that has trouble takes nothing from the next."""
    begun = threading.Event()
    prepare = cast(Any, matrix).prepare

    def slow(kernel: str, flavour: str, **words: Any) -> Any:
        if kernel == "k2":
            begun.set()
        return prepare(kernel, flavour, **words)

    def describe(lab: Any) -> Target:
        if lab.machine.name == "k1":
            assert begun.wait(60)
            raise GuestError("no memory")
        return Target(lab.machine.name, "plain", banner="up")

    monkeypatch.setattr(matrix, "prepare", slow)
    monkeypatch.setattr(matrix, "_describe", describe)
    targets, results = _run(["k1", "k2", "k3"])
    assert [target.error for target in targets] == ["no memory", "", ""]
    assert {result.kernel for result in results if result.status is Verdict.PASS} == {"k2", "k3"}
    assert world.made == 2 * len(targets)


def test_a_worker_that_waits_for_another_process_is_ended_with_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run saves the boot that this one wants, and takes its time: Ctrl-C is not for that one to answer."""
    monkeypatch.setattr(vm, "find_qemu", lambda: Path("/nonexistent"))
    monkeypatch.setattr(vm, "accelerator", lambda _cache: Accelerator("tcg", ""))
    monkeypatch.setattr(vm, "_key", lambda _machine, _accel: KEY)
    monkeypatch.setattr(pool, "survey", lambda _plan, _lab: {})
    monkeypatch.setattr(pool, "expect", lambda _tasks, _lab, _missing: None)
    monkeypatch.setattr(pool, "run_task", lambda *_: iter([_result("one", "k", "interval", "")]))
    monkeypatch.setattr(pool, "last_words", lambda _lab: iter(()))
    said = io.StringIO()
    (tmp_path / "locks").mkdir()
    with (tmp_path / f"locks/vm.{KEY}").open("w") as lock:
        holder = subprocess.Popen(["flock", "--exclusive", str(lock.fileno())], pass_fds=[lock.fileno()])
        assert holder.wait() == 0  # `lock` is held now, as if by another process
        waiting = Lab(
            cast(Machine, SimpleNamespace(memory_mib=0, kernel=SimpleNamespace(name="k", flavour="plain"))),
            cache=Cache(tmp_path),
            progress=Progress(said),
        )
        ready = cast(Lab, SimpleNamespace(vm=lambda: None, memo=None, give_up=lambda: None))
        tasks = [Task(program, ("interval",)) for program in PROGRAMS]
        told = iter(
            pool.spread(PLAN, tasks, [ready, waiting], lambda _lab: Target("k", "plain"), say=lambda _line: None)
        )
        assert next(told) == Target("k", "plain")
        while "another process is making vm" not in said.getvalue():
            time.sleep(0.01)
        ended = threading.Thread(target=cast(Any, told).close, daemon=True)
        ended.start()
        ended.join(30)
        assert not ended.is_alive(), "the run waits for what another process holds"


def _many(count: int, pages: int = 1) -> list[Task]:
    return [Task(parse(f"a: map x anon {pages} rw", file=str(n), name=str(n)), ("interval",)) for n in range(count)]


def test_workers_take_handfuls_and_small_ones_at_the_end() -> None:
    work = pool._Work([*_many(40), *_many(2, pages=4096)], workers=2)
    sizes = []
    while handful := work.take():
        sizes.append(len(handful))
        work.give_back([])
    assert sizes[:2] == [1, 1], "what takes long comes first, alone"
    assert max(sizes) == 8
    assert sizes[-3:] == [1, 1, 1]
    assert sum(sizes) == 42


def test_what_spoils_a_vm_comes_last() -> None:
    spoiling = Task(parse("a: map x anon 1 rw\na: poison x", file="s", name="s"), ("interval",))
    work = pool._Work([spoiling, *_many(20), *_many(1, pages=4096)], workers=1)
    taken = []
    while handful := work.take():
        taken += handful
        work.give_back([])
    assert taken[-1] is spoiling


def test_what_a_worker_gives_back_is_done_by_one_that_waits() -> None:
    work = pool._Work(_many(1), workers=2)
    (task,) = work.take()
    taken: list[Task] = []
    other = threading.Thread(target=lambda: taken.extend(work.take()), daemon=True)
    other.start()
    work.give_back([task])
    other.join(30)
    assert taken == [task]
    ended = threading.Thread(target=lambda: taken.extend(work.take()), daemon=True)
    ended.start()
    work.end()
    ended.join(30)
    assert not ended.is_alive()
    work.give_back([])
    assert work.take() == []


def test_at_least_one_vm_fits() -> None:
    machine = cast(Machine, SimpleNamespace(memory_mib=1 << 40))
    assert pool.fitting(machine) == 1
