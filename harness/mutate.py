# SPDX-License-Identifier: GPL-2.0-only
"""Would the programs notice? Each patch puts a bug into the kernel; a program that turns red kills the mutant."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from harness.compare import Verdict
from harness.conformance import clauses
from harness.errors import BuildError, ExitCode, HarnessError, UsageError
from harness.fates import PEER, PROGRAMS, Autopsy, Fate, Fates, Row, summary, table
from harness.matrix import Resources, run_machine
from harness.program.program import Program
from harness.program.text import render
from harness.report import files
from harness.report.results import Result, Target
from harness.run import Plan
from harness.target import upstream
from harness.target.cache import digest_of
from harness.target.crashes import damage
from harness.target.lab import prepare
from harness.target.mutant import Patch, Workshop, workshop
from harness.target.upstream import Totals
from harness.target.vm import Machine
from harness.target.watchdog import VMFailure

_RED = (Verdict.FAIL, Verdict.CRASHED, Verdict.TIMEOUT)
_PEER_SECONDS = 300.0
_PATIENCE = 4  # times what hmm-tests take on the healthy kernel, and some seconds
_MORE_SECONDS = 60.0


@dataclass(frozen=True)
class Books:
    """Where fates are kept: JSON lines in `store`, which with `resume` says what is known already, and a `table`."""

    store: Path | None = None
    table: Path | None = None
    resume: bool = False


@dataclass(frozen=True)
class _Bench:
    """What mutants are shown to. `healthy`: hmm-tests on the kernel without any patch; None to leave them out."""

    plan: Plan
    machine: Machine
    resources: Resources
    healthy: _Health | None


def main(
    kernel: tuple[str, str],
    patches: Sequence[Patch],
    plan: Plan,
    resources: Resources,
    *,
    peer: bool,
    books: Books | None = None,
) -> int:
    """Prints the fate of each mutant, with `peer` also by the kernel's own hmm-tests; an exit code.

    `ExitCode.FAIL` if one survived our programs that is not equivalent, `INFRASTRUCTURE` if the fate of one is
    unknown. Raises `HarnessError` if the programs do not pass without any patch, or the kernel cannot be mutated.
    """
    books = books or Books()
    if books.table:
        files.check(books.table)
    fates = Fates(books.store, resume=books.resume)
    machine = prepare(*kernel, cache=resources.cache, progress=resources.progress)
    # A mutant is booted once or twice: not worth saving. That it fails is enough: no second look.
    resources, plan = replace(resources, restore=False), replace(plan, tables=False)
    told: dict[str, dict[str, Autopsy]] = {patch.name: {} for patch in patches}
    with workshop(machine.kernel, cache=resources.cache, progress=resources.progress) as shop:
        suites = [PROGRAMS, PEER] if peer else [PROGRAMS]
        known = {patch.name: fates_that_hold(fates, shop.key(patch), plan) for patch in patches}
        if any(suite not in known[patch.name] for patch in patches for suite in suites):
            _require_green(plan, machine, resources)
        missing = peer and any(PEER not in known[patch.name] for patch in patches)
        healthy = _peer(machine, resources, _PEER_SECONDS) if missing else None
        bench = _Bench(plan, machine, resources, healthy)
        for number, patch in enumerate(patches, 1):
            name = f"{number:3}/{len(patches)} {patch.title}"
            for row in _fates_of(patch, shop, bench, known[patch.name]):
                if known[patch.name].get(row.suite) is not row and row.fate is not Fate.UNKNOWN:
                    fates.add(row)
                told[patch.name][row.suite] = row.autopsy
                resources.progress.say(f"{name}: {row.suite}: {row.autopsy} [{row.seconds:.0f} s]", to=sys.stdout)
            if books.table:
                page = table(kernel[0], [(each, told[each.name]) for each in patches], command="make mutants")
                files.write(books.table, page)
    return _verdict(patches, told, suites)


def _verdict(patches: Sequence[Patch], told: dict[str, dict[str, Autopsy]], suites: Sequence[str]) -> int:
    """Prints how many of what, and returns the exit code."""
    for suite in suites:
        print(f"{suite}: {summary([told[patch.name][suite].fate for patch in patches if suite in told[patch.name]])}")
    ours = {patch: told[patch.name][PROGRAMS].fate for patch in patches}
    if Fate.UNKNOWN in ours.values():
        return ExitCode.INFRASTRUCTURE
    survived = any(fate is Fate.SURVIVED and not patch.equivalent for patch, fate in ours.items())
    return ExitCode.FAIL if survived else ExitCode.PASS


def fates_that_hold(fates: Fates, key: str, plan: Plan) -> dict[str, Row]:
    """By suite, what was found of a mutant and holds still: our driver is taken to do what it did."""
    known = {suite: row for suite in (PROGRAMS, PEER) if (row := fates.get(key, suite)) is not None}
    if PROGRAMS in known and known[PROGRAMS].by != programs_digest(plan, known[PROGRAMS].autopsy):
        del known[PROGRAMS]
    return known


def programs_digest(plan: Plan, found: Autopsy) -> str:
    """A digest of the programs by which a fate is known."""
    texts = [render(each) for each in _programs(plan) if not found.program or each.name == found.program]
    return digest_of(*texts, *plan.bindings)[:16]


def _fates_of(patch: Patch, shop: Workshop, bench: _Bench, known: dict[str, Row]) -> Generator[Row, None, None]:
    """What is known of a mutant, and what is found out now: a row for each suite."""
    suites = [PROGRAMS, PEER] if bench.healthy is not None else [PROGRAMS]
    if all(suite in known for suite in suites):
        yield from known.values()
        return
    key = shop.key(patch)

    def row(suite: str, found: Autopsy, begun: float) -> Row:
        by = programs_digest(bench.plan, found) if suite == PROGRAMS else ""
        seconds = round(time.monotonic() - begun, 1)
        return Row(
            patch.name, key, suite, found.fate, found.program, found.binding, found.reason, by=by, seconds=seconds
        )

    begun = time.monotonic()
    try:
        with shop.mutated(patch) as mutant:
            sick = replace(bench, machine=replace(bench.machine, kernel=mutant))
            begun = time.monotonic()
            ours = known.get(PROGRAMS) or row(PROGRAMS, _show(patch, sick), begun)
            yield ours
            if PEER in known:
                yield known[PEER]
            elif sick.healthy is not None:
                begun = time.monotonic()
                yield row(PEER, _show_peer(sick, sick.healthy, trivial=ours.fate is Fate.TRIVIAL), begun)
    except (UsageError, BuildError) as error:
        yield row(PROGRAMS, Autopsy(Fate.UNKNOWN, reason=error.message), begun)


def _show(patch: Patch, bench: _Bench) -> Autopsy:
    """What becomes of a mutant by the programs, those first that are about what it breaks."""
    programs = suspects_first(patch, bench.plan)
    return autopsy(run_machine(replace(bench.plan, programs=programs), bench.machine, bench.resources))


def suspects_first(patch: Patch, plan: Plan) -> list[Program]:
    """The programs of `plan`: first those of the clauses that `patch` says it breaks, then those of their areas."""
    contract = clauses.load()
    broken = [contract.find(name) for name in patch.breaks]
    areas = {clause.area for clause in broken}
    near = [clause for clause in contract.clauses.values() if clause.area in areas]
    order = {name: place for place, name in enumerate(clauses.programs_of([*broken, *near]))}
    return sorted(_programs(plan), key=lambda program: order.get(program.name, len(order)))


def _programs(plan: Plan) -> list[Program]:
    return [each for each in plan.programs if isinstance(each, Program)]


def _require_green(plan: Plan, machine: Machine, resources: Resources) -> None:
    with closing(run_machine(plan, machine, replace(resources, restore=True))) as told:
        for each in told:
            if isinstance(each, Result) and each.status in (*_RED, Verdict.ERROR, Verdict.INCONCLUSIVE):
                raise HarnessError(
                    f"{each.program} on {each.binding} is {each.status} without any patch: {each.reason}",
                    hint="leave it out by naming programs, or mend it: mutants are told by what passes otherwise",
                )


def autopsy(told: Generator[Target | Result, None, None]) -> Autopsy:
    """The fate of a mutant by what its run tells; ends the run as soon as it is known."""
    unknown: Autopsy | None = None
    try:
        for each in told:
            if not isinstance(each, Result):
                continue
            if each.status in _RED:
                return Autopsy(Fate.KILLED, each.program, each.binding, each.reason)
            if each.status in (Verdict.ERROR, Verdict.INCONCLUSIVE):
                unknown = unknown or Autopsy(Fate.UNKNOWN, each.program, each.binding, each.reason)
    except VMFailure as failure:
        return Autopsy(Fate.TRIVIAL, reason=failure.message)
    except HarnessError as error:
        return Autopsy(Fate.UNKNOWN, reason=error.message)
    finally:
        told.close()
    return unknown or Autopsy(Fate.SURVIVED)


@dataclass(frozen=True)
class _Health:
    """How hmm-tests end on a kernel. `said`: what that complained of. `seconds`: from the boot to the end."""

    totals: Totals
    said: frozenset[str]
    seconds: float


def _peer(machine: Machine, resources: Resources, timeout: float) -> _Health:
    program = upstream.build(machine.kernel)
    begun = time.monotonic()
    with resources.progress.step("running hmm-tests"), resources.lab(machine) as lab:
        totals = upstream.run(lab.vm(), program, timeout=timeout)
        said = frozenset(crash.title for crash in damage(lab.vm().console.splitlines()))
    return _Health(totals, said, time.monotonic() - begun)


def _show_peer(bench: _Bench, healthy: _Health, *, trivial: bool) -> Autopsy:
    """What becomes of a mutant by the kernel's own hmm-tests; what the kernel says meanwhile counts as well."""
    if trivial:
        return Autopsy(Fate.TRIVIAL, reason="it does not boot")
    try:
        found = _peer(bench.machine, bench.resources, healthy.seconds * _PATIENCE + _MORE_SECONDS)
    except VMFailure as failure:
        return Autopsy(Fate.KILLED, PEER, reason=failure.message)
    except HarnessError as error:
        return Autopsy(Fate.UNKNOWN, PEER, reason=error.message)
    if found.totals.failed > healthy.totals.failed:
        reason = f"{found.totals.failed} cases fail instead of {healthy.totals.failed}"
        return Autopsy(Fate.KILLED, PEER, reason=reason)
    if found.said - healthy.said:
        return Autopsy(Fate.KILLED, PEER, reason=sorted(found.said - healthy.said)[0])
    return Autopsy(Fate.SURVIVED)
