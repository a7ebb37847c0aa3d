# SPDX-License-Identifier: GPL-2.0-only
"""What a lab asks its VM for, and what it makes of the answers; the VM is none."""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import GuestError
from harness.program.text import parse
from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.crashes import CrashClass
from harness.target.lab import Job, Lab, Leak
from harness.target.vm import VM, Machine
from harness.target.watchdog import Trouble, VMFailure

PROGRAM = parse("a: map x anon 1 rw", file="one", name="one")
# As 6.12 and as 5.10 say it
OBJECTS = (
    (
        "unreferenced object 0xffff888004a1c000 (size 64):",
        '  comm "executor", pid 77, jiffies 4294902000',
        "  hex dump (first 32 bytes):",
        "    00 00 00 00 00 00 00 00 ff ff ff ff ff ff ff ff  ................",
        "  backtrace (crc 5ea1c2e4):",
        "    __kmalloc_cache_noprof+0x1b1/0x290",
        "    hmm_harness_bind+0x39/0x150 [hmm_harness]",
    ),
    (
        "unreferenced object 0xffff888004a1d000 (size 192):",
        '  comm "executor", pid 77, jiffies 4294902000 (age 7.120s)',
        "  hex dump (first 32 bytes):",
        "    00 00 00 00 00 00 00 00 ff ff ff ff ff ff ff ff  ................",
        "  backtrace:",
        "    [<00000000c5e8bd1c>] kmem_cache_alloc+0x128/0x290",
        "    [<000000000f1d1a3b>] migrate_vma_setup+0x39/0x150",
    ),
)


