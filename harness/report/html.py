# SPDX-License-Identifier: GPL-2.0-only
"""One self-contained HTML page of a run: page.html with page.css, page.js and the run as JSON in it.

What others wrote (kernel logs, names) reaches the page as JSON, from which the script makes text nodes, or escaped.
The policy in the page allows its own script and style, by their hash, and nothing else: no request leaves it.
"""

from __future__ import annotations

import html
import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.compare import Verdict
from harness.conformance import clauses
from harness.defaults import PEER
from harness.errors import ExitCode
from harness.report import single
from harness.report.conformance import conformance
from harness.report.planned import Case, Column, columns
from harness.report.results import Run

NOT_RUN = "NOT RUN"
_MOST_LOG_LINES = 1000  # of one result; the last ones
_MOST_LINE = 2000  # characters
_MOST_TEXTS = 48 << 20  # characters of all logs and explanations: browsers read that in a second or two
_MOST_LISTED = 100  # results, without a script
_MEANINGS = {code.value: code.meaning for code in ExitCode}


def render(run: Run) -> str:
    """The whole page."""
    found = columns(run)
    counts = Counter(_status(case) for column in found for case in column.cases)
    style, script = (single.part("harness.report", name) for name in ("page.css", "page.js"))
    return single.page(
        single.part("harness.report", "page.html"),
        {"data": _json(_data(run, found)), "plain": _plain(run, found, counts)},
        title=html.escape(_heading(counts)),
        style=style,
        script=script,
        head=single.part("harness.report", "icon.html"),
    )


def _json(data: object) -> str:
    """JSON that ends no element and begins no comment, whatever is in it."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _status(case: Case) -> str:
    return str(case.result.status) if case.result else NOT_RUN


def _heading(counts: Counter[str]) -> str:
    """The verdict in one line, which is the title of the page, too."""
    total = counts.total()
    bad = total - sum(counts[status] for status in (Verdict.PASS, Verdict.SKIP, Verdict.DEVIATION))
    if bad:
        return f"{bad:,} of {total:,} results {'needs' if bad == 1 else 'need'} attention"
    if counts[Verdict.PASS] + counts[Verdict.DEVIATION]:
        return f"All {total:,} results are good" if total > 1 else "The result is good"
    return "Nothing was tested"


def _data(run: Run, found: Sequence[Column]) -> dict[str, Any]:
    """What page.js reads. `results`: a list for each program, of an entry for each column or null."""
    programs = list(dict.fromkeys(case.program for column in found for case in column.cases))
    cases = [{case.program: case for case in column.cases} for column in found]
    targets = {(column.kernel, column.flavour): column.target for column in found}
    places = {key: place for place, key in enumerate(targets)}
    writer = _Writer()
    return {
        "heading": _heading(Counter(_status(case) for column in found for case in column.cases)),
        "version": run.version,
        "started": run.started,
        "command": shlex.join(run.command),
        "wrong": run.wrong,
        "timeout": run.timeout,
        "end": asdict(run.end) | {"meaning": _MEANINGS.get(run.end.exit_code, "")} if run.end else None,
        "targets": [
            {"kernel": kernel, "flavour": flavour} | (asdict(target) if target else {})
            for (kernel, flavour), target in targets.items()
        ],
        "columns": [{"target": places[column.kernel, column.flavour], "binding": column.binding} for column in found],
        "programs": [
            {"name": name, "title": source.title, "text": source.text}
            if (source := run.programs.get(name))
            else {"name": name, "title": "", "text": ""}
            for name in programs
        ],
        "results": [[writer.case(column[name]) if name in column else None for column in cases] for name in programs],
        "peer": PEER,
        **_contract(run),
    }


def _contract(run: Run) -> dict[str, Any]:
    """The clauses that the run can say something of, each with a standing and the place of its reason per column."""
    found = conformance(run, clauses.load())
    judged = next((each.findings for each in found if each.findings), {})
    reasons: dict[str, int] = {}
    shown = []
    for name, finding in judged.items():
        clause = finding.clause
        if not run.clauses and not run.programs.keys() >= set(clause.programs):
            continue
        entry = {
            "id": clause.id,
            "says": clause.says,
            "duty": clause.duty,
            "source": [str(source) for source in clause.source],
            "programs": clause.programs,
            "lacks": clause.lacks,
            "unproven": clause.no_program,
            "stands": [
                [str(each.findings[name].standing), reasons.setdefault(each.findings[name].reason, len(reasons))]
                if name in each.findings
                else None
                for each in found
            ],
        }
        shown.append({key: value for key, value in entry.items() if value})
    if not any("programs" in clause for clause in shown):
        shown = []
    return {"clauses": shown, "reasons": list(reasons), "asked": list(run.clauses)}


class _Writer:
    """Makes cases short; knows how much text there is already."""

    def __init__(self) -> None:
        self._left = _MOST_TEXTS

    def case(self, case: Case) -> dict[str, Any]:
        """A case without what is empty."""
        result = case.result
        if result is None:
            return {"status": NOT_RUN, "reason": case.why}
        entry: dict[str, Any] = {
            "status": result.status,
            "reason": result.reason,
            "seconds": result.seconds,
            "replay": result.replay,
            "left_out": result.left_out,
            "step": result.step,
            "details": result.details,
            "tables": [asdict(each) for each in result.tables],
            "reports": [
                {"kind": each.kind, "title": each.title, "lines": self._lines(each.lines)} for each in result.reports
            ],
            "log": self._lines(result.log[-_MOST_LOG_LINES:]),
            "cut": max(0, len(result.log) - _MOST_LOG_LINES),
            "explanation": [] if case.good else self._lines(result.explanation),
        }
        return {name: value for name, value in entry.items() if value or (name == "step" and value is not None)}

    def _lines(self, lines: Sequence[str]) -> list[str]:
        kept = []
        for number, line in enumerate(lines):
            if self._left < len(line):
                kept.append(f"... (the page is full: {len(lines) - number} more lines are in the JSON report)")
                break
            self._left -= len(line)
            kept.append(line if len(line) <= _MOST_LINE else f"{line[:_MOST_LINE]} ... (cut)")
        return kept


def _plain(run: Run, found: Sequence[Column], counts: Counter[str]) -> str:
    """What a reader without JavaScript sees: the counts, and what needs attention."""
    bad = [(column, case) for column in found for case in column.cases if not case.good]
    lines = [
        f"<h1>{html.escape(_heading(counts))}</h1>",
        "<p>The matrix, the details and the filters need JavaScript; this is what matters without it.</p>",
        "<ul>",
        *(f"<li>{html.escape(status)}: {count}</li>" for status, count in counts.items()),
        "</ul>",
        f"<p>Started {html.escape(run.started)}: <code>{html.escape(' '.join(run.command))}</code></p>",
    ]
    for column, case in bad[:_MOST_LISTED]:
        where = f"{case.program} on {column.kernel} {column.flavour}, {column.binding}"
        reason, replay = (case.result.reason, case.result.replay) if case.result else (case.why, "")
        lines.append(f"<h2>{html.escape(_status(case))} {html.escape(where)}</h2><p>{html.escape(reason)}</p>")
        if replay:
            lines.append(f"<pre>{html.escape(replay)}</pre>")
    if len(bad) > _MOST_LISTED:
        lines.append(f"<p>... and {len(bad) - _MOST_LISTED} more.</p>")
    return "\n".join(lines)
