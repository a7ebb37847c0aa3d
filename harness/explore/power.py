# SPDX-License-Identifier: GPL-2.0-only
"""How soon is a bug found that nobody wrote a program for?

Each mutant, a kernel with a bug put in or our driver with one of its mistakes, is explored until there is a finding
that is none of the kernel's own: its smallest program passes where the mutant is not.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.defaults import DRIVERS
from harness.errors import BuildError, ExitCode, HarnessError, UsageError
from harness.explore.campaign import Terms, explore, not_passed, target_hash
from harness.explore.findings import Finding, Store, Totals
from harness.explore.story import tell
from harness.explore.trials import Mutant, Outcome, Trial, Trials, publish, title_of
from harness.matrix import Resources, shared
from harness.mutate import Books
from harness.program.program import Program
from harness.program.text import render
from harness.report import files
from harness.report.runs import kept_for
from harness.target.accel import accelerator
from harness.target.lab import Lab, prepare
from harness.target.mistakes import mistakes
from harness.target.mutant import Patch, Workshop, key_of, read_patch, read_patches, workshop
from harness.target.room import fitting
from harness.target.vm import Machine, forget
from harness.target.watchdog import VMFailure

MISTAKES = "wrong.txt"  # of a directory of mutants: the names of our driver's mistakes, a line each
_DRIVER_BINDINGS = ("interval",)  # which has all mistakes


def read_mutants(words: Sequence[str]) -> list[Mutant]:
    """The mutants in files and directories, and mistakes of our driver by name.

    Raises `UsageError` for what is neither, and what `read_patch` raises.
    """
    known = {each.name: each for each in mistakes()}

    def mistake(name: str, where: str) -> Mutant:
        if name not in known:
            raise UsageError(
                f"{where}: no patch, no directory of patches, and no mistake of our driver",
                hint=f"mistakes are {', '.join(known)}",
            )
        return known[name]

    found: list[Mutant] = []
    for word in words:
        path = Path(word)
        if not path.is_dir():
            found.append(read_patch(path) if path.exists() or "/" in word else mistake(word, word))
            continue
        names = _names(path / MISTAKES)
        if not names or any(path.glob("*.patch")):
            found += read_patches([path])
        found += [mistake(name, f"{path / MISTAKES}: {name}") for name in names]
    return found


def _names(path: Path) -> list[str]:
    """One a line; what follows # is a remark."""
    if not path.is_file():
        return []
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def main(
    kernel: tuple[str, str], mutants: Sequence[Mutant], terms: Terms, resources: Resources, *, books: Books
) -> int:
    """Explores with each mutant, and prints what comes of it; an exit code.

    `terms.seconds` is the time for each, `terms.bindings` are empty for all that the mutant concerns. `ExitCode.FAIL`
    if one was not found, `INFRASTRUCTURE` if it is not known of one. Raises `HarnessError` if the kernel cannot be
    had.
    """
    if books.table:
        files.check(books.table)
    trials = Trials(books.store, resume=books.resume)
    machine = prepare(*kernel, cache=resources.cache, progress=resources.progress)
    told: dict[str, Trial] = {}
    with ExitStack() as stack:
        bench = _Bench(machine, terms, resources, stack)
        for number, mutant in enumerate(mutants, 1):
            known = trials.get(bench.key(mutant), terms.seed, bench.limit)
            trial = known or bench.trial(mutant)
            if known is None and trial.outcome is not Outcome.UNKNOWN:
                trials.add(trial)
            told[mutant.name] = trial
            resources.progress.say(f"{number:3}/{len(mutants)} {title_of(mutant)}: {trial}", to=sys.stdout)
            if books.table:
                rows = [(each, told.get(each.name)) for each in mutants]
                publish(books.table, kernel[0], rows, limit=bench.limit, command="make power")
    outcomes = [trial.outcome for trial in told.values()]
    print(", ".join(f"{count} {each.value}" for each in Outcome if (count := outcomes.count(each))) or "no mutants")
    if Outcome.UNKNOWN in outcomes:
        return ExitCode.INFRASTRUCTURE
    return ExitCode.FAIL if Outcome.MISSED in outcomes else ExitCode.PASS


