# SPDX-License-Identifier: GPL-2.0-only
"""`hmm-harness explore`: programs that nobody wrote, on several VMs; what is suspicious is looked into.

A unit of work is some hundred programs: a function of the seed, its number, the programs that the exploration began
with, and what the kernel shows. What meets a situation that is new to the unit is varied further in it.
"""

from __future__ import annotations

import queue
import shlex
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Protocol

from harness.compare import Verdict
from harness.errors import ExitCode, GuestError
from harness.explore.findings import Finding, GivenUp, Store, Symptom, Totals, UnitDone, symptom_of
from harness.explore.generate import Generator
from harness.explore.shrink import shrink
from harness.explore.situations import situations
from harness.matrix import Resources, shared
from harness.model.rules import rules_for
from harness.model.state import State
from harness.pool import dismiss
from harness.program.operations import Operation
from harness.program.program import Program
from harness.progress import Progress, Step
from harness.report.results import Result, exit_code
from harness.run import Plan, keys_of, run
from harness.target.cache import digest_of
from harness.target.lab import Lab
from harness.target.room import fitting
from harness.target.vm import Machine

_GENERATOR = "2"  # another one whenever the same seed draws other programs
_BATCH = 24  # programs that are drawn before the next are: they are sent together
_BATCHES = 8  # of a unit
_FRESH = 0.4  # of the programs of a unit that has something to vary
_SPOILING = 16  # one of so many units has programs after which another one needs a clean VM
_RUNS = 5  # of a suspicious program, each in a clean VM
_NO_VERDICT = frozenset({Verdict.ERROR, Verdict.INCONCLUSIVE})
_TELL_SECONDS = 0.5
_PUBLISH_SECONDS = 30.0


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


@dataclass(frozen=True)
class Started:
    """What all units of an exploration begin with. `begun`: by the clock, in seconds since 1970."""

    terms: Terms
    target: str
    corpus: tuple[Program, ...]
    corpus_hash: str
    met: frozenset[str]
    begun: float = field(default_factory=time.time)


def target_hash(machine: Machine, wrong: Sequence[str]) -> str:
    """The same for the same kernel, module, guest, vocabulary and deliberate mistakes."""
    return digest_of(_GENERATOR, *keys_of(machine), *wrong)[:16]


def begin(terms: Terms, target: str, store: Store) -> Started:
    """With what is known so far."""
    corpus, met = store.corpus()
    texts = [program.steps for program in corpus]
    return Started(terms, target, tuple(corpus), digest_of(repr(texts))[:16], frozenset(met))


def explore(
    terms: Terms,
    machine: Machine,
    resources: Resources,
    store: Store,
    publish: Callable[[bool], None] | None = None,
    *,
    purpose: Purpose | None = None,
) -> ExitCode:
    """Explores until the terms are fulfilled, or Ctrl-C; tells what it finds as it goes, and the totals in the end.

    `ExitCode.FAIL`, or what a worse symptom asks for, if anything was found or is still there. Raises `HarnessError`
    if no VM can be had, or programs come to no verdict in any. `publish` is called now and then, and with True in the
    end. With a `purpose` it ends when that is fulfilled.
    """
    started = begin(terms, target_hash(machine, terms.wrong), store)
    campaign = Campaign(started, store, resources.progress, publish, purpose=purpose)
    vms = resources.vms or fitting(machine)
    with ExitStack() as stack:
        labs = [stack.enter_context(resources.lab(shared(machine, vms))) for _ in range(vms)]
        return campaign.carry_out(_VMs(campaign, labs), f"with {vms} VMs", () if purpose is None else None)


class Purpose(Protocol):
    """What an exploration is for, if not for all that there is to find."""

    def is_worth(self, suspicion: Finding) -> bool:
        """Whether to look into it, which takes a minute; any thread asks. If not, others like it are asked about."""

    def is_enough(self, finding: Finding, totals: Totals) -> bool:
        """Whether this finding, which was looked into, is all of it; the totals are of what has run by then."""


class Crew(Protocol):
    """Those who do the work of a campaign, and tell it what comes of it."""

    def begin(self, known: Sequence[Finding]) -> int:
        """Starts to work, with what is `known` of before; how many are going to tell that they have ended."""

    def dismiss(self) -> None:
        """Returns when nobody works any more."""


