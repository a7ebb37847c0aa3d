# SPDX-License-Identifier: GPL-2.0-only
"""A self-contained HTML page of how races went: timeline.html with timeline.css and timeline.js in it."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report import single, timeline_svg, timeline_text
from harness.report.timeline import Timeline
from harness.report.timeline_svg import escaped


def render(timelines: Sequence[Timeline]) -> str:
    """The page."""
    style, script = (single.part("harness.report", f"timeline.{kind}") for kind in ("css", "js"))
    sections = "\n".join(_section(each, f"race-{number}") for number, each in enumerate(timelines, 1))
    return single.page(
        single.part("harness.report", "timeline.html"),
        {"body": sections or "<p>Nothing was found, so there is nothing to draw.</p>"},
        title=escaped(_title(timelines)),
        style=style,
        script=script,
    )


def _title(timelines: Sequence[Timeline]) -> str:
    if len(timelines) == 1:
        return f"{timelines[0].verdict} {timelines[0].name}"
    return f"{len(timelines)} races"


def _section(timeline: Timeline, name: str) -> str:
    facts = [("Promise", [timeline.promise])] if timeline.promise else []
    facts += [("Clause" if timeline.good else "Broken", [f"{rule.id}: {rule.says}"]) for rule in timeline.rules]
    facts += [("Schedule", [timeline.schedule]), ("Before", list(timeline.before))]
    facts += [("Note", [timeline.remark])] if timeline.remark else []
    facts += [("Replay", [timeline.replay])] if timeline.replay else []
    text = "\n".join(map(escaped, timeline_text.render(timeline)))
    heading = f"<b>{escaped(timeline.verdict)}</b> {escaped(timeline.name)} <small>{escaped(timeline.where)}</small>"
    return "\n".join(
        [
            f'<section class="{"good" if timeline.good else "bad"}" aria-labelledby="{name}">',
            f'<h2 id="{name}">{heading}</h2>',
            f'<p class="reason">{escaped(timeline.reason)}</p>' if timeline.reason else "",
            "<dl>",
            *(f"<dt>{head}</dt>{''.join(map(_fact, lines))}" for head, lines in facts),
            "</dl>",
            f"<figure>{timeline_svg.render(timeline, f'{name}-picture')}</figure>",
            "<details><summary>As text, to paste into a mail</summary>",
            f'<pre tabindex="0">{text}</pre>',
            "</details>",
            "</section>",
        ]
    )


def _fact(text: str) -> str:
    return f"<dd>{escaped(text)}</dd>"
