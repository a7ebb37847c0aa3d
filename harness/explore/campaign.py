# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness explore`: programs that nobody wrote, on several VMs; what is suspicious is looked into.

A unit of work is some hundred programs: a function of the seed, its number, the programs that the exploration began
with, and what the kernel shows. What meets a situation that is new to the unit is varied further in it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random

from harness.compare import Verdict
from harness.errors import ExitCode, GuestError
from harness.explore.findings import Finding, Store, Symptom, UnitDone, symptom_of
from harness.explore.generate import Generator
from harness.explore.shrink import shrink
from harness.explore.situations import situations
from harness.matrix import Resources, shared
from harness.model.rules import rules_for
from harness.model.state import State
from harness.pool import dismiss
from harness.program.operations import Operation
from harness.program.program import Program
from harness.progress import Step
from harness.report.results import Result, exit_code
from harness.run import Plan, keys_of, run
from harness.target.cache import digest_of
from harness.target.lab import Lab
from harness.target.room import fitting
from harness.target.vm import Machine

_GENERATOR = "1"  # another one whenever the same seed draws other programs
_BATCH = 24  # programs that are drawn before the next are: they are sent together
_BATCHES = 8  # of a unit
_FRESH = 0.4  # of the programs of a unit that has something to vary
_SPOILING = 16  # one of so many units has programs after which another one needs a clean VM
_RUNS = 5  # of a suspicious program, each in a clean VM
_TELL_SECONDS = 0.5


