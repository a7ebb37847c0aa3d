# SPDX-License-Identifier: GPL-2.0-only
"""What a lab asks its VM for, and what it makes of the answers; the VM is none."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.errors import GuestError
from harness.program.text import parse
from harness.progress import Progress
from harness.target.cache import Cache
from harness.target.crashes import CrashClass
from harness.target.lab import Lab, Leak
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
        self._leaks, self._failure, self._late = leaks, failure, late

    def heard(self) -> None:
        self.asked.append("heard")

    def call(self, request: dict[str, Any], _body: bytes = b"", *, timeout: float) -> tuple[dict[str, Any], bytes]:
        assert timeout > 0
        self.asked.append(request["do"])
        if self._failure is not None and (request["do"] == "leaks" or not self._late):
            raise self._failure
        if request["do"] == "run":
            number = self.asked.count("run") - 1
            result = {"length": 0, "seconds": 0.1, "log": [], "taint": 0, "residue": {}, "number": number}
            return {"results": [result]}, b""
        return {"leaks": list(self._leaks)}, b""


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
    assert "memory that 3 programs may have lost: it is gone" in said.getvalue()
