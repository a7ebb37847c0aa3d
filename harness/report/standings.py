# SPDX-License-Identifier: GPL-2.0-only
"""What became of the clauses, for people: lines for the terminal, what changed between two kernels, and a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.compare import Verdict
from harness.conformance import clauses
from harness.conformance.describe import escaped
from harness.printable import one_line, some
from harness.report.conformance import Change, Conformance, Finding, Standing, conformance
from harness.report.planned import Case
from harness.report.results import Run

# To be looked at, in this order; the others are as they should be, or nobody asked.
_TOLD = (Standing.BROKEN, Standing.OPEN, Standing.DEVIATING)
_FEW = 12  # clauses, of which each has a line
_MOST_PLACES = 6  # that one line names


def summary(found: Sequence[Conformance]) -> Iterator[str]:
    """How many clauses are what on each kernel and binding, or each clause if they are few; then what is not well."""
    found = [each for each in found if each.findings]
    if not found:
        return
    asked = list(found[0].findings.values())
    if len(asked) <= _FEW:
        for finding in asked:
            yield f"{finding.clause.id}: {finding.clause.says}"
            for each in found:
                mine = each.findings[finding.clause.id]
                why = f": {one_line(mine.reason)}" if mine.reason else f" by {_programs(mine)}"
                yield f"    {_place(each)}: {mine.standing}{why}"
        return
    yield from _counts(found)
    for standing, finding, where in _to_look_at(found):
        yield ""
        yield f"{standing.upper()} {finding.clause.id}: {finding.clause.says}"
        yield f"    {one_line(finding.reason)}"
        yield f"    on {where}"


def _programs(finding: Finding) -> str:
    ran = [case.program for case in finding.cases if case.result and case.result.status is not Verdict.SKIP]
    return f"{len(ran)} programs" if len(ran) != 1 else ran[0]


def _place(each: Conformance) -> str:
    return f"{each.kernel} {each.flavour}, {each.binding}"


def _counts(found: Sequence[Conformance]) -> Iterator[str]:
    shown = [standing for standing in Standing if any(each.counts[standing] for each in found)]
    width = max(len("clauses"), *(len(_place(each)) for each in found))
    yield "  ".join(["clauses".ljust(width), *shown])
    for each in found:
        yield "  ".join([_place(each).ljust(width), *(str(each.counts[word]).rjust(len(word)) for word in shown)])


def _to_look_at(found: Sequence[Conformance]) -> Iterator[tuple[Standing, Finding, str]]:
    """What is not well, each reason once: how it stands, the first that was found so, and all places."""
    for standing in _TOLD:
        first: dict[tuple[str, str], Finding] = {}
        places: dict[tuple[str, str], list[str]] = {}
        for each in found:
            for name, finding in each.findings.items():
                if finding.standing is standing:
                    first.setdefault((name, finding.reason), finding)
                    places.setdefault((name, finding.reason), []).append(_place(each))
        for key, where in places.items():
            yield standing, first[key], some(where, _MOST_PLACES, "; ")


def changed(changes: Sequence[Change], before: str, after: str) -> Iterator[str]:
    """What changed from the kernel `before` to the kernel `after`: what changed alike is together."""
    count = len({change.before.clause.id for change in changes})
    yield f"from {before} to {after}: {count} {'clause stands' if count == 1 else 'clauses stand'} differently"
    one_flavour = len({change.flavour for change in changes}) == 1
    groups: dict[tuple[str, ...], dict[str, list[Change]]] = {}
    ranks = list(Standing)
    for change in sorted(
        changes, key=lambda each: (ranks.index(each.after.standing), ranks.index(each.before.standing))
    ):
        was, now = change.before, change.after
        group = groups.setdefault((was.standing, _bare(was), now.standing, _bare(now)), {})
        group.setdefault(was.clause.id, []).append(change)
    for (was_standing, was_reason, now_standing, now_reason), found in groups.items():
        yield ""
        yield f"{was_standing} -> {now_standing}"
        for kernel, reason in ((before, was_reason), (after, now_reason)):
            if reason:
                yield f"    {kernel}: {reason}"
        for name, mine in found.items():
            places = dict.fromkeys(each.binding if one_flavour else f"{each.flavour} {each.binding}" for each in mine)
            yield f"    {name:14}{mine[0].before.clause.says} ({', '.join(places)})"


def _bare(finding: Finding) -> str:
    """The reason without the program that it is of: others have the same one."""
    programs = {case.program for case in finding.cases}
    program, _, rest = one_line(finding.reason).partition(": ")
    return rest if program in programs else one_line(finding.reason)


def render(run: Run) -> str:
    """A page of Markdown: every clause on every kernel and binding, and what is not well."""
    contract = clauses.load()
    found = [each for each in conformance(run, contract) if each.findings]
    lines = [
        "# What the kernels keep of HMM's contract",
        "",
        escaped(one_line(f"{run.started}: {' '.join(run.command)}")),
        "",
    ]
    if not found:
        return "\n".join([*lines, "Nothing was run."]) + "\n"
    shown = [standing for standing in Standing if any(each.counts[standing] for each in found)]
    lines += _row(["kernel", "binding", *shown]) + _row(["---"] * (len(shown) + 2))
    for each in found:
        lines += _row([f"{each.kernel} {each.flavour}", each.binding, *(str(each.counts[word]) for word in shown)])
    for standing, finding, where in _to_look_at(found):
        clause = finding.clause
        lines += ["", f"## {standing.upper()} {clause.id}", "", escaped(clause.says), ""]
        lines += [f"- {escaped(one_line(finding.reason))}", f"- on {escaped(where)}"]
        lines += [
            f"- {escaped(one_line(case.result.replay))}"
            for case in finding.cases
            if case.result and _shows(case, finding)
        ]
    for area in contract.areas:
        mine = [clause for clause in area.clauses if clause.id in found[0].findings]
        if not mine:
            continue
        heads = ["clause", "promise", *(f"{each.kernel} {each.flavour} {each.binding}" for each in found)]
        lines += ["", f"## {area.name}: {area.title}", "", *_row(heads), *_row(["---"] * len(heads))]
        for clause in mine:
            lines += _row([clause.id, clause.says, *(each.findings[clause.id].standing for each in found)])
    return "\n".join(lines) + "\n"


def _shows(case: Case, finding: Finding) -> bool:
    """Whether the program is the one that the finding names."""
    return finding.reason.startswith(f"{case.program}: ")


def _row(cells: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(escaped(one_line(cell)) for cell in cells)} |"]
