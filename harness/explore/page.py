# SPDX-License-Identifier: GPL-2.0-only
"""The page of an exploration: one file with no script in it, which asks for nothing, for looking meanwhile, too."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness.compare import Verdict
from harness.errors import HarnessError
from harness.explore.chart import Mark, growth, lasting
from harness.explore.findings import Finding, Store, Totals
from harness.explore.story import Curve, Story, tell
from harness.printable import plain
from harness.program.text import render as as_text
from harness.report import files, single

_REFRESH = '<meta http-equiv="refresh" content="30">'
_VERDICTS = tuple(str(each) for each in Verdict)


def publisher(path: Path, place: Path, say: Callable[[str], None]) -> Callable[[bool], None]:
    """Writes the page of the exploration in `place` to `path` whenever it is called, in the end with True.

    Raises `HarnessError` at once if it cannot; what goes wrong later is no reason to end, but said, once.
    """
    files.check(path)
    told = False

    def publish(last: bool) -> None:
        nonlocal told
        try:
            files.write(path, render(tell(Store(place)), live=not last))
        except HarnessError as error:
            if not told:
                say(error.message)
            told = True

    return publish


def render(story: Story, *, live: bool = False) -> str:
    """The whole page; one that is `live` is loaded again now and then."""
    style = single.part("harness.report", "page.css") + single.part("harness.explore", "page.css")
    body = "\n".join([_head(story, live=live), _charts(story), _errors(story), _findings(story), _shares(story)])
    template = single.part("harness.explore", "page.html")
    head = _REFRESH + single.NO_ICON if live else single.NO_ICON
    return single.page(template, {"body": body}, title=_text(_heading(story)), style=style, head=head)


def _text(text: str) -> str:
    """What others wrote, as text and nothing else."""
    return html.escape(plain(text))


def _heading(story: Story) -> str:
    count = len(story.findings)
    what = "Nothing was found" if not count else f"{count:,} finding{'s' if count > 1 else ''}"
    return f"{what} in {story.total.operations:,} operations"


def _head(story: Story, *, live: bool) -> str:
    total = story.total
    facts = [
        *story.kernels,
        *([f"wrong on purpose: {', '.join(story.wrong)}"] if story.wrong else []),
        f"{total.programs:,} programs",
        f"{lasting(story.seconds)} of exploring",
        f"{total.operations / max(story.seconds, 1e-3):,.0f} operations/s",
        *([f"{_clock(story.began)} to {_clock(story.ended)} UTC"] if story.ended else []),
        f"seed {', '.join(map(str, story.seeds[:8]))}{', …' if story.seeds[8:] else ''}",
    ]
    shown = "".join(f"<span>{_text(each)}</span>" for each in facts)
    if live:
        now = _clock(datetime.now(UTC).timestamp())
        shown += f'<span class="alarm">still exploring, as of {now} UTC</span>'
    return f'<header class="top"><h1>{_text(_heading(story))}</h1><p class="facts">{shown}</p></header>'


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}"


def _charts(story: Story) -> str:
    marks = [
        (story.found[finding.symptom.id], number, plain(f"{finding.symptom}"), f"#{finding.symptom.id}")
        for number, finding in enumerate(story.findings, 1)
    ]
    curves: tuple[tuple[str, str, Curve, Sequence[Mark]], ...] = (
        ("Situations of the model", "situations", story.situations, ()),
        ("Operations", "operations", story.operations, ()),
        ("Findings", "found", story.seen, marks),
    )
    figures = [
        f'<figure id="chart-{name}"><figcaption>{title} <b>{curve[-1][1] if curve else 0:,}</b></figcaption>'
        f"{growth(title, curve, story.seconds, marked)}"
        "</figure>"
        for title, name, curve, marked in curves
    ]
    return f'<section class="charts" aria-label="Over time">{"".join(figures)}</section>'


def _errors(story: Story) -> str:
    if not story.errors:
        return ""
    lines = "".join(f"<li><b>{_text(each.what)}</b> {_text(each.reason)}</li>" for each in story.errors)
    return (
        '<section class="errors ERROR"><h2>Without a verdict</h2>'
        f"<p>The next exploration does these again.</p><ul>{lines}</ul></section>"
    )


def _findings(story: Story) -> str:
    if not story.findings:
        return ""
    rows = "".join(_row(story, finding) for finding in story.findings)
    return (
        '<section id="findings"><h2>Findings</h2><table class="findings"><thead><tr><th>Status<th>What shows'
        "<th>Binding<th>Shown<th>Steps<th>After</tr></thead>"
        f"<tbody>{rows}</tbody></table>{''.join(map(_finding, story.findings))}</section>"
    )


def _row(story: Story, finding: Finding) -> str:
    symptom = finding.symptom
    return (
        f'<tr class="{symptom.status}"><td><span class="tone">{symptom.status}</span>'
        f'<td><a href="#{symptom.id}">{_text(symptom.words)}</a><td>{_text(symptom.binding)}'
        f"<td>{_shown(finding)}<td>{len(finding.program.steps)}<td>{lasting(story.found[symptom.id])}</tr>"
    )


def _shown(finding: Finding) -> str:
    return f"{finding.shown} of {finding.runs}" if finding.runs else "not looked into"


def _finding(finding: Finding) -> str:
    symptom = finding.symptom
    facts = [
        f"{finding.kernel} {finding.flavour}",
        symptom.binding,
        f"shown in {finding.shown} of {finding.runs} clean VMs" if finding.runs else "nobody has looked into it yet",
        f"unit {finding.unit}",
        *([f"wrong on purpose: {', '.join(finding.wrong)}"] if finding.wrong else []),
    ]
    wide = "" if finding.found.steps == finding.program.steps else _folded("As it was drawn", as_text(finding.found))
    before = "".join(_folded(f"Before it: {number}", as_text(each)) for number, each in enumerate(finding.before, 1))
    return (
        f'<article class="{symptom.status}" id="{symptom.id}"><h3><span class="tone">{symptom.status}</span> '
        f'{_text(symptom.words)}</h3><p class="facts">{"".join(f"<span>{_text(each)}</span>" for each in facts)}</p>'
        f'<pre class="program">{_text(as_text(finding.program).rstrip())}</pre>'
        f"<pre>{_text(chr(10).join(finding.explanation))}</pre>{wide}{before}</article>"
    )


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{_text(title)}</summary><pre>{_text(text.rstrip())}</pre></details>"


def _shares(story: Story) -> str:
    shares = [*story.shares.items(), *([("all", story.total)] if len(story.shares) > 1 else [])]
    verdicts = [name for name in _VERDICTS if story.total.verdicts[name]]
    head = "".join(
        f"<th>{name}" for name in ("Units", "Programs", "Operations", "VM time", "Operations/s", *verdicts)
    )
    rows = "".join(_share(name, share, verdicts) for name, share in shares)
    return (
        '<section><h2>What ran</h2><table class="numbers"><thead><tr><th>Binding'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></section>"
    )


def _share(name: str, share: Totals, verdicts: list[str]) -> str:
    numbers = [
        f"{share.units:,}",
        f"{share.programs:,}",
        f"{share.operations:,}",
        lasting(share.seconds),
        f"{share.operations / max(share.seconds, 1e-3):,.0f}",
        *(f"{share.verdicts[each]:,}" for each in verdicts),
    ]
    return f"<tr><th>{_text(name)}{''.join(f'<td>{each}' for each in numbers)}</tr>"
