# SPDX-License-Identifier: GPL-2.0-only
"""Clauses for people: a list, all of one, and a page of all."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence

from harness.conformance.clauses import Area, Clause, Contract, alternatives
from harness.model.allowed import RECORDED
from harness.model.rules import FEATURES

_NO_PROGRAM = "(no program)"
_ONLY_TEST = "(a test, no program)"


def listed(contract: Contract, chosen: Collection[Clause], *, width: int) -> Iterator[str]:
    """The clauses that are `chosen`, by area, in lines of `width`."""
    for area, mine in _by_area(contract, chosen):
        yield f"{area.name}: {area.title}"
        for clause in mine:
            mark = "" if clause.programs else f" {_ONLY_TEST if clause.tests else _NO_PROGRAM}"
            head = f"  {clause.id:14}"
            yield from textwrap.wrap(
                f"{clause.says}{mark}",
                max(width, len(head) + 20),
                initial_indent=head,
                subsequent_indent=" " * len(head),
                break_long_words=False,
            )
        yield ""
    yield _count(chosen)


def explained(clause: Clause, titles: Mapping[str, str], *, command: str) -> Iterator[str]:
    """Everything about a clause. `titles`: what each program promises. `command`: how this program is started."""
    yield f"{clause.id}  {clause.says}"
    if clause.duty:
        yield "    a duty of the driver"
    yield from _entry("source", [f"{each.file} {each.where}, Linux {each.kernels}" for each in clause.source])
    yield f"    holds on: {', '.join(clause.bindings)}"
    if clause.since:
        yield f"    since: Linux {clause.since}"
    yield from _entry("needs", list(map(spelt_out, clause.needs)))
    yield from _entry("programs", [f"{name:28}  {titles.get(name, '')}".rstrip() for name in clause.programs])
    yield from _entry("tests", list(clause.tests))
    yield from _entry("deviations", [f"{name}: {RECORDED[name].summary}" for name in clause.deviations])
    yield from _entry("broken on purpose by", [f"--wrong {name}" for name in clause.wrong])
    if clause.lacks:
        yield f"    not shown: {clause.lacks}"
    if clause.no_program:
        yield f"    no program: {clause.no_program}"
    if clause.programs:
        yield f"    run: {command} run --clause {clause.id}"


def spelt_out(need: str) -> str:
    """One of `Clause.needs` in words."""
    return " or ".join(FEATURES[name] for name in alternatives(need))


def _entry(head: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"    {head}:"
        yield from (f"        {line}" for line in lines)


def markdown(contract: Contract, chosen: Collection[Clause], titles: Mapping[str, str]) -> Iterator[str]:
    """A page of the clauses that are `chosen`."""
    yield "# What HMM promises"
    yield ""
    yield f"{_count(chosen)}. Each has its source, and the programs that prove it."
    for area, mine in _by_area(contract, chosen):
        yield ""
        yield f"## {area.name}: {area.title}"
        for clause in mine:
            yield ""
            yield f"### {clause.id}"
            yield ""
            yield escaped(clause.says)
            yield ""
            yield from _details(clause, titles)


def _details(clause: Clause, titles: Mapping[str, str]) -> Iterator[str]:
    if clause.duty:
        yield "- a duty of the driver"
    for source in clause.source:
        yield f"- source: `{source.file}` {escaped(source.where)}, Linux {source.kernels}"
    where = [f"holds on {', '.join(clause.bindings)}"]
    if clause.since:
        where.append(f"since Linux {clause.since}")
    where += [escaped(spelt_out(need)) for need in clause.needs]
    yield f"- {'; '.join(where)}"
    for name in clause.programs:
        yield f"- program `{name}`: {escaped(titles.get(name, ''))}"
    for name in clause.tests:
        yield f"- test `{name}`"
    for name in clause.deviations:
        yield f"- deviation `{name}`: {escaped(RECORDED[name].summary)}"
    if clause.wrong:
        yield f"- broken on purpose by {', '.join(f'`--wrong {name}`' for name in clause.wrong)}"
    if clause.lacks:
        yield f"- not shown: {escaped(clause.lacks)}"
    if clause.no_program:
        yield f"- no program: {escaped(clause.no_program)}"


def escaped(text: str) -> str:
    """`text` as Markdown that means itself."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|" else letter for letter in text)


def _by_area(contract: Contract, chosen: Collection[Clause]) -> Iterator[tuple[Area, list[Clause]]]:
    ids = {clause.id for clause in chosen}
    for area in contract.areas:
        mine = [clause for clause in area.clauses if clause.id in ids]
        if mine:
            yield area, mine


def _count(chosen: Collection[Clause]) -> str:
    bare = sum(not clause.programs and not clause.tests for clause in chosen)
    tested = sum(not clause.programs and bool(clause.tests) for clause in chosen)
    return (
        f"{len(chosen)} clauses"
        + (f", {tested} proven by a test, not by a program" if tested else "")
        + (f", {bare} without a program" if bare else "")
    )