class FakeVM:
    """Answers programs, and tells `leaks` when it is asked; or `failure` is what becomes of it."""

    def __init__(self, *leaks: Any, on: bool = True, failure: GuestError | None = None, late: bool = False) -> None:
        self.agent = {"info": {"kmemleak": on}}
        self.asked: list[str] = []
        self.sent: list[int] = []  # programs in each request
        self.programs = 0  # that began
        self.last: int | None = None  # what the kernel has something to say of, by the number it has in this VM
        self.refused: int | None = None
        self.dies: int | None = None
        self._leaks, self._failure, self._late = leaks, failure, late

    def heard(self) -> None:
        self.asked.append("heard")

    def call(self, request: dict[str, Any], _body: bytes = b"", *, timeout: float) -> tuple[dict[str, Any], bytes]:
        assert timeout > 0
        self.asked.append(request["do"])
        if self._failure is not None and (request["do"] == "leaks" or not self._late):
            raise self._failure
        if request["do"] == "run":
            return self._run(len(request["programs"]))
        return {"leaks": list(self._leaks)}, b""

    def _run(self, count: int) -> tuple[dict[str, Any], bytes]:
        self.sent.append(count)
        results: list[dict[str, Any]] = []
        for number in range(self.programs, self.programs + count):
            self.programs += 1
            if number == self.dies:
                raise VMFailure(Trouble.PANIC, f"it panicked in {number}")
            if number == self.refused:
                return {"results": results, "error": "it cannot", "hint": None, "log": []}, b""
            log = ["it said something"] if number == self.last else []
            result = {"length": 0, "events": 0, "seconds": 0.1, "log": log, "taint": 0, "residue": {}}
            results.append(result | {"number": number})
            if log:
                break
        return {"results": results}, b""


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lab(tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr("harness.target.lab.decode", lambda *_, **__: ())
    machine = cast(Machine, SimpleNamespace())
    return Lab(machine, cache=Cache(tmp_path), progress=Progress(said))


def ran(lab: Lab, vm: FakeVM, times: int = 1) -> Lab:
    lab._vm = cast(VM, vm)
    for _ in range(times):
        lab.execute(PROGRAM, "interval", wrong=(), timeout=1)
    return lab


def test_what_the_kernel_lost_is_told_by_program(lab: Lab) -> None:
    vm = FakeVM(*({"programs": [number], "lines": list(lines)} for number, lines in enumerate(OBJECTS)))
    first, second = ran(lab, vm, 2).leaks()
    assert (first.programs, second.programs) == ((0,), (1,))
    assert {first.crash.kind, second.crash.kind} == {CrashClass.LEAK}
    assert first.crash.title == "memory leak in hmm_harness_bind"
    assert second.crash.title == "memory leak in migrate_vma_setup"
    assert (first.crash.lines, second.crash.lines) == OBJECTS
    assert lab.leaks() == (), "no program ran since"
    assert vm.asked == ["run", "run", "heard", "leaks"]


def test_an_object_that_nobody_can_read_is_a_leak_all_the_same(lab: Lab) -> None:
    lines = ["something that kmemleak may say one day"]
    (leak,) = ran(lab, FakeVM({"programs": [], "lines": lines})).leaks()
    assert leak == Leak((), leak.crash)
    assert (leak.crash.kind, leak.crash.lines) == (CrashClass.LEAK, tuple(lines))


def test_a_vm_is_asked_only_if_its_kernel_looks_and_something_ran(lab: Lab) -> None:
    vm = FakeVM(on=False)
    assert ran(lab, vm).leaks() == ()
    assert vm.asked == ["run"]
    lab.discard()
    assert lab.leaks() == ()


def test_a_vm_that_cannot_be_asked_is_said(lab: Lab, said: io.StringIO) -> None:
    hangs = VMFailure(Trouble.HANG, "no answer came")
    assert ran(lab, FakeVM(failure=hangs, late=True), 3).leaks() == ()
    assert "a VM was not looked through for memory that 3 programs may have lost: no answer came" in said.getvalue()
    lab.discard()
    ran(lab, FakeVM(), 2)
    lab._vm = cast(VM, FakeVM(failure=VMFailure(Trouble.PANIC, "it panicked")))
    with pytest.raises(VMFailure):
        lab.execute(PROGRAM, "interval", wrong=(), timeout=1)
    assert "memory that 2 programs may have lost: it is gone" in said.getvalue()


JOBS = [
    (parse("a: map x anon 1 rw", file=name, name=name), binding)
    for name in ("one", "two", "three", "four")
    for binding in ("interval", "mirror")
]


@pytest.fixture
def vms(monkeypatch: pytest.MonkeyPatch) -> list[FakeVM]:
    """The VMs that a lab gets, one after the other; the first is the last of the list."""
    waiting = [FakeVM(on=False) for _ in range(3)]
    monkeypatch.setattr("harness.target.lab.start", lambda *_, **__: nullcontext(waiting.pop()))
    return list(waiting)


def execute(lab: Lab, job: Job) -> int:
    """The number that it has in its VM."""
    return lab.execute(*job, wrong=(), timeout=1).number


def test_what_is_expected_is_sent_at_once_and_answered_in_order(lab: Lab, vms: list[FakeVM]) -> None:
    lab.expect(JOBS)
    assert [execute(lab, job) for job in JOBS] == list(range(len(JOBS)))
    assert vms[-1].sent == [len(JOBS)]
    assert not lab.is_ahead


def test_what_is_left_out_of_the_expected_is_not_missed(lab: Lab, vms: list[FakeVM]) -> None:
    """Something else may come in between, too: the second look at a program that failed."""
    lab.expect(JOBS)
    assert execute(lab, JOBS[0]) == 0
    assert lab.is_ahead
    assert execute(lab, JOBS[3]) == 8, "not what had been executed for others"
    assert execute(lab, (PROGRAM, "interval")) == 13
    assert execute(lab, JOBS[4]) == 14
    assert vms[-1].sent == [8, 5, 1, 4]


def test_nothing_is_sent_behind_what_spoils_the_vm_unless_it_does_so_too(lab: Lab, vms: list[FakeVM]) -> None:
    spoiling = parse("a: map x anon 1 rw\na: poison x", file="spoils", name="spoils")
    jobs = [JOBS[0], (spoiling, "interval"), (spoiling, "mirror"), JOBS[1], JOBS[2]]
    lab.expect(jobs)
    assert [execute(lab, job) for job in jobs] == [0, 1, 2, 3, 4]
    assert vms[-1].sent == [3, 2]


def test_what_was_executed_otherwise_is_no_answer(lab: Lab, vms: list[FakeVM]) -> None:
    lab.expect(JOBS[:2])
    execute(lab, JOBS[0])
    assert lab.execute(*JOBS[1], wrong=("skip-retry",), timeout=1).number == 2
    assert vms[-1].sent == [2, 1]


def test_what_ran_ahead_in_a_vm_that_is_given_up_did_not_happen(lab: Lab, vms: list[FakeVM]) -> None:
    lab.expect(JOBS)
    for job in JOBS[:3]:
        execute(lab, job)
    lab.discard()
    assert not lab.is_ahead
    assert [execute(lab, job) for job in JOBS[3:]] == [0, 1, 2, 3, 4]
    assert (vms[-1].sent, vms[-2].sent) == ([8], [5])


def test_nothing_is_run_behind_what_the_kernel_had_something_to_say_of(lab: Lab, vms: list[FakeVM]) -> None:
    vms[-1].last = 2
    lab.expect(JOBS)
    assert [execute(lab, job) for job in JOBS] == list(range(len(JOBS)))
    assert vms[-1].sent == [8, 5]


def test_a_vm_that_dies_is_the_failure_of_what_ran_then(lab: Lab, vms: list[FakeVM]) -> None:
    vms[-1].dies = 5
    vms[-2].dies = 2
    lab.expect(JOBS)
    assert [execute(lab, job) for job in JOBS[:2]] == [0, 1], "again, in the third VM"
    for number in (2, 5):
        with pytest.raises(VMFailure, match=f"it panicked in {number}"):
            execute(lab, JOBS[number])
        for job in JOBS[number + 1 : 5 if number == 2 else None]:
            execute(lab, job)
    assert [vm.sent for vm in reversed(vms)] == [[8], [5], [2, 2, 2]]


def test_a_program_that_cannot_be_run_hides_no_other(lab: Lab, vms: list[FakeVM]) -> None:
    vms[-1].refused = 1
    lab.expect(JOBS[:3])
    assert execute(lab, JOBS[0]) == 0
    with pytest.raises(GuestError, match="refused: it cannot"):
        execute(lab, JOBS[1])
    assert execute(lab, JOBS[2]) == 2
    assert vms[-1].sent == [3, 1]


def test_a_vm_that_cannot_be_replaced_is_no_failure_of_a_program(
    lab: Lab, vms: list[FakeVM], monkeypatch: pytest.MonkeyPatch
) -> None:
    vms[-1].dies = 1
    lab.vm()

    def refuse(*_: object, **__: object) -> None:
        raise VMFailure(Trouble.PANIC, "it panicked while booting")

    monkeypatch.setattr("harness.target.lab.start", refuse)
    lab.expect(JOBS)
    with pytest.raises(GuestError, match="got no clean VM: it panicked while booting") as caught:
        execute(lab, JOBS[0])
    assert not isinstance(caught.value, VMFailure)


def test_what_was_lost_ahead_is_lost_again_if_it_matters(lab: Lab) -> None:
    vm = FakeVM(*({"programs": programs, "lines": OBJECTS[0]} for programs in ([0], [0, 1], [1], [])))
    lab._vm = cast(VM, vm)
    lab.expect(JOBS)
    execute(lab, JOBS[0])
    assert [leak.programs for leak in lab.leaks()] == [(0,), (0,), ()]


def test_who_debugs_a_vm_sees_one_program_at_a_time(lab: Lab, vms: list[FakeVM]) -> None:
    lab._debugging = cast(Any, object())
    lab.expect(JOBS)
    for job in JOBS:
        execute(lab, job)
    assert vms[-1].sent == [1] * len(JOBS)
