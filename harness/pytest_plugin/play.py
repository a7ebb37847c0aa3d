# SPDX-License-Identifier: GPL-2.0-only
"""The fixture `lockstep`: a program is written, run by a kernel and by the model, and compared."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.compare import Comparison, Divergence, Verdict
from harness.conformance import catalogue
from harness.errors import HarnessError
from harness.labels import heading
from harness.model.allowed import Expectation
from harness.printable import plain
from harness.program.observations import Observation, Status
from harness.program.program import Program
from harness.program.text import parse, render
from harness.pytest_plugin.lab import SharedLab
from harness.pytest_plugin.outcomes import (
    DeviationWarning,
    Diverged,
    KernelCrashed,
    NotHere,
    NothingShown,
    NoVerdict,
    TimedOut,
)
from harness.pytest_plugin.programs import select
from harness.pytest_plugin.writer import Device, Subject, Writer, place
from harness.report.explain import explain
from harness.report.results import Result
from harness.run import Plan, replay_command, run

_FAILURES = {Verdict.FAIL: Diverged, Verdict.CRASHED: KernelCrashed, Verdict.TIMEOUT: TimedOut}
_MOST_CHARACTERS = 100  # of a file's name


@dataclass(frozen=True)
class Played:
    """A program that has been run. `observations`: one for each step, none if it did not come to that."""

    program: Program
    result: Result
    observations: tuple[Observation, ...]

    @property
    def verdict(self) -> Verdict:
        """What came of it."""
        return self.result.status


@dataclass(frozen=True)
class Stage:
    """Where the programs of one test run.

    `name`: the test's id. `title`: what it promises. `keep`: where programs are written for replay. `directory`: of
    the test's file. `log` takes the kernel log of that time, `note` a property for the report.
    """

    lab: SharedLab
    binding: str
    wrong: tuple[str, ...]
    timeout: float
    name: str
    title: str
    keep: Path
    directory: Path
    log: Callable[[str], None]
    note: Callable[[str, str], None]


class Lockstep:
    """Runs programs in lockstep with the model; the fixture of that name.

    Either written by calls, `lockstep.subject("a").map(...)`, and run when the test ends or by `run()`; or given
    as a text or a `Program`, `lockstep("a: map buf anon 8 rw ...")`, or as a file, and run at once. What is not
    allowed fails the test, unless `check` is false: then the verdict is for the test to judge.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._writer: Writer | None = None
        self.played: list[Played] = []

    @property
    def binding(self) -> str:
        """The driver that programs run on."""
        return self._stage.binding

    def subject(self, name: str = "a") -> Subject:
        """A process: the first, or one that was forked."""
        __tracebackhide__ = True
        return self._open().subject(name)

    def device(self, name: str = "d0") -> Device:
        """A device: "d0" or "d1", or "c0" or "c1", whose memory the CPU reaches."""
        return self._open().device(name)

    def run(self, *, check: bool = True) -> Played:
        """Runs what was written so far. What is written afterwards is another program, in a clean process."""
        __tracebackhide__ = True
        writer = self._writer
        if writer is None or not writer.steps:
            raise NothingShown("no step was written since the last run: there is nothing to compare")
        writer.closed = True
        self._writer = None
        program = writer.program(self._name(), self._stage.title)
        played = self._play(program, None)
        for step, observation in zip(writer.steps, played.observations, strict=False):
            step.observation = observation
        self._settle(played, check, [step.where for step in writer.steps])
        return played

    def __call__(self, program: str | Program, *, check: bool = True) -> Played:
        """Runs a program, or the text of one, now."""
        __tracebackhide__ = True
        if isinstance(program, str):
            return self._now(parse(program, file="<program>", name=self._name()), None, check)
        known = program.name in catalogue.names() or Path(program.name).is_file()
        return self._now(program, program.name if known else None, check)

    def file(self, path: str | os.PathLike[str], *, check: bool = True) -> Played:
        """Runs the program in a file that lies beside the test, or one of the product by its name."""
        __tracebackhide__ = True
        (program,) = select([os.fspath(path)], self._stage.directory)
        return self._now(program, program.name, check)

    def finish(self) -> None:
        """Runs what was written and not run. Raises `NothingShown` if the whole test showed nothing."""
        __tracebackhide__ = True
        if self._writer is not None and self._writer.steps:
            self.run()
        if not self.played:
            raise NothingShown("the test asked for lockstep and wrote no step: nothing was compared")

    def _open(self) -> Writer:
        if self._writer is None:
            self._writer = Writer()
        return self._writer

    def _name(self) -> str:
        number = len(self.played)
        return f"{self._stage.name} (program {number + 1})" if number else self._stage.name

    def _now(self, program: Program, file: str | None, check: bool) -> Played:
        __tracebackhide__ = True
        played = self._play(program, file)
        self._settle(played, check, ())
        return played

    def _play(self, program: Program, file: str | None) -> Played:
        """`file`: what the program is called on the command line, if it is known there."""
        stage = self._stage
        stage.lab.first = None
        plan = Plan([program], [stage.binding], stage.wrong, stage.timeout, _command())
        results = list(run(plan, stage.lab, closing=False))
        own = [result for result in results if result.program == program.name]
        if not own:
            raise HarnessError(f"{program.name} has no result")
        result = own[-1]  # the last word
        # Of programs that ran before in the same VM, and whose test may be over: it may have had the same name.
        passed = (Verdict.PASS, Verdict.DEVIATION, Verdict.SKIP)
        others = [each for each in results if each not in own or result.status in passed]
        stage.lab.belated += [each for each in others if each.status not in passed]
        if result.status not in (Verdict.PASS, Verdict.SKIP, Verdict.DEVIATION):
            shown = replace(program, name=file or _keep(program, stage.keep))
            target = (stage.lab.kernel.name, stage.lab.kernel.flavour)
            result = replace(result, replay=replay_command(shown, stage.binding, plan, target))
            stage.note("hmm_replay", result.replay)
        stage.note("hmm_verdict", str(result.status))
        if result.log:
            stage.log(plain("\n".join(result.log)))
        first = stage.lab.first
        seen = first[1].observations if first is not None and first[0] is program else ()
        played = Played(program, result, seen)
        self.played.append(played)
        return played

    def _settle(self, played: Played, check: bool, places: Sequence[str]) -> None:
        """Raises what pytest is to be told of `played`; see outcomes.py."""
        __tracebackhide__ = True
        result = played.result
        if result.status in (Verdict.ERROR, Verdict.INCONCLUSIVE):
            raise NoVerdict(f"{result.status}: {result.reason}", hint=f"replay: {result.replay}")
        if not check:
            return
        if result.status is Verdict.DEVIATION:
            file, _, line = place().rpartition(":")
            warnings.warn_explicit(DeviationWarning(result.reason), None, file or self._stage.name, int(line or 1))
        elif result.status is Verdict.SKIP:
            raise NotHere(result.reason)
        elif result.status is not Verdict.PASS:
            where = places[result.step] if places and result.step is not None else place()
            raise _FAILURES.get(result.status, KernelCrashed)(_words(played, where))