class Campaign:
    """One exploration: it has the store, hands out units, and everything that its crew tells arrives here."""

    def __init__(
        self,
        started: Started,
        store: Store,
        progress: Progress,
        publish: Callable[[bool], None] | None = None,
        *,
        purpose: Purpose | None = None,
    ) -> None:
        self.started = started
        self.store = store
        self.stop = threading.Event()
        self._terms = started.terms
        self._progress = progress
        self._publish = publish
        self._published = 0.0
        self._purpose = purpose
        self._ran: dict[int, UnitDone] = {}  # units whose findings are being looked into
        self._totals = Totals()
        self._before: set[int] = set()  # units that are done
        self._begun = time.monotonic()
        self._lock = threading.Lock()
        self._next = self._terms.shard[0]
        self._promised = 0  # programs of the units that are under way
        self._known: set[Symptom] = set()
        self._met: set[str] = set(started.met)
        self._told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._statuses: list[Verdict] = []  # of what it ends with
        for done in store.units():
            if (done.seed, done.target) == (self._terms.seed, started.target) and done.number not in self._before:
                self._before.add(done.number)
                self._totals.add(done)
        self._programs_before, self._operations_before = self._totals.programs, self._totals.operations

    def carry_out(self, crew: Crew, how: str, options: Sequence[str] | None) -> ExitCode:
        """See `explore`. `how`: in words; `options`: of the command that does the same again, None if none does."""
        say = self._progress.say
        again = ""
        if options is not None:
            words = [*self._terms.command, "explore", *options, "--seed", str(self._terms.seed)]
            again = f"; again, or on: {shlex.join(words)}"
        say(f"exploring {how}{again}")
        if self._before:
            say(f"going on after {self._totals.programs} programs of before")
        try:
            known = [each for each in self.store.findings() if each.symptom.binding in self._terms.bindings]
            self._known.update(each.symptom for each in known)
            with self._progress.step("exploring") as step:
                self._listen(crew.begin(known), step)
        finally:
            self.stop.set()
            crew.dismiss()
            self._drain()
            self._show(last=True)
            self._tell_totals()
        tested = self._totals.verdicts.keys() - {*_NO_VERDICT, Verdict.SKIP}
        return exit_code([*self._statuses, *(Verdict.PASS for _ in tested)])

    # What those who work ask and tell

    def take(self) -> int | None:
        """The number of the next unit; None if there is none."""
        terms = self._terms
        with self._lock:
            enough = (
                self.stop.is_set()
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

    def is_new(self, symptom: Symptom) -> bool:
        """Whether nobody has seen it before; who is told so looks into it."""
        with self._lock:
            is_new = symptom not in self._known
            self._known.add(symptom)
            return is_new

    def is_worth(self, suspicion: Finding) -> bool:
        """Whether to look into what nobody has seen before."""
        if self._purpose is None or self._purpose.is_worth(suspicion):
            return True
        with self._lock:
            self._known.discard(suspicion.symptom)
        return False

    def tell(self, told: Told) -> None:
        """From any thread: it arrives in the order in which it is told."""
        self._told.put(told)

    # What the main thread does

    def _listen(self, workers: int, step: Step) -> None:
        while workers:
            step.update(self._line())
            self._show()
            try:
                told = self._told.get(timeout=_TELL_SECONDS)
            except queue.Empty:
                continue
            self._take_in(told)
            workers -= told.ended
            purpose, finding = self._purpose, told.finding
            if purpose is not None and finding is not None and purpose.is_enough(finding, self._so_far()):
                return
            if told.error is not None:
                if not isinstance(told.error, GuestError) or not workers:
                    raise told.error
                self._progress.say(f"one VM less: {told.error}")

    def _so_far(self) -> Totals:
        totals = Totals()
        totals.include(self._totals)
        for done in self._ran.values():
            totals.add(done)
        return totals

    def _drain(self) -> None:
        """What was told last is kept, too, whatever ends the exploration."""
        with suppress(queue.Empty):
            while True:
                self._take_in(self._told.get_nowait())

    def _take_in(self, told: Told) -> None:
        """The order matters: whoever is killed in between does a unit again, and loses nothing."""
        if told.ran is not None:
            self._ran[told.ran.number] = told.ran
        if told.suspicion is not None:
            self.store.add_finding(told.suspicion)
        for program, new in told.corpus:
            fresh = [each for each in new if each not in self._met]
            if fresh:
                self._met.update(fresh)
                self.store.add_program(program, fresh, time.time())
        if told.finding is not None:
            self._tell_finding(told.finding)
        if told.again is not None:
            self._tell_again(*told.again)
        if told.given_up is not None:
            self.store.add_error(told.given_up)
            self._statuses.append(Verdict.ERROR)
            self._progress.say(f"ERROR: {told.given_up.what}: {told.given_up.reason}")
        if told.unit is not None:
            self.store.add_unit(told.unit)
            self._ran.pop(told.unit.number, None)
            with self._lock:
                self._totals.add(told.unit)
        if told.unit is not None or (told.given_up is not None and told.given_up.number is not None):
            with self._lock:
                self._promised -= _BATCH * _BATCHES

    def _show(self, *, last: bool = False) -> None:
        if self._publish is not None and (last or time.monotonic() - self._published > _PUBLISH_SECONDS):
            self._publish(last)
            self._published = time.monotonic()

    def _tell_finding(self, finding: Finding) -> None:
        place = self.store.add_finding(finding)
        say = self._progress.say
        self._statuses.append(finding.symptom.status)
        say(f"found after {finding.seconds:.0f} s: {finding.symptom}")
        say(f"    {len(finding.program.steps)} steps, shown in {finding.shown} of {finding.runs} clean VMs: {place}")
        for line in finding.explanation:
            say(f"    {line}")

    def _tell_again(self, finding: Finding, shown: bool) -> None:
        self._statuses.append(finding.symptom.status if shown else Verdict.PASS)
        where = self.store.place(finding.symptom)
        self._progress.say(f"{'still there' if shown else 'not there'}: {finding.symptom}  {where}")

    def _line(self) -> str:
        spent = max(time.monotonic() - self._begun, 1e-3)
        totals = self._totals
        return (
            f"{totals.programs} programs ({(totals.programs - self._programs_before) / spent:.1f}/s), "
            f"{totals.operations} operations ({(totals.operations - self._operations_before) / spent:.0f}/s), "
            f"{len(self._met)} situations, {len(self._known)} findings"
        )

    def _tell_totals(self) -> None:
        totals = self._totals
        verdicts = ", ".join(f"{count} {name}" for name, count in sorted(totals.verdicts.items()))
        rate = totals.operations / totals.seconds if totals.seconds else 0.0
        print(
            f"{totals.programs} programs, {totals.operations} operations ({rate:.0f} a second and VM), "
            f"{len(self._met)} situations; {verdicts or 'nothing ran'}; "
            f"{len(self._known)} findings in {self.store.path}"
        )


@dataclass(frozen=True)
class Told:
    """What those who work tell.

    `ran`: a unit whose findings are to be looked into; `unit`: one that is done. `suspicion`: what nobody has looked
    into; `again`: whether it is still there.
    """

    unit: UnitDone | None = None
    ran: UnitDone | None = None
    corpus: tuple[tuple[Program, tuple[str, ...]], ...] = ()
    finding: Finding | None = None
    suspicion: Finding | None = None
    again: tuple[Finding, bool] | None = None
    given_up: GivenUp | None = None
    ended: bool = False
    error: BaseException | None = None


class _VMs:
    """A crew: threads of this process, each with a VM of this machine."""

    def __init__(self, campaign: Campaign, labs: Sequence[Lab]) -> None:
        self._campaign = campaign
        self._labs = labs
        self._workers: list[threading.Thread] = []

    def begin(self, known: Sequence[Finding]) -> int:
        """The first one looks at what is known, before anything else."""
        for lab in self._labs:
            mine = known if lab is self._labs[0] else ()
            self._workers.append(threading.Thread(target=self._attend, args=(lab, mine), daemon=True))
        for worker in self._workers:
            worker.start()
        return len(self._workers)

    def dismiss(self) -> None:
        dismiss(self._workers, self._labs)

    def _attend(self, lab: Lab, known: Sequence[Finding]) -> None:
        campaign = self._campaign
        error: BaseException | None = None
        try:
            for finding in known:
                if finding.runs:
                    campaign.tell(Told(again=(finding, is_shown(campaign.started.terms, finding, lab))))
                else:
                    campaign.tell(Told(finding=self._looked_into(finding, lab)))
            while (number := campaign.take()) is not None:
                self._explore(number, lab)
        except BaseException as raised:  # noqa: BLE001  raised where somebody can act on it
            error = raised
        campaign.tell(Told(ended=True, error=None if campaign.stop.is_set() else error))

    def _explore(self, number: int, lab: Lab) -> None:
        """One unit; what it found is looked into at once."""
        campaign = self._campaign
        explored = explore_unit(campaign.started, number, lab)
        campaign.tell(Told(ran=explored.done))
        for suspicion in explored.suspicions:
            if campaign.is_new(suspicion.symptom) and campaign.is_worth(suspicion):
                campaign.tell(Told(suspicion=suspicion))
                campaign.tell(Told(finding=self._looked_into(suspicion, lab)))
        done = replace(explored.done, ended=round(time.time(), 1))
        campaign.tell(Told(unit=done, corpus=explored.corpus))

    def _looked_into(self, suspicion: Finding, lab: Lab) -> Finding:
        campaign = self._campaign
        return look_into(campaign.started.terms, suspicion, str(campaign.store.place(suspicion.symptom)), lab)


# The work itself: functions of what is known, and of what the kernel shows


@dataclass(frozen=True)
class Explored:
    """What came of a unit. `suspicions`: a finding for each symptom, into which nobody has looked yet."""

    done: UnitDone
    corpus: tuple[tuple[Program, tuple[str, ...]], ...]
    suspicions: tuple[Finding, ...]


def explore_unit(started: Started, number: int, lab: Lab) -> Explored:
    """Draws and runs the programs of a unit.

    Raises `GuestError` if none of the first ones comes to a verdict; that a single one does not, is only counted.
    """
    terms = started.terms
    binding = terms.unit_binding(number)
    lab.vm()
    begun, clock = time.monotonic(), time.time()
    unit = Unit(started, number, binding, lab)
    suspicions: dict[str, Finding] = {}
    for result, program, before in unit.results():
        if unit.programs >= _BATCH and unit.verdicts.keys() <= _NO_VERDICT:
            raise GuestError(
                f"none of {unit.programs} programs of unit {unit.name} came to a verdict; the last: {result.reason}",
                hint="`hmm-harness run` on the same kernel may tell more",
            )
        symptom = symptom_of(result, program)
        if symptom is None or symptom.id in suspicions:
            continue
        suspicions[symptom.id] = Finding(
            symptom, lab.kernel.name, lab.kernel.flavour, unit.name, 0, 0, program, program,
            ("nobody has looked into it yet",), tuple(terms.wrong), round(max(0.0, time.time() - started.begun), 1),
            before,
        )  # fmt: skip
    done = UnitDone(
        terms.seed, number, binding, started.target, started.corpus_hash, unit.programs, unit.operations,
        round(time.monotonic() - begun, 3), dict(unit.verdicts), len(unit.met - started.met), tuple(suspicions),
        round(clock, 1), round(time.time(), 1), lab.kernel.name, lab.kernel.flavour,
    )  # fmt: skip
    return Explored(done, tuple(unit.corpus), tuple(suspicions.values()))


def look_into(terms: Terms, suspicion: Finding, place: str, lab: Lab) -> Finding:
    """Is it seen in a clean VM, how often, and by what smallest program, which is going to be at `place`?"""
    symptom, program = suspicion.symptom, suspicion.found
    plan = _plan(terms, program, symptom.binding)
    looked = _Looked(plan, lab)
    shown = sum(each == symptom for each in looked.runs(_RUNS))
    smallest = program
    if shown:
        tries = 1 if shown == _RUNS else 3
        for clean in (False, True):  # what was seen in a VM that was not clean may not be seen in one that is
            smallest = shrink(program, partial(looked.first_showing, symptom, tries=tries, clean=clean))
            smallest = replace(smallest, name=place, title=symptom.words)
            last = _Looked(replace(plan, programs=[smallest], tables=True), lab)
            again = sum(each == symptom for each in last.runs(_RUNS))
            if again:
                break
        shown = again
        explanation = last.explanation
    else:
        explanation = ("not seen in a clean VM: it may take what ran before (before-*.hmm)",)
    return replace(
        suspicion, shown=shown, runs=_RUNS, program=smallest, explanation=explanation,
        before=() if shown else suspicion.before,
    )  # fmt: skip


def is_shown(terms: Terms, finding: Finding, lab: Lab) -> bool:
    """Whether the smallest program of a finding still shows it, in one run in a clean VM."""
    looked = _Looked(_plan(terms, finding.program, finding.symptom.binding), lab)
    return any(each == finding.symptom for each in looked.runs(1))


def not_passed(terms: Terms, program: Program, binding: str, lab: Lab, runs: int) -> Result | None:
    """The first result of a program that is none to be content with, of some runs, each in a clean VM."""
    for _ in range(runs):
        lab.discard()
        for result in run(_plan(terms, program, binding), lab):
            if not result.status.good:
                return result
    return None


def _plan(terms: Terms, program: Program, binding: str) -> Plan:
    return Plan([program], [binding], terms.wrong, terms.timeout, terms.command, tables=False)


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
