# SPDX-License-Identifier: GPL-2.0-only
"""Pages that are one file and ask for nothing: a template, and what is put in the place of each `<!--name-->`."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from importlib import resources

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # of names of files; no UTF-8 can hold it, no clipboard takes it
_MARK = re.compile("<!--([a-z]+)-->")


NO_ICON = '<link rel="icon" href="data:,">'


def part(package: str, name: str) -> str:
    """A file of ours."""
    return (resources.files(package) / name).read_text(encoding="utf-8")


def page(
    template: str,
    parts: Mapping[str, str],
    *,
    title: str,
    style: str,
    script: str | None = None,
    head: str = NO_ICON,
) -> str:
    """A page: frame.html, with `template` and its `parts` in it. `head`: more lines of that. `title` is escaped."""
    style = part("harness.report", "base.css") + style
    known = {"title": title, "script": script or ""}
    frame = {
        **known,
        "policy": html.escape(policy(style, script)),
        "style": style,
        "head": head,
        "content": filled(template, known | dict(parts)),
    }
    return filled(part("harness.report", "frame.html"), frame)


def policy(style: str, script: str | None = None) -> str:
    """Allows the page its own style and script, by their hash, and nothing else."""
    scripts = [] if script is None else [f"script-src {_hash(script)}"]
    styles = f"style-src {_hash(style)}"
    return "; ".join(
        ["default-src 'none'", "img-src data:", styles, *scripts, "base-uri 'none'", "form-action 'none'"]
    )


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The page. One pass: what is put in is not looked at."""
    page = _MARK.sub(lambda mark: parts.get(mark[1], mark[0]), template)
    return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", page)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