def _words(played: Played, where: str) -> str:
    """The explanation of a failure. Its first line is what pytest's short summary shows."""
    result = played.result
    divergence = None
    if result.step is not None:
        divergence = Divergence(result.step, Expectation(), Observation(Status.DONE), result.details)
    lines = explain(
        played.program,
        Comparison(result.status, result.reason, divergence),
        title="",
        log=(),  # a section of pytest's report
        replay=result.replay,
        tables=result.tables,
    )
    place = f"{where}, " if where else ""
    target = f"    {place}{result.status} on {heading(result.kernel, result.flavour)}, {result.binding}"
    return "\n".join([result.reason, target, *lines[2:]])


def _keep(program: Program, directory: Path) -> str:
    """Writes the program where it can be replayed from; returns the path as a person here would write it."""
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", program.name).strip("-")
    if len(name) > _MOST_CHARACTERS:
        name = f"{name[:_MOST_CHARACTERS]}-{hashlib.sha256(program.name.encode()).hexdigest()[:8]}"
    path = directory / f"{name}{catalogue.SUFFIX}"
    path.write_text(render(program), encoding="utf-8")
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _command() -> tuple[str, ...]:
    """How `hmm-harness` is started from here."""
    program = Path(sys.executable).with_name("hmm-harness")
    on_path = shutil.which("hmm-harness")
    if on_path is not None and Path(on_path) == program:
        return ("hmm-harness",)
    if not program.is_file():
        return (sys.executable, "-m", "harness")
    here = Path.cwd()
    return (str(program.relative_to(here) if program.is_relative_to(here) else program),)
