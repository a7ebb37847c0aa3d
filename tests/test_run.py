# SPDX-License-Identifier: GPL-2.0-only
"""What a run makes of what a target shows: kernel reports that come in time, and those that come late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.compare import Verdict
from harness.model.rules import RULES
from harness.program.observations import Observation, Status
from harness.program.program import Program
from harness.program.text import parse
from harness.pytest_plugin.model import Model
from harness.report.results import Result, Run
from harness.run import Plan, run
from harness.target.crashes import crashes
from harness.target.lab import Execution, Job, Lab, Leak
from harness.target.watchdog import Trouble, VMFailure

PROGRAMS = [parse("a: map x anon 1 rw\na: read x", file=name, name=name) for name in ("one", "two", "three")]
WARNING = (
    "[    1.000000] ------------[ cut here ]------------",
    "[    1.000000] WARNING: CPU: 0 PID: 77 at mm/hmm.c:99 hmm_range_fault+0x1/0x2",
    "[    1.000000] ---[ end trace 0000000000000000 ]---",
)


class FakeLab:
    """A VM that says `now` while the program of that name runs, and `late` after it has ended.

    What is `late` is in the log of the next program, or, if `soon`, on the console before that.
    """

    def __init__(self, *, now: str = "", late: str = "", soon: bool = False) -> None:
        self.kernel = SimpleNamespace(name="debian:6.1", flavour="plain", key="k", append="")
        part = SimpleNamespace(key="p")
        self.machine = SimpleNamespace(kernel=self.kernel, image=part, payload=part, append="")
        self.now, self.late, self.soon = now, late, soon
        self.memo: object = None
        self.ran: list[str] = []  # by VM
        self.here: list[str] = []  # in this one

    def discard(self) -> None:
        self.memo = None
        self.here = []
        self.ran.append("-")

    def vm(self) -> Any:
        return SimpleNamespace(console="\n".join(WARNING if self.soon and self.ran[-1:] == [self.late] else ()))

    def leaks(self) -> tuple[Leak, ...]:
        return ()

    is_ahead = False

    def expect(self, _jobs: Sequence[Job]) -> None:
        """One after the other."""

    def broken(self) -> str | None:
        return None

    def missing(self, binding: str) -> str | None:
        return "it is not there" if binding == "test_hmm" else None

    def features(self) -> tuple[str, ...]:
        return ()

    def execute(self, program: Program, _binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        assert (wrong, timeout) == ((), 30.0)
        earlier = WARNING if self.ran and self.ran[-1] == self.late and not self.soon else ()
        now = WARNING if program.name == self.now else ()
        self.ran.append(program.name)
        self.here.append(program.name)
        return Execution(
            observations=(Observation(Status.DONE), Observation(Status.DONE, 0, (0,))),
            seconds=0.1,
            log=(*earlier, *now),
            earlier=tuple(crashes(earlier)),
            crashes=tuple(crashes(now)),
            residue={"d0": 0, "d1": 0},
            number=len(self.here) - 1,
        )


def _run(lab: FakeLab, *bindings: str) -> list[Result]:
    return list(run(Plan(PROGRAMS, bindings or ("interval",)), cast(Lab, cast(Any, lab))))


def test_a_report_of_the_kernel_is_a_crash_and_costs_the_vm() -> None:
    lab = FakeLab(now="two")
    results = _run(lab)
    assert [result.status for result in results] == [Verdict.PASS, Verdict.CRASHED, Verdict.PASS]
    assert lab.ran == ["one", "two", "-", "three"]
    (report,) = results[1].reports
    assert report.kind == "warning"
    assert "hmm_range_fault" in report.title
    assert report.lines == WARNING
    assert results[1].reason == report.title


def test_late_words_are_the_last_on_the_program_that_caused_them() -> None:
    lab = FakeLab(late="one")
    results = _run(lab)
    assert [(result.program, result.status) for result in results] == [
        ("one", Verdict.PASS),
        ("one", Verdict.CRASHED),
        ("two", Verdict.PASS),
        ("three", Verdict.PASS),
    ]
    assert lab.ran == ["one", "two", "-", "two", "three"]  # nothing counts of a VM that was damaged
    assert results[1].log == WARNING
    assert results[1].reports[0].kind == "warning"
    assert "after the program had ended" in results[1].reason
    assert results[1].identity == results[0].identity

    whole = Run("", (), "", {}, ("interval",), (("debian:6.1", "plain"),))
    for result in results:
        whole.add(result)
    assert [(result.program, result.status) for result in whole.results] == [
        ("one", Verdict.CRASHED),
        ("two", Verdict.PASS),
        ("three", Verdict.PASS),
    ]


def test_what_is_said_before_the_next_program_costs_that_one_nothing() -> None:
    lab = FakeLab(late="two", soon=True)
    results = _run(lab)
    assert [(result.program, result.status) for result in results] == [
        ("one", Verdict.PASS),
        ("two", Verdict.PASS),
        ("two", Verdict.CRASHED),
        ("three", Verdict.PASS),
    ]
    assert lab.ran == ["one", "two", "-", "three"]


def test_late_words_on_the_last_program_are_heard() -> None:
    results = _run(FakeLab(late="three", soon=True))
    assert [result.status for result in results] == [Verdict.PASS, Verdict.PASS, Verdict.PASS, Verdict.CRASHED]
    assert results[-1].program == "three"
    assert results[-1].reports[0].lines == WARNING


def test_a_program_that_was_skipped_is_not_to_blame() -> None:
    results = _run(FakeLab(late="one"), "interval", "test_hmm")
    (crashed,) = (result for result in results if result.status is Verdict.CRASHED)
    assert (crashed.program, crashed.binding) == ("one", "interval")


class ObedientLab(FakeLab):
    """Its kernel does what is allowed."""

    def features(self) -> tuple[str, ...]:
        return tuple(RULES["interval"].features)

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        execution = super().execute(program, binding, wrong=wrong, timeout=timeout)
        return replace(execution, observations=Model(RULES[binding]).obedient(program))


def test_a_program_that_leaves_failed_memory_behind_shares_its_vm_with_its_like_only() -> None:
    """Others would meet it: which programs ran before in a VM must not matter."""
    lab = ObedientLab()
    verbs = {"one": "read", "two": "poison", "three": "poison", "four": "read", "five": "read"}
    programs = [parse(f"a: map x anon 1 rw\na: {verb} x", file=name, name=name) for name, verb in verbs.items()]
    list(run(Plan(programs, ("interval",)), cast(Lab, cast(Any, lab))))
    assert lab.ran == ["one", "two", "three", "-", "four", "five"]


LOST = (
    "unreferenced object 0xffff888004a1c000 (size 64):",
    '  comm "executor", pid 77, jiffies 4294902000',
    "  backtrace (crc 0):",
    "    __kmalloc_cache_noprof+0x1/0x2",
    "    hmm_range_fault+0x3/0x4",
)


class LosingLab(FakeLab):
    """One whose kernel loses memory in some programs, by the name; `before` is lost by none of them.

    `?` is when it was asked. What is `shared` may be the next one's, too.
    """

    def __init__(self, *losing: str, now: str = "", before: bool = False, shared: bool = False) -> None:
        super().__init__(now=now)
        self.losing, self.before, self.shared = losing, before, shared

    def leaks(self) -> tuple[Leak, ...]:
        if not self.here or self.ran[-1] == "?":
            return ()
        self.ran.append("?")
        (crash,) = crashes(LOST)
        found = [
            Leak((number, number + 1) if self.shared else (number,), crash)
            for number, name in enumerate(self.here)
            if name in self.losing
        ]
        return (*found, *([Leak((), crash)] if self.before else []))


def test_memory_that_is_lost_is_the_last_word_on_the_program_that_lost_it() -> None:
    lab = LosingLab("two")
    results = _run(lab)
    assert [(result.program, result.status) for result in results] == [
        ("one", Verdict.PASS),
        ("two", Verdict.PASS),
        ("three", Verdict.PASS),
        ("two", Verdict.CRASHED),
    ]
    assert lab.ran == ["one", "two", "three", "?", "-"], "looked for once, at the end"
    lost = results[-1]
    assert lost.reason == "memory leak in hmm_range_fault (found when its VM was looked through)"
    assert [(report.kind, report.lines) for report in lost.reports] == [("leak", LOST)]
    assert (lost.log, lost.identity, lost.replay) == (LOST, results[1].identity, results[1].replay)


def test_a_vm_that_ends_early_is_looked_through_before() -> None:
    lab = LosingLab("one", "two", now="two")
    results = _run(lab)
    assert lab.ran == ["one", "two", "?", "-", "three", "?"]
    last = {result.program: result for result in results}
    assert [last[name].status for name in ("one", "two", "three")] == [Verdict.CRASHED, Verdict.CRASHED, Verdict.PASS]
    assert [report.kind for report in last["one"].reports] == ["leak"]
    assert [report.kind for report in last["two"].reports] == ["warning", "leak"], "it had crashed itself"
    assert WARNING[1] in last["two"].log
    assert last["two"].explanation[-len(LOST) :] == LOST


class DivergingLab(LosingLab):
    """One whose kernel shows in the program `two` what is not allowed."""

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        execution = super().execute(program, binding, wrong=wrong, timeout=timeout)
        if program.name.startswith("two"):
            shown = (Observation(Status.DONE), *(Observation(Status.DONE, 0, (77,)) for _ in program.steps[1:]))
            return replace(execution, observations=shown)
        return execution


def test_the_second_look_at_a_divergence_does_not_hide_what_was_lost_before() -> None:
    """It needs a clean VM."""
    lab = DivergingLab("one", "two")
    results = _run(lab)
    assert lab.ran[:5] == ["one", "two", "?", "-", "two"]
    last = {result.program: result for result in results}
    assert (last["one"].status, last["two"].status) == (Verdict.CRASHED, Verdict.FAIL)
    assert [report.kind for report in last["two"].reports] == ["leak"]
    assert "memory leak in hmm_range_fault" in last["two"].reason


@pytest.mark.parametrize("soon", [True, False])
def test_a_vm_whose_kernel_complained_late_is_looked_through(soon: bool) -> None:
    """The next program ran there for nothing if that was in its log: what it lost is not forgotten either."""

    class LateLab(LosingLab):
        late, soon = "two", False

    lab = LateLab("one", "two", "three")
    lab.late, lab.soon = "two", soon
    last = {result.program: result for result in _run(lab)}
    assert lab.ran[-3:] == ["-", "three", "?"] or lab.ran[-4:] == ["-", "three", "?", "-"]
    assert [report.kind for report in last["one"].reports] == ["leak"]
    assert [report.kind for report in last["two"].reports] == ["warning", *(["leak"] if soon else ["leak", "leak"])]
    assert [last[name].status for name in ("one", "two", "three")] == [Verdict.CRASHED] * 3


def test_what_nobody_can_be_blamed_for_is_told_all_the_same() -> None:
    results = _run(LosingLab(before=True))
    assert [result.program for result in results if result.status is Verdict.CRASHED] == ["one"]
    results = _run(LosingLab("two", shared=True))
    crashed = {result.program: result.reason for result in results if result.status is Verdict.CRASHED}
    assert set(crashed) == {"two", "three"}
    assert "by this program or 1 others" in crashed["two"]


class DyingLab(FakeLab):
    """One whose QEMU is killed."""

    def execute(self, program: Program, _binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        super().execute(program, _binding, wrong=wrong, timeout=timeout)
        raise VMFailure(Trouble.QEMU_DIED, "QEMU was killed by SIGBUS", hint="the disk is full")


def test_trouble_that_is_not_the_kernels_comes_with_its_remedy() -> None:
    for result in _run(DyingLab()):
        assert result.status is Verdict.ERROR
        assert result.reason == "QEMU was killed by SIGBUS"
        assert "  hint: the disk is full" in result.explanation


class BootlessLab(FakeLab):
    """One that gets no other VM once the first is gone."""

    def discard(self) -> None:
        super().discard()
        self.gone = True

    def vm(self) -> Any:
        if getattr(self, "gone", False):
            raise VMFailure(Trouble.PANIC, "the kernel panicked", console="while booting")
        return super().vm()


def test_a_program_that_gets_no_clean_vm_has_not_crashed() -> None:
    one, two, *_ = _run(BootlessLab(now="one"))
    assert one.status is Verdict.CRASHED
    assert (two.status, two.reason) == (Verdict.ERROR, "it got no clean VM: the kernel panicked")
    assert two.log == ("while booting",)


class StarvedLab(FakeLab):
    """One that had no memory for what it was told to do, and `said` so."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self._said = said

    def execute(self, program: Program, binding: str, *, wrong: Sequence[str], timeout: float) -> Execution:
        execution = super().execute(program, binding, wrong=wrong, timeout=timeout)
        return replace(execution, log=(*execution.log, self._said))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("executor: device 0 was refused memory 3 times", "ran out of memory"),
        ("executor: of 5 huge pages there are 2", "pieces of 2 MiB"),
    ],
)
def test_what_is_shown_without_memory_proves_nothing(said: str, reason: str) -> None:
    for result in _run(StarvedLab(said)):
        assert result.status is Verdict.INCONCLUSIVE
        assert reason in result.reason
