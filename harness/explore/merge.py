# SPDX-License-Identifier: GPL-2.0-only
"""Several explorations of the same kernel become one: the shards of a CI matrix, or of a batch system.

Killed in the middle and begun again, or done twice, it comes to the same.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UsageError
from harness.explore.findings import Finding, Store, UnitDone, existing
from harness.program.text import ProgramSyntaxError, parse


@dataclass
class Merged:
    """What was new. `again`: units that were there already, or in two of those that were merged."""

    units: int = 0
    programs: int = 0
    operations: int = 0
    again: int = 0
    situations: int = 0
    findings: int = 0
    errors: int = 0


def merge(into: Path, sources: Sequence[Path]) -> Merged:
    """Adds to the exploration of `into`, which may be none yet, what is in `sources`, which stay as they are.

    Raises `UsageError` if a source is none, somebody explores there, or they are not of the same kernel and module.
    """
    for source in sources:
        if source.resolve() == into.resolve():
            raise UsageError(f"{source} is what the others are to be merged into")
    merged = Merged()
    with ExitStack() as stack:
        stores = [stack.enter_context(existing(source)) for source in sources]
        _check([*([Store(into)] if into.exists() else []), *stores])
        whole = stack.enter_context(Store(into))
        _add_corpora(whole, stores, merged)
        for store in stores:
            _add_findings(whole, store, merged)
        _add_units(whole, stores, merged)
    return merged


def _check(stores: Iterable[Store]) -> None:
    """What is under test tells explorations apart that have nothing in common; so does what was found there."""
    first: tuple[Store, set[str], set[tuple[str, str]]] | None = None
    for store in stores:
        units = list(store.units())
        targets = {unit.target for unit in units}
        known: list[UnitDone | Finding] = [*units, *store.findings()]
        kernels = {(each.kernel, each.flavour) for each in known if each.kernel}
        if first is None:
            first = (store, targets, kernels)
            continue
        for mine, others in ((targets, first[1]), (kernels, first[2])):
            if mine and others and mine.isdisjoint(others):
                raise UsageError(
                    f"{store.path} and {first[0].path} are not of the same kernel, flavour, module and mistakes: "
                    f"{_named(mine)}, {_named(others)}",
                    hint="merge those of each kernel by themselves",
                )
        first = (first[0], first[1] | targets, first[2] | kernels)


def _named(kernels: set[str] | set[tuple[str, str]]) -> str:
    return " and ".join(sorted(each if isinstance(each, str) else " ".join(each) for each in kernels))


def _add_units(whole: Store, stores: Sequence[Store], merged: Merged) -> None:
    """Last, in the order in which they ended: who is killed before adds them again, and counts nothing twice."""
    known = {unit.place for unit in whole.units()}
    for unit in sorted((unit for store in stores for unit in store.units()), key=lambda unit: unit.ended):
        if unit.place in known:
            merged.again += 1
            continue
        known.add(unit.place)
        whole.add_unit(unit)
        merged.units += 1
        merged.programs += unit.programs
        merged.operations += unit.operations
    told = set(whole.errors())
    for error in sorted((error for store in stores for error in store.errors()), key=lambda error: error.at):
        if error not in told:
            told.add(error)
            whole.add_error(error)
            merged.errors += 1


def _add_corpora(whole: Store, stores: Sequence[Store], merged: Merged) -> None:
    """Of each program the situations that nobody met before it."""
    met = {situation for line in whole.meetings() for situation in line.situations}
    for line in sorted((line for store in stores for line in store.meetings()), key=lambda line: line.at):
        fresh = [each for each in line.situations if each not in met]
        if not fresh:
            continue
        try:
            program = parse(line.program, file="corpus", name="corpus")
        except ProgramSyntaxError:  # the vocabulary has changed
            continue
        met.update(fresh)
        merged.situations += len(fresh)
        whole.add_program(program, fresh, line.at)


def _add_findings(whole: Store, store: Store, merged: Merged) -> None:
    """Of two with the same symptom the one that says more."""
    known = {finding.symptom: finding for finding in whole.findings()}
    for finding in store.findings():
        before = known.get(finding.symptom)
        if before is None:
            merged.findings += 1
        elif _worth(finding) <= _worth(before):
            continue
        whole.add_finding(_moved(finding, whole))


def _worth(finding: Finding) -> tuple[bool, float, int]:
    """Somebody has looked into it; how sure it is; how small."""
    return (finding.runs > 0, finding.shown / max(finding.runs, 1), -len(finding.program.steps))


def _moved(finding: Finding, whole: Store) -> Finding:
    """The command that replays it names the place where it is now."""
    place = whole.place(finding.symptom)
    old = rf"'[^']*findings/{finding.symptom.id}/{place.name}'|\S*findings/{finding.symptom.id}/{place.name}"
    new = shlex.quote(str(place))
    explanation = tuple(re.sub(old, lambda _: new, line) for line in finding.explanation)
    return replace(finding, explanation=explanation)