@dataclass(frozen=True)
class Terms:
    """What is to be explored, and for how long: units, programs, or seconds, whichever ends first; None is no limit.

    `shard`: (i, n): of all units each n-th, from the one numbered i on.
    """

    seed: int
    bindings: Sequence[str]
    wrong: Sequence[str] = ()
    timeout: float = 30.0
    seconds: float | None = None
    programs: int | None = None
    operations: int | None = None
    shard: tuple[int, int] = (0, 1)
    command: Sequence[str] = ("hmm-harness",)

    def unit_binding(self, number: int) -> str:
        """Bindings take turns within a shard."""
        return self.bindings[number // self.shard[1] % len(self.bindings)]


@dataclass
class Totals:
    """What came of all units of an exploration so far, also those of before it was interrupted."""

    programs: int = 0
    operations: int = 0
    seconds: float = 0.0  # of VMs: two that work for a second are two
    verdicts: Counter[str] = field(default_factory=Counter)

    def add(self, done: UnitDone) -> None:
        """Counts one more unit."""
        self.programs += done.programs
        self.operations += done.operations
        self.seconds += done.seconds
        self.verdicts.update(done.verdicts)


@dataclass(frozen=True)
class Started:
    """What all units of this process begin with."""

    terms: Terms
    target: str
    corpus: tuple[Program, ...]
    corpus_hash: str
    met: frozenset[str]


def target_hash(machine: Machine, wrong: Sequence[str]) -> str:
    """The same for the same kernel, module, guest, vocabulary and deliberate mistakes."""
    return digest_of(_GENERATOR, *keys_of(machine), *wrong)[:16]


def explore(terms: Terms, machine: Machine, resources: Resources, store: Store) -> ExitCode:
    """Explores until the terms are fulfilled, or Ctrl-C; tells what it finds as it goes, and the totals in the end.

    `ExitCode.FAIL`, or what a worse symptom asks for, if anything was found or is still there. Raises `HarnessError`
    if no VM can be had.
    """
    target = target_hash(machine, terms.wrong)
    corpus, met = store.corpus()
    texts = [program.steps for program in corpus]
    started = Started(terms, target, tuple(corpus), digest_of(repr(texts))[:16], frozenset(met))
    campaign = _Campaign(started, machine, resources, store)
    for done in store.units():
        if (done.seed, done.target) == (terms.seed, target):
            campaign.count_before(done)
    return campaign.carry_out()


class _Campaign:
    """One exploration by one process: some workers with a VM each, and one place where all that they tell arrives."""

    def __init__(self, started: Started, machine: Machine, resources: Resources, store: Store) -> None:
        self._started = started
        self._terms = started.terms
        self._machine = machine
        self._resources = resources
        self._store = store
        self._totals = Totals()
        self._before: set[int] = set()  # units that are done
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._next = self._terms.shard[0]
        self._promised = 0  # programs of the units that are under way
        self._known: dict[Symptom, int] = {}  # how often it was seen
        self._met: set[str] = set(started.met)
        self._told: queue.SimpleQueue[_Told] = queue.SimpleQueue()
        self._bad: list[Verdict] = []

    def count_before(self, done: UnitDone) -> None:
        """A unit that was done before this process began."""
        self._before.add(done.number)
        self._totals.add(done)

    def carry_out(self) -> ExitCode:
        """See `explore`."""
        say = self._resources.progress.say
        vms = self._resources.vms or fitting(self._machine)
        machine = shared(self._machine, vms)
        again = " ".join([*self._terms.command, "explore", "--seed", str(self._terms.seed)])
        say(f"exploring with {vms} VMs; again, or on: {again}")
        if self._before:
            say(f"going on after {self._totals.programs} programs of before")
        with ExitStack() as stack:
            labs = [stack.enter_context(self._resources.lab(machine)) for _ in range(vms)]
            workers = [threading.Thread(target=self._attend, args=(lab,), daemon=True) for lab in labs]
            try:
                self._replay_known(labs[0])
                for worker in workers:
                    worker.start()
                with self._resources.progress.step("exploring") as step:
                    self._listen(len(workers), step)
            finally:
                self._stop.set()
                dismiss(workers, labs)
                self._tell_totals()
        return exit_code(self._bad or [Verdict.PASS])

    # What the main thread does

    def _replay_known(self, lab: Lab) -> None:
        """Failures of before come first."""
        for finding in self._store.findings():
            if finding.symptom.binding not in self._terms.bindings:
                continue
            if not finding.runs:
                self._known[finding.symptom] = 0
                self._tell_finding(
                    self._looked_into(finding.symptom, finding.found, finding.before, finding.unit, lab)
                )
                continue
            looked = _Looked(self._plan(finding.program, finding.symptom.binding), lab)
            shown = sum(each == finding.symptom for each in looked.runs(1))
            self._known[finding.symptom] = 0
            where = self._store.place(finding.symptom)
            if shown:
                self._bad.append(finding.symptom.status)
            self._resources.progress.say(f"{'still there' if shown else 'not there'}: {finding.symptom}  {where}")

    def _listen(self, workers: int, step: Step) -> None:
        failure: BaseException | None = None
        while workers:
            step.update(self._line())
            try:
                told = self._told.get(timeout=_TELL_SECONDS)
            except queue.Empty:
                continue
            for program, new in told.corpus:
                fresh = [each for each in new if each not in self._met]
                if fresh:
                    self._met.update(fresh)
                    self._store.add_program(program, fresh)
            if told.suspicion is not None:
                self._store.add_finding(told.suspicion)
            if told.finding is not None:
                self._tell_finding(told.finding)
            if told.unit is not None:  # last: whoever is killed before does it again, and loses nothing
                self._store.add_unit(told.unit)
                with self._lock:
                    self._totals.add(told.unit)
                    self._promised -= _BATCH * _BATCHES
            if told.ended:
                workers -= 1
            if told.error is not None:
                failure = told.error
                if not isinstance(failure, GuestError) or not workers:
                    raise failure
                self._resources.progress.say(f"one VM less: {failure}")

    def _tell_finding(self, finding: Finding) -> None:
        place = self._store.add_finding(finding)
        say = self._resources.progress.say
        self._bad.append(finding.symptom.status)
        say(f"found after {finding.seconds:.0f} s: {finding.symptom}")
        say(f"    {len(finding.program.steps)} steps, shown in {finding.shown} of {finding.runs} clean VMs: {place}")
        for line in finding.explanation:
            say(f"    {line}")

    def _line(self) -> str:
        spent = time.monotonic() - self._begun
        totals = self._totals
        return (
            f"{totals.programs} programs, {totals.operations} operations, {len(self._met)} situations, "
            f"{len(self._known)} findings, {spent:.0f} s"
        )

    def _tell_totals(self) -> None:
        totals = self._totals
        verdicts = ", ".join(f"{count} {name}" for name, count in sorted(totals.verdicts.items()))
        rate = totals.operations / totals.seconds if totals.seconds else 0.0
        print(
            f"{totals.programs} programs, {totals.operations} operations ({rate:.0f} a second and VM), "
            f"{len(self._met)} situations; {verdicts or 'nothing ran'}; "
            f"{len(self._known)} findings in {self._store.path}"
        )

    # What workers do

    def _attend(self, lab: Lab) -> None:
        error: BaseException | None = None
        try:
            while (number := self._take()) is not None:
                self._explore(number, lab)
        except BaseException as raised:  # noqa: BLE001  raised where somebody can act on it
            error = raised
        self._told.put(_Told(ended=True, error=None if self._stop.is_set() else error))

    def _take(self) -> int | None:
        """The number of the next unit; None if there is none."""
        terms = self._terms
        with self._lock:
            enough = (
                self._stop.is_set()
                or (terms.seconds is not None and time.monotonic() - self._begun > terms.seconds)
                or (terms.programs is not None and self._totals.programs + self._promised >= terms.programs)
                or (terms.operations is not None and self._totals.operations >= terms.operations)
            )
            if enough:
                return None
            while self._next in self._before:
                self._next += terms.shard[1]
            number = self._next
            self._next += terms.shard[1]
            self._promised += _BATCH * _BATCHES
            return number

    def _explore(self, number: int, lab: Lab) -> None:
        """One unit."""
        started, terms = self._started, self._terms
        binding = terms.unit_binding(number)
        lab.vm()
        begun = time.monotonic()
        unit = Unit(started, number, binding, lab)
        suspicious: list[tuple[Symptom, Program, tuple[Program, ...]]] = []
        for result, program, before in unit.results():
            symptom = symptom_of(result, program)
            if symptom is not None:
                suspicious.append((symptom, program, before))
        seconds = time.monotonic() - begun
        found = []
        for symptom, program, before in suspicious:
            with self._lock:
                self._known[symptom] = self._known.get(symptom, -1) + 1
                is_new = self._known[symptom] == 0
            found.append(symptom.id)
            if is_new:
                self._told.put(_Told(suspicion=self._suspicion(symptom, program, before, unit.name)))
                self._told.put(_Told(finding=self._looked_into(symptom, program, before, unit.name, lab)))
        done = UnitDone(
            terms.seed, number, binding, started.target, started.corpus_hash, unit.programs, unit.operations,
            round(seconds, 3), dict(unit.verdicts), len(unit.met - started.met), tuple(dict.fromkeys(found)),
        )  # fmt: skip
        self._told.put(_Told(unit=done, corpus=tuple(unit.corpus)))

    def _suspicion(self, symptom: Symptom, program: Program, before: tuple[Program, ...], unit: str) -> Finding:
        """What is known before anybody looks into it: the next exploration does, if this one is killed meanwhile."""
        kernel = self._machine.kernel
        return Finding(
            symptom, kernel.name, kernel.flavour, unit, 0, 0, program, program, ("nobody has looked into it yet",),
            tuple(self._terms.wrong), round(time.monotonic() - self._begun, 1), before,
        )  # fmt: skip

    def _looked_into(
        self, symptom: Symptom, program: Program, before: tuple[Program, ...], unit: str, lab: Lab
    ) -> Finding:
        """Is it seen in a clean VM, how often, and what is the smallest program that shows it?"""
        seconds = time.monotonic() - self._begun
        plan = self._plan(program, symptom.binding)
        looked = _Looked(plan, lab)
        shown = sum(each == symptom for each in looked.runs(_RUNS))
        smallest = program
        if shown:
            tries = 1 if shown == _RUNS else 3
            for clean in (False, True):  # what was seen in a VM that was not clean may not be seen in one that is
                smallest = shrink(program, partial(looked.first_showing, symptom, tries=tries, clean=clean))
                smallest = replace(smallest, name=str(self._store.place(symptom)), title=symptom.words)
                last = _Looked(replace(plan, programs=[smallest], tables=True), lab)
                again = sum(each == symptom for each in last.runs(_RUNS))
                if again:
                    break
            shown = again
            explanation = last.explanation
        else:
            explanation = ("not seen in a clean VM: it may take what ran before (before-*.hmm)",)
        kernel = self._machine.kernel
        return Finding(
            symptom, kernel.name, kernel.flavour, unit, shown, _RUNS, smallest, program, explanation,
            tuple(self._terms.wrong), round(seconds, 1), () if shown else before,
        )  # fmt: skip

    def _plan(self, program: Program, binding: str) -> Plan:
        terms = self._terms
        return Plan([program], [binding], terms.wrong, terms.timeout, terms.command, tables=False)


@dataclass(frozen=True)
class _Told:
    """What a worker tells."""

    unit: UnitDone | None = None
    corpus: tuple[tuple[Program, tuple[str, ...]], ...] = ()
    finding: Finding | None = None
    suspicion: Finding | None = None  # what is to be looked into, as it was seen
    ended: bool = False
    error: BaseException | None = None


class Unit:
    """The programs of one unit, drawn and run, batch by batch. `adapt` makes of what is drawn what is run."""

    def __init__(
        self,
        started: Started,
        number: int,
        binding: str,
        lab: Lab,
        *,
        adapt: Callable[[Program], Program] = lambda program: program,
    ) -> None:
        self.name = f"{started.terms.seed}/{number}"
        self.programs = 0
        self.operations = 0
        self.verdicts: Counter[str] = Counter()
        self.met: set[str] = set(started.met)
        self.corpus: list[tuple[Program, tuple[str, ...]]] = []
        self._started = started
        self._binding = binding
        self._lab = lab
        self._adapt = adapt
        self._random = Random(self.name)
        rules = rules_for(binding, lab.features())
        self._generator = Generator(rules, self._random, spoiling=number % _SPOILING == 0)
        self._pool = list(started.corpus)
        self._now: dict[str, None] = {}  # what the program at hand has met

    def results(self) -> Iterator[tuple[Result, Program, tuple[Program, ...]]]:
        """Each result, its program, and what ran in its VM before."""
        ran: list[Program] = []
        vm = self._lab.vm()
        for batch in range(_BATCHES):
            drawn = sorted(self._draw(batch), key=lambda program: program.spoils)
            programs = {program.name: program for program in drawn}
            plan = self._plan(list(programs.values()))
            for result in run(plan, self._lab, closing=batch == _BATCHES - 1):
                if self._lab.vm() is not vm:
                    vm, ran = self._lab.vm(), []
                program = programs.get(result.program)
                if program is None:  # the last word on one of an earlier batch
                    program = next((each for each in ran if each.name == result.program), None)
                    if program is None:
                        continue
                self._count(program, result)
                yield result, program, tuple(ran)
                ran.append(program)

    def _draw(self, batch: int) -> Iterator[Program]:
        random, pool = self._random, self._pool
        for index in range(_BATCH):
            name = f"explore/{self.name}/{batch * _BATCH + index}"
            if not pool or random.random() < _FRESH:
                program = self._adapt(self._generator.fresh(name))
            else:
                program = self._adapt(self._generator.variation(name, random.choice(pool), random.choice(pool)))
            if program.steps:
                yield program

    def _plan(self, programs: Sequence[Program]) -> Plan:
        terms = self._started.terms
        return Plan(
            programs, [self._binding], terms.wrong, terms.timeout, terms.command, notice=self._notice, tables=False
        )

    def _notice(self, state: State, operation: Operation) -> None:
        self._now.update(dict.fromkeys(situations(state, operation)))

    def _count(self, program: Program, result: Result) -> None:
        self.programs += 1
        self.operations += len(program.steps)
        self.verdicts[result.status.value] += 1
        new = tuple(each for each in self._now if each not in self.met)
        self._now.clear()
        if new and result.status.good:
            self.met.update(new)
            self._pool.append(program)
            self.corpus.append((program, new))


class _Looked:
    """Runs of programs, each begun in a clean VM."""

    def __init__(self, plan: Plan, lab: Lab) -> None:
        self.explanation: tuple[str, ...] = ()
        self._plan = plan
        self._lab = lab

    def runs(self, times: int) -> Iterator[Symptom | None]:
        """What the program of the plan shows, `times` times."""
        for _ in range(times):
            self._lab.discard()
            yield self._shown(self._plan)

    def first_showing(
        self, symptom: Symptom, candidates: Sequence[Program], *, tries: int, clean: bool
    ) -> int | None:
        """One after the other in one VM, until one shows `symptom`; with `clean`, again in a clean one."""
        for _ in range(tries):
            for index, result in self._results(candidates):
                if symptom_of(result, candidates[index]) != symptom:
                    continue
                if not clean:
                    return index
                self._lab.discard()
                if self._shown(replace(self._plan, programs=[candidates[index]])) == symptom:
                    return index
        return None

    def _results(self, candidates: Sequence[Program]) -> Iterator[tuple[int, Result]]:
        named = [replace(program, name=f"candidate/{number}") for number, program in enumerate(candidates)]
        for result in run(replace(self._plan, programs=named), self._lab):
            yield int(result.program.rpartition("/")[2]), result

    def _shown(self, plan: Plan) -> Symptom | None:
        """The last word counts: memory that was lost is found in the end."""
        symptom = None
        (program,) = plan.programs
        assert isinstance(program, Program)
        for result in run(plan, self._lab):
            found = symptom_of(result, program)
            if found is not None and symptom is None:
                symptom, self.explanation = found, result.explanation
        return symptom