class _Bench:
    """What mutants are explored on, and the machine without any, against which findings are held."""

    def __init__(self, machine: Machine, terms: Terms, resources: Resources, stack: ExitStack) -> None:
        assert terms.seconds is not None
        self.limit = terms.seconds
        self._machine = machine
        self._terms = terms
        self._resources = resources
        self._stack = stack
        self._shop: Workshop | None = None
        self._vms = resources.vms or fitting(machine)

    def key(self, mutant: Mutant) -> str:
        """Of what is explored with this mutant."""
        if not isinstance(mutant, Patch):
            return target_hash(self._machine, [mutant.name])
        kernel = self._machine.kernel
        return target_hash(replace(self._machine, kernel=replace(kernel, key=key_of(kernel, mutant))), ())

    def trial(self, mutant: Mutant) -> Trial:
        """Explores with this mutant until it is found, or the time is over."""
        nothing = Trial(
            mutant.name, self.key(mutant), self._terms.seed, self.limit, self._vms,
            accelerator(self._resources.cache).name.upper(), Outcome.UNKNOWN,
        )  # fmt: skip
        try:
            with self._sick(mutant) as (machine, terms):
                return self._explored(mutant, machine, terms, nothing)
        except (UsageError, BuildError) as error:
            return replace(nothing, reason=error.message)

    @contextmanager
    def _sick(self, mutant: Mutant) -> Iterator[tuple[Machine, Terms]]:
        """The machine with the mutant, and how that is explored."""
        if not isinstance(mutant, Patch):
            yield (
                self._machine,
                replace(self._terms, wrong=(mutant.name,), bindings=self._terms.bindings or _DRIVER_BINDINGS),
            )
            return
        if self._shop is None:
            cache, progress = self._resources.cache, self._resources.progress
            self._shop = self._stack.enter_context(workshop(self._machine.kernel, cache=cache, progress=progress))
        with self._shop.mutated(mutant) as kernel:
            machine = replace(self._machine, kernel=kernel)
            try:
                yield machine, replace(self._terms, bindings=self._terms.bindings or DRIVERS)
            finally:
                forget(machine, cache=self._resources.cache)

    def _explored(self, mutant: Mutant, machine: Machine, terms: Terms, nothing: Trial) -> Trial:
        place = kept_for("power", machine.kernel.name, machine.kernel.flavour) / mutant.name
        shutil.rmtree(place, ignore_errors=True)  # what is known of before would be found first
        begun = time.monotonic()
        failure: HarnessError | None = None
        with self._resources.lab(shared(self._machine, self._vms + 1)) as healthy, Store(place) as store:
            wanted = _Wanted(replace(terms, wrong=()), self.limit, healthy, self._resources)
            try:
                explore(terms, machine, self._resources, store, purpose=wanted)
            except HarnessError as error:
                failure = error
            totals = wanted.totals or tell(store).total
        trial = replace(
            nothing, whole=round(time.monotonic() - begun, 1), programs=totals.programs, operations=totals.operations
        )
        found = wanted.finding
        if found is not None:
            program = replace(found.program, title=f"Found by exploring: {title_of(mutant)}.")
            return replace(
                trial, outcome=Outcome.FOUND, seconds=found.seconds, steps=len(found.program.steps),
                shown=found.shown, runs=found.runs, symptom=str(found.symptom), binding=found.symptom.binding,
                program=f"{render(program)}# {found.symptom}\n",
            )  # fmt: skip
        if failure is None:
            return replace(trial, outcome=Outcome.MISSED, seconds=trial.whole)
        trivial = isinstance(failure, VMFailure) and not totals.units
        return replace(trial, outcome=Outcome.TRIVIAL if trivial else Outcome.UNKNOWN, reason=failure.message)


@dataclass
class _Wanted:
    """What shows the mutant: a program that passes in clean VMs of `healthy`. Remembers the finding with it."""

    terms: Terms
    limit: float
    healthy: Lab
    resources: Resources
    finding: Finding | None = None
    totals: Totals | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)  # of the lab

    def is_worth(self, suspicion: Finding) -> bool:
        return self._passes(suspicion, suspicion.found, 1)

    def is_enough(self, finding: Finding, totals: Totals) -> bool:
        if not finding.shown or finding.seconds > self.limit:
            return False
        if not self._passes(finding, finding.program, finding.runs):
            return False
        self.finding, self.totals = finding, totals
        return True

    def _passes(self, finding: Finding, program: Program, runs: int) -> bool:
        with self.lock, self.resources.progress.step("holding a program against the kernel without the bug"):
            try:
                result = not_passed(self.terms, program, finding.symptom.binding, self.healthy, runs)
            finally:
                self.healthy.discard()
        if result is None:
            return True
        self.resources.progress.say(
            f"not only with the bug: {finding.symptom}; without: {result.status} {result.reason}"
        )
        return False
