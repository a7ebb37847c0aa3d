# SPDX-License-Identifier: GPL-2.0-only
"""The forms of a report: how each is made from a run, and how its file is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from harness.report import files, html, jsonlines, junit, ktap, standings
from harness.report.results import Run


@dataclass(frozen=True)
class Form:
    """A form of a report. `file`: its name in a directory of reports."""

    render: Callable[[Run], str]
    file: str


FORMS = {
    "json": Form(jsonlines.render, "results.jsonl"),
    "ktap": Form(ktap.render, "results.ktap"),
    "junit": Form(junit.render, "junit.xml"),
    "html": Form(html.render, "report.html"),
    "conformance": Form(standings.render, "conformance.md"),
}


def write(run: Run, form: str, path: Path) -> None:
    """Writes `run` as `form`, one of FORMS, to `path`; "-" is standard output.

    Raises HarnessError if it cannot be written.
    """
    files.write(path, FORMS[form].render(run))
